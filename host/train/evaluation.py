"""The emulator's verdict on an exported network: accuracy over bit error rates, margins, tolerance. Torch has no say in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from weakcell import emulator
from weakcell.emulator.margins import MarginSummary, summarize
from weakcell.host.api import emulate
from weakcell.host.datasets.registry import Dataset
from weakcell.host.datasets.training import Part
from weakcell.host.study.runner import Progress

SWEEPS = {"cifar-10": "ber=0:0.06:0.005"}
SWEEP = "ber=0:0.35:0.01"
"""The margin papers' grids: 0 to 35 % in steps of 1 %, for CIFAR-10 0 to 6 % in steps of 0.5 %."""


@dataclass(frozen=True)
class Exam:
    """How networks are judged: memory and sweep SPECs, trials, images per read of the weights, images for the margins."""

    sweep: str
    memory: str = "uniform"
    trials: int = 2
    batch: int = 1000
    seed: int = 0
    margin_images: int = 2000


@dataclass(frozen=True, eq=False)
class Verdict:
    """curve: a row per point and trial (`value`, `trial`, `accuracy`, `flip_rate`). margins: on the fault-free network."""

    curve: pl.DataFrame
    margins: MarginSummary


def judge(
    path: Path, name: str, part: Part, exam: Exam, threads: int | None = None, on_trial: Callable[[Progress], None] | None = None
) -> Verdict:
    """Run an ONNX network on a memory over the sweep, its weights read once per batch; errors of `weakcell.host.emulate`."""
    data = Dataset(name, part.images, part.labels.astype(np.int64), "training's own reader")
    result = emulate(
        path, data, memory=exam.memory, sweep=exam.sweep, trials=exam.trials, read_every="batch",
        batch=exam.batch, seed=exam.seed, threads=threads, on_trial=on_trial,
    )  # fmt: skip
    curve = result.frame.select(pl.col("sweep_value").alias("value"), "trial", "accuracy", "flip_rate")
    network = emulator.load(path)
    plan = emulator.compile_plan(network)
    margins = summarize(plan, {network.inputs[0]: part.images[: exam.margin_images]})
    return Verdict(curve, margins)
