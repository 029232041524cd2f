"""RRAM levels: the published widths, closed forms by simulation of Gaussian currents, nesting in time, codes, and energy."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from tests.memmodels.evidence import binomial
from tests.memmodels.technologies.reads import BITS, decades, random_words, within, written, wrong_bits
from weakcell.memmodels import Accesses, Key, Layout, open_memory, parse_spec, technology
from weakcell.memmodels.address import popcount
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.technologies import rram
from weakcell.memmodels.technologies.support import table


def relaxation(shared: Path) -> list[dict[str, str]]:
    lines = (shared / "device-data" / "rram_wan2022_relaxation.csv").read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def test_widths_and_error_rates_are_those_of_the_shared_data(shared: Path) -> None:
    """Every row: both deviations, the 1T1R or level error, the 2T2R error, within 0.1 % (their tails to 1e-192)."""
    for row in relaxation(shared):
        low, high, time = float(row["g_low_uS"]), float(row["g_high_uS"]), float(row["t_s"])
        assert rram.sigma(low, time) == pytest.approx(float(row["sigma_low"]), rel=1e-4)
        assert rram.sigma(high, time) == pytest.approx(float(row["sigma_high"]), rel=1e-4)
        if row["scheme"] != "binary":
            continue
        for cell, key in (("1T1R", "ber_1t1r_or_level"), ("2T2R", "ber_2t2r")):
            (term,) = open_memory(f"rram:g_low={low},g_high={high},time={time},cell={cell}").terms
            assert term.rate == pytest.approx(float(row[key]), rel=1e-3)


def test_four_levels_have_the_published_borders(shared: Path) -> None:
    for time in (1, 86400, 172800):
        rows = [row for row in relaxation(shared) if row["scheme"] == "2bit" and float(row["t_s"]) == time]
        (term,) = open_memory(f"rram:bits_per_cell=2,time={time}").terms
        assert term.up[:3] == pytest.approx([float(row["ber_1t1r_or_level"]) for row in rows], rel=1e-3)
        assert term.down[1:] == term.up[:3]


@pytest.mark.parametrize("cell", ["1T1R", "2T2R"])
def test_closed_forms_are_those_of_gaussian_conductances(cell: str, rng: np.random.Generator) -> None:
    """Two million drawn pairs of conductances against the law."""
    n, low, high, time = 2_000_000, 1.0, 10.0, 86400.0
    s_low, s_high = rram.sigma(low, time), rram.sigma(high, time)
    g_low, g_high = rng.normal(low, s_low, n), rng.normal(high, s_high, n)
    border = low + (high - low) * s_low / (s_low + s_high)
    wrong = int((g_low > border).sum()) if cell == "1T1R" else int((g_low > g_high).sum())
    (term,) = open_memory(f"rram:g_high=10,time=86400,cell={cell}").terms
    assert binomial(wrong, n, term.up[0]) > 1e-6


def test_widths_between_the_published_times_lie_between() -> None:
    for g in (0.0, 1.0, 10.0, 20.0, 40.0):
        day = [rram.sigma(g, t) for t in (1.0, 60.0, 3600.0, 86400.0)]
        assert day == sorted(day)
        half = rram.sigma(g, np.sqrt(86400.0))
        assert half == pytest.approx((rram.sigma(g, 1.0) + rram.sigma(g, 86400.0)) / 2, rel=1e-9)


@pytest.mark.parametrize("spec", ["rram:g_high=10", "rram:g_high=10,cell=2T2R", "rram:bits_per_cell=2", "rram:bits_per_cell=3"])
def test_cells_that_were_misread_stay_misread_as_levels_widen(spec: str) -> None:
    memory, region = written(spec)
    before = np.zeros_like(region.written)
    for time in (1.0, 60.0, 3600.0, 86400.0):
        wrong = wrong_bits(memory.at(time=time), region)
        assert within(before, wrong)
        assert np.array_equal(wrong, wrong_bits(memory.at(time=time), region, read=7))
        before = wrong
    again = memory.write(region.written, region.layout, Key(0, 1, 0))
    assert not np.array_equal(wrong_bits(memory.at(time=86400.0), again, write=1), before)


@pytest.mark.parametrize("bits", [1, 2, 3])
@pytest.mark.parametrize("code", ["gray", "binary"])
def test_flips_are_as_many_as_the_levels_say(bits: int, code: str) -> None:
    """Random data; cells are independent, and a cell's flips are a known sum, so the total is nearly normal."""
    time = 86400 if bits > 1 else 3600
    memory, region = written(f"rram:bits_per_cell={bits},code={code},time={time},g_high={40 if bits > 1 else 10}", words_of(bits))
    flips, n = popcount(wrong_bits(memory, region)), region.layout.bits
    rate = memory.terms[0].rate
    assert abs(flips - n * rate) < 5 * np.sqrt(n * rate * bits)


def words_of(bits: int) -> np.ndarray:
    return random_words(BITS * 3 if bits == 3 else BITS)


