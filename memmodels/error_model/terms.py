"""Error terms: the causes of bit errors. A technology at an operating point is a tuple of terms, which act one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from weakcell.memmodels.error_model.structure import Lines, Shared


class Lifetime(StrEnum):
    """How long an error persists."""

    DIE = "die"
    """The cell is permanently weak. Nested: a cell that fails at some rate fails at every higher rate."""
    WRITE = "write"
    """Drawn once per write; the same at every read until the next write."""
    READ = "read"
    """Drawn at each read."""
    ACCUMULATING = "accumulating"
    """Grows with time or with reads until the next write; nested in the exposure."""


class Cells(StrEnum):
    """Which stored values a weak cell corrupts."""

    PREFER = "prefer"
    """It prefers one value and errs only if the other is stored. Cells that prefer 1 and 0 are disjoint sets."""
    INVERT = "invert"
    """The same cell errs on both values."""


@dataclass(frozen=True)
class ErrorTerm:
    """One cause of bit errors at one operating point.

    Probabilities are per bit and per draw: per read for lifetime READ and exposure `reads`, per write for WRITE. For lifetime
    DIE and `cells=prefer` they are the densities of cells that prefer 1 and 0, so p01 + p10 <= 1.

    Attributes:
        name: What goes wrong, for people.
        lifetime: How long an error persists.
        p01: P(read 1 | stored 0), in [0, 1].
        p10: P(read 0 | stored 1), in [0, 1].
        cells: Which stored values a weak cell corrupts.
        only_switched: WRITE only: just the bits that the write changes can fail, and the cell keeps its old value.
        failure_probability: DIE only: P(a weak cell fails at a read). EDEN's F; p01 and p10 are its P.
        structure: Groups of cells that fail together; None for independent cells.
        preference: `cell`: each cell has its own preferred value, half of them 1. `row`: all cells of a row share it (true
            cells and anti-cells of a DRAM). `zero`, `one`: all cells prefer that value, and the other rate is 0.
        exposure: ACCUMULATING only: what the errors grow with. `reads`: p01 and p10 are per read. `time`: they include the time.
        resampled: ACCUMULATING only: whether each write draws new weak cells; otherwise they belong to the die.
    """

    name: str
    lifetime: Lifetime
    p01: float
    p10: float
    cells: Cells = Cells.PREFER
    only_switched: bool = False
    failure_probability: float = 1.0
    structure: Shared | Lines | None = None
    preference: Literal["cell", "row", "zero", "one"] = "cell"
    exposure: Literal["reads", "time"] = "reads"
    resampled: bool = True

    def __post_init__(self) -> None:
        if not (0.0 <= self.p01 <= 1.0 and 0.0 <= self.p10 <= 1.0 and 0.0 <= self.failure_probability <= 1.0):
            raise ValueError(
                f"{self.name}: p01={self.p01}, p10={self.p10} and failure_probability={self.failure_probability} must lie in [0, 1]"
            )
        if self.fixed_preference and self.p01 + self.p10 > 1.0:
            raise ValueError(f"{self.name}: p01 + p10 = {self.p01 + self.p10} > 1, but no cell can prefer both values")
        if self.only_switched and self.lifetime is not Lifetime.WRITE:
            raise ValueError(f"{self.name}: only_switched belongs to lifetime write")
        if self.failure_probability < 1.0 and self.lifetime is not Lifetime.DIE:
            raise ValueError(f"{self.name}: failure_probability belongs to lifetime die")
        if self.structure and self.lifetime in (Lifetime.READ, Lifetime.WRITE):
            raise ValueError(f"{self.name}: a structure belongs to weak cells (lifetime die or accumulating)")
        if {"zero": self.p01, "one": self.p10}.get(self.preference, 0.0) > 0.0:
            raise ValueError(f"{self.name}: all cells prefer {self.preference}, so they cannot err the other way")
        if self.grouped and self.halved and max(self.p01, self.p10) > 0.5:
            raise ValueError(f"{self.name}: half of the cells prefer each value, so p01 and p10 are at most 0.5 here")

    @property
    def fixed_preference(self) -> bool:
        """Whether a cell's preferred value belongs to the cell, not to the draw."""
        return self.cells is Cells.PREFER and self.lifetime in (Lifetime.DIE, Lifetime.ACCUMULATING)

    @property
    def halved(self) -> bool:
        """Whether only half of the cells can err in each direction."""
        return self.fixed_preference and self.preference in ("cell", "row")

    @property
    def grouped(self) -> bool:
        """Whether cells of a group have something in common."""
        return self.structure is not None or self.preference == "row"

    @property
    def drawn_at_read(self) -> bool:
        """Whether every read draws new errors."""
        return self.lifetime is Lifetime.READ or self.failure_probability < 1.0

    @property
    def permanent(self) -> bool:
        """Whether the same cells are weak in every trial on a die."""
        return self.lifetime is Lifetime.DIE or (self.lifetime is Lifetime.ACCUMULATING and not self.resampled)

    @property
    def grows_with_reads(self) -> bool:
        """Whether every read since the write adds to the errors."""
        return self.lifetime is Lifetime.ACCUMULATING and self.exposure == "reads"

    @property
    def rate(self) -> float:
        """Flip rate on random data (half zeros), averaged over reads."""
        return (self.p01 + self.p10) / 2 * self.failure_probability

    def __str__(self) -> str:
        rates = f"{self.p01:.3g}" if self.p01 == self.p10 else f"p01={self.p01:.3g} p10={self.p10:.3g}"
        return f"{self.name} {rates} per {self.lifetime}"
