"""Kernels of `margins`: the smallest number of flips that can end a maximum or cross a threshold, most harmful bits first.

Flips of the same bit of weights on equal inputs do the same harm, and inputs are small integers: harms are counted by (input, bit),
so that only the distinct ones are sorted.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def _gains(codes, x, low, factor, units, rises, falls, tally, gains, counts):  # type: ignore[no-untyped-def]
    """Positive changes of factor * sum(w * x) by single flips of a row's cells, largest first, and how many cells make each.

    codes: stored codes (K,). low: the smallest of all x. units: what each bit adds when it rises. rises, falls: which bits can
    flip, by what they hold. tally: zeros (values of x, bits), left so. Returns how many entries of gains and counts are filled.
    """
    planes = units.size
    for k in range(codes.size):
        for plane in range(planes):
            one = (codes[k] >> plane) & 1
            can = falls[plane] if one else rises[plane]
            if can and factor * x[k] * units[plane] * (1 - 2 * one) > 0:
                tally[x[k] - low, plane] += 1
    found = 0
    for value in range(tally.shape[0]):
        for plane in range(planes):
            if tally[value, plane]:
                gains[found] = abs(factor * (value + low) * units[plane])
                counts[found] = tally[value, plane]
                tally[value, plane] = 0
                found += 1
    order = np.argsort(-gains[:found])
    gains[:found] = gains[:found][order]
    counts[:found] = counts[:found][order]
    return found


@numba.njit(cache=True, nogil=True)
def _harmless(first, first_counts, first_size, second, second_counts, second_size, need, cells):  # type: ignore[no-untyped-def]
    """One less than the number of flips, largest gains of both lists first, that reach `need`; cells if all do not."""
    i, j, flips = 0, 0, 0
    while need > 0:
        if i < first_size and (j == second_size or first[i] >= second[j]):
            gain, many = first[i], first_counts[i]
            i += 1
        elif j < second_size:
            gain, many = second[j], second_counts[j]
            j += 1
        else:
            return cells
        taken = min(many, (need + gain - 1) // gain)
        need -= taken * gain
        flips += taken
    return flips - 1


@numba.njit(cache=True, nogil=True)
def pair_tolerance(codes, x, scale, units, rises, falls, winner, gaps, out):  # type: ignore[no-untyped-def]
    """out[image, c] = flips in the rows of winner and c that never close the gap between them; out stays where the gap is 0.

    codes (O, K), x (n, K) less its zero point, scale (O,), gaps (n, O): int64. Equal scores count as closed.
    """
    outputs, inputs = codes.shape
    low = x.min() if x.size else 0
    tally = np.zeros(((x.max() - low + 1) if x.size else 1, units.size), dtype=np.int64)
    down, up = np.empty(tally.size, dtype=np.int64), np.empty(tally.size, dtype=np.int64)
    down_counts, up_counts = np.empty_like(down), np.empty_like(up)
    cells = 2 * inputs * np.count_nonzero(rises | falls)
    for image in range(x.shape[0]):
        best = winner[image]
        downs = _gains(codes[best], x[image], low, -scale[best], units, rises, falls, tally, down, down_counts)
        for c in range(outputs):
            if c == best or gaps[image, c] <= 0:
                continue
            ups = _gains(codes[c], x[image], low, scale[c], units, rises, falls, tally, up, up_counts)
            out[image, c] = _harmless(down, down_counts, downs, up, up_counts, ups, gaps[image, c], cells)


@numba.njit(cache=True, nogil=True)
def neuron_tolerance(codes, x, units, rises, falls, h, pivot, out):  # type: ignore[no-untyped-def]
    """out[place, o] = flips in row o that never change [h > pivot]. codes (O, K), x (places, K), h and out (places, O): int64."""
    outputs, inputs = codes.shape
    low = x.min() if x.size else 0
    tally = np.zeros(((x.max() - low + 1) if x.size else 1, units.size), dtype=np.int64)
    gains, counts = np.empty(tally.size, dtype=np.int64), np.empty(tally.size, dtype=np.int64)
    none = np.empty(0, dtype=np.int64)
    cells = inputs * np.count_nonzero(rises | falls)
    for place in range(x.shape[0]):
        for o in range(outputs):
            above = h[place, o] > pivot[o]
            need = h[place, o] - pivot[o] if above else pivot[o] - h[place, o] + 1
            found = _gains(codes[o], x[place], low, -1 if above else 1, units, rises, falls, tally, gains, counts)
            out[place, o] = _harmless(gains, counts, found, none, none, 0, need, cells)
