"""Load read-backs: those of a run on a board, or imported ones that somebody else took.

Imported read-backs have one of two forms. An `.npz`, for P read-backs of N bytes, each read R times:

    vdd (P,)            V
    written (N,), (P, N)            uint8: the bytes that were written, for all or for each
    read (P, N), (P, R, N)          uint8: the bytes that came back
    dwell_s (P,)        s at that voltage, if known
    rows, columns, nominal, title, source       optional, numbers and text

Or a TOML file beside binary files, which are named relative to it and lie in its folder:

    title = "28 nm block RAM"           and source, notes: for people
    rows = 1024                         a bank's geometry: address = (bank * rows + row) * columns + column
    columns = 16
    nominal = 1.0                       V, if one of the points is a control
    [[points]]
    vdd = 0.56                          V
    written = "ones"                    zeros, ones, checkerboard, or a file of bytes
    reads = ["r0.bin", "r1.bin"]        each as long as the others
    dwell_s = 0.01                      optional

Cell 0 is the lowest bit of the first byte. All read-backs are of the same cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from weakcell.host.board.boards import BOARDS, DEFAULT_BOARD
from weakcell.host.board.characterization.dump import Dump
from weakcell.host.board.characterization.points import Outcome, Record
from weakcell.host.board.link.protocol import PAGE
from weakcell.host.board.readbacks.readback_set import PatternReadback, ReadbackSet
from weakcell.memmodels.error_model.structure import Bank
from weakcell.memmodels.errors import InputError
from weakcell.memmodels.files import read_arrays, read_bytes, read_text, reason
from weakcell.memmodels.toml_text import parse_toml

Bytes = npt.NDArray[np.uint8]
_DECIMALS = 6
"""Digits of a voltage that count: 0.6 V written as float32 is 0.6 V."""
_PATTERNS = {"zeros": 0x00, "ones": 0xFF, "checkerboard": 0x55}
_MOST_BYTES = 1 << 30
_SEE = "See `weakcell characterize --help` and the head of host/board/readbacks/loading.py for the format"


def load_run(dump: Dump, bank: Bank | None = None) -> ReadbackSet:
    """Load the points of a run that were measured so far; bank: instead of the board's own geometry."""
    run, plan, contents, records = dump.run, dump.plan, dump.contents, dump.records()
    measured = tuple(
        PatternReadback(
            record.point.vdd,
            record.point.dwell_s,
            record.point.pattern,
            record.outcome,
            contents[record.point.pattern],
            record.errors,
            tuple(shot.celsius for shot in record.shots if shot.celsius is not None),
        )
        for record in records
    )
    identity = run["identity"]
    chip = identity["chip"]
    board = BOARDS.get(chip, BOARDS[DEFAULT_BOARD])
    name = f"virtual {chip} with cells of {identity['memory']}" if identity["virtual"] else chip
    note = run.get("temperature_note")
    return ReadbackSet(
        title=f"{name}, {plan.experiment}, {identity['supply']}",
        experiment=plan.experiment,
        bits=plan.pages * PAGE * 8,
        bank=bank or Bank(*board.bank),
        stripes=1 if bank else board.stripes,
        measured=measured,
        nominal=plan.nominal,
        basis="computed" if identity["virtual"] else "measured",
        source=f"weakcell characterize, {plan.shots} shots",
        notes=(f"Temperature: {note}" if note else "Temperature not noted") + _describe_die(records),
    )


def _describe_die(records: Sequence[Record]) -> str:
    """Return the range of the die's temperature, and what was seen of its voltage; empty for firmware that cannot tell."""
    shots = [shot for record in records for shot in record.shots]
    celsius = [shot.celsius for shot in shots if shot.celsius is not None]
    if not celsius:
        return ""
    text = f". Die {min(celsius):.0f} to {max(celsius):.0f} °C by its own sensor, not calibrated"
    errors = [abs(shot.seen - shot.commanded) for shot in shots if shot.seen is not None]
    measured = [shot.measured / shot.seen for shot in shots if shot.seen and shot.measured is not None]
    if measured:
        text += f". Core at {100 * measured[0]:.1f} % of the regulator's steps, by one reading of a meter"
    return text + (f". Core within {1000 * max(errors):.0f} mV of the regulator's steps, by its ring oscillator" if errors else "")


