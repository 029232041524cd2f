"""The results of a campaign's folder from Python; in a notebook they show themselves.

from host import read_results
found = read_results("DIR")
found.summary           # polars: one row per operating point
found.frame             # polars: one row per run
found.report("a.html")  # the page that `weakcell report` writes
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import polars as pl

from weakcell.emulator.tasks import metric_of
from weakcell.host.atomic_files import write_atomically
from weakcell.host.report.data import Material, read_material, sentences, where
from weakcell.host.report.interval_text import metric_interval

_ROWS = 60


@dataclass(frozen=True, eq=False)
class CampaignResults:
    """What a folder of `weakcell sweep`, or of `weakcell emulate --out`, holds. data_dir: for the margins of a report."""

    folder: Path
    material: Material
    data_dir: Path | None = None

    @property
    def frame(self) -> pl.DataFrame:
        """One row per run."""
        return self.material.runs

    @property
    def summary(self) -> pl.DataFrame:
        """One row per operating point."""
        return self.material.points

    def report(self, path: str | Path | None = None) -> Path:
        """Write the page, beside the results unless told otherwise; returns its path. OutputError if it cannot be written."""
        from weakcell.host.report.page import render

        to, page = Path(path or self.folder / "report.html"), render(read_material(self.folder, self.data_dir))
        write_atomically(to, lambda place: place.write_text(page, encoding="utf-8"))
        return to

    def __repr__(self) -> str:
        runs, points, studies = self.frame.height, self.summary.height, len(self.material.studies)
        return f"CampaignResults<{self.folder}: {studies} studies, {points} points, {runs:,} runs>"

    def _repr_html_(self) -> str:
        first, *rest = sentences(self.material)
        said = "".join(f"<li>{escape(sentence)}</li>" for sentence in rest)
        pictures = "".join(_picture(name, svg) for name, svg in _curves(self.material))
        return f"<p><b>{escape(self.material.title)}</b>: {escape(first)}</p><ul>{said}</ul>{pictures}{_table(self.summary)}"


def read_results(folder: str | Path, data_dir: Path | None = None) -> CampaignResults:
    """The results in a folder; InputError if it holds none."""
    return CampaignResults(Path(folder), read_material(Path(folder), data_dir, extras=False), data_dir)


def _curves(material: Material) -> list[tuple[str, bytes]]:
    """Accuracy over each swept condition, as SVG."""
    from weakcell.host.report.paper_charts import accuracy_figures

    made = []
    for key, figure in accuracy_figures(material, 6.0):
        room = io.BytesIO()
        figure.savefig(room, format="svg", metadata={"Date": None})
        made.append((f"Accuracy over {key}; the table has its numbers", room.getvalue()))
    return made


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
    texts = (point["study"], where(point), point["trials"], metric.title, metric.text(point["mean"]), interval, rate, energy)
    return "".join(f"<td>{escape(str(text))}</td>" for text in texts)
