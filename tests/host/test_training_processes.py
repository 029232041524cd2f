"""Processes that share the runs of a training."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import pytest

from weakcell.host.train.training_processes import call_in_processes


def answer(item: int, folder: Path) -> None:
    """Write the process of item 2 and sleep; raise for item 3; be killed for item 4; return for others."""
    if item == 2:
        (folder / "process").write_text(str(os.getpid()))
        time.sleep(3600)
    if item == 3:
        raise ValueError("three")
    if item == 4:
        os.kill(os.getpid(), signal.SIGKILL)


def test_every_item_is_worked_on_once(tmp_path: Path) -> None:
    assert sorted(call_in_processes(partial(answer, folder=tmp_path), [0, 1, 5], 1)) == [0, 1, 5]
    with pytest.raises(ValueError, match="three"):
        list(call_in_processes(partial(answer, folder=tmp_path), [3], 1))
    with pytest.raises(BrokenProcessPool):
        list(call_in_processes(partial(answer, folder=tmp_path), [4], 1))


def test_no_process_is_left_when_the_caller_stops(tmp_path: Path) -> None:
    """The second item would take an hour."""
    items = call_in_processes(partial(answer, folder=tmp_path), [1, 2], 1)
    assert next(items) == 1
    while not (tmp_path / "process").is_file() or not (tmp_path / "process").read_text():
        time.sleep(0.01)
    items.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "process").read_text()), 0)