def test_gray_code_spoils_one_bit_where_binary_spoils_up_to_three() -> None:
    """Three bits: each misread cell flips one bit in Gray code; in binary, 11/7 on average over even borders."""
    wrong = {}
    for code in ("gray", "binary"):
        memory, region = written(f"rram:bits_per_cell=3,code={code},time=86400", random_words(BITS * 3))
        cells = np.unpackbits(wrong_bits(memory, region).view(np.uint8), bitorder="little")
        wrong[code] = cells[: cells.size // 3 * 3].reshape(-1, 3)
        up = memory.terms[0].up[:7]
    assert set(np.unique(wrong["gray"].sum(axis=1))) == {0, 1}
    assert set(np.unique(wrong["binary"].sum(axis=1))) == {0, 1, 2, 3}
    changed = [1, 2, 1, 3, 1, 2, 1]
    expected = sum(p * c for p, c in zip(up, changed, strict=True)) / sum(up)
    assert wrong["binary"].sum() / (wrong["binary"].sum(axis=1) > 0).sum() == pytest.approx(expected, rel=0.02)
    per_bit = wrong["gray"].mean(axis=0)
    low, middle, high = (sum(up[i] for i in places) / 4 for places in ((0, 2, 4, 6), (1, 5), (3,)))
    assert per_bit == pytest.approx([low, middle, high], rel=0.02)


@pytest.mark.parametrize("bits", [2, 3])
@pytest.mark.parametrize("code", ["gray", "binary"])
def test_every_bit_position_errs_as_often_as_its_code_says(code: str, bits: int) -> None:
    """Bit b flips where the codes of two neighbouring levels differ in it: counted by position on random data."""
    memory, region = written(f"rram:bits_per_cell={bits},code={code},time=86400", random_words(BITS * 3))
    wrong = np.unpackbits(wrong_bits(memory, region).view(np.uint8), bitorder="little")[: BITS * 3 // bits * bits].reshape(-1, bits)
    (term,), levels = memory.terms, range(1 << bits)
    codes = [level ^ (level >> 1) if code == "gray" else level for level in levels]
    moves = [(codes[i] ^ codes[j], p) for way, step in ((term.up, 1), (term.down, -1)) for i, p in enumerate(way)
             if (j := i + step) in levels]  # fmt: skip
    for bit in range(bits):
        rate = sum(p for differing, p in moves if differing >> bit & 1) / len(levels)
        assert binomial(int(wrong[:, bit].sum()), len(wrong), rate) > 1e-6, bit


def test_pairs_err_less_than_single_cells() -> None:
    """With equal widths z grows by sqrt 2; here it lies between that and twice."""
    one, pair = (open_memory(f"rram:g_high=10,time=86400,cell={cell}").terms[0].rate for cell in ("1T1R", "2T2R"))
    assert 1.0 < norm.isf(pair) / norm.isf(one) <= np.sqrt(2) + 1e-9


def test_nvmexplorer_levels_are_those_of_the_table() -> None:
    for bits in ("1", "2", "3"):
        (term,) = open_memory(f"rram-mlc:bits_per_cell={bits}").terms
        rows = [row for row in table("rram_levels") if row["bits"] == bits]
        for way, ours in (("up", term.up), ("down", term.down)):
            theirs = np.array([float(row[way]) for row in rows])
            seen = theirs > 0
            assert all(p < 1e-300 for p in np.array(ours)[~seen])
            if seen.any():
                rms, largest = decades(np.array(ours)[seen], theirs[seen])
                print(f"{bits} bits {way}: rms {rms:.1e}, largest {largest:.1e} decades")
                assert largest < 1e-3


def test_wear_and_outliers_are_the_users() -> None:
    fresh, worn = (open_memory(f"rram:g_high=10{more}").terms[0].rate for more in ("", ",cycles=1e4,wear=0.1"))
    assert norm.isf(fresh) / norm.isf(worn) == pytest.approx(1.4, rel=1e-9)
    assert open_memory("rram:tail=1e-5").terms[0].rate == pytest.approx(1e-5)
    for spec, said in {"rram:cycles=10": "without wear", "rram:cell=2T2R,bits_per_cell=2": "one bit", "rram:time=2e5": "172800",
                       "rram:g_low=20,g_high=10": "upside down", "rram:time=0.5": "1 …"}.items():  # fmt: skip
        with pytest.raises(MemorySpecError) as caught:
            parse_spec(spec).check()
        assert said in str(caught.value)


def test_energy_in_joules_or_relative_never_both() -> None:
    tech = technology("rram")

    def cost(**given):
        return tech.cost(tech.resolve(given), 64, Accesses(1))

    array, survey, window = (cost(energy=name) for name in ("nvsim-22nm", "survey", "window"))
    assert (array.energy.unit, array.energy.basis, array.energy.value) == ("pJ", "published", pytest.approx(4.028, rel=1e-3))
    assert (survey.energy.unit, survey.energy.value) == ("pJ", 64)
    assert (window.energy.unit, window.energy.basis) == ("x E(g_high = 40 uS)", "assumed")
    assert cost(energy="window", g_high=20).energy.value == 0.5
    assert cost(cell="2T2R").energy.value == pytest.approx(2 * array.energy.value)
    assert cost(cell="2T2R").energy.basis == "assumed"
    written_once = cost(energy="survey", inferences_per_write=10.0)
    assert written_once.parts["write"].value == pytest.approx(64 * (67 + 681) / 2 / 10)
    assert "write" not in array.parts


def test_layouts_of_odd_size_keep_their_spare_bits() -> None:
    memory = open_memory("rram:bits_per_cell=3,time=86400")
    layout = Layout("odd", 101, 1)
    region = memory.write(np.array([0, 0], np.uint64), layout, Key())
    out = np.empty(2, np.uint64)
    memory.read(region, Key(), out)
    assert int(out[1]) >> 37 == 0
