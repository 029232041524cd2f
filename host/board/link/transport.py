"""Transports that carry bytes to a board: a serial port, a socket, a function in this process, and a noisy line for tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from random import Random
from typing import Any, Protocol

from weakcell.host.board.errors import BoardError, LinkError

BAUD = 921_600


class Transport(Protocol):
    """Carries bytes and guarantees nothing about them."""

    def write(self, data: bytes) -> None:
        """Send bytes."""
        ...

    def read(self, timeout_s: float) -> bytes:
        """Return what has arrived; wait up to `timeout_s` for the first byte. Empty if nothing came."""
        ...

    def close(self) -> None:
        """Close it; closing twice does nothing."""
        ...


class FunctionTransport:
    """A board that is a function in this process: bytes in, reply out.

    It replies at once or never, so no time passes.
    """

    def __init__(self, board: Callable[[bytes], bytes]) -> None:
        self._board = board
        self._waiting = bytearray()

    def write(self, data: bytes) -> None:
        """Call the board and keep its reply."""
        self._waiting += self._board(data)

    def read(self, timeout_s: float) -> bytes:
        """Return the replies so far."""
        data = bytes(self._waiting)
        self._waiting.clear()
        return data

    def close(self) -> None:
        """Drop the replies."""
        self._waiting.clear()


class SerialTransport:
    """Any URL that pyserial can open: a port's name, `socket://HOST:PORT`, `loop://`, `rfc2217://…`."""

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
        """Turn off the delay of up to 40 ms before a TCP socket sends a short frame."""
        import socket

        inside = vars(self._port).get("_socket")
        if isinstance(inside, socket.socket):
            inside.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def write(self, data: bytes) -> None:
        """Send bytes; LinkError if the port is gone."""
        try:
            self._port.write(data)
        except self._lost as error:
            raise self._lost_port(error) from error

    def read(self, timeout_s: float) -> bytes:
        """Return what has arrived; LinkError if the port is gone."""
        try:
            self._port.timeout = timeout_s
            first = self._port.read(1)
            self._port.timeout = 0.0
            more = (
                self._port.read(max(self._port.in_waiting, 1) if not self.url.startswith("socket://") else 4096) if first else b""
            )
            return bytes(first + more)
        except self._lost as error:
            raise self._lost_port(error) from error

    def release(self) -> None:
        """Let go of DTR and RTS, which opening a port pulls low."""
        try:
            self._port.dtr = self._port.rts = False
        except self._lost as error:
            raise self._lost_port(error) from error

    def pull(self, line: str, seconds: float) -> None:
        """Pull a line, `dtr` or `rts`, low for a time in s; LinkError if the port is gone."""
        try:
            setattr(self._port, line, True)
            time.sleep(seconds)
            setattr(self._port, line, False)
        except self._lost as error:
            raise self._lost_port(error) from error

    def _lost_port(self, error: Exception) -> LinkError:
        return LinkError(f"Talking to {self.url}", f"the port is gone ({error})", "Plug the board in again and repeat the command")

    def close(self) -> None:
        """Close the port."""
        self._port.close()


DAMAGES = ("bits", "burst", "lost", "repeated", "cut", "merged", "delayed", "noise")
_DELAYED_MOST = 64


@dataclass
class _Direction:
    """One direction of a noisy line.

    Attributes:
        late: frames that are delivered later.
        open: the end of the last frame was lost, so the next one runs into it.
    """

    late: list[bytes] = field(default_factory=list)
    open: bool = False


@dataclass
class NoisyTransport:
    """A transport with a bad cable. It damages, loses, repeats, cuts, merges and delays frames, by a seed.

    Attributes:
        inside: the transport behind the cable.
        rate: share of frames, in each direction, to which one of `DAMAGES` happens.
        seed: of the damage.
        damaged: frames so far.
    """

    inside: Transport
    rate: float
    seed: int
    damaged: int = 0

    def __post_init__(self) -> None:
        self._random = Random(self.seed)
        self._out, self._in = _Direction(), _Direction()

    def write(self, data: bytes) -> None:
        """Send bytes, some frames damaged."""
        self.inside.write(self._spoil(data, self._out))

    def read(self, timeout_s: float) -> bytes:
        """Return what has arrived, some frames damaged.

        If noise removed everything, the result is empty: the link sees silence, as on a real port.
        """
        return self._spoil(self.inside.read(timeout_s), self._in)

    def close(self) -> None:
        """Close the transport behind the cable."""
        self.inside.close()

    def _spoil(self, data: bytes, way: _Direction) -> bytes:
        """Damage each frame at random, and insert frames that were held back."""
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
        kind = random.choice(DAMAGES)
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
