"""A small share of `memory.py`: too little memory ends in one paragraph, and pools of threads are kept small."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.endurance.memory import find_fault, list_commands, run_limited


def test_too_little_memory_is_said(tmp_path: Path) -> None:
    megabytes = 250
    code, said = run_limited(list_commands(tmp_path)["infer"], megabytes)
    assert code in (1, 3, 6), said
    assert not find_fault(code, said), said
    assert said.count("Error:") == 1
    assert f"{megabytes} MB" in said


def test_the_end_of_a_library_is_explained(tmp_path: Path) -> None:
    """A process that a library ends (SIGABRT) leaves a paragraph of its parent."""
    script = tmp_path / "abort.py"
    for end, said in (("os.abort", "SIGABRT"), ("lambda: os._exit(3)", "exit code 3")):
        script.write_text(f"import os\nfrom weakcell.host.cli.little_memory import run_within\nrun_within(1 << 30, {end})\n")
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert said in done.stderr
        assert "1,024 MB" in done.stderr


_LOAD_SCIPY = """
import re, resource, sys, numpy
from pathlib import Path
from weakcell.host.cli.little_memory import watch_openblas
watch_openblas()
used = int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + (24 << 20),) * 2)
try:
    import scipy.special
except MemoryError:
    sys.exit(9)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells what a process uses")
def test_a_library_without_room_for_its_buffer_is_not_loaded() -> None:
    """OpenBLAS would ask for its buffer for ever."""
    done = subprocess.run([sys.executable, "-c", _LOAD_SCIPY], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 9, done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_command_and_not_only_its_parent(number: signal.Signals, tmp_path: Path) -> None:
    pid_file, script = tmp_path / "pid", tmp_path / "wait.py"
    script.write_text(
        "import os, time\nfrom pathlib import Path\nfrom weakcell.host.cli.little_memory import run_within\n"
        f"def command():\n    Path({str(pid_file)!r}).write_text(str(os.getpid()))\n    time.sleep(60)\n"
        "run_within(1 << 30, command)\n"
    )
    with subprocess.Popen([sys.executable, str(script)]) as parent:
        while not (pid_file.exists() and pid_file.read_text()):
            time.sleep(0.05)
        child = int(pid_file.read_text())
        parent.send_signal(number)
        assert parent.wait(20) == -number
    for _ in range(200):
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]:
            return
        time.sleep(0.05)
    pytest.fail("the command goes on")


def test_a_limit_is_found() -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))\n"
    code += "from weakcell.host.cli.little_memory import find_limit; assert find_limit() == 2 << 30"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_limit_of_a_control_group_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the group itself, and of groups around it; the lines are those that Linux gives for versions 1 and 2."""
    from weakcell.host.cli import little_memory

    monkeypatch.setattr(little_memory, "_GROUPS", tmp_path)
    monkeypatch.setattr(little_memory, "_OWN_GROUPS", tmp_path / "own")
    second, first = tmp_path / "user.slice" / "a:b.scope", tmp_path / "memory" / "jobs" / "7"
    for folder in (second, first):
        folder.mkdir(parents=True)
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text(str((1 << 63) - 4096))
    find_limit = little_memory.find_limit.__wrapped__
    assert find_limit() is None
    (second.parent / "memory.max").write_text("700000000")
    (second / "memory.max").write_text("max")
    (tmp_path / "own").write_text("3:cpuset:/\n0::/user.slice/a:b.scope\n")
    assert find_limit() == 700_000_000
    (first / "memory.limit_in_bytes").write_text("500000000")
    (tmp_path / "own").write_text("9:name=systemd:/\n4:memory:/jobs/7\n0::/\n")
    assert find_limit() == 500_000_000
