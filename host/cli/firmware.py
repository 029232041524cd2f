"""`weakcell firmware`: list the images, build them, copy one onto a board, and say which one a board runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weakcell.host.board.boards import BOARDS, list_names
from weakcell.host.cli.board import Port
from weakcell.host.cli.options import DryRun, JsonEvents, Quiet

_HELP = f"Firmware images for {' and '.join(f'the {board.product}' for board in BOARDS.values())}."
_CHIP = f"{', '.join(BOARDS)}; {'both' if len(BOARDS) == 2 else 'all'} if none is named."
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=_HELP)


@app.callback(help=_HELP)
def _group() -> None:
    pass


@app.command("list")
def list_shipped(as_json: JsonEvents = False, quiet: Quiet = False) -> None:
    """List the images that come with this package."""
    from dataclasses import asdict

    from weakcell.host.board.survey import list_images
    from weakcell.host.cli.tables import Column, show_table
    from weakcell.host.cli.terminal import emit

    images = list_images()
    if as_json:
        for image in images:
            emit("image", **asdict(image), product=BOARDS[image.chip].product)
        return
    show_table([
        Column("chip", [image.chip for image in images], left=True),
        Column("board", [BOARDS[image.chip].product for image in images], left=True, drop=2),
        Column("image", [image.kind for image in images], left=True),
        Column("bytes", [f"{image.code_bytes:,}" for image in images], drop=1),
        Column("CRC-32 of the file", [f"{image.crc:08x}" for image in images], drop=3, short="CRC-32"),
    ])  # fmt: skip


@app.command()
def path(
    chip: Annotated[str, typer.Argument(help=f"{list_names()}.")],
    image: Annotated[str, typer.Option(help="flash or ram.")] = "flash",
    as_json: JsonEvents = False,
    quiet: Quiet = False,
) -> None:
    """Print the path of an image, to copy it by hand or with picotool."""
    from weakcell.host.board.firmware.build import image_path
    from weakcell.host.cli.terminal import emit, errors_as_events, say

    with errors_as_events(as_json):
        _check(chip, image)
    if as_json:
        emit("file", file=str(image_path(chip, image)))
    else:
        say(str(image_path(chip, image)))


@app.command()
def version(port: Port = "auto", as_json: JsonEvents = False, quiet: Quiet = False) -> None:
    """Say which image a board runs, and whether it is this package's."""
    from weakcell.host.board.link.link import Link
    from weakcell.host.board.link.ports import open_port
    from weakcell.host.board.survey import name_firmware
    from weakcell.host.cli.terminal import emit, errors_as_events, show

    with errors_as_events(as_json), Link(open_port(port)) as link:
        chip, info = link.board.chip, link.info()
        named = name_firmware(chip, info)
        if as_json:
            emit("firmware", chip=chip, firmware=named, image_bytes=info.image_bytes, image_crc=info.image_crc)
        else:
            show(f"{chip} runs {named} ({info.image_bytes:,} bytes, CRC-32 {info.image_crc:08x}).")


def _check(chip: str | None, image: str) -> None:
    """UsageError if there is no such chip, or no such image."""
    from weakcell.host.board.firmware.build import IMAGE_KINDS
    from weakcell.memmodels.errors import UsageError

    if chip is not None and chip not in BOARDS:
        raise UsageError(f"Firmware for {chip!r}", "there is none", f"Choose {list_names()}")
    if image not in IMAGE_KINDS:
        raise UsageError(f"--image {image}", "there is no such image", f"Choose {' or '.join(IMAGE_KINDS)}")


@app.command(short_help="Compile the images from the repository's C.")
def build(
    chip: Annotated[list[str] | None, typer.Argument(help=_CHIP, show_default=False)] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the .uf2 files go.")] = Path("."),
    compiler: Annotated[str, typer.Option(help="zig, or gcc (arm-none-eabi-gcc).")] = "zig",
    as_json: JsonEvents = False,
    quiet: Quiet = False,
) -> None:
    """Compile the RAM and flash images (needs the repository's firmware/); with zig the same bytes on any machine."""
    from weakcell.host.board.firmware.build import COMPILERS, IMAGES, build_all
    from weakcell.host.cli.terminal import emit, errors_as_events, show
    from weakcell.memmodels.errors import UsageError

    with errors_as_events(as_json):
        for name in chip or ():
            _check(name, "flash")
        if compiler not in COMPILERS:
            raise UsageError(f"--compiler {compiler}", "it is not known", f"Choose {' or '.join(COMPILERS)}")
        built = build_all(chip or BOARDS, out, compiler)
    shipped = {path.name: path.read_bytes() for path in IMAGES.glob("*.uf2")}
    for path in built:
        same = shipped.get(path.name) == path.read_bytes()
        if as_json:
            emit("image", file=str(path), bytes=path.stat().st_size, as_shipped=same)
            continue
        compared = f", {'the same bytes as' if same else 'differs from'} the image that shipped"
        show(f"{path}: {path.stat().st_size} bytes{'' if quiet else compared}")


@app.command(short_help="Copy an image onto a board in BOOTSEL mode.")
def flash(
    image: Annotated[str, typer.Option(help="flash: stays, and comes back after a reset. ram: gone when power is.")] = "flash",
    drive: Annotated[Path | None, typer.Option(metavar="DIR", help="The board's drive, if it is not to be looked for.")] = None,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
    quiet: Quiet = False,
) -> None:
    """Copy the image onto a board whose BOOTSEL button was held while it was plugged in: it appears as a drive."""
    from weakcell.host.board.firmware.build import image_path
    from weakcell.host.board.firmware.drives import copy_image, find_drive, read_drive
    from weakcell.host.cli.terminal import emit, errors_as_events, show, show_plan

    with errors_as_events(as_json):
        _check(None, image)
        found = find_drive() if drive is None else read_drive(drive)
        about = {"chip": found.chip, "drive": str(found.folder)}
        if dry_run:
            name = image_path(found.chip, image).name
            show_plan(f"{name} would be copied onto {found.folder} ({found.chip}).", as_json, image=name, **about)
            return
        name = copy_image(found, image)
    if as_json:
        emit("flashed", image=name, **about)
    else:
        more = "" if quiet else "; the board restarts by itself: weakcell board info"
        show(f"{name} is on {found.folder} ({found.chip}){more}")
