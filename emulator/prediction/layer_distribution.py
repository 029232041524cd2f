"""Distribution of the faulty sums of one layer: some bit planes are sampled flip by flip, the others by a smooth distribution.

A sum of many small, independent terms is close to normal. The remaining difference shows in its skewness g and excess kurtosis k.
Both are known, and the smooth distribution has them (Cornish and Fisher 1938). What then remains of the difference between the
distribution functions is of the next order (g³, g k and k²). It is large if few flips matter.

Bit planes are ordered by the variance that they cause. For each row (an image, or an output pixel of an image), as few planes as
possible are sampled flip by flip: so many that the others leave a distance of at most `LARGEST_DISTANCE`. The distance of the
others is weighted by their share of the standard deviation. If all planes are sampled flip by flip, the distribution is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.values import StoredTensor, decode_codes, encode_values
from weakcell.emulator.kernels.entry_points import draw_flips
from weakcell.emulator.margins import compute_bit_effects
from weakcell.emulator.prediction.bit_rates import BitRates
from weakcell.emulator.prediction.sum_moments import FaultFreeSums, SumMoments, compute_moments

Array = npt.NDArray[Any]

LARGEST_DISTANCE = 0.001
"""Largest estimated difference between the smooth distribution function and that of the sum."""
_CUBE, _PRODUCT, _SQUARE, _UNKNOWN = 0.04, 0.03, 0.03, 0.02
"""Distance per g³, g k, k², and per unknown skewness, which depends on which bits meet which inputs.

