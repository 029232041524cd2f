"""DDR4 retention against the published counts: the fit, held-out waits and modules, temperature, polarity, and the valid range.

The law is written down again here, with scipy, and fitted by code of this file.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator
from scipy.optimize import least_squares
from scipy.special import expit, log_ndtr, ndtri
from scipy.stats import norm

from tests.memmodels.evidence import Family, binomial
from tests.memmodels.technologies.reads import decades, within, written, wrong_bits
from weakcell.memmodels import Key, Layout, open_memory, parse_spec
from weakcell.memmodels.address import popcount
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.technologies import ddr4
from weakcell.memmodels.technologies.support import table

MODULES = tuple(ddr4.LAWS)
TRUE, ANTI = ("true", "ones"), ("anti", "zeros")


def counts(module: str, kind: tuple[str, str] = TRUE) -> np.ndarray:
    """(temperature in °C, time in s, flips, cells) of each point of a module."""
    rows = [row for row in table("ddr4_retention") if (row["module"], row["rows"], row["stored"]) == (module, *kind)]
    return np.array([[float(row[key]) for key in ("temperature", "interval", "flips", "cells")] for row in rows]).T


def points(module: str) -> tuple[np.ndarray, np.ndarray]:
    """(ln of the time at 90 °C, ln of the rate); 40 K are a factor of 8 in time."""
    temperature, t, flips, cells = counts(module)
    return np.log(np.where(temperature == 50.0, t / 8.0, t)), np.log(flips / cells)


def log_rate(x: np.ndarray, module: np.ndarray, common: np.ndarray) -> np.ndarray:
    """The law, as the integral of its slope: `tail` before the knee, `body` after it."""
    (level, body, knee), (tail, width) = module, common
    grid = np.linspace(-30.0, 40.0, 7001)
    slope = body + (tail - body) * expit((knee - grid) / width)
    z = np.concatenate([[0.0], np.cumsum((slope[1:] + slope[:-1]) / 2 * np.diff(grid))])
    return log_ndtr(level + body * 40.0 + np.interp(x, grid, z) - z[-1])


def fit_together(modules: tuple[str, ...]) -> np.ndarray:
    """(tail, width, level, body, knee, level, …): least squares of ln p over all points of the modules."""

    def residuals(c: np.ndarray) -> np.ndarray:
        parts = (log_rate(points(m)[0], c[2 + 3 * i : 5 + 3 * i], c[:2]) - points(m)[1] for i, m in enumerate(modules))
        return np.concatenate(list(parts))

    return least_squares(residuals, [0.95, 0.9, *[-2.8, 0.29, 2.0] * len(modules)], xtol=1e-10, ftol=1e-10).x


def fit_one(x: np.ndarray, rate: np.ndarray, common: np.ndarray) -> np.ndarray:
    return least_squares(lambda c: log_rate(x, c, common) - rate, [-2.8, 0.29, 2.0]).x


@pytest.fixture(scope="module")
def together() -> np.ndarray:
    return fit_together(MODULES)


@pytest.mark.parametrize("module", [*MODULES, "axmicr02"])
def test_counts_are_sums_of_the_raw_rows(module: str, shared: Path) -> None:
    """Every count is a sum over the rows of its kind, without the dead lane of hisasa00."""
    path = shared / "device-data" / "raw" / "ddr4-retention" / f"{module}.csv.gz"
    if not path.exists():
        pytest.skip("the raw rows are not here")
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    gained = sum(int(row["zeros_90C_256s"]) for row in rows)
    anti = np.array([int(row["ones_90C_256s"]) < 1000 for row in rows])
    assert anti.any() == (module == "axmicr02") == (gained > 10_000)
    for kind, which in ((TRUE, ~anti), (ANTI, anti)):
        for temperature, t, flips, cells in counts(module, kind).T if which.any() else ():
            raw = np.array([int(row[f"{kind[1]}_{temperature:g}C_{t:g}s"]) for row in rows])[which]
            dead = 8192 if module == "hisasa00" else 0
            assert raw.min() >= dead
            assert raw.sum() - dead * raw.size == flips
            assert cells == (65536 - dead) * raw.size


def test_the_constants_are_those_of_a_fit_of_all_modules(together: np.ndarray) -> None:
    assert together[:2] == pytest.approx((ddr4.TAIL, ddr4.WIDTH), abs=2e-3)
    for i, law in enumerate(ddr4.LAWS.values()):
        assert together[2 + 3 * i : 5 + 3 * i] == pytest.approx((law.level, law.body, law.knee), abs=5e-3)


@pytest.mark.parametrize("module", MODULES)
def test_the_law_is_within_its_error(module: str) -> None:
    temperature, t, flips, cells = counts(module)
    said = [ddr4.lost_share(module, time, degrees) for degrees, time in zip(temperature, t, strict=True)]
    rms, largest = decades(said, flips / cells)
    print(f"{module}: rms {rms:.3f}, largest {largest:.3f} decades over {flips.size} points")
    assert rms <= (0.038 if module == "hyhy13" else 0.0105)
    assert largest <= (0.1 if module == "hyhy13" else 0.018)


@pytest.mark.parametrize("module", [m for m in MODULES if m != "hyhy13"])
def test_a_module_is_predicted_that_took_no_part_in_the_fit(module: str) -> None:
    """Tail and width come from the other modules, level, body and knee from a few of its own waits. All others are held out."""
    common = fit_together(tuple(m for m in MODULES if m != module))[:2]
    x, rate = points(module)
    for known, limit in ((np.isin(np.round(np.exp(x)), [4, 64, 4096]), 0.038), (np.exp(x) < 65, 0.1), (np.exp(x) < 257, 0.055)):
        error = np.abs(log_rate(x, fit_one(x[known], rate[known], common), common) - rate)[~known] / np.log(10)
        print(f"{module} from {known.sum()} waits: the others are missed by up to {error.max():.3f} decades")
        assert error.max() < limit


@pytest.mark.parametrize("module", MODULES)
def test_a_wait_is_predicted_by_the_others(module: str, together: np.ndarray) -> None:
    """Each wait at 90 °C held out in turn; tail and width are those of all modules."""
    x, rate = points(module)
    missed = []
    for out in np.flatnonzero(counts(module)[0] == 90.0):
        kept = np.arange(x.size) != out
        constants = fit_one(x[kept], rate[kept], together[:2])
        missed.append(abs(log_rate(x[out : out + 1], constants, together[:2])[0] - rate[out]) / np.log(10))
    print(f"{module}: held-out waits missed by {', '.join(f'{m:.3f}' for m in missed)} decades")
    assert max(missed) < 0.08


def test_the_module_with_a_bounded_retention_time_is_interpolated() -> None:
    """Through every point; a point held out between two others is missed by less than 0.03 decades."""
    for kind in (TRUE, ANTI):
        _, t, flips, cells = counts("axmicr02", kind)
        z = ndtri(flips / cells)
        assert [ddr4.lost_share("axmicr02", time, 90.0, kind[0]) for time in t] == pytest.approx(norm.cdf(z), rel=1e-9)
        for out in range(1, t.size - 1):
            kept = np.arange(t.size) != out
            guess = PchipInterpolator(np.log(t[kept]), z[kept])(np.log(t[out]))
            assert abs(log_ndtr(guess) - log_ndtr(z[out])) / np.log(10) < 0.03


@pytest.mark.parametrize("module", MODULES)
def test_gained_charge_follows_the_counts(module: str) -> None:
    """Of ten counts and more within 0.2 decades; hisasa01 has one stuck cell, which is not among them."""
    temperature, t, flips, cells = counts(module, ("true", "zeros"))
    flips = flips - (module == "hisasa01")
    seen = flips >= 10
    said = np.array([ddr4.gained_share(module, *at) for at in zip(t, temperature, strict=True)])
    _, largest = decades(said[seen], (flips / cells)[seen])
    assert largest < 0.21
    assert (said * cells)[~seen].max() < 25.0


def test_time_runs_8_times_as_fast_at_90_degrees() -> None:
    """The points of hyhy13 at both temperatures, where the rates overlap: the factor that makes them one curve."""
    temperature, t, flips, cells = counts("hyhy13")
    hot, cold = temperature == 90.0, temperature == 50.0
    z = ndtri(flips / cells)
    equal = np.exp(np.interp(z[cold][t[cold] >= 32], z[hot], np.log(t[hot])))
    factors = t[cold][t[cold] >= 32] / equal
    assert pytest.approx(np.exp(np.log(factors).mean()), abs=0.3) == ddr4.SPEED_UP
    assert ddr4.scale_time(32.0, 50.0) == pytest.approx(4.0, rel=1e-12)
    kelvin = np.array([50.0, 90.0]) + 273.15
    assert ddr4.scale_time(32.0, 70.0) == pytest.approx(
        32.0 * np.exp(-np.log(8.0) * (1 / 343.15 - 1 / kelvin[1]) / (1 / kelvin[0] - 1 / kelvin[1])), rel=1e-9
    )


def test_a_stored_1_is_lost_for_good_and_a_0_hardly_ever() -> None:
    """Errors are nested in time and temperature, and number p10 of the stored ones."""
    memory, region = written("ddr4:interval=64")
    wrong = wrong_bits(memory, region)
    ones = popcount(region.written)
    assert binomial(popcount(wrong & region.written), ones, memory.terms[0].p10) > 1e-6
    assert popcount(wrong & ~region.written) < 20
    assert within(wrong_bits(memory.at(interval=16.0), region), wrong)
    assert within(wrong_bits(memory.at(temperature=70.0), region), wrong)
    assert within(wrong, wrong_bits(memory.at(interval=256.0), region))


def test_blocks_of_rows_lose_ones_or_zeros() -> None:
    """axmicr02: within a block of 680 rows one direction only, and about half of the blocks in either."""
    words = 680 * 65536 // 64
    memory, family = open_memory("ddr4:module=axmicr02,interval=64"), Family()
    kinds = []
    for block in range(4):
        first = memory.write(np.zeros(words - 1024, np.uint64), Layout(f"skip {block}", (words - 1024) * 64, 1), Key())
        region = memory.write(np.full(1024, 0x5555555555555555, np.uint64), Layout(f"block {block}", 65536, 1), Key())
        assert (first.first_word, region.first_word) == (block * words, block * words + words - 1024)
        wrong = wrong_bits(memory, region)
        lost, gained = popcount(wrong & region.written), popcount(wrong & ~region.written)
        kind = "true" if lost else "anti"
        kinds.append(kind)
        family.add(f"block {block}", binomial(lost + gained, 32768, ddr4.lost_share("axmicr02", 64.0, 90.0, kind)))
        assert min(lost, gained) == 0
    family.judge()
    dies = [open_memory("ddr4:module=axmicr02,interval=64", die=die).permanent_weak_cells(64) for die in range(60)]
    assert binomial(sum(popcount(to_one) > 0 for to_one, _ in dies), 60, 0.5) > 1e-6
    assert {"true", "anti"} >= set(kinds)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("ddr4:interval=0.064", "4 … 4096 s"),
        ("ddr4:module=hyhy0c,interval=16,temperature=50", "4 … 4096 s"),
        ("ddr4:interval=4096.1", "4 … 4096 s"),
        ("ddr4:temperature=95", "50 … 90"),
        ("ddr4:module=hisasa01,rows=anti", "true cells"),
        ("ddr4:module=hyhy77", "one of"),
    ],
)
def test_what_the_law_does_not_cover_is_refused(spec: str, said: str) -> None:
    with pytest.raises(MemorySpecError, match=said):
        parse_spec(spec).check()


def test_the_coldest_and_shortest_point_is_covered() -> None:
    warm, cold = (open_memory(f"ddr4:module=hyhy0c,{at}").terms[0] for at in ("interval=4", "interval=32,temperature=50"))
    assert warm.p10 == pytest.approx(cold.p10, rel=1e-9)
    assert open_memory("ddr4:interval=4,temperature=50").terms[0].p10 == pytest.approx(37 / 2**27, rel=0.25)
