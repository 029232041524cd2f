"""What the board's tests share: a compiler for the core, and virtual boards where Unicorn is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from native import NativeCore, compiler

pytest.importorskip("cobs", reason="pip install weakcell[board]")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> NativeCore:
    """The firmware's core, compiled for this machine once."""
    if compiler() is None:
        pytest.skip("no C compiler: install gcc, or pip install ziglang")
    return NativeCore(tmp_path_factory.mktemp("core"))


@pytest.fixture
def core(compiled: NativeCore) -> NativeCore:
    """The core as after power-up, its arena all zeros."""
    compiled.restart()
    compiled.arena[:] = 0
    return compiled


@pytest.fixture(params=["rp2350", "rp2040"])
def chip(request: pytest.FixtureRequest) -> str:
    """Both chips, where Unicorn is installed."""
    pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
    return str(request.param)
