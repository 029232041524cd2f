"""Data sets: where they are looked for, and what is refused."""

from __future__ import annotations

import gzip
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from weakcell.host.datasets.registry import load_data
from weakcell.memmodels.errors import InputError


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    folder = tmp_path / "sets" / "fashion-mnist"
    folder.mkdir(parents=True)
    images, labels = np.arange(3 * 784, dtype=np.uint8).reshape(3, 28, 28), np.array([1, 2, 3], dtype=np.uint8)
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path / "sets"


@pytest.fixture(autouse=True)
def no_user_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WEAKCELL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_digits_come_with_the_package() -> None:
    digits = load_data("digits")
    assert len(digits) == 450
    assert digits.y is not None
    assert repr(digits.first(7)) == "Dataset<digits: 7 x [1, 8, 8]>"


def test_fashion_is_found_in_all_places(fashion: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for given in (fashion, fashion / "fashion-mnist"):
        found = load_data("fashion-mnist", given)
        assert found.x.shape == (3, 1, 28, 28)
        assert found.y is not None
        assert found.y.tolist() == [1, 2, 3]
    monkeypatch.setenv("WEAKCELL_DATA", str(fashion))
    assert len(load_data("fashion-mnist", tmp_path / "elsewhere")) == 3
    monkeypatch.delenv("WEAKCELL_DATA")
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)  # checksums are kept there
    (tmp_path / "cache").mkdir()
    fashion.rename(tmp_path / "cache" / "weakcell")
    assert len(load_data("fashion-mnist")) == 3


def test_missing_fashion_says_where_and_what(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        load_data("fashion-mnist", tmp_path / "here")
    for part in (str(tmp_path / "here"), str(tmp_path / "cache" / "weakcell"), "t10k-images-idx3-ubyte.gz", "--data-dir"):
        assert part in str(error.value)


def test_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 3)), y=np.array([0.0, 1.0, 2.0, 3.0]))
    with_labels = load_data(tmp_path / "a.npz")
    assert with_labels.name == "a"
    assert with_labels.y is not None
    np.testing.assert_array_equal(with_labels.y, np.arange(4))
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 3)), y=np.arange(4, dtype=np.uint8))
    assert load_data(tmp_path / "a.npz").sha256 == with_labels.sha256  # stores of results name class numbers whatever their type
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 3)), y=np.arange(4) + 0.5)
    assert load_data(tmp_path / "a.npz").sha256 != with_labels.sha256
    np.savez(tmp_path / "b.npz", x=np.zeros((4, 3)))
    assert load_data(tmp_path / "b.npz").y is None
    assert load_data(tmp_path / "b.npz").sha256 != with_labels.sha256


@pytest.mark.parametrize(
    "arrays",
    [
        {"y": np.zeros(3)},
        {"x": np.zeros(3)},
        {"x": np.zeros((0, 3))},
        {"x": np.full((2, 2), np.nan)},
        {"x": np.array([["a"], ["b"]])},
        {"x": np.array([[{}], [{}]], dtype=object)},
        {"x": np.zeros((2, 2)), "y": np.zeros(3)},
        {"x": np.zeros((2, 2)), "y": np.array(["a", "b"])},
        {"x": np.zeros((2, 2)), "y": np.array([np.inf, 1.0])},
        {"x": np.zeros((2, 2)), "y": np.array([np.nan, 1.0])},
    ],
)
def test_npz_that_does_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError):
        load_data(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 not a zip"])
def test_damaged_npz(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError):
        load_data(tmp_path / "a.npz")


def test_unknown_name() -> None:
    with pytest.raises(InputError, match="digits"):
        load_data("digit")
