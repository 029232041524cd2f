"""A convolution and the threshold behind it in one pass: sums stay in registers, only bits are written.

    bit = (acc >= threshold)    becomes    mismatches <= limit  (packed signs)    or    sum >= limit  (integers)

A zero-padded binary convolution has one set of limits per *place*: pixels that miss the same taps share one. A tap in the border
reads -1, mismatches the +1 weights of its channels, and adds nothing; the limits of its place make up for that.
"""

from __future__ import annotations

import numba
import numpy as np

from emulator.kernels.binary import ones_by_tap
from emulator.kernels.binary import stretches as binary_stretches
from emulator.kernels.integer import stretches as integer_stretches
from emulator.kernels.redraw import redraw_signs, redraw_values, take_back_signs, take_back_values
from emulator.kernels.rows import CHUNK, row_addresses
from emulator.kernels.tile import (
    BINARY_ROWS,
    INTEGER_ROWS,
    LANES,
    binary_sign_row,
    binary_sign_tile,
    integer_sign_row,
    integer_sign_tile,
)


@numba.njit(cache=True, nogil=True)
def _binary_limits(weights, channels, threshold, places):  # type: ignore[no-untyped-def]
    """Largest number of mismatches that still means 1: (places, blocks, LANES) int64; -1 for lanes that are no channel.

    places: bool (places, taps), which taps of a place are inside. acc = inside * channels - 2 mismatches >= threshold.
    """
    blocks, taps = weights.shape[0], places.shape[1]
    ones = ones_by_tap(weights, taps) if not places.all() else np.zeros((blocks, taps, LANES), dtype=np.int64)
    limits = np.full((places.shape[0], blocks, LANES), -1, dtype=np.int64)
    for place in range(places.shape[0]):
        most = np.sum(places[place]) * channels
        for o in range(threshold.size):
            limit = (most - np.int64(threshold[o])) >> 1
            for tap in range(taps):
                if not places[place, tap]:
                    limit += ones[o // LANES, tap, o % LANES]
            limits[place, o // LANES, o % LANES] = limit
    return limits


@numba.njit(cache=True, nogil=True)
def _integer_limits(blocks, threshold):  # type: ignore[no-untyped-def]
    """Smallest sum that means 1: (blocks, LANES) int32, the largest int32 for lanes that are no channel."""
    limits = np.full((blocks, LANES), 2**31 - 1, dtype=np.int32)
    for o in range(threshold.size):
        limits[o // LANES, o % LANES] = threshold[o]
    return limits


@numba.njit(cache=True, nogil=True)
def _binary_rows(x, weights, limits, place_of, geometry, first, last, out):  # type: ignore[no-untyped-def]
    """Output pixels first..last (counted over images, rows, columns); place_of: the place of each pixel of an image."""
    kernel, stride, dilation, _ = geometry
    offsets, length = binary_stretches(x, kernel, dilation)
    blocks, pixels = weights.shape[0], out.shape[1] * out.shape[2]
    at, own, to = (
        np.empty(CHUNK + BINARY_ROWS, np.int64),
        np.empty(CHUNK + BINARY_ROWS, np.int64),
        np.empty(CHUNK + BINARY_ROWS, np.int64),
    )
    for chunk in range(first, last, CHUNK):
        end = min(chunk + CHUNK, last)
        row_addresses(x, out, stride, 8, chunk, end, at, to)
        for r in range(own.size):
            own[r] = limits.ctypes.data + place_of[min(chunk + r, end - 1) % pixels] * (blocks * LANES * 8)
        for block in range(blocks):
            here = weights.ctypes.data + block * weights.shape[1] * LANES * 8
            for row in range(0, end - chunk, BINARY_ROWS):
                p, q, s = at.ctypes.data + row * 8, own.ctypes.data + row * 8, to.ctypes.data + row * 8
                if chunk + row + 1 == end:
                    binary_sign_row(p, here, offsets.ctypes.data, offsets.size, length, q, s)
                else:
                    binary_sign_tile(p, here, offsets.ctypes.data, offsets.size, length, q, s)
            own += LANES * 8
            to += LANES // 8


@numba.njit(cache=True, nogil=True)
def _integer_rows(x, weights, limits, geometry, first, last, out):  # type: ignore[no-untyped-def]
    """Output pixels first..last (counted over images, rows, columns)."""
    kernel, stride, dilation, _ = geometry
    offsets, length = integer_stretches(x, kernel, dilation)
    at, own, to = (
        np.empty(CHUNK + INTEGER_ROWS, np.int64),
        np.empty(CHUNK + INTEGER_ROWS, np.int64),
        np.empty(CHUNK + INTEGER_ROWS, np.int64),
    )
    for chunk in range(first, last, CHUNK):
        end = min(chunk + CHUNK, last)
        row_addresses(x, out, stride, 2, chunk, end, at, to)
        own[:] = limits.ctypes.data
        for block in range(weights.shape[0]):
            here = weights.ctypes.data + block * weights.shape[1] * LANES * 4
            for row in range(0, end - chunk, INTEGER_ROWS):
                p, q, s = at.ctypes.data + row * 8, own.ctypes.data + row * 8, to.ctypes.data + row * 8
                if chunk + row + 1 == end:
                    integer_sign_row(p, here, offsets.ctypes.data, offsets.size, length, q, s)
                else:
                    integer_sign_tile(p, here, offsets.ctypes.data, offsets.size, length, q, s)
            own += LANES * 4
            to += LANES // 8


@numba.njit(cache=True, nogil=True)
def binary_signs(x, channels, weights, threshold, places, place_of, geometry, out):  # type: ignore[no-untyped-def]
    """Bits of acc >= threshold: x (n, h, w, words) with its border -> out uint64 (n, oh, ow, ceil(O/64)).

    places (places, taps) and place_of (oh * ow): see `_binary_limits` and `fusion.places_of`.
    """
    limits = _binary_limits(weights, channels, threshold, places)
    _binary_rows(x, weights, limits, place_of, geometry, 0, out.shape[0] * out.shape[1] * out.shape[2], out)


@numba.njit(cache=True, nogil=True)
def integer_signs(x, weights, threshold, geometry, out):  # type: ignore[no-untyped-def]
    """Bits of acc >= threshold for weights without zero points or bias: x int16 (n, h, w, C) with its border."""
    limits = _integer_limits(weights.shape[0], threshold)
    _integer_rows(x, weights, limits, geometry, 0, out.shape[0] * out.shape[1] * out.shape[2], out)


@numba.njit(cache=True, nogil=True)
def binary_signs_redrawn(  # type: ignore[no-untyped-def]
    x, channels, weights, threshold, places, place_of, geometry, out, outer, inner, flat, samplers, flips,
    trial, writes, first_image, per_pixel, counts,
):  # fmt: skip
    """The same with weights that are read anew for each image, or for each output pixel; see `binary.py`."""
    pixels = out.shape[1] * out.shape[2]
    step = 1 if per_pixel else pixels
    for row in range(0, out.shape[0] * pixels, step):
        read = first_image * (pixels // step) + row // step
        for i in range(len(samplers)):
            counts[i] += redraw_signs(samplers[i], trial, writes[i], read, weights, outer, inner, flat, flips[i])
        limits = _binary_limits(weights, channels, threshold, places)
        _binary_rows(x, weights, limits, place_of, geometry, row, row + step, out)
    for i in range(len(samplers)):
        take_back_signs(weights, outer, inner, flat, flips[i])


@numba.njit(cache=True, nogil=True)
def integer_signs_redrawn(  # type: ignore[no-untyped-def]
    x, weights, threshold, geometry, out, outer, inner, samplers, planes, bits, signed, flips,
    trial, writes, first_image, per_pixel, counts,
):  # fmt: skip
    """The same with weights that are read anew for each image, or for each output pixel; see `integer.py`."""
    pixels = out.shape[1] * out.shape[2]
    step = 1 if per_pixel else pixels
    limits = _integer_limits(weights.shape[0], threshold)
    for row in range(0, out.shape[0] * pixels, step):
        read = first_image * (pixels // step) + row // step
        for i in range(len(samplers)):
            counts[i] += redraw_values(
                samplers[i], trial, writes[i], read, weights, outer, inner, planes[i], bits, signed, flips[i]
            )
        _integer_rows(x, weights, limits, geometry, row, row + step, out)
    for i in range(len(samplers)):
        take_back_values(weights, outer, inner, planes[i], bits, signed, flips[i])


@numba.njit(cache=True, nogil=True)
def invert_bits(out, inverted):  # type: ignore[no-untyped-def]
    """XOR the words of every pixel with `inverted` (one word per 64 channels)."""
    for image in range(out.shape[0]):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                for word in range(out.shape[3]):
                    out[image, y, x, word] ^= inverted[word]
