"""Run each command with less and less memory: it works, or one paragraph says that memory ran out. No traceback, no signal.

    python -m tests.endurance.memory                        # all commands and limits: minutes
    python -m tests.endurance.memory --only infer --limits 900,500
    python -m tests.endurance.memory --write                # puts the table into README.md

`--kind address` limits the address space (RLIMIT_AS), the strictest kind: it counts what libraries reserve and never use.
`data` limits the data segment (RLIMIT_DATA), `group` the memory of a control group, which this program must be allowed to make.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np

from tests.endurance.commands import CAMPAIGN, CHARACTERIZE, OPTIMIZE, write_cycles
from tests.endurance.tables import update_table

LIMITS_MB = (3000, 1500, 1000, 700, 450, 250)
HEADS = ("command", "limit of", "works from", "below: ends with")
KINDS = {"address": "address space", "data": "data segment", "group": "control group"}
_SECONDS = 400
"""Time after which a command hangs; a busy machine needs most of it."""
_GROUP = Path("/sys/fs/cgroup")


def list_commands(folder: Path) -> dict[str, list[str]]:
    """Return the arguments of each command on the shipped digits networks; makes the files that they need."""
    images = folder / "in.npz"
    np.savez(images, x=np.zeros((4, 1, 8, 8), np.float32))
    (folder / "c.toml").write_text(CAMPAIGN, encoding="utf-8")
    write_cycles(folder / "cycles.csv")
    what, memory = ["digits-bnn", "--images", "30"], ["--memory", "uniform:ber=0.01"]
    emulate = ["emulate", *what, "--trials", "2", *memory, "--quiet"]
    train = [
        "train",
        "--data",
        "digits",
        "--width",
        "0.05",
        "--epochs",
        "1",
        "--images",
        "200",
        "--sweep",
        "ber=0",
        "--trials",
        "1",
    ]
    return {
        "infer": ["infer", "digits-bnn", "--input", str(images), "--output", str(folder / "infer.npz")],
        "inspect": ["inspect", "digits-bnn"],
        "predict": ["predict", "digits-bnn", "--images", "30", "--memory", "uniform:ber=0.01"],
        "emulate": [*emulate, "--out", str(folder / "emulated")],
        "report": ["report", str(folder / "emulated"), "--out", str(folder / "report.html")],
        "sweep": ["sweep", str(folder / "c.toml"), "--out", str(folder / "swept"), "--quiet"],
        "margins": ["margins", *what],
        "validate": ["validate", *what, *memory, "--trials", "2", "--quiet"],
        "rank": ["rank", *what, *memory],
        "optimize": ["optimize", *what, *OPTIMIZE, "--quiet"],
        "characterize --import": ["characterize", "--import", str(folder / "cycles.csv"), "--out", str(folder / "imported")],
        "characterize": [*CHARACTERIZE, "--yes", "--quiet", "--out", str(folder / "measured")],
        "train": [*train, "--resume", "--threads", "1", "--out", str(folder / "trained")],
    }


def run_limited(arguments: Sequence[str], megabytes: int, kind: str = "address") -> tuple[int, str]:
    """Run `weakcell` with so much memory; return its exit code and what it wrote to stderr."""
    command = [sys.executable, "-m", "weakcell.host.cli", *arguments]
    with ExitStack() as stack:
        if kind == "group":
            members = stack.enter_context(_make_group(megabytes << 20))
            limit = partial(_join, members)
        else:
            limit = partial(
                resource.setrlimit, {"address": resource.RLIMIT_AS, "data": resource.RLIMIT_DATA}[kind], (megabytes << 20,) * 2
            )
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=limit, start_new_session=True
        ) as process:
            try:
                said = process.communicate(timeout=_SECONDS)[1]
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return -signal.SIGKILL, f"it hung for {_SECONDS} s"
    return process.returncode, said


@contextmanager
def _make_group(limit: int) -> Iterator[Path]:
    """Make a control group of version 1 or 2 with a limit; yield the file that takes its members."""
    old = _GROUP / "memory"
    folder = Path(tempfile.mkdtemp(prefix="weakcell-", dir=old if old.is_dir() else _GROUP))
    try:
        (folder / ("memory.limit_in_bytes" if old.is_dir() else "memory.max")).write_text(str(limit))
        yield folder / "cgroup.procs"
    finally:
        while left := (folder / "cgroup.procs").read_text().split():  # of a command that took too long
            for process in left:
                with suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
            time.sleep(0.1)
        folder.rmdir()


def _join(members: Path) -> None:
    members.write_text(str(os.getpid()))


def find_fault(code: int, said: str) -> str:
    """Return what is wrong about an end; empty if it is a message about memory."""
    if code < 0 or code > 128:
        return f"ended by signal {code}"
    if "Traceback" in said:
        return "a traceback"
    return "" if "Error: " in said and "memory" in said else "no word about memory"


def main() -> int:
    """Run the program; return 1 if a command ended in any other way than with a message."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="commands, with commas")
    parser.add_argument("--limits", default=",".join(map(str, LIMITS_MB)), help="limits in MB, descending")
    parser.add_argument("--kind", choices=KINDS, default="address", help="what is limited")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    asked = parser.parse_args()
    limits, rows, faults = [int(limit) for limit in asked.limits.split(",")], [], 0
    with tempfile.TemporaryDirectory(prefix="memory-") as work:
        for name, arguments in list_commands(Path(work)).items():
            if asked.only and name not in asked.only.split(","):
                continue
            smallest, ends = None, []
            for limit in limits:
                for folder in ("trained", "measured"):  # a finished run would need little
                    shutil.rmtree(Path(work) / folder, ignore_errors=True)
                code, said = run_limited(arguments, limit, asked.kind)
                if code == 0:
                    smallest = limit
                    continue
                fault = find_fault(code, said)
                faults += bool(fault)
                ends.append(f"{limit}: {fault}" if fault else f"exit {code}")
                if fault:
                    print(f"{name} at {limit} MB: {fault}\n{said[-1500:]}", flush=True)
            below = ", ".join(dict.fromkeys(ends)) + ", a message about memory" if ends else "less was not tried"
            rows.append((f"`{name}`", KINDS[asked.kind], f"{smallest} MB" if smallest else "more", below))
            print(" | ".join(rows[-1]), flush=True)
    if asked.write:
        update_table(Path(__file__).with_name("README.md"), "memory", HEADS, rows, keys=2)
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
