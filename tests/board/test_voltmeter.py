"""A voltmeter made of the chip: what was not reached is never ok, and what was reached is never called not reached.

The truth is the core voltage of the virtual board, which the host cannot read.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.board.lying_regulators import check_board, draw_faults
from weakcell.host.board.characterization.points import Outcome
from weakcell.host.board.characterization.supply import OnChipSupply
from weakcell.host.board.characterization.voltmeter import calibrate, see_voltage
from weakcell.host.board.errors import VoltageNotReached
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.meter import load_reading, take_reading
from weakcell.host.board.memory.board_memory import BoardMemory
from weakcell.host.board.virtual.rail import RailFaults
from weakcell.host.board.virtual.virtual_board import VirtualBoard
from weakcell.host.cli import app
from weakcell.memmodels.address import Layout
from weakcell.memmodels.errors import InputError, UsageError
from weakcell.memmodels.memory import Key

pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")


def test_an_obedient_regulator_is_seen_at_every_code(chip: str) -> None:
    link = Link(VirtualBoard(chip, seed=3))
    board = link.board
    calibrate(link, board.minimum_code)
    for code in range(board.minimum_code, board.nominal_code + 1):
        seen = see_voltage(link, link.pulse(code, 1000))
        assert seen == pytest.approx(board.volts(code), abs=0.005)


def test_a_bypassed_regulator_is_not_reached(chip: str) -> None:
    link = Link(VirtualBoard(chip, rail=RailFaults(bypassed=True)))
    calibrate(link, 8)
    for code in (10, 9, 8):
        with pytest.raises(VoltageNotReached, match="slows down too little"):
            see_voltage(link, link.pulse(code, 100_000))


def test_a_dwell_too_short_to_discharge_says_how_far_the_core_came(chip: str) -> None:
    """60 V/s: 0.25 V take 4.2 ms."""
    board = VirtualBoard(chip, rail=RailFaults(fall_v_per_s=60))
    link = Link(board)
    calibrate(link, 6)
    with pytest.raises(VoltageNotReached, match=r"about 1\.0"):
        see_voltage(link, link.pulse(6, 1500))
    assert see_voltage(link, link.pulse(6, 8000)) == pytest.approx(0.85, abs=0.01)


def test_a_write_that_the_regulator_ignores_is_noticed() -> None:
    board = VirtualBoard("rp2350", rail=RailFaults(ignored_writes=0.3), seed=4)
    link, told = Link(board), set()
    calibrate(link, 7)
    for _ in range(30):
        pulse = link.pulse(7, 1000)
        try:
            see_voltage(link, pulse)
            told.add((True, board.machine.supply.rail.lowest < 0.91))
        except VoltageNotReached:
            told.add((False, board.machine.supply.rail.lowest < 0.91))
    assert {reached for reached, _ in told} == {True, False}


def test_weights_do_not_go_through_a_board_that_does_not_follow() -> None:
    memory = BoardMemory(Link(VirtualBoard("rp2350", rail=RailFaults(bypassed=True))), vdd=0.9)
    region = memory.write(np.zeros(4, np.uint64), Layout("w", 256, 1), Key())
    with pytest.raises(VoltageNotReached):
        memory.read(region, Key(), region.written.copy())
    assert memory.counters.memory_flips == 0


@pytest.mark.parametrize("seed", range(6))
def test_lying_regulators(seed: int) -> None:
    """A seeded share of `python -m tests.board.lying_regulators`."""
    result = check_board(seed, draw_faults(seed))
    assert result.wrong == []
    assert result.outcomes[Outcome.OK] + result.outcomes[Outcome.NOT_REACHED] + result.outcomes[Outcome.UNSEEN] > 0


@pytest.mark.parametrize(
    ("floor_v", "outcome"),
    [(0.0, Outcome.OK), (1.049, Outcome.UNSEEN), (1.085, Outcome.UNSEEN), (1.095, Outcome.NOT_REACHED)],
)
def test_the_first_step_is_ok_only_if_the_core_falls_further_one_code_lower(floor_v: float, outcome: Outcome) -> None:
    """With a floor of 1.085 V the oscillator slows down by 1.2 %, which some chips may do for a whole step of 50 mV."""
    result = check_board(1, RailFaults(floor_v=floor_v), [1])
    assert (result.wrong, result.outcomes) == ([], {outcome: 1})


@pytest.mark.parametrize("gain", [0.97, 1.0, 1.04])
def test_one_reading_of_a_meter_makes_voltages_absolute(tmp_path: Path, gain: float) -> None:
    """The meter reads the virtual core's true voltage at nominal; the truth at each lower step is the virtual rail's."""
    board = VirtualBoard("rp2350", rail=RailFaults(gain=gain), seed=2)
    link = Link(board)
    file = tmp_path / "meter.json"
    take_reading(link, board.machine.core_volts()).save(file)
    reading = load_reading(file)
    reading.check(link)
    link.core_scale = reading.scale
    supply = OnChipSupply()
    for vdd in (1.0, 0.85, 0.7):
        supply.prepare(link, vdd, 0.01)
        shot = supply.lower(link, vdd, 0.01)
        assert shot.measured == pytest.approx(board.lowest_of_pulse, abs=0.006)
        assert shot.seen == pytest.approx(vdd, abs=0.006)


def test_a_reading_of_another_chip_or_supply_is_refused(tmp_path: Path) -> None:
    link = Link(VirtualBoard("rp2350", seed=2))
    for volts in (3.3, 0.9, float("nan")):
        with pytest.raises(UsageError, match="Measure DVDD"):
            take_reading(link, volts)
    reading = take_reading(link, 1.09)
    with pytest.raises(UsageError, match="ring oscillator"):
        reading.check(Link(VirtualBoard("rp2350", seed=3)))
    for text in ("", "{}", "[1]", '{"schema_version": 2}', "\0", '{"schema_version": 1, "celsius": null, "volts": 9}'):
        (tmp_path / "meter.json").write_text(text)
        with pytest.raises(InputError, match="Take it again"):
            load_reading(tmp_path / "meter.json")
    with pytest.raises(InputError):
        load_reading(tmp_path / "absent.json")


def test_calibrate_and_characterize_on_the_command_line(tmp_path: Path) -> None:
    file, out = tmp_path / "meter.json", tmp_path / "run"
    done = CliRunner().invoke(app, ["board", "calibrate", "--port", "virtual:rp2350", "--reading", "1.078", "--out", str(file)])
    assert done.exit_code == 0, done.output
    assert "98.0 %" in done.output
    command = ["characterize", "--port", "virtual:rp2350", "--kib", "1", "--vdd", "0.9", "--repeats", "1", "--pattern", "ones"]
    done = CliRunner().invoke(app, [*command, "--calibration", str(file), "--out", str(out)])
    assert done.exit_code == 0, done.output
    with np.load(out / "points" / "0001.npz") as point:
        (shot,) = json.loads(str(point["about"]))["shots"]
    assert shot["measured"] == pytest.approx(0.98 * 0.9, abs=0.006)
    pulse = ["board", "measure", "--port", "virtual:rp2350", "--vdd", "0.9", "--repeats", "1", "--calibration", str(file), "--json"]
    done = CliRunner().invoke(app, pulse)
    assert done.exit_code == 0, done.output
    measured = json.loads(done.stdout.splitlines()[0])["measured_v"]
    assert measured == pytest.approx(0.98 * 0.9, abs=0.006)
    refused = CliRunner().invoke(app, ["board", "calibrate", "--port", "virtual:rp2350", "--reading", "3.3", "--out", str(file)])
    assert (refused.exit_code, "DVDD" in refused.output) == (2, True)
