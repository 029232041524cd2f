"""Run tasks on a Dask cluster: one that is running (`tcp://…`), or processes of this machine (`local:N`).

Networks and data are sent once, as a plugin that the scheduler gives to every worker, also to later ones. The tasks of a dead
worker are repeated. If the scheduler is lost and comes back, it gets every task again whose result has not arrived.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from distributed import Client, Future, LocalCluster, WorkerPlugin, as_completed, get_worker, wait
from distributed.client import FutureCancelledError
from distributed.comm.addressing import parse_address, parse_host_port
from distributed.comm.core import CommClosedError
from distributed.comm.registry import get_backend
from distributed.scheduler import KilledWorker

from weakcell.host.digests import hash_json
from weakcell.host.study.executors import MOST_DEATHS, MOST_PROCESSES, Task, TaskResult, WorkersLost, run_task
from weakcell.host.study.workload import Workload
from weakcell.memmodels.errors import UsageError
from weakcell.memmodels.files import reason

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds that a scheduler may be away before the sweep gives up."""

NO_WORKER_NOTICE = 10.0
"""Seconds without a result after which the cluster is asked whether it has a worker at all."""

_AHEAD = 4
"""Tasks under way per thread of the cluster: enough that nobody waits, few enough that nothing piles up."""

_LOST = (CancelledError, FutureCancelledError, CommClosedError, OSError, TimeoutError)
"""How distributed says that the scheduler, or what it knew, is gone."""


class WorkloadPlugin(WorkerPlugin):
    """Dask plugin that holds a worker's networks and data."""

    def __init__(self, name: str, payload: bytes) -> None:
        self.name, self.payload = name, payload
        self.workloads: dict[str, Workload] = {}

    def setup(self, worker: Any) -> None:
        """Unpickle networks and data; Dask calls this in the worker."""
        self.workloads = pickle.loads(self.payload)
        self.payload = b""


def run_task_on_worker(plugin: str, task: Task) -> TaskResult:
    """Run a task in a Dask worker, with the networks and data of its plugin."""
    workload_plugin = get_worker().plugins[plugin]
    assert isinstance(workload_plugin, WorkloadPlugin)
    return run_task(workload_plugin.workloads, task)


@dataclass(frozen=True)
class Cluster:
    """A Dask cluster as an executor.

    Attributes:
        workloads: networks with their data, by key.
        address: `tcp://HOST:PORT` or another address that distributed knows, or `local:N`.
    """

    workloads: Mapping[str, Workload]
    address: str

    @property
    def workers(self) -> int:
        """Processes of a local cluster; 8 for any other. It only limits the size of tasks."""
        return parse_local_workers(self.address) or 8

    def run(self, tasks: Iterable[Task]) -> Iterator[TaskResult]:
        """Yield results in the order in which they arrive; see `Executor.run`."""
        plugin = f"weakcell-{hash_json(sorted(self.workloads))[:16]}"
        payload = pickle.dumps(dict(self.workloads), protocol=5)
        with _scheduler(self.address) as address, _quiet_client():
            yield from _ClusterSession(address, plugin, payload, enumerate(tasks)).run()


def parse_local_workers(address: str) -> int | None:
    """Return N of `local:N`, None for a scheduler's address; UsageError for any other text."""
    kind, _, count = address.partition(":")
    if kind == "local" and count.isascii() and count.isdigit() and int(count[:12]) > 0:
        if int(count[:12]) > MOST_PROCESSES:
            raise UsageError(f"--cluster {address}", f"{MOST_PROCESSES:,} processes are the most on one machine", "Take fewer")
        return int(count)
    try:
        scheme, location = parse_address(address, strict=True)  # type: ignore[no-untyped-call]
        get_backend(scheme)
        host, port = parse_host_port(location)  # type: ignore[no-untyped-call]
        if host.isprintable() and 0 < port < 1 << 16 and location.rpartition(":")[2].isascii():
            return None
        found = "its host or port is impossible"
    except (ValueError, ImportError) as error:
        found = reason(error) if "://" in address else "it has no protocol"
    raise UsageError(f"--cluster {address}", f"it is no address of a scheduler: {found}", "Write tcp://HOST:PORT, or local:N")


@contextmanager
def _scheduler(address: str) -> Iterator[str]:
    """Yield the scheduler's address; for `local:N`, start a cluster and close it afterwards."""
    count = parse_local_workers(address)
    if count is None:
        yield address
        return
    import dask

    quiet = {"distributed.scheduler.allowed-failures": MOST_DEATHS}
    with (
        dask.config.set(quiet),
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=count, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=logging.CRITICAL
        ) as cluster,
    ):
        yield cluster.scheduler_address


