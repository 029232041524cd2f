"""The file of `weakcell board measure --out`: which cells flipped in which pulse."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import polars as pl

from weakcell.host.table_files import write_csv
from weakcell.memmodels.atomic_files import write_atomically

_COLUMNS = {"pulse": pl.Int64, "register_v": pl.Float64, "dwell_us": pl.Int64, "cell": pl.Int64}


def write_pulses(path: Path, pulses: Sequence[tuple[int, float, int, set[int]]]) -> None:
    """Write one row for each flipped cell of each pulse; OutputError if the file cannot be written.

    Args:
        path: of the CSV file.
        pulses: number, voltage of the register, microseconds at low voltage, and flipped cells of each.
    """
    rows = [(number, volts, dwell, cell) for number, volts, dwell, cells in pulses for cell in sorted(cells)]
    write_atomically(path, partial(write_csv, pl.DataFrame(rows, schema=_COLUMNS, orient="row")))
