"""Supplies that the host drives: a bench supply over SCPI, and a person who sets a knob.

The supply feeds the core. The host writes the board at nominal voltage. Then the board switches its brown-out detection and its
regulator off for a time, and the host lowers the supply and restores it within that time. The board takes its core back by itself,
whatever the host does. Neither supply was tried on silicon.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from weakcell.host.board.characterization.supply import LowPhase, OnChipSupply, Supply
from weakcell.host.board.errors import BoardError, LinkError, VoltageRefused
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import HAND_OVER_S, MAX_WINDOW_MS, Capability
from weakcell.memmodels.errors import UsageError

_SCPI_SPARE_S, _MANUAL_SPARE_S = 3.0, 100.0
"""What setting and restoring the voltage may take, in s."""
_COME_BACK_S = 0.1
_LEAST_COUNT = 0.9
"""A ring oscillator below this share of its nominal count was not at nominal voltage."""
LOWEST = 0.2
"""Lowest voltage, in V. Below it no cell keeps its bit, so a lower number is a typing error."""
_RESTORES = 3


class Knob(Protocol):
    """Sets a voltage at once and measures it."""

    def set(self, volts: float) -> None:
        """Command a voltage, in V."""
        ...

    def measure(self) -> float | None:
        """Return the measured voltage, in V; None if nobody measured."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class _Window(NamedTuple):
    """When the board takes its core back: not before, and not after; by the host's clock, in s."""

    earliest_end: float
    latest_end: float


@dataclass
class HostDrivenSupply:
    """A supply whose knob the host turns.

    Attributes:
        name: in records.
        knob: sets and measures.
        nominal: in V; no higher voltage is ever set.
        settle_s: wait between setting and measuring, in s.
        tolerance: allowed difference between commanded and measured voltage, in V.
        spare_s: what lowering and restoring may take besides the dwell, in s. The board waits for all of it.
        clock, sleep: the time in s, and waiting.
        low: nominal voltage has not been confirmed since it was lowered.
    """

    name: str
    knob: Knob
    nominal: float
    settle_s: float = 0.05
    tolerance: float = 0.02
    spare_s: float = _SCPI_SPARE_S
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    low: bool = field(default=False, init=False)

    def check(self, link: Link, vdd: float) -> None:
        """Raise VoltageRefused unless the voltage is between LOWEST and nominal; BoardError if the firmware cannot be told."""
        if not LOWEST <= vdd <= self.nominal + 1e-9:
            found = f"this supply may give {LOWEST:g} to {self.nominal:g} V, never above nominal"
            raise VoltageRefused(f"A voltage of {vdd:g} V", found, "Choose one of these")
        if not link.board.can(Capability.HAND_OVER):
            flash = link.board.can(Capability.FROM_FLASH)
            found = "its firmware is older than the command for it" if flash else "it runs a RAM image, which cannot do it"
            do = "Flash the flash image of this version: weakcell firmware flash (virtual boards: virtual:CHIP-flash)"
            raise BoardError(f"Switching off the regulator of this {link.board.chip}", found, do)

    def prepare(self, link: Link, vdd: float, dwell_s: float) -> None:
        """Raise UsageError if the board cannot wait for so long; the supply itself measures."""
        if 1000 * (dwell_s + self.spare_s) > MAX_WINDOW_MS:
            found = (
                f"the board waits for at most {MAX_WINDOW_MS / 1000:g} s, and setting the voltage may take {self.spare_s:g} s of it"
            )
            raise UsageError(f"A dwell of {dwell_s:g} s with {self.name}", found, "Choose a shorter one")

    def lower(self, link: Link, vdd: float, dwell_s: float) -> LowPhase:
        """Take over the core, set the voltage, wait `dwell_s`, restore nominal, and let the board take its core back.

        Raises:
            VoltageRefused: a voltage was not confirmed, or the board saw that nominal was not back in time.
            LinkError: the board did not answer; nothing was lowered, or the board was reset meanwhile.
        """
        self.check(link, vdd)
        self.prepare(link, vdd, dwell_s)
        window = self._hand_over(link, dwell_s + self.spare_s)
        try:
            try:
                self.low = True
                measured = self._set(vdd)
                start = self.clock()
                self.sleep(dwell_s)
                dwell = self.clock() - start
            except BaseException:
                with suppress(BoardError):  # nominal_on_exit restores again and reports a failure
                    self.restore(link)
                raise
            self.restore(link)
        except BoardError:
            self._sleep_until(window.latest_end)
            raise
        restored = self.clock()
        self._sleep_until(window.latest_end)
        handed_back = link.handed_back()
        before, at_the_end, _ = handed_back.counts
        if restored > window.earliest_end or at_the_end < _LEAST_COUNT * before:
            late = restored - window.earliest_end
            found = f"nominal was back {late:.1f} s too late" if late > 0 else "the core was not at nominal voltage"
            raise VoltageRefused(
                f"{vdd:g} V from {self.name} for {dwell_s:g} s",
                f"{found} when the board's regulator was on again (ring oscillator at {at_the_end / max(before, 1):.0%})",
                "Nothing was counted; set both voltages faster, and check the supply and its leads",
            )
        return LowPhase(vdd, None, measured, dwell, celsius=handed_back.celsius)

    def _hand_over(self, link: Link, seconds: float) -> _Window:
        """Let the board switch off its regulator, and return when that is certain."""
        asked = self.clock()
        try:
            link.hand_over(seconds)
        except LinkError:  # the board may have understood: it answers when its time is over
            self._sleep_until(self.clock() + HAND_OVER_S + seconds + _COME_BACK_S)
            raise
        answered = self.clock()
        self._sleep_until(answered + HAND_OVER_S + _COME_BACK_S)
        return _Window(asked + HAND_OVER_S + seconds, answered + HAND_OVER_S + seconds + _COME_BACK_S)

    def _sleep_until(self, when: float) -> None:
        if (left := when - self.clock()) > 0:
            self.sleep(left)

    def restore(self, link: Link | None = None) -> None:
        """Restore nominal voltage if lowered.

        Retried because an interrupted SCPI query leaves a stale answer in the buffer.
        """
        for left in reversed(range(_RESTORES)):
            if not self.low:
                return
            try:
                self._set(self.nominal)
                self.low = False
            except BoardError:
                if not left:
                    raise

    def close(self) -> None:
        """Close the knob."""
        self.knob.close()

    def _set(self, volts: float) -> float | None:
        """Command a voltage and return the measured one; VoltageRefused if they differ."""
        self.knob.set(volts)
        self.sleep(self.settle_s)
        measured = self.knob.measure()
        if measured is not None and abs(measured - volts) > self.tolerance:
            asked, found = f"{volts:g} V from {self.name}", f"{measured:g} V were measured"
            raise VoltageRefused(asked, found, "Nothing was counted; check the supply and its leads")
        return measured


