"""Find the operating point of lowest energy at which most dies lose little accuracy, with a stated confidence.

Candidates are screened by a prediction of the mean, if the memory has one, and on 24 dies. They are confirmed on dies that were not
used before. A candidate is confirmed if at most F of n fresh dies lose more than the limit. n is the smallest number for which a
share of 1 - `share` of bad dies would allow that with a probability of at most (1 - confidence) / tries: 59 dies for F = 0, 93 for
F = 1, 124 for F = 2 at 95 %, 95 % and one try (binomial test; Clopper and Pearson 1934). So the probability that a result is wrong
is at most 1 - confidence.

Layers may be in partitions with different conditions. The search starts at the cheapest point at which all layers pass, and moves
layers to cheaper points as long as the screening dies pass. The baseline is BERA's (Yayla et al. 2022): each layer gets the rate
that it alone tolerates with its share of the allowed loss. If that needs no more partitions than allowed, it is a candidate too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from weakcell.emulator.faults.placement import layers_by_weight
from weakcell.emulator.tasks import METRICS, Metric
from weakcell.host.campaign.trade_off import check_trade_off
from weakcell.host.report.captions import describe_accesses
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
    """What the operating point must fulfil.

    Attributes:
        max_drop: accuracy (for pixels: mean IoU) that a die may lose, as a share.
        share: of all dies that must not lose more.
        confidence: of the result.
        failures: bad dies that a test allows.
        tries: most candidates that are tested; the confidence is corrected for them.
        partitions: most different conditions at a time.
    """

    max_drop: float = 0.01
    share: float = 0.95
    confidence: float = 0.95
    failures: int = 1
    tries: int = 3
    partitions: int = 2

    def check(self) -> None:
        """Raise UsageError for a number out of range."""
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
    """Return how many dies a test needs.

    Args:
        failures: bad dies that the test allows.
        share: of good dies among all dies that the test shall prove.
        confidence: of the test.
    """
    from scipy.stats import binom

    dies = failures + 1
    while binom.cdf(failures, dies, 1.0 - share) > 1.0 - confidence:
        dies += 1
    return dies


@dataclass(frozen=True)
class Candidate:
    """Values of the swept condition.

    Attributes:
        value: of the memory.
        own: of layers with a value of their own.
    """

    value: float
    own: Mapping[str, float] = field(default_factory=dict)

    def value_at(self, layer: str) -> float:
        """Return the value for a layer."""
        return self.own.get(layer, self.value)


@dataclass(frozen=True)
class ScreenedCandidate:
    """A candidate with its energy and the results of its screening dies.

    Attributes:
        energy: of one inference, in `unit`; `basis` says how it is known.
        drops: accuracy lost on each die, as shares.
        how: how the search found the candidate.
        places: rules of `--place` for layers with a value of their own.
        accesses: in words, which accesses of an inference the energy counts.
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
        """Mean loss over the screening dies."""
        return float(np.mean(self.drops))

    def likely_passes(self, limit: float) -> bool:
        """Return whether the candidate will probably be confirmed."""
        spread = float(np.std(self.drops, ddof=1))
        return max(self.drops) <= limit and self.mean + _TAIL * spread <= limit

    def may_still_pass(self, limit: float) -> bool:
        """Return whether more dies could show that it passes: a single bad die may be chance."""
        return sum(drop > limit for drop in self.drops) <= 1 and self.mean <= limit


@dataclass(frozen=True)
class ConfirmationTest:
    """Test of a candidate on fresh dies.

    Attributes:
        first_die: number of the first die.
        dies: how many dies were run.
        bad: how many of them lost more than the limit.
        passed: whether the candidate is confirmed.
    """

    screened: ScreenedCandidate
    first_die: int
    dies: int
    bad: int
    passed: bool


