"""A board that hangs, resets or loses power during any command: a link error, and the same command works afterwards."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from weakcell.host.board.errors import BoardError, LinkError, VoltageRefused
from weakcell.host.board.firmware.build import image_path
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import Command, Pattern
from weakcell.host.board.virtual.faults import BoardFailure, Misbehaviour, parse_misbehaviour
from weakcell.host.board.virtual.virtual_board import VirtualBoard
from weakcell.memmodels.errors import UsageError

unicorn = pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
CODE, DWELL_US = 6, 300
COUNT = 4
"""Pages that commands use: few, so that commands are short and can be tried at many instants."""
PAGES = struct.pack("<HHBI", 0, COUNT, Pattern.RANDOM, 1)

COMMANDS: dict[Command, Callable[[Link], object]] = {
    Command.HELLO: lambda link: link.open(),
    Command.INFO: lambda link: link.info(),
    Command.WRITE: lambda link: link.write_pages([3], [b"\5" * 256]),
    Command.READ: lambda link: link.read_pages([3]),
    Command.CRCS: lambda link: link.page_crcs(0, COUNT),
    Command.FILL: lambda link: link.fill(0, COUNT, Pattern.RANDOM, 1),
    Command.COMPARE: lambda link: link.compare(0, COUNT, Pattern.RANDOM, 1),
    Command.PULSE: lambda link: link.pulse(CODE, DWELL_US),
    Command.SLEEP: lambda link: link.sleep(CODE, DWELL_US),
    Command.WRITE_LOW: lambda link: link.while_low(Command.WRITE_LOW, CODE, DWELL_US, b"\3\0" + b"\6" * 256),
    Command.READ_LOW: lambda link: link.while_low(Command.READ_LOW, CODE, DWELL_US, b"\3\0"),
    Command.CRCS_LOW: lambda link: link.while_low(Command.CRCS_LOW, CODE, DWELL_US, bytes([0, 0, COUNT])),
    Command.FILL_LOW: lambda link: link.while_low(Command.FILL_LOW, CODE, DWELL_US, PAGES),
    Command.COMPARE_LOW: lambda link: link.while_low(Command.COMPARE_LOW, CODE, DWELL_US, PAGES + bytes(4)),
}


def resolved(chip: str, image: str) -> tuple[VirtualBoard, Link]:
    board = VirtualBoard(chip, image=image)
    link = Link(board, retries=6)
    link.fill(0, COUNT, Pattern.RANDOM, 1)
    return board, link


def count_instructions(chip: str, command: Command) -> int:
    """Return how many instructions a command takes, less about a tenth: most have 2 bytes, a few have 4."""
    board, link = resolved(chip, "flash")
    sizes: list[int] = []
    engine = board.machine._engine
    engine.hook_add(unicorn.UC_HOOK_BLOCK, lambda _engine, _address, size, _data: sizes.append(size))
    engine.ctl_flush_tb()  # blocks that were translated before have no hook
    COMMANDS[command](link)
    return sum(sizes) * 9 // 20


@pytest.mark.parametrize("command", list(COMMANDS))
def test_a_failure_in_the_middle_of_every_command_is_a_link_error_or_repaired(chip: str, command: Command) -> None:
    """Fail at the beginning, in the middle and near the end. Only HELLO is repeated by itself."""
    if command is Command.SLEEP and chip == "rp2040":
        pytest.skip("the RP2040 has no such state")
    length = count_instructions(chip, command)
    board, link = resolved(chip, "flash")
    for failure in BoardFailure:
        for after in (length // 8, length // 2, length):
            resets, sessions = board.resets, link.counters.sessions
            board.fail(failure, after)
            if command is Command.HELLO:
                COMMANDS[command](link)
            else:
                with pytest.raises(LinkError):
                    COMMANDS[command](link)
            assert board.resets == resets + 1, (failure, after)
            assert board.machine.supply.code == 11
            assert link.info().pulses == 0
            link.fill(0, COUNT, Pattern.RANDOM, 1)
            COMMANDS[command](link)
            assert link.counters.sessions > sessions


def test_a_ram_image_does_not_survive_a_loss_of_power(chip: str) -> None:
    board, link = resolved(chip, "ram")
    board.brown_out()
    with pytest.raises(LinkError):
        link.info()
    assert board.machine.bootsel
    with pytest.raises(LinkError, match="nothing answered"):
        link.info()
    board.machine.drop(image_path(chip).read_bytes())
    assert link.info().pulses == 0


@pytest.mark.parametrize("image", ["ram", "flash"])
def test_a_hang_at_low_voltage_ends_at_nominal(chip: str, image: str) -> None:
    """Includes every access experiment: the RP2350 keeps its code over a watchdog reset unless the image prevents it."""
    board, link = resolved(chip, image)
    board.hang_at_pulse = True
    with pytest.raises(LinkError):
        COMMANDS[Command.READ_LOW](link)
    assert (board.resets, board.machine.supply.code) == (1, 11)
    info = link.info()
    assert (info.regulator_code, info.boot_reason & 3) == (11, 1)


def test_only_a_flash_image_recovers_from_damaged_code(chip: str) -> None:
    for image, mended in (("ram", False), ("flash", True)):

        def spoil(board: VirtualBoard, volts: float) -> None:
            first = board.arena.nbytes
            board.sram[first + 64 : first + 0x1200] = 0xDE  # an undefined instruction, everywhere

        board = VirtualBoard(chip, spoil, image)
        link = Link(board, retries=4)
        with pytest.raises(LinkError):
            link.while_low(Command.READ_LOW, CODE, DWELL_US, b"\0\0")
        board.on_voltage = None
        if mended:
            assert link.info().regulator_code == 11
        else:
            with pytest.raises(LinkError):
                link.info()


def test_boards_with_random_failures_never_report_wrong_cells(chip: str) -> None:
    """Every experiment ends with right cells, or with an error that says what happened."""
    board = VirtualBoard(chip, image="flash", misbehaviour=Misbehaviour(hang=0.2, reset=0.2), seed=5)
    link, ended = Link(board, retries=6), {"right": 0, "link": 0}
    for _ in range(30):
        try:
            link.fill(0, 8, Pattern.ONES)
            link.pulse(CODE, DWELL_US)
            assert link.compare(0, 8, Pattern.ONES) == []
            ended["right"] += 1
        except LinkError:
            ended["link"] += 1
    assert min(ended.values()) > 4


def test_a_brown_out_below_its_voltage(chip: str) -> None:
    board = VirtualBoard(chip, image="flash", misbehaviour=Misbehaviour(brown_out=0.95))
    link = Link(board, retries=6)
    assert link.pulse(9, DWELL_US)
    with pytest.raises(LinkError):
        link.pulse(7, DWELL_US)
    assert link.info().boot_reason & board.machine.map.brown_out


def test_a_board_that_ignores_its_voltage(chip: str) -> None:
    link = Link(VirtualBoard(chip, misbehaviour=Misbehaviour(ignore_voltage=True)))
    for command in (Command.PULSE, Command.READ_LOW, Command.WRITE_LOW):
        with pytest.raises(VoltageRefused, match="read back code 11"):
            COMMANDS[command](link)


def test_misbehaviour_is_parsed() -> None:
    given = parse_misbehaviour("hang=0.1,noise=0.02,brown-out=0.7,ignore-voltage")
    assert given == Misbehaviour(hang=0.1, noise=0.02, brown_out=0.7, ignore_voltage=True)
    for text in ("explode", "hang=often", "reset=2", "ignore-voltage=1"):
        with pytest.raises(UsageError, match=text.partition("=")[0]):
            parse_misbehaviour(text)
    assert issubclass(LinkError, BoardError)
