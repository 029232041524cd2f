"""How masks of independent bits of given rates are drawn exactly, at a cost proportional to the flips.

A term errs with p01 where 0 is stored and with p10 where 1 is. Three exact steps, of which each pair of rates uses what it needs
(sampling format 2):

    invert   p > 1/2: flip every bit, then draw 1 - p
    levels   p1 = floor(p 2^L) / 2^L by combining L random words: m = m | ~r for a 1 of p1 in binary, m & r for a 0, lowest first
    hits     q = (p - p1) / (1 - 2 p1) by XOR hits: N ~ Poisson(n mu), mu = -ln(1 - 2q)/2, on uniform cells with replacement

Hits are exact: the number of hits on one cell is Poisson(mu), independent between cells, and it is odd with probability
(1 - exp(-2 mu))/2 = q. The XOR of both parts has rate p1 + q - 2 p1 q = p.

If the rates differ, a level takes each cell's digit by its stored value. The hits of the smaller mu act on all cells; those of the
difference act only on cells that store the other value (a Poisson process split in two).

L minimises a fixed cost model. It is part of the format and never tuned at run time. The Poisson count is found by comparing one
64-bit random word with a table of the distribution in units of 2^-64 (computed in float64: exact to about 2e-16).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.address import BLOCK_BITS

MAX_LEVELS = 16
_LEVEL_COST, _HIT_COST = 3.3, 430.0
"""Microseconds per Mbit of one level, and of hits per unit of mu; fixed numbers of the format."""


@dataclass(frozen=True, eq=False)
class PoissonTable:
    """Poisson(mean) by inversion: the count is `low` + the number of entries of `cumulative` that are <= a random word."""

    low: int
    cumulative: npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Recipe:
    """How to draw a pair of rates. Pairs hold the value for cells that store 0 and for cells that store 1.

    Attributes:
        rates: p01 and p10.
        inverted: Whether every bit is flipped and 1 - p is drawn.
        levels: L, the number of random words per word of cells.
        numerators: p1 2^L.
        hits: Number of hits in one block, on all its cells.
        extra_hits: Number of hits in one block that count only on cells that store `extra_value`.
        extra_value: 0 or 1.
    """

    rates: tuple[float, float]
    inverted: tuple[bool, bool]
    levels: int
    numerators: tuple[int, int]
    hits: PoissonTable
    extra_hits: PoissonTable
    extra_value: int


@lru_cache(maxsize=512)
def poisson_table(mean: float) -> PoissonTable:
    """Return the table of Poisson(mean), mean >= 0, cut where less than 2^-64 is left on either side."""
    from scipy.special import pdtr  # what scipy.stats.poisson.cdf calls; scipy.stats takes a second to import

    if mean == 0.0:
        return PoissonTable(0, np.empty(0, dtype=np.uint64))
    reach = 10.0 * math.sqrt(mean) + 40.0
    low, high = max(0, math.floor(mean - reach)), math.ceil(mean + reach)
    scaled = pdtr(np.arange(low, high + 1), mean) * 2.0**64
    cumulative = np.minimum(scaled, np.nextafter(2.0**64, 0.0)).astype(np.uint64)
    skipped = int(np.count_nonzero(cumulative == 0))
    last = int(np.searchsorted(cumulative, cumulative[-1]))
    return PoissonTable(low + skipped, cumulative[skipped:last].copy())


@lru_cache(maxsize=512)
def plan_rates(p01: float, p10: float) -> Recipe:
    """Return the cheapest recipe for two rates in [0, 1]."""
    inverted = p01 > 0.5, p10 > 0.5
    small = 1.0 - p01 if inverted[0] else p01, 1.0 - p10 if inverted[1] else p10
    levels = min(range(MAX_LEVELS + 1), key=lambda count: _cost(small, count))
    numerators = math.floor(math.ldexp(small[0], levels)), math.floor(math.ldexp(small[1], levels))
    means = [BLOCK_BITS * _hit_rate(p, levels) for p in small]
    hits, extra_hits = poisson_table(min(means)), poisson_table(max(means) - min(means))
    return Recipe((p01, p10), inverted, levels, numerators, hits, extra_hits, int(means[1] > means[0]))


def _hit_rate(p: float, levels: int) -> float:
    """Return mu, the hits per cell that remain after `levels` levels."""
    p1 = math.ldexp(math.floor(math.ldexp(p, levels)), -levels)
    if p1 >= 0.5:
        return 0.0
    return -0.5 * math.log1p(-2.0 * (p - p1) / (1.0 - 2.0 * p1)) if p < 0.5 else math.inf


def _cost(rates: tuple[float, float], levels: int) -> float:
    return levels * _LEVEL_COST + max(_hit_rate(p, levels) for p in rates) * _HIT_COST


def dyadic_steps(
    numerators: tuple[int, int], inverted: tuple[bool, bool], levels: int, capacity: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Encode masks of rate numerators / 2^levels, or one less that rate, for `dyadic.flip_dyadic`.

    Args:
        numerators: For cells that store 0 and 1.
        inverted: Whether the rate is 1 - numerator / 2^levels, likewise.
        levels: Binary digits that are used.
        capacity: Rows of the result, at least `levels`.

    Returns:
        (steps, last): (capacity, 2) and (2,) uint64 words of all zeros or all ones.
    """
    digits = np.zeros((capacity + 1, 2), dtype=np.bool_)
    for value, numerator in enumerate(numerators):
        digits[1 : levels + 1, value] = [numerator >> level & 1 for level in range(levels)]
    return _to_masks(digits[1:] ^ digits[:-1]), _to_masks(digits[levels] ^ np.array(inverted))


def _to_masks(pairs: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """Turn (..., 2) bits for stored 0 and 1 into words: the first, and what to XOR into it where 1 is stored."""
    return np.stack([pairs[..., 0], pairs[..., 0] ^ pairs[..., 1]], axis=-1) * np.uint64(0xFFFFFFFFFFFFFFFF)
