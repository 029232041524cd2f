"""A voltmeter made of the chip: what the ring oscillator's counts say about the core voltage.

The oscillator runs on the core voltage. Its frequency at a settled regulator code, relative to that at nominal voltage, is a
point of the chip's own curve. A count at the end of a dwell is compared with this curve. So a voltage is relative to what the
codes stand for; only a meter tells the absolute one.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from itertools import pairwise

from weakcell.host.board.link.protocol import ConnectedBoard, Pulse

_SMALLEST_STEP = 0.01
"""Of the relative frequency between two codes. A ring oscillator slows down by 2 to 10 % for 50 mV."""
_STEP_RATIO = 0.5
"""A step smaller than this part of the step next to it means that the voltage stopped halfway."""
_SIGMAS = 5.0
FEWEST = 6
"""Pulses that are needed to know the noise."""
_RESOLUTION = 0.0006
_MOST_NOISE = 0.02 / _SIGMAS


_OF_A_RATIO = 0.87
"""Variance of a count over the mean of two, relative to that of a ratio of two counts: the root of 1.5 / 2."""


def share_of(pulse: Pulse) -> float | None:
    """Return the frequency at the end of the dwell relative to nominal voltage; None if it was not counted."""
    before, low, after = pulse.counts
    return 2 * low / (before + after) if before and low and after else None


@dataclass(eq=False)
class RingCurve:
    """The relative frequency of a chip's ring oscillator at each regulator code.

    Attributes:
        board: the chip.
        shares: by code, of settled voltages; None where the voltage of the code is not reached.
        noise: ratios of two counts at nominal voltage, one for each pulse.
        pulses: times that the voltage was lowered to measure the curve.
    """

    board: ConnectedBoard
    shares: dict[int, float | None] = field(default_factory=dict)
    noise: list[float] = field(default_factory=list)
    pulses: int = 0

    def __post_init__(self) -> None:
        self.shares.setdefault(self.board.nominal_code, 1.0)

    def note(self, pulse: Pulse) -> None:
        """Learn from a pulse how much counts at the same voltage differ."""
        before, _, after = pulse.counts
        if before and after:
            self.noise.append(after / before)

    @property
    def known(self) -> dict[int, float]:
        """The relative frequencies of the codes whose voltage is reached."""
        return {code: share for code, share in self.shares.items() if share is not None}

    @property
    def sigma(self) -> float:
        """Standard deviation of a relative frequency."""
        spread = statistics.pstdev(self.noise) if len(self.noise) >= FEWEST else 0.0
        return max(_OF_A_RATIO * spread, _RESOLUTION)

    @property
    def too_noisy(self) -> bool:
        """Whether counts differ so much at the same voltage that no step can be seen."""
        return self.sigma > _MOST_NOISE

    def least_fall(self, code: int) -> float:
        """Return how much slower than at the next higher known code the oscillator must be at `code`."""
        above, expected = self._known_above(code), 0.0
        if len(above) > 1:
            step = (self.known[above[1]] - self.known[above[0]]) / (above[1] - above[0])
            expected = (above[0] - code - _STEP_RATIO) * step
        return max(_SMALLEST_STEP * (above[0] - code), expected, _SIGMAS * self.sigma)

    def is_first_step(self, code: int) -> bool:
        """Return whether `code` is known, and of the higher ones only the nominal code: no step above is there to compare with."""
        return code in self.known and len(self._known_above(code)) == 1

    def is_compared(self, code: int) -> bool:
        """Return whether the step to `code` is at least half of a step next to it.

        `least_fall` has compared all steps but the first with the one above. The first is compared with the one below.
        """
        if not self.is_first_step(code):
            return code in self.known
        return code - 1 in self.known and self._step(code) >= _STEP_RATIO * self._step(code - 1)

    def _known_above(self, code: int) -> list[int]:
        return sorted(each for each in self.known if each > code)

    def _step(self, code: int) -> float:
        """Return how much slower the oscillator is at a known code than at the next higher code; the mean if that is unknown."""
        above = self._known_above(code)[0]
        return (self.known[above] - self.known[code]) / (above - code)

    def judge(self, pulse: Pulse) -> float | None:
        """Return the voltage that a pulse reached, in V by this curve.

        Returns:
            None if it cannot be seen: no count, or a code that was not calibrated.
        """
        share = share_of(pulse)
        known = self.known
        if share is None or pulse.code not in self.shares:
            return None
        codes = sorted(known)
        for low, high in pairwise(codes):
            if share <= known[high]:
                part = (known[high] - share) / (known[high] - known[low])
                below = self.board.volts(high) - part * (self.board.volts(high) - self.board.volts(low))
                if share >= known[low] or low == codes[0]:
                    return max(below, self.board.volts(codes[0]))
        return self.board.volts(codes[-1])

    def reached(self, pulse: Pulse) -> bool | None:
        """Return whether a pulse reached the voltage of its code, to half a step.

        Returns:
            None if it cannot be seen: no count, a code that was not calibrated, or a step that was compared with no other.
        """
        share = share_of(pulse)
        if pulse.code == self.board.nominal_code:
            return True
        if share is None or pulse.code not in self.shares:
            return None
        if pulse.code not in self.known or share >= self.known[pulse.code] + self._step(pulse.code) / 2:
            return False
        return True if self.is_compared(pulse.code) else None
