"""A virtual board as a transport: a chip that runs the image, memory models for its cells, and failures on demand."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from random import Random

import numpy as np
import numpy.typing as npt

from weakcell.host.board.boards import BOARDS, DEFAULT_BOARD, list_names
from weakcell.host.board.firmware.build import image_path
from weakcell.host.board.virtual.faults import (
    AccessFault,
    BoardFailure,
    Misbehaviour,
    RetentionFault,
)
from weakcell.host.board.virtual.machine import Machine
from weakcell.host.board.virtual.rail import RailFaults
from weakcell.memmodels.address import Words
from weakcell.memmodels.errors import UsageError

_WATCHDOG_READS = 3
_WATCHDOG_TIMER = 1
_RING_SPREAD = (0.8, 1.25)
"""Of the ring oscillators' frequencies from chip to chip. Assumed."""


class VirtualBoard:
    """A board in this process.

    Attributes:
        type: the kind of board.
        voltages: every voltage that was set, in V, in their order.
        resets: resets so far.
        ignore_voltage: the regulator's register does not move.
        hang_at_pulse: the CPU stops the next time the voltage falls.
        lowest_of_pulse: the lowest core voltage of the last time at a low code, in V.
    """

    def __init__(
        self,
        chip: str = DEFAULT_BOARD,
        on_voltage: RetentionFault | None = None,
        image: bytes | str = "ram",
        *,
        on_read: AccessFault | None = None,
        on_write: AccessFault | None = None,
        misbehaviour: Misbehaviour | None = None,
        rail: RailFaults | None = None,
        seed: int = 0,
        reset_values: Mapping[int, int] | None = None,
        line_rate: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start a board.

        Each fault is called at each voltage below nominal, with the arena as it is then.

        Args:
            chip: name in `BOARDS`.
            on_voltage: changes the arena in place when the voltage falls: cells that lose their bit.
            image: bytes of a UF2 file, or the kind of a prebuilt image.
            on_read: returns the bits of the arena that read wrongly while the voltage is low.
            on_write: returns the bits that are stored wrongly if they are written while the voltage is low.
            misbehaviour: random failures.
            rail: how the core voltage differs from the regulator's register; that of `misbehaviour` by default.
            seed: of the random failures, of SRAM after a loss of power, and of the ring oscillator.
            reset_values: of the chip's stepping, where they differ from the board's.
            line_rate: bytes from the host arrive at the line's rate, and are lost if the firmware does not fetch them in time.
            clock: the host's time in s, in which the firmware waits for a supply that the host drives.
        """
        if chip not in BOARDS:
            do = f"Choose {list_names()}, or one of them with -flash or -usb"
            raise UsageError(f"virtual:{chip}", "there is no such virtual board", do)
        self.type = BOARDS[chip]
        self.on_voltage, self.on_read, self.on_write = on_voltage, on_read, on_write
        self.misbehaviour = misbehaviour or Misbehaviour()
        self.ignore_voltage = self.misbehaviour.ignore_voltage
        self.hang_at_pulse = False
        self.resets = 0
        self.lowest_of_pulse = self.type.regulator.nominal_v
        self.voltages: list[float] = []
        self._random = Random(seed)
        self._failure: tuple[BoardFailure, int] | None = None
        self._misread: Words | None = None
        self._written: set[int] = set()
        self._silent_reads, self._locked_up = 0, False
        self._clock, self._away_until = clock, 0.0
        data = image_path(chip, image).read_bytes() if isinstance(image, str) else image
        ring = self._random.uniform(*_RING_SPREAD)
        faults = rail or self.misbehaviour.rail
        self.machine = Machine(
            self.type,
            data,
            self._set_code,
            self.brown_out,
            rail=faults,
            ring_factor=lambda: ring * self._random.gauss(1.0, faults.noise) if faults.noise else ring,
            reset_values=reset_values,
            line_rate=line_rate,
            serial=Random(f"serial {seed}").getrandbits(64),
        )

    @property
    def sram(self) -> npt.NDArray[np.uint8]:
        """All SRAM as it is now: (bytes,) uint8, a view."""
        return self.machine.sram

    @property
    def arena(self) -> npt.NDArray[np.uint64]:
        """The cells under test as they are now: (words,) uint64, a view."""
        return self.sram[: self.machine.map.arena_bytes].view(np.uint64)

    # --- a transport ------------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes to the firmware; a board that is stuck or waits for an image ignores them."""
        if not (self.machine.stuck or self.machine.bootsel):
            self.machine.uart.receive(data)

    def read(self, timeout_s: float) -> bytes:
        """Run the firmware until it waits for input, and return what it sent; no time passes."""
        if self.machine.stuck:
            self._silent_reads += 1
            if self._silent_reads >= _WATCHDOG_READS and not self._locked_up and self.machine.watchdog_is_armed():
                self.machine.outlast_watchdog()
                self.reset()
            return b""
        if self.machine.away_us:
            if self._clock() < self._away_until:
                return b""
            self.machine.come_back()
        failure, self._failure = self._failure, None
        if self.machine.run(failure[1] if failure else 0) and failure:
            self._apply_failure(failure[0])
        if self.machine.away_us:
            self._away_until = self._clock() + self.machine.away_us / 1e6
        self._silent_reads = 0
        return self.machine.uart.sent()

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    # --- failures ---------------------------------------------------------------------------------------------------------------

    def fail(self, failure: BoardFailure, instructions: int) -> None:
        """Fail once the firmware has executed `instructions` of its next run, if it does so many."""
        self._failure = (failure, instructions)

    def reset(self, boot_reason: int = _WATCHDOG_TIMER) -> None:
        """Reset as the watchdog does.

        SRAM keeps its contents. A RAM image is entered again, a flash image is copied again.
        """
        self.resets += 1
        self._rise()
        self.machine.reset(boot_reason, cold=False)

    def brown_out(self) -> None:
        """Lose power for a moment."""
        self._reset_cold(self.machine.map.brown_out)

    def press_run(self) -> None:
        """Reset by the RUN pin; a RAM image is lost as by a loss of power."""
        self._reset_cold(self.machine.map.run_pin)

    def release(self) -> None:
        """Do nothing: the RUN pin is high."""

    def pull(self, line: str, seconds: float) -> None:
        """Press RUN: any line leads there."""
        self.press_run()

    def _reset_cold(self, cause: int) -> None:
        self.resets += 1
        self._misread, self._locked_up = None, False
        self.sram[:] = np.frombuffer(self._random.randbytes(self.sram.size), np.uint8)
        self.machine.reset(cause, cold=True)

    def _apply_failure(self, failure: BoardFailure) -> None:
        if failure is BoardFailure.HANG:
            self.machine.stop()
        elif failure is BoardFailure.RESET:
            self.reset()
        else:
            self.brown_out()

    # --- the regulator ----------------------------------------------------------------------------------------------------------

    def _set_code(self, code: int) -> None:
        if self.ignore_voltage:
            return
        fell, self.machine.supply.code = code < self.machine.supply.code, code
        rail, now, nominal = self.machine.supply.rail, self.machine.now_us(), self.type.regulator.nominal_v
        reached = min(rail.volts(now), rail.lowest)
        self.voltages.append(self.type.regulator.volts(code))
        if self._random.random() >= rail.faults.ignored_writes or not fell:
            rail.set(self.voltages[-1], now)
        if not fell:
            self.lowest_of_pulse = reached
            if rail.faults.fall_v_per_s and self.on_voltage is not None and reached < nominal:
                self.on_voltage(self, reached)
            self._rise()
            return
        volts = rail.volts(now)
        if self.on_voltage is not None and volts < nominal:
            self.on_voltage(self, volts)
        if rail.target < nominal:
            self._fall(rail.target)
        self._misbehave(volts)

    def drive(self, volts: float | None) -> None:
        """Feed the core from a supply outside, in V; None: nothing is connected. The cells follow if the regulator is off."""
        if self.machine.supply.drive(volts):
            self.voltages.append(self.machine.core_volts())
            if self.on_voltage is not None and self.voltages[-1] < self.type.regulator.nominal_v:
                self.on_voltage(self, self.voltages[-1])

    def _misbehave(self, volts: float) -> None:
        """Fail at random. A hang stops the CPU at once, a reset or brown-out when it has stopped."""
        rates, draw = self.misbehaviour, self._random.random
        if self.hang_at_pulse or draw() < rates.hang:
            self.hang_at_pulse = False
            self.machine.stop()
        elif rates.lock_up and draw() < rates.lock_up:
            self._locked_up = True
            self.machine.stop()
        elif volts < rates.brown_out or (rates.power_loss and draw() < rates.power_loss):
            self.machine.fail_after_stop(self.brown_out)
        elif draw() < rates.reset:
            self.machine.fail_after_stop(self.reset)

    def _fall(self, volts: float) -> None:
        if self.on_read is not None:
            self._misread = self.on_read(self, volts).copy()
            self.arena[:] ^= self._misread
        if self.on_write is not None:
            self._written.clear()
            self.machine.watch_writes(lambda address: self._written.add(address - self.machine.map.sram >> 2))
        self._volts = volts

    def _rise(self) -> None:
        words = self.arena.view(np.uint32)
        written = np.fromiter(self._written, np.int64, len(self._written))
        if self._misread is not None:
            self._misread.view(np.uint32)[written] = 0
            self.arena[:] ^= self._misread
            self._misread = None
        if self.on_write is not None:
            if written.size:
                words[written] ^= self.on_write(self, self._volts).view(np.uint32)[written]
                self._written.clear()
            self.machine.watch_writes(None)
