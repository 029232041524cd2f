"""The firmware's core, compiled for this machine, as a function: bytes in, reply out."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).parent
CORE = HERE.parents[1] / "firmware" / "core"
PAGES = 16
_REPLY_BYTES = 1 << 16


def compiler() -> list[str] | None:
    """Return the command of a C compiler; None if there is none."""
    for name in ("gcc", "cc", "clang"):
        if shutil.which(name):
            return [name]
    return [sys.executable, "-m", "ziglang", "cc"] if find_spec("ziglang") else None


class NativeCore:
    """One instance of the core. A library holds only one, so each gets its own file.

    Attributes:
        pages: of the arena.
    """

    def __init__(self, folder: Path, check: int = 0xFFFFFFFF, pages: int = PAGES) -> None:
        """Compile the core. check: bits of the CRC that count."""
        self.pages = pages
        command = compiler()
        assert command is not None
        library = folder / f"core-{check:x}-{pages}.so"
        sources = [str(HERE / "native.c"), *map(str, sorted(CORE.glob("*.c")))]
        flags = [
            "-std=c11",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-shared",
            "-fPIC",
            f"-DWC_CHECK=0x{check:x}u",
            f"-DPAGES={pages}",
        ]
        subprocess.run([*command, *flags, *sources, "-o", str(library)], check=True, capture_output=True, text=True)
        self._library = ctypes.CDLL(str(library))
        self._library.native_arena.restype = ctypes.POINTER(ctypes.c_uint8)
        self._library.native_pattern.restype = ctypes.c_uint32
        self._answer = ctypes.create_string_buffer(_REPLY_BYTES)
        self.restart()

    def restart(self) -> None:
        self._library.native_start()

    def __call__(self, data: bytes) -> bytes:
        length = self._library.native_feed(data, len(data), self._answer, _REPLY_BYTES)
        return ctypes.string_at(self._answer, length)

    def pattern(self, pattern: int, seed: int, index: int) -> int:
        return int(self._library.native_pattern(pattern, seed, index))

    @property
    def arena(self) -> npt.NDArray[np.uint8]:
        return np.ctypeslib.as_array(self._library.native_arena(), (self.pages * 256,))

    def infer(self, body: bytes) -> bytes:
        """Execute INFER without its frames; one byte if it was refused."""
        length = self._library.native_infer(body, self._answer)
        return ctypes.string_at(self._answer, length)
