"""Open a board by its port: `auto`, a serial port's name, a USB serial number, `socket://HOST:PORT`, or `virtual:CHIP`.

`virtual:CHIP-usb` is a virtual board on its USB, `virtual:CHIP-flash` one that runs the flash image on its UART; without either,
it runs the RAM image. `virtual:CHIP[SPEC]` names the memory whose errors the cells of a virtual board
make.

A board on its own USB leaves the bus around every time at a low voltage. It is found again by its serial number, whatever the
system then calls its port.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from weakcell.host.board.errors import BoardError
from weakcell.host.board.link.port_errors import explain_port_error
from weakcell.host.board.link.reconnecting import ReconnectingTransport
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
        from weakcell.host.board.virtual.opening import (
            open_virtual_board,  # loads a compiler, which a real board does not need
        )

        chip, spec = virtual[1], memory or virtual[2]
        chip, _, suffix = chip.partition("-")
        if suffix in ("", "flash", "usb"):
            how: dict[str, Any] = {"image": "flash" if suffix else "ram", "usb": suffix == "usb"}
        else:
            chip, how = f"{chip}-{suffix}", {}
        if fails_at == "read":
            return open_virtual_board(chip, None, seed, pulses, reads=spec or "", **how)
        if fails_at == "write":
            return open_virtual_board(chip, None, seed, pulses, writes=spec or "", **how)
        return open_virtual_board(chip, spec, seed, pulses, **how)
    if memory is not None:
        raise UsageError(
            f"--memory {memory} with --port {port}", "a real board flips its own cells", "Leave it out, or use virtual:CHIP"
        )
    name = find_port() if port == "auto" else port
    serial = name if _SERIAL.fullmatch(name) else next((known.serial for known in _usb_boards() if known.device == name), "")
    if serial:
        return ReconnectingTransport(serial, lambda: _open_serial_port(_find_usb_board(serial)))
    return _open_serial_port(name)


def _open_serial_port(name: str) -> Transport:
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
        is_own_usb: whether it is the USB of a Pico itself, which runs another program than Weakcell's firmware.
        serial: of a board that runs Weakcell's firmware and is on its own USB; otherwise empty.
    """

    device: str
    description: str
    is_own_usb: bool = False
    serial: str = ""


def find_port() -> str:
    """Return the one board on its own USB, else the one USB serial adapter; BoardError if there is none or several."""
    asked, ports = "Looking for a board", list_usb_ports()
    boards = [port.device for port in ports if port.serial]
    adapters = [port.device for port in ports if not port.is_own_usb and not port.serial]
    candidates = boards or adapters
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise BoardError(asked, f"there are several: {', '.join(candidates)}", f"Name one: --port {candidates[0]}")
    if ports:
        found = f"{ports[0].device} is the Pico's own USB with another program than Weakcell's firmware, and there is no other port"
        raise BoardError(asked, found, "Hold BOOTSEL while you plug it in, then weakcell firmware flash")
    raise BoardError(asked, "there is none", "Plug it in, or name the port: --port /dev/ttyACM0")


def _usb_boards() -> list[UsbPort]:
    try:
        return [port for port in list_usb_ports() if port.serial]
    except BoardError:  # pyserial is missing, which opening the port says
        return []


def _find_usb_board(serial: str) -> str:
    for port in _usb_boards():
        if port.serial == serial:
            return port.device
    raise BoardError(f"Opening the board {serial}", "it is not on USB", "Plug it in; weakcell board list shows what is there")


_RASPBERRY_PI, _ADAPTERS = 0x2E8A, (0x0004, 0x000C)
"""USB vendor of the Pico, and its products that are adapters: picoprobe and Debug Probe."""
_SERIAL = re.compile("WC[0-9A-F]{16}")
"""Of boards that run Weakcell's firmware: the number of the chip, or of its flash."""


def list_usb_ports() -> list[UsbPort]:
    """List every USB serial port, by name; BoardError if pyserial is not installed."""
    try:
        list_ports: Any = import_module("serial.tools.list_ports")
    except ModuleNotFoundError as error:
        do = "Install it with pip install 'weakcell[board]'"
        raise BoardError("Looking for USB serial ports", "pyserial is not installed", do) from error
    ports = []
    for port in list_ports.comports():
        if port.vid is not None:
            own = port.vid == _RASPBERRY_PI and getattr(port, "pid", None) not in _ADAPTERS
            serial = str(getattr(port, "serial_number", None) or "").upper()  # Windows reports it in capitals
            serial = serial if own and _SERIAL.fullmatch(serial) else ""
            ports.append(UsbPort(port.device, str(port.description), own and not serial, serial))
    return sorted(ports, key=lambda port: port.device)
