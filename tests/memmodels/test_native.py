"""Kernels as machine code that is kept: Numba's own numbers, found again by other processes, and made again where damaged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakcell.emulator.kernels import bitpack
from weakcell.emulator.native import kernel_cache
from weakcell.emulator.native.kernel_cache import Kernel

ROOT = Path(__file__).resolve().parents[2]

flatten = Kernel("weakcell.emulator.kernels.bitpack", "flatten_bits")
pack = Kernel("weakcell.emulator.kernels.bitpack", "pack")


def integers() -> Kernel:
    """A kernel that no process has asked for yet."""
    return Kernel("weakcell.emulator.kernels.bitpack", "to_integers")


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 130), st.integers(0, 1 << 32))
def test_results_are_those_of_numba(images: int, side: int, channels: int, seed: int) -> None:
    """Arrays that are made inside, reshaped, written to: `flatten_bits` does all of it."""
    words = -(-channels // 64)
    x = np.random.default_rng(seed).integers(0, 1 << 63, (images, side, side, words)).astype(np.uint64)
    made, expected = (np.zeros((images, 1, 1, -(-channels * side * side // 64)), np.uint64) for _ in range(2))
    assert flatten(x, channels, made) == 0
    bitpack.flatten_bits(x, channels, expected)
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("strided", [False, True])
def test_numbers_come_back_and_strides_are_kept(strided: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    x = np.array([1.0, 2.5, -3.0, 300.0, 7.0, 0.5])[:: 2 if strided else 1]
    out = np.zeros(x.size, np.int64)
    assert integers()(x, -128, 127, out) == np.sum((x != np.rint(x)) | (np.abs(x) > 127))
    np.testing.assert_array_equal(out, x.astype(np.int64))


def test_last_arguments_may_be_given_once() -> None:
    """An array among them is read as it is at each call; first arguments of another type find other machine code."""
    x = np.arange(6.0)
    out = np.zeros(6, np.int8)
    bound = integers().bind(0, 127, out)
    for factor in (1, 2):
        assert bound(x * factor) == 0
        np.testing.assert_array_equal(out, np.arange(6) * factor)
    assert bound((x * 20).astype(np.float32)) == 0
    np.testing.assert_array_equal(out, np.arange(6) * 20)


def test_other_arguments_are_refused_before_anything_is_called() -> None:
    with pytest.raises(TypeError, match="takes no str"):
        flatten(np.zeros((1, 1, 1, 1), np.uint64), "64", np.zeros((1, 1, 1, 1), np.uint64))


def test_kinds_tell_apart_what_machine_code_must_not_mix_up() -> None:
    def kinds(*arguments: Any) -> tuple[object, ...]:
        found: list[object] = []
        kernel_cache._flatten(arguments, found, [])
        return tuple(found)

    x = np.zeros((4, 4), np.int32)
    read_only = x.copy()
    read_only.flags.writeable = False
    others = [x.T, x[::2], x.astype(np.int64), x.reshape(-1), x.astype(">i4"), read_only, (x,), 1]
    assert len({kinds(x), *map(kinds, others)}) == len(others) + 1
    assert kinds(x) == kinds(np.ones((7, 2), np.int32))
    assert kinds(np.zeros((1, 4))) == kinds(np.zeros((4, 1)))  # contiguous either way
    assert kinds((1, (2, 3))) != kinds((1, 2, 3))


def test_code_is_kept_and_damaged_code_is_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    x, out = np.array([1.0, 2.5]), np.zeros(2, np.int8)
    assert integers()(x, 0, 9, out) == 1
    (file,) = (tmp_path / "kernels").iterdir()
    whole = file.read_bytes()
    builds: list[str] = []
    real = kernel_cache.__dict__["_keep"]
    monkeypatch.setattr(kernel_cache, "_keep", lambda place, code: (builds.append(place.name), real(place, code)))
    assert integers()(x, 0, 9, out) == 1
    assert builds == []
    for damage in (whole[:-7], whole[:50] + b"x" + whole[51:], b""):
        file.write_bytes(damage)
        assert integers()(x, 0, 9, out) == 1
        assert file.read_bytes()[:32] == whole[:32]
    assert builds == [file.name] * 3


def test_only_files_of_this_user_are_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that others may write is made again; so is one that was exchanged for the code of another kernel."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    kernel_cache._say.cache_clear()
    out = np.zeros(2, np.int8)
    assert integers()(np.array([1.0, 2.5]), 0, 9, out) == 1
    (first,) = (tmp_path / "kernels").iterdir()
    assert first.stat().st_mode & 0o077 == 0
    assert kernel_cache._read(first) is not None
    for mode in (0o620, 0o602, 0o666):
        first.chmod(mode)
        assert kernel_cache._read(first) is None
    assert [record.message for record in caplog.records] == [
        f"Kernels in {first.parent} are not used: other users own them or may write to them. They are compiled anew."
    ]
    assert integers()(np.array([1.0, 2.5]), 0, 9, out) == 1
    assert kernel_cache._read(first) is not None
    assert integers()(np.array([1.0, 2.5], np.float32), 0, 9, out) == 1
    (second,) = set((tmp_path / "kernels").iterdir()) - {first}
    second.write_bytes(first.read_bytes())
    assert kernel_cache._read(second) is None
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 12345)
    assert (kernel_cache._read(first) is None) == (first.stat().st_uid != 0)


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    kernel_cache._say.cache_clear()
    assert integers()(np.array([1.0, 2.5]), 0, 9, np.zeros(2, np.int8)) == 1
    assert "no home" in caplog.text


def test_a_cache_that_cannot_be_written_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert integers()(np.array([1.0, 2.5]), 0, 9, np.zeros(2, np.int8)) == 1


def test_what_this_process_cannot_link_runs_as_numba_runs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kernel_cache, "_load", lambda file, code: None)
    out = np.zeros(2, np.int8)
    assert integers()(np.array([3.0, 2.5]), 0, 9, out) == 1
    assert out[0] == 3


def test_other_targets_and_other_sources_have_other_files(monkeypatch: pytest.MonkeyPatch) -> None:
    key: tuple[object, ...] = (int,)
    here = kernel_cache._place("weakcell.emulator.kernels.bitpack", "pack", key)
    assert kernel_cache._place("weakcell.emulator.kernels.bitpack", "pack", key) == here
    assert kernel_cache._place("weakcell.emulator.kernels.bitpack", "pack", (bool,)) != here
    monkeypatch.setenv("NUMBA_CPU_NAME", "haswell")
    assert kernel_cache._place("weakcell.emulator.kernels.bitpack", "pack", key) != here
    monkeypatch.delenv("NUMBA_CPU_NAME")
    monkeypatch.setattr(kernel_cache, "_sources", lambda package: "edited")
    assert kernel_cache._place("weakcell.emulator.kernels.bitpack", "pack", key) != here


def test_a_run_without_faults_starts_without_numba() -> None:
    """The second process finds what the first one kept."""
    script = (
        "import sys, numpy as np, emulator\n"
        "network = weakcell.emulator.load('host/shipped/digits_bnn.onnx')\n"
        "x = np.load('host/shipped/digits.npz')['x_test'][:3]\n"
        "print(weakcell.emulator.infer(weakcell.emulator.compile_plan(network), {network.inputs[0]: x})['logits'].tolist())\n"
        "heavy = {'numba', 'scipy', 'polars', 'pydantic', 'matplotlib', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    said = [
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True,
                       capture_output=True, text=True).stdout.splitlines()
        for _ in range(2)
    ]  # fmt: skip
    assert said[0][0] == said[1][0]
    assert said[1][1] == "[]"
