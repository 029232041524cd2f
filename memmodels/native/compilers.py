"""Compiler processes: several kernels are compiled at once, on all cores, and not in this process.

Each thread of a `CompilerPool` owns one process. Processes are started when there is work for them, and end with this one.
"""

from __future__ import annotations

import atexit
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, wait
from itertools import count
from queue import PriorityQueue
from threading import Lock, Thread
from time import monotonic
from typing import NamedTuple

log = logging.getLogger(__name__)

MOST_PROCESSES = 4
"""A compiler process takes about 250 MB."""

_SILENT_SECONDS, _SECONDS_BETWEEN = 3.0, 5.0
"""Seconds that a process waits for compilers before it says so, and then until it says so again."""

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


class CompilationFailed(RuntimeError):
    """A kernel that cannot be compiled: a defect of the program."""


class CompilerPool:
    """Compiles kernels in other processes. What is waited for goes before what will be needed later.

    Args:
        keep: Called with name and object file of each kernel.
    """

    def __init__(self, keep: Callable[[str, bytes], None]) -> None:
        self._keep = keep
        self._lock = Lock()
        self._queue: PriorityQueue[tuple[bool, int, str, Request]] = PriorityQueue()
        self._numbers = count()
        self._results: dict[str, Future[bytes | None]] = {}
        self._started: set[str] = set()
        self._idle = 0
        self._threads = 0
        self._processes: list[subprocess.Popen[bytes]] = []
        self._silent_seconds = _SILENT_SECONDS
        self._total, self._done = 0, 0

    def compile(self, name: str, request: Request) -> bytes | None:
        """Return the object file of a kernel; None if no process can compile it.

        Args:
            name: Under which the object file is kept.
            request: What to compile.
        """
        result = self._submit(name, request, later=False)
        try:
            while not result.done():
                began = monotonic()
                wait((result,), self._silent_seconds)
                self._silent_seconds -= monotonic() - began
                if self._silent_seconds <= 0:
                    self._announce()
            return result.result()
        finally:
            with self._lock:
                self._results.pop(name, None)
                self._started.discard(name)

    def _announce(self) -> None:
        """Say how far compiling is."""
        self._silent_seconds = _SECONDS_BETWEEN
        log.warning("Compiling machine code for this processor, once: %d of %d kernels are ready.", self._done, self._total)

    def prepare(self, name: str, request: Request) -> Future[bytes | None]:
        """Compile a kernel that will be needed later, when nothing else is to be done."""
        return self._submit(name, request, later=True)

    def _submit(self, name: str, request: Request, later: bool) -> Future[bytes | None]:
        with self._lock:
            if name not in self._results:
                self._results[name] = Future()
                self._total += 1
            if name not in self._started:
                self._queue.put((later, next(self._numbers), name, request))
                if self._idle < self._queue.qsize() and self._threads < _count_processes():
                    self._threads += 1
                    Thread(target=self._work, daemon=True).start()
            return self._results[name]

    def _work(self) -> None:
        """Compile what is in the queue, one request after another."""
        process: subprocess.Popen[bytes] | None = None
        while True:
            with self._lock:
                self._idle += 1
            _, _, name, request = self._queue.get()
            with self._lock:
                self._idle -= 1
                if name in self._started:
                    continue
                self._started.add(name)
            try:
                if process is None or process.poll() is not None:
                    process = self._start()
                code = None if process is None else _ask(process, request)
                if code is not None:
                    self._keep(name, code)
                self._results[name].set_result(code)
            except BaseException as error:  # the thread that waits raises it
                self._results[name].set_exception(error)
            self._done += 1

    def _start(self) -> subprocess.Popen[bytes] | None:
        """Start a process; None where this system or interpreter starts none."""
        if not sys.executable:
            return None
        command = [sys.executable, "-c", _START.format(path=sys.path)]
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
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
    """Return how many processes compile at once: one for each core that this process may use, but few."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_PROCESSES)
