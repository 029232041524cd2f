"""How masks of independent bits of given rates are drawn exactly, at a cost that follows the flips.

A term errs with p01 where 0 is stored and with p10 where 1 is. Three exact steps, of which each pair of rates uses what it needs
(sampling format 2):

    invert   p > 1/2: flip every bit, then draw 1 - p
    levels   p1 = floor(p 2^L) / 2^L by combining L random words: m = m | ~r for a 1 of p1 in binary, m & r for a 0, lowest first
    throws   q = (p - p1) / (1 - 2 p1) by XOR throws: N ~ Poisson(n mu), mu = -ln(1 - 2q)/2, at uniform places with replacement

Throws are exact because the number that hits one cell is Poisson(mu), independent between cells, and it is odd with probability
(1 - exp(-2 mu))/2 = q. The XOR of both parts has rate p1 + q - 2 p1 q = p. Where the rates differ, a level takes each cell's digit
by what it stores; the throws of the smaller mu hit all cells, and those of the difference count only on cells that store the other
value (a Poisson process split in two). L minimises a fixed cost model; it is part of the format, never tuned at run time. The
Poisson count is found by comparing one 64-bit random word with a table of the distribution in units of 2^-64 (computed in
float64: exact to about 2e-16).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.address import BLOCK_BITS

MAX_LEVELS = 16
_LEVEL_COST, _THROW_COST = 3.3, 430.0
"""Microseconds per Mbit for one level, and for throws times mu; fixed figures of the format."""


@dataclass(frozen=True, eq=False)
class PoissonTable:
    """Poisson(mean) by inversion: the count is `low` + the number of entries of `cumulative` that are <= a random word."""

    low: int
    cumulative: npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Recipe:
    """The recipe for a pair of rates, each entry of a pair for the cells that store 0 and 1.

    p1 = numerators / 2^levels. throws: of one block, on all its cells. more: those that count only where `more_at` is stored.
    """

    rates: tuple[float, float]
    inverted: tuple[bool, bool]
    levels: int
    numerators: tuple[int, int]
    throws: PoissonTable
    more: PoissonTable
    more_at: int


@lru_cache(maxsize=512)
def poisson_table(mean: float) -> PoissonTable:
    """The table of Poisson(mean), mean >= 0, cut where less than 2^-64 is left on either side."""
    from scipy.stats import poisson

    if mean == 0.0:
        return PoissonTable(0, np.empty(0, dtype=np.uint64))
    reach = 10.0 * math.sqrt(mean) + 40.0
    low, high = max(0, math.floor(mean - reach)), math.ceil(mean + reach)
    scaled = poisson.cdf(np.arange(low, high + 1), mean) * 2.0**64
    cumulative = np.minimum(scaled, np.nextafter(2.0**64, 0.0)).astype(np.uint64)
    skipped = int(np.count_nonzero(cumulative == 0))
    last = int(np.searchsorted(cumulative, cumulative[-1]))
    return PoissonTable(low + skipped, cumulative[skipped:last].copy())


@lru_cache(maxsize=512)
def plan_rates(p01: float, p10: float) -> Recipe:
    """The recipe for rates in [0, 1]."""
    inverted = p01 > 0.5, p10 > 0.5
    small = 1.0 - p01 if inverted[0] else p01, 1.0 - p10 if inverted[1] else p10
    levels = min(range(MAX_LEVELS + 1), key=lambda count: _cost(small, count))
    numerators = math.floor(math.ldexp(small[0], levels)), math.floor(math.ldexp(small[1], levels))
    means = [BLOCK_BITS * _throw_rate(p, levels) for p in small]
    throws, more = poisson_table(min(means)), poisson_table(max(means) - min(means))
    return Recipe((p01, p10), inverted, levels, numerators, throws, more, int(means[1] > means[0]))


def _throw_rate(p: float, levels: int) -> float:
    """mu of the throws that are left after `levels` levels."""
    p1 = math.ldexp(math.floor(math.ldexp(p, levels)), -levels)
    if p1 >= 0.5:
        return 0.0
    return -0.5 * math.log1p(-2.0 * (p - p1) / (1.0 - 2.0 * p1)) if p < 0.5 else math.inf


def _cost(rates: tuple[float, float], levels: int) -> float:
    return levels * _LEVEL_COST + max(_throw_rate(p, levels) for p in rates) * _THROW_COST
