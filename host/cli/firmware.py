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
    compiler: Annotated[str, typer.Option(help="zig, or gcc (arm-none-eabi-gcc).")] = "zig",
) -> None:
    """Compile the RAM and flash images (needs the repository's firmware/); with zig the same bytes on any machine."""
    from weakcell.host.board.firmware.build import CHIPS, COMPILERS, IMAGES, build_all
    from weakcell.host.cli.terminal import show
    from weakcell.memmodels.errors import UsageError

    for name in chip or ():
        if name not in CHIPS:
            raise UsageError(f"Firmware for {name!r}", "there is none", f"Choose {' or '.join(CHIPS)}")
    if compiler not in COMPILERS:
        raise UsageError(f"--compiler {compiler}", "it is not known", f"Choose {' or '.join(COMPILERS)}")
    shipped = {path.name: path.read_bytes() for path in IMAGES.glob("*.uf2")}
    for path in build_all(chip or CHIPS, out, compiler):
        same = "the same bytes as" if shipped.get(path.name) == path.read_bytes() else "differs from"
        show(f"{path}: {path.stat().st_size} bytes, {same} the image that shipped")


@app.command()
def flash(
    image: Annotated[str, typer.Option(help="flash: stays, and comes back after a reset. ram: gone when power is.")] = "flash",
    drive: Annotated[Path | None, typer.Option(metavar="DIR", help="The board's drive, if it is not to be looked for.")] = None,
) -> None:
    """Copy the image onto a board whose BOOTSEL button was held while it was plugged in: it appears as a drive."""
    from weakcell.host.board.firmware.build import KINDS
    from weakcell.host.board.firmware.drives import find_drive, put_image, read_drive
    from weakcell.host.cli.terminal import show
    from weakcell.memmodels.errors import UsageError

    if image not in KINDS:
        raise UsageError(f"--image {image}", "there is no such image", f"Choose {' or '.join(KINDS)}")
    found = find_drive() if drive is None else read_drive(drive)
    name = put_image(found, image)
    show(f"{name} is on {found.folder} ({found.chip}); the board restarts by itself: weakcell board info")
