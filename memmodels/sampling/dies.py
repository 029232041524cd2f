"""Weak cells of a die, nested over the operating point, without a list of cells.

A cell's failure is its first hit in a Poisson process over hazard: at failure probability f it fails iff it was hit below
lambda = -ln(1 - f). The hazard axis is cut into fixed shells (edges 0, 2^-20, 2^-19, ... 2^6); the hits of one shell in one
block are drawn together, addressed by (die, term, block, shell), so a sweep sees the same cells fail in the same order whatever
its points are, and only the shells below lambda are ever drawn.

A cell's preferred value is a fair random bit of its address, the same at every operating point, so the cells that prefer 1 fail
with f = 2 p01 and those that prefer 0 with f = 2 p10: each set is nested in its own rate, whatever the other does. Where one
density is above 1/2, the cells of the other preference join it, the last to fail in their own way first.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import numpy.typing as npt

from weakcell.memmodels.address import BLOCK_BITS, BLOCK_WORDS, Words
from weakcell.memmodels.error_model.structure import Bank, groups_of
from weakcell.memmodels.error_model.terms import ErrorTerm
from weakcell.memmodels.sampling.pointers import address_of, words_at
from weakcell.memmodels.sampling.rates import poisson_table
from weakcell.memmodels.sampling.sampler import blocks_of, poisson_count
from weakcell.memmodels.sampling.streams import mix, name_stream, next_word, start, stream_of

_FIRST_EDGE, _LAST_EDGE = -20, 6
EDGES = np.array([0.0, *(math.ldexp(1.0, e) for e in range(_FIRST_EDGE, _LAST_EDGE + 1))])
"""Edges of the hazard shells; part of the sampling format."""

_PREFERENCE = np.uint64(0x5EED)
_GROUP = 0x6702


def weak_cells(stream: np.uint64, first_word: int, words: int, term: ErrorTerm, reads: int = 1) -> tuple[Words, Words]:
    """Masks (to_one, to_zero) of the cells that read 1 though 0 is stored, and 0 though 1 is stored.

    stream: of the die and term (and of the write, for an ACCUMULATING term). reads: exposures that add up hazard.
    """
    if term.grouped:
        return weak_groups(stream, first_word, words, term, reads)
    p01, p10 = term.p01, term.p10
    if not term.halved:
        return _hit_cells(stream, first_word, words, _hazard(p01) * reads, _hazard(p10) * reads, False)
    if reads > 1 and p01 + p10 > 0.0:
        total = -math.expm1(-_hazard(min(p01 + p10, 1.0)) * reads)
        p01, p10 = total * (p01 / (p01 + p10)), total * (p10 / (p01 + p10))
    to_one, to_zero = _hit_cells(stream, first_word, words, _hazard(2.0 * p01), _hazard(2.0 * p10), True)
    if p01 > 0.5:
        to_one = ~_hit_cells(stream, first_word, words, 0.0, _hazard(2.0 * (1.0 - p01)), True)[1]
    if p10 > 0.5:
        to_zero = ~_hit_cells(stream, first_word, words, _hazard(2.0 * (1.0 - p10)), 0.0, True)[0]
    return to_one, to_zero


def _hit_cells(
    stream: np.uint64, first_word: int, words: int, hazard_one: float, hazard_zero: float, prefer: bool
) -> tuple[Words, Words]:
    """The cells that were hit below the two hazards; prefer: only those that prefer 1 and 0, else the same cells twice."""
    to_one, to_zero = np.zeros(words, dtype=np.uint64), np.zeros(words, dtype=np.uint64)
    if hazard_one or hazard_zero:
        lows, firsts, table = _shell_tables(max(h for h in (hazard_one, hazard_zero, 0.0) if h < math.inf))
        for block in blocks_of(first_word, words):
            _hit_block(stream, first_word, block, lows, firsts, table, hazard_one, hazard_zero, prefer, to_one, to_zero)
    return to_one, to_zero


def _hazard(p: float) -> float:
    """-ln(1 - p); a cell that is not certain to fail is at most 1 - 2^-53 likely to, so finite hazards end below the last edge."""
    return math.inf if p >= 1.0 else -math.log1p(-p)


def _shell_tables(
    highest: float, cells: int = BLOCK_BITS
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Poisson tables of the hits of `cells` cells in the shells below `highest`, concatenated."""
    shells = min(int(np.searchsorted(EDGES, highest, side="left")), EDGES.size - 1)
    tables = [poisson_table(cells * float(EDGES[k + 1] - EDGES[k])) for k in range(shells)]
    lows = np.array([table.low for table in tables], dtype=np.int64)
    firsts = np.cumsum([0, *(len(table.cumulative) for table in tables)], dtype=np.int64)
    return lows, firsts, np.concatenate([np.empty(0, np.uint64), *(table.cumulative for table in tables)])


