"""A network whose weights pass through a virtual board: its logits are those of the same bytes in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from weakcell.emulator import ReadPolicy, compile_plan, deploy, load, outputs_under_faults, place
from weakcell.host.board.link.link import Link
from weakcell.host.board.memory.board_memory import BoardMemory
from weakcell.host.board.memory.spec import SharedBoard
from weakcell.host.board.virtual.virtual_board import VirtualBoard
from weakcell.host.cli import app
from weakcell.memmodels.address import Layout, Words
from weakcell.memmodels.catalogue import open_memory, parse_spec
from weakcell.memmodels.memory import Key, ReadReport, Region
from weakcell.memmodels.recording import Recording

SHIPPED = Path(__file__).parents[2] / "host" / "shipped"


@dataclass(frozen=True, eq=False)
class SameBytes(BoardMemory):
    """The oracle: the same error mask applied to each region by arithmetic, without a board."""

    mask: Words | None = None

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        assert self.mask is not None
        cells = (region.first_word + np.arange(region.written.size)) % self.mask.size
        out[:] = region.written ^ self.mask[cells]
        out[-1:] &= region.layout.last_mask
        return ReadReport(0)


def test_logits_through_the_board(tmp_path: Path, rng: np.random.Generator) -> None:
    pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
    network = load(SHIPPED / "fashion_bnn.onnx")
    plan, placement = compile_plan(network), place(network, parse_spec("uniform"))
    mask = np.zeros(256 * 1024 // 8, np.uint64)
    weak = rng.choice(mask.size * 64, 20_000, replace=False)
    np.bitwise_xor.at(mask, weak // 64, np.uint64(1) << (weak % 64).astype(np.uint64))

    def flip(board: VirtualBoard, volts: float) -> None:
        board.arena[:] ^= mask

    link = Link(VirtualBoard("rp2040", flip))
    board, same = BoardMemory(link, 0.80, 0.0001), SameBytes(link, 0.80, mask=mask)
    before = Layout("before", 100 * 1024, 8)  # so that both together are larger than the arena, and a tensor lies in two passes
    for memory in (board, same):
        memory.write(np.zeros(before.words, np.uint64), before, Key())
    assert placement.bits(network) + before.bits > link.board.arena_bytes * 8
    (name,) = network.inputs
    images = {name: rng.integers(0, 256, (4, *network.values[name].shape[1:])).astype(np.float32)}
    live, recording = deploy(plan, placement, ReadPolicy.LOAD, memories=[board]), Recording()
    expected = outputs_under_faults(plan, images, deploy(plan, placement, ReadPolicy.LOAD, memories=[same]))
    found = outputs_under_faults(plan, images, live)
    for slot in live.all_slots:
        recording.take(board, slot.region, [0])
    replayed = open_memory(f"recording:{recording.save(tmp_path / 'board.npz')}")
    again = outputs_under_faults(plan, images, deploy(plan, placement, ReadPolicy.LOAD, memories=[replayed]))
    clean = outputs_under_faults(plan, images, deploy(plan, placement, ReadPolicy.LOAD, memories=[board.at(vdd=1.10)]))
    for output in expected:
        assert np.array_equal(found[output], expected[output])
        assert np.array_equal(again[output], expected[output])
        assert not np.array_equal(clean[output], expected[output])
    assert board.counters.device_errors == 0
    assert board.counters.passes == 3 * (len(live.all_slots) + 1)


CAMPAIGN = """\
trials = 2
[[network]]
model = "digits-bnn"
images = 5
[[memory]]
spec = "board:virtual:rp2350[sram-28nm-vc707]"
grid = { vdd = [0.55, 0.6] }
"""


def test_a_campaigns_dry_run_says_what_boards_take_and_lowers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
    monkeypatch.setattr(SharedBoard, "read", lambda *_: pytest.fail("a board was read"))
    (tmp_path / "c.toml").write_text(CAMPAIGN, encoding="utf-8")
    said = CliRunner().invoke(app, ["sweep", str(tmp_path / "c.toml"), "--dry-run"])
    assert said.exit_code == 0, said.output
    assert "2 points x 2 trials: 4 runs" in said.stdout
    assert "Through boards, one run after the other: at most" in said.stdout
