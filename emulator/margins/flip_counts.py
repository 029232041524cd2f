"""How many flipped cells a threshold or a maximum survives: bounds in closed form, and exact counts on given inputs.

The exact counts take the most harmful flips first. Flips of the same bit of weights with equal inputs do the same harm, and inputs
are small integers, so harms are counted by (input, bit): only the distinct values are sorted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.values import StoredTensor
from weakcell.memmodels.compilation import compiled

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


class FlipEffects(NamedTuple):
    """What single flips do to a weight, as kernels read it.

    units: int64 (bits,): change of the weight when a bit rises. rises, falls: bool (bits,), see `Flippable`.
    """

    units: npt.NDArray[np.int64]
    rises: npt.NDArray[np.bool_]
    falls: npt.NDArray[np.bool_]

    @classmethod
    def of_tensor(cls, tensor: StoredTensor, flippable: Flippable | None) -> FlipEffects:
        """Return the effects of flips of a tensor; without `flippable`, every bit can flip."""
        flippable = flippable or Flippable.every(tensor)
        return cls(compute_bit_effects(tensor), flippable.rises, flippable.falls)


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


class _GainList(NamedTuple):
    """Workspace: distinct gains, largest first, and the number of cells with each gain."""

    tally: npt.NDArray[np.int64]
    gains: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


@compiled
def _list_gains(codes, x, low, factor, effects, work):  # type: ignore[no-untyped-def]
    """List the positive changes of factor · Σ w x by single flips of a row, largest first.

    Args:
        codes: Stored codes of the row, (K,).
        x: Inputs, (K,).
        low: Smallest input of all rows.
        factor: Factor of the sum.
        effects: `FlipEffects`.
        work: `_GainList`. `tally` is all zeros before and after.

    Returns:
        Number of entries of `gains` and `counts` that are set.
    """
    tally, gains, counts = work.tally, work.gains, work.counts
    planes = effects.units.size
    for k in range(codes.size):
        for plane in range(planes):
            bit = (codes[k] >> plane) & 1
            can_flip = effects.falls[plane] if bit else effects.rises[plane]
            if can_flip and factor * x[k] * effects.units[plane] * (1 - 2 * bit) > 0:
                tally[x[k] - low, plane] += 1
    size = 0
    for value in range(tally.shape[0]):
        for plane in range(planes):
            if tally[value, plane]:
                gains[size] = abs(factor * (value + low) * effects.units[plane])
                counts[size] = tally[value, plane]
                tally[value, plane] = 0
                size += 1
    order = np.argsort(-gains[:size])
    gains[:size] = gains[:size][order]
    counts[:size] = counts[:size][order]
    return size


@compiled
def _count_harmless(first, first_size, second, second_size, distance, cells):  # type: ignore[no-untyped-def]
    """Return one less than the number of flips, largest gains of both lists first, that reach `distance`; `cells` if none do."""
    i, j, flips = 0, 0, 0
    while distance > 0:
        if i < first_size and (j == second_size or first.gains[i] >= second.gains[j]):
            gain, available = first.gains[i], first.counts[i]
            i += 1
        elif j < second_size:
            gain, available = second.gains[j], second.counts[j]
            j += 1
        else:
            return cells
        used = min(available, (distance + gain - 1) // gain)
        distance -= used * gain
        flips += used
    return flips - 1


@compiled
def _new_gain_list(tally):  # type: ignore[no-untyped-def]
    return _GainList(tally, np.empty(tally.size, dtype=np.int64), np.empty(tally.size, dtype=np.int64))


@compiled
def _new_tally(x, planes):  # type: ignore[no-untyped-def]
    low = x.min() if x.size else 0
    return low, np.zeros(((x.max() - low + 1) if x.size else 1, planes), dtype=np.int64)


@compiled
def fill_pair_tolerance(codes, x, scale, effects, winner, gaps, out):  # type: ignore[no-untyped-def]
    """Count, per image and class, the flips in the rows of the winner and of that class that never close their gap.

    Equal scores count as closed. Where the gap is 0, `out` stays as it is.

    Args:
        codes: Stored codes, int64 (O, K).
        x: Inputs less their zero point, int64 (n, K).
        scale: Factor of each sum, int64 (O,).
        effects: `FlipEffects`.
        winner: Class of the highest score, int64 (n,).
        gaps: Score of the winner less the score of each class, int64 (n, O).
        out: int64 (n, O).
    """
    outputs, inputs = codes.shape
    low, tally = _new_tally(x, effects.units.size)
    down, up = _new_gain_list(tally), _new_gain_list(tally)
    cells = 2 * inputs * np.count_nonzero(effects.rises | effects.falls)
    for image in range(x.shape[0]):
        best = winner[image]
        down_size = _list_gains(codes[best], x[image], low, -scale[best], effects, down)
        for c in range(outputs):
            if c == best or gaps[image, c] <= 0:
                continue
            up_size = _list_gains(codes[c], x[image], low, scale[c], effects, up)
            out[image, c] = _count_harmless(down, down_size, up, up_size, gaps[image, c], cells)


@compiled
def fill_neuron_tolerance(codes, x, effects, h, pivot, out):  # type: ignore[no-untyped-def]
    """Count, per output pixel and channel, the flips in the channel's weights that never change [h > pivot].

    Args:
        codes: Stored codes, int64 (O, K).
        x: Windows of inputs less their zero point, int64 (pixels, K).
        effects: `FlipEffects`.
        h: Sums, int64 (pixels, O).
        pivot: Threshold of each channel, int64 (O,).
        out: int64 (pixels, O).
    """
    outputs, inputs = codes.shape
    low, tally = _new_tally(x, effects.units.size)
    work = _new_gain_list(tally)
    cells = inputs * np.count_nonzero(effects.rises | effects.falls)
    for pixel in range(x.shape[0]):
        for o in range(outputs):
            above = h[pixel, o] > pivot[o]
            distance = h[pixel, o] - pivot[o] if above else pivot[o] - h[pixel, o] + 1
            size = _list_gains(codes[o], x[pixel], low, -1 if above else 1, effects, work)
            out[pixel, o] = _count_harmless(work, size, work, 0, distance, cells)
