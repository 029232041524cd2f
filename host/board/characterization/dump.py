"""Read-backs on disk, kept so that a killed host loses at most the point in flight.

    run.json            what was asked, of which board, with what; written once, before the first point
    contents.npz        what each pattern wrote: uint64 words, one array per pattern
    points/0007.npz     one file per point, whole or not at all: `about` (JSON) and `errors` (repeats, words), read XOR written

A point is in the folder or it is not, under its own number, so nothing is lost and nothing is counted twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from weakcell.host.atomic_files import check_writable, write_atomically
from weakcell.host.board.characterization.points import FailedAttempt, Outcome, Plan, Point, Record, load_plan
from weakcell.host.board.characterization.supply import LowPhase
from weakcell.memmodels.address import Words
from weakcell.memmodels.errors import InputError, OutputError
from weakcell.memmodels.files import read_arrays, read_text, reason

SCHEMA = 1


@dataclass(frozen=True)
class Dump:
    """A folder of read-backs."""

    path: Path

    @cached_property
    def run(self) -> dict[str, Any]:
        """run.json; InputError if it is missing, damaged or of another schema."""
        try:
            told = json.loads(read_text(self.path / "run.json"))
            if told["schema_version"] != SCHEMA:
                raise ValueError(f"its schema is {told['schema_version']!r}, this version reads {SCHEMA}")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            asked, found = f"The run in {self.path}", f"run.json cannot be read ({reason(error)})"
            raise InputError(asked, found, "Start a new one in another folder") from error
        return dict(told)

    @property
    def plan(self) -> Plan:
        return load_plan(self.run["plan"])

    @cached_property
    def contents(self) -> Mapping[str, Words]:
        """What each pattern wrote."""
        return read_arrays(self.path / "contents.npz", f"The run in {self.path}", "Start a new one in another folder")

    def save(self, record: Record) -> None:
        """Keep a point; it replaces what an earlier attempt left under its number."""
        about = {
            "point": asdict(record.point),
            "outcome": str(record.outcome),
            "shots": [asdict(shot) for shot in record.shots],
            "failures": [{"outcome": str(failure.outcome), "message": failure.message} for failure in record.failures],
            "seconds": round(record.seconds, 6),
        }
        arrays: dict[str, Any] = {"about": np.array(json.dumps(about, ensure_ascii=False))}
        if record.errors is not None:
            arrays["errors"] = record.errors
        write_atomically(self._file(record.point.index), lambda place: _save_arrays(place, arrays))

    def load(self, index: int) -> Record | None:
        """The point of that number, None if it was not measured; InputError if its file is damaged."""
        path = self._file(index)
        if not path.exists():
            return None
        asked, do = f"Read-backs in {path}", "Remove the file, then `--resume`"
        arrays = read_arrays(path, asked, do)
        try:
            told, errors = json.loads(str(arrays["about"])), arrays.get("errors")
            failures = tuple(FailedAttempt(Outcome(one["outcome"]), one["message"]) for one in told["failures"])
            shots = tuple(LowPhase(**shot) for shot in told["shots"])
            return Record(Point(**told["point"]), Outcome(told["outcome"]), shots, errors, failures, told["seconds"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(asked, f"they are damaged ({reason(error)})", do) from error

    def records(self) -> list[Record]:
        """All points that were measured, in the plan's order."""
        found = (self.load(point.index) for point in self.plan.points)
        return [record for record in found if record is not None]

    def _file(self, index: int) -> Path:
        return self.path / "points" / f"{index:04d}.npz"


def open_dump(path: Path, run: Mapping[str, Any], contents: Mapping[str, Words], resume: bool) -> Dump:
    """The folder of a run, new or resumed; OutputError or InputError if it holds another run, or one without `resume`.

    run: `identity` and `plan` say what the read-backs depend on; a resumed run must have the same.
    """
    dump = Dump(path)
    if (path / "run.json").exists():
        if not resume:
            do = "Continue it with --resume, or choose another --out"
            raise OutputError(f"Read-backs in {path}", "it holds a run already", do)
        _check_same(dump, run)
        return dump
    try:
        (path / "points").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Read-backs in {path}", error.strerror or str(error), "Choose a folder that can be written") from error
    check_writable(path / "run.json")
    write_atomically(path / "contents.npz", lambda place: _save_arrays(place, dict(contents)))
    text = json.dumps({"schema_version": SCHEMA, **run}, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path / "run.json", lambda place: place.write_text(text, encoding="utf-8"))
    return dump


def _check_same(dump: Dump, run: Mapping[str, Any]) -> None:
    for name in ("identity", "plan"):
        old, new = dump.run.get(name, {}), json.loads(json.dumps(run[name]))
        differ = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        if differ:
            shown = "; ".join(f"{key} was {old.get(key)}, is {new.get(key)}" for key in differ)
            raise InputError(f"Resuming the run in {dump.path}", shown, "Repeat the command that began it, or choose another --out")


def _save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
