"""Differences between operating points, and between networks, from the trials that they share.

Trial t of two neighbouring points is the same die: whatever cell fails at the higher voltage fails at the lower one too. Their
scores rise and fall together, and the difference within each trial varies less than either; so its interval is made from these
differences, not from two intervals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from weakcell.emulator.evaluation.intervals import mean_interval, unseen_share
from weakcell.emulator.tasks import metric_of
from weakcell.host.campaign.store import CellRecord
from weakcell.host.campaign.tables import Tables

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


def differences(tables: Tables) -> pl.DataFrame:
    """Scores of one point less those of another, over the trials that both have, with the 95 % interval of the mean.

    between: `points` (a point and the one before it in the same study) or `networks` (one and the campaign's first with the same
    images on the same memory, point and placement). half_width_unpaired: what independent trials would have given. Scores are
    accuracies, or shares of unchanged predictions without labels. differ_below: as in `weakcell.host.study.results.summary_of`,
    of differences.
    Pairs with fewer than two trials in common are left out.
    """
    rows = [row for pair in _pairs(tables) if (row := _row(tables, *pair)) is not None]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _pairs(tables: Tables) -> Iterator[tuple[str, CellRecord, CellRecord]]:
    """(what differs, the point, what it is compared with), in the campaign's order."""
    before: CellRecord | None = None
    first: dict[str, CellRecord] = {}
    for cell in tables.cells:
        if before is not None and before.study == cell.study:
            yield "points", cell, before
        before = cell
        other = first.setdefault(_beside_the_network(cell), cell)
        if other is not cell:
            yield "networks", cell, other


def _beside_the_network(cell: CellRecord) -> str:
    """Everything that two points have in common if only their networks differ."""
    asked = {name: value for name, value in cell.asked.items() if name not in ("model", "data")}
    return str((sorted(asked.items()), cell.columns["data"], cell.columns["images"]))


def _row(tables: Tables, between: str, cell: CellRecord, other: CellRecord) -> dict[str, Any] | None:
    scores, others = (tables.store.scores(one.number, tables.trials_of(one)) for one in (cell, other))
    shared = sorted(scores.keys() & others.keys())
    metric, another = (metric_of(one.columns.get("score")) for one in (cell, other))
    if len(shared) < 2 or metric != another:
        return None
    a, b = (np.array([found[trial] for trial in shared]) for found in (scores, others))
    difference, low, high = mean_interval(a - b, bounds=(-metric.bounds[1], metric.bounds[1]))
    halves = [(end - start) / 2 for _, start, end in (mean_interval(one, bounds=metric.bounds) for one in (a, b))]
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
