"""A share of `public_files.py`: kinds of public quantized files, against their references, with errors in their weights."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.emulator.public_files import FILES, judge

SHARE = {
    ("CNN, static", "shufflenet"): "run",
    ("Larq", "convolutions"): "run",
    ("sequences", "voice activity (Silero)"): "run",
    ("sequences", "speech synthesis (VITS)"): "refused",
}


@pytest.mark.parametrize(("group", "name"), SHARE)
def test_a_kind(group: str, name: str) -> None:
    outcome, note = judge(next(file for file in FILES if (file.group, file.name) == (group, name)))
    assert outcome == SHARE[group, name], note


def test_the_list_has_the_kinds_of_84_files() -> None:
    assert Counter(file.group for file in FILES) == {
        "CNN, static": 11, "CNN and MLP, dynamic": 12, "YOLO": 22, "QONNX, FINN": 13, "Larq": 2, "sequences": 21,
        "single operators": 3,
    }  # fmt: skip
