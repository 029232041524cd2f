"""`weakcell sweep`: run a campaign, keep every run, and continue after an interruption."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weakcell.host.cli.options import DataDir, JsonEvents, Quiet

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from weakcell.emulator.tasks import Metric
    from weakcell.host.campaign.campaign import Campaign
    from weakcell.host.campaign.sweep import SweepProgress
    from weakcell.host.campaign.tables import Tables

_CAMPAIGN = "The campaign file (TOML); README and `weakcell sweep --example` show one."
_OUT = "Folder of runs.sqlite; tables are written when all runs are finished."
_HALF = "Stop a point when its 95 % interval is at most ± this wide, as 0.5% or 0.005. [default: the file's]"
_CLUSTER = "Dask: tcp://HOST:PORT of a scheduler, or local:N for N processes here."

EXAMPLE = """\
title = "Two small networks"  # the heading of the report
trials = 100                  # the most per point
half_width = 0.005            # a point is done when its 95 % interval is no wider than this (leave out: all trials)
read_every = ["load"]

[[network]]
model = "digits-bnn"          # a shipped name or an ONNX file

[[network]]
model = "digits-qnn"

[[memory]]
spec = "sram-14nm"
grid = { v_over_vmin = "0.75:1.0:0.025" }

[[memory]]
spec = "dram"
grid = { trcd = [6, 7, 8], vendor = ["A", "B"] }

[[placement]]
name = "all weights"

