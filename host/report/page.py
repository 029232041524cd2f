"""The report as one HTML file that needs no other file. It includes Plotly; its own policy forbids every request."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from weakcell.emulator.tasks import get_metric
from weakcell.host.report.chart_specs import build_charts
from weakcell.host.report.data import ReportData, point_label, split_by_metric, summarize
from weakcell.host.report.plotly_charts import plot_panel
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


def render(data: ReportData) -> str:
    """Return the page; every string in it is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, finalize=_printable
    )
    charts = build_charts(data)
    figures = {chart.name: [plot_panel(panel) for panel in chart.panels] for chart in charts}
    return environment.get_template("page.html").render(
        data=data,
        summary=summarize(data),
        charts=charts,
        columns=_headings(data),
        rows=_rows(data),
        facts=_facts(data),
        figures=_script_json(figures),
        plotly=_script(get_plotlyjs()),
        script=_script((_HERE / "page.js").read_text(encoding="utf-8")),
        style=_style((_HERE / "page.css").read_text(encoding="utf-8")),
    )


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
    return "\n".join(f"{key}: {value}" for key, value in content.items())


def _script_json(content: Any) -> Any:
    """Return JSON that is safe in a script element: nothing in it ends the element or opens a comment."""
    from markupsafe import Markup

    text = json.dumps(_finite(content), ensure_ascii=False, allow_nan=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value


def _script(code: str) -> Any:
    """Return a script of our own or Plotly's, unable to end its element."""
    from markupsafe import Markup

    if "</script" in code.lower():
        code = code.replace("</script", "<\\/script").replace("</SCRIPT", "<\\/SCRIPT")
    return Markup(code)


def _style(code: str) -> Any:
    from markupsafe import Markup

    return Markup(code)
