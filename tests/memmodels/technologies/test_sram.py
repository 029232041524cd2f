"""SRAM laws against the points that they were fitted to: the same constants again, the errors that they claim, nothing more."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import curve_fit, minimize_scalar
from scipy.stats import norm

from tests.memmodels.evidence import binomial, normal
from tests.memmodels.memories import simulated
from weakcell import memmodels
from weakcell.memmodels import Accesses, Key, Layout, Lifetime, open_memory, technology
from weakcell.memmodels.error_model.structure import Bank
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.technologies import block_ram, sram
from weakcell.memmodels.technologies.support import table

PUBLISHED = Path(memmodels.__file__).parent / "published"

BLOCK_RAM_BITS = {"kc705b": 14_581_760, "vc707": 33_751_040}
LIMITS = {"14nm": 0.11, "kc705b": 0.08, "vc707": 0.08}
"""Largest rms deviation of a law from its points, in decades."""


def columns(path: Path) -> dict[str, np.ndarray]:
    """The columns of a CSV file with a header in # lines."""
    rows = list(csv.DictReader(line for line in path.read_text().splitlines() if not line.startswith("#")))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def points(device: str) -> tuple[np.ndarray, np.ndarray]:
    """(voltages, probabilities) as published."""
    if device == "14nm":
        data = columns(PUBLISHED / "sram_14nm.csv")
        return data["v_over_vmin"], data["ber"]
    data = columns(PUBLISHED / f"sram_28nm_{device}.csv")
    return data["vdd"], data["faults"] / BLOCK_RAM_BITS[device]


def law(device: str, voltages: np.ndarray) -> np.ndarray:
    """What the technology says at these voltages: p01 = p10 (14 nm), p10 (28 nm)."""
    memory = open_memory("sram-14nm" if device == "14nm" else f"sram-28nm-{device}")
    knob = memory.technology.sweep
    return np.array([memory.at(**{knob: float(v)}).terms[0].p10 for v in voltages])


def decades(voltages: np.ndarray, p: np.ndarray, constants: np.ndarray) -> np.ndarray:
    """log10 of law over data, with an oracle of the law: scipy's log of the normal distribution function."""
    mu, s = constants
    return norm.logcdf((mu - voltages) / s) / np.log(10) - np.log10(p)


def fit(voltages: np.ndarray, p: np.ndarray) -> np.ndarray:
    """(mu, s) by least squares of the probit of p, which the law makes a straight line over V."""
    slope, height = np.polyfit(voltages, norm.ppf(p), 1)
    return np.array([-height / slope, -1 / slope])


def shown(device: str) -> dict[str, str]:
    """The constants by name, as `weakcell memories` shows them."""
    return {name: value for name, value, _ in technology(_name(device)).constants}


def constants_of(device: str) -> np.ndarray:
    return np.array([float(shown(device)[name].split()[0]) for name in ("mu", "s")])


def _name(device: str) -> str:
    return "sram-14nm" if device == "14nm" else f"sram-28nm-{device}"


devices = pytest.mark.parametrize("device", list(LIMITS))


@devices
def test_fitting_again_gives_the_same_constants(device: str) -> None:
    assert constants_of(device) == pytest.approx(fit(*points(device)), abs=6e-5)


@devices
def test_laws_are_as_near_to_their_points_as_they_say(device: str) -> None:
    """rms and largest deviation in decades: within the limit, and what the technology's own record says, rounded."""
    voltages, p = points(device)
    error = np.log10(law(device, voltages) / p)
    rms, largest = np.sqrt(np.mean(error**2)), np.abs(error).max()
    assert rms <= LIMITS[device]
    numbers = [float(word.strip(",")) for word in shown(device)["fit error"].split() if word.strip(",").replace(".", "").isdigit()]
    assert rms == pytest.approx(numbers[0], abs=0.006)
    assert largest == pytest.approx(numbers[-1], abs=0.006)


@devices
def test_end_points_are_predicted_by_the_others(device: str) -> None:
    """Held out, the points of the lowest and highest voltage are missed by less than half a decade, others by a quarter."""
    voltages, p = points(device)
    missed = []
    for held_out in range(voltages.size):
        kept = np.arange(voltages.size) != held_out
        constants = fit(voltages[kept], p[kept])
        missed.append(abs(float(decades(voltages[~kept], p[~kept], constants)[0])))
    print(f"{device}: held-out points missed by {', '.join(f'{m:.2f}' for m in missed)} decades")
    ends, middle = [missed[0], missed[-1]], missed[1:-1]
    assert max(ends) < 0.5
    assert max(middle) < 0.25


