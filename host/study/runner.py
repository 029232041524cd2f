"""Run one study in this process: points x trials on an executor; results do not depend on how the work is divided.

A campaign does the same with many networks and a store (`weakcell.host.campaign.runner`). Ctrl-C keeps the points whose trials have
all finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from weakcell.emulator.evaluation.trials import run_trial
from weakcell.emulator.faults.deployment import Sampling
from weakcell.host.study.executors import Executor, Task, TaskResult, Threads, default_workers, make_task, run_task
from weakcell.host.study.fault_list import FaultRows, collect_fault_rows
from weakcell.host.study.results import Outcome, StudyResult
from weakcell.host.study.study import Point, ResolvedStudy
from weakcell.memmodels.errors import Interrupted, UsageError
from weakcell.memmodels.memory import Memory

MemoriesOf = Callable[[Point, int], Sequence[Memory]]
"""Returns the memories of a point and trial, one per array of its placement."""


@dataclass(frozen=True)
class Progress:
    """The state of a run after a trial.

    Attributes:
        done: Finished trials.
        jobs: All trials.
        point: The point of the trial that just finished.
        outcome: Its result.
    """

    done: int
    jobs: int
    point: Point
    outcome: Outcome


class StudyInterrupted(Interrupted):
    """Ctrl-C; `result` holds the points that were finished."""

    def __init__(self, asked: str, found: str, do: str, result: StudyResult | None = None) -> None:
        super().__init__(asked, found, do)
        self.result = result


def run_study(
    resolved: ResolvedStudy,
    *,
    threads: int | None = None,
    on_trial: Callable[[Progress], None] | None = None,
    on_point: Callable[[StudyResult, Point], None] | None = None,
    memories: MemoriesOf | None = None,
    record: bool = False,
    executor: Executor | None = None,
) -> StudyResult:
    """Run all trials of all points.

    Args:
        resolved: The study.
        threads: Threads that run trials; where there are fewer trials than threads, they share the images of each.
        on_trial: Called in this thread after each trial.
        on_point: Called in this thread after the last trial of a point, with the result of all finished points.
        memories: Returns the memories of a point and trial, instead of opening those of the SPECs.
        record: Keep every flip, in `StudyResult.faults`.
        executor: Runs the trials instead of threads; unused with `memories` or `record`.

    Raises:
        StudyInterrupted: Ctrl-C; its `result` holds the finished points.
        UsageError: Flips are to be recorded that nobody draws.
    """
    check_recordable(resolved, record)
    work = _Work(resolved, time.perf_counter())
    if executor is None or memories is not None or record:
        workers = threads or default_workers()
        shared = max(1, workers // resolved.jobs)
        executor = Threads(_performer(resolved, memories, record, shared), workers // shared)
    tasks = (make_task(resolved, point, point.index, (trial,)) for point in resolved.points for trial in resolved.trials)
    try:
        for done in executor.run(tasks):
            point = resolved.points[done.cell]
            outcome = work.add(point, done, record)
            if work.is_finished(point):
                work.finished.append(point)
                if on_point:
                    on_point(work.result(record), point)
            if on_trial:
                on_trial(Progress(len(work.outcomes), resolved.jobs, point, outcome))
    except KeyboardInterrupt:
        raise StudyInterrupted(
            f"Emulating {resolved.model.name}",
            f"interrupted after {len(work.finished)} of {len(resolved.points)} points",
            "Finished points are kept; the same command starts again",
            work.result(record),
        ) from None
    return work.result(record)


def check_recordable(resolved: ResolvedStudy, record: bool) -> None:
    """UsageError if flips are to be recorded while outputs are drawn, which makes no flips."""
    if record and resolved.study.sampling is Sampling.OUTPUTS:
        raise UsageError("Saving faults with --sampling outputs", "that draws no flips, so there are none", "Leave --sampling out")


@dataclass(eq=False)
class _Work:
    """The outcomes so far."""

    resolved: ResolvedStudy
    began: float
    outcomes: dict[tuple[int, int], Outcome] = field(default_factory=dict)
    faults: dict[tuple[int, int], FaultRows] = field(default_factory=dict)
    finished: list[Point] = field(default_factory=list)

    def add(self, point: Point, done: TaskResult, record: bool) -> Outcome:
        (result,), (seconds,) = done.results, done.seconds
        outcome = Outcome(point, result, seconds)
        self.outcomes[point.index, result.trial] = outcome
        if record:
            self.faults[point.index, result.trial] = collect_fault_rows(self.resolved.plan, point, result)
        return outcome

    def is_finished(self, point: Point) -> bool:
        return all((point.index, trial) in self.outcomes for trial in self.resolved.trials)

    def result(self, record: bool) -> StudyResult:
        done = sorted(self.finished, key=_order)
        keys = [(point.index, trial) for point in done for trial in self.resolved.trials]
        faults = tuple(self.faults[key] for key in keys) if record else None
        complete, seconds = len(done) == len(self.resolved.points), time.perf_counter() - self.began
        return StudyResult(self.resolved, tuple(self.outcomes[key] for key in keys), complete, seconds, faults)


def _performer(resolved: ResolvedStudy, memories: MemoriesOf | None, record: bool, threads: int) -> Callable[[Task], TaskResult]:
    """Return the function that runs a task; `threads` share the images of a trial."""
    if memories is None and not record:
        return partial(run_task, {resolved.workload.key: resolved.workload}, threads=threads)

    def work(task: Task) -> TaskResult:
        start, (trial,) = time.perf_counter(), task.trials
        opened = None if memories is None else memories(resolved.points[task.cell], trial)
        result = run_trial(
            resolved.plan,
            task.placement,
            resolved.questions,
            task.read_every,
            trial=trial,
            seed=task.seed,
            die=task.die,
            batch=task.batch,
            memories=opened,
            record=record,
            sampling=task.sampling,
            threads=threads,
        )
        return TaskResult(task.cell, (result,), (time.perf_counter() - start,))

    return work


def _order(point: Point) -> tuple[float, int]:
    return (0.0 if point.value is None else point.value), point.index
