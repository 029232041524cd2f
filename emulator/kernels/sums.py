"""Convolutions to exact int32 sums: tiles of them, with what border, zero points and bias come to.

    acc[o] = factor * sum + offsets[place][o] - zero_points[o] * window_sums[pixel]

The tile sums what is stored. Bits count mismatches, so the factor is -2; a tap in the border reads -1 and mismatches the +1 weights
of its channels. Bytes of activations are stored value + shift, and the border holds the code of 0 (`centre`), which adds `centre`
times the weights' sum. All that is the same for pixels that miss the same taps of their window, that have the same *place*, and is
worked out for the weights as they are: faults are in them.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.extending import overload

from emulator.kernels.forms import LANES, Bits
from emulator.kernels.redraw import redraw, take_back
from emulator.kernels.rows import CHUNK, bytes_met, new_sums, row_addresses, stretches
from emulator.kernels.tile import sum_row, sum_tile, tile_rows


@numba.njit(cache=True, nogil=True)
def sums_by_tap(weights, taps):  # type: ignore[no-untyped-def]
    """The weights of every output channel summed, tap by tap: (taps, blocks * LANES). Bits: how many are +1."""
    blocks, words = weights.values.shape[0], weights.values.shape[1] // taps
    x = np.full(words * bytes_met(weights), is_integer(weights), dtype=np.uint8)
    at_x, zero, sums = np.empty(1, np.int64), np.zeros(1, np.int64), new_sums(weights, taps, blocks * LANES)
    step = weights.values.strides[1]
    for tap in range(taps):
        for block in range(blocks):
            at_x[0] = x.ctypes.data  # here, or the compiler would free x before the tile reads it
            here = weights.values.ctypes.data + block * weights.values.strides[0] + tap * words * step
            to = sums.ctypes.data + (tap * blocks + block) * LANES * sums.itemsize
            sum_row(weights, at_x.ctypes.data, here, zero.ctypes.data, 1, words, to)
    return sums


@numba.njit(cache=True, nogil=True)
def fill_offsets(weights, groups, frame, offsets):  # type: ignore[no-untyped-def]
    """What every sum needs besides itself, and besides weights' zero points times window sums: int32 (places, blocks * LANES)."""
    places, taps = frame.places.shape
    outputs, group_lanes = frame.bias.size // groups, weights.values.shape[0] // groups * LANES
    bits = not is_integer(weights)
    part = np.zeros((1, 1), np.int64)
    if bits and not frame.places.all():
        part = sums_by_tap(weights, taps).astype(np.int64)
    elif not bits and frame.centre != 0:
        part = sums_by_tap(weights, 1).astype(np.int64)
    offsets[:] = 0
    for place in range(places):
        inside = np.sum(frame.places[place])
        for o in range(frame.bias.size):
            lane = o // outputs * group_lanes + o % outputs
            total = np.int64(frame.bias[o])
            if bits:
                total += inside * frame.inputs
            elif frame.centre != 0:
                total += frame.centre * (np.int64(frame.zero_points[o]) * taps * frame.inputs - part[0, lane])
            offsets[place, lane] = total
        if bits and inside < taps:
            for tap in range(taps):
                if not frame.places[place, tap]:
                    for lane in range(part.shape[1]):
                        offsets[place, lane] += 2 * part[tap, lane]


@numba.njit(cache=True, nogil=True)
def _window_sums(x, groups, geometry, out):  # type: ignore[no-untyped-def]
    """Activations of every window summed, group by group: out int32 (groups, n * oh * ow)."""
    kernel, stride, dilation, _ = geometry
    images, channels = x.shape[0], x.shape[3] // groups
    pixels = np.zeros((groups, images, x.shape[1], x.shape[2]), dtype=np.int32)
    for image in range(images):
        for y in range(x.shape[1]):
            for column in range(x.shape[2]):
                for group in range(groups):
                    total = np.int32(0)
                    for c in range(channels):
                        total += np.int32(x[image, y, column, group * channels + c])
                    pixels[group, image, y, column] = total
    oh, ow = out.shape[2], out.shape[3]
    for group in range(groups):
        for image in range(images):
            for oy in range(oh):
                for ox in range(ow):
                    total = np.int32(0)
                    for tap in range(kernel[0] * kernel[1]):
                        iy = oy * stride[0] + tap // kernel[1] * dilation[0]
                        total += pixels[group, image, iy, ox * stride[1] + tap % kernel[1] * dilation[1]]
                    out[group, image, oy, ox] = total


