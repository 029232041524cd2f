"""What the terminal shows: results on stdout; progress, notes and errors on stderr.

Names come from files of others. Control characters in them are shown as escapes, so that no name can steer the terminal.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.segment import Segment, Segments

from weakcell.host.cli.termination import interrupted_code
from weakcell.memmodels.errors import Interrupted, WeakcellError
from weakcell.memmodels.printable import printable

EVENT_VERSION = 1


def say(text: str) -> None:
    """Print a line on stdout."""
    sys.stdout.write(f"{printable(text)}\n")


def show(content: Any) -> None:
    """Print on stdout; into a pipe or file without colours, padding and the limits of a terminal's width."""
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(_printable_parts(console, content), end="")
        return
    console = Console(highlight=False, width=160)
    with console.capture() as captured:
        console.print(_printable_parts(console, content), end="")
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().split("\n")[:-1]))


def _printable_parts(console: Console, content: Any) -> Segments:
    """Render content; only what rich itself adds may be a control sequence."""
    text = console.render_str(content) if isinstance(content, str) else content
    parts = [part if part.control else Segment(printable(part.text), part.style) for part in console.render(text)]
    return Segments(parts)


def stderr() -> Console:
    """Everything else goes here."""
    return Console(stderr=True, highlight=False)


def show_error(error: WeakcellError) -> None:
    """One paragraph, wrapped to the terminal; plain text where stderr is not one."""
    console = stderr()
    if console.is_terminal:
        console.print(f"[bold red]Error[/]: {_escaped(str(error))}")
    else:
        sys.stderr.write(f"Error: {printable(str(error))}\n")


def exit_code(error: WeakcellError) -> int:
    """Return the exit code of the command line for an error."""
    return interrupted_code() if isinstance(error, Interrupted) else error.exit_code


def note(text: str, quiet: bool = False) -> None:
    """A line for people, on stderr."""
    if not quiet:
        stderr().print(_escaped(text), soft_wrap=True)


def emit(event: str, **content: Any) -> None:
    """One NDJSON event on stdout; numbers that are not finite become null."""
    sys.stdout.write(json.dumps({"version": EVENT_VERSION, "event": event, **_finite(content)}, ensure_ascii=False) + "\n")
    sys.stdout.flush()


@contextmanager
def errors_as_events(wanted: bool) -> Iterator[None]:
    """Besides the paragraph on stderr, an `error` event on stdout."""
    try:
        yield
    except WeakcellError as error:
        if wanted:
            emit("error", code=exit_code(error), kind=type(error).__name__, message=str(error))
        raise


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(printable(text))


class Bar:
    """Moves when told."""

    def step(self, description: str) -> None:
        """One more is done."""


@contextmanager
def progress_bar(jobs: int, shown: bool, of: str = "trials", first: str = "compiling") -> Iterator[Bar]:
    """A bar with the time left, on stderr and only if that is a terminal; `of`: what it counts; `first`: said before."""
    console = stderr()
    if not (shown and console.is_terminal):
        yield Bar()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(of), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as progress:
        task = progress.add_task(first, total=jobs)

        class RichBar(Bar):
            def step(self, description: str) -> None:
                progress.update(task, advance=1, description=description)

        yield RichBar()
