"""Read-backs on disk, so that a killed host loses at most the point in progress.

    run.json            what was requested, of which board, with which versions; written once, before the first point
    contents.npz        what each pattern wrote: uint64 words, one array per pattern
    ring_curve.json     how the chip's ring oscillator slows down at each regulator code, so that a resumed run need not calibrate
    attempts.jsonl      one line per attempt at a point: when, how it ended and why, the die's temperature, power cycles
    points/0007.npz     one file per point, written atomically: `about` (JSON) and `errors` (repeats, words), read XOR written

Each point has one file under its own index, so nothing is lost and nothing is counted twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from weakcell.host.board.characterization.points import FailedAttempt, Outcome, Plan, Point, Record, load_plan
from weakcell.host.board.characterization.supply import LowPhase
from weakcell.host.board.link.protocol import PAGE_WORDS, ConnectedBoard
from weakcell.host.board.link.ring_curve import RingCurve
from weakcell.memmodels.address import Words
from weakcell.memmodels.atomic_files import append_text, check_writable, create_folder, write_atomically, write_text_atomically
from weakcell.memmodels.errors import InputError, OutputError
from weakcell.memmodels.files import parse_json, read_arrays, read_text, reason

SCHEMA = 1
_IDENTITY = {"chip", "memory", "virtual", "supply"}


@dataclass(frozen=True)
class Dump:
    """A folder of read-backs."""

    path: Path

    @cached_property
    def run(self) -> dict[str, Any]:
        """The contents of run.json; InputError if it is missing, damaged or of another schema."""
        try:
            values = parse_json(read_text(self.path / "run.json"))
            if values["schema_version"] != SCHEMA:
                raise ValueError(f"its schema is {str(values['schema_version'])[:40]}, this version reads {SCHEMA}")
            load_plan(values["plan"])
            if not isinstance(identity := values["identity"], dict) or not identity.keys() >= _IDENTITY:
                raise ValueError("it does not say what was measured")
            if not isinstance(identity["chip"], str):
                raise ValueError("its chip has no name")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            asked, found = f"The run in {self.path}", f"run.json cannot be read ({reason(error)})"
            raise InputError(asked, found, "Start a new one in another folder") from error
        return dict(values)

    @cached_property
    def plan(self) -> Plan:
        """The plan of the run."""
        return load_plan(self.run["plan"])

    @cached_property
    def contents(self) -> Mapping[str, Words]:
        """What each pattern wrote, (words,) uint64 by name; InputError if a pattern is missing."""
        asked, do = f"The run in {self.path}", "Start a new one in another folder"
        contents = read_arrays(self.path / "contents.npz", asked, do)
        shape = (self.plan.pages * PAGE_WORDS,)
        for name in self.plan.patterns:
            if name not in contents or contents[name].dtype != np.uint64 or contents[name].shape != shape:
                raise InputError(asked, f"contents.npz does not hold the {shape[0]} words of the pattern {name[:80]!r}", do)
        return contents

    def save(self, record: Record) -> None:
        """Save a point; it replaces an earlier attempt under the same index."""
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
        write_atomically(self._file(record.point.index), lambda file: np.savez_compressed(file, **arrays))

    def log(self, attempt: Mapping[str, object]) -> None:
        """Append an attempt to the log, with the time now."""
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **attempt}
        append_text(self.path / "attempts.jsonl", json.dumps(line, ensure_ascii=False) + "\n")

    def load(self, index: int) -> Record | None:
        """Load a point by index, None if it was not measured; InputError if its file is damaged."""
        path = self._file(index)
        if not path.exists():
            return None
        asked, do = f"Read-backs in {path}", "Remove the file, then `--resume`"
        arrays = read_arrays(path, asked, do)
        try:
            about, errors = parse_json(str(arrays["about"])), arrays.get("errors")
            failures = tuple(FailedAttempt(Outcome(one["outcome"]), one["message"]) for one in about["failures"])
            shots = tuple(LowPhase(**shot) for shot in about["shots"])
            point, outcome = Point(**about["point"]), Outcome(about["outcome"])
            if point != self.plan.points[index]:
                raise ValueError("they are of another point than the plan's")
            shape = (point.repeats, self.plan.pages * PAGE_WORDS)
            if outcome.has_counts and (errors is None or errors.dtype != np.uint64 or errors.shape != shape):
                raise ValueError(f"they do not hold {shape[0]} x {shape[1]} words")
            return Record(point, outcome, shots, errors, failures, float(about["seconds"]))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise InputError(asked, f"they are damaged ({reason(error)})", do) from error

    def records(self) -> list[Record]:
        """Load all points that were measured, in the order of the plan."""
        records = (self.load(point.index) for point in self.plan.points)
        return [record for record in records if record is not None]

    def save_curve(self, curve: RingCurve) -> None:
        """Save what is known of the chip's ring oscillator."""
        values = {
            "shares": {str(code): share for code, share in curve.shares.items()},
            "noise": curve.noise,
            "pulses": curve.pulses,
        }
        write_text_atomically(self.path / "ring_curve.json", json.dumps(values) + "\n")

    def load_curve(self, board: ConnectedBoard) -> RingCurve | None:
        """Load the curve of this chip; None if there is none, or it cannot be read: it is then measured again."""
        try:
            values = parse_json(read_text(self.path / "ring_curve.json"))
            shares = {int(code): None if share is None else float(share) for code, share in values["shares"].items()}
            return RingCurve(board, shares, [float(ratio) for ratio in values["noise"]], int(values["pulses"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def count_calibration_pulses(self) -> int:
        """Return how often the voltage was lowered to measure the curve."""
        try:
            return int(parse_json(read_text(self.path / "ring_curve.json"))["pulses"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return 0

    def _file(self, index: int) -> Path:
        return self.path / "points" / f"{index:04d}.npz"


def open_dump(path: Path, run: Mapping[str, Any], contents: Mapping[str, Words], resume: bool) -> Dump:
    """Open the folder of a new or a resumed run.

    Args:
        path: the folder.
        run: `identity` and `plan` are what the read-backs depend on; a resumed run must have the same.
        contents: what each pattern writes.
        resume: whether the folder may hold this run already.

    Raises:
        OutputError: the folder holds a run and `resume` is False, or cannot be written.
        InputError: the folder holds another run.
    """
    dump = Dump(path)
    if os.path.islink(path / "points"):  # of a stranger's folder; files elsewhere would be replaced
        raise OutputError(f"Read-backs in {path}", "its folder points is a link", "Remove it, or choose another --out")
    if os.path.exists(path / "run.json"):
        if not resume:
            do = "Continue it with --resume, or choose another --out"
            raise OutputError(f"Read-backs in {path}", "it holds a run already", do)
        _check_same(dump, run)
        return dump
    create_folder(path / "points")
    check_writable(path / "run.json")
    arrays: dict[str, Any] = dict(contents)
    write_atomically(path / "contents.npz", lambda file: np.savez_compressed(file, **arrays))
    text = json.dumps({"schema_version": SCHEMA, **run}, indent=2, ensure_ascii=False) + "\n"
    write_text_atomically(path / "run.json", text)
    return dump


def _check_same(dump: Dump, run: Mapping[str, Any]) -> None:
    for name in ("identity", "plan"):
        old, new = dump.run.get(name, {}), json.loads(json.dumps(run[name]))
        differ = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        if differ:
            shown = "; ".join(f"{key} was {old.get(key)}, is {new.get(key)}" for key in differ)
            raise InputError(f"Resuming the run in {dump.path}", shown, "Repeat the command that began it, or choose another --out")
