"""Published files are compared with their checksums when they are read. Truth: md5 of the standard library, and the shared data."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from weakcell import load_data
from weakcell.host.datasets import checksums
from weakcell.host.datasets.checksums import find_md5, warn_of_other_file


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    warn_of_other_file.cache_clear()


def test_an_unchanged_file_is_read_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file that is written in place, replaced, or set back to its old time and size, is read again."""
    plain, packed = tmp_path / "a", tmp_path / "a.gz"
    for content in (b"one", b"two"):
        plain.write_bytes(content)
        packed.write_bytes(gzip.compress(content))
        assert find_md5(plain) == find_md5(packed) == hashlib.md5(content).hexdigest()
    monkeypatch.setattr(checksums.hashlib, "md5", lambda **options: pytest.fail("it is read again"))
    assert find_md5(plain) == hashlib.new("md5", b"two").hexdigest()
    monkeypatch.undo()
    times = plain.stat()
    plain.write_bytes(b"six")
    os.utime(plain, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert find_md5(plain) == hashlib.md5(b"six").hexdigest()
    assert find_md5(tmp_path / "absent") is None


def test_a_file_of_ones_own_is_used_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images, labels = tmp_path / "t10k-images-idx3-ubyte", tmp_path / "t10k-labels-idx1-ubyte.gz"
    images.write_bytes(struct.pack(">4I", 0x803, 2, 28, 28) + bytes(2 * 784))
    labels.write_bytes(gzip.compress(struct.pack(">2I", 0x801, 2) + bytes([3, 7])))
    for _ in range(2):
        assert load_data("fashion-mnist", tmp_path).y.tolist() == [3, 7]  # type: ignore[union-attr]
    assert [file.name in record.getMessage() for file, record in zip((images, labels), caplog.records, strict=True)] == [True] * 2
    assert hashlib.md5(images.read_bytes()).hexdigest() in caplog.text


def test_the_published_files_are_known(shared: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Only what a file holds counts: other programs packed these files."""
    data = load_data("fashion-mnist", shared / "data")
    assert np.bincount(np.asarray(data.y)).tolist() == [1000] * 10
    warn_of_other_file(shared / "data" / "cifar-10-batches-py" / "test_batch")
    assert not caplog.records
