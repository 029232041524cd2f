"""Tables of a campaign: runs, points, and paired differences between points or networks; and the files they are written to.

The order in which runs were made changes no table.

Trial t of two neighbouring points is the same die: a cell that fails at the higher voltage fails at the lower one too. Their scores
rise and fall together, and the difference within a trial varies less than either score. So the interval of a difference is made
from the differences within trials, not from two intervals.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl

from weakcell.emulator.evaluation.intervals import mean_interval, unseen_share
from weakcell.emulator.tasks import COLUMNS as METRIC_COLUMNS
from weakcell.emulator.tasks import get_metric
from weakcell.host.campaign.stopping import FEWEST_WITH_COVARIATE, share_removed, stein_interval
from weakcell.host.campaign.store import CellRecord, DamagedStore, Store, run_id
from weakcell.host.study.results import COLUMNS, check_frame, restate_columns, scores_of, summary_of
from weakcell.host.study.results_folder import versions
from weakcell.host.table_files import write_csv
from weakcell.memmodels.atomic_files import write_atomically, write_text_atomically
from weakcell.memmodels.files import reason

_HEAD: dict[str, Any] = {"row": pl.Int64, "run": pl.String, "study": pl.String}
_SUMMARY: dict[str, Any] = {"control": pl.String, "removed": pl.Float64}


@dataclass(frozen=True, eq=False)
class Tables:
    """Tables of the campaign in a store, computed when they are first used."""

    store: Store

    @cached_property
    def plan(self) -> dict[str, Any]:
        """Labels, trials and half width of the last sweep."""
        stated = self.store.get_fact("campaign")
        if not isinstance(stated, dict):
            return {"labels": [], "trials": 0, "half_width": None, "first_stage": None}
        labels, trials, half, stage = (stated.get(name) for name in ("labels", "trials", "half_width", "first_stage"))
        named = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
        ruled = half is None or (isinstance(half, float) and isinstance(stage, int) and stage > 1)
        if not (named and ruled and isinstance(trials, int) and abs(trials) < 1 << 62):
            raise DamagedStore(f"it holds the plan {str(stated)[:80]}, which no sweep stores")
        return {**stated, "half_width": half, "first_stage": stage}

    @cached_property
    def cells(self) -> tuple[CellRecord, ...]:
        """Stored cells, with columns by their present names."""
        return tuple(replace(cell, columns=restate_columns(cell.columns)) for cell in self.store.cells())

    def planned_trials(self, cell: CellRecord) -> int | None:
        """Return how many of a cell's trials count: those planned, though an earlier campaign may have run more."""
        planned = self.store.get_fact(f"trials {cell.sha256}")
        return planned if isinstance(planned, int) else self.plan["trials"]

    def frames(self) -> Iterator[pl.DataFrame]:
        """Yield one frame per cell, in the campaign's order, all with one schema."""
        schema, row = self.schema, 0
        for cell in self.cells:
            frame = self._frame(cell, row, schema)
            row += frame.height
            yield frame

    @cached_property
    def frame(self) -> pl.DataFrame:
        """One row per run: `row` (from 1), `run` (its name), `study`, and the columns of `weakcell emulate`."""
        return pl.concat([pl.DataFrame(schema=self.schema), *self.frames()], rechunk=True)

    @cached_property
    def summary(self) -> pl.DataFrame:
        """One row per point: `summary_of`, with mean and interval of the rule that stopped the point.

        control: the tensor whose flips were the covariate, or null. removed: the share of variance that the covariate removed.
        """
        parts = []
        for cell, frame in zip(self.cells, self.frames(), strict=True):
            if frame.height:
                columns_of_study = {"study": self.label(cell), "model": frame["model"][0], "control": None, "removed": None}
                columns_of_study |= (
                    self._interval_of_rule(cell, frame) if self.plan["half_width"] is not None and frame.height > 1 else {}
                )
                columns = [pl.lit(value, dtype=_SUMMARY.get(name)).alias(name) for name, value in columns_of_study.items()]
                parts.append(summary_of(frame).with_columns(columns))
        return pl.concat(parts).select("study", "model", pl.exclude("study", "model")) if parts else pl.DataFrame()

    def _interval_of_rule(self, cell: CellRecord, frame: pl.DataFrame) -> dict[str, Any]:
        """Return mean and interval of a point that was stopped when its interval was narrow enough."""
        metric, series = scores_of(frame)
        scores = series.to_numpy()
        control = self.store.get_fact(f"control {cell.sha256}") if len(scores) >= FEWEST_WITH_COVARIATE else None
        if control is not None and not (
            isinstance(control, dict)
            and f"flips[{control.get('tensor')}]" in frame.columns
            and isinstance(control.get("expected"), float | int)
        ):
            raise DamagedStore(f"it holds the covariate {str(control)[:80]}, which no sweep stores")
        known = None if control is None else frame[f"flips[{control['tensor']}]"].to_numpy() - control["expected"]
        mean, low, high = stein_interval(scores, self.plan["first_stage"], known, bounds=metric.bounds)
        columns: dict[str, Any] = {"mean": mean, "low": low, "high": high}
        if control is not None and known is not None:
            columns |= {"control": control["tensor"], "removed": share_removed(scores, known)}
        return columns

    @cached_property
    def schema(self) -> dict[str, Any]:
        """Columns and types; energies by part and flips by tensor are null where a study has none."""
        parts = dict.fromkeys(name for cell in self.cells for name in cell.columns if name not in COLUMNS)
        tensors = dict.fromkeys(f"flips[{name}]" for cell in self.cells for name in cell.tensors)
        return {**_HEAD, **COLUMNS, **dict.fromkeys(parts, pl.Float64), **dict.fromkeys(tensors, pl.Int64)}

    def label(self, cell: CellRecord) -> str:
        """Return the name of a cell's study."""
        labels = self.plan["labels"]
        return labels[cell.study] if cell.study < len(labels) else str(cell.study)

    def _frame(self, cell: CellRecord, before: int, schema: dict[str, Any]) -> pl.DataFrame:
        try:
            return self._make_frame(cell, before, schema)
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
            raise DamagedStore(f"cell {cell.number} has values of other types ({reason(error)})") from error

    def _make_frame(self, cell: CellRecord, before: int, schema: dict[str, Any]) -> pl.DataFrame:
        runs = list(self.store.runs(cell.number, self.planned_trials(cell)))
        if any(len(run.flips) != len(cell.tensors) for run in runs):
            raise ValueError("a run counts the flips of other tensors")
        own: dict[str, Any] = {
            name: [getattr(run, name) for run in runs] for name in ("trial", "die", "accuracy", "changed", "bits_read")
        }
        own.update({name: [run.metrics.get(name) for run in runs] for name in METRIC_COLUMNS})
        own["flips"] = [sum(run.flips) for run in runs]
        own["flip_rate"] = [sum(run.flips) / max(1, run.bits_read) for run in runs]
        own["row"] = list(range(before + 1, before + 1 + len(runs)))
        own["run"] = [run_id(cell.sha256, run.trial) for run in runs]
        own.update({f"flips[{name}]": [run.flips[i] for run in runs] for i, name in enumerate(cell.tensors)})
        shared = {**cell.columns, "study": self.label(cell)}
        columns = [
            pl.Series(name, own[name], dtype=kind)
            if name in own
            else pl.Series(name, [shared.get(name)], dtype=kind).new_from_index(0, len(runs))
            for name, kind in schema.items()
        ]
        return check_frame(pl.DataFrame(columns)) if runs else pl.DataFrame(columns)

    def find_run(self, row: str) -> tuple[CellRecord, int] | None:
        """Return cell and trial of a row number, a run's name, or the beginning of a name; None if there is none."""
        number, wanted = 0, int(row) if row.isascii() and row.isdigit() and len(row) < 16 else None
        named: list[tuple[CellRecord, int]] = []
        for cell in self.cells:
            for run in self.store.runs(cell.number, self.planned_trials(cell)):
                number += 1
                if number == wanted:
                    return cell, run.trial
                if len(row) >= 4 and run_id(cell.sha256, run.trial).startswith(row):
                    named.append((cell, run.trial))
        return named[0] if len(named) == 1 else None


