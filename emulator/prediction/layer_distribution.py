"""The law of one layer's faulty sums: single flips of the bits that move a sum far, and one smooth law for all the others.

A sum of many small, independent terms is close to normal. What it still differs by shows in its skewness g and excess kurtosis k.
Both are known, and the smooth law has them (Cornish and Fisher 1938). What is left of the difference between the distribution
functions is of the next order (g^3, g k and k^2), and large where few flips matter.

Bit planes are ordered by the variance that they cause. For each place (an image, or a pixel of one), the fewest planes are drawn
flip by flip such that the others leave a distance of at most `LARGEST_DISTANCE`. The distance of the others counts by their share
of the standard deviation, not by their share of the cumulants: where no flip is drawn, they are all there is. If all planes are
drawn, the law is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.layers import StoredTensor
from weakcell.emulator.ir.values import decode_codes, encode_values
from weakcell.emulator.margins import compute_bit_effects
from weakcell.emulator.prediction.bit_rates import BitRates
from weakcell.emulator.prediction.sum_kernels import draw_flips
from weakcell.emulator.prediction.sum_moments import CleanSums, SumLaw, sum_law

Array = npt.NDArray[Any]

LARGEST_DISTANCE = 0.001
"""The most that the smooth law may differ from the distribution function of a sum, by the estimate below."""
_CUBE, _PRODUCT, _SQUARE, _UNKNOWN = 0.04, 0.03, 0.03, 0.02
"""Distance per g^3, g k, k^2, and per skewness that is not known because it depends on how bits and inputs meet. The first three
are round numbers above most of the distances that exact distributions of sums of 64 to 4096 flips showed; sums of nearly equal
terms can lie further off (0.012 at a kurtosis of 0.19). The last one is max|z^2 - 1| phi(z) / 6 = 0.066 times 0.3: its sign
changes from neuron to neuron."""
_SMOOTH = 1.0
"""Least standard deviation of a smooth part, in steps of the grid that sums lie on; below, rounding would bias it."""

_LARGEST_SHAPE = 0.8
"""Skewness and kurtosis of a smooth part are cut to this; they are larger only where that part matters little to the sum."""
_TINY = 1e-60


class Part(NamedTuple):
    """Places whose sums are drawn alike: the first `planes` planes flip by flip, the others from the smooth `law` (None: none).

    places: (R',) their numbers. shape: (R', 3), of the smooth part: skewness = shape[:, 0] + shape[:, 1] * clean sum, and excess
    kurtosis. distance: (R',) of the sums from the law that they are drawn from.
    """

    places: npt.NDArray[np.int64]
    planes: int
    clean: CleanSums
    law: SumLaw | None
    shape: npt.NDArray[np.float64]
    distance: npt.NDArray[np.float64]


class _Cumulants(NamedTuple):
    """Cumulants of a weight's error, the mean over a layer's weights; each (planes + 1,): entry t leaves out the first t planes.

    The third cumulant is fitted by third + by_weight * (w - zero), w being the weight's value, and `rest` is the standard deviation
    of what that leaves. spread: the mean of (w - zero)^2, (1,).
    """

    second: Array
    third: Array
    by_weight: Array
    rest: Array
    fourth: Array
    spread: float

    @classmethod
    def of(cls, tensor: StoredTensor, codes: Array, rates: BitRates, order: Sequence[int]) -> _Cumulants:
        """Cumulants over the codes (O, K) of a layer's weights."""
        levels, counts = np.unique(codes, return_counts=True)
        share, units = counts / counts.sum(), compute_bit_effects(tensor).astype(np.float64)
        values = decode_codes(levels.astype(np.uint64), tensor.encoding) - float(np.mean(tensor.zero_point))
        cumulants = np.zeros((len(order) + 1, 3, len(levels)))
        for t, plane in enumerate(order):
            one = ((levels >> levels.dtype.type(plane)) & levels.dtype.type(1)).astype(bool)
            (v0, c0, k0), (v1, c1, k1) = _of_flip(rates.p01[plane]), _of_flip(rates.p10[plane])
            powers = units[plane] ** np.array([2, 3, 4])[:, None]
            cumulants[: t + 1] += powers * np.where(one, [[v1], [-c1], [k1]], [[v0], [c0], [k0]])
        second, third, fourth = (cumulants @ share).T
        centre = values - values @ share
        by_weight = cumulants[:, 1] @ (share * centre) / max(share @ centre**2, 1e-300)
        rest = cumulants[:, 1] - third[:, None] - by_weight[:, None] * centre
        third -= by_weight * (values @ share)
        return cls(second, third, by_weight, np.sqrt(rest**2 @ share), fourth, float(share @ values**2))


def _of_flip(p: float) -> tuple[float, float, float]:
    """Second to fourth cumulant of a flip of probability p."""
    variance = p * (1 - p)
    return variance, variance * (1 - 2 * p), variance * (1 - 6 * variance)


@dataclass(frozen=True, eq=False)
class LayerLaw:
    """Laws of the sums of one layer, for every number of planes drawn flip by flip.

    order: planes that err, those of the largest variance first. codes: stored codes (O, K).
    """

    tensor: StoredTensor
    bias: npt.NDArray[np.float64]
    rates: BitRates
    order: tuple[int, ...]
    codes: Array
    cumulants: _Cumulants
    _laws: dict[int, SumLaw] = field(default_factory=dict)

    @classmethod
    def of(cls, tensor: StoredTensor, bias: Array | None, rates: BitRates) -> LayerLaw:
        """The law of a layer with these weights, bias (O,) and rates."""
        bits, outputs = tensor.encoding.bits, tensor.values.shape[0]
        codes = encode_values(tensor.values, tensor.encoding).reshape(outputs, -1)
        codes = codes.astype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint64)
        own = compute_bit_effects(tensor).astype(np.float64) ** 2 * (rates.p01 * (1 - rates.p01) + rates.p10 * (1 - rates.p10))
        erring = np.flatnonzero((rates.p01 > 0) | (rates.p10 > 0))
        order = tuple(int(plane) for plane in erring[np.argsort(-own[erring], kind="stable")])
        offset = np.zeros(outputs) if bias is None else bias.astype(np.float64)
        return cls(tensor, offset, rates, order, codes, _Cumulants.of(tensor, codes, rates, order))

    def law(self, planes: int) -> SumLaw:
        """Return mean and variance of what all but the first `planes` planes do."""
        if planes not in self._laws:
            drawn = list(self.order[:planes])
            p01, p10 = self.rates.p01.copy(), self.rates.p10.copy()
            p01[drawn] = p10[drawn] = 0.0
            self._laws[planes] = sum_law(self.tensor, self.bias, BitRates(p01, p10))
        return self._laws[planes]

    def parts(self, clean: CleanSums) -> Iterator[Part]:
        """Yield places by how many planes must be drawn flip by flip there."""
        distance = self.distances(clean)
        fits = distance <= LARGEST_DISTANCE
        step = 2.0 if self.tensor.encoding.kind == "sign" else 1.0
        fits &= clean.powers[:, 1, None] * self.cumulants.second >= (_SMOOTH * step) ** 2
        fits[:, 1::2] = False  # by twos: fewer laws and products of matrices, for one plane more
        fits[:, -1] = True
        planes = fits.argmax(axis=1)
        for drawn in np.unique(planes).tolist():
            places = np.flatnonzero(planes == drawn)
            own = clean if len(places) == len(planes) else clean.part(places)
            law = self.law(drawn) if drawn < len(self.order) else None
            yield Part(places, drawn, own, law, self._shape(own, drawn), distance[places, drawn])

    def distances(self, clean: CleanSums) -> npt.NDArray[np.float64]:
        """(R, planes + 1): how far the sums' distribution function is from what is drawn, if the first planes are drawn exactly."""
        c, (_, square, cube, fourth, sixth) = self.cumulants, clean.powers.T[:, :, None]
        variance = np.maximum(square * c.second, _TINY)
        typical = np.sqrt(square * c.spread)  # of a sum of inputs times weights
        skewness = (abs(c.third * cube) + abs(c.by_weight) * typical * fourth / np.maximum(square, _TINY)) / variance**1.5
        unknown, kurtosis = c.rest * np.sqrt(sixth) / variance**1.5, abs(c.fourth) * fourth / variance**2
        own = _CUBE * skewness**3 + _PRODUCT * skewness * kurtosis + _SQUARE * kurtosis**2 + _UNKNOWN * unknown
        made: npt.NDArray[np.float64] = own * np.sqrt(variance / variance[:, :1])
        made[:, -1] = 0.0
        return made

    def _shape(self, clean: CleanSums, planes: int) -> npt.NDArray[np.float64]:
        """`Part.shape` of what all but the first planes do, within what the series can express."""
        c, (_, square, cube, fourth, _) = self.cumulants, clean.powers.T
        variance = np.maximum(square * c.second[planes], _TINY)
        by_sum = c.by_weight[planes] * fourth / np.maximum(square, _TINY) / variance**1.5
        base = c.third[planes] * cube / variance**1.5 - by_sum * self.bias.mean()
        largest = abs(base) + abs(by_sum) * (3 * np.sqrt(square * c.spread) + abs(self.bias.mean()))
        within = np.minimum(1.0, _LARGEST_SHAPE / np.maximum(largest, _TINY))
        kurtosis = np.minimum(c.fourth[planes] * fourth / variance**2, _LARGEST_SHAPE)
        made: npt.NDArray[np.float64] = np.stack([base * within, by_sum * within, kurtosis], axis=1)
        return made

    def jumps(self, part: Part, stream: np.uint64, names: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Draw (R', O): what flips in the first planes move the sums of a part by. names: of the places, in the whole data set."""
        made = np.zeros(part.clean.sums.shape, np.int64)
        if part.planes:
            own, units = list(self.order[: part.planes]), compute_bit_effects(self.tensor)
            p01, p10 = self.rates.p01[own], self.rates.p10[own]
            with np.errstate(divide="ignore"):
                waits = 1.0 / np.log1p(-np.maximum(p01, p10))
            flips = np.stack([np.array(own, np.float64), units[own].astype(np.float64), p01, p10, waits], axis=1)
            draw_flips(part.clean.rows(), self.codes, flips, stream, names, made)
        return made
