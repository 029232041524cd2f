"""What is claimed about flips, and how pairs of a faulty run and its fault-free twin are counted.

A *pair* is one image in one trial (a hidden check: one neuron of one image in one trial). It is *non-vacuous* if 1 <= q <= bound,
*near* if besides q >= 0.9 bound. A violation is a pair with q <= bound whose claim does not hold; there must be none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

KEPT, TIED, LOST, TIED_AWAY = 0, 1, 2, 3
"""The outcome of a claim: it holds (KEPT); the winner shares the maximum and is still the answer (TIED); another class, or the
neuron's other side, wins (LOST); the winner shares the maximum and a lower class is the answer (TIED_AWAY)."""

CLAIMS = {
    "corollary-2": "q = flips of all output neurons, bound max(0, m // 2 - 1) as stated: the winner stays the only maximum",
    "pair": "q = flips of winner and competitor, bound ceil(m_c / 2) - 1, exact: the winner stays ahead of that competitor",
    "greedy": "q = flipped stored bits of winner and competitor, bound by the most harmful bits first, on the inputs that "
    "reached the layer, before the last requantization: the winner stays ahead of that competitor",
    "corollary-1": "q = flips of a hidden neuron, bound as stated: the neuron keeps its output",
    "neuron": "q = flips of a hidden neuron, exact bound: the neuron keeps its output",
    "greedy-neuron": "q = flipped stored bits of a neuron on pixels, bound by the most harmful bits first: it keeps its output",
}

BoundOffsets = Mapping[str, int]
"""Offsets of the bounds by check; a test uses them to see that a bound one flip too large is caught."""


@dataclass(frozen=True)
class Violation:
    """One broken claim: the trial, the image, the neuron, its flips q and the bound that they respected."""

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
    """What one check found. Pairs whose fault-free twin had a tie are left out (`Validation.ties`).

    Attributes:
        check: The name of the check.
        pairs: All pairs.
        non_vacuous: Pairs with 1 <= q <= bound.
        near: Of these, those with q >= 0.9 bound.
        changed: Pairs whose claim does not hold. Unless there are violations, all of them have q > bound.
        tied: Of the changed, those where the winner shares the maximum.
        tied_away: Of the tied, those where the engine's argmax, which takes the lowest class, gives another answer.
        violations: Claims that broke although q <= bound.
        smallest: (q, bound) of the changed pair with the fewest flips.
        tightest: (q, bound) of the changed pair with bound >= 1 whose q / (bound + 1) is smallest; 1 means that one flip above the
            bound was enough.
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


def summarize_check(check: str, tally: Tally, violations: int) -> CheckSummary:
    """Compute the numbers of one check from all pairs."""
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
