"""The USB serial port of a virtual board, as programs see it: it is there while the board is enumerated, and gone otherwise."""

from __future__ import annotations

from weakcell.host.board.errors import BoardError, LinkError
from weakcell.host.board.link.reconnecting import ReconnectingTransport
from weakcell.host.board.virtual.usb_host import UsbHost
from weakcell.host.board.virtual.virtual_board import VirtualBoard

_WAIT_US = 10_000
_WAITS = 100


class UsbCable:
    """A virtual board and a host, connected.

    Attributes:
        board: the board.
        host: enumerates it.
    """

    def __init__(self, board: VirtualBoard, loss: float = 0.0, seed: int = 0) -> None:
        """Connect them; loss: share of the packets that the cable loses."""
        self.board, self.host = board, UsbHost(board.machine.usb, loss, seed)
        board.machine.usb.on_look = self._go_on

    def _go_on(self) -> None:
        """Do a transaction while the firmware looks for news. It is not idle then, unless it was only asked in vain."""
        if self.host.step():
            self.board.machine.uart.busy()

    def run(self) -> None:
        """Run the firmware until it has nothing to do, and let time pass for what it waits for."""
        self.board.read(0.0)
        for _ in range(_WAITS):
            machine = self.board.machine
            if machine.stuck or machine.bootsel or machine.away_us or not (self.host.is_busy or not machine.usb.attached):
                return
            machine.pass_time(_WAIT_US)
            self.board.read(0.0)

    def control(self, kind: int, request: int, value: int, index: int, data: bytes = b"", length: int = 0) -> bytes:
        """Do a control transfer and return the device's data; UsbError if the device stalls."""
        steps = self.host.control(kind, request, value, index, data, length)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return bytes(end.value)
            self.board.read(0.0)

    def open(self) -> UsbPort:
        """Open the serial port; BoardError if no board is enumerated."""
        self.run()
        if self.host.identity is None:
            raise BoardError("Opening a virtual board's USB", "no device is there", "Use an image with USB: flash")
        self.host.take()
        return UsbPort(self)


class UsbPort:
    """One opening of the serial port. It is lost as soon as the board leaves the bus, also if it has come back."""

    def __init__(self, cable: UsbCable) -> None:
        self._cable, self._generation = cable, cable.host.generation

    def write(self, data: bytes) -> None:
        """Send bytes; LinkError if the port is gone."""
        self._check()
        self._cable.host.send(data)

    def read(self, timeout_s: float) -> bytes:
        """Run the firmware until it waits, and return what it sent; LinkError if the port is gone."""
        self._check()
        self._cable.run()
        if self._cable.host.received and self._cable.host.generation == self._generation:
            return self._cable.host.take()  # also what came before the board left the bus
        self._check()
        return b""

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def _check(self) -> None:
        if self._cable.host.identity is None or self._cable.host.generation != self._generation:
            raise LinkError("Talking to a virtual board", "the port is gone", "Open it again")


def connect_usb(board: VirtualBoard, loss: float = 0.0, seed: int = 0) -> ReconnectingTransport:
    """Return the USB of a virtual board as a transport."""
    cable = UsbCable(board, loss, seed)
    return ReconnectingTransport("a virtual board", cable.open, pause=lambda _seconds: None)
