"""The results in a folder: a campaign's, or those of one study: `read_results`."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from weakcell.emulator.tasks import get_metric
from weakcell.host.fork_guard import check_not_forked
from weakcell.host.report.answers import HEADINGS, USABLE, find_answers, summarize
from weakcell.host.report.captions import format_metric_interval
from weakcell.host.report.chart_model import Chart
from weakcell.host.report.chart_specs import score_charts
from weakcell.host.report.data import ReportData, point_label, read_report_data
from weakcell.host.report.displayed_result import DisplayedResult, embed_svg
from weakcell.host.report.matplotlib_charts import plot_paper_figure, render_svg
from weakcell.host.report.simple_figures import plot_bars
from weakcell.host.report.style import PAPER_STYLE
from weakcell.memmodels.atomic_files import write_text_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROWS = 60


@dataclass(frozen=True, eq=False, repr=False)
class CampaignResults(DisplayedResult):
    """What a folder of `weakcell sweep` or of `weakcell emulate --out` holds: from `read_results` and `sweep`.

    `frame` has one row per run, `summary` one per operating point.

    Attributes:
        folder: The folder.
        data: Its tables and how they were made.
        data_dir: The folder to search for data sets, for the margins of a report.
    """

    figure_style = PAPER_STYLE

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

    @property
    def title(self) -> str:
        """The folder's name."""
        return self.data.title

    @property
    def headline(self) -> str:
        """Studies, points and runs."""
        runs, points, studies = self.frame.height, self.summary.height, len(self.data.studies)
        return f"{self.folder}: {studies} studies, {points} points, {runs:,} runs"

    @property
    def caption(self) -> str:
        """What was run, and for each study the lowest energy at which little is lost."""
        return " ".join(summarize(self.data))

    def build_figure(self) -> Figure:
        """Plot the score over the first swept condition, or of each point if nothing was swept."""
        charts = self._charts()
        if charts:
            return plot_paper_figure(charts[0].panels[0], 6.0)
        points = self.summary
        return plot_bars(self.title, "mean score", points["memory"].to_list(), points["mean"].to_list())

    def _charts(self) -> list[Chart]:
        """Return the scores over each swept condition."""
        keys = self.summary["sweep_key"].drop_nulls().unique(maintain_order=True)
        return [chart for key in keys for chart in score_charts(self.data, key)]

    def report(self, path: str | Path | None = None) -> Path:
        """Write the page, beside the results unless told otherwise; returns its path. OutputError if it cannot be written."""
        from weakcell.host.report.page import render

        to, page = Path(path or self.folder / "report.html"), render(read_report_data(self.folder, self.data_dir))
        write_text_atomically(to, page)
        return to

    def _repr_html_(self) -> str:
        ran = summarize(self.data)[0]
        head = "".join(f'<th scope="col">{heading}</th>' for heading in HEADINGS)
        rows = ("".join(f"<td>{escape(text)}</td>" for text in answer.cells) for answer in find_answers(self.data))
        answers = f"<table><caption>{USABLE}</caption><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
        pictures = "".join(
            embed_svg(render_svg(chart.panels[0], 6.0), f"{chart.title}; the table has its numbers") for chart in self._charts()
        )
        return f"<p><b>{escape(self.data.title)}</b>: {escape(ran)}</p>{answers}{pictures}{_table(self.summary)}"


def read_results(folder: str | Path, data_dir: str | Path | None = None) -> CampaignResults:
    """Read the results in a folder of `weakcell sweep`, or of `weakcell emulate --out`.

    Args:
        folder: The folder.
        data_dir: The folder to search first for data sets, for the margins of a report.

    Returns:
        The results. `.report()` writes them as one self-contained page.

    Raises:
        InputError: The folder holds no results.

    Examples:
        >>> import weakcell
        >>> folder = weakcell.emulate(memory="uniform", sweep={"ber": [0.01, 0.1]}, trials=2, images=50).save("results")
        >>> results = weakcell.read_results(folder)
        >>> results.frame.height, results.summary.height
        (4, 2)
    """
    check_not_forked(f"Reading {folder}")
    first = None if data_dir is None else Path(data_dir)
    return CampaignResults(Path(folder), read_report_data(Path(folder), first, extras=False), first)


def _table(points: pl.DataFrame) -> str:
    headings = ("study", "point", "trials", "score", "mean", "95 % interval", "flip rate", "energy of an inference")
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    rows = "".join(f"<tr>{_cells(point)}</tr>" for point in points.head(_ROWS).iter_rows(named=True))
    more = f"; the first {_ROWS} of {points.height:,}" if points.height > _ROWS else ""
    return f"<table><caption>One row per operating point{more}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cells(point: dict[str, Any]) -> str:
    metric = get_metric(point["score"])
    interval = format_metric_interval(metric, point["low"], point["high"])
    rate = "" if point["flip_rate"] is None else f"{point['flip_rate']:.3g}"
    energy = "" if point["energy"] is None else f"{point['energy']:.4g} {point['energy_unit']}"
    texts = (point["study"], point_label(point), point["trials"], metric.title, metric.text(point["mean"]), interval, rate, energy)
    return "".join(f"<td>{escape(str(text))}</td>" for text in texts)
