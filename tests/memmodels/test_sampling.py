"""Flips against the rate that was asked for: exact in mean, variance, order and place, at every rate, for every name.

Significance: each test judges its p-values as one family at ALPHA = 1e-6 (see `evidence`).
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.memmodels.evidence import (
    ALPHA,
    Family,
    binomial,
    counts_fit,
    independent,
    normal,
    poisson,
    shape_fits,
    uncorrelated,
    variance_fits,
)
from tests.memmodels.memories import simulated
from weakcell.memmodels import Cells, ErrorTerm, Key, Layout, Lifetime, open_memory
from weakcell.memmodels.address import BLOCK_BITS, BLOCK_WORDS, Words, popcount, set_bits, touched_blocks
from weakcell.memmodels.sampling.read_errors import (
    draw_block,
    new_workspace,
    read_stream,
    words_in_block,
)
from weakcell.memmodels.sampling.sampler import Sampler, draw_region
from weakcell.memmodels.simulated import SimulatedMemory

RATES = (1e-4, 1e-2, 0.03, 0.1, 0.3, 0.4999, 0.5, 0.7)
"""Hits alone, levels and hits, levels alone, and both sides of the inversion at 1/2."""

FIRST = Key()
READS, WORDS = 16, 1 << 18
BITS = READS * WORDS * 64


def bits_layout(bits: int, name: str = "w") -> Layout:
    return Layout(name, bits, 1)


def zeros(words: int) -> Words:
    return np.zeros(words, dtype=np.uint64)


def random_words(words: int, seed: int = 0) -> Words:
    return np.random.default_rng([9, seed]).integers(0, 1 << 64, words, dtype=np.uint64)


def errors(memory: SimulatedMemory, stored: Words, key: Key = FIRST, layout: Layout | None = None) -> Words:
    """The flips of one read of `stored`, written and read under `key`."""
    region = memory.write(stored, layout or bits_layout(stored.size * 64), key)
    out = np.empty_like(stored)
    memory.read(region, key, out)
    return out ^ region.written


def sampler_of(spec: str, layout: Layout, stored: Words | None = None, seed: int = 1) -> Sampler:
    memory = open_memory(spec, seed)
    sampler = memory.sampler(memory.write(zeros(layout.words) if stored is None else stored, layout, Key()))
    assert sampler is not None
    return sampler


@pytest.fixture(scope="module", params=RATES, ids=lambda rate: f"p={rate:g}")
def drawn(request: pytest.FixtureRequest) -> tuple[float, Words]:
    """2^28 flips at one rate: 16 reads of 256 blocks, one after the other."""
    sampler = sampler_of(f"uniform:ber={request.param}", bits_layout(WORDS * 64), seed=2024)
    flips = np.empty((READS, WORDS), dtype=np.uint64)
    for read in range(READS):
        draw_region(sampler, 3, 0, read, flips[read])
    return request.param, flips.reshape(-1)


# --- rates -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lifetime", ["read", "write", "die"])
@pytest.mark.parametrize("stored", [zeros(3000), ~zeros(3000), random_words(3000)], ids=["zeros", "ones", "random"])
def test_exactly_none_at_0_and_all_at_1(lifetime: str, stored: Words) -> None:
    never = open_memory(f"uniform:ber=0,lifetime={lifetime},cells=invert")
    always = never.at(ber=1)
    for read in range(3):
        assert popcount(errors(never, stored, Key(read=read))) == 0
        assert popcount(errors(always, stored, Key(read=read))) == stored.size * 64


@pytest.mark.parametrize("lifetime", ["read", "write", "die"])
@pytest.mark.parametrize(("p01", "p10"), [(1, 0), (0, 1)])
def test_exactly_one_value_errs_at_1_and_0(lifetime: str, p01: int, p10: int) -> None:
    stored = random_words(3000)
    memory = open_memory(f"uniform:p01={p01},p10={p10},lifetime={lifetime}")
    assert np.array_equal(errors(memory, stored), ~stored if p01 else stored)


def test_one_in_a_million_of_a_billion_bits() -> None:
    """2^30 bits at 1e-6: the total, its spread over reads, and its places."""
    rate, reads, words = 1e-6, 16, 1 << 20
    sampler = sampler_of(f"uniform:ber={rate}", bits_layout(words * 64), random_words(words), seed=7)
    flips, places, counts = np.empty(words, dtype=np.uint64), [], []
    for read in range(reads):
        counts.append(draw_region(sampler, 0, 0, read, flips))
        places.append(set_bits(flips))
    where, bits = np.concatenate(places), reads * words * 64
    assert bits >= 10**9
    assert where.size == sum(counts)
    family = Family()
    family.add("total", binomial(where.size, bits, rate))
    family.add("reads", variance_fits(np.array(counts), words * 64, rate))
    family.add("position in a word", shape_fits(np.bincount(where % 64, minlength=64), np.full(64, bits * rate / 64)))
    family.add("part of the region", shape_fits(np.bincount(where >> 21, minlength=32), np.full(32, bits * rate / 32)))
    family.judge()


def test_rate(drawn: tuple[float, Words]) -> None:
    rate, flips = drawn
    family = Family()
    family.add("all", binomial(popcount(flips), BITS, rate))
    for read, part in enumerate(flips.reshape(READS, WORDS)):
        family.add(f"read {read}", binomial(popcount(part), WORDS * 64, rate))
    family.judge()


def test_variance(drawn: tuple[float, Words]) -> None:
    """Counts of blocks and of words are binomial: their variance is npq, and their histogram is the law's."""
    rate, flips = drawn
    in_words = np.bitwise_count(flips).astype(np.int64)
    family = Family()
    family.add("blocks", variance_fits(in_words.reshape(-1, BLOCK_WORDS).sum(axis=1), BLOCK_BITS, rate))
    family.add("words", variance_fits(in_words, 64, rate))
    expected = flips.size * stats.binom.pmf(np.arange(65), 64, rate)
    family.add("histogram of words", shape_fits(np.bincount(in_words, minlength=65), expected))
    family.judge()


