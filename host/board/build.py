"""Build the firmware images with `ziglang` alone: the same bytes from the same sources, on any machine.

The prebuilt images in `images/` come from here; a test builds them again and compares byte for byte.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from host.board.errors import BoardError
from memmodels.errors import InputError, OutputError

IMAGES = Path(__file__).parent / "images"
SOURCES = Path(__file__).parents[2] / "firmware"
_UF2_MAGIC = (0x0A324655, 0x9E5D5157)
_UF2_END = 0x0AB16F30
_UF2_FAMILY_PRESENT = 0x2000
_UF2_PAYLOAD = 256


@dataclass(frozen=True)
class Chip:
    """A chip that firmware exists for: its name, the compiler's name for its core, and its UF2 family."""

    name: str
    cpu: str
    family: int


CHIPS = {
    "rp2040": Chip("rp2040", "cortex_m0plus", 0xE48BFF56),
    "rp2350": Chip("rp2350", "cortex_m33", 0xE48BFF59),
}


def image_path(chip: str) -> Path:
    """The prebuilt image of a chip."""
    return IMAGES / f"{chip}.uf2"


def can_build() -> str | None:
    """Why images cannot be built here, or None if they can."""
    if not SOURCES.is_dir():
        return f"the firmware's sources are not at {SOURCES} (they come with the repository, not with the package)"
    return None if find_spec("ziglang") else "the compiler is not installed (pip install ziglang)"


def build(chip: Chip) -> bytes:
    """Compile the firmware of a chip; the .uf2 file's bytes."""
    reason = can_build()
    if reason is not None:
        raise BoardError(f"Building the firmware of {chip.name}", reason, "Use the prebuilt image, or repair that")
    board = SOURCES / "board"
    sources = [
        board / chip.name / "entry.S",
        board / "pico.c",
        board / chip.name / "chip.c",
        *sorted((SOURCES / "core").glob("*.c")),
    ]
    with tempfile.TemporaryDirectory() as folder:
        elf = Path(folder) / "firmware.elf"
        command = [sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi", f"-mcpu={chip.cpu}", "-std=gnu11",
                   "-Os", "-g0", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-builtin", "-nostdlib",
                   "-fno-sanitize=undefined", "-fno-stack-protector", "-ffunction-sections", "-fdata-sections",
                   "-fno-ident", "-Wl,--gc-sections", "-I", str(board / chip.name),
                   "-T", str(board / chip.name / "image.ld"), *map(str, sources), "-o", str(elf)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode != 0 or not elf.exists():
            raise BoardError(f"Building the firmware of {chip.name}", done.stderr.strip()[-2000:], "Repair the sources")
        return b"".join(uf2_blocks(loaded(elf.read_bytes()), chip.family))


def write_image(chip: Chip, folder: Path) -> Path:
    """Build one image into a folder."""
    data = build(chip)
    target = folder / f"{chip.name}.uf2"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    except OSError as error:
        raise OutputError(f"Writing {target}", str(error), "Choose a folder that can be written") from error
    return target


def loaded(elf: bytes) -> tuple[int, bytes]:
    """What an ELF file loads: the lowest address, and the bytes from there on."""
    (offset,) = struct.unpack_from("<I", elf, 28)
    size, count = struct.unpack_from("<HH", elf, 42)
    parts = []
    for number in range(count):
        kind, at, _, address, held = struct.unpack_from("<5I", elf, offset + number * size)
        if kind == 1 and held:
            parts.append((address, elf[at : at + held]))
    first = min(address for address, _ in parts)
    image = bytearray(max(address + len(data) for address, data in parts) - first)
    for address, data in parts:
        image[address - first : address - first + len(data)] = data
    return first, bytes(image)


def uf2_blocks(image: tuple[int, bytes], family: int) -> Iterator[bytes]:
    """The blocks of a UF2 file: 512 bytes each, 256 of them payload, as both boot ROMs want them."""
    address, data = image
    count = -(-len(data) // _UF2_PAYLOAD)
    for number in range(count):
        payload = data[number * _UF2_PAYLOAD : (number + 1) * _UF2_PAYLOAD].ljust(_UF2_PAYLOAD, b"\0")
        head = (*_UF2_MAGIC, _UF2_FAMILY_PRESENT, address + number * _UF2_PAYLOAD, _UF2_PAYLOAD, number, count, family)
        yield struct.pack("<8I", *head) + payload.ljust(476, b"\0") + struct.pack("<I", _UF2_END)


def read_uf2(data: bytes) -> tuple[int, int, bytes]:
    """Family, first address and bytes of a UF2 file, by the boot ROM's rules; InputError if it would not be taken."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    parts: list[bytes] = []
    first = family = 0
    for number, block in enumerate(blocks):
        reason = _objection(block, number, len(blocks))
        if reason is None:
            address, told = struct.unpack_from("<I", block, 12)[0], struct.unpack_from("<I", block, 28)[0]
            first, family = (first, family) if number else (address, told)
            reason = None if (address, told) == (first + number * _UF2_PAYLOAD, family) else "gaps or several families"
        if reason is not None:
            raise InputError("Reading a UF2 image", f"block {number}: {reason}", "Build it again: `weakcell firmware build`")
        parts.append(block[32 : 32 + _UF2_PAYLOAD])
    if not parts:
        raise InputError("Reading a UF2 image", "it is empty", "Build it again: `weakcell firmware build`")
    return family, first, b"".join(parts)


def _objection(block: bytes, number: int, count: int) -> str | None:
    if len(block) != 512:
        return "not 512 bytes"
    *magic, flags, _, size, told_number, told_count, _ = struct.unpack_from("<8I", block)
    if tuple(magic) != _UF2_MAGIC or struct.unpack_from("<I", block, 508)[0] != _UF2_END:
        return "wrong magic numbers"
    if flags & 1 or not flags & _UF2_FAMILY_PRESENT or size != _UF2_PAYLOAD:
        return "wrong flags or payload size"
    return None if (told_number, told_count) == (number, count) else "wrong block number"


def build_all(chips: Iterable[str], folder: Path) -> list[Path]:
    """Build the images of these chips into a folder."""
    return [write_image(CHIPS[chip], folder) for chip in chips]
