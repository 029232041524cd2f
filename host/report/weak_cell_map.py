"""Weak-cell maps: cells of a die that err at every read, computed again from seed, die and memory.

Cells have the row and column of the memory's own structure; without one, rows of 256 cells are assumed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from weakcell.memmodels.address import BLOCK_BITS, BLOCK_WORDS
from weakcell.memmodels.catalogue import open_memory, parse_spec
from weakcell.memmodels.error_model.structure import Bank
from weakcell.memmodels.error_model.terms import ErrorTerm
from weakcell.memmodels.errors import WeakcellError
from weakcell.memmodels.protection.check_bits import Wrapper
from weakcell.memmodels.protection.wrappers import split_wrappers
from weakcell.memmodels.simulated import SimulatedMemory

CELLS = BLOCK_BITS
"""How many cells a map shows: the first ones of the array."""

MOST = 8
"""Maps in a report."""

_SQUARE = Bank(256, 256)


@dataclass(frozen=True, eq=False)
class WeakMap:
    """Weak cells of one die over the operating points at which it was used.

    Attributes:
        key: the swept condition.
        memory: SPEC of the first point.
        condition: the swept condition in words, with its unit; "": its key.
        points: (name, weak cells) of each, the fewest first.
        level: uint16 (rows, columns): at how many points a cell is weak. A cell that is weak at a point is weak at all later ones,
            so these are the last `level` points.
        arranged: whether the memory itself defines rows and columns.
    """

    name: str
    key: str | None
    points: tuple[tuple[str, int], ...]
    level: npt.NDArray[np.uint16]
    arranged: bool
    memory: str
    condition: str = ""

    @property
    def level_names(self) -> tuple[str, ...]:
        """Name of each level: the first point, by number of weak cells, at which the cell is weak."""
        return ("never", "always") if self.key is None else ("never", *(name for name, _ in reversed(self.points)))

    @property
    def scale_title(self) -> str:
        """Title of the colour scale."""
        return "weak" if self.key is None else f"weak from: {self.condition or self.key}"

    @property
    def caption(self) -> str:
        """Weak cells at each point, as a sentence."""
        return f"{self.name}: " + ", ".join(f"{count:,} at {point}" for point, count in reversed(self.points))

    def shrink_rows(self) -> tuple[npt.NDArray[np.uint16], int]:
        """Return at most 256 rows, each the maximum of neighbouring rows, and how many rows each stands for."""
        step = -(-len(self.level) // 256)
        rows = np.zeros((-(-len(self.level) // step) * step, self.level.shape[1]), dtype=np.uint16)
        rows[: len(self.level)] = self.level
        return rows.reshape(-1, step, rows.shape[1]).max(axis=1), step


def map_weak_cells(runs: pl.DataFrame) -> tuple[WeakMap, ...]:
    """Return a map of each memory with permanent weak cells, on the die of its first run; at most `MOST`."""
    maps: dict[object, WeakMap] = {}
    for study in runs["study"].unique(maintain_order=True):
        study_runs = runs.filter(pl.col("study") == study)
        points = study_runs.select("memory", "sweep_value").unique().sort("sweep_value").rows()
        seed, die, key = study_runs.select("seed", "die", "sweep_key").row(0)
        key_of_map = (tuple(points), seed, die)
        if key_of_map not in maps and len(maps) < MOST and (die_map := _build_map(str(study), points, seed, die, key)) is not None:
            maps[key_of_map] = die_map
    return tuple(maps.values())


def _build_map(study: str, points: list[tuple[str, float | None]], seed: int, die: int, key: str | None) -> WeakMap | None:
    points_seen, bank = [], None
    for memory, value in points:
        array = _open_array(memory, seed, die)
        if array is None:
            return None
        to_one, to_zero = array.permanent_weak_cells(BLOCK_WORDS)
        weak = np.unpackbits((to_one | to_zero).view(np.uint8), bitorder="little").astype(np.bool_)
        bank = bank or _find_bank(array)
        points_seen.append((int(weak.sum()), memory if value is None else f"{value:.6g}", weak))
    if points_seen[0][0] > points_seen[-1][0]:  # falling voltages
        points_seen.reverse()
    points_seen.sort(key=lambda entry: entry[0])
    if not points_seen[-1][0]:
        return None
    level = np.sum([weak for _, _, weak in points_seen], axis=0).astype(np.uint16)
    counts = tuple((name, count) for count, name, _ in points_seen)
    return WeakMap(f"{study}, die {die}", key, counts, _arrange(level, bank or _SQUARE), bank is not None, points[0][0])


def _open_array(memory: str, seed: int, die: int) -> SimulatedMemory | None:
    """Return the memory without its wrappers; None if it is not simulated or has no permanent weak cells."""
    try:
        spec = parse_spec(memory)
        where = split_wrappers(spec.name)[1]
        if ":" in where and not where.startswith("file:"):  # a board, a recording
            return None
        opened = open_memory(spec, seed, die)
    except WeakcellError:  # a profile's file that is not here any more
        return None
    while isinstance(opened, Wrapper):
        opened = opened.inner
    has_weak_cells = isinstance(opened, SimulatedMemory) and any(isinstance(t, ErrorTerm) and t.permanent for t in opened.terms)
    return opened if has_weak_cells and isinstance(opened, SimulatedMemory) else None


def _find_bank(array: SimulatedMemory) -> Bank | None:
    """Return the bank whose cells fail together, if the memory has one."""
    structures = (term.structure for term in array.terms if isinstance(term, ErrorTerm))
    return next((structure.bank for structure in structures if structure is not None), None)


def _arrange(level: npt.NDArray[np.uint16], bank: Bank) -> npt.NDArray[np.uint16]:
    """Arrange cells in rows and columns: banks side by side if several fit, else rows below each other, the last one padded."""
    size = bank.rows * bank.columns
    if bank.rows > 1 and CELLS % size == 0:
        return np.hstack(list(level.reshape(-1, bank.rows, bank.columns)))
    rows = np.zeros(-(-CELLS // bank.columns) * bank.columns, dtype=level.dtype)
    rows[:CELLS] = level
    return rows.reshape(-1, bank.columns)
