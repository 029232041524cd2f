"""A port that vanishes and comes back, as the USB of a board does around every time at a low voltage."""

from __future__ import annotations

import time
from collections.abc import Callable

from weakcell.host.board.errors import BoardError, LinkError
from weakcell.host.board.link.transport import Transport

PATIENCE_S = 10.0
"""A board is away for its dwell and 50 ms; then the system must find it, load its driver, and let users open it."""
_PAUSE_S = 0.05


class ReconnectingTransport:
    """A transport that opens its port again after it was lost.

    Bytes that were on their way are gone. The link sends its request again, and the board answers it from its stored replies.

    Attributes:
        name: of the board.
        reconnects: how often the port came back.
    """

    def __init__(self, name: str, open_port: Callable[[], Transport], pause: Callable[[float], None] = time.sleep) -> None:
        """Open the port.

        Args:
            name: of the board, for messages.
            open_port: opens the board's port wherever it is now; BoardError if it is not there.
            pause: waits for so many seconds before the next attempt.

        Raises:
            BoardError: the board is not there.
        """
        self.name, self.reconnects = name, 0
        self._open_port, self._pause = open_port, pause
        self._port: Transport | None = open_port()

    def write(self, data: bytes) -> None:
        """Send bytes; they are lost if the port is gone."""
        try:
            if self._port is not None:
                self._port.write(data)
        except LinkError:
            self._lose()

    def read(self, timeout_s: float) -> bytes:
        """Return what has arrived; nothing if the port was lost and has come back.

        Raises:
            LinkError: the port has not come back for a long time.
        """
        if self._port is not None:
            try:
                return self._port.read(timeout_s)
            except LinkError:
                self._lose()
        self._reopen()
        return b""

    def close(self) -> None:
        """Close the port."""
        if self._port is not None:
            self._port.close()

    def _lose(self) -> None:
        self.close()
        self._port = None

    def _reopen(self) -> None:
        error: BoardError | None = None
        for _ in range(round(PATIENCE_S / _PAUSE_S)):
            self._pause(_PAUSE_S)
            try:
                self._port = self._open_port()
            except BoardError as refusal:  # not there yet, or the system has not given it to its user yet
                error = refusal
            else:
                self.reconnects += 1
                return
        found = f"it did not come back to USB within {PATIENCE_S:.0f} s" + (f": {error.found}" if error else "")
        raise LinkError(f"Talking to {self.name}", found, "Plug the board in again and repeat the command")
