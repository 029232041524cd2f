"""Does a law fit? Chi-square of the counts of all points, and by how much its intervals have to widen where it does not.

For each stored value, the cells that fail first at each point are counted. Their differences d from what the law expects have the
covariance C of the multinomial law, or, where cells fail in groups, the covariance found between groups. The fitted constants use
up some directions D of d, so

    X2 = d' (A - A D (D' A D)^-1 D' A) d,   A = C^-1,   degrees of freedom = counts - constants

Neighbouring points are added up until the law expects enough cells in each. Where X2 is larger than a law that is true makes it in
95 % of cases, `dispersion` = X2 / degrees of freedom multiplies the variance of the constants (quasi-likelihood; McCullagh and
Nelder, Generalized Linear Models, ch. 9); else it is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weakcell.memmodels.fitting.counts import Counts
from weakcell.memmodels.fitting.likelihood import Floats

_FEWEST = 5.0
"""Cells that a count must be expected to have."""
_FEWEST_GROUPS = 20
_REJECTED, _DOUBTFUL = 0.01, 0.05
"""p-values below which a law does not fit, and fits poorly: its intervals are widened."""


@dataclass(frozen=True)
class Goodness:
    """How well a law fits. degrees 0: as many constants as counts, so nothing is tested. p_value: of a chi-square that large."""

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
        told = f"chi-square {self.chi_square:.3g} with {self.degrees} degrees of freedom, p = {self.p_value:.2g}"
        if self.dispersion == 1.0:
            return f"fits ({told})"
        verdict, wider = "does not fit" if self.rejected else "fits poorly", self.dispersion**0.5
        return f"{verdict} ({told}): the intervals of its constants are {wider:.2g} times as wide as if it did"


def goodness_of(
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
    held = np.stack([seen[:, 0] + seen[:, 2], seen[:, 1] + seen[:, 2]], axis=1)
    expected = held[:, :, None] * steps
    merge = _merge(times @ fails.reshape(times.size, -1), np.einsum("g,gvj->vj", times, expected), grouped, fails, times)
    d_groups = (fails - expected).reshape(times.size, -1) @ merge.T
    d = times @ d_groups
    cells = (times @ held).astype(float)
    directions = np.stack([merge @ (cells[:, None] * slope).reshape(-1) for slope in slopes], axis=1)
    degrees = int(d.size - np.linalg.matrix_rank(directions)) if d.size else 0
    if degrees <= 0 or (grouped and times.sum() < _FEWEST_GROUPS + d.size):
        return Goodness(0.0, 0, 1.0, 1.0)
    covariance = (d_groups.T * times) @ d_groups if grouped else merge @ _multinomial(times @ seen, steps) @ merge.T
    return _tested(d, directions, covariance, degrees, int(times.sum()) if grouped else None)


def _tested(d: Floats, directions: Floats, covariance: Floats, degrees: int, groups: int | None) -> Goodness:
    """The chi-square of differences; an F test where the covariance was estimated from so many groups."""
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
    """Covariance of the counts (2 J,): cells that were seen with both values fail on at most one of them."""
    size = steps.shape[1]
    covariance = np.zeros((2 * size, 2 * size))
    for kind, values in enumerate(((0,), (1,), (0, 1))):
        share = np.zeros_like(steps)
        share[list(values)] = steps[list(values)]
        flat = share.reshape(-1)
        covariance += float(seen[kind]) * (np.diag(flat) - np.outer(flat, flat))
    return covariance


def _merge(observed: Counts, expected: Floats, grouped: bool, fails: Counts, times: Counts) -> Floats:
    """(counts, 2 J) of 0 and 1: which points of which value are added up, from the highest V down."""
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
