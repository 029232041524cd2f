"""DRAM retention: failing cells per row after a wait without refresh.

    row, ones_90C_4s, ones_90C_8s, …, zeros_90C_4s, …

`ones_…` counts cells that read 0 after 1 was written, `zeros_…` the reverse. The number of cells of a row is in a comment ("of
65536 per row"), or comes from `--about cells=65536`.

Noticed: dead lanes (cells of every row that are wrong at any wait), rows of anti-cells, stuck cells, missing patterns. Rows of
either polarity get a profile of their own. The law is that of `fitting/retention.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.host.measurements.measurement import Adapter, Count, CountedPoint, FittedProfile, HeldOut, Measurement
from weakcell.host.measurements.table import MeasurementTable
from weakcell.memmodels.fitting.retention import RetentionCount, fit_gain, fit_retention
from weakcell.memmodels.profile import Constant, Profile
from weakcell.memmodels.retention_law import Rate, TimeLaw

_COLUMN = re.compile(r"(ones|zeros)_(-?\d+(?:\.\d+)?)C_(\d+(?:\.\d+)?)s", re.ASCII)
_PER_ROW = re.compile(r"of ([\d,]+) per row", re.ASCII)
_LANES = 64
_UNDERDISPERSED = 0.2
"""Variance of the counts of rows, as a share of the binomial one, below which most of a count is the same cells in every row."""
_MIXED = 0.01
"""Share of rows of the rarer polarity at which they are told apart."""


class _Wait(NamedTuple):
    """Counts of all rows after one wait: stored value (`ones` or `zeros`), °C, s."""

    stored: str
    temperature: float
    time: float
    flips: npt.NDArray[np.int64]


def _recognizes(table: MeasurementTable) -> bool:
    return any(_COLUMN.fullmatch(name) for name in table.columns)


def _read(table: MeasurementTable, facts: Mapping[str, float]) -> Measurement:
    cells = _row_cells(table, facts)
    waits = [_Wait(found[1], float(found[2]), float(found[3]), table.counts(name)) for name, found in _matches(table)]
    if too_many := [wait for wait in waits if wait.flips.max() > cells]:
        raise table.refusal(f"a row has {too_many[0].flips.max()} failing cells, and {cells} in all", "Give --about cells=N")
    noticed: list[str] = []
    not_fitted = ["one run of each wait: no variable retention times; no addresses in a row: no neighbours, no columns"]
    dead, waits = _take_dead_lanes(waits, cells, noticed)
    anti = _anti_rows(waits)
    _notice(waits, anti, noticed, not_fitted)
    fits, points = [], []
    for kind, which in (("true", ~anti), ("anti", anti)):
        if not which.any():
            continue
        mixed = bool(anti.any() and not anti.all())
        counted = [_count(wait, which, cells - dead) for wait in waits]
        points += _points(waits, counted, kind if mixed else None)
        fits.append(_fit(table, kind, f"profile-{kind}" if mixed else "profile", waits, counted, not_fitted))
    title = table.comment or table.path.stem
    return Measurement(title, table.path.name, tuple(points), tuple(fits), tuple(noticed), tuple(not_fitted))


def _matches(table: MeasurementTable) -> list[tuple[str, re.Match[str]]]:
    return [(name, found) for name in table.columns if (found := _COLUMN.fullmatch(name))]


def _row_cells(table: MeasurementTable, facts: Mapping[str, float]) -> int:
    said = _PER_ROW.search(table.comment)
    cells = int(facts["cells"]) if "cells" in facts else int(said[1].replace(",", "")) if said else 0
    if cells < 1:
        raise table.refusal("it does not say how many cells a row has", "Give --about cells=N")
    return cells


def _take_dead_lanes(waits: list[_Wait], cells: int, noticed: list[str]) -> tuple[int, list[_Wait]]:
    """Return how many cells of every row are dead, and the counts without them.

    Rows whose counts scatter far less than binomially after the shortest wait have failing cells in common; whole lanes count.
    """
    dead, cleaned = 0, []
    for stored in ("ones", "zeros"):
        of_value = [wait for wait in waits if wait.stored == stored]
        if not of_value:
            continue
        shortest = min(of_value, key=lambda wait: (wait.time, wait.temperature))
        counts, lane = shortest.flips, cells // _LANES
        mean = float(counts.mean())
        binomial = mean * (1.0 - mean / cells)
        always = int(min(wait.flips.min() for wait in of_value)) // lane * lane if lane else 0
        if always and counts.size > 1 and counts.var() < _UNDERDISPERSED * binomial:
            dead += always
            value = "1" if stored == "ones" else "0"
            noticed.append(
                f"{always} of {cells} cells of every row are wrong after every wait where {value} was stored ({always // lane} of "
                f"{_LANES} lanes): a dead lane, no weak cells. Left out"
            )
            of_value = [wait._replace(flips=wait.flips - always) for wait in of_value]
        cleaned += of_value
    return dead, cleaned


def _anti_rows(waits: list[_Wait]) -> npt.NDArray[np.bool_]:
    """Return which rows hold anti-cells: those that lose more zeros than ones after the longest wait. Rare ones do not count."""
    longest = {stored: _longest(waits, stored) for stored in ("ones", "zeros")}
    rows = waits[0].flips.size
    ones, zeros = (np.zeros(rows) if wait is None else wait.flips for wait in longest.values())
    anti: npt.NDArray[np.bool_] = zeros > ones
    return np.full(rows, anti.mean() > 0.5) if min(anti.mean(), 1.0 - anti.mean()) < _MIXED else anti


def _longest(waits: list[_Wait], stored: str) -> _Wait | None:
    return max((wait for wait in waits if wait.stored == stored), key=lambda wait: (wait.temperature, wait.time), default=None)


def _notice(waits: list[_Wait], anti: npt.NDArray[np.bool_], noticed: list[str], not_fitted: list[str]) -> None:
    """Say what is missing or odd."""
    if anti.any() and not anti.all():
        edges = np.flatnonzero(np.diff(anti.astype(np.int8))) + 1
        blocks = np.diff([0, *edges.tolist(), anti.size])
        noticed.append(
            f"{int((~anti).sum())} rows hold true cells and {int(anti.sum())} anti-cells, in {blocks.size} blocks of "
            f"{blocks.min()} to {blocks.max()} rows: each kind has a profile of its own"
        )
    for stored, value, rate in (("ones", "1", "p10"), ("zeros", "0", "p01")):
        of_value = [wait for wait in waits if wait.stored == stored]
        if not of_value:
            noticed.append(f"no row ever stored {value}: {rate} is not known")
            continue
        stuck = np.minimum.reduce([wait.flips for wait in of_value])
        if len(of_value) > 2 and 0 < stuck.sum() <= 16:
            rows = ", ".join(map(str, np.flatnonzero(stuck)[:8]))
            noticed.append(
                f"{int(stuck.sum())} cells are wrong after every wait where {value} was stored (row {rows}): stuck cells"
            )
    if len({wait.temperature for wait in waits}) == 1:
        not_fitted.append("one temperature: no activation energy")


def _count(wait: _Wait, which: npt.NDArray[np.bool_], cells: int) -> Count:
    return Count(int(wait.flips[which].sum()), int(which.sum()) * cells)


def _points(waits: list[_Wait], counted: list[Count], kind: str | None) -> list[CountedPoint]:
    by_point: dict[tuple[float, float], dict[str, Count]] = {}
    for wait, count in zip(waits, counted, strict=True):
        by_point.setdefault((wait.temperature, wait.time), {})[wait.stored] = count
    named = {} if kind is None else {"rows": kind}
    return [
        CountedPoint({**named, "temperature": temperature, "interval": time}, counts.get("zeros"), counts.get("ones"))
        for (temperature, time), counts in sorted(by_point.items())
    ]


def _fit(
    table: MeasurementTable, kind: str, name: str, waits: list[_Wait], counted: list[Count], not_fitted: list[str]
) -> FittedProfile:
    """Return the profile of the rows of one polarity."""
    charged, lost = ("ones", "p10") if kind == "true" else ("zeros", "p01")
    counts: dict[str, list[RetentionCount]] = {"ones": [], "zeros": []}
    for wait, count in zip(waits, counted, strict=True):
        counts[wait.stored].append(RetentionCount(wait.time, wait.temperature, *count))
    rate: Rate = "p10" if lost == "p10" else "p01"
    found = fit_retention(counts[charged], rate)
    law = found.law
    others = counts["zeros" if charged == "ones" else "ones"]
    if others:
        law = fit_gain(law, others)
        if law.gain_offset == -np.inf:
            gained, cells = max(one.flips for one in others), others[0].cells
            not_fitted.append(
                f"{kind} rows: at most {gained} of {cells} cells gained charge, too few for a law: none do in the profile"
            )
    held_out = tuple(HeldOut(f"{time:g} s, {temperature:g} °C", error) for time, temperature, error in found.held_out)
    profile = Profile(
        name,
        law=law,
        constants=_constants(law),
        fit={"verdict": found.verdict, "rms_decades": found.rms, "largest_decades": found.largest},
    )
    return FittedProfile(profile, f"{kind} cells: {found.verdict}", held_out)


def _constants(law: TimeLaw) -> tuple[Constant, ...]:
    """Return the constants that the table determines; they have no interval, since the law's own error outweighs chance."""
    values = {"level": law.level, "body": law.body, "knee": law.knee}
    if law.energy:
        values["activation energy"] = law.energy
    units = {"activation energy": "eV", "knee": "ln s"}
    method = "least squares of ln(share); see the held-out errors"
    return tuple(Constant(name, value, units.get(name, ""), value, value, method=method) for name, value in values.items())


ADAPTER = Adapter(
    "dram-retention",
    "failing cells per DRAM row after waits without refresh",
    "row, ones_90C_4s, …, zeros_90C_4s, …",
    _recognizes,
    _read,
    {"cells": "cells of a row"},
)