@numba.njit(cache=True, nogil=True)
def _walk(x, weights, groups, frame, geometry, offsets, first, last, out):  # type: ignore[no-untyped-def]
    """Output pixels first..last (counted over images, rows, columns) for all output channels."""
    starts, length = stretches(x, weights, geometry, groups)
    tall = tile_rows(weights, False)
    windows, places = np.empty((2, CHUNK + tall), dtype=np.int64)
    sums, blocks = new_sums(weights, tall, LANES), weights.values.shape[0] // groups
    outputs, flat, factor = out.shape[3] // groups, out.reshape(-1, out.shape[3]), np.int32(1 if is_integer(weights) else -2)
    shifted = np.any(frame.zero_points != 0)
    window_sums = np.zeros((groups, *out.shape[:3]) if shifted else (1, 1, 1, 1), dtype=np.int32)
    if shifted:
        _window_sums(x, groups, geometry, window_sums)
    for chunk in range(first, last, CHUNK):
        end = min(chunk + CHUNK, last)
        row_addresses(x, frame.rows, chunk, end, 1, windows, places)
        for block in range(weights.values.shape[0]):
            group, inner = divmod(block, blocks)
            channel, width = group * outputs + inner * LANES, min(LANES, outputs - inner * LANES)
            here = weights.values.ctypes.data + block * weights.values.strides[0]
            for row in range(chunk, end, tall):
                own = windows.ctypes.data + (row - chunk) * 8
                if row + 1 == end:
                    sum_row(weights, own, here, starts.ctypes.data, starts.size, length, sums.ctypes.data)
                else:
                    sum_tile(weights, own, here, starts.ctypes.data, starts.size, length, sums.ctypes.data)
                for r in range(min(tall, end - row)):
                    line, offset = flat[row + r, channel : channel + width], offsets[places[row - chunk + r], block * LANES :]
                    for lane in range(width):
                        line[lane] = offset[lane] + factor * np.int32(sums[r, lane])
                    if shifted:
                        total = window_sums.reshape(groups, -1)[group, row + r]
                        for lane in range(width):
                            line[lane] -= frame.zero_points[channel + lane] * total
            if inner + 1 == blocks:
                windows += x.shape[3] // groups * x.itemsize


@numba.njit(cache=True, nogil=True)
def new_offsets(weights, frame):  # type: ignore[no-untyped-def]
    """Room for offsets."""
    return np.empty((frame.places.shape[0], weights.values.shape[0] * LANES), dtype=np.int32)


@numba.njit(cache=True, nogil=True)
def offsets(weights, groups, frame):  # type: ignore[no-untyped-def]
    """See `fill_offsets`."""
    made = new_offsets(weights, frame)
    fill_offsets(weights, groups, frame, made)
    return made


@numba.njit(cache=True, nogil=True)
def convolution(x, weights, groups, frame, offsets, geometry, out):  # type: ignore[no-untyped-def]
    """acc = sum of products + bias: x (n, h, w, C) with its border -> out int32 (n, oh, ow, O).

    weights: one of `tile.FORMS`, group behind group. offsets: for the weights as they are.
    geometry: (kernel, stride, dilation, pads) as in `network.Window`.
    """
    _walk(x, weights, groups, frame, geometry, offsets, 0, out.shape[0] * out.shape[1] * out.shape[2], out)


@numba.njit(cache=True, nogil=True)
def convolution_redrawn(  # type: ignore[no-untyped-def]
    x, weights, frame, geometry, out, order, samplers, masks, flips, trial, writes, first_image, per_pixel, counts
):
    """The same with weights that are read anew for each image, or for each output pixel (`per_pixel`).

    order: see `scatter.py`. samplers, masks, flips (2, words): one per region of the weight tensor; see `redraw.py`.
    counts[i] += flips drawn from region i.
    """
    pixels = out.shape[1] * out.shape[2]
    step = 1 if per_pixel else pixels
    offsets = new_offsets(weights, frame)
    for row in range(0, out.shape[0] * pixels, step):
        read = first_image * (pixels // step) + row // step
        for i in range(len(samplers)):
            counts[i] += redraw(samplers[i], trial, writes[i], read, weights, order, masks[i], flips[i])
        fill_offsets(weights, 1, frame, offsets)
        _walk(x, weights, 1, frame, geometry, offsets, row, row + step, out)
    for i in range(len(samplers)):
        take_back(weights, order, masks[i], flips[i])


def is_integer(weights: Any) -> bool:
    """Whether sums are of products, not counts of mismatches."""
    return not isinstance(weights, Bits)


@overload(is_integer)  # type: ignore[untyped-decorator]
def _is_integer(weights):  # type: ignore[no-untyped-def]
    integer = weights.instance_class is not Bits
    return lambda weights: integer
