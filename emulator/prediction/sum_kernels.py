"""Kernels of `prediction`: sums drawn from their law, and the probability that a class has the highest score."""

from __future__ import annotations

import math
from functools import lru_cache

import numba
import numpy as np
import numpy.typing as npt

from weakcell.memmodels.sampling.streams import child_stream, next_word, start, word_at

_S11, _S16, _MASK16 = np.uint64(11), np.uint64(16), np.uint64(0xFFFF)
_CELLS, _REACH = 4096, 8.0
_POINTS = 5.0
"""Winner's scores that are looked at: this many per standard deviation, over _WIDTH standard deviations on either side."""
_WIDTH = 4.5
_EQUAL = 1e-6
"""Scores that differ by less than this share of the grid are the same grid point: their difference is rounding."""


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
def draw_sums(sums, slope, shift, tilt, total, extra, deviation, shape, step, normals, stream, names, out):  # type: ignore[no-untyped-def]
    """Draw out = sums + step * rint((mean + deviation * y - sums) / step), mean = slope * sums + shift + tilt * total + extra.

    y is a standard normal value z, bent to the skewness g and the excess kurtosis k of the sum (Cornish and Fisher 1938):
    y = z + g / 6 * (z^2 - 1) + k / 24 * (z^3 - 3 z) - g^2 / 36 * (2 z^3 - 5 z).

    Args:
        sums, out: int32 (R, O).
        shift, tilt: (O,) float32. total: (R,) float32. extra: (R, O) or (0, 0) float32.
        deviation: (R or 1, O or 1) float32.
        shape: (R, 3) float32: g = shape[r, 0] + shape[r, 1] * sums[r, o], k = shape[r, 2].
        stream, names: row r draws from the stream named names[r] below `stream`.
    """
    rows, outputs = sums.shape
    by_row, by_output, more = deviation.shape[0] > 1, deviation.shape[1] > 1, extra.size > 0
    back = np.float32(1) / step
    fall = slope - np.float32(1)
    sixth = np.float32(1 / 6)
    words = (outputs + 3) // 4
    for r in range(rows):
        own = child_stream(stream, np.uint64(names[r]))
        spread = deviation[r if by_row else 0]
        base, by_sum, flat = shape[r, 0] * sixth, shape[r, 1] * sixth, shape[r, 2] * np.float32(1 / 24)
        for group in range(words):
            word = word_at(own, np.uint64(group))
            for o in range(4 * group, min(4 * group + 4, outputs)):
                z = normals[word & _MASK16]
                word >>= _S16
                clean = np.float32(sums[r, o])
                skew, square = base + by_sum * clean, z * z
                y = (
                    z
                    + skew * (square - np.float32(1))
                    + z * (flat * (square - np.float32(3)) - skew * skew * (np.float32(2) * square - np.float32(5)))
                )
                moved = fall * clean + shift[o] + tilt[o] * total[r] + spread[o if by_output else 0] * y
                if more:
                    moved += extra[r, o]
                out[r, o] = sums[r, o] + np.int32(step * np.rint(moved * back))


@numba.njit(cache=True, nogil=True)
def draw_flips(rows, codes, flips, stream, names, out):  # type: ignore[no-untyped-def]
    """Draw single bit flips and add to out (R, O) int64 what they move the sums by.

    Bits of the given planes flip independently of each other. The distance from one candidate to the next is geometric at the
    larger of a plane's two rates; a candidate flips with the probability of its stored value over that rate. So the cost follows
    the number of flips.

    Args:
        rows: inputs (R, K), float32 integers. Inputs of 0 are skipped.
        codes: stored codes (O, K), unsigned.
        flips: (planes, 5) float64: plane, unit (what a rising bit adds), p01, p10, 1 / log(1 - max(p01, p10)).
        stream, names: row r draws from the stream named names[r] below `stream`.
        out: changed in place.
    """
    planes, places = flips.shape[0], rows.shape[1]
    where, x = np.empty(places, np.int64), np.empty(places, np.float64)
    for r in range(rows.shape[0]):
        count = 0
        for k in range(places):
            if rows[r, k] != 0:
                where[count], x[count] = k, rows[r, k]
                count += 1
        if count == 0:
            continue
        state = start(child_stream(stream, np.uint64(names[r])))
        waits, place = np.nan, 0.0
        for o in range(codes.shape[0]):
            moved = 0.0
            for j in range(planes):
                plane, unit, up, down, wait = np.uint64(flips[j, 0]), flips[j, 1], flips[j, 2], flips[j, 3], flips[j, 4]
                most = max(up, down)
                if wait != waits:
                    u, state = _uniform(state)
                    waits, place = wait, np.floor(math.log(u) * wait)
                while place < count:
                    at = int(place)
                    one = (np.uint64(codes[o, where[at]]) >> plane) & np.uint64(1)
                    rate = down if one else up
                    flipped = rate == most
                    if not flipped and rate > 0:
                        u, state = _uniform(state)
                        flipped = u * most <= rate
                    if flipped:
                        moved += -unit * x[at] if one else unit * x[at]
                    u, state = _uniform(state)
                    place += 1.0 + np.floor(math.log(u) * wait)
                place -= count
            out[r, o] += np.int64(moved)


