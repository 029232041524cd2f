"""What lowers the voltage and restores it: the chip's own regulator, a bench supply, or a person.

The commanded voltage, the one read back from a register and the measured one are separate numbers. Nominal voltage is restored
however the work ends, Ctrl-C included; a second Ctrl-C does not interrupt that.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from weakcell.host.board.characterization.voltmeter import calibrate, see_voltage
from weakcell.host.board.errors import BoardError, LinkError, VoltageRefused
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import ConnectedBoard, Pulse


@dataclass(frozen=True)
class LowPhase:
    """One time at a low voltage.

    Attributes:
        commanded: in V.
        register: from the regulator's register, in V; None if there is none.
        measured: by an instrument, in V, or by the ring oscillator after one reading of a meter; None if there is neither.
        dwell_s: duration as timed by whatever lowered the voltage, in s.
        seen: by the chip's ring oscillator and its own curve, in V; None if it cannot be seen.
        celsius: temperature of the die before, uncalibrated; None if unknown.
    """

    commanded: float
    register: float | None
    measured: float | None
    dwell_s: float
    seen: float | None = None
    celsius: float | None = None


class Supply(Protocol):
    """Lowers the voltage of the cells and restores it."""

    @property
    def name(self) -> str:
        """The name in records."""
        ...

    def check(self, link: Link, vdd: float) -> None:
        """Raise VoltageRefused if this voltage (V) must not or cannot be set; change nothing."""
        ...

    def prepare(self, link: Link, vdd: float, dwell_s: float) -> None:
        """Learn what `lower` must know of the chip; the contents of the arena are lost."""
        ...

    def lower(self, link: Link, vdd: float, dwell_s: float) -> LowPhase:
        """Set a voltage for `dwell_s`, then nominal; VoltageRefused if either is not confirmed."""
        ...

    def restore(self, link: Link) -> None:
        """Set nominal voltage; VoltageRefused if it is not confirmed."""
        ...

    def close(self) -> None:
        """Close the supply; closing twice does nothing."""
        ...


@dataclass(frozen=True)
class OnChipSupply:
    """The chip's own regulator. The firmware lowers and restores it before it replies."""

    name: str = "on-chip regulator"

    def check(self, link: Link, vdd: float) -> None:
        """Raise VoltageRefused unless the voltage is that of a regulator code up to nominal."""
        find_code(link.board, vdd)

    def prepare(self, link: Link, vdd: float, dwell_s: float) -> None:
        """Calibrate the ring oscillator down to this voltage."""
        calibrate(link, find_code(link.board, vdd), dwell_s)

    def lower(self, link: Link, vdd: float, dwell_s: float) -> LowPhase:
        """Lower the voltage by one PULSE; VoltageNotReached if the core did not follow."""
        pulse = link.pulse(find_code(link.board, vdd), round(dwell_s * 1e6))
        return describe_pulse(link, vdd, pulse)

    def restore(self, link: Link) -> None:
        """Check that the register holds the nominal code, and set it if not.

        The firmware sets nominal after each pulse and at each start.
        """
        if (code := link.info().regulator_code) != link.board.nominal_code:
            link.pulse(link.board.nominal_code, 0)
            if link.info().regulator_code != link.board.nominal_code:
                found = f"the regulator reads back code {code}"
                raise VoltageRefused("Restoring nominal voltage", found, "Unplug the board: that restores it")

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


def describe_pulse(link: Link, vdd: float, pulse: Pulse) -> LowPhase:
    """Return what a pulse did; VoltageNotReached if the core voltage did not fall to that of the code."""
    seen = see_voltage(link, pulse)
    measured = None if seen is None or link.core_scale is None else seen * link.core_scale
    return LowPhase(vdd, link.board.volts(pulse.low_code), measured, pulse.dwell_us / 1e6, seen, pulse.celsius)


def find_code(board: ConnectedBoard, vdd: float) -> int:
    """Return the regulator code of a voltage in V; VoltageRefused if there is none up to nominal."""
    asked = f"A core voltage of {vdd:g} V"
    low, high = board.volts(board.minimum_code), board.volts(board.nominal_code)
    if not low - 1e-6 <= vdd <= high + 1e-6:
        raise VoltageRefused(
            asked, f"the {board.chip} allows {low:.2f} to {high:.2f} V here, never above nominal", "Choose one of these"
        )
    code = board.regulator.nearest_code(vdd)
    if abs(board.volts(code) - vdd) > 1e-6:
        raise VoltageRefused(
            asked,
            f"the regulator has steps of {board.regulator.step_mv / 1000:.2f} V",
            f"Choose {board.volts(code):.2f} V or a neighbour",
        )
    return code


@contextmanager
def nominal_on_exit(supply: Supply, link: Link) -> Iterator[Supply]:
    """Restore nominal voltage however the block ends; an exception of the block is the one that is raised.

    A board that no longer answers cannot be asked. Its watchdog restarts it with nominal voltage.
    """
    try:
        yield supply
    except BaseException as error:
        try:
            _restore(supply, link)
        except BoardError as failed:
            error.add_note(str(failed))
        raise
    else:
        _restore(supply, link)


def _restore(supply: Supply, link: Link) -> None:
    with _undisturbed():
        try:
            supply.restore(link)
        except LinkError:
            supply.restore(link)
        finally:
            supply.close()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM until the block is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    previous = {number: signal.signal(number, lambda got, _: waiting.append(got)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for waited in waiting[:1]:
            signal.raise_signal(waited)
