"""Serve a board to other programs: on a TCP port of this computer, and on a pseudo-terminal where there is one."""

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
    """Where a board can be reached.

    Attributes:
        port: TCP port on 127.0.0.1.
        terminal: name of a pseudo-terminal; empty on systems without.
    """

    port: int
    terminal: str


def serve(board: Transport, port: int = 0, ready: Callable[[Endpoint], None] | None = None) -> None:
    """Serve a board on 127.0.0.1 and on a pseudo-terminal until interrupted.

    All programs talk to the same board. The last one to say HELLO has its session, so only one should be connected.

    Args:
        board: the board.
        port: TCP port; 0 for any.
        ready: called with the addresses once the board can be reached.
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


def _serve_socket(board: Transport, client: socket.socket) -> bool:
    """Pass one portion of bytes each way; return whether the client is still connected."""
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
