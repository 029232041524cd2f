"""What lowers the voltage and restores it: the chip's own regulator, a bench supply, or a person.

Commanded, read back from a register, and measured are three numbers and stay three numbers. A supply is a context: whatever ends
the work, Ctrl-C too, it leaves with nominal voltage restored, and a second Ctrl-C does not interrupt that.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from weakcell.host.board.errors import BoardError, LinkError, VoltageRefused
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import ConnectedBoard


@dataclass(frozen=True)
class LowPhase:
    """One low phase. commanded, register, measured: V; None where nobody looked. dwell_s: as timed by what made it."""

    commanded: float
    register: float | None
    measured: float | None
    dwell_s: float


class Supply(Protocol):
    """Lowers the voltage of the cells and restores it."""

    @property
    def name(self) -> str:
        """As records call it."""
        ...

    def check(self, link: Link, vdd: float) -> None:
        """VoltageRefused if this voltage (V) must not or cannot be set; touches nothing."""
        ...

    def lower(self, link: Link, vdd: float, dwell_s: float) -> LowPhase:
        """Low for `dwell_s`, then nominal again; VoltageRefused if that is not confirmed."""
        ...

    def restore(self, link: Link) -> None:
        """Nominal voltage, whatever was; VoltageRefused if it is not confirmed."""
        ...

    def close(self) -> None:
        """Let go of it; closing twice does nothing."""
        ...


@dataclass(frozen=True)
class OnChipSupply:
    """The chip's regulator, which the firmware lowers and restores by itself before it answers."""

    name: str = "on-chip regulator"

    def check(self, link: Link, vdd: float) -> None:
        find_code(link.board, vdd)

    def lower(self, link: Link, vdd: float, dwell_s: float) -> LowPhase:
        pulse = link.pulse(find_code(link.board, vdd), round(dwell_s * 1e6))
        return LowPhase(vdd, link.board.volts(pulse.low_code), None, pulse.dwell_us / 1e6)

    def restore(self, link: Link) -> None:
        """Ask what the register says; the firmware sets nominal after each pulse and at each start."""
        if (found := link.info().regulator_code) != link.board.nominal_code:
            link.pulse(link.board.nominal_code, 0)
            if link.info().regulator_code != link.board.nominal_code:
                found_text = f"the regulator reads back code {found}"
                raise VoltageRefused("Restoring nominal voltage", found_text, "Unplug the board: that restores it")

    def close(self) -> None:
        """Nothing to let go of."""


def find_code(board: ConnectedBoard, vdd: float) -> int:
    """The regulator code of a voltage in V; VoltageRefused above nominal, below the minimum or between two codes."""
    asked = f"A core voltage of {vdd:g} V"
    low, high = board.volts(board.minimum_code), board.volts(board.nominal_code)
    if not low - 1e-6 <= vdd <= high + 1e-6:
        raise VoltageRefused(
            asked, f"the {board.chip} allows {low:.2f} to {high:.2f} V here, never above nominal", "Choose one of these"
        )
    code = round((vdd - 0.55) / 0.05)
    if abs(board.volts(code) - vdd) > 1e-6:
        raise VoltageRefused(asked, "the regulator has steps of 0.05 V", f"Choose {board.volts(code):.2f} V or a neighbour")
    return code


@contextmanager
def nominal_on_exit(supply: Supply, link: Link) -> Iterator[Supply]:
    """Restore nominal voltage on the way out, however that is; what ended the work is what is raised.

    A board that no longer answers cannot be asked; its watchdog restarts it with nominal voltage.
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
    """Ctrl-C and SIGTERM wait until this is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    kept = {number: signal.signal(number, lambda got, _: waiting.append(got)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        for waited in waiting[:1]:
            signal.raise_signal(waited)
