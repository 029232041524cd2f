"""`weakcell report`: a folder of results as one page, and as figures for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of weakcell sweep, or of weakcell emulate --out.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The page. [default: DIR/report.html]", show_default=False)
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also PDF, SVG and PNG, one and two columns wide, into this folder.", show_default=False),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to look for data sets first.", show_default=False)
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes.")] = False,
) -> None:
    """One self-contained HTML file: summary, curves with intervals, Pareto front, flips by layer, weak cells, margins, all points.

    \b
    Examples:
      weakcell report results
      weakcell report results --figures results/figures
    """
    from weakcell.host.atomic_files import check_writable, write_atomically
    from weakcell.host.cli.terminal import note, say
    from weakcell.host.report.data import read_report_data
    from weakcell.host.report.page import render

    path = out or folder / "report.html"
    data = read_report_data(folder, data_dir)
    check_writable(path)
    page = render(data)
    write_atomically(path, lambda place: place.write_text(page, encoding="utf-8"))
    say(str(path))
    if figures is not None:
        from weakcell.host.report.chart_specs import build_charts
        from weakcell.host.report.matplotlib_charts import write_paper_figures

        written = write_paper_figures(build_charts(data), figures)
        note(f"{len(written)} figures in {figures}.", quiet)
