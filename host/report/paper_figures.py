"""Write the charts of a report as files for a paper in two columns."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from weakcell.host.report.matplotlib_charts import plot_paper_figure, save_figure
from weakcell.host.report.style import PAPER_STYLE
from weakcell.memmodels.atomic_files import create_folder
from weakcell.memmodels.errors import UsageError

if TYPE_CHECKING:
    from weakcell.host.report.chart_model import Chart, Panel

WIDTHS = {"one-column": 3.35, "two-column": 6.9}
"""Widths in inches of figures in a two-column conference style."""
FORMATS = ("pdf", "svg", "png")
MOST_FIGURES = 12
"""Figures that are written unless some are asked for by name."""


def name_figures(charts: Sequence[Chart]) -> dict[str, Panel]:
    """Return the figures of a report by file name: the first of each chart, then the second of each, and so on."""
    ranked = [(number, panel) for chart in charts for number, panel in enumerate(chart.panels)]
    panels = [panel for _, panel in sorted(ranked, key=lambda entry: entry[0])]
    return {panel.file_name: panel for panel in panels if panel.file_name is not None}


def pick_figures(figures: dict[str, Panel], only: Sequence[str] = ()) -> dict[str, Panel]:
    """Return the figures whose names match one of the patterns; without patterns, the first 12.

    Raises:
        UsageError: a pattern matches no figure.
    """
    if not only:
        return dict(list(figures.items())[:MOST_FIGURES])
    for pattern in only:
        if not any(_matches(name, pattern) for name in figures):
            raise UsageError(f"--only {pattern}", "no figure of this report has that name", f"Choose from {', '.join(figures)}")
    return {name: panel for name, panel in figures.items() if any(_matches(name, pattern) for pattern in only)}


def parse_formats(text: str) -> list[str]:
    """Return the formats of a list such as `pdf,svg`; UsageError for any other."""
    formats = [name.strip().lower() for name in text.split(",")]
    for name in formats:
        if name not in FORMATS:
            raise UsageError(f"--format {text}", f"{name!r} is not a format of figures", f"Choose from {', '.join(FORMATS)}")
    return formats


def _matches(name: str, pattern: str) -> bool:
    """Return whether a name is that of a pattern, or begins with its words: `flips` for `flips-digits-bnn-sram-14nm`."""
    return fnmatchcase(name, pattern) or name.startswith(f"{pattern}-")


def write_paper_figures(
    figures: dict[str, Panel], folder: Path, formats: Sequence[str] = ("pdf",), widths: Sequence[str] = ("one-column",)
) -> list[Path]:
    """Write figures with the type sizes of a two-column paper.

    Args:
        figures: by file name.
        folder: created if it does not exist.
        formats: pdf, svg, png.
        widths: keys of `WIDTHS`; the name of a wide figure ends in `-two-column`.

    Returns:
        The files written.
    """
    create_folder(folder)
    written = []
    for name, panel in figures.items():
        for width in dict.fromkeys(widths):
            ending = "" if width == "one-column" else f"-{width}"
            paths = [folder / f"{name}{ending}.{suffix}" for suffix in dict.fromkeys(formats)]
            save_figure(partial(plot_paper_figure, panel, WIDTHS[width]), paths, PAPER_STYLE, dpi=300)
            written += paths
    return written
