"""What an executor carries: a few trials of one cell. A task is a few hundred bytes; network and data wait where it goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from weakcell.emulator.evaluation.trials import TrialResult, run_trial
from weakcell.emulator.faults.deployment import ReadPolicy, Sampling
from weakcell.emulator.faults.placement import Placement
from weakcell.host.study.study import Point, ResolvedStudy
from weakcell.host.study.workload import Workload


@dataclass(frozen=True)
class Task:
    """Trials of one cell (a workload with a placement at one operating point). workload: the key of the network and data."""

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
class Done:
    """What became of a task: one result for each of its trials, and the seconds that each took."""

    cell: int
    results: tuple[TrialResult, ...]
    seconds: tuple[float, ...]


Perform = Callable[[Task], Done]


def task_of(resolved: ResolvedStudy, point: Point, cell: int, trials: tuple[int, ...]) -> Task:
    """Some trials of a point of a study, as cell number `cell`."""
    study = resolved.study
    read = study.read_every, study.batch, study.seed, study.die
    return Task(cell, resolved.workload.key, point.placement, *read, trials, study.sampling)


def perform(workloads: Mapping[str, Workload], task: Task, threads: int = 1) -> Done:
    """Run a task's trials one after the other; the same results wherever and whenever. threads: share the images of a trial."""
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
    return Done(task.cell, tuple(results), tuple(seconds))
