"""Refuse to hang after `os.fork`: the threads of polars do not survive it, and whoever asks them for something waits for ever.

A child of a process whose polars has not started its threads may use everything. `multiprocessing` with the start method `spawn` or
`forkserver` always works.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from weakcell.memmodels.errors import UsageError

_TASKS = Path("/proc/self/task")


class _ForkWatch:
    """Notes whether this process is the child of one whose polars had threads.

    Attributes:
        threads_lost: whether it is.
    """

    def __init__(self) -> None:
        self.threads_lost = self._parent_has_threads = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._look, after_in_child=self._note)

    def _look(self) -> None:
        self._parent_has_threads = "polars" in sys.modules and _polars_has_threads()

    def _note(self) -> None:
        self.threads_lost |= self._parent_has_threads


def _polars_has_threads() -> bool:
    """Return whether polars has started its pool; True where the system does not tell."""
    try:
        return any((task / "comm").read_text().startswith("polars-0") for task in _TASKS.iterdir())
    except OSError:
        return True


_watch = _ForkWatch()


def check_not_forked(asked: str) -> None:
    """UsageError if this process was forked from one whose polars had threads; everything else would wait for them."""
    if _watch.threads_lost:
        found = "this process was forked (os.fork) from one that has used polars, whose threads do not exist here"
        raise UsageError(asked, found, "Start processes with multiprocessing.get_context('spawn'), or fork before Weakcell is used")
