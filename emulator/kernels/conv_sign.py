"""Convolution and threshold in one pass: sums stay in registers, only bits are written.

    bit = acc >= threshold      becomes      mismatches <= limit  (PackedInt1)      or      sum >= limit  (products)

The limits contain border, zero points and threshold, one row for each border pattern (`conv.py`).
"""

from __future__ import annotations

import numpy as np

from weakcell.emulator.kernels.arguments import SignEpilogue, TileOperands
from weakcell.emulator.kernels.carry_save import (
    MIN_CHAINED_ROWS,
    build_panel_chain,
    build_row_chains,
    chained_rows_per_chunk,
    empty_chains,
    word_offsets,
)
from weakcell.emulator.kernels.conv import empty_offsets, fill_offsets, sum_weights
from weakcell.emulator.kernels.fault_reads import new_read_buffers, read_weights
from weakcell.emulator.kernels.gemv import gemv_signs, sign_gemv
from weakcell.emulator.kernels.indirection import ROWS_PER_CHUNK, contiguous_runs, row_addresses
from weakcell.emulator.kernels.isa import empty_sums, is_binary
from weakcell.emulator.kernels.matrix_tiles import (
    HAS_TILES,
    TILED_ROWS,
    finish_pooled_signs,
    finish_signs,
    multiply_tiles,
    release_tiles,
    set_up_tiles,
)
from weakcell.emulator.kernels.microkernel import POOL, pooled_sign_microkernel, sign_microkernel, tile_rows
from weakcell.emulator.kernels.tile_packing import (
    fills_tiles,
    later_rows,
    new_tile_buffers,
    place_rows,
    tile_operands,
    tiled_rows_per_chunk,
)
from weakcell.emulator.kernels.weight_layouts import LANES
from weakcell.memmodels.compilation import compiled
from weakcell.memmodels.sampling.pointers import data_ptr

_LOW, _HIGH = -(2**31), 2**31 - 1


@compiled
def fill_limits(binary, threshold, offsets, limits):  # type: ignore[no-untyped-def]
    """Compute the comparison limit of every channel.

    The output is 1 if mismatches <= limit (PackedInt1), or if sum >= limit.

    Lanes that are no channel get a limit that no sum reaches.

    Args:
        binary: Whether weights are PackedInt1.
        threshold: int32 (O,).
        offsets: int32 (patterns, panels * LANES), from `fill_offsets`.
        limits: (patterns, panels * LANES) of the dtype of sums, written.
    """
    limits[:] = -1 if binary else _HIGH
    for pattern in range(limits.shape[0]):
        for o in range(threshold.size):
            if binary:
                limits[pattern, o] = (offsets[pattern, o] - np.int64(threshold[o])) >> 1
            else:
                limits[pattern, o] = min(max(np.int64(threshold[o]) - offsets[pattern, o], _LOW), _HIGH)


