"""Which operating point may be used: the one of lowest energy at which most dies lose little, with a stated confidence.

Candidates are screened, by a prediction of the mean where the memory has one and on some dies, and confirmed on other dies that no
candidate has seen. A candidate is confirmed if at most F of n fresh dies lose more than the limit, n being the fewest for which a
share of 1 - `share` of bad dies would let that happen with a probability of at most (1 - confidence) / tries: 59 dies for F = 0, 93
for F = 1, 124 for F = 2 at 95 %, 95 % and one try (the binomial test; Clopper and Pearson 1934). So whatever is announced, the
chance that it is wrong is at most 1 - confidence.

Layers may lie in partitions with conditions of their own: from the cheapest point at which all of them pass, layers are moved down
as long as the screening dies agree. The baseline is BERA's (Yayla et al. 2022): the rate that each layer tolerates alone, its share
of the loss allowed. Where it needs no more partitions than are allowed, it is a candidate like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from weakcell.emulator.faults.placement import layers_by_weight
from weakcell.emulator.tasks import METRICS, Metric
from weakcell.host.report.captions import accesses_of
from weakcell.host.study.executors import Executor, Threads, default_workers, make_task, run_task
from weakcell.host.study.study import Point, ResolvedStudy, Study, resolve_study
from weakcell.host.study.workload import Workload
from weakcell.memmodels.catalogue import MemorySpec
from weakcell.memmodels.errors import UsageError

SCREENING_DIES = 24
FIRST_FRESH_DIE = 1_000_000
"""Dies from here on are used once, to confirm; screening has those from 0 on."""

_TAIL = 2.33
"""Screening wants this many standard deviations between the mean die and the limit: about 1 % of normal dies beyond it."""


_SKIP_FACTOR = 30.0
"""A point that loses this many times the limit even at the low end of its predicted interval is not screened: not even its largest
layer could have it alone."""


@dataclass(frozen=True)
class Goal:
    """What is asked. max_drop: accuracy (for pixels: mean IoU) that a die may lose. tries: how many candidates may be tested.

    share: of dies that must keep within it. failures: bad dies that a test may see. partitions: different values at a time.
    """

    max_drop: float = 0.01
    share: float = 0.95
    confidence: float = 0.95
    failures: int = 1
    tries: int = 3
    partitions: int = 2

    def check(self) -> None:
        """UsageError for a number out of range."""
        for name, value, low, high in (("max-drop", self.max_drop, 0.0, 1.0), ("share", self.share, 0.5, 0.9999),
                                       ("confidence", self.confidence, 0.5, 0.9999), ("failures", self.failures, 0, 100),
                                       ("tries", self.tries, 1, 100), ("partitions", self.partitions, 1, 100)):  # fmt: skip
            if not low <= value <= high:
                raise UsageError(f"--{name} {value}", f"it must lie in {low} … {high}", "Give a number in that range")

    @property
    def dies(self) -> int:
        """Fresh dies that one test needs."""
        return dies_needed(self.failures, self.share, 1.0 - (1.0 - self.confidence) / self.tries)


def dies_needed(failures: int, share: float = 0.95, confidence: float = 0.95) -> int:
    """The fewest dies of which at most `failures` may be bad to conclude that at least `share` of all dies are good."""
    from scipy.stats import binom

    dies = failures + 1
    while binom.cdf(failures, dies, 1.0 - share) > 1.0 - confidence:
        dies += 1
    return dies


@dataclass(frozen=True)
class Candidate:
    """Values of the swept condition: of the memory, and of layers that have one of their own."""

    value: float
    own: Mapping[str, float] = field(default_factory=dict)

    def value_at(self, layer: str) -> float:
        return self.own.get(layer, self.value)


@dataclass(frozen=True)
class ScreenedCandidate:
    """A candidate with its energy and the scores of the screening dies.

    drops: of each die, in shares of accuracy. accesses: in words, which accesses of an inference the energy counts.
    """

    candidate: Candidate
    energy: float
    unit: str
    basis: str
    drops: tuple[float, ...]
    how: str
    places: tuple[str, ...]
    accesses: str

    @property
    def mean(self) -> float:
        return float(np.mean(self.drops))

    def likely_passes(self, limit: float) -> bool:
        """Whether it will probably be confirmed."""
        spread = float(np.std(self.drops, ddof=1))
        return max(self.drops) <= limit and self.mean + _TAIL * spread <= limit

    def may_still_pass(self, limit: float) -> bool:
        """Whether more dies could show that it will: one die of those seen may be bad by chance."""
        return sum(drop > limit for drop in self.drops) <= 1 and self.mean <= limit


@dataclass(frozen=True)
class ConfirmationTest:
    """A test: how many fresh dies lost more than the limit, of how many, and whether that confirms the candidate."""

    screened: ScreenedCandidate
    first_die: int
    dies: int
    bad: int
    passed: bool


@dataclass(frozen=True)
class Optimum:
    """All that was found. metric: what is lost. clean: the fault-free score. chosen: None if no candidate was confirmed.

    nominal: what savings are against. bera: the baseline.

    skipped: values that were not even screened, with the mean loss that was predicted for them.
    """

    goal: Goal
    key: str
    clean: float
    nominal: ScreenedCandidate
    screened: tuple[ScreenedCandidate, ...]
    tests: tuple[ConfirmationTest, ...]
    chosen: ScreenedCandidate | None
    bera: ScreenedCandidate | None
    skipped: Mapping[float, float] = field(default_factory=dict)
    metric: Metric = METRICS["accuracy"]

    @property
    def saving(self) -> float | None:
        """Energy saved against the nominal point, as a share of it."""
        return None if self.chosen is None else 1.0 - self.chosen.energy / self.nominal.energy

    @property
    def front(self) -> tuple[ScreenedCandidate, ...]:
        """Candidates that no other beats in energy and mean drop."""
        kept: list[ScreenedCandidate] = []
        for one in sorted(self.screened, key=lambda s: (s.energy, s.mean)):
            if not kept or one.mean < kept[-1].mean:
                kept.append(one)
        return tuple(kept)


@dataclass(eq=False)
class Search:
    """Judges candidates of one network on one memory. study: whose memory is moved along `key`; its sweep plays no part."""

    workload: Workload
    study: Study
    key: str
    executor: Executor
    on_trials: Callable[[int], None] | None = None

    @property
    def clean(self) -> float:
        """The score of the fault-free network; UsageError if there is none, or if no share of it can be lost."""
        questions = self.workload.questions
        if questions.fault_free_score is None:
            raise UsageError("weakcell optimize", "the data have no labels, so there is no accuracy", "Bring labels")
        if not self.metric.share:
            judged = f"the output {questions.task.output!r} is judged by its {self.metric.words}"
            found = f"{judged}, and the largest loss (--max-drop) is a share of right answers"
            raise UsageError("weakcell optimize", found, "Sweep the memory and choose by the errors in the table")
        return questions.fault_free_score

    @property
    def metric(self) -> Metric:
        """What is lost."""
        return self.workload.questions.metric

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers whose weights live in the memory, largest first."""
        names = layers_by_weight(self.workload.network)
        bits = {layer: self.workload.network.tensors[tensor].bits for tensor, layer in names.items()}
        moved = {target for target, _ in self.study.places}
        return tuple(sorted((layer for layer in bits if layer not in moved), key=lambda layer: -bits[layer]))

    def distinct_values(self, candidate: Candidate) -> frozenset[float]:
        """The different values that layers in the memory have."""
        return frozenset(candidate.value_at(layer) for layer in self.layers)

    def resolve(self, candidate: Candidate, elsewhere: MemorySpec | None = None) -> tuple[ResolvedStudy, Point]:
        """The study at a candidate. elsewhere: where layers without a value of their own live instead."""
        memory = self.study.memory
        rules = [(layer, memory.at(**{self.key: value})) for layer, value in candidate.own.items()]
        base = elsewhere or memory.at(**{self.key: candidate.value})
        study = replace(self.study, memory=base, sweep=None, places=(*self.study.places, *rules))
        ready = resolve_study(study, workload=self.workload)
        return ready, ready.points[0]

    def predict_losses(self, values: Sequence[float]) -> dict[float, float]:
        """Least mean loss that the prediction leaves possible at each value; nothing where it does not know the memory's errors."""
        from weakcell.emulator.prediction import predict

        placements = [self.resolve(Candidate(value))[1].placement for value in values]
        try:
            found = predict(
                self.workload.plan, placements, self.workload.questions, self.study.read_every, threads=self.executor.workers
            )
        except UsageError:
            return {}
        losses = {value: self.clean - one.accuracy for value, one in zip(values, found, strict=True) if one.accuracy is not None}
        return {value: loss - one.half_width for (value, loss), one in zip(losses.items(), found, strict=True)}

    def screen(self, candidate: Candidate, how: str, dies: int = SCREENING_DIES) -> ScreenedCandidate:
        """Energy, and drops of the first `dies` dies; UsageError if no one energy is known."""
        ready, point = self.resolve(candidate)
        energy = point.energy
        if energy is None:
            found = "no energy is published for it" if not point.cost.energy else "its energies are in units that do not add up"
            raise UsageError(
                f"Optimizing {self.study.memory}", found, "Take a memory with an energy; weakcell memories NAME shows it"
            )
        places = tuple(f"{layer}={self.study.memory.at(**{self.key: value})}" for layer, value in candidate.own.items())
        drops = tuple(self.measure_drops(ready, point, 0, dies))
        accesses = accesses_of(point.cost, self.study.read_every)
        return ScreenedCandidate(candidate, energy.value, energy.unit, str(energy.basis), drops, how, places, accesses)

    def measure_drops(self, ready: ResolvedStudy, point: Point, first: int, dies: int) -> list[float]:
        """What each die loses against the fault-free network, by die."""
        clean, step = self.clean, max(1, dies // (4 * self.executor.workers))
        parts = [range(start, min(start + step, first + dies)) for start in range(first, first + dies, step)]
        found: dict[int, float] = {}
        for done in self.executor.run(make_task(ready, point, 0, tuple(part)) for part in parts):
            for result in done.results:
                found[result.trial] = round(clean - result.score, 12)  # 3 of 300 images are 1 %, not a little more
            if self.on_trials:
                self.on_trials(len(done.results))
        return [found[trial] for trial in sorted(found)]

    def is_worth_testing(self, screened: ScreenedCandidate, goal: Goal) -> bool:
        """Whether more screening dies give it even odds to pass: the cheapest of many candidates looks better than it is."""
        from scipy.stats import binom

        ready, point = self.resolve(screened.candidate)
        bad = seen = 0
        while seen < 2 * goal.dies:
            part = min(32, 2 * goal.dies - seen)
            bad += sum(drop > goal.max_drop for drop in self.measure_drops(ready, point, SCREENING_DIES + seen, part))
            seen += part
            if binom.cdf(goal.failures, goal.dies, (bad + 0.5) / (2 * goal.dies + 1)) < 0.5:
                return False
        return True

    def confirm(self, screened: ScreenedCandidate, goal: Goal, first_die: int) -> ConfirmationTest:
        """Put a candidate to the test on fresh dies; stops as soon as it has failed."""
        ready, point = self.resolve(screened.candidate)
        bad = seen = 0
        while seen < goal.dies and bad <= goal.failures:
            part = min(16, goal.dies - seen)
            bad += sum(drop > goal.max_drop for drop in self.measure_drops(ready, point, first_die + seen, part))
            seen += part
        return ConfirmationTest(screened, first_die, seen, bad, bad <= goal.failures)


def optimize(search: Search, values: Sequence[float], goal: Goal, nominal: float) -> Optimum:
    """Screen every value, move layers between partitions, and confirm the cheapest that promise to pass.

    values: of the swept condition. nominal: the one that savings are against.
    """
    goal.check()
    at_nominal = search.screen(Candidate(nominal), "nominal")
    losses = search.predict_losses(values)
    skipped = {value: loss for value, loss in losses.items() if loss > _SKIP_FACTOR * goal.max_drop}
    uniform = [search.screen(Candidate(value), "one condition") for value in values if value not in skipped]
    screened, hopeful = [at_nominal, *uniform], [one for one in (at_nominal, *uniform) if one.may_still_pass(goal.max_drop)]
    bera = None
    best = next((one for one in _by_energy(hopeful) if search.is_worth_testing(one, goal)), None)
    if best is not None and goal.partitions > 1 and len(search.layers) > 1:
        moved = list(_partitioned(search, best, uniform, goal))
        screened += moved
        bera = assign_layerwise(search, uniform, goal, best.candidate.value)
        if len(search.distinct_values(bera.candidate)) <= goal.partitions:
            moved.append(bera)
        hopeful += [one for one in moved if one.may_still_pass(goal.max_drop)]
    tests: list[ConfirmationTest] = []
    for one in _by_energy(hopeful):
        if len(tests) == goal.tries:
            break
        if one is not best and not search.is_worth_testing(one, goal):
            continue
        tests.append(search.confirm(one, goal, FIRST_FRESH_DIE + len(tests) * goal.dies))
        if tests[-1].passed:
            break
    chosen = tests[-1].screened if tests and tests[-1].passed else None
    return Optimum(goal, search.key, search.clean, at_nominal, tuple(screened), tuple(tests), chosen, bera, skipped, search.metric)


def _by_energy(screened: Sequence[ScreenedCandidate]) -> list[ScreenedCandidate]:
    """The cheapest first; of equally cheap ones, the one that loses least, once."""
    kept: dict[float, ScreenedCandidate] = {}
    for one in sorted(screened, key=lambda s: (s.energy, s.mean + float(np.std(s.drops)))):
        kept.setdefault(round(one.energy, 12), one)
    return list(kept.values())


def _partitioned(
    search: Search, start: ScreenedCandidate, uniform: Sequence[ScreenedCandidate], goal: Goal
) -> Iterator[ScreenedCandidate]:
    """From one condition for all, move layers down: for each lower value, every layer that may, the largest first; then again."""
    lower = sorted((one for one in uniform if one.energy < start.energy), key=lambda one: -one.energy)
    best = start
    for _ in range(goal.partitions - 1):
        improved = None
        for one in lower:
            own = dict(best.candidate.own)
            reached: ScreenedCandidate | None = None
            for layer in search.layers:
                if best.candidate.value_at(layer) != start.candidate.value:
                    continue
                candidate = Candidate(start.candidate.value, {**own, layer: one.candidate.value})
                if len(search.distinct_values(candidate)) == 1:  # one condition for all, which is screened already
                    continue
                tried = search.screen(candidate, "partitions")
                yield tried
                if tried.likely_passes(goal.max_drop):
                    own[layer] = one.candidate.value
                    reached = tried
            if reached is None:
                break
            if improved is None or reached.energy < improved.energy:
                improved = reached
        if improved is None or improved.energy >= best.energy:
            return
        best = improved


def assign_layerwise(search: Search, uniform: Sequence[ScreenedCandidate], goal: Goal, fallback: float) -> ScreenedCandidate:
    """BERA's assignment: each layer gets the cheapest value at which, alone, it loses its share of the limit on the mean die."""
    safe, limit = MemorySpec("uniform", {"ber": 0.0}), goal.max_drop / len(search.layers)
    own: dict[str, float] = {}
    for layer in search.layers:
        own[layer] = fallback
        for one in sorted(uniform, key=lambda s: -s.energy):
            ready, point = search.resolve(Candidate(0.0, {layer: one.candidate.value}), safe)
            if float(np.mean(search.measure_drops(ready, point, 0, SCREENING_DIES // 2))) > limit:
                break
            own[layer] = one.candidate.value
    return search.screen(Candidate(fallback, own), "BERA")


def open_search(
    workload: Workload,
    study: Study,
    key: str | None = None,
    executor: Executor | None = None,
    on_trials: Callable[[int], None] | None = None,
) -> Search:
    """A search over the condition `key`, or the one that the technology is usually swept over."""
    key = key or study.memory.technology.sweep
    if key is None:
        raise UsageError(f"Optimizing {study.memory}", "its technology has no condition to move", "Give --sweep KEY=VALUES")
    work = executor or Threads(partial(run_task, {workload.key: workload}), default_workers())
    return Search(workload, study, key, work, on_trials)


def default_values(memory: MemorySpec, key: str, count: int = 26) -> tuple[float, ...]:
    """Values over the valid range of a condition; UsageError if it is not a number with two ends."""
    condition = next((c for c in memory.technology.conditions if c.name == key), None)
    if condition is None or condition.low is None or condition.high is None:
        raise UsageError(f"Optimizing {memory}", f"{key} has no range of numbers", "Give --sweep KEY=VALUES")
    return tuple(round(float(value), 9) for value in np.linspace(condition.low, condition.high, count))


def find_nominal(memory: MemorySpec, key: str, values: Sequence[float]) -> float:
    """The value that the technology takes unless told; where it has none, the one of `values` with the fewest errors."""
    given: dict[str, Any] = {name: value for name, value in memory.conditions.items() if name != key}
    condition = next(c for c in memory.technology.conditions if c.name == key)
    if isinstance(condition.default, float | int):
        return float(condition.default)

    def errors(value: float) -> float:
        tech = memory.technology
        return float(sum(term.rate for term in tech.terms(tech.resolve({**given, key: value}))))

    return min(values, key=lambda value: (errors(value), -value))
