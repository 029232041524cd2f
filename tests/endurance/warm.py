"""Processes of `weakcell` that start in milliseconds: children of a process that has imported everything already.

`preload` imports the commands and runs one network, so that kernels are loaded. It uses nothing that starts threads, since threads
do not survive a fork. Each child then runs `weakcell.host.cli.main` as a fresh process would.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

_MODULES = (
    "polars", "matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "rich.progress",
    "weakcell.host.api.emulation", "weakcell.host.api.campaigns", "weakcell.host.api.characterization",
    "weakcell.host.campaign.campaign", "weakcell.host.campaign.sweep", "weakcell.host.campaign.tables",
    "weakcell.host.cli.emulate", "weakcell.host.cli.sweep", "weakcell.host.cli.report", "weakcell.host.cli.download",
    "weakcell.host.report.study_figure", "weakcell.host.report.page", "weakcell.host.report.board_figures",
)  # fmt: skip
_EVENTS = frozenset(("open", "os.rename", "os.remove", "os.mkdir", "os.link", "os.truncate", "sqlite3.connect"))


def preload(*, torch: bool = False, board: bool = False) -> None:
    """Import all commands and load the kernels of the shipped digits networks, without a thread left behind."""
    from weakcell.emulator.evaluation.trials import run_trial
    from weakcell.emulator.faults.placement import place
    from weakcell.host.study.workload import open_workload
    from weakcell.memmodels.catalogue import parse_spec

    for name in _MODULES:
        import_module(name)
    workload = open_workload("digits-bnn", images=30)
    run_trial(workload.plan, place(workload.network, parse_spec("sram-14nm:v_over_vmin=0.8")), workload.questions)
    if torch:
        import_module("weakcell.host.train.training_grid")
    if board:
        from weakcell.host.board.link.link import Link
        from weakcell.host.board.link.ports import open_port

        Link(open_port("virtual:rp2040", "uniform:ber=0.001")).info()


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: exit code; minus the number of the signal that ended it.
        output: what it wrote to stdout and stderr.
        seconds: how long it ran.
        events: files opened, renamed or removed in the folder, if it came to its end.
    """

    code: int
    output: str
    seconds: float
    events: int

    @property
    def has_traceback(self) -> bool:
        """Whether it ended with an error that it does not know."""
        return "Traceback" in self.output or "panicked" in self.output


@dataclass(frozen=True)
class Kill:
    """When a process gets a signal: after some seconds, or before its n-th file event in the folder."""

    signal: int
    seconds: float | None = None
    event: int | None = None

    def __str__(self) -> str:
        return f"{self.seconds:.3f} s" if self.seconds is not None else f"file event {self.event}"


def run(
    arguments: list[str], folder: Path, kill: Kill | None = None, prepare: Callable[[], None] | None = None, limit: float = 600.0
) -> Ended:
    """Run `weakcell` in a child and wait for its end.

    Args:
        arguments: of the command line.
        folder: where file events count; the child's output is kept beside it.
        kill: when it gets which signal.
        prepare: called in the child before the command.
        limit: seconds after which it is killed: it hangs.

    Raises:
        TimeoutError: it hung.
    """
    log, count = folder.with_name(folder.name + ".log"), folder.with_name(folder.name + ".events")
    count.unlink(missing_ok=True)
    sys.stdout.flush()
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        _be_weakcell(arguments, folder, log, count, kill, prepare)
    delay = None if kill is None else kill.seconds
    if delay is not None:
        time.sleep(max(0.0, delay - (time.perf_counter() - start)))
        os.kill(child, kill.signal)
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if time.perf_counter() - start > limit:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError(f"{' '.join(arguments)} ({kill}) hung:\n{log.read_text(errors='replace')}")
        time.sleep(0.002)
    seconds = time.perf_counter() - start
    events = int(count.read_text()) if count.exists() else 0
    return Ended(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"), seconds, events)


def _be_weakcell(
    arguments: list[str], folder: Path, log: Path, count: Path, kill: Kill | None, prepare: Callable[[], None] | None
) -> None:
    """Become a process that runs the command; never return."""
    code = 1
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        events = _count_events(folder, kill)
        if prepare is not None:
            prepare()
        from weakcell.host.cli import main

        sys.argv = ["weakcell", *arguments]
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        count.write_text(str(events()))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _count_events(folder: Path, kill: Kill | None) -> Callable[[], int]:
    """Count file events below a folder, and send the process its signal before one of them."""
    inside, seen = str(folder), 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event in _EVENTS and inside in str(arguments[0]):
            seen += 1
            if kill is not None and seen == kill.event:
                os.kill(os.getpid(), kill.signal)

    sys.addaudithook(watch)
    return lambda: seen
