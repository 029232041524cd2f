"""Mean and variance of a sum of products whose weights are read with errors, given the inputs.

If the stored bit i = b is read wrong, its weight changes by u_i (1 − 2b), where u_i is the change when the bit rises. Bits fail
independently. This gives two moments:

    mean = Σ_k x_k (w_k + E dw_k)          E dw = Σ_i p01_i u_i for bits that are 0, −p10_i u_i for bits that are 1
    variance = Σ_k x_k² Var dw_k           Var dw = Σ_i u_i² p (1 − p), with the rate p of the stored bit

If p01 + p10 is the same for all bits, E dw is linear in w, and the mean follows from the fault-free sum and the sum of the inputs.
If p01 = p10, Var dw is the same for all weights. Then no further product is needed; otherwise each needs one float32 product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.values import StoredTensor, encode_values
from weakcell.emulator.margins import compute_bit_effects
from weakcell.emulator.prediction.bit_rates import BitRates

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FaultFreeSums:
    """Fault-free sums of R rows (images, or output pixels of images) and O outputs, and their inputs x less the zero point.

    Attributes:
        sums: With the bias, int32 (R, O).
        powers: Sums of x, x², x³, x⁴ and x⁶, float64 (R, 5).
        rows: Returns the inputs, float32 (R, K).
        unit: Whether every input is +1 or −1.
    """

    sums: npt.NDArray[np.int32]
    powers: npt.NDArray[np.float64]
    rows: Callable[[], Floats]
    unit: bool

    @property
    def total(self) -> Floats:
        """Sum of x, (R,)."""
        return self.powers[:, 0].astype(np.float32)

    @property
    def square(self) -> Floats:
        """Sum of x², (R,)."""
        return self.powers[:, 1].astype(np.float32)

    def select(self, indices: npt.NDArray[np.int64]) -> FaultFreeSums:
        """Return the sums of some rows; their inputs are computed at once."""
        rows = self.rows()[indices]
        return FaultFreeSums(self.sums[indices], self.powers[indices], lambda: rows, self.unit)


@dataclass(frozen=True, eq=False)
class SumMoments:
    """Moments of the faulty sums of a layer: mean = slope · sum + shift + tilt · total (+ inputs @ drift.T).

    Attributes:
        slope: Factor of the fault-free sum.
        shift: (O,).
        tilt: Factor of the sum of the inputs, (O,).
        drift: E dw (O, K) if it is not linear in w, else None.
        spread: Var dw: one number, or (O, K).
        step: Distance between the possible values of a faulty sum.
    """

    slope: float
    shift: Floats
    tilt: Floats
    drift: Floats | None
    spread: float | Floats
    step: float

    def extra_mean(self, sums: FaultFreeSums) -> Floats | None:
        """Return the part of the mean that `drift` gives, (R, O); None without drift."""
        if self.drift is None:
            return None
        extra: Floats = sums.rows() @ self.drift.T
        return extra

    def variance(self, sums: FaultFreeSums) -> Floats:
        """Return the variance, (R, O); (R, 1) or (1, O) if it does not depend on the output or the row."""
        if isinstance(self.spread, float):
            variance: Array = sums.square[:, None] * np.float32(self.spread)
        elif sums.unit:
            variance = self.spread.sum(axis=1, dtype=np.float64).astype(np.float32)[None]
        else:
            rows = sums.rows()
            variance = (rows * rows) @ self.spread.T
        return variance


def compute_moments(tensor: StoredTensor, bias: Array | None, rates: BitRates) -> SumMoments:
    """Compute the moments of a layer with these weights, bias (O,) and bit error rates."""
    outputs, units = tensor.shape[0], compute_bit_effects(tensor).astype(np.float64)
    zero = np.broadcast_to(np.asarray(tensor.zero_point, np.float64).reshape(-1), outputs)
    offset = np.zeros(outputs) if bias is None else bias.astype(np.float64)
    total_rate = rates.p01 + rates.p10
    step = 2.0 if tensor.encoding.kind == "sign" else 1.0
    drift, slope, constant = None, 1.0, 0.0
    if np.ptp(total_rate) == 0.0:
        base = -1.0 if tensor.encoding.kind == "sign" else 0.0
        slope, constant = 1.0 - total_rate[0], float(units @ rates.p01 + total_rate[0] * base)
    else:
        drift = _sum_over_bits(tensor, units * rates.p01, -units * rates.p10)
    if rates.symmetric:
        spread: float | Floats = float(units**2 @ (rates.p01 * (1 - rates.p01)))
    else:
        spread = _sum_over_bits(tensor, units**2 * rates.p01 * (1 - rates.p01), units**2 * rates.p10 * (1 - rates.p10))
    shift, tilt = (1.0 - slope) * offset, constant - (1.0 - slope) * zero
    return SumMoments(slope, shift.astype(np.float32), tilt.astype(np.float32), drift, spread, step)


def _sum_over_bits(tensor: StoredTensor, if_zero: Array, if_one: Array) -> Floats:
    """Sum, over the bits of each weight, one number if the bit is 0 and another if it is 1; (O, K)."""
    codes = encode_values(tensor.values, tensor.encoding).astype(np.int64).reshape(tensor.shape[0], -1)
    total = np.zeros(codes.shape, np.float32)
    for plane, (low, high) in enumerate(zip(if_zero, if_one, strict=True)):
        total += np.where((codes >> plane) & 1, np.float32(high), np.float32(low))
    return total
