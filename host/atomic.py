"""Files that are there whole or not at all: written beside their place under another name, then moved into it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from memmodels.errors import OutputError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make the file at a temporary path in the same folder, then move it to `path`; OutputError if it cannot be."""
    temporary = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise OutputError(f"Writing {path}", error.strerror or str(error), "Choose a place that can be written") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """OutputError if no file can be made at `path`; makes nothing that stays."""
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OutputError(f"Writing {path}", error.strerror or str(error), "Choose a place that can be written") from error


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