@devices
@pytest.mark.parametrize("voltage", [0.55, 0.6, 0.76, 0.9, 0.99])
def test_the_law_is_the_normal_distribution_function(device: str, voltage: float) -> None:
    mu, s = constants_of(device)
    assert sram.probit(voltage, mu, s) == pytest.approx(norm.cdf((mu - voltage) / s), rel=1e-12)


def test_block_ram_has_no_faults_at_nominal_voltage() -> None:
    """Above the first voltage with a fault, the law expects less than one in the whole device, as the record says."""
    for device, first in (("kc705b", 0.60), ("vc707", 0.61)):
        assert law(device, np.array([first]))[0] * BLOCK_RAM_BITS[device] < 1.5
        assert law(device, np.array([1.0]))[0] * BLOCK_RAM_BITS[device] < 1e-9


# --- energy ------------------------------------------------------------------------------------------------------------------


def test_energy_of_14nm_is_the_fitted_law_through_1_at_vmin() -> None:
    """The constants come back from the whole published curve, which is met within 0.0127: its end at Vmin was read as 0.987."""
    data = columns(PUBLISHED / "sram_14nm_energy.csv")
    fitted, _ = curve_fit(lambda v, n, m: v ** (n + m * np.log(v)), data["v_over_vmin"], data["energy"], [2, 0])
    constants = (sram.SRAM_14NM_EXPONENT, sram.SRAM_14NM_BEND)
    assert constants == pytest.approx(tuple(fitted), abs=2e-4)
    misses = np.array([sram.access_energy(v) for v in data["v_over_vmin"]]) - data["energy"]
    assert np.sqrt((misses**2).mean()) < 0.0052
    assert sram.access_energy(1.0) == 1.0
    assert sram.access_energy(1.5) == pytest.approx(1.5**sram.SRAM_14NM_EXPONENT)
    memory = open_memory("sram-14nm")
    region = memory.write(np.zeros(1, np.uint64), Layout("w", 64, 1), Key())
    for voltage, energy in zip(data["v_over_vmin"], data["energy"], strict=True):
        cost = memory.at(v_over_vmin=float(voltage)).cost(region, Accesses(reads=1)).energy
        assert cost.value == pytest.approx(energy, abs=0.0103 if voltage < 1.0 else 0.0127)
        assert (cost.unit, cost.basis) == ("x E(Vmin)", "published")


@pytest.mark.parametrize("device", ["kc705b", "vc707"])
def test_energy_of_block_ram_is_the_published_power(device: str) -> None:
    """More than 10 times less at 0.61 V, a further 36.1 % less at 0.54 V; between, ln(energy) is linear in the voltage."""
    memory = open_memory(f"sram-28nm-{device}")
    region = memory.write(np.zeros(1, np.uint64), Layout("w", 64, 1), Key())
    energy = {v: memory.at(vdd=v).cost(region, Accesses(reads=1)).energy for v in (1.0, 0.805, 0.61, 0.575, 0.54)}
    assert {one.unit for one in energy.values()} == {"x E(1.0 V)"}
    assert (energy[1.0].value, energy[0.61].value) == (1.0, pytest.approx(0.1))
    assert energy[0.54].value / energy[0.61].value == pytest.approx(1.0 - 0.361)
    assert energy[0.805].value == pytest.approx(0.1**0.5)
    assert energy[0.575].value == pytest.approx(0.1 * 0.639**0.5)
    assert {v: one.basis for v, one in energy.items()} == {
        1.0: "published", 0.805: "computed", 0.61: "published", 0.575: "computed", 0.54: "published",
    }  # fmt: skip
    assert all("upper bound" in one.source and "leakage" in one.source for one in energy.values())


def test_energy_of_block_ram_below_the_last_published_voltage_keeps_the_slope() -> None:
    memory = open_memory("sram-28nm-kc705b:vdd=0.53")
    region = memory.write(np.zeros(1, np.uint64), Layout("w", 64, 1), Key())
    assert memory.cost(region, Accesses(1)).energy.value == pytest.approx(0.0639 * 0.639 ** (1 / 7))


def test_dynamic_energy_of_block_ram_is_an_assumption_and_says_so() -> None:
    memory = open_memory("sram-28nm-vc707:vdd=0.6,energy=dynamic")
    region = memory.write(np.zeros(1, np.uint64), Layout("w", 64, 1), Key())
    energy = memory.cost(region, Accesses(reads=1)).energy
    assert (energy.value, energy.unit, energy.basis) == (pytest.approx(0.36), "x E(1.0 V)", "assumed")


