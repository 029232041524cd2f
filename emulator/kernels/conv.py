"""Convolutions to exact int32 sums, or on to codes: tiles of them, with what border, zero points and bias come to.

    acc[o] = factor * sum + offsets[place][o] - zero_points[o] * window_sums[pixel]

The tile sums what is stored and adds the offsets; where weights have no zero points, it can round, too. Signs count mismatches,
so the factor is -2; a tap in the border reads -1 and mismatches the +1 weights of its channels. Bytes of activations are stored
value + shift, and the border holds the code of 0 (`centre`), which adds `centre` times the weights' sum. All that is the same for
pixels that miss the same taps of their window, that have the same *place*, and is worked out for the weights as they are: faults
are in them.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic, overload

from weakcell.emulator.kernels.carry_save import FEW, chain_rows, chained_block, chained_rows, is_chained, new_chains, words_of
from weakcell.emulator.kernels.fault_reads import new_scratch, read_region
from weakcell.emulator.kernels.gemv import gemv_values
from weakcell.emulator.kernels.indirection import CHUNK, bytes_met, contiguous_runs, is_depthwise, row_addresses
from weakcell.emulator.kernels.microkernel import row_by_row, tile_rows, value_tile
from weakcell.emulator.kernels.weight_layouts import LANES, PackedInt1


@intrinsic  # type: ignore[untyped-decorator]
def _popcount(typingctx, word):  # type: ignore[no-untyped-def]
    """Set bits (uint64) of a uint64."""
    return types.uint64(types.uint64), lambda context, builder, signature, args: builder.ctpop(args[0])


def _sum_taps(weights: Any, taps: int, sums: Any) -> None:
    """`sums_by_tap`, into sums int64 (taps, blocks * LANES), which are 0."""
    raise NotImplementedError("a kernel calls this")


@overload(_sum_taps)  # type: ignore[untyped-decorator]
def _sum_taps_of_form(weights, taps, sums):  # type: ignore[no-untyped-def]
    def ones(weights, taps, sums):  # type: ignore[no-untyped-def]
        blocks, words = weights.values.shape[0], weights.values.shape[1] // taps
        for block in range(blocks):
            for word in range(taps * words):
                own, to = weights.values[block, word], sums[word // words, block * LANES : (block + 1) * LANES]
                for lane in range(LANES):
                    to[lane] += np.int64(_popcount(own[lane]))

    def products(weights, taps, sums):  # type: ignore[no-untyped-def]
        blocks, words = weights.values.shape[0], weights.values.shape[1] // taps
        x, base = np.ones(max(words * bytes_met(weights), LANES * blocks), np.uint8), np.zeros(blocks * LANES, np.int32)
        zeros, segments, own = np.zeros(4 * words, np.int64), 4 * words if is_depthwise(weights) else 1, np.empty_like(base)
        for tap in range(taps):
            here = weights.values.ctypes.data + tap * words * weights.values.strides[1]
            gemv_values(weights, x.ctypes.data, here, zeros[:segments], words, base.ctypes.data, 0, 0, own)
            for lane in range(own.size):  # as one assignment, it would need text for an error, and so Numba at every start
                sums[tap, lane] = own[lane]

    return ones if weights.instance_class is PackedInt1 else products


@numba.njit(cache=True, nogil=True)
def sums_by_tap(weights, taps):  # type: ignore[no-untyped-def]
    """The weights of every output channel summed, tap by tap: int64 (taps, blocks * LANES). PackedInt1: how many are +1."""
    sums = np.zeros((taps, weights.values.shape[0] * LANES), np.int64)
    _sum_taps(weights, taps, sums)
    return sums


@numba.njit(cache=True, nogil=True)
def fill_offsets(weights, groups, context, offsets):  # type: ignore[no-untyped-def]
    """What every sum needs besides itself, and besides weights' zero points times window sums: int32 (places, blocks * LANES)."""
    places, taps = context.border_patterns.shape
    groups = 1 if is_depthwise(weights) else groups
    outputs, group_lanes = context.bias.size // groups, weights.values.shape[0] // groups * LANES
    bits = not is_integer(weights)
    part = np.zeros((1, 1), np.int64)
    if bits and not context.border_patterns.all():
        part = sums_by_tap(weights, taps)
    elif not bits and context.input_zero_point != 0:
        part = sums_by_tap(weights, 1)
    offsets[:] = 0
    for place in range(places):
        inside = np.sum(context.border_patterns[place])
        for group in range(groups):
            first, lanes = group * outputs, group * group_lanes
            for i in range(outputs):
                total = np.int64(context.bias[first + i])
                if bits:
                    total += inside * context.inputs_per_tap
                elif context.input_zero_point != 0:
                    zero = np.int64(context.weight_zero_points[first + i]) * taps * context.inputs_per_tap
                    total += context.input_zero_point * (zero - part[0, lanes + i])
                offsets[place, lanes + i] = total
        if bits and inside < taps:
            for tap in range(taps):
                if not context.border_patterns[place, tap]:
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
def _walk(x, weights, groups, context, geometry, offsets, rounding, how, first, last, out):  # type: ignore[no-untyped-def]
    """Output pixels first..last (counted over images, rows, columns) for all output channels.

    A block of fewer channels than LANES comes first and writes beyond its pixel, over what is written later: the next pixels, one
    by one, and their other blocks. Where that does not hold (behind the last pixel, between groups, in tiles of several passes) it
    writes to a spare place.
    """
    starts, length = contiguous_runs(x, weights, geometry, groups)
    if last - first == 1 and groups == 1:
        _walk_alone(x, weights, starts, length, context, offsets, rounding, how, first, out)
        return
    chained = is_chained(weights) and last - first >= FEW
    rows = chained_rows(weights, last - first) if chained else min(CHUNK, max(last - first, 1))
    tall, step, blocks = tile_rows(weights, False), out.shape[3] * out.itemsize, weights.values.shape[0] // groups
    windows, bases, whole, spares = np.empty((4, rows + tall), dtype=np.int64)
    within = words_of(weights, starts, length)
    chains, chain = new_chains(weights, windows.size if chained else 0)
    spare, outputs, flat = np.empty((windows.size, LANES), out.dtype), out.shape[3] // groups, out.reshape(-1, out.shape[3])
    inputs = x.shape[3] // groups * x.itemsize
    for r in range(spares.size):
        spares[r] = spare.ctypes.data + r * LANES * spare.itemsize
    for chunk in range(first, last, rows):
        end = min(chunk + rows, last)
        row_addresses(x, context.row_table, chunk, end, 1, windows, bases)
        if chained:
            chain_rows(windows, within, chains)
        for r in range(bases.size):
            bases[r] = np.int64(offsets.ctypes.data) + bases[r] * offsets.strides[0]
            whole[r] = np.int64(out.ctypes.data) + min(chunk + r, end - 1) * step
        tiled = end - chunk
        if not chained:
            tiled -= tiled if is_chained(weights) else tiled % tall == 1
        before, at_channel = 0, 0
        for k in range(weights.values.shape[0]):
            group, inner = k // blocks, (k + blocks - 1) % blocks
            block, channel, width = group * blocks + inner, group * outputs + inner * LANES, min(LANES, outputs - inner * LANES)
            bases += (block - before) * LANES * offsets.itemsize
            whole += (channel - at_channel) * out.itemsize
            windows += (block - before) * LANES if is_depthwise(weights) else (group - before // blocks) * inputs
            before, at_channel = block, channel
            ordered = groups == 1 and row_by_row(weights)
            beside = width < LANES and not (ordered and (flat.shape[0] - end) * out.shape[3] >= LANES)
            outs = spares if beside else whole
            here, words = np.int64(weights.values.ctypes.data) + block * weights.values.strides[0], length
            if chained:
                here, words = chained_block(weights, block, chain), chain.shape[0]
            own = rounding.ctypes.data + block * rounding.strides[0]
            at_windows, at_bases, at_outs, at_starts = windows.ctypes.data, bases.ctypes.data, outs.ctypes.data, starts.ctypes.data
            for r in range(0, tiled * 8, tall * 8):
                w, b, o = at_windows + r, at_bases + r, at_outs + r
                value_tile(weights, out, w, here, at_starts, starts.size, words, b, own, how, o)
            if beside:
                for r in range(tiled):
                    for lane in range(width):
                        flat[chunk + r, channel + lane] = spare[r, lane]
            for r in range(tiled, end - chunk):
                to = flat[chunk + r, channel : channel + width]
                gemv_values(weights, windows[r], here, starts, length, bases[r], own, how, to)


@numba.njit(cache=True, nogil=True)
def _walk_alone(x, weights, starts, length, context, offsets, rounding, how, pixel, out):  # type: ignore[no-untyped-def]
    """The same for one pixel."""
    window, place = np.empty((2, 1), dtype=np.int64)
    row_addresses(x, context.row_table, pixel, pixel + 1, 1, window, place)
    here, at_rounding = np.int64(weights.values.ctypes.data), np.int64(rounding.ctypes.data)
    base, to = offsets.ctypes.data + place[0] * offsets.strides[0], out.reshape(-1, out.shape[3])[pixel]
    gemv_values(weights, window[0], here, starts, length, base, at_rounding, how, to)


@numba.njit(cache=True, nogil=True)
def subtract_window_sums(x, out, groups, context, geometry):  # type: ignore[no-untyped-def]
    """Take off sums, int32 (n, oh, ow, O), what weights' zero points come to: apart, as few weights have them and LLVM is slow."""
    window_sums, outputs = np.zeros((groups, *out.shape[:3]), dtype=np.int32), out.shape[3] // groups
    _window_sums(x, groups, geometry, window_sums)
    totals, flat = window_sums.reshape(groups, -1), out.reshape(-1, out.shape[3])
    for row in range(flat.shape[0]):
        for o in range(out.shape[3]):
            flat[row, o] -= context.weight_zero_points[o] * totals[o // outputs, row]


@numba.njit(cache=True, nogil=True)
def new_offsets(weights, context):  # type: ignore[no-untyped-def]
    """Room for offsets."""
    return np.empty((context.border_patterns.shape[0], weights.values.shape[0] * LANES), dtype=np.int32)


@numba.njit(cache=True, nogil=True)
def offsets(weights, groups, context):  # type: ignore[no-untyped-def]
    """See `fill_offsets`."""
    made = new_offsets(weights, context)
    fill_offsets(weights, groups, context, made)
    return made


@numba.njit(cache=True, nogil=True)
def convolution(x, out, weights, groups, context, offsets, geometry, rounding, how):  # type: ignore[no-untyped-def]
    """acc = sum of products + bias: x (n, h, w, C) with its border -> out (n, oh, ow, O), int32, or bytes to round to.

    What zero points of weights come to is for `shift` to take off. weights: one of `tile.LAYOUTS`, group behind group. offsets: for
    the weights as they are. geometry: (kernel, stride, dilation, pads) as in `network.Window`. rounding float32 (blocks, 6, LANES),
    how: see `endings.store_codes`; empty for int32. Bytes are only for weights without zero points.
    """
    apart = 1 if is_depthwise(weights) else groups
    _walk(x, weights, apart, context, geometry, offsets, rounding, how, 0, out.shape[0] * out.shape[1] * out.shape[2], out)


@numba.njit(cache=True, nogil=True)
def convolution_resampled(  # type: ignore[no-untyped-def]
    x, weights, context, geometry, rounding, how, out, sources, homes, trial, first_image, per_pixel, counts
):
    """The same with weights that are read anew for each image, or for each output pixel (`per_pixel`).

    sources, homes: tables of the weight tensor's regions; see `redraw.py`. counts[i] += flips drawn from region i.
    """
    pixels = out.shape[1] * out.shape[2]
    step = 1 if per_pixel else pixels
    offsets, scratch = new_offsets(weights, context), new_scratch(homes)
    for row in range(0, out.shape[0] * pixels, step):
        read = first_image * (pixels // step) + row // step
        for i in range(homes.size):
            counts[i] += read_region(sources[i], homes[i], trial, read, scratch)
        fill_offsets(weights, 1, context, offsets)
        _walk(x, weights, 1, context, geometry, offsets, rounding, how, row, row + step, out)


def is_integer(weights: Any) -> bool:
    """Whether sums are of products, not counts of mismatches."""
    return not isinstance(weights, PackedInt1)


@overload(is_integer)  # type: ignore[untyped-decorator]
def _is_integer(weights):  # type: ignore[no-untyped-def]
    integer = weights.instance_class is not PackedInt1
    return lambda weights: integer
