"""`weakcell emulate`: measure accuracy and energy of a network on an unreliable memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from weakcell.emulator.faults.read_policy import DEFAULT_READS, Reads
from weakcell.host.cli.completion import complete_memory, complete_sweep
from weakcell.host.cli.options import READS, Data, DataDir, Explain, Images, JsonEvents, Model, Output, Place, Quiet, Task, Threads

if TYPE_CHECKING:
    from weakcell.emulator.ir.network import UnplacedTensor
    from weakcell.host.board.inference.program import BoardNetwork
    from weakcell.host.study.results import StudyResult
    from weakcell.host.study.results_folder import ResultsFolder
    from weakcell.host.study.runner import MemoriesOf
    from weakcell.host.study.study import ResolvedStudy

_Sampling = Literal["bits", "outputs"]
_Compute = Literal["emulator", "board"]
_MEMORY = "The memory of all weights: NAME or NAME:key=value,… ; `weakcell memories` lists them. [default: sram-14nm]"
_SWEEP = "Sweep one condition: KEY=START:STOP:STEP, KEY=START:STOP:xFACTOR or KEY=A,B,C. [default: v_over_vmin=0.75:1.0:0.025]"
_DIE = "Run all trials on this die. [default: trial t runs on die t]"
_FIRST = "Number of the first trial, as in column `trial` of a table. [default: 0]"
_READ = f"{READS} [default: {DEFAULT_READS}]"
_SAMPLING = "Sample the flips of stored bits, or the outputs of binary layers where their distribution is the same. [default: bits]"
_COMPUTE = "Compute the images here, or on the board that holds all weights, image by image. [default: emulator]"
_SAVE = "Save every flip of every trial (.parquet or .csv)."
_FAULTS = "Replay a saved fault list. Memory, sweep, trials, seed and read policy come from its header."
_OUT = "Write results.parquet, results.csv, study.json, timings.json and the figure into this folder."


def emulate(
    model: Model = "digits-bnn",
    data: Data = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SPEC", autocompletion=complete_memory, help=_MEMORY, show_default=False)
    ] = None,
    place: Place = None,
    sweep: Annotated[
        str | None, typer.Option(metavar="KEY=VALUES", autocompletion=complete_sweep, help=_SWEEP, show_default=False)
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Passes over the data per point. [default: 10]", show_default=False)] = None,
    first_trial: Annotated[int | None, typer.Option(help=_FIRST, show_default=False)] = None,
    die: Annotated[int | None, typer.Option(help=_DIE, show_default=False)] = None,
    read_every: Annotated[Reads | None, typer.Option(help=_READ, show_default=False)] = None,
    batch: Annotated[
        int | None, typer.Option(help="Images per batch, with --read-every batch. [default: 256]", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all dies and random draws. [default: 0]", show_default=False)] = None,
    images: Images = None,
    sampling: Annotated[_Sampling | None, typer.Option(help=_SAMPLING, show_default=False)] = None,
    compute: Annotated[_Compute, typer.Option(help=_COMPUTE, show_default=False)] = "emulator",
    task: Task = None,
    output: Output = None,
    save_faults: Annotated[Path | None, typer.Option(metavar="FILE", help=_SAVE, show_default=False)] = None,
    faults: Annotated[Path | None, typer.Option(metavar="FILE", help=_FAULTS, show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help=_OUT, show_default=False)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another study's results in DIR.")] = False,
    data_dir: DataDir = None,
    threads: Threads = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, estimate time and memory, and exit.")] = False,
    as_json: JsonEvents = False,
    quiet: Quiet = False,
    explain: Explain = False,
    yes: Annotated[bool, typer.Option("--yes", help="Allow fault lists of any size, and board runs of more than an hour.")] = False,
) -> None:
    """Measure accuracy and energy of a network on an unreliable memory, over its operating points.

    Without arguments: a binarized digits network on 14 nm SRAM, swept over its supply voltage. The table goes to stdout; files
    are written only with --out and --save-faults.

    \b
    Examples:
      weakcell emulate --out results
      weakcell emulate digits-qnn --memory uniform --sweep ber=1e-5:1e-1:x10 \\
          --read-every image
      weakcell emulate digits-qnn --memory uniform:ber=0.01 \\
          --place '*@7=uniform:ber=0' --trials 59
      weakcell emulate net.onnx --data test.npz --memory sram-28nm-kc705b \\
          --sweep vdd=0.53:0.60:0.01
      weakcell emulate --memory board:auto --sweep vdd=0.55:0.75:0.05 --trials 3 \\
          --out results
      weakcell emulate --memory board:auto --sweep vdd=0.55:0.75:0.05 --trials 3 \\
          --compute board
      weakcell emulate --memory uniform:ber=0.02 --save-faults flips.parquet
      weakcell emulate --faults flips.parquet
    """
    given = {
        "memory": memory, "place": place or None, "sweep": sweep, "trials": trials, "first_trial": first_trial, "die": die,
        "read_every": read_every, "batch": batch, "seed": seed, "images": images,
        "sampling": sampling, "task": task, "output": output,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    from weakcell.host.cli.terminal import errors_as_events

    with errors_as_events(as_json):
        resolved, memories = _resolve(model, data, data_dir, given, faults)
        found = None
        if compute == "board":
            from weakcell.host.board.inference.studies import find_board_network

            found = find_board_network(resolved, compute, faults or save_faults)
        if save_faults is not None:
            _check_fault_file(save_faults, resolved, yes)
        if dry_run:
            _show_estimate(resolved, threads, save_faults is not None, as_json, found)
            return
        if memories is None:
            check_boards(resolved, yes, quiet or as_json, found)
        folder = None
        if out is not None:
            from weakcell.host.study.results_folder import open_folder

            folder = open_folder(out, resolved, overwrite)
        with boards(resolved, None if folder is None else folder.path, memories is not None) as one_by_one:
            result = _run(resolved, memories, folder, 1 if one_by_one else threads, save_faults, as_json, quiet, found)
    if not as_json:
        from weakcell.host.cli.result_table import show_result

        show_result(result, explain)
    if found is not None:
        _say_what_the_board_computed(result, quiet or as_json)
    _last_words(result, folder, save_faults, quiet or as_json)


def check_boards(resolved: ResolvedStudy, yes: bool, quiet: bool, found: BoardNetwork | None = None) -> None:
    """Say how long the boards of a study take at most; UsageError for more than an hour unless `yes`.

    Args:
        resolved: the study.
        yes: allow any time.
        quiet: say nothing.
        found: the network that the board computes itself; None if it computes none.
    """
    from weakcell.host.board.memory.studies import check_time, list_board_ports
    from weakcell.host.cli.result_table import duration
    from weakcell.host.cli.terminal import note

    if list_board_ports(resolved):
        note(f"Through the board: at most {duration(check_time(resolved, yes, _seconds_per_image(resolved, found)))}.", quiet)


def _seconds_per_image(resolved: ResolvedStudy, found: BoardNetwork | None) -> float:
    from weakcell.host.board.inference.studies import measure_seconds_per_image

    return 0.0 if found is None else measure_seconds_per_image(resolved, found)


def _say_what_the_board_computed(result: StudyResult, quiet: bool) -> None:
    from weakcell.host.cli.terminal import note

    images = sum(outcome.result.images for outcome in result.outcomes)
    note(f"The board computed {images:,} images. All outputs equal the emulator's on the weights that it read back.", quiet)


@contextmanager
def boards(resolved: ResolvedStudy, folder: Path | None, replayed: bool = False) -> Iterator[bool]:
    """Keep what boards read back in `folder`, and let go of their ports; whether there are any: then trials run one by one."""
    from weakcell.host.board.memory.studies import list_board_ports, open_boards

    if replayed or not list_board_ports(resolved):
        yield False
        return
    with open_boards(resolved, folder):
        yield True


def _resolve(
    model: str, data: str | None, data_dir: Path | None, given: dict[str, Any], faults: Path | None
) -> tuple[ResolvedStudy, MemoriesOf | None]:
    """Resolve the study that the options describe, and the memories of a fault list that is replayed."""
    from weakcell.host.study.arguments import resolve_arguments
    from weakcell.host.study.replay import resolve_replay

    if faults is None:
        return resolve_arguments(model, data, data_dir, **given), None
    return resolve_replay(faults, model, data, data_dir, **given)


def _check_fault_file(path: Path, resolved: ResolvedStudy, yes: bool) -> None:
    from weakcell.host.study.estimate import check_fault_list
    from weakcell.host.study.fault_list import check_suffix
    from weakcell.host.study.runner import check_recordable
    from weakcell.memmodels.atomic_files import check_writable

    check_recordable(resolved, record=True)
    check_suffix(path)
    check_writable(path)
    check_fault_list(resolved, yes)


def _show_estimate(
    resolved: ResolvedStudy, threads: int | None, with_faults: bool, as_json: bool, found: BoardNetwork | None
) -> None:
    from weakcell.host.board.memory.studies import list_board_ports
    from weakcell.host.cli.result_table import duration
    from weakcell.host.cli.terminal import emit, say
    from weakcell.host.study.estimate import estimate, expected_rows

    if list_board_ports(resolved):
        _show_board_estimate(resolved, as_json, found)
        return
    estimated = estimate(resolved, threads)
    rows = round(expected_rows(resolved)) if with_faults else None
    if as_json:
        emit("estimate", identity=resolved.identity, **vars(estimated), fault_rows=rows)
        return
    for point in resolved.points:
        say(f"{point.memory}{f'; {point.places}' if point.places else ''}")
    say(
        f"{estimated.points} points x {estimated.trials} trials x {estimated.images} images on {estimated.threads} threads: about "
        f"{duration(estimated.seconds)} and {estimated.memory_bytes / 2**20:.0f} MiB of memory, without compiling kernels"
    )
    if rows is not None:
        say(f"about {rows:,} rows of fault list")


def _show_board_estimate(resolved: ResolvedStudy, as_json: bool, found: BoardNetwork | None) -> None:
    """What the boards of a study take; nothing is lowered to find out."""
    from weakcell.host.board.memory.studies import check_time
    from weakcell.host.cli.result_table import duration
    from weakcell.host.cli.terminal import emit, say

    seconds = check_time(resolved, True, _seconds_per_image(resolved, found))
    if as_json:
        emit("estimate", identity=resolved.identity, seconds=seconds)
    else:
        say(f"{len(resolved.points)} points x {resolved.study.trials} trials through the board: at most {duration(seconds)}")


def _run(
    resolved: ResolvedStudy,
    memories: MemoriesOf | None,
    folder: ResultsFolder | None,
    threads: int | None,
    save_faults: Path | None,
    as_json: bool,
    quiet: bool,
    found: BoardNetwork | None,
) -> StudyResult:
    """Run; after each finished point the folder is written, after the last one (or Ctrl-C) the fault list and the figure."""
    from weakcell.host.cli.result_table import format_point
    from weakcell.host.cli.terminal import emit, progress_bar
    from weakcell.host.study.results import row_of
    from weakcell.host.study.runner import Progress, StudyInterrupted, run_study
    from weakcell.host.study.study import Point

    command = ["weakcell", *sys.argv[1:]]
    if as_json:
        asked = resolved.questions
        emit(
            "study", identity=resolved.identity, points=len(resolved.points), task=asked.task.text, output=asked.task.output,
            score=asked.metric.name, clean_accuracy=asked.fault_free_accuracy, clean_score=asked.fault_free_score,
        )  # fmt: skip
    try:
        with progress_bar(resolved.jobs, shown=not (quiet or as_json)) as bar:

            def on_trial(progress: Progress) -> None:
                bar.step(format_point(progress.point, resolved))
                if as_json:
                    emit("trial", **row_of(resolved, progress.outcome))

            def on_point(result: StudyResult, point: Point) -> None:
                if folder:
                    folder.write(result, command)

            recording, executor = save_faults is not None, None
            if found is not None:
                from weakcell.host.board.inference.studies import make_executor

                executor = make_executor([resolved])
            result = run_study(
                resolved, threads=threads, on_trial=on_trial, on_point=on_point, memories=memories, record=recording,
                executor=executor,
            )  # fmt: skip
    except StudyInterrupted as interrupted:
        if interrupted.result is not None and interrupted.result.outcomes:
            _keep(interrupted.result, folder, save_faults, as_json)
            if not as_json:
                from weakcell.host.cli.result_table import show_result

                show_result(interrupted.result)
        kept = "They are shown, and were not written: --out DIR would keep them"
        if interrupted.result is None or not interrupted.result.outcomes:
            kept = "Nothing was written"
        elif folder:
            kept = f"They are in {folder.path}"
        do = f"{kept}; the same command starts all points again (weakcell sweep goes on where it stopped)"
        raise StudyInterrupted(interrupted.asked, interrupted.found, do, interrupted.result) from None
    _keep(result, folder, save_faults, as_json)
    return result


def _keep(result: StudyResult, folder: ResultsFolder | None, save_faults: Path | None, as_json: bool) -> None:
    from weakcell.host.cli.terminal import emit

    if folder:
        folder.write_figure(result)
    if save_faults is not None and result.faults is not None:
        from weakcell.host.study.fault_list import save_faults as save
        from weakcell.host.study.results_folder import finished_identity

        save(save_faults, result.faults, finished_identity(result))
    if as_json:
        for row in result.summary.iter_rows(named=True):
            emit("point", **row)
        emit("done", complete=result.complete, seconds=round(result.seconds, 3))


def _last_words(result: StudyResult, folder: ResultsFolder | None, save_faults: Path | None, quiet: bool) -> None:
    from weakcell.host.cli.terminal import note

    study = result.resolved.study
    usual = study.memory.technology.sweep
    if study.sweep is None and usual and not study.memory.conditions and not result.resolved.replays:
        from weakcell.host.analysis.technology_curve import suggest_sweep

        note(f"One operating point, {usual} at its default; --sweep {suggest_sweep(study.memory.technology)} moves it.", quiet)
    if outside := result.resolved.network.unplaced:
        bits, total = sum(tensor.bits for tensor in outside), result.resolved.network.integer_bits
        share = f"{bits:,} of {total:,} integer bits of the file ({100 * bits / total:.2g} %)"
        note(f"Outside the memory: {share}: {_reasons(outside)}; weakcell inspect lists them.", quiet)
    if save_faults:
        note(f"Saved the fault list in {save_faults}; `weakcell emulate … --faults {save_faults}` replays it.", quiet)
    if folder:
        note(f"Results are in {folder.path}.", quiet)
        _say_how_to_replay(result, folder, quiet)
    elif not save_faults:
        note("Nothing was written; --out DIR keeps table, figure and configuration. --explain says what each number means.", quiet)


def _reasons(outside: Sequence[UnplacedTensor]) -> str:
    """What the tensors outside are, each reason once: biases, zero points, sizes, or the whole reason."""
    return ", ".join(dict.fromkeys(tensor.reason.partition(":")[0] for tensor in outside))


def _say_how_to_replay(result: StudyResult, folder: ResultsFolder, quiet: bool) -> None:
    from weakcell.host.board.memory.studies import replay_command
    from weakcell.host.cli.terminal import note

    file = folder.path / "readbacks.npz"
    if file.exists() and (command := replay_command(result.resolved, file)) is not None:
        note(f"What the board read back is in {file}; `{command}` runs on it again.", quiet)
