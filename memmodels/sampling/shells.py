"""Hazard shells of a die, and the records that `dies.py` and its compiled part share. Nothing here needs Numba."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.address import Words

_FIRST_EDGE, _LAST_EDGE = -20, 6
EDGES = np.array([0.0, *(math.ldexp(1.0, e) for e in range(_FIRST_EDGE, _LAST_EDGE + 1))])
"""Edges of the hazard shells; part of the sampling format."""

GROUP = 0x6702
"""Names the streams of cells that fail in groups."""


class Target(NamedTuple):
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


class Shells(NamedTuple):
    """Poisson tables of the hits in each hazard shell: offsets, and entries firsts[k]..firsts[k + 1] of `table`."""

    lows: npt.NDArray[np.int64]
    firsts: npt.NDArray[np.int64]
    table: npt.NDArray[np.uint64]
