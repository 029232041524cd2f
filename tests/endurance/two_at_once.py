"""Two processes at once: two first-time compiles into one empty cache, and two sweeps into one folder.

    python -m tests.endurance.two_at_once            # compiles kernels: minutes

The oracle is one process alone: the same outputs; the same runs and tables, each run made once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.endurance.commands import CAMPAIGN, read_state


def start(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    """Start `weakcell`."""
    command = [sys.executable, "-m", "weakcell.host.cli", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env={**os.environ, **environment}, **pipes)  # type: ignore[call-overload, no-any-return]


def compile_twice(work: Path) -> str:
    """Run two `infer` with an empty cache of kernels at the same time; return what is wrong, empty if nothing."""
    images = work / "in.npz"
    np.savez(images, x=np.random.default_rng(0).integers(0, 17, (8, 1, 8, 8)).astype(np.float32))
    caches = {"NUMBA_CACHE_DIR": str(work / "cache")}
    outputs = [work / f"out{number}.npz" for number in range(3)]
    pair = [start(["infer", "digits-bnn", "--input", str(images), "--output", str(path)], **caches) for path in outputs[:2]]
    ends = [process.communicate(timeout=1200) for process in pair]
    if any(process.returncode for process in pair):
        return f"two first-time compiles: {ends}"
    alone = start(["infer", "digits-bnn", "--input", str(images), "--output", str(outputs[2])], **caches)
    alone.communicate(timeout=1200)
    contents = [{name: values.tolist() for name, values in np.load(path).items()} for path in outputs]
    left = [path.name for path in (work / "cache").rglob("*") if path.name.startswith(".") or path.name.endswith(".partial")]
    return "" if contents[0] == contents[1] == contents[2] and not left else f"outputs differ, or files are left: {left}"


def sweep_twice(work: Path) -> str:
    """Run two `sweep` into one folder at the same time: one works, the other says so; the tables are those of one alone."""
    (work / "c.toml").write_text(CAMPAIGN.replace("trials = 12", "trials = 400"), encoding="utf-8")
    arguments = ["sweep", str(work / "c.toml"), "--threads", "1", "--quiet", "--out"]
    pair = [start([*arguments, str(work / "shared")]) for _ in range(2)]
    ends = [process.communicate(timeout=600) for process in pair]
    codes = sorted(process.returncode for process in pair)
    if codes not in ([0, 6], [0, 0]):  # both work if one has ended before the other begins
        return f"two sweeps ended with {codes}: {ends}"
    if codes == [0, 6] and not any("another sweep is writing there" in said for _, said in ends):
        return f"no word about the other sweep: {ends}"
    for folder in ("shared", "alone"):
        process = start([*arguments, str(work / folder)])
        process.communicate(timeout=600)
    found, expected = (read_state(work / folder) for folder in ("shared", "alone"))
    for state in (found, expected):
        state.pop("runs.sqlite")  # holds the command, which names the folder
        state.pop("campaign.json", None)
    return "" if found == expected else "tables differ"


def main() -> int:
    """Run the program; return 1 if anything failed."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="two-") as work:
        for name, run in (("two sweeps into one folder", sweep_twice), ("two first-time compiles", compile_twice)):
            folder = Path(work) / run.__name__
            folder.mkdir()
            wrong = run(folder)
            failed += bool(wrong)
            print(f"{name}: {wrong or 'equal to one alone'}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
