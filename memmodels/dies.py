"""Weak cells of a die, nested over the operating point, without a list of cells.

A cell's failure is its first hit in a Poisson process over hazard: at failure probability p it fails iff it was hit below
lambda = -ln(1 - p). The hazard axis is cut into fixed shells (edges 0, 2^-20, 2^-19, ... 2^6); the hits of one shell in one
block are drawn together, addressed by (die, term, block, shell), so a sweep sees the same cells fail in the same order whatever
its points are, and only the shells below lambda are ever drawn. A cell's preferred value is a random bit of its address.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import numpy.typing as npt

from memmodels.address import BLOCK_BITS, BLOCK_WORDS, Words
from memmodels.rates import poisson_table
from memmodels.sampler import _poisson, blocks_of
from memmodels.streams import mix, name_stream, next_word, start
from memmodels.terms import Cells, ErrorTerm

_FIRST_EDGE, _LAST_EDGE = -20, 6
EDGES = np.array([0.0, *(math.ldexp(1.0, e) for e in range(_FIRST_EDGE, _LAST_EDGE + 1))])
"""Edges of the hazard shells; part of the sampling format."""

_PREFERENCE = np.uint64(0x5EED)


def weak_cells(stream: np.uint64, first_word: int, words: int, term: ErrorTerm, reads: int = 1) -> tuple[Words, Words]:
    """Masks (to_one, to_zero) of the cells that read 1 though 0 is stored, and 0 though 1 is stored.

    stream: of the die and term (and of the write, for an ACCUMULATING term). reads: exposures that add up hazard.
    """
    to_one, to_zero = np.zeros(words, dtype=np.uint64), np.zeros(words, dtype=np.uint64)
    if term.cells is Cells.PREFER:
        total = term.p01 + term.p10
        hazard_one = hazard_zero = _hazard(total) * reads
        share = term.p01 / total if total else 0.0
    else:
        hazard_one, hazard_zero, share = _hazard(term.p01) * reads, _hazard(term.p10) * reads, -1.0
    if hazard_one or hazard_zero:
        lows, firsts, table = _shell_tables(max(h for h in (hazard_one, hazard_zero, 0.0) if h < math.inf))
        for block in blocks_of(first_word, words):
            _hit_block(stream, first_word, block, lows, firsts, table, hazard_one, hazard_zero, share, to_one, to_zero)
    return to_one, to_zero


def _hazard(p: float) -> float:
    """-ln(1 - p); a cell that is not certain to fail is at most 1 - 2^-53 likely to, so finite hazards end below the last edge."""
    return math.inf if p >= 1.0 else -math.log1p(-p)


def _shell_tables(highest: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Poisson tables of the shells below `highest`, concatenated."""
    shells = min(int(np.searchsorted(EDGES, highest, side="left")), EDGES.size - 1)
    tables = [poisson_table(BLOCK_BITS * float(EDGES[k + 1] - EDGES[k])) for k in range(shells)]
    lows = np.array([table.low for table in tables], dtype=np.int64)
    firsts = np.cumsum([0, *(len(table.cumulative) for table in tables)], dtype=np.int64)
    return lows, firsts, np.concatenate([np.empty(0, np.uint64), *(table.cumulative for table in tables)])


@numba.njit(cache=True, nogil=True)
def _hit_block(  # type: ignore[no-untyped-def]
    stream, first_word, block, lows, firsts, table, hazard_one, hazard_zero, share, to_one, to_zero
):
    """Mark the cells of one block that were hit below the hazards; share < 0 means that weak cells invert."""
    words = to_one.size
    begin = np.int64(block) * BLOCK_BITS - np.int64(first_word) * 64
    block_stream = name_stream(stream, np.uint64(block))
    preference = name_stream(stream, _PREFERENCE)
    threshold = share * 2.0**53
    if hazard_one == np.inf or hazard_zero == np.inf:
        all_one, all_zero = np.float64(hazard_one == np.inf), np.float64(hazard_zero == np.inf)
        for place in range(BLOCK_BITS):
            _mark(begin + place, 0.0, preference, all_one, all_zero, threshold, words, first_word, to_one, to_zero)
    state = np.empty(4, dtype=np.uint64)
    for shell in range(lows.size):
        start(state, name_stream(block_stream, np.uint64(shell)))
        low, width = EDGES[shell], EDGES[shell + 1] - EDGES[shell]
        for _ in range(_poisson(state, lows[shell], firsts[shell], firsts[shell + 1], table)):
            word = next_word(state)
            hazard = low + width * (np.float64(word >> np.uint64(16)) * 2.0**-48)
            address = begin + np.int64(word & np.uint64(0xFFFF))
            _mark(address, hazard, preference, hazard_one, hazard_zero, threshold, words, first_word, to_one, to_zero)


@numba.njit(cache=True, nogil=True)
def _mark(  # type: ignore[no-untyped-def]
    address, hazard, preference, hazard_one, hazard_zero, threshold, words, first_word, to_one, to_zero
):
    """Mark cell `address` of the region (if it is one) as weak towards the values that its hazard and preference say."""
    if address < 0 or address >= words * 64:
        return
    bit = np.uint64(1) << np.uint64(address & 63)
    one, zero = hazard < hazard_one, hazard < hazard_zero
    if threshold >= 0.0:
        word = mix(preference + np.uint64(address + np.int64(first_word) * 64))
        prefers_one = np.float64(word >> np.uint64(11)) < threshold
        one, zero = one and prefers_one, zero and not prefers_one
    if one:
        to_one[address >> 6] |= bit
    if zero:
        to_zero[address >> 6] |= bit


assert BLOCK_WORDS * 64 == BLOCK_BITS
