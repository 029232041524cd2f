"""DRAM laws against the published modules, refits, polarity, lines, what is refused, and EDEN's four models."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.stats import norm

from tests.memmodels.evidence import Family, binomial, normal
from tests.memmodels.technologies.reads import BITS, decades, random_words, within, written, wrong_bits
from weakcell.memmodels import Accesses, Lifetime, open_memory, parse_spec, technology
from weakcell.memmodels.address import popcount
from weakcell.memmodels.error_model.structure import Lines
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.technologies import dram
from weakcell.memmodels.technologies.support import table


def activation_points(vendor: str, way: str) -> tuple[np.ndarray, np.ndarray]:
    """(tRCD, rate): medians over modules; the mean of vendor C's p10 at 7.5 ns, whose median module showed none."""
    rows = [row for row in table("dram_trcd") if row["vendor"] == vendor and float(row["trcd"]) < 10]
    rates = [float(row[way]) or float(row["p10_mean"]) for row in rows]
    return np.array([float(row["trcd"]) for row in rows]), np.array(rates)


def fit(x: np.ndarray, p: np.ndarray, top: float, start: tuple[float, float]) -> np.ndarray:
    """(mu, s) of top Phi((mu - x) / s) by least squares of log10 p, with scipy's log of the distribution function."""
    found = least_squares(lambda c: np.log(top) + norm.logcdf((c[0] - x) / c[1]) - np.log(p), start, xtol=1e-12, ftol=1e-12)
    return found.x


ways = pytest.mark.parametrize(("vendor", "way"), [(v, w) for v in "ABC" for w in ("p01", "p10")])


@ways
def test_activation_constants_come_back(vendor: str, way: str) -> None:
    t, p = activation_points(vendor, way)
    mu, s = fit(np.log(t), p, 0.5, (np.log(4.0), 0.2))
    assert dram.TRCD[vendor][way] == pytest.approx((np.exp(mu), s), abs=2e-3)


@ways
def test_activation_is_as_near_as_it_says(vendor: str, way: str) -> None:
    t, p = activation_points(vendor, way)
    rms, largest = decades([getattr(open_memory(f"dram:vendor={vendor},trcd={x}").terms[0], way) for x in t], p)
    print(f"vendor {vendor} {way}: rms {rms:.3f}, largest {largest:.3f} decades")
    assert rms < 0.06
    assert largest < 0.09


def test_lognormal_fits_every_vendor_at_least_as_well_as_normal() -> None:
    for vendor in "ABC":
        squares = {"normal": 0.0, "lognormal": 0.0}
        for way in ("p01", "p10"):
            t, p = activation_points(vendor, way)
            for kind, x, start in (("normal", t, (4.0, 1.0)), ("lognormal", np.log(t), (np.log(4.0), 0.2))):
                mu, s = fit(x, p, 0.5, start)
                squares[kind] += float(((np.log(0.5) + norm.logcdf((mu - x) / s) - np.log(p)) ** 2).sum())
        print(vendor, {kind: round(float(np.sqrt(value / 6) / np.log(10)), 3) for kind, value in squares.items()})
        assert squares["lognormal"] <= squares["normal"]


@ways
@pytest.mark.parametrize("held_out", [0, 2], ids=["2.5 ns", "7.5 ns"])
def test_activation_end_points_are_predicted_by_the_others(vendor: str, way: str, held_out: int) -> None:
    """2.5 ns within 0.2 decades. 7.5 ns is beyond two points of which one is nearly saturated: vendors A and B only, loosely."""
    t, p = activation_points(vendor, way)
    kept = np.arange(3) != held_out
    mu, s = fit(np.log(t[kept]), np.minimum(p[kept], 0.499), 0.5, (np.log(4.0), 0.2))
    missed = abs(np.log10(0.5 * norm.cdf((mu - np.log(t[held_out])) / s) / p[held_out]))
    print(f"vendor {vendor} {way}: {t[held_out]} ns missed by {missed:.2f} decades")
    assert missed < (0.2 if held_out == 0 else 1.0) or (vendor, held_out) == ("C", 2)


def test_no_module_errs_from_10_ns_on() -> None:
    assert all(float(row[way]) == 0 for row in table("dram_trcd") if float(row["trcd"]) >= 10 for way in ("p01", "p10", "high"))
    for vendor in "ABC":
        assert all(term.rate < 1e-15 for term in open_memory(f"dram:vendor={vendor},trcd=10").terms)


