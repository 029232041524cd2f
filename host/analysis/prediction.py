"""Accuracy over a memory's operating points, predicted without faults, and compared with trials if asked."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from weakcell.emulator.engine.executor import chunk_size
from weakcell.emulator.faults.placement import Placement
from weakcell.emulator.ir.layers import Convolution, Network
from weakcell.emulator.ir.values import encode_values
from weakcell.emulator.prediction import Prediction
from weakcell.emulator.prediction import predict as predict_points
from weakcell.emulator.prediction.bit_rates import bit_rates
from weakcell.host.study.executors import default_workers
from weakcell.host.study.results import StudyResult
from weakcell.host.study.runner import run_study
from weakcell.host.study.study import Point, ResolvedStudy
from weakcell.memmodels.errors import UsageError

SCHEMA_VERSION = 1
_FEWEST_DRAWS, _MOST_DRAWS = 10_000, 100_000
"""Images times samples, unless told: the standard error is then below 0.5 points, and below 0.16 where the most are affordable."""
_PRODUCTS = 4e9
"""Products of weights and inputs, over all draws of a point, up to which more than the fewest draws are taken."""


@dataclass(frozen=True, eq=False)
class PredictionStudy:
    """Predictions of every point of a study; measured: trials of the same study, or None. seconds: of the prediction alone."""

    resolved: ResolvedStudy
    predictions: tuple[Prediction, ...]
    samples: int
    seconds: float
    measured: StudyResult | None = None

    @property
    def labelled(self) -> bool:
        return self.resolved.questions.labels is not None

    @property
    def frame(self) -> pl.DataFrame:
        """One row per point: accuracy (null without labels), share of changed answers, flip rate, and what both can miss.

        error: standard error of drawing. bias: bound of the bias. half_width: of the 95 % interval, which holds both.

        With measured trials: their mean, its 95 % interval (null for one trial), differ_below as in
        `weakcell.host.study.results.summary_of`,
        and by how much the prediction lies outside the interval.
        """
        rows = [self._row(point, found) for point, found in zip(self.resolved.points, self.predictions, strict=True)]
        frame = pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col("sweep_value").cast(pl.Float64))
        if self.measured is None:
            return frame
        summary = self.measured.summary.select(
            pl.col("sweep_value"),
            pl.col("mean").alias("measured"),
            pl.col("low"),
            pl.col("high"),
            pl.col("differ_below"),
            pl.col("trials"),
        )
        score = pl.col("accuracy") if self.labelled else 1 - pl.col("changed")
        outside = pl.max_horizontal(pl.col("low") - score, score - pl.col("high"), pl.lit(0.0))
        joined = frame.join(summary, on="sweep_value", how="left", nulls_equal=True)
        return joined.with_columns(pl.when(pl.col("low").is_null()).then(None).otherwise(outside).alias("outside"))

    def _row(self, point: Point, found: Prediction) -> dict[str, object]:
        sweep = self.resolved.study.sweep
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.resolved.model.name,
            "data": self.resolved.dataset.name,
            "memory": point.memory,
            "places": point.places,
            "sweep_key": sweep.key if sweep else None,
            "sweep_value": point.value,
            "images": len(self.resolved.dataset),
            "task": self.resolved.workload.task.text,
            "output": self.resolved.workload.task.output,
            "samples": self.samples,
            "flip_rate": expected_flips(self.resolved, point.placement) / max(1, point.placement.bits(self.resolved.network)),
            "accuracy": found.accuracy,
            "changed": found.changed,
            "error": found.error,
            "bias": found.bias,
            "half_width": found.half_width,
            "clean_accuracy": self.resolved.questions.fault_free_accuracy,
        }


def chunks(resolved: ResolvedStudy) -> int:
    """How often `on_chunk` of `predict_study` is called."""
    return -(-len(resolved.dataset) // chunk_size(resolved.network))


def expected_flips(resolved: ResolvedStudy, placement: Placement) -> float:
    """Flips in one read of every placed weight, on what they store."""
    network, flips = resolved.network, 0.0
    rates = bit_rates(network, placement)
    for slot in placement.slots:
        if slot.tensor not in rates:  # safe, whatever it is: anything but weights that errs was refused
            continue
        tensor, own = network.tensors[slot.tensor], rates[slot.tensor]
        codes = encode_values(tensor.values, tensor.encoding)
        for plane in slot.planes:
            ones = int(np.count_nonzero((codes >> np.uint64(plane)) & np.uint64(1)))
            flips += ones * own.p10[plane] + (codes.size - ones) * own.p01[plane]
    return flips


def choose_samples(resolved: ResolvedStudy, samples: int | None, points: int = 1) -> int:
    """Return what was asked for, or enough for the images there are; small networks get more. points: how many share the cost."""
    if samples:
        return samples
    images = max(1, len(resolved.dataset))
    fewest, most = -(-_FEWEST_DRAWS // images), -(-_MOST_DRAWS // images)
    affordable = _PRODUCTS / (images * max(1, products(resolved.network)) * points)
    return max(2, fewest, min(most, int(affordable)))


def products(network: Network) -> int:
    """Products of a weight and an input in one inference."""
    layers = [layer for layer in network.layers if isinstance(layer, Convolution)]
    return sum(network.tensors[layer.weight].values.size * math.prod(network.values[layer.output].height_width) for layer in layers)


def predict_study(
    resolved: ResolvedStudy,
    samples: int | None = None,
    threads: int | None = None,
    on_chunk: Callable[[], None] | None = None,
) -> PredictionStudy:
    """Predict every point of a study; its trials and batch play no part. samples: None takes enough for the images there are."""
    study = resolved.study
    if study.die is not None:
        raise UsageError(f"Predicting die {study.die}", "a prediction averages over all dies", "Leave --die out, or emulate")
    chosen = choose_samples(resolved, samples, len(resolved.points))
    began = time.perf_counter()
    found = predict_points(
        resolved.plan,
        [point.placement for point in resolved.points],
        resolved.questions,
        study.read_every,
        samples=chosen,
        seed=study.seed,
        threads=threads or default_workers(),
        on_chunk=(lambda images: on_chunk()) if on_chunk else None,
    )
    return PredictionStudy(resolved, tuple(found), chosen, time.perf_counter() - began)


def measure(predicted: PredictionStudy, threads: int | None = None, on_trial: Callable[[], None] | None = None) -> PredictionStudy:
    """The same with the study's trials run beside it."""
    result = run_study(predicted.resolved, threads=threads, on_trial=(lambda progress: on_trial()) if on_trial else None)
    return PredictionStudy(predicted.resolved, predicted.predictions, predicted.samples, predicted.seconds, result)
