"""Progress of a sweep: a bar on a terminal, otherwise a line every ten seconds; its checks, line by line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from weakcell.host.cli.terminal import note, stderr

if TYPE_CHECKING:
    from weakcell.host.campaign.sweep import SweepProgress

_SECONDS_BETWEEN_LINES = 10.0
_SILENT_SECONDS = 3.0
"""After so long, a check says what it does."""

OnStep = Callable[["SweepProgress"], None]


@contextmanager
def progress(event: OnStep | None, shown: bool) -> Iterator[OnStep]:
    """Yield a function to call with each step.

    Args:
        event: called instead of printing anything.
        shown: whether to print progress.
    """
    if event is not None:
        yield event
    elif not shown:
        yield lambda step: None
    elif stderr().is_terminal:
        with _bar() as on_step:
            yield on_step
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator[OnStep]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    pace = TextColumn("runs  {task.fields[pace]}")
    where = TextColumn("{task.description}", markup=False)
    columns = (where, BarColumn(), MofNCompleteColumn(), pace, TimeElapsedColumn(), TextColumn("left"))
    meter = _Meter()
    with Progress(
        *columns, TimeRemainingColumn(), console=stderr(), transient=True, redirect_stdout=False, redirect_stderr=False
    ) as bar:
        task = bar.add_task("starting", total=None, pace="")

        def on_step(step: SweepProgress) -> None:
            where = step.cell.point.memory.partition(":")[0]
            pace = f"{meter.pace(step):.3g}/s"
            bar.update(task, completed=step.finished, total=step.needed, description=where, pace=pace)

        yield on_step


def checking(shown: bool) -> Callable[[int, int], None]:
    """Return a function to call with the operating points that are checked, and all of them: a line every ten seconds.

    Args:
        shown: whether to print anything.
    """
    began = told = time.perf_counter()

    def on_study(points: int, total: int) -> None:
        nonlocal told
        now = time.perf_counter()
        if shown and points < total and now - told > (_SECONDS_BETWEEN_LINES if told > began else _SILENT_SECONDS):
            told = now
            note(f"Checking the campaign: {points:,} of {total:,} operating points")

    return on_study


def _lines() -> OnStep:
    meter = _Meter()

    def on_step(step: SweepProgress) -> None:
        pace = meter.pace(step)
        if meter.due() or step.finished == step.needed:
            from weakcell.host.cli.result_table import duration

            left = f", {duration((step.needed - step.finished) / pace)} left" if pace and step.finished < step.needed else ""
            note(f"{step.finished:,} of {step.needed:,} runs, {pace:.3g}/s{left}")

    return on_step


class _Meter:
    """Measures runs per second since the start, and says when the next line is due."""

    def __init__(self) -> None:
        self._began = self._told = time.perf_counter()
        self._made = 0

    def pace(self, step: SweepProgress) -> float:
        """Count a step; return the runs per second so far."""
        self._made += len(step.done.results)
        return self._made / max(1e-9, time.perf_counter() - self._began)

    def due(self) -> bool:
        now = time.perf_counter()
        if now - self._told < _SECONDS_BETWEEN_LINES:
            return False
        self._told = now
        return True
