"""Supplies: commanded and measured voltage, and nominal voltage however a run ends."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tests.board.clock import Clock
from weakcell.host.board.characterization.bench_supply import HostDrivenSupply, make_manual_supply, open_scpi_supply
from weakcell.host.board.characterization.dump import Dump, open_dump
from weakcell.host.board.characterization.patterns import parse_contents
from weakcell.host.board.characterization.points import Plan, make_plan
from weakcell.host.board.characterization.rig import CharacterizationRig, characterize
from weakcell.host.board.characterization.supply import OnChipSupply, Supply, nominal_on_exit
from weakcell.host.board.errors import BoardError, VoltageRefused
from weakcell.host.board.link.link import Link
from weakcell.host.board.virtual.virtual_board import VirtualBoard
from weakcell.memmodels.address import popcount

pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")


class FakeSupply:
    """A SCPI supply on a TCP port that feeds the core of a virtual board. offset: error of its meter, in V."""

    def __init__(self, board: VirtualBoard, clock: Clock) -> None:
        self.board, self.volts, self.offset, self.clock = board, 1.10, 0.0, clock
        board.drive(self.volts)
        self.commanded: list[float] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def resource(self) -> str:
        return f"TCPIP0::127.0.0.1::{self.server.getsockname()[1]}::SOCKET"

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.server.accept()
                threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, client.makefile("rw", newline="\n") as lines, suppress(OSError):
            for line in lines:
                said = line.strip()
                if said.startswith("VOLT "):
                    self._set(float(said.removeprefix("VOLT ")))
                elif said == "VOLT?":
                    lines.write(f"{self.volts:.3f}\n")
                elif said == "MEAS:VOLT?":
                    lines.write(f"{self.volts + (self.offset if self.volts < 1.0 else 0.0):.4f}\n")
                lines.flush()

    def _set(self, volts: float) -> None:
        self.volts = volts
        self.commanded.append(volts)
        self.board.drive(volts)

    def open(self) -> HostDrivenSupply:
        return self.clock.drive(open_scpi_supply(self.resource, 1.10))


def weak(board: VirtualBoard, volts: float) -> None:
    """Flip more cells the lower the voltage is."""
    cells = np.random.default_rng(4).choice(8 * 256 * 8, 500, replace=False)[: round((1.1 - volts) * 200)]
    np.bitwise_xor.at(board.arena, cells // 64, np.uint64(1) << (cells % 64).astype(np.uint64))


@pytest.fixture
def fake() -> Iterator[FakeSupply]:
    pytest.importorskip("pyvisa", reason="pip install weakcell[supply]")
    clock = Clock()
    made = FakeSupply(VirtualBoard("rp2350", weak, "flash", clock=clock), clock)
    yield made
    made.server.close()


def prepared(
    link: Link, supply: Supply, folder: Path, dwells: tuple[float, ...] = (0.002,)
) -> tuple[CharacterizationRig, Plan, Dump]:
    plan = make_plan("retention", voltages=(0.62, 0.57), dwells=dwells, patterns=("ones",), repeats=2, pages=8, nominal=1.10)
    contents = {"ones": parse_contents("ones", 8)}
    run = {"identity": {"chip": "rp2350", "memory": None, "virtual": True, "supply": supply.name}, "plan": vars(plan)}
    return (
        CharacterizationRig(link, supply, contents),
        plan,
        open_dump(folder / "run", run, {"ones": contents["ones"].words(0, 8)}, False),
    )


def test_a_bench_supply_lowers_measures_and_restores(fake: FakeSupply, tmp_path: Path) -> None:
    rig, plan, dump = prepared(Link(fake.board), fake.open(), tmp_path)
    records = characterize(rig, plan, dump)
    assert fake.commanded == [1.10, 1.10, *[0.62, 1.10] * 2, *[0.57, 1.10] * 2]
    assert fake.board.voltages == [pytest.approx(volts) for volts in (0.62, 0.62, 0.57, 0.57)], "only the supply lowered it"
    assert fake.board.resets == 0
    shot = records[2].shots[0]
    assert (shot.commanded, shot.register, shot.measured) == (0.57, None, pytest.approx(0.57))
    assert shot.dwell_s == pytest.approx(0.002)
    flips = [popcount(record.errors[0]) for record in records if record.errors is not None]
    assert flips == [0, 96, 106]


def test_a_supply_that_claims_what_it_does_not_give_stops_the_run(fake: FakeSupply, tmp_path: Path) -> None:
    rig, plan, dump = prepared(Link(fake.board), fake.open(), tmp_path)
    fake.offset = 0.10
    with pytest.raises(VoltageRefused, match=r"0\.72 V were measured"):
        characterize(rig, plan, dump)
    assert [str(record.outcome) for record in dump.records()] == ["ok", "voltage refused or not confirmed"]
    assert fake.volts == 1.10


@pytest.mark.parametrize("ending", [KeyboardInterrupt, BoardError, SystemExit])
def test_nominal_voltage_is_restored_whatever_ends_the_work(fake: FakeSupply, ending: type[BaseException]) -> None:
    link, supply = Link(fake.board), fake.open()
    error = ending("asked", "found", "do") if ending is BoardError else ending()

    def work() -> None:
        with nominal_on_exit(supply, link):
            supply.low = True
            supply.knob.set(0.6)
            raise error

    with pytest.raises(ending):
        work()
    assert fake.commanded == [0.6, 1.10]
    assert fake.volts == 1.10


def test_ctrl_c_while_the_voltage_is_low(fake: FakeSupply, tmp_path: Path) -> None:
    supply, sleep = fake.open(), fake.clock.sleep
    supply.sleep = lambda seconds: threading.Event().wait(30) if seconds == 3.0 else sleep(seconds)  # type: ignore[assignment,func-returns-value]
    rig, slow, dump = prepared(Link(fake.board), supply, tmp_path, dwells=(0.001, 3.0))

    def interrupt() -> None:
        while fake.volts > 1.0 or len(fake.commanded) < 11:
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        characterize(rig, slow, dump)
    assert fake.volts == 1.10
    assert len(dump.records()) == 3


def test_a_supply_is_never_set_above_nominal_or_used_from_elsewhere(fake: FakeSupply) -> None:
    link, supply = Link(fake.board), fake.open()
    for volts in (1.15, 0.1):
        with pytest.raises(VoltageRefused, match="never above nominal"):
            supply.lower(link, volts, 0.001)
    assert fake.commanded == []
    fake.volts = 3.3
    with pytest.raises(VoltageRefused, match="Set nominal first"):
        open_scpi_supply(fake.resource, 1.10)
    assert fake.commanded == []


SIMULATED = """
spec: "1.1"
devices:
  supply:
    eom: {"TCPIP SOCKET": {q: "\\n", r: "\\n"}}
    properties:
      voltage:
        {default: 1.100, getter: {q: "VOLT?", r: "{:.3f}"}, setter: {q: "VOLT {:.3f}"}, specs: {min: 0.5, max: 5, type: float}}
      measured: {default: 1.100, getter: {q: "MEAS:VOLT?", r: "{:.4f}"}, specs: {type: float}}
