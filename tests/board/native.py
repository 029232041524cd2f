"""The firmware's core compiled for this machine: as a function, bytes in and reply out, or behind its own USB driver."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from weakcell.host.board.boards import BOARDS
from weakcell.host.board.virtual.usb import CONTROLS, CONTROLS_END, DPRAM, DPRAM_BYTES, REGISTERS, UsbController

HERE = Path(__file__).parent
CORE = HERE.parents[1] / "firmware" / "core"
PAGES = 16
_REPLY_BYTES = 1 << 16
_LOOK_US = 20


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


class NativeUsbBoard:
    """The firmware's USB driver and core, compiled for this machine, behind the model of the controller of virtual boards.

    It is a virtual board as far as a cable sees it (`UsbCable`). A process can hold only one: the controller's memory has a fixed
    address.

    Attributes:
        usb: the controller.
    """

    stuck = bootsel = False
    away_us = 0

    def __init__(self, folder: Path, chip: str = "rp2350", check: int = 0xFFFFFFFF) -> None:
        """Compile and start. check: bits of the CRC that count."""
        firmware, objects = CORE.parent, list[str]()
        common = ["-O2", "-fPIC", "-Wall", "-Werror", f"-DWC_CHECK=0x{check:x}u", f"-DPAGES={PAGES}", "-DWC_FLASH"]
        c_only, command = ["-std=c11", "-Wno-attributes"], compiler()
        assert command is not None
        for source in [HERE / "native.c", *sorted(CORE.glob("*.c"))]:
            objects.append(str(folder / f"{source.stem}.o"))
            subprocess.run([*command, *c_only, *common, "-c", str(source), "-o", objects[-1]], check=True, capture_output=True)
        library = folder / f"usb-{chip}-{check:x}.so"
        cpp = ["-std=c++17", "-Wno-int-to-pointer-cast", "-Wno-attributes", "-I", str(firmware / "board" / chip)]
        subprocess.run(
            [*cpp_compiler(), *cpp, *common, "-shared", str(HERE / "native_usb.cpp"), *objects, "-o", str(library)],
            check=True, capture_output=True,
        )  # fmt: skip
        where = BOARDS[chip].map
        self.usb = UsbController(dict(where.usb_reset_values), lambda: True, [])
        self._library, self._resets = ctypes.CDLL(str(library)), where.clocks.resets
        self._library.native_usb_begin.restype = ctypes.c_void_p
        load = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_uint32)(self._load)
        store = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32)(self._store)
        self._callbacks = load, store
        self._words = (ctypes.c_uint32 * (DPRAM_BYTES // 4)).from_address(DPRAM)
        self.usb.share_memory(np.ctypeslib.as_array((ctypes.c_uint8 * DPRAM_BYTES).from_address(DPRAM)))
        if not self._library.native_usb_begin(load, store):
            raise OSError(f"the address {DPRAM:#x} is taken in this process")

    @property
    def machine(self) -> NativeUsbBoard:
        return self

    @property
    def uart(self) -> NativeUsbBoard:
        return self

    def busy(self) -> None:
        self._library.native_usb_busy()

    def pass_time(self, us: int) -> None:
        self._library.native_usb_pass_time(us)

    def read(self, timeout_s: float) -> bytes:
        """Run the firmware until it has nothing to do."""
        self._library.native_usb_run()
        return b""

    def _load(self, address: int) -> int:
        if DPRAM <= address < DPRAM + DPRAM_BYTES:
            return self._words[address - DPRAM >> 2]
        self._library.native_usb_pass_time(_LOOK_US)
        return self.usb.load(address - REGISTERS)

    def _store(self, address: int, value: int) -> None:
        if DPRAM <= address < DPRAM + DPRAM_BYTES:
            offset = address - DPRAM
            if CONTROLS <= offset < CONTROLS_END:
                self.usb.control_written(offset, value)
            self._words[offset >> 2] = value
        elif address == self._resets:
            self.usb.reset()
        else:
            self.usb.store(address - REGISTERS, value, 0)


def cpp_compiler() -> list[str]:
    """Return the command of a C++ compiler."""
    for name in ("g++", "c++", "clang++"):
        if shutil.which(name):
            return [name]
    return [sys.executable, "-m", "ziglang", "c++"]
