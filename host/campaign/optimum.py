"""Records of a search for the operating point of lowest energy: goal, candidates, tests and result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from weakcell.emulator.tasks import METRICS, Metric
from weakcell.memmodels.errors import UsageError

TAIL = 2.33
"""Screening wants this many standard deviations between the mean die and the limit: about 1 % of normal dies beyond it."""


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
        """Raise UsageError for a number out of range, and for a text."""
        for name, value, low, high in (("max-drop", self.max_drop, 0.0, 1.0), ("share", self.share, 0.5, 0.9999),
                                       ("confidence", self.confidence, 0.5, 0.9999), ("failures", self.failures, 0, 100),
                                       ("tries", self.tries, 1, 100), ("partitions", self.partitions, 1, 100)):  # fmt: skip
            if isinstance(value, str) or not low <= value <= high:
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
class Setting:
    """A value of the swept condition, and what protects the memory.

    Attributes:
        value: of the condition.
        protection: wrappers as a SPEC has them, `secded` or `range+secded`; empty for none.
    """

    value: float
    protection: str = ""

    def __str__(self) -> str:
        return f"{self.value:.6g} {self.protection}".rstrip()


@dataclass(frozen=True)
class Candidate:
    """Settings of the memory.

    Attributes:
        setting: of all layers but those in `own`.
        own: of layers with a setting of their own.
    """

    setting: Setting
    own: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """Value of the swept condition for all layers but those in `own`."""
        return self.setting.value

    def setting_at(self, layer: str) -> Setting:
        """Return the setting of a layer."""
        return self.own.get(layer, self.setting)


@dataclass(frozen=True)
class ScreenedCandidate:
    """A candidate with its energy and the results of its screening dies.

    Attributes:
        energy: of one inference, in `unit`; `basis` says how it is known.
        drops: accuracy lost on each die, as shares.
        how: how the search found the candidate.
        places: rules of `--place` for layers with a setting of their own.
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
        return max(self.drops) <= limit and self.mean + TAIL * spread <= limit

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
        refused: protections that do not fit the network, with the reason.
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
    refused: Mapping[str, str] = field(default_factory=dict)

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
