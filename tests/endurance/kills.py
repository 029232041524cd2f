"""Kill each command at random instants, or fill its disk; then run it again and compare with an undisturbed run.

    python -m tests.endurance.kills                                # everything: minutes; prints the table of README.md
    python -m tests.endurance.kills --runs 3 --only sweep,report   # a part
    python -m tests.endurance.kills --write                        # puts the rows into the table of README.md

Half of the instants are spread evenly over the time of an undisturbed run. The other half lie before a random one of its file
events (open, rename, remove, mkdir), so that phases in which files are written get their share. Seeds are fixed.

After each disturbance the same command runs once more. The folder must then hold the files of an undisturbed run with the same
contents (`commands.read_state` says what is compared), and no other file. SIGTERM must end in exit code 143 without a traceback;
a full disk in exit code 6, with each file complete or absent.

Full disks are small tmpfs, mounted in a mount namespace of this program: it starts itself again through `unshare`. Where that is
not allowed, no file may grow beyond the size (RLIMIT_FSIZE), and the table says so.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from tests.endurance import warm
from tests.endurance.commands import Command, State, list_files, make_commands, read_state, stop_servers
from tests.endurance.tables import update_table

DISK_SHARES = (0.0, 0.2, 0.45, 0.7, 0.95)
"""Sizes of full disks, as shares of what an undisturbed run needs."""
HEADS = ("command", "disturbance", "runs", "outcome")
_DRAWS = 8
"""How often an instant is drawn, each time from an earlier part, if the command ended before it: machines vary in speed."""
_PAGE = 4096
_INSIDE = "WEAKCELL_ENDURANCE_INSIDE"


@dataclass
class Outcome:
    """What came of one command under one disturbance."""

    command: str
    disturbance: str
    runs: int = 0
    late: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def row(self) -> tuple[str, str, str, str]:
        """The row of the table."""
        late = f", {self.late} of them after its end" if self.late else ""
        good = "equal state after the next run"
        return self.command, self.disturbance, f"{self.runs}{late}", good if not self.failures else f"{len(self.failures)} FAILED"


class Bench:
    """Runs one command undisturbed, and then disturbed."""

    def __init__(self, command: Command, work: Path) -> None:
        self.command, self.folder = command, work / "folder"
        first = self._undisturbed()
        state, files = read_state(self.folder), list_files(self.folder)
        second = self._undisturbed()
        self.state, self.files = read_state(self.folder), list_files(self.folder)
        if differ := describe_difference(state, self.state):
            raise AssertionError(f"{command.name}: two undisturbed runs differ: {differ}")
        self.seconds, self.events = min(first.seconds, second.seconds), min(first.events, second.events)
        self.bytes = sum(-(-p.stat().st_size // _PAGE) * _PAGE for p in self.folder.rglob("*") if p.is_file())
        assert files == self.files

    def _undisturbed(self) -> warm.Ended:
        self._clear()
        done = self._run()
        if done.code:
            raise AssertionError(f"{self.command.name} fails undisturbed:\n{done.output}")
        return done

    def _clear(self) -> None:
        if os.path.ismount(self.folder):
            subprocess.run(["umount", str(self.folder)], check=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.command.prepare(self.folder)

    def _run(self, kill: warm.Kill | None = None, limit: Callable[[], None] | None = None) -> warm.Ended:
        def prepare() -> None:
            if self.command.patch is not None:
                self.command.patch()
            if limit is not None:
                limit()

        return warm.run(self.command.arguments(self.folder), self.folder, kill, prepare)

    def kill(self, number: signal.Signals, runs: int, seed: int) -> Outcome:
        """Send a signal at random instants, one per run."""
        outcome, rng = Outcome(self.command.name, number.name), random.Random(f"{self.command.name} {number} {seed}")
        for run in range(runs):
            for draw in range(_DRAWS):
                share = 0.5**draw
                if run % 2 == 0:
                    when = warm.Kill(number, seconds=rng.uniform(0.0, share * self.seconds))
                else:
                    when = warm.Kill(number, event=rng.randint(1, max(1, round(share * self.events))))
                self._clear()
                ended = self._run(when)
                if ended.code:
                    break
            outcome.runs += 1
            outcome.late += ended.code == 0
            allowed = {0, -number} if number == signal.SIGKILL else {0, -number, 128 + number}
            if ended.code not in allowed or ended.has_traceback:
                outcome.failures.append(f"{when}: ended with {ended.code}: {ended.output[-2000:]}")
            self._check_next_run(outcome, str(when))
        return outcome

    def fill_disk(self, shares: Sequence[float], tmpfs: bool) -> Outcome:
        """Run the command on disks that are too small, then make room."""
        outcome = Outcome(self.command.name, "full disk" if tmpfs else "no file may grow (RLIMIT_FSIZE)")
        for share in shares:
            self._clear()
            there = sum(-(-p.stat().st_size // _PAGE) * _PAGE for p in self.folder.rglob("*") if p.is_file())
            room = int(share * (self.bytes - there))
            ended = self._run_on_tmpfs(there + room) if tmpfs else self._run(limit=lambda room=room: _limit_files(room))
            outcome.runs += 1
            outcome.late += ended.code == 0
            what = f"{100 * share:.0f} % of the room"
            if ended.code not in (0, 6) or ended.has_traceback:
                outcome.failures.append(f"{what}: ended with {ended.code}: {ended.output[-2000:]}")
            extra = sorted(list_files(self.folder) - self.files)
            if extra and not all(name.endswith(".checkpoint") for name in extra):
                outcome.failures.append(f"{what}: left {extra}")
            if tmpfs:
                subprocess.run(["mount", "-o", "remount,size=512m", str(self.folder)], check=True)
            self._check_next_run(outcome, what)
        self._clear()
        return outcome

    def _run_on_tmpfs(self, size: int) -> warm.Ended:
        pages, filler = size // _PAGE + 1, self.folder / "filler"  # no tmpfs is smaller than a page, so one is taken
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={pages * _PAGE}", "tmpfs", str(self.folder)], check=True)
        filler.write_bytes(bytes(_PAGE))
        self.command.prepare(self.folder)
        ended = self._run()
        filler.unlink()
        return ended

    def _check_next_run(self, outcome: Outcome, what: str) -> None:
        done = self._run()
        if done.code:
            outcome.failures.append(f"{what}: the next run ended with {done.code}: {done.output[-2000:]}")
            return
        files = list_files(self.folder)
        if files != self.files:
            outcome.failures.append(f"{what}: files too many {sorted(files - self.files)}, missing {sorted(self.files - files)}")
        if differ := describe_difference(self.state, read_state(self.folder)):
            outcome.failures.append(f"{what}: {differ}")


def _limit_files(room: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))


def describe_difference(expected: State, found: State) -> str:
    """Return the first file that differs, with both contents; empty if none does."""
    for name in sorted(expected.keys() & found.keys()):
        if expected[name] != found[name]:
            return f"{name} differs: {str(expected[name])[:1500]} … {str(found[name])[:1500]}"
    return ""


def can_mount() -> bool:
    """Return whether this process may mount a tmpfs that nobody else sees."""
    return os.environ.get(_INSIDE) == "1"


def enter_namespace() -> None:
    """Start this program again in a mount namespace of its own, if that is allowed."""
    if _INSIDE in os.environ:
        return
    options = ["--mount"] if os.geteuid() == 0 else ["--map-root-user", "--mount"]
    probe = ["unshare", *options, "mount", "-t", "tmpfs", "tmpfs", tempfile.gettempdir()]
    try:
        allowed = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    os.environ[_INSIDE] = "1" if allowed else "0"
    if allowed:
        os.execvp("unshare", ["unshare", *options, sys.executable, "-m", "tests.endurance.kills", *sys.argv[1:]])


def main() -> int:
    """Run the program; return 1 if anything failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="kills per command and signal")
    parser.add_argument("--only", default="", help="commands, with commas: the first word of their names")
    parser.add_argument("--disks", default=",".join(map(str, DISK_SHARES)), help="sizes of full disks, as shares of what is needed")
    parser.add_argument("--signals", default="SIGKILL,SIGTERM", help="which, with commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    asked = parser.parse_args()
    enter_namespace()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="kills-") as work:
        commands = make_commands(Path(work))
        chosen = [c for c in commands.values() if not asked.only or c.name.split()[0] in asked.only.split(",")]
        chosen = [c for c in chosen if all(find_spec(name) for name in c.needs)]
        warm.preload(torch=any("torch" in c.needs for c in chosen), board=any("unicorn" in c.needs for c in chosen))
        try:
            for command in chosen:
                bench = Bench(command, Path(work) / command.name.split()[0])
                print(f"{command.name}: {bench.seconds:.2f} s, {bench.events} file events", flush=True)
                steps: list[Callable[[], Outcome]] = [
                    partial(bench.kill, signal.Signals[name], asked.runs, asked.seed)
                    for name in asked.signals.split(",")
                    if name and not command.only_disks
                ]
                if asked.disks:
                    steps.append(partial(bench.fill_disk, [float(share) for share in asked.disks.split(",")], can_mount()))
                for step in steps:
                    outcomes.append(step())
                    print(" | ".join(outcomes[-1].row), *outcomes[-1].failures, sep="\n    ", flush=True)
        finally:
            stop_servers()
            for path in Path(work).glob("*/folder"):
                if path.is_mount():
                    subprocess.run(["umount", str(path)], check=True)
    if asked.write:
        update_table(Path(__file__).with_name("README.md"), "kills", HEADS, [outcome.row for outcome in outcomes], keys=2)
    return int(any(outcome.failures for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
