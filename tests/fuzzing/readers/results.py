"""Results folders: the store of a campaign, the tables of a study, and the run of a characterization.

An input is JSON that says what the folder holds. So a kept input can be read, and most changes leave valid SQLite or Parquet files.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import polars as pl

from tests.fuzzing.engine import Reader, empty
from tests.fuzzing.mutations import FLOATS, INTEGERS, change_tree, damage_text, hostile_text, write_json
from weakcell.host.board.characterization.dump import Dump
from weakcell.host.board.readbacks.loading import load_run
from weakcell.host.campaign.explain import find_run
from weakcell.host.campaign.store import _SCHEMA, read_store
from weakcell.host.campaign.tables import Tables, compute_differences
from weakcell.host.report.answers import summarize
from weakcell.host.report.data import read_report_data

_TENSORS = ["conv1.weight", "dense2.weight"]
_COLUMNS = {
    "schema_version": 2, "sampler": 2, "model": "digits-bnn", "data": "digits", "memory": "uniform:ber=0.1", "places": "",
    "sweep_key": "ber", "sweep_value": 0.1, "seed": 0, "read_every": "load", "sampling": "bits", "batch": 256, "images": 20,
    "task": "classes", "output": "y", "score": "accuracy", "clean_accuracy": 1.0, "clean_score": 1.0, "energy": 0.5,
    "energy_unit": "pJ", "energy_basis": "published", "energy_share": 1.0, "reads_per_inference": 1.0, "access_latency_ns": None,
}  # fmt: skip
_ASKED = {
    "model": "digits-bnn", "data": None, "memory": "uniform:ber=0.1", "place": [], "read_every": "load", "batch": 256, "seed": 0,
    "die": None, "images": 20, "task": None, "output": None,
}  # fmt: skip


def _generator(make: Callable[[Random], dict[str, Any]]) -> Callable[[Random], bytes]:
    return lambda random: write_json(change_tree(make(random), random, random.choice((0, 1, 1, 1, 2, 3))), random)


def _mutate(data: bytes, random: Random) -> bytes:
    try:
        return write_json(change_tree(json.loads(data), random), random)
    except (ValueError, RecursionError):
        return damage_text(data, random)


def _parse(data: bytes) -> dict[str, Any]:
    """Return the parts of a folder; nothing for bytes that do not describe one."""
    with contextlib.suppress(ValueError, RecursionError):
        parts = json.loads(data)
        if isinstance(parts, dict):
            return parts
    return {}


# --- the store of a campaign ---------------------------------------------------------------------------------------------------

_ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
_RUN = "SELECT 1 AS cell, x AS trial, 0 AS die, 1.0 AS accuracy, 0.0 AS changed, 1 AS bits_read, '[1, 2]' AS flips FROM c"
_STATEMENTS = (
    f"DROP TABLE runs; CREATE VIEW runs AS {_ENDLESS} {_RUN}",
    f"DROP TABLE facts; CREATE VIEW facts AS {_ENDLESS} SELECT 'version' AS name, x AS content FROM c",
    *("ALTER TABLE runs DROP COLUMN flips", "ALTER TABLE runs RENAME COLUMN die TO dye", "DROP TABLE metrics", "DROP TABLE cells"),
    *("DROP TABLE facts", "DROP TABLE facts; CREATE TABLE facts (name TEXT, content TEXT AS (hex(zeroblob(300000000))))"),
    "CREATE VIRTUAL TABLE extra USING fts5(a)",
    "DROP TABLE metrics; CREATE VIRTUAL TABLE metrics USING fts5(cell, trial, score, content)",
    "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM runs; END",
    *("CREATE INDEX i ON runs (hex(zeroblob(3000)))", "UPDATE runs SET flips = x'ff'", "UPDATE runs SET accuracy = 'abc'"),
    *("UPDATE runs SET trial = 9223372036854775807", "UPDATE cells SET sha256 = NULL", "UPDATE runs SET changed = 9e999"),
    *("UPDATE runs SET flips = '[1]'", "UPDATE cells SET tensors = '[[]]'", "UPDATE facts SET content = NULL"),
    "DROP TABLE runs; CREATE TABLE runs AS SELECT * FROM cells",
    "PRAGMA writable_schema = 1; UPDATE sqlite_master SET sql = 'CREATE TABLE runs(x'",
    *("PRAGMA user_version = 77", "PRAGMA application_id = 1"),
)


def _store(random: Random) -> dict[str, Any]:
    cells, runs, metrics = [], [], []
    trials, labelled = random.choice((1, 2, 3)), random.randrange(3) > 0
    for number in range(1, random.choice((2, 3, 4))):
        value = 0.1 * number
        cells.append(
            [
                number,
                f"{number:064x}",
                number - 1,
                0,
                _TENSORS,
                {**_COLUMNS, "sweep_value": value, "score": "accuracy" if labelled else "unchanged"},
                dict(_ASKED),
            ]
        )
        for trial in range(trials):
            runs.append([number, trial, trial, random.choice((0.5, 0.9)) if labelled else None, 0.25, 1000, [3, 4], 0.1])
            if random.randrange(3) == 0:
                metrics.append([number, trial, 0.5, {"mean_iou": 0.5}])
    half = random.choice((None, None, 0.01))
    facts: dict[str, Any] = {
        "version": 1, "file": "trials = 2\n", "command": ["weakcell", "sweep", "c.toml"], "machine": {"system": "Linux"},
        "networks": [
            {"model": "digits-bnn", "data": None, "images": 20, "identity": {"model": "digits-bnn"}, "task": None, "output": None}
        ],
        "campaign": {"labels": ["digits-bnn, uniform"], "trials": trials, "half_width": half, "first_stage": half and 2},
    }  # fmt: skip
    if random.randrange(4) == 0:
        facts[f"trials {1:064x}"] = random.choice((1, 2))
        facts[f"control {1:064x}"] = {"tensor": _TENSORS[0], "expected": 3.0}
    extra = [random.choice(_STATEMENTS)] if random.randrange(5) == 0 else []
    if random.randrange(8) == 0:
        column = random.choice(("trial", "die", "accuracy", "changed", "bits_read", "flips"))
        extra.append(
            f"UPDATE runs SET {column} = {random.choice((*INTEGERS[:-6], 'NULL', '1e999', '-0.5', repr('x'), 'zeroblob(9)'))}"
        )
    return {"cells": cells, "runs": runs, "metrics": metrics, "facts": facts, "extra": extra}


def _write_store(parts: dict[str, Any], path: Path) -> None:
    """Write a store; what SQLite itself refuses is left out."""
    db = sqlite3.connect(":memory:")
    db.executescript(_SCHEMA)
    for table in ("cells", "runs", "metrics"):
        rows = parts.get(table)
        for row in rows if isinstance(rows, list) else ():
            with contextlib.suppress(sqlite3.Error, OverflowError, UnicodeError, AttributeError, TypeError):
                values = [json.dumps(value) if isinstance(value, list | dict) else value for value in row]
                db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)
    facts = parts.get("facts")
    for name, content in facts.items() if isinstance(facts, dict) else ():
        with contextlib.suppress(sqlite3.Error, UnicodeError):
            db.execute("INSERT INTO facts VALUES (?, ?)", (name, json.dumps(content)))
    db.commit()
    extra = parts.get("extra")
    for statement in extra if isinstance(extra, list) else ():
        if statement in _STATEMENTS or str(statement).startswith("UPDATE runs SET "):  # a changed statement may run for ever here
            with contextlib.suppress(sqlite3.Error, sqlite3.Warning, ValueError, TypeError, UnicodeError):
                db.executescript(statement)
    path.write_bytes(db.serialize())
    db.close()


def _read_sqlite(data: bytes, folder: Path) -> None:
    empty(folder)
    parts = _parse(data)
    _write_store(parts, folder / "runs.sqlite")
    if "json" in parts:
        (folder / "campaign.json").write_text(json.dumps(parts["json"]))
    summarize(read_report_data(folder, extras=False))
    with read_store(folder) as store:
        compute_differences(Tables(store))
        _ = find_run(store, "1").command


# --- a study -------------------------------------------------------------------------------------------------------------------


def _study(random: Random) -> dict[str, Any]:
    identity = {"model": "digits-bnn", "data": "digits", "memory": "uniform:ber=0.1", "images": 20, "task": None, "output": None}
    stated = {
        "schema_version": 2, "identity": identity, "command": ["weakcell", "emulate", "digits-bnn", "--data", "digits"],
        "model": {"name": "digits-bnn", "path": "x.onnx"}, "versions": {"python": "3.11"}, "clean_score": 1.0,
    }  # fmt: skip
    rows = [
        {
            **_COLUMNS,
            "trial": trial,
            "die": trial,
            "accuracy": 0.5,
            "changed": 0.5,
            "bits_read": 1000,
            "flips": 7,
            "flip_rate": 0.007,
        }
        for trial in range(random.choice((1, 2, 5)))
    ]
    if random.randrange(4) == 0:
        column = random.choice(list(rows[0]))
        for row in rows:
            row[column] = random.choice((None, hostile_text(random)[:50], random.choice(INTEGERS[:20]), random.choice(FLOATS)))
    return {"study": stated, "rows": rows}


def _read_study(data: bytes, folder: Path) -> None:
    empty(folder)
    parts = _parse(data)
    (folder / "study.json").write_text(json.dumps(parts.get("study")))
    rows = parts.get("rows")
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    (folder / "results.parquet").write_bytes(_parquet(json.dumps(rows)))
    summarize(read_report_data(folder, extras=False))


@cache
def _no_rows() -> bytes:
    return _write(pl.DataFrame())


def _parquet(rows: str) -> bytes:
    try:
        return _write(pl.DataFrame(json.loads(rows), infer_schema_length=None))
    except BaseException:  # rows that polars itself does not take
        return _no_rows()


def _write(frame: pl.DataFrame) -> bytes:
    file = BytesIO()
    frame.write_parquet(file)
    return file.getvalue()


# --- the run of a characterization ---------------------------------------------------------------------------------------------


def _run(random: Random) -> dict[str, Any]:
    plan = {
        "experiment": "hold",
        "voltages": [1.1, 0.8],
        "dwells": [0.01],
        "patterns": ["zeros", "ones"],
        "repeats": 2,
        "pages": 1,
        "seed": 0,
    }
    identity = {"chip": "rp2350", "memory": "uniform:ber=0.1", "virtual": True, "supply": "on board"}
    run = {"schema_version": 1, "identity": identity, "plan": plan, "temperature_note": None}
    points = [
        {"point": {"index": i, "vdd": (1.1, 1.1, 0.8, 0.8)[i], "dwell_s": 0.01, "pattern": ("zeros", "ones")[i % 2],
                   "repeats": (1, 1, 2, 2)[i]}, "outcome": "flips", "shots": [],
         "failures": [{"outcome": "reset", "message": "m"}] if random.randrange(3) == 0 else [], "seconds": 0.5}
        for i in range(random.randrange(4))
    ]  # fmt: skip
    return {"run": run, "points": points, "words": random.choice((32, 32, 32, 1, 0))}


def _read_run(data: bytes, folder: Path) -> None:
    empty(folder)
    parts = _parse(data)
    (folder / "run.json").write_text(json.dumps(parts.get("run")))
    words = np.zeros(next((size for size in (0, 1) if parts.get("words") == size), 32), np.uint64)
    np.savez(folder / "contents.npz", zeros=words, ones=words)
    (folder / "points").mkdir()
    points = parts.get("points")
    for index, about in enumerate(points[:4] if isinstance(points, list) else ()):
        errors = {"errors": np.zeros((1 + index // 2, words.size), np.uint64)}
        np.savez(folder / "points" / f"{index:04d}.npz", about=np.array(json.dumps(about)), **errors)  # type: ignore[arg-type]
    load_run(Dump(folder))


def _reader(name: str, make: Callable[[Random], dict[str, Any]], read: Callable[[bytes, Path], object], early: str) -> Reader:
    return Reader(name, _generator(make), read, early, ".json", _mutate, tests=15)


READERS = {
    reader.name: reader
    for reader in (
        _reader("results-sqlite", _store, _read_sqlite, "no such table|no such column|no run is finished"),
        _reader("results-study", _study, _read_study, "no run is finished|study.json does not say|not subscriptable"),
        _reader("run-folder", _run, _read_run, "run.json cannot be read"),
    )
}
