"""Sweeps: exact decimal values, inclusive ends, and a refusal for everything else."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weakcell.host.campaign.schema import parse_grid_values
from weakcell.host.study.sweep_values import as_sweep, parse_sweep
from weakcell.memmodels.errors import UsageError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("v=0.75:1.0:0.05", (0.75, 0.8, 0.85, 0.9, 0.95, 1.0)),
        ("v=0.1:0.7:0.1", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)),
        ("v=1:0.5:-0.25", (1.0, 0.75, 0.5)),
        ("v=0:1:0.4", (0.0, 0.4, 0.8)),
        ("v=0.5", (0.5,)),
        ("v=0:1:1", (0.0, 1.0)),
        ("v=0.5,0.1", (0.5, 0.1)),
        ("ber=1e-5:1e-1:x10", (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)),
        ("ber=0.1:0.001:x0.1", (0.1, 0.01, 0.001)),
        ("ber=1:10:x3", (1.0, 3.0, 9.0)),
        ("ber=1:10: X3 ", (1.0, 3.0, 9.0)),
        ("ber=1:10:*3", (1.0, 3.0, 9.0)),
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
     "v=0:1:x10", "v=1:10:x1", "v=1:10:x0.5", "v=1:1e300:x1.0000001",
     "v=1:2:x", "v=1:1:x2", "v=0.5:0.5:0.1", "v=0.5:0.5:-0.1", "v=0.5:0.5:0"],
)  # fmt: skip
def test_refusals(text: str) -> None:
    with pytest.raises(UsageError):
        parse_sweep(text)


@pytest.mark.parametrize(
    ("text", "suggested"),
    [
        ("ber=1e-5:1e-1:10", "ber=1e-5:1e-1:x10"),  # the x was forgotten
        ("ber=0.1:0.001:0.1", "ber=0.1:0.001:x0.1"),
        ("v=0.75:1:6", "v=0.75:1:0.05"),  # a number of points
        ("v=0:0.1:11", "v=0:0.1:0.01"),
        ("v=1:0.5:6", "v=1:0.5:-0.1"),
        ("v=1:0.75:0.05", "v=1:0.75:-0.05"),  # the wrong sign
        ("v=0.75:1:-0.05", "v=0.75:1:0.05"),
        ("v=0.75:1:0.5", "v=0.75"),
        ("v=0.5:0.5:0.1", "v=0.5"),
        ("ber=0.01:0.05:x10", "ber=0.01"),
    ],
)
def test_a_range_of_one_point_is_refused_with_what_was_meant(text: str, suggested: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_sweep(text)
    assert suggested in refused.value.do.replace(",", " ").split()
    assert parse_sweep(suggested).values
    with pytest.raises(UsageError):
        parse_grid_values(*text.split("="))


@given(
    start=st.decimals(-100, 100, places=3), stop=st.decimals(-100, 100, places=3), step=st.decimals(-100, 100, places=3),
    sign=st.sampled_from(["", "x"]),
)  # fmt: skip
def test_a_range_has_two_points_or_none(start: Decimal, stop: Decimal, step: Decimal, sign: str) -> None:
    """Whatever is written between colons: two points or more, all between the ends, or a refusal."""
    try:
        values = parse_sweep(f"v={start}:{stop}:{sign}{step}").values
    except UsageError:
        return
    assert len(values) >= 2
    assert values[0] == float(start)
    low, high = sorted((float(start), float(stop)))
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in values)


def test_python_takes_one_sweep() -> None:
    one = parse_sweep("v=1,2")
    assert as_sweep("v=1,2") == as_sweep(one) == one
    assert as_sweep(None) is None
    with pytest.raises(UsageError):
        as_sweep(["v=1,2", "w=3,4"])  # type: ignore[arg-type]
