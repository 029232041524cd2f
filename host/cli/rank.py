"""`weakcell rank`: rank layers and bits by the accuracy that they lose per flip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from weakcell.emulator.faults.read_policy import DEFAULT_READS, Reads
from weakcell.host.cli.completion import complete_memory
from weakcell.host.cli.options import (
    READS,
    Data,
    DataDir,
    DryRun,
    Explain,
    Images,
    JsonEvents,
    Model,
    Output,
    Quiet,
    Seed,
    Task,
    Threads,
)

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
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
    explain: Explain = False,
    quiet: Quiet = False,
) -> None:
    """Rank layers or bits by accuracy lost per flip; each one is in the memory alone, and predicted without injecting faults.

    \b
    Examples:
      weakcell rank digits-bnn --memory uniform:ber=0.05
      weakcell rank digits-qnn --by layer-bit --check-trials 20
    """
    from weakcell.host.cli.terminal import emit, errors_as_events, progress_bar, show_plan

    given = {"memory": memory, "images": images, "task": task, "output": output, "read_every": read_every, "seed": seed}
    with errors_as_events(as_json):
        from weakcell.host.analysis.prediction import expected_flips
        from weakcell.host.analysis.ranking import rank_parts, split_placement
        from weakcell.host.study.arguments import resolve_arguments
        from weakcell.host.study.study import check_jobs

        resolved = resolve_arguments(model, data, data_dir, **{k: v for k, v in given.items() if v is not None})
        parts = split_placement(resolved, resolved.points[0].placement, by)
        jobs = check_trials * len(parts)
        check_jobs(f"--check-trials {check_trials}", jobs)
        if dry_run:
            for _, placement in parts:
                expected_flips(resolved, placement)  # refuses memories whose cells do not err independently
            count, checked = len(resolved.dataset), f", and {check_trials} trials of each" if check_trials else ""
            text = f"{len(parts)} parts ({by}), each predicted on {count} images{checked}."
            show_plan(text, as_json, parts=[name for name, _ in parts], images=count, trials=check_trials)
            return
        with progress_bar(jobs, bool(jobs) and not (quiet or as_json)) as bar:
            ranking = rank_parts(
                resolved, by, samples=samples, trials=check_trials, threads=threads, on_trial=lambda: bar.step("measuring")
            )
    if not as_json:
        _show(ranking, explain)
        return
    for part in ranking.parts:
        emit("part", **vars(part), loss_per_flip=part.loss_per_flip, measured_per_flip=part.measured_per_flip)
    emit("done", correlation=ranking.correlation, samples=ranking.samples)


def _show(ranking: Ranking, explain: bool) -> None:
    from weakcell.host.cli.result_table import percent
    from weakcell.host.cli.tables import Column, show_table
    from weakcell.host.cli.terminal import show
    from weakcell.host.report.captions import format_interval

    parts = ranking.parts
    columns = [
        Column(ranking.by, [part.name for part in parts], left=True),
        Column("bits", [f"{part.bits:,}" for part in parts], drop=2),
        Column("flips", [f"{part.flips:.4g}" for part in parts], drop=1),
        Column("loss", [percent(part.loss) for part in parts]),
        Column("±", [percent(part.error) for part in parts]),
        Column("points per flip", [f"{100 * part.loss_per_flip:.3g}" for part in parts], short="per flip"),
    ]
    if ranking.trials:
        measured = ["" if part.measured is None else percent(part.measured) for part in parts]
        intervals = ["" if part.measured is None else format_interval(part.low, part.high) for part in parts]
        slopes = ["" if part.measured_per_flip is None else f"{100 * part.measured_per_flip:.3g}" for part in parts]
        columns += [
            Column("measured", measured),
            Column("95 % interval", intervals, drop=3),
            Column("points per flip", slopes, drop=4, short="per flip"),
        ]
    show(ranking.title, "bold")
    worst = max(parts, key=lambda part: part.loss_per_flip)
    show(f"A flip costs most in {worst.name}: {100 * worst.loss_per_flip:.3g} points.")
    show_table(columns)
    brief = "Loss: with only that part in the memory. Flips: in one inference. ±: 95 %."
    show(ranking.caption if explain else brief, "dim")
