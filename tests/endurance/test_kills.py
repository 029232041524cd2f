"""A small share of `kills.py`: one command, killed by time and while it writes, and given a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from weakcell.host.cli.termination import interrupt_on_sigterm, interrupted_code, is_interruption

ROOT = Path(__file__).parents[2]


def test_a_killed_sweep_comes_to_the_same_end() -> None:
    if not hasattr(os, "fork"):
        pytest.skip("needs os.fork")
    program = [sys.executable, "-m", "tests.endurance.kills", "--runs", "2", "--only", "sweep", "--disks", "0.45"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("equal state after the next run") == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_what_a_signal_causes_counts_as_an_interruption(number: signal.Signals, code: int) -> None:
    """Code in C may turn the KeyboardInterrupt into a TypeError; a finalizer drops it, and it comes again."""
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interrupt_on_sigterm():
        os.kill(os.getpid(), number)
    assert is_interruption(TypeError("made of it in C"))
    assert interrupted_code() == code

    class Finalized:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)
            sum(range(1000))

    def finalize_and_wait() -> None:
        Finalized()
        time.sleep(10)

    with pytest.raises(KeyboardInterrupt), interrupt_on_sigterm():
        finalize_and_wait()
    assert interrupted_code() == code
    with interrupt_on_sigterm():
        assert not is_interruption(TypeError("of another cause"))
    assert signal.getsignal(number) is before
