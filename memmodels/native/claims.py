"""Claims: several processes that need the same kernel agree on one that compiles it; the others load what it stored.

A claim is a lock on one byte of a file, whose place is a digest of the kernel's name. The system releases it when the process ends,
however it ends. Where there are no such locks, each process compiles for itself.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from weakcell.memmodels.atomic_files import open_lock_file

_PLACES = 1 << 60


class Claims:
    """The claims of this process.

    Args:
        file: The file of the locks; without one, each process compiles for itself. A process loses all its locks on a file when it
            closes any handle of it, so make these claims once.
    """

    def __init__(self, file: Path | None) -> None:
        self._handle: int | None = None
        with suppress(OSError):
            self._handle = None if file is None else open_lock_file(file)

    def acquire(self, name: str) -> bool:
        """Claim a kernel; return False if another process has claimed it."""
        if self._handle is None:
            return True
        try:
            import fcntl

            fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _find_place(name))
        except (BlockingIOError, PermissionError):  # POSIX allows EAGAIN and EACCES
            return False
        except (ImportError, OSError):
            return True
        return True

    def release(self, name: str) -> None:
        """Give a claim back."""
        if self._handle is not None:
            with suppress(ImportError, OSError):
                import fcntl

                fcntl.lockf(self._handle, fcntl.LOCK_UN, 1, _find_place(name))


def _find_place(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % _PLACES
