"""Find the operating point of lowest energy at which most dies lose little accuracy, with a stated confidence.

Candidates are screened by a prediction of the mean, if the memory has one, and on 24 dies. They are confirmed on dies that were not
used before. A candidate is confirmed if at most F of n fresh dies lose more than the limit. n is the smallest number for which a
share of 1 - `share` of bad dies would allow that with a probability of at most (1 - confidence) / tries: 59 dies for F = 0, 93 for
F = 1, 124 for F = 2 at 95 %, 95 % and one try (binomial test; Clopper and Pearson 1934). So the probability that a result is wrong
is at most 1 - confidence.

Protections are tried at each value, too. Only those that cost less than the cheapest plain candidate that passes are screened.

Layers may be in partitions with different conditions and protections. The search starts at the cheapest point at which all layers
pass, and moves layers to cheaper points as long as the screening dies pass. The baseline is BERA's (Yayla et al. 2022): each layer
gets the rate that it alone tolerates with its share of the allowed loss. If that needs no more partitions than allowed, it is a
candidate too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from weakcell.emulator.faults.placement import layers_by_weight
from weakcell.emulator.tasks import Metric
from weakcell.host.campaign.optimum import Candidate, ConfirmationTest, Goal, Optimum, ScreenedCandidate, Setting
from weakcell.host.campaign.trade_off import check_trade_off
from weakcell.host.report.captions import describe_accesses
from weakcell.host.study.executors import Executor, Threads, default_workers, make_task, run_task
from weakcell.host.study.study import Point, ResolvedStudy, Study, resolve_study
from weakcell.host.study.sweep_values import SweepLike, as_sweep
from weakcell.host.study.workload import Workload
from weakcell.memmodels.catalogue import MemorySpec, parse_spec
from weakcell.memmodels.errors import MemoryFault, UsageError
from weakcell.memmodels.memory import Quantity

SCREENING_DIES = 24
FIRST_FRESH_DIE = 1_000_000
"""Dies from here on are used once, to confirm; screening has those from 0 on."""

_SKIP_FACTOR = 30.0
"""A point that loses this many times the limit even at the low end of its predicted interval is not screened: not even its largest
layer could have it alone."""


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

    def memory_at(self, setting: Setting) -> MemorySpec:
        """Return the memory of a setting."""
        memory = self.study.memory.at(**{self.key: setting.value})
        return replace(memory, name=f"{setting.protection}+{memory.name}") if setting.protection else memory

    def distinct_settings(self, candidate: Candidate) -> frozenset[Setting]:
        """Return the different settings that layers in the memory have."""
        return frozenset(candidate.setting_at(layer) for layer in self.layers)

    def resolve(self, candidate: Candidate, elsewhere: MemorySpec | None = None) -> tuple[ResolvedStudy, Point]:
        """Return study and point of a candidate.

        Args:
            candidate: the settings.
            elsewhere: memory of layers without a setting of their own; None: the memory at the candidate's setting.
        """
        rules = [(layer, self.memory_at(setting)) for layer, setting in candidate.own.items()]
        base = elsewhere or self.memory_at(candidate.setting)
        study = replace(self.study, memory=base, sweep=None, places=(*self.study.places, *rules))
        ready = resolve_study(study, workload=self.workload)
        return ready, ready.points[0]

    def find_misfits(self, value: float, protections: Sequence[str]) -> dict[str, str]:
        """Return the protections that do not fit the network, with the reason.

        Args:
            value: of the swept condition; any will do.
            protections: wrappers.
        """
        reasons: dict[str, str] = {}
        for protection in protections:
            try:
                self.resolve(Candidate(Setting(value, protection)))
            except MemoryFault as error:
                reasons[protection] = str(error)
        return reasons

    def predict_losses(self, values: Sequence[float]) -> dict[float, float]:
        """Return, by value, the low end of the predicted mean loss; empty if the memory's errors cannot be predicted."""
        from weakcell.emulator.prediction import predict

        placements = [self.resolve(Candidate(Setting(value)))[1].placement for value in values]
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
            candidate: the settings.
            how: how the search found it.
            dies: how many dies.

        Raises:
            UsageError: the memory has no single known energy.
        """
        ready, point = self.resolve(candidate)
        energy = find_energy(self.study.memory, point)
        places = tuple(f"{layer}={self.memory_at(setting)}" for layer, setting in candidate.own.items())
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


def optimize(search: Search, values: Sequence[float], goal: Goal, nominal: float, protections: Sequence[str] = ()) -> Optimum:
    """Screen every value, move layers between partitions, and confirm the cheapest candidates.

    Args:
        search: the network and memory.
        values: of the swept condition.
        goal: what a candidate must fulfil.
        nominal: value that savings are relative to, without protection.
        protections: wrappers that are tried besides none, as a SPEC has them.

    Raises:
        UsageError: all candidates cost the same.
        MemorySpecError: there is no such wrapper.
    """
    goal.check()
    for protection in protections:
        parse_spec(f"{protection}+{search.study.memory}")
    if all(isinstance(value, float) for value in values) and not search.study.places:
        check_trade_off(search.study.memory, search.key, values)
    at_nominal = search.screen(Candidate(Setting(nominal)), "nominal")
    losses = search.predict_losses(values)
    skipped = {value: loss for value, loss in losses.items() if loss > _SKIP_FACTOR * goal.max_drop}
    plain = [search.screen(Candidate(Setting(value)), "one condition") for value in values if value not in skipped]
    refused = search.find_misfits(nominal, protections)
    fitting = [protection for protection in protections if protection not in refused]
    protected = list(_screen_protected(search, values, fitting, [at_nominal, *plain], goal))
    screened = [at_nominal, *plain, *protected]
    open_candidates = [candidate for candidate in screened if candidate.may_still_pass(goal.max_drop)]
    bera = None
    best = next((candidate for candidate in _sort_by_energy(open_candidates) if search.is_worth_testing(candidate, goal)), None)
    if best is not None and goal.partitions > 1 and len(search.layers) > 1:
        partitioned = list(_move_layers(search, best, [*plain, *protected], goal))
        screened += partitioned
        bera = assign_layerwise(search, plain, goal, best.candidate.setting)
        if len(search.distinct_settings(bera.candidate)) <= goal.partitions:
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
    return Optimum(
        goal, search.key, search.clean, at_nominal, tuple(screened), tuple(tests), chosen, bera, skipped, search.metric, refused
    )


def _screen_protected(
    search: Search,
    values: Sequence[float],
    protections: Sequence[str],
    plain: Sequence[ScreenedCandidate],
    goal: Goal,
) -> Iterator[ScreenedCandidate]:
    """Yield candidates with protection that cost less than the cheapest plain one that will probably pass.

    Args:
        search: the network and memory.
        values: of the swept condition.
        protections: wrappers.
        plain: screened candidates without protection.
        goal: what a candidate must fulfil.
    """
    enough = min((one.energy for one in plain if one.likely_passes(goal.max_drop)), default=math.inf)
    for protection in protections:
        for value in values:
            candidate = Candidate(Setting(value, protection))
            energy = search.resolve(candidate)[1].energy
            if energy is not None and energy.value < enough:
                yield search.screen(candidate, "protection")


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

    Starting with one setting for all layers, try each cheaper one: move every layer that may move, the largest first. Repeat from
    the cheapest result for the next partition.
    """
    lower = sorted((cheaper for cheaper in uniform if cheaper.energy < start.energy), key=lambda cheaper: -cheaper.energy)
    best = start
    for _ in range(goal.partitions - 1):
        improved = None
        for cheaper in lower:
            settings = dict(best.candidate.own)
            reached: ScreenedCandidate | None = None
            for layer in search.layers:
                if best.candidate.setting_at(layer) != start.candidate.setting:
                    continue
                candidate = Candidate(start.candidate.setting, {**settings, layer: cheaper.candidate.setting})
                if len(search.distinct_settings(candidate)) == 1:  # one condition for all, which is screened already
                    continue
                tried = search.screen(candidate, "partitions")
                yield tried
                if tried.likely_passes(goal.max_drop):
                    settings[layer] = cheaper.candidate.setting
                    reached = tried
            if reached is None:
                break
            if improved is None or reached.energy < improved.energy:
                improved = reached
        if improved is None or improved.energy >= best.energy:
            return
        best = improved


