"""Flips that a single number survives, in closed form; and what a flipped cell does to its weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.layers import StoredTensor

Array = npt.NDArray[Any]


def neuron_bound(h: Array, s: Array) -> Array:
    """Flips that a ±1 neuron with output [h > s] survives, T = |h - s|: max(0, T // 2 - 1) if h > s, else T // 2 (Corollary 1)."""
    h, s = np.asarray(h, np.int64), np.asarray(s, np.int64)
    distance = np.abs(h - s)
    tolerated: Array = np.where(h > s, np.maximum(0, distance // 2 - 1), distance // 2)
    return tolerated


def neuron_exact(h: Array, s: Array) -> Array:
    """The largest number of flips that never changes [h > s], a flip moving h by 2: ceil(T / 2) - 1 if h > s, else T // 2."""
    h, s = np.asarray(h, np.int64), np.asarray(s, np.int64)
    distance = np.abs(h - s)
    tolerated: Array = np.where(h > s, -(-distance // 2) - 1, distance // 2)
    return tolerated


def output_bound(margin: Array) -> Array:
    """Flips in the output layer under which the winner stays: max(0, m // 2 - 1) for a margin m > 0 (Corollary 2); -1 at a tie."""
    margin = np.asarray(margin, np.int64)
    return np.where(margin > 0, np.maximum(0, margin // 2 - 1), -1)


def output_exact(margin: Array) -> Array:
    """The largest such number: ceil(m / 2) - 1, as one flip moves a difference of two ±1 sums by 2; -1 at a tie."""
    margin = np.asarray(margin, np.int64)
    return np.where(margin > 0, -(-margin // 2) - 1, -1)


@dataclass(frozen=True, eq=False)
class Flippable:
    """Which stored bits of a tensor can come back wrong, by bit plane (bool): `rises` 0 read as 1, `falls` 1 read as 0."""

    rises: npt.NDArray[np.bool_]
    falls: npt.NDArray[np.bool_]

    @classmethod
    def every(cls, tensor: StoredTensor) -> Flippable:
        """All of them."""
        return cls(np.ones(tensor.encoding.bits, np.bool_), np.ones(tensor.encoding.bits, np.bool_))

    @property
    def cells(self) -> int:
        """How many cells of one element can flip, whatever it holds, at most."""
        return int(np.count_nonzero(self.rises | self.falls))


def bit_units(tensor: StoredTensor) -> npt.NDArray[np.int64]:
    """What a stored bit adds to its weight when it rises: 2 for a sign, 2^i else, -2^(B-1) for the sign bit of two's complement."""
    encoding = tensor.encoding
    if encoding.kind == "sign":
        return np.array([2], dtype=np.int64)
    units = np.int64(1) << np.arange(encoding.bits, dtype=np.int64)
    if encoding.kind == "signed":
        units[-1] = -units[-1]
    return units
