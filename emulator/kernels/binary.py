"""XNOR-popcount: sums of products of ±1 values that are packed 64 to a word.

Weights lie as [O/LANES][taps * words][LANES]: the lanes of a vector are output channels, so one activation word meets LANES
weight words and no horizontal sum is needed; a block of weights stays in the first-level cache while all pixels pass by it.
A tap that falls into the padding adds nothing, so a zero-padded ±1 convolution is exact at its border.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from emulator.kernels.scatter import LANES, flip_packed
from memmodels.sampler import draw_region, popcount_word


@numba.njit(cache=True, nogil=True)
def _pixel(x, image, top, left, dilation, kernel, block, lanes):  # type: ignore[no-untyped-def]
    """lanes[:] = mismatching bits of one output pixel against one block of weights; returns how many taps were inside."""
    height, width, words = x.shape[1], x.shape[2], x.shape[3]
    lanes[:] = 0
    inside = 0
    for ky in range(kernel[0]):
        iy = top + ky * dilation[0]
        if iy < 0 or iy >= height:
            continue
        for kx in range(kernel[1]):
            ix = left + kx * dilation[1]
            if ix < 0 or ix >= width:
                continue
            inside += 1
            row = (ky * kernel[1] + kx) * words
            for c in range(words):
                word = x[image, iy, ix, c]
                for lane in range(LANES):
                    lanes[lane] += popcount_word(word ^ block[row + c, lane])
    return inside


@numba.njit(cache=True, nogil=True)
def binary_convolution(x, channels, weights, geometry, out):  # type: ignore[no-untyped-def]
    """acc = sum of ±1 products: x (n, h, w, words), weights (blocks, taps * words, LANES) -> out int32 (n, oh, ow, O).

    geometry: (kernel, stride, dilation, pads) as in `network.Window`.
    """
    kernel, stride, dilation, pads = geometry
    lanes = np.empty(LANES, dtype=np.int64)
    for block in range(weights.shape[0]):
        first = block * LANES
        count = min(LANES, out.shape[3] - first)
        for image in range(out.shape[0]):
            for oy in range(out.shape[1]):
                for ox in range(out.shape[2]):
                    top, left = oy * stride[0] - pads[0], ox * stride[1] - pads[1]
                    inside = _pixel(x, image, top, left, dilation, kernel, weights[block], lanes)
                    for lane in range(count):
                        out[image, oy, ox, first + lane] = inside * channels - 2 * lanes[lane]


@numba.njit(cache=True, nogil=True)
def binary_convolution_redrawn(  # type: ignore[no-untyped-def]
    x, channels, weights, geometry, out, samplers, places, flips, trial, writes, first_image, per_pixel, counts
):
    """The same with weights that are read anew for each image, or for each output pixel (`per_pixel`).

    samplers, places, flips: one per region of the weight tensor; counts[i] += flips drawn from region i.
    """
    kernel, stride, dilation, pads = geometry
    lanes = np.empty(LANES, dtype=np.int64)
    pixels = out.shape[1] * out.shape[2]
    for image in range(out.shape[0]):
        for pixel in range(pixels):
            oy, ox = pixel // out.shape[2], pixel % out.shape[2]
            if per_pixel or pixel == 0:
                read = (first_image + image) * (pixels if per_pixel else 1) + (pixel if per_pixel else 0)
                for i in range(len(samplers)):
                    counts[i] += draw_region(samplers[i], trial, writes[i], read, flips[i])
                    flip_packed(weights, places[i], flips[i])
            top, left = oy * stride[0] - pads[0], ox * stride[1] - pads[1]
            for block in range(weights.shape[0]):
                inside = _pixel(x, image, top, left, dilation, kernel, weights[block], lanes)
                for lane in range(min(LANES, out.shape[3] - block * LANES)):
                    out[image, oy, ox, block * LANES + lane] = inside * channels - 2 * lanes[lane]
            if per_pixel or pixel == pixels - 1:
                for i in range(len(samplers)):
                    flip_packed(weights, places[i], flips[i])


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
