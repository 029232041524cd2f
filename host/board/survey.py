"""Find the boards of this computer: on USB serial ports, in BOOTSEL mode, and which image each runs."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from weakcell.host.board.boards import BOARDS
from weakcell.host.board.errors import BoardError
from weakcell.host.board.firmware.build import IMAGE_KINDS, image_path
from weakcell.host.board.firmware.drives import list_drives
from weakcell.host.board.firmware.uf2 import BOOT2_BYTES, read_uf2
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.ports import list_usb_ports, open_port
from weakcell.host.board.link.protocol import BoardInfo

_OWN_USB = "This Pico runs another program. Hold BOOTSEL while you plug it in, then weakcell firmware flash"


@dataclass(frozen=True)
class Sighting:
    """A port or a drive where a board is, or may be.

    Attributes:
        where: name of the port, or folder of the drive.
        adapter: what is plugged in.
        board: product and chip; "" if nothing answers.
        firmware: which image runs; "" if nothing answers.
        next_step: what to do next.
    """

    where: str
    adapter: str
    board: str
    firmware: str
    next_step: str


@dataclass(frozen=True)
class ShippedImage:
    """A firmware image that comes with this package.

    Attributes:
        chip, kind: of the board; `flash` or `ram`.
        code_bytes, crc: size of the .uf2 file's program, and CRC-32 of the whole file.
    """

    chip: str
    kind: str
    code_bytes: int
    crc: int


def survey_boards() -> Iterator[Sighting]:
    """Yield every BOOTSEL drive and every USB serial port; a port takes a second."""
    for drive in list_drives():
        product = BOARDS[drive.chip].product
        yield Sighting(str(drive.folder), "BOOTSEL drive", f"{product} ({drive.chip})", "", "weakcell firmware flash")
    for port in list_usb_ports():
        if port.is_own_usb:
            yield Sighting(port.device, port.description, "", "", _OWN_USB)
        else:
            yield _ask_port(port.device, f"USB of {port.serial}" if port.serial else port.description)


def _ask_port(port: str, adapter: str) -> Sighting:
    try:
        with Link(open_port(port), timeout_s=0.3, retries=3) as link:
            board, info = link.board, link.info()
    except BoardError as error:
        silent = "Wire RX to GP0, TX to GP1, GND to GND; flash the image (weakcell firmware flash)"
        return Sighting(port, adapter, "", "", error.do if "Opening" in error.asked else silent)
    product = BOARDS[board.chip].product if board.chip in BOARDS else "a program on this computer"
    firmware = name_firmware(board.chip, info)
    return Sighting(port, adapter, f"{product} ({board.chip})", firmware, f"weakcell characterize --port {port}")


def name_firmware(chip: str, info: BoardInfo) -> str:
    """Return which shipped image a board runs, by the CRC-32 of its code; or that it runs another one."""
    for kind in IMAGE_KINDS if chip in BOARDS else ():
        _, _, data = read_uf2(image_path(chip, kind).read_bytes())
        code = data[BOOT2_BYTES if kind == "flash" else 0 :][: info.image_bytes]
        if len(code) == info.image_bytes and zlib.crc32(code) == info.image_crc:
            return f"the {kind} image of this version"
    return "another image than this version's: flash it again (weakcell firmware flash)"


def list_images() -> list[ShippedImage]:
    """Return the images that come with this package."""
    images = []
    for chip in BOARDS:
        for kind in IMAGE_KINDS:
            content = image_path(chip, kind).read_bytes()
            images.append(ShippedImage(chip, kind, len(read_uf2(content)[2]), zlib.crc32(content)))
    return images
