"""SECDED(72,64), checked exhaustively."""

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
from weakcell.memmodels.protection.hamming import DATA_COLUMNS, decode, encode

WORDS = (0, 0xFFFFFFFFFFFFFFFF, 0x0123456789ABCDEF)


def errors_of_weight(weight: int) -> tuple[Words, np.ndarray]:
    """All patterns of so many errors in 72 bits: (data, check bits)."""
    places = np.array(list(combinations(range(72), weight)))
    bits = np.zeros((len(places), 72), dtype=np.uint8)
    np.put_along_axis(bits, places, 1, axis=1)
    return np.packbits(bits[:, :64], axis=1, bitorder="little").view(np.uint64)[:, 0], np.packbits(
        bits[:, 64:], axis=1, bitorder="little"
    )[:, 0]


def test_columns_are_different_and_odd_and_rows_are_balanced() -> None:
    columns = [*map(int, DATA_COLUMNS), *(1 << row for row in range(8))]
    assert len(set(columns)) == 72
    assert all(column.bit_count() % 2 for column in columns)
    assert {sum(column >> row & 1 for column in columns) for row in range(8)} == {27}


@pytest.mark.parametrize("word", WORDS)
def test_all_72_single_errors_are_corrected(word: int) -> None:
    data, check = errors_of_weight(1)
    stored = np.full(data.size, word, dtype=np.uint64)
    fixed, corrected, detected = decode(stored ^ data, encode(stored) ^ check)
    assert data.size == 72
    assert corrected.all()
    assert not detected.any()
    assert np.array_equal(fixed, stored)


@pytest.mark.parametrize("word", WORDS)
def test_all_2556_double_errors_are_detected(word: int) -> None:
    data, check = errors_of_weight(2)
    stored = np.full(data.size, word, dtype=np.uint64)
    fixed, corrected, detected = decode(stored ^ data, encode(stored) ^ check)
    assert data.size == 2556
    assert detected.all()
    assert not corrected.any()
    assert np.array_equal(fixed, stored ^ data)


def test_of_59640_triple_errors_33568_are_miscorrected_and_the_others_detected() -> None:
    """Never seen as no error; a miscorrection is a triple whose columns add up to a fourth: four per word of weight 4."""
    data, check = errors_of_weight(3)
    fixed, corrected, detected = decode(data, encode(np.zeros_like(data)) ^ check)
    columns = np.array([*DATA_COLUMNS, *(1 << np.arange(8))])
    sums = np.bitwise_xor.outer(columns, columns)[np.triu_indices(72, 1)]
    pairs = np.bincount(sums, minlength=256)
    weight_4 = int((pairs * (pairs - 1) // 2).sum()) // 3
    assert data.size == math.comb(72, 3) == 59640
    assert np.array_equal(corrected, ~detected)
    assert int(corrected.sum()) == 4 * weight_4
    assert int(corrected.sum()) == 33568
    assert (fixed[corrected] != 0).all()


def test_no_errors_no_corrections(rng: np.random.Generator) -> None:
    words = rng.integers(0, 1 << 64, 10_000, dtype=np.uint64)
    fixed, corrected, detected = decode(words, encode(words))
    assert np.array_equal(fixed, words)
    assert not corrected.any()
    assert not detected.any()


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))
def test_the_code_is_linear(a: int, b: int) -> None:
    words = np.array([a, b, a ^ b], dtype=np.uint64)
    one, other, both = encode(words)
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
