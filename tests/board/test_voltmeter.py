"""A voltmeter made of the chip: what was not reached is never ok, and what was reached is never called not reached.

The truth is the core voltage of the virtual board, which the host cannot read.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.board.lying_regulators import check_board, draw_faults
from weakcell.host.board.characterization.points import Outcome
from weakcell.host.board.characterization.voltmeter import calibrate, see_voltage
from weakcell.host.board.errors import VoltageNotReached
from weakcell.host.board.link.link import Link
from weakcell.host.board.memory.board_memory import BoardMemory
from weakcell.host.board.virtual.rail import RailFaults
from weakcell.host.board.virtual.virtual_board import VirtualBoard
from weakcell.memmodels.address import Layout
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
            told.add((True, board.machine.rail.lowest < 0.91))
        except VoltageNotReached:
            told.add((False, board.machine.rail.lowest < 0.91))
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
