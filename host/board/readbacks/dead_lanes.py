"""Find lanes, columns, rows and banks in which nearly all cells, or a fixed share, are wrong at every voltage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.host.board.readbacks.readback_set import (
    WIDTHS,
    Artefact,
    Bits,
    ErredCells,
    Floats,
    ReadbackSet,
    count_noun,
    format_ranges,
    pack_bits,
    unpack_words,
)
from weakcell.memmodels.address import Words

_DEAD, _FLOATING, _STEADY = 0.9, 0.4, 0.1
"""Shares of a lane's cells that err at every voltage: of a dead lane, of a floating one, and how much the latter may vary."""

_FEWEST_HELD = 64
"""Smallest number of cells of a group that held a value, for the group to be judged by that value."""


class _Division(NamedTuple):
    """A way to divide cells into groups.

    Attributes:
        name: lane, column, row or bank.
        width: bits of a word, for lanes.
        shape, axes: the groups are the sums over `axes` of an array of this shape.
    """

    name: str
    width: int
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    def sums(self, cells: Bits) -> npt.NDArray[np.int64]:
        """Return the number of set cells of each group."""
        size = int(np.prod(self.shape[1:]))
        whole = np.zeros(self.shape[0] * size, np.uint8)
        whole[: cells.size] = cells
        counted: npt.NDArray[np.int64] = whole.reshape(self.shape).sum(axis=self.axes, dtype=np.int64)
        return counted

    def cells(self, groups: npt.NDArray[np.bool_], bits: int) -> npt.NDArray[np.bool_]:
        """Return the cells of the chosen groups, (bits,) bool."""
        selected = np.broadcast_to(np.expand_dims(groups, self.axes), self.shape)
        return np.ascontiguousarray(selected).reshape(-1)[:bits]


def _divisions(readbacks: ReadbackSet) -> list[_Division]:
    """List the divisions: words from small to large, then columns, rows and banks."""
    bits, bank = readbacks.bits, readbacks.bank
    divisions = [_Division("lane", w, (-(-bits // w), w), (0,)) for w in WIDTHS if bits >= _FEWEST_HELD * w]
    size = bank.rows * bank.columns
    shape = (-(-bits // size), bank.rows, bank.columns)
    for name, axes, cells in (("column", (1,), bank.rows), ("row", (2,), bank.columns), ("bank", (1, 2), size)):
        if _FEWEST_HELD <= cells <= bits // 2 and size <= 16 * bits:
            divisions.append(_Division(name, bank.columns, shape, axes))
    return divisions


def find_dead_lanes(readbacks: ReadbackSet, conditions: Sequence[ErredCells], among: Words, *, floating: bool) -> list[Artefact]:
    """Find groups of cells that are wrong at every voltage, the smallest words first.

    Cells of a group that was found are not judged again.

    Args:
        readbacks: gives the number of cells and the geometry.
        conditions: all voltages, the highest first.
        among: (words,) uint64, the cells to judge.
        floating: find groups of which a fixed share is wrong, instead of nearly all cells.
    """
    bits = readbacks.bits
    if not (conditions[0].erred & among).any():
        return []
    places = sorted({0, len(conditions) // 3, 2 * len(conditions) // 3, len(conditions) - 1})
    selected, divisions = [conditions[place] for place in places], _divisions(readbacks)
    remaining, artefacts = unpack_words(among, bits).copy(), []
    rates = _group_rates(selected, divisions, remaining)
    for number, division in enumerate(divisions):
        dead = [_dead(rates[number][:, value], floating) for value in (0, 1)]
        if not np.any(dead):
            continue
        cells = division.cells(dead[0] | dead[1], bits) & (remaining != 0)
        remaining[cells] = 0
        text = _dead_text(division, dead, int(cells.sum()), bits, len(conditions))
        artefacts.append(Artefact("dead lane", text, pack_bits(cells, among.size)))
        rates = _group_rates(selected, divisions, remaining)
    return artefacts


def _group_rates(conditions: Sequence[ErredCells], divisions: Sequence[_Division], remaining: Bits) -> list[Floats]:
    """Return shares of cells that erred, for each division: (conditions, value held, groups).

    NaN where too few cells held the value.
    """
    by_division: list[list[list[Floats]]] = [[] for _ in divisions]
    for one in conditions:
        for value in (0, 1):
            held, erred = (unpack_words(words[value], remaining.size) & remaining for words in (one.held, one.erred))
            wide: dict[str, npt.NDArray[np.int64]] = {}
            for division, rates in zip(reversed(divisions), reversed(by_division), strict=True):
                counts = []
                for label, cells in (("held", held), ("erred", erred)):
                    if division.name == "lane" and label in wide:
                        counts.append(wide[label].reshape(-1, division.width).sum(axis=0))
                    else:
                        counts.append(division.sums(cells))
                    if division.name == "lane":
                        wide[label] = counts[-1]
                rate = np.where(counts[0] >= _FEWEST_HELD, counts[1] / np.maximum(counts[0], 1), np.nan)
                if value == 0:
                    rates.append([])
                rates[-1].append(rate)
    return [np.array(rates) for rates in by_division]


def _dead(rates: Floats, floating: bool) -> npt.NDArray[np.bool_]:
    """Return which groups are wrong at every voltage while most are not.

    floating: a fixed share of their cells, instead of nearly all.
    """
    measured = rates[[bool(np.isfinite(row).any()) for row in rates]]
    known: npt.NDArray[np.bool_] = np.asarray(np.isfinite(measured).all(axis=0))
    if not measured.size or not known.any():
        return np.zeros(rates.shape[1:], bool)
    highest, usual = measured[0], float(np.median(measured[0][known]))
    with np.errstate(invalid="ignore"):
        steady = (np.abs(measured - highest).max(axis=0) <= _STEADY) & (len(measured) > 1)
        matches = (highest >= _FLOATING) & steady if floating else (measured >= _DEAD).all(axis=0)
        dead: npt.NDArray[np.bool_] = np.asarray(known & matches & (highest > 4.0 * usual))
    return dead if 2 * dead.sum() <= known.sum() else np.zeros_like(dead)


def _dead_text(division: _Division, dead: Sequence[npt.NDArray[np.bool_]], cells: int, bits: int, points: int) -> str:
    numbers = np.flatnonzero(dead[0] | dead[1])
    if division.name == "lane":
        what = f"{count_noun(numbers.size, 'bit')} of every {division.width} ({format_ranges(numbers)})"
    else:
        what = f"{count_noun(numbers.size, division.name)} of the assumed banks ({format_ranges(numbers)})"
    held = " or ".join(str(value) for value in (0, 1) if dead[value].any())
    where = f"at all {points} operating points, whatever the voltage" if points > 1 else "at the one operating point"
    return (
        f"{what} came back wrong where {held} was stored, {where} ({cells} of {bits} cells, {100 * cells / bits:.3g} %): "
        "a dead lane, no weak cells. Left out of all rates and of the fit"
    )
