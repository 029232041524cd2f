"""Words of the arena are striped over four banks: bank = bits 2 and 3 of the address, by the chips' data sheets."""

from __future__ import annotations

import numpy as np
import pytest

from weakcell.host.board.boards import BOARDS
from weakcell.host.board.characterization.points import Outcome
from weakcell.host.board.readbacks.analysis import analyze_readbacks, compare_banks, count_weak_cells
from weakcell.host.board.readbacks.readback_set import PatternReadback, ReadbackSet
from weakcell.host.report.board_figures import build_cell_image
from weakcell.memmodels.error_model.structure import Bank


def test_weak_cells_of_a_bank_are_counted_there() -> None:
    """Flips at addresses of two physical banks of the RP2350: SRAM0-3 below 256 KB, SRAM4-7 above."""
    rng, board, weak = np.random.default_rng(2), BOARDS["rp2350"], {2: 300, 5: 200}
    addresses = np.arange(0, board.map.arena_bytes, 4)
    errors = np.zeros(board.map.arena_bytes // 4, np.uint32)
    for bank, cells in weak.items():
        inside = addresses[(addresses >> 18 == bank // 4) & (addresses >> 2 & 3 == bank % 4)]
        errors[rng.choice(inside // 4, cells, replace=False)] = 1 << 7
    written = np.zeros(errors.size // 2, np.uint64)
    measured = [
        PatternReadback(vdd, 0.01, "zeros", outcome, written, np.stack([words.view(np.uint64)]))
        for vdd, outcome, words in ((1.1, Outcome.OK, np.zeros_like(errors)), (0.6, Outcome.FLIPS, errors))
    ]
    readbacks = ReadbackSet("board", "retention", errors.size * 32, Bank(*board.bank), tuple(measured), 1.1, stripes=board.stripes)
    (series,) = analyze_readbacks(readbacks).series
    counts = count_weak_cells(series, readbacks)
    assert counts["bank"].tolist() == [weak.get(bank, 0) for bank in range(8)]
    assert counts["cells"].tolist() == [board.map.arena_bytes] * 8
    image = build_cell_image(series, readbacks)
    rows, columns = np.nonzero(image)
    words = np.flatnonzero(errors)
    within, across, down = words % (1 << 16) // 4, words % 4, words >> 16  # the word's number in its bank, and the bank's place
    expected = zip(1024 * down + within // 16, 512 * across + within % 16 * 32 + 7, strict=True)
    assert sorted(zip(rows, columns, strict=True)) == sorted(expected)


def test_equal_banks_are_told_from_unequal_ones() -> None:
    """Worked by hand: 10 and 30 of equal expectation 20 give a chi-square of 10 with one degree of freedom, p = 0.00157."""
    assert compare_banks(np.array([10, 30]), np.array([100, 100])) == pytest.approx(0.00157, abs=1e-5)
    assert compare_banks(np.array([2, 3]), np.array([100, 100])) is None
