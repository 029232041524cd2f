"""`weakcell validate`: check the margin bounds against the flips of a memory."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weakcell.emulator.faults.read_policy import DEFAULT_READS
from weakcell.host.cli.completion import complete_memory, complete_sweep
from weakcell.host.cli.options import (
    Batch,
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
    ReadEvery,
    Seed,
    Task,
    Threads,
)

if TYPE_CHECKING:
    from weakcell.host.study.study import Point
    from weakcell.host.validation.accuracy_curve import AccuracyCurve
    from weakcell.host.validation.trials import Validation

_MEMORY = "The memory of all weights: NAME, NAME:key=value,… or recording:PATH. [default: uniform:ber=0.01]"
_SWEEP = "Move one condition of the memory, as in ber=0.001:0.1:x2."
_STRESS = "Run every image at the BERs that bring its own flips near its own bound (memories with a `ber`)."
_PREDICT = "Predict the accuracy of every point, beside the measured one."
_HIDDEN = "Check hidden neurons too (Corollary 1); needs memory for all their sums."
_OUT = "Write tallies, violations and curve (.parquet), validation.json and the figure into this folder, replacing those there."


def validate(
    model: Model = "digits-bnn",
    data: Data = None,
    memory: Annotated[
        str, typer.Option(metavar="SPEC", autocompletion=complete_memory, help=_MEMORY, show_default=False)
    ] = "uniform:ber=0.01",
    place: Place = None,
    sweep: Annotated[
        str | None, typer.Option(metavar="KEY=VALUES", autocompletion=complete_sweep, help=_SWEEP, show_default=False)
    ] = None,
    stress: Annotated[bool, typer.Option("--stress", help=_STRESS)] = False,
    trials: Annotated[int, typer.Option(min=1, help="Passes over the data per point.")] = 10,
    first_trial: Annotated[int, typer.Option(min=0, help="Number of the first trial: what a violation names.")] = 0,
    die: Annotated[int | None, typer.Option(help="Pin the die; without it, trial t runs on die t.", show_default=False)] = None,
    read_every: ReadEvery = DEFAULT_READS,
    batch: Batch = 256,
    seed: Seed = 0,
    images: Images = None,
    task: Task = None,
    output: Output = None,
    hidden: Annotated[bool, typer.Option("--hidden", help=_HIDDEN)] = False,
    predict: Annotated[bool, typer.Option("--predict/--no-predict", help=_PREDICT)] = True,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help=_OUT, show_default=False)] = None,
    data_dir: DataDir = None,
    threads: Threads = None,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
    explain: Explain = False,
    quiet: Quiet = False,
    yes: Annotated[bool, typer.Option("--yes", help="Take more than an hour on a board.")] = False,
) -> None:
    """Check the margin bounds on injected flips: every faulty run is compared with the fault-free run.

    Flips are counted per neuron (flipped weights plus flipped inputs) and compared with the bound of every image. Exit code 1 if a
    bound is broken; each violation is printed with the command that repeats its trial.

    \b
    Examples:
      weakcell validate digits-bnn --stress --trials 100
      weakcell validate digits-qnn --memory uniform:ber=0.001 --trials 100 \\
          --out validation
      weakcell validate digits-bnn --memory sram-14nm \\
          --sweep v_over_vmin=0.75:0.85:0.025 --hidden
    """
    from weakcell.host.cli.emulate import boards, check_boards
    from weakcell.host.cli.terminal import emit, errors_as_events, note, progress_bar, show_plan

    with errors_as_events(as_json):
        given: dict[str, Any] = {
            "memory": memory, "place": place or [], "trials": trials, "read_every": read_every, "batch": batch, "seed": seed,
        }  # fmt: skip
        optional = {"sweep": sweep, "die": die, "images": images, "task": task, "output": output}
        given |= {name: value for name, value in optional.items() if value is not None}
        from weakcell.host.study.arguments import build_study
        from weakcell.host.study.results_folder import make_folder
        from weakcell.host.validation.accuracy_curve import compare_with_prediction
        from weakcell.host.validation.stress import resolve_validation
        from weakcell.host.validation.trials import validate_study as run

        resolved, only = resolve_validation(build_study(model, data, **given), data_dir, stress=stress)
        if dry_run:
            points, count = len(resolved.points), len(resolved.dataset)
            each = "each image at the points near its bound" if stress else f"{count} images"
            text = f"{points} operating point{'s' if points > 1 else ''} x {trials} trials x {each}"
            text += ", and a prediction of each point." if predict else "."
            show_plan(text, as_json, points=points, trials=trials, images=count, stress=stress, predict=predict)
            return
        folder = make_folder(out, "tallies.parquet")
        check_boards(resolved, yes, quiet or as_json)

        with boards(resolved, folder) as one_by_one, progress_bar(resolved.jobs, shown=not (quiet or as_json)) as bar:

            def on_trial(point: Point) -> None:
                bar.step(point.memory)

            used = 1 if one_by_one else threads
            validation = run(resolved, first=first_trial, hidden=hidden, threads=used, only=only, on_trial=on_trial)
        curve = compare_with_prediction(validation, threads) if predict else None
        if folder is not None:
            from weakcell.host.report.validation_report import write

            write(validation, curve, folder, ["weakcell", *sys.argv[1:]])
    if as_json:
        from weakcell.host.report.validation_report import as_dict

        content = as_dict(validation, curve)
        for check in content["checks"]:
            emit("check", **check)
        for point in content["curve"] or []:
            emit("point", **point)
    else:
        _show(validation, explain)
        if curve is not None:
            _show_curve(validation, curve)
    _show_violations(validation, hidden, as_json)
    if as_json:
        emit("done", violations=validation.violation_count, ties=validation.ties, rounded=validation.rounded)
    if folder is not None:
        note(f"Results are in {folder}.", quiet or as_json)
    if validation.violation_count:
        raise typer.Exit(1)


def _show(validation: Validation, explain: bool) -> None:
    from weakcell.host.cli.tables import Column, show_table
    from weakcell.host.cli.terminal import show
    from weakcell.host.report.captions import study_title
    from weakcell.host.report.validation_report import describe_outcome, describe_validation

    checks = validation.checks
    counts = (
        ("pairs", [check.pairs for check in checks], 1),
        ("non-vacuous", [check.non_vacuous for check in checks], 4),
        ("near", [check.near for check in checks], 5),
        ("violations", [check.violations for check in checks], 0),
        ("changed", [check.changed for check in checks], 2),
        ("tied", [check.tied for check in checks], 6),
        ("tie lost", [check.tied_away for check in checks], 7),
    )
    columns = [Column("check", [check.check for check in checks], left=True)]
    columns += [Column(title, [f"{value:,}" for value in values], drop=drop) for title, values, drop in counts]
    for title, short, ends in (
        ("fewest q (bound)", "fewest q", [check.smallest for check in checks]),
        ("tightest q (bound)", "tightest q", [check.tightest for check in checks]),
    ):
        columns.append(Column(title, [f"{end[0]} ({end[1]})" if end else "none" for end in ends], drop=3, short=short))
    show(study_title(validation.resolved, validation.resolved.study.memory.name), "bold")
    show(describe_outcome(validation))
    show_table(columns)
    brief = "A pair: one image in one trial. Non-vacuous: its flips are within the bound."
    show(describe_validation(validation) if explain else brief, "dim")


def _show_curve(found: Validation, curve: AccuracyCurve) -> None:
    """Predicted against measured accuracy, a line per point."""
    from weakcell.host.cli.result_table import percent
    from weakcell.host.cli.tables import Column, place_column, show_table
    from weakcell.host.cli.terminal import show
    from weakcell.host.report.captions import explain_no_difference, format_interval

    sweep = found.resolved.study.sweep
    rows = curve.frame.to_dicts()
    places = [f"{row['value']:g}" if sweep else row["memory"] for row in rows]
    columns = [
        place_column(sweep.key if sweep else None, places),
        Column("measured", [percent(row["measured"]) for row in rows]),
        Column("95 % interval", [format_interval(row["low"], row["high"]) for row in rows]),
    ]
    for title, name in (("predicted", "predicted"), ("±", "error"), ("outside", "outside")):
        columns.append(Column(title, ["" if row[name] is None else percent(row[name]) for row in rows]))
    show_table(columns)
    if note := explain_no_difference(curve.frame["differ_below"]):
        show(f"{note}.", "dim")
    if curve.why:
        show(f"No prediction: {curve.why}.", "dim")


def _show_violations(found: Validation, hidden: bool, as_json: bool) -> None:
    """The first ten in words (all that were kept as events), each with its command."""
    from weakcell.host.cli.terminal import emit, say
    from weakcell.host.report.validation_report import build_repeat_command

    for violation in found.violations if as_json else found.violations[:10]:
        command = shlex.join(build_repeat_command(found, violation, hidden))
        if as_json:
            emit("violation", **vars(violation), command=command)
        else:
            say(
                f"VIOLATION {violation.check}: image {violation.image}, {violation.place}, {violation.q} flips, bound "
                f"{violation.bound}; {violation.memory}, trial {violation.trial}, die {violation.die}. Again: {command}"
            )
    if found.violation_count > len(found.violations[:10]) and not as_json:
        say(f"… {found.violation_count:,} violations in all.")