def assign_layerwise(search: Search, uniform: Sequence[ScreenedCandidate], goal: Goal, fallback: Setting) -> ScreenedCandidate:
    """Return BERA's assignment.

    Each layer gets the cheapest setting at which it alone loses its share of the limit on the mean die, or else `fallback`.
    """
    safe, limit = MemorySpec("uniform", {"ber": 0.0}), goal.max_drop / len(search.layers)
    settings: dict[str, Setting] = {}
    for layer in search.layers:
        settings[layer] = fallback
        for candidate in sorted(uniform, key=lambda s: -s.energy):
            ready, point = search.resolve(Candidate(fallback, {layer: candidate.candidate.setting}), safe)
            if float(np.mean(search.measure_drops(ready, point, 0, SCREENING_DIES // 2))) > limit:
                break
            settings[layer] = candidate.candidate.setting
    return search.screen(Candidate(fallback, settings), "BERA")


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


def find_energy(memory: MemorySpec, point: Point) -> Quantity:
    """Return the energy of one inference; UsageError if none is known, or only in units that do not add up."""
    if (energy := point.energy) is None:
        found = "no energy is published for it" if not point.cost.energy else "its energies are in units that do not add up"
        raise UsageError(f"Optimizing {memory}", found, "Take a memory with an energy; weakcell memories NAME shows it")
    return energy


def list_candidates(
    memory: MemorySpec, sweep: SweepLike | None, goal: Goal, protections: Sequence[str]
) -> tuple[str, tuple[float, ...]]:
    """Return the condition that a search moves, and its values, as far as they can be checked without a network.

    Raises:
        UsageError: a number of the goal is out of range, nothing can be moved, or all values cost the same.
        MemorySpecError: there is no such memory, condition or wrapper.
    """
    goal.check()
    for protection in protections:
        parse_spec(f"{protection}+{memory}")
    asked = as_sweep(sweep)
    key = asked.key if asked else memory.technology.sweep or ""
    values = asked.values if asked else default_values(memory, key)
    check_trade_off(memory, key, values)
    return key, values


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
