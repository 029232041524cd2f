"""Requests and replies over a transport that may damage, lose, repeat or delay anything.

Each request has a session token and a number. The board executes each number once, in order. It stores its last four replies and
answers a repeated request from them, so a late duplicate never overwrites newer data. Up to four requests are outstanding. An
unanswered request is sent again; after too many silences the call raises LinkError.
"""

from __future__ import annotations

import itertools
import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from weakcell.host.board.errors import BoardError, LinkError, VoltageRefused
from weakcell.host.board.link.frames import Decoder, encode
from weakcell.host.board.link.protocol import (
    MAX_CRCS,
    MAX_FLIPS,
    OLDEST_VERSION,
    RECORD_BYTES,
    VERSION,
    BoardInfo,
    Command,
    ConnectedBoard,
    Pulse,
    Status,
    reply_lengths,
)
from weakcell.host.board.link.ring_curve import RingCurve
from weakcell.host.board.link.transport import Transport

Request = tuple[Command, bytes]


@dataclass
class LinkCounters:
    """Counts what happened to frames; nothing here is a memory flip.

    Each event was repaired by sending again, or ended in a LinkError.
    """

    frames_sent: int = 0
    frames_received: int = 0
    frames_damaged: int = 0
    resent: int = 0
    silences: int = 0
    gaps: int = 0
    unexpected: int = 0
    sessions: int = 0


class _Reply(NamedTuple):
    command: int
    token: int
    number: int
    status: int
    body: bytes


def _time_low(dwell_us: int) -> float:
    """Return how much longer a reply takes with a low phase, in s; reads are slow while low."""
    return dwell_us / 1e6 + 1.5


