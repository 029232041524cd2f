"""Voltage laws against simulated thresholds: which law, its intervals, how well it fits, and what was never measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.memmodels.memories import get, put
from weakcell.memmodels import Cells, Layout, open_memory
from weakcell.memmodels.errors import InputError, MemorySpecError
from weakcell.memmodels.fitting.counts import ReadBack
from weakcell.memmodels.fitting.fit import Fit, fit
from weakcell.memmodels.fitting.goodness import check_goodness
from weakcell.memmodels.fitting.voltage_law import LawCounts, law_log_likelihood
from weakcell.memmodels.profile import load

CELLS, MU, S = 1 << 16, 0.46, 0.04
WIDE, LOW = (0.62, 0.58, 0.54, 0.50, 0.46, 0.42), (0.60, 0.58, 0.56, 0.54)
Die = Callable[[float], tuple[Any, Any]]
"""vdd -> masks of the cells that err on 0, and on 1."""


def per_cell(seed: int, ratio: float = 0.5) -> Die:
    """One threshold a cell, and a preferred value that does not depend on it: 1 for ratio / (1 + ratio) of the cells."""
    rng = np.random.default_rng(seed)
    threshold, prefers_1 = rng.normal(MU, S, CELLS), rng.random(CELLS) < ratio / (1 + ratio)
    return lambda vdd: ((threshold > vdd) & prefers_1, (threshold > vdd) & ~prefers_1)


def per_value(seed: int, ratio: float = 0.5) -> Die:
    """Every cell can err on 1, and `ratio` of them on 0, until none is left: p10 = Phi, p01 = ratio Phi."""
    u = np.random.default_rng(seed).random(CELLS)
    return lambda vdd: (u > 1 - ratio * stats.norm.cdf((MU - vdd) / S), u < stats.norm.cdf((MU - vdd) / S))


def read_backs(die: Die, volts: tuple[float, ...], patterns: str = "zeros ones") -> list[ReadBack]:
    backs = []
    for vdd in volts:
        errs = die(vdd)
        for pattern in patterns.split():
            bits = {"zeros": np.zeros(CELLS, bool), "ones": np.ones(CELLS, bool)}.get(pattern)
            bits = np.random.default_rng(99).random(CELLS) < 0.5 if bits is None else bits
            read = bits ^ np.where(bits, errs[1], errs[0])
            backs.append(ReadBack(words(bits), words(read)[None], CELLS, 0, {"vdd": vdd}))
    return backs


def words(bits: Any) -> Any:
    return np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64)


def fitted(die: Die, volts: tuple[float, ...], patterns: str = "zeros ones") -> Fit:
    found = fit(read_backs(die, volts, patterns), law="vdd", unit="V")
    assert found.law is not None
    return found


def intervals(found: Fit) -> dict[str, tuple[float, float]]:
    return {constant.name: (constant.low, constant.high) for constant in found.profile.constants}


@pytest.mark.parametrize("patterns", ["zeros ones", "random"])
def test_a_preference_that_does_not_depend_on_the_threshold_is_found(patterns: str) -> None:
    """Half of the cells and more fail, which tells the laws apart: 3 dies, of whose intervals a few may miss."""
    held = {"mu": 0, "s": 0, "ratio": 0}
    for seed in range(3):
        found = fitted(per_cell(seed), WIDE, patterns)
        assert found.law is not None
        assert found.law.kind == "per cell"
        assert found.law.rivals["per value"] > 6
        for name, true in (("mu", MU), ("s", S), ("ratio", 0.5)):
            low, high = intervals(found)[name]
            held[name] += low <= true <= high
            assert high - low < 0.1 * true
    assert min(held.values()) >= 2


@pytest.mark.parametrize("die", [per_cell, per_value])
def test_laws_that_the_data_do_not_tell_apart_widen_the_intervals(die: Callable[[int], Die]) -> None:
    """Up to 2 % of errors both laws fit, with other constants: the intervals hold the true ones, whichever law is taken."""
    held = 0
    for seed in range(2):
        found = fitted(die(seed), LOW)
        assert found.law is not None
        assert max(found.law.rivals.values()) < 6
        held += intervals(found)["mu"][0] <= MU <= intervals(found)["mu"][1]
        assert "widened to hold the law" in found.profile.constants[0].method
    assert held >= 1


def test_the_law_of_a_cell_is_a_memory_whose_dies_are_nested(tmp_path: Path) -> None:
    found = fitted(per_cell(1), WIDE)
    path = found.profile.save(tmp_path / "law.toml")
    assert load(path) == found.profile
    memory = open_memory(f"file:{path}:vdd={WIDE[0]}")
    region = put(memory, Layout("w", 1 << 18, 1))
    before = np.zeros_like(region.written)
    for vdd in WIDE:
        flips = get(memory.at(vdd=vdd), region)[0] ^ region.written
        assert not (before & ~flips).any()
        share = np.bitwise_count(flips).sum() / (1 << 18)
        assert share == pytest.approx(stats.norm.cdf((MU - vdd) / S) / 2, rel=0.1, abs=2e-4)
        before = flips


def test_a_law_that_does_not_fit_says_so_and_its_intervals_widen() -> None:
    """Half of the cells are much stronger than the others: no single normal law."""
    weak, strong = per_cell(3), per_cell(4)

    def mixture(vdd: float) -> tuple[Any, Any]:
        first = np.arange(CELLS) < CELLS // 2
        low, high = weak(vdd + 0.04), strong(vdd - 0.04)
        return np.where(first, low[0], high[0]), np.where(first, low[1], high[1])

    good, bad = fitted(per_cell(3), WIDE), fitted(mixture, WIDE)
    assert good.law is not None
    assert bad.law is not None
    assert (good.law.goodness.rejected, good.profile.fit["dispersion"]) == (False, 1.0)
    assert bad.law.goodness.rejected
    assert str(bad.profile.fit["verdict"]).startswith("does not fit (chi-square")
    assert "single points" in bad.law.advice
    wide, narrow = intervals(bad)["mu"], intervals(good)["mu"]
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])
    assert bad.law.goodness.dispersion == pytest.approx(bad.law.goodness.chi_square / bad.law.goodness.degrees)


def test_the_chi_square_of_a_true_law_is_a_chi_square() -> None:
    """Multinomial counts of a law whose constants are known: X2 has its mean, with both values in one cell and apart."""
    steps = np.array([[0.001, 0.004, 0.02], [0.002, 0.008, 0.04]])
    rng, values = np.random.default_rng(6), []
    for _ in range(400):
        counts = rng.multinomial(20000, [*steps.reshape(-1), 1 - steps.sum()])[:6].reshape(1, 2, 3)
        found = check_goodness(counts, np.array([[0, 0, 20000]]), np.ones(1, int), (steps, (steps,)), grouped=False)
        values.append(found.chi_square)
        assert found.degrees == 5
    assert np.mean(values) == pytest.approx(5, abs=0.5)
    assert stats.kstest(values, stats.chi2(5).cdf).pvalue > 0.01


def test_a_cell_that_was_seen_with_both_values_is_one_observation() -> None:
    """Against the multinomial law of scipy, but for its constant."""
    fails, never = np.array([[[3, 5], [4, 9]]]), np.array([[0, 0, 100]])
    counts = LawCounts(fails, never, np.array([[0, 0, 121]]), np.ones(1, int))
    z = np.array([-2.0, -1.2])
    p01, p10 = (weight * np.diff(stats.norm.cdf(z), prepend=0) for weight in (0.4, 0.6))
    p = np.array([*p01, *p10, 1 - p01.sum() - p10.sum()])
    observed = [3, 5, 4, 9, 100]
    constant = stats.multinomial.logpmf(observed, 121, p) - float(np.dot(observed, np.log(p)))
    own = law_log_likelihood(counts, z, (0.4, 0.6), 0.0, 1.0)
    assert own + constant == pytest.approx(stats.multinomial.logpmf(observed, 121, p))
    assert law_log_likelihood(counts, np.array([-1.0, 3.0]), (1.0, 1.0), 0.0, 1.0) == -math.inf


def test_cells_that_never_err_on_one_value_do_not_dilute_the_law() -> None:
    """Columns fail, on 1 only, and zeros were written too: the law is that of the ones alone."""
    rng = np.random.default_rng(2)
    column = np.repeat(rng.normal(size=(CELLS // 4096, 1, 16)), 256, axis=1).reshape(-1)
    threshold = MU + S * (math.sqrt(0.5) * column + math.sqrt(0.5) * rng.normal(size=CELLS))
    found = fit(read_backs(lambda vdd: (np.zeros(CELLS, bool), threshold > vdd), LOW), law="vdd", unit="V")
    alone = fit(read_backs(lambda vdd: (np.zeros(CELLS, bool), threshold > vdd), LOW, "ones"), law="vdd", unit="V")
    for name in ("mu", "s"):
        one, other = (next(c for c in f.profile.constants if c.name == name).value for f in (found, alone))
        assert one == pytest.approx(other, rel=0.01)
    assert found.profile.law is not None
    assert (found.profile.law.share01, found.profile.law.unmeasured) == (0.0, None)
    assert (alone.profile.law.unmeasured if alone.profile.law else None) == "p01"


def test_cells_that_err_on_both_values_count_once() -> None:
    """The design effect is 2, the profile says cells=invert, and the rate's interval is that of the cells."""
    threshold = np.random.default_rng(5).normal(MU, S, CELLS)
    found = fitted(lambda vdd: (threshold > vdd, threshold > vdd), LOW)
    assert found.profile.law is not None
    assert found.profile.law.like.cells is Cells.INVERT
    assert intervals(found)["mu"][0] < MU < intervals(found)["mu"][1]
    rate = found.counted[-1]["rate"]
    k = int((threshold > LOW[-1]).sum())
    assert rate.value == k / CELLS
    assert (rate.low, rate.high) == pytest.approx(tuple(stats.binomtest(k, CELLS).proportion_ci()), rel=1e-6)
    everything = fit(read_backs(lambda vdd: (threshold > 0, threshold > 0), (0.5,)))
    assert everything.profile.points[0].terms[0].rate == pytest.approx(1.0)


