"""All trials of a study, judged; and the accuracies that they found beside those that are predicted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.host.study.executors import default_workers
from weakcell.host.study.runner import MemoriesOf
from weakcell.host.study.study import Point, ResolvedStudy
from weakcell.host.validation.claims import CLAIMS, Bounds, CheckSummary, Tally, Violation, summarize
from weakcell.host.validation.trial import KEEP_VIOLATIONS, Found, Task, run_trial
from weakcell.host.validation.twin import Twin, twin_of

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Validation:
    """All of it. margins: of the clean pass, in units of the scores.

    scores: by point, its trials' accuracies (without labels: shares of answers that stay), of all images only. images: those that a
    point ran on, where it did not run on all. rounded: pairs whose winner kept the highest score while the answer changed, because
    the last requantization made equal codes of unequal scores. ties: images whose clean twin has no unique maximum: no claim is
    made about them.
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
    def broken(self) -> int:
        return sum(check.violations for check in self.checks)


def validate(
    resolved: ResolvedStudy,
    *,
    first: int = 0,
    hidden: bool = False,
    threads: int | None = None,
    memories: MemoriesOf | None = None,
    only: Mapping[int, Array] | None = None,
    on_trial: Callable[[Point], None] | None = None,
    too_many: Bounds | None = None,
) -> Validation:
    """Run trials first.. of every point of a study and check every bound on each.

    memories: instead of opening the placements' SPECs. only: by point, the images it runs on, where not on all (weights read per
    load, so that the rest of the images makes no difference). too_many: makes bounds wrong on purpose, to see that this is caught.
    """
    only = only or {}
    found = Found()
    scores: dict[int, list[float]] = {}
    twin = twin_of(resolved, hidden, memories is None)
    twins = {index: twin.of_images(images) for index, images in only.items()}
    tasks = [
        Task(point, first + trial, only.get(point.index)) for point in resolved.points for trial in range(resolved.study.trials)
    ]
    extra = too_many or {}
    with ThreadPoolExecutor(threads or default_workers(), thread_name_prefix="validate") as pool:
        step = 64
        for start in range(0, len(tasks), step):  # a few at a time, so that findings never pile up
            part = tasks[start : start + step]
            made = pool.map(lambda task: run_trial(resolved, twins.get(task.point.index, twin), task, memories, extra), part)
            for task, one in zip(part, made, strict=True):
                _add(found, one)
                if task.images is None:
                    scores.setdefault(task.point.index, []).append(one.score)
                if on_trial:
                    on_trial(task.point)
    return _validation(resolved, twin, found, {index: tuple(own) for index, own in scores.items()}, only)


def _add(found: Found, one: Found) -> None:
    found.tally.update(one.tally)
    found.broken.update(one.broken)
    found.violations.extend(one.violations[: max(0, KEEP_VIOLATIONS - len(found.violations))])
    found.rounded += one.rounded


def _validation(
    resolved: ResolvedStudy, twin: Twin, found: Found, scores: Mapping[int, tuple[float, ...]], only: Mapping[int, Array]
) -> Validation:
    tally: Counter[tuple[int, str, int, int, int]] = found.tally
    names = [check for check in CLAIMS if any(key[1] == check for key in tally)]
    return Validation(
        resolved=resolved,
        checks=tuple(summarize(check, tally, found.broken[check]) for check in names),
        tally=tally,
        violations=tuple(found.violations),
        margins=twin.margins.margin * twin.head.unit,
        ties=int(np.count_nonzero(~twin.margins.unique)),
        rounded=found.rounded,
        scores=scores,
        images=only,
    )
