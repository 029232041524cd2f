"""Pictures of published points against laws, one figure per family of technologies (`weakcell memories --plots DIR`).

The data come from the technologies (`Technology.published_curve`). Legends give the rms error of a law at the points of its fit,
and its error at the ends of the curve when it is fitted without them, in decades.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from weakcell.host.report.chart_model import MOST_SERIES, file_slug
from weakcell.host.report.matplotlib_charts import add_legend_below, label_decades, save_figure, share_limits
from weakcell.host.report.style import COLOURS, GREY, MARKERS
from weakcell.memmodels.atomic_files import create_folder
from weakcell.memmodels.catalogue import names, technology
from weakcell.memmodels.curves import Curve, Mark, Panel, describe_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHES = ("-", "--", ":")
_LEGEND_LINE = 0.17
"""Inches of a line of a legend."""


def write_curves(folder: Path, formats: Sequence[str] = ("png",), *, separate: bool = False) -> list[Path]:
    """Write a picture of every figure that technologies publish.

    Args:
        folder: created if it does not exist.
        formats: png, svg, pdf.
        separate: one file per panel, named by figure and panel, instead of one per figure.

    Returns:
        The files.
    """
    create_folder(folder)
    written = []
    for figure, panels in collect_panels().items():
        parts = {} if separate else {figure: panels}
        for panel in panels if separate else ():
            name = f"{figure}-{file_slug(re.split('[,;:(]', panel.title)[0])}"
            parts[name if name not in parts else f"{name}-2"] = [panel]
        for name, shown in parts.items():
            paths = [folder / f"{name}.{suffix}" for suffix in dict.fromkeys(formats)]
            save_figure(partial(_plot_figure, shown), paths)
            written += paths
    return written


def collect_panels() -> dict[str, list[Panel]]:
    """Return the panels of all technologies by figure.

    Panels of equal title are merged: their curves share one plot. A panel of more than eight curves becomes several.
    """
    figures: dict[str, dict[str, Panel]] = {}
    for name in names():
        published_curve = technology(name).published_curve
        for panel in published_curve() if published_curve else ():
            known = figures.setdefault(panel.figure, {}).get(panel.title)
            merged = panel if known is None else replace(known, curves=(*known.curves, *panel.curves))
            figures[panel.figure][panel.title] = merged
    return {figure: [part for panel in panels.values() for part in _split(panel)] for figure, panels in figures.items()}


def _split(panel: Panel) -> Iterator[Panel]:
    """Yield panels of at most eight curves each."""
    count = -(-len(panel.curves) // MOST_SERIES) or 1
    size = -(-len(panel.curves) // count)
    for number in range(count):
        title = panel.title if count == 1 else f"{panel.title} ({number + 1} of {count})"
        yield replace(panel, title=title, curves=panel.curves[number * size : (number + 1) * size])


def _plot_figure(panels: Sequence[Panel]) -> Figure:
    from matplotlib.figure import Figure

    longest = max(sum(1 for _ in _legend_entries(panel)) for panel in panels)
    figure = Figure(figsize=(4.3 * len(panels), 3.3 + _LEGEND_LINE * longest), layout="constrained")
    heading = f"{panels[0].heading}: published points and the law (rms, and ends held out, in decades)"
    figure.suptitle(textwrap.fill(heading, 40 * len(panels)), fontsize=11, fontweight="bold")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _plot_panel(axes, panel)
    share_limits(figure.axes)
    return figure


def _plot_panel(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import NullLocator

    groups = list(dict.fromkeys(curve.group or curve.label for curve in panel.curves))
    markers = cycle(MARKERS)
    for curve in panel.curves:
        colour = COLOURS[groups.index(curve.group or curve.label) % len(COLOURS)]
        _plot_curve(axes, curve, colour, next(markers) if curve.points else "")
    for mark in panel.marks:
        _plot_mark(axes, mark)
    axes.set_title(panel.title, fontsize=9, loc="left")
    axes.set(xlabel=panel.x, ylabel=panel.y)
    if panel.x_log:
        axes.set_xscale("log")
        label_decades(axes.xaxis)
    if panel.y_log:
        axes.set_yscale("log")
        label_decades(axes.yaxis)
    if panel.x_ticks:
        axes.set_xticks(panel.x_ticks, [f"{value:g}" for value in panel.x_ticks])
        axes.xaxis.set_minor_locator(NullLocator())
    if panel.y_range is not None:
        axes.set_ylim(*panel.y_range)
    add_legend_below(axes, 4.3)


def _legend_entries(panel: Panel) -> Iterator[str]:
    """Yield the entries of a panel's legend."""
    yield from (mark.label for mark in panel.marks if mark.label)
    for curve in panel.curves:
        if curve.label is not None:
            yield curve.label
        if curve.points and curve.law_x and curve.law_label is not None:
            yield curve.law_label


def _plot_curve(axes: Axes, curve: Curve, colour: str, marker: str) -> None:
    """Plot markers at the published points, with the law's errors in the legend, and a line where the law is asked for."""
    if curve.points:
        label = curve.label if curve.law is None else f"{curve.label}, {describe_errors(curve.points, curve.law, curve.ends)}"
        axes.plot(*zip(*curve.points, strict=True), linestyle="", marker=marker, markersize=4.5, color=colour, label=label)
    if curve.law is not None and curve.law_x:
        y = [curve.law(x) or math.nan for x in curve.law_x]  # a rate of 0 has no place on a logarithmic axis
        label = curve.law_label if curve.points else curve.label
        width, order = (4.5, 1.0) if curve.wide else (1.3, 2.0)
        axes.plot(curve.law_x, y, _DASHES[curve.variant], color=colour, linewidth=width, zorder=order, label=label)


def _plot_mark(axes: Axes, mark: Mark) -> None:
    if len(mark.at) == 2:
        (axes.axvspan if mark.axis == "x" else axes.axhspan)(*mark.at, color="#e6eaef", zorder=0, label=mark.label)
    else:
        line = axes.axvline if mark.axis == "x" else axes.axhline
        line(mark.at[0], color=GREY, linewidth=1, linestyle=":", label=mark.label)
