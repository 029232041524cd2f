"""Build the firmware images with `ziglang` alone: the same bytes from the same sources, on any machine.

Two images per chip. The RAM image is gone after a power cycle. The flash image is the same program behind a second-stage boot that
copies it to RAM, so that every reset comes back to it. The prebuilt ones in `images/` come from here; a test builds them again and
compares byte for byte.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from weakcell.host.board.errors import BoardError
from weakcell.host.board.firmware.uf2 import BOOT2_BYTES, boot2, uf2_blocks
from weakcell.memmodels.errors import OutputError

IMAGES = Path(__file__).parent / "images"
SOURCES = Path(__file__).resolve().parents[3] / "firmware"
KINDS = ("ram", "flash")
COMPILERS = ("zig", "gcc")
FLASH = 0x10000000
MAX_IMAGE = 5 * 1024 + 512


@dataclass(frozen=True)
class Chip:
    """A chip that firmware exists for: its name, the compiler's name for its core, its UF2 family; where the image runs."""

    name: str
    cpu: str
    family: int
    image: int


CHIPS = {
    "rp2040": Chip("rp2040", "cortex_m0plus", 0xE48BFF56, 0x20040000),
    "rp2350": Chip("rp2350", "cortex_m33", 0xE48BFF59, 0x20080000),
}


def image_path(chip: str, kind: str = "ram") -> Path:
    """The prebuilt image of a chip, for its RAM or its flash."""
    return IMAGES / file_name(chip, kind)


def file_name(chip: str, kind: str) -> str:
    """What an image's file is called."""
    return f"{chip}.uf2" if kind == "ram" else f"{chip}-{kind}.uf2"


def can_build(compiler: str = "zig") -> str | None:
    """Why images cannot be built here, or None if they can."""
    if not SOURCES.is_dir():
        return f"the firmware's sources are not at {SOURCES} (they come with the repository, not with the package)"
    if compiler == "gcc":
        return None if shutil.which("arm-none-eabi-gcc") else "arm-none-eabi-gcc is not installed (apt install gcc-arm-none-eabi)"
    return None if find_spec("ziglang") else "the compiler is not installed (pip install ziglang)"


def build(chip: Chip, kind: str = "ram", compiler: str = "zig") -> bytes:
    """Compile the firmware of a chip; the .uf2 file's bytes. Only `zig` gives the bytes that ship."""
    reason = can_build(compiler)
    if reason is not None:
        raise BoardError(f"Building the firmware of {chip.name}", reason, "Use the prebuilt image, or repair that")
    board = SOURCES / "board"
    sources = [
        board / chip.name / "entry.S",
        board / "pico.c",
        board / chip.name / "chip.c",
        *sorted((SOURCES / "core").glob("*.c")),
    ]
    defines = ["-DWC_FLASH"] if kind == "flash" else []
    address, image = _linked(chip, compiler, sources, ["-T", str(board / chip.name / "image.ld"), *defines])
    if kind == "flash":
        image = image.ljust(-(-len(image) // 4) * 4, b"\0")
        there = [f"-DIMAGE_START={chip.image:#x}", f"-DIMAGE_BYTES={len(image):#x}"]
        _, first = _linked(chip, compiler, [board / chip.name / "boot.S"], ["-T", str(board / chip.name / "boot.ld"), *there])
        address, image = FLASH, (boot2(first) if chip.name == "rp2040" else first.ljust(BOOT2_BYTES, b"\0")) + image
    return b"".join(uf2_blocks((address, image), chip.family))


def _linked(chip: Chip, compiler: str, sources: list[Path], options: list[str]) -> tuple[int, bytes]:
    """What these sources, compiled and linked, load: the lowest address, and the bytes from there on."""
    if compiler == "gcc":
        command = ["arm-none-eabi-gcc", "-mthumb", f"-mcpu={chip.cpu.replace('_', '-').replace('m0-plus', 'm0plus')}",
                   "-Wl,--no-warn-rwx-segments", "-Wl,--build-id=none"]  # fmt: skip
    else:
        command = [sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi", f"-mcpu={chip.cpu}",
                   "-fno-sanitize=undefined", "-moutline"]  # fmt: skip
    library = ["-lgcc"] if compiler == "gcc" else []
    with tempfile.TemporaryDirectory() as folder:
        elf = Path(folder) / "firmware.elf"
        command += [
            "-std=gnu11", "-Oz" if compiler == "zig" else "-Os", "-g0", "-Wall", "-Wextra", "-Werror", "-ffreestanding",
            "-fno-builtin", "-nostdlib", "-fno-stack-protector", "-ffunction-sections", "-fdata-sections", "-fno-ident",
            "-Wl,--gc-sections", "-I", str(SOURCES / "board" / chip.name), *options, *map(str, sources), *library, "-o", str(elf),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode != 0 or not elf.exists():
            raise BoardError(f"Building the firmware of {chip.name}", done.stderr.strip()[-2000:], "Repair the sources")
        return loaded(elf.read_bytes())


def write_image(chip: Chip, kind: str, folder: Path, compiler: str = "zig") -> Path:
    """Build one image into a folder."""
    data = build(chip, kind, compiler)
    target = folder / file_name(chip.name, kind)
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


def build_all(chips: Iterable[str], folder: Path, compiler: str = "zig") -> list[Path]:
    """Build both images of each of these chips into a folder."""
    return [write_image(CHIPS[chip], kind, folder, compiler) for chip in chips for kind in KINDS]