def test_vendors_err_in_different_directions() -> None:
    """At 5 ns vendor C errs 18 times as often on zeros, vendor B nearly twice as often on ones; so do the emulated cells."""
    family = Family()
    for vendor, low, high in (("B", 0.4, 0.7), ("C", 14.0, 22.0)):
        memory, region = written(f"dram:vendor={vendor},trcd=5")
        term, wrong = memory.terms[0], wrong_bits(*written(f"dram:vendor={vendor},trcd=5"))
        ones = popcount(region.written)
        family.add(f"{vendor} p10", binomial(popcount(wrong & region.written), ones, term.p10))
        family.add(f"{vendor} p01", binomial(popcount(wrong & ~region.written), BITS - ones, term.p01))
        assert low < term.p01 / term.p10 < high
    family.judge()


def test_weak_cells_may_fail_at_some_accesses_only() -> None:
    """fails=F keeps the published rate and makes locations F times more numerous; a read fails in a share F of them."""
    memory, region = written("dram:trcd=7.5,fails=0.25")
    whole = open_memory("dram:trcd=7.5").terms[0]
    assert memory.terms[0].p01 == pytest.approx(4 * whole.p01)
    first, second = (wrong_bits(memory, region, read) for read in (0, 1))
    zeros = popcount(~region.written)
    assert binomial(popcount(first & ~region.written), zeros, whole.p01) > 1e-6
    again = popcount(first & second & ~region.written)
    assert binomial(again, zeros, memory.terms[0].p01 / 16) > 1e-6
    with pytest.raises(MemorySpecError, match="fails nearer to 1"):
        parse_spec("dram:trcd=2.5,fails=0.1").check()


# --- voltage -----------------------------------------------------------------------------------------------------------------


def line_points(vendor: str) -> tuple[np.ndarray, np.ndarray]:
    rows = [row for row in table("dram_lines") if row["vendor"] == vendor and float(row["share"]) > 0]
    return tuple(np.array([float(row[key]) for row in rows]) for key in ("vdd", "share"))


@pytest.mark.parametrize(("vendor", "rms_limit", "limit"), [("A", 0.01, 0.01), ("B", 0.235, 0.37), ("C", 0.02, 0.03)])
def test_bad_lines_follow_the_published_shares(vendor: str, rms_limit: float, limit: float) -> None:
    v, share = line_points(vendor)
    top = dram.LINES[vendor][2]
    assert dram.LINES[vendor][:2] == pytest.approx(fit(v, share, top, (1.1, 0.03)), abs=1e-4)
    rms, largest = decades([dram.bad_lines(vendor, x) for x in v], share)
    print(f"lines, vendor {vendor}: rms {rms:.3f}, largest {largest:.3f} decades")
    assert rms < rms_limit
    assert largest < limit


@pytest.mark.parametrize("vendor", ["B", "C"])
def test_held_out_voltages_are_predicted(vendor: str) -> None:
    v, share = line_points(vendor)
    missed = []
    for out in range(v.size):
        kept = np.arange(v.size) != out
        mu, s = fit(v[kept], share[kept], dram.LINES[vendor][2], (1.1, 0.03))
        missed.append(abs(float(np.log10(dram.LINES[vendor][2] * norm.cdf((mu - v[out]) / s) / share[out]))))
    print(f"lines, vendor {vendor}: held-out points missed by {', '.join(f'{m:.2f}' for m in missed)} decades")
    assert max(missed) < (0.7 if vendor == "B" else 0.15)


def test_published_error_free_voltages_have_no_errors() -> None:
    for row in table("dram_lines"):
        if float(row["vdd"]) >= dram.VDD_RANGE[row["vendor"]][1]:
            assert float(row["share"]) == 0 == dram.bad_lines(row["vendor"], float(row["vdd"]))


def test_errors_at_low_voltage_come_in_lines() -> None:
    """Vendor C at 1.2 V: the law's share of lines is bad, and a bit of a bad line flips with p_in_line."""
    memory, region = written("dram:vendor=C,vdd=1.2,p_in_line=0.05")
    wrong = wrong_bits(memory, region)
    share = dram.bad_lines("C", 1.2)
    counts = np.bitwise_count(wrong).reshape(-1, 8).sum(axis=1, dtype=np.int64)
    assert memory.terms[2].structure == Lines(512, 0.1)
    seen = share * (1 - 0.95**512)
    assert binomial(int((counts > 0).sum()), counts.size, seen) > 1e-6
    bad = counts[counts > 0]
    assert normal((bad.mean() - 512 * 0.05) / np.sqrt(512 * 0.05 * 0.95 / bad.size)) > 1e-6
    assert share == pytest.approx(0.256, rel=0.05)


def test_lower_voltage_only_adds_errors() -> None:
    memory, region = written("dram:vendor=C,p_in_line=0.02")
    before = np.zeros_like(region.written)
    for vdd in (1.35, 1.25, 1.2, 1.15, 1.1):
        wrong = wrong_bits(memory.at(vdd=vdd), region)
        assert within(before, wrong)
        before = wrong
    assert popcount(before) > 100


# --- retention ---------------------------------------------------------------------------------------------------------------


