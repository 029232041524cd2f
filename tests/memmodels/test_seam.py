"""One contract, held against every memory in `memories.py`: what the engine may rely on, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import binomtest

from tests.memmodels import memories
from tests.memmodels.memories import (
    CASES,
    LAYOUTS,
    Case,
    EccMemory,
    FakeBoard,
    FakeTransport,
    PlaneMemory,
    contents,
    get,
    put,
    simulated,
)
from weakcell.memmodels import Accesses, Cost, ErrorTerm, Key, Layout, Lifetime, Memory, Sampler, open_memory, pack, unpack
from weakcell.memmodels.address import Words, popcount, touched_blocks
from weakcell.memmodels.errors import MemoryFault, MemorySpecError
from weakcell.memmodels.memory import Region
from weakcell.memmodels.sampling.read_errors import (
    draw_block,
    new_workspace,
    read_stream,
    words_in_block,
)
from weakcell.memmodels.sampling.sampler import draw_region

BIG = LAYOUTS[-1]

each_memory = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=str)


def cells(layout: Layout) -> Words:
    """All cells of a region set, its spare bits not."""
    return pack(np.full(layout.elements, -1), layout)


def draw(sampler: Sampler, key: Key) -> Words:
    """The flips that a kernel would see."""
    flips = np.empty_like(sampler.written)
    draw_region(sampler, key.trial, key.write, key.read, flips)
    return flips


@each_memory
def test_it_is_a_memory(case: Case) -> None:
    assert isinstance(case.build(), Memory)


# --- write -------------------------------------------------------------------------------------------------------------------


@each_memory
@each_layout
def test_a_write_keeps_what_was_asked(case: Case, layout: Layout) -> None:
    memory, bits = case.build(), contents(layout)
    mine = bits.copy()
    region = memory.write(mine, layout, Key())
    assert np.array_equal(mine, bits)
    mine[:] = 0
    assert np.array_equal(region.written, bits)
    assert (region.layout, region.key) == (layout, Key())


@each_memory
@each_layout
def test_writing_again_overwrites_in_place_and_remembers(case: Case, layout: Layout) -> None:
    memory = case.build()
    first, second = put(memory, layout, 0), put(memory, layout, 1)
    assert second.first_word == first.first_word
    assert second.previous is not None
    assert np.array_equal(second.previous, first.stored)
    assert np.array_equal(second.written, contents(layout, 1))
    assert second.key.write == 1


@each_memory
def test_another_layout_under_the_same_name_is_refused(case: Case) -> None:
    memory = case.build()
    put(memory, BIG)
    with pytest.raises(MemoryFault, match=BIG.name):
        put(memory, replace(BIG, elements=2 * BIG.elements))


@each_memory
def test_regions_are_disjoint(case: Case) -> None:
    memory = case.build()
    regions = [put(memory, layout) for layout in LAYOUTS]
    if not isinstance(memory, PlaneMemory):
        ends = sorted((region.first_word, region.first_word + region.layout.words) for region in regions)
        assert all(end <= start for (_, end), (start, _) in pairwise(ends))
    before = [get(memory, region)[0] for region in regions]
    put(memory, LAYOUTS[3], 1)
    for region, words in zip(regions, before, strict=True):
        if case.repeats and region.layout is not LAYOUTS[3]:
            assert np.array_equal(get(memory, region)[0], words)


# --- read --------------------------------------------------------------------------------------------------------------------


@each_memory
@each_layout
def test_flips_are_counted_and_spare_bits_are_zero(case: Case, layout: Layout) -> None:
    memory = case.build()
    for region in (put(memory, layout, 0), put(memory, layout, 1)):
        out, report = get(memory, region)
        assert report.flips == popcount(out ^ region.written)
        assert not (out & ~cells(layout)).any()
    if layout is BIG:
        assert 0 < report.flips < layout.bits / 2


@each_memory
def test_a_read_says_what_was_commanded(case: Case) -> None:
    memory = case.build().at(**case.worse)
    _, report = get(memory, put(memory, BIG))
    assert dict(report.commanded) == dict(memory.conditions)
    assert all(memory.conditions[name] == value for name, value in case.worse.items())


@each_memory
def test_the_same_key_brings_the_same_bits(case: Case) -> None:
    memory = case.build()
    region = put(memory, BIG)
    first, again = get(memory, region)[0], get(memory, region)[0]
    assert np.array_equal(first, again) == case.repeats
    assert np.array_equal(region.written, contents(BIG)), "reading changed the region"


@each_memory
def test_another_read_differs_only_as_the_lifetime_says(case: Case) -> None:
    memory = case.build()
    region = put(memory, BIG)
    first, other = get(memory, region, 1)[0], get(memory, region, 2)[0]
    assert np.array_equal(first, other) == (case.repeats and not case.varies)


@each_memory
def test_another_instance_has_the_same_errors_and_another_die_has_others(case: Case) -> None:
    one, same, other = (case.build(1, 0), case.build(1, 0), case.build(1, 5))
    errors = [get(memory, put(memory, BIG))[0] ^ contents(BIG) for memory in (one, same, other)]
    assert np.array_equal(errors[0], errors[1])
    assert not np.array_equal(errors[0], errors[2])


@each_memory
def test_the_same_place_of_two_regions_has_different_errors(case: Case) -> None:
    memory = case.build()
    a, b = LAYOUTS[3], LAYOUTS[4]
    errors = [get(memory, put(memory, layout))[0] ^ contents(layout) for layout in (a, b)]
    assert not np.array_equal(errors[0][:1000], errors[1][:1000])


# --- at ----------------------------------------------------------------------------------------------------------------------


@each_memory
def test_at_keeps_the_contents(case: Case) -> None:
    here = case.build()
    region = put(here, BIG)
    there = here.at(**case.worse)
    back = there.at(**{name: here.conditions[name] for name in case.worse})
    (out, few), (_, many) = get(here, region), get(there, region)
    assert few.flips == many.flips if case.made_by_writes else few.flips < many.flips
    if case.repeats:
        assert np.array_equal(get(back, region)[0], out)
    again = put(there, BIG, 1)
    assert again.first_word == region.first_word
    assert np.array_equal(again.previous, region.stored)
    assert get(there, again)[1].flips > few.flips


@pytest.mark.parametrize("case", [case for case in CASES if case.nested], ids=lambda case: case.name)
def test_at_keeps_the_die(case: Case) -> None:
    """Where errors belong to the die, a worse operating point keeps every one of them."""
    here = case.build()
    region = put(here, BIG)
    few, many = (get(memory, region)[0] ^ region.written for memory in (here, here.at(**case.worse)))
    assert popcount(few) > 0
    assert popcount(few & ~many) == 0


@each_memory
def test_at_refuses_what_it_does_not_know(case: Case) -> None:
    with pytest.raises(MemorySpecError, match="colour"):
        case.build().at(colour=1.0)


@each_memory
def test_at_without_conditions_is_the_same_point(case: Case) -> None:
    memory = case.build()
    assert dict(memory.at().conditions) == dict(memory.conditions)


# --- sampler -----------------------------------------------------------------------------------------------------------------


@each_memory
@each_layout
def test_both_routes_bring_equal_bits(case: Case, layout: Layout) -> None:
    memory = case.build()
    put(memory, LAYOUTS[1])
    for region in (put(memory, layout, 0), put(memory, layout, 1)):
        for read in memories.READS:
            sampler = memory.sampler(region)
            assert (sampler is not None) == case.drawn
            if sampler is not None:
                out, _ = get(memory, region, read)
                assert np.array_equal(draw(sampler, Key(0, region.key.write, read)), out ^ region.written)


@each_memory
def test_a_sampler_draws_single_blocks(case: Case) -> None:
    memory = case.build()
    regions = [put(memory, layout) for layout in LAYOUTS]
    for region in regions:
        sampler = memory.sampler(region)
        if sampler is None:
            continue
        flips = draw(sampler, Key(0, 0, 1))
        blockwise, covered = np.empty_like(flips), 0
        for block in reversed(touched_blocks(region.first_word, region.layout.words)):
            first, n = words_in_block(sampler.source[0], block)
            draw_block(
                sampler.source[0],
                np.uint64(read_stream(sampler.source[0], 0, 0, 1)),
                block,
                blockwise[first : first + n],
                new_workspace(),
            )
            covered += n
        assert np.array_equal(blockwise, flips)
        assert covered == region.layout.words


# --- cost --------------------------------------------------------------------------------------------------------------------


@each_memory
def test_costs_have_a_basis(case: Case) -> None:
    memory = case.build()
    cost = memory.cost(put(memory, BIG), Accesses(reads=10))
    assert isinstance(cost, Cost)
    for quantity in (cost.energy, cost.latency, *cost.parts.values()):
        assert quantity is None or (quantity.value > 0 and quantity.unit and quantity.basis and quantity.source)


# --- what only one of them does ----------------------------------------------------------------------------------------------


def test_secded_corrects_every_single_error_and_detects_every_pair() -> None:
    """All 72 singles and all 2556 pairs of a word, from the definition of a distance of four."""
    word = np.uint64(0x0123456789ABCDEF)
    check = memories.secded_encode(np.array([word]))[0]
    single = [(np.uint64(1 << i), 0) if i < 64 else (np.uint64(0), 1 << (i - 64)) for i in range(72)]
    pairs = [(a ^ c, b ^ d) for i, (a, b) in enumerate(single) for c, d in single[:i]]
    for errors, corrects in ((single, True), (pairs, False)):
        words = np.array([word ^ data for data, _ in errors])
        checks = np.array([check ^ code for _, code in errors], dtype=np.uint8)
        fixed, corrected, lost = memories.secded_decode(words, checks)
        assert corrected.all() == corrects
        assert lost.all() != corrects
        assert not corrects or (fixed == word).all()


def test_ecc_reports_words_as_often_as_the_binomial_says() -> None:
    """One of 72 errs: corrected. None errs: neither. An even number errs: erased, but for what looks like no error at all."""
    p, layout = 0.004, Layout("w", 64 * 200_000, 1)
    memory = EccMemory(open_memory(f"uniform:ber={p}", seed=3))
    _, report = get(memory, put(memory, layout))
    one = 72 * p * (1 - p) ** 71
    two = 72 * 71 / 2 * p**2 * (1 - p) ** 70
    none = (1 - p) ** 72
    assert binomtest(layout.words - report.corrected - report.erased, layout.words, none).pvalue > 1e-6
    more = 1 - none - one - two
    for found, low, high in ((report.corrected, one, one + 1.2 * more), (report.erased, two, two + 0.5 * more)):
        slack = 5 * (high * (1 - high) / layout.words) ** 0.5
        assert low - slack < found / layout.words < high + slack


def test_ecc_reads_zero_where_it_cannot_correct() -> None:
    """Of 0s stored with an erased code of 5, erased words come back as 5s, and all other words as 0s but for miscorrections."""
    layout = Layout("w", 16 * 5_000, 4, erased=5)
    memory = EccMemory(open_memory("uniform:ber=0.01", seed=4))
    region = memory.write(np.zeros(layout.words, np.uint64), layout, Key())
    out, report = get(memory, region)
    assert np.count_nonzero(out == np.uint64(0x5555555555555555)) == report.erased > 0
    assert report.flips == popcount(out)


def test_ecc_costs_its_check_bits() -> None:
    layout = Layout("w", 64 * 100, 1)
    bare = open_memory("sram-14nm:v_over_vmin=0.8")
    memory = EccMemory(bare)
    protected = memory.cost(put(memory, layout), Accesses(1)).energy
    assert protected.value == pytest.approx(bare.cost(put(bare, layout), Accesses(1)).energy.value * 72 / 64)


def test_a_recording_refuses_what_it_does_not_hold() -> None:
    memory = CASES[7].build()
    region = put(memory, BIG)
    with pytest.raises(MemoryFault, match="not recorded"):
        get(memory, region, read=99)
    with pytest.raises(MemoryFault, match="other bits"):
        memory.write(contents(BIG) ^ np.uint64(1), BIG, Key())
    with pytest.raises(MemoryFault, match="nothing was recorded"):
        memory.at(ber=0.123)


def test_a_recording_replays_the_original() -> None:
    original = open_memory(CASES[7].spec, 1)
    replay = CASES[7].build()
    for layout in LAYOUTS:
        a, b = put(original, layout), put(replay, layout)
        for read in memories.READS:
            assert np.array_equal(get(original, a, read)[0], get(replay, b, read)[0])


def test_a_board_is_slow_and_says_what_it_measured() -> None:
    wire = FakeTransport()
    board = FakeBoard(wire, 0.42)
    put(board, LAYOUTS[0])
    region = put(board, BIG)
    wire.pages_read = 0
    _, report = get(board, region)
    assert wire.pages_read == -(-(region.first_word + BIG.words) * 8 // memories.PAGE)
    assert report.commanded == {"vdd": 0.42}
    assert report.measured["vdd"] == pytest.approx(0.407)


def test_a_board_writes_at_nominal_voltage_and_is_never_above() -> None:
    wire = FakeTransport()
    board = FakeBoard(wire, 0.3)
    region = put(board, BIG)
    assert get(board.at(vdd=1.1), region)[1].flips == 0
    with pytest.raises(MemorySpecError, match="above nominal"):
        board.at(vdd=1.2)


def test_a_board_keeps_its_die_but_for_cells_on_the_edge() -> None:
    wire = FakeTransport()
    board = FakeBoard(wire, 0.42)
    region = put(board, BIG)
    few, many = (get(board.at(vdd=vdd), region)[0] ^ region.written for vdd in (0.42, 0.41))
    assert popcount(few) > 0.1 * BIG.bits
    assert popcount(few & ~many) == 0


def test_a_full_board_says_so() -> None:
    board = FakeBoard(FakeTransport(pages=4))
    with pytest.raises(MemoryFault, match="no room"):
        put(board, BIG)


def test_planes_have_the_error_rates_of_their_memories() -> None:
    layout = Layout("w", 50_000, 8)
    memory = PlaneMemory(open_memory("uniform:ber=0"), open_memory("uniform:ber=1"))
    out, report = get(memory, put(memory, layout))
    codes = np.zeros(layout.elements, dtype=np.uint64)
    unpack(out ^ contents(layout), layout, codes)
    assert (codes == 0x0F).all()
    assert report.flips == 4 * layout.elements


# --- the simulated memory, further -------------------------------------------------------------------------------------------


def test_power_up_belongs_to_the_cells() -> None:
    """What a fresh die holds does not depend on how its cells are given to regions, and spare bits are not cells."""
    switch = ErrorTerm("switch", Lifetime.WRITE, 0.0, 0.0, only_switched=True)
    whole, split = simulated(switch, seed=7), simulated(switch, seed=7)
    all_cells = put(whole, Layout("a", 64 * 30, 1)).previous
    parts = [put(split, Layout(name, 64 * words, 1)).previous for name, words in (("a", 10), ("b", 20))]
    assert np.array_equal(np.concatenate(parts), all_cells)
    layout = LAYOUTS[1]
    previous = put(whole, layout).previous
    assert popcount(previous & cells(layout)) == popcount(previous) > 20


@pytest.mark.parametrize("wrong", [np.zeros(1, "u8"), np.zeros(3, "u8"), np.zeros(2, "i8")], ids=["short", "long", "signed"])
def test_arrays_of_another_size_or_type_never_reach_compiled_code(wrong: np.ndarray) -> None:
    memory = open_memory("uniform:ber=0.1")
    layout = LAYOUTS[1]
    region = put(memory, layout)
    with pytest.raises(ValueError, match="uint64"):
        memory.write(wrong, layout, Key())
    with pytest.raises(ValueError, match="uint64"):
        memory.read(region, Key(), wrong)


def test_a_memory_forgets_regions_that_were_overwritten() -> None:
    memory = open_memory("uniform:ber=0.1,lifetime=die")
    for write in range(50):
        region: Region = memory.write(contents(LAYOUTS[3]), LAYOUTS[3], Key(write))
        get(memory, region)
    assert len(memory._baselines) <= 1


def test_regions_say_what_they_are() -> None:
    memory = open_memory("uniform:ber=0")
    put(memory, LAYOUTS[0])
    assert repr(put(memory, LAYOUTS[4])) == "Region<three of eight planes[bits 0,3,7]: 90003 bits at word 1>"
