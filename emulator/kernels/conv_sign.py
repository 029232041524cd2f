"""A convolution and the threshold behind it in one pass: sums stay in registers, only bits are written.

    bit = (acc >= threshold)    becomes    mismatches <= limit  (PackedInt1)    or    sum >= limit  (products)

The limits hold what border, zero points and threshold come to, place by place (`sums.py` says what a place is).
"""

from __future__ import annotations

import numba
import numpy as np

from weakcell.emulator.kernels.carry_save import FEW, chain_rows, chained_block, chained_rows, is_chained, new_chains, words_of
from weakcell.emulator.kernels.conv import fill_offsets, is_integer, new_offsets
from weakcell.emulator.kernels.fault_reads import new_scratch, read_region
from weakcell.emulator.kernels.gemv import gemv_signs, sign_row
from weakcell.emulator.kernels.indirection import CHUNK, contiguous_runs, new_sums, row_addresses
from weakcell.emulator.kernels.microkernel import POOL, pooled_sign_tile, sign_tile, tile_rows
from weakcell.emulator.kernels.weight_layouts import LANES

_LOW, _HIGH = -(2**31), 2**31 - 1


@numba.njit(cache=True, nogil=True)
def fill_limits(weights, context, threshold, offsets, limits):  # type: ignore[no-untyped-def]
    """The last number of mismatches, or the first sum, that still means 1; never reached in lanes that are no channel."""
    fill_offsets(weights, 1, context, offsets)
    limits[:] = _HIGH if is_integer(weights) else -1
    for place in range(limits.shape[0]):
        for o in range(threshold.size):
            if is_integer(weights):
                limits[place, o] = min(max(np.int64(threshold[o]) - offsets[place, o], _LOW), _HIGH)
            else:
                limits[place, o] = (offsets[place, o] - np.int64(threshold[o])) >> 1


@numba.njit(cache=True, nogil=True)
def _walk(x, weights, context, geometry, pooled, limits, first, last, out):  # type: ignore[no-untyped-def]
    """Pixels first..last of `out` (counted over images, rows, columns)."""
    starts, length = contiguous_runs(x, weights, geometry, 1)
    if last - first == 1 and not pooled:
        _walk_alone(x, weights, starts, length, context, limits, first, out)
        return
    taps = POOL if pooled else 1
    chained = is_chained(weights) and (pooled or last - first >= FEW)
    tall = 1 if is_chained(weights) and not chained else tile_rows(weights, pooled)
    rows = chained_rows(weights, (last - first) * taps) if chained else min(CHUNK, max(last - first, 1) * taps)
    step, wide = out.shape[3] * out.itemsize, limits.strides[0]
    windows, places, results = np.empty((3, rows + tall), dtype=np.int64)
    offsets = words_of(weights, starts, length)
    chains, chain = new_chains(weights, windows.size if chained else 0)
    at_starts, at_windows, at_results, at_places = starts.ctypes.data, windows.ctypes.data, results.ctypes.data, places.ctypes.data
    at_limits, at_out = limits.ctypes.data, out.ctypes.data
    for chunk in range(first, last, rows // taps):
        end = min(chunk + rows // taps, last)
        row_addresses(x, context.row_table, chunk * taps, end * taps, taps, windows, places)
        if chained:
            chain_rows(windows, offsets, chains)
        for r in range(places.size):
            places[r] = at_limits + places[r] * wide
            results[r] = at_out + min(chunk + r, end - 1) * step
        for block in range(weights.values.shape[0]):
            here, words = np.int64(weights.values.ctypes.data) + block * weights.values.strides[0], length
            if chained:
                here, words = chained_block(weights, block, chain), chain.shape[0]
            for row in range(0, (end - chunk) * taps, tall):
                p, q, s = at_windows + row * 8, at_places + row * 8, at_results + row // taps * 8
                if pooled:
                    pooled_sign_tile(weights, p, here, at_starts, starts.size, words, q, s)
                elif tall == 1 or (not chained and chunk + row + 1 == end):
                    sign_row(weights, p, here, at_starts, starts.size, words, q, s)
                else:
                    sign_tile(weights, p, here, at_starts, starts.size, words, q, s)
            places += LANES * limits.itemsize
            results += LANES // 8


@numba.njit(cache=True, nogil=True)
def _walk_alone(x, weights, starts, length, context, limits, pixel, out):  # type: ignore[no-untyped-def]
    """The same for one pixel."""
    window, place = np.empty((2, 1), dtype=np.int64)
    row_addresses(x, context.row_table, pixel, pixel + 1, 1, window, place)
    gemv_signs(weights, window[0], starts, length, limits[place[0]], out.reshape(-1, out.shape[3])[pixel])


@numba.njit(cache=True, nogil=True)
def limits(weights, context, threshold):  # type: ignore[no-untyped-def]
    """What sums are compared with: (places, blocks * LANES), for the weights and thresholds as they are."""
    offsets = new_offsets(weights, context)
    made = new_sums(weights, offsets.shape[0], offsets.shape[1])
    fill_limits(weights, context, threshold, offsets, made)
    return made


@numba.njit(cache=True, nogil=True)
def sign_convolution(x, out, weights, context, limits, geometry, pooled):  # type: ignore[no-untyped-def]
    """Bits of acc >= threshold: x (n, h, w, C) with its border -> out uint64 (n, oh, ow, ceil(O/64)).

    weights: one of `tile.LAYOUTS`. Their sums stay within int32, and they have neither zero points nor a bias.
    pooled: every pixel of `out` is a maximum over tile.POOL neighbouring rows of `context`.
    """
    _walk(x, weights, context, geometry, pooled, limits, 0, out.shape[0] * out.shape[1] * out.shape[2], out)


@numba.njit(cache=True, nogil=True)
def sign_convolution_resampled(  # type: ignore[no-untyped-def]
    x,
    weights,
    context,
    threshold,
    geometry,
    pooled,
    out,
    sources,
    homes,
    trial,
    first_image,
    per_pixel,
    counts,
):
    """The same with weights that are read anew for each image, or for each output pixel; see `sums.py`."""
    pixels = out.shape[1] * out.shape[2]
    step = 1 if per_pixel else pixels
    offsets, scratch = new_offsets(weights, context), new_scratch(homes)
    limits = new_sums(weights, offsets.shape[0], offsets.shape[1])
    for row in range(0, out.shape[0] * pixels, step):
        read = first_image * (pixels // step) + row // step
        for i in range(homes.size):
            counts[i] += read_region(sources[i], homes[i], trial, read, scratch)
        fill_limits(weights, context, threshold, offsets, limits)
        _walk(x, weights, context, geometry, pooled, limits, row, row + step, out)


@numba.njit(cache=True, nogil=True)
def invert_bits(out, inverted):  # type: ignore[no-untyped-def]
    """XOR the words of every pixel with `inverted` (one word per 64 channels)."""
    for image in range(out.shape[0]):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                for word in range(out.shape[3]):
                    out[image, y, x, word] ^= inverted[word]
