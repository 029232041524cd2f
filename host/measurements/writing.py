"""The files of an imported table.

points.csv  points.parquet     one row per operating point: flips, cells, rates with intervals
held_out.csv                   points that were predicted by fits without them, with the error in decades
import.json                    what was noticed, what cannot be fitted, the fits, and where the table is from
profile.toml                   the fit; one per polarity where rows of both were found
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from weakcell.host.measurements.measurement import Measurement
from weakcell.host.table_files import write_csv
from weakcell.memmodels.atomic_files import create_folder, write_atomically, write_text_atomically
from weakcell.memmodels.errors import OutputError

SCHEMA_VERSION = 1


def tabulate(measurement: Measurement) -> pl.DataFrame:
    """Return one row per operating point; blank where a value was never written."""
    rows = []
    for point in measurement.points:
        row: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **point.conditions}
        for name, count in (("p01", point.p01), ("p10", point.p10)):
            found = None if count is None else count.constant(name)
            row |= {
                f"flips_{name}": None if count is None else count.flips,
                f"cells_{name}": None if count is None else count.cells,
            }
            row |= {name: found and found.value, f"{name}_low": found and found.low, f"{name}_high": found and found.high}
        rows.append(row)
    whole = {f"{part}_{name}": pl.Int64 for part in ("flips", "cells") for name in ("p01", "p10")}
    real = {f"{name}{end}": pl.Float64 for name in ("p01", "p10") for end in ("", "_low", "_high")}
    return pl.DataFrame(rows, schema_overrides={**whole, **real})


def write_measurement(measurement: Measurement, folder: Path, provenance: Mapping[str, Any]) -> list[Path]:
    """Write all files; return the paths of the profiles.

    Raises:
        OutputError: The folder cannot be written, or holds a run on a board.
    """
    about = {name: str(provenance[name]) for name in ("imported", "sha256") if name in provenance}
    measurement = measurement.with_metadata(**about)
    if os.path.exists(folder / "run.json"):
        raise OutputError(f"Results in {folder}", "it holds a run on a board", "Choose another --out")
    create_folder(folder)
    frame = tabulate(measurement)
    held_out = [(one.profile.name, held.point, held.error) for one in measurement.fits for held in one.held_out]
    errors = pl.DataFrame(held_out, schema={"profile": pl.String, "held_out": pl.String, "error_decades": pl.Float64}, orient="row")
    write_atomically(folder / "points.parquet", frame.write_parquet)
    for name, table in (("points", frame), ("held_out", errors)):
        write_atomically(folder / f"{name}.csv", partial(write_csv, table))
    summary = {
        "schema_version": SCHEMA_VERSION,
        **provenance,
        "title": measurement.title,
        "noticed": list(measurement.noticed),
        "not_fitted": list(measurement.not_fitted),
        "fits": [
            {"profile": one.profile.name, "verdict": one.verdict, "held_out": [held._asdict() for held in one.held_out]}
            for one in measurement.fits
        ],
    }
    write_text_atomically(folder / "import.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    return [one.profile.save(folder / f"{one.profile.name}.toml") for one in measurement.fits]
