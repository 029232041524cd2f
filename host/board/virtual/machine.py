"""The chip of a virtual board: Unicorn runs the unmodified image on SRAM that is a NumPy array.

Modelled are the CPU, SRAM, UART 0, USB, flash, DMA, a timer and the watchdog. So are clocks with the frequency counter, the
temperature sensor, brown-out detection, and the regulator's registers with the RP2350's password and unlock bit. The path from
reset to the image follows the boot ROMs' sources and the data sheets. The RP2350 has its power state P1.4. Registers start with
the values of the chips' headers. Bits that the chip clears when 1 is written are cleared. `firmware/EMULATORS.md` lists what
is not modelled.

Unicorn is GPLv2 and stays an optional dependency (`pip install weakcell[virtual]`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.host.board.boards import BoardType
from weakcell.host.board.errors import BoardError
from weakcell.host.board.firmware.uf2 import read_uf2
from weakcell.host.board.virtual.boot_rom import find_image_start, find_start
from weakcell.host.board.virtual.clocks import Clocks, Converter
from weakcell.host.board.virtual.core_supply import CoreSupply
from weakcell.host.board.virtual.dma import Dma
from weakcell.host.board.virtual.flash import Flash
from weakcell.host.board.virtual.power_manager import BAD_PASSWORD, PowerManager
from weakcell.host.board.virtual.rail import RailFaults
from weakcell.host.board.virtual.uart import Uart
from weakcell.host.board.virtual.usb import UsbController

_PERIPHERALS, _PERIPHERALS_END, _BLOCK = 0x40000000, 0x40200000, 0x4000
_PRIVATE, _PAGE = 0xE0000000, 4096
_TICK_US = 5
_POLLS_OF_A_HANG = 50_000
"""Reads of one register with nothing in between. What the firmware waits for will never come."""
_WATCHDOG_US = 8_300_000


class Machine:
    """A chip that runs an image.

    Attributes:
        board: the kind of board.
        map: its addresses and sizes.
        uart: the queues between host and firmware.
        usb: the USB controller.
        flash: the flash chip and its cache.
        sram: (bytes,) uint8, all SRAM as it is now.
        supply: what feeds the core.
        stuck: the CPU has stopped until a reset.
        away_us: so long the CPU sleeps while the regulator drives nothing, until `come_back`; 0: it does not.
        unable: the CPU stopped because it could not go on, for instance at an undefined instruction.
        bootsel: the boot ROM waits for an image.
        serial: of the chip, or of its flash; 64 bits.
        celsius: temperature of the die, in °C.
        hazards: what the image did that a chip may punish, though not for certain.
        power: the always-on power manager.
    """

    def __init__(
        self,
        board: BoardType,
        image: bytes,
        on_code: Callable[[int], None],
        on_brown_out: Callable[[], None],
        *,
        rail: RailFaults | None = None,
        ring_factor: Callable[[], float] = lambda: 1.0,
        reset_values: Mapping[int, int] | None = None,
        line_rate: bool = False,
        serial: int = 0,
    ) -> None:
        """Start a chip with an image.

        Args:
            board: the kind of board.
            image: bytes of a UF2 file.
            on_code: called when the firmware asks for another regulator code; it sets the supply's code and rail if the regulator
                obeys.
            on_brown_out: called when a supply detector resets the chip.
            rail: how the core voltage differs from what is set.
            ring_factor: returns the ring oscillator's frequency relative to the assumed one, for each count.
            reset_values: of this stepping, where they differ from the board's.
            line_rate: bytes from the host arrive at the line's rate.
            serial: of the chip, or of its flash; 64 bits.
        """
        self.board, self.map = board, board.map
        self.serial = serial
        self._reset_values = {**board.map.reset_values, **(reset_values or {})}
        self._on_brown_out = on_brown_out
        self.clocks = Clocks(board.map.clocks, self, self.stop, board.regulator.nominal_v, ring_factor)
        self.celsius = 25.0
        self._converter = Converter(board.map.clocks, board.map.adc, board.map.sensor, self, lambda: self.celsius)
        self.hazards: list[str] = []
        self.usb = UsbController(dict(board.map.usb_reset_values), self.clocks.usb_runs, self.hazards)
        self._engine: Any = None
        self.uart = Uart()
        self.uart.has_rate = line_rate
        self.stuck = False
        self.bootsel = self.unable = False
        self._arm: Any = import_module("unicorn.arm_const")
        self._unicorn: Any = import_module("unicorn")
        self._memory = np.zeros(self.map.sram_bytes + _PAGE, np.uint8)
        skip = -self._memory.ctypes.data % _PAGE
        self.sram: npt.NDArray[np.uint8] = self._memory[skip : skip + self.map.sram_bytes]
        self.flash = Flash(board, lambda: self.serial)
        self._registers: dict[int, int] = {}
        self.time_us = 0
        self._after_stop: Callable[[], None] | None = None
        self.supply = CoreSupply(board, self, rail or RailFaults(), on_code)
        self.power = PowerManager(board, self.register, self.supply)
        self._write_hook: Any = None
        self._on_write: Callable[[int], None] | None
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
        self.supply.restart()
        if first == self.map.flash:
            self.flash.contents, self.flash.connected = data, True
            self._boot()
            return
        self._store_sram(first, data)
        start = find_image_start(self.board, data, first)
        self._begin(start.entry, start.stack)

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
            hazard = self.map.clk_ref_hazard
            if hazard and not self.register(hazard[0]) & hazard[1]:
                self.hazards.append("a reset by the watchdog while POWMAN ran from clk_ref")
            # The power manager can be told to be reset too. Then its registers and the jump vectors are lost.
            if not self.power.is_reset_by_watchdog:
                vector = self.map.boot_vectors[-1]
                preserved = {a: v for a, v in self._registers.items() if vector <= a < vector + 16 or self.power.owns(a)}
            preserved[self.map.watchdog + 8] = cause
        if self.map.regulator not in preserved:
            self.supply.restart()
        elif self.supply.code != self.board.regulator.nominal_code:
            self.hazards.append(f"the boot ROM runs at {self.board.regulator.volts(self.supply.code):.2f} V")
        self._registers = preserved
        self.flash.connected = True
        self._boot()

    def _boot(self) -> None:
        """Do what the boot ROM does. A jump vector is used once."""
        start = find_start(self.board, self.flash.contents, self.register)
        if start is None:
            self.bootsel = True
            self.uart.clear()
            return
        if start.vector is not None:
            self._registers[start.vector] = 0
        self._store_sram(start.entry, start.second_stage)
        self._begin(start.entry, start.stack)

    def _store_sram(self, address: int, data: bytes) -> None:
        self.sram[address - self.map.sram :][: len(data)] = np.frombuffer(data, np.uint8)

    def _begin(self, entry: int, stack: int) -> None:
        """Start a new engine on the same SRAM."""
        self.bootsel = self.unable = self.stuck = False
        self._registers |= self.power.registers_after_reset()
        self.supply.begin()
        self.clocks.restart()
        self.time_us = self._polls = self._polled = 0
        self._dma = Dma(self.map.dma, self._dma_load, self._dma_store, self.now_us, self._pass_time_for_dma, self._has_failed)
        self.usb.reset()
        self._asleep = self._returns = False
        self.away_us = 0
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
        engine.mmio_map(self.map.dma.base, 0x1000, self._load_dma, None, self._store_dma, None)
        engine.mem_map(_PRIVATE, 0x10000)
        self.usb.attach(engine, self.pass_time)
        engine.reg_write(self._arm.UC_ARM_REG_SP, stack)
        self._engine, self._pc = engine, entry | 1
        self.flash.attach(engine)

    # --- what clocks and DMA see ------------------------------------------------------------------------------------------------

    def register(self, address: int) -> int:
        """Return a register as it was written, or its value after a reset."""
        return self._registers.get(address, self._reset_values.get(address, 0))

    def now_us(self) -> int:
        """Return the time since the last reset, in us."""
        return self.time_us

    def core_volts(self) -> float:
        """Return the core voltage now, in V."""
        return self.supply.volts()

    def pass_time(self, us: int) -> None:
        """Let time pass, in us."""
        self.time_us += us
        self._dma.advance()

    def _pass_time_for_dma(self, us: int, target: int) -> bool:
        """Let time pass while the CPU sleeps and DMA writes to `target`; False: somebody else feeds the core (`away_us`)."""
        if self.supply.released and not self._returns:
            self.away_us = us
            return False
        if us > _WATCHDOG_US and target != self.map.watchdog + 4 and self.watchdog_is_armed():
            self.stop()
        self.pass_time(us)
        return True

    def _has_failed(self) -> bool:
        return self._after_stop is not None

    def come_back(self) -> None:
        """End the time in which somebody else feeds the core."""
        self.away_us, self._returns = 0, True
        if not self._dma.resume():
            self.stop()
        self._returns = False

    # --- what the supply sees -----------------------------------------------------------------------------------------------------

    def reset_is_due(self) -> bool:
        """Return whether the chip has stopped, or a reset waits for it to stop."""
        return self._after_stop is not None or self.stuck

    def spoil_caches(self) -> None:
        """Lose what is in memories that the voltage falls for, besides SRAM."""
        self.flash.spoil_cache()
        self.usb.dpram[:] ^= 0xA5

    def lose_lock(self) -> None:
        """Make the PLLs lose their lock."""
        self.clocks.lose_lock()

    def lose_power(self) -> None:
        """Reset the chip as a detector does."""
        if self.away_us:
            self._on_brown_out()
        else:
            self.fail_after_stop(self._on_brown_out)

    def outlast_watchdog(self) -> None:
        """Let time pass until the watchdog ends a hang; DMA goes on meanwhile."""
        self.pass_time(_WATCHDOG_US)

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
        while not (self.stuck or self.bootsel or self.away_us):
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
        if self._engine is not None:
            self._engine.emu_stop()

    def fail_after_stop(self, action: Callable[[], None]) -> None:
        """Stop the CPU, then call `action`."""
        self._after_stop = action
        self._engine.emu_stop()

    def watchdog_is_armed(self) -> bool:
        """Return whether the watchdog would end a hang."""
        return bool(self.register(self.map.watchdog) >> 30 & 1)

    def watch_writes(self, on_write: Callable[[int], None] | None) -> None:
        """Call `on_write` with the address of each word that is written into the arena; None: stop."""
        self._on_write = on_write
        if not self._dma.is_running:  # while DMA runs the CPU does nothing
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
        if (slept_ms := self.power.begin_sleep()) is None:
            self.unable = self.stuck = True
        if self.stuck or slept_ms is None:
            return
        self.time_us += 1000 * slept_ms
        if self.power.wakes_into_brown_out(self.time_us):
            self._on_brown_out()
            return
        self._registers = {a: v for a, v in self._registers.items() if self.power.owns(a)}
        self._registers |= self.power.registers_after_sleep(slept_ms)
        self.power.end_sleep()
        self.flash.connected = False
        self._boot()

    # --- registers --------------------------------------------------------------------------------------------------------------

    def _load(self, _engine: Any, offset: int, _size: int, first: int) -> int:
        address = first + (offset & ~0x3000)
        if self.away_us:  # the CPU should sleep: it reads this again when it wakes
            self._engine.emu_stop()
            return 0
        if address == self.map.timer + 0x28:
            self._polls = 0
            self.pass_time(_TICK_US)
            return self.time_us & 0xFFFFFFFF
        self.pass_time(1)
        self._count_poll(address)
        if self.power.is_waiting(address):
            self._asleep = True
            self._engine.emu_stop()
        return self._read(address)

    def _count_poll(self, address: int) -> None:
        self._polls = self._polls + 1 if address == self._polled else 0
        self._polled = address
        if self._polls > _POLLS_OF_A_HANG:
            self.stop()

    def _read(self, address: int) -> int:
        """Return what a register reads as, for the CPU or DMA."""
        where = self.map
        if address == where.package:
            return 1
        if where.chip_id is not None and where.chip_id <= address < where.chip_id + 8:
            return self.serial >> 8 * (address - where.chip_id) & 0xFFFFFFFF
        for peripheral in (self.supply, self.clocks, self._converter):
            if (value := peripheral.reads(address)) is not None:
                return value
        return self.register(address)

    def _store(self, _engine: Any, offset: int, _size: int, value: int, first: int) -> None:
        self._polls = 0
        self.pass_time(0)
        self._write(first + (offset & ~0x3000), value, offset >> 12 & 3)

    def _write(self, address: int, value: int, alias: int = 0) -> None:
        """Write a register; alias: 0 write, 1 XOR, 2 set, 3 clear."""
        where, old = self.map, self.register(address)
        self.usb.known_attached = False
        for (begin, end), password in where.passwords.items():
            if begin <= address < end:
                if value >> 16 != password:
                    if begin == where.power_manager:
                        self._registers[begin + BAD_PASSWORD] = 1
                    return
                value &= 0xFFFF
        if self.supply.refuses(address):
            return
        cleared = where.write_one_to_clear.get(address, 0)
        kept = self.power.kept_bits(address)
        new = (value, old ^ value, old | value, old & ~value)[alias] & 0xFFFFFFFF
        self._registers[address] = new & ~cleared & ~kept | old & (cleared & ~value | kept & ~cleared)
        self.clocks.written(address, old)
        if address == self.map.clocks.resets and self._registers[address] & self.map.clocks.usb_reset:
            self.usb.reset()
        self._converter.written(address)
        self._registers[address] |= self.power.written(address, value)
        self.supply.written(address, self._registers[address])
        if address == where.watchdog + 4:
            self.uart.busy()

    # --- DMA ----------------------------------------------------------------------------------------------------------------------

    def _load_dma(self, _engine: Any, offset: int, _size: int, _data: Any) -> int:
        self.pass_time(1)
        return self._dma.read(offset)

    def _store_dma(self, _engine: Any, offset: int, _size: int, value: int, _data: Any) -> None:
        self.pass_time(0)
        if not self._dma.write(offset, value):
            self.stop()  # the CPU waits for an interrupt that will not come

    def _dma_load(self, address: int) -> int | None:
        return self._read(address) if self._lets_dma_in(address) else None

    def _dma_store(self, address: int, value: int) -> bool:
        if allowed := self._lets_dma_in(address):
            self._write(address, value)
        return allowed

    def _lets_dma_in(self, address: int) -> bool:
        gate = self.map.dma.gates.get(address & ~(_BLOCK - 1))
        return gate is None or bool(self.register(gate) >> 6 & 1)
