"""The results of a campaign's folder from Python; in a notebook they show themselves.

from host import read_results
found = read_results("DIR")
found.summary           # polars: one row per operating point
found.frame             # polars: one row per run
found.report("a.html")  # the page that `weakcell report` writes
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import polars as pl

from weakcell.emulator.tasks import metric_of
from weakcell.host.atomic_files import write_atomically
from weakcell.host.report.captions import metric_interval
from weakcell.host.report.data import ReportData, point_label, read_report_data, summarize

_ROWS = 60


@dataclass(frozen=True, eq=False)
class CampaignResults:
    """What a folder of `weakcell sweep`, or of `weakcell emulate --out`, holds. data_dir: for the margins of a report."""

    folder: Path
    data: ReportData
    data_dir: Path | None = None

    @property
    def frame(self) -> pl.DataFrame:
        """One row per run."""
        return self.data.runs

    @property
    def summary(self) -> pl.DataFrame:
        """One row per operating point."""
        return self.data.points

    def report(self, path: str | Path | None = None) -> Path:
        """Write the page, beside the results unless told otherwise; returns its path. OutputError if it cannot be written."""
        from weakcell.host.report.page import render

        to, page = Path(path or self.folder / "report.html"), render(read_report_data(self.folder, self.data_dir))
        write_atomically(to, lambda place: place.write_text(page, encoding="utf-8"))
        return to

    def __repr__(self) -> str:
        runs, points, studies = self.frame.height, self.summary.height, len(self.data.studies)
        return f"CampaignResults<{self.folder}: {studies} studies, {points} points, {runs:,} runs>"

    def _repr_html_(self) -> str:
        first, *rest = summarize(self.data)
        said = "".join(f"<li>{escape(sentence)}</li>" for sentence in rest)
        pictures = "".join(_picture(name, svg) for name, svg in _curves(self.data))
        return f"<p><b>{escape(self.data.title)}</b>: {escape(first)}</p><ul>{said}</ul>{pictures}{_table(self.summary)}"


def read_results(folder: str | Path, data_dir: Path | None = None) -> CampaignResults:
    """The results in a folder; InputError if it holds none."""
    return CampaignResults(Path(folder), read_report_data(Path(folder), data_dir, extras=False), data_dir)


def _curves(data: ReportData) -> list[tuple[str, bytes]]:
    """Return the scores over each swept condition: alternative text and SVG file."""
    from weakcell.host.report.chart_specs import score_charts
    from weakcell.host.report.matplotlib_charts import render_svg

    keys = data.points["sweep_key"].drop_nulls().unique(maintain_order=True)
    charts = [chart for key in keys for chart in score_charts(data, key)]
    return [(f"{chart.title}; the table has its numbers", render_svg(chart.panels[0], 6.0)) for chart in charts]


def _picture(words: str, svg: bytes) -> str:
    """An image that needs no other file; on white, so that it can be read in a dark notebook."""
    encoded = base64.b64encode(svg).decode()
    return f'<img alt="{escape(words)}" style="max-width:100%;background:#fff" src="data:image/svg+xml;base64,{encoded}">'


def _table(points: pl.DataFrame) -> str:
    headings = ("study", "point", "trials", "score", "mean", "95 % interval", "flip rate", "energy of an inference")
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    rows = "".join(f"<tr>{_cells(point)}</tr>" for point in points.head(_ROWS).iter_rows(named=True))
    more = f"; the first {_ROWS} of {points.height:,}" if points.height > _ROWS else ""
    return f"<table><caption>One row per operating point{more}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cells(point: dict[str, Any]) -> str:
    metric = metric_of(point["score"])
    interval = metric_interval(metric, point["low"], point["high"])
    rate = "" if point["flip_rate"] is None else f"{point['flip_rate']:.3g}"
    energy = "" if point["energy"] is None else f"{point['energy']:.4g} {point['energy_unit']}"
    texts = (point["study"], point_label(point), point["trials"], metric.title, metric.text(point["mean"]), interval, rate, energy)
    return "".join(f"<td>{escape(str(text))}</td>" for text in texts)