resources:
  "TCPIP0::supply::5025::SOCKET": {device: supply}
"""


def test_through_pyvisa_sim_a_stuck_output_and_a_setting_out_of_range_are_caught(tmp_path: Path) -> None:
    pytest.importorskip("pyvisa_sim", reason="pip install weakcell[test]")
    file = tmp_path / "rig.yaml"
    file.write_text(SIMULATED)
    clock = Clock()
    board = VirtualBoard("rp2350", image="flash", clock=clock)
    board.drive(1.10)
    link = Link(board)
    supply = open_scpi_supply("TCPIP0::supply::5025::SOCKET", 1.10, f"{file}@sim")
    with pytest.raises(VoltageRefused, match=r"1\.1 V were measured"):
        clock.drive(supply).lower(link, 0.7, 0.001)
    assert supply.knob.instrument.query("VOLT?") == "1.100"  # type: ignore[attr-defined]
    with pytest.raises(BoardError, match="the supply"):
        supply.knob.set(0.3)
    with pytest.raises(BoardError, match="Talking to the supply"):
        open_scpi_supply("TCPIP0::nobody::5025::SOCKET", 1.10, f"{file}@sim")


def test_a_person_is_asked_and_the_meter_reading_is_recorded(tmp_path: Path) -> None:
    asked, clock = [], Clock()
    board = VirtualBoard("rp2350", image="flash", clock=clock)
    board.drive(1.10)
    answers = iter(["0.63", "", "", "", "what?", "", "", "", "0.80", "1.10"])

    def ask(text: str) -> str:
        asked.append(text)
        return next(answers)

    link = Link(board)
    supply = clock.drive(make_manual_supply(1.10, ask))
    assert supply.lower(link, 0.62, 0.001).measured == pytest.approx(0.63)
    assert supply.lower(link, 0.62, 0.001).measured is None
    assert [text[18:23] for text in asked] == ["0.620", "1.100", "0.620", "1.100"]
    assert supply.lower(link, 0.62, 0.001).measured is None
    assert len(asked) == 7
    assert supply.lower(link, 0.62, 0.001).measured is None
    assert [text[18:23] for text in asked[7:]] == ["0.620", "1.100", "1.100"], "asked again: the meter showed 0.80 V"
    assert not supply.low


def test_a_person_who_has_left_is_an_error(tmp_path: Path) -> None:
    def ask(text: str) -> str:
        raise EOFError

    with pytest.raises(BoardError, match="nobody answered"):
        make_manual_supply(1.10, ask)._set(0.9)


def test_the_chip_says_what_its_regulator_is_set_to() -> None:
    board = VirtualBoard("rp2040")
    link = Link(board)
    supply = OnChipSupply()
    assert supply.lower(link, 0.85, 0.001).register == pytest.approx(0.85)
    board._code = 6
    supply.restore(link)
    assert link.info().regulator_code == link.board.nominal_code
    assert isinstance(make_manual_supply(1.1), HostDrivenSupply)
