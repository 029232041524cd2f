"""A share of `exporters.py`: networks of real exporters and quantizers, against onnxruntime, with errors in their weights."""

from __future__ import annotations

import pytest

from tests.emulator.exporters import WAYS, judge
from tests.emulator.families import FAMILIES

SHARE = {("encoder", "static QDQ, script"): "equal", ("lstm", "dynamic, script"): "close"}


@pytest.mark.parametrize(("name", "way"), SHARE)
def test_a_family(name: str, way: str) -> None:
    cell, note = judge(FAMILIES[name], WAYS[way])
    assert cell.split()[0] in ("equal", SHARE[name, way]), note
    assert not cell.endswith("float"), note  # its weights are in the memory
