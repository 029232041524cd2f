"""Multi-level cells: several bits in one cell, stored as one of 2^k levels that can be misread as a neighbour.

The bits of a cell are consecutive in storage order. The code decides which bits an error corrupts: with a Gray code neighbouring
levels differ in one bit; with the plain binary code the middle step changes all bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.address import Words
from weakcell.memmodels.error_model.terms import Lifetime
from weakcell.memmodels.sampling.streams import pick_words

Code = Literal["gray", "binary"]


@dataclass(frozen=True)
class LevelTerm:
    """Misread levels of multi-level cells, drawn once per write.

    As the probabilities grow (with time since programming), a misread cell stays misread.

    Attributes:
        name: What goes wrong, for people.
        up: P(read level l + 1 | stored level l), one entry per level.
        down: P(read level l - 1 | stored level l), one entry per level.
        code: Which bits a level stands for.
    """

    name: str
    up: tuple[float, ...]
    down: tuple[float, ...]
    code: Code = "gray"

    def __post_init__(self) -> None:
        levels = len(self.up)
        if levels < 2 or levels & (levels - 1) or len(self.down) != levels:
            raise ValueError(f"{self.name}: {levels} levels up and {len(self.down)} down; both are a power of two")
        if self.up[-1] or self.down[0]:
            raise ValueError(f"{self.name}: the highest level has nothing above it, the lowest nothing below")
        if any(not 0.0 <= p <= 1.0 or p + q > 1.0 for p, q in zip(self.up, self.down, strict=True)):
            raise ValueError(f"{self.name}: probabilities of a level must lie in [0, 1] and not exceed 1 together")

    @property
    def bits_per_cell(self) -> int:
        """Bits of a cell, k."""
        return len(self.up).bit_length() - 1

    @property
    def lifetime(self) -> Lifetime:
        """Always WRITE."""
        return Lifetime.WRITE

    @property
    def drawn_at_read(self) -> bool:
        """Always False."""
        return False

    @property
    def rate(self) -> float:
        """Flip rate per bit on random data."""
        codes = level_codes(len(self.up), self.code)
        changed = [np.bitwise_count(codes[:-1] ^ codes[1:]) * np.array(p) for p in (self.up[:-1], self.down[1:])]
        return float(sum(part.sum() for part in changed)) / len(self.up) / self.bits_per_cell

    def __str__(self) -> str:
        return f"{self.name} {self.rate:.3g} per {self.lifetime}, {self.bits_per_cell} bits per cell, {self.code}"


def level_codes(levels: int, code: Code) -> npt.NDArray[np.int64]:
    """Return the bits that each level stands for, as integers."""
    plain = np.arange(levels)
    return plain ^ (plain >> 1) if code == "gray" else plain


def misread_levels(cells: Words, bits: int, first_word: int, term: LevelTerm, stream: np.uint64) -> Words:
    """Return the stored words as their levels are read.

    Each cell draws one random number, which decides both directions, so errors are nested in the probabilities.

    Args:
        cells: Stored words, (words,) uint64.
        bits: How many of their bits are cells.
        first_word: First word of the region in its memory.
        term: The probabilities.
        stream: Of (die, term, trial, write).
    """
    k = term.bits_per_cell
    count = -(-bits // k)
    plain = np.unpackbits(cells.view(np.uint8), bitorder="little")
    grouped = np.zeros((count, k), dtype=np.int64)
    grouped.reshape(-1)[:bits] = plain[:bits]
    codes = level_codes(len(term.up), term.code)
    level = np.argsort(codes)[(grouped << np.arange(k)).sum(axis=1)]
    uniform = (pick_words(stream, first_word * 64 + np.arange(count) * k) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    up, down = np.array(term.up), np.array(term.down)
    level = level + (uniform >= 1.0 - up[level]) - (uniform < down[level])
    plain[:bits] = ((codes[level][:, None] >> np.arange(k)) & 1).astype(np.uint8).reshape(-1)[:bits]
    return np.packbits(plain, bitorder="little").view(np.uint64)
