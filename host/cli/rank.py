"""`weakcell rank`: rank layers and bits by the accuracy that they lose per flip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from weakcell.emulator.faults.read_policy import DEFAULT_READS, Reads
from weakcell.host.cli.completion import complete_memory
from weakcell.host.cli.options import READS, Data, DataDir, Images, JsonEvents, Model, Output, Quiet, Seed, Task, Threads

if TYPE_CHECKING:
    from weakcell.host.analysis.ranking import Ranking

_MEMORY = "Memory of the ranked part; everything else is fault-free. Its cells must err independently."
_BY = "Rank layers, bit positions, or the bits of each layer."
_CHECK = "Also inject faults: so many trials per part, and the rank correlation."


def rank(
    model: Model = "digits-bnn",
    data: Data = None,
    memory: Annotated[str, typer.Option(metavar="SPEC", autocompletion=complete_memory, help=_MEMORY)] = "uniform:ber=0.01",
    by: Annotated[Literal["layer", "bit", "layer-bit"], typer.Option(help=_BY)] = "layer",
    samples: Annotated[
        int | None, typer.Option(min=2, help="Samples per image. [default: as in weakcell predict]", show_default=False)
    ] = None,
    check_trials: Annotated[int, typer.Option(min=0, help=_CHECK)] = 0,
    read_every: Annotated[Reads, typer.Option(help=f"For the trials. {READS}")] = DEFAULT_READS,
    seed: Seed = 0,
    images: Images = None,
    task: Task = None,
    output: Output = None,
    data_dir: DataDir = None,
    threads: Threads = None,
    as_json: JsonEvents = False,
    quiet: Quiet = False,
) -> None:
    """Rank layers or bits by accuracy lost per flip; each one is in the memory alone, and predicted without injecting faults.

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
    from weakcell.host.report.captions import format_interval

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(ranking.by)
    headings = ["bits", "flips", "loss", "±", "points per flip"]
    for heading in headings + (["measured", "95 % interval", "points per flip"] if ranking.trials else []):
        table.add_column(heading, justify="right")
    for part in ranking.parts:
        cells = [f"{part.bits:,}", f"{part.flips:.4g}", percent(part.loss), percent(part.error), f"{100 * part.loss_per_flip:.3g}"]
        if part.measured is not None and part.measured_per_flip is not None:
            cells += [percent(part.measured), format_interval(part.low, part.high), f"{100 * part.measured_per_flip:.3g}"]
        table.add_row(part.name, *cells)
    show(ranking.title, "bold")
    show(table)
    show(ranking.caption, "dim")
