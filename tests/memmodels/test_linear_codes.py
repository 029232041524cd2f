"""SECDED(72,64) and DECTED(79,64), checked exhaustively."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.memmodels.evidence import Family, binomial
from tests.memmodels.memories import contents, get, put
from weakcell.memmodels import Layout, open_memory
from weakcell.memmodels.address import Words
from weakcell.memmodels.protection.linear_codes import DECTED, SECDED, LinearCode

WORDS = (0, 0xFFFFFFFFFFFFFFFF, 0x0123456789ABCDEF)


def errors_of_weight(weight: int, code: LinearCode = SECDED) -> tuple[Words, np.ndarray]:
    """All patterns of so many errors in a word and its check bits: (data, check bits)."""
    places = np.array(list(combinations(range(64 + code.check_bits), weight)))
    bits = np.zeros((len(places), 64 + 16), dtype=np.uint8)
    np.put_along_axis(bits, places, 1, axis=1)
    data, checks = (np.packbits(part, axis=1, bitorder="little") for part in (bits[:, :64], bits[:, 64:]))
    return data.view(np.uint64)[:, 0], checks.view(np.uint16)[:, 0]


def test_columns_are_different_and_odd_and_rows_are_balanced() -> None:
    columns = [*map(int, SECDED.columns), *(1 << row for row in range(8))]
    assert len(set(columns)) == 72
    assert all(column.bit_count() % 2 for column in columns)
    assert {sum(column >> row & 1 for column in columns) for row in range(8)} == {27}


@pytest.mark.parametrize("word", WORDS)
def test_all_72_single_errors_are_corrected(word: int) -> None:
    data, check = errors_of_weight(1)
    stored = np.full(data.size, word, dtype=np.uint64)
    fixed, corrected, detected = SECDED.decode(stored ^ data, SECDED.encode(stored) ^ check)
    assert data.size == 72
    assert corrected.all()
    assert not detected.any()
    assert np.array_equal(fixed, stored)


@pytest.mark.parametrize("word", WORDS)
def test_all_2556_double_errors_are_detected(word: int) -> None:
    data, check = errors_of_weight(2)
    stored = np.full(data.size, word, dtype=np.uint64)
    fixed, corrected, detected = SECDED.decode(stored ^ data, SECDED.encode(stored) ^ check)
    assert data.size == 2556
    assert detected.all()
    assert not corrected.any()
    assert np.array_equal(fixed, stored ^ data)


def test_of_59640_triple_errors_33568_are_miscorrected_and_the_others_detected() -> None:
    """Never seen as no error; a miscorrection is a triple whose columns add up to a fourth: four per word of weight 4."""
    data, check = errors_of_weight(3)
    fixed, corrected, detected = SECDED.decode(data, SECDED.encode(np.zeros_like(data)) ^ check)
    columns = np.array([*SECDED.columns, *(1 << np.arange(8))])
    sums = np.bitwise_xor.outer(columns, columns)[np.triu_indices(72, 1)]
    pairs = np.bincount(sums, minlength=256)
    weight_4 = int((pairs * (pairs - 1) // 2).sum()) // 3
    assert data.size == math.comb(72, 3) == 59640
    assert np.array_equal(corrected, ~detected)
    assert int(corrected.sum()) == 4 * weight_4
    assert int(corrected.sum()) == 33568
    assert (fixed[corrected] != 0).all()


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(("weight", "patterns"), [(1, 79), (2, 3_081), (3, 79_079)])
def test_dected_corrects_all_single_and_double_errors_and_detects_all_triple_ones(word: int, weight: int, patterns: int) -> None:
    data, check = errors_of_weight(weight, DECTED)
    stored = np.full(data.size, word, dtype=np.uint64)
    fixed, corrected, detected = DECTED.decode(stored ^ data, DECTED.encode(stored) ^ check)
    assert data.size == patterns
    assert np.array_equal(fixed, stored if weight <= 2 else stored ^ data)
    assert corrected.all() == (weight <= 2)
    assert detected.all() == (weight == 3)


def test_dected_is_the_bch_code(rng: np.random.Generator) -> None:
    """Every codeword, as a polynomial over GF(2^7), is zero at alpha and alpha^3, and its weight is even."""
    powers = [1]
    while len(powers) < 3 * 128:
        double = powers[-1] << 1
        powers.append(double ^ 0b10001001 if double >> 7 else double)
    words = rng.integers(0, 1 << 64, 200, dtype=np.uint64)
    for word, checks in zip(words.tolist(), DECTED.encode(words).tolist(), strict=True):
        places = [14 + i for i in range(64) if word >> i & 1] + [i for i in range(14) if checks >> i & 1]
        assert np.bitwise_xor.reduce([powers[place] for place in places]) == 0
        assert np.bitwise_xor.reduce([powers[3 * place % 127] for place in places]) == 0
        assert (len(places) + (checks >> 14)) % 2 == 0


def test_no_errors_no_corrections(rng: np.random.Generator) -> None:
    words = rng.integers(0, 1 << 64, 10_000, dtype=np.uint64)
    fixed, corrected, detected = SECDED.decode(words, SECDED.encode(words))
    assert np.array_equal(fixed, words)
    assert not corrected.any()
    assert not detected.any()


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))
def test_the_code_is_linear(a: int, b: int) -> None:
    words = np.array([a, b, a ^ b], dtype=np.uint64)
    one, other, both = SECDED.encode(words)
    assert one ^ other == both


def test_words_are_corrected_detected_and_missed_as_the_binomial_says() -> None:
    """Even numbers of errors are detected but for weight-4 codewords; a single one is corrected."""
    p, layout, family = 0.004, Layout("w", 64 * 200_000, 1), Family()
    memory = open_memory(f"secded[policy=raw]+uniform:ber={p}", seed=3)
    out, report = get(memory, put(memory, layout))
    seen = [math.comb(72, k) * p**k * (1 - p) ** (72 - k) for k in range(4)]
    wrong = int(np.count_nonzero(out ^ contents(layout)))
    miscorrected = seen[3] * 33568 / 59640
    family.add("fault-free", binomial(layout.words - report.corrected - report.erased, layout.words, seen[0]))
    rest = 1 - sum(seen)
    assert seen[1] + miscorrected < report.corrected / layout.words + 4e-3 < seen[1] + miscorrected + rest + 8e-3
    assert seen[2] < report.erased / layout.words + 2e-3
    assert wrong >= report.erased * 0.9
    family.judge()
