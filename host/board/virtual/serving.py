"""Serve a board to other programs: on a TCP port, and on a pseudo-terminal where there is one.

There is no authentication: whoever reaches the port talks to the board. Clients share it frame by frame and in turn. Whole frames
of one client are given to the board at a time, so that bytes of another never end up inside. A client that sends nothing, junk, or
reads nothing costs the others no answer. Everything that is kept for a client is bounded.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from weakcell.host.board.errors import BoardError
from weakcell.host.board.link.frames import MAX_ENCODED
from weakcell.host.board.link.transport import Transport

LOOPBACK = "127.0.0.1"
MOST_CLIENTS = 256
"""Further clients take the place of the one that was silent for the longest time."""

_PORTION = 4096
_FRAMES_PER_TURN = 16
_MOST_UNREAD = 1 << 16
"""Bytes of answers that are kept for a client that does not read."""
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_S = 0.1


@dataclass(frozen=True)
class Endpoint:
    """Where a board can be reached.

    Attributes:
        port: TCP port.
        terminal: name of a pseudo-terminal; empty on systems without.
    """

    port: int
    terminal: str


def is_loopback(address: str) -> bool:
    """Return whether only programs of this computer can reach an address; False if it is a name."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def serve(board: Transport, port: int = 0, ready: Callable[[Endpoint], None] | None = None, address: str = LOOPBACK) -> None:
    """Serve a board on a TCP port and on a pseudo-terminal until interrupted.

    All programs talk to the same board. The last one to say HELLO has its session; requests of the others are answered with
    BAD_SESSION.

    Args:
        board: the board.
        port: TCP port; 0 for any.
        ready: called with the addresses once the board can be reached.
        address: address to listen on.

    Raises:
        BoardError: the port is in use or the address is not one of this computer.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        server = socket.create_server((address, port), family=family, backlog=MOST_CLIENTS)
    except (OSError, OverflowError) as error:
        asked, found = f"Serving a board on {address}, port {port}", getattr(error, "strerror", None) or str(error)
        raise BoardError(asked, found, "Choose another port with --tcp; 0 takes any that is free") from error
    with server, selectors.DefaultSelector() as selector:
        _Server(board, server, selector).run(ready)


class _Server:
    """The clients of a board, who take turns."""

    def __init__(self, board: Transport, server: socket.socket, selector: selectors.BaseSelector) -> None:
        server.setblocking(False)
        for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):  # of all connections; the system would keep megabytes for each
            server.setsockopt(socket.SOL_SOCKET, buffer, _MOST_UNREAD)
        self._board, self._server, self._selector = board, server, selector
        self._clients: list[_Client] = []
        self._most = min(MOST_CLIENTS, _open_files() // 2)
        self._waiting: list[_Client] = []
        selector.register(server, selectors.EVENT_READ)

    def run(self, ready: Callable[[Endpoint], None] | None) -> None:
        """Serve until an exception, such as KeyboardInterrupt."""
        terminal, name = _open_terminal()
        if terminal is not None:
            self._selector.register(terminal, selectors.EVENT_READ, _Client(terminal, terminal=True))
        if ready is not None:
            ready(Endpoint(self._server.getsockname()[1], name))
        try:
            while True:
                self._take_turns()
        finally:
            for client in self._clients:
                client.close()

    def _take_turns(self) -> None:
        """Move bytes of all clients that are ready; then give the board some frames of each that has any."""
        touched = dict.fromkeys(self._waiting)
        for key, events in self._selector.select(0.0 if self._waiting else None):
            if key.data is None:
                self._accept()
                continue
            client: _Client = key.data
            touched[client] = None
            if events & selectors.EVENT_WRITE:
                client.send()
            if events & selectors.EVENT_READ and not client.frames:
                client.receive()
        self._waiting = []
        for client in touched:
            if client.closed:  # sent away for a newcomer
                continue
            if frames := client.take_frames():
                self._board.write(b"".join(b"\0" + frame + b"\0" for frame in frames))
                client.answer(self._board.read(0.0))
            if client.gone:
                self._remove(client)
                continue
            if client.frames:
                self._waiting.append(client)
            if client.events != self._selector.get_key(client.handle).events:
                self._selector.modify(client.handle, client.events, client)

    def _accept(self) -> None:
        try:
            connection, _ = self._server.accept()
        except OSError as error:
            if error.errno in _NO_ROOM and not self._send_longest_silent_away():
                time.sleep(_PAUSE_S)
            return
        if len(self._clients) >= self._most:
            self._send_longest_silent_away()
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = _Client(connection.detach())
        self._clients.append(client)
        self._selector.register(client.handle, selectors.EVENT_READ, client)

    def _send_longest_silent_away(self) -> bool:
        """Close the connection that sent nothing for the longest time; return whether there was one."""
        if not self._clients:
            return False
        self._remove(min(self._clients, key=lambda client: client.heard))
        return True

    def _remove(self, client: _Client) -> None:
        self._selector.unregister(client.handle)
        self._clients.remove(client)
        client.close()


class _Client:
    """A connection: frames that wait for the board, and answers that wait for the client.

    Attributes:
        handle: file descriptor, which does not block.
        frames: complete frames that the board has not got yet.
        heard: when the last bytes came.
        gone: the other end has closed, or does not read its answers.
        closed: this end is closed.
    """

    def __init__(self, handle: int, terminal: bool = False) -> None:
        os.set_blocking(handle, False)
        self.handle = handle
        self.gone = self.closed = False
        self.frames: deque[bytes] = deque()
        self.heard = time.monotonic()
        self._terminal = terminal
        self._begun = bytearray()
        self._answers = bytearray()

    @property
    def events(self) -> int:
        """What to wait for: bytes, and room if an answer waits."""
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._answers else 0)

    def receive(self) -> None:
        """Take a portion of bytes, and split it into frames."""
        try:
            data = os.read(self.handle, _PORTION)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.gone = not self._terminal
            return
        self.heard = time.monotonic()
        *ended, begun = data.split(b"\0")
        for part in ended:
            self._extend(part)
            if self._begun:
                self.frames.append(bytes(self._begun))
                self._begun.clear()
        self._extend(begun)

    def _extend(self, part: bytes) -> None:
        """Continue a frame; of one that is too long, keep only as much as lets the board see that it is."""
        self._begun += part[: MAX_ENCODED + 1 - len(self._begun)]

    def take_frames(self) -> list[bytes]:
        """Take the frames of one turn."""
        return [self.frames.popleft() for _ in range(min(_FRAMES_PER_TURN, len(self.frames)))]

    def answer(self, data: bytes) -> None:
        """Send bytes, or keep them until the client reads. A client that lets too many wait is gone; a terminal loses them."""
        self._answers += data
        self.send()
        if len(self._answers) > _MOST_UNREAD:
            self._answers.clear()
            self.gone = not self._terminal

    def send(self) -> None:
        """Send what waits, as far as it goes without blocking."""
        try:
            while self._answers:
                del self._answers[: os.write(self.handle, self._answers)]
        except BlockingIOError:
            return
        except OSError:
            self._answers.clear()
            self.gone = not self._terminal

    def close(self) -> None:
        """End the connection."""
        os.close(self.handle)
        self.closed = True


def _open_files() -> int:
    """Return how many files this process may have open."""
    try:
        import resource
    except ImportError:
        return 2 * MOST_CLIENTS
    return max(2, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _open_terminal() -> tuple[int | None, str]:
    """Open a pseudo-terminal in raw mode; return our side of it and the other side's name.

    The other side stays open here, so that programs can connect and disconnect.
    """
    try:
        import tty

        ours, theirs = os.openpty()
    except (ImportError, AttributeError, OSError):
        return None, ""
    tty.setraw(theirs)
    return ours, os.ttyname(theirs)
