"""The law of a profile over time and temperature: cells that lose their charge, and the few that gain some.

Temperature scales time. The share of charged cells that are lost follows `technologies/retention.py` (level, body, knee), or, where
that does not fit, interpolates the measured probits in ln(time). The share of cells that gain charge is exp(u + k ln(time)).

`extrapolate=yes` permits 64 times the longest and 1/16 of the shortest time. On DDR4 modules that took no part in `tail` and
`width`, 64 times the longest time is missed by up to 0.10 decades, and 1/16 of the shortest by up to 0.3. An interpolation does not
reach out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from weakcell.memmodels.definition import Condition, Conditions
from weakcell.memmodels.error_model.terms import ErrorTerm, Lifetime
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.technologies.retention import TAIL, WIDTH, RetentionLaw, speed_up
from weakcell.memmodels.technologies.support import EXTRAPOLATE, extrapolates, phi

Rate = Literal["p01", "p10"]
_SHORTER, _LONGER = 1.0 / 16.0, 64.0
"""How far `extrapolate=yes` goes beyond the measured times."""


@dataclass(frozen=True)
class TimeLaw:
    """Errors over `interval` (s without refresh) and `temperature` (°C).

    Attributes:
        lost: The rate of the cells that lose their charge: p10 for true cells, p01 for anti-cells.
        low, high: Valid range of the interval, as the time at the reference temperature that loses as many cells.
        reference: Temperature of the constants.
        coldest, hottest: Valid range of the temperature; equal if one was measured.
        energy: Activation energy in eV; 0 if one temperature was measured.
        level, body, knee, tail, width: Constants of the law.
        times, probits: Knots of the interpolation, instead of the constants; empty otherwise.
        gain_offset, gain_slope, gain_energy: u, k and activation energy of the cells that gain charge; u is -inf if none was seen.
        unmeasured: The other rate, if it is unknown.
    """

    lost: Rate
    low: float
    high: float
    reference: float
    coldest: float
    hottest: float
    energy: float = 0.0
    level: float = 0.0
    body: float = 0.0
    knee: float = 0.0
    tail: float = TAIL
    width: float = WIDTH
    times: tuple[float, ...] = ()
    probits: tuple[float, ...] = ()
    gain_offset: float = -math.inf
    gain_slope: float = 0.0
    gain_energy: float = 0.0
    unmeasured: Rate | None = None

    def __post_init__(self) -> None:
        plain = (
            self.reference,
            self.coldest,
            self.hottest,
            self.energy,
            self.level,
            self.body,
            self.knee,
            self.tail,
            self.gain_slope,
        )
        if not (all(map(math.isfinite, plain)) and 0.0 < self.low <= self.high < math.inf and self.width > 0.0):
            raise ValueError("constants of the law are not finite, or its range is empty")
        if min(self.coldest, self.reference) <= -273.15 or self.coldest > self.hottest:
            raise ValueError(f"temperatures {self.coldest} … {self.hottest}, reference {self.reference}")
        if len(self.times) != len(self.probits) or any(b <= a for a, b in zip(self.times, self.times[1:], strict=False)):
            raise ValueError("times and probits do not match, or do not ascend")
        if self.times and not (len(self.times) > 1 and self.times[0] > 0.0 and all(map(math.isfinite, self.probits))):
            raise ValueError("an interpolation needs two positive times and finite probits")
        if math.isnan(self.gain_offset) or self.gain_offset == math.inf:
            raise ValueError(f"gain_offset {self.gain_offset}")

    @property
    def formula(self) -> str:
        """The law in words."""
        lost = "measured probits, interpolated in ln(time)" if self.times else "Phi of a steep tail and a broad body in ln(time)"
        return f"{self.lost} = {lost}; the other rate = exp(u + k ln(time)); temperature scales time (accumulating, per die)"

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The knobs: the interval, and the temperature if several were measured."""
        cold, hot = (speed_up(t, self.reference, self.energy) for t in (self.coldest, self.hottest))
        low, high = self.low / hot, self.high / cold
        beyond = None if self.times else (low * _SHORTER, high * _LONGER)
        knobs = [Condition("interval", "s", "time without refresh", low, low=low, high=high, beyond=beyond)]
        if self.coldest < self.hottest:
            knobs.append(Condition("temperature", "°C", "of the cells", self.hottest, low=self.coldest, high=self.hottest))
        return (*knobs, *(() if self.times else (EXTRAPOLATE,)))

    def equivalent(self, interval: float, temperature: float) -> float:
        """Return the time at the reference temperature that loses as many cells as `interval` s at °C."""
        return interval * speed_up(temperature, self.reference, self.energy)

    def probit(self, time: float) -> float:
        """Return the probit of the lost share after `time` s at the reference temperature."""
        return self._curve(time)

    @cached_property
    def _curve(self) -> Callable[[float], float]:
        if not self.times:
            return RetentionLaw(self.level, self.body, self.knee, self.tail, self.width).probit
        from scipy.interpolate import PchipInterpolator

        if len(self.times) == 2:
            x, z = np.log(self.times), self.probits
            return lambda time: float(np.interp(math.log(time), x, z))
        curve = PchipInterpolator(np.log(self.times), self.probits)
        return lambda time: float(curve(math.log(time)))

    def terms(self, conditions: Conditions, profile: str) -> tuple[ErrorTerm, ...]:
        """Return the error terms.

        Args:
            conditions: Interval and temperature.
            profile: Name of the profile, for a message.

        Raises:
            MemorySpecError: Together they lie outside the measured range.
        """
        interval, temperature = float(conditions["interval"]), float(conditions.get("temperature", self.hottest))
        time = self.equivalent(interval, temperature)
        shorter, longer = (_SHORTER, _LONGER) if extrapolates(conditions) and not self.times else (1.0, 1.0)
        if not self.low * shorter * (1.0 - 1e-9) <= time <= self.high * longer * (1.0 + 1e-9):
            found = f"{time:.4g} s at {self.reference:g} °C lose as many cells; {self.low:.4g} … {self.high:.4g} s were measured"
            raise MemorySpecError(f"Profile {profile} at {interval:g} s and {temperature:g} °C", found, "Choose another time")
        lost = phi(self.probit(time))
        gain_time = interval * speed_up(temperature, self.reference, self.gain_energy)
        gained = math.exp(min(self.gain_offset + self.gain_slope * math.log(gain_time), 0.0))
        rates = (gained, lost) if self.lost == "p10" else (lost, gained)
        directions = (("retention", 1), ("gain", 0)) if self.lost == "p10" else (("retention", 0), ("gain", 1))
        return tuple(
            ErrorTerm(
                name,
                Lifetime.ACCUMULATING,
                0.0 if stored else rates[0],
                rates[1] if stored else 0.0,
                preference="zero" if stored else "one",
                exposure="time",
                resampled=False,
            )
            for name, stored in directions
            if name == "retention" or gained > 0.0
        )