def retention_points() -> tuple[np.ndarray, ...]:
    rows = [row for row in table("dram_retention") if float(row["rate"]) > 0]
    return tuple(np.array([float(row[key]) for row in rows]) for key in ("interval", "temperature", "vdd", "rate"))


def retention_fit(t, temperature, vdd, p) -> np.ndarray:
    """Coefficients of the probit: 1, ln t, T - 45, 1.35 - V."""
    design = np.c_[np.ones_like(t), np.log(t), temperature - 45, 1.35 - vdd]
    return np.linalg.lstsq(design, norm.ppf(p), rcond=None)[0]


def test_retention_constants_come_back() -> None:
    c = retention_fit(*retention_points())
    ours = (dram.RETENTION_T50, dram.RETENTION_S, dram.RETENTION_PER_K, dram.RETENTION_PER_V)
    assert ours == pytest.approx((np.exp(-c[0] / c[1]), 1 / c[1], c[2] / c[1], c[3] / c[1]), rel=3e-3)


def test_retention_is_within_its_error() -> None:
    *points, p = retention_points()
    rms, largest = decades([dram.retention_rate(*map(float, point)) for point in zip(*points, strict=True)], p)
    print(f"retention: rms {rms:.3f}, largest {largest:.3f} decades")
    assert rms <= 0.21
    assert largest <= 0.41


@pytest.mark.parametrize("held_out", [0.512, 2.048])
def test_retention_predicts_the_shortest_and_longest_interval(held_out: float) -> None:
    t, temperature, vdd, p = retention_points()
    kept = t != held_out
    c = retention_fit(t[kept], temperature[kept], vdd[kept], p[kept])
    design = np.c_[np.ones_like(t), np.log(t), temperature - 45, 1.35 - vdd][~kept]
    error = np.abs(norm.logcdf(design @ c) / np.log(10) - np.log10(p[~kept]))
    print(f"retention at {held_out} s held out: missed by up to {error.max():.2f} decades")
    assert error.max() < (1.0 if held_out == 0.512 else 0.6)


def test_retention_grows_with_time_in_the_same_cells() -> None:
    """Nested over the interval, no new cells after a rewrite, and all errors of a row in one direction."""
    spec = "dram:extrapolate=yes,row_bits=512,temperature=70,refresh_interval="
    memory, region = written(spec + "2.048")
    before = np.zeros_like(region.written)
    for interval in (2.048, 20.0, 100.0, 400.0):
        wrong = wrong_bits(memory.at(refresh_interval=interval), region)
        assert within(before, wrong)
        before = wrong
    rate = memory.at(refresh_interval=400.0).terms[1].p01
    assert normal((popcount(before) - BITS * rate) / np.sqrt(BITS * rate)) > 1e-6
    rows = before.reshape(-1, 8)
    ones = region.written.reshape(-1, 8)
    lost, gained = (np.bitwise_count(rows & part).sum(axis=1) > 0 for part in (ones, ~ones))
    assert not (lost & gained).any()
    assert binomial(int(lost.sum()), int((lost | gained).sum()), 0.5) > 1e-6
    other = memory.write(~region.written, region.layout, region.key._replace(write=1))
    assert not (wrong_bits(memory.at(refresh_interval=400.0), other, write=1) & before).any()


@pytest.mark.parametrize("polarity", ["true", "anti"])
def test_all_cells_of_one_kind_err_one_way(polarity: str) -> None:
    """The counted cells lose a 1, or a 0; their number is that of the published law, not half of it."""
    memory, region = written(f"dram:polarity={polarity},extrapolate=yes,temperature=70,refresh_interval=100")
    stored = region.written if polarity == "true" else ~region.written
    wrong = wrong_bits(memory, region)
    assert within(wrong, stored)
    assert binomial(popcount(wrong), popcount(stored), dram.retention_rate(100.0, 70.0, 1.35)) > 1e-6


def test_the_temperature_slope_is_the_users() -> None:
    usual, steep = (
        open_memory(f"dram:temperature=70,refresh_interval=2,extrapolate=yes,retention_slope={k}").terms[1].rate
        for k in (0.0123, 0.03)
    )
    z = [norm.isf(2 * rate) for rate in (usual, steep)]
    assert (z[0] - z[1]) * dram.RETENTION_S == pytest.approx((0.03 - 0.0123) * 25, rel=1e-6)


# --- what is refused, and cost -----------------------------------------------------------------------------------------------

