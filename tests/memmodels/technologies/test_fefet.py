"""FeFET currents with scipy's gamma distribution as the oracle: the published rates, both thresholds, levels, temperature."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import gamma, norm

from tests.memmodels.evidence import binomial
from tests.memmodels.technologies.reads import BITS, decades, random_words, written, wrong_bits
from weakcell.memmodels import Accesses, Lifetime, open_memory, parse_spec, technology
from weakcell.memmodels.address import popcount
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.technologies.support import table


def states(row: dict[str, str]):
    return [gamma(float(row[f"a{s}"]), float(row[f"loc{s}"]), float(row[f"scale{s}"])) for s in "01"]


@pytest.mark.parametrize("row", table("fefet_domains"), ids=lambda row: row["domains"])
def test_half_way_threshold_gives_the_published_rates(row: dict[str, str]) -> None:
    (term,) = open_memory(f"fefet:domains={row['domains']}").terms
    low, high = states(row)
    border = (low.median() + high.median()) / 2
    assert term.p01 == pytest.approx(float(row["p01"]), rel=1e-4)
    assert term.p01 == pytest.approx(low.sf(border), rel=1e-9)
    assert (term.p10, term.lifetime) == (0.0, Lifetime.WRITE)


@pytest.mark.parametrize("row", table("fefet_domains"), ids=lambda row: row["domains"])
def test_the_optimal_threshold_is_the_best_of_a_grid(row: dict[str, str]) -> None:
    (term,) = open_memory(f"fefet:domains={row['domains']},threshold=optimal").terms
    low, high = states(row)
    grid = np.linspace(low.median(), high.median(), 200_001)
    best = (low.sf(grid) + high.cdf(grid)).min()
    assert term.p01 + term.p10 <= best * (1 + 1e-6)
    assert term.p01 + term.p10 == pytest.approx(best, rel=1e-3)
    print(f"{row['domains']} domains: half-way {float(row['p01']):.1e}, optimal p01 {term.p01:.1e}, p10 {term.p10:.1e}")


def test_the_square_root_law_is_within_its_error() -> None:
    """z = 0.202 + 0.252 sqrt(N): the constants by least squares, 0.07 decades at the points, 0.09 between them."""
    n = np.array([float(row["domains"]) for row in table("fefet_domains")])
    z = norm.isf([float(row["p01"]) for row in table("fefet_domains")])
    slope, height = np.polyfit(np.sqrt(n), z, 1)
    assert (height, slope) == (pytest.approx(0.202, abs=1e-3), pytest.approx(0.252, abs=1e-3))
    at = np.append(np.linspace(50, 300, 26), n)
    law = [open_memory(f"fefet:domains={x}").terms[0].p01 for x in at]
    rms, largest = decades(norm.sf(0.202 + 0.252 * np.sqrt(at)), law)
    print(f"square-root law: rms {rms:.3f}, largest {largest:.3f} decades")
    assert largest < 0.09


@pytest.mark.parametrize("held_out", [0, 3])
def test_the_smallest_and_largest_cell_are_predicted(held_out: int) -> None:
    n = np.array([float(row["domains"]) for row in table("fefet_domains")])
    z = norm.isf([float(row["p01"]) for row in table("fefet_domains")])
    kept = np.arange(4) != held_out
    slope, height = np.polyfit(np.sqrt(n[kept]), z[kept], 1)
    missed = abs(np.log10(norm.sf(height + slope * np.sqrt(n[held_out])) / norm.sf(z[held_out])))
    print(f"{n[held_out]:g} domains held out: missed by {missed:.2f} decades")
    assert missed < 0.25


def test_other_cell_sizes_are_extrapolated_where_that_is_asked_for_by_name() -> None:
    """Beyond the last two sizes z goes on linearly in sqrt(domains)."""
    with pytest.raises(MemorySpecError, match="unless extrapolate=yes"):
        open_memory("fefet:domains=400")
    n = np.array([float(row["domains"]) for row in table("fefet_domains")])
    z = norm.isf([float(row["p01"]) for row in table("fefet_domains")])
    for size, pair in ((400, slice(-2, None)), (20, slice(0, 2))):
        line = np.polyfit(np.sqrt(n[pair]), z[pair], 1)
        found = open_memory(f"fefet:domains={size},extrapolate=yes").terms[0].p01
        assert found == pytest.approx(norm.sf(np.polyval(line, np.sqrt(size))), rel=2e-3)


@pytest.mark.parametrize("bits", ["2", "3"])
def test_levels_are_those_of_the_table(bits: str) -> None:
    (term,) = open_memory(f"fefet:bits_per_cell={bits}").terms
    rows = [row for row in table("fefet_levels") if row["bits"] == bits]
    assert term.up == pytest.approx([float(row["up"]) for row in rows], rel=1e-4)
    assert term.down == pytest.approx([float(row["down"]) for row in rows], rel=1e-4)


def test_zeros_are_read_as_ones_never_the_reverse() -> None:
    memory, region = written("fefet:domains=50")
    wrong = wrong_bits(memory, region)
    assert popcount(wrong & region.written) == 0
    zeros = popcount(~region.written)
    assert binomial(popcount(wrong), zeros, memory.terms[0].p01) > 1e-6
    assert np.array_equal(wrong, wrong_bits(memory, region, read=3))


def test_three_bits_flip_as_often_as_the_levels_say() -> None:
    memory, region = written("fefet:bits_per_cell=3,code=binary", random_words(3 * BITS))
    flips, n, rate = popcount(wrong_bits(memory, region)), 3 * BITS, memory.terms[0].rate
    assert abs(flips - n * rate) < 5 * np.sqrt(3 * n * rate)


def test_heat_closes_the_window_as_far_as_the_user_says() -> None:
    """Both currents move to the middle by half the loss of the window; scipy's gamma with shifted starts is the oracle."""
    low, high = states(table("fefet_domains")[1])
    window = high.median() - low.median()
    border, shift = (high.median() + low.median()) / 2, 0.004 * 60 * window / 2
    (term,) = open_memory("fefet:domains=100,temperature=85,window_slope=0.004").terms
    assert term.p01 == pytest.approx(low.sf(border - shift), rel=1e-9)
    (hot,) = open_memory("fefet:domains=100,temperature=105,window_slope=0.009").terms
    assert hot.p10 == pytest.approx(high.cdf(border + 0.009 * 80 * window / 2), rel=1e-9)
    assert hot.p10 > 0


REFUSED = {
    "fefet": "Give domains",
    "fefet:domains=40": "50 … 300",
    "fefet:domains=301": "50 … 300",
    "fefet:domains=100,temperature=85": "without window_slope",
    "fefet:domains=100,bits_per_cell=2": "Leave it out",
    "fefet:domains=100,temperature=125,window_slope=0.05": "window has closed",
    "fefet:domains=100,temperature=-40,window_slope=0.05": "4.2 times as wide",
}


@pytest.mark.parametrize(("spec", "said"), REFUSED.items())
def test_what_the_law_does_not_cover_is_refused(spec: str, said: str) -> None:
    with pytest.raises(MemorySpecError) as caught:
        parse_spec(spec).check()
    assert said in str(caught.value)


def test_more_bits_per_cell_cost_less_by_assumption() -> None:
    tech = technology("fefet")
    one, two = (tech.cost(tech.resolve({"bits_per_cell": bits}), 64, Accesses(1)).energy for bits in "12")
    assert (one.value, one.basis) == (pytest.approx(0.705, rel=1e-3), "published")
    assert (two.value, two.basis) == (pytest.approx(one.value / 2), "assumed")
