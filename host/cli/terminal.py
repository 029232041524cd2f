"""What the terminal shows: results on stdout; progress, notes and errors on stderr.

Names come from files of others. Control characters in them are shown as escapes, so that no name can steer the terminal.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.segment import Segment, Segments
from rich.text import Text

from weakcell.host.cli.termination import interrupted_code
from weakcell.memmodels.errors import Interrupted, WeakcellError
from weakcell.memmodels.printable import printable, printable_json, printable_name

EVENT_VERSION = 1


def say(text: str) -> None:
    """Print a line on stdout."""
    sys.stdout.write(f"{printable(text)}\n")


PIPE_WIDTH = 160
"""Characters of a line where stdout is not a terminal."""


def table_width() -> int:
    """Return how many characters a line of stdout has."""
    console = Console()
    return console.width if console.is_terminal else PIPE_WIDTH


def show(content: Any, style: str = "") -> None:
    """Print on stdout; into a pipe or file without colours, padding and the limits of a terminal's width.

    Args:
        content: Text or a table. Names may hold brackets and colons: rich's markup and codes of pictures are not interpreted.
        style: How text looks on a terminal: `bold`, `dim`.
    """
    console = Console(highlight=False, markup=False, emoji=False)
    content = Text(content, style) if isinstance(content, str) else content
    if console.is_terminal:
        console.print(_printable_parts(console, content), end="")
        return
    console = Console(highlight=False, markup=False, emoji=False, width=PIPE_WIDTH)
    with console.capture() as captured:
        console.print(_printable_parts(console, content), end="")
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().split("\n")[:-1]))


def _printable_parts(console: Console, content: Any) -> Segments:
    """Render content; only what rich itself adds may be a control sequence."""
    parts = [part if part.control else Segment(printable(part.text), part.style) for part in console.render(content)]
    return Segments(parts)


def stderr() -> Console:
    """Everything else goes here."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def show_error(error: WeakcellError) -> None:
    """One paragraph, wrapped to the terminal; plain text where stderr is not one."""
    text = str(error).replace(error.asked, printable_name(error.asked), 1)  # no name may look like a line of its own
    console = stderr()
    if console.is_terminal:
        console.print(Text.assemble(("Error", "bold red"), ": ", printable(text)))
    else:
        sys.stderr.write(f"Error: {printable(text)}\n")


def exit_code(error: WeakcellError) -> int:
    """Return the exit code of the command line for an error."""
    return interrupted_code() if isinstance(error, Interrupted) else error.exit_code


def note(text: str, quiet: bool = False) -> None:
    """A line for people, on stderr."""
    if not quiet:
        stderr().print(printable(text), soft_wrap=True)


def emit(event: str | None, **content: Any) -> None:
    """One NDJSON event on stdout, or an object that is no event; numbers that are not finite become null."""
    assert "version" not in content, "the version of the format would be lost"
    named = {} if event is None else {"event": event}
    sys.stdout.write(printable_json({"version": EVENT_VERSION, **named, **_finite(content)}) + "\n")
    sys.stdout.flush()


def show_plan(text: str, as_json: bool, **content: Any) -> None:
    """Say what a command would do, as text or as a `plan` event with these numbers and names."""
    if as_json:
        emit("plan", **content)
    else:
        say(f"{text} Nothing was done.")


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


class Bar:
    """Moves when told."""

    def step(self, description: str) -> None:
        """One more is done."""


_NUMBERS_WIDTH = 60
"""Characters that the numbers of a progress bar need, and a short bar."""


@contextmanager
def progress_bar(jobs: int, shown: bool, of: str = "trials", first: str = "compiling") -> Iterator[Bar]:
    """A bar with the time left, on stderr and only if that is a terminal; `of`: what it counts; `first`: said before."""
    console = stderr()
    if not (shown and console.is_terminal):
        yield Bar()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TextColumn(of), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as progress:
        task = progress.add_task(first, total=jobs)

        class RichBar(Bar):
            def step(self, description: str) -> None:
                # rich would shorten the numbers to make room for a long text
                room = max(12, console.width - _NUMBERS_WIDTH)
                shown = description if len(description) <= room else f"{description[: room - 1]}…"
                progress.update(task, advance=1, description=shown)

        yield RichBar()
