"""Protection without extra bits: codes in the lowest bits of each element, and the range of a tensor.

    in-place     each element gives up its `low` lowest bits. They hold check bits of its other bits:
                   code=triple   two more copies of each of the top low/2 bits; the majority of three is read. The integer form of
                                 MSET, which triples the top exponent bit of floats (arXiv 2605.07417)
                   code=parity   the other bits are `low` chunks, each with a parity bit. A wrong top chunk erases the element, any
                                 other wrong chunk reads as the middle of its range. The integer form of CEP (the same paper, which
                                 sets wrong chunks to zero)
                   code=secded   an extended Hamming code of the top bits: one error is corrected, two erase the element
    range        an element outside the range of what was written to its tensor reads as the nearest end (policy=clip) or as zero
                 (policy=zero), as Ranger does for activations (arXiv 2003.13874). The two ends are in registers that never fail

An erased element reads as `layout.erased`, the code of real zero.

The low bits of an element are lost: it is rounded to the nearest value that is `erased` plus a multiple of 2^low, so that zero
stays zero. A report counts these differences as flips, as it counts those of erased elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.address import Layout, Words, pack, popcount, unpack
from weakcell.memmodels.errors import MemoryFault
from weakcell.memmodels.memory import Accesses, Cost, Key, ReadReport, Region
from weakcell.memmodels.protection.check_bits import ProtectedRegion, ProtectedReport, Wrapper, inner_regions

Code = Literal["triple", "parity", "secded"]
Codes = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
WIDEST = 16
"""Bits of the widest element that `in-place` protects: its code is a table of all patterns."""


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


@dataclass(frozen=True, eq=False)
class InPlace(Wrapper):
    """A wrapper that stores check bits of each element in place of its `low` lowest bits."""

    code: Code = "triple"
    low: int = 2

    def write(self, bits: Words, layout: Layout, key: Key) -> ProtectedRegion:
        """Store each element with its check bits.

        Raises:
            MemoryFault: The code does not fit the elements, or the layout holds only some of their planes.
        """
        tables = self._tables(layout)
        inner = self.inner.write(pack(tables.stored[_codes_of(bits, layout)], layout), layout, key)
        return ProtectedRegion(layout, inner.first_word, bits.copy(), inner.stored, inner.previous, key, (inner,))

    def read(self, region: Region, key: Key, out: Words) -> ProtectedReport:
        """Read a region. `corrected` and `erased` count elements."""
        (inner,) = inner_regions(region)
        report = self.inner.read(inner, key, out)
        tables = self._tables(region.layout)
        codes = _codes_of(out, region.layout)
        out[:] = pack(tables.read[codes], region.layout)
        return _add_to_report(report, out, region, int(np.count_nonzero(tables.corrected[codes])), tables.detected[codes])

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        """Return the cost of the inner memory: no bits are added, and the decoder is not counted."""
        return self.inner.cost(inner_regions(region)[0], accesses)

    def _tables(self, layout: Layout) -> CodeTables:
        _refuse_planes(layout, "in-place")
        fewest = self.low + (self.low // 2 if self.code == "triple" else self.low if self.code == "parity" else 1)
        if layout.kind == "float" or not fewest <= layout.width <= WIDEST:
            raise MemoryFault(
                f"Storing {layout} with in-place[code={self.code},low={self.low}]",
                f"its elements are {layout.width}-bit {layout.kind} numbers; this code takes integers of {fewest} to {WIDEST} bits",
                "Choose a smaller low, or place this tensor in a memory without in-place",
            )
        return make_tables(layout.width, layout.kind == "signed", layout.erased, self.code, self.low)


@dataclass(frozen=True, eq=False)
class RangeRegion(ProtectedRegion):
    """A region with the smallest and largest value that was written to it."""

    low: float = 0
    high: float = 0


@dataclass(frozen=True, eq=False)
class Range(Wrapper):
    """A wrapper that reads values outside the written range as its nearest end, or as zero."""

    policy: Literal["clip", "zero"] = "clip"

    def write(self, bits: Words, layout: Layout, key: Key) -> RangeRegion:
        """Store bits, and keep their range.

        Raises:
            MemoryFault: The elements are signs, which have no other values, or the layout holds only some of their planes.
        """
        _refuse_planes(layout, "range")
        if layout.width == 1:
            raise MemoryFault(
                f"Storing {layout} with range", "its elements are signs", "Place this tensor in a memory without range"
            )
        values = _values_of(_codes_of(bits, layout), layout)
        ends = (values.min().item(), values.max().item()) if values.size else (0, 0)
        inner = self.inner.write(bits, layout, key)
        return RangeRegion(layout, inner.first_word, bits.copy(), inner.stored, inner.previous, key, (inner,), *ends)

    def read(self, region: Region, key: Key, out: Words) -> ProtectedReport:
        """Read a region. `corrected` counts clipped elements, `erased` those that read as zero."""
        (inner,) = inner_regions(region)
        assert isinstance(region, RangeRegion)
        report = self.inner.read(inner, key, out)
        layout = region.layout
        codes = _codes_of(out, layout)
        values = _values_of(codes, layout)
        outside = ~((values >= region.low) & (values <= region.high))  # NaN is outside, too
        erased = outside if self.policy == "zero" else np.isnan(values)
        clipped = _codes_of_values(np.clip(values, region.low, region.high), layout)
        out[:] = pack(np.where(erased, np.uint64(layout.erased), np.where(outside, clipped, codes)), layout)
        return _add_to_report(report, out, region, int(np.count_nonzero(outside & ~erased)), erased)

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        """Return the cost of the inner memory: the two registers and the comparison are not counted."""
        return self.inner.cost(inner_regions(region)[0], accesses)


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
    values = _signed(patterns, width) if signed else patterns
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
class _Secded:
    """An extended Hamming code, as of Hsiao: all columns have odd weight, those of check bits weight 1."""

    upper_bits: int
    low: int

    def columns(self) -> list[tuple[int, int]]:
        """Return (bit, column) of each protected upper bit, from the top."""
        rows = range(self.low)
        heavy = [sum(1 << row for row in some) for weight in range(3, self.low + 1, 2) for some in combinations(rows, weight)]
        return list(zip(range(self.upper_bits - 1, -1, -1), heavy, strict=False))

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


_CODES: dict[Code, type[_Triple | _Parity | _Secded]] = {"triple": _Triple, "parity": _Parity, "secded": _Secded}


def _add_to_report(report: ReadReport, out: Words, region: Region, corrected: int, erased: Mask) -> ProtectedReport:
    """Return the inner memory's report with what a wrapper did to elements."""
    count, layout = int(np.count_nonzero(erased)), region.layout
    marked = report.erasures if isinstance(report, ProtectedReport) else None
    if count:
        cells = pack(erased * np.uint64((1 << layout.width) - 1), layout)
        marked = cells if marked is None else cells | marked
    flips = popcount(out ^ region.written)
    return ProtectedReport(flips, report.corrected + corrected, report.erased + count, report.commanded, report.measured, marked)


def _refuse_planes(layout: Layout, name: str) -> None:
    if len(layout.planes) != layout.width:
        raise MemoryFault(
            f"Storing {layout} with {name}",
            f"only some bit planes are placed there, and {name} protects whole elements",
            "Place all planes of the tensor in one memory, or leave the wrapper out",
        )


def _codes_of(words: Words, layout: Layout) -> Codes:
    codes = np.zeros(layout.elements, dtype=np.uint64)
    unpack(words, layout, codes)
    return codes


def _values_of(codes: Codes, layout: Layout) -> npt.NDArray[Any]:
    """Return what codes mean: integers, or float32 as float64."""
    if layout.kind == "float":
        return codes.astype(np.uint32).view(np.float32).astype(np.float64)
    values = codes.astype(np.int64)
    return _signed(values, layout.width) if layout.kind == "signed" else values


def _codes_of_values(values: npt.NDArray[Any], layout: Layout) -> Codes:
    if layout.kind == "float":
        return values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return values.astype(np.int64).astype(np.uint64) & np.uint64((1 << layout.width) - 1)


def _signed(patterns: Integers, width: int) -> Integers:
    half = 1 << (width - 1)
    return (patterns ^ half) - half
