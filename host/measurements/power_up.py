"""Start-up maps: the value of each cell after power-up, over temperature or voltage.

    address, bit, v_-21C, v_24C, v_69C, …      or v_3.8V, v_5V, …      optional: agree15 = reads out of 15 equal to the majority

A cell without supply keeps nothing; at power-up it takes a value that it prefers. The profile says what a network reads whose
memory lost its supply: every cell at its preferred value, p01 = share of ones, p10 = share of zeros. The share of ones is also the
prior of a weak cell's preference. Cells are taken as independent.

Noticed: cells that change with the condition and in which direction, single reads, cells whose majority is uncertain, conditions
whose map has nothing in common with its neighbours (another board, or a damaged file).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from weakcell.host.measurements.measurement import Adapter, Count, CountedPoint, FittedProfile, HeldOut, Measurement
from weakcell.host.measurements.table import MeasurementTable
from weakcell.memmodels.error_model.terms import ErrorTerm, Lifetime
from weakcell.memmodels.profile import OperatingPoint, Profile

_COLUMN = re.compile(r"v_(-?\d+(?:\.\d+)?)([CV])", re.ASCII)
_AGREE = re.compile(r"agree(\d+)", re.ASCII)
_STRANGE = 0.3
"""Share of cells that differ between neighbouring conditions at which the maps are not of one memory."""


def _recognizes(table: MeasurementTable) -> bool:
    return any(_COLUMN.fullmatch(name) for name in table.columns)


def _read(table: MeasurementTable, facts: Mapping[str, float]) -> Measurement:
    found = sorted((float(match[1]), match[2], name) for name in table.columns if (match := _COLUMN.fullmatch(name)))
    units = {unit for _, unit, _ in found}
    if len(units) > 1:
        raise table.refusal("its columns are over temperature and over voltage", "Give one of them at a time")
    condition = "temperature" if units == {"C"} else "vdd"
    unit = "°C" if units == {"C"} else "V"
    maps = {value: _bits(table, name) for value, _, name in found}
    shares = {value: float(bits.mean()) for value, bits in maps.items()}
    points, operating = [], []
    for value, bits in maps.items():
        ones = int(bits.sum())
        points.append(CountedPoint({condition: value}, Count(ones, bits.size), Count(bits.size - ones, bits.size)))
        p01 = ones / bits.size
        operating.append(OperatingPoint({condition: value}, (ErrorTerm("power-up", Lifetime.DIE, p01, 1.0 - p01),)))
    held_out = _hold_out(shares, unit)
    constants = tuple(
        Count(int(bits.sum()), bits.size).constant(f"share of ones at {value:g} {unit}") for value, bits in maps.items()
    )
    verdict = f"the share of ones at {len(maps)} conditions, nothing between them"
    fit = FittedProfile(Profile("profile", tuple(operating), constants=constants, fit={"verdict": verdict}), verdict, held_out)
    limits = ("voltages at which cells lose what they hold: a power-up map shows the preferred value only",)
    title = table.comment or table.path.stem
    return Measurement(title, table.path.name, tuple(points), (fit,), tuple(_notice(table, maps, unit)), limits)


def _bits(table: MeasurementTable, name: str) -> npt.NDArray[np.bool_]:
    values = table.numbers(name)
    if not np.isin(values, (0.0, 1.0)).all():
        raise table.refusal(f"column {name} holds more than 0 and 1", "Give one power-up value per cell")
    bits: npt.NDArray[np.bool_] = values == 1.0
    return bits


def _hold_out(shares: Mapping[float, float], unit: str) -> tuple[HeldOut, ...]:
    """Return each share of ones, predicted by a line through the probits of its two neighbours; error in decades of the share."""
    values, found = list(shares), []
    for before, here, after in zip(values, values[1:], values[2:], strict=False):
        probits = ndtri([shares[before], shares[after]])
        if not np.isfinite(probits).all():
            continue
        part = (here - before) / (after - before)
        guess = 0.5 * math.erfc(-((1.0 - part) * probits[0] + part * probits[1]) / math.sqrt(2.0))
        if shares[here] > 0.0:
            found.append(HeldOut(f"share of ones at {here:g} {unit}", math.log10(guess / shares[here])))
    return tuple(found)


def _notice(table: MeasurementTable, maps: Mapping[float, npt.NDArray[np.bool_]], unit: str) -> list[str]:
    noticed, values = [], list(maps)
    for before, after in pairwise(values):
        if (differ := float((maps[before] != maps[after]).mean())) > _STRANGE:
            noticed.append(
                f"{100 * differ:.3g} % of the cells differ between {before:g} and {after:g} {unit}: two memories, or a damaged file"
            )
    if len(maps) > 1:
        low, high = maps[values[0]], maps[values[-1]]
        up, down = (~low & high).sum() / max((~low).sum(), 1), (low & ~high).sum() / max(low.sum(), 1)
        changes = sum((maps[b] != maps[a]).astype(int) for b, a in pairwise(values))
        once = float((changes <= 1).mean())
        span = f"from {values[0]:g} to {values[-1]:g} {unit}"
        moved = f"{100 * up:.3g} % of the zeros become ones and {100 * down:.3g} % of the ones zeros"
        noticed.append(f"{span}, {moved}; {100 * once:.3g} % of the cells change at most once")
    agree = [(name, int(match[1])) for name in table.columns if (match := _AGREE.fullmatch(name))]
    if not agree:
        noticed.append("each value is one read or a majority of unknown reads: noise of a cell is not told from its preference")
    for name, reads in agree:
        counts = table.counts(name)
        noisy = float((counts < reads).mean())
        noticed.append(
            f"{100 * noisy:.3g} % of the cells do not read the same {reads} of {reads} times ({name}); a read deviates with a "
            f"probability of {1.0 - counts.mean() / reads:.3g}, which the profile leaves out"
        )
    return noticed


ADAPTER = Adapter(
    "power-up", "power-up values of cells over temperature or voltage", "address, bit, v_24C, … or v_5V, …", _recognizes, _read
)
