"""How results show themselves: one line, a table and picture in a notebook, a figure, and data frames."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from weakcell.host.fork_guard import check_not_forked
from weakcell.host.report.matplotlib_charts import apply_style, save_figure, show_names_as_they_are, svg_bytes
from weakcell.host.report.style import STYLE
from weakcell.memmodels.errors import OutputError, UsageError

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

Result = TypeVar("Result", bound="DisplayedResult")

FIGURE_SUFFIXES = (".png", ".svg", ".pdf")
_FRAMES = frozenset(("frame", "summary", "storable"))
"""Attributes that hold or make polars frames."""
_MOST_ROWS = 60
"""Rows of a table in a notebook."""


class _Content(Protocol):
    """What a result says of itself."""

    @property
    def title(self) -> str:
        """Network, data and memory in one line."""

    @property
    def headline(self) -> str:
        """The numbers that matter, in one line."""

    @property
    def caption(self) -> str:
        """What one must know to read the numbers, in sentences."""

    @property
    def frame(self) -> pl.DataFrame:
        """All rows."""

    @property
    def summary(self) -> pl.DataFrame:
        """The rows that people compare."""

    @property
    def figure_style(self) -> dict[str, Any]:
        """Matplotlib settings of the figure."""

    def build_figure(self) -> Figure:
        """Plot the result into a new figure; `figure_style` is in force."""

    def plot(self) -> Figure:
        """See `DisplayedResult.plot`."""


class DisplayedResult:
    """Shared behaviour of all results; a subclass provides `_Content`."""

    figure_style: ClassVar[dict[str, Any]] = STYLE

    if not TYPE_CHECKING:  # a type checker would take every attribute to exist

        def __getattribute__(self, name: str) -> Any:
            """Return an attribute; UsageError for a frame in a forked process, where polars would wait for ever."""
            if name in _FRAMES:
                check_not_forked(f"{type(self).__name__}.{name}")
            return super().__getattribute__(name)

    def to_polars(self: _Content) -> pl.DataFrame:
        """Return all rows as a polars frame: the same as `frame`."""
        return self.frame

    def to_pandas(self: _Content) -> Any:
        """Return all rows as a pandas frame.

        Raises:
            UsageError: pandas is not installed; Weakcell itself does not need it.
        """
        try:
            import pandas as pd  # type: ignore[import-untyped, unused-ignore]
        except ImportError:
            do = "Install it with pip install pandas, or use to_polars()"
            raise UsageError(f"{type(self).__name__}.to_pandas()", "pandas is not installed", do) from None
        return pd.DataFrame(self.frame.to_dict(as_series=False))

    def plot(self: _Content, path: str | Path | None = None, dpi: int = 160) -> Figure:
        """Draw the result.

        Args:
            path: Also write the figure into this file (.png, .svg or .pdf).
            dpi: Resolution of a .png.

        Returns:
            A matplotlib figure. No window opens; a notebook shows it.

        Raises:
            OutputError: The file cannot be written, or its ending is another one.
        """
        if path is not None and Path(path).suffix.lower() not in FIGURE_SUFFIXES:
            raise OutputError(f"Writing a figure to {path}", "its name has another ending", f"Use {', '.join(FIGURE_SUFFIXES)}")
        with apply_style(self.figure_style):
            figure = self.build_figure()
            show_names_as_they_are(figure)
        if path is not None:
            save_figure(lambda: figure, [Path(path)], self.figure_style, dpi)
        # IPython shows a Figure only after pyplot was imported; this shows it in any case.
        figure.__dict__["_repr_html_"] = lambda: embed_figure(figure, self.title)
        return figure

    def __repr__(self: _Content) -> str:
        return f"<{type(self).__name__} {self.headline}>"

    def _repr_html_(self: _Content) -> str:
        answer = self.headline.removeprefix(self.title).lstrip(": ")
        head = f"<p><b>{escape(self.title)}</b><br>{escape(answer)}</p>"
        return f"{head}{embed_figure(self.plot(), self.title)}{table_html(self.summary)}<p>{escape(self.caption)}</p>"


def embed_figure(figure: Figure, words: str) -> str:
    """Return a figure as an HTML image.

    Args:
        figure: The matplotlib figure.
        words: Its alternative text.
    """
    with apply_style(STYLE):  # names in the file are equal from run to run
        content = svg_bytes(figure)
    return embed_svg(content, words)


def embed_svg(svg: bytes, words: str) -> str:
    """Return an SVG file as an HTML image that needs no other file, on white for dark notebooks."""
    encoded = base64.b64encode(svg).decode()
    return f'<img alt="{escape(words)}" style="max-width:100%;background:#fff" src="data:image/svg+xml;base64,{encoded}">'


def table_html(frame: pl.DataFrame) -> str:
    """Return a frame as an HTML table. Columns without a value are left out, and rows after the first 60."""
    shown = frame.head(_MOST_ROWS)
    shown = shown.select([name for name in shown.columns if shown[name].null_count() < shown.height or not shown.height])
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in shown.columns)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(_cell(value))}</td>' for value in row)}</tr>" for row in shown.iter_rows())
    more = f"<caption>The first {_MOST_ROWS} of {frame.height:,} rows</caption>" if frame.height > _MOST_ROWS else ""
    return f"<table>{more}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def wrap_result(kind: type[Result], content: Any, **more: Any) -> Result:
    """Return a dataclass instance as its public class `kind`: the same fields, and those in `more`."""
    return kind(**{field.name: getattr(content, field.name) for field in fields(content)}, **more)


def share_range(shares: Iterable[float]) -> str:
    """Return the lowest and the highest of some shares in per cent, once if they are equal."""
    values = list(shares)
    low, high = (f"{100 * value:.2f} %" for value in (min(values), max(values))) if values else ("none", "none")
    return low if low == high else f"{low} … {high}"


def count_points(count: int) -> str:
    """Return a number of operating points in words."""
    return f"{count} point{'s' * (count != 1)}"
