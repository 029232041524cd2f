"""A new read of a layer's weights: the flips of the last one come out and those of this one go in, in a single pass."""

from __future__ import annotations

import numba

from emulator.kernels.scatter import flip
from memmodels.sampler import draw_region


@numba.njit(cache=True, nogil=True)
def redraw(sampler, trial, write, read, weights, order, masks, flips):  # type: ignore[no-untyped-def]
    """Read weights anew; flips (2, words): row 0 holds the flips that are in them. Returns how many were drawn.

    weights, order, masks: see `scatter.flip`.
    """
    count = draw_region(sampler, trial, write, read, flips[1])
    for i in range(flips.shape[1]):
        present = flips[0, i]
        flips[0, i] = flips[1, i]
        flips[1, i] ^= present
    flip(weights, order, masks, flips[1])
    return count


@numba.njit(cache=True, nogil=True)
def take_back(weights, order, masks, flips):  # type: ignore[no-untyped-def]
    """Take the present flips out of the weights."""
    flip(weights, order, masks, flips[0])
    flips[0] = 0