@numba.njit(cache=True, nogil=True)
def _hit_block(  # type: ignore[no-untyped-def]
    stream, first_word, block, lows, firsts, table, hazard_one, hazard_zero, prefer, to_one, to_zero
):
    """Mark the cells of one block that were hit below the hazards; prefer: towards the value they prefer only."""
    words, ones, zeros, entries = to_one.size, address_of(to_one), address_of(to_zero), address_of(table)
    begin = np.int64(block) * BLOCK_BITS - np.int64(first_word) * 64
    block_stream = name_stream(stream, np.uint64(block))
    preference = name_stream(stream, _PREFERENCE)
    if hazard_one == np.inf or hazard_zero == np.inf:
        all_one, all_zero = np.float64(hazard_one == np.inf), np.float64(hazard_zero == np.inf)
        for place in range(BLOCK_BITS):
            _mark(begin + place, 0.0, preference, all_one, all_zero, prefer, words, first_word, ones, zeros)
    for shell in range(lows.size):
        low, width = EDGES[shell], EDGES[shell + 1] - EDGES[shell]
        word, state = next_word(start(name_stream(block_stream, np.uint64(shell))))
        for _ in range(poisson_count(word, lows[shell], firsts[shell], firsts[shell + 1], entries)):
            word, state = next_word(state)
            hazard = low + width * (np.float64(word >> np.uint64(16)) * 2.0**-48)
            address = begin + np.int64(word & np.uint64(0xFFFF))
            _mark(address, hazard, preference, hazard_one, hazard_zero, prefer, words, first_word, ones, zeros)


@numba.njit(cache=True, nogil=True)
def _mark(  # type: ignore[no-untyped-def]
    address, hazard, preference, hazard_one, hazard_zero, prefer, words, first_word, to_one, to_zero
):
    """Mark cell `address` of the region (if it is one) as weak towards the values that its hazard and preference say.

    to_one, to_zero: addresses of the masks.
    """
    if address < 0 or address >= words * 64:
        return
    one, zero = np.uint64(hazard < hazard_one), np.uint64(hazard < hazard_zero)
    if prefer:
        prefers_zero = mix(preference + np.uint64(address + np.int64(first_word) * 64)) >> np.uint64(63)
        one, zero = one & ~prefers_zero, zero & prefers_zero
    words_at(to_one, words)[address >> 6] |= one << np.uint64(address & 63)
    words_at(to_zero, words)[address >> 6] |= zero << np.uint64(address & 63)


def weak_groups(stream: np.uint64, first_word: int, words: int, term: ErrorTerm, reads: int = 1) -> tuple[Words, Words]:
    """`weak_cells` for cells that fail in groups: hits are drawn group by group, each up to its own hazard.

    A group's hits are addressed by (die, term, group, shell), two random words each: the place in the group, and the hazard.
    """
    axis, bank = (term.structure.axis, term.structure.bank) if term.structure else ("row", Bank())
    groups = groups_of(axis, bank, first_word * 64, words * 64)
    prefer, scale = (True, 2.0) if term.halved else (False, 1.0)
    of_rate = {p: _group_hazards(stream, term, scale * p, groups.numbers) * reads for p in {term.p01, term.p10}}
    hazards = [of_rate[term.p01], of_rate[term.p10]]
    row_cells = bank.columns if prefer and term.preference == "row" else 0
    to_one, to_zero = np.zeros(words, dtype=np.uint64), np.zeros(words, dtype=np.uint64)
    finite = [h[np.isfinite(h)] for h in hazards]
    lows, firsts, table = _shell_tables(max([0.0, *(float(h.max()) for h in finite if h.size)]), groups.cells)
    if max(h.max() for h in hazards) > 0.0:
        _hit_groups(
            stream, first_word, groups.numbers, groups.base, groups.cells, groups.stride, hazards[0], hazards[1],
            lows, firsts, table, prefer, row_cells, to_one, to_zero,
        )  # fmt: skip
    return to_one, to_zero


