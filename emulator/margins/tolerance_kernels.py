"""Exact counts of the flips that a threshold or a maximum survives on given inputs: see `flip_counts`.

They take the most harmful flips first. Flips of the same bit of weights with equal inputs do the same harm, and inputs are small
integers. So flips are counted by (input, bit), and one order of all these pairs serves every row and image.

Nothing else of the emulator is imported, so that a change elsewhere does not make the cached machine code invalid.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.compilation import compiled


class FlipEffects(NamedTuple):
    """What single flips do to a weight.

    units: int64 (bits,): change of the weight when a bit rises. rises, falls: bool (bits,), see `Flippable`.
    """

    units: npt.NDArray[np.int64]
    rises: npt.NDArray[np.bool_]
    falls: npt.NDArray[np.bool_]


class GainGrid(NamedTuple):
    """Every pair of an input value and a bit, by the magnitude of the change of w x that a flip of the bit makes.

    low: Smallest input. order: int64 (pairs,), the pairs (x − low) · bits + bit, largest magnitude first. gains: int64 (pairs,),
    their magnitudes.
    """

    low: int
    order: npt.NDArray[np.int64]
    gains: npt.NDArray[np.int64]


@compiled
def _tally_gains(codes, x, factor, effects, grid, tally):  # type: ignore[no-untyped-def]
    """Count, for each pair of the grid, the single flips of a row that increase factor · Σ w x.

    Args:
        codes: Stored codes of the row, (K,).
        x: Inputs, (K,).
        factor: Factor of the sum.
        effects: `FlipEffects`.
        grid: `GainGrid`.
        tally: int64 (pairs,), overwritten.
    """
    planes = effects.units.size
    tally[:] = 0
    for k in range(codes.size):
        for plane in range(planes):
            bit = (codes[k] >> plane) & 1
            can_flip = effects.falls[plane] if bit else effects.rises[plane]
            if can_flip and factor * x[k] * effects.units[plane] * (1 - 2 * bit) > 0:
                tally[(x[k] - grid.low) * planes + plane] += 1


@compiled
def _use_gains(tallies, factors, grid, distance, cells):  # type: ignore[no-untyped-def]
    """Return one less than the number of flips, largest gains of one or two rows first, that reach `distance`; `cells` if none do.

    tallies: int64 (rows, pairs). factors: Magnitudes of the factors of the sums of both rows.
    """
    flips, pairs = 0, grid.order.size
    i, j = 0, 0 if tallies.shape[0] > 1 else pairs
    while distance > 0:
        while i < pairs and tallies[0, grid.order[i]] == 0:
            i += 1
        while j < pairs and tallies[1, grid.order[j]] == 0:
            j += 1
        if i < pairs and (j == pairs or factors[0] * grid.gains[i] >= factors[1] * grid.gains[j]):
            gain, available = factors[0] * grid.gains[i], tallies[0, grid.order[i]]
            i += 1
        elif j < pairs:
            gain, available = factors[1] * grid.gains[j], tallies[1, grid.order[j]]
            j += 1
        else:
            return cells
        used = min(available, (distance + gain - 1) // gain)
        distance -= used * gain
        flips += used
    return flips - 1


@compiled
def fill_pair_tolerance(codes, x, scale, effects, grid, winner, gaps, tallies, out):  # type: ignore[no-untyped-def]
    """Count, per image and class, the flips in the rows of the winner and of that class that never close their gap.

    Equal scores count as closed. Where the gap is 0, `out` stays as it is.

    Args:
        codes: Stored codes, int64 (O, K).
        x: Inputs less their zero point, int64 (n, K).
        scale: Factor of each sum, int64 (O,).
        effects: `FlipEffects`.
        grid: `GainGrid` of x.
        winner: Class of the highest score, int64 (n,).
        gaps: Score of the winner less the score of each class, int64 (n, O).
        tallies: Workspace, int64 (2, pairs).
        out: int64 (n, O).
    """
    outputs, inputs = codes.shape
    cells = 2 * inputs * _count_flippable(effects)
    for image in range(x.shape[0]):
        best = winner[image]
        _tally_gains(codes[best], x[image], -scale[best], effects, grid, tallies[0])
        for c in range(outputs):
            if c == best or gaps[image, c] <= 0:
                continue
            _tally_gains(codes[c], x[image], scale[c], effects, grid, tallies[1])
            out[image, c] = _use_gains(tallies, (abs(scale[best]), abs(scale[c])), grid, gaps[image, c], cells)


@compiled
def fill_neuron_tolerance(codes, x, effects, grid, h, pivot, tallies, out):  # type: ignore[no-untyped-def]
    """Count, per output pixel and channel, the flips in the channel's weights that never change [h > pivot].

    Args:
        codes: Stored codes, int64 (O, K).
        x: Windows of inputs less their zero point, int64 (pixels, K).
        effects: `FlipEffects`.
        grid: `GainGrid` of x.
        h: Sums, int64 (pixels, O).
        pivot: Threshold of each channel, int64 (O,).
        tallies: Workspace, int64 (1, pairs).
        out: int64 (pixels, O).
    """
    outputs, inputs = codes.shape
    cells = inputs * _count_flippable(effects)
    for pixel in range(x.shape[0]):
        for o in range(outputs):
            above = h[pixel, o] > pivot[o]
            distance = h[pixel, o] - pivot[o] if above else pivot[o] - h[pixel, o] + 1
            _tally_gains(codes[o], x[pixel], -1 if above else 1, effects, grid, tallies[0])
            out[pixel, o] = _use_gains(tallies, (1, 1), grid, distance, cells)


@compiled
def _count_flippable(effects):  # type: ignore[no-untyped-def]
    """Return the number of bits that can flip for some stored value."""
    count = 0
    for plane in range(effects.units.size):
        count += effects.rises[plane] or effects.falls[plane]
    return count
