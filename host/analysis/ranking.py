"""Which layers, and which bits, cost most accuracy per flip: predicted with only that part in the memory, checked by injection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from weakcell.emulator.evaluation.intervals import SHARE_DIFFERENCE, mean_interval, unseen_share
from weakcell.emulator.evaluation.trials import run_trial
from weakcell.emulator.faults.placement import Placement, Slot, layers_by_weight
from weakcell.emulator.prediction import predict
from weakcell.host.analysis.prediction import chosen_samples, expected_flips
from weakcell.host.campaign.executors import default_workers
from weakcell.host.study.study import ResolvedStudy

By = Literal["layer", "bit", "layer-bit"]


@dataclass(frozen=True)
class Part:
    """Some stored bits alone in the memory. flips: expected in one inference that reads every weight once.

    loss: predicted loss of the score (accuracy; without labels, answers unchanged), error: half the width of its 95 %
    interval. measured, low, high: by trials with an interval of the mean, None if there were none. differ_below: as in
    `weakcell.host.study.results.summary_of`. Losses are shares.
    """

    name: str
    bits: int
    flips: float
    loss: float
    error: float
    measured: float | None = None
    low: float | None = None
    high: float | None = None
    differ_below: float | None = None

    @property
    def loss_per_flip(self) -> float:
        return self.loss / self.flips if self.flips else 0.0

    @property
    def measured_per_flip(self) -> float | None:
        return None if self.measured is None else self.measured / self.flips if self.flips else 0.0


@dataclass(frozen=True, eq=False)
class Ranking:
    """Parts, the dearest per flip first; correlation: Spearman's of predicted and measured loss per flip, None unless measured."""

    resolved: ResolvedStudy
    by: By
    parts: tuple[Part, ...]
    samples: int
    trials: int
    correlation: float | None


def rank(
    resolved: ResolvedStudy,
    by: By = "layer",
    *,
    samples: int | None = None,
    trials: int = 0,
    threads: int | None = None,
    on_trial: Callable[[], None] | None = None,
) -> Ranking:
    """Rank the parts of a network on the memory of the study's first point; trials: so many per part check the prediction."""
    alone = parts_of(resolved, resolved.points[0].placement, by)
    count = chosen_samples(resolved, samples, len(alone))
    questions, policy = resolved.questions, resolved.study.read_every
    found = predict(
        resolved.plan, [own for _, own in alone], questions, policy, samples=count, seed=resolved.study.seed,
        threads=threads or default_workers(),
    )  # fmt: skip
    clean = questions.fault_free_accuracy  # tasks with another score were refused
    parts = []
    for (name, own), guess in zip(alone, found, strict=True):
        loss = guess.changed if clean is None or guess.accuracy is None else clean - guess.accuracy
        part = Part(name, own.bits(resolved.network), expected_flips(resolved, own), loss, guess.half_width)
        parts.append(_measured(resolved, part, own, trials, on_trial) if trials else part)
    parts.sort(key=lambda part: -part.loss_per_flip)
    return Ranking(resolved, by, tuple(parts), count, trials, _correlation(parts))


def parts_of(resolved: ResolvedStudy, placement: Placement, by: By) -> list[tuple[str, Placement]]:
    """Placements with one part of the network each, in the network's order; bits are counted from 0, the least significant."""
    names = layers_by_weight(resolved.network)
    groups: dict[str, list[Slot]] = {}
    for slot in placement.slots:
        layer = names.get(slot.tensor, slot.tensor)
        for plane in slot.planes:
            key = {"layer": layer, "bit": f"bit {plane}", "layer-bit": f"{layer}@{plane}"}[by]
            groups.setdefault(key, []).append(replace(slot, planes=(plane,)))
    return [(name, Placement(placement.arrays, _joined(slots))) for name, slots in groups.items()]


def _joined(slots: Sequence[Slot]) -> tuple[Slot, ...]:
    """Planes of one tensor and array in one slot again."""
    planes: dict[tuple[str, int], list[int]] = {}
    for slot in slots:
        planes.setdefault((slot.tensor, slot.array), []).extend(slot.planes)
    return tuple(Slot(tensor, tuple(sorted(own)), array) for (tensor, array), own in planes.items())


def _measured(resolved: ResolvedStudy, part: Part, own: Placement, trials: int, on_trial: Callable[[], None] | None) -> Part:
    study, questions, scores = resolved.study, resolved.questions, []
    for trial in range(trials):
        result = run_trial(
            resolved.plan, own, questions, study.read_every, trial=trial, seed=study.seed, die=study.die, batch=study.batch
        )
        clean = questions.fault_free_accuracy
        scores.append(result.changed if clean is None or result.accuracy is None else clean - result.accuracy)
        if on_trial:
            on_trial()
    mean, low, high = mean_interval(scores, bounds=SHARE_DIFFERENCE)
    ends = (None, None) if trials < 2 else (low, high)
    return replace(part, measured=mean, low=ends[0], high=ends[1], differ_below=unseen_share(scores))


def _correlation(parts: Sequence[Part]) -> float | None:
    from scipy.stats import spearmanr

    measured = [part.measured_per_flip for part in parts]
    if len(parts) < 3 or any(x is None for x in measured):
        return None
    return float(np.asarray(spearmanr([part.loss_per_flip for part in parts], measured)[0]))
