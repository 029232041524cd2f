"""`weakcell explain`: print or run the command that reproduces one row of a campaign's table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weakcell.host.cli.options import DataDir, JsonEvents, Quiet


def explain(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a weakcell sweep.")],
    row: Annotated[str, typer.Argument(metavar="ROW", help="Number of the row (column `row`) or name of the run (column `run`).")],
    run: Annotated[bool, typer.Option("--run", help="Run the command and compare with the stored result.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --run: let a memory of the stored row open a board's port.")] = False,
    data_dir: DataDir = None,
    as_json: JsonEvents = False,
    quiet: Quiet = False,
) -> None:
    """Print the command that reproduces one row; with --run, run it: exit code 1 if its result differs."""
    from weakcell.host.campaign.explain import find_run, reproduce
    from weakcell.host.campaign.store import read_store
    from weakcell.host.cli.terminal import emit, errors_as_events, say

    with errors_as_events(as_json):
        with read_store(folder) as store:
            stored = find_run(store, row)
        repeated = reproduce(stored, data_dir, yes) if run else None
    if as_json:
        emit(
            "run", run=stored.run, command=stored.arguments, accuracy=stored.accuracy, changed=stored.changed, flips=stored.flips,
            again=None if repeated is None else vars(repeated),
        )  # fmt: skip
    else:
        say(stored.command)
        if not quiet or repeated is not None:
            say(_numbers("kept ", stored.accuracy, stored.changed, stored.flips))
        if repeated is not None:
            say(_numbers("again", repeated.accuracy, repeated.changed, repeated.flips))
            say("equal" if repeated.equal else "DIFFERENT")
    if repeated is not None and not repeated.equal:
        raise typer.Exit(1)


def _numbers(when: str, accuracy: float | None, changed: float, flips: dict[str, int]) -> str:
    right = "" if accuracy is None else f"accuracy {accuracy!r}, "
    return f"{when}  {right}changed {changed!r}, flips {', '.join(f'{name} {count}' for name, count in flips.items())}"
