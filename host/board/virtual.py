"""A virtual Pico or Pico 2: Unicorn runs the unmodified image, its SRAM is a NumPy array, its regulator calls a memory model.

What is modelled: the CPU, SRAM, UART 0, the regulator's registers (with the RP2350's password and unlock bit), a timer, and the
RP2040's DMA chain as the firmware uses it. What is not: cycle times (the timer advances 5 us per look at it), UART bit times and
overruns, interrupts, the boot ROM, brown-out detection, the regulator's slew, low-power states. Whether silicon behaves like this
is not known: the images have never run on a chip.

Unicorn is GPLv2 and stays an optional dependency (`pip install weakcell[virtual]`).
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from host.board.build import CHIPS, image_path, read_uf2
from host.board.errors import BoardError
from memmodels.errors import UsageError

_SRAM = 0x20000000
_PERIPHERALS, _PERIPHERALS_SIZE = 0x40000000, 0x200000
_DMA = 0x50000000
_PRIVATE = 0xE0000000
_NOMINAL = 11
_IDLE_LOOKS = 3
_WATCHDOG_READS = 3
_TICK_US = 5

OnVoltage = Callable[["VirtualBoard", float], None]


@dataclass(frozen=True)
class _Map:
    """Where things are on a chip."""

    sram_bytes: int
    arena_bytes: int
    stack: int
    uart: int
    timer: int
    regulator: int
    watchdog: int
    xosc_status: int
    pll: int
    resets: int
    clk_ref_selected: int
    clk_sys_control: int


_MAPS = {
    "rp2040": _Map(0x42000, 0x40000, 0x20042000, 0x40034000, 0x40054000, 0x40064000, 0x40058000, 0x40024004, 0x4002C000,
                   0x4000C000, 0x40008038, 0x4000803C),
    "rp2350": _Map(0x82000, 0x80000, 0x20082000, 0x40070000, 0x400B0000, 0x4010000C, 0x400D8000, 0x40048004, 0x40058000,
                   0x40020000, 0x40010038, 0x4001003C),
}  # fmt: skip


class VirtualBoard:
    """A board in this process, as a transport. on_voltage(board, volts) is called when the regulator is lowered: flip cells there.

    ignore_voltage: the regulator's register does not move, whatever is written to it. hang_at_pulse: the CPU stops while the
    voltage is low; the watchdog, if the firmware has armed it, restarts the image with SRAM as it is.
    """

    def __init__(self, chip: str = "rp2350", on_voltage: OnVoltage | None = None, image: bytes | None = None) -> None:
        if chip not in CHIPS:
            raise UsageError(f"A virtual {chip}", "there is no such board", f"Choose {' or '.join(CHIPS)}")
        self.chip = chip
        self.on_voltage = on_voltage
        self.ignore_voltage = self.hang_at_pulse = False
        self.resets = 0
        self.voltages: list[float] = []
        self._map = _MAPS[chip]
        family, self._entry, self._image = read_uf2(image or image_path(chip).read_bytes())
        if family != CHIPS[chip].family:
            raise BoardError(f"Starting a virtual {chip}", f"the image is for family {family:#x}", "Give the image of this chip")
        self._memory = np.zeros(self._map.sram_bytes + 4096, np.uint8)
        skip = -self._memory.ctypes.data % 4096
        self.sram: npt.NDArray[np.uint8] = self._memory[skip : skip + self._map.sram_bytes]
        self._received: deque[int] = deque()
        self._sent = bytearray()
        self._engine: Any = None
        self._start(boot_reason=0)

    @property
    def arena(self) -> npt.NDArray[np.uint64]:
        """The cells under test, as they are now: a view."""
        return self.sram[: self._map.arena_bytes].view(np.uint64)

    # --- a transport ------------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if not self._hung:
            self._received.extend(data)

    def read(self, timeout_s: float) -> bytes:
        if self._hung:
            self._silent_reads += 1
            if self._silent_reads >= _WATCHDOG_READS and self._registers.get(self._map.watchdog, 0) >> 30 & 1:
                self.reset(boot_reason=1)
            return b""
        self._run()
        data = bytes(self._sent)
        self._sent.clear()
        return data

    def close(self) -> None:
        """Nothing to let go of."""

    def reset(self, boot_reason: int = 0) -> None:
        """Restart the firmware; SRAM keeps its contents. The image is jumped into again, as the watchdog's vector has it."""
        self.resets += 1
        self._received.clear()
        self._sent.clear()
        self._start(boot_reason)

    # --- the machine ------------------------------------------------------------------------------------------------------------

    def _start(self, boot_reason: int) -> None:
        unicorn: Any = import_module("unicorn")
        arm_const: Any = import_module("unicorn.arm_const")
        self._registers: dict[int, int] = {self._map.watchdog + 8: boot_reason}
        self._dma: dict[int, int] = {}
        self._code, self._time_us, self._idle, self._silent_reads = _NOMINAL, 0, 0, 0
        self._unlocked = self._hung = self._stopped = False
        if self._engine is None:
            self.sram[self._entry - _SRAM :][: len(self._image)] = np.frombuffer(self._image, np.uint8)
        engine = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        engine.ctl_set_cpu_model(arm_const.UC_CPU_ARM_CORTEX_M0 if self.chip == "rp2040" else arm_const.UC_CPU_ARM_CORTEX_M33)
        engine.mem_map_ptr(_SRAM, self._map.sram_bytes, unicorn.UC_PROT_ALL, ctypes.c_void_p(self.sram.ctypes.data))
        engine.mmio_map(_PERIPHERALS, _PERIPHERALS_SIZE, self._load, None, self._store, None)
        engine.mmio_map(_DMA, 0x1000, self._load_dma, None, self._store_dma, None)
        engine.mem_map(_PRIVATE, 0x10000)
        at = self._entry
        if self.chip == "rp2350":  # the boot ROM takes the entry from the vector table that IMAGE_DEF names
            at = int.from_bytes(self.sram[at - _SRAM + 4 : at - _SRAM + 8].tobytes(), "little")
        engine.reg_write(arm_const.UC_ARM_REG_SP, self._map.stack)
        self._engine, self._pc, self._pc_register, self._failed = engine, at | 1, arm_const.UC_ARM_REG_PC, unicorn.UcError

    def _run(self) -> None:
        """Until the firmware waits for a byte that has not come."""
        while not self._hung:
            self._stopped, self._idle = False, 0
            try:
                self._engine.emu_start(self._pc, 0xFFFFFFFF)
            except self._failed as error:
                raise BoardError(f"The virtual {self.chip}", f"the firmware crashed ({error})", "Reset it") from error
            self._pc = self._engine.reg_read(self._pc_register) | 1
            if self._stopped:
                return

    def _stop(self) -> None:
        self._stopped = True
        self._engine.emu_stop()

    def _hang(self) -> None:
        self._hung = True
        self._silent_reads = 0
        self._received.clear()
        self._engine.emu_stop()

    def _load(self, _engine: Any, offset: int, _size: int, _data: Any) -> int:
        address, where = _PERIPHERALS + (offset & ~0x3000), self._map
        if address == where.uart + 0x18:
            if self._received:
                self._idle = 0
                return 0
            self._idle += 1
            if self._idle >= _IDLE_LOOKS:
                self._stop()
            return 1 << 4
        if address == where.uart:
            return self._received.popleft() if self._received else 0
        if address == where.timer + 0x28:
            self._time_us = self._time_us + _TICK_US & 0xFFFFFFFF
            return self._time_us
        if address == where.regulator:
            return self._code << 4 | (1 << 12 | 1 if self.chip == "rp2040" else 0)
        if self.chip == "rp2350" and address == where.regulator - 4:
            return 1 << 4
        if address == where.xosc_status:
            return 1 << 31
        if address == where.pll:
            return self._registers.get(address, 0) | 1 << 31
        if address == where.resets + 8:
            return 0xFFFFFFFF
        if address == where.clk_ref_selected:
            return 1 << 2
        if address == where.clk_sys_control + 8:
            return 1 << (self._registers.get(where.clk_sys_control, 0) & 1)
        return self._registers.get(address, 0)

    def _store(self, _engine: Any, offset: int, _size: int, value: int, _data: Any) -> None:
        address, alias = _PERIPHERALS + (offset & ~0x3000), offset >> 12 & 3
        where = self._map
        if address == where.uart:
            self._idle = 0
            self._sent.append(value & 0xFF)
            return
        if address == where.watchdog + 4:
            self._idle = 0
        if self.chip == "rp2350" and where.regulator - 8 <= address < where.regulator + 0x100:
            if value >> 16 != 0x5AFE:
                return
            value &= 0xFFFF
            if address == where.regulator - 8 and value >> 13 & 1:
                self._unlocked = True
        old = self._registers.get(address, 0)
        self._registers[address] = (value, old ^ value, old | value, old & ~value)[alias] & 0xFFFFFFFF
        if address == where.regulator and (self.chip == "rp2040" or self._unlocked):
            self._regulate(self._registers[address] >> 4 & (15 if self.chip == "rp2040" else 31))

    def _regulate(self, code: int) -> None:
        if self.ignore_voltage or code == self._code:
            return
        fell, self._code = code < self._code, code
        volts = (55 + 5 * max(code, 5 if self.chip == "rp2040" else 0)) / 100
        self.voltages.append(volts)
        if not fell:
            return
        if self.on_voltage is not None:
            self.on_voltage(self, volts)
        if self.hang_at_pulse:
            self.hang_at_pulse = False
            self._hang()

    # --- the RP2040's DMA: one chain, run to its end when it is started -----------------------------------------------------------

    def _load_dma(self, _engine: Any, offset: int, _size: int, _data: Any) -> int:
        return self._dma.get(offset, 0)

    def _store_dma(self, engine: Any, offset: int, size: int, value: int, data: Any) -> None:
        if offset == 0x40C:
            self._dma[0x400] = self._dma.get(0x400, 0) & ~value
        elif offset == 0x430:
            channel = value.bit_length() - 1
            while not self._hung:
                source, target, count, control = (self._dma.get(channel * 0x40 + at, 0) for at in (0, 4, 8, 0x10))
                if control >> 15 & 0x3F == 0x3F:
                    word = self._load(engine, source - _PERIPHERALS, size, data)
                    self._store(engine, target - _PERIPHERALS, size, word, data)
                else:  # paced by the timer, one transfer per microsecond
                    self._time_us = self._time_us + count & 0xFFFFFFFF
                if not control >> 21 & 1:
                    self._dma[0x400] = self._dma.get(0x400, 0) | 1 << channel
                following = control >> 11 & 15
                if following == channel:
                    return
                channel = following
        else:
            self._dma[offset] = value
