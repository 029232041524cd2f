"""What no cell that fails is: the record of it, and read-backs as bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.address import Words

if TYPE_CHECKING:
    from weakcell.host.board.readbacks.analysis import Measured

Bits = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
WIDTHS = tuple(1 << k for k in range(3, 17))
"""Widths of a word in bits that lanes are looked for in: 8 … 65,536."""
FEWEST_CELLS = 32
"""Cells of a group, or words of an array, that something can be said about."""


@dataclass(frozen=True, eq=False)
class Artefact:
    """Something that is no failing cell. cells: those that do not count, None if all do. law_only: they count in rates.

    no_law: why there can be no law over the voltage.
    """

    kind: str
    text: str
    cells: Words | None = None
    law_only: bool = False
    no_law: str = ""


class Condition(NamedTuple):
    """One voltage and dwell: cells that held 0, 1 and those of them that erred at any read, as (2, words)."""

    vdd: float
    held: Words
    erred: Words


def conditions_of(counted: Sequence[Measured]) -> list[Condition]:
    """All voltages and dwells with counts, the highest voltage first."""
    conditions = []
    for vdd, dwell in sorted({(one.vdd, one.dwell_s) for one in counted}, reverse=True):
        held, erred = np.zeros((2, 2, counted[0].written.size), np.uint64)
        for one in counted:
            if (one.vdd, one.dwell_s) == (vdd, dwell):
                ever = ever_erred(one)
                held |= np.stack([~one.written, one.written])
                erred |= np.stack([ever & ~one.written, ever & one.written])
        conditions.append(Condition(vdd, held, erred))
    return conditions


def ever_erred(one: Measured) -> Words:
    """The cells that erred at any read."""
    assert one.errors is not None
    ever: Words = np.bitwise_or.reduce(one.errors, axis=0)
    return ever


def bits_of(words: Words, bits: int) -> Bits:
    return np.unpackbits(words.view(np.uint8), bitorder="little")[:bits]


def words_of(bits: npt.NDArray[np.bool_], words: int) -> Words:
    padded = np.zeros(words * 64, np.uint8)
    padded[: bits.size] = bits
    return np.packbits(padded, bitorder="little").view("<u8").astype(np.uint64)


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def ranges(numbers: Any) -> str:
    """Numbers as ranges, shortened: 0, 8-15, 63 …"""
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    shown = [f"{part[0]}" if part.size == 1 else f"{part[0]}-{part[-1]}" for part in parts[:8]]
    return f"{', '.join(shown)}{' …' if len(parts) > 8 else ''}"
