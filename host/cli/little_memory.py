"""Little memory: a limit of the process is found before libraries are loaded, and running into it ends in a message.

NumPy raises MemoryError, but LLVM, OpenBLAS and the allocator of polars end the process. Under a limit, a command therefore runs
in a child process, and its parent says what happened. Libraries that reserve memory for each of their threads get one thread.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from traceback import clear_frames
from types import FrameType
from typing import Any

ROOMY = 4 << 30
"""From this limit on, in bytes, commands run as without one."""

NEEDED_MB = {"infer": 450, "inspect": 450, "train": 1500}
"""Megabytes of address space with which commands work on small networks; measured by tests/endurance/memory.py."""
_NEEDED_DATA_MB = {"train": 700, "characterize": 1500}
_OTHERS_NEED_MB, _OTHERS_NEED_DATA_MB = 1000, 450
_NO_LIMIT = 1 << 50

_SIGNALS = ("SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL", "SIGTRAP", "SIGKILL")
"""How libraries, and the system's out-of-memory killer, end a process."""
_WORDS = ("can't start new thread", "failed to map segment", "allocate memory", "bad_alloc", "out of memory",
          "threadpoolbuilderror", "could not find/load shared object file", "resource temporarily unavailable")  # fmt: skip
"""What libraries say when memory or a thread cannot be had, in small letters."""
_THREADS = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
    "TOKIO_WORKER_THREADS",
)
_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_SET_DEATH_SIGNAL, _ARENAS = 1, -8
"""PR_SET_PDEATHSIG of prctl, and M_ARENA_MAX of mallopt."""
_OPENBLAS_BYTES = 48 << 20
"""OpenBLAS takes a buffer of 32 MB when it is loaded."""


@cache
def find_limit() -> int | None:
    """Return the memory limit of this process in bytes, None without one: of address space, data or its control group.

    It is looked for once, at the start: when memory has run out, there may be too little to look for it.
    """
    try:
        import resource
    except ImportError:
        return None
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    limits = [limit for limit in limits if limit != resource.RLIM_INFINITY]
    for file in _list_group_limits():
        try:
            limits.append(int(file.read_text()))  # a huge number where there is no limit
        except (OSError, ValueError):  # no control groups, or "max"
            continue
    return min((limit for limit in limits if limit < _NO_LIMIT), default=None)


def _list_group_limits() -> list[Path]:
    """Return the files that may hold the limit of this process's control group, or of a group around it."""
    files = [_GROUPS / "memory.max", _GROUPS / "memory" / "memory.limit_in_bytes"]  # those of a container
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:
        return files
    for line in lines:
        number, controllers, path = line.split(":", 2)
        second = number == "0" and not controllers  # version 2 has one tree for all controllers
        if not second and "memory" not in controllers.split(","):
            continue
        folder, file = (_GROUPS, "memory.max") if second else (_GROUPS / "memory", "memory.limit_in_bytes")
        own = folder / path.lstrip("/")
        files += [group / file for group in (own, *own.parents) if group.is_relative_to(folder)]
    return files


def run_within(limit: int, command: Callable[[], None]) -> None:
    """Run the command line in a child process, with few threads; explain its end if memory ran out. Does not return.

    Args:
        limit: bytes that the process may use.
        command: runs the command line.
    """
    for name in _THREADS:
        os.environ.setdefault(name, "1")
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        _call_system("prctl", _SET_DEATH_SIGNAL, signal.SIGKILL)  # a parent that is killed takes the command with it
        _call_system("mallopt", _ARENAS, 2)  # each further arena reserves 64 MB
        watch_openblas()
        try:
            command()
        finally:
            os.write(tell, b".")  # Python ended it, not a library
        sys.exit(0)

    def pass_on(number: int, frame: FrameType | None) -> None:
        os.kill(child, number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, pass_on)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.set_blocking(told, False)
    by_library = not _read_if_any(told)
    if code == 0 or (code > 0 and not by_library):
        sys.exit(code)
    end = f"a library ended it with exit code {code}" if code > 0 else f"it was ended by {signal.Signals(-code).name}"
    if code > 0 or signal.Signals(-code).name in _SIGNALS:
        sys.stderr.write(f"Error: {explain(end, limit)}\n")
        sys.exit(1)
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)


def watch_openblas() -> None:
    """Let an import raise MemoryError if OpenBLAS would find no room for its buffer: it would ask for it for ever."""

    def check_room(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "import" or not str(arguments[0]).startswith(("numpy.", "scipy.")) or arguments[1] is None:
            return  # only extension modules have a file here
        try:
            mmap.mmap(-1, _OPENBLAS_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
        except OSError:
            raise MemoryError from None

    sys.addaudithook(check_room)


def _read_if_any(handle: int) -> bytes:
    try:
        return os.read(handle, 1)
    except BlockingIOError:
        return b""


def is_lack_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory, or room for a thread, could not be had."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any(isinstance(one, MemoryError) for one in causes):
        for one in causes:
            clear_frames(one.__traceback__)  # what they hold is given back: the message needs some memory, too
        return True
    return find_limit() is not None and any(word in str(one).lower() for one in causes for word in _WORDS)


def explain(found: str, limit: int | None = None) -> str:
    """Return the paragraph about a command that ran out of memory.

    Args:
        found: how it ended.
        limit: bytes that the process may use; None: `find_limit`.
    """
    name = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    limit = limit or find_limit()
    used = _peak_bytes()
    allowed = f"; it may use {limit >> 20:,} MB" if limit else ""
    at_most = f", and used {used >> 20:,} MB" if used else ""
    data = f"{_NEEDED_DATA_MB.get(name, _OTHERS_NEED_DATA_MB):,} MB"
    space = f"{NEEDED_MB.get(name, _OTHERS_NEED_MB):,} MB of address space, of which {data} are data"
    needed = f"{data} of data, and more of address space" if name == "characterize" else space
    asked = f"weakcell {name}".strip()
    return (
        f"{asked}: it ran out of memory ({found}){allowed}{at_most}. Allow more (ulimit -v, ulimit -d, the container's limit), or "
        f"take fewer images or threads: on a small network it needs {needed}."
    )


def _peak_bytes() -> int:
    try:
        import resource
    except ImportError:
        return 0
    kinds = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) * (1 if sys.platform == "darwin" else 1024)


def _call_system(function: str, *arguments: int) -> None:
    """Call a function of the C library that only some systems have."""
    import ctypes

    try:
        getattr(ctypes.CDLL(None), function)(*arguments)
    except (AttributeError, OSError, TypeError):
        return