REFUSED = {
    "dram:vendor=A,vdd=1.05,p_in_line=0.1": "1.1 … 1.35 V",
    "dram:vdd=1.0": "extrapolate=yes",
    "dram:vdd=1.1": "without p_in_line",
    "dram:vdd=1.05,p_in_line=0.1,trcd=7.5": "Leave trcd at 10",
    "dram:vdd=1.1,p_in_line=0.1,refresh_interval=1": "from 1.15 V up",
    "dram:vdd=1.05,vdd_offset=0.1,p_in_line=0.1": "vdd_offset=0.1",
    "dram:vdd=1.05,temperature=50,p_in_line=0.1": "at 20 °C only",
    "dram:trcd=7,vdd=1.3": "at 1.35 V only",
    "dram:trcd=7,temperature=50": "at 20 °C only",
    "dram:temperature=70,refresh_interval=2,retention_slope=0.03": "0 … 2.926 s",
    "dram:refresh_interval=5": "0.064 … 2.048 s",
    "dram:temperature=85": "20 … 70",
    "dram:trp=7.5": "10 … 13.125",
    "dram:trcd=2": "2.5 … 13.125",
    "dram:trcd=5,structure=column,share=0.3": "without rows, columns",
    "eden:p=0.1": "no f",
    "eden:p=0.1,f=0.5,structure=data-dependent": "no f01",
    "eden:p=0.1,f=0.5,f10=0.1": "Give f instead",
    "eden:p=0.1,f=0.5,structure=bitline": "without share",
}


@pytest.mark.parametrize(("spec", "said"), REFUSED.items())
def test_what_was_not_measured_is_refused(spec: str, said: str) -> None:
    with pytest.raises(MemorySpecError) as caught:
        parse_spec(spec).check()
    assert said in str(caught.value)


def test_extrapolation_is_asked_for_by_name() -> None:
    for spec in (
        "vdd=1.05,p_in_line=0.1,trcd=7.5",
        "refresh_interval=5",
        "temperature=85",
        "vdd=1.05,vdd_offset=0.1,p_in_line=0.1",
        "vdd=1.05,temperature=50,p_in_line=0.1",
        "trcd=7,vdd=1.3,temperature=50",
        "vdd=1.1,p_in_line=0.1,refresh_interval=1",
    ):
        parse_spec(f"dram:{spec},extrapolate=yes").check()
    with pytest.raises(MemorySpecError):
        parse_spec("dram:trcd=2,extrapolate=yes").check()


def test_energy_is_published_at_nominal_voltage_and_assumed_below() -> None:
    tech = technology("dram")
    for row in table("dram_energy"):
        energy = tech.cost(tech.resolve({"type": row["type"]}), 100, Accesses(2)).energy
        assert (energy.value, energy.unit, energy.basis) == (pytest.approx(200 * float(row["energy"])), "pJ", "published")
    low = tech.cost(tech.resolve({"vdd": 1.15}), 1, Accesses(1)).energy
    assert (low.value, low.basis) == (pytest.approx(70 * (1.15 / 1.35) ** 2), "assumed")
    cost = tech.cost(
        tech.resolve({"refresh_power": 10.0, "refresh_interval": 0.64, "time_per_inference": 2.0, "trcd": 7.5}), 4, Accesses(1)
    )
    assert cost.parts["leakage"].value == pytest.approx(10 * 0.1 * 4 * 2)
    assert (cost.latency.value, cost.latency.unit) == (7.5, "ns")


# --- EDEN --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", ["uniform", "bitline", "wordline"])
def test_eden_cells_have_p_and_f(structure: str) -> None:
    """P F of the bits err at a read, in any data; two reads share P F^2."""
    shape = "" if structure == "uniform" else ",share=0.3,rows=512,columns=512"
    memory, region = written(f"eden:p=0.1,f=0.4,structure={structure}{shape}")
    first, second = (wrong_bits(memory, region, read) for read in (0, 1))
    groups = 1 if structure == "uniform" else 512
    for count, rate in ((popcount(first), 0.04), (popcount(first & second), 0.016)):
        assert abs(count / BITS - rate) < 5 * np.sqrt(rate * groups / BITS)
    assert memory.terms[0].drawn_at_read
    assert memory.terms[0].lifetime is Lifetime.DIE


def test_eden_lines_gather_in_columns_or_rows() -> None:
    for structure, axis in (("bitline", 0), ("wordline", 1)):
        memory, region = written(f"eden:p=0.1,f=1,structure={structure},share=0.3,rows=1024,columns=1024")
        cells = np.unpackbits(wrong_bits(memory, region).view(np.uint8), bitorder="little").reshape(1024, 1024)
        along, across = cells.sum(axis=axis), cells.sum(axis=1 - axis)
        assert along.var() / along.mean() > 5
        assert across.var() / across.mean() < 1.5


def test_eden_data_dependence() -> None:
    memory, region = written("eden:p=0.1,f01=0.2,f10=0.9,structure=data-dependent")
    wrong, ones = wrong_bits(memory, region), popcount(region.written)
    assert binomial(popcount(wrong & region.written), ones, 0.09) > 1e-6
    assert binomial(popcount(wrong & ~region.written), BITS - ones, 0.02) > 1e-6
    assert popcount(random_words()) == ones
