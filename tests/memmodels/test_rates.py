"""How a rate becomes recipes: dyadic levels, hits and Poisson tables, against closed forms and exact arithmetic."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.memmodels.evidence import Family, shape_fits
from weakcell.memmodels.address import BLOCK_BITS
from weakcell.memmodels.sampling.dyadic import GENERATORS, DyadicMask, fill_random, flip_dyadic
from weakcell.memmodels.sampling.rates import MAX_LEVELS, PoissonTable, dyadic_steps, plan_rates, poisson_table
from weakcell.memmodels.sampling.read_errors import poisson_count
from weakcell.memmodels.sampling.streams import derive_stream, next_word, random_words, start, word_at

rates = st.one_of(
    st.floats(0.0, 1.0),
    st.floats(-12.0, 0.0).map(lambda exponent: 10.0**exponent),
    st.floats(-12.0, 0.0).map(lambda exponent: 1.0 - 10.0**exponent),
    st.integers(0, 1 << 16).map(lambda n: n / (1 << 16)),
)


def mean_of(table: PoissonTable) -> float:
    """The mean of a Poisson table, from the table itself: the sum of P(N > k)."""
    above = 1.0 - table.cumulative.astype(np.float64) / 2.0**64
    return table.low + float(above.sum())


# --- recipes -----------------------------------------------------------------------------------------------------------------


@given(p01=rates, p10=rates)
@settings(max_examples=200)
def test_levels_and_hits_make_the_rates(p01: float, p10: float) -> None:
    """p1 (+) q = p1 + q - 2 p1 q = p, where q = (1 - exp(-2 mu)) / 2 and mu is what the tables say, inverted above 1/2."""
    recipe = plan_rates(p01, p10)
    for value, p in enumerate((p01, p10)):
        mean = mean_of(recipe.hits) + (mean_of(recipe.extra_hits) if value == recipe.extra_value else 0.0)
        p1 = recipe.numerators[value] / 2**recipe.levels
        q = -math.expm1(-2 * mean / BLOCK_BITS) / 2
        assert 0 <= p1 <= 0.5
        assert p1 + q - 2 * p1 * q == pytest.approx(1 - p if recipe.inverted[value] else p, rel=1e-9, abs=1e-19)


@given(p01=rates, p10=rates)
def test_levels_never_exceed_the_rates(p01: float, p10: float) -> None:
    """p1 is p rounded down to L binary digits: the hits only ever add."""
    recipe = plan_rates(p01, p10)
    assert 0 <= recipe.levels <= MAX_LEVELS
    for p, inverted, numerator in zip((p01, p10), recipe.inverted, recipe.numerators, strict=True):
        small = 1 - Fraction(p) if inverted else Fraction(p)
        assert 0 <= small - Fraction(numerator, 2**recipe.levels) < Fraction(1, 2**recipe.levels) or recipe.levels == 0
        assert inverted == (p > 0.5)


@given(p=rates)
def test_equal_rates_need_no_second_hits(p: float) -> None:
    assert mean_of(plan_rates(p, p).extra_hits) == 0.0


@pytest.mark.parametrize("eighths", range(9))
def test_dyadic_rates_need_no_hits_or_few(eighths: int) -> None:
    """0, 1/2 and 1 are made without any hit, and no rate by more than a sixteenth of a hit per cell."""
    recipe = plan_rates(eighths / 8, eighths / 8)
    assert mean_of(recipe.hits) < BLOCK_BITS / 16
    if eighths in (0, 4, 8):
        assert recipe.hits.low == 0
        assert recipe.hits.cumulative.size == 0


def test_rare_rates_are_all_hits() -> None:
    """Below 1 % the cost follows the flips: no levels, and one hit per flip."""
    for p in (1e-9, 1e-6, 1e-4, 1e-3, 0.01):
        recipe = plan_rates(p, p)
        assert recipe.levels == 0
        assert mean_of(recipe.hits) == pytest.approx(BLOCK_BITS * p, rel=0.02)


# --- masks -------------------------------------------------------------------------------------------------------------------


@given(
    numerators=st.tuples(st.integers(0, 1 << 10), st.integers(0, 1 << 10)),
    inverted=st.tuples(st.booleans(), st.booleans()),
    levels=st.integers(1, MAX_LEVELS),
    stream=st.integers(0, (1 << 64) - 1),
)
@settings(max_examples=60, deadline=None)
def test_masks_combine_random_words_digit_by_digit(
    numerators: tuple[int, int], inverted: tuple[bool, bool], levels: int, stream: int
) -> None:
    """m | ~r for a binary 1 and m & r for a 0, lowest first, with the digits of what each cell stores, in numpy."""
    cells, before = random_words(np.uint64(99), 0, 16), random_words(np.uint64(98), 0, 16)
    steps, last = dyadic_steps(numerators, inverted, levels, MAX_LEVELS)
    asymmetric, flips = numerators[0] != numerators[1] or inverted[0] != inverted[1], before.copy()
    mask = DyadicMask(asymmetric, steps, levels, last)
    flip_dyadic(mask, np.uint64(stream), cells.ctypes.data, flips.ctypes.data, flips.size)
    mask = flips ^ before
    words = np.array(eight_xoshiros(stream, 2 * levels), dtype=np.uint64).reshape(2, levels, GENERATORS)
    for vector in range(2):
        own = cells[8 * vector : 8 * vector + 8]
        made = [np.zeros(8, dtype=np.uint64) for _ in range(2)]
        for level in range(levels):
            for value, numerator in enumerate(numerators):
                r = words[vector, level]
                made[value] = made[value] | ~r if numerator >> level & 1 else made[value] & r
        where = [~m if flip else m for m, flip in zip(made, inverted, strict=True)]
        assert np.array_equal(mask[8 * vector : 8 * vector + 8], (where[0] & ~own) | (where[1] & own))


def test_levels_are_a_bernoulli_mask() -> None:
    """The recursion m | ~r for a binary 1 and m & r for a 0, lowest first, has rate numerator / 2^levels: exact, by induction."""
    for p in (0.1, 0.3, 0.4999, 0.0123, 0.5):
        recipe, made = plan_rates(p, p), Fraction(0)
        for level in range(recipe.levels):
            made = (1 + made) / 2 if recipe.numerators[0] >> level & 1 else made / 2
        assert made == Fraction(recipe.numerators[0], 2**recipe.levels)


# --- Poisson -----------------------------------------------------------------------------------------------------------------


def exact_distribution(mean: float, last: int) -> list[int]:
    """P(N <= k) for k = 0 … last in units of 2^-64, in 40 decimal digits."""
    with localcontext() as context:
        context.prec = 40
        term = total = (-Decimal(mean)).exp()
        out = [int(total * 2**64)]
        for k in range(1, last + 1):
            term = term * Decimal(mean) / k
            total += term
            out.append(int(total * 2**64))
    return out


@pytest.mark.parametrize("mean", [1e-12, 6.5536e-4, 0.0655, 1.0, 6.55, 65.5, 655.36, 1966.08, 8192.0, 65536.0])
def test_poisson_tables_are_exact(mean: float) -> None:
    """Every entry within 1e-15 of the distribution, and less than 1e-15 cut off on either side."""
    table = poisson_table(mean)
    last = table.low + table.cumulative.size
    exact = exact_distribution(mean, last)
    differences = [abs(int(entry) - exact[table.low + i]) for i, entry in enumerate(table.cumulative)]
    assert max(differences, default=0) < 1e-15 * 2**64
    assert table.low == 0 or exact[table.low - 1] < 1e-15 * 2**64
    assert 2**64 - exact[last] < 1e-15 * 2**64
    assert (table.cumulative[1:] >= table.cumulative[:-1]).all()


@pytest.mark.parametrize("mean", [0.3, 20.0, 1310.0, 2.0**21])
def test_poisson_tables_agree_with_scipy(mean: float) -> None:
    table = poisson_table(mean)
    k = table.low + np.arange(table.cumulative.size)
    assert np.allclose(table.cumulative.astype(np.float64) / 2.0**64, stats.poisson.cdf(k, mean), rtol=0, atol=1e-15)


def test_no_hits_at_mean_zero() -> None:
    assert poisson_table(0.0).cumulative.size == 0
    assert poisson_count(np.uint64(1), 0, 0, 0, np.empty(0, np.uint64).ctypes.data) == 0


def test_counts_are_found_by_inversion() -> None:
    """The number of entries at or below a random word, as numpy counts them, for 20 000 words; and the histogram fits."""
    mean = 6.5536
    table, words = poisson_table(mean), random_words(derive_stream(5), 0, 20_000)
    entries, size = table.cumulative.ctypes.data, table.cumulative.size
    counts = np.array([poisson_count(word, table.low, 0, size, entries) for word in words])
    assert np.array_equal(counts, table.low + np.searchsorted(table.cumulative, words, side="right"))
    family = Family()
    family.add("histogram", shape_fits(np.bincount(counts, minlength=40), 20_000 * stats.poisson.pmf(np.arange(40), mean)))
    family.judge()


# --- generators --------------------------------------------------------------------------------------------------------------

M = (1 << 64) - 1


def splitmix64(state: int, count: int) -> list[int]:
    """The generator as published (Steele, Lea and Flood 2014), in Python integers."""
    out = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & M
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M
        out.append(z ^ (z >> 31))
    return out


def xoshiro256pp(s: list[int], count: int) -> list[int]:
    """The generator as published (Blackman and Vigna 2019), in Python integers."""
    out = []
    for _ in range(count):
        total = (s[0] + s[3]) & M
        out.append((((total << 23) | (total >> 41)) + s[0]) & M)
        t = (s[1] << 17) & M
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = ((s[3] << 45) | (s[3] >> 19)) & M
    return out


def test_splitmix64_is_the_published_one() -> None:
    """From seed 1234567 the reference implementation prints these five numbers."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert splitmix64(1234567, 5) == published
    assert random_words(np.uint64(1234567), 0, 5).tolist() == published
    assert random_words(np.uint64(1234567), 3, 2).tolist() == published[3:]
    assert [int(word_at(np.uint64(1234567), np.uint64(i))) for i in range(5)] == published


