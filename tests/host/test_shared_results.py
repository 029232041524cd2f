"""Results folders of others: read without a right to write, never written through a link.

Truth: the operating system's users and permissions, and the facts that were stored.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from weakcell.host.board.characterization.dump import open_dump
from weakcell.host.campaign.store import open_store, read_store
from weakcell.memmodels.errors import InputError, OutputError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX users, permissions and links")


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may read: pytest's own is private."""
    folder = Path(tempfile.mkdtemp(prefix="weakcell-test-"))
    folder.chmod(0o755)
    yield folder
    for part in folder.iterdir():
        part.chmod(0o755)
    shutil.rmtree(folder)


def _store(folder: Path, state: str) -> Path:
    """Make a store with two facts: closed, of a sweep that was killed, or of one that is copied without SQLite's index."""
    with open_store(folder / "live") as store:
        store.set_fact("first", 1)
        store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store.set_fact("second", "zwei ü")
        killed = shutil.copytree(folder / "live", folder / "killed")
    if state == "closed":
        return folder / "live"
    if state == "without index":
        (killed / "runs.sqlite-shm").unlink()
    return killed


def _read_as_another_user(folder: Path) -> object:
    """Read as nobody; a user who is not root takes the right to write from himself."""
    folder.chmod(0o555)
    with read_store(folder) as store:  # what is imported on first use may be out of reach for nobody
        store.get_fact("first")
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_send_facts, args=(there, folder))
    child.start()
    there.close()
    answer = here.recv()
    child.join()
    return answer


def _send_facts(pipe: Any, folder: Path) -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        with read_store(folder) as store:
            pipe.send([store.get_fact("first"), store.get_fact("second")])
    except BaseException as error:
        pipe.send(repr(error))


@pytest.mark.parametrize("state", ["closed", "killed", "without index"])
def test_another_user_reads_a_store_that_he_cannot_write(public: Path, state: str) -> None:
    folder = _store(public, state)
    before = sorted(os.listdir(folder))
    assert _read_as_another_user(folder) == [1, "zwei ü"]
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize("state", ["closed", "killed", "without index"])
def test_reading_writes_nothing(public: Path, state: str) -> None:
    """Also with the right to write: names, sizes and contents stay."""
    folder = _store(public, state)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-shm")}
    with read_store(folder) as store:
        assert store.get_fact("second") == "zwei ü"
    assert {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-shm")} == before


def test_a_running_sweep_is_read(tmp_path: Path) -> None:
    with open_store(tmp_path) as writer:
        writer.set_fact("second", 2)
        with read_store(tmp_path) as store:
            assert store.get_fact("second") == 2


def test_a_sweep_that_begins_meanwhile_is_noticed(tmp_path: Path) -> None:
    """Without locks, a reader could see pages of two states."""
    with open_store(tmp_path) as writer:
        writer.set_fact("second", 1)
    with pytest.raises(InputError, match="while they were read"), read_store(tmp_path), open_store(tmp_path) as writer:
        writer.set_fact("second", 2)


@pytest.mark.parametrize("name", [f"runs.sqlite{end}" for end in ("", "-wal", "-shm", "-journal", ".lock")])
@pytest.mark.parametrize("kind", ["link", "link to nothing", "pipe"])
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str, kind: str) -> None:
    """The link of a stranger's folder leads to a database of the user."""
    victim, folder = tmp_path / "victim.sqlite", tmp_path / "got"
    with sqlite3.connect(victim) as db:
        db.execute("CREATE TABLE mine (a)")
    before = victim.read_bytes()
    with open_store(folder):
        pass
    (folder / name).unlink(missing_ok=True)
    if "link" in kind:
        (folder / name).symlink_to(victim if kind == "link" else tmp_path / "absent")
    else:
        os.mkfifo(folder / name)
    with pytest.raises(OutputError, match=name), open_store(folder):
        pass
    assert victim.read_bytes() == before
    assert not (tmp_path / "absent").exists()


def test_a_store_may_be_linked_for_reading(tmp_path: Path) -> None:
    with open_store(tmp_path / "far") as writer:
        writer.set_fact("second", 2)
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "runs.sqlite").symlink_to(tmp_path / "far" / "runs.sqlite")
    with read_store(tmp_path / "near") as store:
        assert store.get_fact("second") == 2


@pytest.mark.parametrize("name", [b"study[1]", b"s\xff%20?x=1#y", b"-out", b"two\nlines\x1b[2J", "ü".encode() * 100])
def test_a_store_in_a_folder_of_any_name(tmp_path: Path, name: bytes) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    with open_store(folder) as writer:
        writer.set_fact("second", 2)
    with read_store(folder) as store:
        assert store.get_fact("second") == 2
    assert os.listdir(os.fsencode(tmp_path)) == [name]


@pytest.mark.parametrize("resume", [False, True])
def test_points_are_not_written_through_a_link(tmp_path: Path, resume: bool) -> None:
    """A folder of read-backs of somebody else, whose points lie in a folder of the user."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "points").symlink_to(tmp_path / "mine")
    if resume:
        (tmp_path / "theirs" / "run.json").write_text("{}")
    with pytest.raises(OutputError, match="points is a link"):
        open_dump(tmp_path / "theirs", {"plan": {}, "identity": {}}, {}, resume)
    assert not list((tmp_path / "mine").iterdir())


_ENDLESS = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT i AS name, i AS content FROM n"


@pytest.mark.parametrize(
    "schema",
    [
        f"ALTER TABLE facts RENAME TO others; CREATE VIEW facts AS {_ENDLESS}",
        f"CREATE TRIGGER t AFTER INSERT ON facts BEGIN INSERT INTO facts {_ENDLESS}; END",
    ],
)
def test_what_would_run_without_end_is_refused(tmp_path: Path, schema: str) -> None:
    """A view or trigger of a stranger's database answers in place of the table."""
    with open_store(tmp_path) as store:
        store.set_fact("first", 1)
    db = sqlite3.connect(tmp_path / "runs.sqlite")
    db.executescript(schema)
    db.close()
    for way in (read_store, open_store):
        with pytest.raises(OutputError, match="did not make"), way(tmp_path) as store:
            store.get_fact("first")
