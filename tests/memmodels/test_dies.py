"""Errors that stay: weak cells of a die, states that accumulate, and writes that failed.

Significance: each statistical test judges its p-values as one family at ALPHA = 1e-6 (see `evidence`).
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.memmodels.evidence import ALPHA, Family, binomial, counts_fit, independent, uncorrelated, variance_fits
from tests.memmodels.memories import contents, get, put, simulated
from weakcell.memmodels import Cells, ErrorTerm, Key, Layout, Lifetime, open_memory, technology
from weakcell.memmodels.address import BLOCK_BITS, BLOCK_WORDS, Words, popcount
from weakcell.memmodels.sampling.dies import EDGES, weak_cells
from weakcell.memmodels.sampling.streams import derive_stream
from weakcell.memmodels.simulated import SimulatedMemory

DIE = derive_stream(2025)
RATES = (1e-7, 1e-6, 3e-5, 1e-3, 0.02, 0.1, 0.25, 0.4, 0.4999, 0.5)
rates = st.one_of(st.floats(0.0, 1.0), st.floats(-9.0, 0.0).map(lambda exponent: 10.0**exponent), st.sampled_from([0.0, 0.5, 1.0]))


def die_term(p01: float, p10: float, cells: Cells = Cells.PREFER) -> ErrorTerm:
    return ErrorTerm("die", Lifetime.DIE, p01, p10, cells)


def weak(
    p01: float, p10: float, cells: Cells = Cells.PREFER, words: int = 2 * BLOCK_WORDS + 77, die: int = 0
) -> tuple[Words, Words]:
    """(cells that turn 0 into 1, cells that turn 1 into 0), of a region that begins and ends inside a block."""
    return weak_cells(derive_stream(int(DIE), die), 300, words, die_term(p01, p10, cells))


def within(few: Words, many: Words) -> bool:
    """Every cell of `few` is one of `many`."""
    return not (few & ~many).any()


def read(memory: SimulatedMemory, stored: Words, key: Key) -> Words:
    """The errors of one read of fresh contents."""
    region = memory.write(stored, Layout("w", stored.size * 64, 1), key)
    out = np.empty_like(stored)
    memory.read(region, key, out)
    return out ^ stored


# --- nested ------------------------------------------------------------------------------------------------------------------


@given(low=st.tuples(rates, rates), high=st.tuples(rates, rates))
@settings(max_examples=60)
def test_weak_cells_are_nested_in_each_rate(low: tuple[float, float], high: tuple[float, float]) -> None:
    """A cell that fails goes on failing, in the same way, when either rate rises, whatever becomes of the other."""
    (a01, b01), (a10, b10) = (sorted(pair) for pair in zip(low, high, strict=True))
    assume(b01 + b10 <= 1.0)
    (few_one, few_zero), (many_one, many_zero) = weak(a01, a10), weak(b01, b10)
    assert within(few_one, many_one)
    assert within(few_zero, many_zero)


@given(a=rates, b=rates)
@settings(max_examples=40)
def test_cells_that_invert_are_nested(a: float, b: float) -> None:
    """With different p01 and p10, the cells that err on one value are among those that err on the other."""
    low, high = sorted((a, b))
    to_one, to_zero = weak(low, high, Cells.INVERT)
    assert within(to_one, to_zero)
    assert within(to_one, weak(high, high, Cells.INVERT)[0])
    assert np.array_equal(to_zero, weak(high, low, Cells.INVERT)[0])


@pytest.mark.parametrize("name", ["sram-14nm", "sram-28nm-kc705b", "sram-28nm-vc707"])
def test_technologies_are_nested_over_voltage(name: str) -> None:
    """A sweep from high to low voltage only adds errors, on random data and with the share of both preferences set."""
    tech = technology(name)
    knob = next(condition for condition in tech.conditions if condition.name == tech.sweep)
    memory = open_memory(name, seed=3)
    if "p01_share" in memory.conditions:
        memory = memory.at(p01_share=0.3)
    layout = Layout("w", 1 << 20, 1)
    region = put(memory, layout)
    before = np.zeros(layout.words, dtype=np.uint64)
    for voltage in np.linspace(knob.high, knob.low, 12):
        out, _ = get(memory.at(**{knob.name: float(voltage)}), region)
        assert within(before, out ^ region.written)
        before = out ^ region.written
    assert popcount(before) > 10


def test_the_points_of_a_sweep_do_not_matter() -> None:
    """The cells that fail at a rate are the same, whether it is reached in one step or in many, up or down."""
    memory = open_memory("uniform:ber=0,lifetime=die", seed=8)
    region = put(memory, Layout("w", 200_000, 1))
    at_once = get(memory.at(ber=0.2), region)[0]
    for rate in (0.01, 0.15, 0.2, 0.4, 0.5, 0.05):
        memory = memory.at(ber=rate)
        get(memory, region)
    assert np.array_equal(get(memory.at(ber=0.2), region)[0], at_once)


# --- polarity ----------------------------------------------------------------------------------------------------------------


@given(p01=rates, share=st.floats(0.0, 1.0))
@settings(max_examples=60)
def test_zeros_and_ones_patterns_find_different_cells(p01: float, share: float) -> None:
    p10 = share * (1.0 - p01)
    assume(p01 + p10 <= 1.0)
    to_one, to_zero = weak(p01, p10)
    assert not (to_one & to_zero).any()


@pytest.mark.parametrize("cells", list(Cells))
def test_fault_sets_of_patterns_are_disjoint_or_equal(cells: Cells) -> None:
    """Through a memory: what a zeros pattern and a ones pattern show of one die."""
    words = 3000
    memory = open_memory(f"uniform:ber=0.2,lifetime=die,cells={cells}")
    on_zeros = read(memory, np.zeros(words, np.uint64), Key(0, 0))
    on_ones = read(memory, ~np.zeros(words, np.uint64), Key(0, 1))
    assert popcount(on_zeros) > 30_000
    if cells is Cells.INVERT:
        assert np.array_equal(on_zeros, on_ones)
    else:
        assert popcount(on_zeros & on_ones) == 0


def test_half_of_the_weak_cells_shows_on_random_data() -> None:
    """A density is not a flip rate: cells prefer 1 and 0 with density 0.1 each, and random data err at a rate of 0.1, not 0.2."""
    words, zeros = 1 << 16, np.zeros(1 << 16, np.uint64)
    stored = contents(Layout("w", words * 64, 1))
    memory = open_memory("uniform:ber=0.1,lifetime=die", 2)
    flips, to_one, to_zero = (read(memory, pattern, Key()) for pattern in (stored, zeros, ~zeros))
    family = Family()
    family.add("random data", binomial(popcount(flips), words * 64, 0.1))
    family.add("weak cells", binomial(popcount(to_one | to_zero), words * 64, 0.2))
    family.judge()
    assert np.array_equal(flips, (to_one & ~stored) | (to_zero & stored))


@pytest.mark.parametrize("p01", [0.0, 1e-6, 0.3, 0.5, 0.75, 1.0])
def test_where_the_densities_add_up_to_1_every_cell_is_weak(p01: float) -> None:
    to_one, to_zero = weak(p01, 1.0 - p01)
    assert np.array_equal(to_one, ~to_zero)


def test_preferences_have_no_pattern() -> None:
    """The preferred values of all cells of 64 blocks: half of each, everywhere, whatever the neighbours prefer."""
    ones, _ = weak(0.5, 0.5, words=64 * BLOCK_WORDS)
    counts = np.bitwise_count(ones).astype(np.int64)
    family = Family()
    family.add("all", binomial(popcount(ones), ones.size * 64, 0.5))
    family.add("words", variance_fits(counts, 64, 0.5))
    family.add("positions", counts_fit(np.array([popcount(ones & np.uint64(1 << bit)) for bit in range(64)]), ones.size, 0.5))
    for lag in (1, 2, 3, 8, 64, 1024, BLOCK_BITS):
        family.add(f"cells {lag} apart", uncorrelated(ones, lag, 0.5))
    family.judge()


# --- density -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p10", [0.0, 0.25, 0.5])
def test_densities_are_exact(p10: float) -> None:
    """From one in ten million to one in two, alone and beside another preference: each density, and no more on either side."""
    family = Family()
    for die, p01 in enumerate(RATES):
        to_one, to_zero = weak(p01, p10, words=1 << 19 if p01 + p10 < 0.01 else 1 << 15, die=die)
        family.add(f"p01={p01}", binomial(popcount(to_one), to_one.size * 64, p01))
        family.add(f"p10={p10} beside p01={p01}", binomial(popcount(to_zero), to_one.size * 64, p10))
    family.judge()


@pytest.mark.parametrize("small", [1e-6, 1e-4, 0.01, 0.1, 0.3])
def test_densities_near_1_are_exact(small: float) -> None:
    words, family = 1 << 16, Family()
    to_one, to_zero = weak(1 - small, small / 2, words=words)
    family.add("not weak towards 1", binomial(popcount(~to_one), words * 64, small))
    family.add("weak towards 0", binomial(popcount(to_zero), words * 64, small / 2))
    family.add("strong", binomial(popcount(~(to_one | to_zero)), words * 64, small / 2))
    family.add("inverting", binomial(popcount(~weak(1 - small, 0.0, Cells.INVERT, words, die=1)[0]), words * 64, small))
    family.judge()


@given(p01=st.floats(0.0, 1.0), p10=st.floats(0.0, 1.0), invert=st.booleans())
@settings(max_examples=40)
def test_any_densities(p01: float, p10: float, invert: bool) -> None:
    assume(invert or p01 + p10 <= 1.0)
    to_one, to_zero = weak(p01, p10, Cells.INVERT if invert else Cells.PREFER)
    bits = to_one.size * 64
    assert min(binomial(popcount(to_one), bits, p01), binomial(popcount(to_zero), bits, p10)) > ALPHA / 80


@pytest.mark.parametrize("edge", [float(EDGES[k]) for k in (1, 5, 12, 18, 20, 21)])
def test_no_seam_at_the_edges_of_hazard_shells(edge: float) -> None:
    """Densities just below, at and above the border of two shells of hazard."""
    family, words = Family(), 1 << 16
    for die, factor in enumerate((0.999, 1.0, 1.001)):
        rate = -math.expm1(-edge * factor)
        family.add(f"{factor}", binomial(popcount(weak(rate, 0.0, Cells.INVERT, words, die)[0]), words * 64, rate))
    family.judge()


def test_weak_cells_lie_anywhere() -> None:
    """Weak cells of one die at a density of 0.1: counts of blocks and words, positions, and neighbours."""
    words, rate = 256 * BLOCK_WORDS, 0.1
    cells, _ = weak(rate, 0.2, words=words, die=4)
    counts = np.bitwise_count(cells).astype(np.int64)
    family = Family()
    family.add("blocks", variance_fits(counts.reshape(-1, BLOCK_WORDS).sum(axis=1), BLOCK_BITS, rate))
    family.add("words", variance_fits(counts, 64, rate))
    family.add("positions", counts_fit(np.array([popcount(cells & np.uint64(1 << bit)) for bit in range(64)]), words, rate))
    for lag in (1, 2, 3, 4, 16, 63, 64, 65, 1024, BLOCK_BITS):
        family.add(f"cells {lag} apart", uncorrelated(cells, lag, rate))
    family.judge()


# --- dies --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1e-3, 0.05, 0.5])
def test_dies_and_arrays_have_nothing_in_common(rate: float) -> None:
    """Any two of 12 dies, arrays and seeds share weak cells as often as chance says, and so do they on average."""
    words, zeros = 1 << 14, np.zeros(1 << 14, np.uint64)
    names = [(1, die, 0) for die in range(8)] + [(1, 0, 1), (1, 1, 1), (2, 0, 0), (2, 1, 0)]
    maps = [read(open_memory(f"uniform:ber={rate},lifetime=die", *name), zeros, Key()) for name in names]
    family, shared = Family(), 0
    for (a, one), (b, other) in combinations(zip(names, maps, strict=True), 2):
        family.add(f"{a} and {b}", independent(one, other, rate))
        shared += popcount(one & other)
    pairs = len(names) * (len(names) - 1) // 2
    mean = pairs * words * 64 * rate**2
    deviation = (shared - mean) / math.sqrt(mean * (1 - rate**2))
    assert abs(deviation) < 5
    family.judge()


def test_small_dies_vary_from_die_to_die() -> None:
    """Fewer than one weak cell in a die is expected: how many dies have 0, 1, 2 … is binomial."""
    bits, rate, dies = 100, 2e-3, 1500
    zeros = np.zeros(2, dtype=np.uint64)
    counts = []
    for die in range(dies):
        memory = open_memory(f"uniform:p01={rate},lifetime=die", 5, die)
        region = memory.write(zeros, Layout("w", bits, 1), Key())
        counts.append(memory.read(region, Key(), zeros.copy()).flips)
    family = Family()
    family.add("weak cells", binomial(sum(counts), bits * dies, rate))
    family.add("perfect dies", binomial(counts.count(0), dies, (1 - rate) ** bits))
    family.judge()


def test_a_die_is_the_same_in_every_trial_write_and_read() -> None:
    memory = open_memory("uniform:ber=0.1,lifetime=die", 6)
    zeros = np.zeros(2000, np.uint64)
    first = read(memory, zeros, Key(0, 0, 0))
    assert all(np.array_equal(read(memory, zeros, key), first) for key in (Key(1, 0, 0), Key(0, 1, 0), Key(0, 0, 1), Key(7, 8, 9)))


# --- accumulating ------------------------------------------------------------------------------------------------------------


def accumulating(p01: float, p10: float, cells: Cells = Cells.PREFER) -> SimulatedMemory:
    return simulated(ErrorTerm("disturb", Lifetime.ACCUMULATING, p01, p10, cells), seed=12)


@pytest.mark.parametrize("cells", list(Cells))
@pytest.mark.parametrize("rates", [(0.01, 0.03), (0.002, 0.002), (0.6, 0.1)])
def test_accumulated_errors_are_nested_in_reads(cells: Cells, rates: tuple[float, float]) -> None:
    """None before the first exposure, then every read adds to the errors of the read before."""
    memory = accumulating(*rates, cells)
    layout = Layout("w", 150_001, 1)
    region = put(memory, layout)
    before, report = get(memory, region, 0)
    assert report.flips == 0
    for number in (1, 2, 3, 7, 20):
        out, _ = get(memory, region, number)
        assert within(before ^ region.written, out ^ region.written)
        assert popcount(out ^ before) > 0
        before = out
    assert np.array_equal(get(memory, region, 3)[0], get(memory, region, 3)[0])


@pytest.mark.parametrize("reads", [1, 2, 10, 1000])
def test_accumulated_errors_follow_the_law_of_repeated_exposure(reads: int) -> None:
    """One value alone: 1 - (1 - p)^r. Both: cells fail at 1 - (1 - p01 - p10)^r, shared as p01 : p10. Inverting: each its own."""
    words, p = 1 << 14, 0.004
    stored = contents(Layout("w", words * 64, 1))
    zeros, key = np.zeros(words, np.uint64), Key(0, 0, reads)
    alone, both = -math.expm1(reads * math.log1p(-p)), -math.expm1(reads * math.log1p(-4 * p))
    family = Family()
    family.add("p01 alone", binomial(popcount(read(accumulating(p, 0.0), zeros, key)), words * 64, alone))
    family.add("p10 alone", binomial(popcount(read(accumulating(0.0, p), ~zeros, key)), words * 64, alone))
    family.add("p01 of both", binomial(popcount(read(accumulating(p, 3 * p), zeros, key)), words * 64, both / 4))
    family.add("p10 of both", binomial(popcount(read(accumulating(p, 3 * p), ~zeros, key)), words * 64, 3 * both / 4))
    inverted = read(accumulating(p, p, Cells.INVERT), stored, key)
    family.add("inverting", binomial(popcount(inverted), words * 64, alone))
    family.judge()


def test_accumulated_errors_are_drawn_anew_by_a_write() -> None:
    """Another write or trial, other cells; rewriting starts from nothing."""
    rate, words = 0.05, 1 << 13
    memory, zeros, family = accumulating(rate, 0.0), np.zeros(1 << 13, np.uint64), Family()
    masks = {key: read(memory, zeros, key) for key in (Key(0, 0, 1), Key(0, 1, 1), Key(1, 0, 1))}
    for a, b in combinations(masks, 2):
        family.add(f"{a} | {b}", independent(masks[a], masks[b], rate))
    family.judge()
    assert popcount(read(memory, zeros, Key(0, 2, 0))) == 0
    assert words * 64 * rate > 1000


def test_what_accumulates_has_no_sampler() -> None:
    memory = accumulating(0.1, 0.1)
    assert memory.sampler(put(memory, Layout("w", 10, 1))) is None


# --- writes ------------------------------------------------------------------------------------------------------------------


def test_write_errors_stay_until_the_next_write() -> None:
    rate, words = 0.1, 1 << 14
    memory, zeros = open_memory(f"uniform:ber={rate},lifetime=write", 13), np.zeros(1 << 14, np.uint64)
    layout = Layout("w", words * 64, 1)
    first = memory.write(zeros, layout, Key(0, 0))
    one, again = get(memory, first, 0)[0], get(memory, first, 9)[0]
    assert np.array_equal(one, again)
    assert np.array_equal(one, first.stored)
    second = memory.write(zeros, layout, Key(0, 1))
    family = Family()
    family.add("rate", binomial(popcount(one), words * 64, rate))
    family.add("another write", independent(one, get(memory, second)[0], rate))
    family.judge()


def test_a_write_that_switches_nothing_cannot_fail() -> None:
    """Only bits that change err, each with the probability of its new value, and they keep their old one."""
    words, p01, p10 = 1 << 14, 0.1, 0.3
    memory = simulated(ErrorTerm("switch", Lifetime.WRITE, p01, p10, only_switched=True), seed=14)
    layout = Layout("w", words * 64, 1)
    first = put(memory, layout, 0)
    second = put(memory, layout, 1)
    flips = second.stored ^ second.written
    switched = second.written ^ first.stored
    assert within(flips, switched)
    assert np.array_equal(second.stored & flips, first.stored & flips)
    up, down = switched & second.written, switched & ~second.written
    family = Family()
    family.add("1 -> 0 kept as 1", binomial(popcount(flips & down), popcount(down), p01))
    family.add("0 -> 1 kept as 0", binomial(popcount(flips & up), popcount(up), p10))
    family.judge()
    same = memory.write(second.stored, layout, Key(0, 2))
    assert np.array_equal(same.stored, second.stored)


def test_the_first_write_switches_what_power_up_left() -> None:
    """A fresh die holds random bits: half of them need no switching, so half of the rate is seen."""
    words, rate = 1 << 14, 0.2
    memory = simulated(ErrorTerm("switch", Lifetime.WRITE, rate, rate, only_switched=True), seed=15)
    region = put(memory, Layout("w", words * 64, 1))
    assert region.previous is not None
    family = Family()
    family.add("power-up", binomial(popcount(region.previous), words * 64, 0.5))
    family.add("errors", binomial(popcount(region.stored ^ region.written), words * 64, rate / 2))
    family.add("words of power-up", variance_fits(np.bitwise_count(region.previous).astype(np.int64), 64, 0.5))
    family.judge()


def test_writing_again_and_again_mends_failed_writes() -> None:
    """Write, verify, write: after k tries a bit is wrong only if every try to switch it failed."""
    words, rate = 1 << 14, 0.4
    memory = simulated(ErrorTerm("switch", Lifetime.WRITE, rate, rate, only_switched=True), seed=16)
    layout, family = Layout("w", words * 64, 1), Family()
    for attempt in range(5):
        region = memory.write(contents(layout), layout, Key(0, attempt))
        wrong = popcount(region.stored ^ region.written)
        family.add(f"try {attempt}", binomial(wrong, words * 64, rate ** (attempt + 1) / 2))
    family.judge()
