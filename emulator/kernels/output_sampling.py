"""Sums of ±1 products as faulty weights would make them, drawn from the clean sums by the laws of
`emulator/faults/output_sampling.py`.

A random word w stands for the value low + (how many entries of the cumulative law are <= w). Whether that is at most some limit
is one comparison of w with one entry: where only the sign of a sum is needed, no value is searched for.
"""

from __future__ import annotations

import numba
import numpy as np

from weakcell.emulator.kernels.carry_save import chain_rows, chained_block, chained_rows, new_chains, words_of
from weakcell.emulator.kernels.indirection import contiguous_runs, row_addresses
from weakcell.emulator.kernels.microkernel import tile_rows, value_tile
from weakcell.emulator.kernels.weight_layouts import LANES
from weakcell.memmodels.sampling.read_errors import read_stream
from weakcell.memmodels.sampling.streams import child_stream, word_at

GUIDE_BITS = 6
"""Leading bits of a random word that a law's guide is asked with."""

_BASE, _MATCHES, _MISMATCHES = np.uint64(0x0B), np.uint64(0x0C), np.uint64(0x0D)


@numba.njit(cache=True, nogil=True)
def _invert(law, row, word):  # type: ignore[no-untyped-def]
    """The value that a random word gives by row `row` of a law: low + how many of its entries are <= the word."""
    step = np.int64(law.guide[row, np.int64(word >> np.uint64(64 - GUIDE_BITS))])
    while step < law.cumulative.shape[1] - 1 and law.cumulative[row, step] <= word:
        step += 1
    return law.low[row] + step


@numba.njit(cache=True, nogil=True)
def _moved(more, matches, mismatches, first, second):  # type: ignore[no-untyped-def]
    """Mismatches gained by the cells that err more often than the others: some matches break, some mismatches heal."""
    return _invert(more, matches - more.first, first) - _invert(more, mismatches - more.first, second)


@numba.njit(cache=True, nogil=True)
def _first_step(counts, bits, ones, weight_ones, more, at, stream):  # type: ignore[no-untyped-def]
    """Mismatches (O,) of one place once the cells that err more often than others have done so, in place."""
    first, second = child_stream(stream, _MATCHES), child_stream(stream, _MISMATCHES)
    for o in range(counts.size):
        count, surplus = np.int64(counts[o]), ones - weight_ones[o]
        wrong = (count - surplus) >> 1 if at else (count + surplus) >> 1
        right = (weight_ones[o] if at else bits - weight_ones[o]) - wrong
        counts[o] = count + _moved(more, right, wrong, word_at(first, np.uint64(o)), word_at(second, np.uint64(o)))


@numba.njit(cache=True, nogil=True)
def draw_mismatches(counts, bits, ones, weight_ones, base, more, at, sources, trial, write, reads):  # type: ignore[no-untyped-def]
    """Mismatches of one read for every place: counts int32 (R, O), clean -> drawn, in place.

    bits: cells of a sum. ones (R,), weight_ones (O,): 1s of the inputs and of the weights; read where cells that store `at` (0 or
    1) err more often, at -1 where none do. base, more: the two laws. reads (R,): the number of each place's read.
    """
    for r in range(counts.shape[0]):
        stream = child_stream(read_stream(sources[0], trial, write, reads[r]), np.uint64(sources[0].first_word))
        if at >= 0:
            _first_step(counts[r], bits, ones[r], weight_ones, more, at, stream)
        own = child_stream(stream, _BASE)
        for o in range(counts.shape[1]):
            count = np.int64(counts[r, o])
            counts[r, o] = count + _invert(base, count - base.first, word_at(own, np.uint64(o)))


@numba.njit(cache=True, nogil=True)
def draw_signs(  # type: ignore[no-untyped-def]
    counts, limits, bits, ones, weight_ones, base, more, at, sources, trial, write, reads, out
):
    """Bits of drawn mismatches <= limits (O,), into out uint64 (R, ceil(O / 64)): see `draw_mismatches`, which draws the same."""
    low, cumulative, fewest, last = base.low, base.cumulative, base.first, base.cumulative.shape[1] - 1
    for r in range(counts.shape[0]):
        stream = child_stream(read_stream(sources[0], trial, write, reads[r]), np.uint64(sources[0].first_word))
        if at >= 0:
            _first_step(counts[r], bits, ones[r], weight_ones, more, at, stream)
        own = child_stream(stream, _BASE)
        for word in range(out.shape[1]):
            signs = np.uint64(0)
            for bit in range(min(64, counts.shape[1] - word * 64)):
                o = word * 64 + bit
                count = np.int64(counts[r, o])
                step = limits[o] - count - low[count - fewest]
                entry = cumulative[count - fewest, min(max(step, 0), last)]
                kept = (step >= last) | ((step >= 0) & (word_at(own, np.uint64(o)) < entry))
                signs |= np.uint64(kept) << np.uint64(bit)
            out[r, word] = signs


