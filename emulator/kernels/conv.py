"""Convolutions to exact int32 sums, or on to rounded bytes.

    acc[o] = factor * sum over k of x[k] w[k][o] + offsets[pattern][o] - weight_zero_points[o] * window_sum

The micro-kernel multiplies stored integers and adds the offsets. PackedInt1 counts mismatches, so its factor is -2. A tap in the
border reads -1, which mismatches the +1 weights of its channels. Activation bytes are stored as value + input_zero_point, and the
border holds input_zero_point.

Output pixels whose windows overlap the border in the same way share one row of offsets: their *border pattern*. Offsets are
computed from the current weights, which may contain faults.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import overload

from weakcell.emulator.kernels.arguments import Epilogue, Runs, TileOperands, ValueEpilogue
from weakcell.emulator.kernels.carry_save import (
    MIN_CHAINED_ROWS,
    build_panel_chain,
    build_row_chains,
    chained_rows_per_chunk,
    empty_chains,
    word_offsets,
)
from weakcell.emulator.kernels.fault_reads import new_read_buffers, read_weights
from weakcell.emulator.kernels.gemv import gemv_values
from weakcell.emulator.kernels.indirection import ROWS_PER_CHUNK, contiguous_runs, row_addresses
from weakcell.emulator.kernels.isa import activation_bytes, is_binary, is_depthwise, popcount
from weakcell.emulator.kernels.matrix_tiles import HAS_TILES, TILED_ROWS, finish_values, multiply_tiles, release_tiles, set_up_tiles
from weakcell.emulator.kernels.microkernel import tile_rows, value_microkernel, writes_rows_in_order
from weakcell.emulator.kernels.tile_packing import (
    fills_tiles,
    later_rows,
    new_tile_buffers,
    place_rows,
    tile_operands,
    tiled_rows_per_chunk,
)
from weakcell.emulator.kernels.weight_layouts import LANES, PackedInt1
from weakcell.memmodels.compilation import compiled
from weakcell.memmodels.sampling.pointers import data_ptr

# --- offsets -----------------------------------------------------------------------------------------------------------------


def _add_weights_by_tap(weights: Any, taps: int, sums: Any) -> None:
    """Add the weights of every output channel, tap by tap, to `sums`.

    sums: int64 (taps, panels * LANES), see `add_weights_by_tap`.
    """
    raise NotImplementedError("a kernel calls this")


@overload(_add_weights_by_tap)  # type: ignore[untyped-decorator]
def _add_weights_of_layout(weights, taps, sums):  # type: ignore[no-untyped-def]
    def count_ones(weights, taps, sums):  # type: ignore[no-untyped-def]
        panels, words = weights.values.shape[0], weights.values.shape[1] // taps
        for panel in range(panels):
            for word in range(taps * words):
                values, totals = weights.values[panel, word], sums[word // words, panel * LANES : (panel + 1) * LANES]
                for lane in range(LANES):
                    totals[lane] += np.int64(popcount(values[lane]))

    def multiply_by_ones(weights, taps, sums):  # type: ignore[no-untyped-def]
        panels, words = weights.values.shape[0], weights.values.shape[1] // taps
        ones = np.ones(max(words * activation_bytes(weights), LANES * panels), np.uint8)
        init, totals = np.zeros(panels * LANES, np.int32), np.empty(panels * LANES, np.int32)
        segments = 4 * words if is_depthwise(weights) else 1
        runs, epilogue = Runs(np.zeros(segments, np.int64), words), ValueEpilogue(data_ptr(init), 0, 0, 0)
        for tap in range(taps):
            weights_ptr = data_ptr(weights.values) + tap * words * weights.values.strides[1]
            gemv_values(weights, totals, runs, data_ptr(ones), weights_ptr, epilogue)
            for lane in range(totals.size):  # a single assignment would need an error text, and so Numba at every start
                sums[tap, lane] = totals[lane]

    return count_ones if weights.instance_class is PackedInt1 else multiply_by_ones


@compiled
def add_weights_by_tap(weights, taps, sums):  # type: ignore[no-untyped-def]
    """Add the stored weights of every output channel, tap by tap. PackedInt1: count the +1 weights.

    sums: int64 (taps, panels * LANES), changed in place.
    """
    _add_weights_by_tap(weights, taps, sums)


@compiled
def sum_weights(weights, context):  # type: ignore[no-untyped-def]
    """Return the sums of weights that `fill_offsets` needs: zeros if it needs none.

    int64 (taps, panels * LANES) for PackedInt1, else (1, panels * LANES).
    """
    sums = np.zeros((context.border_patterns.shape[1] if is_binary(weights) else 1, weights.values.shape[0] * LANES), np.int64)
    if context.input_zero_point != 0 or (is_binary(weights) and not context.border_patterns.all()):
        add_weights_by_tap(weights, sums.shape[0], sums)
    return sums


@compiled
def fill_offsets(binary, groups, context, weight_sums, offsets):  # type: ignore[no-untyped-def]
    """Compute the constant that is added to every accumulator.

    It contains bias, input zero point and border correction:

    Products:      bias[o] + zx (taps * inputs_per_tap * zw[o] - sum of weights[o])
    PackedInt1:    bias[o] + inputs inside the image + 2 * (+1 weights of the taps in the border)

    Weight zero points times window sums are not in it: see `subtract_window_sums`. No argument depends on the weight layout, so
    that one machine code serves all of them.

    Args:
        binary: Whether weights are PackedInt1.
        groups: Groups of panels: 1 for depthwise weights.
        context: ConvContext.
        weight_sums: int64, from `sum_weights`.
        offsets: int32 (patterns, panels * LANES), written.
    """
    patterns, taps = context.border_patterns.shape
    outputs, group_lanes = context.bias.size // groups, offsets.shape[1] // groups
    offsets[:] = 0
    for pattern in range(patterns):
        inside = np.sum(context.border_patterns[pattern])
        for group in range(groups):
            first, lanes = group * outputs, group * group_lanes
            for i in range(outputs):
                total = np.int64(context.bias[first + i])
                if binary:
                    total += inside * context.inputs_per_tap
                elif context.input_zero_point != 0:
                    zero = np.int64(context.weight_zero_points[first + i]) * taps * context.inputs_per_tap
                    total += context.input_zero_point * (zero - weight_sums[0, lanes + i])
                offsets[pattern, lanes + i] = total
        if binary and inside < taps:
            for tap in range(taps):
                if not context.border_patterns[pattern, tap]:
                    for lane in range(weight_sums.shape[1]):
                        offsets[pattern, lane] += 2 * weight_sums[tap, lane]


@compiled
def empty_offsets(weights, context):  # type: ignore[no-untyped-def]
    """Return an uninitialized array of offsets, int32 (patterns, panels * LANES)."""
    return np.empty((context.border_patterns.shape[0], weights.values.shape[0] * LANES), dtype=np.int32)


# --- weight zero points ------------------------------------------------------------------------------------------------------


@compiled
def _sum_windows(x, groups, geometry, out):  # type: ignore[no-untyped-def]
    """Sum the activations of every window, group by group.

    out: int32 (groups, n, oh, ow), written.
    """
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
    for group in range(groups):
        for image in range(images):
            for oy in range(out.shape[2]):
                for ox in range(out.shape[3]):
                    total = np.int32(0)
                    for tap in range(kernel[0] * kernel[1]):
                        iy = oy * stride[0] + tap // kernel[1] * dilation[0]
                        total += pixels[group, image, iy, ox * stride[1] + tap % kernel[1] * dilation[1]]
                    out[group, image, oy, ox] = total


@compiled
def subtract_window_sums(x, out, context):  # type: ignore[no-untyped-def]
    """Subtract weight zero points times window sums from the sums.

    out[..., o] -= weight_zero_points[o] * window_sum

    Kept out of the micro-kernel: few models have weight zero points, and it lengthens compilation.

    Args:
        x: activations (n, h, w, C) with their padding.
        out: int32 (n, oh, ow, O), changed in place.
        context: ConvContext.
    """
    groups, outputs = context.groups, out.shape[3] // context.groups
    window_sums = np.zeros((groups, *out.shape[:3]), dtype=np.int32)
    _sum_windows(x, groups, context.geometry, window_sums)
    totals, flat = window_sums.reshape(groups, -1), out.reshape(-1, out.shape[3])
    for row in range(flat.shape[0]):
        for o in range(out.shape[3]):
            flat[row, o] -= context.weight_zero_points[o] * totals[o // outputs, row]


# --- convolution -------------------------------------------------------------------------------------------------------------


@compiled
def _run_tiles(x, out, weights, context, epilogue, rows):  # type: ignore[no-untyped-def]
    """Compute all output channels of a range of output pixels.

    Pixels first … stop - 1 are counted over images, rows and columns.

    The partial micropanel of a group is processed first. Its unused lanes overwrite memory behind its pixel, which the later
    micropanels and pixels rewrite. Where nothing rewrites it (behind the last pixel, between groups, in micro-kernels of several
    passes) the partial micropanel writes to scratch memory instead.

    Args:
        rows: (first, stop); the others as in `convolution`.
    """
    first, stop = rows
    groups = 1 if is_depthwise(weights) else context.groups
    runs = contiguous_runs(x, weights, context.geometry, groups)
    offsets, rounding, flat = epilogue.offsets, epilogue.rounding, out.reshape(-1, out.shape[3])
    if stop - first == 1 and groups == 1:
        window_ptr, pattern = np.empty((2, 1), dtype=np.int64)
        row_addresses(x, context.row_table, rows, 1, window_ptr, pattern)
        init_ptr = data_ptr(offsets) + pattern[0] * offsets.strides[0]
        ending = ValueEpilogue(init_ptr, data_ptr(rounding.constants), rounding.flags, 0)
        gemv_values(weights, flat[first], runs, window_ptr[0], data_ptr(weights.values), ending)
        return
    uses_tiles = HAS_TILES and fills_tiles(weights, runs, stop - first, groups)
    chained = is_binary(weights) and stop - first >= MIN_CHAINED_ROWS and not uses_tiles
    rows_per_chunk = chained_rows_per_chunk(weights, stop - first) if chained else min(ROWS_PER_CHUNK, max(stop - first, 1))
    if HAS_TILES and uses_tiles:
        rows_per_chunk = tiled_rows_per_chunk(weights, runs, stop - first)
        buffers = new_tile_buffers(weights, runs, rows_per_chunk)
        set_up_tiles()
    mr, pixel_bytes, group_panels = tile_rows(weights, False), out.shape[3] * out.itemsize, weights.values.shape[0] // groups
    input_ptrs, init_ptrs, output_ptrs, scratch_ptrs = np.empty((4, rows_per_chunk + mr), dtype=np.int64)
    chain_offsets = word_offsets(weights, runs)
    row_chains, panel_chain = empty_chains(weights, input_ptrs.size if chained else 0)
    outputs, group_inputs = out.shape[3] // groups, x.shape[3] // groups * x.itemsize
    scratch = np.empty((input_ptrs.size, LANES), out.dtype)
    for r in range(scratch_ptrs.size):
        scratch_ptrs[r] = data_ptr(scratch) + r * LANES * scratch.itemsize
    for chunk in range(first, stop, rows_per_chunk):
        end = min(chunk + rows_per_chunk, stop)
        row_addresses(x, context.row_table, (chunk, end), 1, input_ptrs, init_ptrs)
        if chained:
            build_row_chains(input_ptrs, chain_offsets, row_chains)
        if HAS_TILES and uses_tiles:
            place_rows(weights, input_ptrs, end - chunk, runs, buffers)
        for r in range(init_ptrs.size):
            init_ptrs[r] = data_ptr(offsets) + init_ptrs[r] * offsets.strides[0]
            output_ptrs[r] = data_ptr(out) + min(chunk + r, end - 1) * pixel_bytes
        tiled = end - chunk  # rows for the micro-kernel; the remaining ones go to gemv
        if not (chained or uses_tiles):
            tiled -= tiled if is_binary(weights) else tiled % mr == 1
        last_panel, last_channel = 0, 0
        for k in range(weights.values.shape[0]):
            group, inner = k // group_panels, (k + group_panels - 1) % group_panels
            panel, channel = group * group_panels + inner, group * outputs + inner * LANES
            width = min(LANES, outputs - inner * LANES)
            init_ptrs += (panel - last_panel) * LANES * offsets.itemsize
            output_ptrs += (channel - last_channel) * out.itemsize
            if is_depthwise(weights):
                input_ptrs += (panel - last_panel) * LANES
            else:
                input_ptrs += (group - last_panel // group_panels) * group_inputs
            last_panel, last_channel = panel, channel
            rewritten = groups == 1 and writes_rows_in_order(weights) and (flat.shape[0] - end) * out.shape[3] >= LANES
            needs_scratch = width < LANES and not rewritten
            weights_ptr, run_words = data_ptr(weights.values) + panel * weights.values.strides[0], runs.words
            if chained:
                weights_ptr, run_words = build_panel_chain(weights, panel, panel_chain), panel_chain.shape[0]
            rounding_ptr = data_ptr(rounding.constants) + panel * rounding.constants.strides[0]
            inputs_ptr, init_ptr, runs_ptr = data_ptr(input_ptrs), data_ptr(init_ptrs), data_ptr(runs.offsets)
            outputs_ptr = data_ptr(scratch_ptrs if needs_scratch else output_ptrs)
            if HAS_TILES and uses_tiles:
                products = tile_operands(weights, panel, buffers)
                for begin in range(0, tiled, TILED_ROWS):
                    multiply_tiles(later_rows(products, begin, buffers))
                    for row in range(begin, min(begin + TILED_ROWS, tiled), mr):
                        operands = TileOperands(products.sums_ptr + (row - begin) * LANES * 4, 0, 0, 0, 0)
                        ending = ValueEpilogue(init_ptr + row * 8, rounding_ptr, rounding.flags, outputs_ptr + row * 8)
                        finish_values(weights, out, operands, ending)
            for r in range(0, 0 if uses_tiles else tiled * 8, mr * 8):
                operands = TileOperands(inputs_ptr + r, weights_ptr, runs_ptr, runs.offsets.size, run_words)
                ending = ValueEpilogue(init_ptr + r, rounding_ptr, rounding.flags, outputs_ptr + r)
                value_microkernel(weights, out, operands, ending)
            if needs_scratch:
                for r in range(tiled):
                    for lane in range(width):
                        flat[chunk + r, channel + lane] = scratch[r, lane]
            for r in range(tiled, end - chunk):
                row = flat[chunk + r, channel : channel + width]
                ending = ValueEpilogue(init_ptrs[r], rounding_ptr, rounding.flags, 0)
                gemv_values(weights, row, runs, input_ptrs[r], weights_ptr, ending)
    if HAS_TILES and uses_tiles:
        release_tiles()


@compiled
def convolution(x, out, weights, context, epilogue):  # type: ignore[no-untyped-def]
    """Compute the sums of a convolution, or the bytes they are rounded to.

    out = sum of products + offsets

    Args:
        x: activations (n, h, w, C), contiguous, with their padding: uint64 words, uint8 or int16, as the layout demands.
        out: (n, oh, ow, O): int32, int8 or uint8; written. Bytes are only for weights without zero points.
        weights: a layout record of `weight_layouts.LAYOUTS`, panels group by group.
        context: ConvContext. For weight zero points call `subtract_window_sums` next.
        epilogue: Epilogue; its offsets must belong to the weights as they are.
    """
    _run_tiles(x, out, weights, context, epilogue, (np.int64(0), out.shape[0] * out.shape[1] * out.shape[2]))


@compiled
def convolution_resampled(x, out, weights, context, rounding, faults):  # type: ignore[no-untyped-def]
    """Compute `convolution` of one group with resampled weights.

    Weights are read again for each image or each output pixel.

    Args:
        rounding: Rounding.
        faults: FaultSource; its flips are put into `weights`, and counted.
    """
    pixels = out.shape[1] * out.shape[2]
    step = 1 if faults.per_pixel else pixels
    offsets, buffers = empty_offsets(weights, context), new_read_buffers(faults.targets)
    for row in range(0, out.shape[0] * pixels, step):
        read_weights(faults, faults.first_image * (pixels // step) + row // step, buffers)
        fill_offsets(is_binary(weights), 1, context, sum_weights(weights, context), offsets)
        _run_tiles(x, out, weights, context, Epilogue(offsets, rounding), (row, row + step))
