"""Maximum likelihood for a few real parameters: the best, its covariance by observed information, and the logit scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def expit(x: float | Floats) -> Floats:
    """1 / (1 + exp(-x))."""
    return np.asarray(0.5 * (1.0 + np.tanh(np.asarray(x) / 2.0)))


def logit(p: float) -> float:
    """ln(p / (1 - p)), finite at 0 and 1."""
    held = min(max(p, 1e-12), 1.0 - 1e-12)
    return math.log(held / (1.0 - held))


def maximize(log_likelihood: Callable[[Floats], float], start: Sequence[float]) -> tuple[Floats, Floats, float]:
    """(argmax, covariance by observed information, maximum) of a smooth log-likelihood of a few real parameters."""
    from scipy.optimize import minimize

    def cost(x: Floats) -> float:
        value = -log_likelihood(np.clip(x, -40.0, 40.0))
        return value if math.isfinite(value) else 1e12

    begin = np.array(start, dtype=float)
    found = minimize(cost, begin, method="BFGS", options={"gtol": 1e-3, "maxiter": 60})
    if float(np.abs(found.jac).max()) > 0.05:
        found = minimize(cost, found.x, method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-7, "maxiter": 600})
    best = np.asarray(found.x, dtype=float)
    return best, _inverse(_hessian(cost, best)), -cost(best)


def _hessian(cost: Callable[[Floats], float], x: Floats) -> Floats:
    """Second differences with a step at which the log-likelihood moves by about one."""
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
    """The covariance; a direction in which the data say nothing has an endless variance, not an error."""
    values, vectors = np.linalg.eigh(hessian)
    covariance: Floats = (vectors / np.maximum(values, 1e-8)) @ vectors.T
    return covariance