The first three are round numbers above most of the distances of exact distributions of sums of 64 to 4096 flips. Sums of nearly
equal terms can differ more (0.012 at a kurtosis of 0.19). The last one is max|z² − 1| φ(z) / 6 = 0.066 times 0.3, because its sign
differs between neurons."""
_SMOOTH = 1.0
"""Smallest standard deviation of a smooth part, in steps of the grid of the sums; below it, rounding would bias the result."""

_LARGEST_SHAPE = 0.8
"""Skewness and kurtosis of a smooth part are limited to this. They are larger only if the part contributes little to the sum."""
_TINY = 1e-60


class RowGroup(NamedTuple):
    """Rows whose sums are sampled in the same way.

    indices: int64 (R',), numbers of the rows. planes: the first so many planes are sampled flip by flip. sums: fault-free sums
    of the rows. moments: of the smooth distribution of the other planes; None if there is none. shape: (R', 3), of the smooth
    part: skewness = shape[:, 0] + shape[:, 1] · fault-free sum, and excess kurtosis. distance: (R',), from the exact
    distribution function.
    """

    indices: npt.NDArray[np.int64]
    planes: int
    sums: FaultFreeSums
    moments: SumMoments | None
    shape: npt.NDArray[np.float64]
    distance: npt.NDArray[np.float64]


class _Cumulants(NamedTuple):
    """Cumulants of the error of a weight, averaged over the weights of a layer. Entry t leaves out the first t planes.

    second, third, by_weight, residual, fourth: (planes + 1,). The third cumulant of a weight w is approximated by third +
    by_weight · (w − zero); `residual` is the standard deviation of the difference. spread: mean of (w − zero)².
    """

    second: Array
    third: Array
    by_weight: Array
    residual: Array
    fourth: Array
    spread: float

    @classmethod
    def of(cls, tensor: StoredTensor, codes: Array, rates: BitRates, order: Sequence[int]) -> _Cumulants:
        """Compute the cumulants for the stored codes (O, K) of a layer."""
        levels, counts = np.unique(codes, return_counts=True)
        share, units = counts / counts.sum(), compute_bit_effects(tensor).astype(np.float64)
        values = decode_codes(levels.astype(np.uint64), tensor.encoding) - float(np.mean(tensor.zero_point))
        cumulants = np.zeros((len(order) + 1, 3, len(levels)))
        for t, plane in enumerate(order):
            is_one = ((levels >> levels.dtype.type(plane)) & levels.dtype.type(1)).astype(bool)
            (v0, c0, k0), (v1, c1, k1) = _flip_cumulants(rates.p01[plane]), _flip_cumulants(rates.p10[plane])
            powers = units[plane] ** np.array([2, 3, 4])[:, None]
            cumulants[: t + 1] += powers * np.where(is_one, [[v1], [-c1], [k1]], [[v0], [c0], [k0]])
        second, third, fourth = (cumulants @ share).T
        centered = values - values @ share
        by_weight = cumulants[:, 1] @ (share * centered) / max(share @ centered**2, 1e-300)
        residual = cumulants[:, 1] - third[:, None] - by_weight[:, None] * centered
        third -= by_weight * (values @ share)
        return cls(second, third, by_weight, np.sqrt(residual**2 @ share), fourth, float(share @ values**2))


def _flip_cumulants(p: float) -> tuple[float, float, float]:
    """Return the second to fourth cumulant of a flip of probability p."""
    variance = p * (1 - p)
    return variance, variance * (1 - 2 * p), variance * (1 - 6 * variance)


@dataclass(frozen=True, eq=False)
class LayerDistribution:
    """Distribution of the faulty sums of one layer, for every number of planes that are sampled flip by flip.

    Attributes:
        tensor: Weights of the layer.
        bias: (O,).
        rates: Bit error rates of the weights.
        order: Planes with errors, those of the largest variance first.
        codes: Stored codes, (O, K).
        cumulants: Cumulants of the error of a weight.
    """

    tensor: StoredTensor
    bias: npt.NDArray[np.float64]
    rates: BitRates
    order: tuple[int, ...]
    codes: Array
    cumulants: _Cumulants
    _moments_cache: dict[int, SumMoments] = field(default_factory=dict)

    @classmethod
    def of(cls, tensor: StoredTensor, bias: Array | None, rates: BitRates) -> LayerDistribution:
        """Build the distribution of a layer with these weights, bias (O,) and bit error rates."""
        bits, outputs = tensor.encoding.bits, tensor.shape[0]
        codes = encode_values(tensor.values, tensor.encoding).reshape(outputs, -1)
        codes = codes.astype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint64)
        variances = compute_bit_effects(tensor).astype(np.float64) ** 2 * (
            rates.p01 * (1 - rates.p01) + rates.p10 * (1 - rates.p10)
        )
        erring = np.flatnonzero((rates.p01 > 0) | (rates.p10 > 0))
        order = tuple(int(plane) for plane in erring[np.argsort(-variances[erring], kind="stable")])
        offset = np.zeros(outputs) if bias is None else bias.astype(np.float64)
        return cls(tensor, offset, rates, order, codes, _Cumulants.of(tensor, codes, rates, order))

    def moments(self, planes: int) -> SumMoments:
        """Return the moments of the errors of all but the first `planes` planes."""
        if planes not in self._moments_cache:
            excluded = list(self.order[:planes])
            p01, p10 = self.rates.p01.copy(), self.rates.p10.copy()
            p01[excluded] = p10[excluded] = 0.0
            self._moments_cache[planes] = compute_moments(self.tensor, self.bias, BitRates(p01, p10))
        return self._moments_cache[planes]

    def group_rows(self, sums: FaultFreeSums) -> Iterator[RowGroup]:
        """Yield groups of rows, by the number of planes that must be sampled flip by flip."""
        distance = self.compute_distances(sums)
        fits = distance <= LARGEST_DISTANCE
        step = 2.0 if self.tensor.encoding.kind == "sign" else 1.0
        fits &= sums.powers[:, 1, None] * self.cumulants.second >= (_SMOOTH * step) ** 2
        fits[:, 1::2] = False  # in steps of two planes: fewer matrix products, for at most one plane more
        fits[:, -1] = True
        planes = fits.argmax(axis=1)
        for count in np.unique(planes).tolist():
            indices = np.flatnonzero(planes == count)
            selected = sums if len(indices) == len(planes) else sums.select(indices)
            moments = self.moments(count) if count < len(self.order) else None
            yield RowGroup(indices, count, selected, moments, self._compute_shape(selected, count), distance[indices, count])

    def compute_distances(self, sums: FaultFreeSums) -> npt.NDArray[np.float64]:
        """Estimate the distance between the sampled and the exact distribution function.

        Returns:
            (R, planes + 1): entry t is the distance if the first t planes are sampled flip by flip.
        """
        c, (_, square, cube, fourth, sixth) = self.cumulants, sums.powers.T[:, :, None]
        variance = np.maximum(square * c.second, _TINY)
        typical = np.sqrt(square * c.spread)  # of a sum of inputs times weights
        skewness = (abs(c.third * cube) + abs(c.by_weight) * typical * fourth / np.maximum(square, _TINY)) / variance**1.5
        unknown, kurtosis = c.residual * np.sqrt(sixth) / variance**1.5, abs(c.fourth) * fourth / variance**2
        smooth_distance = _CUBE * skewness**3 + _PRODUCT * skewness * kurtosis + _SQUARE * kurtosis**2 + _UNKNOWN * unknown
        distance: npt.NDArray[np.float64] = smooth_distance * np.sqrt(variance / variance[:, :1])
        distance[:, -1] = 0.0
        return distance

    def _compute_shape(self, sums: FaultFreeSums, planes: int) -> npt.NDArray[np.float64]:
        """Return `RowGroup.shape` of all but the first planes, within the range of the series."""
        c, (_, square, cube, fourth, _) = self.cumulants, sums.powers.T
        variance = np.maximum(square * c.second[planes], _TINY)
        by_sum = c.by_weight[planes] * fourth / np.maximum(square, _TINY) / variance**1.5
        base = c.third[planes] * cube / variance**1.5 - by_sum * self.bias.mean()
        largest = abs(base) + abs(by_sum) * (3 * np.sqrt(square * c.spread) + abs(self.bias.mean()))
        limit = np.minimum(1.0, _LARGEST_SHAPE / np.maximum(largest, _TINY))
        kurtosis = np.minimum(c.fourth[planes] * fourth / variance**2, _LARGEST_SHAPE)
        shape: npt.NDArray[np.float64] = np.stack([base * limit, by_sum * limit, kurtosis], axis=1)
        return shape

    def sample_changes(self, group: RowGroup, stream: np.uint64, names: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Sample the changes of the sums by flips in the first planes of a group.

        Args:
            group: The rows.
            stream: Parent stream.
            names: Numbers of the rows in the whole data set, int64 (R',).

        Returns:
            int64 (R', O).
        """
        changes = np.zeros(group.sums.sums.shape, np.int64)
        if group.planes:
            planes, units = list(self.order[: group.planes]), compute_bit_effects(self.tensor)
            p01, p10 = self.rates.p01[planes], self.rates.p10[planes]
            with np.errstate(divide="ignore"):
                waits = 1.0 / np.log1p(-np.maximum(p01, p10))
            flips = np.stack([np.array(planes, np.float64), units[planes].astype(np.float64), p01, p10, waits], axis=1)
            draw_flips(group.sums.rows(), self.codes, flips, stream, names, changes)
        return changes