[[placement]]
name = "first layer safe"
rules = { "*conv1*" = "uniform:ber=0" }
"""


def sweep(
    campaign: Annotated[Path | None, typer.Argument(metavar="CAMPAIGN.toml", help=_CAMPAIGN, show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help=_OUT, show_default=False)] = None,
    half_width: Annotated[str | None, typer.Option(metavar="SHARE", help=_HALF, show_default=False)] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of this process. [default: all cores]", show_default=False)
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Use processes of this machine instead.", show_default=False)] = None,
    cluster: Annotated[str | None, typer.Option(metavar="ADDRESS", help=_CLUSTER, show_default=False)] = None,
    data_dir: DataDir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, count runs, estimate time, and exit.")] = False,
    as_json: JsonEvents = False,
    yes: Annotated[bool, typer.Option("--yes", help="Let memories of the campaign open a board's port.")] = False,
    quiet: Quiet = False,
    example: Annotated[bool, typer.Option("--example", help="Print an example of a campaign file and exit.")] = False,
) -> None:
    """Run everything in a campaign that is still missing: networks x memories x operating points x trials.

    It may be stopped at any moment: only unfinished runs are lost, and the same command continues. Results are the same on
    threads, processes or a cluster.

    \b
    Examples:
      weakcell sweep --example > campaign.toml
      weakcell sweep campaign.toml --dry-run
      weakcell sweep campaign.toml --out results
      weakcell sweep campaign.toml --out results --cluster tcp://head:8786
    """
    from weakcell.host.cli.terminal import errors_as_events, say

    if example:
        say(EXAMPLE.rstrip())
        return

    with errors_as_events(as_json):
        _sweep(campaign, out, half_width, threads, processes, cluster, data_dir, dry_run, as_json, yes, quiet)


def _sweep(
    path: Path | None,
    out: Path | None,
    half_width: str | None,
    threads: int | None,
    processes: int | None,
    cluster: str | None,
    data_dir: Path | None,
    dry_run: bool,
    as_json: bool,
    yes: bool,
    quiet: bool,
) -> None:
    from weakcell.host.api.campaigns import check_workers, choose_executor
    from weakcell.host.board.memory.studies import refuse_hardware
    from weakcell.host.campaign.campaign import resolve_campaign
    from weakcell.host.campaign.schema import read_campaign
    from weakcell.host.campaign.store import open_store
    from weakcell.host.campaign.sweep import count_missing
    from weakcell.host.campaign.sweep import run_campaign as drive
    from weakcell.host.campaign.tables import Tables, compute_differences, write_tables
    from weakcell.host.cli.progress import checking
    from weakcell.host.cli.terminal import emit, note
    from weakcell.memmodels.errors import Interrupted, UsageError

    if path is None:
        raise UsageError("weakcell sweep", "no campaign file is named", "Name one; weakcell sweep --example prints one")
    check_workers(threads, processes, cluster)
    if out is None and not dry_run:
        raise UsageError("weakcell sweep", "it has nowhere to keep its runs", "Give --out DIR")
    share = None if half_width is None else parse_share(half_width)
    resolved = resolve_campaign(read_campaign(path), data_dir, share, checking(not quiet and not as_json))
    refuse_hardware(f"Sweep {path}", resolved.studies, yes)
    if dry_run:
        _show_effort(resolved, out, threads, processes, cluster, as_json)
        return
    assert out is not None
    with open_store(out) as store:
        left = count_missing(resolved, store)
        if as_json:
            emit("campaign", studies=len(resolved.studies), points=len(resolved.cells), runs=resolved.runs, missing=left)
        executor = choose_executor(resolved, threads, processes, cluster)
        try:
            with _progress(as_json, quiet, resolved) as on_step:
                made = drive(resolved, store, executor, ["weakcell", *sys.argv[1:]], on_step)
        except KeyboardInterrupt:
            raise Interrupted(f"Sweep {path}", "interrupted", f"Finished runs are in {out}; the same command goes on") from None
        tables = Tables(store)
        written = write_tables(tables, out)
        if as_json:
            for row in tables.summary.iter_rows(named=True):
                emit("point", **row)
            for row in compute_differences(tables).iter_rows(named=True):
                emit("difference", **row)
            emit("done", made=made, rows=tables.frame.height, files=[str(file) for file in written])
        else:
            _show_summary(tables)
            note(f"{made:,} runs made; {tables.frame.height:,} in {out / 'results.parquet'}.", quiet)


def parse_share(text: str) -> float:
    """0.5% or 0.005 as a share; UsageError if it is neither or not within (0, 0.5)."""
    from weakcell.memmodels.errors import UsageError
    from weakcell.memmodels.numbers import parse_number

    number, percent = (text.strip().removesuffix("%"), text.strip().endswith("%"))
    try:
        share = parse_number(number) / (100.0 if percent else 1.0)
    except ValueError:
        share = -1.0
    if not 0.0 < share < 0.5:
        raise UsageError(f"A share of {text!r}", "it is no share between 0 and 50 %", "Write it as 0.5% or 0.005")
    return share


def _show_effort(
    campaign: Campaign, out: Path | None, threads: int | None, processes: int | None, cluster: str | None, as_json: bool
) -> None:
    from weakcell.host.campaign.store import has_store, read_store
    from weakcell.host.campaign.sweep import count_missing, estimate_effort
    from weakcell.host.cli.result_table import duration
    from weakcell.host.cli.terminal import emit, say
    from weakcell.host.study.executors import default_workers

    left = campaign.runs
    if out is not None and has_store(out):
        with read_store(out) as store:
            left = count_missing(campaign, store)
    count = (cluster or "").removeprefix("local:")
    local = int(count) if count.isascii() and count.isdigit() else None
    effort = estimate_effort(campaign, threads or processes or local or default_workers(), left, bool(processes or local))
    if as_json:
        emit("effort", **vars(effort))
        return
    for study, label in zip(campaign.studies, campaign.labels, strict=True):
        swept = f" over {study.study.sweep}" if study.study.sweep else ""
        say(f"{label}: {len(study.points)} points{swept}")
    most = " at most" if campaign.half_width is not None else ""
    say(
        f"{effort.points:,} points x {campaign.trials:,} trials: {effort.runs:,} runs{most}, {effort.missing:,} of them missing; "
        f"about {duration(effort.seconds)} on {effort.workers} workers without compiling kernels, "
        f"{effort.memory_bytes / 2**20:.0f} MiB of memory, {effort.disk_bytes / 2**20:.1f} MiB of disk"
    )
    if effort.board_seconds:
        say(f"Through boards, one run after the other: at most {duration(effort.board_seconds)} besides")


def _progress(as_json: bool, quiet: bool, campaign: Campaign) -> AbstractContextManager[Callable[[SweepProgress], None]]:
    """The context in which steps are told: events, a bar on a terminal, or a line now and then."""
    from weakcell.host.cli.progress import progress

    def event(step: SweepProgress) -> None:
        from weakcell.host.cli.terminal import emit

        for result, seconds in zip(step.done.results, step.done.seconds, strict=True):
            emit(
                "run", study=campaign.labels[step.cell.study], memory=step.cell.point.memory, trial=result.trial,
                accuracy=result.accuracy, changed=result.changed, score=result.score, flips=sum(result.flips.values()),
                seconds=round(seconds, 6), finished=step.finished, needed=step.needed,
            )  # fmt: skip

    return progress(event if as_json else None, shown=not quiet)


def _show_summary(tables: Tables) -> None:
    import polars as pl

    from weakcell.emulator.tasks import get_metric
    from weakcell.host.campaign.tables import compute_differences
    from weakcell.host.cli.result_table import percent
    from weakcell.host.cli.tables import Column, place_column, show_table
    from weakcell.host.cli.terminal import show
    from weakcell.host.report.captions import describe_rounding, explain_no_difference, format_metric_interval

    between_points = compute_differences(tables).filter(pl.col("between") == "points")
    steps = {(row["study"], row["memory"]): row for row in between_points.iter_rows(named=True)}
    for (study,), part in tables.summary.group_by(["study"], maintain_order=True):
        metric = get_metric(part["score"][0])
        rows = part.to_dicts()
        key = part["sweep_key"][0]
        places = [row["memory"] if row["sweep_value"] is None else f"{row['sweep_value']:.6g}" for row in rows]
        changes = [steps.get((study, row["memory"])) for row in rows]
        energies = ["" if row["energy"] is None else f"{row['energy']:.4g} {row['energy_unit']}" for row in rows]
        columns = [
            place_column(key, places),
            Column("trials", [f"{row['trials']}" for row in rows], drop=3),
            Column(metric.words, [metric.text(row["mean"]) for row in rows]),
            Column("95 % interval", [format_metric_interval(metric, row["low"], row["high"]) for row in rows]),
            Column("from above", ["" if step is None else _change(step, metric) for step in changes], drop=5),
            Column("worst", [metric.text(row["worst"]) for row in rows], drop=4),
            Column("flip rate", [f"{row['flip_rate']:.3g}" for row in rows], drop=2, short="flips"),
            Column("energy of an inference", energies, drop=1, short="energy"),
        ]
        show(study, "bold")
        show_table(columns)
        for note in (explain_no_difference(part["differ_below"]), *describe_rounding(part["memory"])):
            if note:
                show(f"{note}.", "dim")
        if (used := part.drop_nulls("control")).height:
            removed = used["removed"].to_list()
            show(
                f"{used.height} means are the regression's on the flips of {used['control'][0]}, whose mean is known; "
                f"{percent(min(removed))} to {percent(max(removed))} of the variance went with them."
            )


def _change(step: dict[str, Any], metric: Metric) -> str:
    """Return the cell of a paired difference, in percentage points or in the metric's own unit."""
    from weakcell.host.report.captions import NO_DIFFERENCE

    mean, low, high = (
        f"{100 * step[name]:+.2f}" if metric.share else f"{step[name]:+.4g}" for name in ("difference", "low", "high")
    )
    return f"{mean}, {NO_DIFFERENCE}" if step["differ_below"] is not None else f"{mean} ({low} … {high})"
