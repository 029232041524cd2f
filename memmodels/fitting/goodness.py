"""Goodness of fit of a law: the chi-square of the counts of all points, and how much the intervals must widen if it does not fit.

For each stored value, the cells that fail first at each point are counted. Their differences d from the law's expectation have the
covariance C of the multinomial distribution or, if cells fail in groups, the covariance estimated between groups. The fitted
constants use up some directions D of d, so

    X2 = d' (A - A D (D' A D)^-1 D' A) d,   A = C^-1,   degrees of freedom = counts - constants

Neighbouring points are merged until the law expects enough cells in each. If X2 is larger than a true law makes it in 95 % of
cases, `dispersion` = X2 / degrees of freedom multiplies the variance of the constants (quasi-likelihood; McCullagh and Nelder,
Generalized Linear Models, ch. 9); otherwise it is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weakcell.memmodels.fitting.counts import Counts
from weakcell.memmodels.fitting.likelihood import Floats

_FEWEST = 5.0
"""Fewest expected cells of a count."""
_FEWEST_GROUPS = 20
_REJECTED, _DOUBTFUL = 0.01, 0.05
"""p-values below which a law does not fit, and below which it fits poorly. Intervals are widened in both cases."""


@dataclass(frozen=True)
class Goodness:
    """How well a law fits.

    Attributes:
        chi_square: X2.
        degrees: Degrees of freedom; 0 means that nothing is tested.
        p_value: P(a true law gives a chi-square this large).
        dispersion: Factor of the variance of the constants.
    """

    chi_square: float
    degrees: int
    p_value: float
    dispersion: float

    @property
    def rejected(self) -> bool:
        """Whether the law does not fit, at a significance of 1 %."""
        return self.degrees > 0 and self.p_value < _REJECTED

    def __str__(self) -> str:
        if self.degrees == 0:
            return "not tested: there are no more counts than constants"
        test = f"chi-square {self.chi_square:.3g} with {self.degrees} degrees of freedom, p = {self.p_value:.2g}"
        if self.dispersion == 1.0:
            return f"fits ({test})"
        verdict, wider = "does not fit" if self.rejected else "fits poorly", self.dispersion**0.5
        return f"{verdict} ({test}): the intervals of its constants are {wider:.2g} times as wide as if it did"


def check_goodness(
    fails: Counts, seen: Counts, times: Counts, marginal: tuple[Floats, tuple[Floats, ...]], *, grouped: bool
) -> Goodness:
    """Compare counts with a law.

    Args:
        fails: (groups, 2, J) cells that held v and failed first at point j.
        seen: (groups, 3) cells seen with 0 only, with 1 only, with both.
        times: (groups,) how many such groups there are.
        marginal: P(fails first at point j | held v), (2, J), and its derivatives by each fitted constant.
        grouped: whether cells of a group fail together.
    """
    steps, slopes = marginal
    stored = np.stack([seen[:, 0] + seen[:, 2], seen[:, 1] + seen[:, 2]], axis=1)
    expected = stored[:, :, None] * steps
    merge = _merge(times @ fails.reshape(times.size, -1), np.einsum("g,gvj->vj", times, expected), grouped, fails, times)
    d_groups = (fails - expected).reshape(times.size, -1) @ merge.T
    d = times @ d_groups
    cells = (times @ stored).astype(float)
    directions = np.stack([merge @ (cells[:, None] * slope).reshape(-1) for slope in slopes], axis=1)
    degrees = int(d.size - np.linalg.matrix_rank(directions)) if d.size else 0
    if degrees <= 0 or (grouped and times.sum() < _FEWEST_GROUPS + d.size):
        return Goodness(0.0, 0, 1.0, 1.0)
    covariance = (d_groups.T * times) @ d_groups if grouped else merge @ _multinomial(times @ seen, steps) @ merge.T
    return _tested(d, directions, covariance, degrees, int(times.sum()) if grouped else None)


def _tested(d: Floats, directions: Floats, covariance: Floats, degrees: int, groups: int | None) -> Goodness:
    """Return the chi-square test, or an F test if the covariance was estimated from `groups` groups."""
    from scipy.stats import chi2
    from scipy.stats import f as f_law

    inverse = np.linalg.pinv(covariance, hermitian=True)
    pushed = inverse @ directions
    chi_square = float(d @ inverse @ d - d @ pushed @ np.linalg.pinv(directions.T @ pushed) @ pushed.T @ d)
    chi_square = max(chi_square, 0.0)
    if groups is None:
        p_value = float(chi2.sf(chi_square, degrees))
    else:
        chi_square *= (groups - d.size) / (groups - 1)
        p_value = float(f_law.sf(chi_square / degrees, degrees, groups - d.size))
    return Goodness(chi_square, degrees, p_value, chi_square / degrees if p_value < _DOUBTFUL else 1.0)


def _multinomial(seen: Counts, steps: Floats) -> Floats:
    """Return the covariance of the counts, (2 J, 2 J). A cell seen with both values fails on at most one of them."""
    size = steps.shape[1]
    covariance = np.zeros((2 * size, 2 * size))
    for kind, values in enumerate(((0,), (1,), (0, 1))):
        share = np.zeros_like(steps)
        share[list(values)] = steps[list(values)]
        flat = share.reshape(-1)
        covariance += float(seen[kind]) * (np.diag(flat) - np.outer(flat, flat))
    return covariance


def _merge(observed: Counts, expected: Floats, grouped: bool, fails: Counts, times: Counts) -> Floats:
    """Return a (counts, 2 J) matrix of 0 and 1: which points of which value are merged, from the highest V down."""
    spread = times @ (fails > 0).reshape(times.size, -1) if grouped else observed
    points, rows = expected.shape[1], []
    for value in (0, 1):
        own: list[list[int]] = [[]]
        for j in range(points):
            own[-1].append(value * points + j)
            groups_hit = sum(int(spread[k]) for k in own[-1])
            if sum(expected.reshape(-1)[own[-1]]) >= _FEWEST and (not grouped or groups_hit >= 2 * _FEWEST):
                own.append([])
        if own[-1] and len(own) > 1:
            own[-2].extend(own.pop())
        rows += [indices for indices in own if indices and sum(expected.reshape(-1)[indices]) >= _FEWEST]
    merge = np.zeros((len(rows), 2 * points))
    for row, indices in zip(merge, rows, strict=True):
        row[indices] = 1.0
    return merge
