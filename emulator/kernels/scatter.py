"""Flips in storage order -> flips in kernel order.

A region's flips come as one word per 64 cells. Each kernel keeps its weights in an order of its own; `places` says where an
element went. Every function here undoes itself when it is called again with the same flips.
"""

from __future__ import annotations

import numba
import numpy as np

_U0, _U1 = np.uint64(0), np.uint64(1)


@numba.njit(cache=True, inline="always")
def _lowest(word):  # type: ignore[no-untyped-def]
    """The index of the lowest set bit of a word that is not 0."""
    count = 0
    while not word & np.uint64(0xFF):
        word >>= np.uint64(8)
        count += 8
    while not word & _U1:
        word >>= _U1
        count += 1
    return count


@numba.njit(cache=True, nogil=True)
def flip_packed(weights, places, flips):  # type: ignore[no-untyped-def]
    """Flip signs that are packed in words: places[element] is the element's bit in `weights` (uint64, any shape, contiguous)."""
    words = weights.reshape(-1)
    for i in range(flips.size):
        word = flips[i]
        while word != _U0:
            place = places[i * 64 + _lowest(word)]
            words[place >> 6] ^= _U1 << np.uint64(place & 63)
            word &= word - _U1


@numba.njit(cache=True, nogil=True)
def flip_values(values, places, planes, bits, signed, flips):  # type: ignore[no-untyped-def]
    """Flip stored bits of integers: places[element] is the element's index in `values` (contiguous).

    planes: the bit of an element that each cell of it holds. bits: of an element; bits == 1 means a sign, which is negated.
    """
    flat = values.reshape(-1)
    cells = planes.size
    for i in range(flips.size):
        word = flips[i]
        while word != _U0:
            address = i * 64 + _lowest(word)
            word &= word - _U1
            place = places[address // cells]
            if bits == 1:
                flat[place] = -flat[place]
                continue
            plane = planes[address % cells]
            if signed and plane == bits - 1:
                code = np.int64(flat[place])
                flat[place] = code + (1 << plane) if code < 0 else code - (1 << plane)
            else:
                flat[place] ^= 1 << plane
