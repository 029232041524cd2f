"""What a chart is made of: axes, series and panels, as plain data without a plotting library.

`chart_specs` describes every chart of a report with these records; `matplotlib_charts` draws them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from weakcell.host.report.style import GREY
from weakcell.host.report.weak_cell_map import WeakMap
from weakcell.memmodels.definition import Condition

Number = float | None


@dataclass(frozen=True)
class Axis:
    """One axis of a panel.

    from_zero: the axis starts at 0.
    bounds: the least and the largest value that there can be; the axis does not go beyond them.
    shared: least and largest value of all panels that share the axis; None for an axis of one panel.
    """

    label: str
    scale: Literal["linear", "log", "category"] = "linear"
    from_zero: bool = False
    bounds: tuple[float, float] = (-math.inf, math.inf)
    shared: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Series:
    """Points that share a name, a colour and a legend entry.

    Attributes:
        name: entry of the legend; "" for none.
        x: numbers, or names on a category axis.
        y: None leaves a gap.
        interval: (low, high) of each point: a band along a line, error bars where the points are not joined or on a category axis.
        marker: position in the list of symbols; None for no symbols.
        dash: position in the list of line styles; None for no line.
        step: the line is a staircase that keeps a value until the next point.
        thin: a guide line that steps back behind the data.
        labels: the tooltip of each point; None for the coordinates, () for no tooltip.
    """

    name: str
    x: Sequence[float | str]
    y: Sequence[Number]
    interval: tuple[Sequence[Number], Sequence[Number]] | None = None
    colour: str = GREY
    marker: int | None = None
    dash: int | None = 0
    step: bool = False
    thin: bool = False
    labels: Sequence[str] | None = None


@dataclass(frozen=True, eq=False)
class Panel:
    """One pair of axes: series, or the heat map of a die.

    Attributes:
        choice: name of the panel on the page, where a chart has several.
        title: of the paper's figure; "" for none.
        file_name: of the paper's figure, without suffix; None for a panel that only the page shows.
    """

    x: Axis
    y: Axis
    series: tuple[Series, ...] = ()
    heat_map: WeakMap | None = None
    choice: str = ""
    title: str = ""
    file_name: str | None = None


@dataclass(frozen=True)
class Chart:
    """One figure of the page, or several of which the reader chooses one.

    Attributes:
        name: identifier on the page.
        caption: what the chart shows, also for readers who do not see it.
        panels: at least one.
        chooser: what the panels' `choice` names.
    """

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    chooser: str = "Study"


MOST_SERIES = 8
"""Series of one panel that a reader can tell apart; more are shown in several panels."""


def split_panels(panel: Panel, series: Sequence[Series], guides: Sequence[Series] = ()) -> tuple[Panel, ...]:
    """Return a panel with all series, or several panels with at most 8 each.

    Args:
        panel: axes, names and title; without series.
        series: of the data.
        guides: reference lines and fronts, which every panel shows.
    """
    if len(series) <= MOST_SERIES:
        return (replace(panel, series=(*series, *guides)),)
    parts = [series[start : start + MOST_SERIES] for start in range(0, len(series), MOST_SERIES)]
    panels = []
    for number, part in enumerate(parts, 1):
        first = (number - 1) * MOST_SERIES + 1
        choice = f"{first} to {first + len(part) - 1} of {len(series)}: {part[0].name} …"
        panels.append(
            replace(
                panel,
                series=(*part, *guides),
                choice=f"{panel.choice}: {choice}" if panel.choice else choice,
                file_name=panel.file_name and f"{panel.file_name}-{number}",
            )
        )
    return tuple(panels)


def merge_equal_series(series: Sequence[Series]) -> list[Series]:
    """Draw series that lie on each other once, under all their names: the last one would cover the others."""
    merged: dict[tuple[tuple[float | str, ...], tuple[Number, ...]], Series] = {}
    for one in series:
        points = tuple(one.x), tuple(one.y)
        known = merged.get(points)
        merged[points] = one if known is None else replace(known, name=f"{known.name} and {one.name}")
    return list(merged.values())


def share_limits(panels: Sequence[Panel]) -> tuple[Panel, ...]:
    """Give panels that show the same quantity on an axis the same limits there, so that they can be compared."""
    limits: dict[tuple[str, str, str], list[float]] = {}
    for panel in panels:
        for name, axis in (("x", panel.x), ("y", panel.y)):
            limits.setdefault((name, axis.label, axis.scale), []).extend(_values(panel, name))
    return tuple(
        replace(panel, x=_share(panel.x, limits["x", panel.x.label, panel.x.scale]),
                y=_share(panel.y, limits["y", panel.y.label, panel.y.scale]))
        for panel in panels
    ) if len(panels) > 1 else tuple(panels)  # fmt: skip


def _values(panel: Panel, name: str) -> Iterator[float]:
    """Yield the numbers that a panel shows on an axis, with the ends of intervals."""
    for series in panel.series:
        columns = [series.x] if name == "x" else [series.y, *(series.interval or ())]
        for column in columns:
            yield from (value for value in column if isinstance(value, int | float) and math.isfinite(value))


def _share(axis: Axis, values: Sequence[float]) -> Axis:
    shown = [value for value in values if value > 0] if axis.scale == "log" else values
    return replace(axis, shared=(min(shown), max(shown))) if shown and axis.scale != "category" else axis


def condition_label(key: str, conditions: Iterable[Condition]) -> str:
    """Return a condition's name in words with its unit, as "junction temperature (°C)"; the key if it is not documented."""
    known = next((condition for condition in conditions if condition.name == key), None)
    if known is None:
        return key
    words = re.split(r"[:;,]| \(", known.help)[0]
    if words.startswith("of "):
        words = f"{key} {words}"
    return f"{words} ({known.unit})" if known.unit else words


def condition_axis(key: str | None, values: Sequence[float], conditions: Iterable[Condition]) -> Axis:
    """Return the axis of a swept condition; without a condition, of memories.

    It is logarithmic if the values span two decades, or if at least four values grow by the same factor, as in `1:16:x2`.
    """
    if key is None:
        return Axis("memory", "category")
    points = sorted(set(values))
    factors = [high / low for low, high in pairwise(points)] if points and points[0] > 0 else []
    even = len(factors) > 2 and max(factors) < 1.01 * min(factors) and factors[0] >= 1.5
    decades = bool(factors) and points[-1] / points[0] >= 100
    return Axis(condition_label(key, conditions), "log" if even or decades else "linear")


def file_slug(text: str) -> str:
    """Return a text as a part of a file name: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
