"""Compiler processes: several kernels are compiled at once, on all cores, and not in this process.

Each thread of a `CompilerPool` owns one process. Processes are started when there is work for them, and end with this one.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from itertools import count
from queue import PriorityQueue
from threading import Lock, Thread
from time import monotonic, sleep
from typing import NamedTuple

from weakcell.memmodels.cached_code import cache_folders, load_code, save_code
from weakcell.memmodels.native.claims import Claims
from weakcell.memmodels.native.tile_permission import pass_tiles_on

log = logging.getLogger(__name__)

MOST_PROCESSES = 4
"""A compiler process takes about 250 MB."""

_SILENT_SECONDS, _SECONDS_BETWEEN = 3.0, 10.0
"""Seconds that a process waits for compilers before it says so, and then until it says so again."""

_CLAIM_SECONDS = 0.05
"""Seconds after which a process asks again whether another one has compiled a kernel."""

_START = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); import sys; sys.path[:] = {path!r};"
    "from weakcell.memmodels.native.compiler_process import serve; serve()"
)


class Request(NamedTuple):
    """What is to be compiled.

    Attributes:
        module: Name of the module that defines the function.
        function: Name of the function.
        kinds: Types of the arguments, from `arguments.flatten`.
        symbol: Name of the function in the object file.
    """

    module: str
    function: str
    kinds: tuple[object, ...]
    symbol: str


@dataclass(eq=False)
class Task:
    """A request, and the object file to be: None if no process can compile it."""

    name: str
    request: Request
    result: Future[bytes | None] = field(default_factory=Future)
    started: bool = False


class CompilationFailed(RuntimeError):
    """A kernel that cannot be compiled: a defect of the program."""


class CompilerPool:
    """Compiles kernels in other processes. What is waited for goes before what will be needed later.

    A kernel that another process of this user compiles at the moment is not compiled again.

    Args:
        kind: Kind of cached code, as of `save_code`; object files are kept there.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._claims: Claims | None = None
        self._lock = Lock()
        self._queue: PriorityQueue[tuple[bool, int, Task]] = PriorityQueue()
        self._numbers = count()
        self._tasks: dict[str, Task] = {}
        self._idle = 0
        self._threads = 0
        self._processes: list[subprocess.Popen[bytes]] = []
        self._silent_seconds = _SILENT_SECONDS
        self._total, self._done = 0, 0
        self._announced: tuple[int, int] | None = None

    def submit(self, name: str, request: Request, later: bool = False) -> Task:
        """Have a kernel compiled.

        Args:
            name: Under which the object file is kept.
            request: What to compile.
            later: Whether nobody waits for it yet.
        """
        with self._lock:
            if self._claims is None:
                *_, folder = None, *cache_folders(self._kind)
                self._claims = Claims(None if folder is None else folder.with_name(f"{self._kind}.lock"))
            if name not in self._tasks:
                self._tasks[name] = Task(name, request)
                self._total += 1
            task = self._tasks[name]
            if not task.started:
                self._queue.put((later, next(self._numbers), task))
                if self._idle < self._queue.qsize() and self._threads < _count_processes():
                    self._threads += 1
                    Thread(target=self._work, args=(self._claims,), daemon=True).start()
            return task

    def wait_for(self, task: Task) -> bytes | None:
        """Wait for an object file, and say how far compiling is."""
        try:
            while not task.result.done():
                began = monotonic()
                wait((task.result,), max(0.0, self._silent_seconds))
                self._silent_seconds -= monotonic() - began
                if self._silent_seconds <= 0:
                    self._announce()
            return task.result.result()
        finally:
            with self._lock:
                if self._tasks.get(task.name) is task:
                    del self._tasks[task.name]

    def _announce(self) -> None:
        """Say how far compiling is, if it is farther than last time."""
        self._silent_seconds = _SECONDS_BETWEEN
        if (self._done, self._total) == self._announced:
            return
        self._announced = self._done, self._total
        left = self._total - self._done  # what the network needs next is not known yet
        if not left:
            return
        log.warning("Compiling machine code for this processor, once: %d kernels ready, at least %d left.", self._done, left)

    def _work(self, claims: Claims) -> None:
        """Compile what is in the queue, one request after another."""
        process: subprocess.Popen[bytes] | None = None
        while True:
            with self._lock:
                self._idle += 1
            _, _, task = self._queue.get()
            with self._lock:
                self._idle -= 1
                if task.started:
                    continue
                task.started = True
            if not claims.acquire(task.name):
                sleep(_CLAIM_SECONDS)
                with self._lock:
                    task.started = False
                    self._queue.put((True, next(self._numbers), task))
                continue
            try:
                code = load_code(self._kind, task.name)  # another process may have compiled it since
                if code is None:
                    if process is None or process.poll() is not None:
                        process = self._start()
                    code = None if process is None else _ask(process, task.request)
                    if code is not None:
                        save_code(self._kind, task.name, code)
                self._done += 1
                task.result.set_result(code)
            except BaseException as error:  # the thread that waits raises it
                task.result.set_exception(error)
            finally:
                claims.release(task.name)

    def _start(self) -> subprocess.Popen[bytes] | None:
        """Start a process; None where this system or interpreter starts none."""
        if not sys.executable:
            return None
        path = [os.path.abspath(entry) for entry in sys.path]
        command = [sys.executable, "-P", "-c", _START.format(path=path)]
        try:  # in the root folder: Numba takes settings from a file in the current folder, which may be anybody's
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=os.path.abspath(os.sep), env=pass_tiles_on(os.environ)
            )
        except OSError as error:
            log.warning("No process for compiling can be started (%s). Numba compiles in this process, which takes longer.", error)
            return None
        if not self._processes:
            atexit.register(self.close)
        self._processes.append(process)
        return process

    def close(self) -> None:
        """End the processes; what they were doing is lost."""
        for process in self._processes:
            process.kill()
            process.wait()


def _ask(process: subprocess.Popen[bytes], request: Request) -> bytes | None:
    """Have a process compile something."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        pickle.dump(tuple(request), process.stdin)
        process.stdin.flush()
        code, error = pickle.load(process.stdout)
    except (OSError, EOFError, pickle.UnpicklingError):
        process.kill()
        error = f"the compiler process ended with status {process.wait()}"
    if error:
        raise CompilationFailed(f"{request.module}.{request.function} cannot be compiled: {error}")
    return bytes(code) if code is not None else None


def _count_processes() -> int:
    """Return how many processes compile at once: one for each core that this process may use, but few.

    A worker, of which there may be one for each core, has a single one.
    """
    if multiprocessing.parent_process() is not None:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_PROCESSES)
