"""`weakcell download`: fetch and check the published files of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weakcell.host.cli.options import DryRun, JsonEvents, Quiet


def download(
    name: Annotated[str, typer.Argument(help="fashion-mnist, cifar-10, svhn or imagenette.")],
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="[default: $WEAKCELL_DATA, else the user's cache]", show_default=False)
    ] = None,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
    quiet: Quiet = False,
) -> None:
    """Download the published files of a data set and check their checksums; files that are there already are kept.

    \b
    Example:
      weakcell download fashion-mnist && weakcell emulate fashion-bnn
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from weakcell.host.cli.terminal import emit, errors_as_events, say, show_plan, stderr
    from weakcell.host.datasets.download import OnBytes, Source, list_missing
    from weakcell.host.datasets.download import download as fetch
    from weakcell.host.datasets.published import search_folders

    folder = search_folders(data_dir)[0] / name
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    if dry_run:
        with errors_as_events(as_json):
            urls = [source.url for source in list_missing(name, folder)]
        text = f"Would fetch into {folder}: {', '.join(urls)}." if urls else f"All files are in {folder}."
        show_plan(text, as_json, folder=str(folder), urls=urls)
        return
    hidden = quiet or as_json or not stderr().is_terminal  # in a pipe, a bar would be an empty line
    with errors_as_events(as_json), Progress(*columns, console=stderr(), transient=True, disable=hidden) as progress:

        def bar(source: Source) -> OnBytes:
            task = progress.add_task(source.name, total=None)
            return lambda here, total: progress.update(task, completed=here, total=total)

        paths = fetch(name, folder, bar)
    for path in paths:
        if as_json:
            emit("file", file=str(path))
        else:
            say(str(path))
