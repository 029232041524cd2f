"""The law of a sum of products whose weights are read from a memory that errs: its mean and variance, given the inputs.

A stored bit i that is read wrong moves its weight by u_i (1 - 2b), u_i being what it adds when it rises. Bits err independently, so

    mean = sum_k x_k (w_k + E dw_k)        E dw = sum_i p01_i u_i where the bit is 0, -p10_i u_i where it is 1
    variance = sum_k x_k^2 Var dw_k        Var dw = sum_i u_i^2 p (1 - p), p being the bit's own rate

Where p01 + p10 is the same for all bits, E dw is linear in w, so the mean follows from the clean sum and the sum of the inputs;
where p01 = p10, Var dw is the same for all weights. Then no further product is needed. Otherwise one float32 product each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.layers import StoredTensor
from weakcell.emulator.ir.values import encode_values
from weakcell.emulator.margins import compute_bit_effects
from weakcell.emulator.prediction.bit_rates import BitRates

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CleanSums:
    """Sums of R places (images, or pixels of them) and O outputs without errors, and their inputs x less the zero point.

    sums: (R, O) int32, with the bias. powers: (R, 5) float64, the sums of x, x^2, x^3, x^4 and x^6. rows: makes the inputs (R, K)
    themselves. unit: every input is +1 or -1.
    """

    sums: npt.NDArray[np.int32]
    powers: npt.NDArray[np.float64]
    rows: Callable[[], Floats]
    unit: bool

    @property
    def total(self) -> Floats:
        """Sum of x: (R,)."""
        return self.powers[:, 0].astype(np.float32)

    @property
    def square(self) -> Floats:
        """Sum of x^2: (R,)."""
        return self.powers[:, 1].astype(np.float32)

    def part(self, places: npt.NDArray[np.int64]) -> CleanSums:
        """Return the sums of these places only; their inputs are made at once."""
        rows = self.rows()[places]
        return CleanSums(self.sums[places], self.powers[places], lambda: rows, self.unit)


@dataclass(frozen=True, eq=False)
class SumLaw:
    """Of one layer: mean = slope * sum + shift + tilt * total (+ inputs @ drift.T), shift and tilt (O,).

    drift: E dw (O, K) where that is not linear in w, else None. spread: Var dw: one number, or (O, K). step: the distance between
    the values that errors can make of one sum.
    """

    slope: float
    shift: Floats
    tilt: Floats
    drift: Floats | None
    spread: float | Floats
    step: float

    def extra_mean(self, clean: CleanSums) -> Floats | None:
        """What the mean has besides slope, shift and tilt: (R, O), or None."""
        if self.drift is None:
            return None
        moved: Floats = clean.rows() @ self.drift.T
        return moved

    def variance(self, clean: CleanSums) -> Floats:
        """(R, O), or (R, 1) or (1, O) where it does not depend on the other."""
        if isinstance(self.spread, float):
            found: Array = clean.square[:, None] * np.float32(self.spread)
        elif clean.unit:
            found = self.spread.sum(axis=1, dtype=np.float64).astype(np.float32)[None]
        else:
            rows = clean.rows()
            found = (rows * rows) @ self.spread.T
        return found


def sum_law(tensor: StoredTensor, bias: Array | None, rates: BitRates) -> SumLaw:
    """The law of a layer with these weights, bias (O,) and rates."""
    outputs, units = tensor.values.shape[0], compute_bit_effects(tensor).astype(np.float64)
    zero = np.broadcast_to(np.asarray(tensor.zero_point, np.float64).reshape(-1), outputs)
    offset = np.zeros(outputs) if bias is None else bias.astype(np.float64)
    both = rates.p01 + rates.p10
    step = 2.0 if tensor.encoding.kind == "sign" else 1.0
    drift, slope, constant = None, 1.0, 0.0
    if np.ptp(both) == 0.0:
        base = -1.0 if tensor.encoding.kind == "sign" else 0.0
        slope, constant = 1.0 - both[0], float(units @ rates.p01 + both[0] * base)
    else:
        drift = _by_bit(tensor, units * rates.p01, -units * rates.p10)
    if rates.symmetric:
        spread: float | Floats = float(units**2 @ (rates.p01 * (1 - rates.p01)))
    else:
        spread = _by_bit(tensor, units**2 * rates.p01 * (1 - rates.p01), units**2 * rates.p10 * (1 - rates.p10))
    shift, tilt = (1.0 - slope) * offset, constant - (1.0 - slope) * zero
    return SumLaw(slope, shift.astype(np.float32), tilt.astype(np.float32), drift, spread, step)


def _by_bit(tensor: StoredTensor, of_zero: Array, of_one: Array) -> Floats:
    """(O, K): the sum over a weight's bits of one number if the bit is 0, another if it is 1."""
    codes = encode_values(tensor.values, tensor.encoding).astype(np.int64).reshape(tensor.values.shape[0], -1)
    made = np.zeros(codes.shape, np.float32)
    for plane, (low, high) in enumerate(zip(of_zero, of_one, strict=True)):
        made += np.where((codes >> plane) & 1, np.float32(high), np.float32(low))
    return made
