"""Protection that costs check bits: parity, SECDED and BCH around any memory. The check bits are in that memory too, and fail too.

    parity   one bit per `word` bits (overhead 9/8 … 65/64): an odd number of errors in a word is detected, an even one is not
    secded   eight bits per 64 (overhead 72/64): one error is corrected, two are detected, three may be miscorrected
    bch2     fifteen bits per 64 (overhead 79/64): two errors are corrected, three are detected, four may be miscorrected
             (both: `linear_codes`)

The policy decides how a detected word is read:

    erase    every element that overlaps it reads as `layout.erased`, the code of real zero. A 1-bit element has no such code, so
             signs stay as they were read
    drop     the same, and 1-bit signs count as 0: the report marks them as `dropped`, and the engine leaves them out of its sums.
             They are still returned as they were read, and their errors count as flips
    raw      as it was read
    raise    MemoryFault

A report's `corrected` and `erased` count words: corrected, and detected as wrong but not corrected, under every policy. `erasures`
marks the cells of the latter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.address import Layout, Words, pack, popcount, unpack
from weakcell.memmodels.errors import MemoryFault
from weakcell.memmodels.memory import Accesses, ConditionValue, Cost, Key, Memory, Quantity, ReadReport, Region
from weakcell.memmodels.protection.linear_codes import SECDED, LinearCode
from weakcell.memmodels.sampling.sampler import Sampler

Policy = Literal["erase", "drop", "raw", "raise"]
Detected = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ProtectedRegion(Region):
    """A region of a wrapper, with the regions of the inner memory that hold it."""

    parts: tuple[Region, ...] = ()


@dataclass(frozen=True, eq=False)
class ProtectedReport(ReadReport):
    """A report that also marks cells of words that were detected as wrong and not corrected.

    Attributes:
        erasures: Mask of these cells, or None if there are none.
        dropped: Mask of 1-bit elements that count as 0 under the policy `drop`, of this wrapper or of one inside.
    """

    erasures: Words | None = None
    dropped: Words | None = None


@dataclass(frozen=True, eq=False)
class Wrapper:
    """A memory around a memory. It has the same operating point and no sampler: only `read` defines what is read."""

    inner: Memory

    @property
    def conditions(self) -> Mapping[str, ConditionValue]:
        """The operating point of the inner memory."""
        return self.inner.conditions

    def at(self, **conditions: ConditionValue) -> Self:
        """Return the wrapper around the inner memory at another operating point."""
        return replace(self, inner=self.inner.at(**conditions))

    def sampler(self, region: Region) -> Sampler | None:
        """Return None."""
        return None


@dataclass(frozen=True, eq=False)
class Coded(Wrapper):
    """Words of `word_bits` bits with check bits. A subclass is a code: how checks are computed and evaluated."""

    policy: Policy = "erase"

    @property
    def word_bits(self) -> int:
        """Data bits that share check bits."""
        raise NotImplementedError

    def check_layout(self, layout: Layout) -> Layout:
        """Return the layout of the check bits in the inner memory."""
        raise NotImplementedError

    def encode_checks(self, bits: Words, code: Layout) -> Words:
        """Return the check bits of a region's words."""
        raise NotImplementedError

    def decode_words(self, words: Words, checks: Words, layout: Layout) -> tuple[Words, int, Detected]:
        """Return (corrected words, how many were corrected, which words are wrong and were not corrected)."""
        raise NotImplementedError

    def write(self, bits: Words, layout: Layout, key: Key) -> ProtectedRegion:
        """Store bits and their check bits."""
        code = self.check_layout(layout)
        data = self.inner.write(bits, layout, key)
        check = self.inner.write(self.encode_checks(bits, code), code, key)
        return ProtectedRegion(layout, data.first_word, data.written, data.stored, data.previous, key, (data, check))

    def read(self, region: Region, key: Key, out: Words) -> ProtectedReport:
        """Read a region and its check bits, correct, and apply the policy to words that cannot be corrected."""
        data, check = inner_regions(region)
        checks = np.empty_like(check.written)
        report = self.inner.read(data, key, out)
        check_report = self.inner.read(check, key, checks)
        words, corrected, detected = self.decode_words(out, checks, region.layout)
        out[:] = words
        erasures = mark_cells(detected, self.word_bits, region.layout)
        lost = int(np.count_nonzero(detected))
        if lost and self.policy == "raise":
            raise MemoryFault(
                f"{key} of {region.layout}, protected with policy=raise",
                f"{lost} of {detected.size} words have errors that were detected and not corrected, the first is word "
                f"{int(np.argmax(detected))}",
                "Choose policy=erase or policy=raw, or an operating point with fewer errors",
            )
        if lost and self.policy in ("erase", "drop") and region.layout.width > 1:
            np.bitwise_and(out, ~erasures, out=out)
            np.bitwise_or(out, erased_words(region.layout) & erasures, out=out)
        dropped = report.dropped if isinstance(report, ProtectedReport) else None
        if lost and self.policy == "drop" and region.layout.width == 1:
            dropped = erasures if dropped is None else erasures | dropped
        return ProtectedReport(
            popcount(out ^ region.written),
            corrected + report.corrected + check_report.corrected,
            lost + report.erased + check_report.erased,
            report.commanded,
            report.measured,
            erasures if lost else None,
            dropped,
        )

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        """Return the cost of accesses to data and check bits, both at the inner memory's price."""
        data, check = inner_regions(region)
        extra_cost = self.inner.cost(check, accesses)
        return with_overhead(self.inner.cost(data, accesses), extra_cost, "check bits", check.layout.bits / data.layout.bits)


