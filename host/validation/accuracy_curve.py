"""Predicted against measured accuracy of a validation's points."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from weakcell.emulator.evaluation.intervals import SHARE, mean_interval, unseen_share
from weakcell.host.analysis.prediction import predict_study
from weakcell.host.validation.trials import Validation
from weakcell.memmodels.errors import UsageError


@dataclass(frozen=True, eq=False)
class AccuracyCurve:
    """Predicted and measured accuracy of the points that ran on all images.

    Attributes:
        frame: One row per point: value, memory, trials; measured with its 95 % interval (null for one trial); predicted with half
            the width of its 95 % interval (error); outside: by how much the prediction lies outside the measured interval. All are
            shares in [0, 1]: accuracies, or without labels of answers that stay.
        why: Why there is no prediction; empty if there is one.
    """

    frame: pl.DataFrame
    why: str


def compare_with_prediction(validation: Validation, threads: int | None = None, predict: bool = True) -> AccuracyCurve | None:
    """Predict the accuracies that a validation measured.

    Args:
        validation: The validation.
        threads: Threads; None for all cores.
        predict: False for memories that the SPECs do not describe.

    Returns:
        The curve, or None if no point ran on all images.
    """
    if not validation.scores:
        return None
    resolved, why, guesses = validation.resolved, "the memories are not those of the SPECs", {}
    if predict:
        try:
            predicted = predict_study(resolved, threads=threads)
        except UsageError as refused:
            why = refused.found
        else:
            why = ""
            guesses = {
                point.index: (1 - one.changed if one.accuracy is None else one.accuracy, one.half_width)
                for point, one in zip(resolved.points, predicted.predictions, strict=True)
            }
    rows = []
    for index, scores in validation.scores.items():
        mean, low, high = mean_interval(scores, bounds=SHARE)
        single = len(scores) < 2
        score, error = guesses.get(index, (None, None))
        outside = None if single or score is None else max(low - score, score - high, 0.0)
        rows.append(
            (resolved.points[index].value, resolved.points[index].memory, len(scores), mean, None if single else low,
             None if single else high, unseen_share(scores), score, error, outside)
        )  # fmt: skip
    shares = dict.fromkeys(("measured", "low", "high", "differ_below", "predicted", "error", "outside"), pl.Float64)
    schema = {"value": pl.Float64, "memory": pl.String, "trials": pl.Int64, **shares}
    return AccuracyCurve(pl.DataFrame(rows, schema=schema, orient="row"), why)
