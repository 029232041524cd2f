"""What goes wrong in a memory: error terms. A technology at an operating point is a tuple of them; they act one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Lifetime(StrEnum):
    """How long an error stays what it is."""

    DIE = "die"
    """The cell is weak for ever. Nested: a cell that fails at some rate fails at every higher one."""
    WRITE = "write"
    """Drawn once per write, the same at every read until the next write."""
    READ = "read"
    """Drawn at each read."""
    ACCUMULATING = "accumulating"
    """A state that grows with reads until it is rewritten; nested in the number of reads since the write."""


class Cells(StrEnum):
    """Which stored values a weak cell spoils."""

    PREFER = "prefer"
    """It has a preferred value and errs only if the other is stored: cells preferring 1 and 0 are disjoint sets."""
    INVERT = "invert"
    """The same cell errs on both values."""


@dataclass(frozen=True)
class ErrorTerm:
    """One cause of bit errors at one operating point.

    p01 = P(read 1 | stored 0) and p10 = P(read 0 | stored 1), each in [0, 1], per bit and per draw (per read for ACCUMULATING).
    With lifetime DIE and `cells=prefer` they are the densities of cells that prefer 1 and 0, so p01 + p10 <= 1.
    only_switched: a WRITE term that can spoil only bits whose write changes them; the cell then keeps its old value.
    """

    name: str
    lifetime: Lifetime
    p01: float
    p10: float
    cells: Cells = Cells.PREFER
    only_switched: bool = False

    def __post_init__(self) -> None:
        if not (0.0 <= self.p01 <= 1.0 and 0.0 <= self.p10 <= 1.0):
            raise ValueError(f"{self.name}: p01={self.p01} and p10={self.p10} must lie in [0, 1]")
        if self.fixed_preference and self.p01 + self.p10 > 1.0:
            raise ValueError(f"{self.name}: p01 + p10 = {self.p01 + self.p10} > 1, but no cell can prefer both values")
        if self.only_switched and self.lifetime is not Lifetime.WRITE:
            raise ValueError(f"{self.name}: only_switched belongs to lifetime write")

    @property
    def fixed_preference(self) -> bool:
        """Whether a cell's preferred value is a property of the cell, not of the draw."""
        return self.cells is Cells.PREFER and self.lifetime in (Lifetime.DIE, Lifetime.ACCUMULATING)

    @property
    def rate(self) -> float:
        """The flip rate on random data, half of it zeros."""
        return (self.p01 + self.p10) / 2

    def __str__(self) -> str:
        rates = f"{self.p01:.3g}" if self.p01 == self.p10 else f"p01={self.p01:.3g} p10={self.p10:.3g}"
        return f"{self.name} {rates} per {self.lifetime}"
