"""A written file is complete or absent. Truth: the operating system (links, permissions, limits of a file's size)."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import signal
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from weakcell.memmodels.atomic_files import append_text, check_writable, write_atomically, write_text_atomically
from weakcell.memmodels.errors import OutputError

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions and links")


@posix
def test_a_link_is_replaced_and_what_it_points_to_is_untouched(tmp_path: Path) -> None:
    """Links to a file, to nothing and to itself."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for number, target in enumerate((victim, tmp_path / "absent", tmp_path / "link2")):
        link = tmp_path / f"link{number}"
        link.symlink_to(target)
        if number == 2:  # a link that leads to itself cannot be asked what it is
            with pytest.raises(OutputError, match="link2"):
                write_text_atomically(link, "new")
            continue
        write_text_atomically(link, "new")
        assert not link.is_symlink()
        assert link.read_text() == "new"
    assert victim.read_text() == "mine"
    assert not (tmp_path / "absent").exists()


@posix
@pytest.mark.parametrize("kind", ["folder", "link to a folder", "pipe", "link to a device"])
def test_what_is_no_file_is_refused_and_stays(tmp_path: Path, kind: str) -> None:
    """A superuser who writes to /dev/null would replace the device by a file."""
    path = tmp_path / "target"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/null" if "device" in kind else tmp_path)
    before = os.lstat(path)
    for action in (lambda: write_text_atomically(path, "new"), lambda: check_writable(path)):
        with pytest.raises(OutputError, match="target"):
            action()
    assert os.lstat(path).st_ino == before.st_ino
    assert os.listdir(tmp_path) == ["target"]


@posix
def test_permissions_come_from_the_umask_or_the_file_that_is_replaced(tmp_path: Path) -> None:
    """A new file has 0666 without the umask's bits; a private file stays private. The umask itself is not set meanwhile."""
    umask = os.umask(0o027)
    try:
        path = tmp_path / "file"
        write_text_atomically(path, "new")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o600)
        write_text_atomically(path, "newer")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(umask)


@posix
def test_a_file_is_flushed_before_it_gets_its_name_and_its_folder_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a loss of power may leave an empty file under the name."""
    calls: list[str] = []
    flush, rename = os.fsync, os.replace

    def note_flush(handle: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else f"file of {os.fstat(handle).st_size} bytes")
        flush(handle)

    def note_rename(source: Path, target: Path) -> None:
        calls.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_flush)
    monkeypatch.setattr(os, "replace", note_rename)
    write_text_atomically(tmp_path / "file", "new")
    assert calls == ["file of 3 bytes", "rename", "folder"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError(), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    """Whatever the writer raises; an error of the disk says path, need and room."""
    path = tmp_path / "results.csv"
    path.write_text("old")

    def write(file: Any) -> None:
        file.write(b"x" * 5000)
        file.flush()
        raise error

    with pytest.raises(BaseException) as caught:
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["results.csv"]
    if isinstance(error, OSError):
        assert isinstance(caught.value, OutputError)
        assert all(word in str(caught.value) for word in (str(path), "5,000", "free"))


def _write_with_little_room(folder: str) -> None:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    try:
        write_atomically(Path(folder) / "file", lambda file: file.write(bytes(20_000)))
    except OutputError as error:
        os._exit(6 if "10,000" in str(error) else 1)


@posix
def test_a_limit_of_the_system_is_an_output_error(tmp_path: Path) -> None:
    """The kernel refuses to let a file grow: the same error as of a full disk."""
    child = multiprocessing.get_context("spawn").Process(target=_write_with_little_room, args=(str(tmp_path),))
    child.start()
    child.join()
    assert child.exitcode == 6
    assert not os.listdir(tmp_path)


@posix
@pytest.mark.parametrize(
    "name",
    [b"a" * 255, "ü".encode() * 127, b"\xff\xfe.csv", b"[1]*?{a,b}.csv", b"two\nlines\t\x1b[31m.csv", b"-o.csv", b"~", b"%s$HOME"],
)
def test_any_legal_name_is_written(tmp_path: Path, name: bytes) -> None:
    """Names as long as a file system allows, and of any bytes."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    write_text_atomically(path, "contents")
    assert os.listdir(os.fsencode(tmp_path)) == [name]
    assert path.read_text() == "contents"


@pytest.mark.parametrize("name", ["a\0b", "a\ud800", "a" * 256])
def test_an_illegal_name_is_an_output_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError):
        write_text_atomically(tmp_path / name, "contents")
    with pytest.raises(OutputError):
        check_writable(tmp_path / name)
    assert not os.listdir(tmp_path)


def test_threads_that_write_one_file_leave_one_of_their_contents(tmp_path: Path) -> None:
    """Sixteen writers; a reader never sees a part."""
    path, contents = tmp_path / "file", [bytes([65 + n]) * 30_000 for n in range(16)]
    threads = [threading.Thread(target=write_atomically, args=(path, lambda file, c=c: file.write(c))) for c in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert not path.exists() or path.read_bytes() in contents
    assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == ["file"]


@posix
def test_what_a_killed_process_was_writing_is_removed_by_the_next_write_and_what_another_writes_is_not(tmp_path: Path) -> None:
    writing, go_on = threading.Event(), threading.Event()

    def slow(file: Any) -> None:
        file.write(b"slow")
        writing.set()
        assert go_on.wait(30)

    child = os.fork()
    if child == 0:
        write_atomically(tmp_path / "killed", lambda file: os.kill(os.getpid(), signal.SIGKILL))
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1
    other = threading.Thread(target=write_atomically, args=(tmp_path / "slow", slow))
    other.start()
    assert writing.wait(30)
    write_text_atomically(tmp_path / "next", "next")
    assert len(list(tmp_path.iterdir())) == 2  # the next file, and what the thread is writing
    go_on.set()
    other.join()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["next", "slow"]
    assert (tmp_path / "slow").read_text() == "slow"


_WRITES = re.compile(r"""\.write_(text|bytes)\(|\bopen\([^()]*["'][rb+]*[wax]|O_CREAT|mkstemp|NamedTemporaryFile|\.replace\(Path""")
_EXCEPTIONS = {
    "memmodels/atomic_files.py",  # the one way
    "host/board/firmware/drives.py",  # a board's USB drive has no rename
    "host/campaign/store.py",  # copies in a temporary folder
    "host/cli/encoding.py",  # the null device
    "host/train/training_processes.py",  # likewise
}


@posix
def test_lines_are_appended_and_links_are_not_followed(tmp_path: Path) -> None:
    for line in ("one\n", "zwei ü\n"):
        append_text(tmp_path / "log", line)
    assert (tmp_path / "log").read_bytes() == "one\nzwei ü\n".encode()
    (tmp_path / "precious").write_bytes(b"kept")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    for target in (tmp_path / "link", tmp_path, tmp_path / "none" / "log"):
        with pytest.raises(OutputError):
            append_text(target, "more\n")
    assert (tmp_path / "precious").read_bytes() == b"kept"


def test_nothing_else_in_the_package_writes_files() -> None:
    """Another way would follow links, leave halves or miss a full disk."""
    root = Path(__file__).resolve().parents[2]
    found = {
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for folder in ("memmodels", "emulator", "host")
        for path in (root / folder).rglob("*.py")
        if str(path.relative_to(root)) not in _EXCEPTIONS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if _WRITES.search(line)
    }
    assert not found
