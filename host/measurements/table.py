"""Read a table of measurements: CSV or gzip CSV, with # lines of comments before the names of the columns."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.errors import InputError
from weakcell.memmodels.files import COMPRESSION, SMALL_BYTES, allowed, read_bytes, reason
from weakcell.memmodels.numbers import parse_integer, parse_number

_MOST_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class MeasurementTable:
    """A table as text.

    Attributes:
        path: Its file.
        comment: The # lines, joined.
        columns: Cells of each column, by name.
    """

    path: Path
    comment: str
    columns: dict[str, list[str]]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(next(iter(self.columns.values())))

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """Return a column as float64; an empty cell is NaN. InputError for anything else."""
        found = np.empty(self.rows)
        for place, text in enumerate(self.columns[name]):
            try:
                found[place] = parse_number(text) if text.strip() else np.nan
            except ValueError:
                raise self.refusal(f"row {place + 1} of column {name} is {text[:40]!r}", "Give a number") from None
        return found

    def counts(self, name: str) -> npt.NDArray[np.int64]:
        """Return a column as integers that are 0 or more; InputError for anything else."""
        found = self.numbers(name)
        wrong = ~np.isfinite(found) | (found < 0) | (found != np.rint(found)) | (found > 2**53)
        if wrong.any():
            place = int(np.flatnonzero(wrong)[0])
            raise self.refusal(
                f"row {place + 1} of column {name} is {self.columns[name][place][:40]!r}", "Give whole numbers from 0"
            )
        return found.astype(np.int64)

    def words(self, name: str) -> npt.NDArray[np.uint64]:
        """Return a column of words, decimal or 0x hexadecimal, as uint64."""
        found = np.empty(self.rows, np.uint64)
        for place, text in enumerate(self.columns[name]):
            try:
                found[place] = parse_integer(text, 16 if text.strip().lower().startswith("0x") else 10)
            except (ValueError, OverflowError):
                found_text = f"row {place + 1} of column {name} is {text[:40]!r}"
                raise self.refusal(found_text, "Give whole numbers, decimal or as 0x…") from None
        return found

    def refusal(self, found: str, do: str) -> InputError:
        """Return the error for a table that does not fit."""
        return InputError(f"Measurements in {self.path}", found, do)


def read_table(path: Path) -> MeasurementTable:
    """Read a table.

    Raises:
        InputError: The file cannot be read, or is no table.
    """
    asked, do = f"Measurements in {path}", "Give a CSV file with the names of its columns in the first line, or gzip of one"
    try:
        text = _unpack(read_bytes(path, _MOST_BYTES)).decode("utf-8-sig")
        comment, lines = _split(text.splitlines())
        names, *rows = list(csv.reader(io.StringIO("\n".join(lines)), strict=True))
    except (OSError, EOFError, ValueError, zlib.error, csv.Error) as error:
        raise InputError(asked, f"it is no table ({reason(error)})", do) from error
    names = [name.strip() for name in names]
    rows = [row for row in rows if row]
    if not rows or len(set(names)) != len(names) or not all(names):
        raise InputError(asked, f"it has {len(rows)} rows and the columns {', '.join(names)[:200]}", do)
    for place, row in enumerate(rows):
        if len(row) != len(names):
            raise InputError(asked, f"row {place + 1} has {len(row)} cells, and there are {len(names)} columns", do)
    return MeasurementTable(path, comment, {name: list(cells) for name, cells in zip(names, zip(*rows, strict=True), strict=True)})


def _unpack(content: bytes) -> bytes:
    """Return the text of a gzip file, or the content itself; ValueError if it unpacks to far more than its size suggests."""
    if content[:2] != b"\x1f\x8b":
        return content
    most = allowed(max(SMALL_BYTES, COMPRESSION * len(content)))
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
        text = stream.read(most + 1)
    if len(text) > most:
        raise ValueError(f"it unpacks to more than {most:,} bytes")
    return text


def _split(lines: Sequence[str]) -> tuple[str, list[str]]:
    """Return the comment of the # lines, and the other lines."""
    comment = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    return comment, [line for line in lines if line.strip() and not line.startswith("#")]
