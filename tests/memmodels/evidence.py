"""How the statistical tests decide: p-values from closed forms, judged in families.

A family of tests fails if its smallest p-value, times their number (Bonferroni), is at most ALPHA: a correct sampler with a
fresh seed would fail a family less than once in a million times. All seeds are fixed, so a test that passes once always does.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import stats

from weakcell.memmodels.address import Words, popcount

ALPHA = 1e-6


class Family:
    """p-values that are judged together."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def add(self, what: str, p_value: float) -> None:
        assert 0.0 <= p_value <= 1.0 + 1e-9, (what, p_value)
        assert what not in self.values, what
        self.values[what] = p_value

    def judge(self) -> None:
        what = min(self.values, key=self.values.__getitem__)
        corrected = self.values[what] * len(self.values)
        assert corrected > ALPHA, f"{what}: p = {self.values[what]:.2g}, the smallest of {len(self.values)}"


def binomial(count: int, n: int, p: float) -> float:
    """Exact two-sided test of `count` successes in n trials of probability p."""
    if n == 0 or p in (0.0, 1.0):
        return float(count == n * p)
    if n * p < 1e-12:
        return n * p if count else 1.0
    return float(stats.binomtest(int(count), int(n), p).pvalue)


def poisson(count: int, mean: float) -> float:
    """Exact two-sided test of a Poisson count."""
    return two_sided(lambda: float(stats.poisson.cdf(count, mean)), lambda: float(stats.poisson.sf(count - 1, mean)))


def normal(z: float) -> float:
    """Two-sided test of a standard normal deviate."""
    return float(2 * stats.norm.sf(abs(z)))


def chi_square(squares: float, degrees: int) -> float:
    """Two-sided: too good a fit is as suspicious as too bad a one."""
    return two_sided(lambda: float(stats.chi2.cdf(squares, degrees)), lambda: float(stats.chi2.sf(squares, degrees)))


def two_sided(below: Callable[[], float], above: Callable[[], float]) -> float:
    """Twice the smaller tail."""
    return min(1.0, 2 * min(below(), above()))


def counts_fit(observed: npt.NDArray[np.integer], n: int, p: float) -> float:
    """Each of `observed` is Binomial(n, p), independently: the sum of their squared deviates is nearly chi-square."""
    squares = (observed - n * p) ** 2 / (n * p * (1 - p))
    return chi_square(float(squares.sum()), observed.size)


def variance_fits(observed: npt.NDArray[np.integer], n: int, p: float) -> float:
    """The variance of Binomial(n, p) counts, by the exact variance of a squared deviate: 2 + (1 - 6pq) / npq."""
    npq = n * p * (1 - p)
    squares = (observed - n * p) ** 2 / npq
    return normal(float((squares.sum() - squares.size) / math.sqrt(squares.size * (2 + (1 - 6 * p * (1 - p)) / npq))))


def shape_fits(observed: npt.NDArray[np.integer], expected: npt.NDArray[np.floating]) -> float:
    """Pearson's test of a histogram; neighbouring cells are pooled until each expects 10."""
    cells: list[list[float]] = [[0.0, 0.0]]
    for o, e in zip(observed, expected, strict=True):
        if cells[-1][1] >= 10:
            cells.append([0.0, 0.0])
        cells[-1][0] += o
        cells[-1][1] += e
    if len(cells) > 1 and cells[-1][1] < 10:
        o, e = cells.pop()
        cells[-1][0] += o
        cells[-1][1] += e
    return chi_square(sum((o - e) ** 2 / e for o, e in cells), len(cells) - 1) if len(cells) > 1 else 1.0


def independent(a: Words, b: Words, p: float, cells: int = 64) -> float:
    """Two masks of rate p that have nothing to do with each other: cells set in both are Binomial(n, p^2)."""
    return binomial(popcount(a & b), a.size * cells, p * p)


def lagged(words: Words, lag: int) -> tuple[Words, Words]:
    """Bits i and bits i + lag of a sequence, for all i but those of the last words."""
    whole, part = divmod(lag, 64)
    first = words[: words.size - whole - 1]
    later = words[whole : words.size - 1]
    if part:
        later = (later >> np.uint64(part)) | (words[whole + 1 :] << np.uint64(64 - part))
    return first, later


def uncorrelated(words: Words, lag: int, p: float) -> float:
    """Bits of rate p that lie `lag` apart: sum (x_i - p)(x_j - p) has mean 0 and variance n (pq)^2; Poisson where it is rare."""
    a, b = lagged(words, lag)
    n, both = a.size * 64, popcount(a & b)
    if n * p * p < 500:
        return poisson(both, n * p * p)
    return normal((both - p * (popcount(a) + popcount(b)) + n * p * p) / (math.sqrt(n) * p * (1 - p)))
