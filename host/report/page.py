"""The report as one HTML file that needs no other file; its own policy forbids every request.

Charts are SVG elements, drawn by the code that draws the figures for papers. A page is therefore small, prints sharply, and is
complete without scripts. Its script only sorts and filters the table, and switches panels and theme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weakcell.emulator.tasks import get_metric
from weakcell.host.report.answers import HEADINGS, USABLE, find_answers, summarize
from weakcell.host.report.chart_model import Chart
from weakcell.host.report.chart_specs import build_charts
from weakcell.host.report.data import ReportData, point_label, split_by_metric
from weakcell.host.report.style import COLOURS, DARK_COLOURS
from weakcell.host.report.svg_charts import WIDTHS, render_inline_svg
from weakcell.memmodels.printable import printable

_HERE = Path(__file__).parent

_COLUMNS = (
    ("study", "study", ""),
    ("where", "point", ""),
    ("trials", "trials", "d"),
    ("score", "score", ""),
    ("mean", "mean score", "score"),
    ("low", "interval from", "score"),
    ("high", "interval to", "score"),
    ("differ_below", "no trial differed; at most so many would (%)", "%"),
    ("worst", "worst trial", "score"),
    ("bound", "95 % of dies reach", "score"),
    ("changed", "changed predictions (%)", "%"),
    ("flip_rate", "flip rate", "g"),
    ("energy", "energy of an inference", "g"),
    ("energy_unit", "energy unit", ""),
    ("energy_basis", "energy known as", ""),
    ("reads_per_inference", "reads of a bit per inference", "g"),
    ("access_latency_ns", "latency of an access (ns)", "g"),
)
"""Column of the points, its heading, and how its values are written."""
_COUNTED = (
    "The memory accesses of one inference, whatever the number of images; the table says how often it reads a stored bit (less "
    "than once where inferences share a read). Arithmetic (MACs), and activations outside these memories, are left out. Latencies "
    "are those of one access."
)


def render(data: ReportData, charts: Sequence[Chart] | None = None) -> str:
    """Return the page; every string in it is escaped.

    Args:
        data: of the report.
        charts: of the same data; None: they are built.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, finalize=_printable
    )
    charts = build_charts(data) if charts is None else charts
    summary = summarize(data)
    columns, rows = _headings(data), _rows(data)
    shown = [place for place in range(len(columns)) if any(row[place][0] for row in rows)]
    return environment.get_template("page.html").render(
        data=data,
        ran=summary[0],
        notes=summary[1 + len(data.studies) :],
        answers=find_answers(data),
        answer_headings=HEADINGS,
        usable=USABLE,
        charts=[(chart, _draw(chart)) for chart in charts],
        columns=[columns[place] for place in shown],
        rows=[[row[place] for place in shown] for row in rows],
        facts=_facts(data),
        script=_as_markup((_HERE / "page.js").read_text(encoding="utf-8")),
        style=_as_markup(_series_variables() + (_HERE / "page.css").read_text(encoding="utf-8")),
    )


def _draw(chart: Chart) -> list[list[tuple[str, Any]]]:
    """Return, for each panel, the name of each width and the SVG element."""
    return [
        [(name, _as_markup(render_inline_svg(panel, inches, f"{chart.name}-{k}-{name}"))) for name, inches in WIDTHS.items()]
        for k, panel in enumerate(chart.panels)
    ]


def _series_variables() -> str:
    """Return the colours of series as variables: darker on light paper, lighter on dark paper."""
    pairs = enumerate(zip(COLOURS, DARK_COLOURS, strict=True))
    return ":root { " + " ".join(f"--series-{number}: light-dark({light}, {dark});" for number, (light, dark) in pairs) + " }\n"


def _printable(value: Any) -> Any:
    """Return a text of the page without control characters; scripts and styles, which are markup, as they are."""
    return printable(value) if type(value) is str else value


def _headings(data: ReportData) -> list[tuple[str, str]]:
    """Return headings and kinds of the columns; scores are in percent if all of them are shares."""
    shares = all(metric.share for metric, _ in split_by_metric(data.points))
    return [(f"{heading} (%)" if kind == "score" and shares else heading, kind) for _, heading, kind in _COLUMNS]


def _rows(data: ReportData) -> list[list[tuple[str, Any]]]:
    """Return one row per point; cells are (text, value to sort by)."""
    rows = []
    for point in data.points.iter_rows(named=True):
        cells = {**point, "where": point_label(point), "score": get_metric(point["score"]).title}
        share = get_metric(point["score"]).share
        kinds = [(cells[name], ("%" if share else "g") if kind == "score" else kind) for name, _, kind in _COLUMNS]
        rows.append([(_shown(value, kind), "" if value is None else value) for value, kind in kinds])
    return rows


def _shown(value: Any, kind: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    match kind:
        case "%":
            return f"{100 * value:.2f}"
        case "g":
            return f"{value:.4g}"
        case "d":
            return f"{value:,}"
        case _:
            return str(value)


def _facts(data: ReportData) -> list[tuple[str, str]]:
    """Return the origin of the results as headings and text, the most important first."""
    named = {"command": "Command", "plan": "Trials", "versions": "Versions", "machine": "Machine", "file": "Campaign file",
             "margins": "Margins not shown", "identity": "Study", "cells": "Cells (content hashes)"}  # fmt: skip
    bases = data.points.select("energy_unit", "energy_basis").unique(maintain_order=True).drop_nulls().rows()
    known = [("Energies", "; ".join(f"{unit}: {basis}" for unit, basis in bases) or "none is published for these memories")]
    if bases:
        known.append(("What they count", _COUNTED))
    return known + [(heading, _text(name, data.facts[name])) for name, heading in named.items() if data.facts.get(name)]


def _text(name: str, content: Any) -> str:
    if isinstance(content, str):
        return content
    if name == "command":
        import shlex

        return shlex.join(map(str, content))
    if name == "cells":
        return "\n".join(f"{cell['sha256']}  {cell['study']}" for cell in content)
    return "\n".join(f"{key}: {value}" for key, value in content.items() if value is not None)


def _as_markup(text: str) -> Any:
    """Return text of our own, which is not escaped."""
    from markupsafe import Markup

    return Markup(text)
