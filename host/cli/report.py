"""`weakcell report`: write results as one HTML page, and as figures for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weakcell.host.cli.options import DataDir, JsonEvents, Quiet


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of weakcell sweep, or of weakcell emulate --out.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File of the page. [default: DIR/report.html]", show_default=False)
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also write PDF, SVG and PNG figures here, one and two columns wide.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
    as_json: JsonEvents = False,
    quiet: Quiet = False,
) -> None:
    """Write one self-contained HTML file: summary, curves with intervals, Pareto front, flips by layer, weak cells, all points.

    \b
    Examples:
      weakcell report results
      weakcell report results --figures results/figures
    """
    from weakcell.host.cli.terminal import emit, errors_as_events, note, say
    from weakcell.host.report.data import read_report_data
    from weakcell.host.report.page import render
    from weakcell.memmodels.atomic_files import check_writable, write_text_atomically

    path = out or folder / "report.html"
    with errors_as_events(as_json):
        data = read_report_data(folder, data_dir)
        check_writable(path)
        write_text_atomically(path, render(data))
        if as_json:
            emit("file", file=str(path))
        else:
            say(str(path))
        if figures is None:
            return
        from weakcell.host.report.chart_specs import build_charts
        from weakcell.host.report.matplotlib_charts import write_paper_figures

        written = write_paper_figures(build_charts(data), figures)
    if as_json:
        for file in written:
            emit("file", file=str(file))
    else:
        note(f"{len(written)} figures in {figures}.", quiet)
