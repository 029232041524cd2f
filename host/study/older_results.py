"""Results of older schema versions, restated in the columns of today.

Schema 1 called the latency of an access `latency_ns`. Under the read policies `load` and `batch` its energies in pJ were those of a
whole run divided by its images. They depend on the size of the data set and cannot always be restated, so they are left blank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

_OLD_LATENCY, _LATENCY, _READS = "latency_ns", "access_latency_ns", "reads_per_inference"
_SHARED = ("load", "batch")


def restated_columns(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that all rows of a cell share, as a store of runs keeps them."""
    if _OLD_LATENCY not in columns:
        return dict(columns)
    shared = columns.get("energy_unit") == "pJ" and columns.get("read_every") in _SHARED
    found = {name: None if shared and _is_energy(name) else value for name, value in columns.items() if name != _OLD_LATENCY}
    return {**found, _LATENCY: columns[_OLD_LATENCY], _READS: None}


def restated_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """The table of a study, one row per run."""
    if _OLD_LATENCY not in frame.columns:
        return frame
    shared = ((pl.col("energy_unit") == "pJ") & pl.col("read_every").is_in(_SHARED)).fill_null(value=False)
    blank = [pl.when(~shared).then(pl.col(name)).alias(name) for name in frame.columns if _is_energy(name)]
    return frame.with_columns(*blank, pl.lit(None, pl.Float64).alias(_READS)).rename({_OLD_LATENCY: _LATENCY})


def _is_energy(name: str) -> bool:
    return name.startswith("energy")
