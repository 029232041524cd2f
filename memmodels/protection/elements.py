"""Protection that knows elements, not only words: codes without extra bits, and the range of a tensor.

    in-place     each element gives up its `low` lowest bits for check bits of its other bits; the codes: `element_codes.py`
    range        an element outside the range of what was written to its tensor reads as the nearest end (policy=clip) or as zero
                 (policy=zero), as Ranger does for activations (arXiv 2003.13874). The two ends are in registers that never fail

An erased element reads as `layout.erased`, the code of real zero. A report counts rounded and erased elements as flips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.address import Layout, Words, pack, popcount, unpack
from weakcell.memmodels.errors import MemoryFault
from weakcell.memmodels.memory import Accesses, Cost, Key, ReadReport, Region
from weakcell.memmodels.protection.check_bits import ProtectedRegion, ProtectedReport, Wrapper, inner_regions
from weakcell.memmodels.protection.element_codes import (
    DEFAULT_LOW,
    WIDEST,
    Code,
    Codes,
    CodeTables,
    Mask,
    fewest_bits,
    make_tables,
    signed_values,
)


@dataclass(frozen=True, eq=False)
class InPlace(Wrapper):
    """A wrapper that stores check bits of each element in place of its `low` lowest bits."""

    code: Code = "hamming"
    low: int = DEFAULT_LOW["hamming"]

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
        fewest = fewest_bits(self.code, self.low)
        if layout.kind == "float" or not fewest <= layout.width <= WIDEST:
            advice = "Choose a smaller low, or place" if 3 <= layout.width < fewest else "Place"
            raise MemoryFault(
                f"Storing {layout} with in-place[code={self.code},low={self.low}]",
                f"its elements are {layout.width}-bit {layout.kind} numbers; this code takes integers of {fewest} to {WIDEST} bits",
                f"{advice} this tensor in a memory without in-place",
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
    return signed_values(values, layout.width) if layout.kind == "signed" else values


def _codes_of_values(values: npt.NDArray[Any], layout: Layout) -> Codes:
    if layout.kind == "float":
        return values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return values.astype(np.int64).astype(np.uint64) & np.uint64((1 << layout.width) - 1)
