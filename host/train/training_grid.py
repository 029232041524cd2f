"""Train many runs into one folder: train, export and evaluate each; skip finished runs; write the tables.

Files of the folder:

    NAME.onnx         the network                NAME.json         settings, epochs, margins, seconds
    NAME.qonnx.onnx   the network in QONNX       NAME.csv          accuracy per operating point and trial
    NAME.checkpoint   while the run trains       runs.csv          one row per run
                                                 curves.csv        the accuracies of all runs
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import onnx
import polars as pl
import torch

from weakcell.host.datasets.training import TrainingData
from weakcell.host.study.executors import WorkersLost, default_workers
from weakcell.host.table_files import open_table, write_csv
from weakcell.host.train.evaluation import Evaluation, EvaluationConfig, evaluate_network
from weakcell.host.train.loss_spec import LossSpec, name_stored_loss
from weakcell.host.train.qonnx_export import to_qonnx
from weakcell.host.train.settings import Run
from weakcell.host.train.train_run import TrainedNetwork, train_run
from weakcell.host.train.training_processes import call_in_processes
from weakcell.memmodels.atomic_files import create_folder, write_atomically, write_bytes_atomically, write_text_atomically
from weakcell.memmodels.errors import InputError, OutputError
from weakcell.memmodels.files import parse_json, read_text, reason


@dataclass(frozen=True)
class TrainingJob:
    """How `train_runs` does its work.

    Attributes:
        load: Returns a data set by name; each is loaded once.
        evaluation: How the networks are evaluated.
        part: The images that evaluate: `validation` to choose settings, `test` for the final figures.
        device: Device of torch.
        threads: Worker threads of the evaluation, all processors by default; and of torch in each of several processes.
        processes: Runs that are trained at a time, each in a process of its own if there are several.
        qonnx: Whether each network is also written in QONNX, those of earlier calls included.
        report: Called with one line of text per run.
    """

    load: Callable[[str], TrainingData]
    evaluation: EvaluationConfig
    part: Literal["validation", "test"] = "validation"
    device: str = "cpu"
    threads: int | None = None
    qonnx: bool = False
    report: Callable[[str], None] = lambda text: None
    processes: int = 1


def train_runs(runs: Sequence[Run], folder: Path, job: TrainingJob, *, resume: bool) -> pl.DataFrame:
    """Train all runs that are not finished, and return the table of all runs.

    Args:
        runs: Settings of each run.
        folder: Where networks, records and tables go; it is made if needed.
        job: Data, evaluation and devices.
        resume: Whether the folder may already hold runs.

    Raises:
        OutputError: The folder holds runs and `resume` is False, or cannot be written; or it holds an asked run of the loss that
            an earlier version called `mcel`.
    """
    create_folder(folder)
    if not resume and (any(folder.glob("*.json")) or any(folder.glob("*.checkpoint"))):
        raise OutputError(
            f"Training into {folder}", "it holds runs, finished or not", "Add --resume to go on, or name another folder"
        )
    for run in runs:
        _refuse_legacy_runs(run, folder)
    missing = [run for run in runs if not os.path.isfile(folder / f"{run.name}.json")]
    if len(missing) > 1 and job.processes > 1:
        _finish_in_processes(missing, folder, job)
    else:
        datasets: dict[str, TrainingData] = {}
        for run in missing:
            data = datasets.get(run.data) or datasets.setdefault(run.data, job.load(run.data))
            job.report(f"{runs.index(run) + 1} of {len(runs)}: {run.name}" + _describe_rls(run))
            _finish_run(run, folder, data, job)
    if job.qonnx:
        for run in runs:
            qonnx_model = to_qonnx(onnx.load(folder / f"{run.name}.onnx"), run.bits)
            write_bytes_atomically(folder / f"{run.name}.qonnx.onnx", qonnx_model.SerializeToString())
    return collect(folder, [run.name for run in runs])


def _finish_in_processes(runs: Sequence[Run], folder: Path, job: TrainingJob) -> None:
    """Train, export and evaluate runs in processes; report each as it finishes, with the time that the others will take."""
    names = ", ".join(dict.fromkeys(run.data for run in runs))
    job.report(f"{len(runs)} runs on {names}, {job.processes} at a time")
    finish = partial(_finish_in_process, folder=folder, job=replace(job, report=_report_nothing))
    start = time.perf_counter()
    try:
        for number, run in enumerate(call_in_processes(finish, runs, job.processes), 1):
            left = (time.perf_counter() - start) / number * (len(runs) - number)
            rest = "" if number == len(runs) else f"; about {left / 60:.0f} min for the other {len(runs) - number}"
            job.report(f"{number} of {len(runs)} finished: {run.name}" + _describe_rls(run) + rest)
    except BrokenProcessPool as error:
        do = "Look for lack of memory, or take fewer processes; the same command with --resume goes on"
        raise WorkersLost(f"Training {job.processes} runs at a time", "one of the processes died", do) from error


_datasets: dict[str, TrainingData] = {}
"""Data sets that a process of `_finish_in_processes` has read."""


def _finish_in_process(run: Run, folder: Path, job: TrainingJob) -> None:
    torch.set_num_threads(job.threads or max(1, default_workers() // job.processes))
    if run.data not in _datasets:
        _datasets[run.data] = job.load(run.data)
    _finish_run(run, folder, _datasets[run.data], job)


def _report_nothing(text: str) -> None:
    """Replace a report that cannot be sent to another process."""


def _describe_rls(run: Run) -> str:
    rls = LossSpec.parse(run.loss).rls
    return "" if rls is None else f" (RLS {100 * rls:.3g} %)"


def _refuse_legacy_runs(run: Run, folder: Path) -> None:
    """Refuse to go on where an earlier version trained this run with the unclamped loss, which it called `mcel`."""
    name = run.legacy_name
    if name is not None and any(os.path.isfile(folder / f"{name}.{kind}") for kind in ("json", "checkpoint")):
        raise OutputError(
            f"Training {run.loss} into {folder}",
            f"{name} was trained with the unclamped loss that is now called margin-ce, under its former name mcel",
            "Name another folder; the old runs stay as they are, and their tables say margin-ce",
        )


def _finish_run(run: Run, folder: Path, data: TrainingData, job: TrainingJob) -> None:
    path, checkpoint = folder / f"{run.name}.onnx", folder / f"{run.name}.checkpoint"
    trained = train_run(run, data, checkpoint, job.device)
    write_bytes_atomically(path, trained.model.SerializeToString())
    start = time.perf_counter()
    part = data.test if job.part == "test" else data.validation
    evaluation = evaluate_network(path, run.data, part, job.evaluation, job.threads)
    seconds = time.perf_counter() - start
    write_atomically(folder / f"{run.name}.csv", partial(write_csv, evaluation.curve))
    record = _make_record(run, trained, evaluation, job.part, seconds)
    text = json.dumps({**record, "exam": asdict(job.evaluation)}, indent=2) + "\n"
    write_text_atomically(folder / f"{run.name}.json", text)
    checkpoint.unlink(missing_ok=True)


def _make_record(run: Run, trained: TrainedNetwork, evaluation: Evaluation, part: str, seconds: float) -> dict[str, Any]:
    """Return the content of NAME.json, without the settings of the evaluation."""
    margins = evaluation.margins
    metadata = {entry.key: entry.value for entry in trained.model.metadata_props}
    loss = LossSpec.parse(run.loss)
    neuron_shares = [layer.share_of_fan_in for layer in margins.neurons if layer.share_of_fan_in is not None]
    return {
        "name": run.name,
        "run": json.loads(run.identity),
        "judged_on": part,
        "validation_accuracy": float(metadata["validation_accuracy"]),
        "test_accuracy": float(metadata["test_accuracy"]),
        "largest_output": float(metadata["largest_output"]),
        "margin": margins.mean_margin,
        "learned_scale": float(metadata["output_scale"]),
        "margin_scaled": margins.mean_margin * float(metadata["output_scale"]) * loss.scale,
        "rls": loss.rls,
        "margin_share": margins.mean_margin / float(metadata["largest_output"]),
        "output_flips": margins.flips,
        "neuron_flips_share": sum(neuron_shares) / len(neuron_shares) if neuron_shares else None,
        "train_seconds": sum(epoch.seconds for epoch in trained.epochs),
        "train_core_seconds": sum(epoch.core_seconds for epoch in trained.epochs),
        "judge_seconds": seconds,
        "epochs": [asdict(epoch) for epoch in trained.epochs],
    }


_SETTINGS = ("data", "network", "width", "bits", "loss", "flips", "gradient", "tolerance", "epochs", "images", "seed")
_LATER_SETTINGS, _LATER_COLUMNS = (
    ("quantizer", "output_scale", "rate", "schedule", "augment"),
    ("learned_scale", "margin_scaled", "rls"),
)
"""Columns of `runs.csv` that the records of earlier versions do not have."""
RECORD_COLUMNS = ("judged_on", "validation_accuracy", "test_accuracy", "largest_output", "margin", "margin_share", "output_flips",
                  "neuron_flips_share", "train_seconds", "train_core_seconds", "judge_seconds")  # fmt: skip
"""Columns of `runs.csv` that come from the record of a run, beside its settings."""


def collect(folder: Path, names: Sequence[str] | None = None, into: Path | None = None) -> pl.DataFrame:
    """Write `runs.csv` and `curves.csv` of the finished runs of a folder.

    Args:
        folder: Folder of `train_runs`.
        names: Names of the runs, in the order of the table; all runs by default.
        into: Folder of the two files; `folder` by default.

    Returns:
        The table of runs. The `id` of a run is the end of its name.

    Raises:
        InputError: The files of a run are damaged.
    """
    into = into or folder
    rows, curves = [], []
    for name in names if names is not None else sorted(path.stem for path in folder.glob("*.json")):
        if not os.path.isfile(folder / f"{name}.json"):
            continue
        row, curve = _read_finished_run(folder, name)
        rows.append(row)
        curves.append(curve)
    runs = pl.DataFrame(rows, infer_schema_length=None)
    if rows:
        write_atomically(into / "runs.csv", lambda file: write_csv(runs, file, float_precision=6))
        write_atomically(into / "curves.csv", partial(write_csv, pl.concat(curves)))
    return runs


def _read_finished_run(folder: Path, name: str) -> tuple[dict[str, Any], pl.DataFrame]:
    """Return the row and the curve of a run; InputError if its files are damaged."""
    try:
        record = parse_json(read_text(folder / f"{name}.json"))
        settings = {key: record["run"][key] for key in _SETTINGS}
        settings["loss"] = name_stored_loss(settings["loss"])
        if settings["tolerance"] is not None:
            settings["tolerance"] = ",".join(f"{value:g}" for value in settings["tolerance"])
        row = {"id": name[-8:], "name": name, **settings, **{key: record[key] for key in RECORD_COLUMNS}}
        start = record["run"].get("output_scale")
        row.update({key: record["run"].get(key) for key in _LATER_SETTINGS} | {key: record.get(key) for key in _LATER_COLUMNS})
        row["output_scale"] = None if start is None else str(start)
        with open_table(folder / f"{name}.csv") as file:
            curve = pl.read_csv(file)
        return row, curve.select(pl.lit(name[-8:]).alias("id"), "value", "trial", pl.col("accuracy").round(6))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, pl.exceptions.PolarsError) as error:
        found = f"{name}.json or {name}.csv is damaged ({type(error).__name__}: {reason(error)})"
        raise InputError(f"The runs in {folder}", found, "Remove the two files; --resume then trains that run again") from error


def select_accuracies(folder: Path, points: Sequence[float]) -> pl.DataFrame:
    """Return the accuracy of every run at some operating points, as the mean over trials.

    Args:
        folder: Folder that holds `curves.csv`.
        points: Values of the sweep.

    Returns:
        A column `id`, and one column per point.
    """
    with open_table(folder / "curves.csv") as file:
        curves = pl.read_csv(file, schema_overrides={"id": pl.String})
    columns = [pl.col("accuracy").filter((pl.col("value") - point).abs() < 1e-9).mean().alias(f"{point:g}") for point in points]
    return curves.group_by("id", maintain_order=True).agg(columns)
