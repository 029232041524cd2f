"""Virtual boards run the shipped images: injected flips are reported, and misbehaving boards are detected."""

from __future__ import annotations

import numpy as np
import pytest

from weakcell.host.board.errors import BoardError, LinkError, VoltageRefused
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import PAGE_WORDS, Pattern
from weakcell.host.board.link.transport import NoisyTransport
from weakcell.host.board.memory.board_memory import BoardMemory
from weakcell.host.board.virtual.virtual_board import VirtualBoard
from weakcell.memmodels.address import Layout, Words, set_bits
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.memory import Key, Memory


class Weak:
    """A fault with a random failure voltage per cell: cells above the present voltage flip. Keeps the masks it injected."""

    def __init__(self, cells: int, seed: int = 1) -> None:
        self.cells, self.seed = cells, seed
        self.injected: list[Words] = []

    def __call__(self, board: VirtualBoard, volts: float) -> None:
        rng = np.random.default_rng(self.seed)
        weak = rng.choice(board.arena.size * 64, self.cells, replace=False)
        fails_below = rng.uniform(0.55, 1.10, self.cells)
        mask = np.zeros(board.arena.size, np.uint64)
        failing = weak[fails_below > volts + 1e-9]
        np.bitwise_xor.at(mask, failing // 64, np.uint64(1) << (failing % 64).astype(np.uint64))
        self.injected.append(mask)
        board.arena[:] ^= mask


@pytest.mark.parametrize("pattern", [Pattern.ZEROS, Pattern.ONES, Pattern.RANDOM])
def test_masks_injected_are_flips_reported(chip: str, pattern: Pattern) -> None:
    weak = Weak(3000)
    link = Link(VirtualBoard(chip, weak))
    pages = link.board.pages if pattern is Pattern.RANDOM else 256
    link.fill(0, pages, pattern, 5)
    assert link.compare(0, pages, pattern, 5) == []
    pulse = link.pulse(6, 1000)
    assert (pulse.low_code, pulse.after_code, pulse.image_crc) == (6, 11, link.info().image_crc)
    assert 1000 <= pulse.dwell_us < 1100
    found = link.compare(0, pages, pattern, 5)
    assert found == set_bits(weak.injected[-1][: pages * PAGE_WORDS]).tolist()
    assert len(found) > pages // 4


def test_reads_of_the_memory_return_what_was_injected(chip: str, rng: np.random.Generator) -> None:
    weak = Weak(2000)
    board = VirtualBoard(chip, weak)
    memory = BoardMemory(Link(board), vdd=0.85)
    assert isinstance(memory, Memory)
    layout = Layout("weights", 40_000, 5)
    bits = rng.integers(0, 2**64, layout.words, dtype=np.uint64)
    bits[-1] &= layout.last_mask
    region, out = memory.write(bits, layout, Key()), np.empty(layout.words, np.uint64)
    for everything in (False, True):
        chosen = BoardMemory(memory.link, vdd=0.85, read_all=everything)
        report = chosen.read(region, Key(), out)
        mask = weak.injected[-1][: layout.words].copy()
        mask[-1] &= layout.last_mask
        assert np.array_equal(out ^ bits, mask)
        assert report.flips == np.bitwise_count(mask).sum() > 10
        assert report.measured["vdd_register"] == pytest.approx(0.85)
    assert chosen.counters.pages_read == -(-layout.words // 32)
    assert memory.sampler(region) is None


def test_no_flips_at_nominal_and_nested_below(chip: str, rng: np.random.Generator) -> None:
    memory = BoardMemory(Link(VirtualBoard(chip, Weak(2000))), vdd=1.10)
    layout = Layout("weights", 2**17, 1)
    bits = rng.integers(0, 2**64, layout.words, dtype=np.uint64)
    region, out = memory.write(bits, layout, Key()), np.empty(layout.words, np.uint64)
    assert memory.read(region, Key(), out).flips == 0
    before = np.zeros_like(out)
    for vdd in (1.05, 0.95, 0.80):
        memory.at(vdd=vdd).read(region, Key(), out)
        assert not np.any(before & ~(out ^ bits))
        before = out ^ bits
    assert np.any(before)


def test_a_region_larger_than_the_arena_goes_in_passes(rng: np.random.Generator) -> None:
    pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
    weak = Weak(4000)
    memory = BoardMemory(Link(VirtualBoard("rp2040", weak)), vdd=0.80)
    small, large = Layout("small", 100, 8), Layout("large", 270_000, 8)
    first = memory.write(np.zeros(small.words, np.uint64), small, Key())
    bits = rng.integers(0, 2**64, large.words, dtype=np.uint64)
    region, out = memory.write(bits, large, Key()), np.empty(large.words, np.uint64)
    assert (first.first_word, region.first_word) == (0, 32)
    report = memory.read(region, Key(), out)
    assert report.measured["passes"] == 2
    laid = np.concatenate([np.zeros(32, np.uint64), weak.injected[-2][32:], weak.injected[-1]])
    assert np.array_equal(out ^ bits, laid[32 : 32 + large.words])


@pytest.mark.parametrize("code", [12, 15, 31])
def test_above_nominal_is_refused_and_never_reaches_the_regulator(chip: str, code: int) -> None:
    board = VirtualBoard(chip)
    link = Link(board)
    with pytest.raises(VoltageRefused, match="refused"):
        link.pulse(code, 100)
    assert board.voltages == []
    with pytest.raises(VoltageRefused, match="never above nominal"):
        BoardMemory(link, vdd=1.15)
    with pytest.raises(VoltageRefused, match="steps"):
        BoardMemory(link, vdd=0.83)
    with pytest.raises(MemorySpecError):
        BoardMemory(link, vdd=0.9).at(colour=1)


def test_a_board_that_does_not_lower_its_voltage_is_caught(chip: str) -> None:
    board = VirtualBoard(chip, Weak(100))
    board.ignore_voltage = True
    link = Link(board)
    with pytest.raises(VoltageRefused, match="read back code 11"):
        link.pulse(7, 100)
    memory = BoardMemory(link, vdd=0.9)
    region, out = memory.write(np.zeros(4, np.uint64), Layout("w", 256, 1), Key()), np.empty(4, np.uint64)
    with pytest.raises(VoltageRefused):
        memory.read(region, Key(), out)
    assert memory.counters.memory_flips == 0


def test_a_hang_while_low_ends_in_a_reset_and_the_pass_is_repeated(chip: str, rng: np.random.Generator) -> None:
    weak = Weak(2000)
    board = VirtualBoard(chip, weak)
    memory = BoardMemory(Link(board), vdd=0.85)
    layout = Layout("weights", 2**16, 1)
    bits = rng.integers(0, 2**64, layout.words, dtype=np.uint64)
    region, out = memory.write(bits, layout, Key()), np.empty(layout.words, np.uint64)
    memory.supply.prepare(memory.link, memory.vdd, memory.dwell_s)
    board.hang_at_pulse = True
    report = memory.read(region, Key(), out)
    assert (board.resets, memory.counters.broken_passes, memory.counters.passes) == (1, 1, 1)
    assert np.array_equal(out ^ bits, weak.injected[-1][: layout.words])
    assert report.flips == memory.counters.memory_flips
    info = memory.link.info()
    assert (info.boot_reason, info.regulator_code) == (1, 11)


def test_a_reset_in_the_middle_loses_the_session_and_not_the_truth(chip: str) -> None:
    board = VirtualBoard(chip)
    link = Link(board)
    link.fill(0, 4, Pattern.ONES)
    board.reset()
    with pytest.raises(LinkError, match="reset"):
        link.compare(0, 4, Pattern.ONES)
    assert link.compare(0, 4, Pattern.ONES) == []


def test_code_that_changed_while_low_is_a_device_error(chip: str) -> None:
    def spoil(board: VirtualBoard, volts: float) -> None:
        board.sram[board.arena.nbytes + 4090] ^= 1

    memory = BoardMemory(Link(VirtualBoard(chip, spoil)), vdd=0.9)
    region, out = memory.write(np.zeros(4, np.uint64), Layout("w", 256, 1), Key()), np.empty(4, np.uint64)
    with pytest.raises(BoardError, match="own code"):
        memory.read(region, Key(), out)
    assert (memory.counters.device_errors, memory.counters.memory_flips) == (1, 0)


def test_a_bad_cable_makes_no_flips(chip: str, rng: np.random.Generator) -> None:
    weak = Weak(2000)
    link = Link(NoisyTransport(VirtualBoard(chip, weak), 0.05, seed=3), retries=30)
    memory = BoardMemory(link, vdd=0.85)
    layout = Layout("weights", 2**18, 1)
    bits = rng.integers(0, 2**64, layout.words, dtype=np.uint64)
    region, out = memory.write(bits, layout, Key()), np.empty(layout.words, np.uint64)
    memory.read(region, Key(), out)
    assert np.array_equal(out ^ bits, weak.injected[-1][: layout.words])
    assert link.counters.resent > 0
