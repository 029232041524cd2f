"""What a real chip punishes and a careless emulator does not: the firmware on virtual chips that follow the headers' rules.

Each rule is from the register headers of the chips (reset values, bits cleared by writing 1) or from their data sheets
(multiplexers, detectors). The images of version 1 of the protocol fail every one of these tests.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest

from weakcell.host.board.errors import BoardError, LinkError
from weakcell.host.board.firmware.build import IMAGE_KINDS
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import Command, Pattern, Status
from weakcell.host.board.virtual.virtual_board import VirtualBoard

CLK_SYS_CTRL, AUXCTRL, BOD, BOD_LP_EXIT = 0x4001003C, 0x40008014, 0x4010001C, 0x40100024
pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")


@pytest.mark.parametrize("image", IMAGE_KINDS)
@pytest.mark.parametrize("value", [0x0, 0x41])
def test_the_rp2350_starts_with_either_reset_value_of_its_clock(value: int, image: str) -> None:
    """0x41: the core runs from the ring oscillator as auxiliary source, which must not be changed while it is selected."""
    board = VirtualBoard("rp2350", image=image, reset_values={CLK_SYS_CTRL: value})
    assert Link(board).info().regulator_code == 11
    assert board.resets == 0


def test_a_regulator_that_is_never_good_ends_in_a_watchdog_reset(chip: str) -> None:
    """The watchdog is armed before anything that may hang."""
    board = VirtualBoard(chip, image="flash")
    board.machine.supply.regulator_ok = False
    link = Link(board, retries=4)
    assert board.read(0.1) == b""
    assert board.machine.watchdog_is_armed()
    board.machine.supply.regulator_ok = True
    assert link.info().regulator_ok == 1
    assert board.resets


def test_a_refused_sleep_is_not_the_last() -> None:
    board = VirtualBoard("rp2350")
    link = Link(board)
    for _ in range(2):
        board.machine.power.refuse_sleep = True
        with pytest.raises(BoardError, match="NOT_ENTERED"):
            link.sleep(6, 1000)
        assert link.sleep(6, 1000).low_code == 6
    with pytest.raises(BoardError, match=Status.OUT_OF_RANGE.name):
        link.sleep(6, 0)


def test_brown_out_detection_is_off_while_asleep_and_on_afterwards() -> None:
    board = VirtualBoard("rp2350")
    link = Link(board)
    before = board.machine.register(BOD)
    assert link.sleep(0, 1000).low_code == 0
    assert (board.resets, board.machine.register(BOD), before) == (0, 0xB1, 0xB1)
    assert board.machine.register(BOD_LP_EXIT) == 0


def test_brown_out_detection_is_on_after_every_pulse(chip: str) -> None:
    board = VirtualBoard(chip)
    detector = board.type.map.brown_out_detector[0]
    assert Link(board).pulse(board.type.regulator.minimum_code, 1000)
    assert board.machine.register(detector) == board.type.map.reset_values[detector]


def test_the_supply_detector_is_masked_and_a_watchdog_reset_is_prepared() -> None:
    board = VirtualBoard("rp2350")
    assert Link(board).pulse(0, 1000)
    assert (board.machine.register(AUXCTRL) & 5, board.resets) == (5, 0)


def test_no_instruction_is_executed_while_a_pulse_is_low(chip: str) -> None:
    board = VirtualBoard(chip)
    link = Link(board)
    assert link.pulse(6, 1000)
    low = _count_blocks_while_low(board)
    assert link.pulse(6, 1000)
    assert low == [0]
    assert link.cpu_pulse(6, 1000)
    assert low[0] > 10


def _count_blocks_while_low(board: VirtualBoard) -> list[int]:
    machine, count = board.machine, [0]
    nominal = board.type.regulator.nominal_code

    def block(*_: Any) -> None:
        count[0] += machine.supply.code < nominal

    machine._engine.hook_add(machine._unicorn.UC_HOOK_BLOCK, block)
    machine._engine.ctl_flush_tb()
    return count


@pytest.mark.parametrize("image", IMAGE_KINDS)
def test_a_hang_while_low_ends_at_nominal_before_the_boot_rom_runs(chip: str, image: str) -> None:
    """DMA restores the voltage although the CPU hangs: on the RP2350 a watchdog reset leaves the regulator as it is."""
    board = VirtualBoard(chip, image=image)
    link = Link(board, retries=6)
    link.fill(0, 4, Pattern.ONES)
    board.hang_at_pulse = True
    with pytest.raises(LinkError):
        link.while_low(Command.READ_LOW, 6, 1000, struct.pack("<H", 0))
    assert (board.resets, board.machine.hazards) == (1, [])
    assert link.info().boot_reason & 3 == 1


def test_the_clock_goes_up_only_when_its_pll_has_locked_again(chip: str) -> None:
    board = VirtualBoard(chip)
    for _ in range(3):
        assert Link(board).pulse(board.type.regulator.minimum_code, 1000)
    assert board.resets == 0


def test_four_reads_in_flight_lose_nothing_on_a_line_with_a_rate(chip: str) -> None:
    """Ten bits a byte at 921,600 baud into a queue of 32."""
    board = VirtualBoard(chip, line_rate=True)
    link = Link(board)
    link.fill(0, 64, Pattern.RANDOM, 3)
    before = replace(link.counters)  # a HELLO that comes before the firmware has started its UART is lost
    contents = link.read_pages(range(64))
    assert b"".join(contents) == board.sram[: 64 * 256].tobytes()
    assert (board.machine.uart.overruns, link.counters.silences, link.counters.resent) == (0, before.silences, before.resent)


def test_the_boot_reason_has_every_cause() -> None:
    """CHIP_RESET bit 28: a reset by the watchdog through the power-on state machine."""
    board = VirtualBoard("rp2350", image="flash")
    board.machine.reset(1 << 28, cold=True)
    assert Link(board).info().boot_reason == 1 << 28