def test_pairs(drawn: tuple[float, Words]) -> None:
    """Neighbours, the same bit of another word, block and read, and bits that share a random word of the generators."""
    rate, flips = drawn
    family = Family()
    for lag in (1, 2, 3, 7, 8, 16, 31, 32, 63, 64, 65, 128, 1024, 4096, BLOCK_BITS - 1, BLOCK_BITS, 2 * BLOCK_BITS, WORDS * 64):
        family.add(f"bits {lag} apart", uncorrelated(flips, lag, rate))
    family.judge()


def test_runs(drawn: tuple[float, Words]) -> None:
    """Wald and Wolfowitz' number of runs, and the distances between flips, which are geometric."""
    rate, flips = drawn
    ones = popcount(flips)
    switches = popcount(flips[:-1] ^ ((flips[:-1] >> np.uint64(1)) | (flips[1:] << np.uint64(63))))
    ones, n = ones - popcount(flips[-1:]), BITS - 64
    mean = 2 * ones * (n - ones) / n
    family = Family()
    family.add("number of runs", normal((switches - mean) / math.sqrt(mean * (mean - 1) / (n - 1))))
    gaps = np.diff(set_bits(flips if rate < 1e-3 else flips[: 1 << 16]))
    edges = np.unique(stats.geom.ppf(np.linspace(0.02, 0.98, 49), rate))
    observed = np.bincount(np.searchsorted(edges, gaps, side="left"), minlength=edges.size + 1)
    chances = np.diff([0.0, *stats.geom.cdf(edges, rate), 1.0])
    family.add("gaps", shape_fits(observed, gaps.size * chances))
    family.judge()


