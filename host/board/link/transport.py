"""Ways to carry bytes to a board: a serial port, a socket, a function in this process, a virtual board."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

from weakcell.host.board.errors import BoardError, LinkError

BAUD = 921_600


class Transport(Protocol):
    """Carries bytes; promises nothing about them."""

    def write(self, data: bytes) -> None:
        """Send these bytes."""
        ...

    def read(self, timeout_s: float) -> bytes:
        """What has arrived, waiting for up to `timeout_s` for the first byte; empty if nothing came."""
        ...

    def close(self) -> None:
        """Let go of it; closing twice does nothing."""
        ...


class FunctionTransport:
    """A board that is a function in this process: bytes in, its answer out. It answers at once or never: no time passes."""

    def __init__(self, board: Callable[[bytes], bytes]) -> None:
        self._board = board
        self._waiting = bytearray()

    def write(self, data: bytes) -> None:
        self._waiting += self._board(data)

    def read(self, timeout_s: float) -> bytes:
        data = bytes(self._waiting)
        self._waiting.clear()
        return data

    def close(self) -> None:
        self._waiting.clear()


class SerialTransport:
    """Anything pyserial can open: a port's name, or `socket://HOST:PORT`, `loop://`, `rfc2217://…`."""

    def __init__(self, url: str, baud: int = BAUD) -> None:
        try:
            serial: Any = import_module("serial")
        except ModuleNotFoundError as error:
            raise BoardError(
                f"Opening {url}", "pyserial is not installed", "Install it with pip install 'weakcell[board]'"
            ) from error
        self.url = url
        self._lost: tuple[type[Exception], ...] = (serial.SerialException, OSError)
        try:
            self._port: Any = serial.serial_for_url(url, baudrate=baud, timeout=0.0)
        except (*self._lost, ValueError) as error:
            raise BoardError(f"Opening {url}", str(error), "Check the name, the cable and your right to use the port") from error
        self._send_at_once()

    def _send_at_once(self) -> None:
        """A TCP socket without this waits up to 40 ms before it sends a short frame."""
        import socket

        inside = getattr(self._port, "_socket", None)
        if isinstance(inside, socket.socket):
            inside.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def write(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except self._lost as error:
            raise self._gone(error) from error

    def read(self, timeout_s: float) -> bytes:
        try:
            self._port.timeout = timeout_s
            first = self._port.read(1)
            self._port.timeout = 0.0
            more = (
                self._port.read(max(self._port.in_waiting, 1) if not self.url.startswith("socket://") else 4096) if first else b""
            )
            return bytes(first + more)
        except self._lost as error:
            raise self._gone(error) from error

    def _gone(self, error: Exception) -> LinkError:
        return LinkError(f"Talking to {self.url}", f"the port is gone ({error})", "Plug the board in again and repeat the command")

    def close(self) -> None:
        self._port.close()
