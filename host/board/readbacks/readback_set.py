"""The records of read-backs, of artefacts in them, and read-backs as arrays of bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.host.board.characterization.points import Outcome
from weakcell.memmodels.address import Words
from weakcell.memmodels.error_model.structure import Bank
from weakcell.memmodels.memory import Basis

Bits = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
WIDTHS = tuple(1 << k for k in range(3, 17))
"""Word widths in which lanes are searched, in bits: 8 … 65,536."""
FEWEST_CELLS = 32
"""Smallest group of cells, or array of words, that is judged."""


@dataclass(frozen=True, eq=False)
class PatternReadback:
    """What was written and read with one pattern at one operating point.

    Attributes:
        vdd: voltage while low, in V.
        dwell_s: time at that voltage, in s.
        pattern: its name.
        outcome: how the measurement ended.
        written: (words,) uint64.
        errors: (reads, words) uint64, read XOR written; None where nothing was counted.
        celsius: temperatures of the die by its own sensor, in °C; empty if unknown.
    """

    vdd: float
    dwell_s: float
    pattern: str
    outcome: Outcome
    written: Words
    errors: Words | None
    celsius: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class ReadbackSet:
    """All read-backs of one array of cells, taken by a board here or imported.

    Attributes:
        title: of tables and figures.
        experiment: what happened while the voltage was low.
        bits: number of cells.
        bank: rows and columns of a bank, in storage addresses; with `stripes`, of all banks that share a stripe.
        stripes: banks over which consecutive words of 32 bits are spread; 1 if unknown.
        measured: the read-backs.
        nominal: nominal voltage in V, None if unknown.
        basis: `measured`, or `computed` if the cells were simulated.
        source, notes: text for people.
    """

    title: str
    experiment: str
    bits: int
    bank: Bank
    measured: tuple[PatternReadback, ...]
    nominal: float | None = None
    basis: Basis = "measured"
    source: str = ""
    notes: str = ""
    stripes: int = 1

    def arrange(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return one value per cell, in storage order, as (stripe groups, rows, columns); cells that were not read are 0.

        The banks of a stripe lie side by side, each with its own columns.
        """
        rows, columns = self.bank.rows, self.bank.columns
        whole = np.zeros(-(-values.size // (rows * columns)) * rows * columns, values.dtype)
        whole[: values.size] = values
        if self.stripes == 1:
            return whole.reshape(-1, rows, columns)
        return whole.reshape(-1, columns // (32 * self.stripes), self.stripes, 32).swapaxes(1, 2).reshape(-1, rows, columns)


@dataclass(frozen=True, eq=False)
class Artefact:
    """Something in read-backs that is not a failing cell.

    Attributes:
        kind: see `artefacts`.
        text: what it is, where and how large.
        cells: (words,) uint64, the cells to leave out; None: all count.
        law_only: the cells are left out of the law and count in the rates.
        no_law: why no law over the voltage can be fitted; empty if one can.
    """

    kind: str
    text: str
    cells: Words | None = None
    law_only: bool = False
    no_law: str = ""


class ErredCells(NamedTuple):
    """The cells that erred at one voltage and dwell, over all patterns and reads.

    Attributes:
        vdd: voltage, in V.
        held: (2, words) uint64, cells that held 0, and 1.
        erred: (2, words) uint64, those of them that erred at any read.
    """

    vdd: float
    held: Words
    erred: Words


def list_erred_cells(counted: Sequence[PatternReadback]) -> list[ErredCells]:
    """List the erred cells of each voltage and dwell, the highest voltage first."""
    points = []
    for vdd, dwell in sorted({(one.vdd, one.dwell_s) for one in counted}, reverse=True):
        held, erred = np.zeros((2, 2, counted[0].written.size), np.uint64)
        for one in counted:
            if (one.vdd, one.dwell_s) == (vdd, dwell):
                ever = ever_erred(one)
                held |= np.stack([~one.written, one.written])
                erred |= np.stack([ever & ~one.written, ever & one.written])
        points.append(ErredCells(vdd, held, erred))
    return points


def ever_erred(one: PatternReadback) -> Words:
    """Return the cells that erred at any read, (words,) uint64."""
    assert one.errors is not None
    ever: Words = np.bitwise_or.reduce(one.errors, axis=0)
    return ever


def unpack_words(words: Words, bits: int) -> Bits:
    """Return the first `bits` bits of uint64 words, one per element."""
    return np.unpackbits(words.view(np.uint8), bitorder="little")[:bits]


def pack_bits(bits: npt.NDArray[np.bool_], words: int) -> Words:
    """Return bits as (words,) uint64, filled up with zeros."""
    padded = np.zeros(words * 64, np.uint8)
    padded[: bits.size] = bits
    return np.packbits(padded, bitorder="little").view("<u8").astype(np.uint64)


def count_noun(count: int, noun: str) -> str:
    """Return `1 bit`, `2 bits`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_ranges(numbers: Any) -> str:
    """Format ascending numbers as ranges, shortened: 0, 8-15, 63 …"""
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    shown = [f"{part[0]}" if part.size == 1 else f"{part[0]}-{part[-1]}" for part in parts[:8]]
    return f"{', '.join(shown)}{' …' if len(parts) > 8 else ''}"
