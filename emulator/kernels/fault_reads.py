"""Reads of stored tensors: flips are drawn block by block, and put into the values that kernels use while they are in cache.

A table says where each region's cells lie in those values, another what is drawn there
(`weakcell.memmodels.sampling.sampler.SOURCE`). Where the
last read left nothing wrong and this one does neither, values are not touched: what a read costs follows its flips.
"""

from __future__ import annotations

import numba
import numpy as np

from weakcell.emulator.kernels.fault_scatter import flip_block, flip_cells
from weakcell.emulator.kernels.weight_layouts import LANES
from weakcell.memmodels.address import BLOCK_WORDS
from weakcell.memmodels.sampling.pointers import data_ptr, move_bytes, words_at
from weakcell.memmodels.sampling.read_errors import block_range, count_bits, draw_block, new_workspace, read_stream, words_in_block

_FIELDS = "write clean values size stale leads flat words channels outer row inner cells masks"

FLIP_TARGET = np.dtype([(name, np.int64) for name in _FIELDS.split()])
"""Where the cells of a region lie. All but numbers are addresses.

write: the number of the write. clean, values: what kernels would read without flips, and what they read; `size` bytes. stale:
uint8, which parts of the values hold flips: every LANES output channels if `flat`, else all. leads: the first region of its tensor,
which takes out the flips of the last read. flat: within output channels of `words` words, kernels keep the order of the storage.
outer (channels,), inner (row,): see `scatter.py`. masks (cells,): what a flip of each cell of an element does.
"""


@numba.njit(cache=True, nogil=True)
def new_scratch(homes):  # type: ignore[no-untyped-def]
    """Rooms to draw in, for all regions of a table."""
    longest = 0
    for i in range(homes.size):
        longest = max(longest, homes[i].words)
    return new_workspace(), np.empty(BLOCK_WORDS + LANES * longest + 2, dtype=np.uint64)


@numba.njit(cache=True, nogil=True)
def _clear(home):  # type: ignore[no-untyped-def]
    """Take out the flips of the last read."""
    stale = words_at(home.stale, 1).view(np.uint8)
    if home.leads and stale[0]:
        move_bytes(home.values, home.clean, home.size)
        stale[0] = 0


@numba.njit(cache=True, nogil=True)
def _read_cells(source, home, stream, scratch):  # type: ignore[no-untyped-def]
    room, drawn = scratch
    outer, inner = words_at(home.outer, home.channels).view(np.int64), words_at(home.inner, home.row).view(np.int64)
    masks, stale, total = words_at(home.masks, home.cells).view(np.int64), words_at(home.stale, 1).view(np.uint8), 0
    _clear(home)
    start, stop = block_range(source)
    for block in range(start, stop):
        first, n = words_in_block(source, block)
        draw_block(source, stream, block, drawn[:n], room)
        count = count_bits(drawn[:n])
        if count:
            flip_cells(home.values, outer, inner, masks, drawn[:n], first)
        total += count
    stale[0] |= total > 0
    return total


@numba.njit(cache=True, nogil=True)
def _any(words):  # type: ignore[no-untyped-def]
    together = np.uint64(0)
    for i in range(words.size):
        together |= words[i]
    return together != 0


@numba.njit(cache=True, nogil=True)
def _read_rows(source, home, stream, scratch):  # type: ignore[no-untyped-def]
    """`drawn` begins with flips, from the region's word `begin` on, of a block of output channels that is not complete yet."""
    room, drawn = scratch
    blocks, bits, done, begin, filled, total = (home.channels + LANES - 1) // LANES, LANES * home.row, 0, 0, 0, 0
    stale = words_at(home.stale, blocks // 8 + 1).view(np.uint8)
    start, stop = block_range(source)
    for block in range(start, stop):
        first, n = words_in_block(source, block)
        draw_block(source, stream, block, drawn[filled : filled + n], room)
        total += count_bits(drawn[filled : filled + n])
        filled += n
        complete = blocks if block + 1 == stop else (first + n) * 64 // bits
        for k in range(done, complete):
            flipped = _any(drawn[min((k * bits >> 6) - begin, filled) : min(((k + 1) * bits + 63 >> 6) - begin, filled)])
            if flipped or stale[k]:
                flip_block(
                    home.clean, home.values, home.words, home.row, home.channels, k, data_ptr(drawn), begin, filled
                )  # fmt: skip
                stale[k] = flipped
        used = min((complete * bits >> 6) - begin, filled)
        move_bytes(data_ptr(drawn), data_ptr(drawn) + 8 * used, 8 * (filled - used))
        done, begin, filled = complete, begin + used, filled - used
    return total


@numba.njit(cache=True, nogil=True)
def read_region(source, home, trial, read, scratch):  # type: ignore[no-untyped-def]
    """Read a region anew; returns how many of its bits flipped. scratch: from `new_scratch`."""
    stream = read_stream(source, trial, home.write, read)
    if home.flat:
        return _read_rows(source, home, stream, scratch)
    return _read_cells(source, home, stream, scratch)


@numba.njit(cache=True, nogil=True)
def read_regions(sources, homes, trial, read, counts):  # type: ignore[no-untyped-def]
    """Read all regions of two tables anew; counts (R,): how many bits of each flipped."""
    scratch = new_scratch(homes)
    for i in range(homes.size):
        counts[i] = read_region(sources[i], homes[i], trial, read, scratch)