@dataclass(frozen=True)
class Optimum:
    """Result of a search.

    Attributes:
        key: the swept condition.
        clean: fault-free score.
        nominal: the point that savings are relative to.
        chosen: None if no candidate was confirmed.
        bera: the baseline; None if it was not computed.
        skipped: values that were not screened, with their predicted mean loss.
        metric: what a die loses.
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
        """Energy saved relative to the nominal point, as a share."""
        return None if self.chosen is None else 1.0 - self.chosen.energy / self.nominal.energy

    @property
    def front(self) -> tuple[ScreenedCandidate, ...]:
        """Candidates that no other one beats in both energy and mean loss."""
        front: list[ScreenedCandidate] = []
        for candidate in sorted(self.screened, key=lambda s: (s.energy, s.mean)):
            if not front or candidate.mean < front[-1].mean:
                front.append(candidate)
        return tuple(front)


@dataclass(eq=False)
class Search:
    """Measures candidates of one network on one memory.

    Attributes:
        study: its memory is changed along `key`; its sweep is ignored.
        on_trials: called with the number of trials that have finished.
    """

    workload: Workload
    study: Study
    key: str
    executor: Executor
    on_trials: Callable[[int], None] | None = None

    @property
    def clean(self) -> float:
        """Fault-free score; UsageError without labels, or if the metric is no share."""
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
        """What a die loses."""
        return self.workload.questions.metric

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers whose weights are in the memory, largest first."""
        names = layers_by_weight(self.workload.network)
        bits = {layer: self.workload.network.tensors[tensor].bits for tensor, layer in names.items()}
        moved = {target for target, _ in self.study.places}
        return tuple(sorted((layer for layer in bits if layer not in moved), key=lambda layer: -bits[layer]))

    def distinct_values(self, candidate: Candidate) -> frozenset[float]:
        """Return the different values that layers in the memory have."""
        return frozenset(candidate.value_at(layer) for layer in self.layers)

    def resolve(self, candidate: Candidate, elsewhere: MemorySpec | None = None) -> tuple[ResolvedStudy, Point]:
        """Return study and point of a candidate.

        Args:
            candidate: the values.
            elsewhere: memory of layers without a value of their own; None: the memory at the candidate's value.
        """
        memory = self.study.memory
        rules = [(layer, memory.at(**{self.key: value})) for layer, value in candidate.own.items()]
        base = elsewhere or memory.at(**{self.key: candidate.value})
        study = replace(self.study, memory=base, sweep=None, places=(*self.study.places, *rules))
        ready = resolve_study(study, workload=self.workload)
        return ready, ready.points[0]

    def predict_losses(self, values: Sequence[float]) -> dict[float, float]:
        """Return, by value, the low end of the predicted mean loss; empty if the memory's errors cannot be predicted."""
        from weakcell.emulator.prediction import predict

        placements = [self.resolve(Candidate(value))[1].placement for value in values]
        try:
            predictions = predict(
                self.workload.plan, placements, self.workload.questions, self.study.read_every, threads=self.executor.workers
            )
        except UsageError:
            return {}
        losses = {
            value: self.clean - prediction.accuracy
            for value, prediction in zip(values, predictions, strict=True)
            if prediction.accuracy is not None
        }
        return {value: loss - prediction.half_width for (value, loss), prediction in zip(losses.items(), predictions, strict=True)}

    def screen(self, candidate: Candidate, how: str, dies: int = SCREENING_DIES) -> ScreenedCandidate:
        """Return energy and losses of a candidate on its first dies.

        Args:
            candidate: the values.
            how: how the search found it.
            dies: how many dies.

        Raises:
            UsageError: the memory has no single known energy.
        """
        ready, point = self.resolve(candidate)
        energy = point.energy
        if energy is None:
            found = "no energy is published for it" if not point.cost.energy else "its energies are in units that do not add up"
            raise UsageError(
                f"Optimizing {self.study.memory}", found, "Take a memory with an energy; weakcell memories NAME shows it"
            )
        places = tuple(f"{layer}={self.study.memory.at(**{self.key: value})}" for layer, value in candidate.own.items())
        drops = tuple(self.measure_drops(ready, point, 0, dies))
        accesses = describe_accesses(point.cost, self.study.read_every)
        return ScreenedCandidate(candidate, energy.value, energy.unit, str(energy.basis), drops, how, places, accesses)

    def measure_drops(self, ready: ResolvedStudy, point: Point, first: int, dies: int) -> list[float]:
        """Return what each of `dies` dies from `first` on loses against the fault-free network."""
        clean, step = self.clean, max(1, dies // (4 * self.executor.workers))
        parts = [range(start, min(start + step, first + dies)) for start in range(first, first + dies, step)]
        drops_by_trial: dict[int, float] = {}
        for done in self.executor.run(make_task(ready, point, 0, tuple(part)) for part in parts):
            for result in done.results:
                drops_by_trial[result.trial] = round(clean - result.score, 12)  # 3 of 300 images are 1 %, not a little more
            if self.on_trials:
                self.on_trials(len(done.results))
        return [drops_by_trial[trial] for trial in sorted(drops_by_trial)]

    def is_worth_testing(self, screened: ScreenedCandidate, goal: Goal) -> bool:
        """Return whether further screening dies give at least even odds to pass.

        The cheapest of many candidates looks better on its screening dies than it is.
        """
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
        """Test a candidate on fresh dies; stop as soon as it has failed."""
        ready, point = self.resolve(screened.candidate)
        bad = seen = 0
        while seen < goal.dies and bad <= goal.failures:
            part = min(16, goal.dies - seen)
            bad += sum(drop > goal.max_drop for drop in self.measure_drops(ready, point, first_die + seen, part))
            seen += part
        return ConfirmationTest(screened, first_die, seen, bad, bad <= goal.failures)


def optimize(search: Search, values: Sequence[float], goal: Goal, nominal: float) -> Optimum:
    """Screen every value, move layers between partitions, and confirm the cheapest candidates.

    Args:
        search: the network and memory.
        values: of the swept condition.
        goal: what a candidate must fulfil.
        nominal: value that savings are relative to.

    Raises:
        UsageError: all candidates cost the same.
    """
    goal.check()
    if all(isinstance(value, float) for value in values) and not search.study.places:
        check_trade_off(search.study.memory, search.key, values)
    at_nominal = search.screen(Candidate(nominal), "nominal")
    losses = search.predict_losses(values)
    skipped = {value: loss for value, loss in losses.items() if loss > _SKIP_FACTOR * goal.max_drop}
    uniform = [search.screen(Candidate(value), "one condition") for value in values if value not in skipped]
    screened = [at_nominal, *uniform]
    open_candidates = [candidate for candidate in screened if candidate.may_still_pass(goal.max_drop)]
    bera = None
    best = next((candidate for candidate in _sort_by_energy(open_candidates) if search.is_worth_testing(candidate, goal)), None)
    if best is not None and goal.partitions > 1 and len(search.layers) > 1:
        partitioned = list(_move_layers(search, best, uniform, goal))
        screened += partitioned
        bera = assign_layerwise(search, uniform, goal, best.candidate.value)
        if len(search.distinct_values(bera.candidate)) <= goal.partitions:
            partitioned.append(bera)
        open_candidates += [candidate for candidate in partitioned if candidate.may_still_pass(goal.max_drop)]
    tests: list[ConfirmationTest] = []
    for candidate in _sort_by_energy(open_candidates):
        if len(tests) == goal.tries:
            break
        if candidate is not best and not search.is_worth_testing(candidate, goal):
            continue
        tests.append(search.confirm(candidate, goal, FIRST_FRESH_DIE + len(tests) * goal.dies))
        if tests[-1].passed:
            break
    chosen = tests[-1].screened if tests and tests[-1].passed else None
    return Optimum(goal, search.key, search.clean, at_nominal, tuple(screened), tuple(tests), chosen, bera, skipped, search.metric)


def _sort_by_energy(screened: Sequence[ScreenedCandidate]) -> list[ScreenedCandidate]:
    """Return candidates from the cheapest on; of equally cheap ones only the one with the smallest loss."""
    cheapest: dict[float, ScreenedCandidate] = {}
    for candidate in sorted(screened, key=lambda s: (s.energy, s.mean + float(np.std(s.drops)))):
        cheapest.setdefault(round(candidate.energy, 12), candidate)
    return list(cheapest.values())


def _move_layers(
    search: Search, start: ScreenedCandidate, uniform: Sequence[ScreenedCandidate], goal: Goal
) -> Iterator[ScreenedCandidate]:
    """Yield candidates with further partitions.

    Starting with one condition for all layers, try each lower value: move every layer that may move, the largest first. Repeat from
    the cheapest result for the next partition.
    """
    lower = sorted((cheaper for cheaper in uniform if cheaper.energy < start.energy), key=lambda cheaper: -cheaper.energy)
    best = start
    for _ in range(goal.partitions - 1):
        improved = None
        for cheaper in lower:
            values = dict(best.candidate.own)
            reached: ScreenedCandidate | None = None
            for layer in search.layers:
                if best.candidate.value_at(layer) != start.candidate.value:
                    continue
                candidate = Candidate(start.candidate.value, {**values, layer: cheaper.candidate.value})
                if len(search.distinct_values(candidate)) == 1:  # one condition for all, which is screened already
                    continue
                tried = search.screen(candidate, "partitions")
                yield tried
                if tried.likely_passes(goal.max_drop):
                    values[layer] = cheaper.candidate.value
                    reached = tried
            if reached is None:
                break
            if improved is None or reached.energy < improved.energy:
                improved = reached
        if improved is None or improved.energy >= best.energy:
            return
        best = improved


def assign_layerwise(search: Search, uniform: Sequence[ScreenedCandidate], goal: Goal, fallback: float) -> ScreenedCandidate:
    """Return BERA's assignment.

    Each layer gets the cheapest value at which it alone loses its share of the limit on the mean die; `fallback` if there is none.
    """
    safe, limit = MemorySpec("uniform", {"ber": 0.0}), goal.max_drop / len(search.layers)
    values: dict[str, float] = {}
    for layer in search.layers:
        values[layer] = fallback
        for candidate in sorted(uniform, key=lambda s: -s.energy):
            ready, point = search.resolve(Candidate(0.0, {layer: candidate.candidate.value}), safe)
            if float(np.mean(search.measure_drops(ready, point, 0, SCREENING_DIES // 2))) > limit:
                break
            values[layer] = candidate.candidate.value
    return search.screen(Candidate(fallback, values), "BERA")


def open_search(
    workload: Workload,
    study: Study,
    key: str | None = None,
    executor: Executor | None = None,
    on_trials: Callable[[int], None] | None = None,
) -> Search:
    """Return a search over a condition.

    Args:
        workload: network and data.
        study: its memory and placement.
        key: the condition; None for the one that the technology is usually swept over.
        executor: runs the trials; None for threads.
        on_trials: see `Search`.
    """
    key = key or study.memory.technology.sweep
    if key is None:
        raise UsageError(f"Optimizing {study.memory}", "its technology has no condition to move", "Give --sweep KEY=VALUES")
    work = executor or Threads(partial(run_task, {workload.key: workload}), default_workers())
    return Search(workload, study, key, work, on_trials)


def default_values(memory: MemorySpec, key: str, count: int = 26) -> tuple[float, ...]:
    """Return `count` values over the valid range of a condition; UsageError if it has no numeric range."""
    condition = next((c for c in memory.technology.conditions if c.name == key), None)
    if condition is None or condition.low is None or condition.high is None:
        raise UsageError(f"Optimizing {memory}", f"{key} has no range of numbers", "Give --sweep KEY=VALUES")
    return tuple(round(float(value), 9) for value in np.linspace(condition.low, condition.high, count))


def find_nominal(memory: MemorySpec, key: str, values: Sequence[float]) -> float:
    """Return the technology's default of a condition; without one, the value with the fewest errors."""
    given: dict[str, Any] = {name: value for name, value in memory.conditions.items() if name != key}
    condition = next(c for c in memory.technology.conditions if c.name == key)
    if isinstance(condition.default, float | int):
        return float(condition.default)

    def errors(value: float) -> float:
        tech = memory.technology
        return float(sum(term.rate for term in tech.terms(tech.resolve({**given, key: value}))))

    return min(values, key=lambda value: (errors(value), -value))
