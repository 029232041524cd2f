"""The statistical defects a–j that were found in other tools (field notes, end of section 2): none of them here.

    a  int(p N): zero variance, no faults where p N < 1     f  a percentage that compounds
    b  two draws that cancel                                g  stuck-at sets that overlap
    c  seeds from the clock                                 h  the padding value of biasymmetric tensors
    d  the global random state                              i  the last variable is skipped
    e  bounds that refuse legal rates                       j  counters that tell of the last group only

Significance: each test judges its p-values as one family at ALPHA = 1e-6 (see `evidence`).

h has two sides. Here: the spare bits of a region's last word are not cells. Zero padding of ±1 activations is the engine's: its
comparison of binary convolutions with onnxruntime, in `tests/emulator`.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.memmodels.evidence import ALPHA, Family, binomial, variance_fits
from tests.memmodels.memories import LAYOUTS, contents, get, put, simulated
from weakcell.memmodels import Accesses, Cells, ErrorTerm, Key, Layout, Lifetime, open_memory, pack, technology, unpack
from weakcell.memmodels.address import BLOCK_BITS, Words, popcount
from weakcell.memmodels.sampling.sampler import draw_region

LIFETIMES = [lifetime.value for lifetime in (Lifetime.READ, Lifetime.WRITE, Lifetime.DIE)]
FIRST = Key()
lifetimes = pytest.mark.parametrize("lifetime", LIFETIMES)


def flips_of(spec: str, layout: Layout, seed: int = 1, die: int = 0, key: Key = FIRST) -> Words:
    memory = open_memory(spec, seed, die)
    region = memory.write(contents(layout), layout, key)
    out = np.empty_like(region.written)
    memory.read(region, key, out)
    return out ^ region.written


@lifetimes
def test_defect_a_counts_have_the_variance_of_a_binomial(lifetime: str) -> None:
    """400 draws of 1000 bits at 0.01 and at 0.0004: neither all 10, nor all 0."""
    family, layout = Family(), Layout("w", 1000, 1)
    for rate in (0.01, 0.0004):
        spec = f"uniform:ber={rate},lifetime={lifetime},cells=invert"
        counts = np.array([popcount(flips_of(spec, layout, die=die, key=Key(die))) for die in range(400)])
        assert np.unique(counts).size > 1
        family.add(f"mean at {rate}", binomial(int(counts.sum()), 400_000, rate))
        family.add(f"variance at {rate}", variance_fits(counts, 1000, rate))
        family.add(f"none at {rate}", binomial(int(np.count_nonzero(counts == 0)), 400, (1 - rate) ** 1000))
    family.judge()


@pytest.mark.parametrize("rate", [0.2, 0.45, 0.5, 0.55, 0.9])
def test_defect_b_hits_that_cancel_are_accounted_for(rate: float) -> None:
    """Places are drawn with replacement, so some cells are hit twice: the rate of flips is p all the same, read or die."""
    layout, family = Layout("w", 1 << 20, 1), Family()
    for lifetime in LIFETIMES:
        flips = flips_of(f"uniform:ber={rate},lifetime={lifetime},cells=invert", layout, seed=3)
        family.add(lifetime, binomial(popcount(flips), layout.bits, rate))
    family.judge()


@lifetimes
def test_defect_c_the_clock_is_not_asked(lifetime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another instance at another time draws the same bits."""
    spec, layout = f"uniform:ber=0.1,lifetime={lifetime}", Layout("w", 100_000, 1)
    now = flips_of(spec, layout)
    for clock in ("time", "time_ns", "perf_counter", "monotonic"):
        monkeypatch.setattr(time, clock, lambda: 12345)
    assert np.array_equal(flips_of(spec, layout), now)


