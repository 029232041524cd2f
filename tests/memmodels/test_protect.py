"""What a detected word reads as under each policy, and what check bits cost."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.memmodels.memories import LAYOUTS, Parts, get, put, simulated
from tests.memmodels.scripted import Scripted, codes_read
from tests.memmodels.test_catalogue import one_paragraph
from weakcell.memmodels import Accesses, Cost, ErrorTerm, Layout, Lifetime, Memory, Quantity, open_memory, pack
from weakcell.memmodels.address import popcount
from weakcell.memmodels.errors import MemoryFault
from weakcell.memmodels.protection.check_bits import Linear, Parity, ProtectedReport, erased_words, mark_cells
from weakcell.memmodels.protection.linear_codes import SECDED
from weakcell.memmodels.protection.wrappers import split_wrappers


@pytest.mark.parametrize("width", [2, 3, 4, 5, 8, 12, 32])
@pytest.mark.parametrize("kind", [Parity, Linear])
def test_every_element_that_overlaps_a_detected_word_is_erased_and_no_other(width: int, kind: type) -> None:
    layout = Layout("w", 100, width, erased=(1 << width) - 2)
    codes = np.arange(100, dtype=np.uint64) % (1 << width)
    flips = [66, 70] if kind is Linear else [66]
    read, report = codes_read(kind(Scripted({"w": flips})), layout, codes)
    overlaps = np.array([(element + 1) * width > 64 and element * width < 128 for element in range(100)])
    assert np.array_equal(read, np.where(overlaps, layout.erased, codes))
    assert report.erased == 1
    assert popcount(report.erasures) == int(overlaps.sum()) * width
    assert report.flips == popcount(pack(read, layout) ^ pack(codes, layout))


@pytest.mark.parametrize("memory", [Linear(Scripted({"w": [3, 5]})), Parity(Scripted({"w": [3]}))], ids=["secded", "parity"])
def test_signs_stay_as_they_were_read(memory: Memory) -> None:
    layout = Layout("w", 128, 1)
    read, report = codes_read(memory, layout, np.ones(128, dtype=np.uint64))
    assert report.erased == 1
    assert report.flips == np.count_nonzero(read == 0) > 0
    assert isinstance(report, ProtectedReport)
    assert report.erasures.tolist() == [0xFFFFFFFFFFFFFFFF, 0]


def test_raw_leaves_what_was_read_and_raise_refuses() -> None:
    layout, codes = Layout("w", 16, 8, erased=9), np.full(16, 1)
    read, report = codes_read(Linear(Scripted({"w": [1, 9]}), policy="raw"), layout, codes)
    assert read.tolist() == [3, 3, *[1] * 14]
    assert report.erased == 1
    with pytest.raises(MemoryFault, match=r"1 of 2 words") as caught:
        codes_read(Linear(Scripted({"w": [1, 9]}), policy="raise"), layout, codes)
    one_paragraph(caught.value)
    assert codes_read(Linear(Scripted({"w": [1]}), policy="raise"), layout, codes)[1].corrected == 1


def test_a_syndrome_that_names_a_spare_bit_is_detected() -> None:
    """Three errors whose columns add up to that of a bit that the last word does not have."""
    layout = Layout("w", 10, 1)
    triple = next(
        places
        for places in combinations(range(10), 3)
        if np.bitwise_xor.reduce([SECDED.columns[place] for place in places]) in SECDED.columns[10:]
    )
    read, report = codes_read(Linear(Scripted({"w": list(triple)}), policy="raw"), layout, np.zeros(10, dtype=np.uint64))
    assert (report.erased, report.corrected, int(read.sum())) == (1, 0, 3)


def test_check_bits_fail_too() -> None:
    layout, codes = Layout("w", 16, 8), np.full(16, 1)
    read, report = codes_read(Linear(Scripted({"w check": [2]})), layout, codes)
    assert (report.flips, report.corrected, report.erased) == (0, 1, 0)
    read, report = codes_read(Linear(Scripted({"w check": [2], "w": [0]})), layout, codes)
    assert (report.corrected, report.erased) == (0, 1)
    assert read.tolist() == [0] * 8 + [1] * 8


def test_planes_of_one_tensor_have_check_bits_of_their_own() -> None:
    memory = open_memory("secded+uniform:ber=0")
    parts = [Layout("w", 1000, 8, planes) for planes in ((0, 1, 2), (3, 4, 5, 6, 7))]
    regions = [put(memory, layout) for layout in parts]
    assert all(get(memory, region)[1].erased == 0 for region in regions)


@given(st.integers(1, 300), st.integers(1, 33), st.sampled_from([8, 16, 32, 64]), st.data())
def test_marks_are_the_elements_that_overlap(elements: int, width: int, word: int, data: st.DataObject) -> None:
    layout = Layout("w", elements, width)
    words = -(-layout.bits // word)
    detected = np.array(data.draw(st.lists(st.booleans(), min_size=words, max_size=words)), dtype=np.bool_)
    cells = np.repeat(detected, word)[: layout.bits]
    whole = np.pad(cells, (0, elements * width - cells.size)).reshape(elements, width).any(axis=1)
    expected = pack(np.where(whole, (1 << width) - 1, 0), layout)
    assert np.array_equal(mark_cells(detected, word, layout), expected)


def test_erased_words_are_those_of_erased_codes() -> None:
    for layout in (Layout("w", 1000, 5, erased=19), Layout("w", 30_001, 8, (0, 3, 7), erased=0x81)):
        cells = pack(np.full(layout.elements, -1), layout)
        assert np.array_equal(erased_words(layout) & cells, pack(np.full(layout.elements, layout.erased), layout))


def test_a_protected_die_has_fewer_errors() -> None:
    term = ErrorTerm("die", Lifetime.DIE, 1e-3, 1e-3)
    bare, guarded = simulated(term), Linear(simulated(term), policy="raw")
    layout = replace(LAYOUTS[3], elements=200_000)
    few, many = (get(memory, put(memory, layout))[1].flips for memory in (guarded, bare))
    assert 0 < few < many / 2


@pytest.mark.parametrize(
    ("spec", "factor"),
    [
        ("secded", 72 / 64),
        ("parity", 65 / 64),
        ("parity[word=8]", 9 / 8),
        ("interleave", 1.0),
        ("msb", 1.0),
        ("msb[store=triple,planes=2]", 1.5),
        ("secded+interleave", 72 / 64),
        ("secded+msb[store=triple,planes=2]", 1.5 * 72 / 64),
    ],
)
@pytest.mark.parametrize("unit", ["pJ", "x E(Vmin)"])
def test_overheads_are_paid(spec: str, factor: float, unit: str) -> None:
    layout = Layout("w", 64 * 100, 8)
    memory: Memory = Scripted({}, Cost(Quantity(2.0, unit, "published", "a paper"), Quantity(1.0, "ns", "assumed", "x")))
    bare = memory.cost(put(memory, layout), Accesses(1)).energy.value
    for wrapper in reversed(split_wrappers(f"{spec}+uniform")[0]):
        memory = wrapper.wrap(memory)
    cost = memory.cost(put(memory, layout), Accesses(1))
    assert cost.energy.value == pytest.approx(bare * factor)
    assert cost.energy.unit == unit
    assert cost.energy.basis == ("assumed" if spec == "msb" else "published")
    assert cost.latency.value == 1.0
    assert sum(part.value for part in cost.parts.values()) == pytest.approx(cost.energy.value)


@pytest.mark.parametrize(("inside", "of_data"), [("rram:g_high=8", "read"), ("sram-14nm:v_over_vmin=0.9", "data")])
def test_costs_of_different_tensors_have_the_same_parts(inside: str, of_data: str) -> None:
    """So they add up over a network, and its caption names each copy once."""
    memory = open_memory(f"msb[planes=2,store=triple]+{inside}")
    costs = [memory.cost(put(memory, Layout(name, 640, 8)), Accesses(1)) for name in ("conv1", "conv2")]
    assert {tuple(cost.parts) for cost in costs} == {(of_data, "copy 2", "copy 3")}
    assert len({cost.energy.source for cost in costs}) == 1
    for cost in costs:
        assert cost.energy.value == pytest.approx(1.5 * cost.parts[of_data].value)


def test_unknown_energy_stays_unknown() -> None:
    memory = open_memory("secded+uniform:ber=0")
    assert memory.cost(put(memory, LAYOUTS[0]), Accesses(1)).energy is None


def test_regions_of_others_are_refused() -> None:
    memory = open_memory("secded+uniform:ber=0")
    region = put(open_memory("uniform:ber=0"), LAYOUTS[0])
    with pytest.raises(ValueError, match="not written by this memory"):
        get(memory, region)
    assert not isinstance(region, Parts)
