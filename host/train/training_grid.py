"""Many runs in one folder: each trained, exported and judged; what is finished is not done again; one table at the end.

NAME.onnx   the network            NAME.json   settings, epochs, margins, seconds        NAME.csv   accuracy per point and trial
NAME.qonnx.onnx                    if asked for         NAME.checkpoint   while it trains
runs.csv    a row per run          curves.csv  all runs' points
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import polars as pl

from weakcell.host.atomic_files import write_atomically
from weakcell.host.datasets.training import Dataset
from weakcell.host.train.evaluation import Exam, Verdict, judge
from weakcell.host.train.qonnx_export import to_qonnx
from weakcell.host.train.run import make
from weakcell.host.train.settings import Run
from weakcell.memmodels.errors import OutputError

Tell = Callable[[str], None]


def train_all(
    runs: Sequence[Run],
    folder: Path,
    load: Callable[[str], Dataset],
    exam: Exam,
    part: str,
    *,
    resume: bool,
    device: str = "cpu",
    threads: int | None = None,
    qonnx: bool = False,
    tell: Tell = lambda text: None,
) -> pl.DataFrame:
    """Do what is not done yet, and return the table of all runs; OutputError if `folder` holds runs and `resume` is False.

    part: which images judge, `validation` for choices or `test` for the end. load: data set by name; each is read once.
    qonnx: write every network in QONNX too, those that were finished before as well.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not resume and (any(folder.glob("*.json")) or any(folder.glob("*.checkpoint"))):
        raise OutputError(
            f"Training into {folder}", "it holds runs, finished or not", "Add --resume to go on, or name another folder"
        )
    sets: dict[str, Dataset] = {}
    for number, run in enumerate(runs, 1):
        if not (folder / f"{run.name}.json").is_file():
            data = sets.get(run.data) or sets.setdefault(run.data, load(run.data))
            tell(f"{number} of {len(runs)}: {run.name}")
            _one(run, folder, data, exam, part, device, threads)
        if qonnx:
            written = to_qonnx(onnx.load(folder / f"{run.name}.onnx"), run.bits)
            write_atomically(folder / f"{run.name}.qonnx.onnx", partial(onnx.save, written))
    return collect(folder, [run.name for run in runs])


def _one(run: Run, folder: Path, data: Dataset, exam: Exam, part: str, device: str, threads: int | None) -> None:
    path, checkpoint = folder / f"{run.name}.onnx", folder / f"{run.name}.checkpoint"
    made = make(run, data, checkpoint, device)
    write_atomically(path, lambda place: onnx.save(made.model, place))
    began = time.perf_counter()
    verdict = judge(path, run.data, getattr(data, part), exam, threads)
    seconds = time.perf_counter() - began
    write_atomically(folder / f"{run.name}.csv", verdict.curve.write_csv)
    facts = {entry.key: entry.value for entry in made.model.metadata_props}
    record = record_of(run, facts, [asdict(epoch) for epoch in made.epochs], verdict, part, seconds)
    text = json.dumps({**record, "exam": asdict(exam)}, indent=2) + "\n"
    write_atomically(folder / f"{run.name}.json", lambda place: place.write_text(text, encoding="utf-8"))
    checkpoint.unlink(missing_ok=True)


def record_of(
    run: Run, facts: dict[str, str], epochs: list[dict[str, Any]], verdict: Verdict, part: str, seconds: float
) -> dict[str, Any]:
    """What is kept of a run beside its network and curve."""
    margins = verdict.margins
    neurons = [layer.share_of_fan_in for layer in margins.neurons if layer.share_of_fan_in is not None]
    return {
        "name": run.name,
        "run": json.loads(run.identity),
        "judged_on": part,
        "validation_accuracy": float(facts["validation_accuracy"]),
        "test_accuracy": float(facts["test_accuracy"]),
        "largest_output": float(facts["largest_output"]),
        "margin": margins.mean_margin,
        "margin_share": margins.mean_margin / float(facts["largest_output"]),
        "output_flips": margins.flips,
        "neuron_flips_share": sum(neurons) / len(neurons) if neurons else None,
        "train_seconds": sum(epoch["seconds"] for epoch in epochs),
        "train_core_seconds": sum(epoch["core_seconds"] for epoch in epochs),
        "judge_seconds": seconds,
        "epochs": epochs,
    }


_COLUMNS = ("data", "network", "width", "bits", "loss", "flips", "gradient", "tolerance", "epochs", "images", "seed")
_FACTS = ("judged_on", "validation_accuracy", "test_accuracy", "largest_output", "margin", "margin_share", "output_flips",
          "neuron_flips_share", "train_seconds", "train_core_seconds", "judge_seconds")  # fmt: skip


def collect(folder: Path, names: Sequence[str] | None = None, into: Path | None = None) -> pl.DataFrame:
    """`runs.csv` and `curves.csv` of the finished runs of a folder, written anew; the runs as a frame, in the order of `names`.

    into: where the two files go, if not into `folder`. A run's `id` is the end of its name.
    """
    into = into or folder
    found = names if names is not None else sorted(path.stem for path in folder.glob("*.json"))
    rows, curves = [], []
    for name in found:
        if not (folder / f"{name}.json").is_file():
            continue
        record = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        settings = {key: record["run"][key] for key in _COLUMNS}
        if settings["tolerance"] is not None:
            settings["tolerance"] = ",".join(f"{value:g}" for value in settings["tolerance"])
        rows.append({"id": name[-8:], "name": name, **settings, **{key: record[key] for key in _FACTS}})
        curve = pl.read_csv(folder / f"{name}.csv")
        curves.append(curve.select(pl.lit(name[-8:]).alias("id"), "value", "trial", pl.col("accuracy").round(6)))
    runs = pl.DataFrame(rows, infer_schema_length=None)
    if rows:
        write_atomically(into / "runs.csv", lambda place: runs.write_csv(place, float_precision=6))
        write_atomically(into / "curves.csv", pl.concat(curves).write_csv)
    return runs


def accuracies_at(folder: Path, points: Sequence[float]) -> pl.DataFrame:
    """Mean accuracy over trials of every run at each of the points that its sweep holds: `id` and a column per point."""
    curves = pl.read_csv(folder / "curves.csv", schema_overrides={"id": pl.String})
    columns = [pl.col("accuracy").filter((pl.col("value") - point).abs() < 1e-9).mean().alias(f"{point:g}") for point in points]
    return curves.group_by("id", maintain_order=True).agg(columns)
