"""Any memory: one line per read of a cell, or one line of counts per operating point.

    cell, written, read, CONDITION, …               written and read are 0 or 1; `address` may be the cell's name, with `bit`
    flips, cells, written, CONDITION, …             written is 0 or 1 (or zeros, ones)

Every other column is a condition: a number (vdd, temperature, interval in s …) or a word. A cell counts once for each value that it
held at an operating point, as wrong if any of its reads was. The profile has

- a law over time and temperature, where a condition is `interval` (or `time`, `wait`, with or without `_s`),
- a probit over the one numeric condition, where three points and more have errors and it fits within 0.3 decades,
- or the rates of the points themselves.

Noticed: values that were never written, single reads, points without errors, lines that repeat others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import starmap
from typing import NamedTuple

import numpy as np
from scipy.special import log_ndtr, ndtri

from weakcell.host.measurements.measurement import Adapter, Count, CountedPoint, FittedProfile, HeldOut, Measurement
from weakcell.host.measurements.table import MeasurementTable
from weakcell.memmodels.error_model.terms import ErrorTerm, Lifetime
from weakcell.memmodels.errors import InputError
from weakcell.memmodels.fitting.retention import RetentionCount, fit_gain, fit_retention
from weakcell.memmodels.memory import ConditionValue
from weakcell.memmodels.profile import Constant, OperatingPoint, ProbitLaw, Profile, Rate

_TIMES = {name + unit for name in ("interval", "time", "wait", "t_wait") for unit in ("", "_s")}
_TEMPERATURES = {"temperature", "temp", "temp_c", "temperature_c"}
_CELL = {"cell", "address", "bit"}
_WORDS = {"zeros": "0", "ones": "1"}
_FEWEST = 10
_POOR = 0.3


class _Point(NamedTuple):
    """Counts of one operating point, by written value."""

    conditions: Mapping[str, ConditionValue]
    counts: dict[str, Count]


def _recognizes(table: MeasurementTable) -> bool:
    names = table.columns.keys()
    return ({"written", "read"} <= names and bool(_CELL & names)) or {"flips", "cells", "written"} <= names


def _read(table: MeasurementTable, facts: Mapping[str, float]) -> Measurement:
    noticed: list[str] = []
    not_fitted: list[str] = []
    counted = "flips" in table.columns
    points = _from_counts(table) if counted else _from_reads(table, noticed)
    if counted:
        noticed.append("counts only: no addresses, so no structure, and repeated reads cannot be told")
    for value, rate in (("0", "p01"), ("1", "p10")):
        if not any(value in point.counts for point in points):
            noticed.append(f"{value} was never written: {rate} is not known")
    if silent := [_name(point) for point in points if not any(count.flips for count in point.counts.values())]:
        noticed.append(f"no cell was wrong at {'; '.join(silent[:5])}: only upper bounds are known there")
    fit = _fit(table, points, not_fitted)
    rows = tuple(CountedPoint(point.conditions, point.counts.get("0"), point.counts.get("1")) for point in points)
    title = table.comment or table.path.stem
    return Measurement(title, table.path.name, rows, (fit,), tuple(noticed), tuple(not_fitted))


def _condition_columns(table: MeasurementTable, others: set[str]) -> dict[str, list[ConditionValue]]:
    """Return the columns of conditions; a column is of numbers if all its cells are."""
    found: dict[str, list[ConditionValue]] = {}
    for name, cells in table.columns.items():
        if name in others:
            continue
        try:
            numbers = [float(cell) for cell in cells]
            found[name] = list(numbers) if all(map(math.isfinite, numbers)) else list(cells)
        except ValueError:
            found[name] = list(cells)
    return found


def _values(table: MeasurementTable, name: str) -> list[str]:
    found = [_WORDS.get(cell.strip(), cell.strip()) for cell in table.columns[name]]
    if wrong := set(found) - {"0", "1"}:
        raise table.refusal(
            f"column {name} holds {sorted(wrong)[0][:40]!r}", "Give 0 or 1; logs of words are read by --as word-log"
        )
    return found


def _from_counts(table: MeasurementTable) -> list[_Point]:
    flips, cells, written = table.counts("flips"), table.counts("cells"), _values(table, "written")
    if (wrong := (flips > cells) | (cells == 0)).any():
        place = int(np.flatnonzero(wrong)[0])
        raise table.refusal(
            f"row {place + 1} has {flips[place]} flips of {cells[place]} cells", "Give flips of all cells that held the value"
        )
    conditions = _condition_columns(table, {"flips", "cells", "written"})
    points: dict[tuple[ConditionValue, ...], _Point] = {}
    for row, key in enumerate(zip(*conditions.values(), strict=True) if conditions else [()] * table.rows):
        point = points.setdefault(key, _Point(dict(zip(conditions, key, strict=True)), {}))
        if written[row] in point.counts:
            raise table.refusal(
                f"row {row + 1} repeats {_name(point)} with {written[row]} written", "Give each operating point once"
            )
        point.counts[written[row]] = Count(int(flips[row]), int(cells[row]))
    return list(points.values())


def _from_reads(table: MeasurementTable, noticed: list[str]) -> list[_Point]:
    written, read = _values(table, "written"), _values(table, "read")
    conditions = _condition_columns(table, {"written", "read", *_CELL})
    cells = list(zip(*(table.columns[name] for name in table.columns if name in _CELL), strict=True))
    keys = list(zip(*conditions.values(), strict=True)) if conditions else [()] * table.rows
    wrong: dict[tuple[ConditionValue, ...], dict[str, dict[tuple[str, ...], bool]]] = {}
    reads: Counter[tuple[object, ...]] = Counter()
    for key, cell, one, other in zip(keys, cells, written, read, strict=True):
        ever = wrong.setdefault(key, {}).setdefault(one, {})
        ever[cell] = ever.get(cell, False) or one != other
        reads[(key, one, cell)] += 1
    if max(reads.values()) == 1:
        noticed.append("each cell was read once at each point: whether its errors come back at the next read is not known")
    elif min(reads.values()) != max(reads.values()):
        noticed.append(
            f"cells were read {min(reads.values())} to {max(reads.values())} times at a point: a cell is wrong if any read was"
        )
    else:
        noticed.append(f"each cell was read {max(reads.values())} times at each point: a cell is wrong if any read was")
    return [
        _Point(
            dict(zip(conditions, key, strict=True)),
            {value: Count(sum(ever.values()), len(ever)) for value, ever in by_value.items()},
        )
        for key, by_value in wrong.items()
    ]


def _name(point: _Point) -> str:
    return (
        ", ".join(f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in point.conditions.items())
        or "the only point"
    )


def _fit(table: MeasurementTable, points: Sequence[_Point], not_fitted: list[str]) -> FittedProfile:
    """Return the law over time, the probit over one condition, or the points."""
    moving = {key for key in points[0].conditions if len({point.conditions[key] for point in points}) > 1}
    numeric = {key for key in moving if all(isinstance(point.conditions[key], float) for point in points)}
    times, temperatures = numeric & _TIMES, set(points[0].conditions) & _TEMPERATURES
    if len(times) == 1 and moving <= times | temperatures:
        try:
            return _retention(points, next(iter(times)), next(iter(temperatures), None))
        except InputError as error:
            not_fitted.append(f"no law over time: {error.found}")
    elif len(numeric) == 1 and moving == numeric:
        found = _probit(table, points, next(iter(numeric)), not_fitted)
        if found is not None:
            return found
    elif moving:
        not_fitted.append(
            f"a law over {', '.join(sorted(moving))} together: laws run over one number, or over time and temperature"
        )
    return _rates(points)


def _retention(points: Sequence[_Point], time: str, temperature: str | None) -> FittedProfile:
    by_value = {
        value: [
            RetentionCount(
                float(point.conditions[time]), float(point.conditions[temperature]) if temperature else 25.0, *point.counts[value]
            )
            for point in points
            if value in point.counts
        ]
        for value in ("0", "1")
    }
    total = {value: sum(one.share for one in counts) for value, counts in by_value.items()}
    lost: Rate = "p10" if total["1"] >= total["0"] else "p01"
    charged, empty = ("1", "0") if lost == "p10" else ("0", "1")
    found = fit_retention(by_value[charged], lost)
    law = fit_gain(found.law, by_value[empty]) if by_value[empty] else found.law
    profile = Profile(
        "profile", law=law, fit={"verdict": found.verdict, "rms_decades": found.rms, "largest_decades": found.largest}
    )
    held_out = tuple(HeldOut(f"{t:g} s, {degrees:g} °C", error) for t, degrees, error in found.held_out)
    return FittedProfile(
        profile, found.verdict + ("" if temperature else "; the temperature is not known and was taken as constant"), held_out
    )


def _probit(table: MeasurementTable, points: Sequence[_Point], condition: str, not_fitted: list[str]) -> FittedProfile | None:
    """Return a probit over one condition; None if too few points have errors, or if it does not fit."""
    totals = {value: sum(point.counts[value].flips for point in points if value in point.counts) for value in ("0", "1")}
    chief = "1" if totals["1"] >= totals["0"] else "0"
    used = [
        (float(point.conditions[condition]), point.counts[chief].rate, point.counts[chief].flips)
        for point in points
        if chief in point.counts and _FEWEST <= point.counts[chief].flips < point.counts[chief].cells
    ]
    if len(used) < 3:
        not_fitted.append(f"a law over {condition}: {len(used)} points have {_FEWEST} flips and more, and three are needed")
        return None
    x, rates, flips = map(np.array, zip(*used, strict=True))
    offset, slope = _line(x, rates, flips)
    errors = (log_ndtr(offset + slope * x) - np.log(rates)) / math.log(10.0)
    rms = float(np.sqrt(np.mean(errors**2)))
    held_out = []
    for out in range(x.size) if x.size > 3 else ():
        kept = np.arange(x.size) != out
        a, b = _line(x[kept], rates[kept], flips[kept])
        held_out.append(HeldOut(f"{condition}={x[out]:g}", float((log_ndtr(a + b * x[out]) - np.log(rates[out])) / math.log(10.0))))
    if rms > _POOR or slope == 0.0:
        not_fitted.append(f"a law over {condition}: a probit misses the points by rms {rms:.2f} decades")
        return None
    ratio = totals["0" if chief == "1" else "1"] / max(totals[chief], 1)
    both = all(value in point.counts for point in points for value in ("0", "1"))
    shares = (ratio if both else 0.0, 1.0) if chief == "1" else (1.0, ratio if both else 0.0)
    unmeasured: Rate | None = None if both else "p01" if chief == "1" else "p10"
    like = ErrorTerm("access", Lifetime.DIE, 0.0, 0.0, preference="cell" if both else "zero" if chief == "1" else "one")
    mu, s = float(-offset / slope), float(-1.0 / slope)
    law = ProbitLaw(condition, "", float(x.min()), float(x.max()), mu, s, *shares, like, unmeasured)
    verdict = f"the law fits with rms {rms:.3f}, largest {np.abs(errors).max():.3f} decades over {x.size} points"
    method = "least squares of the probit; see the held-out errors"
    constants = tuple(starmap(lambda name, value: Constant(name, value, "", value, value, method=method), (("mu", mu), ("s", s))))
    return FittedProfile(
        Profile("profile", law=law, constants=constants, fit={"verdict": verdict, "rms_decades": rms}), verdict, tuple(held_out)
    )


def _line(x: np.ndarray, rates: np.ndarray, flips: np.ndarray) -> tuple[float, float]:
    """Return offset and slope of the probits, weighted by their counts."""
    probits = ndtri(rates)
    density = np.exp(-0.5 * probits**2) / math.sqrt(2.0 * math.pi)
    weight = density / rates * np.sqrt(flips)
    slope, offset = np.polyfit(x, probits, 1, w=weight)
    return float(offset), float(slope)


def _rates(points: Sequence[_Point]) -> FittedProfile:
    """Return the rates of the points; errors are taken to be of the die."""
    operating = []
    for point in points:
        p01, p10 = point.counts.get("0"), point.counts.get("1")
        unmeasured: Rate | None = "p01" if p01 is None else "p10" if p10 is None else None
        rates = [0.0 if count is None else count.rate for count in (p01, p10)]
        inverting = sum(rates) > 1.0
        term = ErrorTerm("access", Lifetime.READ if inverting else Lifetime.DIE, rates[0], rates[1])
        operating.append(OperatingPoint(point.conditions, (term,), unmeasured))
    constants = tuple(
        count.constant(f"{'p01' if value == '0' else 'p10'} at {_name(point)}")
        for point in points
        for value, count in sorted(point.counts.items())
    )
    verdict = f"rates of {len(points)} operating points, nothing between them; errors are taken as those of the die"
    return FittedProfile(Profile("profile", tuple(operating), constants=constants, fit={"verdict": verdict}), verdict)


ADAPTER = Adapter(
    "long-table",
    "any memory: reads of cells, or counts per operating point",
    "cell, written, read, CONDITION, … or flips, cells, written, CONDITION, …",
    _recognizes,
    _read,
)
