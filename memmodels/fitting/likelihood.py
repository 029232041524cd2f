"""Log-likelihoods of cells, of groups of cells and of bad lines, and their maximum.

Cells: a weak cell (density P) errs at each of R reads with probability F. It errs at k reads with probability
P C(R, k) F^k (1 - F)^(R - k), and at least once with probability pi = 1 - (1 - F)^R.

Groups (`structure.Shared`): a group with k of n cells seen to err, all holding the same value, has the likelihood

    integral over x of (pi G)^k (1 - pi G)^(n - k) phi(x),    G(x) = Phi((z + sqrt(share) x) / sqrt(1 - share)),   Phi(z) = p.

It is summed on an even grid of x, finer than the narrowest peak. For analytic integrands that vanish at both ends the trapezoidal
rule converges faster than any power of its step, also in the tails (Trefethen and Weideman, SIAM Rev. 56, 2014). One grid serves
all groups. If cells of both preferences exist, Phi(z) = 2p and half of the cells can err: G / 2 replaces G.

Bad lines (`structure.Lines`): a share b of the lines is bad. A cell of a bad line is weak, towards the value that it does not hold,
with probability q, and seen to err with probability pi q; a cell of a good line never errs. A line with k of n cells seen has the
likelihood

    (1 - b) [k = 0]  +  b (pi q)^k (1 - pi q)^(n - k).

If cells that hold 0 and 1 err in different shares of the lines, b0 and b1, the rarer bad lines are among the more frequent ones, as
in a die whose hazard rises: lines are bad for both values, for the more frequent one, or for none.

All probabilities are of single cells in their order: there are no binomial coefficients, so all models describe the same data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.fitting.counts import Counts, GroupCounts

Floats = npt.NDArray[np.float64]
_EDGE = 8.5
_TINY = 1e-300


def cell_log_likelihood(seen: npt.NDArray[np.int64], density: float, fails: float) -> float:
    """Return the log-likelihood of independent cells.

    Args:
        seen: (R + 1,) number of cells that erred at k of R reads.
        density: P, the share of weak cells.
        fails: F, the probability that a weak cell errs at a read.
    """
    reads = seen.size - 1
    k = np.arange(1, reads + 1)
    erring = math.log(max(density, _TINY)) + k * math.log(max(fails, _TINY))
    with np.errstate(divide="ignore", invalid="ignore"):
        erring = erring + np.where(k < reads, (reads - k) * np.log1p(-min(fails, 1.0)), 0.0)
    never = math.log1p(-min(density * (1.0 - (1.0 - fails) ** reads), 1.0 - 1e-16))
    used = seen[1:] > 0
    return float(seen[0] * never + (seen[1:][used] * erring[used]).sum())


def group_log_likelihood(counts: GroupCounts, rate0: float, rate1: float, share: float, seen: float, scale: float) -> float:
    """Return the log-likelihood of groups whose cells share a part of their threshold.

    Args:
        counts: Cells of each group, and those that were seen to err.
        rate0, rate1: p01 and p10.
        share: Share of the threshold variance that a group has in common.
        seen: pi, the probability that a weak cell errs in at least one read.
        scale: 2 if cells of a group prefer either value, else 1.
    """
    from scipy.special import log_ndtr, ndtri

    rates = [rate for rate in (rate0, rate1) if rate > 0.0]
    z = [float(ndtri(min(scale * rate, 1.0 - 1e-15))) for rate in rates]
    largest = int((counts.n0 + counts.n1).max())
    x, weights = fine_grid(z, share, largest)
    exponent: Floats = np.broadcast_to(weights, (counts.times.size, x.size)).copy()
    for rate, n, k in ((rate0, counts.n0, counts.k0), (rate1, counts.n1, counts.k1)):
        if rate <= 0.0 or not n.any():
            continue
        inside = (float(ndtri(min(scale * rate, 1.0 - 1e-15))) + math.sqrt(share) * x) / math.sqrt(1.0 - share)
        log_g = log_ndtr(inside) + math.log(seen / scale)
        log_not = np.log1p(-np.minimum(np.exp(log_g), 1.0 - 1e-16))
        exponent += np.stack([k, n - k], axis=1).astype(float) @ np.stack([log_g, log_not])
    top = exponent.max(axis=1)
    return float((counts.times * (top + np.log(np.exp(exponent - top[:, None]).sum(axis=1)))).sum())


def fine_grid(z: Sequence[float], share: float, cells: int) -> tuple[Floats, Floats]:
    """Return nodes on [-8.5, 8.5] and their log weights under the normal density.

    Args:
        z: Probits of the rates.
        share: Share of the threshold variance that a group has in common.
        cells: Cells of the largest group; its likelihood has the narrowest peak, which sets the step.
    """
    coarse = np.linspace(-_EDGE, _EDGE, 69)
    slope = math.sqrt(share / (1.0 - share))
    sharpest = 1.0
    for one in z:
        y = (one + math.sqrt(share) * coarse) / math.sqrt(1.0 - share)
        density = np.exp(-0.5 * y * y) / math.sqrt(2.0 * math.pi)
        tail = 0.5 * np.array([math.erfc(abs(each) / math.sqrt(2.0)) for each in y])
        information = 1.0 + cells * slope**2 * density**2 / np.maximum(tail * (1.0 - tail), 1e-30) * (tail > 1e-12)
        sharpest = max(sharpest, float(information.max()))
    x = np.linspace(-_EDGE, _EDGE, int(min(max(48, 2.0 * _EDGE * math.sqrt(sharpest) * 1.1), 4000)) | 1)
    return x, -0.5 * x * x + math.log(x[1] - x[0]) - 0.5 * math.log(2.0 * math.pi)


def line_log_likelihood(counts: GroupCounts, bad0: float, bad1: float, seen: float) -> float:
    """Return the log-likelihood of lines.

    Args:
        counts: Cells of each line, and those that were seen to err.
        bad0, bad1: Shares of bad lines for cells that hold 0 and 1.
        seen: pi q in (0, 1).
    """
    zero, one = _bad(counts.n0, counts.k0, seen), _bad(counts.n1, counts.k1, seen)
    clean0, clean1 = _log_where(counts.k0 == 0), _log_where(counts.k1 == 0)
    both, none = min(bad0, bad1), 1.0 - max(bad0, bad1)
    alone = one + clean0 if bad1 > bad0 else zero + clean1
    parts = np.stack([_log(both) + zero + one, _log(abs(bad1 - bad0)) + alone, _log(none) + clean0 + clean1])
    return float(counts.times @ np.logaddexp.reduce(parts, axis=0))


def _bad(n: Counts, k: Counts, seen: float) -> Floats:
    """Return the log-likelihood of k of n cells of a bad line."""
    return k * math.log(seen) + (n - k) * math.log1p(-seen)


def _log_where(holds: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Floats:
    return np.where(holds, 0.0, -np.inf)


def _log(share: float) -> float:
    return math.log(share) if share > 0.0 else -math.inf


# --- the maximum ----------------------------------------------------------------------------------------------------------------


def expit(x: float | Floats) -> Floats:
    """Return 1 / (1 + exp(-x))."""
    return np.asarray(0.5 * (1.0 + np.tanh(np.asarray(x) / 2.0)))


def logit(p: float) -> float:
    """Return ln(p / (1 - p)), finite at 0 and 1."""
    inside = min(max(p, 1e-12), 1.0 - 1e-12)
    return math.log(inside / (1.0 - inside))


def maximize(log_likelihood: Callable[[Floats], float], start: Sequence[float]) -> tuple[Floats, Floats, float]:
    """Return (argmax, covariance by observed information, maximum) of a smooth log-likelihood of a few real parameters."""
    from scipy.optimize import minimize

    def cost(x: Floats) -> float:
        value = -log_likelihood(np.clip(x, -40.0, 40.0))
        return value if math.isfinite(value) else 1e12

    begin = np.array(start, dtype=float)
    result = minimize(cost, begin, method="BFGS", options={"gtol": 1e-3, "maxiter": 60})
    if float(np.abs(result.jac).max()) > 0.05:
        result = minimize(cost, result.x, method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-7, "maxiter": 600})
    best = np.asarray(result.x, dtype=float)
    return best, _inverse(_hessian(cost, best)), -cost(best)


def _hessian(cost: Callable[[Floats], float], x: Floats) -> Floats:
    """Return second differences, with steps at which the log-likelihood changes by about one."""
    n, here = x.size, cost(x)
    steps = np.empty(n)
    for i in range(n):
        h = 1e-2
        for _ in range(12):
            moved = x.copy()
            moved[i] += h
            rise = cost(moved) - here
            if 0.05 < rise < 1.0:
                break
            h *= min(max(math.sqrt(0.3 / max(rise, 1e-9)), 0.1), 10.0)
            h = min(h, 1.0)
        steps[i] = h
    hessian = np.empty((n, n))
    for i in range(n):
        for j in range(i + 1):
            signs = [(a, b) for a in (1, -1) for b in (1, -1)]
            values = []
            for a, b in signs:
                moved = x.copy()
                moved[i] += a * steps[i] * (0.5 if i == j else 1.0)
                moved[j] += b * steps[j] * (0.5 if i == j else 1.0)
                values.append(a * b * cost(moved))
            hessian[i, j] = hessian[j, i] = sum(values) / (4.0 * steps[i] * steps[j] * (0.25 if i == j else 1.0))
    return hessian


def _inverse(hessian: Floats) -> Floats:
    """Return the covariance. A direction in which the data say nothing gets a huge variance, not an error."""
    values, vectors = np.linalg.eigh(hessian)
    covariance: Floats = (vectors / np.maximum(values, 1e-8)) @ vectors.T
    return covariance