@numba.njit(cache=True, nogil=True, inline="always")
def _uniform(state):  # type: ignore[no-untyped-def]
    """A number in (0, 1], a multiple of 2^-53, and the generator's next state."""
    word, state = next_word(state)
    return (np.float64(word >> _S11) + 1.0) * (1.0 / (1 << 53)), state


@numba.njit(cache=True, nogil=True)
def power_sums(x, out):  # type: ignore[no-untyped-def]
    """out (n, 5) float64 = sums over k of x, x^2, x^3, x^4 and x^6, x (n, k) int32."""
    for n in range(x.shape[0]):
        first = second = third = fourth = sixth = 0.0
        for k in range(x.shape[1]):
            value = np.float64(x[n, k])
            square = value * value
            first += value
            second += square
            third += square * value
            fourth += square * square
            sixth += square * square * square
        out[n, 0], out[n, 1], out[n, 2], out[n, 3], out[n, 4] = first, second, third, fourth, sixth


@numba.njit(cache=True, nogil=True, inline="always")
def _below(z, skew, flat, table):  # type: ignore[no-untyped-def]
    """P(Y <= z) of a standardized Y with skewness 6 * skew and excess kurtosis 24 * flat; normal if both are 0."""
    z = min(max(z, -_REACH), _REACH)
    if skew != 0.0 or flat != 0.0:
        near = min(max(z, -_WIDTH), _WIDTH)
        square = near * near
        z -= skew * (square - 1) + near * (flat * (square - 3) - skew * skew * (4 * square - 7))
    at = (z + _REACH) * (_CELLS / (2 * _REACH))
    if at <= 0.0:
        return 0.0
    if at >= _CELLS:
        return 1.0
    cell = int(at)
    low = table[cell]
    return low + (at - cell) * (table[cell + 1] - low)


@numba.njit(cache=True, nogil=True)
def win_probability(mean, deviation, shape, origin, low, high, target, table, out):  # type: ignore[no-untyped-def]
    """out[r] = P(class target[r] has the highest score, and the lowest number among those that share it), scores independent.

    mean, deviation (R, C): of scores in units of their grid. shape (2, R, C): skewness / 6 and excess kurtosis / 24. origin (R, C):
    a grid point of each, so that a score is the nearest origin + integer, clamped to low … high.
    """
    classes = mean.shape[1]
    for r in range(mean.shape[0]):
        t = target[r]
        mu, sigma, skew, flat = mean[r, t], deviation[r, t], shape[0, r, t], shape[1, r, t]
        stride = max(1, math.ceil(sigma / _POINTS))
        reach = math.ceil((_WIDTH * sigma + 0.5) / stride)
        centre = origin[r, t] + np.rint(mu - origin[r, t])
        won = mass = 0.0
        for place in range(-reach, reach + 1):
            value = centre + place * stride
            upper, lower = (value + 0.5 * stride - mu) / sigma, (value - 0.5 * stride - mu) / sigma
            weight = _below(upper, skew, flat, table) - _below(lower, skew, flat, table)
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
                    last = origin[r, c] + np.ceil(value - origin[r, c] - _EQUAL) - 1.0
                elif value >= high:
                    continue
                else:
                    last = origin[r, c] + np.floor(value - origin[r, c] + _EQUAL)
                ahead *= _below((last + 0.5 - mean[r, c]) / deviation[r, c], shape[0, r, c], shape[1, r, c], table)
                if ahead < 1e-12:
                    break
            won += ahead
            mass += weight
        out[r] = won / mass
