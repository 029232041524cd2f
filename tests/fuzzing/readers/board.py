"""The board link: frames, a link whose board replies anything, the same over a socket, and the server of a virtual board.

An input of `link` and `socket` is the seed of a hostile board and of the calls on it. An input of `serve` is a list of what clients
do. Each client opens a connection, sends bytes, reads, waits or leaves.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzzing.engine import Reader
from weakcell.host.board.characterization.experiments import Experiment, ReportMode, Setting, run_experiment
from weakcell.host.board.errors import BoardError
from weakcell.host.board.link.frames import MAX_CONTENT, Decoder, encode
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import Command, Pattern, Status, reply_lengths
from weakcell.host.board.link.transport import FunctionTransport, SerialTransport, Transport
from weakcell.host.board.virtual.serving import Endpoint, serve

_HELD_MOST = 2 * MAX_CONTENT


def spoil(random: Random, data: bytes) -> bytes:
    """Damage a frame at random, or leave it."""
    kind = random.randrange(6)
    if kind == 0:
        return random.randbytes(random.randrange(400))
    if kind == 1:
        return data[: random.randrange(len(data) + 1)]
    if kind == 2:
        at = random.randrange(len(data))
        return data[:at] + random.randbytes(random.randrange(1, 9)) + data[at:]
    if kind == 3:
        changed = bytearray(data)
        changed[random.randrange(len(data))] = random.randrange(256)
        return bytes(changed)
    return data


# --- frames --------------------------------------------------------------------------------------------------------------------


def _frames(random: Random) -> bytes:
    parts = []
    for _ in range(random.randint(1, 6)):
        size = random.randrange(1, MAX_CONTENT + 1) if random.randrange(4) == 0 else random.randrange(1, 24)
        parts.append(spoil(random, encode(random.randbytes(size))))
    return b"".join(parts)


class _NoFrame(BoardError):
    """Nothing passed the CRC."""


def _read_frames(data: bytes, folder: Path) -> None:
    """Decode a stream in portions; each content must encode again to itself."""
    decoder, contents = Decoder(), []
    for start in range(0, len(data), 97):
        contents += decoder.feed(data[start : start + 97])
        assert len(decoder._pending) <= _HELD_MOST
    for content in contents:
        assert 0 < len(content) <= MAX_CONTENT
        assert Decoder().feed(encode(content)) == [content]
    if not contents:
        raise _NoFrame("Frames", "no frame is whole", "None")


# --- a hostile board -----------------------------------------------------------------------------------------------------------


def hostile(random: Random) -> Callable[[bytes], bytes]:
    """Return a board that replies with any status and any body, mostly under the right token and number."""
    asked = Decoder()

    def answer(data: bytes) -> bytes:
        out = b""
        for content in asked.feed(data):
            command, token, number = struct.unpack_from("<BII", content)
            if command == Command.HELLO and random.randrange(8):
                body = content[9:14] + struct.pack("<BIBIIBBI", 2, 0x3F, random.randrange(9), 0, 1 << 16, 11, 0, 0)
                out += encode(struct.pack("<BIIB", command | 0x80, 7, 0, Status.OK) + body)
                continue
            status = random.choice([Status.OK] * 60 + list(Status) + [99])
            right = random.choice(reply_lengths(Command(command), content[9:], 2))
            size = random.choice([right] * 9 + [0, 5, random.randrange(270)])
            body = random.randbytes(size) if random.randrange(2) else bytes(size)
            who = random.choice([token] * 30 + [1]), random.choice([number] * 30 + [number + 1])
            out += encode(struct.pack("<BIIB", (command | 0x80) ^ (random.randrange(60) == 0), *who, status) + body)
        return spoil(random, out) if out and random.randrange(20) == 0 else out

    return answer


def _call(link: Link, random: Random, calls: int) -> None:
    """Call anything on a hostile board; the last refusal, if no call returned."""
    requests: list[Callable[[], object]] = [
        lambda: link.info(),
        lambda: link.write_pages(range(5), [bytes(256)] * 5),
        lambda: link.read_pages(range(3)),
        lambda: link.page_crcs(0, 70),
        lambda: link.fill(0, 2, Pattern.ONES),
        lambda: link.compare(0, 2, Pattern.ONES),
        lambda: link.pulse(5, 10),
        lambda: link.sleep(5, 10),
        lambda: link.while_low(Command.READ_LOW, 5, 10, bytes(2)),
        lambda: run_experiment(link, Setting(random.choice(list(Experiment)), 5, 10), Pattern.ZEROS, 0, range(2),
                               random.choice(list(ReportMode))),
    ]  # fmt: skip
    returned, refusal = 0, None
    for _ in range(calls):
        try:
            random.choice(requests)()
            returned += 1
        except BoardError as error:
            refusal = error
    if refusal is not None and not returned:
        raise refusal


def _read_link(data: bytes, folder: Path) -> None:
    random = Random(data)
    _call(Link(FunctionTransport(hostile(random)), retries=2), random, 10)


def _seed(random: Random) -> bytes:
    return random.randbytes(8)


# --- over a socket -------------------------------------------------------------------------------------------------------------


def _read_socket(data: bytes, folder: Path) -> None:
    """Talk to a hostile board behind a TCP port, which may also close, be silent or send noise before it is asked."""
    random = Random(data)
    with socket.create_server(("127.0.0.1", 0)) as server:
        behaviour = random.choice(("answer", "answer", "answer", "answer", "close", "noise", "short"))
        thread = threading.Thread(target=_answer, args=(server, behaviour, Random(data)))
        thread.start()
        transport: Transport | None = None
        try:
            transport = SerialTransport(f"socket://127.0.0.1:{server.getsockname()[1]}")
            _call(Link(transport, retries=0, timeout_s=0.02), random, 3)
        finally:
            if transport is not None:
                transport.close()
            thread.join(10)


def _answer(server: socket.socket, behaviour: str, random: Random) -> None:
    client, _ = server.accept()
    board = hostile(random)
    with client, contextlib.suppress(OSError):
        client.settimeout(5)
        if behaviour == "noise":
            client.sendall(random.randbytes(random.choice((1, 1000, 20000))))
        while data := client.recv(4096):
            if behaviour == "close":
                return
            reply = board(data)
            client.sendall(reply[: len(reply) // 2] if behaviour == "short" else reply)


# --- the server ----------------------------------------------------------------------------------------------------------------


class _Board:
    """A board that answers every portion with its length, and sends more than it gets."""

    def __init__(self) -> None:
        self._waiting = b""

    def write(self, data: bytes) -> None:
        self._waiting += encode(struct.pack("<I", len(data))) * 3

    def read(self, timeout_s: float) -> bytes:
        data, self._waiting = self._waiting, b""
        return data

    def close(self) -> None:
        self._waiting = b""


@cache
def _server() -> Endpoint:
    """Start a server, which serves all inputs of this process."""
    ready, found = threading.Event(), list[Endpoint]()

    def note(endpoint: Endpoint) -> None:
        found.append(endpoint)
        ready.set()

    threading.Thread(target=serve, args=(_Board(), 0, note), daemon=True).start()
    assert ready.wait(30)
    return found[0]


_ACTS = ("open", "send", "send", "send", "junk", "read", "leave", "reset", "half")


def _acts(random: Random) -> bytes:
    acts: list[Any] = [
        [random.choice(_ACTS), random.randrange(6), random.choice((1, 9, 300, 70000))] for _ in range(random.randint(1, 12))
    ]
    return json.dumps(acts).encode()


def _read_serve(data: bytes, folder: Path) -> None:
    """Let clients do what the input says; afterwards, a well-behaved client must get an answer within 5 s."""
    endpoint, clients = _server(), dict[int, socket.socket]()
    with contextlib.ExitStack() as stack:
        for act, who, size in json.loads(data):
            client = clients.get(who)
            if client is None:
                client = clients[who] = stack.enter_context(socket.create_connection(("127.0.0.1", endpoint.port), 5))
                client.settimeout(0.0)
            with contextlib.suppress(OSError):
                if act == "send":
                    client.send(encode(bytes(min(size, MAX_CONTENT))))
                elif act == "junk":
                    client.send(bytes(range(1, 256)) * (size // 255 + 1))
                elif act == "read":
                    client.recv(size)
                elif act == "half":
                    client.shutdown(socket.SHUT_WR)
                elif act in ("leave", "reset"):
                    if act == "reset":
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.close()
                    clients.pop(who)
        with socket.create_connection(("127.0.0.1", endpoint.port), 5) as client:
            client.sendall(encode(b"\1"))
            assert select.select([client], [], [], 5.0)[0], "the server does not answer"
            assert client.recv(100), "the server hung up"


READERS = {
    reader.name: reader
    for reader in (
        Reader("frames", _frames, _read_frames, "no frame is whole"),
        Reader("link", _seed, _read_link, "^$", share=0.0, tests=30),
        Reader("socket", _seed, _read_socket, "^$", share=0.0, tests=5),
        Reader("serve", _acts, _read_serve, "^$", ".json", share=0.0, tests=30),
    )
}