def open_supply(name: str, nominal: float) -> Supply:
    """Open a supply by name.

    Args:
        name: `on-chip`, `scpi:VISA-NAME` or `manual`.
        nominal: nominal voltage, in V.
    """
    if name == "on-chip":
        return OnChipSupply()
    if name == "manual":
        return make_manual_supply(nominal)
    if name.startswith("scpi:"):
        return open_scpi_supply(name.removeprefix("scpi:"), nominal)
    raise UsageError(f"--supply {name}", "there is no such supply", "Choose on-chip, scpi:VISA-NAME or manual")


@dataclass(frozen=True)
class ScpiInstrument:
    """An instrument that understands VOLT, VOLT? and MEAS:VOLT?; failed: the errors of its driver."""

    instrument: Any
    failed: type[Exception]

    def set(self, volts: float) -> None:
        """Command a voltage; VoltageRefused if the instrument reports another set point."""
        self._talk(lambda: self.instrument.write(f"VOLT {volts:.3f}"))
        set_point = self._talk(lambda: float(self.instrument.query("VOLT?")))
        if abs(set_point - volts) > 0.0015:
            raise VoltageRefused(f"{volts:g} V from the supply", f"it says it is set to {set_point:g} V", "Check its limits")

    def measure(self) -> float:
        """Return what the instrument measures, in V."""
        measured: float = self._talk(lambda: float(self.instrument.query("MEAS:VOLT?")))
        return measured

    def close(self) -> None:
        """Close the connection."""
        try:
            self.instrument.close()
        except self.failed:
            return

    def _talk(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (self.failed, OSError, ValueError) as error:
            raise BoardError("Talking to the supply", f"{error}", "Check cable and address; set nominal by hand") from error


def open_scpi_supply(resource: str, nominal: float, library: str = "@py") -> HostDrivenSupply:
    """Open a bench supply by its VISA name; it must give nominal voltage now.

    Args:
        resource: `TCPIP0::10.0.0.7::5025::SOCKET`, `ASRL/dev/ttyUSB1::INSTR`.
        nominal: in V.
        library: VISA library; the default is pyvisa-py.

    Raises:
        BoardError: pyvisa is missing, or the supply does not answer.
        VoltageRefused: the supply measures another voltage than nominal.
    """
    try:
        visa: Any = import_module("pyvisa")
    except ModuleNotFoundError as error:
        raise BoardError(
            f"Opening the supply {resource}", "pyvisa is not installed", "Install it with pip install 'weakcell[supply]'"
        ) from error
    try:
        ends = {"read_termination": "\n", "write_termination": "\n"}
        instrument = visa.ResourceManager(library).open_resource(resource, **ends, timeout=2000)
    except (visa.Error, OSError, ValueError) as error:
        raise BoardError(f"Opening the supply {resource}", str(error), "Check the name, the cable and remote mode") from error
    knob = ScpiInstrument(instrument, visa.Error)
    supply = HostDrivenSupply(f"SCPI supply {resource}", knob, nominal)
    measured = knob.measure()
    if abs(measured - nominal) > supply.tolerance:
        knob.close()
        raise VoltageRefused(f"The supply {resource}", f"it gives {measured} V now, nominal is {nominal:g} V", "Set nominal first")
    return supply


@dataclass(frozen=True)
class ManualKnob:
    """A person who sets a supply.

    Attributes:
        ask: shows a text and returns the typed line: empty, or what the meter shows.
        shown: what the meter showed last, in V; empty if nothing was typed.
    """

    ask: Callable[[str], str]
    shown: list[float] = field(default_factory=list)

    def set(self, volts: float) -> None:
        """Ask for a voltage until the answer is empty or a number."""
        self.shown.clear()
        while True:
            try:
                typed = self.ask(f"Set the supply to {volts:.3f} V, then Enter (or type what the meter shows, V): ").strip()
            except EOFError as error:
                raise BoardError(f"Setting {volts:g} V by hand", "nobody answered", "Set nominal voltage by hand") from error
            try:
                self.shown.extend([float(typed)] if typed else [])
            except ValueError:
                continue
            return

    def measure(self) -> float | None:
        """Return the number that was typed."""
        return self.shown[-1] if self.shown else None

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


def make_manual_supply(nominal: float, ask: Callable[[str], str] = input) -> HostDrivenSupply:
    """Return a supply that a person sets, asked on the terminal."""
    return HostDrivenSupply("supply set by hand", ManualKnob(ask), nominal, settle_s=0.0, spare_s=_MANUAL_SPARE_S)
