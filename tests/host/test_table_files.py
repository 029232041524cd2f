"""CSV files that a spreadsheet may open. Truth: Python's csv reader, and the characters at which spreadsheets begin a formula."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from weakcell.host.table_files import guard_json, restore_text, write_csv
from weakcell.memmodels.atomic_files import write_atomically
from weakcell.memmodels.errors import OutputError

NAMES = ["=1+1", "+x", "-x", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'=1", "''-", "'plain", "conv1.weight", "", "a=b", '=a,"b"\n']
DANGEROUS = tuple("=+-@\t\r\n")


@pytest.mark.parametrize("kind", [pl.String, pl.Categorical, pl.Enum(NAMES)])
def test_no_text_cell_begins_a_formula_and_each_name_is_read_back(kind: type[pl.DataType]) -> None:
    frame = pl.DataFrame({"=name": pl.Series(NAMES, dtype=pl.String).cast(kind), "value": -np.arange(len(NAMES)) / 3})
    buffer = io.BytesIO()
    write_csv(frame, buffer)
    rows = list(csv.reader(io.StringIO(buffer.getvalue().decode(), newline="")))
    assert rows[0] == ["'=name", "value"]
    assert not any(row[0].startswith(DANGEROUS) for row in rows)
    assert [float(row[1]) for row in rows[1:]] == frame["value"].to_list()  # negative numbers stay numbers
    buffer.seek(0)
    table = pl.read_csv(buffer)
    assert table.select(restore_text("'=name")).to_series().to_list() == NAMES


def test_a_json_header_has_no_formula_after_a_separator() -> None:
    content = {"model": "a,=1+1;@x, =2, @y,-1", "values": [1, -2, 1e-5, -3e5]}
    text = guard_json(json.dumps(content))
    assert json.loads(text) == content
    cells = [cell for row in csv.reader([f"# weakcell-faults {text}"], quoting=csv.QUOTE_NONE) for cell in row]
    cells += [part for cell in cells for part in cell.split(";")]
    assert not any(cell.strip(" ").startswith(("=", "@")) or cell.startswith(DANGEROUS) for cell in cells)


def _write_with_little_room(folder: str) -> None:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    frame = pl.DataFrame({"x": np.random.default_rng(0).random(20_000)})
    for name, write in (("a.parquet", frame.write_parquet), ("a.csv", partial(write_csv, frame))):
        try:
            write_atomically(Path(folder) / name, write)
        except OutputError as error:
            if "it needs more than" in str(error) and name in str(error):
                continue
        os._exit(1)
    os._exit(6)


@pytest.mark.skipif(os.name != "posix", reason="limits of a file's size")
def test_a_table_that_does_not_fit_is_an_output_error(tmp_path: Path) -> None:
    """Polars has errors of its own for Parquet files; they name the system's error only by its number."""
    child = multiprocessing.get_context("spawn").Process(target=_write_with_little_room, args=(str(tmp_path),))
    child.start()
    child.join()
    assert child.exitcode == 6
    assert not list(tmp_path.iterdir())
