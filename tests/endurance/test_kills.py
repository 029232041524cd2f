"""A small share of `kills.py`: one command, killed by time and while it writes, and given a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_a_killed_sweep_comes_to_the_same_end() -> None:
    if not hasattr(os, "fork"):
        pytest.skip("needs os.fork")
    program = [sys.executable, "-m", "tests.endurance.kills", "--runs", "2", "--only", "sweep", "--disks", "0.45"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("equal state after the next run") == 3