# --- conditions --------------------------------------------------------------------------------------------------------------


def test_volts_need_the_users_vmin() -> None:
    (volts,), (relative,) = open_memory("sram-14nm:vdd=0.51,vmin=0.6").terms, open_memory("sram-14nm:v_over_vmin=0.85").terms
    assert volts.p01 == pytest.approx(relative.p01, rel=1e-12)
    assert open_memory("sram-14nm").terms == open_memory("sram-14nm:v_over_vmin=1").terms


def test_14nm_is_extrapolated_where_that_is_asked_for_by_name() -> None:
    for spec in ("sram-14nm:v_over_vmin=0.73", "sram-14nm:vdd=0.365,vmin=0.5"):
        with pytest.raises(MemorySpecError, match="unless extrapolate=yes"):
            _ = open_memory(spec).terms
        assert open_memory(f"{spec},extrapolate=yes").terms[0].p01 == pytest.approx(norm.sf((0.73 - 0.7150) / 0.0562))
    for spec in ("sram-14nm:v_over_vmin=0.7,extrapolate=yes", "sram-14nm:vdd=0.35,vmin=0.5,extrapolate=yes"):
        with pytest.raises(MemorySpecError, match=r"0\.715"):
            _ = open_memory(spec).terms


def test_weak_cells_belong_to_the_die() -> None:
    for name in ("sram-14nm", "sram-28nm-kc705b", "sram-28nm-vc707"):
        tech = technology(name)
        assert tech.lifetimes(tech.resolve({})) == (Lifetime.DIE,)


def test_block_ram_errs_on_ones_unless_told_otherwise() -> None:
    """The published pattern was all ones: p01 was not measured."""
    (term,) = open_memory("sram-28nm-vc707:vdd=0.54").terms
    assert term.p01 == 0
    assert term.p10 > 1e-4
    (term,) = open_memory("sram-28nm-vc707:vdd=0.54,p01_share=0.5").terms
    assert term.p01 == term.p10 / 2


@pytest.mark.parametrize("device", list(BLOCK_RAM_BITS))
@pytest.mark.parametrize("share", ["independent", "clustered"])
def test_a_whole_block_ram_fails_as_often_as_the_law_says(device: str, share: str) -> None:
    """The device emulated bit for bit at its lowest voltage, all ones stored: p-value above 1e-6, and near what was counted."""
    words = BLOCK_RAM_BITS[device] // 64
    voltages, p = points(device)
    memory = open_memory(_name(device), seed=1).at(vdd=float(voltages.min()))
    if share == "independent":
        memory = memory.at(column_share=0.0)
    region = memory.write(~np.zeros(words, np.uint64), Layout("ram", words * 64, 1), Key())
    flips, rate = memory.read(region, Key(), np.empty(words, np.uint64)).flips, memory.terms[0].p10
    if share == "independent":
        assert binomial(flips, words * 64, rate) > 1e-6
    else:
        _, fano = column_statistics(rate, float(memory.conditions["column_share"]), 1024)
        assert normal((flips - words * 64 * rate) / np.sqrt(words * 64 * rate * fano)) > 1e-6
    assert abs(np.log10(flips / (p.max() * words * 64))) < 0.2


# --- clustering --------------------------------------------------------------------------------------------------------------

PAIRS, ROWS = 7120, 1024
"""Unique (block, column) pairs of KC705 board B, and cells in each: both bytes of a word are equal in the maps."""
COUNTED = {"0.53": (1137, 306, 15.94), "0.55": (126, 60, 4.014)}
"""Volt -> faulty cells, pairs with a fault, Fano factor per pair."""


def column_statistics(rate: float, share: float, rows: int) -> tuple[float, float]:
    """(share of faulty columns, Fano factor) by adaptive quadrature over the column's normal value."""

    def mean(of) -> float:
        def integrand(x: float) -> float:
            return norm.pdf(x) * of(norm.cdf((norm.ppf(rate) + np.sqrt(share) * x) / np.sqrt(1 - share)))

        return quad(integrand, -8, 9, limit=200, epsabs=0, epsrel=1e-8)[0]

    faulty = mean(lambda q: -np.expm1(rows * np.log1p(-q)))
    m, square = rows * rate, rows * (rows - 1) * mean(lambda q: q * q)
    return faulty, (square + m - m * m) / m


