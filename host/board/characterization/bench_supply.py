"""Supplies that the host drives: a bench supply over SCPI, and a person who sets a knob.

The host writes the board at nominal voltage and sends nothing while the voltage is low. Neither supply was tried on silicon. A chip
whose brown-out detector is on resets before its cells fail: feed its core from outside and disable the detector first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

from weakcell.host.board.characterization.supply import LowPhase, OnChipSupply, Supply
from weakcell.host.board.errors import BoardError, VoltageRefused
from weakcell.host.board.link.link import Link
from weakcell.memmodels.errors import UsageError

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


@dataclass
class HostDrivenSupply:
    """A supply whose knob the host turns.

    Attributes:
        name: in records.
        knob: sets and measures.
        nominal: in V; no higher voltage is ever set.
        settle_s: wait between setting and measuring, in s.
        tolerance: allowed difference between commanded and measured voltage, in V.
        low: nominal voltage has not been confirmed since it was lowered.
    """

    name: str
    knob: Knob
    nominal: float
    settle_s: float = 0.05
    tolerance: float = 0.02
    low: bool = field(default=False, init=False)

    def check(self, link: Link, vdd: float) -> None:
        """Raise VoltageRefused unless the voltage is between LOWEST and nominal."""
        if not LOWEST <= vdd <= self.nominal + 1e-9:
            found = f"this supply may give {LOWEST:g} to {self.nominal:g} V, never above nominal"
            raise VoltageRefused(f"A voltage of {vdd:g} V", found, "Choose one of these")

    def prepare(self, link: Link, vdd: float, dwell_s: float) -> None:
        """Do nothing: the supply measures."""

    def lower(self, link: Link, vdd: float, dwell_s: float) -> LowPhase:
        """Set the voltage, wait `dwell_s`, and restore nominal."""
        self.check(link, vdd)
        try:
            self.low = True
            measured = self._set(vdd)
            start = time.perf_counter()
            time.sleep(dwell_s)
            dwell = time.perf_counter() - start
        except BaseException:
            with suppress(BoardError):  # nominal_on_exit restores again and reports a failure
                self.restore(link)
            raise
        self.restore(link)
        return LowPhase(vdd, None, measured, dwell)

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
        time.sleep(self.settle_s)
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
    return HostDrivenSupply("supply set by hand", ManualKnob(ask), nominal, settle_s=0.0)
