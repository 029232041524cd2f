"""Evaluate a trained network on the emulator: accuracy over bit error rates, margins, tolerance.

All numbers come from the exported ONNX file and the emulator; torch takes no part in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from weakcell import emulator
from weakcell.emulator.margins import MarginSummary, summarize
from weakcell.host.datasets.registry import Dataset
from weakcell.host.datasets.training import LabelledImages
from weakcell.host.study.arguments import resolve_arguments
from weakcell.host.study.runner import run_study

SWEEPS = {"cifar-10": "ber=0:0.06:0.005"}
SWEEP = "ber=0:0.35:0.01"
"""The grids of the margin papers: 0 to 35 % in steps of 1 %, for CIFAR-10 0 to 6 % in steps of 0.5 %."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How networks are evaluated.

    Attributes:
        sweep: Sweep of the memory, as in `ber=0:0.35:0.01`.
        memory: Memory SPEC.
        trials: Passes over the images per operating point.
        batch: Images per read of the weights.
        seed: Seed of the dies and reads.
        margin_images: The margins are taken over the first so many images.
    """

    sweep: str
    memory: str = "uniform"
    trials: int = 2
    batch: int = 1000
    seed: int = 0
    margin_images: int = 2000


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Result of `evaluate_network`.

    Attributes:
        curve: One row per operating point and trial: `value`, `trial`, `accuracy`, `flip_rate`.
        margins: Margins of the fault-free network.
    """

    curve: pl.DataFrame
    margins: MarginSummary


def evaluate_network(
    path: Path, name: str, part: LabelledImages, config: EvaluationConfig, threads: int | None = None
) -> Evaluation:
    """Emulate an ONNX network over a sweep of bit errors, and compute its margins.

    Args:
        path: ONNX file.
        name: Name of the data set, for the record.
        part: Images and labels.
        config: Memory, sweep and trials.
        threads: Worker threads; all processors by default.

    Raises:
        WeakcellError: As `weakcell.emulate`.
    """
    data = Dataset(name, part.images, part.labels.astype(np.int64), "training's own reader")
    resolved = resolve_arguments(
        path, data, memory=config.memory, sweep=config.sweep, trials=config.trials, read_every="batch",
        batch=config.batch, seed=config.seed,
    )  # fmt: skip
    result = run_study(resolved, threads=threads)
    curve = result.frame.select(pl.col("sweep_value").alias("value"), "trial", "accuracy", "flip_rate")
    network = emulator.load(path)
    plan = emulator.compile_plan(network)
    margins = summarize(plan, {network.inputs[0]: part.images[: config.margin_images]})
    return Evaluation(curve, margins)