class _PointTable(BaseModel):
    """A [[points]] table."""

    model_config = ConfigDict(extra="forbid")
    vdd: float = Field(gt=0, lt=100)
    written: str
    reads: list[str] = Field(min_length=1)
    dwell_s: float = Field(0.0, ge=0, allow_inf_nan=False)


class _Metadata(BaseModel):
    """Everything in a file but its read-backs."""

    model_config = ConfigDict(extra="forbid")
    title: str = ""
    source: str = ""
    notes: str = ""
    rows: int = Field(1024, ge=1)
    columns: int = Field(16, ge=1)
    nominal: float | None = Field(None, gt=0, lt=100)


class _File(_Metadata):
    """The TOML file."""

    points: list[_PointTable] = Field(min_length=1)


def load_readbacks(path: Path, bank: Bank | None = None, anywhere: bool = False) -> ReadbackSet:
    """Import read-backs.

    Args:
        path: An .npz or .toml.
        bank: Geometry, instead of the file's.
        anywhere: Whether a TOML file may name files outside its folder.

    Raises:
        InputError: The file does not fit.
    """
    if path.name.endswith((".csv", ".csv.gz")):
        raise _refusal(path, "it is a table, not bytes that were read", "Import it by `weakcell characterize --import`")
    metadata, points = _load_npz(path) if path.suffix == ".npz" else _load_toml(path, anywhere)
    sizes = {written.size for _, _, written, _ in points}
    if not any(sizes):
        raise _refusal(path, "it holds no bytes that were read", _SEE)
    if len(sizes) != 1:
        raise _refusal(path, f"its read-backs have {', '.join(map(str, sorted(sizes)))} bytes", "Give read-backs of the same cells")
    (size,) = sizes
    names: dict[bytes, str] = {}
    measured = []
    for vdd, dwell_s, written, reads in points:
        pattern = names.setdefault(written.tobytes(), f"pattern {len(names) + 1}")
        words, errors = _words(written), np.stack([_words(read ^ written) for read in reads])
        outcome = Outcome.FLIPS if errors.any() else Outcome.OK
        measured.append(PatternReadback(round(vdd, _DECIMALS), dwell_s, pattern, outcome, words, errors))
    keys = [(one.vdd, one.dwell_s, one.pattern) for one in measured]
    if len(set(keys)) != len(keys):
        raise _refusal(path, "the same bytes at the same voltage are there twice", "Put their reads into one point")
    return ReadbackSet(
        title=metadata.title or path.stem,
        experiment="as imported",
        bits=size * 8,
        bank=bank or Bank(metadata.rows, metadata.columns),
        measured=tuple(measured),
        nominal=None if metadata.nominal is None else round(metadata.nominal, _DECIMALS),
        source=metadata.source or path.name,
        notes=metadata.notes,
    )


_Points = Sequence[tuple[float, float, Bytes, Sequence[Bytes]]]
_Model = TypeVar("_Model", bound=BaseModel)


