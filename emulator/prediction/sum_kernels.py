"""Kernels of `prediction`: sample faulty sums, and compute the probability that a class has the highest score."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.compilation import compiled
from weakcell.memmodels.sampling.streams import child_stream, next_word, start, word_at

_S11, _S16, _MASK16 = np.uint64(11), np.uint64(16), np.uint64(0xFFFF)
_CELLS, _REACH = 4096, 8.0
_POINTS = 5.0
"""The winner's score is integrated at so many points per standard deviation, over _WIDTH standard deviations on each side."""
_WIDTH = 4.5
_EQUAL = 1e-6
"""Scores that differ by less than this share of the grid spacing are the same grid point; the difference is rounding."""


@lru_cache(maxsize=1)
def normal_table() -> npt.NDArray[np.float32]:
    """Return 2^16 equally likely values of a standard normal variable: the means of its quantile intervals (variance 1 − 3e-6)."""
    from scipy.special import ndtri

    edges = ndtri(np.arange(1, 1 << 16) / (1 << 16))
    density = np.concatenate([[0.0], np.exp(-0.5 * edges**2), [0.0]]) / math.sqrt(2 * math.pi)
    means: npt.NDArray[np.float32] = ((density[:-1] - density[1:]) * (1 << 16)).astype(np.float32)
    return means


@lru_cache(maxsize=1)
def cumulative_table() -> npt.NDArray[np.float32]:
    """Return the standard normal distribution function at −8 … 8 in steps of 1/256, for linear interpolation (error < 5e-7)."""
    from scipy.special import ndtr

    table: npt.NDArray[np.float32] = ndtr(np.linspace(-_REACH, _REACH, _CELLS + 1)).astype(np.float32)
    return table


class SumSampling(NamedTuple):
    """Distribution of R × O faulty sums, for `draw_sums`.

    mean = slope · sum + shift + tilt · total + extra. g is the skewness, k the excess kurtosis.

    slope, step: Kernels compute with their float32. shift, tilt: float32 (O,). total: float32 (R,).
    extra: float32 (R, O), or (0, 0) for none.
    deviation: float32 (R or 1, O or 1). shape: float32 (R, 3): g = shape[r, 0] + shape[r, 1] · sums[r, o], k = shape[r, 2].
    """

    slope: float
    shift: npt.NDArray[np.float32]
    tilt: npt.NDArray[np.float32]
    total: npt.NDArray[np.float32]
    extra: npt.NDArray[np.float32]
    deviation: npt.NDArray[np.float32]
    shape: npt.NDArray[np.float32]
    step: float


@compiled
def draw_sums(sums, sampling, normals, stream, names, out):  # type: ignore[no-untyped-def]
    """Sample faulty sums: out = sums + step · rint((mean + deviation · y − sums) / step).

    y is a standard normal value z, transformed to the skewness g and the excess kurtosis k of the sum (Cornish and Fisher 1938):
    y = z + g / 6 · (z² − 1) + k / 24 · (z³ − 3 z) − g² / 36 · (2 z³ − 5 z).

    Args:
        sums: Fault-free sums, int32 (R, O).
        sampling: `SumSampling`.
        normals: `normal_table()`.
        stream: Parent stream.
        names: Row r samples from the child stream names[r], int64 (R,).
        out: int32 (R, O).
    """
    shift, tilt, total, extra, deviation, shape = sampling[1:-1]
    slope, step = np.float32(sampling.slope), np.float32(sampling.step)
    rows, outputs = sums.shape
    by_row, by_output, has_extra = deviation.shape[0] > 1, deviation.shape[1] > 1, extra.size > 0
    inverse_step = np.float32(1) / step
    slope_change = slope - np.float32(1)
    sixth = np.float32(1 / 6)
    words = (outputs + 3) // 4
    for r in range(rows):
        row_stream = child_stream(stream, np.uint64(names[r]))
        row_deviation = deviation[r if by_row else 0]
        base, by_sum, flat = shape[r, 0] * sixth, shape[r, 1] * sixth, shape[r, 2] * np.float32(1 / 24)
        for group in range(words):
            word = word_at(row_stream, np.uint64(group))
            for o in range(4 * group, min(4 * group + 4, outputs)):
                z = normals[word & _MASK16]
                word >>= _S16
                fault_free = np.float32(sums[r, o])
                skew, square = base + by_sum * fault_free, z * z
                y = (
                    z
                    + skew * (square - np.float32(1))
                    + z * (flat * (square - np.float32(3)) - skew * skew * (np.float32(2) * square - np.float32(5)))
                )
                change = slope_change * fault_free + shift[o] + tilt[o] * total[r] + row_deviation[o if by_output else 0] * y
                if has_extra:
                    change += extra[r, o]
                out[r, o] = sums[r, o] + np.int32(step * np.rint(change * inverse_step))


@compiled
def draw_flips(rows, codes, flips, stream, names, out):  # type: ignore[no-untyped-def]
    """Sample single bit flips, and add the changes of the sums that they cause to `out`.

    Bits flip independently. The distance from one candidate to the next is geometric at the larger of the two rates of a plane. A
    candidate flips with the rate of its stored value divided by that rate. So the cost is proportional to the number of flips.

    Args:
        rows: Inputs, float32 integers (R, K). Inputs of 0 are skipped.
        codes: Stored codes, unsigned (O, K).
        flips: float64 (planes, 5): plane, change of the weight when the bit rises, p01, p10, 1 / log(1 − max(p01, p10)).
        stream: Parent stream.
        names: Row r samples from the child stream names[r], int64 (R,).
        out: int64 (R, O), changed in place.
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


@compiled(inline="always")
def _uniform(state):  # type: ignore[no-untyped-def]
    """Return a number in (0, 1], a multiple of 2^−53, and the next state of the generator."""
    word, state = next_word(state)
    return (np.float64(word >> _S11) + 1.0) * (1.0 / (1 << 53)), state


@compiled
def power_sums(x, out):  # type: ignore[no-untyped-def]
    """Compute the sums over k of x, x², x³, x⁴ and x⁶: x int32 (n, k), out float64 (n, 5)."""
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


@compiled(inline="always")
def _below(z, skew, flat, table):  # type: ignore[no-untyped-def]
    """Return P(Y ≤ z) for a standardized Y with skewness 6 · skew and excess kurtosis 24 · flat; normal if both are 0."""
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


@compiled
def win_probability(mean, deviation, shape, origin, low, high, target, table, out):  # type: ignore[no-untyped-def]
    """Compute the probability that a class has the highest score, for independent scores; at a tie the lowest class wins.

    Args:
        mean: Mean of the scores in units of their grid, (R, C).
        deviation: Their standard deviation, (R, C).
        shape: Skewness / 6 and excess kurtosis / 24, (2, R, C).
        origin: A grid point of each score, (R, C): a score is the nearest origin + integer, clamped to low … high.
        low: Lowest score; −inf for none.
        high: Highest score; inf for none.
        target: Class of each row, int64 (R,).
        table: `cumulative_table()`.
        out: float64 (R,).
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
