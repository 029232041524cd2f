"""Runs that nobody watches: power cycles, attempts, their log, and a temperature that drifts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.board.unattended import SimulatedHours, count_wrong, flip_weak_cells, read_log, run_unattended
from weakcell.host.board.characterization.points import Outcome
from weakcell.host.board.characterization.power_cycle import open_power_cycle
from weakcell.host.board.errors import BoardError
from weakcell.host.board.link.transport import FunctionTransport, SerialTransport
from weakcell.host.board.readbacks.artefacts import find_artefacts
from weakcell.host.board.readbacks.loading import load_run
from weakcell.host.board.virtual.faults import Misbehaviour
from weakcell.host.board.virtual.virtual_board import VirtualBoard
from weakcell.memmodels.errors import UsageError

pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
FAILING = Misbehaviour(power_loss=0.1, lock_up=0.1)


def test_a_run_goes_on_after_losses_of_power_and_hangs_that_no_watchdog_ends(tmp_path: Path) -> None:
    records, (dump,), line = run_unattended(tmp_path, 0.01, FAILING)
    assert (len(records), count_wrong(records)) == (42, 0)
    assert {record.outcome for record in records} <= {Outcome.OK, Outcome.FLIPS, Outcome.RESET}
    attempts = read_log(dump)
    assert len(attempts) == sum(len(record.failures) + record.outcome.has_counts for record in records)
    cycled = [each for each in attempts if each["power_cycles"]]
    assert 0 < len(cycled) < len([each for each in attempts if each["outcome"] == "reset"])
    assert all(each["outcome"] == "reset" and "power cycle" in each["message"] for each in cycled)
    assert line.board.resets > len(cycled)


def test_without_a_power_cycle_the_run_ends_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.board.unattended.open_power_cycle", lambda text, transport: None)
    with pytest.raises(BoardError, match="fell silent and did not come back"):
        run_unattended(tmp_path, 0.01, FAILING)


def test_a_drift_of_the_temperature_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, (steady,), _ = run_unattended(tmp_path / "steady", 0.01, Misbehaviour())
    assert not find_artefacts(load_run(steady))
    read = SimulatedHours.read

    def warm(line: SimulatedHours, timeout_s: float) -> bytes:
        answer = read(line, timeout_s)
        line.board.machine.celsius = 25.0 + line.seconds / 20
        return answer

    monkeypatch.setattr(SimulatedHours, "read", warm)
    _, (drifting,), line = run_unattended(tmp_path / "drifting", 0.01, Misbehaviour())
    (noticed,) = find_artefacts(load_run(drifting))
    assert line.board.machine.celsius > 30
    assert noticed.kind == "temperature drift"
    assert "at 25 °C at 1.1 V" in noticed.text
    assert noticed.cells is None


def test_a_hub_is_switched_by_uhubctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = FunctionTransport(lambda data: b"")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BoardError, match="not installed"):
        open_power_cycle("uhubctl:1-1.3:2", board)
    program = tmp_path / "uhubctl"
    program.write_text(f"#!/bin/sh\necho $* > {tmp_path}/asked\n")
    program.chmod(0o755)
    cycle = open_power_cycle("uhubctl:1-1.3:2", board)
    cycle.cycle()
    assert (tmp_path / "asked").read_text() == "-l 1-1.3 -p 2 -a cycle -d 2\n"
    program.write_text("#!/bin/sh\necho No compatible devices detected >&2\nexit 1\n")
    with pytest.raises(BoardError, match="No compatible devices"):
        cycle.cycle()


def test_the_lines_of_an_adapter_are_let_go_and_pulled_low(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("serial", reason="pip install weakcell[board]")
    adapter = SerialTransport("loop://")
    cycle = open_power_cycle("dtr", adapter)
    assert (adapter._port.dtr, adapter._port.rts) == (False, False)
    seen: list[bool] = []
    monkeypatch.setattr("weakcell.host.board.link.transport.time.sleep", lambda seconds: seen.append(adapter._port.dtr))
    cycle.cycle()
    assert (seen, adapter._port.dtr) == ([True], False)
    assert open_power_cycle("rts:loop://", adapter).name == "RUN pin by RTS"


@pytest.mark.parametrize("text", ["dtr:", "power", "uhubctl:", "uhubctl:1-1", "rts"])
def test_what_is_no_power_cycle_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--power-cycle"):
        open_power_cycle(text, FunctionTransport(lambda data: b""))


def test_a_virtual_board_locks_up_until_run_is_pressed() -> None:
    board = VirtualBoard("rp2350", flip_weak_cells, "flash", misbehaviour=Misbehaviour(lock_up=1.0))
    board._set_code(5)
    assert [board.read(0.1) for _ in range(8)] == [b""] * 8
    assert board.resets == 0
    board.pull("rts", 0.1)
    assert (board.resets, board.machine.stuck) == (1, False)
