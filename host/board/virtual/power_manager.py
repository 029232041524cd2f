"""The always-on power manager (POWMAN) of a virtual board: its registers, and power state P1.4. The RP2040 has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from weakcell.host.board.boards import BoardType
from weakcell.host.board.virtual.core_supply import CoreSupply

_BYTES = 0x100
BAD_PASSWORD, _VREG_CTRL, LP_ENTRY, _LP_EXIT, _WDSEL = 0x00, 0x04, 0x10, 0x14, 0x30
_STATE, _READ_TIME, _ALARM_TIME, _TIMER = 0x38, 0x74, 0x84, 0x88
_REQUEST_CORE_OFF, _REQUEST_IGNORED, _WAITING, _CURRENT = 1 << 7, 1 << 8, 1 << 12, 15
_UNLOCK, _RUNS_AND_WAKES = 1 << 13, 1 << 1 | 1 << 4 | 1 << 5
_ONLY_THE_REQUEST = 0xFFFFFF0F


class PowerManager:
    """The power manager.

    Attributes:
        refuse_sleep: it refuses the next request.
    """

    def __init__(self, board: BoardType, register: Callable[[int], int], supply: CoreSupply) -> None:
        """Start it; register: returns a register of the chip by its address."""
        self._map, self._register, self._supply = board.map, register, supply
        self.refuse_sleep = False

    def address(self, offset: int) -> int | None:
        """Return the address of a register; None if the chip has no power manager."""
        return None if self._map.power_manager is None else self._map.power_manager + offset

    def register(self, offset: int) -> int:
        """Return a register; 0 if the chip has no power manager."""
        return 0 if self._map.power_manager is None else self._register(self._map.power_manager + offset)

    def owns(self, address: int) -> bool:
        """Return whether a register is one of the power manager's."""
        base = self._map.power_manager
        return base is not None and base <= address < base + _BYTES

    @property
    def is_reset_by_watchdog(self) -> bool:
        """Whether a reset by the watchdog resets the power manager, too."""
        return bool(self.register(_WDSEL) & 1)

    def registers_after_reset(self) -> Mapping[int, int]:
        """Return the registers that any reset changes: the boot ROM's power sequence has ended."""
        state = self.address(_STATE)
        return {} if state is None else {state: self._register(state) & ~_CURRENT}

    def is_waiting(self, address: int) -> bool:
        """Return whether the firmware looks at STATE, and the core is about to be switched off."""
        return address == self.address(_STATE) and bool(self._register(address) & _WAITING)

    # --- writes -------------------------------------------------------------------------------------------------------------------

    def kept_bits(self, address: int) -> int:
        """Return the bits of a register that writing does not change."""
        return _ONLY_THE_REQUEST if address == self.address(_STATE) else 0

    def written(self, address: int, value: int) -> int:
        """Follow a register that was written; returns the bits of it that are set then."""
        if address == self.address(_VREG_CTRL) and value & _UNLOCK:
            self._supply.unlocked = True
        if address != self.address(_STATE) or not value & _REQUEST_CORE_OFF:
            return 0
        refused, self.refuse_sleep = self.refuse_sleep or not self.register(_ALARM_TIME), False
        return _REQUEST_IGNORED if refused else _WAITING

    # --- power state P1.4 ---------------------------------------------------------------------------------------------------------

    def begin_sleep(self) -> int | None:
        """Switch the core off, and give SRAM the voltage of LP_ENTRY.

        Returns:
            The time until the alarm, in ms; None if nothing will ever wake the chip.
        """
        if self.register(_TIMER) & _RUNS_AND_WAKES != _RUNS_AND_WAKES:
            return None
        self._supply.set_code(self.register(LP_ENTRY) >> 4 & 31)
        return self.register(_ALARM_TIME)

    def wakes_into_brown_out(self, now_us: int) -> bool:
        """Return whether the detector, which is on before the voltage is back, fires when the chip wakes."""
        low = self._supply.rail.volts(now_us, self._supply.rail.faults.sleep_load)
        return self._supply.detects_brown_out(self._map.brown_out_detector[-1], low)

    def registers_after_sleep(self, slept_ms: int) -> Mapping[int, int]:
        """Return the registers that waking changes."""
        state, read_time, detectors = self.address(_STATE), self.address(_READ_TIME), self._map.brown_out_detector
        assert state is not None
        assert read_time is not None
        return {state: 0, read_time: slept_ms, detectors[0]: self._register(detectors[-1])}

    def end_sleep(self) -> None:
        """Give the core the voltage of LP_EXIT."""
        self._supply.set_code(self.register(_LP_EXIT) >> 4 & 31)
