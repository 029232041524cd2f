"""CSV files that a spreadsheet may open. Truth: Python's csv reader, and the characters at which spreadsheets begin a formula."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import polars as pl
import pytest

from weakcell.host.table_files import guard_json, restore_text, write_csv

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
