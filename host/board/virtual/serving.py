"""A board offered to other programs: on a TCP port of this computer, and on a pseudo-terminal where there are such."""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass

from weakcell.host.board.link.transport import Transport

_PORTION = 65536


@dataclass(frozen=True)
class Endpoint:
    """Where a board can be reached. terminal: the name of a pseudo-terminal, or empty on systems without."""

    port: int
    terminal: str


def serve(board: Transport, port: int = 0, ready: Callable[[Endpoint], None] | None = None) -> None:
    """Offer a board on 127.0.0.1 and on a pseudo-terminal until interrupted. ready: told where. One program at a time is meant:
    all of them speak to the same board, and whoever says HELLO last has its session.
    """
    with socket.create_server(("127.0.0.1", port)) as server, selectors.DefaultSelector() as selector:
        terminal, name = _terminal()
        selector.register(server, selectors.EVENT_READ)
        if terminal is not None:
            selector.register(terminal, selectors.EVENT_READ)
        if ready is not None:
            ready(Endpoint(server.getsockname()[1], name))
        try:
            while True:
                for key, _ in selector.select():
                    if key.fileobj is server:
                        client, _ = server.accept()
                        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        selector.register(client, selectors.EVENT_READ)
                    elif isinstance(key.fileobj, socket.socket):
                        if not _serve_socket(board, key.fileobj):
                            selector.unregister(key.fileobj)
                            key.fileobj.close()
                    elif terminal is not None:
                        _serve_terminal(board, terminal)
        finally:
            for key in list(selector.get_map().values()):
                if isinstance(key.fileobj, socket.socket) and key.fileobj is not server:
                    key.fileobj.close()


def _terminal() -> tuple[int | None, str]:
    """A pseudo-terminal in raw mode: our side of it, and the name of the other. The other side is kept open here, so that programs
    can come and go."""
    try:
        import tty

        ours, theirs = os.openpty()
    except (ImportError, AttributeError, OSError):
        return None, ""
    tty.setraw(theirs)
    return ours, os.ttyname(theirs)


def _serve_socket(board: Transport, client: socket.socket) -> bool:
    """Is the client still there?"""
    try:
        data = client.recv(_PORTION)
        if data:
            board.write(data)
            client.sendall(board.read(0.0))
    except OSError:
        return False
    return bool(data)


def _serve_terminal(board: Transport, terminal: int) -> None:
    board.write(os.read(terminal, _PORTION))
    answer = board.read(0.0)
    while answer:
        answer = answer[os.write(terminal, answer) :]
