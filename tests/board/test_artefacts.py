"""Artefacts: dead lanes, repeated data and copied read-backs are found in simulated dies, and undamaged dies have none.

The oracle is a ten-line simulation: thresholds are normal, the preferred value is random, and read-backs are damaged afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from weakcell.host.board.characterization.points import Outcome
from weakcell.host.board.characterization.results import tabulate_points
from weakcell.host.board.readbacks.analysis import ReadbackAnalysis, analyze_readbacks
from weakcell.host.board.readbacks.artefacts import find_artefacts
from weakcell.host.board.readbacks.loading import load_readbacks
from weakcell.host.board.readbacks.readback_set import PatternReadback, ReadbackSet
from weakcell.memmodels.address import popcount
from weakcell.memmodels.error_model.structure import Bank
from weakcell.memmodels.errors import InputError

CELLS, MU, S = 1 << 17, 0.46, 0.05
VOLTS = (0.62, 0.60, 0.58, 0.56)
SOLID = {"zeros": np.zeros(CELLS, bool), "ones": np.ones(CELLS, bool)}
RANDOM = {"random": np.random.default_rng(3).random(CELLS) < 0.5}
Errors = dict[float, dict[str, Any]]


def die(seed: int, patterns: Mapping[str, Any], volts: tuple[float, ...] = VOLTS, column_share: float = 0.0) -> Errors:
    """Return which cells err at each voltage, with each pattern."""
    rng = np.random.default_rng(seed)
    column = np.repeat(rng.normal(size=(CELLS // 16384, 1, 16)), 1024, axis=1).reshape(-1)
    threshold = MU + S * (column_share**0.5 * column + (1 - column_share) ** 0.5 * rng.normal(size=CELLS))
    prefers_1 = rng.random(CELLS) < 0.5
    return {v: {name: (threshold > v) & (prefers_1 != held) for name, held in patterns.items()} for v in volts}


def readbacks(errors: Errors, patterns: Mapping[str, Any], nominal: float | None = None) -> ReadbackSet:
    measured = []
    for vdd, by_pattern in errors.items():
        for name, err in by_pattern.items():
            reads = np.atleast_2d(err)
            outcome = Outcome.FLIPS if reads.any() else Outcome.OK
            measured.append(
                PatternReadback(vdd, 0.01, name, outcome, words(patterns[name]), np.stack([words(read) for read in reads]))
            )
    return ReadbackSet("simulated", "as imported", CELLS, Bank(1024, 16), tuple(measured), nominal)


def words(bits: Any) -> Any:
    return np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64)


def damaged(errors: Errors, patterns: Mapping[str, Any], change: Callable[[Any, Any], Any]) -> Errors:
    """Return the errors after `change(read, written)`, which returns the damaged read."""
    return {v: {n: change(e ^ patterns[n], patterns[n]) ^ patterns[n] for n, e in own.items()} for v, own in errors.items()}


def repeat(width: int, source: slice, copy: slice) -> Callable[[Any, Any], Any]:
    def change(read: Any, written: Any) -> Any:
        lanes = read.reshape(-1, width).copy()
        lanes[:, copy] = lanes[:, source]
        return lanes.reshape(-1)

    return change


def lane(width: int, which: slice, value: bool) -> Callable[[Any, Any], Any]:
    def change(read: Any, written: Any) -> Any:
        lanes = read.reshape(-1, width).copy()
        lanes[:, which] = value
        return lanes.reshape(-1)

    return change


def buffer(read: Any, written: Any) -> Any:
    """Copy 3,200 bytes from another place."""
    changed = read.copy()
    changed[512 * 150 : 512 * 200] = read[512 * 33 : 512 * 83]
    return changed


@pytest.mark.parametrize("patterns", [SOLID, {"ones": SOLID["ones"]}, RANDOM], ids=["solid", "ones", "random"])
@pytest.mark.parametrize("column_share", [0.0, 0.6])
def test_undamaged_dies_have_no_artefacts(patterns: Mapping[str, Any], column_share: float) -> None:
    assert find_artefacts(readbacks(die(1, patterns, column_share=column_share), patterns)) == ()


@pytest.mark.parametrize("patterns", [SOLID, {"ones": SOLID["ones"]}, RANDOM], ids=["solid", "ones", "random"])
@pytest.mark.parametrize(
    ("change", "kind", "extent", "cells"),
    [
        (repeat(16, slice(0, 8), slice(8, 16)), "repeated lane", "8 bits of every 16 (8-15)", CELLS // 2),
        (repeat(32, slice(16, 24), slice(24, 32)), "repeated lane", "8 bits of every 32 (24-31)", CELLS // 4),
        (repeat(128, slice(0, 64), slice(64, 128)), "repeated lane", "64 bits of every 128 (64-127)", CELLS // 2),
        (buffer, "repeated block", "3200 bytes from byte 9600 came back as those from byte 2112", 25600),
        (lane(64, slice(24, 32), False), "dead lane", "8 bits of every 64 (24-31)", CELLS // 8),
        (lane(16, slice(5, 6), False), "dead lane", "1 bit of every 16 (5)", CELLS // 16),
    ],
    ids=["both bytes equal", "a byte repeats its neighbour", "the same word twice", "copied buffer", "dead eighth", "dead bit"],
)  # fmt: skip
def test_damage_is_reported_with_its_extent(
    patterns: Mapping[str, Any], change: Callable[[Any, Any], Any], kind: str, extent: str, cells: int
) -> None:
    (found,) = find_artefacts(readbacks(damaged(die(2, patterns), patterns, change), patterns))
    assert found.kind == kind
    assert extent in found.text
    assert found.cells is not None
    assert popcount(found.cells) == cells


@pytest.mark.parametrize("change", [repeat(16, slice(0, 8), slice(8, 16)), lane(64, slice(24, 32), False)], ids=["bytes", "lane"])
def test_rates_of_the_remaining_cells_are_right(change: Callable[[Any, Any], Any]) -> None:
    """The true rates are within the intervals, and the profile says what was left out."""
    found = analyze_readbacks(readbacks(damaged(die(2, SOLID), SOLID, change), SOLID))
    (told,) = found.artefacts
    lowest = found.rows[-1]
    assert told.cells is not None
    assert found.excluded == popcount(told.cells)
    assert lowest.pairs == 2 * (CELLS - found.excluded)
    true = stats.norm.cdf((MU - lowest.vdd) / S) / 2
    for rate in (lowest.p01, lowest.p10):
        assert rate is not None
        assert 0.85 * true < rate.value < 1.15 * true
    assert told.text in found.series[0].profile.notes


def test_a_column_that_is_wrong_whatever_the_voltage_is_left_out() -> None:
    def change(read: Any, written: Any) -> Any:
        banks = read.reshape(-1, 1024, 16).copy()
        banks[7, :, 5] = False
        return banks.reshape(-1)

    found = analyze_readbacks(readbacks(damaged(die(3, SOLID), SOLID, change), SOLID))
    assert [one.kind for one in found.artefacts] == ["dead lane"]
    assert found.excluded == 1024
    assert "1 column" in found.artefacts[0].text


def test_a_lane_that_floats_is_no_law() -> None:
    rng = np.random.default_rng(4)

    def change(read: Any, written: Any) -> Any:
        lanes = read.reshape(-1, 16).copy()
        lanes[:, 3] = rng.random(len(lanes)) < 0.5
        return lanes.reshape(-1)

    found = find_artefacts(readbacks(damaged(die(5, SOLID), SOLID, change), SOLID))
    assert [(one.kind, "1 bit of every 16 (3)" in one.text) for one in found] == [("dead lane", True)]


def law_refused(findings: ReadbackAnalysis) -> str:
    assert findings.series[0].law is None
    return findings.series[0].no_law


def test_a_read_back_that_was_copied_from_another_voltage_leaves_no_law() -> None:
    errors = die(6, SOLID)
    errors[0.58] = errors[0.56]
    found = analyze_readbacks(readbacks(errors, SOLID))
    assert "0.58 and 0.56 V" in law_refused(found)
    assert found.excluded == 0


def test_a_copied_read_is_reported() -> None:
    rng = np.random.default_rng(7)
    errors = {v: {n: (rng.random((3, CELLS)) < 0.6) & e for n, e in own.items()} for v, own in die(7, SOLID).items()}
    assert find_artefacts(readbacks(errors, SOLID)) == ()
    errors[0.58]["ones"][2] = errors[0.58]["ones"][0]
    (told,) = find_artefacts(readbacks(errors, SOLID))
    assert "Reads 1 and 3 of ones at 0.58 V" in told.text


def test_cells_that_are_stuck_at_nominal_voltage_are_in_the_rates_and_not_in_the_law() -> None:
    stuck = np.random.default_rng(8).random(CELLS) < 2e-4
    errors = die(8, SOLID, (1.0, *VOLTS))
    errors = {v: {n: e | (stuck & SOLID[n]) for n, e in own.items()} for v, own in errors.items()}
    found = analyze_readbacks(readbacks(errors, SOLID, nominal=1.0))
    assert [one.kind for one in found.artefacts] == ["stuck cells"]
    assert f"{stuck.sum()} cells" in found.artefacts[0].text
    rate = found.rows[0].p10
    assert rate is not None
    assert rate.value == stuck.sum() / CELLS
    law = found.series[0].law
    assert law is not None
    assert law.law is not None
    assert not law.law.goodness.rejected
    constants = {one.name: one for one in law.profile.constants}
    assert constants["mu"].low < MU < constants["mu"].high


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda read, written: np.zeros_like(read), "0x00"),
        (lambda read, written: ~read, "inverted"),
        (lambda read, written: read.reshape(-1, 8)[:, ::-1].reshape(-1), "bits of each byte are reversed"),
        (lambda read, written: read.reshape(-1, 4, 8)[:, ::-1].reshape(-1), "bytes of each word of 4 are reversed"),
        (lambda read, written: np.roll(read, 16), "moved by -2 bytes"),
    ],
)
def test_bytes_in_another_order_are_refused(change: Callable[[Any, Any], Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        analyze_readbacks(readbacks(damaged(die(9, RANDOM), RANDOM, change), RANDOM))


def test_one_voltage_cannot_tell_lost_cells_from_an_empty_read() -> None:
    ones = {"ones": SOLID["ones"]}
    found = analyze_readbacks(readbacks({0.6: {"ones": SOLID["ones"]}}, ones))
    assert [one.kind for one in found.artefacts] == ["constant read-out"]
    assert (found.rows[0].p01, found.rows[0].p10.value if found.rows[0].p10 else None) == (None, 1.0)


# --- files that others bring ---------------------------------------------------------------------------------------------------


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "three dwells for two points": ({"dwell_s": [0.1, 0.2, 0.3]}, "dwell_s"),
    "a dwell in words": ({"dwell_s": "long"}, "dwell_s"),
    "a dwell below 0": ({"dwell_s": -1.0}, "dwell_s"),
    "voltages in words": ({"vdd": ["high", "low"]}, "vdd"),
    "rows as an array": ({"rows": [1, 2]}, "rows"),
    "a title as an array": ({"title": ["a", "b"]}, "title"),
    "a bank beyond reason": ({"rows": 10**12, "columns": 10**12}, "bank"),
    "no bytes": ({"written": np.zeros(0, np.uint8), "read": np.zeros((2, 0), np.uint8)}, "no bytes"),
    "no points": ({"vdd": [], "read": np.zeros((0, 4096), np.uint8)}, "no bytes"),
    "one voltage twice but for rounding": ({"vdd": [0.6, 0.60000000001]}, "twice"),
    "a nominal voltage that is none": ({"nominal": float("nan")}, "nominal"),
    "nothing was read": ({"read": np.zeros((2, 4096), np.uint8)}, "0x00"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_files_that_cannot_be_read_rightly_are_refused(name: str, tmp_path: Path) -> None:
    change, said = HOSTILE[name]
    read = ~np.packbits(np.random.default_rng(1).random((2, 4096, 8)) < 0.01, axis=2).reshape(2, 4096)
    np.savez(tmp_path / "r.npz", **{"vdd": [0.6, 0.58], "written": np.full(4096, 255, np.uint8), "read": read, **change})
    with pytest.raises(InputError, match=said):
        analyze_readbacks(load_readbacks(tmp_path / "r.npz"))


def test_tables_are_blank_where_nothing_was_measured_and_count_where_it_was(tmp_path: Path) -> None:
    """Ones only, errors of lifetime die, read twice: p10 is the count, p01 is blank, and float32 voltages are rounded."""
    errors = die(10, {"ones": SOLID["ones"]})
    read = np.stack([[~np.packbits(own["ones"], bitorder="little")] * 2 for own in errors.values()])
    written = np.full(CELLS // 8, 255, np.uint8)
    np.savez(tmp_path / "r.npz", vdd=np.array(VOLTS, np.float32), written=written, read=read, nominal=np.float32(1.0))
    found = analyze_readbacks(load_readbacks(tmp_path / "r.npz"))
    table = tabulate_points(found)
    assert table["vdd"].to_list() == list(VOLTS)
    for name in ("p01", "p01_low", "p01_high", "fit_p01", "fit_p01_low", "fit_p01_high"):
        assert table[name].null_count() == table.height
    counts = [int(own["ones"].sum()) for own in errors.values()]
    assert table["p10"].to_list() == [k / CELLS for k in counts]
    for low, high, k in zip(table["p10_low"], table["p10_high"], counts, strict=True):
        assert (low, high) == pytest.approx(tuple(stats.binomtest(k, CELLS).proportion_ci()))


def test_rates_of_errors_that_are_drawn_at_each_read_are_those_of_single_reads() -> None:
    """Three reads do not triple the rate."""
    rng = np.random.default_rng(11)
    errors = {v: {n: rng.random((3, CELLS)) < p for n in SOLID} for v, p in ((0.6, 0.001), (0.56, 0.004))}
    found = analyze_readbacks(readbacks(errors, SOLID))
    for row, p in zip(found.rows, (0.001, 0.004), strict=True):
        for rate in (row.rate, row.p01, row.p10):
            assert rate is not None
            assert rate.low < p < rate.high
            assert rate.high < 1.2 * p
