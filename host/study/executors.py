"""Run trials on threads or processes of this machine (`weakcell.host.campaign.cluster` has Dask).

A task is a few trials of one cell; it takes a few hundred bytes, as networks and data are sent to each process once. An executor
asks for tasks as it needs them and yields results in any order. The tasks of a process that dies are repeated by another one, and
each task yields exactly one result.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from threading import Event
from typing import Protocol

from weakcell.emulator.evaluation.trials import TrialResult, run_trial
from weakcell.emulator.faults.deployment import ReadPolicy, Sampling
from weakcell.emulator.faults.placement import Placement
from weakcell.host.foreign_folder import distrust_current_folder
from weakcell.host.study.study import Point, ResolvedStudy
from weakcell.host.study.workload import Workload
from weakcell.memmodels.errors import WeakcellError


@dataclass(frozen=True)
class Task:
    """Some trials of one cell: a workload with a placement at one operating point.

    Attributes:
        workload: key of network and data.
    """

    cell: int
    workload: str
    placement: Placement
    read_every: ReadPolicy
    batch: int
    seed: int
    die: int | None
    trials: tuple[int, ...]
    sampling: Sampling = Sampling.BITS


@dataclass(frozen=True)
class TaskResult:
    """Results of a task: one per trial, and the seconds that each took."""

    cell: int
    results: tuple[TrialResult, ...]
    seconds: tuple[float, ...]


RunTask = Callable[[Task], TaskResult]


def make_task(resolved: ResolvedStudy, point: Point, cell: int, trials: tuple[int, ...]) -> Task:
    """Return a task of some trials of a point, as cell number `cell`."""
    study = resolved.study
    read = study.read_every, study.batch, study.seed, study.die
    return Task(cell, resolved.workload.key, point.placement, *read, trials, study.sampling)


def run_task(workloads: Mapping[str, Workload], task: Task, threads: int = 1) -> TaskResult:
    """Run a task's trials one after the other; the results do not depend on where they run.

    Args:
        workloads: networks with their data, by key.
        task: what to run.
        threads: how many threads share the images of a trial.
    """
    workload = workloads[task.workload]
    results, seconds = [], []
    for trial in task.trials:
        start = time.perf_counter()
        results.append(
            run_trial(
                workload.plan,
                task.placement,
                workload.questions,
                task.read_every,
                trial=trial,
                seed=task.seed,
                die=task.die,
                batch=task.batch,
                sampling=task.sampling,
                threads=threads,
            )
        )
        seconds.append(time.perf_counter() - start)
    return TaskResult(task.cell, tuple(results), tuple(seconds))


log = logging.getLogger(__name__)

MOST_DEATHS = 10
"""A task is given up after this many workers died of it."""

MOST_PROCESSES = 1024
"""Processes of a campaign on this machine; all of them are started at once."""

_AHEAD = 2
"""Tasks that a process has at a time, so that it never waits for the next one."""


class WorkersLost(WeakcellError):
    """Workers keep dying, or a cluster is gone. Every finished run is kept."""


class Executor(Protocol):
    """Runs tasks."""

    @property
    def workers(self) -> int:
        """How many tasks run at a time."""
        ...

    def run(self, tasks: Iterable[Task]) -> Iterator[TaskResult]:
        """Yield results as they arrive; the next task is requested only shortly before it is needed."""
        ...


def default_workers() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Threads:
    """Threads of this process: kernels release the interpreter's lock.

    Attributes:
        work: runs a task.
    """

    work: RunTask
    workers: int

    def run(self, tasks: Iterable[Task]) -> Iterator[TaskResult]:
        """Yield results as they arrive; see `Executor.run`."""
        stop = Event()

        def job(task: Task) -> TaskResult | None:
            return None if stop.is_set() else self.work(task)

        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="trial")
        waiting: dict[Future[TaskResult | None], int] = {}
        try:
            for number, task in enumerate(tasks):
                waiting[pool.submit(job, task)] = number
                if len(waiting) > 2 * self.workers:
                    yield from _wait_for_results(waiting)
            while waiting:
                yield from _wait_for_results(waiting)
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _wait_for_results(waiting: dict[Future[TaskResult | None], int]) -> Iterator[TaskResult]:
    """Wait for at least one result; yield those that are there in the order of their tasks."""
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
    """Processes of this machine. Each gets the networks and data once; one that dies is replaced and its tasks are repeated.

    A process ends as soon as this one is gone, for whatever reason: its end of the pipe closes.

    Attributes:
        on_start: called with the id of each process.
    """

    workloads: Mapping[str, Workload]
    workers: int
    on_start: Callable[[int], None] | None = None

    def run(self, tasks: Iterable[Task]) -> Iterator[TaskResult]:
        """Yield results as they arrive; see `Executor.run`."""
        payload = pickle.dumps(dict(self.workloads), protocol=5)
        numbered = enumerate(tasks)
        requeued: deque[tuple[int, Task]] = deque()
        deaths: dict[int, int] = {}
        pool = [self._start(payload) for _ in range(self.workers)]
        try:
            while True:
                for worker in pool:
                    _fill(worker, requeued, numbered)
                busy = [worker for worker in pool if worker.tasks]
                if not busy:
                    return
                for link in connection.wait([worker.link for worker in busy]):
                    worker = next(worker for worker in pool if worker.link is link)
                    try:
                        number, answer = worker.link.recv()
                    except (EOFError, OSError):
                        _requeue_tasks(worker, requeued, deaths)
                        pool[pool.index(worker)] = self._start(payload)
                        continue
                    assert worker.tasks.popleft()[0] == number
                    if isinstance(answer, BaseException):
                        raise answer
                    yield answer
        finally:
            for worker in pool:
                worker.link.close()
                worker.process.terminate()
            for worker in pool:
                worker.process.join()

    def _start(self, payload: bytes) -> _Worker:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve_tasks, args=(theirs,), daemon=True, name="weakcell-worker")
        process.start()
        theirs.close()
        if self.on_start and process.pid:
            self.on_start(process.pid)
        try:
            ours.send_bytes(payload)
        except OSError:
            log.info("process %s died while it was starting", process.pid)
        return _Worker(process, ours)


def _fill(worker: _Worker, requeued: deque[tuple[int, Task]], fresh: Iterator[tuple[int, Task]]) -> None:
    while len(worker.tasks) < _AHEAD:
        item = requeued.popleft() if requeued else next(fresh, None)
        if item is None:
            return
        worker.tasks.append(item)
        try:
            worker.link.send(item)
        except OSError:
            return


def _requeue_tasks(worker: _Worker, requeued: deque[tuple[int, Task]], deaths: dict[int, int]) -> None:
    """Take back the tasks of a dead process; WorkersLost if too many processes died of the first one."""
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
    requeued.extendleft(reversed(worker.tasks))


def _serve_tasks(link: Connection) -> None:
    """Serve as a worker: receive the workloads, then run tasks until the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    distrust_current_folder()
    try:
        workloads = pickle.loads(link.recv_bytes())
        while True:
            number, task = link.recv()
            try:
                answer: TaskResult | BaseException = run_task(workloads, task)
            except Exception as error:
                answer = error
            link.send((number, answer))
    except (EOFError, OSError):
        return
