"""Kernels of `prediction`: sums drawn from their law, and the probability that a class has the highest score."""

from __future__ import annotations

import math
from functools import lru_cache

import numba
import numpy as np
import numpy.typing as npt

from memmodels.streams import name_stream, word_at

_S16, _MASK16 = np.uint64(16), np.uint64(0xFFFF)
_CELLS, _REACH = 4096, 8.0
_POINTS = 5.0
"""Winner's scores that are looked at: this many per standard deviation, over _WIDTH standard deviations on either side."""
_WIDTH = 4.5


@lru_cache(maxsize=1)
def normal_table() -> npt.NDArray[np.float32]:
    """2^16 equally likely values of a standard normal variable: means of its quantile intervals (variance 1 - 3e-6)."""
    from scipy.special import ndtri

    edges = ndtri(np.arange(1, 1 << 16) / (1 << 16))
    density = np.concatenate([[0.0], np.exp(-0.5 * edges**2), [0.0]]) / math.sqrt(2 * math.pi)
    means: npt.NDArray[np.float32] = ((density[:-1] - density[1:]) * (1 << 16)).astype(np.float32)
    return means


@lru_cache(maxsize=1)
def cumulative_table() -> npt.NDArray[np.float32]:
    """The standard normal distribution function at -8 … 8 in steps of 1/256, for linear interpolation (error below 5e-7)."""
    from scipy.special import ndtr

    table: npt.NDArray[np.float32] = ndtr(np.linspace(-_REACH, _REACH, _CELLS + 1)).astype(np.float32)
    return table


@numba.njit(cache=True, nogil=True)
def draw_sums(sums, slope, shift, tilt, total, extra, deviation, step, normals, stream, first, out):  # type: ignore[no-untyped-def]
    """out = sums + step * rint((N(mean, deviation^2) - sums) / step), mean = slope * sums + shift + tilt * total + extra.

    sums, out: int32 (R, O). shift, tilt (O,), total (R,), deviation (R or 1, O or 1), extra (R, O) or (0, 0): float32. Row r draws
    from the stream named first + r.
    """
    rows, outputs = sums.shape
    by_row, by_output, more = deviation.shape[0] > 1, deviation.shape[1] > 1, extra.size > 0
    back = np.float32(1) / step
    fall = slope - np.float32(1)
    words = (outputs + 3) // 4
    for r in range(rows):
        own = name_stream(stream, np.uint64(first + r))
        spread = deviation[r if by_row else 0]
        for group in range(words):
            word = word_at(own, np.uint64(group))
            for o in range(4 * group, min(4 * group + 4, outputs)):
                drawn = normals[word & _MASK16]
                word >>= _S16
                moved = fall * np.float32(sums[r, o]) + shift[o] + tilt[o] * total[r] + spread[o if by_output else 0] * drawn
                if more:
                    moved += extra[r, o]
                out[r, o] = sums[r, o] + np.int32(step * np.rint(moved * back))


@numba.njit(cache=True, nogil=True, inline="always")
def _below(z, table):  # type: ignore[no-untyped-def]
    """P(N < z) by interpolation."""
    at = (z + _REACH) * (_CELLS / (2 * _REACH))
    if at <= 0.0:
        return 0.0
    if at >= _CELLS:
        return 1.0
    cell = int(at)
    low = table[cell]
    return low + (at - cell) * (table[cell + 1] - low)


@numba.njit(cache=True, nogil=True)
def win_probability(mean, deviation, origin, low, high, target, table, out):  # type: ignore[no-untyped-def]
    """out[r] = P(class target[r] has the highest score, and the lowest number among those that share it), scores independent.

    mean, deviation (R, C): of normal scores in units of their grid; origin (R, C): a grid point of each, so that a score is
    the nearest origin + integer, clamped to low … high.
    """
    classes = mean.shape[1]
    for r in range(mean.shape[0]):
        t = target[r]
        mu, sigma = mean[r, t], deviation[r, t]
        stride = max(1, math.ceil(sigma / _POINTS))
        reach = math.ceil((_WIDTH * sigma + 0.5) / stride)
        centre = origin[r, t] + np.rint(mu - origin[r, t])
        won = mass = 0.0
        for place in range(-reach, reach + 1):
            value = centre + place * stride
            upper, lower = (value + 0.5 * stride - mu) / sigma, (value - 0.5 * stride - mu) / sigma
            weight = _below(upper, table) - _below(lower, table)
            if weight <= 0.0:
                continue
            value = min(max(value, low), high)
            ahead = weight
            for c in range(classes):
                if c == t:
                    continue
                if c < t:  # must be less
                    if value <= low:
                        ahead = 0.0
                        break
                    last = origin[r, c] + np.ceil(value - origin[r, c]) - 1.0
                elif value >= high:
                    continue
                else:
                    last = origin[r, c] + np.floor(value - origin[r, c])
                ahead *= _below((last + 0.5 - mean[r, c]) / deviation[r, c], table)
                if ahead < 1e-12:
                    break
            won += ahead
            mass += weight
        out[r] = won / mass
