"""Results as tables: one row per point and trial, and a summary with one row per point.

Columns hold nothing that changes between two runs of one seed: no times, no dates, no folders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from weakcell.emulator.evaluation.intervals import CONFIDENCE, SHARE, low_quantile_bound, mean_interval, unseen_share
from weakcell.emulator.evaluation.trials import TrialResult
from weakcell.emulator.tasks import COLUMNS as METRIC_COLUMNS
from weakcell.emulator.tasks import Metric, get_metric
from weakcell.host.study.fault_list import FaultRows
from weakcell.host.study.study import Point, ResolvedStudy
from weakcell.memmodels.files import reason
from weakcell.memmodels.sampling.sampler import VERSION as SAMPLER_VERSION

SCHEMA_VERSION = 2
"""1: `energy` of the weight reads of a whole run, divided by its images; `access_latency_ns` was called `latency_ns`."""
LOW_SHARE = 0.05

COLUMNS: dict[str, Any] = {
    "schema_version": pl.Int32,
    "sampler": pl.Int32,
    "model": pl.String,
    "data": pl.String,
    "memory": pl.String,
    "places": pl.String,
    "sweep_key": pl.String,
    "sweep_value": pl.Float64,
    "trial": pl.Int64,
    "die": pl.Int64,
    "seed": pl.Int64,
    "read_every": pl.String,
    "sampling": pl.String,
    "batch": pl.Int64,
    "images": pl.Int64,
    "task": pl.String,
    "output": pl.String,
    "score": pl.String,
    "accuracy": pl.Float64,
    "clean_accuracy": pl.Float64,
    "clean_score": pl.Float64,
    "changed": pl.Float64,
    **dict.fromkeys(METRIC_COLUMNS, pl.Float64),
    "flips": pl.Int64,
    "bits_read": pl.Int64,
    "flip_rate": pl.Float64,
    "energy": pl.Float64,
    "energy_unit": pl.String,
    "energy_basis": pl.String,
    "energy_share": pl.Float64,
    "reads_per_inference": pl.Float64,
    "access_latency_ns": pl.Float64,
}


@dataclass(frozen=True, eq=False)
class Outcome:
    """One trial at one point, and the seconds that it took."""

    point: Point
    result: TrialResult
    seconds: float


@dataclass(frozen=True, eq=False)
class StudyResult:
    """What the trials of a study found: `frame` has a row per point and trial, `summary` a row per point.

    Attributes:
        resolved: The study.
        outcomes: One per point and trial, by swept value and trial.
        complete: False if the run was interrupted; it then holds the finished points.
        seconds: Wall time.
        faults: The flips of each outcome, if they were recorded.
    """

    resolved: ResolvedStudy
    outcomes: tuple[Outcome, ...]
    complete: bool
    seconds: float
    faults: tuple[FaultRows, ...] | None = None

    @cached_property
    def frame(self) -> pl.DataFrame:
        """One row per point and trial, ascending; shares in [0, 1]; energy per inference, null where none is published."""
        resolved = self.resolved
        named = {**COLUMNS, **{f"energy_pJ[{part}]": pl.Float64 for part in energy_parts(resolved)}}
        schema = {**named, **{f"flips[{name}]": pl.Int64 for name in placed_tensors(resolved)}}
        rows = [row_of(resolved, outcome) for outcome in self.outcomes]
        return pl.DataFrame(rows, schema=schema, orient="row")

    @cached_property
    def summary(self) -> pl.DataFrame:
        """One row per operating point.

        Columns: `sweep_key`, `sweep_value`, `trials`, `score` (the metric), `mean`, `low` and `high` (95 % interval of the mean),
        `differ_below`, `worst`, `bound`, `changed`, `changed_low`, `changed_high`, `flip_rate`, `energy`, `energy_unit`,
        `energy_basis`, `reads_per_inference`, `access_latency_ns`, `memory`.

        `low` and `high` are null for one trial and equal if no trial differed; then, with 95 % confidence, at most the share
        `differ_below` of further trials would differ. With 95 % confidence, 95 % of all dies reach at least `bound` (for errors:
        stay below it); it needs 59 trials. `changed` is the mean share of answers that differ from the fault-free ones.
        """
        return summary_of(self.frame)

    @property
    def labelled(self) -> bool:
        """Whether the data have labels, so that there is an accuracy."""
        return self.resolved.workload.labelled

    def __repr__(self) -> str:
        study, points = self.resolved.study, len(self.outcomes) // max(1, self.resolved.study.trials)
        state = "" if self.complete else f", interrupted: {len(self.resolved.points)} were asked for"
        return f"StudyResult<{self.resolved.model.name} on {study.memory}: {points} points x {study.trials} trials{state}>"


def energy_parts(resolved: ResolvedStudy) -> tuple[str, ...]:
    """Return the parts that the points' energies consist of, each name once."""
    return tuple(dict.fromkeys(part for point in resolved.points for part in point.cost.parts or ()))


