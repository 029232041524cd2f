"""Safe high bits and interleaving, the latter as a bijection."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.memmodels.evidence import Family, binomial
from tests.memmodels.memories import LAYOUTS, contents, get, put
from tests.memmodels.scripted import Scripted, codes_read
from weakcell.memmodels import Layout, open_memory, pack, unpack
from weakcell.memmodels.address import popcount
from weakcell.memmodels.protection.cells import Interleaved, gather, select_high_planes, spread
from weakcell.memmodels.protection.check_bits import Linear


@pytest.mark.parametrize("planes", [1, 3, 8])
def test_safe_planes_never_err_and_the_others_as_before(planes: int) -> None:
    layout = LAYOUTS[3]
    bare, memory = open_memory("uniform:ber=0.1", 5), open_memory(f"msb[planes={planes}]+uniform:ber=0.1", 5)
    (before, _), (after, report) = (get(one, put(one, layout)) for one in (bare, memory))
    codes = [np.zeros(layout.elements, dtype=np.uint64) for _ in range(2)]
    unpack(before ^ contents(layout), layout, codes[0])
    unpack(after ^ contents(layout), layout, codes[1])
    assert np.array_equal(codes[1], codes[0] & np.uint64((1 << 8 - planes) - 1))
    assert report.flips + report.corrected == popcount(before ^ contents(layout))


def test_the_majority_of_three_copies_errs_as_the_binomial_says() -> None:
    p, layout, family = 0.05, Layout("w", 200_000, 4), Family()
    memory = open_memory(f"msb[planes=2,store=triple]+uniform:ber={p}", 6)
    out, _ = get(memory, put(memory, layout))
    codes = np.zeros(layout.elements, dtype=np.uint64)
    unpack(out ^ contents(layout), layout, codes)
    for plane in range(4):
        rate = 3 * p**2 * (1 - p) + p**3 if plane >= 2 else p
        family.add(f"plane {plane}", binomial(int((codes >> np.uint64(plane) & np.uint64(1)).sum()), layout.elements, rate))
    family.judge()


def test_high_planes_are_counted_in_the_tensor_not_in_the_region() -> None:
    assert select_high_planes(Layout("w", 1, 8, (0, 3, 7)), 2) == (7,)
    assert select_high_planes(Layout("w", 1, 8, (0, 3)), 2) == ()
    assert select_high_planes(Layout("w", 1, 1), 2) == (0,)


@given(st.integers(1, 700), st.integers(2, 300), st.integers(0, 99))
def test_interleaving_is_a_bijection(bits: int, stride: int, seed: int) -> None:
    layout = Layout("w", bits, 1)
    words = pack(np.random.default_rng(seed).integers(0, 2, bits), layout)
    cells = spread(words, bits, stride)
    assert popcount(cells) == popcount(words)
    assert not (cells & ~pack(np.ones(bits, dtype=np.int64), layout)).any()
    assert np.array_equal(gather(cells, bits, stride), words)


@pytest.mark.parametrize(("bits", "stride"), [(640, 10), (1000, 4), (64 * 64, 64), (70, 64), (333, 2)])
def test_every_bit_has_a_cell_of_its_own(bits: int, stride: int) -> None:
    layout = Layout("w", bits, 1)
    cells = set()
    for bit in range(bits):
        words = np.zeros(layout.words, dtype=np.uint64)
        words[bit // 64] = np.uint64(1 << bit % 64)
        (place,) = np.flatnonzero(np.unpackbits(spread(words, bits, stride).view(np.uint8), bitorder="little"))
        cells.add(int(place))
    assert cells == set(range(bits))


@pytest.mark.parametrize("stride", [2, 16, 64])
def test_a_burst_as_long_as_the_stride_costs_each_word_one_bit(stride: int) -> None:
    bits = 64 * 640
    for start in range(0, bits - stride, 97):
        burst = np.zeros(bits, dtype=np.uint8)
        burst[start : start + stride] = 1
        words = gather(np.packbits(burst, bitorder="little").view(np.uint64), bits, stride)
        per_word = np.bitwise_count(words)
        assert per_word.max() <= (1 if start // (64 * stride) == (start + stride - 1) // (64 * stride) else 2)
        assert per_word.sum() == stride


def test_interleaving_lets_secded_correct_bursts() -> None:
    bits = 64 * 128
    layout, burst = Layout("w", bits, 1), list(range(64 * 3, 64 * 3 + 64))
    inner = {"w interleaved": burst}
    stacked = Linear(Interleaved(Scripted(inner), 64))
    _, report = codes_read(stacked, layout, np.ones(bits, dtype=np.uint64))
    assert (report.flips, report.corrected) == (0, 64)
    _, report = codes_read(Linear(Scripted({"w": burst})), layout, np.ones(bits, dtype=np.uint64))
    assert report.flips > 0
