"""Fixtures of the board's tests: the core compiled for this machine, and the chips of virtual boards."""

from __future__ import annotations

import pytest

from tests.board.native import NativeCore, compiler
from weakcell.host.board.boards import BOARDS

pytest.importorskip("cobs", reason="pip install weakcell[board]")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> NativeCore:
    """Compile the core for this machine, once."""
    if compiler() is None:
        pytest.skip("no C compiler: install gcc, or pip install ziglang")
    return NativeCore(tmp_path_factory.mktemp("core"))


@pytest.fixture
def core(compiled: NativeCore) -> NativeCore:
    """Return the core as after power-up, its arena all zeros."""
    compiled.restart()
    compiled.arena[:] = 0
    return compiled


@pytest.fixture(params=sorted(BOARDS, reverse=True))
def chip(request: pytest.FixtureRequest) -> str:
    """Run the test for every board; skip it where Unicorn is not installed."""
    pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
    return str(request.param)
