"""A few random networks of real exporters; the long version is `python -m tests.emulator.random_networks`."""

from __future__ import annotations

import pytest

from tests.emulator.random_networks import compare


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_onnxruntime(seed: int) -> None:
    outcome, what = compare(seed)
    assert outcome in ("equal", "one step"), what
