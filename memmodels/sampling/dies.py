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

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.address import BLOCK_BITS, BLOCK_WORDS, Words, touched_blocks
from weakcell.memmodels.error_model.structure import Bank, Shared, find_groups
from weakcell.memmodels.error_model.terms import ErrorTerm
from weakcell.memmodels.native.kernel_cache import Kernel
from weakcell.memmodels.sampling.rates import poisson_table
from weakcell.memmodels.sampling.shells import EDGES, GROUP, Shells, Target
from weakcell.memmodels.sampling.streams import derive_stream

assert BLOCK_WORDS * 64 == BLOCK_BITS

_hit_block = Kernel("weakcell.memmodels.sampling.die_kernels", "hit_block")
_hit_groups = Kernel("weakcell.memmodels.sampling.die_kernels", "hit_groups")
_LONGEST_ROW = 1 << 20
"""Cells of the longest row that is drawn as a whole; part of the sampling format."""


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
    target = Target(first_word, np.zeros(words, dtype=np.uint64), np.zeros(words, dtype=np.uint64), prefers, row_cells)
    if any(hazards):
        shells = _tabulate_shells(max(h for h in (*hazards, 0.0) if h < math.inf))
        for block in touched_blocks(first_word, words):
            _hit_block(target, shells, stream, block, hazards)
    return target.to_one, target.to_zero


def _hazard(p: float) -> float:
    """Return -ln(1 - p). For p < 1 it is at most 53 ln 2, below the last edge."""
    return math.inf if p >= 1.0 else -math.log1p(-p)


def _tabulate_shells(highest: float, cells: int = BLOCK_BITS) -> Shells:
    """Return the Poisson tables of the hits of `cells` cells in the shells below `highest`."""
    shells = min(int(np.searchsorted(EDGES, highest, side="left")), EDGES.size - 1)
    tables = [poisson_table(cells * float(EDGES[k + 1] - EDGES[k])) for k in range(shells)]
    lows = np.array([table.low for table in tables], dtype=np.int64)
    firsts = np.cumsum([0, *(len(table.cumulative) for table in tables)], dtype=np.int64)
    return Shells(lows, firsts, np.concatenate([np.empty(0, np.uint64), *(table.cumulative for table in tables)]))


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
    target = Target(first_word, np.zeros(words, np.uint64), np.zeros(words, np.uint64), term.halved, row_cells)
    finite = [h[np.isfinite(h)] for h in hazards]
    shells = _tabulate_shells(max([0.0, *(float(h.max()) for h in finite if h.size)]), groups.cells)
    if max(h.max() for h in hazards) > 0.0:
        _hit_groups(target, shells, stream, groups, hazards)
    return target.to_one, target.to_zero


def _group_hazards(stream: np.uint64, term: ErrorTerm, rate: float, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the hazard of each group at a marginal rate."""
    if term.structure is None or rate == 0.0:
        return np.full(numbers.size, _hazard(rate))
    rates = term.structure.group_rates(rate, derive_stream(int(stream), GROUP), numbers)
    with np.errstate(divide="ignore"):
        hazards: npt.NDArray[np.float64] = -np.log1p(-np.minimum(rates, 1.0))
    return hazards
