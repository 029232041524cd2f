"""`validate` on flips of a virtual board's SRAM: they count like others, no bound is broken, nothing is predicted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from weakcell.host.board.link.link import Link
from weakcell.host.board.link.ports import open_port
from weakcell.host.board.memory.board_memory import BoardMemory
from weakcell.host.study.study import Point, Study, resolve_study
from weakcell.host.validation.accuracy_curve import compare_with_prediction
from weakcell.host.validation.trials import validate_study
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.memory import Memory


@pytest.mark.parametrize(("chip", "vdd"), [("rp2350", 0.60), ("rp2040", 0.80)])
def test_no_bound_is_broken_by_the_flips_of_a_board(chip: str, vdd: float) -> None:
    pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
    resolved = resolve_study(Study(memory=parse_spec("uniform:ber=0"), sweep=None, trials=3, images=80))
    with Link(open_port(f"virtual:{chip}", "uniform:ber=0.002")) as link:
        board = BoardMemory(link, vdd, 0.0001)

        def memories(point: Point, trial: int) -> Sequence[Memory]:
            return [board]

        found = validate_study(resolved, memories=memories, threads=1)
    assert board.counters.memory_flips > 50
    assert found.violation_count == 0
    assert all(check.pairs > 0 for check in found.checks)
    assert sum(check.non_vacuous for check in found.checks) > 100
    curve = compare_with_prediction(found, predict=False)
    assert curve is not None
    assert curve.why
    assert curve.frame["predicted"].null_count() == 1
