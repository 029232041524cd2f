"""Cached machine code is used only from files and folders that nobody else may write.

Truth: POSIX permissions; what an attacker with another user's rights could change is listed by hand.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from weakcell.memmodels import cached_code
from weakcell.memmodels.cached_code import cache_folders, find_distrust, load_code, save_code

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX users and permissions")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The folder of the user's cache, a temporary folder beside it, and no warning given so far."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    for cached in (cached_code.warn_once, cached_code._make_temporary_of_process, cached_code._is_own_group):
        cached.cache_clear()
    yield tmp_path / "cache"
    cached_code._make_temporary_of_process.cache_clear()


def test_code_is_private_and_found_again(cache: Path) -> None:
    umask = os.umask(0)
    try:
        save_code("kernels", "f", b"code")
    finally:
        os.umask(umask)
    assert [oct((cache / part).stat().st_mode & 0o777) for part in ("", "kernels", "kernels/f")] == ["0o700", "0o700", "0o600"]
    assert load_code("kernels", "f") == b"code"
    assert load_code("kernels", "g") is None


def test_damaged_and_exchanged_files_are_none(cache: Path) -> None:
    save_code("kernels", "f", b"code")
    save_code("kernels", "g", b"other")
    f, g = cache / "kernels" / "f", cache / "kernels" / "g"
    whole = f.read_bytes()
    for content in (g.read_bytes(), whole[:-1], whole[:10], b"", whole[:33] + b"x" + whole[34:]):
        f.write_bytes(content)
        assert load_code("kernels", "f") is None


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_replaced(cache: Path, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    save_code("kernels", "f", b"code")
    file = cache / "kernels" / "f"
    os.chown(file, -1, 12345) if os.geteuid() == 0 else None  # a group that is not this user's own
    file.chmod(mode)
    if mode != 0o620 or os.geteuid() == 0:
        assert load_code("kernels", "f") is None
        assert str(file.parent) in caplog.text
    save_code("kernels", "f", b"code")
    assert load_code("kernels", "f") == b"code"


@pytest.mark.parametrize("part", ["", "kernels"])
@pytest.mark.parametrize("danger", ["others may write", "sticky", "another user", "link of another user"])
def test_a_folder_that_others_may_change_is_not_used(cache: Path, part: str, danger: str, caplog: pytest.LogCaptureFixture) -> None:
    """A sticky folder, as /tmp, may hold the cache's folder, but not the files themselves."""
    if "another" in danger and os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    save_code("kernels", "f", b"code")
    folder = cache / part
    if danger == "link of another user":
        folder.rename(folder.with_name("moved"))
        folder.symlink_to(folder.with_name("moved"))
        os.lchown(folder, 12345, 12345)
    elif danger == "another user":
        os.chown(folder, 12345, -1)
    else:
        folder.chmod(0o1777 if danger == "sticky" else 0o777)
    trusted = danger == "sticky" and part == ""
    assert (load_code("kernels", "f") == b"code") is trusted
    assert (str(folder) in caplog.text) is not trusted
    if not trusted:
        save_code("kernels", "f", b"new")
        assert load_code("kernels", "f") == b"new"
        (temporary,) = cache_folders("kernels")
        assert cache not in temporary.parents
        assert find_distrust(temporary) is None


@pytest.mark.parametrize("why", ["no home", "a file", "full"])
def test_without_a_folder_a_temporary_one_is_used(
    cache: Path, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if why == "no home":
        monkeypatch.delenv("NUMBA_CACHE_DIR")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    elif why == "a file":
        cache.write_text("no folder")
    else:
        mkdir = Path.mkdir
        full = OSError(28, "No space left on device")
        monkeypatch.setattr(Path, "mkdir", lambda self, **o: (_ for _ in ()).throw(full) if self == cache else mkdir(self, **o))
    save_code("kernels", "f", b"code")
    assert load_code("kernels", "f") == b"code"
    (folder,) = cache_folders("kernels")
    assert folder == cache.parent / "tmp" / f"weakcell-{os.geteuid()}" / "kernels"
    (record,) = caplog.records
    assert str(folder.parent) in record.message


def test_a_forged_temporary_folder_is_not_used(cache: Path) -> None:
    """Whoever makes it first could offer his code; a new one with a name that nobody knows takes its place."""
    cache.write_text("no folder")
    forged = cache.parent / "tmp" / f"weakcell-{os.geteuid()}"
    forged.mkdir()
    forged.chmod(0o777)
    (folder,) = cache_folders("kernels")
    assert forged not in folder.parents
    save_code("kernels", "f", b"code")
    assert load_code("kernels", "f") == b"code"
    assert not list(forged.iterdir())


def test_without_any_folder_code_is_compiled_each_time(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write_text("no folder")
    monkeypatch.setattr(tempfile, "tempdir", str(cache))
    save_code("kernels", "f", b"code")
    assert load_code("kernels", "f") is None
    assert cache_folders("kernels") == ()
