"""Start a board again that no longer answers: by its RUN pin, or by the power of its USB port.

A run of a day meets hangs that no watchdog ends. The RUN pin is pulled low through the DTR or RTS line of a serial adapter. A hub
that can switch its ports is driven by the program uhubctl.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from weakcell.host.board.errors import BoardError
from weakcell.host.board.link.transport import SerialTransport, Transport
from weakcell.memmodels.errors import UsageError

LINES = ("dtr", "rts")
_PULL_S, _OFF_S, _HUB_TIMEOUT_S = 0.2, 2, 60.0


class PowerCycle(Protocol):
    """Starts a board again."""

    @property
    def name(self) -> str:
        """The name in records."""
        ...

    def cycle(self) -> None:
        """Take the board's power away, or hold it in reset, for a moment; BoardError if that is impossible."""
        ...


@runtime_checkable
class Lines(Protocol):
    """A serial adapter, or whatever else can pull a pin low."""

    def release(self) -> None:
        """Let go of DTR and RTS, which opening a port pulls low."""
        ...

    def pull(self, line: str, seconds: float) -> None:
        """Pull a line low for a time, in s."""
        ...


@dataclass(frozen=True)
class RunPin:
    """The RUN pin at a line of a serial adapter."""

    adapter: Lines
    line: str

    @property
    def name(self) -> str:
        """The name in records."""
        return f"RUN pin by {self.line.upper()}"

    def cycle(self) -> None:
        """Hold the board in reset for a moment."""
        self.adapter.pull(self.line, _PULL_S)


@dataclass(frozen=True)
class HubPort:
    """A port of a hub that uhubctl can switch.

    Attributes:
        hub, port: as uhubctl names them: `1-1.3` and `2`.
    """

    hub: str
    port: str

    @property
    def name(self) -> str:
        """The name in records."""
        return f"port {self.port} of hub {self.hub}"

    def cycle(self) -> None:
        """Switch the port off for two seconds, and on again."""
        command = ["uhubctl", "-l", self.hub, "-p", self.port, "-a", "cycle", "-d", str(_OFF_S)]
        asked = f"Switching {self.name}"
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_HUB_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BoardError(asked, str(error), "Run uhubctl by hand: it says what it needs") from error
        if done.returncode:
            found = (done.stderr or done.stdout).strip()[-300:] or f"uhubctl ended with {done.returncode}"
            raise BoardError(asked, found, "Run uhubctl by hand: it says which hubs it can switch, and what right it needs")


def open_power_cycle(text: str, transport: Transport) -> PowerCycle:
    """Open a way to start the board again.

    Args:
        text: `dtr` or `rts`: a line of the adapter that the board talks through; `dtr:PORT` or `rts:PORT`: of another adapter;
            `uhubctl:HUB:PORT`.
        transport: the board's.

    Raises:
        UsageError: there is no such way, or the board's port has no lines.
        BoardError: the port cannot be opened, or uhubctl is not installed.
    """
    kind, _, rest = text.partition(":")
    hub, _, port = rest.rpartition(":")
    if kind == "uhubctl" and hub and port:
        if shutil.which("uhubctl") is None:
            raise BoardError(f"--power-cycle {text}", "the program uhubctl is not installed", "Install it (apt install uhubctl)")
        return HubPort(hub, port)
    if kind not in LINES or (":" in text and not rest):
        found = "there is no such way"
        raise UsageError(f"--power-cycle {text}", found, "Choose dtr, rts, dtr:PORT, rts:PORT or uhubctl:HUB:PORT")
    adapter: object = SerialTransport(rest) if rest else transport
    if not isinstance(adapter, Lines):
        found = "the board's own USB has no line that leads to its RUN pin"
        raise UsageError(f"--power-cycle {text}", found, f"Name the adapter that does, {kind}:PORT, or use uhubctl:HUB:PORT")
    adapter.release()
    return RunPin(adapter, kind)
