"""Compiled functions whose machine code is cached: never out of date, damaged or of others.

Truth: the same functions in plain Python, and the modules that Python itself imports.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from weakcell.memmodels.compilation import compiled
from weakcell.memmodels.source_digest import list_sources

ROOT = Path(__file__).resolve().parents[2]
CALLED = """
from typing import NamedTuple
from weakcell.memmodels.compilation import compiled

class {record}(NamedTuple):
    x: int

Record = {record}

@compiled
def add(record):
    return record.x + {term}
"""
CALLER = """
from weakcell.memmodels.compilation import compiled
from weakcell.memmodels.sampling.called import add

@compiled
def twice(record):
    return 2 * add(record)
"""
SCRIPT = """
from weakcell.emulator.kernels.caller import twice
from weakcell.memmodels.native.kernel_cache import Kernel
from weakcell.memmodels.sampling.called import Record
print(twice(Record(1)), Kernel("weakcell.emulator.kernels.caller", "twice")(Record(1)), twice.stats.cache_hits and "found")
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package's sources with two functions more: one calls the other, which lies in another folder."""
    root = tmp_path_factory.mktemp("copy") / "weakcell"
    root.mkdir()
    for name in ("__init__.py", "emulator/__init__.py", "memmodels/__init__.py", "emulator/kernels/__init__.py",
                 "memmodels/native/__init__.py", "memmodels/sampling/__init__.py"):  # fmt: skip
        source = ROOT / ".packages" / "weakcell" / name
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(source.read_text() if source.exists() else "")
    native = ("compilers", "compiler_process", "object_files", "function_cache", "known_kernels", "installed_code")
    modules = (f"native.{name}" for name in native)
    files = {file for module in (*modules, "compilation", "lazy", "cached_code") for file in list_sources(f"memmodels.{module}")}
    for file in (*files, ROOT / ".packages/weakcell/memmodels/native/kernel_cache.py"):
        copy = root / file.relative_to(file.parents[len(file.relative_to(ROOT / ".packages" / "weakcell").parts) - 1])
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text())
    (root / "emulator/kernels/caller.py").write_text(CALLER)
    (root / "memmodels/native/known_kernels.txt").touch()
    return root


def _start(package: Path, cache: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "NUMBA_CACHE_DIR": str(cache)}
    return subprocess.Popen([sys.executable, "-c", SCRIPT], env=environment, text=True, stdout=subprocess.PIPE, cwd=package)


def test_an_edit_of_what_a_function_calls_is_never_overlooked(package: Path, tmp_path: Path) -> None:
    """Also of another folder, and a record of another name. Processes that compile at once, and later ones, agree."""
    called = package / "memmodels/sampling/called.py"
    for record, term, processes in (("One", 1, 1), ("One", 10, 1), ("Other", 10, 2)):
        called.write_text(CALLED.format(record=record, term=term))
        expected = 2 * (1 + term)
        for process in [_start(package, tmp_path) for _ in range(processes)]:
            out = process.communicate()[0].split()
            assert out[:2] == [str(expected), str(expected)]
    assert _start(package, tmp_path).communicate()[0].split() == [str(expected), str(expected), "found"]
    assert not [file for file in tmp_path.rglob("*") if file.name.startswith(".")]


def _square(x: int) -> int:
    return x * x


def _cube(x: int) -> int:
    return x * x * x


def _hits(function: Any) -> int:
    return sum(function.stats.cache_hits.values())


def test_damaged_and_exchanged_files_are_compiled_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert (compiled(_square)(5), compiled(_cube)(5)) == (25, 125)
    square, cube = sorted((tmp_path / "functions").iterdir(), key=lambda file: file.name.startswith("_cube"))
    again = compiled(_square)
    assert (again(5), _hits(again)) == (25, 1)
    whole = square.read_bytes()
    for content in (whole[: len(whole) // 2], b"", cube.read_bytes(), whole[:100] + b"\0" * 9 + whole[109:]):
        square.write_bytes(content)
        again = compiled(_square)
        assert (again(5), _hits(again)) == (25, 0)
        assert square.read_bytes()[32:] != content[32:]


def test_without_room_a_function_still_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    assert compiled(_square)(7) == 49


@pytest.mark.parametrize("module", ["emulator.kernels.entry_points", "emulator.kernels.conv_sign", "memmodels.sampling.dies"])
def test_the_sources_are_those_that_python_imports(module: str) -> None:
    """Python may import more: packages, whose `__init__` no function uses, and what the caches use to find files."""
    script = f"import sys, weakcell.{module}; print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('weakcell.')))"
    files = subprocess.run([sys.executable, "-c", script], check=True, text=True, capture_output=True).stdout.split()
    modules = {Path(file).resolve() for file in files if not file.endswith("__init__.py")}
    sources = {file.resolve() for file in list_sources(f"weakcell.{module}")}
    caches = ("lazy", "native.compilers", "native.known_kernels", "native.installed_code")
    of_caches = {file.resolve() for name in caches for file in list_sources(f"memmodels.{name}")}
    of_caches.add(ROOT / "memmodels" / "native" / "kernel_cache.py")
    assert modules <= sources | of_caches
    of_both = {ROOT / "memmodels" / "errors.py", ROOT / "memmodels" / "native" / "tile_permission.py"}
    assert not sources & of_caches - of_both


def test_a_compiler_process_ends_silently_when_nobody_waits() -> None:
    """The process that asked may be killed, as it is where memory is short."""
    command = [sys.executable, "-c", "from weakcell.memmodels.native.compiler_process import serve; serve()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        process.stdin.write(pickle.dumps(("weakcell.no_such_module", "function", (), "symbol")))
        process.stdin.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0