@numba.njit(cache=True, nogil=True)
def _extremes(sums, rows):  # type: ignore[no-untyped-def]
    lowest, highest = sums[0, 0], sums[0, 0]
    for r in range(rows):
        for lane in range(LANES):
            lowest, highest = min(lowest, sums[r, lane]), max(highest, sums[r, lane])
    return lowest, highest


@numba.njit(cache=True, nogil=True)
def _draw_block(sums, rows, block, streams, kept, out):  # type: ignore[no-untyped-def]
    """Bits of LANES outputs of each row into out uint32 (R, blocks), from minus twice their clean mismatches."""
    words, last, table = np.empty(LANES, dtype=np.uint64), kept.table.shape[1] - 1, kept.table.reshape(-1)
    first = block * LANES
    starts, columns = kept.starts[first : first + LANES], kept.columns[first : first + LANES]
    for r in range(rows):
        for lane in range(LANES):
            words[lane] = word_at(streams[r], np.uint64(first + lane))
        signs = np.uint32(0)
        for lane in range(LANES):
            column = min(max(columns[lane] + (sums[r, lane] >> 1), 0), last)
            signs |= np.uint32(words[lane] < table[np.uint64(starts[lane] + column)]) << np.uint32(lane)
        out[r, block] = signs


@numba.njit(cache=True, nogil=True)
def convolution_signs(x, weights, context, geometry, kept, sources, trial, write, first_read, begin, out):  # type: ignore[no-untyped-def]
    """The same bits, drawn while the sums of a block of weights are in cache: out uint32 (R, blocks), from row `begin` on.

    For windows that are all inside the image and cells that all err alike. kept: see
    `weakcell.emulator.faults.output_sampling.Kept`; row r is read number
    first_read + r. Returns the row that it came to, and the fewest and most mismatches of those that `kept` knows nothing about.
    """
    starts, length = contiguous_runs(x, weights, geometry, 1)
    tall, most, source = tile_rows(weights, False), chained_rows(weights, out.shape[0] - begin), sources[0]
    windows, places, bases, outs = np.empty((4, most + tall), dtype=np.int64)
    within, (chains, chain) = words_of(weights, starts, length), new_chains(weights, windows.size)
    sums, streams = np.zeros((windows.size + 1, LANES), dtype=np.int32), np.empty(most, dtype=np.uint64)
    bases[:] = sums.ctypes.data + windows.size * LANES * sums.itemsize
    for r in range(outs.size):
        outs[r] = sums.ctypes.data + r * LANES * sums.itemsize
    at_windows, at_bases, at_outs, at_starts = windows.ctypes.data, bases.ctypes.data, outs.ctypes.data, starts.ctypes.data
    for chunk in range(begin, out.shape[0], most):
        rows = min(most, out.shape[0] - chunk)
        row_addresses(x, context.row_table, chunk, chunk + rows, 1, windows, places)
        chain_rows(windows, within, chains)
        for r in range(rows):
            stream = child_stream(read_stream(source, trial, write, first_read + chunk + r), np.uint64(source.first_word))
            streams[r] = child_stream(stream, _BASE)
        for block in range(weights.values.shape[0]):
            here, words = chained_block(weights, block, chain), chain.shape[0]
            for r in range(0, rows * 8, tall * 8):
                w, b, o = at_windows + r, at_bases + r, at_outs + r
                value_tile(weights, sums, w, here, at_starts, starts.size, words, b, 0, 0, o)
            lowest, highest = _extremes(sums, rows)
            if -highest < 2 * kept.fewest or -lowest > 2 * kept.most:
                return chunk, -highest >> 1, -lowest >> 1
            _draw_block(sums, rows, block, streams, kept, out[chunk : chunk + rows])
    return out.shape[0], 0, 0
