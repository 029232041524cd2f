"""USB of the flash images: descriptors, enumeration, requests, a bad bus, and the return after every low voltage.

The specifications are the oracle: `usb_descriptors.py` parses by their tables, and the virtual host keeps their rules.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import cast

import pytest
from typer.testing import CliRunner

from tests.board.damage import connect_bad_bus, transfer_under_noise
from tests.board.native import NativeUsbBoard, compiler
from tests.board.usb_descriptors import check_configuration, check_device, check_serial_port
from weakcell.host.board.errors import BoardError, LinkError
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.ports import open_port
from weakcell.host.board.link.protocol import Capability, Command, Pattern
from weakcell.host.board.link.reconnecting import ReconnectingTransport
from weakcell.host.board.link.transport import Transport
from weakcell.host.board.virtual.usb import Handshake
from weakcell.host.board.virtual.usb_host import UsbError
from weakcell.host.board.virtual.usb_port import UsbCable, connect_usb
from weakcell.host.board.virtual.virtual_board import VirtualBoard
from weakcell.host.cli import app

pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
GET_STATUS, CLEAR_FEATURE, SET_FEATURE, GET_DESCRIPTOR, GET_CONFIGURATION, SET_CONFIGURATION = 0, 1, 3, 6, 8, 9
GET_INTERFACE, SET_INTERFACE, SET_LINE_CODING, GET_LINE_CODING, SET_LINE_STATE, SEND_BREAK = 10, 11, 0x20, 0x21, 0x22, 0x23


def plug_in(chip: str, loss: float = 0.0, seed: int = 0) -> UsbCable:
    cable = UsbCable(VirtualBoard(chip, image="flash", seed=seed), loss, seed)
    cable.open()
    return cable


def test_the_descriptors_are_those_of_a_serial_port(chip: str) -> None:
    cable = plug_in(chip, seed=7)
    identity = cable.host.identity
    assert identity is not None
    vendor, product, strings = check_device(identity.device)
    assert (vendor, strings) == (0x2E8A, (1, 2, 3))
    assert product == {"rp2040": 0x000A, "rp2350": 0x0009}[chip]
    assert check_serial_port(check_configuration(identity.configuration)) == (0x82, 0x02)
    assert (identity.maker, identity.product) == ("Weakcell", f"Weakcell {chip.upper()}")
    assert identity.serial == f"WC{cable.board.machine.serial:016X}"
    assert cable.host.stalls == 0
    assert cable.board.machine.hazards == []


def test_boards_differ_in_their_serial_numbers(chip: str) -> None:
    identities = [plug_in(chip, seed=seed).host.identity for seed in range(3)]
    assert len({identity.serial for identity in identities if identity}) == 3


def test_requests_of_chapter_9_and_of_the_class(chip: str) -> None:
    cable = plug_in(chip)
    coding = struct.pack("<IBBB", 115200, 2, 1, 7)
    assert cable.control(0x80, GET_STATUS, 0, 0, length=2) == b"\0\0"
    assert cable.control(0x81, GET_STATUS, 0, 1, length=2) == b"\0\0"
    assert cable.control(0x80, GET_CONFIGURATION, 0, 0, length=1) == b"\1"
    assert cable.control(0x81, GET_INTERFACE, 0, 1, length=1) == b"\0"
    cable.control(0x01, SET_INTERFACE, 0, 1)
    assert cable.control(0xA1, GET_LINE_CODING, 0, 0, length=7) == struct.pack("<IBBB", 921600, 0, 0, 8)
    cable.control(0x21, SET_LINE_CODING, 0, 0, coding)
    assert cable.control(0xA1, GET_LINE_CODING, 0, 0, length=7) == coding
    for state in range(4):
        cable.control(0x21, SET_LINE_STATE, state, 0)
    cable.control(0x21, SEND_BREAK, 100, 0)
    whole = cable.control(0x80, GET_DESCRIPTOR, 2 << 8, 0, length=255)
    for length in (1, 8, 9, 63, 64, 65, 75):  # never more than was asked for
        assert cable.control(0x80, GET_DESCRIPTOR, 2 << 8, 0, length=length) == whole[:length]


@pytest.mark.parametrize(
    "request_",
    [
        (0x80, GET_DESCRIPTOR, 6 << 8, 0, b"", 10),  # a device qualifier: full speed only
        (0x80, GET_DESCRIPTOR, 3 << 8 | 9, 0x409, b"", 255),
        (0x00, 7, 1 << 8, 0, b"\0" * 18, 0),  # SET_DESCRIPTOR
        (0x00, SET_CONFIGURATION, 2, 0, b"", 0),
        (0x00, SET_FEATURE, 1, 0, b"", 0),  # remote wake-up
        (0x01, SET_INTERFACE, 1, 1, b"", 0),
        (0x02, SET_FEATURE, 0, 0x83, b"", 0),
        (0x21, SET_LINE_CODING, 0, 0, b"\0" * 8, 0),
        (0x21, 0x00, 0, 0, b"\0", 0),
        (0xC0, 1, 0, 0, b"", 4),
    ],
)
def test_unknown_requests_stall_and_the_next_one_works(request_: tuple[int, int, int, int, bytes, int]) -> None:
    cable = plug_in("rp2350")
    kind, number, value, index, data, length = request_
    with pytest.raises(UsbError, match="stalled"):
        cable.control(kind, number, value, index, data, length)
    assert cable.control(0x80, GET_CONFIGURATION, 0, 0, length=1) == b"\1"
    assert Link(cable.open()).info().regulator_code == 11


@pytest.mark.parametrize("endpoint", [0x82, 0x02])
def test_a_halted_endpoint_stalls_until_it_is_cleared_and_starts_with_data_0(chip: str, endpoint: int) -> None:
    cable = plug_in(chip)
    controller, address = cable.board.machine.usb, 5
    Link(cable.open()).info()
    cable.control(0x02, SET_FEATURE, 0, endpoint)
    assert cable.control(0x82, GET_STATUS, 0, endpoint, length=2) == b"\1\0"
    token = controller.token_in(address, 2) if endpoint & 0x80 else controller.token_out(address, 2, 0, b"x")
    assert token.kind == "stall"
    cable.control(0x02, CLEAR_FEATURE, 0, endpoint)
    assert cable.control(0x82, GET_STATUS, 0, endpoint, length=2) == b"\0\0"
    if not endpoint & 0x80:
        before = dict(controller.registers)
        assert controller.token_out(address, 2, 0, b"\0").kind == "ack"
        assert not controller.registers.get(0x50, 0) & ~before.get(0x50, 0) & 1 << 31, "no sequence error: DATA0 was expected"
    cable.host.reset_bus()
    assert Link(cable.open()).info().regulator_code == 11


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_data_pass_a_bus_that_loses_packets(chip: str, loss: float) -> None:
    transport = connect_usb(VirtualBoard(chip, image="flash"), loss, seed=3)
    link = Link(transport)
    link.fill(0, 48, Pattern.RANDOM, 5)
    contents = link.read_pages(range(48))
    link.write_pages(range(48, 96), contents)
    assert link.compare(0, 48, Pattern.RANDOM, 5) == []
    assert link.page_crcs(0, 48) == link.page_crcs(48, 48)
    counters = link.counters
    assert (counters.frames_damaged, counters.silences, counters.resent, transport.reconnects) == (0, 0, 0, 0)


def test_the_pull_up_is_off_while_the_voltage_is_low_and_the_board_comes_back(chip: str) -> None:
    attached: list[bool] = []
    board = VirtualBoard(chip, lambda _board, _volts: attached.append(cable.board.machine.usb.attached), "flash")
    cable = UsbCable(board)
    port = cable.open()
    before = cable.host.identity
    Link(port).fill(0, 4, Pattern.ONES)
    link = Link(port, retries=1)
    with pytest.raises(LinkError, match="gone"):
        link.pulse(6, 1000)
    assert attached == [False]
    assert Link(cable.open()).info().pulses == 1
    assert (cable.host.identity, cable.host.generation, board.resets) == (before, 2, 0)


def test_every_experiment_answers_over_usb(chip: str) -> None:
    board = VirtualBoard(chip, image="flash")
    transport = connect_usb(board)
    link = Link(transport)
    link.fill(0, 8, Pattern.RANDOM, 1)
    done = [link.pulse(6, 1000), link.cpu_pulse(6, 1000)]
    for command, body in {
        Command.READ_LOW: b"\2\0",
        Command.CRCS_LOW: b"\0\0\4",
        Command.FILL_LOW: struct.pack("<HHBI", 0, 8, Pattern.RANDOM, 1),
    }.items():
        done.append(link.while_low(command, 6, 300, body)[0])
    if link.board.can(Capability.SLEEP):
        done.append(link.sleep(6, 2000))
    assert [pulse.pulses for pulse in done] == list(range(1, len(done) + 1)), "each was executed once"
    assert transport.reconnects == len(done)
    assert link.compare(0, 8, Pattern.RANDOM, 1) == []
    assert (board.machine.hazards, board.resets, link.counters.sessions) == ([], 0, 1)


def test_replies_go_where_the_request_came_from(chip: str) -> None:
    board = VirtualBoard(chip, image="flash")
    cable = UsbCable(board)
    port = cable.open()
    for _ in range(3):
        for transport in (port, board):  # each HELLO begins a session of its own
            link = Link(transport, retries=0)
            assert link.info().regulator_code == 11
            assert link.counters.frames_damaged == 0


def test_a_reset_of_the_bus_in_mid_transfer_costs_one_repetition(chip: str) -> None:
    cable = UsbCable(VirtualBoard(chip, image="flash"))
    look, seen = cable.board.machine.usb.on_look, [0]

    def interrupt() -> None:
        seen[0] += 1
        if seen[0] in (60, 400):
            cable.host.reset_bus()
        assert look is not None
        look()

    transport = reconnecting(cable)
    link = Link(transport)
    link.fill(0, 32, Pattern.RANDOM, 9)
    cable.board.machine.usb.on_look = interrupt
    assert b"".join(link.read_pages(range(32))) == cable.board.sram[: 32 * 256].tobytes()
    assert transport.reconnects == 2
    assert link.counters.sessions == 1


def reconnecting(cable: UsbCable) -> ReconnectingTransport:
    return ReconnectingTransport("a test's board", cable.open, pause=lambda _: None)


def test_a_suspended_bus_loses_nothing(chip: str) -> None:
    cable = plug_in(chip)
    link = Link(cable.open())
    link.fill(0, 8, Pattern.RANDOM, 2)
    cable.host.suspend(True)
    cable.board.read(0.0)
    cable.board.machine.pass_time(5_000_000)
    cable.board.read(0.0)
    cable.host.suspend(False)
    assert link.compare(0, 8, Pattern.RANDOM, 2) == []
    assert cable.host.generation == 1


def test_a_host_that_reads_nothing_costs_the_uart_no_answer(chip: str) -> None:
    board = VirtualBoard(chip, image="flash")
    cable = UsbCable(board)
    link = Link(cable.open())
    link.fill(0, 4, Pattern.ONES)
    cable.host.reads = False
    with pytest.raises(LinkError, match="no answer"):
        link.read_pages(range(4))
    assert Link(board).info().regulator_code == 11
    cable.host.reads = True
    assert link.compare(0, 4, Pattern.ONES) == []


def test_random_requests_do_no_harm(chip: str) -> None:
    cable, random = plug_in(chip), Random(1)
    for _ in range(150):
        kind, number = random.choice([0, 1, 2, 0x80, 0x81, 0x82, 0x21, 0xA1, 0xC0]), random.choice([*range(13), 0x20, 0x21, 0x22])
        if (kind, number) in ((0, 5), (0, SET_CONFIGURATION)):
            continue
        value, index, length = (random.choice([0, 1, 2, 0x82, 0x100, 0x200, 0x301, 0xFFFF]) for _ in range(3))
        data = b"" if kind & 0x80 else random.randbytes(min(length, 100))
        try:
            cable.control(kind, number, value, index, data, length if kind & 0x80 else 0)
        except UsbError:
            continue
    cable.host.reset_bus()
    assert Link(cable.open()).info().frames_oversize == 0
    assert cable.board.machine.hazards == []


def test_256_kb_take_nine_tenths_of_what_the_bus_carries_inwards(chip: str) -> None:
    """Counted on the bus: bytes of the pages over bytes that the device sent, and over the room in its packets."""
    cable = plug_in(chip)
    link, sent, packets = Link(cable.open()), [0], [0]
    token_in = cable.board.machine.usb.token_in

    def count(address: int, endpoint: int) -> Handshake:
        reply = token_in(address, endpoint)
        if reply.kind == "ack":
            sent[0] += len(reply.data)
            packets[0] += 1
        return reply

    cable.board.machine.usb.token_in = count  # type: ignore[method-assign]
    pages = 64
    link.read_pages(range(pages))
    assert pages * 256 / sent[0] >= 0.9
    assert pages * 256 / (64 * packets[0]) >= 0.8


def test_only_flash_images_have_usb(chip: str) -> None:
    cable = UsbCable(VirtualBoard(chip, image="ram"))
    with pytest.raises(BoardError, match="no device"):
        cable.open()


def test_characterize_over_usb_gives_what_it_gives_over_the_uart(tmp_path: Path) -> None:
    """The same cells, seeds and plan: every count is the same, although the board left the bus at every pulse."""
    results = []
    for port in ("virtual:rp2350-usb", "virtual:rp2350"):
        out = tmp_path / port.partition(":")[2]
        command = ["characterize", "--port", port, "--memory", "uniform:ber=2e-3,cells=invert,lifetime=die", "--kib", "4",
                   "--vdd", "0.9,0.8", "--repeats", "2", "--pattern", "random", "--out", str(out), "--json"]  # fmt: skip
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        events = [json.loads(line) for line in done.stdout.splitlines()]
        results.append([(event["vdd"], event["outcome"], event.get("flips")) for event in events if event["event"] == "point"])
    assert results[0] == results[1]
    assert len(results[0]) == 3


def test_board_info_over_usb(chip: str) -> None:
    done = CliRunner().invoke(app, ["board", "info", "--port", f"virtual:{chip}-usb"])
    assert done.exit_code == 0, done.output
    assert "the flash image of this version" in done.output


@dataclass
class System:
    """A computer's serial ports: the board gets another name every time it comes back."""

    cable: UsbCable

    def list_ports(self) -> list[SimpleNamespace]:
        self.cable.run()
        identity = self.cable.host.identity
        if identity is None:
            return []
        about = {"device": self.name, "description": identity.product, "serial_number": identity.serial}
        vendor, product, _ = check_device(identity.device)
        return [SimpleNamespace(vid=vendor, pid=product, **about)]

    @property
    def name(self) -> str:
        return f"/dev/ttyACM{self.cable.host.generation}"

    def open(self, name: str) -> Transport:
        if name != self.name:
            raise BoardError(f"Opening {name}", "it is not there", "Look again") from FileNotFoundError(2, "No such file")
        return self.cable.open()


