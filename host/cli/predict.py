"""`weakcell predict`: predict accuracy over a memory's operating points from one fault-free pass."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weakcell.emulator.faults.read_policy import DEFAULT_READS, Reads
from weakcell.host.cli.completion import complete_memory, complete_sweep
from weakcell.host.cli.options import (
    Data,
    DataDir,
    DryRun,
    Explain,
    Images,
    JsonEvents,
    Model,
    Output,
    Place,
    Quiet,
    Seed,
    Task,
    Threads,
)

if TYPE_CHECKING:
    from weakcell.host.analysis.prediction import PredictionStudy
    from weakcell.host.cli.tables import Column

_MEMORY = "The memory of all weights: NAME or NAME:key=value,… with independent cells. [default: sram-14nm]"
_SWEEP = "Sweep one condition, as in ber=0:0.15:0.01. [default: v_over_vmin=0.75:1.0:0.025]"
_SAMPLES = "Samples per image. [default: 10,000 to 100,000 over the number of images, at least 2]"
_CHECK = "Also run so many trials per point, and compare."
_READ = "load, batch and image have the same mean; access differs for convolutions."
_OUT = "Write prediction.parquet, prediction.csv, prediction.json and the figure into this folder."


def predict(
    model: Model = "digits-bnn",
    data: Data = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SPEC", autocompletion=complete_memory, help=_MEMORY, show_default=False)
    ] = None,
    place: Place = None,
    sweep: Annotated[
        str | None, typer.Option(metavar="KEY=VALUES", autocompletion=complete_sweep, help=_SWEEP, show_default=False)
    ] = None,
    read_every: Annotated[Reads, typer.Option(help=_READ)] = DEFAULT_READS,
    samples: Annotated[int | None, typer.Option(min=2, help=_SAMPLES, show_default=False)] = None,
    check_trials: Annotated[int, typer.Option(min=0, help=_CHECK)] = 0,
    seed: Seed = 0,
    images: Images = None,
    task: Task = None,
    output: Output = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help=_OUT, show_default=False)] = None,
    data_dir: DataDir = None,
    threads: Threads = None,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
    explain: Explain = False,
    quiet: Quiet = False,
) -> None:
    """Predict accuracy over the operating points without injecting faults: the mean over infinitely many trials.

    The sums of each layer are sampled from their distribution under errors; for the last layer, probabilities are computed.
    The ± contains the mean with 95 % confidence: it covers the sampling error and the bias of approximate distributions.
    The spread of trials or dies is not predicted. Memories whose cells do not err independently are refused.

    \b
    Examples:
      weakcell predict digits-bnn --memory uniform --sweep ber=0:0.15:0.01
      weakcell predict digits-bnn --memory uniform:p10=0 \\
          --sweep p01=0.01,0.05,0.1 --check-trials 20
      weakcell predict digits-qnn --memory uniform:ber=0.005 \\
          --place '*@7=uniform:ber=0'
    """
    from weakcell.host.cli.terminal import emit, errors_as_events, note, progress_bar, show_plan

    given = {"memory": memory, "place": place or None, "sweep": sweep, "images": images, "task": task, "output": output}
    given |= {"trials": max(1, check_trials), "read_every": read_every, "seed": seed}
    with errors_as_events(as_json):
        from weakcell.host.analysis.prediction import (
            choose_samples,
            count_chunks,
            expected_flips,
            measure_prediction,
            predict_study,
        )
        from weakcell.host.study.arguments import resolve_arguments
        from weakcell.host.study.results_folder import make_folder

        resolved = resolve_arguments(model, data, data_dir, **{k: v for k, v in given.items() if v is not None})
        if dry_run:
            for point in resolved.points:
                expected_flips(resolved, point.placement)  # refuses memories whose cells do not err independently
            points, drawn, count = (
                len(resolved.points),
                choose_samples(resolved, samples, len(resolved.points)),
                len(resolved.dataset),
            )
            checked = f", and {check_trials} trials of each point" if check_trials else ""
            text = f"{points} operating point{'s' if points > 1 else ''} x {count} images x {drawn} samples of each{checked}."
            show_plan(text, as_json, points=points, images=count, samples=drawn, trials=check_trials)
            return
        folder = make_folder(out, "prediction.parquet")
        shown = not (quiet or as_json)
        with progress_bar(count_chunks(resolved), shown, "chunks of images") as bar:
            prediction = predict_study(resolved, samples, threads, lambda: bar.step("predicting"))
        if check_trials:
            with progress_bar(resolved.jobs, shown) as bar:
                prediction = measure_prediction(prediction, threads, lambda: bar.step("measuring"))
        if folder is not None:
            from weakcell.host.report.prediction_report import write

            write(prediction, folder, ["weakcell", *sys.argv[1:]])
    if as_json:
        for row in prediction.frame.iter_rows(named=True):
            emit("point", **row)
        emit("done", seconds=round(prediction.seconds, 3))
    else:
        _show(prediction, explain)
    if folder is not None:
        note(f"Results are in {folder}.", quiet or as_json)


def _show(prediction: PredictionStudy, explain: bool) -> None:
    from weakcell.host.cli.tables import show_table
    from weakcell.host.cli.terminal import show
    from weakcell.host.report.captions import study_title
    from weakcell.host.report.prediction_report import describe_answer, describe_briefly, describe_prediction

    show(study_title(prediction.resolved, prediction.resolved.study.memory.name), "bold")
    show(describe_answer(prediction))
    show_table(_columns(prediction))
    for line in [describe_prediction(prediction)] if explain else describe_briefly(prediction):
        show(line, "dim")


def _columns(prediction: PredictionStudy) -> list[Column]:
    from weakcell.host.cli.result_table import add_fault_free_row, percent
    from weakcell.host.cli.tables import Column, place_column
    from weakcell.host.report.captions import format_interval

    sweep, rows = prediction.resolved.study.sweep, prediction.frame.to_dicts()
    places = [f"{row['sweep_value']:g}" if sweep else row["memory"] for row in rows]
    scores = [percent(row["accuracy"] if prediction.labelled else 1 - row["changed"]) for row in rows]
    columns = [
        place_column(sweep.key if sweep else None, places),
        Column("predicted", scores),
        Column("±", [percent(row["half_width"]) for row in rows]),
        Column("changed", [percent(row["changed"]) for row in rows], drop=2),
    ]
    if prediction.measured is not None:
        columns += [
            Column("measured", [percent(row["measured"]) for row in rows]),
            Column("95 % interval", [format_interval(row["low"], row["high"]) for row in rows]),
            Column("outside", ["" if row["outside"] is None else percent(row["outside"]) for row in rows], drop=3),
        ]
    columns.append(Column("flip rate", [f"{row['flip_rate']:.3g}" for row in rows], drop=1, short="flips"))
    clean = prediction.resolved.questions.fault_free_accuracy
    return add_fault_free_row(columns, None if clean is None else percent(clean))
