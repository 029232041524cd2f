"""Fault lists: CSV with a header in JSON, and Parquet."""

from __future__ import annotations

import json
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import polars as pl

from tests.fuzzing.engine import Reader
from tests.fuzzing.mutations import FLOATS, INTEGERS, change_tree, damage, damage_text, hostile_text
from weakcell.host.study.fault_list import COLUMNS, load_faults


def _header(random: Random) -> str:
    header: dict[str, Any] = {
        "format": 1,
        "model": "digits-bnn",
        "memory": "uniform:ber=0.01",
        "sweep": {"key": "ber", "values": [0.01]},
    }
    return json.dumps(change_tree(header, random, random.choice((0, 0, 1, 2))), default=str)


def _cell(name: str, row: int, random: Random) -> str:
    if random.randrange(60) == 0:
        return random.choice((hostile_text(random)[:200], str(random.choice(INTEGERS)), str(random.choice(FLOATS)), "", '"', "1,2"))
    values = {"sweep_value": "0.5", "trial": str(row % 2), "read": "0", "tensor": "w", "element": str(row), "bit": str(row % 8)}
    return values.get(name) or ("0" if (name == "stored") == bool(row % 3) else "1")


def _csv(random: Random) -> bytes:
    names = [name for name in COLUMNS if random.randrange(25)]
    random.shuffle(names)
    rows = [",".join(_cell(name, row, random) for name in names) for row in range(random.choice((0, 1, 3, 20)))]
    if rows and random.randrange(10) == 0:
        rows.append(rows[0])
    head = [f"# weakcell-faults {_header(random)}"] if random.randrange(3) else []
    end = random.choice(("\n", "\n", "\n", "\r\n", "\r"))
    return end.join([*head, ",".join(names), *rows, ""]).encode("utf-8", "replace")


_LISTS = pl.List(pl.Int64)
_KINDS = (
    *(pl.Int64, pl.Int64, pl.Int64, pl.UInt8, pl.Int32, pl.Float64, pl.String, pl.Boolean, pl.Date, pl.Categorical, pl.Binary),
    _LISTS,
)


@cache
def _frame(number: int) -> bytes:
    """Return a Parquet file; a few hundred are enough, since their damage differs."""
    random = Random(number)
    height, columns = random.choice((0, 1, 3, 20)), {}
    for name in [name for name in COLUMNS if random.randrange(20)]:
        values = pl.Series(name, [float(_cell(name, row, Random(0))) if name != "tensor" else 0.0 for row in range(height)])
        kind = pl.Float64 if name == "sweep_value" else pl.String if name == "tensor" else pl.Int64
        kind = random.choice(_KINDS) if random.randrange(12) == 0 else kind  # type: ignore[assignment]
        try:
            columns[name] = (
                values.cast(pl.Int64).cast(kind, strict=False) if kind != pl.List(pl.Int64) else values.reshape((height, 1))
            )
        except pl.exceptions.PolarsError:
            columns[name] = values
    file = BytesIO()
    compression: Any = random.choice(("zstd", "lz4", "snappy", "gzip", "uncompressed"))
    pl.DataFrame(columns).write_parquet(file, compression=compression, metadata={"weakcell-faults": _header(random)})
    return file.getvalue()


def _parquet(random: Random) -> bytes:
    data = _frame(random.randrange(400))
    kind = random.randrange(4)
    if kind == 0:
        return data
    if kind == 1:
        return damage(data, random)
    tail = int.from_bytes(data[-8:-4], "little") + 8  # the footer says what the file holds
    foot = bytearray(data[-tail:-8])
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(foot))
        foot[at] = random.choice((random.randrange(256), foot[at] ^ (1 << random.randrange(8)), 0xFF, 0))
    if kind == 3:
        at = random.randrange(len(foot))
        foot[at:at] = b"\xff\xff\xff\xff\xff\x7f"[: random.randint(1, 6)]
    return data[:-tail] + bytes(foot) + len(foot).to_bytes(4, "little") + data[-4:]


def _read(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    faults = load_faults(path)
    _ = faults.trials, faults.values, faults.tensors
    for value, trial, tensor in faults.rows:
        faults.flips(value, trial, tensor, 0)


_DAMAGED = "polars cannot read|out of spec|thrift|File"
_MISSING = "it has no column"
READERS = {
    reader.name: reader
    for reader in (
        Reader("faults-csv", _csv, lambda data, folder: _read(data, folder / "f.csv"), _MISSING, ".csv", damage_text, tests=60),
        Reader("faults-parquet", _parquet, lambda data, folder: _read(data, folder / "f.parquet"), _DAMAGED, ".parquet", tests=20),
    )
}
