"""The drive that a board in BOOTSEL mode offers: which chip it is, and the image copied onto it."""

from __future__ import annotations

import os
import string
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from weakcell.host.board.errors import BoardError
from weakcell.host.board.firmware.build import image_path
from weakcell.memmodels.errors import UsageError

_INFO = "INFO_UF2.TXT"
_BOARD_IDS = {"RPI-RP2": "rp2040", "RP2350": "rp2350"}


@dataclass(frozen=True)
class Drive:
    """A mounted BOOTSEL drive and the chip that it says it is."""

    folder: Path
    chip: str


def find_drive(places: Iterable[Path] | None = None) -> Drive:
    """The one BOOTSEL drive that is mounted; BoardError if there is none, or names all of them if there are several."""
    found = [drive for place in (places if places is not None else mounted()) if (drive := _told(place)) is not None]
    if not found:
        do = "Hold BOOTSEL while you plug the board in, mount the drive that appears, or name it: --drive DIR"
        raise BoardError("Looking for a board in BOOTSEL mode", "no mounted drive is one", do)
    if len(found) > 1:
        names = ", ".join(f"{drive.folder} ({drive.chip})" for drive in found)
        raise BoardError(
            "Looking for a board in BOOTSEL mode", f"there are several: {names}", f"Name one: --drive {found[0].folder}"
        )
    return found[0]


def read_drive(folder: Path) -> Drive:
    """The drive in this folder; UsageError if it is none."""
    drive = _told(folder)
    if drive is None:
        raise UsageError(f"--drive {folder}", f"there is no {_INFO} of an RP2040 or RP2350 in it", "Give the BOOTSEL drive")
    return drive


def put_image(drive: Drive, kind: str) -> str:
    """Copy the prebuilt image for this chip onto the drive, and wait until it is there; the file's name."""
    source = image_path(drive.chip, kind)
    target = drive.folder / source.name
    try:
        with target.open("wb") as file:
            file.write(source.read_bytes())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise BoardError(f"Copying {source.name} to {drive.folder}", str(error), "Is it mounted for writing?") from error
    return source.name


def mounted() -> Iterator[Path]:
    """Where drives are mounted on this system."""
    if sys.platform == "win32":
        yield from (Path(f"{letter}:\\") for letter in string.ascii_uppercase)
    elif sys.platform == "darwin":
        yield from _folders(Path("/Volumes"))
    else:
        yield from _from_mount_table(Path("/proc/self/mounts"))


def _from_mount_table(table: Path) -> Iterator[Path]:
    """Spaces in names are written as \\040 there."""
    for line in table.read_text().splitlines() if table.exists() else ():
        fields = line.split(" ")
        if len(fields) > 2 and fields[2] in ("vfat", "msdos", "fuseblk"):
            yield Path(fields[1].replace("\\040", " ").replace("\\134", "\\"))


def _folders(parent: Path) -> Iterator[Path]:
    if parent.is_dir():
        yield from sorted(parent.iterdir())


def _told(folder: Path) -> Drive | None:
    """The drive in a folder by its own account: the line `Board-ID: RPI-RP2`, or `Board-ID: RP2350`."""
    try:
        text = (folder / _INFO).read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "Board-ID" and value.strip() in _BOARD_IDS:
            return Drive(folder, _BOARD_IDS[value.strip()])
    return None
