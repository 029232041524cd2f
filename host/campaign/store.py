"""The store of runs: `runs.sqlite` in the campaign's folder, one SQLite file in write-ahead mode.

A cell is identified by the content hash of everything that its runs depend on, a run by its cell and the number of its trial. A
changed network, image, condition or sampling format gives another cell, so that old and new runs are never mixed. Each result is
committed when it arrives: a process that is killed loses only its unfinished runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from weakcell.emulator.evaluation.trials import TrialResult
from weakcell.memmodels.atomic_files import create_folder, open_lock_file
from weakcell.memmodels.errors import InputError, OutputError
from weakcell.memmodels.files import open_regular, parse_json, reason
from weakcell.memmodels.printable import escape_surrogates

VERSION = 1
FILE = "runs.sqlite"

_COPIES = 25
"""How often a store is copied that changes meanwhile, about 5 s in all."""

_MOST = (1 << 63) - 1
_Kind = TypeVar("_Kind")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS cells (
    id INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,
    place INTEGER,               -- in the campaign as it was last asked for; NULL: of an earlier one
    study INTEGER,
    tensors TEXT NOT NULL,       -- JSON list: what the flips of a run count, in this order
    columns TEXT NOT NULL,       -- JSON: what all rows of the cell share
    asked TEXT NOT NULL          -- JSON: the options that reproduce it
);
CREATE TABLE IF NOT EXISTS runs (
    cell INTEGER NOT NULL REFERENCES cells,
    trial INTEGER NOT NULL,
    die INTEGER NOT NULL,
    accuracy REAL,
    changed REAL NOT NULL,
    bits_read INTEGER NOT NULL,
    flips TEXT NOT NULL,         -- JSON list, one count per tensor of the cell
    seconds REAL NOT NULL,
    PRIMARY KEY (cell, trial)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS metrics (
    cell INTEGER NOT NULL REFERENCES cells,
    trial INTEGER NOT NULL,
    score REAL NOT NULL,         -- the value of the task's own metric
    content TEXT NOT NULL,       -- JSON: every metric by name, besides accuracy and changed
    PRIMARY KEY (cell, trial)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, content TEXT NOT NULL);
"""


@dataclass(frozen=True)
class CellRecord:
    """A stored cell.

    Attributes:
        number: its key in the store.
        study: position of its study in the campaign.
        tensors: whose flips its runs count, in this order.
        columns: values that all its rows share.
        asked: options of `weakcell emulate` that reproduce it.
    """

    number: int
    sha256: str
    study: int
    tensors: tuple[str, ...]
    columns: dict[str, Any]
    asked: dict[str, Any]


@dataclass(frozen=True)
class RunRecord:
    """A stored run.

    Attributes:
        flips: by tensor of its cell.
        score: value of the task's own metric; without one, accuracy, or without labels the share of unchanged predictions.
        metrics: further metrics by name.
    """

    trial: int
    die: int
    accuracy: float | None
    changed: float
    bits_read: int
    flips: tuple[int, ...]
    score: float
    metrics: dict[str, float]


_TEXT, _WHOLE, _NONE = str, int, type(None)
_ASKED: dict[str, tuple[type, ...]] = {
    "model": (_TEXT,), "data": (_TEXT, _NONE), "memory": (_TEXT,), "place": (list,), "read_every": (_TEXT,), "batch": (_WHOLE,),
    "seed": (_WHOLE,), "die": (_WHOLE, _NONE), "images": (_WHOLE, _NONE), "task": (_TEXT, _NONE), "output": (_TEXT, _NONE),
}  # fmt: skip
"""Types of the options in `CellRecord.asked`."""

_COLUMNS: dict[str, tuple[type, ...]] = {
    "model": (_TEXT,), "data": (_TEXT,), "memory": (_TEXT,), "images": (_WHOLE,), "score": (_TEXT, _NONE),
}  # fmt: skip
"""Types of the columns in `CellRecord.columns` that are used by themselves; tables check the others."""


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and (not isinstance(value, list) or all(isinstance(part, str) for part in value))


