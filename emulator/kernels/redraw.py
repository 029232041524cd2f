"""A new read of a layer's weights: the flips of the last one come out and those of this one go in, in a single pass."""

from __future__ import annotations

import numba

from emulator.kernels.scatter import flip_signs, flip_values
from memmodels.sampler import draw_region


@numba.njit(cache=True, nogil=True)
def _exchange(flips):  # type: ignore[no-untyped-def]
    """flips = (present, drawn) -> (drawn, present ^ drawn)."""
    for i in range(flips.shape[1]):
        present = flips[0, i]
        flips[0, i] = flips[1, i]
        flips[1, i] ^= present


@numba.njit(cache=True, nogil=True)
def redraw_signs(sampler, trial, write, read, weights, outer, inner, flat, flips):  # type: ignore[no-untyped-def]
    """Read packed signs anew; flips (2, words): row 0 holds the flips that are in the weights. Returns how many were drawn."""
    count = draw_region(sampler, trial, write, read, flips[1])
    _exchange(flips)
    flip_signs(weights, outer, inner, flat, flips[1])
    return count


@numba.njit(cache=True, nogil=True)
def take_back_signs(weights, outer, inner, flat, flips):  # type: ignore[no-untyped-def]
    """Take the present flips out of packed signs."""
    flip_signs(weights, outer, inner, flat, flips[0])
    flips[0] = 0


@numba.njit(cache=True, nogil=True)
def redraw_values(sampler, trial, write, read, weights, outer, inner, planes, bits, signed, flips):  # type: ignore[no-untyped-def]
    """Read integers anew; see `redraw_signs`."""
    count = draw_region(sampler, trial, write, read, flips[1])
    _exchange(flips)
    flip_values(weights, outer, inner, planes, bits, signed, flips[1])
    return count


@numba.njit(cache=True, nogil=True)
def take_back_values(weights, outer, inner, planes, bits, signed, flips):  # type: ignore[no-untyped-def]
    """Take the present flips out of integers."""
    flip_values(weights, outer, inner, planes, bits, signed, flips[0])
    flips[0] = 0