SCHEMA: dict[str, Any] = {
    "between": pl.String,
    "study": pl.String,
    "memory": pl.String,
    "from_study": pl.String,
    "from_memory": pl.String,
    "score": pl.String,
    "trials": pl.Int64,
    **dict.fromkeys(("difference", "low", "high", "half_width", "half_width_unpaired", "differ_below"), pl.Float64),
}


def compute_differences(tables: Tables) -> pl.DataFrame:
    """Return score differences between points over the trials that both have, with their 95 % intervals.

    Columns: `between` is `points` (a point and the previous one of the same study) or `networks` (a network and the campaign's
    first one with the same images on the same memory, point and placement). `half_width_unpaired` is what independent trials would
    have given. `differ_below`: as in `summary_of`, of differences. Scores are accuracies, or without labels shares of unchanged
    predictions. Pairs with fewer than two common trials are left out.
    """
    rows = [row for pair in _find_pairs(tables) if (row := _compare(tables, *pair)) is not None]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _find_pairs(tables: Tables) -> Iterator[tuple[str, CellRecord, CellRecord]]:
    """Yield (what differs, the point, the point it is compared with), in the campaign's order."""
    before: CellRecord | None = None
    first: dict[str, CellRecord] = {}
    for cell in tables.cells:
        if before is not None and before.study == cell.study:
            yield "points", cell, before
        before = cell
        other = first.setdefault(_key_without_network(cell), cell)
        if other is not cell:
            yield "networks", cell, other


