"""`weakcell firmware`: build the images, and copy one onto a board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weakcell.host.board.boards import BOARDS, list_names

_HELP = f"Firmware images for {' and '.join(f'the {board.product}' for board in BOARDS.values())}."
_CHIP = f"{', '.join(BOARDS)}; {'both' if len(BOARDS) == 2 else 'all'} if none is named."
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=_HELP)


@app.callback(help=_HELP)
def _group() -> None:
    pass


@app.command()
def build(
    chip: Annotated[list[str] | None, typer.Argument(help=_CHIP, show_default=False)] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the .uf2 files go.")] = Path("."),
    compiler: Annotated[str, typer.Option(help="zig, or gcc (arm-none-eabi-gcc).")] = "zig",
) -> None:
    """Compile the RAM and flash images (needs the repository's firmware/); with zig the same bytes on any machine."""
    from weakcell.host.board.firmware.build import COMPILERS, IMAGES, build_all
    from weakcell.host.cli.terminal import show
    from weakcell.memmodels.errors import UsageError

    for name in chip or ():
        if name not in BOARDS:
            raise UsageError(f"Firmware for {name!r}", "there is none", f"Choose {list_names()}")
    if compiler not in COMPILERS:
        raise UsageError(f"--compiler {compiler}", "it is not known", f"Choose {' or '.join(COMPILERS)}")
    shipped = {path.name: path.read_bytes() for path in IMAGES.glob("*.uf2")}
    for path in build_all(chip or BOARDS, out, compiler):
        same = "the same bytes as" if shipped.get(path.name) == path.read_bytes() else "differs from"
        show(f"{path}: {path.stat().st_size} bytes, {same} the image that shipped")


@app.command()
def flash(
    image: Annotated[str, typer.Option(help="flash: stays, and comes back after a reset. ram: gone when power is.")] = "flash",
    drive: Annotated[Path | None, typer.Option(metavar="DIR", help="The board's drive, if it is not to be looked for.")] = None,
) -> None:
    """Copy the image onto a board whose BOOTSEL button was held while it was plugged in: it appears as a drive."""
    from weakcell.host.board.firmware.build import IMAGE_KINDS
    from weakcell.host.board.firmware.drives import copy_image, find_drive, read_drive
    from weakcell.host.cli.terminal import show
    from weakcell.memmodels.errors import UsageError

    if image not in IMAGE_KINDS:
        raise UsageError(f"--image {image}", "there is no such image", f"Choose {' or '.join(IMAGE_KINDS)}")
    found = find_drive() if drive is None else read_drive(drive)
    name = copy_image(found, image)
    show(f"{name} is on {found.folder} ({found.chip}); the board restarts by itself: weakcell board info")
