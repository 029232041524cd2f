"""What a store holds as tables: one row per run, one row per point; the same whatever order the runs were made in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import polars as pl

from weakcell.emulator.tasks import COLUMNS as METRIC_COLUMNS
from weakcell.host.campaign.stopping import FEWEST_WITH_COVARIATE, share_removed, stein_interval
from weakcell.host.campaign.store import CellRecord, Store, run_id
from weakcell.host.study.older_results import restated_columns
from weakcell.host.study.results import COLUMNS, scores_of, summary_of

_HEAD: dict[str, Any] = {"row": pl.Int64, "run": pl.String, "study": pl.String}
_SUMMARY: dict[str, Any] = {"control": pl.String, "removed": pl.Float64}


@dataclass(frozen=True, eq=False)
class Tables:
    """The campaign that a store holds. `plan`: labels, trials and half width, as `sweep` stated them."""

    store: Store

    @cached_property
    def plan(self) -> dict[str, Any]:
        stated = self.store.fact("campaign")
        return stated if isinstance(stated, dict) else {"labels": [], "trials": 0, "half_width": None, "first_stage": None}

    @cached_property
    def cells(self) -> tuple[CellRecord, ...]:
        return tuple(replace(cell, columns=restated_columns(cell.columns)) for cell in self.store.cells())

    def trials_of(self, cell: CellRecord) -> int | None:
        """How many of a cell's trials count: those that were planned, though an earlier campaign may have made more."""
        planned = self.store.fact(f"trials {cell.sha256}")
        return planned if isinstance(planned, int) else self.plan["trials"]

    def frames(self) -> Iterator[pl.DataFrame]:
        """One frame per cell, in the campaign's order, all of one schema."""
        schema, row = self.schema, 0
        for cell in self.cells:
            frame = self._frame(cell, row, schema)
            row += frame.height
            yield frame

    @cached_property
    def frame(self) -> pl.DataFrame:
        """One row per run: `row` (from 1), `run` (its name), `study`, and the columns of `weakcell emulate`'s table."""
        return pl.concat([pl.DataFrame(schema=self.schema), *self.frames()], rechunk=True)

    @cached_property
    def summary(self) -> pl.DataFrame:
        """One row per point with runs: as `weakcell.host.study.results.summary_of`, with mean and interval of the rule by which
        it was stopped.

        control: the tensor whose flips served as a covariate, null if none did. removed: the share of variance they took away.
        """
        parts = []
        for cell, frame in zip(self.cells, self.frames(), strict=True):
            if frame.height:
                told = {"study": self.label(cell), "model": frame["model"][0], "control": None, "removed": None}
                told |= self._stopped(cell, frame) if self.plan["half_width"] is not None and frame.height > 1 else {}
                columns = [pl.lit(value, dtype=_SUMMARY.get(name)).alias(name) for name, value in told.items()]
                parts.append(summary_of(frame).with_columns(columns))
        return pl.concat(parts).select("study", "model", pl.exclude("study", "model")) if parts else pl.DataFrame()

    def _stopped(self, cell: CellRecord, frame: pl.DataFrame) -> dict[str, Any]:
        """Mean and interval of a point that was stopped when its interval was narrow enough."""
        metric, series = scores_of(frame)
        scores = series.to_numpy()
        control = self.store.fact(f"control {cell.sha256}") if len(scores) >= FEWEST_WITH_COVARIATE else None
        known = None if control is None else frame[f"flips[{control['tensor']}]"].to_numpy() - control["expected"]
        mean, low, high = stein_interval(scores, self.plan["first_stage"], known, bounds=metric.bounds)
        told: dict[str, Any] = {"mean": mean, "low": low, "high": high}
        if control is not None and known is not None:
            told |= {"control": control["tensor"], "removed": share_removed(scores, known)}
        return told

    @cached_property
    def schema(self) -> dict[str, Any]:
        """Columns and types; energies by part and flips by tensor are null where a study has none."""
        parts = dict.fromkeys(name for cell in self.cells for name in cell.columns if name not in COLUMNS)
        tensors = dict.fromkeys(f"flips[{name}]" for cell in self.cells for name in cell.tensors)
        return {**_HEAD, **COLUMNS, **dict.fromkeys(parts, pl.Float64), **dict.fromkeys(tensors, pl.Int64)}

    def label(self, cell: CellRecord) -> str:
        labels = self.plan["labels"]
        return labels[cell.study] if cell.study < len(labels) else str(cell.study)

    def _frame(self, cell: CellRecord, before: int, schema: dict[str, Any]) -> pl.DataFrame:
        runs = list(self.store.runs(cell.number, self.trials_of(cell)))
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
        return pl.DataFrame(columns)

    def find(self, row: str) -> tuple[CellRecord, int] | None:
        """Cell and trial of a row: its number in the table, or its run's name or the beginning of that; None if none is meant."""
        number, wanted = 0, int(row) if row.isdigit() and len(row) < 16 else None
        named: list[tuple[CellRecord, int]] = []
        for cell in self.cells:
            for run in self.store.runs(cell.number, self.trials_of(cell)):
                number += 1
                if number == wanted:
                    return cell, run.trial
                if len(row) >= 4 and run_id(cell.sha256, run.trial).startswith(row):
                    named.append((cell, run.trial))
        return named[0] if len(named) == 1 else None
