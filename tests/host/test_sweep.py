"""Sweeps: exact decimal values, inclusive ends, and a refusal for everything else."""

from __future__ import annotations

import pytest

from host.sweep import parse_sweep
from memmodels.errors import UsageError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("v=0.75:1.0:0.05", (0.75, 0.8, 0.85, 0.9, 0.95, 1.0)),
        ("v=0.1:0.7:0.1", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)),
        ("v=1:0.5:-0.25", (1.0, 0.75, 0.5)),
        ("v=0:1:0.4", (0.0, 0.4, 0.8)),
        ("v=0.5:0.5:0.1", (0.5,)),
        ("v=0.5,0.1", (0.5, 0.1)),
        ("ber=1e-5:1e-1:x10", (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)),
        ("ber=0.1:0.001:x0.1", (0.1, 0.01, 0.001)),
        ("ber=1:10:x3", (1.0, 3.0, 9.0)),
    ],
)
def test_values(text: str, values: tuple[float, ...]) -> None:
    assert parse_sweep(text).values == values


def test_decades_are_logarithmic() -> None:
    assert parse_sweep("ber=1e-3:1e-1:x10").logarithmic
    assert parse_sweep("ber=0.001,0.1").logarithmic
    assert not parse_sweep("v=0.5:1:0.1").logarithmic


@pytest.mark.parametrize(
    "text",
    ["", "v", "v=", "=1", "v=a", "v=1:2", "v=1:2:3:4", "v=1:2:-1", "v=1:2:0", "v=1,1", "v=nan", "v=0:inf:1", "v=0:1:1e-9",
     "v=0:1:x10", "v=1:10:x1", "v=1:10:x0.5", "v=1:1e300:x1.0000001"],
)  # fmt: skip
def test_refusals(text: str) -> None:
    with pytest.raises(UsageError):
        parse_sweep(text)
