"""Which layers and bits cost most accuracy per flip: predicted with only that part in the memory, and checked by trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import polars as pl

from weakcell.emulator.evaluation.intervals import SHARE_DIFFERENCE, mean_interval, unseen_share
from weakcell.emulator.evaluation.trials import run_trial
from weakcell.emulator.faults.placement import Placement, Slot, layers_by_weight
from weakcell.emulator.prediction import predict
from weakcell.host.analysis.prediction import choose_samples, expected_flips
from weakcell.host.report.captions import describe_task_output, explain_no_difference
from weakcell.host.report.displayed_result import DisplayedResult
from weakcell.host.report.simple_figures import plot_bars
from weakcell.host.study.executors import default_workers
from weakcell.host.study.study import ResolvedStudy, check_jobs
from weakcell.memmodels.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

By = Literal["layer", "bit", "layer-bit"]


@dataclass(frozen=True)
class RankedPart:
    """Some stored bits, with only them in the memory. Losses are shares in [0, 1].

    Attributes:
        name: The layer, the bit position, or both.
        bits: Stored bits.
        flips: Flips expected in one inference that reads every weight once.
        loss: Predicted loss of accuracy; without labels, share of answers that change.
        error: Half the width of the loss's 95 % interval.
        measured: Mean loss over trials; None without trials.
        low: Lower end of its 95 % interval; None for fewer than two trials.
        high: Upper end.
        differ_below: As in `weakcell.host.study.results.summary_of`.
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
        """Predicted loss over expected flips."""
        return self.loss / self.flips if self.flips else 0.0

    @property
    def measured_per_flip(self) -> float | None:
        """Measured loss over expected flips; None without trials."""
        return None if self.measured is None else self.measured / self.flips if self.flips else 0.0


@dataclass(frozen=True, eq=False, repr=False)
class Ranking(DisplayedResult):
    """Parts of a network by the accuracy that they cost per flip: from `rank`.

    Attributes:
        resolved: The study.
        by: What the parts are.
        parts: The parts, the most expensive per flip first.
        samples: Draws per image.
        trials: Trials per part; 0 if nothing was measured.
        correlation: Spearman's rank correlation of predicted and measured loss per flip; None unless measured.

    Examples:
        >>> import weakcell
        >>> weakcell.rank("digits-bnn", images=50, samples=20).parts[0].name
        '/conv1/Conv'
    """

    resolved: ResolvedStudy
    by: By
    parts: tuple[RankedPart, ...]
    samples: int
    trials: int
    correlation: float | None

    @property
    def title(self) -> str:
        """Network, data and memory in one line."""
        resolved = self.resolved
        name, data = resolved.model.name, resolved.dataset.name
        return f"{name} on {data} ({len(resolved.dataset)} images), {resolved.points[0].memory}"

    @property
    def headline(self) -> str:
        """The most expensive part."""
        first = self.parts[0]
        return f"{self.title}: {first.name} costs most, {100 * first.loss_per_flip:.3g} points per flip, of {len(self.parts)} parts"

    @property
    def caption(self) -> str:
        """What was predicted and measured, in sentences."""
        score = "accuracy" if self.resolved.questions.labels is not None else "answers unchanged"
        text = (
            f"Loss of {score} with only that part in the memory, {self.samples} draws per image. ±: half the width of the 95 % "
            "interval, sampling and bias together. Flips: expected in one inference that reads every weight once. "
            f"{describe_task_output(self.resolved)}."
        )
        if self.trials:
            correlation = "" if self.correlation is None else f" Rank correlation of points per flip: {self.correlation:.3f}."
            text += f" Measured: {self.trials} trials per part, weights read per {self.resolved.study.read_every}.{correlation}"
            if note := explain_no_difference(part.differ_below for part in self.parts):
                text += f" {note}."
        return text

    @property
    def frame(self) -> pl.DataFrame:
        """One row per part: bits, flips, loss and loss per flip, predicted and measured."""
        rows = [
            {"part": part.name, **vars(part), "loss_per_flip": part.loss_per_flip, "measured_per_flip": part.measured_per_flip}
            for part in self.parts
        ]
        floats = dict.fromkeys(("measured", "low", "high", "differ_below", "measured_per_flip"), pl.Float64)
        return pl.DataFrame(rows, schema_overrides=floats).drop("name")

    @property
    def summary(self) -> pl.DataFrame:
        """The same as `frame`."""
        return self.frame

    def build_figure(self) -> Figure:
        """Plot the loss per flip of each part."""
        names, losses = [part.name for part in self.parts], [100 * part.loss_per_flip for part in self.parts]
        errors = [100 * part.error / part.flips if part.flips else 0.0 for part in self.parts]
        return plot_bars(self.title, "loss per flip (points)", names, losses, errors)


