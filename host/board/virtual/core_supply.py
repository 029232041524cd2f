"""What feeds the core of a virtual board: its regulator, a supply outside, and the detectors that watch the voltage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from weakcell.host.board.boards import BoardType
from weakcell.host.board.virtual.clocks import LOCK_VOLTS
from weakcell.host.board.virtual.rail import CoreRail, RailFaults

_UPDATE_US, _UPDATING = 20, 1 << 15
_HIGH_IMPEDANCE = 1 << 1
_OTHER_DETECTOR_V = 0.8
"""Below this a detector of another supply resets the chip unless it is masked. Assumed."""
_BROWN_OUT_BASE_V, _BROWN_OUT_STEP_V = 0.473, 0.043


class SuppliedChip(Protocol):
    """What the supply sees of the chip."""

    hazards: list[str]

    def register(self, address: int) -> int:
        """Return a register as it was written, or its value after a reset."""
        ...

    def now_us(self) -> int:
        """Return the time in us."""
        ...

    def reset_is_due(self) -> bool:
        """Return whether the chip has stopped, or a reset waits for it to stop."""
        ...

    def spoil_caches(self) -> None:
        """Lose what is in memories that the voltage falls for, besides SRAM."""
        ...

    def lose_lock(self) -> None:
        """Make the PLLs lose their lock."""
        ...

    def lose_power(self) -> None:
        """Reset the chip as a detector does."""
        ...


class CoreSupply:
    """The core's supply.

    Attributes:
        board: the kind of board.
        rail: the core voltage.
        code: regulator code that is in force.
        regulator_ok: the regulator can report that its output is good.
        released: the regulator drives nothing.
    """

    def __init__(self, board: BoardType, chip: SuppliedChip, faults: RailFaults, on_code: Callable[[int], None]) -> None:
        self.board, self._chip, self._on_code = board, chip, on_code
        self.rail = CoreRail(board.regulator.nominal_v, faults)
        self.regulator_ok = True
        self.restart()
        self.begin()

    def restart(self) -> None:
        """Start at nominal voltage, as after a reset of the regulator."""
        self.code, self.released = self.board.regulator.nominal_code, False
        self.rail.restart()

    def begin(self) -> None:
        """Begin at time 0, as after any reset."""
        self.rail.since_reset()
        self._busy_until = 0
        self.unlocked = not self.board.regulator.needs_unlock

    def volts(self) -> float:
        """Return the core voltage now, in V."""
        return self.rail.volts(self._chip.now_us())

    # --- registers ----------------------------------------------------------------------------------------------------------------

    def reads(self, address: int) -> int | None:
        """Return a register of the regulator; None if it is none."""
        where, good = self.board.map, self.regulator_ok and not self.released
        if address == where.regulator:
            status = self.board.regulator.status_bits if good else 0
            updating = _UPDATING if where.power_manager is not None and self._is_updating() else 0
            return self.code << 4 | status | updating | (_HIGH_IMPEDANCE if self.released else 0)
        if where.regulator_status is not None and address == where.regulator_status[0]:
            return where.regulator_status[1] if good else 0
        return None

    def refuses(self, address: int) -> bool:
        """Return whether the regulator ignores a write, which is a hazard."""
        if address != self.board.map.regulator or self.board.map.power_manager is None or not self._is_updating():
            return False
        self._chip.hazards.append("a write to the regulator while it is being updated")
        return True

    def _is_updating(self) -> bool:
        return self._chip.now_us() < self._busy_until

    def written(self, address: int, value: int) -> None:
        """Follow a register that was written."""
        if address == self.board.map.regulator and self.unlocked:
            self._busy_until = self._chip.now_us() + _UPDATE_US
            self._release(bool(value & _HIGH_IMPEDANCE))
            self.set_code(value >> 4 & (1 << self.board.regulator.code_bits) - 1)
        elif address in self.board.map.brown_out_detector[:1]:
            self.check()

    # --- the voltage --------------------------------------------------------------------------------------------------------------

    def set_code(self, code: int) -> None:
        """Ask the regulator for another voltage."""
        if code != self.code:
            fell, reached = code < self.code, min(self.volts(), self.rail.lowest)
            self._on_code(code)
            self._follow(fell, reached)

    def _release(self, released: bool) -> None:
        if released != self.released:
            before = self.volts()
            self.released = released
            self.rail.release(released, self._chip.now_us())
            self._follow(released, before)

    def drive(self, volts: float | None) -> bool:
        """Feed the core from outside; None: nothing is connected. Returns whether the core voltage falls."""
        before = self.volts()
        self.rail.drive(volts, self._chip.now_us())
        fell = self.volts() < before
        self._follow(fell, before)
        return fell

    def _follow(self, fell: bool, reached: float) -> None:
        if fell:
            self._chip.spoil_caches()
        if min(reached, self.volts()) < LOCK_VOLTS:
            self._chip.lose_lock()
        self.check()

    def check(self) -> None:
        """Do what the supply detectors do at the present voltage."""
        volts, other = self.volts(), self.board.map.supply_detector
        detected = other is not None and not self._chip.register(other[0]) & other[1] and volts < _OTHER_DETECTOR_V
        lost = self.released and not volts
        if not self._chip.reset_is_due() and (lost or detected or self.detects_brown_out(self.board.map.brown_out_detector[0])):
            self._chip.lose_power()

    def detects_brown_out(self, register: int, volts: float | None = None) -> bool:
        """Return whether a brown-out detector fires; volts: the core voltage in V, that of now by default."""
        setting = self._chip.register(register)
        below = _BROWN_OUT_BASE_V + _BROWN_OUT_STEP_V * (setting >> 4 & 31)
        return bool(setting & 1) and (self.volts() if volts is None else volts) < below