def test_defect_c_another_process_draws_the_same() -> None:
    code = (
        "from memmodels import *; import numpy as np;"
        "m = open_memory('uniform:ber=0.1', 5); r = m.write(np.zeros(99, 'u8'), Layout('w', 6336, 1), Key());"
        "o = np.zeros(99, 'u8'); m.read(r, Key(1, 0, 2), o); print(o.tobytes().hex())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    memory, out = open_memory("uniform:ber=0.1", 5), np.zeros(99, np.uint64)
    memory.read(memory.write(out, Layout("w", 6336, 1), Key()), Key(1, 0, 2), out)
    assert other == out.tobytes().hex()


@lifetimes
def test_defect_d_global_random_states_are_neither_used_nor_moved(lifetime: str) -> None:
    spec, layout, draws = f"uniform:ber=0.1,lifetime={lifetime}", Layout("w", 100_000, 1), []
    for seed in (1, 2):
        np.random.seed(seed)
        random.seed(seed)
        before = np.random.get_state()[1].tolist(), random.getstate()
        draws.append(flips_of(spec, layout))
        assert (np.random.get_state()[1].tolist(), random.getstate()) == before
    assert np.array_equal(*draws)


@lifetimes
@pytest.mark.parametrize("rate", [0.0, 5e-324, 1e-12, 0.1, 0.5, 0.5000000000000001, 0.9, 1 - 1e-16, 1.0])
def test_defect_e_every_rate_from_0_to_1_is_legal(lifetime: str, rate: float) -> None:
    flips = flips_of(f"uniform:ber={rate!r},lifetime={lifetime},cells=invert", LAYOUTS[-1])
    assert binomial(popcount(flips), LAYOUTS[-1].bits, rate) > ALPHA / 27


def test_defect_e_every_density_that_adds_up_to_1_is_legal() -> None:
    for hundredths in range(101):
        p01, p10 = hundredths / 100, (100 - hundredths) / 100
        ErrorTerm("t", Lifetime.DIE, p01, p10)
        assert technology("uniform").terms({"p01": p01, "p10": p10, "lifetime": "die", "cells": "prefer"})


@lifetimes
def test_defect_f_rates_do_not_compound(lifetime: str) -> None:
    """Reading, rewriting and moving there and back a hundred times leaves the rate where it was."""
    memory, layout = open_memory(f"uniform:ber=0.02,lifetime={lifetime}", 8), Layout("w", 1 << 18, 1)
    for write in range(10):
        region = memory.write(contents(layout), layout, Key(0, write))
        for read in range(10):
            get(memory, region, read)
        memory = memory.at(ber=0.3).at(ber=0.02)
    _, report = get(memory, region, 99)
    assert binomial(report.flips, layout.bits, 0.02) > ALPHA
    assert memory.terms == open_memory(f"uniform:ber=0.02,lifetime={lifetime}").terms


def test_defect_f_two_terms_flip_back_what_both_hit() -> None:
    """0.1 and then 0.2 make 0.1 + 0.2 - 2 · 0.02 = 0.26; neither a sum of percentages nor their product."""
    layout = Layout("w", 1 << 20, 1)
    terms = (ErrorTerm(str(p), Lifetime.READ, p, p) for p in (0.1, 0.2))
    memory = simulated(*terms)
    assert binomial(get(memory, put(memory, layout))[1].flips, layout.bits, 0.26) > ALPHA


@pytest.mark.parametrize("lifetime", [Lifetime.DIE, Lifetime.ACCUMULATING])
def test_defect_g_no_cell_is_stuck_at_both_values(lifetime: Lifetime) -> None:
    """At densities of 0.3 and 0.45, independent sets would share 13 % of all cells."""
    words, seen = 1 << 12, []
    for pattern in (np.zeros(words, np.uint64), ~np.zeros(words, np.uint64)):
        memory = simulated(ErrorTerm("stuck", lifetime, 0.3, 0.45))
        region, out = memory.write(pattern, Layout("w", words * 64, 1), Key()), np.empty(words, np.uint64)
        memory.read(region, Key(0, 0, 1), out)
        seen.append(out ^ pattern)
    family = Family()
    family.add("stuck at 1", binomial(popcount(seen[0]), words * 64, 0.3))
    family.add("stuck at 0", binomial(popcount(seen[1]), words * 64, 0.45))
    family.judge()
    assert popcount(seen[0] & seen[1]) == 0


@lifetimes
@pytest.mark.parametrize("elements", [1, 63, 64, 65, 1000])
def test_defect_h_padding_bits_are_not_cells(lifetime: str, elements: int) -> None:
    """Where every cell errs, every element of a ±1 tensor is inverted and not one bit more, whatever the tail of the word."""
    layout = Layout("w", elements, 1)
    memory = open_memory(f"uniform:ber=1,lifetime={lifetime},cells=invert")
    region = memory.write(pack(np.ones(elements, np.uint8), layout), layout, Key())
    out, report = get(memory, region)
    assert report.flips == elements
    assert not out.any()
    sampler = memory.sampler(region)
    flips = np.empty_like(out)
    assert draw_region(sampler, 0, 0, 0, flips) == popcount(flips) == elements


@lifetimes
def test_defect_i_the_last_of_everything_errs_like_the_first(lifetime: str) -> None:
    """First and last bit, element, word and region, in 1000 draws of a memory of three regions."""
    rate, draws, family = 0.1, 1000, Family()
    layouts = [Layout(name, 1030, 1) for name in ("first", "middle", "last")]
    memory = open_memory(f"uniform:ber={rate},lifetime={lifetime},cells=invert", 17)
    counts = np.zeros((3, layouts[0].words * 64), dtype=np.int64)
    zeros = np.zeros(layouts[0].words, np.uint64)
    for draw in range(draws):
        if lifetime == "die":
            memory = open_memory(f"uniform:ber={rate},lifetime=die,cells=invert", 17, draw)
        for number, layout in enumerate(layouts):
            out = np.empty_like(zeros)
            memory.read(memory.write(zeros, layout, Key(draw)), Key(draw), out)
            counts[number] += np.unpackbits(out.view(np.uint8), bitorder="little")
    for number, layout in enumerate(layouts):
        for bit in (0, 1, 63, 64, 1023, 1024, layout.bits - 2, layout.bits - 1):
            family.add(f"{layout} bit {bit}", binomial(int(counts[number, bit]), draws, rate))
        assert (counts[number, : layout.bits] > 0).all()
        assert (counts[number, layout.bits :] == 0).all()
    family.judge()


def test_defect_i_the_last_plane_of_the_last_element_errs() -> None:
    layout = Layout("w", BLOCK_BITS // 8 + 1, 8)
    memory = open_memory("uniform:ber=1")
    region = memory.write(pack(np.zeros(layout.elements), layout), layout, Key())
    codes = np.zeros(layout.elements, dtype=np.uint64)
    unpack(get(memory, region)[0], layout, codes)
    assert (codes == 255).all()


def test_defect_j_counts_cover_all_blocks_and_regions() -> None:
    """The report of a read, and the count of the sampler, are of the whole region; and regions are counted apart."""
    memory, total = open_memory("uniform:ber=0.25", 18), 0
    for layout in (Layout("small", 77, 1), Layout("large", 5 * BLOCK_BITS + 321, 1), Layout("bytes", 9999, 8)):
        region = put(memory, layout)
        out, report = get(memory, region)
        flips = np.empty_like(out)
        count = draw_region(memory.sampler(region), 0, 0, 0, flips)
        assert report.flips == count == popcount(out ^ region.written)
        assert abs(report.flips - layout.bits / 4) < 6 * np.sqrt(layout.bits * 3 / 16)
        total += report.flips
    assert total > 80_000


def test_defect_j_costs_are_of_the_technology_that_was_asked() -> None:
    """Not a counter, but the same mistake: each memory answers for itself, at its own operating point."""
    memory = open_memory("sram-14nm")
    region = put(memory, Layout("w", 64, 1))
    energies = [memory.at(v_over_vmin=v).cost(region, Accesses(1)).energy.value for v in (0.8, 1.0, 0.8)]
    assert energies[0] == energies[2] < energies[1]


def test_the_table_of_defects_is_complete() -> None:
    """A test for each letter, so that the list above cannot outlive them."""
    tested = {name.removeprefix("test_defect_")[0] for name in globals() if name.startswith("test_defect_")}
    assert tested == set("abcdefghij")
    assert set(Cells) == {Cells.PREFER, Cells.INVERT}
