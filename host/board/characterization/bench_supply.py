"""Supplies that the host drives: a bench supply over SCPI, and a person at a knob.

The board is written at nominal voltage, then left alone: the host says nothing while the voltage is low. Neither has been tried on
silicon. A chip whose brown-out detector is on resets before its cells fail; feed its core from outside and disable that first.
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
"""V: below this nothing is retained, and a typing error is more likely."""
_RESTORES = 3


class Knob(Protocol):
    """Sets a voltage at once and says what came of it."""

    def set(self, volts: float) -> None:
        """Command this voltage, V."""
        ...

    def measure(self) -> float | None:
        """What an instrument says, V; None if nobody looked."""
        ...

    def close(self) -> None: ...


@dataclass
class HostDrivenSupply:
    """A supply whose knob the host turns. nominal: V. settle_s: before measuring. tolerance: of commanded to measured, V."""

    name: str
    knob: Knob
    nominal: float
    settle_s: float = 0.05
    tolerance: float = 0.02
    low: bool = field(default=False, init=False)

    def check(self, link: Link, vdd: float) -> None:
        if not LOWEST <= vdd <= self.nominal + 1e-9:
            found = f"this supply may give {LOWEST:g} to {self.nominal:g} V, never above nominal"
            raise VoltageRefused(f"A voltage of {vdd:g} V", found, "Choose one of these")

    def lower(self, link: Link, vdd: float, dwell_s: float) -> LowPhase:
        self.check(link, vdd)
        try:
            self.low = True
            measured = self._set(vdd)
            began = time.perf_counter()
            time.sleep(dwell_s)
            held = time.perf_counter() - began
        except BaseException:
            with suppress(BoardError):  # whoever opened the supply restores it again on the way out, and says so if that fails
                self.restore(link)
            raise
        self.restore(link)
        return LowPhase(vdd, None, measured, held)

    def restore(self, link: Link | None = None) -> None:
        """Nominal voltage, unless it is known to be there. Tried more than once: an interrupted query leaves its answer behind."""
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
        self.knob.close()

    def _set(self, volts: float) -> float | None:
        """Command a voltage; what was measured. VoltageRefused if that is another one."""
        self.knob.set(volts)
        time.sleep(self.settle_s)
        measured = self.knob.measure()
        if measured is not None and abs(measured - volts) > self.tolerance:
            asked, found = f"{volts:g} V from {self.name}", f"{measured:g} V were measured"
            raise VoltageRefused(asked, found, "Nothing was counted; check the supply and its leads")
        return measured


def open_supply(name: str, nominal: float) -> Supply:
    """The supply of a name: on-chip, scpi:VISA-NAME or manual; nominal: V. UsageError for any other."""
    if name == "on-chip":
        return OnChipSupply()
    if name == "manual":
        return make_manual_supply(nominal)
    if name.startswith("scpi:"):
        return open_scpi_supply(name.removeprefix("scpi:"), nominal)
    raise UsageError(f"--supply {name}", "there is no such supply", "Choose on-chip, scpi:VISA-NAME or manual")


@dataclass(frozen=True)
class ScpiInstrument:
    """An instrument that understands VOLT, VOLT? and MEAS:VOLT?."""

    instrument: Any
    failed: type[Exception]

    def set(self, volts: float) -> None:
        self._say(lambda: self.instrument.write(f"VOLT {volts:.3f}"))
        told = self._say(lambda: float(self.instrument.query("VOLT?")))
        if abs(told - volts) > 0.0015:
            raise VoltageRefused(f"{volts:g} V from the supply", f"it says it is set to {told:g} V", "Check its limits")

    def measure(self) -> float:
        measured: float = self._say(lambda: float(self.instrument.query("MEAS:VOLT?")))
        return measured

    def close(self) -> None:
        try:
            self.instrument.close()
        except self.failed:
            return

    def _say(self, what: Callable[[], Any]) -> Any:
        try:
            return what()
        except (self.failed, OSError, ValueError) as error:
            raise BoardError("Talking to the supply", f"{error}", "Check cable and address; set nominal by hand") from error


def open_scpi_supply(resource: str, nominal: float, library: str = "@py") -> HostDrivenSupply:
    """A bench supply by its VISA name (`TCPIP0::10.0.0.7::5025::SOCKET`, `ASRL/dev/ttyUSB1::INSTR`).

    It must give nominal voltage (V) now: VoltageRefused if it measures anything else; BoardError if it does not answer.
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
    found = knob.measure()
    if abs(found - nominal) > supply.tolerance:
        knob.close()
        raise VoltageRefused(f"The supply {resource}", f"it gives {found} V now, nominal is {nominal:g} V", "Set nominal first")
    return supply


@dataclass(frozen=True)
class ManualKnob:
    """Somebody at a supply. ask: shows a text, gives back the line that was typed: Enter, or what the meter shows."""

    ask: Callable[[str], str]
    shown: list[float] = field(default_factory=list)

    def set(self, volts: float) -> None:
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
        return self.shown[-1] if self.shown else None

    def close(self) -> None:
        """Nothing to let go of."""


def make_manual_supply(nominal: float, ask: Callable[[str], str] = input) -> HostDrivenSupply:
    """A supply that a person sets, asked on the terminal."""
    return HostDrivenSupply("supply set by hand", ManualKnob(ask), nominal, settle_s=0.0)
