"""Draw `chart_specs` with Matplotlib, and save figures: one place for formats, sizes and reproducible files."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np

from weakcell.host.report.figure_layout import lay_out
from weakcell.host.report.style import DASHES, MARKERS, PAPER_STYLE, STYLE, level_colours
from weakcell.memmodels.atomic_files import write_atomically, write_bytes_atomically
from weakcell.memmodels.printable import printable, printable_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from weakcell.host.report.chart_model import Axis, Panel, Series
    from weakcell.host.report.weak_cell_map import WeakMap

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_CLIP_NAME = re.compile(rb'(?<=url\(#)p[0-9a-f]{10}(?=\))|(?<=<clipPath id=")p[0-9a-f]{10}(?=")')
_NEVER = "#8080801f"
"""Colour of cells that never err: visible on light and on dark paper."""
_style_lock = RLock()  # reentrant: a figure is saved while it is drawn
_UNDATED: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


@contextmanager
def apply_style(style: dict[str, Any]) -> Iterator[None]:
    """Let Matplotlib draw with these settings. They belong to the process, so one thread at a time may replace them."""
    import matplotlib as mpl

    with _style_lock, mpl.rc_context(style):
        yield


def save_figure(plot: Callable[[], Figure], paths: Sequence[Path], style: dict[str, Any] = STYLE, dpi: int = 150) -> None:
    """Plot a figure and write it into each path; equal figures give equal files.

    Args:
        plot: makes the figure; called once, with `style` in force.
        paths: .png, .svg or .pdf.
        style: Matplotlib settings.
        dpi: resolution of PNG files and of rasterized parts.

    Raises:
        OutputError: a file cannot be written.
    """
    with apply_style(style):
        figure = plot()
        show_names_as_they_are(figure)
        if (engine := figure.get_layout_engine()) is not None:
            figure.set_dpi(dpi)
            engine.execute(figure)
            figure.set_layout_engine("none")  # else Matplotlib would draw the figure twice
        for path in paths:
            if path.suffix == ".svg":
                write_bytes_atomically(path, svg_bytes(figure, dpi))
            else:
                metadata = _UNDATED.get(path.suffix)
                write_atomically(path, partial(figure.savefig, format=path.suffix[1:], dpi=dpi, metadata=metadata))


def svg_bytes(figure: Figure, dpi: int = 150) -> bytes:
    """Return a figure as an SVG file; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", dpi=dpi, metadata=_UNDATED[".svg"])
    # Matplotlib names clip paths by their coordinates, whose last digits the layout's solver changes from run to run
    names: dict[bytes, bytes] = {}
    return _CLIP_NAME.sub(lambda found: names.setdefault(found[0], b"clip%d" % len(names)), buffer.getvalue())


def show_names_as_they_are(figure: Figure) -> None:
    """Show control characters in a figure's texts as escapes. `STYLE` turns formulas off: names may hold dollar signs.

    The labels of ticks are left out, as `tick_label` has escaped the names among them: a search would make every tick twice.
    """
    from matplotlib.axis import Axis
    from matplotlib.text import Text

    artists = list(figure.get_children())
    for artist in artists:
        if isinstance(artist, Text):
            artist.set_text(printable(artist.get_text()).expandtabs(4))
        artists += [artist.label] if isinstance(artist, Axis) else artist.get_children()


def share_limits(axes: Sequence[Axes]) -> None:
    """Give axes of one figure with equal labels the same limits, so that they can be compared."""
    for name in ("x", "y"):
        groups: dict[tuple[str, str], list[Axes]] = {}
        for one in axes:
            groups.setdefault((getattr(one, f"get_{name}label")(), getattr(one, f"get_{name}scale")()), []).append(one)
        for group in groups.values():
            ends = [end for one in group for end in getattr(one, f"get_{name}lim")()]
            for one in group:
                getattr(one, f"set_{name}lim")(min(ends), max(ends))


def tick_label(name: str) -> str:
    """Return a name as the label of a tick: control characters as escapes."""
    return printable_name(name)


def render_svg(panel: Panel, width: float) -> bytes:
    """Return a panel as an SVG file, `width` inches wide."""
    with apply_style(PAPER_STYLE):
        figure = plot_paper_figure(panel, width)
        show_names_as_they_are(figure)
        return svg_bytes(figure)


def plot_paper_figure(panel: Panel, width: float) -> Figure:
    """Return a panel as a figure, `width` inches wide, with its legend below the axes."""
    from matplotlib.figure import Figure

    plain = panel.heat_map is None and panel.x.scale != "category"
    size = (width, 0.62 * width if width < 5 else 0.45 * width)
    figure = Figure(figsize=size, layout=None if plain else "constrained")
    axes = figure.subplots()
    plot_panel(axes, panel)
    if plain:
        show_names_as_they_are(figure)
        lay_out(figure, axes, printable(panel.title))
        return figure
    if panel.title:
        axes.set_title(textwrap.fill(panel.title, int(18 * width)), fontsize=7)
    if panel.heat_map is None:
        figure.set_figheight(size[1] + 0.16 * add_legend_below(axes, width))
    return figure