class Link:
    """A session with a board.

    Attributes:
        transport: carries the bytes.
        counters: what happened to frames.
        device_errors: replies that a working board cannot send.
        ring_curve: what is known of the ring oscillator of the chip; None before it was calibrated.
        core_scale: volts for each volt of the regulator's steps, by a meter; None if there was none.
    """

    def __init__(self, transport: Transport, timeout_s: float = 0.5, retries: int = 8, decoder: Decoder | None = None) -> None:
        """Use a transport; `retries` silences of `timeout_s` in a row end a call."""
        self.counters = LinkCounters()
        self.device_errors = 0
        self.ring_curve: RingCurve | None = None
        self.core_scale: float | None = None
        self.transport = transport
        self._timeout_s, self._retries = timeout_s, retries
        self._decoder = decoder or Decoder()
        self._waiting: list[bytes] = []
        self._board: ConnectedBoard | None = None
        self._token = 0
        self._next = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the transport.

        The board is at nominal voltage: its firmware restores it before it replies to a pulse.
        """
        self._token = 0
        self.transport.close()

    @property
    def board(self) -> ConnectedBoard:
        """The board, from its HELLO reply; opens a session if there is none."""
        if self._board is None or self._token == 0:
            self._board = self.open()
        return self._board

    def open(self) -> ConnectedBoard:
        """Open a session; requests of earlier sessions become invalid.

        Raises:
            BoardError: the firmware speaks another version.
            LinkError: nothing answered.
        """
        nonce, version = secrets.randbits(32), VERSION
        for _ in range(self._retries + 1):
            self._send(struct.pack("<BIIBI", Command.HELLO, 0, 0, version, nonce))
            while (reply := self._receive(self._timeout_s)) is not None:
                if reply.command != Command.HELLO | 0x80:
                    continue
                if reply.status == Status.BAD_VERSION and reply.body and OLDEST_VERSION <= reply.body[0] < version:
                    version = reply.body[0]  # older firmware: speak its version
                    self._send(struct.pack("<BIIBI", Command.HELLO, 0, 0, version, nonce))
                    continue
                if reply.status == Status.BAD_VERSION:
                    if version < VERSION:
                        continue  # a late answer to the first request
                    found = f"its firmware speaks version {reply.body[0] if reply.body else '?'}, this host {VERSION}"
                    raise BoardError("Opening the board", found, "Flash the image that comes with this version")
                if reply.status == Status.OK and len(reply.body) == 25 and struct.unpack_from("<I", reply.body, 1)[0] == nonce:
                    self._token, self._next = reply.token, 1
                    self.counters.sessions += 1
                    return ConnectedBoard.unpack(reply.body)
            self.counters.silences += 1
        raise LinkError(
            "Opening the board", "nothing answered", "Check port, wiring (TX to RX) and that the image runs on the board"
        )

    # --- commands ---------------------------------------------------------------------------------------------------------------

    def info(self) -> BoardInfo:
        """Return the board's registers and counters."""
        return BoardInfo.unpack(self._request_one(Command.INFO))

    def write_pages(self, pages: Sequence[int], contents: Sequence[bytes]) -> None:
        """Write whole pages of 256 bytes."""
        self.transact([(Command.WRITE, struct.pack("<H", page) + data) for page, data in zip(pages, contents, strict=True)])

    def read_pages(self, pages: Sequence[int]) -> list[bytes]:
        """Read whole pages. Each frame's CRC is computed after its bytes were read from SRAM."""
        replies = self.transact([(Command.READ, struct.pack("<H", page)) for page in pages])
        return [self._check_page(reply, page)[2:] for reply, page in zip(replies, pages, strict=True)]

    def page_crcs(self, first: int, count: int) -> list[int]:
        """Return the CRC-32 of `count` pages from page `first` on."""
        starts = range(first, first + count, MAX_CRCS)
        counts = [min(MAX_CRCS, first + count - start) for start in starts]
        replies = self.transact([(Command.CRCS, struct.pack("<HB", start, n)) for start, n in zip(starts, counts, strict=True)])
        crcs: list[int] = []
        for reply, start, n in zip(replies, starts, counts, strict=True):
            crcs += struct.unpack(f"<{n}I", self._check_page(reply, start)[2:])
        return crcs

    def fill(self, first: int, count: int, pattern: int, seed: int = 0) -> None:
        """Make the board write a generated pattern into `count` pages from page `first` on."""
        self._request_one(Command.FILL, struct.pack("<HHBI", first, count, pattern, seed))

    def compare(self, first: int, count: int, pattern: int, seed: int = 0) -> list[int]:
        """Compare pages with a generated pattern on the board.

        Returns:
            All cells (bits of the arena) that differ, ascending.
        """
        cells: list[int] = []
        start = 0
        while True:
            total, listed = self.compare_once(first, count, pattern, seed, start)
            cells += listed
            if total == len(listed):
                return cells
            start = cells[-1] + 1

    def compare_once(self, first: int, count: int, pattern: int, seed: int = 0, start: int = 0) -> tuple[int, list[int]]:
        """Compare pages with a generated pattern on the board, in one request.

        Returns:
            The number of cells from `start` on that differ, and the first of them, ascending.
        """
        body = self._request_one(Command.COMPARE, struct.pack("<HHBII", first, count, pattern, seed, start))
        return self.parse_flip_list(body, start)

    def parse_flip_list(self, body: bytes, start: int) -> tuple[int, list[int]]:
        """Parse the reply to COMPARE; BoardError if it is not a valid list.

        Returns:
            The number of cells from `start` on that differ, and the first of them, ascending.
        """
        total, listed = struct.unpack_from("<IB", body)
        if len(body) == 5 + 4 * listed and (listed == min(total, MAX_FLIPS)):
            cells = list(struct.unpack_from(f"<{listed}I", body, 5))
            if all(a < b for a, b in itertools.pairwise([start - 1, *cells])):
                return total, cells
        self.device_errors += 1
        raise BoardError("A list of differing cells", "it is not one", "Report this: it should be impossible")

    def pulse(self, code: int, dwell_us: int) -> Pulse:
        """Lower the voltage for `dwell_us`, then restore it.

        Raises:
            VoltageRefused: the board refused the code, or its register does not confirm it.
        """
        pulse = Pulse.unpack(self._request_one(Command.PULSE, struct.pack("<BI", code, dwell_us), _time_low(dwell_us)))
        return self._confirm(pulse, code, dwell_us)

    def cpu_pulse(self, code: int, dwell_us: int) -> Pulse:
        """Do the same as `pulse` with the CPU running from its own banks at the low voltage."""
        request = struct.pack("<BI", code, dwell_us)
        return self._confirm(Pulse.unpack(self._request_one(Command.CPU_PULSE, request, _time_low(dwell_us))), code, dwell_us)

    def sleep(self, code: int, dwell_us: int) -> Pulse:
        """Do the same as `pulse` with the core switched off; only where the board can."""
        pulse = Pulse.unpack(self._request_one(Command.SLEEP, struct.pack("<BI", code, dwell_us), _time_low(dwell_us)))
        return self._confirm(pulse, code, dwell_us)

    def while_low(self, command: Command, code: int, dwell_us: int, body: bytes) -> tuple[Pulse, bytes]:
        """Execute one of the `_LOW` commands: its work is pulse while the voltage is low.

        Args:
            command: which one.
            code: regulator code.
            dwell_us: time at the low voltage before the work.
            body: of the plain command.

        Returns:
            What happened to the voltage, and the reply body of the plain command.

        Raises:
            VoltageRefused: as for `pulse`.
        """
        reply = self._request_one(command, struct.pack("<BI", code, dwell_us) + body, _time_low(dwell_us))
        record = RECORD_BYTES[self.board.version]
        return self._confirm(Pulse.unpack(reply[:record]), code, dwell_us), reply[record:]

    def hand_over(self, window_s: float) -> None:
        """Let the board switch its regulator off for a time, a moment after its reply: `HAND_OVER_S`.

        The core must be fed from outside then. The board answers nothing until the time is over. Only where the board can.
        """
        self._request_one(Command.HAND_OVER, struct.pack("<I", round(1000 * window_s)))

    def handed_back(self) -> Pulse:
        """Return what happened when the regulator was off the last time; the count while low is that at the end of the time."""
        return Pulse.unpack(self._request_one(Command.HANDED_BACK))

    def infer(self, page: int, words: int, crc: int, seconds: float) -> tuple[int, bytes]:
        """Make the board compute one image; only where the board can.

        Args:
            page: first page of the program.
            words: its words of 32 bits.
            crc: their CRC-32.
            seconds: how long the board may take at most.

        Returns:
            The index of the largest sum, and all sums, 32 bits each.
        """
        reply = self._request_one(Command.INFER, struct.pack("<HHI", page, words, crc), seconds)
        return int.from_bytes(reply[:2], "little"), reply[2:]

    def _confirm(self, pulse: Pulse, code: int, dwell_us: int) -> Pulse:
        asked = f"Code {code} for {dwell_us} us"
        if (pulse.code, pulse.low_code) != (code, code):
            raise VoltageRefused(
                asked, f"the regulator read back code {pulse.low_code} while low", "Nothing was counted; see PROTOCOL.md"
            )
        if pulse.after_code != self.board.nominal_code or not pulse.after_ok:
            raise VoltageRefused(
                asked, f"nominal was not confirmed (code {pulse.after_code}, ok {pulse.after_ok})", "Reset the board"
            )
        if pulse.dwell_us < dwell_us:
            raise VoltageRefused(asked, f"the board's timer saw {pulse.dwell_us} us", "Nothing was counted; check its clock")
        if not pulse.own:
            self.device_errors += 1
            raise BoardError(asked, "the firmware's own data changed while the voltage was low", "Nothing was counted; go higher")
        return pulse

    def _request_one(self, command: Command, body: bytes = b"", extra_s: float = 0.0) -> bytes:
        return self.transact([(command, body)], extra_s)[0]

    def _check_page(self, body: bytes, page: int) -> bytes:
        if struct.unpack_from("<H", body)[0] != page:
            self.device_errors += 1
            raise BoardError(f"Page {page}", "the board answered for another one", "Report this: it should be impossible")
        return body

    # --- the window -------------------------------------------------------------------------------------------------------------

    def transact(self, requests: Sequence[Request], extra_s: float = 0.0) -> list[bytes]:
        """Send requests and return the bodies of their replies, in order.

        Any exception, Ctrl-C too, ends the session: a number that may have been executed is never used again.

        Args:
            requests: command and body of each.
            extra_s: how much longer a reply may take.
        """
        board = self.board
        try:
            replies = self._exchange(requests, board.window, extra_s)
        except BaseException:
            self._token = 0
            raise
        return [self._check_reply(reply, *request, board.version) for reply, request in zip(replies, requests, strict=True)]

    def _exchange(self, requests: Sequence[Request], window: int, extra_s: float) -> list[_Reply]:
        first, total = self._next, len(requests)
        frames: list[bytes | None] = [None] * total
        replies: dict[int, _Reply] = {}
        base = sent = silences = 0
        rewound = False
        while base < total:
            while sent < min(total, base + window):
                self._send_request(first + sent, requests[sent], frames, sent)
                sent += 1
            reply = self._receive(self._timeout_s + extra_s)
            if reply is None:
                silences += 1
                self.counters.silences += 1
                if silences > self._retries:
                    self._end_session(f"no answer after {silences} attempts")
                sent, rewound = base, True
                continue
            if reply.token != self._token:
                self.counters.unexpected += 1
                continue
            index = reply.number - first
            if reply.status == Status.BAD_SESSION:
                self._end_session("the board knows nothing of this session: it was reset, or another program speaks to it")
            if reply.status == Status.GAP and len(reply.body) == 4:
                self.counters.gaps += 1
                (expected,) = struct.unpack("<I", reply.body)
                if not rewound and expected >= first + base and 0 <= index < total:
                    sent, rewound = base, True
                continue
            if not base <= index < total or index in replies or reply.command != requests[index][0] | 0x80:
                self.counters.unexpected += 1
                continue
            replies[index] = reply
            silences, rewound = 0, False
            while base in replies:
                base += 1
            sent = max(sent, base)
        self._next = first + total
        return [replies[number] for number in range(total)]

    def _send_request(self, number: int, request: Request, frames: list[bytes | None], index: int) -> None:
        frame = frames[index]
        if frame is None:
            frame = frames[index] = encode(struct.pack("<BII", request[0], self._token, number) + request[1])
        else:
            self.counters.resent += 1
        self.counters.frames_sent += 1
        self.transport.write(frame)

    def _check_reply(self, reply: _Reply, command: Command, request: bytes, version: int) -> bytes:
        if reply.status == Status.OK and len(reply.body) in reply_lengths(command, request, version):
            return reply.body
        if reply.status == Status.OK:
            status = f"with {len(reply.body)} bytes"
        else:
            status = Status(reply.status).name if reply.status in list(Status) else f"status {reply.status}"
        if reply.status == Status.VOLTAGE_REFUSED:
            raise VoltageRefused(
                "A pulse", "the firmware refused the voltage", "Choose one from its minimum to nominal, never above"
            )
        self.device_errors += 1
        raise BoardError(f"Command {command.name}", f"the board answered {status}", "Check addresses and versions")

    def _end_session(self, found: str) -> None:
        self._token = 0
        raise LinkError("Talking to the board", found, "The pass was not counted; check cable and supply, then repeat it")

    def _send(self, content: bytes) -> None:
        self.counters.frames_sent += 1
        self.transport.write(encode(content))

    def _receive(self, timeout_s: float) -> _Reply | None:
        while not self._waiting:
            data = self.transport.read(timeout_s)
            if not data:
                return None
            self._waiting = self._decoder.feed(data)
            self.counters.frames_damaged = self._decoder.damaged
        content = self._waiting.pop(0)
        self.counters.frames_received += 1
        if len(content) < 10:
            return _Reply(0, 0, 0, 0, b"")
        command, token, number, status = struct.unpack_from("<BIIB", content)
        return _Reply(command, token, number, status, content[10:])
