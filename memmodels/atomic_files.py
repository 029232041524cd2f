"""Write files that are complete or absent: each is written under a temporary name in the same folder and then renamed.

Every file that the program leaves is written by `write_atomically`, except for the store of runs (SQLite has its own journal) and
the image on a board's USB drive (the drive has no rename). No process-wide state, such as the umask, is changed.

A process that is killed while it writes leaves its temporary file. The next write into the folder removes it: whoever writes holds
a lock on the file, which the system releases with the process.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from weakcell.memmodels.errors import OutputError
from weakcell.memmodels.files import reason
from weakcell.memmodels.printable import escape_surrogates

_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
_MOVES_OPEN_FILES = os.name == "posix"
_BEGIN, _END = ".weakcell-", ".partial"
_OPEN = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def open_lock_file(path: Path) -> int:
    """Open a file that only holds a lock, and create it if it is missing; return its handle.

    It is never truncated, and no link is followed: its folder may come from somebody else.

    Raises:
        OSError: It cannot be opened, is a link, or is no regular file.
    """
    return _open_or_create(path, os.O_RDWR)


def append_text(path: Path, text: str) -> None:
    """Append UTF-8 text to a file, which is created if it is missing. No link is followed. OutputError if it cannot be written."""
    try:
        with os.fdopen(_open_or_create(path, os.O_WRONLY | os.O_APPEND), "ab") as file:
            file.write(escape_surrogates(text).encode())
    except OSError as error:
        raise OutputError(
            f"Writing {path}", _explain(error, path, len(text)), "Choose a place that can be written and has room"
        ) from error


def _open_or_create(path: Path, flags: int) -> int:
    """Return a handle of a regular file, which is created if it is missing. OSError for a link, and for any other kind."""
    flags |= os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return handle


def write_atomically(path: Path, write: Callable[[BinaryIO], object], mode: int = 0o666) -> None:
    """Write a file so that it is complete or absent, also after a crash or a loss of power.

    A link at the path is replaced, never followed. A file that is replaced hands its permissions on to the new one.

    Args:
        path: The file.
        write: Writes the contents into an open, empty file.
        mode: Permissions of a new file, before the umask.

    Raises:
        OutputError: The file cannot be written: no space, no rights, no folder, or a device or pipe has its name. Nothing is left
            then.
    """
    temporary: Path | None = None
    size = 0
    try:
        replaced = _check_target(path)
        _remove_abandoned(path.parent)
        temporary, handle = _create_temporary(path.parent, mode)
        with os.fdopen(handle, "w+b") as file:
            try:
                write(file)
                file.flush()
            finally:
                size = os.fstat(handle).st_size
            if replaced is not None and hasattr(os, "fchmod"):
                os.fchmod(handle, stat.S_IMODE(replaced.st_mode) & 0o777)
            os.fsync(handle)
            if _MOVES_OPEN_FILES:  # while it is locked: another process would take it for an abandoned one
                os.replace(temporary, path)
        if not _MOVES_OPEN_FILES:
            os.replace(temporary, path)
        temporary = None
        _sync_folder(path.parent)
    except _writing_errors() as error:
        raise OutputError(
            f"Writing {path}", _explain(error, path, size), "Choose a place that can be written and has room"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _create_temporary(folder: Path, mode: int) -> tuple[Path, int]:
    """Create an empty file that is locked for this process; return its path and an open handle."""
    while True:
        # short and of ASCII letters: also a name of 255 bytes can be written, and no library takes the suffix for a format
        path = folder / f"{_BEGIN}{secrets.token_hex(8)}{_END}"
        handle = os.open(path, _CREATE, mode)
        if _lock(handle) is not False and os.fstat(handle).st_nlink:
            return path, handle
        os.close(handle)  # another process took it for an abandoned one before it was locked, and removes it


def _lock(handle: int) -> bool | None:
    """Lock a file for this process without waiting; return whether it is locked, None if this system has no such locks."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def _remove_abandoned(folder: Path) -> None:
    """Remove temporary files that processes left when they were killed; whatever cannot be removed stays."""
    names: list[str] = []
    with suppress(OSError), os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(_BEGIN) and entry.name.endswith(_END)]
    for name in names:
        with suppress(OSError):
            handle = os.open(folder / name, _OPEN)
            try:
                if _lock(handle):
                    os.unlink(folder / name)
            finally:
                os.close(handle)


def write_text_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text as `write_atomically` does; `escape_surrogates` says how bytes of a name that are none are written."""
    write_atomically(path, lambda file: file.write(escape_surrogates(text).encode()))


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Write bytes as `write_atomically` does."""
    write_atomically(path, lambda file: file.write(content))


def create_folder(folder: Path) -> Path:
    """Make a folder and its parents if they are not there, and return it; OutputError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        found = "it is a file" if os.path.isfile(folder) else reason(error)
        raise OutputError(f"Writing into {folder}", found, "Choose a folder that can be written") from error
    return folder


def check_writable(path: Path) -> None:
    """Check that a file can be created at a path, and leave none; OutputError if not."""
    try:
        _check_target(path)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OutputError(f"Writing {path}", reason(error), "Choose a place that can be written") from error


def _check_target(path: Path) -> os.stat_result | None:
    """Return the status of a regular file that is there already; OSError if anything else but a link to a file has the name."""
    try:
        os.fsencode(path)
        there = path.stat()
    except ValueError as error:
        raise OSError(0, f"its name is not one that this system can store ({reason(error)})") from None
    except (FileNotFoundError, PermissionError):
        return None  # nothing, or a link that leads nowhere; os.open says whether the folder can be written
    if stat.S_ISDIR(there.st_mode):
        raise IsADirectoryError(0, "it is a folder")
    if not stat.S_ISREG(there.st_mode):
        raise OSError(0, "it is a device, a pipe or a socket, not a file")
    return None if path.is_symlink() else there


def _writing_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that writing can raise; polars counts only if it is loaded."""
    polars = sys.modules.get("polars")
    return (OSError, MemoryError, *([polars.exceptions.PolarsError] if polars else []))


def is_full(error: Exception) -> bool:
    """Return whether an error says that a disk or quota is full, or that a file may not grow."""
    return getattr(error, "errno", None) in _FULL or any(f"(os error {number})" in str(error) for number in _FULL)


def _explain(error: Exception, path: Path, size: int) -> str:
    """Return what went wrong; of a full disk or quota also how much was needed and is free."""
    said = reason(error)
    if not is_full(error):
        return said
    try:
        free = f", and {shutil.disk_usage(path.parent).free:,} are free"
    except OSError:
        free = ""
    return f"{said}; it needs more than {size:,} bytes{free}"


def _sync_folder(path: Path) -> None:
    """Flush a folder's names to the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder on Windows, or one that may be written and not read
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot flush a folder
            raise
    finally:
        os.close(handle)
