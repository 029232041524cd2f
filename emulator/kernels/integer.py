"""Sums of integer products, accumulated exactly in int32.

Activations come centred (x - zero point) as int16 or int32, so that padding is 0; weights as int16 in [O/LANES][taps * C][LANES].
"""

from __future__ import annotations

import numba
import numpy as np

from emulator.kernels.scatter import LANES, flip_values
from memmodels.sampler import draw_region


@numba.njit(cache=True, nogil=True)
def _pixel(x, image, top, left, dilation, kernel, block, lanes):  # type: ignore[no-untyped-def]
    """lanes[:] = sums of one output pixel against one block of weights; returns the sum of the activations it saw."""
    height, width, channels = x.shape[1], x.shape[2], x.shape[3]
    lanes[:] = 0
    total = np.int32(0)
    for ky in range(kernel[0]):
        iy = top + ky * dilation[0]
        if iy < 0 or iy >= height:
            continue
        for kx in range(kernel[1]):
            ix = left + kx * dilation[1]
            if ix < 0 or ix >= width:
                continue
            row = (ky * kernel[1] + kx) * channels
            for c in range(channels):
                value = np.int32(x[image, iy, ix, c])
                total += value
                for lane in range(LANES):
                    lanes[lane] += value * np.int32(block[row + c, lane])
    return total


@numba.njit(cache=True, nogil=True)
def integer_convolution(x, weights, zero_points, bias, geometry, out):  # type: ignore[no-untyped-def]
    """acc[o] = sum x * (w[o] - zero_points[o]) + bias[o]: x (n, h, w, C) -> out int32 (n, oh, ow, O)."""
    kernel, stride, dilation, pads = geometry
    lanes = np.empty(LANES, dtype=np.int32)
    for block in range(weights.shape[0]):
        first = block * LANES
        for image in range(out.shape[0]):
            for oy in range(out.shape[1]):
                for ox in range(out.shape[2]):
                    top, left = oy * stride[0] - pads[0], ox * stride[1] - pads[1]
                    total = _pixel(x, image, top, left, dilation, kernel, weights[block], lanes)
                    for lane in range(min(LANES, out.shape[3] - first)):
                        o = first + lane
                        out[image, oy, ox, o] = lanes[lane] - zero_points[o] * total + bias[o]


@numba.njit(cache=True, nogil=True)
def integer_convolution_redrawn(  # type: ignore[no-untyped-def]
    x,
    weights,
    zero_points,
    bias,
    geometry,
    out,
    samplers,
    places,
    planes,
    bits,
    signed,
    flips,
    trial,
    writes,
    first_image,
    per_pixel,
    counts,
):
    """The same with weights that are read anew for each image, or for each output pixel (`per_pixel`).

    samplers, places, planes, flips: one per region of the weight tensor; counts[i] += flips drawn from region i.
    """
    kernel, stride, dilation, pads = geometry
    lanes = np.empty(LANES, dtype=np.int32)
    pixels = out.shape[1] * out.shape[2]
    for image in range(out.shape[0]):
        for pixel in range(pixels):
            oy, ox = pixel // out.shape[2], pixel % out.shape[2]
            if per_pixel or pixel == 0:
                read = (first_image + image) * (pixels if per_pixel else 1) + (pixel if per_pixel else 0)
                for i in range(len(samplers)):
                    counts[i] += draw_region(samplers[i], trial, writes[i], read, flips[i])
                    flip_values(weights, places[i], planes[i], bits, signed, flips[i])
            top, left = oy * stride[0] - pads[0], ox * stride[1] - pads[1]
            for block in range(weights.shape[0]):
                total = _pixel(x, image, top, left, dilation, kernel, weights[block], lanes)
                for lane in range(min(LANES, out.shape[3] - block * LANES)):
                    o = block * LANES + lane
                    out[image, oy, ox, o] = lanes[lane] - zero_points[o] * total + bias[o]
            if per_pixel or pixel == pixels - 1:
                for i in range(len(samplers)):
                    flip_values(weights, places[i], planes[i], bits, signed, flips[i])


@numba.njit(cache=True, nogil=True)
def grouped_convolution(x, weights, zero_points, bias, groups, geometry, out):  # type: ignore[no-untyped-def]
    """Grouped and depthwise convolution: weights int16 (O, taps * C / groups), row-major; the rest as above."""
    kernel, stride, dilation, pads = geometry
    height, width, channels = x.shape[1], x.shape[2], x.shape[3] // groups
    outputs = out.shape[3] // groups
    for image in range(out.shape[0]):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                top, left = oy * stride[0] - pads[0], ox * stride[1] - pads[1]
                for o in range(out.shape[3]):
                    first = (o // outputs) * channels
                    acc = np.int32(bias[o])
                    for ky in range(kernel[0]):
                        iy = top + ky * dilation[0]
                        for kx in range(kernel[1]):
                            ix = left + kx * dilation[1]
                            if iy < 0 or iy >= height or ix < 0 or ix >= width:
                                continue
                            row = (ky * kernel[1] + kx) * channels
                            for c in range(channels):
                                weight = np.int32(weights[o, row + c]) - np.int32(zero_points[o])
                                acc += np.int32(x[image, iy, ix, first + c]) * weight
                    out[image, oy, ox, o] = acc
