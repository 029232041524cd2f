"""Wrappers: codes checked exhaustively, policies word by word, interleaving as a bijection, SPECs, and the contract of the seam."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pytest
import test_seam
from evidence import Family, binomial
from hypothesis import given
from hypothesis import strategies as st
from memories import LAYOUTS, Case, Parts, contents, get, put, simulated
from test_catalogue import one_paragraph

from memmodels import (
    Accesses,
    Cost,
    ErrorTerm,
    Key,
    Layout,
    Lifetime,
    Memory,
    MemorySpec,
    Quantity,
    ReadReport,
    open_memory,
    pack,
    parse_spec,
    unpack,
)
from memmodels.address import Words, popcount
from memmodels.errors import MemoryFault, MemorySpecError
from memmodels.hamming import DATA_COLUMNS, decode, encode
from memmodels.memory import Region
from memmodels.protect import Parity, ProtectedReport, Secded, erased_words, mark_cells
from memmodels.protect_cells import Interleaved, SafeHighBits, gathered, high_planes, spread
from memmodels.protect_spec import KINDS, split_wrappers

WORDS = (0, 0xFFFFFFFFFFFFFFFF, 0x0123456789ABCDEF)


# --- the contract of the seam ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wrapped(Case):
    """A case of the contract that is opened by its SPEC, wrappers and all."""

    def build(self, seed: int = 1, die: int = 0) -> Memory:
        return open_memory(self.spec, seed, die)


SRAM = "sram-14nm:v_over_vmin=0.85"
CASES = (
    Wrapped("secded", "secded+uniform:ber=0.01", {"ber": 0.05}, varies=True),
    Wrapped("secded, raw", "secded[policy=raw]+uniform:ber=0.01", {"ber": 0.05}, varies=True),
    Wrapped("secded, a die", f"secded+{SRAM}", {"v_over_vmin": 0.8}),
    Wrapped("secded, per write", "secded+uniform:ber=0.02,lifetime=write", {"ber": 0.2}, made_by_writes=True),
    Wrapped("parity", "parity+uniform:ber=0.001", {"ber": 0.01}, varies=True),
    Wrapped("parity of bytes, a die", f"parity[word=8]+{SRAM}", {"v_over_vmin": 0.8}),
    Wrapped("interleave", "interleave+uniform:ber=0.02", {"ber": 0.2}, varies=True),
    Wrapped("interleave, a die", f"interleave[stride=100]+{SRAM}", {"v_over_vmin": 0.8}, nested=True),
    Wrapped("a stack", "secded[policy=raw]+interleave[stride=7]+uniform:ber=0.02", {"ber": 0.1}, varies=True),
)
CONTRACT = [
    function
    for name, function in vars(test_seam).items()
    if name.startswith("test_") and set(inspect.signature(function).parameters) in ({"case"}, {"case", "layout"})
]


def of_case(function: Callable[..., None], case: Case) -> bool:
    return case.nested or "keeps_the_die" not in function.__name__


@pytest.mark.parametrize(
    ("function", "case"),
    [(function, case) for case in CASES for function in CONTRACT if of_case(function, case)],
    ids=lambda one: one.name if isinstance(one, Case) else one.__name__.removeprefix("test_"),
)
def test_the_contract_of_the_seam(function: Callable[..., None], case: Case) -> None:
    layouts = LAYOUTS if "layout" in inspect.signature(function).parameters else (None,)
    for layout in layouts:
        function(case, **({} if layout is None else {"layout": layout}))


def test_the_contract_is_not_empty() -> None:
    assert len(CONTRACT) >= 15


# --- SECDED ------------------------------------------------------------------------------------------------------------------


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
    family.add("clean", binomial(layout.words - report.corrected - report.erased, layout.words, seen[0]))
    rest = 1 - sum(seen)
    assert seen[1] + miscorrected < report.corrected / layout.words + 4e-3 < seen[1] + miscorrected + rest + 8e-3
    assert seen[2] < report.erased / layout.words + 2e-3
    assert wrong >= report.erased * 0.9
    family.judge()


# --- policies ----------------------------------------------------------------------------------------------------------------


class Scripted:
    """A memory that flips chosen cells of chosen regions: {layout name: addresses}."""

    def __init__(self, flips: dict[str, list[int]], cost: Cost | None = None) -> None:
        self.flips, self.price, self.words = flips, cost or Cost(), 0

    conditions: dict[str, float] = {}  # noqa: RUF012

    def at(self, **conditions: float) -> Scripted:
        return self

    def write(self, bits: Words, layout: Layout, key: Key) -> Region:
        region = Region(layout, self.words, bits.copy(), bits.copy(), None, key)
        self.words += layout.words
        return region

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        out[:] = region.written
        for place in self.flips.get(region.layout.name, []):
            out[place // 64] ^= np.uint64(1 << place % 64)
        return ReadReport(popcount(out ^ region.written), commanded={})

    def sampler(self, region: Region) -> None:
        return None

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        if self.price.energy is None:
            return Cost()
        energy = self.price.energy * (region.layout.bits if self.price.energy.unit == "pJ" else 1)
        return Cost(energy, self.price.latency, {"read": energy})


def codes_read(memory: Memory, layout: Layout, codes: np.ndarray) -> tuple[np.ndarray, ReadReport]:
    region = memory.write(pack(codes, layout), layout, Key())
    words, report = get(memory, region)
    read = np.zeros(layout.elements, dtype=np.uint64)
    unpack(words, layout, read)
    return read, report


@pytest.mark.parametrize("width", [2, 3, 4, 5, 8, 12, 32])
@pytest.mark.parametrize("kind", [Parity, Secded])
def test_every_element_that_overlaps_a_detected_word_is_erased_and_no_other(width: int, kind: type) -> None:
    layout = Layout("w", 100, width, erased=(1 << width) - 2)
    codes = np.arange(100, dtype=np.uint64) % (1 << width)
    flips = [66, 70] if kind is Secded else [66]
    read, report = codes_read(kind(Scripted({"w": flips})), layout, codes)
    overlaps = np.array([(element + 1) * width > 64 and element * width < 128 for element in range(100)])
    assert np.array_equal(read, np.where(overlaps, layout.erased, codes))
    assert report.erased == 1
    assert popcount(report.erasures) == int(overlaps.sum()) * width
    assert report.flips == popcount(pack(read, layout) ^ pack(codes, layout))


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


@pytest.mark.parametrize("memory", [Secded(Scripted({"w": [3, 5]})), Parity(Scripted({"w": [3]}))], ids=["secded", "parity"])
def test_signs_stay_as_they_were_read(memory: Memory) -> None:
    layout = Layout("w", 128, 1)
    read, report = codes_read(memory, layout, np.ones(128, dtype=np.uint64))
    assert report.erased == 1
    assert report.flips == np.count_nonzero(read == 0) > 0
    assert isinstance(report, ProtectedReport)
    assert report.erasures.tolist() == [0xFFFFFFFFFFFFFFFF, 0]


def test_raw_leaves_what_was_read_and_raise_refuses() -> None:
    layout, codes = Layout("w", 16, 8, erased=9), np.full(16, 1)
    read, report = codes_read(Secded(Scripted({"w": [1, 9]}), policy="raw"), layout, codes)
    assert read.tolist() == [3, 3, *[1] * 14]
    assert report.erased == 1
    with pytest.raises(MemoryFault, match=r"1 of 2 words") as caught:
        codes_read(Secded(Scripted({"w": [1, 9]}), policy="raise"), layout, codes)
    one_paragraph(caught.value)
    assert codes_read(Secded(Scripted({"w": [1]}), policy="raise"), layout, codes)[1].corrected == 1


def test_a_syndrome_that_names_a_spare_bit_is_detected() -> None:
    """Three errors whose columns add up to that of a bit that the last word does not have."""
    layout = Layout("w", 10, 1)
    triple = next(
        places
        for places in combinations(range(10), 3)
        if np.bitwise_xor.reduce(DATA_COLUMNS[list(places)]) in [int(c) for c in DATA_COLUMNS[10:]]
    )
    read, report = codes_read(Secded(Scripted({"w": list(triple)}), policy="raw"), layout, np.zeros(10, dtype=np.uint64))
    assert (report.erased, report.corrected, int(read.sum())) == (1, 0, 3)


def test_check_bits_fail_too() -> None:
    layout, codes = Layout("w", 16, 8), np.full(16, 1)
    read, report = codes_read(Secded(Scripted({"w check": [2]})), layout, codes)
    assert (report.flips, report.corrected, report.erased) == (0, 1, 0)
    read, report = codes_read(Secded(Scripted({"w check": [2], "w": [0]})), layout, codes)
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


# --- safe high bits ----------------------------------------------------------------------------------------------------------


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
    assert high_planes(Layout("w", 1, 8, (0, 3, 7)), 2) == (7,)
    assert high_planes(Layout("w", 1, 8, (0, 3)), 2) == ()
    assert high_planes(Layout("w", 1, 1), 2) == (0,)


# --- interleaving ------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 700), st.integers(2, 300), st.integers(0, 99))
def test_interleaving_is_a_bijection(bits: int, stride: int, seed: int) -> None:
    layout = Layout("w", bits, 1)
    words = pack(np.random.default_rng(seed).integers(0, 2, bits), layout)
    cells = spread(words, bits, stride)
    assert popcount(cells) == popcount(words)
    assert not (cells & ~pack(np.ones(bits, dtype=np.int64), layout)).any()
    assert np.array_equal(gathered(cells, bits, stride), words)


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
        words = gathered(np.packbits(burst, bitorder="little").view(np.uint64), bits, stride)
        per_word = np.bitwise_count(words)
        assert per_word.max() <= (1 if start // (64 * stride) == (start + stride - 1) // (64 * stride) else 2)
        assert per_word.sum() == stride


def test_interleaving_lets_secded_correct_bursts() -> None:
    bits = 64 * 128
    layout, burst = Layout("w", bits, 1), list(range(64 * 3, 64 * 3 + 64))
    inner = {"w interleaved": burst}
    stacked = Secded(Interleaved(Scripted(inner), 64))
    _, report = codes_read(stacked, layout, np.ones(bits, dtype=np.uint64))
    assert (report.flips, report.corrected) == (0, 64)
    _, report = codes_read(Secded(Scripted({"w": burst})), layout, np.ones(bits, dtype=np.uint64))
    assert report.flips > 0


# --- cost --------------------------------------------------------------------------------------------------------------------


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
        memory = wrapper.around(memory)
    cost = memory.cost(put(memory, layout), Accesses(1))
    assert cost.energy.value == pytest.approx(bare * factor)
    assert cost.energy.unit == unit
    assert cost.energy.basis == ("assumed" if spec == "msb" else "published")
    assert cost.latency.value == 1.0
    assert sum(part.value for part in cost.parts.values()) == pytest.approx(cost.energy.value)


def test_unknown_energy_stays_unknown() -> None:
    memory = open_memory("secded+uniform:ber=0")
    assert memory.cost(put(memory, LAYOUTS[0]), Accesses(1)).energy is None


def test_regions_of_others_are_refused() -> None:
    memory = open_memory("secded+uniform:ber=0")
    region = put(open_memory("uniform:ber=0"), LAYOUTS[0])
    with pytest.raises(ValueError, match="not written by this memory"):
        get(memory, region)
    assert not isinstance(region, Parts)


# --- SPECs -------------------------------------------------------------------------------------------------------------------

SPECS = {
    "secded+uniform:ber=0.01": "secded+uniform:ber=0.01",
    " secded[ policy = raw ] + interleave[stride=9]+uniform:ber=1e-3": "secded[policy=raw]+interleave[stride=9]+uniform:ber=0.001",
    "parity[word=8,policy=raise]+sram-28nm-vc707:vdd=0.54": "parity[word=8,policy=raise]+sram-28nm-vc707:vdd=0.54",
    "msb[planes=2]+sram-14nm": "msb[planes=2]+sram-14nm",
    "secded+msb[planes=1,store=triple]+interleave+uniform:ber=1e+0": ("secded+msb[planes=1,store=triple]+interleave+uniform:ber=1"),
}


@pytest.mark.parametrize(("text", "written"), SPECS.items())
def test_specs_with_wrappers_round_trip(text: str, written: str) -> None:
    spec = parse_spec(text)
    assert str(spec) == written
    assert parse_spec(str(spec)) == spec
    spec.check()
    open_memory(spec)


def test_conditions_are_those_of_the_memory_inside() -> None:
    spec = parse_spec("secded[policy=raw]+sram-28nm-vc707:vdd=0.6")
    moved = spec.at(vdd=0.55)
    assert str(moved) == "secded[policy=raw]+sram-28nm-vc707:vdd=0.55"
    assert moved.technology.name == "sram-28nm-vc707"
    whole = MemorySpec(moved.name, moved.technology.resolve(moved.conditions))
    assert str(whole).startswith("secded[policy=raw]+sram-28nm-vc707:vdd=0.55,")
    memory = open_memory(whole)
    assert isinstance(memory, Secded)
    assert memory.policy == "raw"
    assert memory.at(vdd=0.58).conditions["vdd"] == 0.58
    with pytest.raises(MemorySpecError, match=r"0\.54 … 1 V"):
        memory.at(vdd=0.5)


def test_stacks_are_built_outermost_first() -> None:
    memory = open_memory("secded+msb[planes=3]+interleave[stride=9]+uniform:ber=0.5")
    assert isinstance(memory, Secded)
    assert isinstance(memory.inner, SafeHighBits)
    assert isinstance(memory.inner.inner, Interleaved)
    assert (memory.inner.planes, memory.inner.inner.stride) == (3, 9)


REFUSED = {
    "scded+uniform:ber=0": "parity, secded, msb, interleave",
    "secded[policy=ignore]+uniform:ber=0": "erase, drop, raw, raise",
    "secded[mode=raw]+uniform:ber=0": "It has: policy",
    "secded[policy]+uniform:ber=0": "'policy' is not key=value",
    "secded[]+uniform:ber=0": "is not key=value",
    "secded[policy=raw,policy=raw]+uniform:ber=0": "given twice",
    "parity[word=7]+uniform:ber=0": "8, 16, 32, 64",
    "msb[planes=0]+uniform:ber=0": "1 … 64",
    "msb[planes=1.5]+uniform:ber=0": "whole number",
    "interleave[stride=x]+uniform:ber=0": "takes a number",
    "interleave+secded+uniform:ber=0": "next to the memory",
    "secded+": "Known: uniform",
    "secded": "Known: uniform",
    "secded+unifrom:ber=0": "Did you mean uniform?",
    "secded+uniform:ber=2": "0 … 1",
    "secded+file:": "names no file",
    "recording": "names no file",
}


@pytest.mark.parametrize(("text", "said"), REFUSED.items())
def test_bad_wrappers_are_refused_with_advice(text: str, said: str) -> None:
    with pytest.raises(MemorySpecError) as caught:
        parse_spec(text)
    assert said in one_paragraph(caught.value)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_wrapper_tells_its_overhead(kind: object) -> None:
    assert kind.title
    assert kind.overhead
    for option in kind.options:
        assert option.help
        option.check(option.default, kind.name)


def test_a_protected_die_has_fewer_errors() -> None:
    term = ErrorTerm("die", Lifetime.DIE, 1e-3, 1e-3)
    bare, guarded = simulated(term), Secded(simulated(term), policy="raw")
    layout = replace(LAYOUTS[3], elements=200_000)
    few, many = (get(memory, put(memory, layout))[1].flips for memory in (guarded, bare))
    assert 0 < few < many / 2