def rank_parts(
    resolved: ResolvedStudy,
    by: By = "layer",
    *,
    samples: int | None = None,
    trials: int = 0,
    threads: int | None = None,
    on_trial: Callable[[], None] | None = None,
) -> Ranking:
    """Rank the parts of a network on the memory of the study's first point.

    Args:
        resolved: The study.
        by: What the parts are.
        samples: Draws per image; None for enough for the images there are.
        trials: Trials per part that check the prediction.
        threads: Threads; None for all cores.
        on_trial: Called after each trial.

    Raises:
        UsageError: There are too many trials, or the memory's cells do not err independently.
    """
    if by not in get_args(By):
        raise UsageError(f"by={by!r}", "it is no choice", f"Choose {', '.join(get_args(By))}")
    alone = split_placement(resolved, resolved.points[0].placement, by)
    check_jobs(f"--check-trials {trials}", trials * len(alone))
    count = choose_samples(resolved, samples, len(alone))
    questions, policy = resolved.questions, resolved.study.read_every
    predictions = predict(
        resolved.plan, [placement for _, placement in alone], questions, policy, samples=count, seed=resolved.study.seed,
        threads=threads or default_workers(),
    )  # fmt: skip
    fault_free = questions.fault_free_accuracy  # tasks with another score were refused
    parts = []
    for (name, placement), prediction in zip(alone, predictions, strict=True):
        loss = prediction.changed if fault_free is None or prediction.accuracy is None else fault_free - prediction.accuracy
        bits, flips = placement.bits(resolved.network), expected_flips(resolved, placement)
        part = RankedPart(name, bits, flips, loss, prediction.half_width)
        parts.append(_measure_part(resolved, part, placement, trials, on_trial) if trials else part)
    parts.sort(key=lambda part: -part.loss_per_flip)
    return Ranking(resolved, by, tuple(parts), count, trials, _correlation(parts))


def split_placement(resolved: ResolvedStudy, placement: Placement, by: By) -> list[tuple[str, Placement]]:
    """Return placements with one part of the network each, in the network's order. Bit 0 is the least significant."""
    names = layers_by_weight(resolved.network)
    groups: dict[str, list[Slot]] = {}
    for slot in placement.slots:
        layer = names.get(slot.tensor, slot.tensor)
        for plane in slot.planes:
            key = {"layer": layer, "bit": f"bit {plane}", "layer-bit": f"{layer}@{plane}"}[by]
            groups.setdefault(key, []).append(replace(slot, planes=(plane,)))
    return [(name, Placement(placement.arrays, _merge_planes(slots))) for name, slots in groups.items()]


def _merge_planes(slots: Sequence[Slot]) -> tuple[Slot, ...]:
    """Put the planes of one tensor and array into one slot again."""
    planes: dict[tuple[str, int], list[int]] = {}
    for slot in slots:
        planes.setdefault((slot.tensor, slot.array), []).extend(slot.planes)
    return tuple(Slot(tensor, tuple(sorted(own)), array) for (tensor, array), own in planes.items())


def _measure_part(
    resolved: ResolvedStudy, part: RankedPart, placement: Placement, trials: int, on_trial: Callable[[], None] | None
) -> RankedPart:
    study, questions, scores = resolved.study, resolved.questions, []
    for trial in range(trials):
        result = run_trial(
            resolved.plan, placement, questions, study.read_every, trial=trial, seed=study.seed, die=study.die, batch=study.batch
        )
        clean = questions.fault_free_accuracy
        scores.append(result.changed if clean is None or result.accuracy is None else clean - result.accuracy)
        if on_trial:
            on_trial()
    mean, low, high = mean_interval(scores, bounds=SHARE_DIFFERENCE)
    ends = (None, None) if trials < 2 else (low, high)
    return replace(part, measured=mean, low=ends[0], high=ends[1], differ_below=unseen_share(scores))


def _correlation(parts: Sequence[RankedPart]) -> float | None:
    from scipy.stats import spearmanr

    predicted, measured = [part.loss_per_flip for part in parts], [part.measured_per_flip for part in parts]
    if len(parts) < 3 or any(x is None for x in measured) or min(len(set(predicted)), len(set(measured))) < 2:
        return None
    return float(np.asarray(spearmanr(predicted, measured)[0]))