def run_id(cell_sha256: str, trial: int) -> str:
    """Return the name of a run: 16 hex digits of the hash of its cell and trial."""
    return hashlib.sha256(f"{cell_sha256} {trial}".encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Store:
    """An open store; see `open_store` and `read_store`."""

    folder: Path
    db: sqlite3.Connection

    def register_cells(self, cells: Iterable[tuple[str, int, Sequence[str], dict[str, Any], dict[str, Any]]]) -> list[int]:
        """Make these the campaign's cells.

        Args:
            cells: (sha256, study, tensors, columns, asked) of each; see `CellRecord`.

        Returns:
            The store's number of each cell.
        """
        with self.db:
            self.db.execute("UPDATE cells SET place = NULL")
            for place, (sha, study, tensors, columns, asked) in enumerate(cells):
                row = (sha, place, study, *(_json(part) for part in (list(tensors), columns, asked)))
                self.db.execute(
                    "INSERT INTO cells (sha256, place, study, tensors, columns, asked) VALUES (?, ?, ?, ?, ?, ?) "
                    "ON CONFLICT (sha256) DO UPDATE SET place=excluded.place, study=excluded.study, "
                    "columns=excluded.columns, asked=excluded.asked",
                    row,
                )
        return [number for (number,) in self.db.execute("SELECT id FROM cells WHERE place IS NOT NULL ORDER BY place")]

    def add_runs(self, cell: int, tensors: Sequence[str], results: Sequence[TrialResult], seconds: Sequence[float]) -> None:
        """Store runs in one transaction; a run that is stored already is not changed.

        Args:
            cell: number of the cell.
            tensors: whose flips are stored, in this order.
            results: one per run.
            seconds: wall time of each run.

        Raises:
            OutputError: the disk is full or cannot be written.
        """
        rows = [
            (
                cell, r.trial, r.die, r.accuracy, r.changed, sum(r.bits_read.values()),
                json.dumps([r.flips.get(name, 0) for name in tensors], separators=(",", ":")), round(took, 6),
            )
            for r, took in zip(results, seconds, strict=True)
        ]  # fmt: skip
        further = [(cell, r.trial, r.score, json.dumps(dict(r.metrics))) for r in results if r.metrics]
        try:
            with self.db:
                self.db.executemany("INSERT OR IGNORE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
                self.db.executemany("INSERT OR IGNORE INTO metrics VALUES (?, ?, ?, ?)", further)
        except sqlite3.OperationalError as error:
            raise OutputError(f"Runs in {self.folder}", str(error), "Make room; finished runs are kept") from error

    def finished_trials(self, cell: int) -> set[int]:
        """Return the numbers of the trials that are stored."""
        return {trial for (trial,) in self.db.execute("SELECT trial FROM runs WHERE cell = ?", (cell,))}

    def count_runs(self, cell: int, trials: int) -> int:
        """Return how many of the first `trials` trials are stored."""
        (found,) = self.db.execute("SELECT count(*) FROM runs WHERE cell = ? AND trial < ?", (cell, trials)).fetchone()
        return int(found)

    def scores(self, cell: int, trials: int | None = None) -> dict[int, float]:
        """Return the score (`RunRecord.score`) by trial, in order; only of the first `trials` trials if given."""
        return {run.trial: run.score for run in self.runs(cell, trials)}

    def cells(self) -> Iterator[CellRecord]:
        """Yield the campaign's cells in its order."""
        rows = self.db.execute(
            "SELECT id, sha256, study, tensors, columns, asked FROM cells WHERE place IS NOT NULL ORDER BY place"
        ).fetchall()
        for number, sha, study, tensors, columns, asked in rows:
            names, options = tuple(_parse_json(tensors, list)), _parse_json(asked, dict)
            _check(isinstance(sha, str) and isinstance(study, int) and study >= 0, "a cell without its digest or study")
            _check(all(isinstance(name, str) for name in names) and len(set(names)) == len(names), "tensors without names")
            complete = _ASKED.keys() - options.keys() <= {"task", "output"}
            typed = all(_fits(options.get(key), kinds) for key, kinds in _ASKED.items())
            _check(complete and typed, "a cell whose options are missing or of other types")
            shared = _parse_json(columns, dict)
            _check(all(_fits(shared.get(key), kinds) for key, kinds in _COLUMNS.items()), "a cell whose columns are of other types")
            yield CellRecord(number, sha, study, names, shared, options)

    def runs(self, cell: int, trials: int | None = None) -> Iterator[RunRecord]:
        """Yield the runs of a cell by trial; only the first `trials` trials if given."""
        most = _MOST if trials is None else trials
        rows = self.db.execute(
            "SELECT trial, die, accuracy, changed, bits_read, flips FROM runs WHERE cell = ? AND trial < ? ORDER BY trial",
            (cell, most),
        )
        metrics = self._read_metrics(cell, most)
        for trial, die, accuracy, changed, bits, flips in rows:
            whole = isinstance(trial, int) and isinstance(die, int) and isinstance(bits, int) and bits >= 0
            _check(whole and _is_share(changed) and (accuracy is None or _is_share(accuracy)), "a run whose numbers are none")
            counts = tuple(_parse_json(flips, list))
            _check(all(isinstance(count, int) and 0 <= count <= _MOST for count in counts), "a run whose flips are not counted")
            score, content = metrics.get(trial, (1.0 - changed if accuracy is None else accuracy, "{}"))
            further = _parse_json(content, dict)
            numbers = (score, *further.values())
            _check(all(isinstance(number, float | int) for number in numbers), "a run whose metrics are no numbers")
            yield RunRecord(trial, die, accuracy, changed, bits, counts, score, further)

    def _read_metrics(self, cell: int, trials: int) -> dict[int, tuple[float, str]]:
        """Return score and further metrics (as JSON) by trial; older stores have no table of them."""
        if not self.db.execute("SELECT name FROM sqlite_master WHERE name = 'metrics'").fetchone():
            return {}
        rows = self.db.execute("SELECT trial, score, content FROM metrics WHERE cell = ? AND trial < ?", (cell, trials))
        return {trial: (score, content) for trial, score, content in rows}

    def set_fact(self, name: str, content: Any) -> None:
        """Store a fact about the campaign: any content that JSON can hold."""
        with self.db:
            self.db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, _json(content)))

    def get_fact(self, name: str) -> Any:
        """Return a stored fact, or None."""
        row = self.db.execute("SELECT content FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else _parse_json(row[0], object)


@contextmanager
def open_store(folder: Path) -> Iterator[Store]:
    """Open the store of a folder for writing, for this process alone; create both if they do not exist.

    Raises:
        OutputError: it cannot be written, has another version, one of its files is a link, or another process has it open.
    """
    create_folder(folder)
    with _lock(folder), _connect(folder, _refuse_links(folder / FILE)) as store:
        store.db.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; {_SCHEMA}")
        known = store.get_fact("version")
        if known not in (None, VERSION):
            raise OutputError(f"Results in {folder}", f"the store has version {known}, not {VERSION}", "Choose another --out")
        store.set_fact("version", VERSION)
        yield store


@contextmanager
def read_store(folder: Path) -> Iterator[Store]:
    """Open the store of a folder for reading; nothing is written there, also if a sweep is running.

    Raises:
        InputError: there is none, or a sweep changed it in the meantime.
        OutputError: it is damaged.
    """
    if not has_store(folder):
        raise InputError(f"Runs in {folder}", f"there is no {FILE}", "Name the folder of a weakcell sweep")
    path = _refuse_links((folder / FILE).resolve())
    before = _status(path)
    if not _has_journal(path):
        with _connect(folder, path, "?mode=ro&immutable=1") as store:  # without locks
            yield store
            if _has_journal(path) or _status(path) != before:
                raise InputError(f"Runs in {folder}", "a sweep that runs there changed them while they were read", "Try again")
    elif _may_read_in_place(path):
        with _connect(folder, path, "?mode=ro") as store:
            yield store
    else:
        with (
            TemporaryDirectory(prefix="weakcell-", ignore_cleanup_errors=True) as copies,
            _connect(folder, _copy(path, Path(copies))) as store,
        ):
            yield store


def has_store(folder: Path) -> bool:
    """Return whether a folder has a store; InputError if this user may not look."""
    try:
        return (folder / FILE).is_file()
    except OSError as error:
        raise InputError(f"Runs in {folder}", reason(error), "Ask its owner for the right to read it") from error


def _has_journal(path: Path) -> bool:
    """Return whether there are changes that are not yet in the file: a sweep is running, or was killed."""
    return any((status := _status(journal)) and status[1] for journal in _list_journals(path))


def _list_journals(path: Path) -> list[Path]:
    return [path.with_name(path.name + end) for end in ("-wal", "-journal")]


def _may_read_in_place(path: Path) -> bool:
    """Return whether SQLite can read file and journal where they are, without making the index of the journal."""
    if not path.with_name(path.name + "-shm").is_file():
        return False
    try:
        with closing(sqlite3.connect(f"file:{_quote(path)}?mode=ro", uri=True)) as db:
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError:  # the index may not be written, or belongs to another journal
        return False
    return True


def _copy(path: Path, folder: Path) -> Path:
    """Copy the file and its journals into a folder, as they are at one moment; InputError if that fails."""
    parts = [path, *_list_journals(path)]
    asked = f"Runs in {path.parent}"
    try:
        for _ in range(_COPIES):
            before = [_status(part) for part in parts]
            for part, status in zip(parts, before, strict=True):
                (folder / part.name).unlink(missing_ok=True)
                if status is not None:
                    with open_regular(part) as source, (folder / part.name).open("wb") as target:
                        shutil.copyfileobj(source, target)
            if before == [_status(part) for part in parts]:
                return folder / path.name
            time.sleep(0.2)
    except OSError as error:
        found = f"they have to be copied before they can be read, and copying them to {folder} failed: {reason(error)}"
        do = f"Make room for {sum(part.stat().st_size for part in parts if part.is_file()):,} bytes there, or set TMPDIR"
        raise InputError(asked, found, do) from error
    found = "they have to be copied before they can be read, and a sweep that runs there changed them meanwhile"
    raise InputError(asked, found, "Try again when the sweep is finished")


def _status(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _refuse_links(path: Path) -> Path:
    """Return the path of the store; OutputError if it, or a file that SQLite makes beside it, is a link or no file.

    SQLite follows links. In a folder of somebody else they could lead to any file of this user.
    """
    for end in ("", "-wal", "-shm", "-journal"):
        part = path.with_name(path.name + end)
        if os.path.lexists(part) and (part.is_symlink() or not part.is_file()):
            found = f"{part.name} is {'a link' if part.is_symlink() else 'not a regular file'}"
            raise OutputError(f"Results in {path.parent}", found, "Remove it, or choose another folder")
    return path


@contextmanager
def _connect(folder: Path, path: Path, options: str = "") -> Iterator[Store]:
    try:
        with closing(sqlite3.connect(f"file:{_quote(path)}{options}", uri=True, timeout=30)) as db:
            _check_schema(db)
            yield Store(folder, db)
    except (sqlite3.DatabaseError, DamagedStore) as error:
        do = "Make room" if "full" in str(error) else "Name another folder, or mend this one"
        raise OutputError(f"Runs in {folder}", f"{FILE}: {error}", do) from error


class DamagedStore(Exception):
    """A stored value that this program did not write; `_connect` makes an error of it."""


_TABLES = ("cells", "runs", "metrics", "facts")
_MOST_VALUE = 64 << 20
"""Bytes of one value. Nothing that this program stores comes near."""


def _check_schema(db: sqlite3.Connection) -> None:
    """DamagedStore unless a store holds plain tables only.

    Views and computed columns can run for ever. Triggers can change rows.
    """
    db.execute("PRAGMA trusted_schema=OFF")
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_VALUE)
    for kind, name, table, text in db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"):
        if kind == "index" and text is None and table in _TABLES:
            continue
        if kind != "table" or name not in _TABLES or not isinstance(text, str) or not text.startswith("CREATE TABLE"):
            raise DamagedStore(f"it has a {str(kind)[:20]} {str(name)[:80]!r} that this program did not make")
        if any(hidden for *_, hidden in db.execute(f"PRAGMA table_xinfo({name})")):
            raise DamagedStore(f"its table {name} computes columns, which this program did not make")


def _check(fits: bool, what: str) -> None:
    if not fits:
        raise DamagedStore(f"it holds {what}, which no sweep stores")


def _is_share(value: Any) -> bool:
    return isinstance(value, float | int) and 0.0 <= value <= 1.0


def _json(content: Any) -> str:
    return escape_surrogates(json.dumps(content, ensure_ascii=False))


def _parse_json(text: Any, kind: type[_Kind]) -> _Kind:
    """Return what a stored JSON text says; DamagedStore if it is not of that kind."""
    try:
        value = parse_json(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedStore(f"it holds {str(text)[:40]!r} where JSON belongs") from error
    if not isinstance(value, kind):
        raise DamagedStore(f"it holds a {type(value).__name__} where a {kind.__name__} belongs")
    return value


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock file; the lock of a process that is killed is released by the system."""
    path = folder / f"{FILE}.lock"
    asked = f"Results in {folder}"
    try:
        handle = open_lock_file(path)
    except OSError as error:
        found, do = f"{path.name}: {reason(error)}", "Choose a folder that can be written"
        if os.path.islink(path):  # no error, as of Path, where the folder may not be searched
            found, do = f"{path.name} is a link", "Remove it, or choose another folder"
        elif os.path.exists(path) and not os.path.isfile(path):
            found, do = f"{path.name} is not a regular file", "Remove it, or choose another folder"
        raise OutputError(asked, found, do) from error
    with os.fdopen(handle, "r+b", buffering=0) as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no such locks on this system; SQLite's own keep the file whole
            pass
        except OSError:
            raise OutputError(f"Results in {folder}", "another sweep is writing there", "Wait for it, or choose another") from None
        yield


def _quote(path: Path) -> str:
    from urllib.parse import quote

    return quote(os.fsencode(path.absolute()))
