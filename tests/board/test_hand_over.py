"""HAND_OVER: the regulator is off, and a supply outside feeds the core of virtual boards.

The rules are those of the data sheets: what fires the brown-out detectors, how long a watchdog waits, what feeds the core.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.board.clock import Clock
from weakcell.host.board.characterization.bench_supply import HostDrivenSupply
from weakcell.host.board.errors import BoardError, LinkError, VoltageRefused
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import HAND_OVER_S, Command, Pattern, Status
from weakcell.host.board.link.transport import Transport
from weakcell.host.board.virtual.faults import FaultyBoard
from weakcell.host.board.virtual.usb_port import connect_usb
from weakcell.host.board.virtual.virtual_board import VirtualBoard
from weakcell.memmodels.errors import UsageError

pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
WINDOW_S = 60.0
"""Longer than any watchdog waits."""


class Bench:
    """A virtual board with a supply at its core, in a time of their own."""

    def __init__(self, chip: str, line: Callable[[VirtualBoard], Transport] = lambda board: board) -> None:
        self.clock = Clock()
        self.board = VirtualBoard(chip, flip_below_half_a_volt, "flash", clock=self.clock)
        self.board.drive(1.10)
        self.link = Link(line(self.board))
        self.detector = self.board.type.map.brown_out_detector[0]

    def set(self, volts: float) -> None:
        self.board.drive(volts)

    def measure(self) -> None:
        """Measure nothing."""

    def close(self) -> None:
        """Close nothing."""

    def hand_over(self) -> None:
        """Hand over and wait until the regulator is off."""
        self.link.hand_over(WINDOW_S)
        self.clock.sleep(2 * HAND_OVER_S)

    def supply(self) -> HostDrivenSupply:
        return self.clock.drive(HostDrivenSupply("a test's supply", self, 1.10))


def flip_below_half_a_volt(board: FaultyBoard, volts: float) -> None:
    board.arena[:] ^= np.uint64(volts < 0.5)


@pytest.mark.parametrize("line", [lambda board: board, connect_usb], ids=["uart", "usb"])
def test_the_supply_has_the_core_for_a_minute_and_the_board_takes_it_back(chip: str, line: Callable[..., Transport]) -> None:
    bench = Bench(chip, line)
    bench.link.fill(0, 4, Pattern.ZEROS)
    machine, blocks = bench.board.machine, [0]

    def block(*_: Any) -> None:
        blocks[0] += machine.supply.released

    machine._engine.hook_add(machine._unicorn.UC_HOOK_BLOCK, block)
    machine._engine.ctl_flush_tb()
    bench.hand_over()
    assert (machine.supply.released, machine.away_us) == (True, 1e6 * WINDOW_S)
    assert machine.register(bench.detector) & 1 == 0
    bench.set(0.3)
    assert machine.core_volts() == pytest.approx(0.3)
    bench.set(1.10)
    assert bench.board.read(0.1) == b""
    bench.clock.sleep(WINDOW_S)
    pulse = bench.link.handed_back()
    assert pulse.dwell_us == pytest.approx(1e6 * WINDOW_S, abs=2000)
    assert pulse.counts[0] == pulse.counts[1] == pulse.counts[2] > 0
    assert blocks == [0], "the CPU slept"
    assert (bench.board.resets, machine.hazards, machine.supply.released) == (0, [], False)
    assert machine.register(bench.detector) == bench.board.type.map.reset_values[bench.detector]
    assert len(bench.link.compare(0, 4, Pattern.ZEROS)) == 4 * 256 // 8
    assert bench.link.info().pulses == 1


def test_a_detector_that_was_left_on_would_have_fired(chip: str) -> None:
    bench = Bench(chip)
    bench.hand_over()
    bench.board.machine._registers[bench.detector] = bench.board.type.map.reset_values[bench.detector]
    bench.set(0.7)
    assert bench.board.resets == 1
    with pytest.raises(LinkError):
        bench.link.handed_back()
    assert not bench.board.machine.supply.released


def test_a_watchdog_that_is_not_fed_would_have_reset_the_chip(chip: str) -> None:
    bench = Bench(chip)
    bench.hand_over()
    bench.board.machine._dma.registers[0x44] = bench.board.type.map.watchdog + 0x18  # where channel 1 writes
    bench.clock.sleep(WINDOW_S)
    with pytest.raises(LinkError):
        bench.link.handed_back()
    assert bench.board.resets == 1


def test_a_regulator_that_is_on_holds_the_voltage(chip: str) -> None:
    bench = Bench(chip)
    bench.set(0.3)
    assert (bench.board.machine.core_volts(), bench.board.resets) == (pytest.approx(1.10), 0)


def test_without_a_supply_the_core_loses_its_voltage(chip: str) -> None:
    bench = Bench(chip)
    bench.board.drive(None)
    bench.link.info()  # opens the session
    with pytest.raises(LinkError):
        bench.link.hand_over(WINDOW_S)
    assert bench.board.resets == 1
    assert bench.link.info().pulses == 0


@pytest.mark.parametrize("late", ["seconds", "never"])
def test_a_supply_that_is_late_is_not_counted(chip: str, late: str) -> None:
    """The board takes its core back and says how fast its ring oscillator was then."""
    bench = Bench(chip)
    supply, drive = bench.supply(), bench.set

    def set_late(volts: float) -> None:
        if volts > 1.0 and late == "seconds":
            bench.clock.sleep(5.0)
        if volts < 1.0 or late == "seconds":
            drive(volts)

    bench.set = set_late  # type: ignore[method-assign]
    with pytest.raises(VoltageRefused, match="too late" if late == "seconds" else "not at nominal"):
        supply.lower(bench.link, 0.6, 0.01)
    assert bench.board.machine.core_volts() == pytest.approx(1.10)
    assert bench.board.resets == 0


def test_a_lost_answer_costs_the_attempt_and_nothing_is_lowered(chip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(chip)
    supply, read = bench.supply(), bench.board.read
    bench.link.info()  # opens the session
    with monkeypatch.context() as line:
        line.setattr(bench.board, "read", lambda timeout_s: read(timeout_s) and b"")
        with pytest.raises(LinkError):
            supply.lower(bench.link, 0.6, 0.01)
    assert bench.board.voltages == []
    assert bench.link.info().pulses == 1, "executed once"
    assert supply.lower(bench.link, 0.6, 0.01).commanded == 0.6


def test_what_the_board_refuses(chip: str) -> None:
    bench = Bench(chip)
    for window_ms in (0, 120_001, 0xFFFFFFFF):
        with pytest.raises(BoardError, match=Status.OUT_OF_RANGE.name):
            bench.link.transact([(Command.HAND_OVER, struct.pack("<I", window_ms))])
    assert bench.link.info().pulses == 0
    with pytest.raises(UsageError, match="120 s"):
        bench.supply().prepare(bench.link, 0.6, 118.0)
    ram = Link(VirtualBoard(chip))
    with pytest.raises(BoardError, match=Status.UNKNOWN_COMMAND.name):
        ram.hand_over(1.0)
    with pytest.raises(BoardError, match="RAM image"):
        bench.supply().check(ram, 0.6)
