"""`weakcell firmware`: build the images that boards and virtual boards run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Firmware images for the Pico and the Pico 2.")


@app.callback()
def _group() -> None:
    """Firmware images for the Pico and the Pico 2."""


@app.command()
def build(
    chip: Annotated[list[str] | None, typer.Argument(help="rp2040, rp2350; both if none is named.", show_default=False)] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the .uf2 files go.")] = Path("."),
) -> None:
    """Compile the images with `ziglang` alone (needs the repository's firmware/): the same bytes on any machine."""
    from host.board.build import CHIPS, build_all, image_path
    from host.cli.screen import show
    from memmodels.errors import UsageError

    for name in chip or ():
        if name not in CHIPS:
            raise UsageError(f"Firmware for {name!r}", "there is none", f"Choose {' or '.join(CHIPS)}")
    shipped = {name: image_path(name).read_bytes() for name in CHIPS if image_path(name).exists()}
    for path in build_all(chip or CHIPS, out):
        same = "the same bytes as" if shipped.get(path.stem) == path.read_bytes() else "differs from"
        show(f"{path}: {path.stat().st_size} bytes, {same} the image that shipped")
