"""SRAM laws against the points that they were fitted to: the same constants again, the errors that they claim, nothing more."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from evidence import binomial
from scipy.optimize import curve_fit
from scipy.stats import norm

import memmodels
from memmodels import Accesses, Key, Layout, Lifetime, open_memory, technology
from memmodels.technologies import sram

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
def test_end_points_are_foretold_by_the_others(device: str) -> None:
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


def test_energy_of_14nm_is_the_fitted_power_law() -> None:
    """The constants come back from the whole published curve, and every point of it is met within 0.01."""
    data = columns(PUBLISHED / "sram_14nm_energy.csv")
    fitted, _ = curve_fit(lambda v, factor, exponent: factor * v**exponent, data["v_over_vmin"], data["energy"], [1, 2])
    constants = (sram.SRAM_14NM_ENERGY, sram.SRAM_14NM_EXPONENT)
    assert constants == pytest.approx(tuple(fitted), abs=2e-4)
    memory = open_memory("sram-14nm")
    region = memory.write(np.zeros(1, np.uint64), Layout("w", 64, 1), Key())
    for voltage, energy in zip(data["v_over_vmin"], data["energy"], strict=True):
        cost = memory.at(v_over_vmin=float(voltage)).cost(region, Accesses(reads=1)).energy
        assert cost.value == pytest.approx(energy, abs=0.01)
        assert (cost.unit, cost.basis) == ("x E(Vmin)", "published")


def test_energy_of_block_ram_is_an_assumption_and_says_so() -> None:
    memory = open_memory("sram-28nm-vc707:vdd=0.6")
    region = memory.write(np.zeros(1, np.uint64), Layout("w", 64, 1), Key())
    energy = memory.cost(region, Accesses(reads=1)).energy
    assert energy.value == pytest.approx(0.36)
    assert (energy.unit, energy.basis) == ("x E(1.0 V)", "assumed")


# --- conditions --------------------------------------------------------------------------------------------------------------


def test_volts_need_the_users_vmin() -> None:
    (volts,), (relative,) = open_memory("sram-14nm:vdd=0.51,vmin=0.6").terms, open_memory("sram-14nm:v_over_vmin=0.85").terms
    assert volts.p01 == pytest.approx(relative.p01, rel=1e-12)
    assert open_memory("sram-14nm").terms == open_memory("sram-14nm:v_over_vmin=1").terms


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
def test_a_whole_block_ram_fails_as_often_as_the_law_says(device: str) -> None:
    """The device emulated bit for bit at its lowest voltage, all ones stored: p-value above 1e-6, and near what was counted."""
    words = BLOCK_RAM_BITS[device] // 64
    voltages, p = points(device)
    memory = open_memory(_name(device), seed=1).at(vdd=float(voltages.min()))
    region = memory.write(~np.zeros(words, np.uint64), Layout("ram", words * 64, 1), Key())
    flips = memory.read(region, Key(), np.empty(words, np.uint64)).flips
    assert binomial(flips, words * 64, memory.terms[0].p10) > 1e-6
    assert abs(np.log10(flips / (p.max() * words * 64))) < 0.2


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
