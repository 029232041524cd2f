"""`weakcell doctor`, and finding a port: one is used; several or none is an error that names them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import pytest
from typer.testing import CliRunner

from weakcell.host.board import doctor
from weakcell.host.board.errors import BoardError
from weakcell.host.board.link.ports import find_port, list_usb_ports
from weakcell.host.cli import app

pytest.importorskip("serial", reason="pip install weakcell[board]")
Plug = Callable[..., None]


@dataclass(frozen=True)
class Port:
    device: str
    vid: int | None
    description: str = "USB-Serial"


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
    plug(Port("/dev/ttyUSB1", 0x10C4), Port("/dev/ttyACM0", 0x2E8A))
    with pytest.raises(BoardError, match="/dev/ttyACM0, /dev/ttyUSB1") as refused:
        find_port()
    assert "--port /dev/ttyACM0" in str(refused.value)
    done = CliRunner().invoke(app, ["board", "info"])
    assert (done.exit_code, "/dev/ttyUSB1" in done.output) == (8, True)


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
