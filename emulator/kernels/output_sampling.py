"""Sums of ±1 products under weight errors, sampled from the fault-free sums (`emulator/faults/output_sampling.py`).

A random word w selects the value low + (number of entries of the cumulative distribution that are <= w). Whether that value is at
most some limit is one comparison of w with one entry. Where only the sign of a sum is needed, no value is searched for.
"""

from __future__ import annotations

import numpy as np

from weakcell.emulator.kernels.arguments import GUIDE_BITS, TileOperands, ValueEpilogue
from weakcell.emulator.kernels.carry_save import (
    build_panel_chain,
    build_row_chains,
    chained_rows_per_chunk,
    empty_chains,
    word_offsets,
)
from weakcell.emulator.kernels.indirection import contiguous_runs, row_addresses
from weakcell.emulator.kernels.microkernel import tile_rows, value_microkernel
from weakcell.emulator.kernels.weight_layouts import LANES
from weakcell.memmodels.compilation import compiled
from weakcell.memmodels.sampling.pointers import data_ptr
from weakcell.memmodels.sampling.read_errors import read_stream
from weakcell.memmodels.sampling.streams import child_stream, word_at

_BASE, _MATCHES, _MISMATCHES = np.uint64(0x0B), np.uint64(0x0C), np.uint64(0x0D)
"""Random streams below that of a read: of all cells, and of the extra errors of matches and of mismatches."""


@compiled
def _invert(distribution, row, word):  # type: ignore[no-untyped-def]
    """Return the value that a random word selects from a row.

    low + number of entries <= word
    """
    index = np.int64(distribution.guide[row, np.int64(word >> np.uint64(64 - GUIDE_BITS))])
    while index < distribution.cumulative.shape[1] - 1 and distribution.cumulative[row, index] <= word:
        index += 1
    return distribution.low[row] + index


@compiled
def _apply_extra_errors(counts, row, model, stream):  # type: ignore[no-untyped-def]
    """Let the cells that store `stored_value` err.

    Some matches break, some mismatches heal.

    Args:
        counts: mismatches of one row (O,), changed in place.
        row: index of the row in `model.ones`.
        model: MismatchModel.
        stream: of the read and region.
    """
    broken, healed = child_stream(stream, _MATCHES), child_stream(stream, _MISMATCHES)
    extra = model.extra
    for o in range(counts.size):
        count, surplus = np.int64(counts[o]), model.ones[row] - model.weight_ones[o]
        mismatches = (count - surplus) >> 1 if model.stored_value else (count + surplus) >> 1
        matches = (model.weight_ones[o] if model.stored_value else model.bits - model.weight_ones[o]) - mismatches
        gained = _invert(extra, matches - extra.first, word_at(broken, np.uint64(o)))
        counts[o] = count + gained - _invert(extra, mismatches - extra.first, word_at(healed, np.uint64(o)))


@compiled
def _region_stream(reads, i):  # type: ignore[no-untyped-def]
    """Return the random stream of read `i` of a ReadSequence."""
    source = reads.sources[0]
    return child_stream(read_stream(source, reads.trial, reads.write, reads.numbers[i]), np.uint64(source.first_word))


@compiled
def draw_mismatches(counts, model, reads):  # type: ignore[no-untyped-def]
    """Sample the mismatches of every row, each under one read of the weights.

    Args:
        counts: int32 (R, O): fault-free mismatches, replaced by the sampled ones.
        model: MismatchModel.
        reads: ReadSequence of R reads.
    """
    for r in range(counts.shape[0]):
        stream = _region_stream(reads, r)
        if model.stored_value >= 0:
            _apply_extra_errors(counts[r], r, model, stream)
        base_stream = child_stream(stream, _BASE)
        for o in range(counts.shape[1]):
            count = np.int64(counts[r, o])
            counts[r, o] = count + _invert(model.base, count - model.base.first, word_at(base_stream, np.uint64(o)))


@compiled
def draw_signs(counts, limits, model, reads, out):  # type: ignore[no-untyped-def]
    """Sample the bits mismatches <= limit.

    The mismatches are those of `draw_mismatches`.

    Args:
        counts: int32 (R, O): fault-free mismatches; overwritten.
        limits: int64 (O,).
        model: MismatchModel.
        reads: ReadSequence of R reads.
        out: uint64 (R, ceil(O / 64)), written.
    """
    low, cumulative, fewest = model.base.low, model.base.cumulative, model.base.first
    last = cumulative.shape[1] - 1
    for r in range(counts.shape[0]):
        stream = _region_stream(reads, r)
        if model.stored_value >= 0:
            _apply_extra_errors(counts[r], r, model, stream)
        base_stream = child_stream(stream, _BASE)
        for word in range(out.shape[1]):
            signs = np.uint64(0)
            for bit in range(min(64, counts.shape[1] - word * 64)):
                o = word * 64 + bit
                count = np.int64(counts[r, o])
                index = limits[o] - count - low[count - fewest]
                entry = cumulative[count - fewest, min(max(index, 0), last)]
                is_one = (index >= last) | ((index >= 0) & (word_at(base_stream, np.uint64(o)) < entry))
                signs |= np.uint64(is_one) << np.uint64(bit)
            out[r, word] = signs