@compiled
def _run_tiles(x, out, weights, context, limits, pixels):  # type: ignore[no-untyped-def]
    """Compute a range of output pixels.

    pixels: (first, stop), counted over images, rows and columns.
    """
    first, stop = pixels
    runs = contiguous_runs(x, weights, context.geometry, 1)
    if stop - first == 1 and not context.pooled:
        window_ptr, pattern = np.empty((2, 1), dtype=np.int64)
        row_addresses(x, context.row_table, pixels, 1, window_ptr, pattern)
        gemv_signs(weights, out.reshape(-1, out.shape[3])[first], runs, window_ptr[0], limits[pattern[0]])
        return
    pool = POOL if context.pooled else 1
    uses_tiles = HAS_TILES and fills_tiles(weights, runs, (stop - first) * pool, 1)
    chained = is_binary(weights) and not uses_tiles and (context.pooled or stop - first >= MIN_CHAINED_ROWS)
    mr = 1 if is_binary(weights) and not (chained or uses_tiles) else tile_rows(weights, context.pooled)
    rows_per_chunk = min(ROWS_PER_CHUNK, max(stop - first, 1) * pool)
    if chained:
        rows_per_chunk = chained_rows_per_chunk(weights, (stop - first) * pool)
    if HAS_TILES and uses_tiles:
        rows_per_chunk = tiled_rows_per_chunk(weights, runs, (stop - first) * pool)
        buffers = new_tile_buffers(weights, runs, rows_per_chunk)
        set_up_tiles()
    pixel_bytes, pattern_bytes = out.shape[3] * out.itemsize, limits.strides[0]
    input_ptrs, limit_ptrs, output_ptrs = np.empty((3, rows_per_chunk + mr), dtype=np.int64)
    chain_offsets = word_offsets(weights, runs)
    row_chains, panel_chain = empty_chains(weights, input_ptrs.size if chained else 0)
    inputs_ptr, limits_ptr, outputs_ptr = data_ptr(input_ptrs), data_ptr(limit_ptrs), data_ptr(output_ptrs)
    for chunk in range(first, stop, rows_per_chunk // pool):
        end = min(chunk + rows_per_chunk // pool, stop)
        row_addresses(x, context.row_table, (chunk * pool, end * pool), pool, input_ptrs, limit_ptrs)
        if chained:
            build_row_chains(input_ptrs, chain_offsets, row_chains)
        if HAS_TILES and uses_tiles:
            place_rows(weights, input_ptrs, (end - chunk) * pool, runs, buffers)
        for r in range(limit_ptrs.size):
            limit_ptrs[r] = data_ptr(limits) + limit_ptrs[r] * pattern_bytes
            output_ptrs[r] = data_ptr(out) + min(chunk + r, end - 1) * pixel_bytes
        for panel in range(weights.values.shape[0]):
            weights_ptr, run_words = data_ptr(weights.values) + panel * weights.values.strides[0], runs.words
            if chained:
                weights_ptr, run_words = build_panel_chain(weights, panel, panel_chain), panel_chain.shape[0]
            if HAS_TILES and uses_tiles:
                products = tile_operands(weights, panel, buffers)
                for begin in range(0, (end - chunk) * pool, TILED_ROWS):
                    multiply_tiles(later_rows(products, begin, buffers))
                    for row in range(begin, min(begin + TILED_ROWS, (end - chunk) * pool), mr):
                        operands = TileOperands(products.sums_ptr + (row - begin) * LANES * 4, 0, 0, 0, 0)
                        ending = SignEpilogue(limits_ptr + row * 8, outputs_ptr + row // pool * 8)
                        if context.pooled:
                            finish_pooled_signs(weights, operands, ending)
                        else:
                            finish_signs(weights, operands, ending)
            for row in range(0, 0 if uses_tiles else (end - chunk) * pool, mr):
                operands = TileOperands(inputs_ptr + row * 8, weights_ptr, data_ptr(runs.offsets), runs.offsets.size, run_words)
                ending = SignEpilogue(limits_ptr + row * 8, outputs_ptr + row // pool * 8)
                if context.pooled:
                    pooled_sign_microkernel(weights, operands, ending)
                elif mr == 1 or (not chained and chunk + row + 1 == end):
                    sign_gemv(weights, operands, ending)
                else:
                    sign_microkernel(weights, operands, ending)
            limit_ptrs += LANES * limits.itemsize
            output_ptrs += LANES // 8
    if HAS_TILES and uses_tiles:
        release_tiles()


@compiled
def sign_convolution(x, out, weights, context, limits):  # type: ignore[no-untyped-def]
    """Compute the bits acc >= threshold of an ungrouped convolution.

    Args:
        x: activations (n, h, w, C), contiguous, with their padding.
        out: uint64 (n, oh, ow, ceil(O / 64)), written. If `context.pooled`, each pixel is the OR of POOL rows of the row table.
        weights: a layout record of `weight_layouts.LAYOUTS` without zero points; its sums stay within int32.
        context: ConvContext with a bias of 0.
        limits: from `fill_limits`, for the weights and thresholds as they are.
    """
    _run_tiles(x, out, weights, context, limits, (np.int64(0), out.shape[0] * out.shape[1] * out.shape[2]))


@compiled
def sign_convolution_resampled(x, out, weights, context, threshold, faults):  # type: ignore[no-untyped-def]
    """Compute `sign_convolution` with resampled weights.

    Weights are read again for each image or each output pixel.

    Args:
        threshold: int32 (O,).
        faults: FaultSource; its flips are put into `weights`, and counted.
    """
    pixels = out.shape[1] * out.shape[2]
    step = 1 if faults.per_pixel else pixels
    offsets, buffers = empty_offsets(weights, context), new_read_buffers(faults.targets)
    limits = empty_sums(weights, offsets.shape[0], offsets.shape[1])
    for row in range(0, out.shape[0] * pixels, step):
        read_weights(faults, faults.first_image * (pixels // step) + row // step, buffers)
        fill_offsets(is_binary(weights), 1, context, sum_weights(weights, context), offsets)
        fill_limits(is_binary(weights), threshold, offsets, limits)
        _run_tiles(x, out, weights, context, limits, (row, row + step))


@compiled
def invert_bits(out, inverted):  # type: ignore[no-untyped-def]
    """XOR the words of every pixel with `inverted`.

    Args:
        out: uint64 (n, h, w, words), changed in place.
        inverted: uint64 (words,).
    """
    for image in range(out.shape[0]):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                for word in range(out.shape[3]):
                    out[image, y, x, word] ^= inverted[word]
