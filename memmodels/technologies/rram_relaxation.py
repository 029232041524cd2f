"""RRAM whose cells were followed one by one: how conductances move after programming, and in a bake, in two technologies.

    P(level read as the one above) = P(change > half the distance of the levels)

The law is the distribution of the change itself, as quantiles of the published cells (0.2 ... 99.8 %), in groups of like
conductance: drift, heavy tails and their asymmetry are in it. A Gaussian of the same deviation misses the share of misread cells by
up to 4.7 decades. Between quantiles the probit is linear; beyond the outermost ones the share falls exponentially, as between the
outer two. Quantiles are linear between groups in the conductance, in ln(time) between times, and in the temperature between bakes.

Relaxation has two stages, before and after about 1 s, so one law in ln(time) does not hold. Nor does one activation energy hold for
the bakes: below 180 °C technology A shows relaxation only. A bake is that of the source: 2 h for A, 1.2 to 9.9 h for C. Most of
that time was not at temperature (exact times are not published). At 25 °C it is the same time at room temperature.

A cell starts exactly at its level. Borders lie half-way between levels; a level can be read as a neighbour only, and a window in
which more than 5 % of a level's cells would be read farther off is refused. Errors persist until the next write, and are nested as
long as the distribution widens.

Valid: A 0.01 ... 1e4 s, bakes 25 ... 260 °C; C 0.01 ... 1e5 s, bakes 25 ... 180 °C. No energy was published.

Source: raw data of A. Levy, "RRAM Relaxation Master Model" (MIT); 16384 cells of technology A (g_max 240 uS), 16292 of C (40 uS).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.curves import Curve, Panel
from weakcell.memmodels.definition import Condition, Conditions, Technology, no_cost
from weakcell.memmodels.error_model.levels import Code, LevelTerm
from weakcell.memmodels.technologies.support import check_neighbours, number, phi, refuse, table

Floats = npt.NDArray[np.float64]
_NAME = "rram-relaxation"
SHARES = (0.002, 0.01, 0.05, 0.15, 0.35, 0.5, 0.65, 0.85, 0.95, 0.99, 0.998)
"""Shares of the cells that stay below the quantiles."""
BAKE_SECONDS = {"A": 7165.0, "C": 12000.0}
"""Median time between the reads before and after a bake."""
_ROOM = 25.0


def misread(change: Floats, distance: float) -> tuple[float, float]:
    """Return P(change > distance) and P(change < -distance).

    Args:
        change: Quantiles of the change at `SHARES`, ascending.
        distance: Positive, in the unit of the quantiles.
    """
    return _share_above(change, distance), _share_above(-change[::-1], distance)


def _share_above(change: Floats, at: float) -> float:
    """Return the share of cells whose change exceeds `at`. `SHARES` are symmetric: the lower side is the upper one of -change."""
    if at >= change[-1]:
        inner, outer = 1.0 - SHARES[-2], 1.0 - SHARES[-1]
        return float(outer * (outer / inner) ** ((at - change[-1]) / max(change[-1] - change[-2], 1e-9)))
    if at <= change[0]:
        return 1.0 - _share_above(-change[::-1], -at)
    return phi(-float(np.interp(at, change, _probits())))


@cache
def _probits() -> Floats:
    from scipy.special import ndtri

    return np.asarray(ndtri(SHARES))


@cache
def _groups(technology: str, kind: str) -> dict[float, tuple[Floats, Floats]]:
    """Return, by time or temperature, the mean start of each group (groups,) and its quantiles (groups, shares), in % of g_max."""
    columns = [f"q{100 * share:g}" for share in SHARES]
    found: dict[float, list[list[float]]] = {}
    for row in table("rram_changes"):
        if (row["technology"], row["kind"]) == (technology, kind):
            found.setdefault(float(row["value"]), []).append([float(row["start"]), *(float(row[q]) for q in columns)])
    return {value: (np.array(rows)[:, 0], np.array(rows)[:, 1:]) for value, rows in found.items()}


def interpolate_groups(groups: tuple[Floats, Floats], start: float) -> Floats:
    """Return the quantiles of cells that start at `start`, between groups (their mean starts, their quantiles)."""
    starts, quantiles = groups
    return np.array([np.interp(start, starts, column) for column in quantiles.T])


def change_over_time(technology: str, start: float, time: float) -> Floats:
    """Return the quantiles of the change, in % of g_max, `time` s after the first read; start: in % of g_max."""
    known = _groups(technology, "time")
    for before, after in pairwise(known):
        if time <= after:
            part = math.log(time / before) / math.log(after / before)
            return (1.0 - part) * interpolate_groups(known[before], start) + part * interpolate_groups(known[after], start)
    raise ValueError(f"{time} s lies beyond the last time")


def change_over_bake(technology: str, start: float, temperature: float) -> Floats:
    """Return the quantiles of the change, in % of g_max, over a bake at °C; start: in % of g_max."""
    bakes = {value: interpolate_groups(groups, start) for value, groups in _groups(technology, "bake").items()}
    known = {_ROOM: change_over_time(technology, start, BAKE_SECONDS[technology]), **bakes}
    for before, after in pairwise(known):
        if temperature <= after:
            part = (temperature - before) / (after - before)
            return (1.0 - part) * known[before] + part * known[after]
    raise ValueError(f"{temperature} °C lies beyond the last bake")


def level_term(conditions: Conditions) -> tuple[LevelTerm, ...]:
    """Return the misread levels of the programming window."""
    technology, low, high = str(conditions["technology"]), number(conditions, "low"), number(conditions, "high")
    if high <= low:
        raise refuse(_NAME, f"low={low:g} with high={high:g}", "the window is empty or upside down", "Choose high above low")
    steps = (1 << int(number(conditions, "bits_per_cell"))) - 1
    starts = [100.0 * (low + (high - low) * i / steps) for i in range(steps + 1)]
    up, down, beyond = misread_neighbours([_change(technology, start, conditions) for start in starts], starts[1] - starts[0])
    made_by = ("technology", "bits_per_cell", "low", "high", "bake" if "bake" in conditions else "time")
    check_neighbours(_NAME, beyond, ", ".join(f"{key}={conditions[key]}" for key in made_by))
    code: Code = "binary" if conditions["code"] == "binary" else "gray"
    return (LevelTerm("levels", up, down, code),)


def misread_neighbours(changes: Sequence[Floats], distance: float) -> tuple[tuple[float, ...], tuple[float, ...], list[float]]:
    """Return P(read one level up), P(read one level down) and P(read farther off) of each level.

    Args:
        changes: Quantiles of the change of each level, the lowest first.
        distance: Between two levels; borders lie half-way.
    """
    top = len(changes) - 1
    near, far = ([misread(change, part * distance) for change in changes] for part in (0.5, 1.5))
    beyond = [(up if i + 2 <= top else 0.0) + (down if i >= 2 else 0.0) for i, (up, down) in enumerate(far)]
    return (*(up for up, _ in near[:-1]), 0.0), (0.0, *(down for _, down in near[1:])), beyond


def _change(technology: str, start: float, conditions: Conditions) -> Floats:
    """Return the quantiles of the change at the conditions; refuse what was not measured."""
    time = number(conditions, "time")
    if "bake" in conditions:
        bake, last = number(conditions, "bake"), max(_groups(technology, "bake"))
        if bake > last:
            raise refuse(
                _NAME, f"bake={bake:g} with technology={technology}", f"it was baked at up to {last:g} °C", "Choose a cooler bake"
            )
        if time != _TIME:
            raise refuse(_NAME, f"bake={bake:g} with time={time:g}", "a bake takes the time that the source took", "Leave time out")
        return change_over_bake(technology, start, bake)
    last = max(_groups(technology, "time"))
    if time > last:
        raise refuse(
            _NAME, f"time={time:g} with technology={technology}", f"it was measured up to {last:g} s", "Choose a shorter time"
        )
    return change_over_time(technology, start, time)


def published_curve() -> tuple[Panel, ...]:
    """Return the published spread of high and low levels over time, and the law's share of misread cells; nothing is fitted."""
    spreads, rates = [], []
    for technology in BAKE_SECONDS:
        times = list(_groups(technology, "time"))
        for variant, start in enumerate((25.0, 75.0)):
            width = partial(_width, technology, start)
            points = tuple((t, width(t)) for t in times)
            grid = tuple(np.geomspace(times[0], times[-1], 121).tolist())
            label = f"{technology}, from {start:g} % of g_max"
            spreads.append(Curve(label, points, width, grid, group=technology, variant=variant))
        for variant, bits in enumerate((1, 2)):
            rates.append(
                Curve(
                    f"{technology}, {bits} bit", law=partial(_rate, technology, bits), law_x=grid, group=technology, variant=variant
                )
            )
    x = "time since the first read (s)"
    return (
        Panel("rram", "RRAM", "90 % of cells: spread of the change (interpolated)", x, "q95 - q5 (% of g_max)", tuple(spreads),
              x_log=True),
        Panel("rram", "RRAM", "Levels over the whole window", x, "bit error rate", tuple(rates), x_log=True),
    )  # fmt: skip


