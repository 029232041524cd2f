"""One trial: flips counted per neuron, and compared with what the fault-free twin tolerates.

The flips of a neuron are its flipped weights plus its flipped inputs. Any memory serves: only its reads are used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.emulator import margins as mg
from weakcell.emulator.faults.deployment import Deployment, ReadPolicy, deploy
from weakcell.emulator.faults.run import outputs_under_faults
from weakcell.host.study.runner import MemoriesOf
from weakcell.host.study.study import Point, ResolvedStudy
from weakcell.host.validation.claims import KEPT, LOST, TIED, TIED_AWAY, BoundOffsets, Tally, Violation
from weakcell.host.validation.twin import FaultFreeTwin
from weakcell.memmodels.address import set_bits

Array = npt.NDArray[Any]

KEEP_VIOLATIONS = 1000


class Pairs(NamedTuple):
    """One check's pairs of one trial.

    Attributes:
        check: The name of the check.
        images: Numbers of the images.
        q: Flips of each.
        bound: The bound of each.
    """

    check: str
    images: Array
    q: Array
    bound: Array


@dataclass
class TrialCheck:
    """What the checks of one trial, or of several added up, found.

    Attributes:
        score: The accuracy of the trial; without labels, the share of answers that stay.
        tally: Pairs by point, check, bound, flips and outcome.
        pairs: The single pairs, if they are kept.
        violations: The first broken claims.
        violation_count: Broken claims by check.
        rounded: See `Validation.rounded`.
    """

    score: float = 0.0
    tally: Tally = field(default_factory=Counter)
    pairs: list[Pairs] | None = None
    violations: list[Violation] = field(default_factory=list)
    violation_count: Counter[str] = field(default_factory=Counter)
    rounded: int = 0


@dataclass(frozen=True, eq=False)
class _PairCounter:
    """Counts the pairs of one trial into `total`; `images` are their numbers in the data set."""

    point: Point
    trial: int
    die: int
    images: Array
    bound_offsets: BoundOffsets
    total: TrialCheck

    def count(self, check: str, images: Array | None, q: Array, bound: Array, outcome: Array) -> None:
        """Count one pair per element; `images` says of which image, None for neurons of images."""
        base = np.int64(outcome.size and int(q.max(initial=0)) + 1)
        bound = bound + self.bound_offsets.get(check, 0)
        if self.total.pairs is not None and images is not None:
            self.total.pairs.append(Pairs(check, self.images[images], q, bound))
        keys, numbers = np.unique((bound.astype(np.int64) * base + q) * 4 + outcome, return_counts=True)
        for key, number in zip(keys.tolist(), numbers.tolist(), strict=True):
            pair, outcome_of = divmod(key, 4)
            self.total.tally[self.point.index, check, *divmod(pair, int(base)), outcome_of] += number

    def watch(self, check: str, images: Array, places: Callable[[int], str], q: Array, bound: Array, broke: Array) -> None:
        """Keep the violations: claims with q <= bound that broke. All arrays have one element per claim."""
        bound = bound + self.bound_offsets.get(check, 0)
        wrong = np.flatnonzero((q <= bound) & broke)
        self.total.violation_count[check] += len(wrong)
        for i in wrong[: max(0, KEEP_VIOLATIONS - len(self.total.violations))]:
            self.total.violations.append(
                Violation(check, self.point.index, self.point.memory, self.trial, self.die, int(self.images[images[i]]),
                          places(int(i)), int(q[i]), int(bound[i]))
            )  # fmt: skip


def _weight_flips(deployment: Deployment, tensor: str, images: int, batch: int) -> Array:
    """Return (images, outputs): the flipped stored bits of each output's weights, in the read that the image saw."""
    values = deployment.plan.network.tensors[tensor].values
    outputs, row = values.shape[0], values.size // values.shape[0]
    by_read: dict[int, Array] = {}
    for fault in deployment.faults or ():
        if fault.slot.tensor != tensor:
            continue
        elements = set_bits(fault.flips) // len(fault.slot.planes)
        counts = np.bincount(elements // row, minlength=outputs)
        by_read[fault.read] = by_read.get(fault.read, np.zeros(outputs, np.int64)) + counts
    policy, flips = deployment.policy, np.zeros((images, outputs), dtype=np.int64)
    reads = np.arange(images)
    if policy in (ReadPolicy.LOAD, ReadPolicy.BATCH):
        reads //= batch if policy is ReadPolicy.BATCH else max(images, 1)
    for read, counts in by_read.items():
        flips[reads == read] = counts
    return flips


@dataclass(frozen=True, eq=False)
class TrialTask:
    """One trial of one point; `images` are the numbers of those that it runs on, None for all."""

    point: Point
    trial: int
    images: Array | None = None


def check_trial(
    resolved: ResolvedStudy,
    twin: FaultFreeTwin,
    task: TrialTask,
    *,
    memories: MemoriesOf | None = None,
    bound_offsets: BoundOffsets | None = None,
    keep_pairs: bool = False,
) -> TrialCheck:
    """Run one faulty pass, and check every claim on it.

    Args:
        resolved: The study.
        twin: The fault-free twin, of the task's images.
        task: The trial.
        memories: See `validate_study`.
        bound_offsets: See `validate_study`.
        keep_pairs: Keep the single pairs.
    """
    study, point, trial = resolved.study, task.point, task.trial
    opened = None if memories is None else memories(point, trial)
    deployment = deploy(
        twin.plan, point.placement, study.read_every, trial=trial, seed=study.seed, die=study.die, memories=opened, record=True
    )
    faulty = outputs_under_faults(twin.plan, twin.inputs, deployment, study.batch)
    count = len(twin.answers)
    images = np.arange(count) if task.images is None else task.images
    total = TrialCheck(pairs=[] if keep_pairs else None)
    counter = _PairCounter(point, trial, resolved.die_of(trial), images, bound_offsets or {}, total)
    _check_output(counter, twin, faulty, _weight_flips(deployment, twin.head.tensor.name, count, study.batch))
    for layer in twin.hidden:
        _check_hidden(counter, twin, layer, faulty, _weight_flips(deployment, layer.tensor.name, count, study.batch))
    return total


def _check_output(counter: _PairCounter, twin: FaultFreeTwin, faulty: Mapping[str, Array], weights: Array) -> None:
    head, images = twin.head, np.arange(len(twin.answers))
    scores = head.scores(faulty[head.accumulator])
    before, after = (x.reshape(len(images), -1) for x in (twin.values[head.input], faulty[head.input]))
    moved = before != after
    if head.binary:
        inputs = moved.sum(axis=1)
        alone, margins = twin.margins.unique, twin.margins
        outcome = _outcome(scores, margins.winner)
        q, bound = weights.sum(axis=1) + head.classes * inputs, mg.output_bound(margins.margin // head.scale[0])
        counter.count("corollary-2", images[alone], q[alone], bound[alone], outcome[alone])
        counter.watch("corollary-2", images[alone], lambda i: "output", q[alone], bound[alone], outcome[alone] != KEPT)
        _check_pairs(counter, "pair", scores, margins, mg.compute_unit_tolerance(head, margins), weights + inputs[:, None], outcome)
    margins, greedy = _on_reached_inputs(twin, before, after, moved.any(axis=1))
    outcome = _outcome(scores, margins.winner)
    _check_pairs(counter, "greedy", scores, margins, bound=greedy, flips=weights, outcome=outcome)
    answers = faulty[twin.plan.network.outputs[0]].reshape(len(images), -1).argmax(axis=1)
    counter.total.score = float(np.mean(answers == (twin.answers if twin.labels is None else twin.labels)))
    counter.total.rounded += int(
        np.count_nonzero((outcome == KEPT) & ~moved.any(axis=1) & margins.unique & (answers != twin.answers))
    )


def _on_reached_inputs(twin: FaultFreeTwin, before: Array, after: Array, moved: Array) -> tuple[mg.Margins, Array]:
    """Return margins and greedy counts of the fault-free output layer, on the inputs that reached it in the faulty run."""
    if not moved.any():
        return twin.margins, twin.greedy
    head = twin.head
    zero = np.asarray(head.tensor.zero_point).reshape(-1, 1)
    real = (head.tensor.values.reshape(head.classes, -1) - zero).astype(np.float64)
    step = (after[moved].astype(np.float64) - before[moved]) @ real.T  # exact: integers far below 2^53
    sums = twin.values[head.accumulator].reshape(len(before), -1).astype(np.int64)
    sums[moved] += step.astype(np.int64)
    margins = mg.compute_margins(head.scores(sums))
    can, greedy = twin.flippable[head.tensor.name], twin.greedy.copy()
    if head.binary and can.rises.all() and can.falls.all():
        return margins, mg.compute_unit_tolerance(head, margins)
    part = mg.Margins(margins.scores[moved], margins.winner[moved], margins.gaps[moved], margins.margin[moved])
    greedy[moved] = mg.compute_output_tolerance(head, after[moved], part, can)
    return margins, greedy


def _outcome(scores: Array, winner: Array) -> Array:
    kept, tied = mg.compare_winner(scores, winner)
    ends = np.where(scores.argmax(axis=1) == winner, TIED, TIED_AWAY)
    outcome: Array = np.where(kept, KEPT, np.where(tied, ends, LOST))
    return outcome


def _check_pairs(
    counter: _PairCounter, check: str, scores: Array, margins: mg.Margins, bound: Array, flips: Array, outcome: Array
) -> None:
    """Check every competitor; the image's pair is that of the competitor whose flips come nearest to the bound."""
    images, rows = np.flatnonzero(margins.unique), np.arange(len(scores))
    winner = margins.winner
    q = flips[rows, winner][:, None] + flips
    broke = scores >= scores[rows, winner][:, None]
    other = np.ones(scores.shape, np.bool_)
    other[rows, winner] = False
    room = np.where(other, bound - q, np.iinfo(np.int64).max)
    tightest = room.argmin(axis=1)
    counter.count(check, images, q[images, tightest[images]], bound[images, tightest[images]], outcome[images])
    at, c = np.nonzero(other & margins.unique[:, None])
    counter.watch(check, at, lambda i: f"class {winner[at[i]]} against {c[i]}", q[at, c], bound[at, c], broke[at, c])


def _check_hidden(
    counter: _PairCounter, twin: FaultFreeTwin, layer: mg.HiddenLayer, faulty: Mapping[str, Array], weights: Array
) -> None:
    clean, h = mg.reshape_sums(twin.values[layer.accumulator]), mg.reshape_sums(faulty[layer.accumulator])
    pivot, q = layer.shaped_pivot, weights[:, :, None, None] + np.zeros(clean.shape, np.int64)
    before, after = twin.values[layer.input], faulty[layer.input]
    if layer.binary:
        moved = (before != after).sum(axis=1, keepdims=True, dtype=np.int64)
        q += mg.extract_windows(moved, layer.layer).sum(axis=-1)[:, None]
        bounds = {"corollary-1": mg.neuron_bound(clean, pivot), "neuron": mg.neuron_exact(clean, pivot)}
    elif np.array_equal(before, after):
        bounds = {"greedy-neuron": twin.neurons[layer.accumulator]}
    else:
        return  # pixels do not move; wider hidden inputs that did are not what the count is about
    broke = ((clean > pivot) != (h > pivot)).reshape(-1)
    images = np.repeat(np.arange(len(clean)), clean[0].size)

    def place(i: int) -> str:
        return f"{layer.layer.name}{[int(at) for at in np.unravel_index(i % clean[0].size, clean[0].shape)]}"

    for check, bound in bounds.items():
        counter.count(check, None, q.reshape(-1), bound.reshape(-1), np.where(broke, LOST, KEPT))
        counter.watch(check, images, place, q.reshape(-1), bound.reshape(-1), broke)
