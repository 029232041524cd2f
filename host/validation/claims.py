"""What is claimed of flips, and how pairs of a faulty run and its clean twin are counted.

A *pair* is one image in one trial (a hidden check: one neuron of one image in one trial). It is *non-vacuous* if 1 <= q <= bound,
*near* if besides q >= 0.9 bound. A violation is a pair with q <= bound whose claim does not hold; there must be none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

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
