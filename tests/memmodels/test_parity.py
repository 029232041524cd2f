"""Parity: words of the size asked for, odd numbers of errors, and the binomial share of random ones."""

from __future__ import annotations

import numpy as np
import pytest

from tests.memmodels.evidence import binomial
from tests.memmodels.memories import get, put
from tests.memmodels.scripted import Scripted, codes_read
from weakcell.memmodels import Layout, open_memory
from weakcell.memmodels.protection.check_bits import Parity


@pytest.mark.parametrize("word", [8, 16, 32, 64])
def test_parity_guards_words_of_the_size_that_was_asked_for(word: int) -> None:
    layout = Layout("w", 64, 8, erased=0x80)
    read, report = codes_read(Parity(Scripted({"w": [200]}), word=word), layout, np.full(64, 7))
    erased = np.flatnonzero(read == 0x80)
    assert erased.tolist() == list(range(200 // word * word // 8, (200 // word * word + word) // 8))
    assert report.erased == 1


def test_parity_sees_odd_numbers_of_errors_only() -> None:
    layout = Layout("w", 16, 8)
    codes = np.full(16, 0xFF)
    assert codes_read(Parity(Scripted({"w": [1, 9]})), layout, codes)[1].erased == 0
    assert codes_read(Parity(Scripted({"w": [1, 9, 11]})), layout, codes)[1].erased == 1
    assert codes_read(Parity(Scripted({"w parity": [1]})), layout, codes)[1].erased == 1


def test_parity_of_random_errors_is_the_binomial_one() -> None:
    p, layout = 0.003, Layout("w", 64 * 100_000, 1)
    memory = open_memory(f"parity+uniform:ber={p}", seed=8)
    _, report = get(memory, put(memory, layout))
    assert binomial(report.erased, layout.words, (1 - (1 - 2 * p) ** 65) / 2) > 1e-6