@dataclass(frozen=True, eq=False)
class Parity(Coded):
    """One even-parity bit per word of 8, 16, 32 or 64 bits."""

    word: int = 64

    @property
    def word_bits(self) -> int:
        """Data bits per parity bit."""
        return self.word

    def check_layout(self, layout: Layout) -> Layout:
        """Return one bit per word."""
        return Layout(f"{layout} parity", -(-layout.bits // self.word), 1)

    def encode_checks(self, bits: Words, code: Layout) -> Words:
        """Return the parity of each word, packed."""
        parity = np.packbits(self._parity(bits)[: code.elements], bitorder="little")
        return np.pad(parity, (0, code.words * 8 - parity.size)).view(np.uint64)

    def decode_words(self, words: Words, checks: Words, layout: Layout) -> tuple[Words, int, Detected]:
        """Return the words unchanged, and which of them have the wrong parity."""
        count = self.check_layout(layout).elements
        stored = np.unpackbits(checks.view(np.uint8), bitorder="little")[:count]
        return words, 0, (self._parity(words)[:count] ^ stored).astype(np.bool_)

    def _parity(self, words: Words) -> npt.NDArray[np.uint8]:
        parity: npt.NDArray[np.uint8] = np.bitwise_count(words.view(f"u{self.word // 8}")) & np.uint8(1)
        return parity


@dataclass(frozen=True, eq=False)
class Linear(Coded):
    """A linear code of 64-bit words. A last word with spare bits is a shortened code: correcting a spare bit counts as detected."""

    code: LinearCode = SECDED

    @property
    def word_bits(self) -> int:
        """64."""
        return 64

    def check_layout(self, layout: Layout) -> Layout:
        """Return the code's check bits per word."""
        return Layout(f"{layout} check", layout.words, self.code.check_bits, kind="unsigned")

    def encode_checks(self, bits: Words, code: Layout) -> Words:
        """Return the check bits of each word, packed."""
        return pack(self.code.encode(bits), code)

    def decode_words(self, words: Words, checks: Words, layout: Layout) -> tuple[Words, int, Detected]:
        """Correct errors, and return which words have more than the code corrects."""
        unpacked = np.zeros(words.size, dtype=np.uint64)
        unpack(checks, self.check_layout(layout), unpacked)
        fixed, corrected, detected = self.code.decode(words, unpacked.astype(np.uint16))
        spare = ~np.uint64((1 << ((layout.bits - 1) % 64 + 1)) - 1)
        if fixed.size and fixed[-1] & spare:
            fixed[-1], corrected[-1], detected[-1] = words[-1], False, True
        return fixed, int(np.count_nonzero(corrected)), detected


def inner_regions(region: Region) -> tuple[Region, ...]:
    """Return the inner regions; ValueError for a region that is not a wrapper's."""
    if not isinstance(region, ProtectedRegion):
        raise ValueError(f"{region!r} was not written by this memory")
    return region.parts


def with_overhead(data: Cost, extra_cost: Cost, what: str, share: float) -> Cost:
    """Return the cost of data plus extra bits.

    Picojoules add up. A relative energy is that of all accesses, in units of the unprotected data's at the reference point.

    Args:
        data: Cost of the data.
        extra_cost: Cost of the extra bits.
        what: Name of the extra bits.
        share: Extra bits per bit of data.
    """
    if data.energy is None or extra_cost.energy is None:
        return data
    if data.energy.unit == "pJ":
        extra, parts = extra_cost.energy, dict(data.parts)
    else:
        extra, parts = extra_cost.energy * share, dict(data.parts) or {"data": data.energy}
    total = Quantity(data.energy.value + extra.value, data.energy.unit, data.energy.basis, f"{data.energy.source}; with {what}")
    return Cost(total, data.latency, {**parts, what: extra})


def erased_words(layout: Layout) -> Words:
    """Return the words of a region all of whose elements are erased."""
    # 64 elements fill whole words, and the pattern repeats
    few = replace(layout, elements=64)
    return np.resize(pack(np.full(64, layout.erased), few), layout.words)


def mark_cells(detected: Detected, word_bits: int, layout: Layout) -> Words:
    """Return a mask of all cells of all elements that overlap a detected word of `word_bits` bits."""
    width, bits = len(layout.planes), layout.bits
    marked = np.flatnonzero(detected)
    first = marked * word_bits // width * width
    last = np.minimum((np.minimum((marked + 1) * word_bits, bits) - 1) // width * width + width, bits)
    mask = np.zeros(layout.words, dtype=np.uint64)
    word = first >> 6
    while word.size:  # each detected word marks cells first … last: the next 64 of them at a time
        low, high = np.maximum(first - 64 * word, 0), np.minimum(last - 64 * word, 64)
        ones = np.uint64(0xFFFFFFFFFFFFFFFF) >> (64 - (high - low)).astype(np.uint64)
        np.bitwise_or.at(mask, word, ones << low.astype(np.uint64))
        more = last > 64 * (word + 1)
        first, last, word = first[more], last[more], word[more] + 1
    return mask
