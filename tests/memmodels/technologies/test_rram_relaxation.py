"""RRAM relaxation against the published cells: quantiles, misread shares, held-out cells, times and bakes, nesting, refusals."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from scipy.stats import norm

from tests.memmodels.evidence import binomial
from tests.memmodels.technologies.reads import within, written, wrong_bits
from weakcell.memmodels import open_memory, parse_spec
from weakcell.memmodels.address import popcount
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.technologies import rram_relaxation as law
from weakcell.memmodels.technologies.support import table

SHARES = np.array(law.SHARES)
GROUPS = [(0, 0), (1, 1), (2, 3), *((low, low + 3) for low in range(4, 28, 4)), (28, 29), (30, 33)]


class Cells(NamedTuple):
    """Cells of one technology at one time or after one bake: start and change in % of g_max, and the published level."""

    start: np.ndarray
    change: np.ndarray
    level: np.ndarray

    def of(self, low: int, high: int) -> Cells:
        return self.part((self.level >= low) & (self.level <= high))

    def part(self, which: np.ndarray | slice) -> Cells:
        return Cells(self.start[which], self.change[which], self.level[which])


@pytest.fixture(scope="module")
def raw(shared: Path) -> dict[tuple[str, str, float], Cells]:
    """All published cells by technology, `time` or `bake`, and its value."""
    folder = shared / "device-data" / "raw" / "rram-relaxation"
    if not folder.exists():
        pytest.skip("the raw cells are not here")
    return {key: cells for technology, g_max in (("A", 240.0), ("C", 40.0)) for key, cells in _read(folder, technology, g_max)}


def _read(folder: Path, technology: str, g_max: float) -> Iterator[tuple[tuple[str, str, float], Cells]]:
    def columns(name: str) -> dict[str, np.ndarray]:
        with gzip.open(folder / f"{technology}_{name}.csv.gz", "rt") as file:
            rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
        return {key: np.array([float(row[key] or "nan") for row in rows]) for key in rows[0]}

    relaxed, baked = columns("relax"), columns("bake")
    for key, g in relaxed.items():
        if key.startswith("g_") and key != "g_0s":
            cells = Cells(100 * relaxed["g_0s"] / g_max, 100 * (g - relaxed["g_0s"]) / g_max, relaxed["level"])
            yield (technology, "time", float(key[2:-1])), cells.part(np.isfinite(g))
    cells = Cells(100 * baked["g_before"] / g_max, 100 * (baked["g_after"] - baked["g_before"]) / g_max, baked["level"])
    for temperature in np.unique(baked["temp_c"]):
        yield (technology, "bake", float(temperature)), cells.part((baked["temp_c"] == temperature) & (baked["t_after_s"] > 1000))


def quantiles(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    groups = [cells.of(low, high) for low, high in GROUPS]
    return np.array([g.start.mean() for g in groups]), np.array([np.quantile(g.change, SHARES) for g in groups])


def errors(changes: np.ndarray, cells: Cells, levels: int, fewest: int = 10) -> list[float]:
    """log10(law / counted) of the cells of each group that moved by more than half the distance of `levels` levels."""
    half, found = 100 / (2 * (levels - 1)), []
    for change, (low, high) in zip(changes, GROUPS, strict=True):
        moved = np.abs(cells.of(low, high).change) > half
        if moved.sum() >= fewest:
            found.append(float(np.log10(sum(law.misread(change, half)) / moved.mean())))
    return found


def test_the_table_holds_the_quantiles_of_the_cells(raw: dict[tuple[str, str, float], Cells]) -> None:
    assert {(row["technology"], row["kind"], float(row["value"])) for row in table("rram_changes")} == set(raw)
    for row in table("rram_changes"):
        group = raw[row["technology"], row["kind"], float(row["value"])].of(int(row["level_low"]), int(row["level_high"]))
        assert int(row["cells"]) == group.change.size
        assert float(row["start"]) == pytest.approx(group.start.mean(), abs=6e-4)
        ours = [float(row[f"q{100 * share:g}"]) for share in SHARES]
        assert ours == pytest.approx(np.quantile(group.change, SHARES), abs=6e-4)


def test_shares_between_and_beyond_the_quantiles() -> None:
    """At a quantile its share; for a normal change the normal law between them; an exponential tail beyond."""
    normal = norm.ppf(SHARES) * 3.0
    for quantile, share in zip(normal[6:], SHARES[6:], strict=True):
        up, down = law.misread(normal, quantile)
        assert (up, down) == pytest.approx((1 - share, 1 - share), rel=1e-9)
    assert law.misread(normal, 4.0)[0] == pytest.approx(norm.sf(4.0 / 3.0), rel=1e-9)
    step = normal[-1] - normal[-2]
    assert law.misread(normal, normal[-1] + step)[0] == pytest.approx(0.002 / 5, rel=1e-9)
    assert law.misread(normal + 2.0, 5.0) == pytest.approx((norm.sf(1.0), law.misread(normal, 7.0)[1]), rel=1e-9)


@pytest.mark.parametrize("levels", [4, 8])
def test_misread_cells_are_counted_right_and_a_gaussian_is_not(raw: dict[tuple[str, str, float], Cells], levels: int) -> None:
    ours, gauss = [], []
    for cells in raw.values():
        groups = [cells.of(low, high).change for low, high in GROUPS]
        ours += errors(quantiles(cells)[1], cells, levels)
        gauss += errors(np.array([g.mean() + g.std() * norm.ppf(SHARES) for g in groups]), cells, levels)
    print(f"{levels} levels: largest error {np.abs(ours).max():.3f}, of a Gaussian {np.abs(gauss).max():.1f} decades")
    assert np.abs(ours).max() < 0.17
    assert np.abs(gauss).max() > 2.0


@pytest.mark.parametrize("levels", [4, 8])
def test_half_of_the_cells_predict_the_others(raw: dict[tuple[str, str, float], Cells], levels: int) -> None:
    missed = []
    for cells in raw.values():
        missed += errors(quantiles(cells.part(slice(0, None, 2)))[1], cells.part(slice(1, None, 2)), levels, 20)
    print(f"{levels} levels, {len(missed)} groups: rms {np.std(missed):.3f}, largest {np.abs(missed).max():.3f} decades")
    assert np.sqrt(np.mean(np.square(missed))) < 0.12
    assert np.abs(missed).max() < 0.35


HELD_OUT = [
    *(("A", "time", t, 0.25) for t in (0.1, 1.0, 100.0, 1000.0)),
    *(("C", "time", t, 0.26) for t in (0.1, 1.0, 4.0)),
    *(("A", "bake", t, limit) for t, limit in ((100.0, 0.41), (140.0, 0.27), (180.0, 0.88), (220.0, 0.57))),
    *(("C", "bake", t, limit) for t, limit in ((100.0, 0.25), (140.0, 0.32))),
]


@pytest.mark.parametrize(("technology", "kind", "value", "limit"), HELD_OUT)
def test_a_time_or_bake_is_predicted_by_the_others(
    raw: dict[tuple[str, str, float], Cells],
    technology: str,
    kind: str,
    value: float,
    limit: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = law._groups(technology, kind)
    others = {which: law._groups(technology, which) for which in ("time", "bake")}
    others[kind] = {at: groups for at, groups in known.items() if at != value}
    monkeypatch.setattr(law, "_groups", lambda technology, which: others[which])
    change = law.change_over_time if kind == "time" else law.change_over_bake
    cells = raw[technology, kind, value]
    guess = np.array([change(technology, float(start), value) for start in known[value][0]])
    missed = [error for levels in (4, 8) for error in errors(guess, cells, levels)]
    print(f"{technology} {kind} {value:g} held out: missed by up to {np.abs(missed).max():.2f} decades in {len(missed)} groups")
    assert np.abs(missed).max() < limit


def test_levels_of_the_window_are_read_as_the_cells_near_them_move(raw: dict[tuple[str, str, float], Cells]) -> None:
    """Two bits per cell, technology C after 1e5 s: each level against the cells that started within 3 % of g_max of it."""
    (term,) = open_memory("rram-relaxation:technology=C,time=100000,bits_per_cell=2").terms
    cells = raw["C", "time", 1e5]
    for level in (1, 2):
        near = cells.change[np.abs(cells.start - 100 * level / 3) < 3]
        for said, moved in ((term.up[level], near > 50 / 3), (term.down[level], near < -50 / 3)):
            assert moved.sum() < 10 or abs(np.log10(said / moved.mean())) < 0.15


def test_misread_cells_stay_misread() -> None:
    """As many ones as the term says (high levels lose conductance), nested as time goes on."""
    memory, region = written("rram-relaxation:technology=C,time=100000")
    wrong = wrong_bits(memory, region)
    assert popcount(wrong & ~region.written) < 20
    wrong &= region.written
    assert binomial(popcount(wrong), popcount(region.written), memory.terms[0].down[1]) > 1e-6
    assert within(wrong_bits(memory.at(time=1.0), region) & region.written, wrong)
    assert within(wrong, wrong_bits(memory.at(time=1.0, bake=180.0), region))


def test_at_25_degrees_a_bake_is_a_wait() -> None:
    for technology, seconds in law.BAKE_SECONDS.items():
        ours = law.change_over_bake(technology, 60.0, 25.0)
        assert ours == pytest.approx(law.change_over_time(technology, 60.0, seconds))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("time=1e5", "up to 10000 s"),
        ("technology=C,bake=200", "up to 180 °C"),
        ("bake=100,time=10", "Leave time out"),
        ("low=0.5,high=0.5", "upside down"),
        ("technology=C,time=1e5,bits_per_cell=3", "two or more levels off"),
        ("technology=B", "one of A, C"),
        ("technology=C,time=172800", "0.01 … 100000"),
        ("bake=300", "25 … 260"),
    ],
)
def test_what_was_not_measured_is_refused(given: str, said: str) -> None:
    with pytest.raises(MemorySpecError, match=said):
        parse_spec(f"rram-relaxation:{given}").check()
