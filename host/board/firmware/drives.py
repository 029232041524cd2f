"""The USB drive of a board in BOOTSEL mode: find it, identify its chip, copy an image onto it."""

from __future__ import annotations

import os
import string
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from weakcell.host.board.boards import BOARDS
from weakcell.host.board.errors import BoardError
from weakcell.host.board.firmware.build import image_path
from weakcell.memmodels.errors import UsageError

_INFO = "INFO_UF2.TXT"


@dataclass(frozen=True)
class Drive:
    """A mounted BOOTSEL drive and its chip."""

    folder: Path
    chip: str


def find_drive(folders: Iterable[Path] | None = None) -> Drive:
    """Return the one mounted BOOTSEL drive; BoardError if there is none or several."""
    drives = list_drives(folders)
    if not drives:
        do = "Hold BOOTSEL while you plug the board in, mount the drive that appears, or name it: --drive DIR"
        raise BoardError("Looking for a board in BOOTSEL mode", "no mounted drive is one", do)
    if len(drives) > 1:
        names = ", ".join(f"{drive.folder} ({drive.chip})" for drive in drives)
        raise BoardError(
            "Looking for a board in BOOTSEL mode", f"there are several: {names}", f"Name one: --drive {drives[0].folder}"
        )
    return drives[0]


def list_drives(folders: Iterable[Path] | None = None) -> list[Drive]:
    """Return the BOOTSEL drives in these folders; None: where drives are mounted."""
    mounts = list_mounts() if folders is None else folders
    return [drive for folder in mounts if (drive := _identify(folder)) is not None]


def read_drive(folder: Path) -> Drive:
    """Return the BOOTSEL drive in this folder; UsageError if there is none."""
    drive = _identify(folder)
    if drive is None:
        found = f"there is no {_INFO} of an {' or '.join(name.upper() for name in BOARDS)} in it"
        raise UsageError(f"--drive {folder}", found, "Give the BOOTSEL drive")
    return drive


def copy_image(drive: Drive, kind: str) -> str:
    """Copy the prebuilt image of the drive's chip onto it, and return the file's name."""
    source = image_path(drive.chip, kind)
    target = drive.folder / source.name
    try:
        # in place: such a drive has no rename; it has no links either, unlike a folder that only looks like one
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "wb") as file:
            file.write(source.read_bytes())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise BoardError(f"Copying {source.name} to {drive.folder}", str(error), "Is it mounted for writing?") from error
    return source.name


def list_mounts() -> Iterator[Path]:
    """Yield the folders where drives are mounted on this system."""
    if sys.platform == "win32":
        yield from (Path(f"{letter}:\\") for letter in string.ascii_uppercase)
    elif sys.platform == "darwin":
        yield from _folders(Path("/Volumes"))
    else:
        yield from _read_mount_table(Path("/proc/self/mounts"))


def _read_mount_table(table: Path) -> Iterator[Path]:
    """Yield the mount points of FAT drives; spaces in their names are written as \\040."""
    for line in table.read_text().splitlines() if table.exists() else ():
        fields = line.split(" ")
        if len(fields) > 2 and fields[2] in ("vfat", "msdos", "fuseblk"):
            yield Path(fields[1].replace("\\040", " ").replace("\\134", "\\"))


def _folders(parent: Path) -> Iterator[Path]:
    if parent.is_dir():
        yield from sorted(parent.iterdir())


def _identify(folder: Path) -> Drive | None:
    """Return the drive in a folder by its `Board-ID: RPI-RP2`; None if there is no such line."""
    try:
        text = (folder / _INFO).read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    chips = {board.drive_board_id: board.name for board in BOARDS.values()}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "Board-ID" and value.strip() in chips:
            return Drive(folder, chips[value.strip()])
    return None
