"""Lay out a figure of one pair of axes: margins for the labels, and a legend below the axes, where it covers nothing.

Matplotlib's constrained layout draws a figure three times to find its margins. The texts of a chart are known, so their widths are
enough, and a report with a hundred figures takes seconds instead of minutes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis
    from matplotlib.figure import Figure

_PAD, _TICK = 4.0, 7.5
"""Points between texts and edges, and between axes and the labels of their ticks."""
_LINE = 1.25
"""Height of a line of text in units of the font's size."""
_BOLD = 1.14
"""Width of bold letters in units of plain ones."""
_HANDLE = 3.4
"""Width of a line in the legend with its space, in units of the font's size."""


def lay_out(figure: Figure, axes: Axes, title: str = "") -> None:
    """Place title, axes and legend; the figure keeps its width, and grows by the height of title and legend."""
    import matplotlib as mpl

    size, legend_size = float(mpl.rcParams["font.size"]), float(mpl.rcParams["legend.fontsize"])
    width, plot_height = 72 * figure.get_figwidth(), 72 * figure.get_figheight()
    axes.set_position((0.1, 0.15, 0.85, 0.8))  # of about the final size, which the number of ticks depends on
    _wrap_label(axes.xaxis, 0.8 * width, size)
    _wrap_label(axes.yaxis, 0.75 * plot_height, size)
    y_ticks = max((_width(text, size) for text in _tick_texts(axes.yaxis)), default=0.0)
    x_ticks = _tick_texts(axes.xaxis)
    left = _PAD + _lines(axes.get_ylabel()) * _LINE * size + _PAD + y_ticks + _TICK
    right = _PAD + (_width(x_ticks[-1], size) / 2 if x_ticks else 0.0)
    names = wrap_text(title, width - left - right, size)
    top = _PAD + size / 2 + _LINE * size * _lines(names)
    below = _TICK + _LINE * size + _PAD / 2
    bottom = below + _LINE * size * _lines(axes.get_xlabel()) + _PAD + _add_legend(figure, axes, width, legend_size)
    height = plot_height + bottom - below + top
    figure.set_figheight(height / 72)
    inner = (width - left - right, height - top - bottom)
    axes.set_position((left / width, bottom / height, inner[0] / width, inner[1] / height))
    axes.xaxis.set_label_coords(0.5, -below / inner[1])
    axes.yaxis.set_label_coords(-(y_ticks + _TICK + _PAD) / inner[0], 0.5)
    if names:
        axes.set_title(names, fontsize=size, y=1.0, pad=_PAD)


def _add_legend(figure: Figure, axes: Axes, width: float, size: float) -> float:
    """Add a legend at the bottom of the figure; return its height in points. Names that are too long break lines."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return 0.0
    labels = [wrap_text(label, width - (_HANDLE + 1.5) * size - 2 * _PAD, size) for label in labels]
    column = max(_width(line, size) for label in labels for line in label.split("\n")) + (_HANDLE + 1.5) * size
    columns = max(1, min(len(labels), int((width - 2 * _PAD) / column)))
    rows = -(-len(labels) // columns)
    lines = sum(map(_lines, labels)) if columns == 1 else rows * max(map(_lines, labels))
    figure.legend(handles, labels, loc="lower left", bbox_to_anchor=(0.0, 0.0), ncols=columns, borderpad=0.2, borderaxespad=0.2,
                  labelspacing=0.3, columnspacing=1.5, handlelength=2.6)  # fmt: skip
    return (lines * 1.2 + (rows - 1) * 0.3 + 1.2) * size


def _tick_texts(axis: XAxis | YAxis) -> list[str]:
    """Return the labels of the ticks in view."""
    low, high = sorted(axis.get_view_interval())
    texts = []
    for places, formatter in (
        (axis.get_minorticklocs(), axis.get_minor_formatter()),
        (axis.get_majorticklocs(), axis.get_major_formatter()),
    ):
        shown = formatter.format_ticks(list(places))
        texts += [text for place, text in zip(places, shown, strict=True) if text and low <= place <= high]
    return texts


def _wrap_label(axis: XAxis | YAxis, room: float, size: float) -> None:
    axis.set_label_text(wrap_text(axis.get_label_text(), room, size))


def wrap_text(text: str, room: float, size: float, *, bold: bool = False) -> str:
    """Break a text at spaces into lines that fit into `room` points; a word that is longer is cut."""
    room /= _BOLD if bold else 1.0
    if _width(text, size) <= room:
        return text
    space, lines, free = _width("n n", size) - _width("nn", size), [""], room
    for word in text.split():
        while (wide := _width(word, size)) > room and len(word) > 1:
            fits = max(1, int(0.9 * len(word) * room / wide))
            lines, word, free = [*lines, word[:fits]], word[fits:], 0.0
        if lines[-1] and wide + space <= free:
            lines[-1] += f" {word}"
            free -= wide + space
        else:
            lines.append(word)
            free = room - wide
    return "\n".join(filter(None, lines))


def _lines(text: str) -> int:
    return text.count("\n") + 1 if text else 0


@lru_cache(4096)
def _width(text: str, size: float) -> float:
    """Return the width of one line of text in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return float(text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)[0]) if text else 0.0
