"""Conductance of resistive cells, cell by cell, over time or over a bake.

    cell, g_0s, g_1s, g_10000s, …                      in uS; g_0s is the first read, an empty cell was not measured
    temp_c, cell, t_before_s, t_after_s, g_before, g_after

The full scale is in a comment ("g_max 240 uS"), or comes from `--about g_max=240`. The profile has a law over time or temperature
(`memmodels/level_law.py`): quantiles of the change of cells of like conductance, hence misread levels of one to three bits per cell
in any window. Levels are evenly spaced, borders half-way, and each cell is exactly at its level at the first read.

Noticed: times at which cells are missing, columns that are equal, cells above the full scale. Predicted as a test: half of the
cells by the other half, and each time or temperature by its two neighbours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.host.measurements.measurement import Adapter, Count, CountedPoint, FittedProfile, HeldOut, Measurement
from weakcell.host.measurements.table import MeasurementTable
from weakcell.memmodels.level_law import LevelLaw
from weakcell.memmodels.profile import Profile
from weakcell.memmodels.technologies.rram_relaxation import SHARES, interpolate_groups, misread

Floats = npt.NDArray[np.float64]
_TIME = re.compile(r"g_(\d+(?:\.\d+)?)s", re.ASCII)
_SCALE = re.compile(r"g_max (\d+(?:\.\d+)?)", re.ASCII)
_BAKE = {"temp_c", "g_before", "g_after"}
_EDGES = (0.0, 1 / 32, 2 / 32, 4 / 32, *(k / 8 for k in range(2, 8)), 30 / 32, math.inf)
"""Groups of like conductance, as shares of the full scale."""
_FEWEST_CELLS = 100
_FEWEST_MOVED = 20
"""Misread cells of a group at which a predicted share is judged."""


class _Moves(NamedTuple):
    """Cells at one time or after one bake.

    Attributes:
        value: s or °C.
        start, change: In % of the full scale.
    """

    value: float
    start: Floats
    change: Floats

    def part(self, which: slice) -> _Moves:
        return _Moves(self.value, self.start[which], self.change[which])


def _recognizes(table: MeasurementTable) -> bool:
    return table.columns.keys() >= _BAKE or sum(_TIME.fullmatch(name) is not None for name in table.columns) > 1


def _read(table: MeasurementTable, facts: Mapping[str, float]) -> Measurement:
    said = _SCALE.search(table.comment)
    scale = facts.get("g_max", float(said[1]) if said else 0.0)
    if not 0.0 < scale < math.inf:
        raise table.refusal("it does not say which conductance is the full scale", "Give --about g_max=N, in the unit of the table")
    noticed: list[str] = []
    condition, moves = _load(table, scale, noticed)
    if too_few := [one.value for one in moves if one.start.size < 2 * _FEWEST_CELLS]:
        raise table.refusal(f"{condition}={too_few[0]:g} has fewer than {2 * _FEWEST_CELLS} cells", "Give more cells")
    points = tuple(_count_point(one, condition) for one in moves)
    law = _make_law(moves, condition)
    held_out = (*_halves(moves, condition), *_between(moves, condition))
    verdict = f"quantiles at {len(moves)} values of {condition}, interpolated between them"
    fit = FittedProfile(Profile("profile", law=law, fit={"verdict": verdict}), verdict, held_out)
    limits = [
        "misread shares below 0.2 % rest on few cells; those of a gap of no cell are an exponential tail",
        "endurance and read noise",
    ]
    title = table.comment or table.path.stem
    return Measurement(title, table.path.name, points, (fit,), tuple(noticed), tuple(limits))


def _load(table: MeasurementTable, scale: float, noticed: list[str]) -> tuple[Literal["time", "bake"], list[_Moves]]:
    """Return the condition and the moves at each of its values."""
    if table.columns.keys() >= _BAKE:
        temperature, before, after = (table.numbers(name) for name in ("temp_c", "g_before", "g_after"))
        whole = np.isfinite(before) & np.isfinite(after) & np.isfinite(temperature)
        _notice_start(before[whole], scale, noticed)
        if not whole.all():
            noticed.append(f"{int((~whole).sum())} rows lack a value and are left out")
        moves = []
        for value in np.unique(temperature[whole]):
            at = whole & (temperature == value)
            moves.append(_Moves(float(value), 100.0 * before[at] / scale, 100.0 * (after[at] - before[at]) / scale))
        return "bake", moves
    named = sorted((float(found[1]), name) for name in table.columns if (found := _TIME.fullmatch(name)))
    start = table.numbers(named[0][1])
    _notice_start(start[np.isfinite(start)], scale, noticed)
    moves, earlier = [], {named[0][1]: start}
    for value, name in named[1:]:
        g = table.numbers(name)
        whole = np.isfinite(g) & np.isfinite(start)
        if not whole.all():
            noticed.append(f"{name}: {int((~whole).sum())} of {g.size} cells were not measured")
        if same := [other for other, values in earlier.items() if np.array_equal(values, g, equal_nan=True)]:
            noticed.append(f"{name} is the same as {same[0]}, to the digit: a copy, not a second read")
        earlier[name] = g
        moves.append(_Moves(value, 100.0 * start[whole] / scale, 100.0 * (g - start)[whole] / scale))
    return "time", moves


def _notice_start(start: Floats, scale: float, noticed: list[str]) -> None:
    if above := int((start > scale).sum()):
        noticed.append(f"{above} cells start above the full scale; they count as the highest level")
    if not start.size or np.quantile(start, 0.99) < 0.5 * scale:
        noticed.append(
            "nearly all cells start below half of the full scale: high levels rest on few cells, or g_max is in another unit"
        )


def _group(moves: _Moves) -> tuple[Floats, Floats]:
    """Return mean starts and quantiles of the groups that have enough cells."""
    group = np.digitize(moves.start / 100.0, _EDGES[1:-1])
    kept = [at for k in range(len(_EDGES) - 1) if (at := group == k).sum() >= _FEWEST_CELLS]
    chosen = kept or [np.ones(group.size, bool)]
    return np.array([moves.start[at].mean() for at in chosen]), np.array([np.quantile(moves.change[at], SHARES) for at in chosen])


def _make_law(moves: Sequence[_Moves], condition: Literal["time", "bake"]) -> LevelLaw:
    """Return the quantiles of all values at the groups of the value that has most of them."""
    groups = [_group(one) for one in moves]
    starts = max((starts for starts, _ in groups), key=len)
    changes = tuple(
        tuple(tuple(np.round(np.maximum.accumulate(interpolate_groups(one, float(start))), 4).tolist()) for start in starts)
        for one in groups
    )
    return LevelLaw(condition, tuple(one.value for one in moves), tuple(starts.tolist()), changes)


def _count_point(moves: _Moves, condition: str) -> CountedPoint:
    """Return the cells that moved across the middle of the scale: one bit per cell, as they started."""
    high = moves.start >= 50.0
    end_high = moves.start + moves.change >= 50.0
    low = ~high
    return CountedPoint(
        {condition: moves.value},
        Count(int((low & end_high).sum()), int(low.sum())) if low.any() else None,
        Count(int((high & ~end_high).sum()), int(high.sum())) if high.any() else None,
    )


def _halves(moves: Sequence[_Moves], condition: str) -> Iterator[HeldOut]:
    """Yield the misread shares of every second cell, predicted by the others."""
    for one in moves:
        yield from _judge(
            _group(one.part(slice(0, None, 2))), one.part(slice(1, None, 2)), f"half of the cells, {condition}={one.value:g}"
        )


def _between(moves: Sequence[_Moves], condition: str) -> Iterator[HeldOut]:
    """Yield the misread shares of each time (temperature), predicted by its neighbours."""
    for before, here, after in zip(moves, moves[1:], moves[2:], strict=False):
        ends = [(math.log(value) if condition == "time" else value) for value in (before.value, here.value, after.value)]
        part = (ends[1] - ends[0]) / (ends[2] - ends[0])
        starts = _group(here)[0]
        first, last = (np.array([interpolate_groups(_group(one), start) for start in starts]) for one in (before, after))
        yield from _judge((starts, (1.0 - part) * first + part * last), here, f"{condition}={here.value:g} from its neighbours")


def _judge(groups: tuple[Floats, Floats], moves: _Moves, point: str) -> Iterator[HeldOut]:
    """Yield the largest error of the misread shares with four and eight levels, over groups with enough misread cells."""
    group = np.digitize(moves.start / 100.0, _EDGES[1:-1])
    for levels in (4, 8):
        half, errors = 50.0 / (levels - 1), []
        for k in range(len(_EDGES) - 1):
            at = group == k
            moved = np.abs(moves.change[at]) > half
            if moved.sum() >= _FEWEST_MOVED:
                said = sum(misread(interpolate_groups(groups, float(moves.start[at].mean())), half))
                errors.append(math.log10(said / moved.mean()))
        if errors:
            yield HeldOut(f"{point}, {levels} levels", max(errors, key=abs))


ADAPTER = Adapter(
    "conductance",
    "conductance of resistive cells over time or over a bake",
    "cell, g_0s, g_1s, … or temp_c, cell, g_before, g_after",
    _recognizes,
    _read,
    {"g_max": "conductance of the full scale, in the unit of the table"},
)