def plot_panel(axes: Axes, panel: Panel) -> None:
    """Draw series or heat map of a panel into `axes`, and label them."""
    axes.set(xlabel=panel.x.label, ylabel=panel.y.label)
    if panel.heat_map is not None:
        _plot_heat_map(axes, panel.heat_map)
        return
    for number, series in enumerate(panel.series):
        _plot_series(axes, panel.x, series).set_gid(f"series-{number}")
    _apply_scale(axes, panel)


def _plot_series(axes: Axes, axis: Axis, series: Series) -> Line2D:
    """Draw a series; return the line with its symbols."""
    x: Any = np.arange(len(series.x)) if axis.scale == "category" else np.asarray(series.x)
    y = _floats(series.y)
    look: dict[str, Any] = {
        "color": series.colour,
        "marker": "" if series.marker is None else MARKERS[series.marker % len(MARKERS)],
        "linestyle": "" if series.dash is None else DASHES[series.dash % len(DASHES)],
        **({"linewidth": 0.7} if series.thin else {}),
    }
    label = series.name or "_nolegend_"
    if series.interval is None:
        return axes.plot(x, y, drawstyle="steps-post" if series.step else "default", label=label, **look)[0]
    low, high = (_floats(ends) for ends in series.interval)
    if axis.scale == "category" or series.dash is None:
        return axes.errorbar(x, y, yerr=np.nan_to_num([y - low, high - y]), label=label, zorder=3, **look).lines[0]
    axes.fill_between(x, low, high, color=series.colour, alpha=0.2, linewidth=0)
    return axes.plot(x, y, label=label, **look)[0]


def _floats(values: Sequence[float | None]) -> Any:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _apply_scale(axes: Axes, panel: Panel) -> None:
    if panel.x.scale == "category":
        names = list(dict.fromkeys(str(x) for series in panel.series for x in series.x))
        axes.set_xticks(range(len(names)), [textwrap.fill(tick_label(name), 40) for name in names])
    else:
        axes.set_xscale(panel.x.scale)
    axes.set_yscale(panel.y.scale)
    for axis, scale in ((axes.xaxis, panel.x.scale), (axes.yaxis, panel.y.scale)):
        if scale == "log":
            label_decades(axis)
    for ends, of_x in ((panel.x.shared, True), (panel.y.shared, False)):
        if ends is not None:
            axes.update_datalim([(end, end) for end in ends], updatex=of_x, updatey=not of_x)
    axes.autoscale_view()
    low, high = axes.get_ylim()
    least, most = panel.y.bounds
    room = 0.03 * (high - low)  # for symbols at a bound
    axes.set_ylim(max(low, least - room), min(high, most + room))
    if panel.x.from_zero:
        axes.set_xlim(left=0)
    if panel.y.from_zero:
        axes.set_ylim(bottom=0)


def label_decades(axis: XAxis | YAxis) -> None:
    """Label the decades of a logarithmic axis, all as 0.01 or all as 10⁻². `STYLE` turns Matplotlib's formulas off."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    if axis.get_scale() == "log":
        axis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: decade_label(value, _is_short(axis))))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: _between_decades(axis, value)))


def _between_decades(axis: XAxis | YAxis, value: float) -> str:
    """Return the label of a tick between decades: empty unless the axis shows less than two of them."""
    low, high = sorted(axis.get_view_interval())
    return f"{value:g}" if low > 0 and high < 100 * low else ""


def _is_short(axis: XAxis | YAxis) -> bool:
    """Return whether the decades in view lie between 0.001 and 1000."""
    low, high = sorted(axis.get_view_interval())
    low = getattr(axis.get_transform(), "linthresh", low)  # a symmetric axis begins at 0
    return bool(low > 1.01e-4 and high < 9.9e3)


def decade_label(value: float, plain: bool) -> str:
    """Return a power of ten as 0.01 or as 10⁻²; 0 as it is."""
    if plain or value <= 0:
        return f"{value:g}"
    return "10" + str(round(math.log10(value))).translate(_SUPERSCRIPTS)


def _plot_heat_map(axes: Axes, die: WeakMap) -> None:
    from matplotlib.colors import ListedColormap

    names = die.level_names
    colours = ListedColormap([_NEVER, *level_colours(len(names) - 1)])
    levels, rows_per_pixel = die.shrink_rows()
    image = axes.imshow(levels, cmap=colours, vmin=-0.5, vmax=len(names) - 0.5, aspect="auto", interpolation="nearest",
                        extent=(0, levels.shape[1], rows_per_pixel * len(levels), 0))  # fmt: skip
    axes.grid(False)
    every = -(-len(names) // 8)
    title = textwrap.fill(die.scale_title, 24)
    bar = axes.figure.colorbar(image, ax=axes, ticks=range(0, len(names), every), label=title)
    bar.ax.set_yticklabels([tick_label(name) for name in names[::every]])


def add_legend_below(axes: Axes, width: float) -> int:
    """Add a legend below axes of a constrained layout, where it covers nothing.

    Args:
        axes: with labelled artists.
        width: of the legend, in inches.

    Returns:
        Its number of lines: 0.16 inches each, by which the figure may grow.
    """
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return 0
    labels = [textwrap.fill(label, int(14 * width)) for label in labels]
    columns = max(1, int(width / (0.45 + 0.068 * max(len(line) for label in labels for line in label.split("\n")))))
    rows = -(-len(labels) // columns)
    axes.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.0), borderaxespad=4.8, ncols=columns)
    return sum(label.count("\n") + 1 for label in labels) if columns == 1 else rows