@given(stream=st.integers(0, M))
@settings(max_examples=30)
def test_xoshiro_is_the_published_one_seeded_as_its_authors_advise(stream: int) -> None:
    state, words = start(np.uint64(stream)), []
    for _ in range(10):
        word, state = next_word(tuple(map(np.uint64, state)))
        words.append(int(word))
    assert words == xoshiro256pp(splitmix64(stream, 4), 10)


def eight_xoshiros(stream: int, rounds: int) -> list[list[int]]:
    """`rounds` outputs of eight generators side by side: word k of generator g's state is output 8 k + g of splitmix64."""
    seeds = splitmix64(stream, 32)
    return list(map(list, zip(*(xoshiro256pp(seeds[g::8], rounds) for g in range(8)), strict=True)))


@given(stream=st.integers(0, M), rounds=st.integers(0, 20))
@settings(max_examples=30)
def test_eight_generators_side_by_side(stream: int, rounds: int) -> None:
    words = np.empty(8 * rounds, dtype=np.uint64)
    fill_random(np.uint64(stream), words.ctypes.data, words.size)
    assert words.reshape(-1, 8).tolist() == eight_xoshiros(stream, rounds)


@given(names=st.lists(st.integers(0, M), min_size=1, max_size=5), other=st.lists(st.integers(0, M), min_size=1, max_size=5))
def test_other_names_are_other_streams(names: list[int], other: list[int]) -> None:
    assert (derive_stream(*names) == derive_stream(*other)) == (names == other)


def test_near_names_are_far_streams() -> None:
    """300 streams with small names, in every depth and order: all different, and half of their bits differ."""
    streams = np.array([derive_stream(*names) for depth in (1, 2, 3) for names in np.ndindex(*(6,) * depth)])
    assert np.unique(streams).size == streams.size
    distances = np.bitwise_count(streams[:, None] ^ streams[None, :])[np.triu_indices(streams.size, 1)]
    assert distances.mean() == pytest.approx(32, abs=0.2)
    assert distances.min() > 8
