"""Open a board by its port: `auto`, a serial port's name, `socket://HOST:PORT`, or `virtual:CHIP`.

`virtual:CHIP[SPEC]` names the memory whose errors the cells of a virtual board make.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any, Literal

from weakcell.host.board.errors import BoardError
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
    return SerialTransport(find_port() if port == "auto" else port)


def find_port() -> str:
    """Return the one USB serial port; BoardError if there is none or several."""
    ports = [port for port, _ in list_usb_ports()]
    if not ports:
        raise BoardError("Looking for a USB serial adapter", "there is none", "Plug it in, or name the port: --port /dev/ttyUSB0")
    if len(ports) > 1:
        raise BoardError(
            "Looking for a USB serial adapter", f"there are several: {', '.join(ports)}", f"Name one: --port {ports[0]}"
        )
    return ports[0]


def list_usb_ports() -> list[tuple[str, str]]:
    """List (name, description) of every USB serial port, by name; BoardError if pyserial is not installed."""
    try:
        list_ports: Any = import_module("serial.tools.list_ports")
    except ModuleNotFoundError as error:
        do = "Install it with pip install 'weakcell[board]'"
        raise BoardError("Looking for a USB serial adapter", "pyserial is not installed", do) from error
    return sorted((port.device, str(port.description)) for port in list_ports.comports() if port.vid is not None)
