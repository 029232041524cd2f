"""Wrappers are memories: each keeps the contract of the seam."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.memmodels import test_seam
from tests.memmodels.memories import LAYOUTS, Case
from weakcell.memmodels import Memory, open_memory


@dataclass(frozen=True)
class Wrapped(Case):
    """A case of the contract that is opened by its SPEC, wrappers and all."""

    def build(self, seed: int = 1, die: int = 0) -> Memory:
        return open_memory(self.spec, seed, die)


SRAM = "sram-14nm:v_over_vmin=0.85"
CASES = (
    Wrapped("secded", "secded+uniform:ber=0.01", {"ber": 0.05}, varies=True),
    Wrapped("secded, raw", "secded[policy=raw]+uniform:ber=0.01", {"ber": 0.05}, varies=True),
    Wrapped("secded, a die", f"secded+{SRAM}", {"v_over_vmin": 0.8}),
    Wrapped("secded, per write", "secded+uniform:ber=0.02,lifetime=write", {"ber": 0.2}, made_by_writes=True),
    Wrapped("parity", "parity+uniform:ber=0.001", {"ber": 0.01}, varies=True),
    Wrapped("parity of bytes, a die", f"parity[word=8]+{SRAM}", {"v_over_vmin": 0.8}),
    Wrapped("bch2", "bch2+uniform:ber=0.02", {"ber": 0.1}, varies=True),
    Wrapped("bch2, a die", f"bch2+{SRAM}", {"v_over_vmin": 0.8}),
    Wrapped("majority", "majority+uniform:ber=0.1", {"ber": 0.3}, varies=True),
    Wrapped("majority, a die", f"majority[reads=5]+{SRAM}", {"v_over_vmin": 0.8}, nested=True),
    Wrapped("interleave", "interleave+uniform:ber=0.02", {"ber": 0.2}, varies=True),
    Wrapped("interleave, a die", f"interleave[stride=100]+{SRAM}", {"v_over_vmin": 0.8}, nested=True),
    Wrapped("a stack", "secded[policy=raw]+interleave[stride=7]+uniform:ber=0.02", {"ber": 0.1}, varies=True),
)
CONTRACT = [
    function
    for name, function in vars(test_seam).items()
    if name.startswith("test_") and set(inspect.signature(function).parameters) in ({"case"}, {"case", "layout"})
]


def of_case(function: Callable[..., None], case: Case) -> bool:
    return case.nested or "keeps_the_die" not in function.__name__


@pytest.mark.parametrize(
    ("function", "case"),
    [(function, case) for case in CASES for function in CONTRACT if of_case(function, case)],
    ids=lambda one: one.name if isinstance(one, Case) else one.__name__.removeprefix("test_"),
)
def test_the_contract_of_the_seam(function: Callable[..., None], case: Case) -> None:
    layouts = LAYOUTS if "layout" in inspect.signature(function).parameters else (None,)
    for layout in layouts:
        function(case, **({} if layout is None else {"layout": layout}))


def test_the_contract_is_not_empty() -> None:
    assert len(CONTRACT) >= 15
