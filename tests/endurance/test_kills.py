"""A small share of `kills.py`: two commands, killed once by time and once while they write, and given a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("command", ["sweep", "emulate"])
def test_a_killed_command_comes_to_the_same_end(command: str) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("needs os.fork")
    program = [sys.executable, "-m", "tests.endurance.kills", "--runs", "2", "--only", command, "--disks", "0.45"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("equal state after the next run") == 3
