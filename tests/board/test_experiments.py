"""The experiments, on every board: the reported cells are those that were injected into the virtual board."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from dataclasses import replace

import numpy as np
import pytest

from tests.board.binary_networks import lay_out
from tests.board.clock import Clock
from tests.emulator.small import small_bnn
from weakcell.host.board.characterization.experiments import REQUIRED_CAPABILITIES, Experiment, ReportMode, Setting, run_experiment
from weakcell.host.board.errors import BoardError, LinkError, VoltageRefused
from weakcell.host.board.firmware.build import IMAGE_KINDS
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import Capability, Command, Pattern, pattern_words
from weakcell.host.board.link.reconnecting import ReconnectingTransport
from weakcell.host.board.virtual.power_manager import LP_ENTRY
from weakcell.host.board.virtual.usb_port import UsbCable
from weakcell.host.board.virtual.virtual_board import VirtualBoard
from weakcell.memmodels.address import Words, set_bits

CODE, DWELL_US = 6, 1000


class Weak:
    """Cells with a failure voltage each, one set for each kind of failure; a lost bit takes the preferred value of its cell."""

    def __init__(self, cells: int = 900) -> None:
        self.cells = cells
        self._masks: dict[tuple[float, int], Words] = {}

    def mask(self, board: VirtualBoard, volts: float, seed: int) -> Words:
        if (volts, seed) not in self._masks:
            self._masks[volts, seed] = self._drawn(board, volts, seed)
        return self._masks[volts, seed]

    def _drawn(self, board: VirtualBoard, volts: float, seed: int) -> Words:
        rng = np.random.default_rng(seed)
        weak = rng.choice(board.arena.size * 64, self.cells, replace=False)
        failing = weak[rng.uniform(0.55, 1.10, self.cells) > volts + 1e-9]
        mask = np.zeros(board.arena.size, np.uint64)
        np.bitwise_or.at(mask, failing // 64, np.uint64(1) << (failing % 64).astype(np.uint64))
        return mask

    def kept(self, board: VirtualBoard, volts: float, contents: Words) -> Words:
        lost = self.mask(board, volts, 1)
        preferred = np.random.default_rng(4).integers(0, 2**64, lost.size, dtype=np.uint64)
        return (contents & ~lost) | (preferred & lost)

    def board(self, chip: str, image: str = "ram") -> VirtualBoard:
        def retain(board: VirtualBoard, volts: float) -> None:
            board.arena[:] = self.kept(board, volts, board.arena.copy())

        def read(board: VirtualBoard, volts: float) -> Words:
            return self.mask(board, volts, 2)

        def write(board: VirtualBoard, volts: float) -> Words:
            return self.mask(board, volts, 3)

        return VirtualBoard(chip, retain, image, on_read=read, on_write=write)

    def wrong(self, link: Link, setting: Setting, pattern: Pattern, seed: int, pages: range) -> list[int]:
        """The cells that the host should hear of."""
        board = link.transport
        assert isinstance(board, VirtualBoard)
        contents = pattern_words(pattern, seed, 0, board.arena.size * 2).view(np.uint64)
        volts = link.board.volts(setting.code)
        if setting.experiment is Experiment.WRITE:
            seen = contents ^ self.mask(board, volts, 3)
        else:
            seen = self.kept(board, volts, contents)
        if setting.experiment is Experiment.READ:
            seen ^= self.mask(board, volts, 2)
        cells = set_bits(seen ^ contents)
        return [int(cell) for cell in cells if pages.start * 2048 <= cell < pages.stop * 2048]


@pytest.mark.parametrize("experiment", list(Experiment))
@pytest.mark.parametrize("report", list(ReportMode))
def test_masks_injected_are_cells_reported(chip: str, experiment: Experiment, report: ReportMode) -> None:
    weak, pages, setting = Weak(1800), range(20, 52), Setting(experiment, CODE, DWELL_US)
    link = Link(weak.board(chip))
    if not link.board.can(REQUIRED_CAPABILITIES[experiment]):
        with pytest.raises(BoardError, match="cannot do it"):
            run_experiment(link, setting, Pattern.ONES)
        return
    outcome = run_experiment(link, setting, Pattern.RANDOM, 7, pages, report)
    wanted = weak.wrong(link, setting, Pattern.RANDOM, 7, pages)
    assert outcome.cells.tolist() == wanted
    assert len(wanted) > 5
    for pulse in outcome.pulses:
        assert (pulse.code, pulse.low_code, pulse.after_code, pulse.own) == (CODE, CODE, 11, 1)
        assert DWELL_US <= pulse.dwell_us < DWELL_US + 2000


@pytest.mark.parametrize("experiment", list(Experiment))
def test_no_cells_at_nominal_voltage(chip: str, experiment: Experiment) -> None:
    link = Link(Weak().board(chip))
    if link.board.can(REQUIRED_CAPABILITIES[experiment]):
        for report in ReportMode:
            setting = Setting(experiment, link.board.nominal_code, 1000 if experiment is Experiment.SLEEP else 0)
            assert run_experiment(link, setting, Pattern.CHECKERBOARD, 0, range(32), report).cells.size == 0


def test_lists_longer_than_a_frame_take_several_reads(chip: str) -> None:
    weak, setting, pages = Weak(20_000), Setting(Experiment.READ, CODE, 0), range(64)
    link = Link(weak.board(chip))
    outcome = run_experiment(link, setting, Pattern.ADDRESS, 0, pages)
    wanted = weak.wrong(link, setting, Pattern.ADDRESS, 0, pages)
    assert outcome.cells.tolist() == wanted
    assert len(outcome.pulses) == -(-len(wanted) // 60) > 2


@pytest.mark.parametrize("experiment", list(Experiment))
def test_the_flash_image_does_the_same_on_the_whole_arena(chip: str, experiment: Experiment) -> None:
    weak, setting = Weak(200), Setting(experiment, CODE, DWELL_US)
    link = Link(weak.board(chip, "flash"))
    assert link.board.can(Capability.FROM_FLASH)
    if link.board.can(REQUIRED_CAPABILITIES[experiment]):
        outcome = run_experiment(link, setting, Pattern.ZEROS)
        assert outcome.cells.tolist() == weak.wrong(link, setting, Pattern.ZEROS, 0, range(link.board.pages)) != []


@pytest.mark.parametrize(
    "command", [Command.PULSE, Command.SLEEP, Command.READ_LOW, Command.WRITE_LOW, Command.FILL_LOW, Command.COMPARE_LOW]
)
def test_host_and_firmware_refuse_more_than_nominal(chip: str, command: Command) -> None:
    board = VirtualBoard(chip)
    link = Link(board)
    if command is Command.SLEEP and chip == "rp2040":
        pytest.skip("the RP2040 has no such state")
    body = {Command.READ_LOW: 2, Command.WRITE_LOW: 258, Command.FILL_LOW: 9, Command.COMPARE_LOW: 13}.get(command, 0)
    for code in (12, 15, 31):
        with pytest.raises(VoltageRefused, match="refused"):
            link.transact([(command, bytes([code, 0, 0, 0, 0]) + b"\1" * body)])
    assert board.voltages == []


def test_damage_to_the_reply_while_it_is_built_is_detected() -> None:
    pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")

    def spoil_the_firmware(board: VirtualBoard, volts: float) -> Words:
        """The last kilobytes hold requests, answers and the stack: spoil the request that is being executed."""
        bank = board.sram[board.arena.nbytes :].tobytes()
        at = bank.rindex(bytes([CODE]) + DWELL_US.to_bytes(4, "little") + b"\3\0")
        board.sram[board.arena.nbytes + at + 5] ^= 4
        return np.zeros(board.arena.size, np.uint64)

    link = Link(VirtualBoard("rp2350", on_read=spoil_the_firmware))
    with pytest.raises(BoardError, match="own data"):
        link.while_low(Command.READ_LOW, CODE, DWELL_US, b"\3\0")
    assert link.device_errors == 1


def test_sleep_restarts_the_core_and_keeps_the_session() -> None:
    pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
    board = Weak().board("rp2350")
    link = Link(board)
    before = link.info()
    pulse = link.sleep(0, 2500)
    assert (pulse.low_code, pulse.dwell_us, pulse.image_crc) == (0, 3000, before.image_crc)
    assert board.voltages == [0.55, 1.10]
    assert (link.info().pulses, link.counters.sessions) == (1, 1)
    assert board.machine.power.register(LP_ENTRY) == 4  # code 0, linear mode


def test_a_session_that_was_damaged_during_sleep_is_lost() -> None:
    """Code, session and request are at the same voltage as the arena; their CRC is not."""
    pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")

    def spoil(board: VirtualBoard, volts: float) -> None:
        board.sram[board.arena.nbytes + 0x1900] ^= 1

    link = Link(VirtualBoard("rp2350", spoil))
    link.info()
    with pytest.raises(LinkError, match="reset"):
        link.sleep(3, 1000)
    assert link.info().pulses == 0


def test_only_confirmed_voltages_count(chip: str) -> None:
    board = Weak().board(chip)
    link = Link(board)
    assert link.pulse(CODE, 0)
    board.ignore_voltage = True
    for experiment in (Experiment.RETENTION, Experiment.READ, Experiment.WRITE):
        with pytest.raises(VoltageRefused, match="read back code 11"):
            run_experiment(link, Setting(experiment, CODE, 0), Pattern.ZEROS)
    assert replace(link.counters).sessions == 1


@pytest.mark.parametrize("image", IMAGE_KINDS)
def test_the_stack_has_room(chip: str, image: str) -> None:
    """Paint what lies under the stack while the firmware waits, do everything, and see how far down the paint is gone."""
    clock = Clock()
    board = VirtualBoard(chip, image=image, clock=clock)
    bank, banks = board.sram[board.arena.nbytes :], 8192
    first, last = Link(board).info().image_bytes + (1850 if image == "flash" else 1770), banks - 200
    bank[first:last] = 0xA5
    for link in (Link(board), Link(_ask_for_strings_meanwhile(board))) if image == "flash" else (Link(board),):
        for experiment in Experiment:
            if link.board.can(REQUIRED_CAPABILITIES[experiment]):
                for report in ReportMode:
                    run_experiment(link, Setting(experiment, CODE, 100), Pattern.RANDOM, 3, range(4), report)
        link.write_pages([1], [bytes(256)])
        link.read_pages(range(4))
        if link.board.can(Capability.INFER):
            placed = lay_out(small_bnn())
            board.sram[: len(placed.data)] = np.frombuffer(placed.data, np.uint8)
            link.infer(placed.program.page, placed.program.words.size, placed.crc, 1.0)
        if link.board.can(Capability.HAND_OVER):
            board.drive(board.type.regulator.nominal_v)
            link.hand_over(1.0)
            clock.sleep(2.0)
            link.handed_back()
            board.drive(None)
        Link(link.transport).info()
    used = banks - first - int(np.flatnonzero(bank[first:] != 0xA5)[0])
    most = 580 if image == "flash" else 380
    assert 200 < used < most, "the linker scripts ask for 20 bytes more"


def _ask_for_strings_meanwhile(board: VirtualBoard) -> ReconnectingTransport:
    """Return the board's USB. The host asks for a string at every few packets, also in the middle of a reply."""
    cable, looks = UsbCable(board), itertools.count()
    go_on = board.machine.usb.on_look
    string: list[Generator[None, None, bytes]] = []

    def look() -> None:
        assert go_on is not None
        if cable.host.identity is None or cable.host.is_busy or next(looks) % 2:
            string.clear()
            go_on()
            return
        if not string:
            string.append(cable.host.control(0x80, 6, 3 << 8 | 3, 0x409, length=255))
        if next(string[0], b"") is not None:
            string.clear()

    board.machine.usb.on_look = look
    return ReconnectingTransport("a test's board", cable.open, pause=lambda _: None)
