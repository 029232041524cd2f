"""The sources that a module's machine code depends on: its own file, and what it imports from the package, directly or not.

The digest of these files, and of the versions that compile them, is part of the name of cached machine code: a change to any of
them makes another name.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

from weakcell.memmodels.native.tile_permission import choose_tiles

_PACKAGE = Path(__file__).parents[1]
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+weakcell\.([\w.]+)[ \t]+import[ \t]*(\([^)]*\)|[^\n]*)|import[ \t]+weakcell\.([\w.]+))", re.MULTILINE
)
_CACHE, _COMPILATION, _TILES = "kernel_cache.py", "compilation.py", "tile_permission.py"
"""A file that looks for machine code is no part of it; nor is what the next one imports to that end. The last decides on tiles."""

_NO_CODE = {
    *("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER"),
    *("NUMBA_THREADING_LAYER_PRIORITY", "NUMBA_DEBUG_CACHE", "NUMBA_WARNINGS", "NUMBA_DISABLE_PERFORMANCE_WARNINGS"),
}
"""Settings of Numba that change no machine code. The target CPU counts with the code's own description of it."""


@cache
def digest_sources(*modules: str) -> str:
    """Return the digest of all files that modules of the package depend on, by their dotted names.

    Code that may use matrix tiles has another digest where it does use them.
    """
    digest = hashlib.sha256()
    for file in list_sources(*modules):
        digest.update(f"{file.relative_to(_PACKAGE).as_posix()}\0".encode())
        digest.update(_digest_file(file))
        if file.name == _TILES and (tiles := choose_tiles().tiles) != "none":
            digest.update(tiles.encode())
    return digest.hexdigest()


def list_sources(*modules: str) -> list[Path]:
    """Return the files that modules of the package depend on, sorted."""
    pending = [file for module in modules if (file := _find(module.removeprefix("weakcell."))) is not None]
    found: set[Path] = set()
    while pending:
        file = pending.pop()
        if file not in found and file.name != _CACHE:
            found.add(file)
            pending += [] if file.name == _COMPILATION else _imports(file)
    return sorted(found)


def list_compilers(here: bool = False) -> tuple[object, ...]:
    """Return the versions of what compiles, and the settings that change how.

    Args:
        here: Whether this process compiles.
    """
    return *_list_versions(), list_settings(here)


def list_settings(here: bool = False) -> list[object]:
    """Return the settings that change how Numba compiles.

    Args:
        here: Whether this process compiles. Numba then also reads a file in the current folder.
    """
    settings: list[object] = [
        *sorted(item for item in os.environ.items() if item[0].startswith("NUMBA_") and item[0] not in _NO_CODE)
    ]
    try:
        file = Path(".numba_config.yaml").read_bytes() if here and os.path.isfile(".numba_config.yaml") else None
    except OSError:
        file = None
    return [*settings, *([] if file is None else [hashlib.sha256(file).hexdigest()])]


@cache
def _list_versions() -> tuple[str, ...]:
    return sys.version, *(version(name) for name in ("numpy", "llvmlite", "numba"))


@cache
def _digest_file(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).digest()


@cache
def _imports(file: Path) -> list[Path]:
    """Return the files of the package that a file imports, also within functions."""
    files = []
    for module, names, plain in _IMPORT.findall(file.read_text(encoding="utf-8")):
        parts = [f"{module}.{name}" for name in re.findall(r"\w+", names)] if module else []
        files += [found for part in (module or plain, *parts) if (found := _find(part)) is not None]
    return files


@cache
def _find(module: str) -> Path | None:
    """Return the file of a module or package, None for a name within a module."""
    path = _PACKAGE.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
