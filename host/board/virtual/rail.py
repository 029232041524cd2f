"""The core voltage of a virtual board: what the regulator is told, and what the cells get."""

from __future__ import annotations

from dataclasses import dataclass

_RISE_V_PER_US = 0.01
"""A regulator charges its capacitor quickly: 0.55 V in 55 us."""


@dataclass(frozen=True)
class RailFaults:
    """How the core voltage differs from the regulator's register.

    Attributes:
        bypassed: the core has its own supply at nominal voltage; the regulator drives nothing.
        floor_v: the voltage never falls below this, in V.
        fall_v_per_s: how fast the capacitor is discharged while the core runs, in V/s; 0: at once.
        sleep_load: current of the sleeping core relative to the running one, which slows the fall in SLEEP.
        ignored_writes: share of the writes that the register shows and the regulator does not follow.
        noise: standard deviation of a count of the ring oscillator, relative.
        gain: of every step, nominal voltage too: an error of the regulator's reference.
    """

    bypassed: bool = False
    floor_v: float = 0.0
    fall_v_per_s: float = 0.0
    sleep_load: float = 0.1
    ignored_writes: float = 0.0
    noise: float = 0.0
    gain: float = 1.0


class CoreRail:
    """The core voltage over time.

    Attributes:
        faults: how it differs from what is set.
        lowest: the lowest voltage since the last call of `set`, in V.
    """

    def __init__(self, nominal_v: float, faults: RailFaults) -> None:
        self.faults = faults
        self._nominal = self._regulated = self._target = self._volts = self.lowest = nominal_v * faults.gain
        self._since_us = 0
        self._outside: float | None = None
        self._released = False

    @property
    def target(self) -> float:
        """Where the voltage goes, in V."""
        return self._target

    def volts(self, now_us: int, load: float = 1.0) -> float:
        """Return the voltage at a time, in V; load: relative to a running core's."""
        elapsed, self._since_us = max(now_us - self._since_us, 0), now_us
        if self._volts > self._target:
            fall = self.faults.fall_v_per_s * load * elapsed / 1e6 if self.faults.fall_v_per_s else self._volts
            self._volts = max(self._target, self._volts - fall)
        elif self.faults.fall_v_per_s:
            self._volts = min(self._target, self._volts + _RISE_V_PER_US * elapsed)
        else:
            self._volts = self._target
        self.lowest = min(self.lowest, self._volts)
        return self._volts

    def set(self, volts: float, now_us: int) -> None:
        """Tell the regulator another voltage, in V."""
        self.lowest = self.volts(now_us)
        if not self.faults.bypassed:
            self._regulated = max(volts * self.faults.gain, min(self.faults.floor_v, self._nominal))
        self._aim()

    def release(self, released: bool, now_us: int) -> None:
        """Switch the regulator off, or on again."""
        self.lowest = self.volts(now_us)
        self._released = released
        self._aim()

    def drive(self, volts: float | None, now_us: int) -> None:
        """Feed the core from outside, in V; None: nothing is connected. A regulator that is on holds its own voltage at least."""
        self.lowest = self.volts(now_us)
        self._outside = volts
        self._aim()

    def _aim(self) -> None:
        regulated = 0.0 if self._released and not self.faults.bypassed else self._regulated
        self._target = max(regulated, self._outside or 0.0)

    def since_reset(self) -> None:
        """Note that the time starts again at 0."""
        self._since_us = 0

    def restart(self) -> None:
        """Start again at nominal voltage, at time 0."""
        self._regulated = self._volts = self.lowest = self._nominal
        self._released, self._since_us = False, 0
        self._aim()
