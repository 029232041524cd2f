"""All trials of a study, each checked against the margin bounds: `validate_study`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.host.study.executors import default_workers
from weakcell.host.study.runner import MemoriesOf
from weakcell.host.study.study import Point, ResolvedStudy, check_last_trial
from weakcell.host.validation.claims import CLAIMS, BoundOffsets, CheckSummary, Tally, Violation, summarize_check
from weakcell.host.validation.trial import KEEP_VIOLATIONS, TrialCheck, TrialTask, check_trial
from weakcell.host.validation.twin import compute_twin

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Validation:
    """What the checks of all trials found.

    Attributes:
        resolved: The study.
        checks: The numbers of each check.
        tally: Pairs by point, check, bound, flips and outcome.
        violations: The first broken claims, at most 1,000.
        margins: (images,) of the fault-free pass, in units of the scores.
        ties: Images whose fault-free scores have no unique maximum; no claim is made about them.
        rounded: Pairs whose winner kept the highest score while the answer changed: the last requantization made equal codes of
            unequal scores.
        scores: By point, the accuracies of its trials (without labels: shares of answers that stay), of all images only.
        images: By point, the images that it ran on, where it did not run on all.
    """

    resolved: ResolvedStudy
    checks: tuple[CheckSummary, ...]
    tally: Tally
    violations: tuple[Violation, ...]
    margins: Array
    ties: int
    rounded: int
    scores: Mapping[int, tuple[float, ...]]
    images: Mapping[int, Array]

    @property
    def violation_count(self) -> int:
        """Broken claims in all; there must be none."""
        return sum(check.violations for check in self.checks)


def validate_study(
    resolved: ResolvedStudy,
    *,
    first: int = 0,
    hidden: bool = False,
    threads: int | None = None,
    memories: MemoriesOf | None = None,
    only: Mapping[int, Array] | None = None,
    on_trial: Callable[[Point], None] | None = None,
    bound_offsets: BoundOffsets | None = None,
) -> Validation:
    """Run the trials of every point of a study, and check every bound on each.

    Args:
        resolved: The study.
        first: The number of the first trial.
        hidden: Check hidden neurons too.
        threads: Threads; None for all cores.
        memories: Returns the memories of a point and trial, instead of opening those of the SPECs.
        only: By point, the numbers of the images that it runs on; a point that is missing runs on all. Weights must be read per
            load, so that the other images make no difference.
        on_trial: Called with the point after each trial.
        bound_offsets: Added to the bounds, to test that a wrong bound is caught.

    Raises:
        UsageError: A flip could reach what no bound speaks of, or there is too much to hold in memory.
    """
    check_last_trial(first, resolved.study.trials)
    only, offsets = only or {}, bound_offsets or {}
    total = TrialCheck()
    scores: dict[int, list[float]] = {}
    twin = compute_twin(resolved, hidden, memories is None)
    twins = {index: twin.of_images(images) for index, images in only.items()}
    trials = range(first, first + resolved.study.trials)
    tasks = [TrialTask(point, trial, only.get(point.index)) for point in resolved.points for trial in trials]

    def check(task: TrialTask) -> TrialCheck:
        return check_trial(resolved, twins.get(task.point.index, twin), task, memories=memories, bound_offsets=offsets)

    with ThreadPoolExecutor(threads or default_workers(), thread_name_prefix="validate") as pool:
        step = 64
        for start in range(0, len(tasks), step):  # a few at a time, so that findings never pile up
            part = tasks[start : start + step]
            for task, trial_check in zip(part, pool.map(check, part), strict=True):
                _add(total, trial_check)
                if task.images is None:
                    scores.setdefault(task.point.index, []).append(trial_check.score)
                if on_trial:
                    on_trial(task.point)
    names = [check for check in CLAIMS if any(key[1] == check for key in total.tally)]
    return Validation(
        resolved=resolved,
        checks=tuple(summarize_check(check, total.tally, total.violation_count[check]) for check in names),
        tally=total.tally,
        violations=tuple(total.violations),
        margins=twin.margins.margin * twin.head.unit,
        ties=int(np.count_nonzero(~twin.margins.unique)),
        rounded=total.rounded,
        scores={index: tuple(values) for index, values in scores.items()},
        images=only,
    )


def _add(total: TrialCheck, trial_check: TrialCheck) -> None:
    total.tally.update(trial_check.tally)
    total.violation_count.update(trial_check.violation_count)
    total.violations.extend(trial_check.violations[: max(0, KEEP_VIOLATIONS - len(total.violations))])
    total.rounded += trial_check.rounded
