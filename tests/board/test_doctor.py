"""`weakcell doctor`, and finding a port: one is used; several or none is an error that names them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import pytest
from typer.testing import CliRunner

from weakcell.host.board import doctor
from weakcell.host.board.errors import BoardError
from weakcell.host.board.link.ports import find_port, list_usb_ports, open_port
from weakcell.host.board.link.reconnecting import ReconnectingTransport
from weakcell.host.cli import app

pytest.importorskip("serial", reason="pip install weakcell[board]")
Plug = Callable[..., None]


@dataclass(frozen=True)
class Port:
    device: str
    vid: int | None
    description: str = "USB-Serial"
    pid: int | None = None
    serial_number: str | None = None


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Plug:
    """Make these ports the only ones of the system."""

    def plugged(*ports: Port) -> None:
        monkeypatch.setattr(import_module("serial.tools.list_ports"), "comports", lambda: list(ports))

    return plugged


def test_the_only_usb_port_is_taken(plug: Plug) -> None:
    plug(Port("/dev/ttyS0", None), Port("/dev/ttyUSB3", 0x10C4), Port("/dev/ttyS1", None))
    assert find_port() == "/dev/ttyUSB3"


def test_two_candidates_are_refused_and_both_named(plug: Plug) -> None:
    plug(Port("/dev/ttyUSB1", 0x10C4), Port("/dev/ttyACM0", 0x2E8A, pid=0x000C))
    with pytest.raises(BoardError, match="/dev/ttyACM0, /dev/ttyUSB1") as refused:
        find_port()
    assert "--port /dev/ttyACM0" in str(refused.value)
    done = CliRunner().invoke(app, ["board", "info"])
    assert (done.exit_code, "/dev/ttyUSB1" in done.output) == (8, True)


def test_the_picos_own_usb_is_no_adapter(plug: Plug) -> None:
    """Products of Raspberry Pi's vendor id: a Pico's own USB (000A) and the Debug Probe (000C)."""
    own = Port("/dev/ttyACM0", 0x2E8A, pid=0x000A)
    plug(own)
    with pytest.raises(BoardError, match="Pico's own USB"):
        find_port()
    (finding,) = doctor.check_ports()
    assert "own USB" in finding.found
    plug(own, Port("/dev/ttyACM1", 0x2E8A, pid=0x000C))
    assert find_port() == "/dev/ttyACM1"
    listed = CliRunner().invoke(app, ["board", "list", "--json"])
    events = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [event["where"] for event in events if event["event"] == "port"] == ["/dev/ttyACM0", "/dev/ttyACM1"]
    assert "BOOTSEL" in events[0]["next_step"]


def test_a_board_on_its_own_usb_is_found_before_adapters_and_by_its_number(plug: Plug, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_serial(name: str, **_: object) -> object:
        opened.append(name)
        return import_module("serial").serial_for_url("loop://", do_not_open=True)

    board = Port("/dev/ttyACM4", 0x2E8A, pid=0x0009, serial_number="WC00112233445566EF")
    plug(Port("/dev/ttyUSB0", 0x10C4), Port("/dev/ttyACM0", 0x2E8A, pid=0x0009, serial_number="E66118604B"), board)
    assert find_port() == "/dev/ttyACM4"
    monkeypatch.setattr("weakcell.host.board.link.ports.SerialTransport", open_serial)
    for name in ("auto", "/dev/ttyACM4", "WC00112233445566EF"):
        assert isinstance(open_port(name), ReconnectingTransport)
    assert opened == ["/dev/ttyACM4"] * 3
    with pytest.raises(BoardError, match="not on USB"):
        open_port("WC00112233445566EE")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(13, "Permission denied"), ("usermod -aG", "udev", "uaccess")),
        (FileNotFoundError(2, "No such file"), ("/dev/ttyUSB3",)),
        (OSError(16, "Device or resource busy"), ("another program",)),
        (OSError(5, "Input/output error"), ("cable",)),
    ],
)
def test_errors_of_ports_name_the_next_step(
    plug: Plug, monkeypatch: pytest.MonkeyPatch, error: OSError, told: tuple[str, ...]
) -> None:
    plug(Port("/dev/ttyUSB3", 0x10C4))
    monkeypatch.setattr(sys, "platform", "linux")

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(import_module("serial"), "serial_for_url", refuse)
    with pytest.raises(BoardError) as refused:
        open_port("/dev/ttyUSB9")
    assert all(words in str(refused.value) for words in told), str(refused.value)


def test_no_port_is_reported(plug: Plug) -> None:
    plug(Port("/dev/ttyS0", None))
    with pytest.raises(BoardError, match="there is none"):
        find_port()
    assert list_usb_ports() == []
    (finding,) = doctor.check_ports()
    assert (finding.state, "virtual:rp2350" in finding.do) == ("missing", True)


def test_a_missing_package_is_reported_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.EXTRAS, "board", (("pyserial", "no-such-package"), "talking to a board"))
    finding = doctor.check_packages("board")
    assert (finding.state, finding.do) == ("missing", "pip install 'weakcell[board]'")
    assert "no-such-package" in finding.found


def test_a_port_where_nothing_answers_says_what_to_check(plug: Plug) -> None:
    plug(Port("/dev/no-such-port", 1))
    (finding,) = doctor.check_ports()
    assert finding.state == "silent"
    assert "no-such-port" in finding.what


def test_all_checks_run(plug: Plug) -> None:
    pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
    plug()
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0, done.output
    assert "virtual board: rp2350, 512 KiB, 0.55 to 1.10 V" in done.output
    events = [json.loads(line) for line in CliRunner().invoke(app, ["doctor", "--json"]).stdout.splitlines()]
    assert {event["state"] for event in events} <= {"ok", "missing", "silent"}
    assert all(event["do"] for event in events if event["state"] != "ok")
