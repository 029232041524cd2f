"""Do the margin bounds hold on real flips? Every faulty run compared with its clean twin, flip by flip.

For every image and trial the flips of the output layer (of hidden layers too, if asked) are counted per neuron, as flipped weights
plus flipped inputs, and set against the bounds of `emulator.margins`. Any memory serves: only its reads are looked at.

A *pair* is one image in one trial (a hidden check: one neuron of one image in one trial). It is *non-vacuous* if 1 <= q <= bound,
*near* if besides q >= 0.9 bound. A violation is a pair with q <= bound whose claim does not hold; there must be none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from emulator import margins as mg
from emulator.deployment import Deployment, ReadPolicy, deploy
from emulator.network import Convolution, Network
from emulator.plan import Plan, compile_plan
from emulator.run import infer, outputs_under_faults
from host.campaign.executors import default_workers
from host.execute import MemoriesOf
from host.study import Point, Prepared, Study, prepare
from host.sweep import Sweep
from memmodels.address import set_bits
from memmodels.errors import UsageError

Array = npt.NDArray[Any]

KEPT, TIED, LOST, TIED_AWAY = 0, 1, 2, 3
"""What became of a claim: it holds; the winner shares the maximum and, the lowest class there, is still answered; another class, or
the neuron's other side, has won; the winner shares the maximum and a lower class is answered."""

CLAIMS = {
    "corollary-2": "q = flips of all output neurons, bound max(0, m // 2 - 1) as stated: the winner stays the only maximum",
    "pair": "q = flips of winner and competitor, bound ceil(m_c / 2) - 1, exact: the winner stays ahead of that competitor",
    "greedy": "q = flipped stored bits of winner and competitor, bound by the most harmful bits first, on the inputs that "
    "reached the layer, before the last requantization: the winner stays ahead of that competitor",
    "corollary-1": "q = flips of a hidden neuron, bound as stated: the neuron keeps its output",
    "neuron": "q = flips of a hidden neuron, exact bound: the neuron keeps its output",
    "greedy-neuron": "q = flipped stored bits of a neuron on pixels, bound by the most harmful bits first: it keeps its output",
}
_STRESS_IMAGES, _STRESS_GRID = 256, tuple(float(f"{x:.2g}") for x in np.geomspace(1e-4, 0.3, 28))
_HIDDEN_BYTES = 2 << 30
_KEEP_VIOLATIONS = 1000

Bounds = Mapping[str, int]
"""Added to each check's bound: what a test uses to see that a bound which is one flip too large is caught."""


@dataclass(frozen=True)
class Violation:
    """One broken claim, with the place of the flips in trial and data set."""

    check: str
    point: int
    memory: str
    trial: int
    die: int
    image: int
    place: str
    q: int
    bound: int


Tally = Counter[tuple[int, str, int, int, int]]
"""(point, check, bound, q, outcome) -> pairs."""


@dataclass(frozen=True)
class CheckSummary:
    """What one check found; changed and tied pairs are those with q > bound, unless there are violations.

    smallest: (q, bound) of the changed pair with the fewest flips. tightest: of the changed pair with bound >= 1 whose
    q / (bound + 1) is smallest: 1 means that one flip above the bound did it. Pairs whose clean twin had a tie are left out
    (`Validation.ties`). tied: of the changed, those where the winner shares the maximum; tied_away: of these, those where the
    engine's argmax, which takes the lowest class, answers another.
    """

    check: str
    pairs: int
    non_vacuous: int
    near: int
    changed: int
    tied: int
    tied_away: int
    violations: int
    smallest: tuple[int, int] | None
    tightest: tuple[int, int] | None


@dataclass(frozen=True, eq=False)
class Validation:
    """All of it. margins: of the clean pass, in units of the scores.

    rounded: pairs whose winner kept the highest score while the answer changed, because the last requantization made equal codes of
    unequal scores. ties: images whose clean twin has no unique maximum; no claim is made about them.
    """

    prepared: Prepared
    checks: tuple[CheckSummary, ...]
    tally: Tally
    violations: tuple[Violation, ...]
    margins: Array
    ties: int
    rounded: int

    @property
    def broken(self) -> int:
        return sum(check.violations for check in self.checks)


