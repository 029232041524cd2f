"""Files that are there whole or not at all: written beside their place under another name, then moved into it."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from weakcell.memmodels.errors import OutputError
from weakcell.memmodels.files import reason


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that it is there whole or not at all, also after a crash or a loss of power.

    Args:
        path: The file. It is replaced if it is there; a link is replaced, not followed.
        write: Called with the path of an empty file in the same folder, which it fills.

    Raises:
        OutputError: It cannot be written: no room, no rights, no folder. Nothing is left then.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}{path.suffix[:20]}")
    made = False
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        made = True
        write(temporary)
        _sync(temporary)
        os.replace(temporary, path)
        made = False
        _sync(path.parent)
    except _writing_errors() as error:
        raise OutputError(f"Writing {path}", reason(error), "Choose a place that can be written and has room") from error
    finally:
        if made:
            temporary.unlink(missing_ok=True)


def _writing_errors() -> tuple[type[Exception], ...]:
    """Return what writing can raise; a library that is not loaded has raised nothing."""
    polars = sys.modules.get("polars")
    return (OSError, MemoryError, polars.exceptions.PolarsError) if polars else (OSError, MemoryError)


def _sync(path: Path) -> None:
    """Make the system keep a file's contents, or a folder's names, before going on."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder on Windows
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_writable(path: Path) -> None:
    """Make sure that a file can be made at a path, without making one that stays; OutputError if not."""
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except (OSError, ValueError) as error:
        raise OutputError(f"Writing {path}", reason(error), "Choose a place that can be written") from error
