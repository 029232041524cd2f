"""Codes of one element that need no extra bits: check bits in place of its lowest bits, as tables over all its patterns.

    hamming  a Hamming code of the top bits: 2^low - 1 - low of them, or all that there are. One error is corrected; of two, the
             patterns that no single error makes erase the element, and the others are miscorrected
    secded   an extended Hamming code of the top bits, at most 2^(low-1) - low of them. One error is corrected, two erase all
    triple   two more copies of each of the top low/2 bits; the majority of three is read. The integer form of MSET, which triples
             the top exponent bit of floats (arXiv 2605.07417)
    parity   the other bits are `low` chunks, each with a parity bit. A wrong top chunk erases the element, any other wrong chunk
             reads as the middle of its range. The integer form of CEP (the same paper, which sets wrong chunks to zero)

An erased element reads as the code of real zero. The low bits of an element are lost: it is rounded to the nearest value that is
real zero plus a multiple of 2^low, so that zero stays zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Code = Literal["hamming", "secded", "triple", "parity"]
Codes = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
WIDEST = 16
"""Bits of the widest element: a code is a table of all patterns."""
DEFAULT_LOW: dict[str, int] = {"hamming": 3, "secded": 4, "triple": 2, "parity": 2}
"""Check bits of each code for 8-bit elements."""


class CodeTables(NamedTuple):
    """A code of one element as tables over all its bit patterns.

    Attributes:
        stored: Pattern that is stored for each code.
        read: Code that is read for each pattern in the cells.
        corrected: Patterns in which errors are put right.
        detected: Patterns in which errors are found that cannot be put right.
    """

    stored: Codes
    read: Codes
    corrected: Mask
    detected: Mask


def fewest_bits(code: Code, low: int) -> int:
    """Return the width of the narrowest element that a code protects."""
    return low + {"triple": low // 2, "parity": low}.get(code, 1)


@cache
def make_tables(width: int, signed: bool, erased: int, code: Code, low: int) -> CodeTables:
    """Return the tables of a code.

    Args:
        width: Bits of an element.
        signed: Whether elements are in two's complement.
        erased: Code of real zero.
        code: The code.
        low: How many of the lowest bits hold check bits.

    """
    patterns = np.arange(1 << width, dtype=np.int64)
    upper, checks = patterns >> low, patterns & ((1 << low) - 1)
    offset = erased & ((1 << low) - 1)
    values = signed_values(patterns, width) if signed else patterns
    lowest, highest = int(values.min()), int(values.max())
    rounded = np.clip((values - offset + (1 << low >> 1)) >> low, -((offset - lowest) >> low), (highest - offset) >> low)
    kept = rounded & ((1 << (width - low)) - 1)
    protection = _CODES[code](width - low, low)
    decoded = protection.decode(upper, checks)
    read = np.where(decoded.zero, erased, ((decoded.upper << low) + offset) & ((1 << width) - 1))
    stored = kept << low | protection.encode(kept)
    return CodeTables(stored.astype(np.uint64), read.astype(np.uint64), decoded.corrected, decoded.detected)


class _Decoded(NamedTuple):
    """The outcome of decoding patterns.

    Attributes:
        upper: Their upper bits.
        corrected: Errors were put right.
        detected: Errors were found and could not be put right.
        zero: The whole element reads as zero.
    """

    upper: Integers
    corrected: Mask
    detected: Mask
    zero: Mask


@dataclass(frozen=True)
class _Triple:
    """Two more copies of each of the top `low / 2` bits."""

    upper_bits: int
    low: int

    def encode(self, upper: Integers) -> Integers:
        copies = self.low // 2
        top = upper >> (self.upper_bits - copies)
        return top << copies | top

    def decode(self, upper: Integers, checks: Integers) -> _Decoded:
        copies = self.low // 2
        rest = self.upper_bits - copies
        a, b, c = upper >> rest, checks >> copies, checks & ((1 << copies) - 1)
        majority = (a & b) | (a & c) | (b & c)
        none = np.zeros(upper.shape, dtype=np.bool_)
        return _Decoded(majority << rest | upper & ((1 << rest) - 1), (a != b) | (a != c), none, none)


@dataclass(frozen=True)
class _Parity:
    """`low` chunks of the upper bits, from the top, the first ones longer by a bit; each with even parity."""

    upper_bits: int
    low: int

    def chunks(self) -> list[tuple[int, int]]:
        """Return (shift, bits) of each chunk."""
        shift, found = self.upper_bits, []
        for chunk in range(self.low):
            bits = self.upper_bits // self.low + (chunk < self.upper_bits % self.low)
            shift -= bits
            found.append((shift, bits))
        return found

    def encode(self, upper: Integers) -> Integers:
        checks = np.zeros_like(upper)
        for chunk, (shift, bits) in enumerate(self.chunks()):
            checks |= (np.bitwise_count(upper >> shift & ((1 << bits) - 1)).astype(np.int64) & 1) << chunk
        return checks

    def decode(self, upper: Integers, checks: Integers) -> _Decoded:
        wrong = self.encode(upper) ^ checks
        for chunk, (shift, bits) in list(enumerate(self.chunks()))[1:]:
            middle = upper & ~(((1 << bits) - 1) << shift) | 1 << (bits - 1) << shift
            upper = np.where(wrong >> chunk & 1, middle, upper)
        return _Decoded(upper, np.zeros(upper.shape, dtype=np.bool_), wrong != 0, (wrong & 1).astype(np.bool_))


@dataclass(frozen=True)
class _Hamming:
    """A Hamming code: every protected bit has a column, and check bits have the columns of weight 1.

    Attributes:
        upper_bits: Bits of an element that are no check bits.
        low: Check bits.
        extended: Columns have odd weight, as those of Hsiao. There are fewer, and two errors are never taken for one.
    """

    upper_bits: int
    low: int
    extended: bool = False

    def columns(self) -> list[tuple[int, int]]:
        """Return (bit, column) of each protected upper bit, from the top."""
        found = [c for c in range(1 << self.low) if c.bit_count() > 1 and (c.bit_count() % 2 == 1 or not self.extended)]
        found.sort(key=int.bit_count)
        return list(zip(range(self.upper_bits - 1, -1, -1), found, strict=False))

    def encode(self, upper: Integers) -> Integers:
        checks = np.zeros_like(upper)
        for bit, column in self.columns():
            checks ^= (upper >> bit & 1) * column
        return checks

    def decode(self, upper: Integers, checks: Integers) -> _Decoded:
        syndrome = self.encode(upper) ^ checks
        flips = np.zeros(1 << self.low, dtype=np.int64)
        known = np.zeros(1 << self.low, dtype=np.bool_)
        for bit, column in self.columns():
            flips[column], known[column] = 1 << bit, True
        known[[1 << row for row in range(self.low)]] = True
        lost = (syndrome != 0) & ~known[syndrome]
        return _Decoded(upper ^ flips[syndrome], known[syndrome], lost, lost)


_CODES: dict[Code, Callable[[int, int], _Hamming | _Triple | _Parity]] = {
    "hamming": _Hamming,
    "secded": partial(_Hamming, extended=True),
    "triple": _Triple,
    "parity": _Parity,
}


def signed_values(patterns: Integers, width: int) -> Integers:
    """Return the integers that patterns are in two's complement."""
    half = 1 << (width - 1)
    return (patterns ^ half) - half
