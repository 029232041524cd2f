"""The boot ROM of a virtual chip: where it starts after a reset, after the ROMs' sources and the data sheets."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from weakcell.host.board.boards import BoardType
from weakcell.host.board.errors import BoardError
from weakcell.host.board.firmware.uf2 import BOOT2_BYTES, crc32_mpeg2

_VECTOR_MAGIC = 0xB007C0D3
_IMAGE_DEF = bytes.fromhex("d3deffff 42012110 03020000")


class Start(NamedTuple):
    """Where a chip starts.

    Attributes:
        entry: the first instruction.
        stack: the first stack pointer.
        vector: address of the jump vector that says so, which is used up; None without one.
        second_stage: code that the boot ROM copies to `entry` first.
    """

    entry: int
    stack: int
    vector: int | None = None
    second_stage: bytes = b""


def find_start(board: BoardType, flash: bytes, register: Callable[[int], int]) -> Start | None:
    """Return where the boot ROM starts; None if it waits for an image.

    Args:
        board: the kind of board.
        flash: contents of the flash chip.
        register: returns the value of a register.

    Raises:
        BoardError: the image in flash has no IMAGE_DEF, and the chip needs one.
    """
    for vector in board.map.boot_vectors:
        magic, check, stack, entry = (register(vector + at) for at in (0, 4, 8, 12))
        if magic == _VECTOR_MAGIC and check == entry ^ -_VECTOR_MAGIC & 0xFFFFFFFF:
            return Start(entry, stack, vector)
    if board.boot2_address is None:
        return find_image_start(board, flash, board.map.flash) if flash else None
    boot2 = flash[:BOOT2_BYTES]
    if len(boot2) == BOOT2_BYTES and crc32_mpeg2(boot2[:-4]) == int.from_bytes(boot2[-4:], "little"):
        return Start(board.boot2_address, board.map.stack, second_stage=boot2)
    return None


def find_image_start(board: BoardType, image: bytes, first: int) -> Start:
    """Return where an image starts: its first address, or on the RP2350 as the vector table says that IMAGE_DEF names.

    Args:
        board: the kind of board.
        image: bytes of the image.
        first: its address.

    Raises:
        BoardError: it has no IMAGE_DEF, and the chip needs one.
    """
    if board.boot2_address is not None:
        return Start(first, board.map.stack)
    at = image[:4096].find(_IMAGE_DEF)
    if at < 0:
        raise BoardError(f"Starting a virtual {board.name}", "the image has no IMAGE_DEF in its first 4 KB", "Build it again")
    table = int.from_bytes(image[at + 12 : at + 16], "little") - first
    stack, entry = (int.from_bytes(image[table + at : table + at + 4], "little") for at in (0, 4))
    return Start(entry, stack)
