"""Read-backs as counts: how often each cell erred, by the value it held and by the group it belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.address import Words
from weakcell.memmodels.error_model.structure import Axis, Bank
from weakcell.memmodels.errors import InputError
from weakcell.memmodels.memory import ConditionValue

Counts = npt.NDArray[np.int64]
AXES: tuple[Axis, ...] = ("column", "row", "bank", "line")
LINE = 512
"""Default cells of a line: 64 bytes, the cache line in which DRAM errors were counted."""


@dataclass(frozen=True, eq=False)
class ReadBack:
    """Reads of the same stored bits at one operating point.

    Attributes:
        written: Stored words, (words,) uint64, as `address` lays them out.
        reads: (R, words) uint64.
        bits: How many of the bits are cells.
        first_cell: Address of the first cell; it decides the row, column and bank of every cell.
        conditions: The operating point.
        used: Mask of the cells that count, (words,) uint64; None for all. So a cell that held the same value in several
            patterns counts once.
    """

    written: Words
    reads: Words
    bits: int
    first_cell: int = 0
    conditions: Mapping[str, ConditionValue] = field(default_factory=dict)
    used: Words | None = None

    def __post_init__(self) -> None:
        if self.reads.ndim != 2 or self.reads.shape[1:] != self.written.shape or self.bits > self.written.size * 64:
            raise ValueError(f"{self.reads.shape} words read, {self.written.shape} written, {self.bits} bits")

    @property
    def stored(self) -> npt.NDArray[np.uint8]:
        """The bit that each cell stored."""
        return self._chosen(_bits(self.written)[: self.bits])

    @property
    def errors(self) -> npt.NDArray[np.int64]:
        """Number of reads at which each cell erred."""
        total = np.zeros(self.bits, dtype=np.int64)
        for read in self.reads:
            total += _bits(read ^ self.written)[: self.bits]
        return self._chosen(total)

    @property
    def addresses(self) -> npt.NDArray[np.int64]:
        """Address of each cell."""
        return self._chosen(self.first_cell + np.arange(self.bits, dtype=np.int64))

    def _chosen(self, cells: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return cells if self.used is None else cells[_bits(self.used)[: self.bits] != 0]


@dataclass(frozen=True, eq=False)
class GroupCounts:
    """Counts per group of cells; equal groups are merged.

    Attributes:
        n0, n1: Cells that held 0 and 1.
        k0, k1: How many of them were seen to err.
        times: Number of such groups.
    """

    n0: Counts
    k0: Counts
    n1: Counts
    k1: Counts
    times: Counts

    @property
    def pooled(self) -> GroupCounts:
        """The same without regard to the stored value: all cells count as holding 1."""
        nothing = np.zeros_like(self.n0)
        return _unique(nothing, nothing, self.n0 + self.n1, self.k0 + self.k1, self.times)


@dataclass(frozen=True, eq=False)
class Evidence:
    """Counts of the read-backs at one operating point.

    Attributes:
        conditions: The operating point.
        reads: R.
        seen: (2, R + 1) number of cells that held v and erred at k of R reads.
        groups: Counts per group, for each axis.
        both: Cells that were seen with both values.
        twice: Those of them that erred on both.
    """

    conditions: Mapping[str, ConditionValue]
    reads: int
    seen: Counts
    groups: Mapping[Axis, GroupCounts]
    both: int = 0
    twice: int = 0

    @property
    def cells(self) -> int:
        """Number of (cell, stored value) pairs."""
        return int(self.seen.sum())

    @property
    def faulty(self) -> int:
        """Pairs that erred at least once."""
        return int(self.seen[:, 1:].sum())

    @property
    def unmeasured(self) -> Literal["p01", "p10"] | None:
        """The rate that is unknown because no cell held the value that it is about; None if both are known."""
        n0, n1 = self.seen.sum(axis=1)
        return "p01" if n0 == 0 else "p10" if n1 == 0 else None

    @property
    def inverting(self) -> bool:
        """Whether most cells that err do so on both values, as cells without a preferred value do."""
        return 2 * self.twice > self.faulty - self.twice > 0

    @property
    def pair_effect(self) -> float:
        """Design effect of cells that err on both values, >= 1.

        They widen the variance of the share of (cell, value) pairs that erred by this factor.
        """
        n0, n1 = self.seen.sum(axis=1)
        k0, k1 = self.seen[:, 1:].sum(axis=1)
        if self.both == 0 or k0 + k1 == 0:
            return 1.0
        by_chance = self.both * (k0 / n0) * (k1 / n1)
        alone = k0 * (1.0 - k0 / n0) + k1 * (1.0 - k1 / n1)
        return float(1.0 + 2.0 * max(self.twice - by_chance, 0.0) / alone) if alone > 0.0 else 1.0

    @property
    def repeatable(self) -> bool:
        """Whether every cell that erred did so at every read."""
        return int(self.seen[:, 1:-1].sum()) == 0


def count_evidence(readbacks: Sequence[ReadBack], bank: Bank, line: int = LINE) -> Evidence:
    """Count the read-backs of one operating point.

    Args:
        readbacks: Regions, each read equally often.
        bank: Decides which cells share a column, a row or a bank.
        line: Number of consecutive cells that share a line.

    Raises:
        InputError: Regions were read a different number of times.
    """
    reads = {back.reads.shape[0] for back in readbacks}
    if len(reads) != 1 or 0 in reads:
        found = f"its regions were read {', '.join(map(str, sorted(reads))) or 'zero'} times"
        raise InputError(f"Fitting the read-backs at {dict(readbacks[0].conditions) if readbacks else {}}", found,
                         "Read every region equally often")  # fmt: skip
    (count,) = reads
    stored = np.concatenate([back.stored for back in readbacks]).astype(np.int64)
    errors = np.concatenate([back.errors for back in readbacks])
    address = np.concatenate([back.addresses for back in readbacks])
    seen = np.bincount(stored * (count + 1) + errors, minlength=2 * (count + 1)).reshape(2, count + 1)
    banks = {axis: Bank(1, line) if axis == "line" else bank for axis in AXES}
    groups = {axis: _grouped(group_numbers(address, axis, banks[axis]), stored, errors > 0) for axis in AXES}
    both, twice = _repeated(address) if len(readbacks) > 1 else 0, _repeated(address[errors > 0])
    return Evidence(readbacks[0].conditions, count, seen, groups, both, twice)


def _repeated(address: Counts) -> int:
    """Return how many cells occur twice."""
    if address.size == 0:
        return 0
    return int(address.size - np.count_nonzero(np.bincount(address - int(address.min()))))


def _bits(words: Words) -> npt.NDArray[np.uint8]:
    return np.unpackbits(words.view(np.uint8), bitorder="little")


def group_numbers(address: Counts, axis: Axis, bank: Bank) -> Counts:
    """Return the column, row, bank or line of each cell, numbered as by `structure.find_groups`."""
    size = bank.rows * bank.columns
    if axis == "column":
        return address // size * bank.columns + address % bank.columns
    return address // (size if axis == "bank" else bank.columns)


def _grouped(group: Counts, stored: Counts, faulty: npt.NDArray[np.bool_]) -> GroupCounts:
    last = int(group.max()) + 1
    by_value = np.bincount(group * 2 + stored, minlength=2 * last).reshape(last, 2)
    errors = np.bincount((group * 2 + stored)[faulty], minlength=2 * last).reshape(last, 2)
    used = by_value.sum(axis=1) > 0
    (n0, n1), (k0, k1) = by_value[used].T, errors[used].T
    return _unique(n0, k0, n1, k1, np.ones_like(n0))


def _unique(n0: Counts, k0: Counts, n1: Counts, k1: Counts, times: Counts) -> GroupCounts:
    rows, inverse = np.unique(np.stack([n0, k0, n1, k1]), axis=1, return_inverse=True)
    merged = np.bincount(inverse.reshape(-1), weights=times).astype(np.int64)
    return GroupCounts(rows[0], rows[1], rows[2], rows[3], merged)