def _load_npz(path: Path) -> tuple[_Metadata, _Points]:
    arrays = read_arrays(path, f"Read-backs in {path}", "Check the path; it must be an .npz of plain arrays")
    if missing := {"vdd", "written", "read"} - arrays.keys():
        raise _refusal(path, f"it has no array {', '.join(sorted(missing))}, but {', '.join(arrays) or 'nothing'}", _SEE)
    vdd, written, read = np.atleast_1d(_numbers(path, "vdd", arrays["vdd"])), arrays["written"], arrays["read"]
    if read.ndim == 2:
        read = read[:, None]
    if written.dtype != np.uint8 or read.dtype != np.uint8:
        raise _refusal(path, f"written is {written.dtype} and read is {read.dtype}", "Give both as uint8 bytes")
    if vdd.ndim != 1 or read.ndim != 3 or len(read) != vdd.size or read.shape[1] < 1:
        raise _refusal(path, f"vdd has the shape {vdd.shape} and read {arrays['read'].shape}", _SEE)
    if written.shape not in ((read.shape[2],), (vdd.size, read.shape[2])):
        raise _refusal(path, f"written has the shape {written.shape} and read {arrays['read'].shape}", _SEE)
    if not ((vdd > 0) & (vdd < 100)).all():
        raise _refusal(path, f"vdd = {vdd.tolist()} are no voltages", "Give them in V")
    all_written = np.broadcast_to(written, (vdd.size, read.shape[2]))
    dwell = _numbers(path, "dwell_s", arrays.get("dwell_s", np.zeros(())))
    if dwell.shape not in ((), (1,), vdd.shape) or not ((dwell >= 0) & np.isfinite(dwell)).all():
        raise _refusal(path, f"dwell_s = {dwell.tolist()}", f"Give one time in s, or {vdd.size} of them, none below 0")
    dwell = np.broadcast_to(dwell, vdd.shape)
    others = arrays.keys() - {"vdd", "written", "read", "dwell_s"}
    metadata = _validate(path, _Metadata, {name: arrays[name].tolist() for name in others})
    return metadata, [
        (float(v), float(d), np.ascontiguousarray(w), list(reads))
        for v, d, w, reads in zip(vdd, dwell, all_written, read, strict=True)
    ]


def _numbers(path: Path, name: str, array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return an array of real numbers as float64; InputError for anything else."""
    if array.dtype.kind not in "fiub":
        raise _refusal(path, f"{name} is {array.dtype}", "Give numbers")
    return array.astype(np.float64)


def _load_toml(path: Path, anywhere: bool) -> tuple[_Metadata, _Points]:
    try:
        values = parse_toml(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise _refusal(path, f"it cannot be read ({reason(error)})", "Give an .npz, or a TOML file") from error
    file = _validate(path, _File, values)
    return file, [_load_point(path, number, point, anywhere) for number, point in enumerate(file.points, start=1)]


def _load_point(path: Path, number: int, point: _PointTable, anywhere: bool) -> tuple[float, float, Bytes, Sequence[Bytes]]:
    reads = [_bytes(path, name, anywhere) for name in point.reads]
    known = point.written in _PATTERNS
    written = np.full(reads[0].size, _PATTERNS[point.written], np.uint8) if known else _bytes(path, point.written, anywhere)
    for name, read in zip(point.reads, reads, strict=True):
        if read.size != written.size:
            found = f"point {number}: {name} has {read.size} bytes, {point.written} has {written.size}"
            raise _refusal(path, found, "Give files of one length")
    return point.vdd, point.dwell_s, written, reads


def _validate(path: Path, model: type[_Model], values: Mapping[str, Any]) -> _Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part + 1) if isinstance(part, int) else part for part in first["loc"])
        raise _refusal(path, f"{where}: {first['msg'].lower()}", _SEE) from error


def _bytes(path: Path, name: str, anywhere: bool) -> Bytes:
    try:
        file = (path.parent / name).resolve()
        if not anywhere and not file.is_relative_to(path.parent.resolve()):
            raise _refusal(path, f"{name} lies outside its folder", "Move it there, or allow it with --import-anywhere")
        data = np.frombuffer(read_bytes(file, _MOST_BYTES), np.uint8)
    except (OSError, ValueError) as error:
        raise _refusal(path, f"{name} cannot be read ({reason(error)})", "Paths are relative to the TOML file") from error
    if data.size == 0:
        raise _refusal(path, f"{name} is empty", "Give the bytes that were read")
    return data


def _words(data: Bytes) -> npt.NDArray[np.uint64]:
    """Return bytes as uint64 words, the last one filled up with zeros."""
    padded = np.zeros(-(-data.size // 8) * 8, np.uint8)
    padded[: data.size] = data
    return padded.view("<u8")


def _refusal(path: Path, found: str, do: str) -> InputError:
    return InputError(f"Read-backs in {path}", found, do)
