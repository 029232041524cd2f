"""The compiled part of `dies.py`: the hits of the hazard shells, and the cells that they mark."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from weakcell.memmodels.address import BLOCK_BITS
from weakcell.memmodels.compilation import compiled
from weakcell.memmodels.sampling.pointers import data_ptr, words_at
from weakcell.memmodels.sampling.read_errors import poisson_count
from weakcell.memmodels.sampling.shells import EDGES, GROUP
from weakcell.memmodels.sampling.streams import child_stream, mix, next_word, start

_PREFERENCE = np.uint64(0x5EED)


class _Masks(NamedTuple):
    """A `Target` by address; `preference` is the stream of the preferred values."""

    first_word: int
    words: int
    to_one_ptr: int
    to_zero_ptr: int
    prefers: bool
    row_cells: int
    preference: int


@compiled
def _open_masks(target, stream):  # type: ignore[no-untyped-def]
    to_one_ptr, to_zero_ptr, preference = data_ptr(target.to_one), data_ptr(target.to_zero), child_stream(stream, _PREFERENCE)
    return _Masks(target.first_word, target.to_one.size, to_one_ptr, to_zero_ptr, target.prefers, target.row_cells, preference)


@compiled
def hit_block(target, shells, stream, block, hazards):  # type: ignore[no-untyped-def]
    """Mark the cells of one block that were hit below the hazards (to one, to zero)."""
    masks, table_ptr, (to_one, to_zero) = _open_masks(target, stream), data_ptr(shells.table), hazards
    begin = np.int64(block) * BLOCK_BITS - np.int64(target.first_word) * 64
    block_stream = child_stream(stream, np.uint64(block))
    if to_one == np.inf or to_zero == np.inf:
        all_one, all_zero = np.float64(to_one == np.inf), np.float64(to_zero == np.inf)
        for cell in range(BLOCK_BITS):
            _mark(masks, begin + cell, 0.0, all_one, all_zero)
    for shell in range(shells.lows.size):
        low, width = EDGES[shell], EDGES[shell + 1] - EDGES[shell]
        word, state = next_word(start(child_stream(block_stream, np.uint64(shell))))
        for _ in range(poisson_count(word, shells.lows[shell], shells.firsts[shell], shells.firsts[shell + 1], table_ptr)):
            word, state = next_word(state)
            hazard = low + width * (np.float64(word >> np.uint64(16)) * 2.0**-48)
            _mark(masks, begin + np.int64(word & np.uint64(0xFFFF)), hazard, to_one, to_zero)


@compiled
def _mark(masks, cell, hazard, hazard_one, hazard_zero):  # type: ignore[no-untyped-def]
    """Mark a cell as weak towards 1 if `hazard` < hazard_one, towards 0 if < hazard_zero, as its preferred value permits.

    cell: bit address in the region; ignored if it lies outside.
    """
    if cell < 0 or cell >= masks.words * 64:
        return
    one, zero = np.uint64(hazard < hazard_one), np.uint64(hazard < hazard_zero)
    if masks.prefers:
        address = cell + np.int64(masks.first_word) * 64
        owner = address // masks.row_cells if masks.row_cells else address
        prefers_zero = mix(masks.preference + np.uint64(owner)) >> np.uint64(63)
        one, zero = one & ~prefers_zero, zero & prefers_zero
    words_at(masks.to_one_ptr, masks.words)[cell >> 6] |= one << np.uint64(cell & 63)
    words_at(masks.to_zero_ptr, masks.words)[cell >> 6] |= zero << np.uint64(cell & 63)


@compiled
def hit_groups(target, shells, stream, groups, hazards):  # type: ignore[no-untyped-def]
    """Mark the cells of each group that were hit below the group's hazards (to one, to zero)."""
    masks, table_ptr = _open_masks(target, stream), data_ptr(shells.table)
    begin = np.int64(target.first_word) * 64
    for k in range(groups.numbers.size):
        to_one, to_zero = hazards[0][k], hazards[1][k]
        if to_one == np.inf or to_zero == np.inf:
            all_one, all_zero = np.float64(to_one == np.inf), np.float64(to_zero == np.inf)
            for i in range(groups.cells):
                _mark(masks, groups.base[k] + i * groups.stride - begin, 0.0, all_one, all_zero)
        highest = max(to_one if to_one < np.inf else 0.0, to_zero if to_zero < np.inf else 0.0)
        group_stream = child_stream(child_stream(stream, np.uint64(GROUP)), np.uint64(groups.numbers[k]))
        for shell in range(shells.lows.size):
            low, width = EDGES[shell], EDGES[shell + 1] - EDGES[shell]
            if low >= highest:
                break
            word, state = next_word(start(child_stream(group_stream, np.uint64(shell))))
            for _ in range(poisson_count(word, shells.lows[shell], shells.firsts[shell], shells.firsts[shell + 1], table_ptr)):
                word, state = next_word(state)
                cell = np.int64(np.float64(word >> np.uint64(11)) * 2.0**-53 * groups.cells)
                word, state = next_word(state)
                hazard = low + width * (np.float64(word >> np.uint64(11)) * 2.0**-53)
                _mark(masks, groups.base[k] + cell * groups.stride - begin, hazard, to_one, to_zero)
