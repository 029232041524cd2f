"""Cached machine code: in which folders it may lie, whom they may belong to, and how a file is read and written.

Machine code runs with the rights of this process. It is therefore kept only in folders that nobody but this user (or root) may
write to, from the root of the file system down. A temporary folder takes the place of any other. What was built with the package
lies in its own folder, under the same rules. A file's digest covers its name: a damaged, cut or exchanged file is as good as none.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import stat
import tempfile
from functools import cache
from pathlib import Path

from weakcell.memmodels.atomic_files import write_atomically
from weakcell.memmodels.errors import OutputError
from weakcell.memmodels.files import open_regular, reason
from weakcell.memmodels.printable import printable_name

log = logging.getLogger(__name__)

_MOST_LINKS = 40
_DIGEST_BYTES = 32


def load_code(kind: str, name: str) -> bytes | None:
    """Return cached code, or None: if it is missing or damaged, or if another user could have written it.

    Args:
        kind: Name of the folder of such files.
        name: Of the file; it holds a digest of everything that the code depends on.
    """
    return next((code for folder in cache_folders(kind) if (code := _read(folder / name)) is not None), None)


def load_installed_code(folder: Path, name: str) -> bytes | None:
    """Return code that was installed with the package, or None as `load_code` does."""
    return _read(folder / name) if _is_trusted(folder) else None


def save_code(kind: str, name: str, code: bytes) -> None:
    """Cache code for this user alone. A folder that cannot be written only costs time at the next start."""
    folders = cache_folders(kind)
    if not folders:
        return
    file = folders[-1] / name
    try:
        file.unlink(missing_ok=True)  # a file that is replaced would hand on its permissions
        write_code(file, code, mode=0o600)
    except (OSError, OutputError) as error:
        found = error.found if isinstance(error, OutputError) else reason(error)
        warn_once(f"Machine code is not kept in {file.parent}: {found}")


def write_code(file: Path, code: bytes, mode: int = 0o644) -> None:
    """Write a file of code and its digest; mode: POSIX permissions."""
    write_atomically(file, lambda opened: opened.write(_digest(file.name, code) + code), mode=mode)


def _read(file: Path) -> bytes | None:
    try:
        with open_regular(file) as opened:
            status = os.fstat(opened.fileno())
            if hasattr(os, "geteuid") and (status.st_uid not in (os.geteuid(), 0) or _others_may_write(status)):
                found = "other users own files of it or may write to them"
                warn_once(f"Machine code in {file.parent} is not used: {found}. It is compiled anew.")
                return None
            content = opened.read()
    except OSError:
        return None
    code = content[_DIGEST_BYTES:]
    return code if _digest(file.name, code) == content[:_DIGEST_BYTES] else None


def _digest(name: str, code: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + code).digest()


# --- folders -------------------------------------------------------------------------------------------------------------------


@cache
def _is_trusted(folder: Path) -> bool:
    """Return whether nobody else may change a folder of installed code."""
    if (distrusted := find_distrust(folder)) is not None:
        warn_once(f"Machine code that was installed with the package is not used: {distrusted}.")
    return distrusted is None


def cache_folders(kind: str) -> tuple[Path, ...]:
    """Return the folders that may hold cached files, the one for new files last; no folder if none can be written.

    The first choice is $NUMBA_CACHE_DIR/kind, $XDG_CACHE_HOME/weakcell/kind or ~/.cache/weakcell/kind.
    """
    chosen = _choose_folder(kind)
    distrusted = "this user has no home" if chosen is None else find_distrust(chosen)
    usable: tuple[Path, ...] = ()
    if chosen is not None and distrusted is None:
        if _make(chosen):
            return (chosen,)
        distrusted = f"{chosen} cannot be written"
        usable = (chosen,) if os.path.isdir(chosen) else ()
    parent = _make_temporary()
    where = f"Machine code is kept in {parent} instead" if parent else "It is compiled at each start"
    warn_once(f"No lasting cache of machine code: {distrusted}. {where}; NUMBA_CACHE_DIR names another folder.")
    return (*usable, parent / kind) if parent is not None and _make(parent / kind) else usable


def find_distrust(folder: Path) -> str | None:
    """Return why others could change what is in a folder, or None.

    Every folder and link of the path must belong to this user or root, and no other user may write to a folder. Above the last
    folder, one in which users may not touch each other's files (sticky, as /tmp) will do. A missing part is no reason.
    """
    if not hasattr(os, "geteuid"):  # Windows: the profile of a user is private
        return None
    absolute = folder.absolute()
    here, pending, links = Path(absolute.anchor), list(absolute.parts[1:]), 0
    while True:
        try:
            status = os.lstat(here)
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"{here}: {error.strerror}"
        if status.st_uid not in (os.geteuid(), 0):
            return f"{here} belongs to another user"
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MOST_LINKS:
                return f"{here} is a circle of links"
            target = Path(os.readlink(here))
            pending[:0] = target.parts[1:] if target.is_absolute() else target.parts
            here = Path(target.anchor) if target.is_absolute() else here.parent
            continue
        if not stat.S_ISDIR(status.st_mode):
            return f"{here} is not a folder"
        if _others_may_write(status) and not (pending and status.st_mode & stat.S_ISVTX):
            return f"other users may write to {here}"
        if not pending:
            return None
        part = pending.pop(0)
        here = here.parent if part == ".." else here / part


@cache
def warn_once(text: str) -> None:
    """Log a warning once."""
    log.warning("%s", printable_name(text))


def _choose_folder(kind: str) -> Path | None:
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(given) / kind
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "weakcell" / kind
    except RuntimeError:
        return None


def _others_may_write(status: os.stat_result) -> bool:
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _is_own_group(status.st_gid)


@cache
def _is_own_group(number: int) -> bool:
    """Return whether a group has this user's name and no further members, as many systems make one for each user."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(number)
    except KeyError:
        return False
    return group.gr_gid == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def _make(folder: Path) -> bool:
    """Make a folder and its parents for this user alone; return whether it can be written."""
    try:
        for part in (*reversed(folder.parents), folder):
            if not part.exists():
                part.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _make_temporary() -> Path | None:
    """Return a folder for temporary files that this user's processes share; one of this process if that is not to be trusted."""
    try:
        shared = Path(tempfile.gettempdir()) / f"weakcell-{os.geteuid() if hasattr(os, 'geteuid') else os.getlogin()}"
        if _make(shared) and find_distrust(shared) is None:
            return shared
        return _make_temporary_of_process()
    except OSError:
        return None


@cache
def _make_temporary_of_process() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="weakcell-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