def test_the_board_is_found_again_by_its_number_whatever_its_port_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    list_ports = pytest.importorskip("serial.tools.list_ports", reason="pip install weakcell[board]")
    system = System(UsbCable(VirtualBoard("rp2350", image="flash", seed=5)))
    monkeypatch.setattr(list_ports, "comports", system.list_ports)
    monkeypatch.setattr("weakcell.host.board.link.ports.SerialTransport", system.open)
    done = CliRunner().invoke(app, ["board", "list"])
    assert done.exit_code == 0, done.output
    assert "Pico 2 (rp2350)" in done.output
    assert "the flash image of this version" in done.output
    with Link(open_port("auto")) as link:
        names = []
        link.fill(0, 4, Pattern.ONES)
        for _ in range(3):
            link.pulse(6, 1000)
            names.append(system.name)
        assert link.compare(0, 4, Pattern.ONES) == []
        assert link.info().pulses == 3
    assert names == ["/dev/ttyACM2", "/dev/ttyACM3", "/dev/ttyACM4"]
    assert link.counters.sessions == 1


def test_a_status_packet_whose_handshake_was_lost_is_acknowledged_again(chip: str) -> None:
    """USB 2.0, 8.6.4: a host that missed an ACK repeats the packet, and the device acknowledges it again."""
    cable = plug_in(chip)
    cable.control(0x80, GET_STATUS, 0, 0, length=2)  # ends with an empty packet to the device
    assert cable.board.machine.usb.token_out(5, 0, 1, b"").kind == "ack"
    cable.board.read(0.0)
    assert cable.control(0x80, GET_CONFIGURATION, 0, 0, length=1) == b"\1"


def test_the_driver_compiled_for_this_machine_is_the_same_device(tmp_path: Path) -> None:
    """`damage --usb native` runs the driver's source behind the model of the controller, quicker than any emulated chip."""
    if compiler() is None:
        pytest.skip("no C compiler: install gcc, or pip install ziglang")
    native, chip = NativeUsbBoard(tmp_path), VirtualBoard("rp2350", image="flash")
    chip.machine.serial = 0x0123456789ABCDEF
    identities = []
    for board in (chip, native):
        cable = UsbCable(cast(VirtualBoard, board))
        cable.open()
        identities.append(cable.host.identity)
    assert identities[0] == identities[1] is not None
    outcome = transfer_under_noise(connect_bad_bus(native, 0.02, 1e-4, 1), 200)
    assert (outcome.right, outcome.wrong) == (outcome.transfers, 0)
    assert native.usb.hazards == []
