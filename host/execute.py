"""Running a study: points x trials are independent jobs on threads; results do not depend on how they are shared out.

Kernels release the GIL, so threads run in parallel. Ctrl-C keeps the points whose trials have all finished.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event

from emulator.accuracy import TrialResult, run_trial
from host.faultlist import FaultRows, rows_of
from host.results import Outcome, StudyResult
from host.study import Point, Prepared, Study, prepare
from memmodels.errors import Interrupted
from memmodels.memory import Memory

MemoriesOf = Callable[[Point, int], Sequence[Memory]]
"""The memories of a point and trial, one per array of its placement."""


@dataclass(frozen=True)
class Progress:
    """Told after each trial, in the thread that called: how many of the jobs are done, and the trial that just was."""

    done: int
    jobs: int
    point: Point
    outcome: Outcome


class StudyInterrupted(Interrupted):
    """Ctrl-C; `result` holds the points that were finished."""

    def __init__(self, asked: str, found: str, do: str, result: StudyResult | None = None) -> None:
        super().__init__(asked, found, do)
        self.result = result


def default_threads() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_study(study: Study, **options: object) -> StudyResult:
    """Prepare and run a study; the options are those of `run`."""
    return run(prepare(study), **options)  # type: ignore[arg-type]


def run(
    prepared: Prepared,
    *,
    threads: int | None = None,
    on_trial: Callable[[Progress], None] | None = None,
    on_point: Callable[[StudyResult, Point], None] | None = None,
    memories: MemoriesOf | None = None,
    record: bool = False,
) -> StudyResult:
    """Run all trials of all points; StudyInterrupted on Ctrl-C, with what was finished.

    on_trial, on_point: called in this thread when a trial, or the last trial of a point, has finished; `on_point` gets all
    finished points so far. memories: instead of opening the placements' SPECs. record: keep every flip (`result.faults`).
    """
    began, stop = time.perf_counter(), Event()
    outcomes: dict[tuple[int, int], Outcome] = {}
    faults: dict[tuple[int, int], FaultRows] = {}
    finished: list[Point] = []
    trials = prepared.study.trials

    def job(point: Point, trial: int) -> tuple[Outcome, FaultRows | None] | None:
        if stop.is_set():
            return None
        start = time.perf_counter()
        result = _trial(prepared, point, trial, memories, record)
        outcome = Outcome(point, result, time.perf_counter() - start)
        return outcome, rows_of(prepared.network, point, result) if record else None

    def result_so_far() -> StudyResult:
        done = sorted(finished, key=_order)
        of_points = tuple(outcomes[point.index, trial] for point in done for trial in range(trials))
        flips = tuple(faults[point.index, trial] for point in done for trial in range(trials)) if record else None
        return StudyResult(prepared, of_points, len(done) == len(prepared.points), time.perf_counter() - began, flips)

    with ThreadPoolExecutor(threads or default_threads(), thread_name_prefix="trial") as pool:
        waiting: set[Future[tuple[Outcome, FaultRows | None] | None]] = set()
        try:
            submitted = [pool.submit(job, point, trial) for point in prepared.points for trial in range(trials)]
            order, waiting = {future: place for place, future in enumerate(submitted)}, set(submitted)
            while waiting:
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in sorted(ready, key=order.__getitem__):
                    made = future.result()
                    assert made is not None
                    outcome, rows = made
                    point, key = outcome.point, (outcome.point.index, outcome.result.trial)
                    outcomes[key] = outcome
                    if rows is not None:
                        faults[key] = rows
                    if all((point.index, trial) in outcomes for trial in range(trials)):
                        finished.append(point)
                        if on_point:
                            on_point(result_so_far(), point)
                    if on_trial:
                        on_trial(Progress(len(outcomes), prepared.jobs, point, outcome))
        except KeyboardInterrupt:
            raise StudyInterrupted(
                f"Emulating {prepared.model.name}",
                f"interrupted after {len(finished)} of {len(prepared.points)} points",
                "Finished points are kept; the same command starts again",
                result_so_far(),
            ) from None
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
    return result_so_far()


def _trial(prepared: Prepared, point: Point, trial: int, memories: MemoriesOf | None, record: bool) -> TrialResult:
    study = prepared.study
    return run_trial(
        prepared.plan,
        point.placement,
        prepared.questions,
        study.read_every,
        trial=trial,
        seed=study.seed,
        die=study.die,
        batch=study.batch,
        memories=None if memories is None else memories(point, trial),
        record=record,
    )


def _order(point: Point) -> tuple[float, int]:
    return (0.0 if point.value is None else point.value), point.index