@contextmanager
def _quiet_client() -> Iterator[None]:
    """Keep Dask's client from printing a traceback when it loses the scheduler; the session says so itself and connects again."""

    def drop(record: logging.LogRecord) -> bool:
        return False

    client_log = logging.getLogger("distributed.client")
    client_log.addFilter(drop)
    try:
        yield
    finally:
        client_log.removeFilter(drop)


class _ClusterSession:
    """Submits tasks to a scheduler and collects their results."""

    def __init__(self, address: str, plugin: str, payload: bytes, fresh: Iterator[tuple[int, Task]]) -> None:
        self._address, self._plugin, self._payload, self._fresh = address, plugin, payload, fresh
        self._requeued: deque[tuple[int, Task]] = deque()
        self._deaths: dict[int, int] = {}
        self._submitted: dict[Future[TaskResult], tuple[int, Task]] = {}
        self._session = 0

    def run(self) -> Iterator[TaskResult]:
        """Yield results until every task has given one; reconnect when the scheduler is lost."""
        away_since: float | None = None
        while True:
            try:
                with Client(self._address, timeout=10, set_as_default=False) as client:  # type: ignore[no-untyped-call]
                    client.register_plugin(WorkloadPlugin(self._plugin, self._payload))
                    away_since = None
                    yield from self._work(client)
                    return
            except _LOST as error:
                away_since = away_since or time.monotonic()
                self._requeued.extend(self._submitted.values())
                self._submitted.clear()
                log.warning("scheduler %s is lost (%s); connecting again", self._address, error)
                if time.monotonic() - away_since > PATIENCE:
                    raise WorkersLost(
                        f"Scheduler {self._address}",
                        f"it did not answer for {PATIENCE:.0f} s ({type(error).__name__})",
                        "Finished runs are kept; the same command goes on",
                    ) from error
                time.sleep(0.5)

    def _work(self, client: Client) -> Iterator[TaskResult]:
        self._session += 1
        results = as_completed(loop=client.loop)  # type: ignore[no-untyped-call]
        self._fill(client, results)
        while self._submitted:
            if not results.has_ready():  # type: ignore[no-untyped-call]
                self._wait(client, self._wait_for_any)
            future = next(results)  # type: ignore[no-untyped-call]
            number, task = self._submitted[future]
            try:
                done = self._wait(client, future.result)  # a result may be lost with its worker, and is computed again
            except KilledWorker as error:
                self._count_death(number, task, error)
                self._requeued.append((number, task))
                done = None
            del self._submitted[future]
            with suppress(*_LOST):
                future.release()
            if done is not None:
                yield done
            self._fill(client, results)

    def _wait(self, client: Client, attempt: Callable[[float], T]) -> T:
        """Repeat an attempt that takes its time-out; warn once while the cluster has no worker, which may be hours in a queue."""
        warned = False
        while True:
            try:
                with client.as_current():  # type: ignore[no-untyped-call]
                    return attempt(NO_WORKER_NOTICE)
            except TimeoutError:
                without = not client.nthreads()  # type: ignore[no-untyped-call]
                if without and not warned:
                    log.warning(
                        "scheduler %s has no worker; the sweep waits until one joins (Ctrl-C ends it, results are kept)",
                        self._address,
                    )
                elif warned and not without:
                    log.warning("a worker has joined scheduler %s; the sweep goes on", self._address)
                warned = without

    def _wait_for_any(self, seconds: float) -> None:
        """Wait until a task is done; TimeoutError if none is."""
        wait(list(self._submitted), timeout=seconds, return_when="FIRST_COMPLETED")  # type: ignore[no-untyped-call]

    def _fill(self, client: Client, results: Any) -> None:
        threads = sum(client.nthreads().values()) or 1  # type: ignore[no-untyped-call]
        while len(self._submitted) < _AHEAD * threads:
            item = self._requeued.popleft() if self._requeued else next(self._fresh, None)
            if item is None:
                return
            key = f"weakcell-{id(self):x}-{self._session}-{item[0]}-{self._deaths.get(item[0], 0)}"
            future = client.submit(run_task_on_worker, self._plugin, item[1], key=key, pure=False)
            self._submitted[future] = item
            results.add(future)

    def _count_death(self, number: int, task: Task, error: Exception) -> None:
        self._deaths[number] = self._deaths.get(number, 0) + 1
        if self._deaths[number] >= MOST_DEATHS:
            raise WorkersLost(
                f"Trials {task.trials[0]} … {task.trials[-1]} of cell {task.cell}",
                f"its workers keep dying ({error})",
                "Look for lack of memory on the workers; finished runs are kept, and the same command goes on",
            ) from error