def _group_hazards(stream: np.uint64, term: ErrorTerm, rate: float, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Hazard of each group at a marginal rate."""
    if term.structure is None or rate == 0.0:
        return np.full(numbers.size, _hazard(rate))
    rates = term.structure.group_rates(rate, stream_of(int(stream), _GROUP), numbers)
    with np.errstate(divide="ignore"):
        hazards: npt.NDArray[np.float64] = -np.log1p(-np.minimum(rates, 1.0))
    return hazards


@numba.njit(cache=True, nogil=True)
def _hit_groups(  # type: ignore[no-untyped-def]
    stream,
    first_word,
    numbers,
    base,
    cells,
    stride,
    hazards_one,
    hazards_zero,
    lows,
    firsts,
    table,
    prefer,
    row_cells,
    to_one,
    to_zero,
):
    """Mark the cells of each group that were hit below its hazards."""
    words, ones, zeros, entries = to_one.size, address_of(to_one), address_of(to_zero), address_of(table)
    begin = np.int64(first_word) * 64
    preference = name_stream(stream, _PREFERENCE)
    for k in range(numbers.size):
        one, zero = hazards_one[k], hazards_zero[k]
        if one == np.inf or zero == np.inf:
            all_one, all_zero = np.float64(one == np.inf), np.float64(zero == np.inf)
            for i in range(cells):
                address = base[k] + i * stride - begin
                _mark_grouped(address, 0.0, preference, all_one, all_zero, prefer, row_cells, words, first_word, ones, zeros)
        highest = max(one if one < np.inf else 0.0, zero if zero < np.inf else 0.0)
        group_stream = name_stream(name_stream(stream, np.uint64(_GROUP)), np.uint64(numbers[k]))
        for shell in range(lows.size):
            low, width = EDGES[shell], EDGES[shell + 1] - EDGES[shell]
            if low >= highest:
                break
            word, state = next_word(start(name_stream(group_stream, np.uint64(shell))))
            for _ in range(poisson_count(word, lows[shell], firsts[shell], firsts[shell + 1], entries)):
                word, state = next_word(state)
                place = np.int64(np.float64(word >> np.uint64(11)) * 2.0**-53 * cells)
                word, state = next_word(state)
                hazard = low + width * (np.float64(word >> np.uint64(11)) * 2.0**-53)
                address = base[k] + place * stride - begin
                _mark_grouped(address, hazard, preference, one, zero, prefer, row_cells, words, first_word, ones, zeros)


@numba.njit(cache=True, nogil=True)
def _mark_grouped(  # type: ignore[no-untyped-def]
    address, hazard, preference, hazard_one, hazard_zero, prefer, row_cells, words, first_word, to_one, to_zero
):
    """`_mark`, or the same with the preference of the cell's row."""
    if row_cells == 0:
        _mark(address, hazard, preference, hazard_one, hazard_zero, prefer, words, first_word, to_one, to_zero)
    elif 0 <= address < words * 64:
        row = (address + np.int64(first_word) * 64) // row_cells
        if (mix(preference + np.uint64(row)) >> np.uint64(63)) == 0:
            _mark(address, hazard, preference, hazard_one, 0.0, False, words, first_word, to_one, to_zero)
        else:
            _mark(address, hazard, preference, 0.0, hazard_zero, False, words, first_word, to_one, to_zero)


assert BLOCK_WORDS * 64 == BLOCK_BITS
