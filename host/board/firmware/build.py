"""Build the firmware images with `ziglang` alone: the same bytes from the same sources, on any machine.

Each board has two images. A RAM image is lost when power is lost. A flash image is the same program behind a second stage that
copies it to RAM, so that every reset comes back to it. The prebuilt images in `images/` come from here; a test rebuilds them and
compares byte for byte.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from weakcell.host.board.boards import BOARDS, BoardType
from weakcell.host.board.errors import BoardError
from weakcell.host.board.firmware.uf2 import BOOT2_BYTES, add_boot2_crc, make_uf2_blocks
from weakcell.memmodels.atomic_files import create_folder, write_bytes_atomically

IMAGES = Path(__file__).parent / "images"
SOURCES = Path(__file__).resolve().parents[3] / "firmware"
IMAGE_KINDS = ("ram", "flash")
COMPILERS = ("zig", "gcc")
MAX_IMAGE = 6 * 1024
CPU = "cortex-m0plus"
"""Its instructions run on every Cortex-M, and an image of them is the smallest."""


def image_path(chip: str, kind: str = "ram") -> Path:
    """Return the path of a prebuilt image; kind: `ram` or `flash`."""
    return IMAGES / image_name(chip, kind)


def image_name(chip: str, kind: str) -> str:
    """Return the file name of an image."""
    return f"{chip}.uf2" if kind == "ram" else f"{chip}-{kind}.uf2"


def why_not_buildable(compiler: str = "zig") -> str | None:
    """Return why images cannot be built here; None if they can."""
    if not SOURCES.is_dir():
        return f"the firmware's sources are not at {SOURCES} (they come with the repository, not with the package)"
    if compiler == "gcc":
        return None if shutil.which("arm-none-eabi-gcc") else "arm-none-eabi-gcc is not installed (apt install gcc-arm-none-eabi)"
    return None if find_spec("ziglang") else "the compiler is not installed (pip install ziglang)"


def build(board: BoardType, kind: str = "ram", compiler: str = "zig") -> bytes:
    """Compile the firmware of a board.

    Args:
        board: the kind of board.
        kind: `ram` or `flash`.
        compiler: `zig` or `gcc`. Only `zig` gives the bytes that ship.

    Returns:
        The bytes of the .uf2 file.

    Raises:
        BoardError: the compiler or the sources are missing, or compiling failed.
    """
    reason = why_not_buildable(compiler)
    if reason is not None:
        raise BoardError(f"Building the firmware of {board.name}", reason, "Use the prebuilt image, or repair that")
    folder = SOURCES / "board" / board.name
    shared = [*sorted(folder.parent.glob("*.c")), *sorted((SOURCES / "core").glob("*.c"))]
    sources = [folder / "entry.S", folder / "chip.c", *shared]
    defines = ["-DWC_FLASH"] if kind == "flash" else []
    parts = _link(board, compiler, sources, ["-T", str(folder / "image.ld"), *defines])
    address = board.image_address
    image = parts.pop(address)
    if kind == "flash":
        image = image.ljust(-(-len(image) // 4) * 4, b"\0")
        defines = [f"-DIMAGE_START={board.image_address:#x}", f"-DIMAGE_BYTES={len(image):#x}"]
        (code,) = _link(board, compiler, [folder / "boot.S"], ["-T", str(folder / "boot.ld"), *defines]).values()
        boot2 = code.ljust(BOOT2_BYTES, b"\0") if board.boot2_address is None else add_boot2_crc(code)
        address, image = board.map.flash, boot2 + image
        for start, stays in parts.items():  # what is run in flash
            image = image.ljust(start - address, b"\0") + stays
    return b"".join(make_uf2_blocks((address, image), board.uf2_family))


def _link(board: BoardType, compiler: str, sources: list[Path], options: list[str]) -> dict[int, bytes]:
    """Compile and link; return the bytes that are loaded at each address."""
    if compiler == "gcc":
        command = ["arm-none-eabi-gcc", "-mthumb", f"-mcpu={CPU}",
                   "-Wl,--no-warn-rwx-segments", "-Wl,--build-id=none",
                   "-Wno-array-bounds"]  # fmt: skip
    else:
        command = [sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi",
                   f"-mcpu={CPU.replace('-', '_')}", "-fno-sanitize=undefined", "-fno-jump-tables",
                   "-mllvm", "-inline-threshold=-30"]  # fmt: skip
    library = ["-lgcc"] if compiler == "gcc" else []
    with tempfile.TemporaryDirectory() as folder:
        elf = Path(folder) / "firmware.elf"
        command += [
            "-std=gnu11", "-Oz" if compiler == "zig" else "-Os", "-g0", "-Wall", "-Wextra", "-Werror", "-ffreestanding",
            "-fno-builtin", "-nostdlib", "-fno-stack-protector", "-ffunction-sections", "-fdata-sections", "-fno-ident",
            "-Wl,--gc-sections", "-I", str(SOURCES / "board" / board.name), *options, *map(str, sources), *library, "-o", str(elf),
        ]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if result.returncode != 0 or not elf.exists():
            raise BoardError(f"Building the firmware of {board.name}", result.stderr.strip()[-2000:], "Repair the sources")
        return load_elf(elf.read_bytes())


def write_image(board: BoardType, kind: str, folder: Path, compiler: str = "zig") -> Path:
    """Build one image into a folder and return its path; OutputError if it cannot be written."""
    data = build(board, kind, compiler)
    target = folder / image_name(board.name, kind)
    create_folder(folder)
    write_bytes_atomically(target, data)
    return target


def load_elf(elf: bytes) -> dict[int, bytes]:
    """Return the bytes that a 32-bit ELF file loads at each address; adjoining segments are one."""
    (offset,) = struct.unpack_from("<I", elf, 28)
    size, count = struct.unpack_from("<HH", elf, 42)
    parts: dict[int, bytes] = {}
    for index in range(count):
        segment_type, at, _, address, length = struct.unpack_from("<5I", elf, offset + index * size)
        if segment_type == 1 and length:
            before = next((start for start, data in parts.items() if start <= address <= start + len(data) + 3), address)
            parts[before] = parts.get(before, b"").ljust(address - before, b"\0") + elf[at : at + length]
    return parts


def build_all(chips: Iterable[str], folder: Path, compiler: str = "zig") -> list[Path]:
    """Build all images of these chips into a folder and return their paths."""
    return [write_image(BOARDS[chip], kind, folder, compiler) for chip in chips for kind in IMAGE_KINDS]
