"""Ways to carry bytes to a board: a serial port, a socket, a function in this process, a virtual board."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from random import Random
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


KINDS = ("bits", "burst", "lost", "repeated", "cut", "merged", "delayed", "noise")
_DELAYED_MOST = 64


@dataclass
class _Direction:
    """One direction: frames that were held back, and whether the last one was left open, so that the next runs into it."""

    late: list[bytes] = field(default_factory=list)
    open: bool = False


@dataclass
class NoisyTransport:
    """Another transport behind a bad cable. rate: the share of frames, each way, to which one of `KINDS` happens."""

    inside: Transport
    rate: float
    seed: int
    damaged: int = 0

    def __post_init__(self) -> None:
        self._random = Random(self.seed)
        self._out, self._in = _Direction(), _Direction()

    def write(self, data: bytes) -> None:
        self.inside.write(self._spoil(data, self._out))

    def read(self, timeout_s: float) -> bytes:
        """Pieces that noise swallowed entirely do not end the wait of the link: it sees them as silence, as on a real port."""
        return self._spoil(self.inside.read(timeout_s), self._in)

    def close(self) -> None:
        self.inside.close()

    def _spoil(self, data: bytes, way: _Direction) -> bytes:
        """Each frame in `data`, one by one; frames that were held back come in between."""
        random, late = self._random, way.late
        if not data:
            return late.pop(0) if late and random.random() < 0.5 else b""
        pieces = []
        for frame in data.split(b"\0"):
            if not frame:
                continue
            opened, way.open = way.open, False
            piece = b"\0" + frame + b"\0"
            if random.random() < self.rate:
                self.damaged += 1
                piece = self._damage(frame, way)
            pieces.append(piece[1:] if opened else piece)
            if late and random.random() < 0.1:
                pieces.append(late.pop(random.randrange(len(late))))
        return b"".join(pieces)

    def _damage(self, frame: bytes, way: _Direction) -> bytes:
        random, late, whole = self._random, way.late, b"\0" + frame + b"\0"
        kind = random.choice(KINDS)
        if kind == "bits":
            spoiled = bytearray(whole)
            for _ in range(random.randint(1, 6)):
                spoiled[random.randrange(len(spoiled))] ^= 1 << random.randrange(8)
            return bytes(spoiled)
        if kind == "burst":
            start = random.randrange(len(whole))
            length = min(random.randint(1, 40), len(whole) - start)
            return whole[:start] + random.randbytes(length) + whole[start + length :]
        if kind == "repeated":
            late.append(whole)
            del late[:-_DELAYED_MOST]
            return whole
        if kind == "cut":
            return whole[: random.randrange(len(whole))]
        if kind == "merged":
            way.open = True
            return whole[:-1]
        if kind == "delayed":
            late.append(whole)
            del late[:-_DELAYED_MOST]
            return b""
        return random.randbytes(random.randint(1, 30)) + whole if kind == "noise" else b""
