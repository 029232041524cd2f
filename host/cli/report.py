"""`weakcell report`: write results as one HTML page, and as figures for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from weakcell.host.cli.options import DataDir, DryRun, JsonEvents, Quiet

Width = Literal["one-column", "two-column", "both"]


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of weakcell sweep, or of weakcell emulate --out.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File of the page. [default: DIR/report.html]", show_default=False)
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also write figures for a paper here, named by what they show; at most 12 without --only.",
            show_default=False,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Write these figures: accuracy-ber, flips, 'pareto*'. May be repeated.", show_default=False
        ),
    ] = None,
    formats: Annotated[str, typer.Option("--format", metavar="LIST", help="Formats of the figures: pdf, svg, png.")] = "pdf",
    width: Annotated[Width, typer.Option(help="Width of the figures, in a paper of two columns.")] = "one-column",
    data_dir: DataDir = None,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
    quiet: Quiet = False,
) -> None:
    """Write one self-contained HTML file: answers, curves with intervals, Pareto front, flips by layer, weak cells, all points.

    \b
    Examples:
      weakcell report results
      weakcell report results --figures figures
      weakcell report results --figures figures --only accuracy --format svg
    """
    from weakcell.host.cli.terminal import emit, errors_as_events, note, say, show_plan
    from weakcell.host.report.chart_specs import build_charts
    from weakcell.host.report.data import read_report_data
    from weakcell.host.report.page import render
    from weakcell.host.report.paper_figures import WIDTHS, name_figures, parse_formats, pick_figures, write_paper_figures
    from weakcell.memmodels.atomic_files import check_writable, write_text_atomically
    from weakcell.memmodels.errors import UsageError

    path = out or folder / "report.html"
    with errors_as_events(as_json):
        if only and figures is None:
            raise UsageError("--only without --figures", "no figures are written", "Add --figures DIR")
        if out is not None:  # before margins are computed
            check_writable(out)
        data = read_report_data(folder, data_dir)
        charts = build_charts(data)
        named = name_figures(charts)
        chosen = pick_figures(named, only or ())
        wanted = parse_formats(formats)
        if dry_run:
            names = list(chosen if figures is not None else named)
            what = f"{len(names)} figures into {figures}" if figures is not None else "no figures; --figures DIR would add some of"
            show_plan(f"The page {path}, and {what}: {', '.join(names)}.", as_json, page=str(path), figures=names)
            return
        check_writable(path)
        write_text_atomically(path, render(data, charts))
        if as_json:
            emit("file", file=str(path))
        else:
            say(str(path))
        if figures is None:
            return
        written = write_paper_figures(chosen, figures, wanted, tuple(WIDTHS) if width == "both" else (width,))
    if as_json:
        for file in written:
            emit("file", file=str(file))
    else:
        left = [name for name in named if name not in chosen]
        more = "" if only or not left else f" {len(left)} more: --only {left[0]}{' …' if len(left) > 1 else ''}"
        note(f"{len(written)} files in {figures}.{more}", quiet)
