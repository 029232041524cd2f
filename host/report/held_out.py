"""How far the laws miss published points that their fit did not see, in decades: each law fitted again without them.

Every function holds out the ends of a curve, one after the other, and gives the larger miss, |log10(law / point)|. The fits are
those that gave the technologies their constants: a straight line through the probits, or least squares of log10 p.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def of_probits(x: Sequence[float], p: Sequence[float]) -> float:
    """p = Phi(a + b x), a straight line through the probits of p: SRAM over voltage, FeFET over the root of its domains."""
    from scipy.special import log_ndtr, ndtri

    at, rates = np.array(x), np.array(p)

    def missed(kept: npt.NDArray[np.bool_]) -> Floats:
        line = np.polyfit(at[kept], ndtri(rates[kept]), 1)
        return _decades(log_ndtr(np.polyval(line, at[~kept])), rates[~kept])

    return _worst(missed, at)


def of_tails(x: Sequence[float], p: Sequence[float], top: float, start: tuple[float, float]) -> float:
    """p = top Phi((mu - x) / s) by least squares of ln p, from a first (mu, s): DRAM over ln tRCD and over voltage."""
    from scipy.optimize import least_squares
    from scipy.special import log_ndtr

    at, rates = np.array(x), np.array(p)

    def law(c: Floats, where: Floats) -> Floats:
        return np.asarray(math.log(top) + log_ndtr((c[0] - where) / c[1]))

    def missed(kept: npt.NDArray[np.bool_]) -> Floats:
        goal = np.log(np.minimum(rates[kept], 0.998 * top))
        found = least_squares(lambda c: law(c, at[kept]) - goal, start, xtol=1e-12, ftol=1e-12)
        return _decades(law(found.x, at[~kept]), rates[~kept])

    return _worst(missed, at)


def of_retention(rows: Sequence[tuple[float, float, float, float]]) -> float:
    """DRAM retention: rows (s, °C, V, rate); probits linear in ln t, temperature and voltage; whole intervals held out."""
    from scipy.special import log_ndtr, ndtri

    t, temperature, vdd, rates = np.array(rows).T
    design = np.c_[np.ones_like(t), np.log(t), temperature - 45.0, 1.35 - vdd]

    def missed(kept: npt.NDArray[np.bool_]) -> Floats:
        found = np.linalg.lstsq(design[kept], ndtri(rates[kept]), rcond=None)[0]
        return _decades(log_ndtr(design[~kept] @ found), rates[~kept])

    return _worst(missed, t)


def of_write_errors(rows: Sequence[tuple[float, float, float, float]]) -> float:
    """STT-RAM: rows (stability, current, pulse, rate); both constants of the correction; the ends of stability held out."""
    from scipy.optimize import least_squares

    delta, current, tau, rates = np.array(rows).T

    def law(c: Floats, kept: npt.NDArray[np.bool_]) -> Floats:
        d, i, t = delta[kept], current[kept], tau[kept]
        growth = 2.0 * t * (i - 1.0) * (1.0 + c[0] / (d * (i - 1.0) ** c[1]))
        return np.asarray(np.log(-np.expm1(-(math.pi**2 / 4.0) * d * (i - 1.0) / (i * np.exp(growth) - 1.0))))

    def missed(kept: npt.NDArray[np.bool_]) -> Floats:
        found = least_squares(lambda c: law(c, kept) - np.log(rates[kept]), (1.0, 2.0))
        return _decades(law(found.x, ~kept), rates[~kept])

    return _worst(missed, delta)


def _decades(logarithm: Any, rates: Floats) -> Floats:
    return np.abs(np.asarray(logarithm) / math.log(10.0) - np.log10(rates))


def _worst(missed: Callable[[npt.NDArray[np.bool_]], Floats], x: Floats) -> float:
    """The largest miss over both ends of x, each held out with all points that lie there."""
    return max(float(missed(x != end).max()) for end in (x.min(), x.max()))
