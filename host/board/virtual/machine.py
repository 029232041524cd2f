"""The chip of a virtual board: Unicorn runs the unmodified image on SRAM that is a NumPy array.

Modelled: the CPU, SRAM, UART 0, the regulator's registers (with the RP2350's password and unlock bit), a timer, the RP2040's DMA
chain as the firmware uses it, the watchdog, the path from reset to the image (second stage, IMAGE_DEF, jump vectors) after the boot
ROMs' sources and the data sheets, and the RP2350's power state P1.4. `firmware/EMULATORS.md` lists what is not modelled.

Unicorn is GPLv2 and stays an optional dependency (`pip install weakcell[virtual]`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.host.board.boards import BoardType
from weakcell.host.board.errors import BoardError
from weakcell.host.board.firmware.uf2 import BOOT2_BYTES, crc32_mpeg2, read_uf2
from weakcell.host.board.virtual.uart import Uart

_PERIPHERALS, _PERIPHERALS_END, _BLOCK = 0x40000000, 0x40200000, 0x4000
_DMA, _PRIVATE, _PAGE = 0x50000000, 0xE0000000, 4096
_TICK_US = 5
_SSI = 0x18000000
_XIP_READY = {0x00: 0x001F0300, 0xF4: 0x03000218, 0x08: 1}
_VECTOR_MAGIC = 0xB007C0D3
_IMAGE_DEF = bytes.fromhex("d3deffff 42012110 03020000")

# Offsets in the power manager (POWMAN), and bits of its STATE and TIMER registers.
_POWMAN_BYTES, _POWMAN_PROTECTED = 0x100, 0xB0
_VREG_CTRL, LP_ENTRY, _LP_EXIT, _WDSEL, _STATE, _READ_TIME, _ALARM_TIME, _TIMER = 0x04, 0x10, 0x14, 0x30, 0x38, 0x74, 0x84, 0x88
_STATE_REQUEST_CORE_OFF, _STATE_WAITING = 1 << 7, 1 << 12
_TIMER_RUNS_AND_WAKES = 1 << 1 | 1 << 4 | 1 << 5


class Machine:
    """A chip that runs an image.

    Attributes:
        board: the kind of board.
        map: its addresses and sizes.
        uart: the queues between host and firmware.
        sram: (bytes,) uint8, all SRAM as it is now.
        code: regulator code that is in force.
        stuck: the CPU has stopped until a reset.
        unable: the CPU stopped because it could not go on, for instance at an undefined instruction.
        bootsel: the boot ROM waits for an image.
    """

    def __init__(self, board: BoardType, image: bytes, on_code: Callable[[int], None]) -> None:
        """Start a chip with an image.

        Args:
            board: the kind of board.
            image: bytes of a UF2 file.
            on_code: called when the firmware asks for another regulator code; it sets `code` if the regulator obeys.
        """
        self.board, self.map = board, board.map
        self.uart = Uart()
        self.stuck = False
        self.bootsel = self.unable = False
        self._on_code = on_code
        self._arm: Any = import_module("unicorn.arm_const")
        self._unicorn: Any = import_module("unicorn")
        self._memory = np.zeros(self.map.sram_bytes + _PAGE, np.uint8)
        skip = -self._memory.ctypes.data % _PAGE
        self.sram: npt.NDArray[np.uint8] = self._memory[skip : skip + self.map.sram_bytes]
        self._flash = b""
        self._registers: dict[int, int] = {}
        self.code = board.regulator.nominal_code
        self._write_hook: Any = None
        self._on_write: Callable[[int], None] | None
        self._after_stop: Callable[[], None] | None
        self.drop(image)

    # --- from power to the image ------------------------------------------------------------------------------------------------

    def drop(self, image: bytes) -> None:
        """Copy a UF2 image onto the BOOTSEL drive: run it from RAM, or store it in flash and boot."""
        family, first, data = read_uf2(image)
        if family != self.board.uf2_family:
            raise BoardError(
                f"Starting a virtual {self.board.name}", f"the image is for family {family:#x}", "Give the image of this chip"
            )
        self._registers.clear()
        self.code = self.board.regulator.nominal_code
        if first == self.map.flash:
            self._flash = data
            self._boot()
            return
        self._store_sram(first, data)
        self._begin(*self._find_entry(data, first))

    def reset(self, cause: int, cold: bool) -> None:
        """Reset the chip.

        Args:
            cause: value for the chip's reset register if `cold`, else the watchdog's reason.
            cold: as after a brown-out or by the RUN pin, when only flash keeps its contents; else by the watchdog.
        """
        preserved: dict[int, int] = {}
        if cold:
            preserved[self.map.chip_reset] = cause
        else:
            # The power manager can be told to be reset too. Then its registers and the jump vectors are lost.
            if not self._power_register(_WDSEL) & 1:
                vector = self.map.boot_vectors[-1]
                preserved = {a: v for a, v in self._registers.items() if vector <= a < vector + 16 or self._is_powman(a)}
            preserved[self.map.watchdog + 8] = cause
        if self.map.regulator not in preserved:
            self.code = self.board.regulator.nominal_code
        self._registers = preserved
        self._boot()

    def _boot(self) -> None:
        """Do what the boot ROM does. A jump vector is used once."""
        for vector in self.map.boot_vectors:
            magic, check, stack, entry = (self._registers.get(vector + at, 0) for at in (0, 4, 8, 12))
            if magic == _VECTOR_MAGIC and check == entry ^ -_VECTOR_MAGIC & 0xFFFFFFFF:
                self._registers[vector] = 0
                self._begin(entry, stack)
                return
        boot2_address = self.board.boot2_address
        if boot2_address is not None and len(self._flash) >= BOOT2_BYTES:
            boot2 = self._flash[:BOOT2_BYTES]
            if crc32_mpeg2(boot2[:-4]) == int.from_bytes(boot2[-4:], "little"):
                self._store_sram(boot2_address, boot2)
                self._begin(boot2_address, self.map.stack)
                return
        if boot2_address is None and self._flash:
            self._begin(*self._find_entry(self._flash, self.map.flash))
            return
        self.bootsel = True
        self.uart.clear()

    def _find_entry(self, data: bytes, first: int) -> tuple[int, int]:
        """Return (entry, stack): the first address, or from the vector table that IMAGE_DEF names."""
        if self.board.boot2_address is not None:
            return first, self.map.stack
        at = data[:4096].find(_IMAGE_DEF)
        if at < 0:
            raise BoardError(
                f"Starting a virtual {self.board.name}", "the image has no IMAGE_DEF in its first 4 KB", "Build it again"
            )
        table = int.from_bytes(data[at + 12 : at + 16], "little") - first
        stack, entry = (int.from_bytes(data[table + at : table + at + 4], "little") for at in (0, 4))
        return entry, stack

    def _store_sram(self, address: int, data: bytes) -> None:
        self.sram[address - self.map.sram :][: len(data)] = np.frombuffer(data, np.uint8)

    def _begin(self, entry: int, stack: int) -> None:
        """Start a new engine on the same SRAM."""
        self.bootsel = self.unable = self.stuck = False
        self._dma: dict[int, int] = {}
        self._ssi: dict[int, int] = {}
        self._time_us = 0
        self._unlocked = not self.board.regulator.needs_unlock
        self._asleep = self._in_chain = False
        self._write_hook = self._on_write = self._after_stop = None
        self.uart.clear()
        unicorn, where = self._unicorn, self.map
        engine = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        engine.ctl_set_cpu_model(vars(self._arm)[f"UC_CPU_ARM_{self.board.unicorn_cpu}"])
        engine.mem_map_ptr(where.sram, where.sram_bytes, unicorn.UC_PROT_ALL, ctypes.c_void_p(self.sram.ctypes.data))
        after = where.uart + _BLOCK
        for first, end in ((_PERIPHERALS, where.uart), (after, _PERIPHERALS_END)):
            engine.mmio_map(first, end - first, self._load, first, self._store, first)
        self.uart.attach(engine, where.uart, _BLOCK)
        engine.mmio_map(_DMA, 0x1000, self._load_dma, None, self._store_dma, None)
        engine.mem_map(_PRIVATE, 0x10000)
        flash_pages = -(-len(self._flash) // _PAGE) * _PAGE
        if self._flash and self.board.boot2_address is not None:
            engine.mmio_map(where.flash, flash_pages, self._load_flash, None, None, None)
            engine.mmio_map(_SSI, _PAGE, None, None, self._store_ssi, None)
        elif self._flash:
            engine.mem_map(where.flash, flash_pages, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
            engine.mem_write(where.flash, self._flash)
        engine.reg_write(self._arm.UC_ARM_REG_SP, stack)
        self._engine, self._pc = engine, entry | 1

    def _is_powman(self, address: int) -> bool:
        base = self.map.power_manager
        return base is not None and base <= address < base + _POWMAN_BYTES

    def _power_register(self, offset: int, default: int = 0) -> int:
        """Return a register of the power manager; `default` if it was never written."""
        return default if self.map.power_manager is None else self._registers.get(self.map.power_manager + offset, default)

    # --- running ----------------------------------------------------------------------------------------------------------------

    def run(self, instructions: int = 0) -> bool:
        """Run until the firmware waits for a byte that has not come, or the CPU has stopped.

        Args:
            instructions: run at most this many; 0 for no limit.

        Returns:
            True if the limit ended the run.
        """
        self.uart.feed()
        if instructions:  # blocks that were translated without a count would not count their instructions
            self._engine.ctl_flush_tb()
        while not (self.stuck or self.bootsel):
            try:
                self._engine.emu_start(self._pc, 0xFFFFFFFF, count=instructions)
            except self._unicorn.UcError:  # on a chip, the fault handler: it waits for the watchdog
                self.unable = self.stuck = True
                return False
            self._pc = self._engine.reg_read(self._arm.UC_ARM_REG_PC) | 1
            if self._after_stop is not None:
                self._after_stop()
            elif self._asleep:
                self._power_down()
            elif self.uart.stopped():
                if not self.uart.feed():
                    return False
            elif (self._write_hook is None) != (self._on_write is None):
                self._update_write_hook()
            elif instructions:
                return True
        return False

    def stop(self) -> None:
        """Stop the CPU where it is."""
        self.stuck = True
        self._engine.emu_stop()

    def fail_after_stop(self, action: Callable[[], None]) -> None:
        """Stop the CPU, then call `action`."""
        self._after_stop = action
        self._engine.emu_stop()

    def watchdog_is_armed(self) -> bool:
        """Return whether the watchdog would end a hang."""
        return bool(self._registers.get(self.map.watchdog, 0) >> 30 & 1)

    def watch_writes(self, on_write: Callable[[int], None] | None) -> None:
        """Call `on_write` with the address of each word that is written into the arena; None: stop."""
        self._on_write = on_write
        if not self._in_chain:  # while DMA runs the CPU does nothing
            self._engine.emu_stop()

    def _update_write_hook(self) -> None:
        if self._on_write is None:
            self._engine.hook_del(self._write_hook)
            self._write_hook = None
        else:

            def hook(_engine: Any, _kind: int, address: int, _size: int, _value: int, _data: Any) -> None:
                if self._on_write is not None:
                    self._on_write(address)

            end = self.map.sram + self.map.arena_bytes - 1
            self._write_hook = self._engine.hook_add(self._unicorn.UC_HOOK_MEM_WRITE, hook, begin=self.map.sram, end=end)
        self._engine.ctl_flush_tb()

    def _power_down(self) -> None:
        """Run power state P1.4.

        The core is off and SRAM has LP_ENTRY's voltage until the alarm. Then the boot ROM runs at LP_EXIT's voltage.
        """
        base = self.map.power_manager
        assert base is not None, "only a power manager sends the core to sleep"
        if self._power_register(_TIMER) & _TIMER_RUNS_AND_WAKES != _TIMER_RUNS_AND_WAKES:
            self.unable = self.stuck = True  # nothing will ever wake it
            return
        exit_code, alarm_time = self._power_register(_LP_EXIT, 0xB0) >> 4 & 31, self._power_register(_ALARM_TIME)
        self._set_code(self._power_register(LP_ENTRY, 0xB4) >> 4 & 31)
        if self.stuck:
            return
        self._registers = {a: v for a, v in self._registers.items() if self._is_powman(a)}
        self._registers |= {base + _STATE: 0, base + _READ_TIME: alarm_time}
        self._set_code(exit_code)
        self._boot()

    def _set_code(self, code: int) -> None:
        if code != self.code:
            self._on_code(code)

    # --- registers --------------------------------------------------------------------------------------------------------------

    def _load(self, _engine: Any, offset: int, _size: int, first: int) -> int:
        address, where = first + (offset & ~0x3000), self.map
        if address == where.timer + 0x28:
            self._time_us = self._time_us + _TICK_US & 0xFFFFFFFF
            return self._time_us
        if address == where.regulator:
            return self.code << 4 | self.board.regulator.status_bits
        if address in where.constants:
            return where.constants[address]
        if where.power_manager is not None and address == where.power_manager + _STATE:
            if self._registers.get(address, 0) & _STATE_WAITING:
                self._asleep = True
                self._engine.emu_stop()
        elif address == where.pll:
            return self._registers.get(address, 0) | 1 << 31
        elif address == where.clk_sys_control + 8:
            return 1 << (self._registers.get(where.clk_sys_control, 0) & 1)
        return self._registers.get(address, 0)

    def _store(self, _engine: Any, offset: int, _size: int, value: int, first: int) -> None:
        address, alias = first + (offset & ~0x3000), offset >> 12 & 3
        where, powman = self.map, self.map.power_manager
        if powman is not None and powman <= address < powman + _POWMAN_PROTECTED:
            if value >> 16 != 0x5AFE:
                return
            value &= 0xFFFF
            if address == powman + _VREG_CTRL and value >> 13 & 1:
                self._unlocked = True
        old = self._registers.get(address, 0)
        self._registers[address] = (value, old ^ value, old | value, old & ~value)[alias] & 0xFFFFFFFF
        if address == where.regulator and self._unlocked:
            self._set_code(self._registers[address] >> 4 & (1 << self.board.regulator.code_bits) - 1)
        elif address == where.watchdog + 4:
            self.uart.busy()
        elif powman is not None and address == powman + _STATE and value & _STATE_REQUEST_CORE_OFF:
            self._registers[address] |= _STATE_WAITING

    def _load_flash(self, _engine: Any, offset: int, size: int, _data: Any) -> int:
        """Read flash; all ones before the second stage has configured the SSI."""
        ready = all(self._ssi.get(register) == value for register, value in _XIP_READY.items())
        return int.from_bytes(self._flash[offset : offset + size], "little") if ready else 0xFFFFFFFF

    def _store_ssi(self, _engine: Any, offset: int, _size: int, value: int, _data: Any) -> None:
        if offset == 0x08 or not self._ssi.get(0x08, 0):  # while the SSI is enabled, no other register can be set
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
