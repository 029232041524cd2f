"""Commands on a system without POSIX, such as Windows, as far as Linux can show it.

The names that Windows lacks are removed in a fresh process, after the standard library and other packages were imported: those look
at the system themselves. What this cannot show, such as Windows' file locks and consoles, is left to the workflow `systems`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

WITHOUT_POSIX = """
import os, signal, sys
import asyncio, concurrent.futures.process, multiprocessing.popen_spawn_posix, multiprocessing.shared_memory, pty, shutil, tempfile
import matplotlib.figure, numba, numpy, onnx, onnxruntime, polars, scipy.optimize, scipy.special, scipy.stats, torch, typer.testing

for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"):
    sys.modules[name] = None
MISSING = {
    os: "fork forkpty geteuid getuid getegid getgid getgroups fchmod chown fchown lchown sched_getaffinity register_at_fork mkfifo "
    "mknod pread pwrite killpg setsid getpgid statvfs uname getloadavg nice wait4 fdatasync sysconf openpty O_NOFOLLOW O_DIRECTORY "
    "O_CLOEXEC O_NONBLOCK O_SYNC",
    signal: "SIGHUP SIGALRM SIGPIPE SIGQUIT SIGXCPU SIGXFSZ SIGUSR1 SIGUSR2 SIGVTALRM SIGPROF setitimer alarm pthread_sigmask",
}
for module, names in MISSING.items():
    for name in names.split():
        delattr(module, name)

from weakcell.host.cli import app

for line in sys.stdin:
    result = typer.testing.CliRunner().invoke(app, line.split())
    print(line.strip(), "->", result.exit_code)
    if result.exit_code:
        print(result.output)
        raise result.exception
"""

COMMANDS = """\
emulate --trials 2 --images 20 --sweep v_over_vmin=0.85:1.0:0.15 --out results
infer digits-bnn --input images.npz --out outputs.npz
sweep campaign.toml --out study
report study
train --data digits --network fcnn --width 0.02 --epochs 1 --images 200 --out trained
"""

CAMPAIGN = """\
trials = 2
[[network]]
model = "digits-bnn"
images = 12
[[memory]]
spec = "sram-14nm"
grid = { v_over_vmin = [0.85, 1.0] }
"""


def test_emulate_infer_sweep_report_and_train_need_no_posix(tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", x=np.zeros((3, 1, 8, 8), np.float32))
    (tmp_path / "campaign.toml").write_text(CAMPAIGN)
    command = [sys.executable, "-c", WITHOUT_POSIX]
    run = subprocess.run(command, cwd=tmp_path, input=COMMANDS, capture_output=True, text=True, timeout=900, check=False)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    assert [line.rsplit(" -> ")[1] for line in run.stdout.splitlines() if " -> " in line] == ["0"] * len(COMMANDS.splitlines())
    written = ("results/results.parquet", "outputs.npz", "study/runs.sqlite", "study/report.html")
    assert [name for name in written if not (tmp_path / name).is_file()] == []
    assert list((tmp_path / "trained").rglob("*.onnx"))
