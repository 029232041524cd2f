"""`weakcell rank`: which layers and bits cost most accuracy per flip."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from weakcell.emulator.faults.read_policy import DEFAULT_READS, Reads
from weakcell.host.cli.options import MODEL, OUTPUT, READS, TASK

if TYPE_CHECKING:
    from weakcell.host.analysis.ranking import Ranking

_MEMORY = "The memory that each part lives in alone, all else being safe; independent cells."
_BY = "Rank layers, bit positions, or the bits of each layer."
_CHECK = "Inject faults too: so many trials per part, and the rank correlation."


def rank(
    model: Annotated[str, typer.Argument(help=MODEL)] = "digits-bnn",
    data: Annotated[str | None, typer.Option(help="As in weakcell predict.", show_default=False)] = None,
    memory: Annotated[str, typer.Option(metavar="SPEC", help=_MEMORY)] = "uniform:ber=0.01",
    by: Annotated[Literal["layer", "bit", "layer-bit"], typer.Option(help=_BY)] = "layer",
    samples: Annotated[
        int | None, typer.Option(min=2, help="Draws per image. [default: as in weakcell predict]", show_default=False)
    ] = None,
    check_trials: Annotated[int, typer.Option(min=0, help=_CHECK)] = 0,
    read_every: Annotated[Reads, typer.Option(help=f"For the trials. {READS}")] = DEFAULT_READS,
    seed: Annotated[int, typer.Option(help="Names all draws.")] = 0,
    images: Annotated[int | None, typer.Option(help="Only the first so many images.", show_default=False)] = None,
    task: Annotated[str | None, typer.Option(metavar="TASK", help=TASK, show_default=False)] = None,
    output: Annotated[str | None, typer.Option(metavar="NAME", help=OUTPUT, show_default=False)] = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to look for data sets first.", show_default=False)
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="[default: all cores]", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="NDJSON events on stdout instead of the table.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Which layers and bits cost most accuracy per flip? Each part alone in the memory, predicted without injecting a fault.

    \b
    Examples:
      weakcell rank digits-bnn --memory uniform:ber=0.05
      weakcell rank digits-qnn --by layer-bit --check-trials 20
    """
    from weakcell.host.cli.terminal import emit, errors_as_events, progress_bar

    given = {"memory": memory, "images": images, "task": task, "output": output, "read_every": read_every, "seed": seed}
    with errors_as_events(as_json):
        from weakcell.host.analysis.ranking import rank_parts, split_placement
        from weakcell.host.study.arguments import resolve_arguments

        resolved = resolve_arguments(model, data, data_dir, **{k: v for k, v in given.items() if v is not None})
        jobs = check_trials * len(split_placement(resolved, resolved.points[0].placement, by))
        with progress_bar(jobs, bool(jobs) and not (quiet or as_json)) as bar:
            ranking = rank_parts(
                resolved, by, samples=samples, trials=check_trials, threads=threads, on_trial=lambda: bar.step("measuring")
            )
    if not as_json:
        _show(ranking)
        return
    for part in ranking.parts:
        emit("part", **vars(part), loss_per_flip=part.loss_per_flip, measured_per_flip=part.measured_per_flip)
    emit("done", correlation=ranking.correlation, samples=ranking.samples)


def _show(ranking: Ranking) -> None:
    from rich.table import Table

    from weakcell.host.cli.result_table import percent
    from weakcell.host.cli.terminal import show
    from weakcell.host.report.captions import interval_text

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(ranking.by)
    headings = ["bits", "flips", "loss", "±", "points per flip"]
    for heading in headings + (["measured", "95 % interval", "points per flip"] if ranking.trials else []):
        table.add_column(heading, justify="right")
    for part in ranking.parts:
        cells = [f"{part.bits:,}", f"{part.flips:.4g}", percent(part.loss), percent(part.error), f"{100 * part.loss_per_flip:.3g}"]
        if part.measured is not None and part.measured_per_flip is not None:
            cells += [percent(part.measured), interval_text(part.low, part.high), f"{100 * part.measured_per_flip:.3g}"]
        table.add_row(part.name, *cells)
    show(f"[bold]{ranking.title}[/]")
    show(table)
    show(f"[dim]{ranking.caption}[/]")