def placed_tensors(resolved: ResolvedStudy) -> tuple[str, ...]:
    """Return the tensors and buffers that live in a memory, in the network's order."""
    return tuple(name for name in resolved.plan.storable if resolved.points[0].placement.slots_of(name))


def row_of(resolved: ResolvedStudy, outcome: Outcome) -> dict[str, object]:
    """Return one trial as a row of the table."""
    result, tensors = outcome.result, placed_tensors(resolved)
    row = {
        **cell_columns(resolved, outcome.point),
        "trial": result.trial,
        "die": result.die,
        "accuracy": result.accuracy,
        "changed": result.changed,
        **{name: result.metrics.get(name) for name in METRIC_COLUMNS},
        "flips": result.all_flips,
        "bits_read": sum(result.bits_read.values()),
        "flip_rate": result.flip_rate,
        **{f"flips[{name}]": None if name in result.by_outputs else result.flips.get(name, 0) for name in tensors},
    }
    ordered = {name: row[name] for name in COLUMNS}
    return {**ordered, **{name: value for name, value in row.items() if name not in COLUMNS}}


def cell_columns(resolved: ResolvedStudy, point: Point) -> dict[str, object]:
    """Return the columns that all rows of a point share."""
    study = resolved.study
    energy, latency = point.energy, point.cost.latency
    known = point.cost.parts or {}
    return {
        "schema_version": SCHEMA_VERSION,
        "sampler": SAMPLER_VERSION,
        "model": resolved.model.name,
        "data": resolved.dataset.name,
        "memory": point.memory,
        "places": point.places,
        "sweep_key": study.sweep.key if study.sweep else None,
        "sweep_value": point.value,
        "seed": study.seed,
        "read_every": str(study.read_every),
        "sampling": str(study.sampling),
        "batch": study.batch,
        "images": len(resolved.dataset),
        "task": resolved.workload.task.text,
        "output": resolved.workload.task.output,
        "score": resolved.questions.metric.name,
        "clean_accuracy": resolved.questions.fault_free_accuracy,
        "clean_score": resolved.questions.fault_free_score,
        "energy": energy.value if energy else None,
        "energy_unit": energy.unit if energy else None,
        "energy_basis": energy.basis if energy else None,
        "energy_share": point.cost.share if energy else None,
        "reads_per_inference": point.cost.reads,
        "access_latency_ns": latency.value if latency else None,
        **{f"energy_pJ[{part}]": known[part].value if part in known else None for part in energy_parts(resolved)},
    }


_NEEDED = (
    *("model", "memory", "sweep_key", "sweep_value", "trial", "die", "accuracy", "clean_accuracy", "changed", "flips", "bits_read"),
    *("energy", "energy_unit", "energy_basis", "reads_per_inference", "access_latency_ns"),
)
_NEVER_EMPTY = ("model", "memory", "trial", "die", "changed", "bits_read")
_NEVER_NEGATIVE = (
    *("trial", "die", "seed", "batch", "images", "flips", "bits_read", "flip_rate"),
    *("energy", "energy_share", "reads_per_inference", "access_latency_ns"),
)


