"""Tables in files: CSV whose text a spreadsheet does not run; CSV and Parquet of others, read from any path.

A spreadsheet runs a cell that begins with =, +, -, @, a tab or the end of a line as a formula, also if it is the name of a tensor
in a file of others. Such text is written after an apostrophe, as people enter it. `restore_text` removes the apostrophe.
Numbers are written as numbers.

Files are read by their handle: polars takes brackets in a path for a pattern, and only paths that are UTF-8.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import polars as pl

from weakcell.memmodels.files import open_regular

_FORMULA = r"^('*[=+\-@\t\r\n])"
_GUARDED = r"^'('*[=+\-@\t\r\n])"
_SEPARATOR = re.compile(r"[,;](?=[=+\-@]| +[=@])")


@contextmanager
def open_table(path: Path) -> Iterator[BinaryIO]:
    """Open a table that polars reads within the context.

    Raises:
        OSError: it cannot be opened, or is no regular file.
        ValueError: polars panics over it, as it does over some damaged files.
    """
    try:
        with open_regular(path) as file:
            yield file
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # it is no Exception
            raise
        raise ValueError("it is damaged, and polars cannot read it") from error


_PROBE = "import io, sys, polars; polars.read_parquet(io.BytesIO(sys.stdin.buffer.read()))"


def read_parquet(file: BinaryIO) -> pl.DataFrame:
    """Read a Parquet file that may be damaged.

    Polars ends the whole process over some damaged files. So another process reads the file first.

    Args:
        file: From `open_table`; read from its beginning.

    Raises:
        ValueError: The file ends any process that reads it.
    """
    file.seek(0)
    probe = subprocess.run([sys.executable, "-P", "-c", _PROBE], stdin=file, capture_output=True, check=False)
    if probe.returncode < 0:
        raise ValueError("it is damaged, and polars cannot read it")
    file.seek(0)
    return pl.read_parquet(file)


def write_csv(frame: pl.DataFrame, file: BinaryIO, float_precision: int | None = None) -> None:
    """Write a frame as CSV.

    Args:
        frame: The frame.
        file: Open for writing.
        float_precision: Decimal places of numbers. [default: as many as needed]
    """
    text = [name for name, kind in frame.schema.items() if kind in (pl.String, pl.Categorical, pl.Enum)]
    guarded = frame.with_columns(pl.col(text).cast(pl.String).str.replace(_FORMULA, "'$1"))
    guarded = guarded.rename({name: re.sub(_FORMULA, r"'\1", name) for name in frame.columns})
    guarded.write_csv(file, float_precision=float_precision)


def restore_text(column: str) -> pl.Expr:
    """Return the text of a column of a CSV file that `write_csv` wrote."""
    return pl.col(column).cast(pl.String).str.replace(_GUARDED, "$1")


def guard_json(text: str) -> str:
    """Return JSON with the same meaning in which no separator of cells is followed by a formula."""
    return _SEPARATOR.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
