"""Figures of plain numbers: bars, a histogram, and lines; they know nothing of what the numbers mean."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from weakcell.host.report.chart_model import MOST_SERIES
from weakcell.host.report.matplotlib_charts import add_legend_below, tick_label
from weakcell.host.report.style import BLUE, DASHES, INK, MARKERS, series_look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_BARS = 40


def plot_bars(title: str, label: str, names: Sequence[str], values: Sequence[float], errors: Sequence[float] = ()) -> Figure:
    """Plot one horizontal bar per name, the first on top; at most 40.

    Args:
        title: The figure's title.
        label: What the values are, with their unit.
        names: One per bar.
        values: Lengths of the bars.
        errors: Half widths of the bars' intervals, or none.
    """
    shown = min(len(names), _MOST_BARS)
    figure, axes = _new_figure(title, 1.2 + 0.24 * max(4, shown))
    places = np.arange(shown)
    axes.barh(places, list(values[:shown]), xerr=list(errors[:shown]) or None, color=BLUE, ecolor=INK, height=0.7)
    axes.set_yticks(places, [tick_label(name) for name in names[:shown]])
    axes.invert_yaxis()
    axes.set_xlabel(label)
    return figure


def plot_histogram(title: str, label: str, values: npt.NDArray[np.float64]) -> Figure:
    """Plot how many images have which value."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _new_figure(title, 3.4)
    axes.hist(values, bins=60, color=BLUE)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=label, ylabel="images")
    return figure


def plot_lines(title: str, labels: tuple[str, str], lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Plot lines (x, y) by name, at most eight in a pair of axes; labels: of the horizontal and the vertical axis."""
    panels = max(1, -(-len(lines) // MOST_SERIES))
    figure, first = _new_figure(title, 4.0, panels)
    rows = 0
    for place, axes in enumerate(figure.axes):
        for number, (name, (x, y)) in list(enumerate(lines.items()))[place * MOST_SERIES : (place + 1) * MOST_SERIES]:
            look = series_look(number)
            style = {"color": look["colour"], "marker": MARKERS[look["marker"]], "linestyle": DASHES[look["dash"]]}
            axes.plot(x, y, **style, markersize=3.5, label=name)
        axes.set_xlabel(labels[0])
        rows = max(rows, add_legend_below(axes, 6.4))
    first.set_ylabel(labels[1])
    figure.set_figheight(4.0 + 0.16 * rows)
    return figure


def _new_figure(title: str, height: float, panels: int = 1) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * panels, height), layout="constrained")
    axes = figure.subplots(1, panels, sharex=True, sharey=True, squeeze=False)[0, 0]
    figure.suptitle(textwrap.fill(title, 80 * panels), fontsize=10, fontweight="bold", x=0.01, ha="left")
    return figure, axes
