"""How many flipped cells a threshold or a maximum survives: bounds in closed form, and what exact counts need.

`tolerance_kernels` has the exact counts on given inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.values import StoredTensor
from weakcell.emulator.margins.tolerance_kernels import FlipEffects, GainGrid

Array = npt.NDArray[Any]


def neuron_bound(h: Array, s: Array) -> Array:
    """Return the bound of Corollary 1 on the flips that a ±1 neuron [h > s] survives.

    With T = |h − s|: max(0, T // 2 − 1) if h > s, else T // 2. Buschjäger et al., DATE 2021.
    """
    h, s = np.asarray(h, np.int64), np.asarray(s, np.int64)
    distance = np.abs(h - s)
    tolerated: Array = np.where(h > s, np.maximum(0, distance // 2 - 1), distance // 2)
    return tolerated


def neuron_exact(h: Array, s: Array) -> Array:
    """Return the largest number of flips that never changes [h > s], if a flip moves h by 2.

    With T = |h − s|: ceil(T / 2) − 1 if h > s, else T // 2.
    """
    h, s = np.asarray(h, np.int64), np.asarray(s, np.int64)
    distance = np.abs(h - s)
    tolerated: Array = np.where(h > s, -(-distance // 2) - 1, distance // 2)
    return tolerated


def output_bound(margin: Array) -> Array:
    """Return the bound of Corollary 2 on the flips in the output layer that keep the winner; −1 at a tie.

    max(0, m // 2 − 1) for a margin m > 0. Buschjäger et al., DATE 2021.
    """
    margin = np.asarray(margin, np.int64)
    return np.where(margin > 0, np.maximum(0, margin // 2 - 1), -1)


def output_exact(margin: Array) -> Array:
    """Return the largest number of flips in the output layer that keeps the winner; −1 at a tie.

    ceil(m / 2) − 1, because one flip moves the difference of two ±1 sums by 2.
    """
    margin = np.asarray(margin, np.int64)
    return np.where(margin > 0, -(-margin // 2) - 1, -1)


@dataclass(frozen=True, eq=False)
class Flippable:
    """Which stored bits of a tensor can be read wrong.

    Attributes:
        rises: bool (bits,): a stored 0 can be read as 1.
        falls: bool (bits,): a stored 1 can be read as 0.
    """

    rises: npt.NDArray[np.bool_]
    falls: npt.NDArray[np.bool_]

    @classmethod
    def every(cls, tensor: StoredTensor) -> Flippable:
        """Return the record in which every bit can flip in both directions."""
        return cls(np.ones(tensor.encoding.bits, np.bool_), np.ones(tensor.encoding.bits, np.bool_))

    @property
    def cells(self) -> int:
        """Cells of one element that can flip for some stored value."""
        return int(np.count_nonzero(self.rises | self.falls))


def compute_flip_effects(tensor: StoredTensor, flippable: Flippable | None) -> FlipEffects:
    """Return the effects of flips of a tensor; without `flippable`, every bit can flip."""
    flippable = flippable or Flippable.every(tensor)
    return FlipEffects(compute_bit_effects(tensor), flippable.rises, flippable.falls)


def compute_bit_effects(tensor: StoredTensor) -> npt.NDArray[np.int64]:
    """Return, for each stored bit, the change of the weight when the bit rises.

    2 for a sign; 2^i for bit i of a code; −2^(B−1) for the sign bit of two's complement.
    """
    encoding = tensor.encoding
    if encoding.kind == "sign":
        return np.array([2], dtype=np.int64)
    units = np.int64(1) << np.arange(encoding.bits, dtype=np.int64)
    if encoding.kind == "signed":
        units[-1] = -units[-1]
    return units


def sort_gains(x: Array, effects: FlipEffects) -> GainGrid:
    """Return the gains that flips of weights with these inputs may have, largest first; x int64."""
    low, high = (int(x.min()), int(x.max())) if x.size else (0, 0)
    gains = np.abs(np.arange(low, high + 1)[:, None] * effects.units).reshape(-1)
    order = np.argsort(-gains, kind="stable")
    return GainGrid(low, order, gains[order])
