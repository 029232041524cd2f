"""What goes wrong in a memory: error terms. A technology at an operating point is a tuple of them; they act one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from weakcell.memmodels.error_model.structure import Lines, Shared


class Lifetime(StrEnum):
    """How long an error stays what it is."""

    DIE = "die"
    """The cell is weak for ever. Nested: a cell that fails at some rate fails at every higher one."""
    WRITE = "write"
    """Drawn once per write, the same at every read until the next write."""
    READ = "read"
    """Drawn at each read."""
    ACCUMULATING = "accumulating"
    """A state that grows with time or with reads until it is rewritten; nested in the exposure."""


class Cells(StrEnum):
    """Which stored values a weak cell spoils."""

    PREFER = "prefer"
    """It has a preferred value and errs only if the other is stored: cells preferring 1 and 0 are disjoint sets."""
    INVERT = "invert"
    """The same cell errs on both values."""


@dataclass(frozen=True)
class ErrorTerm:
    """One cause of bit errors at one operating point.

    p01 = P(read 1 | stored 0) and p10 = P(read 0 | stored 1), each in [0, 1], per bit and per draw (per read where exposure is
    `reads`). With lifetime DIE and `cells=prefer` they are the densities of cells that prefer 1 and 0, so p01 + p10 <= 1.

    only_switched: a WRITE term that can spoil only bits whose write changes them; the cell then keeps its old value.
    fails: the share of reads at which a weak cell of lifetime DIE really fails (EDEN's F; p01 and p10 are its P).
    structure: what makes cells fail together; None for independent cells.
    preference: `cell`, each cell has its own preferred value, half of them 1; `row`, all cells of a row have the same (true and
    anti-cells of a DRAM); `zero` or `one`, all cells prefer that value, and the other rate is 0.
    exposure, redrawn: what an ACCUMULATING term grows with (p01 and p10 are per read, or already contain the time), and whether
    each write draws its weak cells anew or they are the die's own.
    """

    name: str
    lifetime: Lifetime
    p01: float
    p10: float
    cells: Cells = Cells.PREFER
    only_switched: bool = False
    fails: float = 1.0
    structure: Shared | Lines | None = None
    preference: Literal["cell", "row", "zero", "one"] = "cell"
    exposure: Literal["reads", "time"] = "reads"
    redrawn: bool = True

    def __post_init__(self) -> None:
        if not (0.0 <= self.p01 <= 1.0 and 0.0 <= self.p10 <= 1.0 and 0.0 <= self.fails <= 1.0):
            raise ValueError(f"{self.name}: p01={self.p01}, p10={self.p10} and fails={self.fails} must lie in [0, 1]")
        if self.fixed_preference and self.p01 + self.p10 > 1.0:
            raise ValueError(f"{self.name}: p01 + p10 = {self.p01 + self.p10} > 1, but no cell can prefer both values")
        if self.only_switched and self.lifetime is not Lifetime.WRITE:
            raise ValueError(f"{self.name}: only_switched belongs to lifetime write")
        if self.fails < 1.0 and self.lifetime is not Lifetime.DIE:
            raise ValueError(f"{self.name}: fails belongs to lifetime die")
        if self.structure and self.lifetime in (Lifetime.READ, Lifetime.WRITE):
            raise ValueError(f"{self.name}: a structure belongs to weak cells (lifetime die or accumulating)")
        if {"zero": self.p01, "one": self.p10}.get(self.preference, 0.0) > 0.0:
            raise ValueError(f"{self.name}: all cells prefer {self.preference}, so they cannot err the other way")
        if self.grouped and self.halved and max(self.p01, self.p10) > 0.5:
            raise ValueError(f"{self.name}: half of the cells prefer each value, so p01 and p10 are at most 0.5 here")

    @property
    def fixed_preference(self) -> bool:
        """Whether a cell's preferred value is a property of the cell, not of the draw."""
        return self.cells is Cells.PREFER and self.lifetime in (Lifetime.DIE, Lifetime.ACCUMULATING)

    @property
    def halved(self) -> bool:
        """Whether only half of the cells can err in either direction."""
        return self.fixed_preference and self.preference in ("cell", "row")

    @property
    def grouped(self) -> bool:
        """Whether cells of a group have something in common."""
        return self.structure is not None or self.preference == "row"

    @property
    def drawn_at_read(self) -> bool:
        """Whether every read draws anew."""
        return self.lifetime is Lifetime.READ or self.fails < 1.0

    @property
    def rate(self) -> float:
        """The flip rate on random data, half of it zeros, averaged over reads."""
        return (self.p01 + self.p10) / 2 * self.fails

    def __str__(self) -> str:
        rates = f"{self.p01:.3g}" if self.p01 == self.p10 else f"p01={self.p01:.3g} p10={self.p10:.3g}"
        return f"{self.name} {rates} per {self.lifetime}"
