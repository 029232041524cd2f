"""Storage addresses: how elements of a tensor become words of memory, and back.

A region is a run of cells. Elements are stored output-channel-major, one after the other, the bits of an element LSB first, without
padding. A region starts on a 64-bit word. Bit `a` of a region is bit `a & 63` of word `a >> 6`. Errors are drawn in blocks of 2^16
cells, counted from the start of the memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

BLOCK_BITS = 1 << 16
BLOCK_WORDS = BLOCK_BITS // 64


@dataclass(frozen=True)
class Layout:
    """What the bits of a region mean.

    Attributes:
        name: Of the tensor. Name and planes identify the region in its memory: writing it again overwrites it.
        elements: Number of elements.
        width: Bits of an element in the tensor.
        planes: Bit positions that are stored here, ascending, 0 the least significant. All of them, unless a placement splits a
            tensor.
        erased: Stored bits of an element that a memory detects as wrong and cannot correct: the code of real zero.
        kind: What the bits of an element mean; `signed` is two's complement. Only wrappers that protect values read it.
    """

    name: str
    elements: int
    width: int
    planes: tuple[int, ...] = ()
    erased: int = 0
    kind: Literal["sign", "signed", "unsigned", "float"] = field(default="signed", compare=False)

    def __post_init__(self) -> None:
        if not self.planes:
            object.__setattr__(self, "planes", tuple(range(self.width)))
        if list(self.planes) != sorted(set(self.planes)) or not set(self.planes) <= set(range(self.width)):
            raise ValueError(f"{self.name}: planes {self.planes} of a {self.width}-bit element")

    @property
    def bits(self) -> int:
        """Number of cells of the region."""
        return self.elements * len(self.planes)

    @property
    def words(self) -> int:
        """Number of 64-bit words; spare bits of the last one are 0 and are not cells."""
        return -(-self.bits // 64)

    @property
    def last_mask(self) -> np.uint64:
        """Bits of the last word that are cells."""
        return np.uint64((1 << ((self.bits - 1) % 64 + 1)) - 1)

    def check_words(self, words: Words) -> None:
        """Raise ValueError unless `words` is (words,) uint64."""
        # compiled code relies on this and does not check again
        if words.dtype != np.uint64 or words.shape != (self.words,):
            raise ValueError(f"{self}: {words.shape} words of {words.dtype}, where ({self.words},) of uint64 are needed")

    def __str__(self) -> str:
        planes = "" if len(self.planes) == self.width else f"[bits {','.join(map(str, self.planes))}]"
        return f"{self.name}{planes}"


def pack(codes: npt.NDArray[np.integer], layout: Layout) -> Words:
    """Return the stored words of codes.

    Args:
        codes: One unsigned code per element, any integer dtype and shape; bits above the width are ignored.
        layout: What is stored.
    """
    flat = np.asarray(codes).reshape(-1)
    if flat.size != layout.elements:
        raise ValueError(f"{layout}: {flat.size} codes for {layout.elements} elements")
    if _whole_bytes(layout):
        padded = np.zeros(layout.words * 64 // layout.width, dtype=f"<u{layout.width // 8}")
        padded[: flat.size] = flat
        return padded.view(np.uint64)
    unsigned = flat.dtype if flat.dtype.kind == "u" else np.dtype(f"u{flat.itemsize}")
    wide = flat.view(unsigned) if layout.width <= 8 * flat.itemsize else flat.astype(np.uint64)
    bits = np.zeros(layout.words * 64, dtype=np.uint8)
    columns = bits[: layout.bits].reshape(layout.elements, len(layout.planes))
    for column, plane in enumerate(layout.planes):
        columns[:, column] = (wide >> wide.dtype.type(plane)) & wide.dtype.type(1)
    return np.packbits(bits, bitorder="little").view(np.uint64)


def as_words(codes: npt.NDArray[np.integer], layout: Layout) -> Words | None:
    """Return the words of `pack` in the memory of the codes, read-only; None if they have another form."""
    if not _whole_bytes(layout) or codes.dtype.kind not in "iu" or codes.itemsize * 8 != layout.width or codes.nbytes % 8:
        return None
    words = np.ascontiguousarray(codes).reshape(-1).view(np.uint64)
    words.flags.writeable = False
    return words


def unpack(words: Words, layout: Layout, codes: npt.NDArray[np.uint64]) -> None:
    """Copy the region's planes into `codes`, leaving other planes unchanged.

    Args:
        words: (layout.words,) uint64.
        layout: What is stored.
        codes: One code per element, (elements,) uint64; changed in place.
    """
    if _whole_bytes(layout):
        codes &= ~np.uint64((1 << layout.width) - 1)
        codes |= words.view(f"<u{layout.width // 8}")[: layout.elements]
        return
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")[: layout.bits].reshape(layout.elements, len(layout.planes))
    for column, plane in enumerate(layout.planes):
        codes &= ~np.uint64(1 << plane)
        codes |= bits[:, column].astype(np.uint64) << np.uint64(plane)


def _whole_bytes(layout: Layout) -> bool:
    """Whether elements have the bit pattern of the computer's own integers."""
    return layout.width in (8, 16, 32, 64) and len(layout.planes) == layout.width


def popcount(words: Words) -> int:
    """Count the set bits."""
    return int(np.bitwise_count(words).sum(dtype=np.int64))


def set_bits(words: Words) -> npt.NDArray[np.int64]:
    """Return the addresses of the set bits, ascending, int64."""
    nonzero = np.flatnonzero(words)
    bits = np.unpackbits(words[nonzero].view(np.uint8), bitorder="little").reshape(-1, 64)
    rows, columns = np.nonzero(bits)
    return nonzero[rows].astype(np.int64) * 64 + columns


def touched_blocks(first_word: int, words: int) -> range:
    """Return the blocks of the memory that a region of `words` words touches."""
    return range(first_word // BLOCK_WORDS, (first_word + words - 1) // BLOCK_WORDS + 1) if words else range(0)
