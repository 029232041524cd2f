"""Draw charts as SVG inside a page: they follow the page's theme, show tooltips, and need neither a script nor a library.

A page may hold many of them. Numbers are therefore rounded, and each identifier is made unique on the page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from weakcell.host.report.matplotlib_charts import apply_style, plot_paper_figure, show_names_as_they_are, svg_bytes
from weakcell.host.report.style import COLOURS, GREY, INK, PAGE_STYLE
from weakcell.memmodels.printable import printable

if TYPE_CHECKING:
    from weakcell.host.report.chart_model import Panel, Series

WIDTHS = {"wide": 7.6, "narrow": 3.3}
"""Widths in inches for a window of a computer and for one of a telephone."""

_VARIABLES: dict[str, str] = {INK: "ink", GREY: "soft", str(PAGE_STYLE["grid.color"]): "grid"} | {
    colour.lower(): f"series-{number}" for number, colour in enumerate(COLOURS)
}
_COLOUR = re.compile("|".join(_VARIABLES))
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_REFERENCE = re.compile(r'(?<=href="#)[^"]+|(?<=url\(#)[^)]+')
_IDENTIFIER = re.compile(r' id="([^"]*)"')
_STYLE = re.compile(r'(?<=style=")[^"]*')
_COORDINATES = re.compile(r'(?<= )(?:d|x|y|transform|viewBox)="[^"]*"')


def render_inline_svg(panel: Panel, width: float, prefix: str) -> str:
    """Return a panel as an SVG element.

    Args:
        panel: of a chart.
        width: in inches, which fixes the size of the type relative to the figure.
        prefix: of the identifiers in the element; unique on the page.
    """
    with apply_style(PAGE_STYLE):
        figure = plot_paper_figure(panel, width)
        show_names_as_they_are(figure)
        text = svg_bytes(figure, dpi=120).decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    for number, series in enumerate(panel.series):
        text = _add_tooltips(text, f"series-{number}", series)
    text = _STYLE.sub(lambda style: _follow_theme(style[0]), text)
    text = _COORDINATES.sub(lambda attribute: _NUMBER.sub(lambda number: f"{float(number[0]):.2f}", attribute[0]), text)
    text = re.sub(r'(<svg [^>]*?) width="[^"]*"|(?<=pt") height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?) height="[^"]*"', r'\1 aria-hidden="true"', text, count=1)
    return re.sub(r">\s+<", "><", _make_unique(text, prefix)).strip()


def _add_tooltips(text: str, name: str, series: Series) -> str:
    """Give each symbol of a series a title, which browsers show as a tooltip."""
    labels = _tooltips(series)
    start = text.find(f'<g id="{name}">')
    if start < 0 or not labels:
        return text
    end = text.find('<g id="', text.find("<defs>", start) + 1)
    group = text[start:end]
    symbols = iter(labels)
    count = len(re.findall(r"<use [^>]*/>", group))
    if count != len(labels):  # symbols at the ends of a broken axis are left out
        return text
    group = re.sub(r"(<use [^>]*)/>", lambda use: f"{use[1]}><title>{escape(next(symbols))}</title></use>", group)
    return text[:start] + group + text[end:]


def _tooltips(series: Series) -> Sequence[str]:
    """Return the label of each point that is drawn."""
    if series.marker is None or series.labels == ():
        return ()
    shown = [(x, y) for x, y in zip(series.x, series.y, strict=True) if y is not None]
    if series.labels is None:
        return [f"{series.name}\n{x if isinstance(x, str) else format(x, '.4g')}: {y:.4g}" for x, y in shown]
    return [printable(label) for label, y in zip(series.labels, series.y, strict=True) if y is not None]


def _follow_theme(style: str) -> str:
    """Let the colours of text, axes and series be those of the page, and allow fonts like the one it was laid out with."""
    style = _COLOUR.sub(lambda colour: f"var(--{_VARIABLES[colour[0]]})", style)
    return style.replace("'DejaVu Sans'", "'DejaVu Sans',Verdana,sans-serif")


def _make_unique(text: str, prefix: str) -> str:
    """Prefix the identifiers that the element refers to, and drop all others."""
    used = set(_REFERENCE.findall(text))
    text = _IDENTIFIER.sub(lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else "", text)
    return _REFERENCE.sub(lambda found: f"{prefix}-{found[0]}", text)
