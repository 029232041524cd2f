"""Files that may come from anybody: NumPy's own reader is the reference for good ones; bad ones end in one error, at once."""

from __future__ import annotations

import contextlib
import os
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from weakcell.memmodels.errors import InputError, UsageError
from weakcell.memmodels.files import SMALL_BYTES, allowed, parse_json, read_arrays, read_bytes, read_text


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    return read_arrays(path, f"Reading {path.name}", "Bring another")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    array=hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, min_side=0), fill=st.nothing()),
    by_columns=st.booleans(),
    packed=st.booleans(),
)
def test_arrays_are_read_as_numpy_reads_them(array: np.ndarray, by_columns: bool, packed: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"
        stored = np.array(array, order="F" if by_columns else "C")
        (np.savez_compressed if packed else np.savez)(path, x=stored, about=np.array("é"))
        found = arrays_of(path)
    assert found["x"].dtype == array.dtype
    assert found["x"].shape == array.shape
    assert found["x"].tobytes() == array.tobytes()
    assert str(found["about"]) == "é"


def npz(path: Path, header: str, content: bytes = b"", claimed: int | None = None) -> Path:
    """An archive with one member `x.npy` of this header; `claimed`: the size that the archive states for it."""
    member = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", member)
        if claimed is not None:
            archive.infolist()[0].file_size = claimed
    return path


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("|u1", "(17592186044416,)"),
        ("<f8", "(4,)"),
        ("|O", "(1,)"),
        ("|u1", "(-1,)"),
        ("|V0", "(3,)"),
        ("|u1", "(" * 90 + ")" * 90),
    ],
)
def test_headers_that_state_what_does_not_follow(tmp_path: Path, dtype: str, shape: str) -> None:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n"
    with pytest.raises(InputError, match="Bring another"):
        arrays_of(npz(tmp_path / "a.npz", header, b"abc"))


def test_archives_that_unpack_to_far_more_than_they_are(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(SMALL_BYTES + 1, np.uint8))
    with pytest.raises(InputError, match="unpacks to"):
        arrays_of(tmp_path / "a.npz")
    np.savez_compressed(tmp_path / "b.npz", x=np.zeros(1 << 20, np.uint8))
    assert arrays_of(tmp_path / "b.npz")["x"].size == 1 << 20


@pytest.mark.parametrize("dtype", ["<U2", ">U2", np.dtype([("a", "u1"), ("b", "U1")])])
def test_text_with_characters_that_do_not_exist(tmp_path: Path, dtype: str | np.dtype) -> None:
    """NumPy reads them, and CPython fails when it makes a string of them."""
    path = tmp_path / "text.npz"
    np.savez(path, t=np.full(16, 0xFF, np.uint8)[: np.dtype(dtype).itemsize].view(dtype))
    with pytest.raises(InputError, match="characters that do not exist"):
        arrays_of(path)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_damaged_archives_are_read_or_refused(data: st.DataObject) -> None:
    held = BytesIO()
    (np.savez_compressed if data.draw(st.booleans()) else np.savez)(held, x=np.arange(40), y=np.array([1, 2], np.uint8))
    content = bytearray(held.getvalue())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"
        path.write_bytes(content[: data.draw(st.none() | st.integers(0, len(content)))])
        with contextlib.suppress(InputError):
            arrays_of(path)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "missing", tmp_path / "a\0b"):
        with pytest.raises(OSError, match=r".+"):
            read_bytes(path, 100)
        with pytest.raises(InputError):
            arrays_of(path)


def test_larger_files_than_asked_for_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("four")
    assert read_text(tmp_path / "a", 4) == "four"
    with pytest.raises(OSError, match="3 are the most"):
        read_bytes(tmp_path / "a", 3)


@pytest.mark.parametrize("factor", ["0.5", "many", "nan", "-1", "1e9"])
def test_a_factor_of_the_limits_that_is_none(factor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEAKCELL_LIMITS", factor)
    with pytest.raises(UsageError, match="WEAKCELL_LIMITS"):
        allowed(1)


def test_the_user_raises_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros compress a thousandfold: refused, and read once the user says that the file is good."""
    path = tmp_path / "zeros.npz"
    np.savez_compressed(path, x=np.zeros(300 << 20, np.uint8))
    with pytest.raises(InputError, match="WEAKCELL_LIMITS"):
        read_arrays(path, "Reading", "Bring another")
    monkeypatch.setenv("WEAKCELL_LIMITS", "2")
    assert read_arrays(path, "Reading", "Bring another")["x"].size == 300 << 20
    (tmp_path / "text").write_bytes(b"12345")
    with pytest.raises(OSError, match="4 are the most"):
        read_bytes(tmp_path / "text", 2)
    assert read_bytes(tmp_path / "text", 3) == b"12345"


@pytest.mark.parametrize("text", ['"\\ud800"', '{"a": ["\\udfff x"]}', '{"\\ud800": 1}', "{", "nul"])
def test_json_with_half_a_character_is_refused(text: str) -> None:
    """No terminal, file or figure can show it. A whole pair is a character."""
    with pytest.raises(ValueError):
        parse_json(text)
    assert parse_json('"\\ud83d\\ude00"') == "😀"
