"""Weak cells of a die, nested over the operating point, without a list of cells.

A cell's failure is its first hit in a Poisson process over hazard: at failure probability f it fails iff it was hit below
lambda = -ln(1 - f). The hazard axis is cut into fixed shells (edges 0, 2^-20, 2^-19, ... 2^6). The hits of one shell in one block
are drawn together, addressed by (die, term, block, shell). So a sweep sees the same cells fail in the same order whatever its
points are, and only the shells below lambda are drawn.

A cell's preferred value is a fair random bit of its address, the same at every operating point. Cells that prefer 1 fail with
f = 2 p01, cells that prefer 0 with f = 2 p10: each set is nested in its own rate. If p01 > 1/2, cells that prefer 0 also become
weak towards 1, starting with the strongest (those that would fail last towards 0); likewise for p10.

Cells that share their preferred value in rows of at most 2^20 cells are drawn row by row (`weak_groups`). Longer rows are drawn
like independent cells; only the preferred value is the row's.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.address import BLOCK_BITS, BLOCK_WORDS, Words
from weakcell.memmodels.compilation import compiled
from weakcell.memmodels.error_model.structure import Bank, Shared, find_groups
from weakcell.memmodels.error_model.terms import ErrorTerm
from weakcell.memmodels.sampling.pointers import data_ptr, words_at
from weakcell.memmodels.sampling.rates import poisson_table
from weakcell.memmodels.sampling.read_errors import poisson_count, touched_blocks
from weakcell.memmodels.sampling.streams import child_stream, derive_stream, mix, next_word, start

assert BLOCK_WORDS * 64 == BLOCK_BITS

_FIRST_EDGE, _LAST_EDGE = -20, 6
EDGES = np.array([0.0, *(math.ldexp(1.0, e) for e in range(_FIRST_EDGE, _LAST_EDGE + 1))])
"""Edges of the hazard shells; part of the sampling format."""

_PREFERENCE = np.uint64(0x5EED)
_GROUP = 0x6702
_LONGEST_ROW = 1 << 20
"""Cells of the longest row that is drawn as a whole; part of the sampling format."""


class _Target(NamedTuple):
    """The region whose weak cells are marked.

    Attributes:
        first_word: First word of the region in its memory.
        to_one, to_zero: The masks, (words,) uint64.
        prefers: Whether a cell is weak only towards the value it prefers.
        row_cells: Cells of a row that share a preferred value; 0 if every cell has its own.
    """

    first_word: int
    to_one: Words
    to_zero: Words
    prefers: bool
    row_cells: int = 0


class _Masks(NamedTuple):
    """A `_Target` by address; `preference` is the stream of the preferred values."""

    first_word: int
    words: int
    to_one_ptr: int
    to_zero_ptr: int
    prefers: bool
    row_cells: int
    preference: int


class _Shells(NamedTuple):
    """Poisson tables of the hits in each hazard shell: offsets, and entries firsts[k]..firsts[k + 1] of `table`."""

    lows: npt.NDArray[np.int64]
    firsts: npt.NDArray[np.int64]
    table: npt.NDArray[np.uint64]


def weak_cells(stream: np.uint64, first_word: int, words: int, term: ErrorTerm, reads: int = 1) -> tuple[Words, Words]:
    """Return masks (to_one, to_zero) of the weak cells of a region.

    Args:
        stream: Of the die and term (and of the write, for an ACCUMULATING term that is resampled).
        first_word: First word of the region in its memory.
        words: Words of the region.
        term: An error term of lifetime DIE or ACCUMULATING.
        reads: Exposures that add up hazard.

    Returns:
        Two (words,) uint64 masks: cells that read 1 though 0 is stored, and cells that read 0 though 1 is stored.
    """
    if term.grouped and not _row_cells(term) > _LONGEST_ROW:
        return weak_groups(stream, first_word, words, term, reads)
    p01, p10 = term.p01, term.p10
    if not term.halved:
        return _hit_cells(stream, first_word, words, (_hazard(p01) * reads, _hazard(p10) * reads), False)
    if reads > 1 and p01 + p10 > 0.0:
        total = -math.expm1(-_hazard(min(p01 + p10, 1.0)) * reads)
        p01, p10 = total * (p01 / (p01 + p10)), total * (p10 / (p01 + p10))
    to_one, to_zero = _hit_cells(stream, first_word, words, (_hazard(2.0 * p01), _hazard(2.0 * p10)), True, _row_cells(term))
    if p01 > 0.5:
        to_one = ~_hit_cells(stream, first_word, words, (0.0, _hazard(2.0 * (1.0 - p01))), True)[1]
    if p10 > 0.5:
        to_zero = ~_hit_cells(stream, first_word, words, (_hazard(2.0 * (1.0 - p10)), 0.0), True)[0]
    return to_one, to_zero


def _row_cells(term: ErrorTerm) -> int:
    """Return how many cells share a preferred value and nothing else; 0 if every cell has its own."""
    alone = term.preference == "row" and isinstance(term.structure, Shared) and term.structure.share == 0.0
    return term.structure.bank.columns if alone and term.structure is not None else 0


def _hit_cells(
    stream: np.uint64, first_word: int, words: int, hazards: tuple[float, float], prefers: bool, row_cells: int = 0
) -> tuple[Words, Words]:
    """Return masks of the cells that were hit below the two hazards; without `prefers`, both masks draw from the same hits."""
    target = _Target(first_word, np.zeros(words, dtype=np.uint64), np.zeros(words, dtype=np.uint64), prefers, row_cells)
    if any(hazards):
        shells = _tabulate_shells(max(h for h in (*hazards, 0.0) if h < math.inf))
        for block in touched_blocks(first_word, words):
            _hit_block(target, shells, stream, block, hazards)
    return target.to_one, target.to_zero


def _hazard(p: float) -> float:
    """Return -ln(1 - p). For p < 1 it is at most 53 ln 2, below the last edge."""
    return math.inf if p >= 1.0 else -math.log1p(-p)


def _tabulate_shells(highest: float, cells: int = BLOCK_BITS) -> _Shells:
    """Return the Poisson tables of the hits of `cells` cells in the shells below `highest`."""
    shells = min(int(np.searchsorted(EDGES, highest, side="left")), EDGES.size - 1)
    tables = [poisson_table(cells * float(EDGES[k + 1] - EDGES[k])) for k in range(shells)]
    lows = np.array([table.low for table in tables], dtype=np.int64)
    firsts = np.cumsum([0, *(len(table.cumulative) for table in tables)], dtype=np.int64)
    return _Shells(lows, firsts, np.concatenate([np.empty(0, np.uint64), *(table.cumulative for table in tables)]))


@compiled
def _open_masks(target, stream):  # type: ignore[no-untyped-def]
    to_one_ptr, to_zero_ptr, preference = data_ptr(target.to_one), data_ptr(target.to_zero), child_stream(stream, _PREFERENCE)
    return _Masks(target.first_word, target.to_one.size, to_one_ptr, to_zero_ptr, target.prefers, target.row_cells, preference)


@compiled
def _hit_block(target, shells, stream, block, hazards):  # type: ignore[no-untyped-def]
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


def weak_groups(stream: np.uint64, first_word: int, words: int, term: ErrorTerm, reads: int = 1) -> tuple[Words, Words]:
    """Return the masks of `weak_cells` for cells that fail in groups: each group is drawn up to its own hazard.

    A group's hits are addressed by (die, term, group, shell), two random words each: the cell of the group, and the hazard.
    """
    axis, bank = (term.structure.axis, term.structure.bank) if term.structure else ("row", Bank())
    groups = find_groups(axis, bank, first_word * 64, words * 64)
    scale = 2.0 if term.halved else 1.0
    by_rate = {p: _group_hazards(stream, term, scale * p, groups.numbers) * reads for p in {term.p01, term.p10}}
    hazards = (by_rate[term.p01], by_rate[term.p10])
    row_cells = bank.columns if term.halved and term.preference == "row" else 0
    target = _Target(first_word, np.zeros(words, np.uint64), np.zeros(words, np.uint64), term.halved, row_cells)
    finite = [h[np.isfinite(h)] for h in hazards]
    shells = _tabulate_shells(max([0.0, *(float(h.max()) for h in finite if h.size)]), groups.cells)
    if max(h.max() for h in hazards) > 0.0:
        _hit_groups(target, shells, stream, groups, hazards)
    return target.to_one, target.to_zero


def _group_hazards(stream: np.uint64, term: ErrorTerm, rate: float, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the hazard of each group at a marginal rate."""
    if term.structure is None or rate == 0.0:
        return np.full(numbers.size, _hazard(rate))
    rates = term.structure.group_rates(rate, derive_stream(int(stream), _GROUP), numbers)
    with np.errstate(divide="ignore"):
        hazards: npt.NDArray[np.float64] = -np.log1p(-np.minimum(rates, 1.0))
    return hazards


@compiled
def _hit_groups(target, shells, stream, groups, hazards):  # type: ignore[no-untyped-def]
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
        group_stream = child_stream(child_stream(stream, np.uint64(_GROUP)), np.uint64(groups.numbers[k]))
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
