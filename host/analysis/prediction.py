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
from weakcell.emulator.ir.layers import Convolution
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import encode_values
from weakcell.emulator.prediction import Prediction
from weakcell.emulator.prediction import predict as predict_points
from weakcell.emulator.prediction.bit_rates import compute_bit_rates
from weakcell.host.study.executors import default_workers
from weakcell.host.study.results import StudyResult
from weakcell.host.study.runner import run_study
from weakcell.host.study.study import Point, ResolvedStudy
from weakcell.memmodels.errors import UsageError

SCHEMA_VERSION = 1
_FEWEST_DRAWS, _MOST_DRAWS = 10_000, 100_000
_MOST_SAMPLES = 1_000_000
"""Images times samples by default: the standard error is below 0.5 points with the fewest draws, and below 0.16 with the most."""
_PRODUCTS = 4e9
"""Products of weights and inputs, over all draws of a point, that more than the fewest draws may cost."""


@dataclass(frozen=True, eq=False)
class PredictionStudy:
    """Predictions of every point of a study.

    Attributes:
        resolved: The study.
        predictions: One per point.
        samples: Draws per image.
        seconds: Wall time of the prediction alone.
        measured: Trials of the same study; None if there were none.
    """

    resolved: ResolvedStudy
    predictions: tuple[Prediction, ...]
    samples: int
    seconds: float
    measured: StudyResult | None = None

    @property
    def labelled(self) -> bool:
        """Whether the data have labels."""
        return self.resolved.questions.labels is not None

    @property
    def frame(self) -> pl.DataFrame:
        """One row per point.

        accuracy (null without labels), changed: share of changed answers, flip_rate; error: standard error of drawing; bias: bound
        of the bias; half_width: of the 95 % interval, which includes both. With trials: measured (their mean), low and high (its
        95 % interval, null for one trial), differ_below (see `weakcell.host.study.results.summary_of`), and outside: by how much
        the prediction lies outside the interval.
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


def count_chunks(resolved: ResolvedStudy) -> int:
    """Return how often `predict_study` calls `on_chunk`."""
    return -(-len(resolved.dataset) // chunk_size(resolved.network))


def expected_flips(resolved: ResolvedStudy, placement: Placement) -> float:
    """Return the flips expected in one read of every placed weight, given the bits that they store."""
    network, flips = resolved.network, 0.0
    rates = compute_bit_rates(network, placement)
    for slot in placement.slots:
        if slot.tensor not in rates:  # it never errs: everything else that errs was refused
            continue
        tensor, own = network.tensors[slot.tensor], rates[slot.tensor]
        codes = encode_values(tensor.values, tensor.encoding)
        for plane in slot.planes:
            ones = int(np.count_nonzero((codes >> np.uint64(plane)) & np.uint64(1)))
            flips += ones * own.p10[plane] + (codes.size - ones) * own.p01[plane]
    return flips


def choose_samples(resolved: ResolvedStudy, samples: int | None, points: int = 1) -> int:
    """Return the draws per image: `samples` if given, else enough for the images; small networks get more.

    Args:
        resolved: The study.
        samples: Draws per image that the caller asks for.
        points: Points that share the cost.

    Raises:
        UsageError: `samples` is too large.
    """
    if samples:
        if samples > _MOST_SAMPLES:
            raise UsageError(f"--samples {samples}", f"{_MOST_SAMPLES:,} per image are the most", "Take fewer, or more images")
        return samples
    images = max(1, len(resolved.dataset))
    fewest, most = -(-_FEWEST_DRAWS // images), -(-_MOST_DRAWS // images)
    affordable = _PRODUCTS / (images * max(1, count_products(resolved.network)) * points)
    return max(2, fewest, min(most, int(affordable)))


def count_products(network: Network) -> int:
    """Count the products of a weight and an input in one inference."""
    layers = [layer for layer in network.layers if isinstance(layer, Convolution)]
    return sum(network.tensors[layer.weight].elements * math.prod(network.values[layer.output].height_width) for layer in layers)


def predict_study(
    resolved: ResolvedStudy,
    samples: int | None = None,
    threads: int | None = None,
    on_chunk: Callable[[], None] | None = None,
) -> PredictionStudy:
    """Predict every point of a study; its trials and batch make no difference.

    Args:
        resolved: The study.
        samples: Draws per image; None for enough for the images.
        threads: Threads; None for all cores.
        on_chunk: Called `count_chunks` times.

    Raises:
        UsageError: The study pins a die, or cells of its memory do not err independently.
    """
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


def measure_prediction(
    predicted: PredictionStudy, threads: int | None = None, on_trial: Callable[[], None] | None = None
) -> PredictionStudy:
    """Run the study's trials, and return the prediction with them."""
    result = run_study(predicted.resolved, threads=threads, on_trial=(lambda progress: on_trial()) if on_trial else None)
    return PredictionStudy(predicted.resolved, predicted.predictions, predicted.samples, predicted.seconds, result)
