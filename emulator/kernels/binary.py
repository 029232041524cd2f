"""XNOR-popcount: sums of products of ±1 values that are packed 64 to a word.

Weights lie as [O/LANES][taps * words][LANES] (`tile.py` says why). Activations come with their border: words of 0, which mean -1;
what a tap in the border added is taken out again, so a zero-padded ±1 convolution is exact.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from emulator.kernels.redraw import redraw_signs, take_back_signs
from emulator.kernels.rows import CHUNK, row_addresses
from emulator.kernels.scatter import lowest_bit
from emulator.kernels.tile import BINARY_ROWS, LANES, binary_row, binary_tile
from memmodels.sampler import popcount_word


@numba.njit(cache=True, nogil=True)
def stretches(x, kernel, dilation):  # type: ignore[no-untyped-def]
    """Byte offsets of the stretches of a window, and the words of each: one per kernel row, or one per tap if dilated."""
    width, words = x.shape[2], x.shape[3]
    if dilation[1] == 1:
        rows = np.arange(kernel[0]) * (dilation[0] * width * words * 8)
        return rows.astype(np.int64), kernel[1] * words
    taps = np.empty(kernel[0] * kernel[1], dtype=np.int64)
    for tap in range(taps.size):
        taps[tap] = (tap // kernel[1] * dilation[0] * width + tap % kernel[1] * dilation[1]) * words * 8
    return taps, words


@numba.njit(cache=True, nogil=True)
def ones_by_tap(weights, taps):  # type: ignore[no-untyped-def]
    """How many +1 weights each tap has: (blocks, taps, LANES)."""
    words = weights.shape[1] // taps
    ones = np.zeros((weights.shape[0], taps, LANES), dtype=np.int64)
    for block in range(weights.shape[0]):
        for row in range(weights.shape[1]):
            for lane in range(LANES):
                ones[block, row // words, lane] += popcount_word(weights[block, row, lane])
    return ones


@numba.njit(cache=True, nogil=True)
def _correct_border(mismatches, ones, oy, ox, size, geometry):  # type: ignore[no-untyped-def]
    """Take the taps in the border out of an output pixel's mismatches; returns how many taps are inside."""
    kernel, stride, dilation, pads = geometry
    top, left = oy * stride[0] - pads[0], ox * stride[1] - pads[1]
    inside = 0
    for tap in range(kernel[0] * kernel[1]):
        iy, ix = top + tap // kernel[1] * dilation[0], left + tap % kernel[1] * dilation[1]
        if 0 <= iy < size[0] and 0 <= ix < size[1]:
            inside += 1
        else:
            for lane in range(LANES):
                mismatches[lane] -= ones[tap, lane]
    return inside


@numba.njit(cache=True, nogil=True)
def _rows(x, size, channels, weights, geometry, first, last, out):  # type: ignore[no-untyped-def]
    """Output pixels first..last (counted over images, rows, columns) for all output channels."""
    kernel, stride, dilation, pads = geometry
    offsets, length = stretches(x, kernel, dilation)
    padded, taps = max(pads) > 0, kernel[0] * kernel[1]
    ones = ones_by_tap(weights, taps) if padded else np.zeros((weights.shape[0], 1, 1), dtype=np.int64)
    at, to = np.empty(CHUNK + BINARY_ROWS, dtype=np.int64), np.empty(CHUNK + BINARY_ROWS, dtype=np.int64)
    sums = np.empty((BINARY_ROWS, LANES), dtype=np.int64)
    flat = out.reshape(-1, out.shape[3])
    for chunk in range(first, last, CHUNK):
        end = min(chunk + CHUNK, last)
        row_addresses(x, out, stride, 8, chunk, end, at, to)
        for block in range(weights.shape[0]):
            channel, here = block * LANES, weights.ctypes.data + block * weights.shape[1] * LANES * 8
            for row in range(chunk, end, BINARY_ROWS):
                own = at.ctypes.data + (row - chunk) * 8
                if row + 1 == end:
                    binary_row(own, here, offsets.ctypes.data, offsets.size, length, sums.ctypes.data)
                else:
                    binary_tile(own, here, offsets.ctypes.data, offsets.size, length, sums.ctypes.data)
                for r in range(min(BINARY_ROWS, end - row)):
                    inside = taps
                    if padded:
                        oy, ox = (row + r) // out.shape[2] % out.shape[1], (row + r) % out.shape[2]
                        inside = _correct_border(sums[r], ones[block], oy, ox, size, geometry)
                    line = flat[row + r, channel : min(channel + LANES, out.shape[3])]
                    for lane in range(line.size):
                        line[lane] = inside * channels - 2 * sums[r, lane]


