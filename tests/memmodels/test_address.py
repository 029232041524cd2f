"""Storage addresses: elements to words and back, planes, and the bits that are not cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weakcell.memmodels import Layout, pack, unpack
from weakcell.memmodels.address import BLOCK_BITS, BLOCK_WORDS, popcount, set_bits, touched_blocks
from weakcell.memmodels.sampling.read_errors import count_bits


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Any number of elements of 1 to 64 bits, with all planes or some of them."""
    width = draw(st.integers(1, 64))
    some = st.sets(st.integers(0, width - 1), min_size=1).map(lambda planes: tuple(sorted(planes)))
    return Layout("w", draw(st.integers(0, 200)), width, draw(st.one_of(st.just(()), some)))


@st.composite
def stored(draw: st.DrawFn) -> tuple[Layout, np.ndarray]:
    """A layout and codes for it."""
    layout = draw(layouts())
    seed = draw(st.integers(0, 1 << 32))
    codes = np.random.default_rng(seed).integers(0, (1 << layout.width) - 1, layout.elements, np.uint64, endpoint=True)
    return layout, codes


def plane_mask(layout: Layout) -> np.uint64:
    return np.uint64(sum(1 << plane for plane in layout.planes))


@given(stored())
def test_codes_come_back_in_their_planes_and_leave_the_others_alone(case: tuple[Layout, np.ndarray]) -> None:
    layout, codes = case
    before = np.full(layout.elements, 0x5A5A5A5A5A5A5A5A, dtype=np.uint64)
    after = before.copy()
    unpack(pack(codes, layout), layout, after)
    assert np.array_equal(after, (codes & plane_mask(layout)) | (before & ~plane_mask(layout)))


@given(stored())
def test_bits_lie_where_the_address_says(case: tuple[Layout, np.ndarray]) -> None:
    """Element by element, the planes of an element from the lowest up: bit a is bit a & 63 of word a >> 6. By definition."""
    layout, codes = case
    words = pack(codes, layout)
    assert words.shape == (layout.words,)
    number = int.from_bytes(words.astype("<u8").tobytes(), "little")
    bits = [int(code) >> plane & 1 for code in codes for plane in layout.planes]
    assert number == sum(bit << address for address, bit in enumerate(bits))
    assert len(bits) == layout.bits


@given(stored(), st.data())
def test_planes_in_two_layouts_hold_the_whole(case: tuple[Layout, np.ndarray], data: st.DataObject) -> None:
    layout, codes = case
    high = set(data.draw(st.sets(st.sampled_from(layout.planes)))) if layout.elements else set()
    parts = [tuple(p for p in layout.planes if (p in high) == wanted) for wanted in (True, False)]
    joined = np.zeros(layout.elements, dtype=np.uint64)
    for planes in filter(None, parts):
        part = Layout("w", layout.elements, layout.width, planes)
        unpack(pack(codes, part), part, joined)
    assert np.array_equal(joined, codes & plane_mask(layout))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint8])
def test_any_integer_is_a_code_and_twos_complement_is_itself(dtype: type) -> None:
    layout = Layout("w", 256, 8)
    codes = np.arange(256).astype(np.uint8).astype(dtype)
    out = np.zeros(256, dtype=np.uint64)
    unpack(pack(codes, layout), layout, out)
    assert np.array_equal(out, np.arange(256))


def test_bits_above_the_width_are_not_stored() -> None:
    layout = Layout("w", 4, 2)
    assert pack(np.array([0xFD, -1, 4, 2]), layout).tolist() == [0b10_00_11_01]


def test_tensors_of_any_shape_are_stored_in_order() -> None:
    layout = Layout("w", 24, 3)
    codes = np.random.default_rng(0).integers(0, 8, (2, 3, 4))
    assert np.array_equal(pack(codes, layout), pack(codes.reshape(-1), layout))


def test_a_region_of_nothing_has_no_words() -> None:
    layout = Layout("nothing", 0, 8)
    assert (layout.bits, layout.words, pack(np.empty(0, np.int64), layout).size) == (0, 0, 0)
    assert list(touched_blocks(7, 0)) == []


@pytest.mark.parametrize("planes", [(8,), (1, 0), (2, 2), (-1,)])
def test_planes_that_are_not_there_are_refused(planes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="planes"):
        Layout("w", 10, 8, planes)


def test_too_few_codes_are_refused() -> None:
    with pytest.raises(ValueError, match="3 codes for 4 elements"):
        pack(np.zeros(3, np.uint8), Layout("w", 4, 8))


def test_a_layout_names_its_planes() -> None:
    assert str(Layout("conv1", 10, 8)) == "conv1"
    assert str(Layout("conv1", 10, 8, (6, 7))) == "conv1[bits 6,7]"


@given(st.lists(st.integers(0, 4095), unique=True))
def test_set_bits_are_found_and_counted(addresses: list[int]) -> None:
    words = np.zeros(64, dtype=np.uint64)
    for address in addresses:
        words[address >> 6] |= np.uint64(1 << (address & 63))
    assert set_bits(words).tolist() == sorted(addresses)
    assert popcount(words) == count_bits(words) == len(addresses)


@given(first_word=st.integers(0, 10_000), words=st.integers(1, 5_000))
def test_blocks_of_a_region_are_those_of_its_cells(first_word: int, words: int) -> None:
    blocks = {word * 64 // BLOCK_BITS for word in range(first_word, first_word + words)}
    assert set(touched_blocks(first_word, words)) == blocks
    assert BLOCK_WORDS * 64 == BLOCK_BITS == 65536
