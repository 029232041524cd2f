"""A served board answers every client, whatever the others do. The oracle is the protocol: each HELLO's nonce comes back."""

from __future__ import annotations

import resource
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from queue import Queue

import pytest
from typer.testing import CliRunner

from weakcell.host.board.link.frames import Decoder, encode
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import VERSION, Command, Pattern
from weakcell.host.board.link.transport import SerialTransport
from weakcell.host.board.virtual import serving
from weakcell.host.board.virtual.opening import open_virtual_board
from weakcell.host.board.virtual.serving import Endpoint, serve
from weakcell.host.cli import app

CLIENTS = 200


@pytest.fixture(scope="module")
def port() -> int:
    pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
    offers: Queue[Endpoint] = Queue()
    board = open_virtual_board("rp2350", "uniform:ber=1e-3")
    threading.Thread(target=serve, args=(board, 0, offers.put), daemon=True).start()
    return offers.get(timeout=20).port


@pytest.fixture
def clients(port: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(connect(port)) for _ in range(CLIENTS)]


def connect(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def hello(nonce: int) -> bytes:
    return encode(struct.pack("<BIIBI", Command.HELLO, 0, 0, VERSION, nonce))


def answer(client: socket.socket) -> bytes:
    """Return the next frame that a client gets."""
    decoder = Decoder()
    while True:
        data = client.recv(4096)
        assert data, "the server closed the connection"
        if contents := decoder.feed(data):
            return contents[0]


def nonce_of(content: bytes) -> int:
    assert content[0] == Command.HELLO | 0x80
    return int(struct.unpack_from("<I", content, 11)[0])


def test_200_clients_get_their_own_answers_though_one_sends_junk_and_one_half_a_frame(clients: list[socket.socket]) -> None:
    junk, half, *honest = clients
    stop = threading.Event()

    def send_junk() -> None:
        junk.setblocking(True)
        content = bytes(range(1, 256)) * 40 + b"\0junk\0" * 500
        while not stop.is_set():
            try:
                junk.sendall(content)
            except OSError:
                return

    sender = threading.Thread(target=send_junk, daemon=True)
    sender.start()
    half.sendall(hello(1)[:9])
    for number, client in enumerate(honest):  # all ask before anybody reads: in two pieces, with others' bytes between them
        client.sendall(hello(1000 + number)[:7])
    for number, client in enumerate(honest):
        client.sendall(hello(1000 + number)[7:])
    assert [nonce_of(answer(client)) for client in honest] == [1000 + number for number in range(len(honest))]
    half.sendall(hello(1)[9:])
    assert nonce_of(answer(half)) == 1
    stop.set()
    junk.shutdown(socket.SHUT_RDWR)
    sender.join(20)


def test_a_client_that_reads_nothing_is_sent_away_and_another_is_served(port: int) -> None:
    with connect(port) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises(ConnectionError):  # its answers fill every buffer
            deaf.sendall(hello(5) * 1_000_000)
    with Link(SerialTransport(f"socket://127.0.0.1:{port}"), timeout_s=10) as link:
        link.fill(0, 4, Pattern.ONES)
        assert link.compare(0, 4, Pattern.ONES) == []


def test_a_frame_of_any_length_is_dropped(port: int) -> None:
    with connect(port) as client:
        client.sendall(b"\0" + b"\1" * 5_000_000 + b"\0" + hello(77))
        assert nonce_of(answer(client)) == 77


def test_the_most_silent_client_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
    monkeypatch.setattr(serving, "MOST_CLIENTS", 3)
    offers: Queue[Endpoint] = Queue()
    threading.Thread(target=serve, args=(open_virtual_board("rp2040"), 0, offers.put), daemon=True).start()
    port = offers.get(timeout=20).port
    first, second, third = (connect(port) for _ in range(3))
    for number, client in enumerate((second, first, third)):
        client.sendall(hello(number))
        assert nonce_of(answer(client)) == number
    with connect(port) as newcomer:
        newcomer.sendall(hello(9))
        assert nonce_of(answer(newcomer)) == 9
        assert second.recv(1) == b""
        first.sendall(hello(8))
        assert nonce_of(answer(first)) == 8
    for client in (first, second, third):
        client.close()


def test_too_few_file_descriptors_end_nothing() -> None:
    """A server that may open 40 files gets 100 connections that stay open; the last of them is answered."""
    pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")

    def few_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))

    command = [sys.executable, "-m", "weakcell.host.cli", "board", "serve", "--virtual", "rp2040"]
    with ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=few_files))
        stack.callback(process.kill)
        assert process.stdout is not None
        port = int(process.stdout.readline().partition("127.0.0.1:")[2].split()[0])
        many = [stack.enter_context(connect(port)) for _ in range(100)]
        many[-1].sendall(hello(4))
        assert nonce_of(answer(many[-1])) == 4
        assert process.poll() is None


def test_another_address_needs_yes_and_a_port_in_use_is_said(port: int) -> None:
    refused = CliRunner().invoke(app, ["board", "serve", "--address", "0.0.0.0"])
    assert (refused.exit_code, "--yes" in refused.output) == (2, True)
    taken = CliRunner().invoke(app, ["board", "serve", "--tcp", str(port)])
    assert (taken.exit_code, str(port) in taken.output) == (8, True)