def _width(technology: str, start: float, time: float) -> float:
    change = change_over_time(technology, start, time)
    return float(change[8] - change[2])


def _rate(technology: str, bits: int, time: float) -> float:
    return level_term(RRAM_RELAXATION.resolve({"technology": technology, "time": time, "bits_per_cell": bits}))[0].rate


_TIME = 1.0

RRAM_RELAXATION = Technology(
    name=_NAME,
    title="RRAM of two technologies, cell by cell: relaxation and bakes",
    conditions=(
        Condition(
            "technology", "", "as the source calls them; g_max is 240 uS for A, 40 uS for C", default="A", choices=("A", "C")
        ),
        Condition("low", "", "lowest level, as a share of g_max", default=0.0, low=0.0, high=1.0),
        Condition("high", "", "highest level, as a share of g_max", default=1.0, low=0.0, high=1.0),
        Condition("time", "s", "time since the first read, at room temperature", default=_TIME, low=0.01, high=1e5),
        Condition("bake", "°C", "instead of a time: one bake at that temperature (A: 2 h, C: 1.2 to 9.9 h)", low=_ROOM, high=260.0),
        Condition("bits_per_cell", "", "bits in a cell", default="1", choices=("1", "2", "3")),
        Condition("code", "", "which bits a level stands for", default="gray", choices=("gray", "binary")),
    ),
    terms=level_term,
    cost=no_cost,
    law="P(level read as a neighbour) = P(change > half the distance of levels), from the quantiles of the published cells",
    source="raw data of A. Levy, RRAM Relaxation Master Model (GitHub akashlevy, MIT)",
    basis="published",
    sweep="bake",
    constants=(
        ("quantiles", "0.2 … 99.8 % of the change, 11 groups of conductance, A 6 times and 5 bakes, C 5 and 3", "computed"),
        ("beyond the quantiles", "an exponential tail: 0.9 to 1.2 times the cells counted there", "assumed"),
        ("borders", "half-way between levels; a cell starts exactly at its level", "assumed"),
        ("held out: half of the cells", "misread shares of 4, 8 levels: rms 0.06, 0.07, largest 0.28 decades", "computed"),
        ("held out: a time between two", "rms 0.04 to 0.18, largest 0.25 decades", "computed"),
        ("held out: a bake of A", "100 °C 0.37, 140 °C 0.26, 180 °C 0.87, 220 °C 0.56 decades at most", "computed"),
        ("held out: a bake of C", "100 °C 0.24, 140 °C 0.31 decades at most", "computed"),
    ),
    notes="Time starts at the first read after programming; faster relaxation is lost. Shares below 0.2 % rest on few cells, and "
    "below 1e-4 on none. Nothing is known beyond 1e4 s (A) and 1e5 s (C) at room temperature, or about time at a raised "
    "temperature. Endurance (writes so far) was not published.",
    published_curve=published_curve,
)
