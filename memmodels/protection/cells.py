"""Protection that costs cells or wires: safe high bits, and interleaving, around any memory.

    msb          the top `planes` bits of every element are safe. store=safe: their cells never fail (hardened cells in the same
                 array, as in hybrid 8T-6T SRAM; charged like the others, which is assumed). store=triple: two more copies are in
                 the same memory, and the majority of the three is read; 2 extra bits per safe bit
    interleave   neighbouring cells belong to different words: the bits of a word are `stride` cells apart, so a burst of up to
                 `stride` cells costs each word one bit. It only permutes addresses; no overhead

To keep planes in another memory, or in the same one at another voltage, place them there instead (`--place '*@7=SPEC'`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.address import Layout, Words, pack, popcount, unpack
from weakcell.memmodels.memory import Accesses, Cost, Key, Quantity, ReadReport, Region
from weakcell.memmodels.protection.check_bits import ProtectedRegion, ProtectedReport, Wrapper, inner_regions, with_overhead

_WORDS_AT_ONCE = 1 << 16
"""Words whose bits are moved at once; they need 8 MB."""


@dataclass(frozen=True, eq=False)
class SafeHighBits(Wrapper):
    """A wrapper that protects the top `planes` bits of every element.

    store=safe: they are read as written. store=triple: by majority of three copies.
    """

    planes: int = 1
    store: Literal["safe", "triple"] = "safe"

    def write(self, bits: Words, layout: Layout, key: Key) -> ProtectedRegion:
        """Store bits, and two copies of the high planes with store=triple."""
        data = self.inner.write(bits, layout, key)
        high = select_high_planes(layout, self.planes)
        parts = [data]
        if high and self.store == "triple":
            codes = np.zeros(layout.elements, dtype=np.uint64)
            unpack(bits, layout, codes)
            for copy in (2, 3):
                part = replace(layout, name=f"{layout} copy {copy}", planes=high)
                parts.append(self.inner.write(pack(codes, part), part, key))
        return ProtectedRegion(layout, data.first_word, data.written, data.stored, data.previous, key, tuple(parts))

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        """Read a region. `corrected` counts safe bits that were put right."""
        data, *copies = inner_regions(region)
        report = self.inner.read(data, key, out)
        mask = plane_mask(region.layout, select_high_planes(region.layout, self.planes))
        right = region.written
        if copies:
            others = [self._spread(copy, key, region.layout) for copy in copies]
            right = (out & others[0]) | (out & others[1]) | (others[0] & others[1])
        corrected = popcount((out ^ right) & mask)
        out[:] = (out & ~mask) | (right & mask)
        flips = popcount(out ^ region.written)
        if isinstance(report, ProtectedReport):
            return replace(report, flips=flips, corrected=report.corrected + corrected)
        return ReadReport(flips, report.corrected + corrected, report.erased, report.commanded, report.measured)

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        """Return the cost with the copies, or with safe cells charged like the others."""
        data, *copies = inner_regions(region)
        cost = self.inner.cost(data, accesses)
        for number, copy in enumerate(copies, start=2):
            cost = with_overhead(cost, self.inner.cost(copy, accesses), f"copy {number}", copy.layout.bits / data.layout.bits)
        if copies or cost.energy is None or not select_high_planes(region.layout, self.planes):
            return cost
        energy = cost.energy
        source = f"{energy.source}; safe cells charged like the others"
        return replace(cost, energy=Quantity(energy.value, energy.unit, "assumed", source))

    def _spread(self, copy: Region, key: Key, layout: Layout) -> Words:
        """Read a copy of the high planes and return it at its positions in the whole region."""
        words, codes = np.empty_like(copy.written), np.zeros(layout.elements, dtype=np.uint64)
        self.inner.read(copy, key, words)
        unpack(words, copy.layout, codes)
        return pack(codes, layout)


def select_high_planes(layout: Layout, count: int) -> tuple[int, ...]:
    """Return those of the region's planes that are among the top `count` of the tensor."""
    return tuple(plane for plane in layout.planes if plane >= layout.width - count)


def plane_mask(layout: Layout, planes: tuple[int, ...]) -> Words:
    """Return a mask of the cells of these planes. Spare bits may be set; no cell is there."""
    # the pattern of 64 elements repeats
    code = sum(1 << plane for plane in planes)
    return np.resize(pack(np.full(64, code, dtype=np.uint64), replace(layout, elements=64)), layout.words)


@dataclass(frozen=True, eq=False)
class Interleaved(Wrapper):
    """A wrapper that spreads the bits of a word over cells.

    Bit j of word w of a group of `stride` words is cell j * stride + w of the group; the last group may be smaller.
    """

    stride: int = 64

    def write(self, bits: Words, layout: Layout, key: Key) -> ProtectedRegion:
        """Store the permuted bits."""
        cells = Layout(f"{layout} interleaved", layout.bits, 1)
        inner = self.inner.write(spread(bits, layout.bits, self.stride), cells, key)
        stored = gather(inner.stored, layout.bits, self.stride)
        previous = None if inner.previous is None else gather(inner.previous, layout.bits, self.stride)
        return ProtectedRegion(layout, inner.first_word, bits.copy(), stored, previous, key, (inner,))

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        """Read the cells and undo the permutation."""
        (inner,) = inner_regions(region)
        report = self.inner.read(inner, key, out)
        out[:] = gather(out, region.layout.bits, self.stride)
        return report

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        """Return the cost of the inner memory; interleaving adds none."""
        return self.inner.cost(inner_regions(region)[0], accesses)


def spread(words: Words, bits: int, stride: int) -> Words:
    """Return the bits of words in cell order."""
    return _move_bits(words, bits, stride, True)


def gather(cells: Words, bits: int, stride: int) -> Words:
    """Return the words of these cells: the inverse of `spread`."""
    return _move_bits(cells, bits, stride, False)


def _move_bits(source: Words, bits: int, stride: int, spreading: bool) -> Words:
    """Move every bit between its word and its cell, some groups at a time: each bit is a byte meanwhile."""
    out = np.zeros_like(source)
    words = max(1, _WORDS_AT_ONCE // stride) * stride
    for first in range(0, source.size, words):
        part = np.unpackbits(source[first : first + words].view(np.uint8), bitorder="little")
        count = min(bits - first * 64, part.size)
        group = stride * 64
        whole, moved = count // group * group, np.zeros_like(part)
        shape = (stride, 64) if spreading else (64, stride)
        moved[:whole].reshape(-1, *shape[::-1])[:] = part[:whole].reshape(-1, *shape).transpose(0, 2, 1)
        if count > whole:
            moved[whole:count] = _move_last_group(part[whole:count], spreading)
        out[first : first + words] = np.packbits(moved, bitorder="little").view(np.uint64)
    return out


def _move_last_group(part: npt.NDArray[np.uint8], spreading: bool) -> npt.NDArray[np.uint8]:
    """Move the bits of a group whose last word may be shorter: only the other words have its further bits."""
    words = -(-part.size // 64)
    full = part.size - (words - 1) * 64
    square = np.zeros((words, 64), np.uint8)
    if spreading:
        square.reshape(-1)[: part.size] = part
        return np.concatenate([square[:, :full].T.reshape(-1), square[:-1, full:].T.reshape(-1)])
    square[:, :full] = part[: full * words].reshape(full, words).T
    square[:-1, full:] = part[full * words :].reshape(64 - full, words - 1).T
    return square.reshape(-1)[: part.size]
