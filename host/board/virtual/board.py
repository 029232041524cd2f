"""A virtual Pico or Pico 2 as a transport: a chip that runs the image, memory models for its cells, and what may go wrong."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import numpy.typing as npt

from weakcell.host.board.firmware.build import CHIPS, image_path
from weakcell.host.board.virtual.faults import Failure, Misbehaviour
from weakcell.host.board.virtual.machine import Machine
from weakcell.host.board.virtual.memory_map import NOMINAL, SRAM
from weakcell.memmodels.address import Words
from weakcell.memmodels.errors import UsageError

_WATCHDOG_READS = 3
_WATCHDOG_TIMER = 1

OnVoltage = Callable[["VirtualBoard", float], None]
Flips = Callable[["VirtualBoard", float], Words]


class VirtualBoard:
    """A board in this process. The three models are asked at each voltage below nominal, with the arena as it is then:

    on_voltage: changes the arena in place when the voltage falls: cells that do not retain their bit.
    on_read: which bits of the arena read wrongly while it is low (they are right again afterwards).
    on_write: which bits of what was written while it was low are stored wrongly.

    image: the bytes of a UF2 file; the prebuilt one by default, `image="flash"` the prebuilt flash image. hang_at_pulse: the CPU
    stops the next time the voltage falls.
    """

    def __init__(
        self,
        chip: str = "rp2350",
        on_voltage: OnVoltage | None = None,
        image: bytes | str = "ram",
        on_read: Flips | None = None,
        on_write: Flips | None = None,
        misbehaviour: Misbehaviour | None = None,
        seed: int = 0,
    ) -> None:
        if chip not in CHIPS:
            raise UsageError(f"A virtual {chip}", "there is no such board", f"Choose {' or '.join(CHIPS)}")
        self.chip = chip
        self.on_voltage, self.on_read, self.on_write = on_voltage, on_read, on_write
        self.misbehaviour = misbehaviour or Misbehaviour()
        self.ignore_voltage = self.misbehaviour.ignore_voltage
        self.hang_at_pulse = False
        self.resets = 0
        self.voltages: list[float] = []
        self._random = Random(seed)
        self._failure: tuple[Failure, int] | None = None
        self._misread: Words | None = None
        self._written: set[int] = set()
        self._silent_reads = 0
        self.machine = Machine(chip, image_path(chip, image).read_bytes() if isinstance(image, str) else image, self._regulate)

    @property
    def sram(self) -> npt.NDArray[np.uint8]:
        """All of SRAM, as it is now: a view."""
        return self.machine.sram

    @property
    def arena(self) -> npt.NDArray[np.uint64]:
        """The cells under test, as they are now: a view."""
        return self.sram[: self.machine.map.arena_bytes].view(np.uint64)

    # --- a transport ------------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if not (self.machine.stuck or self.machine.bootsel):
            self.machine.uart.receive(data)

    def read(self, timeout_s: float) -> bytes:
        if self.machine.stuck:
            self._silent_reads += 1
            if self._silent_reads >= _WATCHDOG_READS and self.machine.watchdog_is_armed():
                self.reset()
            return b""
        failure, self._failure = self._failure, None
        if self.machine.run(failure[1] if failure else 0) and failure:
            self._fail(failure[0])
        self._silent_reads = 0
        return self.machine.uart.sent()

    def close(self) -> None:
        """Nothing to let go of."""

    # --- what goes wrong --------------------------------------------------------------------------------------------------------

    def fail(self, failure: Failure, instructions: int) -> None:
        """Fail when the firmware has executed so many instructions of what it does next; not at all if it does less."""
        self._failure = (failure, instructions)

    def reset(self, boot_reason: int = _WATCHDOG_TIMER) -> None:
        """Reset as by the watchdog: SRAM keeps its contents; a RAM image is jumped into again, a flash image copied anew."""
        self.resets += 1
        self._rise()
        self.machine.reset(boot_reason, cold=False)

    def brown_out(self) -> None:
        """Power is lost for a moment."""
        self._cold(self.machine.map.brown_out)

    def press_run(self) -> None:
        """Reset by the RUN pin: to a RAM image the same as a loss of power."""
        self._cold(self.machine.map.run_pin)

    def _cold(self, cause: int) -> None:
        self.resets += 1
        self._misread = None
        self.sram[:] = np.frombuffer(self._random.randbytes(self.sram.size), np.uint8)
        self.machine.reset(cause, cold=True)

    def _fail(self, failure: Failure) -> None:
        if failure is Failure.HANG:
            self.machine.stop()
        elif failure is Failure.RESET:
            self.reset()
        else:
            self.brown_out()

    # --- the regulator ----------------------------------------------------------------------------------------------------------

    def _regulate(self, code: int) -> None:
        if self.ignore_voltage:
            return
        fell, self.machine.code = code < self.machine.code, code
        volts = (55 + 5 * max(code, 5 if self.chip == "rp2040" else 0)) / 100
        self.voltages.append(volts)
        if not fell:
            self._rise()
            return
        if self.on_voltage is not None:
            self.on_voltage(self, volts)
        if code < NOMINAL:
            self._fall(volts)
        self._go_wrong(volts)

    def _go_wrong(self, volts: float) -> None:
        """A hang stops the CPU here; a reset or a brown-out is seen when the CPU has stopped."""
        wrong, draw = self.misbehaviour, self._random.random
        if self.hang_at_pulse or draw() < wrong.hang:
            self.hang_at_pulse = False
            self.machine.stop()
        elif volts < wrong.brown_out:
            self.machine.fail_after_stop(self.brown_out)
        elif draw() < wrong.reset:
            self.machine.fail_after_stop(self.reset)

    def _fall(self, volts: float) -> None:
        if self.on_read is not None:
            self._misread = self.on_read(self, volts).copy()
            self.arena[:] ^= self._misread
        if self.on_write is not None:
            self._written.clear()
            self.machine.watch_writes(lambda address: self._written.add(address - SRAM >> 2))
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
