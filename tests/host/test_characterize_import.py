"""`weakcell characterize --import`: other people's read-backs, in both forms, and files that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner, Result

from weakcell.host.board.readbacks.loading import load_readbacks
from weakcell.host.cli import app
from weakcell.memmodels.errors import InputError
from weakcell.memmodels.profile import load as load_profile

VOLTS = (0.60, 0.57, 0.54)
MU, S = 0.50, 0.03


def cells(rng: np.random.Generator, size: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """Return bytes of ones, and what cells with normal thresholds return at each voltage: nested flips of ones."""
    thresholds = rng.normal(MU, S, size * 8)
    written = np.full(size, 0xFF, np.uint8)
    return written, np.stack([written ^ np.packbits(thresholds > v, bitorder="little") for v in VOLTS])


def run(file: Path, out: Path) -> Result:
    return CliRunner().invoke(app, ["characterize", "--import", str(file), "--out", str(out), "--quiet"])


def test_an_npz_gives_the_law_of_its_cells(tmp_path: Path, rng: np.random.Generator) -> None:
    written, read = cells(rng)
    file = tmp_path / "theirs.npz"
    np.savez(file, vdd=VOLTS, written=written, read=read, rows=64, columns=16, title="their chip", nominal=1.0)
    done = run(file, tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "their chip" in done.output
    profile = load_profile(tmp_path / "out" / "profile.toml")
    found = {constant.name: constant for constant in profile.constants}
    assert found["mu"].low <= MU <= found["mu"].high
    assert found["s"].low <= S <= found["s"].high
    flips = pl.read_csv(tmp_path / "out" / "results.csv")
    expected = [int(np.unpackbits(one ^ written).sum()) for one in read]
    assert sorted(flips["flips"].to_list()) == sorted(expected)
    assert flips["flips_of_0"].sum() == 0


def test_binary_files_say_the_same_as_the_npz(tmp_path: Path, rng: np.random.Generator) -> None:
    written, read = cells(rng, 1003)
    np.savez(tmp_path / "a.npz", vdd=VOLTS, written=written, read=np.stack([read, read], axis=1), rows=64, columns=16)
    lines = ["rows = 64", "columns = 16"]
    for v, one in zip(VOLTS, read, strict=True):
        one.tofile(tmp_path / f"{v}.bin")
        lines.append(f'[[points]]\nvdd = {v}\nwritten = "ones"\nreads = ["{v}.bin", "{v}.bin"]')
    (tmp_path / "b.toml").write_text("\n".join(lines))
    a, b = load_readbacks(tmp_path / "a.npz"), load_readbacks(tmp_path / "b.toml")
    assert (a.bits, a.bank) == (b.bits, b.bank) == (1003 * 8, b.bank)
    for one, other in zip(a.measured, b.measured, strict=True):
        assert np.array_equal(one.written, other.written)
        assert one.errors is not None
        assert np.array_equal(one.errors, other.errors)
        assert one.errors.shape == (2, 126)


def test_several_patterns_at_one_voltage(tmp_path: Path, rng: np.random.Generator) -> None:
    ones, back = cells(rng, 512)
    zeros = np.zeros_like(ones)
    file = tmp_path / "two.npz"
    np.savez(file, vdd=[0.54, 0.54], written=np.stack([ones, zeros]), read=np.stack([back[2], zeros]))
    assert run(file, tmp_path / "out").exit_code == 0
    summary = pl.read_csv(tmp_path / "out" / "summary.csv")
    assert summary["pairs"].to_list() == [2 * 512 * 8]
    assert summary["p01"].to_list() == [0.0]


GOOD: dict[str, Any] = {"vdd": [0.6, 0.5], "written": np.zeros(8, np.uint8), "read": np.zeros((2, 8), np.uint8)}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"read": None}, "no array read"),
        ({"read": np.zeros((2, 8))}, "float64"),
        ({"read": np.zeros((3, 8), np.uint8)}, "vdd has the shape"),
        ({"written": np.zeros(9, np.uint8)}, "written has the shape"),
        ({"vdd": [0.5, -1.0]}, "no voltages"),
        ({"vdd": [0.5, 0.5]}, "twice"),
        ({"rows": 0}, "rows"),
        ({"colour": 1}, "colour"),
    ],
)
def test_an_npz_that_does_not_fit_is_named(tmp_path: Path, change: dict[str, Any], found: str) -> None:
    file = tmp_path / "bad.npz"
    np.savez(file, **{name: value for name, value in {**GOOD, **change}.items() if value is not None})
    with pytest.raises(InputError, match=found):
        load_readbacks(file)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("points = 3", "points"),
        ("title = 'x'", "points: field required"),
        ("[[points]]\nvdd = 0.5\nwritten = 'ones'", r"points.1.reads: field required"),
        ("[[points]]\nvdd = 'low'\nwritten = 'ones'\nreads = ['a.bin']", "points.1.vdd"),
        ("[[points]]\nvdd = 0.5\nwritten = 'ones'\nreads = ['none.bin']", "none.bin cannot be read"),
        ("[[points]]\nvdd = 0.5\nwritten = 'b.bin'\nreads = ['a.bin']", "a.bin has 16 bytes, b.bin has 8"),
        ("[[points]]\nvdd = 0.5\nwritten = 'ones'\nreads = ['empty.bin']", "empty"),
        ("[[points]]\nvdd = 0.5\nwritten = 'ones'\nreads = ['a.bin']\n[[points]]\nvdd = 0.6\nwritten = 'ones'\nreads = ['b.bin']",
         "8, 16 bytes"),
        ("not toml", "cannot be read"),
    ],
)  # fmt: skip
def test_a_toml_that_does_not_fit_is_named(tmp_path: Path, text: str, found: str) -> None:
    for name, size in (("a.bin", 16), ("b.bin", 8), ("empty.bin", 0)):
        (tmp_path / name).write_bytes(bytes(size))
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=found):
        load_readbacks(file)


def test_files_that_are_not_there_or_not_read_backs(tmp_path: Path) -> None:
    for name, content in (("none.npz", None), ("text.npz", b"hello"), ("none.toml", None)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        done = run(tmp_path / name, tmp_path / "out")
        assert (done.exit_code, name in done.output) == (3, True), done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["absolute", "parent", "link"])
def test_only_files_of_its_own_folder_are_read_unless_allowed(tmp_path: Path, how: str) -> None:
    """A file of somebody else could name any file of the user."""
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    name = {"absolute": str(tmp_path / "secret.bin"), "parent": "../secret.bin", "link": "link.bin"}[how]
    for text in (f"written = 'ones'\nreads = ['{name}']", f"written = '{name}'\nreads = ['{name}']"):
        file = folder / "r.toml"
        file.write_text(f"[[points]]\nvdd = 0.5\n{text}")
        with pytest.raises(InputError, match="outside its folder"):
            load_readbacks(file)
        assert load_readbacks(file, anywhere=True).bits == 128
    (folder / "sub").mkdir()
    (folder / "sub" / "a.bin").write_bytes(bytes(16))
    file.write_text("[[points]]\nvdd = 0.5\nwritten = 'ones'\nreads = ['sub/../sub/a.bin']")
    assert load_readbacks(file).bits == 128
