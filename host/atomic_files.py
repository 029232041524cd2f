"""Files that are complete or absent: each is written under a temporary name in the same folder and then renamed."""

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
    """Write a file so that it is complete or absent, also after a crash or a loss of power.

    Args:
        path: the file. An existing file is replaced; a link is replaced, not followed.
        write: fills an empty file in the same folder, whose path it gets.

    Raises:
        OutputError: the file cannot be written: no space, no rights, no folder. Nothing is left then.
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
    """Return the exceptions that writing can raise; polars counts only if it is loaded."""
    polars = sys.modules.get("polars")
    return (OSError, MemoryError, polars.exceptions.PolarsError) if polars else (OSError, MemoryError)


def _sync(path: Path) -> None:
    """Flush a file's contents, or a folder's names, to the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder on Windows
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_writable(path: Path) -> None:
    """Check that a file can be created at a path, and leave none; OutputError if not."""
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except (OSError, ValueError) as error:
        raise OutputError(f"Writing {path}", reason(error), "Choose a place that can be written") from error