@numba.njit(cache=True, nogil=True)
def binary_convolution(x, size, channels, weights, geometry, out):  # type: ignore[no-untyped-def]
    """acc = sum of ±1 products: x (n, h, w, words) with its border -> out int32 (n, oh, ow, O).

    size: (h, w) without the border. channels: bits of a pixel. geometry: (kernel, stride, dilation, pads) as in `network.Window`.
    """
    _rows(x, size, channels, weights, geometry, 0, out.shape[0] * out.shape[1] * out.shape[2], out)


@numba.njit(cache=True, nogil=True)
def binary_convolution_redrawn(  # type: ignore[no-untyped-def]
    x, size, channels, weights, geometry, out, outer, inner, flat, samplers, flips, trial, writes, first_image, per_pixel, counts
):
    """The same with weights that are read anew for each image, or for each output pixel (`per_pixel`).

    outer, inner, flat: see `scatter.py`. samplers, flips (2, words): one per region of the weight tensor; see `redraw.py`.
    counts[i] += flips drawn from region i.
    """
    pixels = out.shape[1] * out.shape[2]
    step = 1 if per_pixel else pixels
    for row in range(0, out.shape[0] * pixels, step):
        read = first_image * (pixels // step) + row // step
        for i in range(len(samplers)):
            counts[i] += redraw_signs(samplers[i], trial, writes[i], read, weights, outer, inner, flat, flips[i])
        _rows(x, size, channels, weights, geometry, row, row + step, out)
    for i in range(len(samplers)):
        take_back_signs(weights, outer, inner, flat, flips[i])


@numba.njit(cache=True, nogil=True)
def _pack(signs, out):  # type: ignore[no-untyped-def]
    for i in range(signs.shape[0]):
        for c in range(signs.shape[1]):
            if signs[i, c]:
                out[i, c >> 6] |= np.uint64(1) << np.uint64(c & 63)


def pack_channels(plus: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """(..., C) booleans (True = +1) -> (..., ceil(C/64)) words, LSB first, spare bits 0."""
    channels = plus.shape[-1]
    words = np.zeros((*plus.shape[:-1], -(-channels // 64)), dtype=np.uint64)
    _pack(plus.reshape(-1, channels), words.reshape(-1, words.shape[-1]))
    return words


def unpack_channels(words: npt.NDArray[np.uint64], channels: int) -> npt.NDArray[np.int8]:
    """(..., ceil(C/64)) words -> (..., C) values +1 and -1 (int8)."""
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")[..., :channels]
    return (bits.astype(np.int8) << 1) - 1


@numba.njit(cache=True, nogil=True)
def flatten_bits(x, channels, out):  # type: ignore[no-untyped-def]
    """Packed channels-last bits (n, h, w, words) -> (n, 1, 1, ceil(C h w / 64)) in ONNX order; out zeroed by the caller."""
    taps = x.shape[1] * x.shape[2]
    for image in range(x.shape[0]):
        for tap in range(taps):
            for word in range(x.shape[3]):
                bits = x[image, tap // x.shape[2], tap % x.shape[2], word]
                while bits != 0:
                    place = (word * 64 + lowest_bit(bits)) * taps + tap
                    out[image, 0, 0, place >> 6] |= np.uint64(1) << np.uint64(place & 63)
                    bits &= bits - np.uint64(1)


@numba.njit(cache=True, nogil=True)
def threshold_pack(acc, threshold, inverted, out):  # type: ignore[no-untyped-def]
    """bit = (acc >= threshold[c]) != inverted[c]: acc int32 (n, h, w, C) -> out uint64 (n, h, w, ceil(C/64))."""
    for image in range(acc.shape[0]):
        for y in range(acc.shape[1]):
            for x in range(acc.shape[2]):
                for word in range(out.shape[3]):
                    bits = np.uint64(0)
                    for c in range(min(64, acc.shape[3] - word * 64)):
                        channel = word * 64 + c
                        plus = (acc[image, y, x, channel] >= threshold[channel]) != inverted[channel]
                        bits |= np.uint64(plus) << np.uint64(c)
                    out[image, y, x, word] = bits
