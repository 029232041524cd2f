"""Draw `chart_specs` with Matplotlib, and save figures: one place for formats, sizes and reproducible files."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np

from weakcell.host.report.style import PAPER_STYLE, STYLE, level_colours
from weakcell.memmodels.atomic_files import create_folder, write_atomically, write_bytes_atomically
from weakcell.memmodels.printable import printable, printable_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from weakcell.host.report.chart_specs import Axis, Chart, Panel, Series
    from weakcell.host.report.weak_cell_map import WeakMap

_WIDTHS = {"one-column": 3.35, "two-column": 6.9}
"""Widths in inches of figures in a two-column conference style."""

_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_DASHES = ("-", (0, (4, 3)), ":", "-.")
_CLIP_NAME = re.compile(rb'(?<=url\(#)p[0-9a-f]{10}(?=\))|(?<=<clipPath id=")p[0-9a-f]{10}(?=")')
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
    """Turn off formulas in a figure's text, and show control characters as escapes; only labels of ticks may be formulas.

    Names of others may hold dollar signs, which Matplotlib takes for the ends of a formula.
    """
    from matplotlib.text import Text

    axes = [axis for part in figure.axes for axis in (part.xaxis, part.yaxis)]
    of_ticks = {id(label) for axis in axes for label in (*axis.get_ticklabels(which="both"), axis.get_offset_text())}
    for text in figure.findobj(Text):
        if isinstance(text, Text) and id(text) not in of_ticks:
            text.set_parse_math(False)
            text.set_text(printable(text.get_text()).expandtabs(4))


def tick_label(name: str) -> str:
    """Return a name as the label of a tick: no formula, and control characters as escapes."""
    return printable_name(name).replace("$", r"\$")


def write_paper_figures(charts: Sequence[Chart], folder: Path) -> list[Path]:
    """Write charts as PDF, SVG and PNG, one and two columns wide.

    Args:
        charts: of a report.
        folder: created if it does not exist.

    Returns:
        The files written.
    """
    create_folder(folder)
    written = []
    for panel in (panel for chart in charts for panel in chart.panels if panel.file_name is not None):
        for width, inches in _WIDTHS.items():
            paths = [folder / f"{panel.file_name}-{width}.{suffix}" for suffix in ("pdf", "svg", "png")]
            save_figure(partial(plot_paper_figure, panel, inches), paths, PAPER_STYLE, dpi=300)
            written += paths
    return written


def render_svg(panel: Panel, width: float) -> bytes:
    """Return a panel as an SVG file, `width` inches wide."""
    with apply_style(PAPER_STYLE):
        figure = plot_paper_figure(panel, width)
        show_names_as_they_are(figure)
        return svg_bytes(figure)


def plot_paper_figure(panel: Panel, width: float) -> Figure:
    """Return a panel as a figure, `width` inches wide, with its legend below the axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 0.62 * width if width < 5 else 0.45 * width), layout="constrained")
    axes = figure.subplots()
    if panel.title:
        axes.set_title(textwrap.fill(panel.title, int(18 * width)), fontsize=7)
    plot_panel(axes, panel)
    if panel.heat_map is None:
        _add_legend(figure, axes, width)
    return figure


def plot_panel(axes: Axes, panel: Panel) -> None:
    """Draw series or heat map of a panel into `axes`, and label them."""
    axes.set(xlabel=panel.x.label, ylabel=panel.y.label)
    if panel.heat_map is not None:
        _plot_heat_map(axes, panel.heat_map)
        return
    for series in panel.series:
        _plot_series(axes, panel.x, series)
    _apply_scale(axes, panel)


def _plot_series(axes: Axes, axis: Axis, series: Series) -> None:
    x: Any = np.arange(len(series.x)) if axis.scale == "category" else np.asarray(series.x)
    y = _floats(series.y)
    look: dict[str, Any] = {
        "color": series.colour,
        "marker": "" if series.marker is None else _MARKERS[series.marker % len(_MARKERS)],
        "linestyle": "" if series.dash is None else _DASHES[series.dash % len(_DASHES)],
        **({"linewidth": 0.7} if series.thin else {}),
    }
    label = series.name or "_nolegend_"
    if series.interval is None:
        axes.plot(x, y, drawstyle="steps-post" if series.step else "default", label=label, **look)
        return
    low, high = (_floats(ends) for ends in series.interval)
    if axis.scale == "category" or series.dash is None:
        axes.errorbar(x, y, yerr=np.nan_to_num([y - low, high - y]), label=label, zorder=3, **look)
    else:
        axes.plot(x, y, label=label, **look)
        axes.fill_between(x, low, high, color=series.colour, alpha=0.2, linewidth=0)


def _floats(values: Sequence[float | None]) -> Any:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _apply_scale(axes: Axes, panel: Panel) -> None:
    if panel.x.scale == "category":
        names = list(dict.fromkeys(str(x) for series in panel.series for x in series.x))
        axes.set_xticks(range(len(names)), [textwrap.fill(tick_label(name), 40) for name in names])
    else:
        axes.set_xscale(panel.x.scale)
    axes.set_yscale(panel.y.scale)
    if panel.x.from_zero:
        axes.set_xlim(left=0)
    if panel.y.from_zero:
        axes.set_ylim(bottom=0)


def _plot_heat_map(axes: Axes, die: WeakMap) -> None:
    from matplotlib.colors import ListedColormap

    names = die.level_names
    colours = ListedColormap(["#f2f4f6", *level_colours(len(names) - 1)])
    levels, rows_per_pixel = die.shrink_rows()
    image = axes.imshow(levels, cmap=colours, vmin=-0.5, vmax=len(names) - 0.5, aspect="auto", interpolation="nearest",
                        extent=(0, levels.shape[1], rows_per_pixel * len(levels), 0))  # fmt: skip
    axes.grid(False)
    every = -(-len(names) // 8)
    bar = axes.figure.colorbar(image, ax=axes, ticks=range(0, len(names), every), label=die.scale_title)
    bar.ax.set_yticklabels(names[::every])


def _add_legend(figure: Figure, axes: Axes, width: float) -> None:
    """Add a legend below the axes, where it covers nothing; the figure grows by its height."""
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, int(width / (0.45 + 0.062 * max(map(len, labels)))))
    rows = -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + 0.13 * rows)
    figure.legend(handles, labels, loc="outside lower left", ncols=columns)
