"""Calibrate the ring oscillator of a chip, and judge with it whether a voltage was reached."""

from __future__ import annotations

from contextlib import suppress

from weakcell.host.board.errors import LinkError, VoltageNotReached
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import MAX_DWELL_US, Capability, Pulse
from weakcell.host.board.link.ring_curve import FEWEST, RingCurve, share_of

_FIRST_DWELL_US = 20_000
_LONGER = 4
_ATTEMPTS = 3
_REPEATS, _REPEATED_DWELL_US = 12, 400_000
_SETTLED = 0.004
"""Of the relative frequency: about 4 mV."""
_UNREACHED_IN_A_ROW = 2
"""Lower codes are not tried below so many that are not reached: no regulator gets there."""


def calibrate(link: Link, code: int, dwell_s: float = 0.0) -> None:
    """Measure the ring oscillator at every code from nominal down to `code` that is not known yet.

    Each code is held for at least `dwell_s`, then for four times as long, until the frequency no longer changes. The first step
    below nominal has none above it to compare with: the code below it is measured, too. The cells are at the low voltage
    meanwhile: call this before anything is written. Does nothing if the firmware cannot count, or if its counts are too noisy.

    Raises:
        LinkError: bytes were lost on the line, also when tried again.
    """
    board = link.board
    if not board.can(Capability.COUNT) or board.version < 2:
        return
    if link.ring_curve is None or link.ring_curve.board.chip != board.chip:
        link.ring_curve = RingCurve(board)
        for _ in range(FEWEST):
            _pulse(link, link.ring_curve, board.nominal_code, 0)
    curve = link.ring_curve
    if curve.too_noisy:
        return
    dwell_us = max(_FIRST_DWELL_US, round(dwell_s * 1e6))
    for each in range(board.nominal_code - 1, code - 1, -1):
        _calibrate_code(link, curve, each, dwell_us)
    if curve.is_first_step(code) and code > board.minimum_code:
        with suppress(LinkError):  # a chip that fails one code lower can still be measured here
            _calibrate_code(link, curve, code - 1, dwell_us)


def _calibrate_code(link: Link, curve: RingCurve, code: int, dwell_us: int) -> None:
    if code in curve.shares:
        return
    above = [curve.shares[each] for each in range(code + 1, curve.board.nominal_code + 1)][:_UNREACHED_IN_A_ROW]
    given_up = len(above) == _UNREACHED_IN_A_ROW and all(share is None for share in above)
    curve.shares[code] = None if given_up else _settle(link, curve, code, dwell_us)


def _settle(link: Link, curve: RingCurve, code: int, dwell_us: int) -> float | None:
    """Return the relative frequency at a code once it has settled; None if that never differs enough from the next higher one."""
    above = curve.known[min(each for each in curve.known if each > code)]
    earlier: float | None = None
    while True:
        share = _least_share(link, curve, code, min(dwell_us, MAX_DWELL_US))
        if share is not None and earlier is not None:
            settled = abs(earlier - share) <= max(_SETTLED, 6 * curve.sigma)
            if settled and above - (share + earlier) / 2 >= curve.least_fall(code):
                return (share + earlier) / 2
        if dwell_us >= _LONGER * MAX_DWELL_US:
            return None
        earlier, dwell_us = share, dwell_us * _LONGER


def _least_share(link: Link, curve: RingCurve, code: int, dwell_us: int) -> float | None:
    """Return the relative frequency of a pulse. One that shows no change is repeated: its write may have been ignored."""
    share = None
    for _ in range(_REPEATS if dwell_us <= _REPEATED_DWELL_US else 3):
        share = share_of(_pulse(link, curve, code, dwell_us))
        if share is None or share < 1 - curve.least_fall(curve.board.nominal_code - 1):
            break
    return share


def _pulse(link: Link, curve: RingCurve, code: int, dwell_us: int) -> Pulse:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            pulse = link.pulse(code, dwell_us)
        except LinkError:
            if attempt == _ATTEMPTS:
                raise
        else:
            curve.note(pulse)
            curve.pulses += code < curve.board.nominal_code
            return pulse
    raise AssertionError


def see_voltage(link: Link, pulse: Pulse) -> float | None:
    """Return the core voltage that a pulse reached by the chip's own curve, in V; None if it cannot be seen.

    Raises:
        VoltageNotReached: the core voltage did not fall to that of the code.
    """
    curve = link.ring_curve
    if curve is None or pulse.code not in curve.shares:
        return None
    curve.note(pulse)
    volts, reached = curve.judge(pulse), curve.reached(pulse)
    if reached is not False:
        return volts if reached else None
    asked = f"{link.board.volts(pulse.code):.2f} V for {pulse.dwell_us / 1000:g} ms"
    if curve.shares[pulse.code] is None:
        found = "the ring oscillator slows down too little at this code, however long it is held"
        found += f": the core stays near {volts:.2f} V" if volts is not None else ""
        raise VoltageNotReached(asked, found, "Measure DVDD: some boards feed the core past the regulator")
    found = f"the core had fallen to about {volts:.2f} V, by the ring oscillator"
    raise VoltageNotReached(asked, found, "Choose a longer dwell")