@pytest.mark.parametrize("volt", COUNTED)
def test_column_share_gives_the_published_clustering(volt: str) -> None:
    """Fault-free columns within 1.6 points, Fano factor within a factor of 1.5, at the counted rate; independent ones do not."""
    faults, pairs, fano = COUNTED[volt]
    rate = faults / (PAIRS * ROWS)
    faulty, spread = column_statistics(rate, block_ram.COLUMN_SHARE, ROWS)
    alone = -np.expm1(ROWS * np.log1p(-rate))
    print(f"{volt} V: fault-free {1 - faulty:.4f} (counted {1 - pairs / PAIRS:.4f}, independent {1 - alone:.4f}); "
          f"Fano {spread:.2f} (counted {fano})")  # fmt: skip
    assert abs(faulty - pairs / PAIRS) < 0.016
    assert 1 / 1.5 < spread / fano < 1.5
    assert alone > 1.9 * pairs / PAIRS


@pytest.mark.parametrize("volt", COUNTED)
def test_emulated_dies_cluster_like_the_counted_one(volt: str) -> None:
    """40 dies of 7120 columns at the law's rate: means by the closed form, and the counted Fano factor among the dies'."""
    (term,) = open_memory(f"sram-28nm-kc705b:vdd={volt}").terms
    term = replace(term, structure=replace(term.structure, bank=Bank(ROWS, 8)))
    words, layout = PAIRS * ROWS // 64, Layout("ram", PAIRS * ROWS, 1)
    faulty, fano = [], []
    for die in range(40):
        memory = simulated(term, seed=3, die=die)
        region = memory.write(~np.zeros(words, np.uint64), layout, Key())
        out = np.empty(words, np.uint64)
        memory.read(region, Key(), out)
        cells = np.unpackbits((~out).view(np.uint8), bitorder="little").reshape(-1, ROWS, 8)
        counts = cells.sum(axis=1, dtype=np.int64).reshape(-1)
        faulty.append((counts > 0).mean())
        fano.append(counts.var() / counts.mean())
    expected, spread = column_statistics(term.p10, block_ram.COLUMN_SHARE, ROWS)
    print(f"{volt} V: faulty columns {np.mean(faulty):.4f} (law {expected:.4f}), Fano {np.mean(fano):.2f} (law {spread:.2f}), "
          f"{min(fano):.1f} to {max(fano):.1f} over dies, counted {COUNTED[volt][2]}")  # fmt: skip
    assert normal((np.mean(faulty) - expected) / np.sqrt(expected * (1 - expected) / (PAIRS * 40))) > 1e-6
    assert abs(np.mean(fano) / spread - 1) < 0.2
    assert min(fano) < COUNTED[volt][2] < max(fano)


def test_the_column_share_is_the_best_of_the_four_statistics() -> None:
    """Least squares of the logarithms of faulty pairs and Fano factor at both voltages."""

    def misfit(share: float) -> float:
        total = 0.0
        for faults, pairs, fano in COUNTED.values():
            faulty, spread = column_statistics(faults / (PAIRS * ROWS), share, ROWS)
            total += np.log(faulty * PAIRS / pairs) ** 2 + np.log(spread / fano) ** 2
        return total

    best = minimize_scalar(misfit, bounds=(0.3, 0.5), method="bounded").x
    assert best == pytest.approx(block_ram.COLUMN_SHARE, abs=0.01)


# --- conventions -------------------------------------------------------------------------------------------------------------


def flip_rate(spec: str) -> float:
    """Flips per bit on random data, 4 Mbit."""
    memory, layout = open_memory(spec, seed=5), Layout("w", 1 << 22, 1)
    region = memory.write(np.random.default_rng(1).integers(0, 1 << 64, layout.words, np.uint64), layout, Key())
    return memory.read(region, Key(), np.empty(layout.words, np.uint64)).flips / layout.bits


@pytest.mark.parametrize("density", [float(row["density"]) for row in table("sram_14nm_operating_points")][:3])
def test_stuck_cells_of_neuralfuse_show_half_of_their_density(density: float) -> None:
    """A density p of stuck cells, half at 1 and half at 0, flips p/2 of random bits; a flip rate p flips p."""
    stuck = flip_rate(f"uniform:p01={density / 2},p10={density / 2},lifetime=die")
    flips = flip_rate(f"uniform:ber={density},lifetime=die")
    assert binomial(round(stuck * (1 << 22)), 1 << 22, density / 2) > 1e-6
    assert binomial(round(flips * (1 << 22)), 1 << 22, density) > 1e-6


def test_the_same_curve_counts_flips_or_stuck_cells() -> None:
    (flips,), (stuck,) = (open_memory(f"sram-14nm:v_over_vmin=0.85,counts={counts}").terms for counts in ("flips", "stuck"))
    assert (stuck.p01, stuck.p10) == (flips.p01 / 2, flips.p10 / 2)


