"""Sums of integer products, accumulated exactly in int32.

Activations come centred (x - zero point) as int16 with their border, so that padding is 0, and with an even number of channels;
weights lie as [O/LANES][taps * C/2][LANES][2] int16, two channels side by side (`tile.py` says why).
"""

from __future__ import annotations

import numba
import numpy as np

from emulator.kernels.redraw import redraw_values, take_back_values
from emulator.kernels.rows import CHUNK, row_addresses
from emulator.kernels.tile import INTEGER_ROWS, LANES, integer_row, integer_tile


@numba.njit(cache=True, nogil=True)
def stretches(x, kernel, dilation):  # type: ignore[no-untyped-def]
    """Byte offsets of the stretches of a window, and the pairs of each: one per kernel row, or one per tap if dilated."""
    width, channels = x.shape[2], x.shape[3]
    if dilation[1] == 1:
        rows = np.arange(kernel[0]) * (dilation[0] * width * channels * 2)
        return rows.astype(np.int64), kernel[1] * channels // 2
    taps = np.empty(kernel[0] * kernel[1], dtype=np.int64)
    for tap in range(taps.size):
        taps[tap] = (tap // kernel[1] * dilation[0] * width + tap % kernel[1] * dilation[1]) * channels * 2
    return taps, channels // 2


@numba.njit(cache=True, nogil=True)
def _window_sum(x, image, oy, ox, geometry):  # type: ignore[no-untyped-def]
    """The sum of all activations of one window, for weights with a zero point."""
    kernel, stride, dilation, _ = geometry
    total = np.int32(0)
    for ky in range(kernel[0]):
        for kx in range(kernel[1]):
            for c in range(x.shape[3]):
                total += np.int32(x[image, oy * stride[0] + ky * dilation[0], ox * stride[1] + kx * dilation[1], c])
    return total


@numba.njit(cache=True, nogil=True)
def _rows(x, weights, zero_points, bias, geometry, first, last, out):  # type: ignore[no-untyped-def]
    """Output pixels first..last (counted over images, rows, columns) for all output channels."""
    kernel, stride, dilation, _ = geometry
    offsets, length = stretches(x, kernel, dilation)
    at, to = np.empty(CHUNK + INTEGER_ROWS, dtype=np.int64), np.empty(CHUNK + INTEGER_ROWS, dtype=np.int64)
    sums = np.empty((INTEGER_ROWS, LANES), dtype=np.int32)
    outputs, oh, ow = out.shape[3], out.shape[1], out.shape[2]
    flat, shifted = out.reshape(-1, out.shape[3]), np.any(zero_points != 0)
    for chunk in range(first, last, CHUNK):
        end = min(chunk + CHUNK, last)
        row_addresses(x, out, stride, 2, chunk, end, at, to)
        for block in range(weights.shape[0]):
            channel, here = block * LANES, weights.ctypes.data + block * weights.shape[1] * LANES * 4
            stop = min(channel + LANES, outputs)
            own_bias, own_zero = bias[channel:stop], zero_points[channel:stop]
            for row in range(chunk, end, INTEGER_ROWS):
                own = at.ctypes.data + (row - chunk) * 8
                if row + 1 == end:
                    integer_row(own, here, offsets.ctypes.data, offsets.size, length, sums.ctypes.data)
                else:
                    integer_tile(own, here, offsets.ctypes.data, offsets.size, length, sums.ctypes.data)
                for r in range(min(INTEGER_ROWS, end - row)):
                    line = flat[row + r, channel:stop]
                    for lane in range(line.size):
                        line[lane] = sums[r, lane] + own_bias[lane]
                    if shifted:
                        image, oy, ox = (row + r) // (oh * ow), (row + r) // ow % oh, (row + r) % ow
                        total = _window_sum(x, image, oy, ox, geometry)
                        for lane in range(line.size):
                            line[lane] -= own_zero[lane] * total


@numba.njit(cache=True, nogil=True)
def integer_convolution(x, weights, zero_points, bias, geometry, out):  # type: ignore[no-untyped-def]
    """acc[o] = sum x * (w[o] - zero_points[o]) + bias[o]: x int16 (n, h, w, C) with its border -> out int32 (n, oh, ow, O)."""
    _rows(x, weights, zero_points, bias, geometry, 0, out.shape[0] * out.shape[1] * out.shape[2], out)


@numba.njit(cache=True, nogil=True)
def integer_convolution_redrawn(  # type: ignore[no-untyped-def]
    x, weights, zero_points, bias, geometry, out, outer, inner, samplers, planes, bits, signed, flips,
    trial, writes, first_image, per_pixel, counts,
):  # fmt: skip
    """The same with weights that are read anew for each image, or for each output pixel (`per_pixel`).

    outer, inner: see `scatter.py`. samplers, planes, flips (2, words): one per region of the weight tensor; see `redraw.py`.
    counts[i] += flips drawn from region i.
    """
    pixels = out.shape[1] * out.shape[2]
    step = 1 if per_pixel else pixels
    for row in range(0, out.shape[0] * pixels, step):
        read = first_image * (pixels // step) + row // step
        for i in range(len(samplers)):
            counts[i] += redraw_values(
                samplers[i], trial, writes[i], read, weights, outer, inner, planes[i], bits, signed, flips[i]
            )
        _rows(x, weights, zero_points, bias, geometry, row, row + step, out)
    for i in range(len(samplers)):
        take_back_values(weights, outer, inner, planes[i], bits, signed, flips[i])


@numba.njit(cache=True, nogil=True)
def grouped_convolution(x, weights, zero_points, bias, groups, geometry, out):  # type: ignore[no-untyped-def]
    """Grouped and depthwise convolution: x int16 with its border, weights (O, taps * C / groups) row-major."""
    kernel, stride, dilation, _ = geometry
    channels, outputs = x.shape[3] // groups, out.shape[3] // groups
    for image in range(out.shape[0]):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                for o in range(out.shape[3]):
                    first = (o // outputs) * channels
                    acc = np.int32(bias[o])
                    for tap in range(kernel[0] * kernel[1]):
                        iy = oy * stride[0] + tap // kernel[1] * dilation[0]
                        ix = ox * stride[1] + tap % kernel[1] * dilation[1]
                        for c in range(channels):
                            weight = np.int32(weights[o, tap * channels + c]) - np.int32(zero_points[o])
                            acc += np.int32(x[image, iy, ix, first + c]) * weight
                    out[image, oy, ox, o] = acc