# ── the clean twin ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class _Twin:
    """The clean network's values, and what they tolerate; shared by all trials."""

    plan: Plan
    head: mg.OutputLayer
    hidden: tuple[mg.HiddenLayer, ...]
    inputs: Mapping[str, Array]
    values: Mapping[str, Array]
    margins: mg.Margins
    flippable: Mapping[str, mg.Flippable]
    greedy: Array
    answers: Array
    neurons: Mapping[str, Array]


def _twin(prepared: Prepared, hidden: bool, by_spec: bool) -> _Twin:
    network = prepared.network
    head = mg.output_layer(network)
    layers = mg.hidden_layers(network) if hidden else ()
    parts: tuple[mg.OutputLayer | mg.HiddenLayer, ...] = (head, *layers)
    probes = dict.fromkeys(name for part in parts for name in (part.accumulator, part.input))
    wide = replace(network, outputs=tuple(dict.fromkeys((*network.outputs, *probes))))
    _check(prepared, head, layers, wide)
    plan = compile_plan(wide)
    inputs = {network.inputs[0]: prepared.dataset.x}
    values = infer(plan, inputs)
    margins = mg.margins_of(head.scores(values[head.accumulator]))
    flippable = {part.tensor.name: _flippable(prepared, part.tensor.name, by_spec) for part in parts}
    greedy = mg.greedy_tolerance(head, values[head.input], margins, flippable[head.tensor.name])
    neurons = {}
    for layer in layers:
        if not layer.binary:
            h, x = values[layer.accumulator], values[layer.input]
            neurons[layer.accumulator] = mg.greedy_neurons(layer, x, h, flippable[layer.tensor.name])
    return _Twin(plan, head, layers, inputs, values, margins, flippable, greedy, prepared.questions.clean, neurons)