def test_both_readings_of_the_curve_are_shown_side_by_side() -> None:
    """The constants and TRUST.md give voltage and energy of a flip rate as scipy's quantiles have them."""
    page = (PUBLISHED.parent / "TRUST.md").read_text(encoding="utf-8")
    shown = {name: value for name, value, _ in sram.SRAM_14NM.constants}
    for rate, text in ((1e-3, "1e-3"), (1e-2, "1e-2"), (3e-2, "3e-2")):
        volts = [sram.SRAM_14NM_MU + sram.SRAM_14NM_S * norm.isf(p) for p in (rate, 2 * rate)]
        energies = [v ** (sram.SRAM_14NM_EXPONENT + sram.SRAM_14NM_BEND * np.log(v)) for v in volts]
        cells = " | ".join(f"{v:.3f} Vmin, {e:.3f}" for v, e in zip(volts, energies, strict=True))
        assert f"| {text} | {cells} | {100 * (energies[0] - energies[1]):.1f} |" in page
        for counts in ("flips", "stuck") if rate < 2e-2 else ():
            v, e = (values[counts == "stuck"] for values in (volts, energies))
            assert f"counts={counts} {v:.3f} Vmin, {e:.3f}" in shown[f"flip rate {rate:g}: voltage, energy"]


def test_neuralfuse_has_two_points_of_the_14nm_curve() -> None:
    """Their first two operating points are the digitised rates at 0.846 and 0.868 Vmin, within the reading error of 12 %."""
    theirs = [float(row["density"]) for row in table("sram_14nm_operating_points")][:2]
    curve = dict(zip(*points("14nm"), strict=True))
    assert theirs == pytest.approx([curve[0.845914], curve[0.867601]], rel=0.12)


def test_the_22nm_network_at_half_voltage_counts_flips() -> None:
    """arXiv 2007.08952: a bit error rate of about 1e-3. It is a flip rate: 1e-3 of random bits come back inverted."""
    assert binomial(round(flip_rate("uniform:ber=1e-3,lifetime=die") * (1 << 22)), 1 << 22, 1e-3) > 1e-6


def test_laws_do_not_carry_over_to_other_chips() -> None:
    """The figures of the trust page: one board on the other at 0.55 V, and 14 nm chips of two laboratories."""
    kc, vc = law("kc705b", np.array([0.55]))[0], law("vc707", np.array([0.55]))[0]
    assert np.log10(vc / kc) == pytest.approx(1.13, abs=0.05)
    implied = 7e-4
    assert np.log10(law("14nm", np.array([0.675 / 0.85]))[0] / implied) == pytest.approx(2.06, abs=0.05)


# --- the sources -------------------------------------------------------------------------------------------------------------


def test_our_points_are_those_of_the_shared_data(shared: Path) -> None:
    data = shared / "device-data"
    ours, theirs = columns(PUBLISHED / "sram_14nm.csv"), columns(data / "sram_14nm_stutz2021_ber_vs_v.csv")
    for mine, its in (("v_over_vmin", "v_norm"), ("ber", "p"), ("energy", "e_norm")):
        assert ours[mine].tolist() == theirs[its].tolist()
    for device, bits in BLOCK_RAM_BITS.items():
        ours = columns(PUBLISHED / f"sram_28nm_{device}.csv")
        theirs = columns(data / f"sram_28nm_fpga_bram_{device}.csv")
        assert ours["vdd"].tolist() == theirs["vccbram_V"].tolist()
        assert ours["faults"].tolist() == theirs["faults"].tolist()
        assert (ours["faults"] / bits).tolist() == pytest.approx(theirs["p10"].tolist(), rel=1e-5)


def test_our_energy_curve_is_that_of_the_shared_data(shared: Path) -> None:
    ours, theirs = (
        columns(PUBLISHED / "sram_14nm_energy.csv"),
        columns(shared / "device-data" / "sram_14nm_stutz2021_energy_vs_v.csv"),
    )
    assert ours["v_over_vmin"].tolist() == theirs["v_norm"].tolist()
    assert ours["energy"].tolist() == theirs["e_norm"].tolist()


@pytest.mark.parametrize("name", ["sram_14nm", "sram_14nm_energy", "sram_28nm_kc705b", "sram_28nm_vc707"])
def test_published_files_name_source_status_and_units(name: str) -> None:
    header = [line for line in (PUBLISHED / f"{name}.csv").read_text().splitlines() if line.startswith("#")]
    for word in ("# source:", "# status:", "# units:"):
        assert any(line.startswith(word) for line in header)