def _key_without_network(cell: CellRecord) -> str:
    """Return what two points have in common if only their networks differ."""
    options = {name: value for name, value in cell.asked.items() if name not in ("model", "data")}
    return str((sorted(options.items()), cell.columns["data"], cell.columns["images"]))


def _compare(tables: Tables, between: str, cell: CellRecord, other: CellRecord) -> dict[str, Any] | None:
    scores, others = (tables.store.scores(record.number, tables.planned_trials(record)) for record in (cell, other))
    shared = sorted(scores.keys() & others.keys())
    metric, another = (get_metric(record.columns.get("score")) for record in (cell, other))
    if len(shared) < 2 or metric != another:
        return None
    a, b = (np.array([by_trial[trial] for trial in shared]) for by_trial in (scores, others))
    difference, low, high = mean_interval(a - b, bounds=(-metric.bounds[1], metric.bounds[1]))
    halves = [(end - start) / 2 for _, start, end in (mean_interval(values, bounds=metric.bounds) for values in (a, b))]
    return {
        "between": between,
        "study": tables.label(cell),
        "memory": cell.columns["memory"],
        "from_study": tables.label(other),
        "from_memory": other.columns["memory"],
        "score": metric.name,
        "trials": len(shared),
        "difference": difference,
        "low": low,
        "high": high,
        "half_width": (high - low) / 2,
        "half_width_unpaired": math.hypot(*halves),
        "differ_below": unseen_share(a - b),
    }


def write_tables(tables: Tables, folder: Path) -> list[Path]:
    """Write results.parquet and .csv, summary.csv, differences.csv and campaign.json atomically; return the paths."""
    frame = tables.frame
    jobs: dict[str, Callable[[BinaryIO], object]] = {
        "results.parquet": frame.write_parquet,
        "results.csv": partial(write_csv, frame),
        "summary.csv": partial(write_csv, tables.summary),
        "differences.csv": partial(write_csv, compute_differences(tables)),
    }
    for name, write in jobs.items():
        write_atomically(folder / name, write)
    write_text_atomically(folder / "campaign.json", _describe_origin(tables))
    return [folder / name for name in (*jobs, "campaign.json")]


def _describe_origin(tables: Tables) -> str:
    """Return command, versions and cells as JSON; it does not change when the same command runs again."""
    content = {
        **tables.plan,
        "file": tables.store.get_fact("file"),
        "command": tables.store.get_fact("command"),
        "versions": {"python": platform.python_version(), **versions()},
        "machine": tables.store.get_fact("machine"),
        "cells": [{"sha256": cell.sha256, "study": tables.label(cell), **cell.asked} for cell in tables.cells],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
