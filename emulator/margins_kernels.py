"""Kernels of `margins`: the smallest number of flips that can end a maximum or cross a threshold, most harmful bits first."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def _gains(codes, x, factor, units, rises, falls, out):  # type: ignore[no-untyped-def]
    """Positive changes of factor * sum(w * x) by single flips of the cells of one row, largest first, in out; how many there are.

    codes: stored codes (K,). units: what each bit adds when it rises. rises, falls: which bits can flip, by what they hold.
    """
    count = 0
    for k in range(codes.size):
        if x[k] == 0:
            continue
        for plane in range(units.size):
            one = (codes[k] >> plane) & 1
            if (one and not falls[plane]) or (not one and not rises[plane]):
                continue
            change = factor * x[k] * units[plane] * (1 - 2 * one)
            if change > 0:
                out[count] = change
                count += 1
    found = -np.sort(-out[:count])
    out[:count] = found
    return count


@numba.njit(cache=True, nogil=True)
def _harmless(first, first_count, second, second_count, need, cells):  # type: ignore[no-untyped-def]
    """One less than the number of largest entries of both lists (each largest first) that reach `need`; cells if none does."""
    i, j = 0, 0
    while need > 0:
        if i < first_count and (j == second_count or first[i] >= second[j]):
            need -= first[i]
            i += 1
        elif j < second_count:
            need -= second[j]
            j += 1
        else:
            return cells
    return i + j - 1


@numba.njit(cache=True, nogil=True)
def pair_tolerance(codes, x, scale, units, rises, falls, winner, gaps, out):  # type: ignore[no-untyped-def]
    """out[image, c] = flips in the rows of winner and c that never close the gap between them; out stays where the gap is 0.

    codes (O, K), x (n, K) less its zero point, scale (O,), gaps (n, O): int64. Equal scores count as closed.
    """
    outputs, inputs = codes.shape
    down = np.empty(inputs * units.size, dtype=np.int64)
    up = np.empty(inputs * units.size, dtype=np.int64)
    cells = 2 * inputs * np.count_nonzero(rises | falls)
    for image in range(x.shape[0]):
        best = winner[image]
        downs = _gains(codes[best], x[image], -scale[best], units, rises, falls, down)
        for c in range(outputs):
            if c == best or gaps[image, c] <= 0:
                continue
            ups = _gains(codes[c], x[image], scale[c], units, rises, falls, up)
            out[image, c] = _harmless(down, downs, up, ups, gaps[image, c], cells)


@numba.njit(cache=True, nogil=True)
def neuron_tolerance(codes, x, units, rises, falls, h, pivot, out):  # type: ignore[no-untyped-def]
    """out[place, o] = flips in row o that never change [h > pivot]. codes (O, K), x (places, K), h and out (places, O): int64."""
    outputs, inputs = codes.shape
    gains = np.empty(inputs * units.size, dtype=np.int64)
    none = np.empty(0, dtype=np.int64)
    cells = inputs * np.count_nonzero(rises | falls)
    for place in range(x.shape[0]):
        for o in range(outputs):
            above = h[place, o] > pivot[o]
            need = h[place, o] - pivot[o] if above else pivot[o] - h[place, o] + 1
            count = _gains(codes[o], x[place], -1 if above else 1, units, rises, falls, gains)
            out[place, o] = _harmless(gains, count, none, 0, need, cells)