def test_places(drawn: tuple[float, Words]) -> None:
    """Every position in a word, every word of a block, and every block of a region flips equally often."""
    rate, flips = drawn
    sample = flips[: 1 << 20]
    in_positions = np.array([popcount(sample & np.uint64(1 << bit)) for bit in range(64)])
    in_words = np.bitwise_count(flips).astype(np.int64).reshape(-1, BLOCK_WORDS)
    family = Family()
    family.add("position in a word", counts_fit(in_positions, sample.size, rate))
    family.add("word of a block", counts_fit(in_words.sum(axis=0), flips.size // BLOCK_WORDS * 64, rate))
    family.add("word mod 16", counts_fit(in_words.reshape(-1, 16).sum(axis=0), flips.size * 4, rate))
    blocks = in_words.sum(axis=1).reshape(READS, -1).sum(axis=0)
    family.add("block", counts_fit(blocks, READS * BLOCK_BITS, rate))
    family.judge()


@pytest.mark.parametrize(("bits", "rate"), [(100, 1e-4), (64, 1e-3), (1, 0.1), (1000, 5e-5)])
def test_less_than_one_flip_is_expected_and_some_come(bits: int, rate: float) -> None:
    """p n < 1, the region anywhere in its block: flips, and reads without any, are as frequent as they should be."""
    memory = open_memory(f"uniform:ber={rate}", 11)
    memory.write(zeros(700), bits_layout(700 * 64, "before"), Key())
    layout, reads = bits_layout(bits), 60_000
    sampler = memory.sampler(memory.write(random_words(layout.words) & zeros(layout.words), layout, Key()))
    assert sampler is not None
    flips = zeros(layout.words)
    counts = np.array([draw_region(sampler, 0, 0, read, flips) for read in range(reads)])
    family = Family()
    family.add("flips", binomial(int(counts.sum()), bits * reads, rate))
    family.add("reads with any", binomial(int(np.count_nonzero(counts)), reads, -math.expm1(bits * math.log1p(-rate))))
    family.judge()


@given(rate=st.floats(0.0, 1.0))
@settings(max_examples=80)
def test_any_rate(rate: float) -> None:
    """Not only those rates that somebody thought of."""
    words = 1 << 12
    assert binomial(popcount(errors(open_memory(f"uniform:ber={rate!r}", 4), zeros(words))), words * 64, rate) > ALPHA / 80


@given(exponent=st.floats(-9.0, 0.0), inverted=st.booleans())
@settings(max_examples=60)
def test_rates_near_0_and_near_1(exponent: float, inverted: bool) -> None:
    small, words = 10.0**exponent, 1 << 17
    rate = 1 - small if inverted else small
    flips = errors(open_memory(f"uniform:ber={rate!r}", 5), random_words(words))
    assert binomial(popcount(~flips if inverted else flips), words * 64, 1 - rate if inverted else rate) > ALPHA / 60


# --- asymmetry ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lifetime", ["read", "write"])
@pytest.mark.parametrize(("p01", "p10"), [(0.05, 0.002), (0.3, 0.9), (0.0, 0.2), (1.0, 0.25), (1e-4, 3e-2), (0.5, 0.4999)])
def test_asymmetry(lifetime: str, p01: float, p10: float) -> None:
    """0s err with p01 and 1s with p10, on patterns and on random data."""
    words = 1 << 16
    memory = open_memory(f"uniform:p01={p01},p10={p10},lifetime={lifetime}", 21)
    family = Family()
    for trial, (name, stored) in enumerate({"zeros": zeros(words), "ones": ~zeros(words), "random": random_words(words)}.items()):
        flips, ones = errors(memory, stored, Key(trial)), popcount(stored)
        family.add(f"{name}: 0 -> 1", binomial(popcount(flips & ~stored), words * 64 - ones, p01))
        family.add(f"{name}: 1 -> 0", binomial(popcount(flips & stored), ones, p10))
    family.judge()


def test_asymmetric_flips_are_independent_of_each_other() -> None:
    """On random data, an error has a neighbour that errs as often as any other bit: the two masks share nothing."""
    p01, p10, words = 0.2, 0.05, 1 << 18
    stored = random_words(words)
    flips = errors(open_memory(f"uniform:p01={p01},p10={p10}", 22), stored)
    family = Family()
    for lag in (1, 64, BLOCK_BITS):
        later = np.roll(flips, -(lag // 64)) if lag >= 64 else (flips >> np.uint64(1)) | (np.roll(flips, -1) << np.uint64(63))
        data = np.roll(stored, -(lag // 64)) if lag >= 64 else (stored >> np.uint64(1)) | (np.roll(stored, -1) << np.uint64(63))
        for mine, my_rate, mine_name in ((~stored, p01, "0"), (stored, p10, "1")):
            for its, its_rate, its_name in ((~data, p01, "0"), (data, p10, "1")):
                both = popcount(flips & later & mine & its)
                family.add(f"{mine_name}, {its_name}, {lag} apart", binomial(both, popcount(mine & its), my_rate * its_rate))
    family.judge()


@pytest.mark.parametrize(("p01", "p10"), [(0.02, 0.002), (0.0001, 0.003), (0.1, 0.3), (0.9, 0.02)])
def test_blocks_with_many_rises_need_not_have_many_falls(p01: float, p10: float) -> None:
    """The numbers of 0 -> 1 and 1 -> 0 errors of a block do not correlate: each mask has hits of its own."""
    blocks = 2048
    stored = random_words(blocks * BLOCK_WORDS)
    flips = errors(open_memory(f"uniform:p01={p01},p10={p10}", 23), stored)
    surplus = []
    for mine, rate in ((~stored, p01), (stored, p10)):
        cells, erred = (np.bitwise_count(words).reshape(blocks, -1).sum(axis=1, dtype=np.int64) for words in (mine, flips & mine))
        surplus.append((erred - cells * rate) / np.sqrt(cells * rate * (1 - rate)))
    assert normal(float(np.dot(*surplus)) / math.sqrt(blocks)) > ALPHA


# --- names -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.5, 0.7])
def test_other_names_are_other_draws(rate: float) -> None:
    """Trials, writes, reads, dies, arrays and seeds: neighbours, exchanged names and far ones share no flips but by chance."""
    words, family, masks = 1 << 14, Family(), {}
    names = {
        "base": (1, 0, 0, 0, 0, 0),
        "seed": (2, 0, 0, 0, 0, 0),
        "die": (1, 1, 0, 0, 0, 0),
        "array": (1, 0, 1, 0, 0, 0),
        "trial": (1, 0, 0, 1, 0, 0),
        "write": (1, 0, 0, 0, 1, 0),
        "read": (1, 0, 0, 0, 0, 1),
        "next read": (1, 0, 0, 0, 0, 2),
        "far read": (1, 0, 0, 0, 0, 1 << 40),
        "far seed": ((1 << 63) + 1, 0, 0, 0, 0, 0),
        "trial and read": (1, 0, 0, 1, 0, 1),
    }
    for name, (seed, die, array, *key) in names.items():
        masks[name] = errors(open_memory(f"uniform:ber={rate}", seed, die, array), zeros(words), Key(*key))
    for a, b in combinations(names, 2):
        family.add(f"{a} | {b}", independent(masks[a], masks[b], rate))
    family.judge()


@pytest.mark.parametrize("lifetime", [Lifetime.READ, Lifetime.WRITE, Lifetime.DIE, Lifetime.ACCUMULATING])
@pytest.mark.parametrize("rate", [0.01, 0.3])
def test_terms_are_independent(lifetime: Lifetime, rate: float) -> None:
    """Two terms of the same lifetime and rate draw other cells, and act one after the other."""
    words, key = 1 << 14, Key(0, 0, 1)
    term, idle = (ErrorTerm("term", lifetime, p, p, Cells.INVERT) for p in (rate, 0.0))
    first, second, both = (errors(simulated(*pair), zeros(words), key) for pair in ((term, idle), (idle, term), (term, term)))
    family = Family()
    family.add("first", binomial(popcount(first), words * 64, rate))
    family.add("second", binomial(popcount(second), words * 64, rate))
    family.add("shared", independent(first, second, rate))
    family.judge()
    assert np.array_equal(both, first ^ second)


def test_lifetimes_add_up() -> None:
    """A die term, a write term and a read term in one memory: p (+) q (+) r, the first two the same at every read."""
    words, rates = 1 << 16, (0.02, 0.1, 0.3)
    lifetimes = (Lifetime.DIE, Lifetime.WRITE, Lifetime.READ)
    memory = simulated(*(ErrorTerm("t", life, p, p, Cells.INVERT) for life, p in zip(lifetimes, rates, strict=True)))
    region = memory.write(random_words(words), bits_layout(words * 64), Key())
    out = [np.empty(words, dtype=np.uint64) for _ in range(2)]
    for read in range(2):
        memory.read(region, Key(read=read), out[read])
    odd = (1 - math.prod(1 - 2 * p for p in rates)) / 2
    family = Family()
    family.add("one read", binomial(popcount(out[0] ^ region.written), words * 64, odd))
    family.add("between reads", binomial(popcount(out[0] ^ out[1]), words * 64, 2 * rates[2] * (1 - rates[2])))
    family.judge()


# --- addresses ---------------------------------------------------------------------------------------------------------------

TERMS = (
    ErrorTerm("hits", Lifetime.READ, 0.004, 0.004),
    ErrorTerm("levels", Lifetime.READ, 0.3, 0.3),
    ErrorTerm("inverted", Lifetime.READ, 0.93, 0.93),
    ErrorTerm("asymmetric", Lifetime.READ, 0.2, 0.01),
    ErrorTerm("write", Lifetime.WRITE, 0.1, 0.3),
    ErrorTerm("switched", Lifetime.WRITE, 0.1, 0.3, only_switched=True),
    ErrorTerm("die", Lifetime.DIE, 0.1, 0.3),
    ErrorTerm("accumulating", Lifetime.ACCUMULATING, 0.01, 0.02),
)


@given(
    before=st.integers(0, 1500),
    sizes=st.lists(st.integers(0, 1500), min_size=2, max_size=4),
    term=st.sampled_from(TERMS),
    seed=st.integers(0, 99),
)
@settings(max_examples=120)
def test_a_region_split_otherwise_gets_the_same_bits(before: int, sizes: list[int], term: ErrorTerm, seed: int) -> None:
    """What a cell does depends on its address in the memory, not on the region that it was given to."""
    stored, key = random_words(sum(sizes), seed), Key(2, 0, 3)
    whole, split = simulated(term, seed=seed), simulated(term, seed=seed)
    for memory in (whole, split):
        memory.write(zeros(before), bits_layout(before * 64, "before"), key)
    expected, begin = errors(whole, stored, key), 0
    for number, size in enumerate(sizes):
        part = errors(split, stored[begin : begin + size], key, bits_layout(size * 64, f"part {number}"))
        assert np.array_equal(part, expected[begin : begin + size])
        begin += size


@given(data=st.data(), first_word=st.integers(0, 3000), words=st.integers(1, 3000), term=st.sampled_from(TERMS[:4]))
@settings(max_examples=80)
def test_blocks_in_any_order_and_again(data: st.DataObject, first_word: int, words: int, term: ErrorTerm) -> None:
    memory = simulated(term)
    memory.write(zeros(first_word), bits_layout(first_word * 64, "before"), Key())
    sampler = memory.sampler(memory.write(random_words(words), bits_layout(words * 64 - 5), Key()))
    assert sampler is not None
    expected = np.empty(words, dtype=np.uint64)
    count = draw_region(sampler, 1, 2, 3, expected)
    assert count == popcount(expected)
    order = data.draw(st.permutations([*touched_blocks(first_word, words)] * 2))
    flips, room = random_words(words), new_workspace()
    for block in order:
        first, n = words_in_block(sampler.source[0], block)
        assert 0 <= first < first + n <= words
        draw_block(sampler.source[0], np.uint64(read_stream(sampler.source[0], 1, 2, 3)), block, flips[first : first + n], room)
    assert np.array_equal(flips, expected)


@pytest.mark.parametrize("term", TERMS[:4], ids=lambda term: term.name)
def test_two_threads_draw_the_same(term: ErrorTerm) -> None:
    words = 64 * BLOCK_WORDS
    memory = simulated(term)
    sampler = memory.sampler(memory.write(random_words(words), bits_layout(words * 64), Key()))
    assert sampler is not None
    alone, together = np.empty(words, dtype=np.uint64), np.empty(words, dtype=np.uint64)
    draw_region(sampler, 0, 0, 0, alone)

    def draw(block: int) -> None:
        part = together[block * BLOCK_WORDS : (block + 1) * BLOCK_WORDS]
        draw_block(sampler.source[0], np.uint64(read_stream(sampler.source[0], 0, 0, 0)), block, part, new_workspace())

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(draw, range(64)))
    assert np.array_equal(alone, together)


def test_counts_are_poisson_where_flips_are_rare() -> None:
    """A second look at 1e-4 with blocks of another memory: 0, 1, 2 … flips in a block of 2^16."""
    blocks, rate = 4096, 1e-4
    flips = errors(open_memory(f"uniform:ber={rate}", 31), zeros(blocks * BLOCK_WORDS))
    counts = np.bitwise_count(flips).astype(np.int64).reshape(blocks, -1).sum(axis=1)
    expected = blocks * stats.binom.pmf(np.arange(40), BLOCK_BITS, rate)
    family = Family()
    family.add("histogram", shape_fits(np.bincount(counts, minlength=40), expected))
    family.add("empty blocks", poisson(int(np.count_nonzero(counts == 0)), float(expected[0])))
    family.judge()
