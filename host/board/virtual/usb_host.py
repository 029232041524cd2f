"""The host of a virtual board's USB: it enumerates the device as operating systems do, and opens its serial port.

Written from USB 2.0 (chapters 8 and 9) and CDC 1.2. One call of `step` is one transaction on the bus. A noisy bus loses tokens,
data packets and handshakes; the host repeats what was not acknowledged, as chapter 8 says.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from dataclasses import dataclass
from random import Random

from weakcell.host.board.virtual.usb import PACKET, Handshake, UsbController

_DEVICE, _CONFIGURATION, _STRING, _ENDPOINT = 1, 2, 3, 5
_CLEAR_FEATURE = 1
_GET_DESCRIPTOR, _SET_ADDRESS, _SET_CONFIGURATION, _SET_LINE_CODING, _SET_LINE_STATE = 6, 5, 9, 0x20, 0x22
_RETRIES = 3
_MOST_NAKS = 300
_ENUMERATIONS = 5

Steps = Generator[None, None, bytes]


class UsbError(Exception):
    """A transfer failed: the device stalled, or did not answer."""


@dataclass(frozen=True)
class Identity:
    """What a host learns of a device.

    Attributes:
        device, configuration: descriptors as they were sent.
        maker, product, serial: strings.
    """

    device: bytes
    configuration: bytes
    maker: str
    product: str
    serial: str


class UsbHost:
    """A host with one port.

    Attributes:
        controller: the device.
        loss: share of the packets that the bus loses.
        identity: of the device; None while none is enumerated.
        generation: how often a device was enumerated.
        received: bytes from the device's serial port.
        stalls, repeats, naks: counts of what happened on the bus.
        suspended: no token is sent.
        reads: bytes of the serial port are read.
    """

    def __init__(self, controller: UsbController, loss: float = 0.0, seed: int = 0) -> None:
        self.controller, self.loss = controller, loss
        self._random = Random(seed)
        self.identity: Identity | None = None
        self.generation = self.stalls = self.repeats = self.naks = 0
        self.suspended, self.reads = False, True
        self.received = bytearray()
        self._to_send = bytearray()
        self._program: Generator[None, None, None] | None = None
        self._address = self._in_pid = self._out_pid = 0
        self._failures = self._disconnects = 0

    # --- what a driver does -------------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Queue bytes for the device's serial port."""
        self._to_send += data

    def take(self) -> bytes:
        """Take what the serial port received."""
        data = bytes(self.received)
        self.received.clear()
        return data

    @property
    def is_busy(self) -> bool:
        """Whether a device is there that is not enumerated yet."""
        changed = self._disconnects != self.controller.disconnects
        return self.controller.attached and (changed or (self.identity is None and self._failures < _ENUMERATIONS))

    def step(self) -> bool:
        """Do one transaction; return whether anything but NAK happened."""
        if self._disconnects != self.controller.disconnects:  # a hub keeps that in mind, also if the device is back already
            self._disconnects, self._failures = self.controller.disconnects, 0
            self._forget()
        if not self.controller.attached:
            return False
        if self.suspended or self._failures >= _ENUMERATIONS:
            return False
        if self._program is None:
            self._program = self._run()
        naks = self.naks
        try:
            next(self._program)
        except UsbError:
            self._failures += 1
            self._forget()
            return True
        return self.naks == naks

    def reset_bus(self) -> None:
        """Reset the bus, and enumerate again."""
        self._forget()

    def suspend(self, suspended: bool) -> None:
        """Suspend the bus, or resume."""
        self.suspended = suspended
        self.controller.suspend(suspended)

    def _forget(self) -> None:
        self._program = self.identity = None
        self._address = 0
        self._to_send.clear()
        self.received.clear()

    # --- enumeration --------------------------------------------------------------------------------------------------------------

    def _run(self) -> Generator[None, None, None]:
        self._reset()
        yield
        first = yield from self._get_descriptor(_DEVICE, 0, 64)  # some systems reset the bus again after the first packet
        if len(first) < 8 or first[7] != PACKET:
            raise UsbError("the first eight bytes of the device descriptor")
        self._reset()
        yield
        yield from self.control(0x00, _SET_ADDRESS, 5, 0)
        self._address = 5
        device = yield from self._get_descriptor(_DEVICE, 0, 18)
        total = struct.unpack_from("<H", (yield from self._get_descriptor(_CONFIGURATION, 0, 9)), 2)[0]
        configuration = yield from self._get_descriptor(_CONFIGURATION, 0, total)
        strings = []
        yield from self._get_descriptor(_STRING, 0, 255)
        for index in device[14:17]:
            strings.append((yield from self._get_descriptor(_STRING, index, 255, 0x0409))[2:].decode("utf-16-le"))
        yield from self.control(0x00, _SET_CONFIGURATION, configuration[5], 0)
        yield from self.control(0x21, _SET_LINE_CODING, 0, 0, struct.pack("<IBBB", 921600, 0, 0, 8))
        yield from self.control(0x21, _SET_LINE_STATE, 3, 0)
        self.identity = Identity(device, configuration, *strings)
        self.generation += 1
        self._failures = 0
        yield
        yield from self._exchange_data(*_find_bulk_endpoints(configuration))

    def _reset(self) -> None:
        self.controller.reset_bus()
        self._address = 0

    def _get_descriptor(self, kind: int, index: int, length: int, language: int = 0) -> Steps:
        return (yield from self.control(0x80, _GET_DESCRIPTOR, kind << 8 | index, language, length=length))

    def control(self, kind: int, request: int, value: int, index: int, data: bytes = b"", length: int = 0) -> Steps:
        """Do a control transfer: SETUP, data packets, and the empty packet the other way; one transaction a step."""
        packet = struct.pack("<BBHHH", kind, request, value, index, len(data) or length)
        for _ in range(_RETRIES + 1):
            if not self._lost() and self.controller.setup(self._address, packet).kind == "ack" and not self._lost():
                break
            self.repeats += 1
            yield
        else:
            raise UsbError("no answer to SETUP")
        yield
        answer, pid = b"", 1
        if kind & 0x80 and length:
            while len(answer) < length:
                part = yield from self._in(0, pid)
                pid ^= 1
                answer += part
                if len(part) < PACKET:
                    break
            yield from self._out(0, 1, b"")
            return answer
        for at in range(0, len(data), PACKET):
            yield from self._out(0, pid, data[at : at + PACKET])
            pid ^= 1
        yield from self._in(0, 1)
        if (kind, request) == (0x02, _CLEAR_FEATURE):  # the endpoint starts with DATA0 again
            self._in_pid, self._out_pid = (0, self._out_pid) if index & 0x80 else (self._in_pid, 0)
        return b""

    # --- transactions -------------------------------------------------------------------------------------------------------------

    def _lost(self) -> bool:
        return self.loss > 0 and self._random.random() < self.loss

    def _in(self, endpoint: int, pid: int) -> Steps:
        """Ask until a packet with this PID has come."""
        naks = losses = 0
        while True:
            reply = self._ask(endpoint)
            if reply.kind == "ack" and reply.pid == pid:
                yield
                return reply.data
            naks, losses = self._count(reply, naks, losses)
            yield

    def _ask(self, endpoint: int) -> Handshake:
        """Send one IN token. A packet with the wrong PID is a repetition, which is acknowledged and dropped."""
        lost = Handshake("none")
        reply = lost if self._lost() else self.controller.token_in(self._address, endpoint)
        if reply.kind == "ack":
            if self._lost():
                return lost
            if not self._lost():
                self.controller.acknowledge(endpoint)
        return reply

    def _out(self, endpoint: int, pid: int, data: bytes) -> Steps:
        """Send a packet until it is acknowledged."""
        naks = losses = 0
        while True:
            reply = Handshake("none") if self._lost() else self.controller.token_out(self._address, endpoint, pid, data)
            if reply.kind == "ack" and not self._lost():
                yield
                return b""
            naks, losses = self._count(reply if reply.kind != "ack" else Handshake("none"), naks, losses)
            yield

    def _count(self, reply: Handshake, naks: int, losses: int) -> tuple[int, int]:
        if reply.kind == "stall":
            self.stalls += 1
            raise UsbError("stalled")
        if reply.kind == "nak":
            self.naks += 1
            naks += 1
        else:
            self.repeats += 1
            losses = losses + 1 if reply.kind == "none" else 0
        if naks > _MOST_NAKS or losses > 10 * _RETRIES:
            raise UsbError("no answer")
        return naks, losses

    def _exchange_data(self, in_endpoint: int, out_endpoint: int) -> Generator[None, None, None]:
        """Move bytes both ways for ever; NAKs are no failure here, and neither are stalls, which a driver may clear."""
        self._in_pid = self._out_pid = 0
        while True:
            if self._to_send:
                data = bytes(self._to_send[:PACKET])
                lost = self._lost()
                pid = self._out_pid
                reply = Handshake("none") if lost else self.controller.token_out(self._address, out_endpoint, pid, data)
                if reply.kind == "ack" and not self._lost():
                    del self._to_send[: len(data)]
                    self._out_pid ^= 1
                self._count_idle(reply)
                yield
            if not self.reads:
                self.naks += 1
                yield
                continue
            reply = self._ask(in_endpoint)
            if reply.kind == "ack" and reply.pid == self._in_pid:
                self.received += reply.data
                self._in_pid ^= 1
            self._count_idle(reply)
            yield

    def _count_idle(self, reply: Handshake) -> None:
        self.naks += reply.kind in ("nak", "stall")
        self.repeats += reply.kind == "none"


def _find_bulk_endpoints(configuration: bytes) -> tuple[int, int]:
    """Return the numbers of the bulk endpoints, in and out."""
    found, at = {}, 0
    while at < len(configuration) and configuration[at]:
        if configuration[at + 1] == _ENDPOINT and configuration[at + 3] & 3 == 2:
            found[configuration[at + 2] >> 7] = configuration[at + 2] & 15
        at += configuration[at]
    if len(found) != 2:
        raise UsbError("no bulk endpoints")
    return found[1], found[0]
