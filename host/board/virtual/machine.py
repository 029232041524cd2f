"""The chip of a virtual board: Unicorn runs the unmodified image; SRAM is a NumPy array; the registers the firmware uses are here.

What is modelled: the CPU, SRAM, UART 0, the regulator's registers (with the RP2350's password and unlock bit), a timer, the
RP2040's DMA chain as the firmware uses it, the watchdog, the way from reset to the image (second stage, IMAGE_DEF, jump vectors) as
the boot ROMs' sources and the data sheets tell it, and the RP2350's power state P1.4. `firmware/EMULATORS.md` lists what is not.

Unicorn is GPLv2 and stays an optional dependency (`pip install weakcell[virtual]`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.host.board.errors import BoardError
from weakcell.host.board.firmware.build import CHIPS
from weakcell.host.board.firmware.uf2 import BOOT2_BYTES, crc32_mpeg2, read_uf2
from weakcell.host.board.virtual.memory_map import (
    ALARM_TIME,
    FLASH,
    LP_ENTRY,
    LP_EXIT,
    MAPS,
    NOMINAL,
    POWMAN,
    POWMAN_BYTES,
    READ_TIME,
    SRAM,
    SSI,
    STATE,
    STATE_REQUEST_CORE_OFF,
    STATE_WAITING,
    TIMER,
    TIMER_RUNS_AND_WAKES,
    VECTOR_MAGIC,
    WDSEL,
)
from weakcell.host.board.virtual.uart import Uart

_PERIPHERALS, _PERIPHERALS_END, _BLOCK = 0x40000000, 0x40200000, 0x4000
_DMA, _PRIVATE, _PAGE = 0x50000000, 0xE0000000, 4096
_TICK_US = 5
_BOOT2 = 0x20041F00
_XIP_READY = {0x00: 0x001F0300, 0xF4: 0x03000218, 0x08: 1}


class Machine:
    """A chip with an image. regulated(code): called when the regulator is told another code; sets `code` if it obeys.

    stuck: the CPU stands still until a reset; unable: it could not go on. bootsel: the boot ROM waits for an image.
    """

    def __init__(self, chip: str, image: bytes, regulated: Callable[[int], None]) -> None:
        self.chip, self.map = chip, MAPS[chip]
        self.uart = Uart()
        self.stuck = False
        self.bootsel = self.unable = False
        self._regulated = regulated
        self._arm: Any = import_module("unicorn.arm_const")
        self._unicorn: Any = import_module("unicorn")
        self._memory = np.zeros(self.map.sram_bytes + _PAGE, np.uint8)
        skip = -self._memory.ctypes.data % _PAGE
        self.sram: npt.NDArray[np.uint8] = self._memory[skip : skip + self.map.sram_bytes]
        self._flash = b""
        self._registers: dict[int, int] = {}
        self.code = NOMINAL
        self._write_hook: Any = None
        self._written: Callable[[int], None] | None
        self._ends: Callable[[], None] | None
        self.drop(image)

    # --- from power to the image ------------------------------------------------------------------------------------------------

    def drop(self, image: bytes) -> None:
        """Copy a UF2 image onto the BOOTSEL drive: it is run from RAM, or kept in flash and booted."""
        family, first, data = read_uf2(image)
        if family != CHIPS[self.chip].family:
            raise BoardError(
                f"Starting a virtual {self.chip}", f"the image is for family {family:#x}", "Give the image of this chip"
            )
        self._registers.clear()
        self.code = NOMINAL
        if first == FLASH:
            self._flash = data
            self._boot()
            return
        self._store_sram(first, data)
        self._begin(*self._entry_of(data, first))

    def reset(self, cause: int, cold: bool) -> None:
        """Reset: cold as after a brown-out or by the RUN pin, when nothing but flash is kept; else by the watchdog.

        cause: what the chip's reset register tells, or the watchdog's reason.
        """
        kept: dict[int, int] = {}
        if not cold:
            vector = self.map.boot_vectors[-1]
            whole = bool(self._registers.get(WDSEL, 0) & 1)
            kept = {a: v for a, v in self._registers.items() if vector <= a < vector + 16 and not whole}
            if self.chip == "rp2350" and not whole:
                kept |= {a: v for a, v in self._registers.items() if POWMAN <= a < POWMAN + POWMAN_BYTES}
            kept[self.map.watchdog + 8] = cause
        else:
            kept[self.map.chip_reset] = cause
        if self.chip == "rp2040" or self.map.regulator not in kept:
            self.code = NOMINAL
        self._registers = kept
        self._boot()

    def _boot(self) -> None:
        """What the boot ROM does. A jump vector is used once."""
        for vector in self.map.boot_vectors:
            magic, check, stack, entry = (self._registers.get(vector + at, 0) for at in (0, 4, 8, 12))
            if magic == VECTOR_MAGIC and check == entry ^ -VECTOR_MAGIC & 0xFFFFFFFF:
                self._registers[vector] = 0
                self._begin(entry, stack)
                return
        if self.chip == "rp2040" and len(self._flash) >= BOOT2_BYTES:
            second = self._flash[:BOOT2_BYTES]
            if crc32_mpeg2(second[:-4]) == int.from_bytes(second[-4:], "little"):
                self._store_sram(_BOOT2, second)
                self._begin(_BOOT2, self.map.stack)
                return
        if self.chip == "rp2350" and self._flash:
            self._begin(*self._entry_of(self._flash, FLASH))
            return
        self.bootsel = True
        self.uart.clear()

    def _entry_of(self, data: bytes, first: int) -> tuple[int, int]:
        """Entry and stack. RP2040: the first word is code. RP2350: from the vector table that IMAGE_DEF names."""
        if self.chip == "rp2040":
            return first, self.map.stack
        at = data[:4096].find(bytes.fromhex("d3deffff 42012110 03020000"))
        if at < 0:
            raise BoardError("Starting a virtual rp2350", "the image has no IMAGE_DEF in its first 4 KB", "Build it again")
        table = int.from_bytes(data[at + 12 : at + 16], "little") - first
        stack, entry = (int.from_bytes(data[table + at : table + at + 4], "little") for at in (0, 4))
        return entry, stack

    def _store_sram(self, address: int, data: bytes) -> None:
        self.sram[address - SRAM :][: len(data)] = np.frombuffer(data, np.uint8)

    def _begin(self, entry: int, stack: int) -> None:
        """A new engine on the same SRAM."""
        self.bootsel = self.unable = self.stuck = False
        self._dma: dict[int, int] = {}
        self._ssi: dict[int, int] = {}
        self._time_us = 0
        self._unlocked = self._asleep = self._in_chain = False
        self._write_hook = self._written = self._ends = None
        self.uart.clear()
        unicorn, where = self._unicorn, self.map
        engine = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        engine.ctl_set_cpu_model(self._arm.UC_CPU_ARM_CORTEX_M0 if self.chip == "rp2040" else self._arm.UC_CPU_ARM_CORTEX_M33)
        engine.mem_map_ptr(SRAM, where.sram_bytes, unicorn.UC_PROT_ALL, ctypes.c_void_p(self.sram.ctypes.data))
        after = where.uart + _BLOCK
        for first, end in ((_PERIPHERALS, where.uart), (after, _PERIPHERALS_END)):
            engine.mmio_map(first, end - first, self._load, first, self._store, first)
        self.uart.attach(engine, where.uart, _BLOCK)
        engine.mmio_map(_DMA, 0x1000, self._load_dma, None, self._store_dma, None)
        engine.mem_map(_PRIVATE, 0x10000)
        if self._flash and self.chip == "rp2040":
            engine.mmio_map(FLASH, -(-len(self._flash) // _PAGE) * _PAGE, self._load_flash, None, None, None)
            engine.mmio_map(SSI, _PAGE, None, None, self._store_ssi, None)
        elif self._flash:
            engine.mem_map(FLASH, -(-len(self._flash) // _PAGE) * _PAGE, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
            engine.mem_write(FLASH, self._flash)
        engine.reg_write(self._arm.UC_ARM_REG_SP, stack)
        self._engine, self._pc = engine, entry | 1

    # --- running ----------------------------------------------------------------------------------------------------------------

    def run(self, instructions: int = 0) -> bool:
        """Until the firmware waits for a byte that has not come, or is stuck; if given, for so many instructions at most.

        True if those were used up.
        """
        self.uart.feed()
        if instructions:  # code translated before does not count them
            self._engine.ctl_flush_tb()
        while not (self.stuck or self.bootsel):
            try:
                self._engine.emu_start(self._pc, 0xFFFFFFFF, count=instructions)
            except self._unicorn.UcError:  # on a chip, the fault handler: it waits for the watchdog
                self.unable = self.stuck = True
                return False
            self._pc = self._engine.reg_read(self._arm.UC_ARM_REG_PC) | 1
            if self._ends is not None:
                self._ends()
            elif self._asleep:
                self._power_down()
            elif self.uart.stopped():
                if not self.uart.feed():
                    return False
            elif (self._write_hook is None) != (self._written is None):
                self._follow_writes()
            elif instructions:
                return True
        return False

    def stop(self) -> None:
        """The CPU stops where it is."""
        self.stuck = True
        self._engine.emu_stop()

    def fail_after_stop(self, how: Callable[[], None]) -> None:
        """The CPU stops, and then that happens."""
        self._ends = how
        self._engine.emu_stop()

    def watchdog_is_armed(self) -> bool:
        """Will the watchdog end a hang?"""
        return bool(self._registers.get(self.map.watchdog, 0) >> 30 & 1)

    def watch_writes(self, written: Callable[[int], None] | None) -> None:
        """From here on, tell the address of each word the firmware writes into the arena; None: no more."""
        self._written = written
        if not self._in_chain:  # while DMA runs the CPU does nothing
            self._engine.emu_stop()

    def _follow_writes(self) -> None:
        if self._written is None:
            self._engine.hook_del(self._write_hook)
            self._write_hook = None
        else:

            def hook(_engine: Any, _kind: int, address: int, _size: int, _value: int, _data: Any) -> None:
                if self._written is not None:
                    self._written(address)

            end = SRAM + self.map.arena_bytes - 1
            self._write_hook = self._engine.hook_add(self._unicorn.UC_HOOK_MEM_WRITE, hook, begin=SRAM, end=end)
        self._engine.ctl_flush_tb()

    def _power_down(self) -> None:
        """P1.4: the core is off, SRAM stands at LP_ENTRY's voltage until the alarm; then the boot ROM runs at LP_EXIT's."""
        registers = self._registers
        if registers.get(TIMER, 0) & TIMER_RUNS_AND_WAKES != TIMER_RUNS_AND_WAKES:
            self.unable = self.stuck = True  # nothing will ever wake it
            return
        self._regulate(registers.get(LP_ENTRY, 0xB4) >> 4 & 31)
        if self.stuck:
            return
        self._registers = {a: v for a, v in registers.items() if POWMAN <= a < POWMAN + POWMAN_BYTES}
        self._registers |= {STATE: 0, READ_TIME: registers.get(ALARM_TIME, 0)}
        self._regulate(registers.get(LP_EXIT, 0xB0) >> 4 & 31)
        self._boot()

    def _regulate(self, code: int) -> None:
        if code != self.code:
            self._regulated(code)

    # --- registers --------------------------------------------------------------------------------------------------------------

    def _load(self, _engine: Any, offset: int, _size: int, first: int) -> int:
        address, where = first + (offset & ~0x3000), self.map
        if address == where.timer + 0x28:
            self._time_us = self._time_us + _TICK_US & 0xFFFFFFFF
            return self._time_us
        if address == where.regulator:
            return self.code << 4 | (1 << 12 | 1 if self.chip == "rp2040" else 0)
        if self.chip == "rp2350" and address == where.regulator - 4:
            return 1 << 4
        if address == STATE and self._registers.get(STATE, 0) & STATE_WAITING:
            self._asleep = True
            self._engine.emu_stop()
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

    def _store(self, _engine: Any, offset: int, _size: int, value: int, first: int) -> None:
        address, alias = first + (offset & ~0x3000), offset >> 12 & 3
        where = self.map
        if POWMAN <= address < POWMAN + 0xB0:
            if value >> 16 != 0x5AFE:
                return
            value &= 0xFFFF
            if address == where.regulator - 8 and value >> 13 & 1:
                self._unlocked = True
        old = self._registers.get(address, 0)
        self._registers[address] = (value, old ^ value, old | value, old & ~value)[alias] & 0xFFFFFFFF
        if address == where.regulator and (self.chip == "rp2040" or self._unlocked):
            self._regulate(self._registers[address] >> 4 & (15 if self.chip == "rp2040" else 31))
        elif address == where.watchdog + 4:
            self.uart.busy()
        elif address == STATE and value & STATE_REQUEST_CORE_OFF:
            self._registers[STATE] |= STATE_WAITING

    def _load_flash(self, _engine: Any, offset: int, size: int, _data: Any) -> int:
        """Flash, once the second stage has set the SSI up."""
        ready = all(self._ssi.get(register) == value for register, value in _XIP_READY.items())
        return int.from_bytes(self._flash[offset : offset + size], "little") if ready else 0xFFFFFFFF

    def _store_ssi(self, _engine: Any, offset: int, _size: int, value: int, _data: Any) -> None:
        if offset == 0x08 or not self._ssi.get(0x08, 0):  # while it is on, nothing else can be set
            self._ssi[offset] = value

    # --- the RP2040's DMA: one chain, run to its end when it is started -----------------------------------------------------------

    def _load_dma(self, _engine: Any, offset: int, _size: int, _data: Any) -> int:
        return self._dma.get(offset, 0)

    def _store_dma(self, engine: Any, offset: int, size: int, value: int, _data: Any) -> None:
        if offset == 0x40C:
            self._dma[0x400] = self._dma.get(0x400, 0) & ~value
        elif offset == 0x430:
            self._in_chain, channel = True, value.bit_length() - 1
            while self._in_chain and not self.stuck:
                source, target, count, control = (self._dma.get(channel * 0x40 + at, 0) for at in (0, 4, 8, 0x10))
                if control >> 15 & 0x3F == 0x3F:
                    word = self._load(engine, source - _PERIPHERALS, size, _PERIPHERALS)
                    self._store(engine, target - _PERIPHERALS, size, word, _PERIPHERALS)
                else:  # paced by the timer, one transfer per microsecond
                    self._time_us = self._time_us + count & 0xFFFFFFFF
                if not control >> 21 & 1:
                    self._dma[0x400] = self._dma.get(0x400, 0) | 1 << channel
                following = control >> 11 & 15
                self._in_chain, channel = following != channel, following
        else:
            self._dma[offset] = value
