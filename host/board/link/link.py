"""Requests and replies over a transport that may damage, lose, repeat or delay anything.

Every request has a session token and a sequence number. The board executes a number once and in order, keeps its last four
replies, and answers a repeated request from those: a late duplicate can never overwrite what came after it. Up to four requests
are under way; what stays unanswered is sent again, and after too many silences the call ends with LinkError.
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
    RECORD_BYTES,
    VERSION,
    BoardInfo,
    Command,
    ConnectedBoard,
    Pulse,
    Status,
    reply_lengths,
)
from weakcell.host.board.link.transport import Transport

Request = tuple[Command, bytes]


@dataclass
class LinkCounters:
    """What happened to frames, not to memory: every one of these was repaired by sending again, or ended in a LinkError."""

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
    """How much longer an answer takes when the voltage is lowered first, s: reading while low is slow too."""
    return dwell_us / 1e6 + 1.5


class Link:
    """A session with a board. retries: silences in a row before giving up. timeout_s: of each."""

    def __init__(self, transport: Transport, timeout_s: float = 0.5, retries: int = 8, decoder: Decoder | None = None) -> None:
        self.counters = LinkCounters()
        self.device_errors = 0
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
        """Let go of the transport. The board is at nominal voltage: the firmware restores it before it answers a pulse."""
        self._token = 0
        self.transport.close()

    @property
    def board(self) -> ConnectedBoard:
        """What the board told about itself; the session is opened if there is none."""
        if self._board is None or self._token == 0:
            self._board = self.open()
        return self._board

    def open(self) -> ConnectedBoard:
        """Start a session: versions are compared, and requests of earlier sessions become void."""
        nonce = secrets.randbits(32)
        for _ in range(self._retries + 1):
            self._send(struct.pack("<BIIBI", Command.HELLO, 0, 0, VERSION, nonce))
            while (reply := self._receive(self._timeout_s)) is not None:
                if reply.command != Command.HELLO | 0x80:
                    continue
                if reply.status == Status.BAD_VERSION:
                    found = f"its firmware speaks version {reply.body[0] if reply.body else '?'}, this host {VERSION}"
                    raise BoardError("Opening the board", found, "Flash the image that comes with this version")
                if reply.status == Status.OK and len(reply.body) == 25 and struct.unpack_from("<I", reply.body, 1)[0] == nonce:
                    self._token, self._next = reply.token, 1
                    self.counters.sessions += 1
                    return ConnectedBoard.of(reply.body)
            self.counters.silences += 1
        raise LinkError(
            "Opening the board", "nothing answered", "Check port, wiring (TX to RX) and that the image runs on the board"
        )

    # --- commands ---------------------------------------------------------------------------------------------------------------

    def info(self) -> BoardInfo:
        """The board's registers and counters."""
        return BoardInfo.of(self._one(Command.INFO))

    def write_pages(self, pages: Sequence[int], contents: Sequence[bytes]) -> None:
        """Write whole pages."""
        self.transact([(Command.WRITE, struct.pack("<H", page) + data) for page, data in zip(pages, contents, strict=True)])

    def read_pages(self, pages: Sequence[int]) -> list[bytes]:
        """Read whole pages; the frame's CRC is computed after the bytes were read from SRAM."""
        replies = self.transact([(Command.READ, struct.pack("<H", page)) for page in pages])
        return [self._of_page(reply, page)[2:] for reply, page in zip(replies, pages, strict=True)]

    def page_crcs(self, first: int, count: int) -> list[int]:
        """The CRC-32 of each page."""
        starts = range(first, first + count, MAX_CRCS)
        counts = [min(MAX_CRCS, first + count - start) for start in starts]
        replies = self.transact([(Command.CRCS, struct.pack("<HB", start, n)) for start, n in zip(starts, counts, strict=True)])
        crcs: list[int] = []
        for reply, start, n in zip(replies, starts, counts, strict=True):
            crcs += struct.unpack(f"<{n}I", self._of_page(reply, start)[2:])
        return crcs

    def fill(self, first: int, count: int, pattern: int, seed: int = 0) -> None:
        """Let the board write a generated pattern into pages."""
        self._one(Command.FILL, struct.pack("<HHBI", first, count, pattern, seed))

    def compare(self, first: int, count: int, pattern: int, seed: int = 0) -> list[int]:
        """The cells (bits of the arena) that differ from a generated pattern, ascending; compared on the board."""
        cells: list[int] = []
        start = 0
        while True:
            total, listed = self.compare_once(first, count, pattern, seed, start)
            cells += listed
            if total == len(listed):
                return cells
            start = cells[-1] + 1

    def compare_once(self, first: int, count: int, pattern: int, seed: int = 0, start: int = 0) -> tuple[int, list[int]]:
        """How many cells from `start` on differ from a generated pattern, and the first of them, ascending."""
        body = self._one(Command.COMPARE, struct.pack("<HHBII", first, count, pattern, seed, start))
        return self.parse_flip_list(body, start)

    def parse_flip_list(self, body: bytes, start: int) -> tuple[int, list[int]]:
        """What COMPARE answers: how many cells differ from `start` on, and the first of them; BoardError if it is no list."""
        total, listed = struct.unpack_from("<IB", body)
        if len(body) == 5 + 4 * listed and (listed == min(total, MAX_FLIPS)):
            cells = list(struct.unpack_from(f"<{listed}I", body, 5))
            if all(a < b for a, b in itertools.pairwise([start - 1, *cells])):
                return total, cells
        self.device_errors += 1
        raise BoardError("A list of differing cells", "it is not one", "Report this: it should be impossible")

    def pulse(self, code: int, dwell_us: int) -> Pulse:
        """Lower the voltage, wait, restore it; VoltageRefused if the board refuses or its register does not confirm."""
        done = Pulse.of(self._one(Command.PULSE, struct.pack("<BI", code, dwell_us), _time_low(dwell_us)))
        return self._confirmed(done, code, dwell_us)

    def sleep(self, code: int, dwell_us: int) -> Pulse:
        """As `pulse`, with the core switched off while the voltage is low; only where the board can."""
        done = Pulse.of(self._one(Command.SLEEP, struct.pack("<BI", code, dwell_us), _time_low(dwell_us)))
        return self._confirmed(done, code, dwell_us)

    def while_low(self, command: Command, code: int, dwell_us: int, body: bytes) -> tuple[Pulse, bytes]:
        """Execute one of the `_LOW` commands: its work is done while the voltage is low. body: of the plain command.

        Returns what happened to the voltage, and the plain command's answer. VoltageRefused as for `pulse`.
        """
        reply = self._one(command, struct.pack("<BI", code, dwell_us) + body, _time_low(dwell_us))
        return self._confirmed(Pulse.of(reply[:RECORD_BYTES]), code, dwell_us), reply[RECORD_BYTES:]

    def _confirmed(self, done: Pulse, code: int, dwell_us: int) -> Pulse:
        asked = f"Code {code} for {dwell_us} us"
        if (done.code, done.low_code) != (code, code):
            raise VoltageRefused(
                asked, f"the regulator read back code {done.low_code} while low", "Nothing was counted; see PROTOCOL.md"
            )
        if done.after_code != self.board.nominal_code or not done.after_ok:
            raise VoltageRefused(
                asked, f"nominal was not confirmed (code {done.after_code}, ok {done.after_ok})", "Reset the board"
            )
        if done.dwell_us < dwell_us:
            raise VoltageRefused(asked, f"the board's timer saw {done.dwell_us} us", "Nothing was counted; check its clock")
        if not done.own:
            self.device_errors += 1
            raise BoardError(asked, "the firmware's own data changed while the voltage was low", "Nothing was counted; go higher")
        return done

    def _one(self, command: Command, body: bytes = b"", extra_s: float = 0.0) -> bytes:
        return self.transact([(command, body)], extra_s)[0]

    def _of_page(self, body: bytes, page: int) -> bytes:
        if struct.unpack_from("<H", body)[0] != page:
            self.device_errors += 1
            raise BoardError(f"Page {page}", "the board answered for another one", "Report this: it should be impossible")
        return body

    # --- the window -------------------------------------------------------------------------------------------------------------

    def transact(self, requests: Sequence[Request], extra_s: float = 0.0) -> list[bytes]:
        """The bodies of the replies to these requests, in order. extra_s: how much longer an answer may take.

        Whatever ends this early, Ctrl-C too, ends the session: numbers that may have been executed are never used again.
        """
        window = self.board.window
        try:
            replies = self._exchange(requests, window, extra_s)
        except BaseException:
            self._token = 0
            raise
        return [self._checked(reply, *request) for reply, request in zip(replies, requests, strict=True)]

    def _exchange(self, requests: Sequence[Request], window: int, extra_s: float) -> list[_Reply]:
        first, total = self._next, len(requests)
        frames: list[bytes | None] = [None] * total
        replies: dict[int, _Reply] = {}
        base = sent = silences = 0
        rewound = False
        while base < total:
            while sent < min(total, base + window):
                self._request(first + sent, requests[sent], frames, sent)
                sent += 1
            reply = self._receive(self._timeout_s + extra_s)
            if reply is None:
                silences += 1
                self.counters.silences += 1
                if silences > self._retries:
                    self._lose(f"no answer after {silences} attempts")
                sent, rewound = base, True
                continue
            if reply.token != self._token:
                self.counters.unexpected += 1
                continue
            index = reply.number - first
            if reply.status == Status.BAD_SESSION:
                self._lose("the board knows nothing of this session: it was reset, or another program speaks to it")
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

    def _request(self, number: int, request: Request, frames: list[bytes | None], index: int) -> None:
        frame = frames[index]
        if frame is None:
            frame = frames[index] = encode(struct.pack("<BII", request[0], self._token, number) + request[1])
        else:
            self.counters.resent += 1
        self.counters.frames_sent += 1
        self.transport.write(frame)

    def _checked(self, reply: _Reply, command: Command, request: bytes) -> bytes:
        if reply.status == Status.OK and len(reply.body) in reply_lengths(command, request):
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

    def _lose(self, found: str) -> None:
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
