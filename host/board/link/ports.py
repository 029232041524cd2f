"""Open a board by its port: `auto`, a serial port's name, `socket://HOST:PORT`, or `virtual:CHIP`.

`virtual:CHIP[SPEC]` names the memory whose errors the cells of a virtual board make.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from weakcell.host.board.errors import BoardError
from weakcell.host.board.link.port_errors import explain_port_error
from weakcell.host.board.link.transport import SerialTransport, Transport
from weakcell.memmodels.errors import UsageError

FailsAt = Literal["retention", "read", "write"]


def open_port(port: str, memory: str | None = None, seed: int = 0, pulses: int = 0, fails_at: FailsAt = "retention") -> Transport:
    """Open a transport to a board.

    Args:
        port: where the board is.
        memory: SPEC of the memory whose errors a virtual board makes; a real board has its own.
        seed: of that memory.
        pulses: low phases of an earlier session, whose errors are not drawn again.
        fails_at: whether cells lose their bit, are read wrongly, or are written wrongly while the voltage is low.

    Raises:
        UsageError: a memory for a real board, or no such virtual board.
        BoardError: there is no such port, or a package is missing.
    """
    if virtual := re.fullmatch(r"virtual:([^\[\]]*)(?:\[(.*)\])?", port):
        from weakcell.host.board.virtual.virtual_board import (
            open_virtual_board,  # loads a compiler, which a real board does not need
        )

        chip, spec = virtual[1], memory or virtual[2]
        if fails_at == "read":
            return open_virtual_board(chip, None, seed, pulses, reads=spec or "")
        if fails_at == "write":
            return open_virtual_board(chip, None, seed, pulses, writes=spec or "")
        return open_virtual_board(chip, spec, seed, pulses)
    if memory is not None:
        raise UsageError(
            f"--memory {memory} with --port {port}", "a real board flips its own cells", "Leave it out, or use virtual:CHIP"
        )
    name = find_port() if port == "auto" else port
    try:
        return SerialTransport(name)
    except BoardError as error:
        if error.__cause__ is None or isinstance(error.__cause__, ModuleNotFoundError):
            raise
        present = [known.device for known in list_usb_ports()]
        raise explain_port_error(name, error.__cause__, present) from error.__cause__


@dataclass(frozen=True)
class UsbPort:
    """A USB serial port.

    Attributes:
        device: name of the port.
        description: what the system calls it.
        is_own_usb: whether it is the USB of a Pico itself, on which Weakcell's firmware does not answer.
    """

    device: str
    description: str
    is_own_usb: bool = False


def find_port() -> str:
    """Return the one USB serial port; BoardError if there is none or several."""
    asked, ports = "Looking for a USB serial adapter", list_usb_ports()
    adapters = [port.device for port in ports if not port.is_own_usb]
    if len(adapters) == 1:
        return adapters[0]
    if adapters:
        raise BoardError(asked, f"there are several: {', '.join(adapters)}", f"Name one: --port {adapters[0]}")
    if ports:
        found = f"{ports[0].device} is the Pico's own USB, and there is no other port"
        raise BoardError(asked, found, "Connect GP0, GP1 and GND to a USB serial adapter of 3.3 V (FT232, CP2102, Debug Probe)")
    raise BoardError(asked, "there is none", "Plug it in, or name the port: --port /dev/ttyUSB0")


_RASPBERRY_PI, _ADAPTERS = 0x2E8A, (0x0004, 0x000C)
"""USB vendor of the Pico, and its products that are adapters: picoprobe and Debug Probe."""


def list_usb_ports() -> list[UsbPort]:
    """List every USB serial port, by name; BoardError if pyserial is not installed."""
    try:
        list_ports: Any = import_module("serial.tools.list_ports")
    except ModuleNotFoundError as error:
        do = "Install it with pip install 'weakcell[board]'"
        raise BoardError("Looking for a USB serial adapter", "pyserial is not installed", do) from error
    ports = []
    for port in list_ports.comports():
        if port.vid is not None:
            own = port.vid == _RASPBERRY_PI and getattr(port, "pid", None) not in _ADAPTERS
            ports.append(UsbPort(port.device, str(port.description), own))
    return sorted(ports, key=lambda port: port.device)
