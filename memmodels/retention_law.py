"""The law of a profile over time and temperature: cells that lose their charge, and the few that gain some.

Temperature scales time. The probit of the share of charged cells that are lost is that of `technologies/retention.py` (level, body,
knee) plus an offset: what the measured probits differ from it, interpolated in ln(time) and constant beyond the ends. The share of
cells that gain charge is exp(u + k ln(time)).

`extrapolate=yes` permits 64 times the longest and 1/16 of the shortest time. On DDR4 modules that took no part in `tail` and
`width`, 64 times the longest time is missed by up to 0.10 decades, and 1/16 of the shortest by up to 0.3. A memory that the law
without offsets misses by more than 0.05 decades is never extrapolated (`reaches_out` is false).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
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
        times, offsets: Times at the reference temperature, and what is added to the law's probit there; empty for none.
        reaches_out: Whether `extrapolate=yes` is permitted.
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
    offsets: tuple[float, ...] = ()
    reaches_out: bool = True
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
        if len(self.times) != len(self.offsets) or any(b <= a for a, b in pairwise(self.times)):
            raise ValueError("times and offsets do not match, or do not ascend")
        if self.times and not (self.times[0] > 0.0 and all(map(math.isfinite, (*self.times, *self.offsets)))):
            raise ValueError("times are not positive, or offsets are not finite")
        if math.isnan(self.gain_offset) or self.gain_offset == math.inf:
            raise ValueError(f"gain_offset {self.gain_offset}")

    @property
    def formula(self) -> str:
        """The law in words."""
        lost = "Phi of a steep tail and a broad body in ln(time)" + (", with measured offsets" if self.times else "")
        return f"{self.lost} = {lost}; the other rate = exp(u + k ln(time)); temperature scales time (accumulating, per die)"

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The knobs: the interval, and the temperature if several were measured."""
        cold, hot = (speed_up(t, self.reference, self.energy) for t in (self.coldest, self.hottest))
        low, high = self.low / hot, self.high / cold
        beyond = (low * _SHORTER, high * _LONGER) if self.reaches_out else None
        knobs = [Condition("interval", "s", "time without refresh", low, low=low, high=high, beyond=beyond)]
        if self.coldest < self.hottest:
            knobs.append(Condition("temperature", "°C", "of the cells", self.hottest, low=self.coldest, high=self.hottest))
        return (*knobs, *((EXTRAPOLATE,) if self.reaches_out else ()))

    def equivalent(self, interval: float, temperature: float) -> float:
        """Return the time at the reference temperature that loses as many cells as `interval` s at °C."""
        return interval * speed_up(temperature, self.reference, self.energy)

    def probit(self, time: float) -> float:
        """Return the probit of the lost share after `time` s at the reference temperature."""
        law = RetentionLaw(self.level, self.body, self.knee, self.tail, self.width)
        return law.probit(time) + self._offset(math.log(time))

    @cached_property
    def _offset(self) -> Callable[[float], float]:
        """The offset over ln(time)."""
        if not self.times:
            return lambda x: 0.0
        if len(self.times) == 1:
            return lambda x: self.offsets[0]
        from scipy.interpolate import PchipInterpolator

        curve = PchipInterpolator(np.log(self.times), self.offsets)
        first, last = math.log(self.times[0]), math.log(self.times[-1])
        return lambda x: float(curve(min(max(x, first), last)))

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
        shorter, longer = (_SHORTER, _LONGER) if extrapolates(conditions) and self.reaches_out else (1.0, 1.0)
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