@compiled
def _extremes(sums, rows):  # type: ignore[no-untyped-def]
    """Return the lowest and the highest of the first `rows` rows of sums."""
    lowest, highest = sums[0, 0], sums[0, 0]
    for r in range(rows):
        for lane in range(LANES):
            lowest, highest = min(lowest, sums[r, lane]), max(highest, sums[r, lane])
    return lowest, highest


@compiled
def _sample_panel(sums, panel, streams, survival, out):  # type: ignore[no-untyped-def]
    """Sample the bits of LANES output channels of each row of `out`.

    Args:
        sums: int32 (at least R, LANES): minus twice the fault-free mismatches.
        panel: index of the micropanel.
        streams: uint64 (R,).
        survival: ThresholdSurvival.
        out: uint32 (R, panels), column `panel` is written.
    """
    words, last, table = np.empty(LANES, dtype=np.uint64), survival.table.shape[1] - 1, survival.table.reshape(-1)
    first = panel * LANES
    starts, columns = survival.starts[first : first + LANES], survival.columns[first : first + LANES]
    for r in range(out.shape[0]):
        for lane in range(LANES):
            words[lane] = word_at(streams[r], np.uint64(first + lane))
        signs = np.uint32(0)
        for lane in range(LANES):
            column = min(max(columns[lane] + (sums[r, lane] >> 1), 0), last)
            signs |= np.uint32(words[lane] < table[np.uint64(starts[lane] + column)]) << np.uint32(lane)
        out[r, panel] = signs


@compiled
def sample_convolution_signs(x, out, weights, context, survival, reads, start):  # type: ignore[no-untyped-def]
    """Sample the bits of a convolution while fault-free sums are in cache.

    Only for windows inside the image and for cells that all have the same error rate.

    Args:
        x: uint64 (n, h, w, words).
        out: uint32 (R, panels); written from row `start.begin` on.
        weights: PackedInt1.
        context: ConvContext with one full border pattern.
        survival: ThresholdSurvival of `emulator/faults/output_sampling.py`.
        reads: ReadSequence of R reads, one for each row.
        start: SampledRows.

    Returns:
        The row that was reached. If it is not the number of rows, `survival` does not cover the next ones: see `start.outside`.
    """
    begin = start.begin
    runs = contiguous_runs(x, weights, context.geometry, 1)
    mr, rows_per_chunk = tile_rows(weights, False), chained_rows_per_chunk(weights, out.shape[0] - begin)
    input_ptrs, patterns, init_ptrs, output_ptrs = np.empty((4, rows_per_chunk + mr), dtype=np.int64)
    chain_offsets = word_offsets(weights, runs)
    row_chains, panel_chain = empty_chains(weights, input_ptrs.size)
    sums, streams = np.zeros((input_ptrs.size + 1, LANES), dtype=np.int32), np.empty(rows_per_chunk, dtype=np.uint64)
    init_ptrs[:] = data_ptr(sums) + input_ptrs.size * LANES * sums.itemsize  # the last row of zeros
    for r in range(output_ptrs.size):
        output_ptrs[r] = data_ptr(sums) + r * LANES * sums.itemsize
    inputs_ptr, init_ptr, outputs_ptr = data_ptr(input_ptrs), data_ptr(init_ptrs), data_ptr(output_ptrs)
    for chunk in range(begin, out.shape[0], rows_per_chunk):
        rows = min(rows_per_chunk, out.shape[0] - chunk)
        row_addresses(x, context.row_table, (chunk, chunk + rows), 1, input_ptrs, patterns)
        build_row_chains(input_ptrs, chain_offsets, row_chains)
        for r in range(rows):
            streams[r] = child_stream(_region_stream(reads, chunk + r), _BASE)
        for panel in range(weights.values.shape[0]):
            weights_ptr, run_words = build_panel_chain(weights, panel, panel_chain), panel_chain.shape[0]
            for r in range(0, rows * 8, mr * 8):
                operands = TileOperands(inputs_ptr + r, weights_ptr, data_ptr(runs.offsets), runs.offsets.size, run_words)
                value_microkernel(weights, sums, operands, ValueEpilogue(init_ptr + r, 0, 0, outputs_ptr + r))
            lowest, highest = _extremes(sums, rows)
            if -highest < 2 * survival.fewest or -lowest > 2 * survival.most:
                start.outside[0], start.outside[1] = -highest >> 1, -lowest >> 1
                return chunk
            _sample_panel(sums, panel, streams, survival, out[chunk : chunk + rows])
    return out.shape[0]