def check_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a table of runs that was read from a file, with the types of `COLUMNS`.

    Raises:
        ValueError: A column is missing, has values of another type, or lacks values.
        InputError: The runs have a score that is no metric.
    """
    if missing := [name for name in _NEEDED if name not in frame.columns]:
        raise ValueError(f"the table of runs has no column {', '.join(missing)}")
    try:
        frame = frame.with_columns(pl.col(name).cast(kind) for name, kind in COLUMNS.items() if name in frame.columns)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"the table of runs has a value of another type ({reason(error)})") from error
    if other := [name for name, kind in frame.schema.items() if COLUMNS.get(name, kind) != kind]:  # polars casts tables to tables
        raise ValueError(f"the table of runs has values of another type in {', '.join(other)}")
    if "score" in frame.columns and frame["score"].n_unique() > 1:
        raise ValueError("the runs of one study have several scores")
    metric, scores = scores_of(frame)
    named = {**{name: frame[name] for name in _NEVER_EMPTY}, metric.name: scores}
    if empty := [name for name, column in named.items() if column.null_count()]:
        raise ValueError(f"the table of runs has no value of {', '.join(empty)} in some rows")
    if not frame["changed"].is_between(0.0, 1.0).all() or not scores.is_between(*metric.bounds).all():
        raise ValueError("the table of runs has scores that are no numbers, or shares outside 0 to 1")
    for column in frame:
        if column.name in _NEVER_NEGATIVE or column.name.startswith(("flips[", "energy_pJ[")):
            known = column.drop_nulls()
            if known.len() and not (known.dtype.is_numeric() and known.is_between(0, math.inf, closed="left").all()):
                raise ValueError(f"the table of runs has values of {column.name} that are negative or no numbers")
    return frame


def scores_of(frame: pl.DataFrame) -> tuple[Metric, pl.Series]:
    """Return the metric that the column `score` names, and its values.

    Tables from before there was this column have accuracies, or without labels shares of unchanged answers.
    """
    named = frame["score"].drop_nulls().to_list() if "score" in frame.columns else []
    metric = get_metric(named[0] if named else None, frame["accuracy"].null_count() == 0)
    return metric, 1.0 - frame["changed"] if metric.name == "unchanged" else frame[metric.name]


def summary_of(frame: pl.DataFrame) -> pl.DataFrame:
    """Summarize the rows of each point.

    Columns, all of the metric that `score` names:
        mean: Over trials.
        low, high: The 95 % interval of the mean; null for one trial, equal if no trial differed.
        differ_below: Null if trials differed; else, with 95 % confidence, at most this share of further trials would differ.
        worst: The worst trial.
        bound: The value that 95 % of dies reach (where less is better: stay below) with 95 % confidence; null for fewer than 59
            trials or a pinned die.
        changed: Mean share of changed answers, with its interval.

    Without labels the metric is the share of answers that stay the same (1 - changed), or the mean change of values.
    """
    rows = []
    for (value,), part in frame.group_by(["sweep_value"], maintain_order=True):
        metric, series = scores_of(part)
        scores = series.to_list()
        mean, low, high = mean_interval(scores, CONFIDENCE, metric.bounds)
        distinct = part["die"].n_unique() == part.height
        bound = _bound(metric, scores) if distinct else None
        changed, changed_low, changed_high = mean_interval(part["changed"].to_list(), CONFIDENCE, SHARE)
        first = part.row(0, named=True)
        single = part.height < 2
        rows.append(
            {
                "sweep_key": first["sweep_key"],
                "sweep_value": value,
                "trials": part.height,
                "score": metric.name,
                "mean": mean,
                "low": None if single else low,
                "high": None if single else high,
                "differ_below": unseen_share(scores, CONFIDENCE),
                "worst": metric.worst(scores),
                "bound": bound,
                "changed": changed,
                "changed_low": None if single else changed_low,
                "changed_high": None if single else changed_high,
                "changed_differ_below": unseen_share(part["changed"].to_list(), CONFIDENCE),
                "flip_rate": None if part["flips"].null_count() else sum(part["flips"]) / max(1, sum(part["bits_read"])),
                **{name: first[name] for name in _OF_POINT},
            }
        )
    return pl.DataFrame(rows, schema=_SUMMARY, orient="row")


def _bound(metric: Metric, scores: list[float]) -> float | None:
    """Return a value that 95 % of dies reach, or stay below where less is better; None for too few dies."""
    sign = 1.0 if metric.higher else -1.0
    bound = low_quantile_bound([sign * score for score in scores], LOW_SHARE, CONFIDENCE)
    return None if bound is None else sign * bound


_OF_POINT = ("energy", "energy_unit", "energy_basis", "reads_per_inference", "access_latency_ns", "memory")
"""Columns of the summary that are taken from the rows."""


_SUMMARY: dict[str, Any] = {
    "sweep_key": pl.String,
    **dict.fromkeys(("sweep_value", "mean", "low", "high", "worst", "bound", "differ_below"), pl.Float64),
    "score": pl.String,
    "trials": pl.Int64,
    **dict.fromkeys(("changed", "changed_low", "changed_high", "changed_differ_below"), pl.Float64),
    **dict.fromkeys(("reads_per_inference", "access_latency_ns"), pl.Float64),
    "memory": pl.String,
    "energy_basis": pl.String,
    "energy": pl.Float64,
    "energy_unit": pl.String,
    "flip_rate": pl.Float64,
}
"""Columns of the summary. The first and the last ones are what a narrow view shows."""


# ── results of older schema versions, restated in the columns of today ───────────────────────────────

# Schema 1 called the latency of an access `latency_ns`. Under the read policies `load` and `batch` its energies in pJ were those of
# a whole run divided by its images. They depend on the size of the data set and cannot always be restated, so they are left blank.
_OLD_LATENCY, _LATENCY, _READS = "latency_ns", "access_latency_ns", "reads_per_inference"
_SHARED_READS = ("load", "batch")


def restate_columns(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Restate the columns that all rows of a point share, as a store of runs keeps them."""
    if _OLD_LATENCY not in columns:
        return dict(columns)
    shared = columns.get("energy_unit") == "pJ" and columns.get("read_every") in _SHARED_READS
    restated = {name: None if shared and _is_energy(name) else value for name, value in columns.items() if name != _OLD_LATENCY}
    return {**restated, _LATENCY: columns[_OLD_LATENCY], _READS: None}


def restate_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """Restate the table of a study, one row per run."""
    if _OLD_LATENCY not in frame.columns:
        return frame
    shared = ((pl.col("energy_unit") == "pJ") & pl.col("read_every").is_in(_SHARED_READS)).fill_null(value=False)
    blank = [pl.when(~shared).then(pl.col(name)).alias(name) for name in frame.columns if _is_energy(name)]
    return frame.with_columns(*blank, pl.lit(None, pl.Float64).alias(_READS)).rename({_OLD_LATENCY: _LATENCY})


def _is_energy(name: str) -> bool:
    return name.startswith("energy")
