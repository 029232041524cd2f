"""Who makes the runs changes nothing: threads, processes, Dask. Workers and drivers that are killed lose no run and repeat none."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from weakcell.host.campaign.campaign import Campaign, resolve_campaign
from weakcell.host.campaign.schema import read_campaign
from weakcell.host.campaign.store import open_store
from weakcell.host.campaign.sweep import SweepProgress, run_campaign
from weakcell.host.campaign.tables import Tables, write_tables
from weakcell.host.study.executors import Executor, Processes, Task, TaskResult, Threads, WorkersLost, make_task, run_task
from weakcell.memmodels.errors import InputError

TEXT = """\
trials = 12
read_every = ["load", "image"]

[[network]]
model = "digits-bnn"
images = 30

[[network]]
model = "digits-qnn"
images = 20

[[memory]]
spec = "sram-14nm"
grid = { v_over_vmin = [0.78, 0.9] }
"""


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    path = tmp_path_factory.mktemp("campaign") / "c.toml"
    path.write_text(TEXT, encoding="utf-8")
    return resolve_campaign(read_campaign(path))


def run_with(
    executor: Executor, campaign: Campaign, folder: Path, on_step: Callable[[SweepProgress], None] | None = None
) -> tuple[bytes, bytes]:
    with open_store(folder) as store:
        run_campaign(campaign, store, executor, ["weakcell"], on_step)
        write_tables(Tables(store), folder)
    return (folder / "results.parquet").read_bytes(), (folder / "results.csv").read_bytes()


@pytest.fixture(scope="module")
def expected(campaign: Campaign, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    return run_with(Threads(partial(run_task, campaign.workloads), 1), campaign, tmp_path_factory.mktemp("undisturbed"))


def test_threads_give_the_same_bytes(campaign: Campaign, expected: tuple[bytes, bytes], tmp_path: Path) -> None:
    assert run_with(Threads(partial(run_task, campaign.workloads), 3), campaign, tmp_path) == expected


def test_processes_give_the_same_bytes_though_some_are_killed(
    campaign: Campaign, expected: tuple[bytes, bytes], tmp_path: Path
) -> None:
    rng, alive, killed = random.Random(3), list[int](), list[int]()

    def kill_one_now_and_then(step: SweepProgress) -> None:
        if len(killed) < 3 and step.finished >= 20 * (len(killed) + 1):
            victim = rng.choice(alive[-2:])
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

    executor = Processes(campaign.workloads, 2, alive.append)
    assert run_with(executor, campaign, tmp_path, kill_one_now_and_then) == expected
    assert len(killed) == 3
    assert len(alive) == 2 + len(set(killed))


def test_a_task_that_kills_everybody_is_given_up(campaign: Campaign) -> None:
    alive: list[int] = []
    executor = Processes(campaign.workloads, 1, alive.append)
    cell = campaign.cells[0]
    task = make_task(cell.resolved, cell.point, 0, tuple(range(100_000)))

    def killer(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    with pytest.raises(WorkersLost, match="processes died"):
        list(Processes(campaign.workloads, 1, killer).run([task]))
    assert executor.workers == 1


def test_errors_come_back_as_they_were(campaign: Campaign) -> None:
    cell = campaign.cells[0]
    lost = make_task(cell.resolved, cell.point, 0, (0,))
    unknown = Task(0, "nobody", lost.placement, lost.read_every, 1, 0, None, (0,))
    with pytest.raises(KeyError):
        list(Processes(campaign.workloads, 1).run([unknown]))

    def fails(task: Task) -> TaskResult:
        raise InputError("Asked", "found", "Do")

    with pytest.raises(InputError):
        list(Threads(fails, 2).run([lost] * 5))


def test_tasks_are_taken_as_they_are_needed(campaign: Campaign) -> None:
    taken = 0

    def endless() -> Iterator[Task]:
        nonlocal taken
        cell = campaign.cells[0]
        while True:
            taken += 1
            yield make_task(cell.resolved, cell.point, 0, (taken,))

    results = Threads(partial(run_task, campaign.workloads), 2).run(endless())
    for _ in range(20):
        next(results)
    results.close()  # type: ignore[attr-defined]
    assert taken < 40


def test_a_driver_that_is_killed_goes_on(expected: tuple[bytes, bytes], tmp_path: Path) -> None:
    path, out = tmp_path / "c.toml", tmp_path / "out"
    path.write_text(TEXT, encoding="utf-8")
    command = [sys.executable, "-m", "weakcell.host.cli", "sweep", str(path), "--out", str(out), "--threads", "2", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        events = (json.loads(line) for line in driver.stdout)
        next(event for event in events if event.get("finished", 0) >= 30)
        driver.send_signal(signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 0 < json.loads(done.stdout.splitlines()[-1])["made"] <= 96 - 30
    assert ((out / "results.parquet").read_bytes(), (out / "results.csv").read_bytes()) == expected


def test_dask_gives_the_same_bytes_though_workers_die_and_the_scheduler_too(
    campaign: Campaign, expected: tuple[bytes, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    from weakcell.host.campaign import cluster
    from weakcell.host.campaign.cluster import Cluster

    monkeypatch.setattr(cluster, "NO_WORKER_NOTICE", 0.5)
    warnings: list[str] = []

    class StartsAWorker(logging.Handler):
        """Starts the next worker only when the sweep has said that there is none."""

        def emit(self, record: logging.LogRecord) -> None:
            warnings.append(record.getMessage())
            if "has no worker" in warnings[-1] and killed == ["worker"]:
                dask.start_a_worker()

    handler = StartsAWorker()
    cluster.log.addHandler(handler)
    with _Dask(tmp_path) as dask:
        killed: list[str] = []

        def disturb(step: SweepProgress) -> None:
            if not killed and step.finished >= 24:
                dask.kill_a_worker()
                killed.append("worker")
            elif len(killed) == 1 and step.finished >= 60:
                dask.restart_the_scheduler()
                killed.append("scheduler")

        try:
            assert run_with(Cluster(campaign.workloads, dask.address), campaign, tmp_path / "out", disturb) == expected
        finally:
            cluster.log.removeHandler(handler)
        assert killed == ["worker", "scheduler"]
        assert sum("has no worker" in warning for warning in warnings) >= 1
    assert pl.read_parquet(tmp_path / "out" / "results.parquet").height == campaign.runs


class _Dask:
    """A scheduler and a worker of two threads as a user starts them, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        import socket

        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self._port}"

    def __enter__(self) -> _Dask:
        self._scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", str(self._port), "--no-dashboard", "--no-jupyter"
        )
        self._worker = self._start_worker()
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._scheduler, self._worker):
            process.kill()
            process.wait()

    def kill_a_worker(self) -> None:
        self._worker.kill()
        self._worker.wait()

    def start_a_worker(self) -> None:
        self._worker = self._start_worker()

    def restart_the_scheduler(self) -> None:
        """With a new worker: the old one leaves when it finds it gone."""
        self.__exit__()
        self.__enter__()

    def _start_worker(self) -> subprocess.Popen[bytes]:
        options = ("--nthreads", "2", "--no-nanny", "--no-dashboard", "--local-directory", str(self._folder))
        return self._start("worker", self.address, *options)

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