def _check(prepared: Prepared, head: mg.OutputLayer, layers: tuple[mg.HiddenLayer, ...], wide: Network) -> None:
    """UsageError where flips would not be of the weights that a bound speaks of, or where there is too much to hold."""
    asked = f"Validating {prepared.model.name}"
    parts: tuple[mg.OutputLayer | mg.HiddenLayer, ...] = (head, *layers)
    convolutions = [layer for layer in prepared.network.layers if isinstance(layer, Convolution)]
    watched = {part.tensor.name: part.layer for part in parts}
    fixed = {part.layer.bias for part in parts if part.layer.bias}
    if layers:
        fixed |= {t.name for t in prepared.network.tensors.values() if t.role == "threshold"}
    others = ("scale", "zero_point", "buffer", "accumulator")
    fixed |= {name for name, item in prepared.plan.storable.items() if item.role in others}
    for point in prepared.points:
        moved = [slot.tensor for slot in point.placement.slots if slot.tensor in fixed]
        if moved:
            raise UsageError(
                asked, f"{moved[0]} can be faulty, and the bounds are about weights and inputs", "Take it out of --place"
            )
        if not any(slot.tensor in watched for slot in point.placement.slots) and not point.placement.slots:
            raise UsageError(asked, "nothing lives in a memory", "Give --memory")
    for name in watched:
        if sum(layer.weight == name for layer in convolutions) > 1:
            raise UsageError(asked, f"the weights {name} are used by two layers", "Validate networks whose layers have their own")
    if layers and prepared.study.read_every is ReadPolicy.ACCESS:
        raise UsageError(
            asked, "with --read-every access each pixel sees weights of its own", "Leave --hidden out, or read per image"
        )
    size = sum(int(np.prod(wide.values[name].shape)) for name in wide.outputs) * 16 * len(prepared.dataset)
    if layers and size > _HIDDEN_BYTES:
        most = max(1, len(prepared.dataset) * _HIDDEN_BYTES // size)
        raise UsageError(
            asked, f"hidden sums of {len(prepared.dataset)} images take {size >> 20} MiB", f"Give --images {most} or less"
        )


def _flippable(prepared: Prepared, tensor: str, by_spec: bool) -> mg.Flippable:
    """Bits of a tensor that live in some memory at some point; one that is plainly `uniform` flips only where its rate is not 0."""
    bits = prepared.network.tensors[tensor].encoding.bits
    rises, falls = np.zeros(bits, np.bool_), np.zeros(bits, np.bool_)
    for point in prepared.points:
        for slot in point.placement.slots_of(tensor):
            spec = point.placement.arrays[slot.array]
            plain = by_spec and spec.name == "uniform"
            rates = [spec.conditions.get(key, spec.conditions.get("ber", 0.0)) if plain else 1.0 for key in ("p01", "p10")]
            rises[list(slot.planes)] |= bool(rates[0])
            falls[list(slot.planes)] |= bool(rates[1])
    return mg.Flippable(rises, falls)


# ── one trial ───────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Found:
    """One trial's findings."""

    tally: Tally = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    broken: Counter[str] = field(default_factory=Counter)
    rounded: int = 0


@dataclass(frozen=True, eq=False)
class _Judge:
    """Puts a trial's pairs into its tally."""

    prepared: Prepared
    point: Point
    trial: int
    extra: Bounds
    found: _Found

    def count(self, check: str, q: Array, bound: Array, outcome: Array) -> None:
        """One pair per element."""
        base = np.int64(outcome.size and int(q.max(initial=0)) + 1)
        bound = bound + self.extra.get(check, 0)
        keys, numbers = np.unique((bound.astype(np.int64) * base + q) * 4 + outcome, return_counts=True)
        for key, number in zip(keys.tolist(), numbers.tolist(), strict=True):
            pair, outcome_of = divmod(key, 4)
            self.found.tally[self.point.index, check, *divmod(pair, int(base)), outcome_of] += number

    def watch(self, check: str, images: Array, places: Callable[[int], str], q: Array, bound: Array, broke: Array) -> None:
        """Violations: where q <= bound and the claim broke (one entry per claim, images counting along them)."""
        bound = bound + self.extra.get(check, 0)
        wrong = np.flatnonzero((q <= bound) & broke)
        self.found.broken[check] += len(wrong)
        for i in wrong[: max(0, _KEEP_VIOLATIONS - len(self.found.violations))]:
            self.found.violations.append(
                Violation(check, self.point.index, self.point.memory, self.trial, self.prepared.die_of(self.trial),
                          int(images[i]), places(int(i)), int(q[i]), int(bound[i]))
            )  # fmt: skip


def _weight_flips(deployment: Deployment, tensor: str, images: int, batch: int) -> Array:
    """(images, outputs): flipped stored bits of each output's weights in the read that the image saw."""
    values = deployment.plan.network.tensors[tensor].values
    outputs, row = values.shape[0], values.size // values.shape[0]
    by_read: dict[int, Array] = {}
    for fault in deployment.faults or ():
        if fault.slot.tensor != tensor:
            continue
        elements = set_bits(fault.flips) // len(fault.slot.planes)
        counts = np.bincount(elements // row, minlength=outputs)
        by_read[fault.read] = by_read.get(fault.read, np.zeros(outputs, np.int64)) + counts
    policy, made = deployment.policy, np.zeros((images, outputs), dtype=np.int64)
    reads = np.arange(images)
    if policy in (ReadPolicy.LOAD, ReadPolicy.BATCH):
        reads //= batch if policy is ReadPolicy.BATCH else max(images, 1)
    for read, counts in by_read.items():
        made[reads == read] = counts
    return made


def _run_trial(prepared: Prepared, twin: _Twin, point: Point, trial: int, memories: MemoriesOf | None, extra: Bounds) -> _Found:
    study = prepared.study
    own = None if memories is None else memories(point, trial)
    deployment = deploy(twin.plan, point.placement, study.read_every, trial, study.seed, study.die, own, record=True)
    faulty = outputs_under_faults(twin.plan, twin.inputs, deployment, study.batch)
    judge = _Judge(prepared, point, trial, extra, _Found())
    _judge_output(judge, twin, faulty, _weight_flips(deployment, twin.head.tensor.name, len(twin.answers), study.batch))
    for layer in twin.hidden:
        _judge_hidden(judge, twin, layer, faulty, _weight_flips(deployment, layer.tensor.name, len(twin.answers), study.batch))
    return judge.found


def _judge_output(judge: _Judge, twin: _Twin, faulty: Mapping[str, Array], weights: Array) -> None:
    head, images = twin.head, np.arange(len(twin.answers))
    scores = head.scores(faulty[head.accumulator])
    before, after = (x.reshape(len(images), -1) for x in (twin.values[head.input], faulty[head.input]))
    moved = before != after
    if head.binary:
        inputs = moved.sum(axis=1)
        alone, margins = twin.margins.unique, twin.margins
        outcome = _outcome(scores, margins.winner)
        q, bound = weights.sum(axis=1) + head.classes * inputs, mg.output_bound(margins.margin // head.scale[0])
        judge.count("corollary-2", q[alone], bound[alone], outcome[alone])
        judge.watch("corollary-2", images[alone], lambda i: "output", q[alone], bound[alone], outcome[alone] != KEPT)
        _judge_pairs(judge, "pair", scores, margins, mg.unit_tolerance(head, margins), weights + inputs[:, None], outcome)
    margins, greedy = _on_reached_inputs(twin, before, after, moved.any(axis=1))
    outcome = _outcome(scores, margins.winner)
    _judge_pairs(judge, "greedy", scores, margins, greedy, weights, outcome)
    answers = faulty[twin.plan.network.outputs[0]].reshape(len(images), -1).argmax(axis=1)
    judge.found.rounded += int(
        np.count_nonzero((outcome == KEPT) & ~moved.any(axis=1) & margins.unique & (answers != twin.answers))
    )


def _on_reached_inputs(twin: _Twin, before: Array, after: Array, moved: Array) -> tuple[mg.Margins, Array]:
    """Margins and greedy counts of the clean output layer on the inputs that reached it."""
    if not moved.any():
        return twin.margins, twin.greedy
    head = twin.head
    zero = np.asarray(head.tensor.zero_point).reshape(-1, 1)
    real = (head.tensor.values.reshape(head.classes, -1) - zero).astype(np.float64)
    step = (after[moved].astype(np.float64) - before[moved]) @ real.T  # exact: integers far below 2^53
    sums = twin.values[head.accumulator].reshape(len(before), -1).astype(np.int64)
    sums[moved] += step.astype(np.int64)
    margins = mg.margins_of(head.scores(sums))
    can, greedy = twin.flippable[head.tensor.name], twin.greedy.copy()
    if head.binary and can.rises.all() and can.falls.all():
        return margins, mg.unit_tolerance(head, margins)
    part = mg.Margins(margins.scores[moved], margins.winner[moved], margins.gaps[moved], margins.margin[moved])
    greedy[moved] = mg.greedy_tolerance(head, after[moved], part, can)
    return margins, greedy


def _outcome(scores: Array, winner: Array) -> Array:
    kept, tied = mg.still_unique(scores, winner)
    ends = np.where(scores.argmax(axis=1) == winner, TIED, TIED_AWAY)
    outcome: Array = np.where(kept, KEPT, np.where(tied, ends, LOST))
    return outcome


def _judge_pairs(judge: _Judge, check: str, scores: Array, margins: mg.Margins, bound: Array, flips: Array, outcome: Array) -> None:
    """Every competitor is watched; an image's pair is that of the competitor with the least room between q and bound."""
    images, rows = np.flatnonzero(margins.unique), np.arange(len(scores))
    winner = margins.winner
    q = flips[rows, winner][:, None] + flips
    broke = scores >= scores[rows, winner][:, None]
    other = np.ones(scores.shape, np.bool_)
    other[rows, winner] = False
    room = np.where(other, bound - q, np.iinfo(np.int64).max)
    tightest = room.argmin(axis=1)
    judge.count(check, q[images, tightest[images]], bound[images, tightest[images]], outcome[images])
    at, c = np.nonzero(other & margins.unique[:, None])
    judge.watch(check, at, lambda i: f"class {winner[at[i]]} against {c[i]}", q[at, c], bound[at, c], broke[at, c])


def _judge_hidden(judge: _Judge, twin: _Twin, layer: mg.HiddenLayer, faulty: Mapping[str, Array], weights: Array) -> None:
    clean, h = mg.sums(twin.values[layer.accumulator]), mg.sums(faulty[layer.accumulator])
    pivot, q = layer.shaped_pivot, weights[:, :, None, None] + np.zeros(clean.shape, np.int64)
    before, after = twin.values[layer.input], faulty[layer.input]
    if layer.binary:
        moved = (before != after).sum(axis=1, keepdims=True, dtype=np.int64)
        q += mg.windows_of(moved, layer.layer).sum(axis=-1)[:, None]
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
        judge.count(check, q.reshape(-1), bound.reshape(-1), np.where(broke, LOST, KEPT))
        judge.watch(check, images, place, q.reshape(-1), bound.reshape(-1), broke)


# ── all trials ──────────────────────────────────────────────────────────────────────────────────────


def validate(
    prepared: Prepared,
    *,
    first: int = 0,
    hidden: bool = False,
    threads: int | None = None,
    memories: MemoriesOf | None = None,
    on_trial: Callable[[Point], None] | None = None,
    too_many: Bounds | None = None,
) -> Validation:
    """Run trials first.. of every point of a study and check every bound on each.

    memories: instead of opening the placements' SPECs. too_many: makes bounds wrong on purpose, to see that this is caught.
    """
    twin, extra = _twin(prepared, hidden, memories is None), too_many or {}
    tally: Tally = Counter()
    broken: Counter[str] = Counter()
    violations: list[Violation] = []
    rounded = 0
    jobs = [(point, first + trial) for point in prepared.points for trial in range(prepared.study.trials)]
    with ThreadPoolExecutor(threads or default_workers(), thread_name_prefix="validate") as pool:
        step = 64
        for start in range(0, len(jobs), step):  # a few at a time, so that findings never pile up
            part = jobs[start : start + step]
            found = pool.map(lambda job: _run_trial(prepared, twin, job[0], job[1], memories, extra), part)
            for (point, _), one in zip(part, found, strict=True):
                tally.update(one.tally)
                broken.update(one.broken)
                violations.extend(one.violations[: max(0, _KEEP_VIOLATIONS - len(violations))])
                rounded += one.rounded
                if on_trial:
                    on_trial(point)
    names = [check for check in CLAIMS if any(key[1] == check for key in tally)]
    checks = tuple(summarize(check, tally, broken[check]) for check in names)
    ties = int(np.count_nonzero(~twin.margins.unique))
    return Validation(prepared, checks, tally, tuple(violations), twin.margins.margin * twin.head.unit, ties, rounded)


def summarize(check: str, tally: Tally, violations: int) -> CheckSummary:
    """The numbers of one check."""
    pairs = non_vacuous = near = changed = tied = away = 0
    smallest: tuple[int, int] | None = None
    tightest: tuple[int, int] | None = None
    for (_, name, bound, q, outcome), count in tally.items():
        if name != check:
            continue
        pairs += count
        if 1 <= q <= bound:
            non_vacuous += count
            near += count if q >= 0.9 * bound else 0
        tied += count if outcome in (TIED, TIED_AWAY) else 0
        away += count if outcome == TIED_AWAY else 0
        if outcome == KEPT:
            continue
        changed += count
        if smallest is None or (q, -bound) < (smallest[0], -smallest[1]):
            smallest = (q, bound)
        if bound >= 1 and (tightest is None or (q / (bound + 1), q) < (tightest[0] / (tightest[1] + 1), tightest[0])):
            tightest = (q, bound)
    return CheckSummary(check, pairs, non_vacuous, near, changed, tied, away, violations, smallest, tightest)


# ── stress ──────────────────────────────────────────────────────────────────────────────────────────


def stressed(study: Study, prepare_with: Callable[[Study], Prepared]) -> Study:
    """The study swept over those BERs at which flips come nearest to the bounds: for each check the two with most near pairs.

    Found by one trial at each of 28 rates on the first 256 images. UsageError if the memory has no `ber`.
    """
    if "ber" not in {condition.name for condition in study.memory.technology.conditions}:
        found = f"{study.memory.name} has no bit error rate to choose"
        raise UsageError("--stress", found, "Give --memory uniform:ber=…, or --sweep over what that memory has")
    images = min(study.images or _STRESS_IMAGES, _STRESS_IMAGES)
    pilot = replace(study, sweep=Sweep("ber", _STRESS_GRID, True), trials=1, images=images)
    tried = validate(prepare_with(pilot))
    best: dict[float, None] = {}
    for check in tried.checks:
        near: Counter[int] = Counter()
        for (point, name, bound, q, _), count in tried.tally.items():
            if name == check.check and 1 <= q <= bound and q >= 0.9 * bound:
                near[point] += count
        for point, _ in near.most_common(2):
            best[_STRESS_GRID[point]] = None
    rates = tuple(sorted(best)) or (1e-2,)
    return replace(study, sweep=Sweep("ber", rates, True))


def prepare_stressed(study: Study, prepare_with: Callable[[Study], Prepared] = prepare) -> Prepared:
    """The stressed study, made ready."""
    given = {key: value for key, value in study.memory.conditions.items() if key not in ("p01", "p10")}
    base = replace(study, memory=replace(study.memory, conditions={**given, "ber": _STRESS_GRID[0]}))
    return prepare_with(stressed(base, prepare_with))
