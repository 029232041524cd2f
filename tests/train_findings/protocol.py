"""`python -m tests.train_findings.protocol CLAIM --out DIR`: train and evaluate what a claim of `claims.CLAIMS` needs.

First, with seed 1, the learning rate, the margin and the temperature of every method are chosen by the accuracy of the exported
network on validation images, at the claim's bit error rate (or by the mean over the sweep). Then every method is trained with other
seeds and evaluated once on the test part. Errors are those of the emulator. All runs go on after an interruption.
`page --collect DIR/test` and `page --collect DIR/validation` take the results into the page.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from tests.train_findings.claims import CLAIMS, SEEDS, Claim
from tests.train_findings.findings import Task
from weakcell.host.datasets.training import load_training_data
from weakcell.host.train.evaluation import EvaluationConfig
from weakcell.host.train.settings import Run, parse_run
from weakcell.host.train.training_grid import TrainingJob, select_accuracies, train_runs
from weakcell.memmodels.atomic_files import write_text_atomically

METHODS = ("MCEL", "CEL with output scale", "CEL on logits/√K", "CEL with chosen temperature", "CEL on raw sums")
RATES = (3e-4, 1e-3, 3e-3)
TEMPERATURES = (0.25, 4.0)
_AUGMENT = {"cifar-10": "crops-flips", "svhn": "crops", "imagenette": "crops-flips"}
_FAN_INS = {"fcnn": 2048, "vgg3": 2048, "vgg7": 1024, "resnet18": 512, "mobilenetv2": 1280}


def list_methods(claim: Claim, task: Task) -> dict[str, list[dict[str, Any]]]:
    """Return the settings of loss and output scale that each method chooses from, by the name of the method."""
    fan_in = round(_FAN_INS[task.network] * task.width)
    scale = fan_in**-0.5
    return {
        "MCEL": [{"loss": loss, "output_scale": "papers"} for loss in claim.losses],
        "CEL with output scale": [{"loss": "cel", "output_scale": "papers"}],
        "CEL on logits/√K": [{"loss": f"cel:scale={scale}"}],
        "CEL with chosen temperature": [{"loss": f"cel:scale={scale * factor}"} for factor in TEMPERATURES],
        "CEL on raw sums": [{"loss": "cel"}],
    }


def choose(candidates: Sequence[Run], folder: Path, points: Sequence[float]) -> Run:
    """Return the candidate with the highest mean accuracy over some points of the sweep; the first of equals."""
    accuracies = {row[0]: math.fsum(row[1:]) for row in select_accuracies(folder, points).iter_rows()}
    return max(candidates, key=lambda run: accuracies[run.name[-8:]])


def main(arguments: list[str] | None = None) -> int:
    """Train, choose, train and evaluate; print what was chosen, and the number of runs."""
    parser = argparse.ArgumentParser(prog="python -m tests.train_findings.protocol", description="Runs that answer a claim.")
    parser.add_argument("claim", choices=[claim.key for claim in CLAIMS])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--data-dir", type=Path, metavar="DIR")
    parser.add_argument("--goal", choices=("rate", "curve"), default="rate", help="what the choices are made by")
    parser.add_argument("--epochs", type=int, help="instead of the claim's own number")
    parser.add_argument("--width", type=float, help="instead of the claim's own factor of channels and neurons")
    parser.add_argument("--images", type=int, help="only the first so many training images")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="learning rates to choose from")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="on the test part")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="only these; all by default")
    parser.add_argument("--sweep", default="ber=0:0.02:0.0025")
    parser.add_argument("--trials", type=int, default=1)
    options = parser.parse_args(arguments)

    claim = next(claim for claim in CLAIMS if claim.key == options.claim)
    task = claim.task if options.width is None else claim.task._replace(width=options.width)
    shared = {
        "data": task.data, "network": task.network, "width": task.width, "bits": task.bits,
        "quantizer": task.quantizer or "power-of-two", "epochs": options.epochs or claim.epochs, "schedule": "cosine",
        "images": options.images, "augment": _AUGMENT.get(task.data),
    }  # fmt: skip
    methods = {
        name: found for name, found in list_methods(claim, task).items() if options.methods is None or name in options.methods
    }
    candidates = {
        name: [parse_run({**shared, **settings, "rate": rate, "seed": 1}) for settings in found for rate in options.rates]
        for name, found in methods.items()
    }
    job = TrainingJob(
        partial(load_training_data, data_dir=options.data_dir), EvaluationConfig(options.sweep, trials=options.trials), threads=1,
        report=partial(print, flush=True),
    )  # fmt: skip
    points = [claim.rate] if options.goal == "rate" else _sweep_points(options.sweep)
    undecided = [run for runs in candidates.values() if len(runs) > 1 for run in runs]
    print(f"{len(undecided)} runs to choose by, {len(methods) * options.seeds} on the test part", flush=True)
    if undecided:
        train_runs(undecided, options.out / "validation", job, resume=True)
    chosen = {
        name: choose(runs, options.out / "validation", points) if len(runs) > 1 else runs[0] for name, runs in candidates.items()
    }
    tested = [run.model_copy(update={"seed": seed}) for seed in range(2, 2 + options.seeds) for run in chosen.values()]
    table = train_runs(tested, options.out / "test", replace(job, part="test"), resume=True)
    summary = {"claim": claim.key, "goal": options.goal, "runs": [len(undecided), len(tested)],
               "chosen": {name: json.loads(run.identity) for name, run in chosen.items()}}  # fmt: skip
    write_text_atomically(options.out / f"{claim.key}.json", json.dumps(summary, indent=2) + "\n")
    with pl.Config(tbl_cols=-1, tbl_rows=-1, fmt_str_lengths=60):
        print(table.select("loss", "rate", "seed", "validation_accuracy", "test_accuracy", "margin", "margin_scaled"))
    return 0


def _sweep_points(sweep: str) -> list[float]:
    from weakcell.host.study.sweep_values import parse_sweep

    return list(parse_sweep(sweep).values)


if __name__ == "__main__":
    raise SystemExit(main())