def test_errors_that_do_not_come_back_at_lower_voltages_have_no_law() -> None:
    rng = np.random.default_rng(7)

    def fresh(vdd: float) -> tuple[Any, Any]:
        p = stats.norm.cdf((MU - vdd) / S)
        return rng.random(CELLS) < p, rng.random(CELLS) < p

    with pytest.raises(InputError, match="no threshold"):
        fitted(fresh, LOW)


def test_a_rate_that_no_cell_could_show_is_never_invented(tmp_path: Path) -> None:
    """Ones only: no p01 anywhere, and a memory that asks what to assume."""
    points = fit(read_backs(per_cell(8), LOW, "ones"))
    assert all(set(rates) == {"rate", "p10"} for rates in points.counted)
    assert {constant.name.partition(" ")[0] for constant in points.profile.constants} == {"p10", "F"}
    for number, found in enumerate((points, fitted(per_cell(8), LOW, "ones"))):
        path = found.profile.save(tmp_path / f"{number}.toml")
        assert load(path) == found.profile
        assert found.profile.unmeasured == ("p01",)
        with pytest.raises(MemorySpecError, match="no cell ever held 0"):
            open_memory(f"file:{path}:vdd=0.54").terms  # noqa: B018
        ((none,), (same,)) = (open_memory(f"file:{path}:vdd=0.54,p01_share={share}").terms for share in (0, 1))
        assert (none.p01, same.p01) == (0.0, same.p10)
        assert none.p10 == same.p10 > 0.0


def test_old_profiles_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.toml"
    path.write_text(
        "schema = 1\nname = 'old'\n[law]\ncondition = 'vdd'\nunit = 'V'\nlow = 0.5\nhigh = 0.7\nmu = 0.46\ns = 0.04\n"
        "share01 = 0.5\nshare10 = 1.0\nlike = {kind = 'errors', name = 'a', lifetime = 'die', p01 = 0.0, p10 = 0.0, "
        "cells = 'prefer'}\n"
    )
    (term,) = open_memory(f"file:{path}:vdd=0.5").terms
    assert (term.p01, term.p10) == pytest.approx((0.5 * stats.norm.cdf(-1), stats.norm.cdf(-1)))
