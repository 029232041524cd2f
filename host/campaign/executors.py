"""Who does the work: threads of this process, or processes of this machine. `cluster.py` has Dask.

An executor takes tasks as they come, never holds more than a few, and gives results back in any order. A process that dies has its
tasks done again by another; each task gives exactly one result.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from threading import Event
from typing import Protocol

from weakcell.host.campaign.tasks import Done, Perform, Task, perform
from weakcell.host.study.workload import Workload
from weakcell.memmodels.errors import WeakcellError

log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())

MOST_DEATHS = 10
"""A task that so many workers died of is not tried again."""

_AHEAD = 2
"""Tasks that a process is given at a time, so that it never waits for the next one."""


class WorkersLost(WeakcellError):
    """Workers that keep dying, or a cluster that is gone; every finished run is kept."""


class Executor(Protocol):
    """Does tasks."""

    @property
    def workers(self) -> int:
        """How many tasks are worked on at a time."""
        ...

    def run(self, tasks: Iterable[Task]) -> Iterator[Done]:
        """Results as they come; `tasks` is asked for the next one only when somebody is about to need it."""
        ...


def default_workers() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Threads:
    """Threads of this process: kernels release the interpreter's lock. `work` may be anything that performs a task."""

    work: Perform
    workers: int

    def run(self, tasks: Iterable[Task]) -> Iterator[Done]:
        stop = Event()

        def job(task: Task) -> Done | None:
            return None if stop.is_set() else self.work(task)

        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="trial")
        waiting: dict[Future[Done | None], int] = {}
        try:
            for number, task in enumerate(tasks):
                waiting[pool.submit(job, task)] = number
                if len(waiting) > 2 * self.workers:
                    yield from _finished(waiting)
            while waiting:
                yield from _finished(waiting)
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _finished(waiting: dict[Future[Done | None], int]) -> Iterator[Done]:
    """Wait for at least one, and give what is there in the order in which it was asked for."""
    ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in sorted(ready, key=waiting.__getitem__):
        del waiting[future]
        done = future.result()
        assert done is not None
        yield done


@dataclass
class _Worker:
    process: SpawnProcess
    link: Connection
    tasks: deque[tuple[int, Task]] = field(default_factory=deque)


@dataclass(frozen=True)
class Processes:
    """Processes of this machine, each sent the networks and data once. One that dies is replaced and its tasks are done again.

    A process ends as soon as this one is gone, however it went: its end of the pipe closes.
    """

    workloads: Mapping[str, Workload]
    workers: int
    on_start: Callable[[int], None] | None = None

    def run(self, tasks: Iterable[Task]) -> Iterator[Done]:
        shipment = pickle.dumps(dict(self.workloads), protocol=5)
        numbered = enumerate(tasks)
        again: deque[tuple[int, Task]] = deque()
        deaths: dict[int, int] = {}
        crew = [self._start(shipment) for _ in range(self.workers)]
        try:
            while True:
                for worker in crew:
                    _fill(worker, again, numbered)
                busy = [worker for worker in crew if worker.tasks]
                if not busy:
                    return
                for link in connection.wait([worker.link for worker in busy]):
                    worker = next(worker for worker in crew if worker.link is link)
                    try:
                        number, answer = worker.link.recv()
                    except (EOFError, OSError):
                        _bury(worker, again, deaths)
                        crew[crew.index(worker)] = self._start(shipment)
                        continue
                    assert worker.tasks.popleft()[0] == number
                    if isinstance(answer, BaseException):
                        raise answer
                    yield answer
        finally:
            for worker in crew:
                worker.link.close()
                worker.process.terminate()
            for worker in crew:
                worker.process.join()

    def _start(self, shipment: bytes) -> _Worker:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True, name="weakcell-worker")
        process.start()
        theirs.close()
        if self.on_start and process.pid:
            self.on_start(process.pid)
        try:
            ours.send_bytes(shipment)
        except OSError:
            log.info("process %s died while it was starting", process.pid)
        return _Worker(process, ours)


def _fill(worker: _Worker, again: deque[tuple[int, Task]], fresh: Iterator[tuple[int, Task]]) -> None:
    while len(worker.tasks) < _AHEAD:
        item = again.popleft() if again else next(fresh, None)
        if item is None:
            return
        worker.tasks.append(item)
        try:
            worker.link.send(item)
        except OSError:
            return


def _bury(worker: _Worker, again: deque[tuple[int, Task]], deaths: dict[int, int]) -> None:
    """Take back the tasks of a process that is gone; WorkersLost if the first of them has cost too many."""
    worker.process.join(5)
    worker.link.close()
    number, task = worker.tasks[0]
    deaths[number] = deaths.get(number, 0) + 1
    log.warning("process %s died (exit code %s)", worker.process.pid, worker.process.exitcode)
    if deaths[number] >= MOST_DEATHS:
        raise WorkersLost(
            f"Trials {task.trials[0]} … {task.trials[-1]} of cell {task.cell}",
            f"{MOST_DEATHS} processes died of them, the last with exit code {worker.process.exitcode}",
            "Look for lack of memory; finished runs are kept, and the same command goes on",
        )
    again.extendleft(reversed(worker.tasks))


def _serve(link: Connection) -> None:
    """A worker's life: receive the benches, then do tasks until the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        workloads = pickle.loads(link.recv_bytes())
        while True:
            number, task = link.recv()
            try:
                answer: Done | BaseException = perform(workloads, task)
            except Exception as error:
                answer = error
            link.send((number, answer))
    except (EOFError, OSError):
        return
