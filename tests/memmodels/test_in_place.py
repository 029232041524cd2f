"""Protection without extra bits: every pattern of small elements, against brute force."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.memmodels.evidence import Family, binomial
from tests.memmodels.scripted import Scripted, codes_read
from tests.memmodels.test_catalogue import one_paragraph
from weakcell.memmodels import Accesses, Key, Layout, open_memory, pack
from weakcell.memmodels.errors import MemoryFault, MemorySpecError
from weakcell.memmodels.memory import ReadReport
from weakcell.memmodels.protection.element_codes import CodeTables, fewest_bits, make_tables
from weakcell.memmodels.protection.elements import InPlace, Range

FORMS = [
    (width, signed, erased, code, low)
    for width in (3, 4, 5, 8)
    for signed, erased in ((True, 0), (False, 0), (False, (1 << width) // 2 + 1), (True, 3))
    for code, low in (
        *(("hamming", 2), ("hamming", 3), ("hamming", 4), ("secded", 3), ("secded", 4)),
        *(("triple", 2), ("triple", 4), ("parity", 1), ("parity", 2)),
    )
    if width >= fewest_bits(code, low)
]


def value_of(code: int, width: int, signed: bool) -> int:
    return code - (1 << width) if signed and code >> (width - 1) else code


def read_with_errors(tables: CodeTables, code: int, errors: int) -> int:
    """The code that is read where these bits of the stored pattern err."""
    return int(tables.read[int(tables.stored[code]) ^ errors])


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_without_errors_each_code_reads_as_the_nearest_that_the_upper_bits_can_hold(form: tuple) -> None:
    width, signed, erased, _, low = form
    tables = make_tables(*form)
    values = [value_of(code, width, signed) for code in range(1 << width)]
    grid = [value for value in values if (value - value_of(erased, width, signed)) % (1 << low) == 0]
    for code, value in enumerate(values):
        read = value_of(read_with_errors(tables, code, 0), width, signed)
        assert read in grid
        assert abs(read - value) == min(abs(one - value) for one in grid)
    assert read_with_errors(tables, erased, 0) == erased
    clean = tables.stored
    assert not tables.corrected[clean].any()
    assert not tables.detected[clean].any()


@pytest.mark.parametrize("form", [form for form in FORMS if form[3] == "triple"], ids=str)
def test_triple_corrects_one_of_three_copies(form: tuple) -> None:
    width, _, _, _, low = form
    tables = make_tables(*form)
    copies = low // 2
    for bit in range(copies):
        places = (width - copies + bit, copies + bit, bit)
        for code in range(1 << width):
            right = read_with_errors(tables, code, 0)
            assert all(read_with_errors(tables, code, 1 << place) == right for place in places)
            for pair in combinations(places, 2):
                assert read_with_errors(tables, code, sum(1 << place for place in pair)) == right ^ 1 << (width - copies + bit)


@pytest.mark.parametrize("form", [form for form in FORMS if form[3] in ("hamming", "secded")], ids=str)
def test_hamming_codes_decode_to_the_only_codeword_within_one_error(form: tuple) -> None:
    width, _, erased, code, low = form
    tables = make_tables(*form)
    protected = min(width - low, 2**low - 1 - low if code == "hamming" else 2 ** (low - 1) - low)
    free = ((1 << (width - protected - low)) - 1) << low  # upper bits without protection
    covered = ((1 << width) - 1) ^ free
    codewords = sorted({int(stored) & covered for stored in tables.stored})
    distance = min((a ^ b).bit_count() for a, b in combinations(codewords, 2))
    assert distance >= (3 if code == "hamming" else 4)
    read_of = {int(stored): int(tables.read[stored]) for stored in tables.stored}
    for pattern in range(1 << width):
        near = [word for word in codewords if (word ^ pattern & covered).bit_count() <= 1]
        expected = read_of[near[0] | pattern & free] if near else erased
        assert tables.read[pattern] == expected
        assert tables.detected[pattern] == (not near)
        assert tables.corrected[pattern] == bool(near and near[0] != pattern & covered)


@pytest.mark.parametrize("form", [form for form in FORMS if form[3] == "secded"], ids=str)
def test_secded_corrects_one_error_and_erases_after_two(form: tuple) -> None:
    width, _, erased, _, low = form
    tables = make_tables(*form)
    protected = min(width - low, 2 ** (low - 1) - low)
    places = [*range(width - protected, width), *range(low)]
    for code in range(1 << width):
        right = read_with_errors(tables, code, 0)
        assert all(read_with_errors(tables, code, 1 << place) == right for place in places)
        for a, b in combinations(places, 2):
            assert read_with_errors(tables, code, 1 << a | 1 << b) == erased
    for place in range(low, width - protected):
        assert all(
            read_with_errors(tables, code, 1 << place) == read_with_errors(tables, code, 0) ^ 1 << place
            for code in range(1 << width)
        )


@pytest.mark.parametrize("form", [form for form in FORMS if form[3] == "parity"], ids=str)
def test_parity_finds_every_odd_number_of_errors_of_a_chunk(form: tuple) -> None:
    width, _, erased, _, low = form
    tables = make_tables(*form)
    sizes = [(width - low) // low + (chunk < (width - low) % low) for chunk in range(low)]
    shift = width
    for chunk, size in enumerate(sizes):
        shift -= size
        cells = [*range(shift, shift + size), chunk]
        for code in range(1 << width):
            right = read_with_errors(tables, code, 0)
            for count in range(1, len(cells) + 1):
                for some in combinations(cells, count):
                    read = read_with_errors(tables, code, sum(1 << place for place in some))
                    if count % 2 == 0:
                        assert read == right ^ sum(1 << place for place in some if place >= low)
                    elif chunk == 0:
                        assert read == erased
                    else:
                        middle = 1 << (size - 1) << shift
                        assert read == right & ~(((1 << size) - 1) << shift) | middle


def test_the_report_counts_elements_and_rounding_as_flips() -> None:
    layout, codes = Layout("w", 4, 8, erased=0), np.array([16, 17, 0, 240], dtype=np.uint64)
    memory = InPlace(Scripted({"w": [7, 16, 23]}), "secded", 4)
    read, report = codes_read(memory, layout, codes)
    assert read.tolist() == [16, 16, 0, 240]
    assert (report.corrected, report.erased, report.flips) == (1, 1, 1)  # bit 0 of the code 17 is lost, the third was zero
    assert report.erasures.tolist() == [0xFF0000]


@pytest.mark.parametrize(
    ("spec", "layout", "said"),
    [
        ("in-place+uniform:ber=0", Layout("w", 9, 1, kind="sign"), "1-bit sign"),
        ("in-place[code=parity,low=4]+uniform:ber=0", Layout("w", 9, 4), "8 to 16 bits"),
        ("in-place+uniform:ber=0", Layout("b", 9, 32), "32-bit signed"),
        ("in-place+uniform:ber=0", Layout("w", 9, 8, (7,)), "whole elements"),
        ("range+uniform:ber=0", Layout("w", 9, 1, kind="sign"), "signs"),
        ("range+uniform:ber=0", Layout("w", 9, 8, (7,)), "whole elements"),
    ],
)
def test_what_cannot_be_protected_is_refused(spec: str, layout: Layout, said: str) -> None:
    with pytest.raises(MemoryFault) as caught:
        open_memory(spec).write(np.zeros(layout.words, np.uint64), layout, Key())
    assert said in one_paragraph(caught.value)


@pytest.mark.parametrize("options", ["code=triple,low=3", "code=secded,low=2", "low=1"])
def test_a_code_that_does_not_exist_is_refused(options: str) -> None:
    with pytest.raises(MemorySpecError, match="needs"):
        open_memory(f"in-place[{options}]+uniform:ber=0")


def test_no_bits_are_added_and_more_reads_are_paid() -> None:
    layout = Layout("w", 1000, 8)
    costs = {}
    for wrapper in ("", "in-place+", "range+", "majority[reads=5]+"):
        memory = open_memory(f"{wrapper}dram:vendor=A")
        region = memory.write(np.zeros(layout.words, np.uint64), layout, Key())
        costs[wrapper] = memory.cost(region, Accesses(1)).energy.value
    assert costs["in-place+"] == costs["range+"] == costs[""]
    assert costs["majority[reads=5]+"] == pytest.approx(5 * costs[""], rel=0.2)  # refresh is not paid per read


@given(
    st.lists(st.tuples(st.integers(-128, 127), st.integers(0, 255)), min_size=1, max_size=40),
    st.sampled_from(["signed", "unsigned"]),
    st.sampled_from(["clip", "zero"]),
)
def test_range_is_that_of_numpy(pairs: list[tuple[int, int]], kind: str, policy: str) -> None:
    written = np.array([value & 0xFF for value, _ in pairs], dtype=np.uint8)
    errors = np.array([error for _, error in pairs], dtype=np.uint8)
    layout = Layout("w", written.size, 8, erased=7, kind=kind)
    dtype = np.int8 if kind == "signed" else np.uint8
    places = np.flatnonzero(np.unpackbits(errors, bitorder="little")).tolist()
    read, report = codes_read(Range(Scripted({"w": places}), policy), layout, written.astype(np.uint64))
    low, high = written.view(dtype).min(), written.view(dtype).max()
    wrong = (written ^ errors).view(dtype)
    outside = (wrong < low) | (wrong > high)
    expected = np.where(outside, 7, wrong) if policy == "zero" else np.clip(wrong, low, high)
    assert np.array_equal(read.astype(np.uint8).view(dtype), expected)
    assert (report.corrected if policy == "clip" else report.erased) == outside.sum()


def test_range_of_floats_takes_nan_for_outside() -> None:
    values = np.array([0.5, -1.5, 1.25, 1.0], dtype=np.float32)
    layout = Layout("s", 4, 32, kind="float")
    memory = Range(Scripted({"s": [30, 32 + 30, *range(64 + 23, 64 + 31), *range(96 + 30, 96 + 31)]}))
    read, report = codes_read(memory, layout, values.view(np.uint32).astype(np.uint64))
    # 0.5 -> 1.7e38, -1.5 -> -0.0…, 1.25 -> another exponent, 1.0 -> infinity
    wrong = values.view(np.uint32) ^ np.array([1 << 30, 1 << 30, 0xFF << 23, 1 << 30], dtype=np.uint32)
    expected = np.clip(np.nan_to_num(wrong.view(np.float32), nan=0.0, posinf=9e9, neginf=-9e9), -1.5, 1.25)
    assert np.array_equal(read.astype(np.uint32).view(np.float32), expected)
    assert isinstance(report, ReadReport)


def test_majority_of_independent_reads_errs_as_the_binomial_says() -> None:
    family, layout, p = Family(), Layout("w", 400_000, 1), 0.1
    for reads in (3, 5):
        memory = open_memory(f"majority[reads={reads}]+uniform:ber={p},lifetime=read", seed=5)
        region = memory.write(pack(np.zeros(layout.elements, np.uint64), layout), layout, Key())
        flips = memory.read(region, Key(), np.empty(layout.words, np.uint64)).flips
        wrong = sum(math.comb(reads, k) * p**k * (1 - p) ** (reads - k) for k in range(reads // 2 + 1, reads + 1))
        family.add(f"{reads} reads", binomial(flips, layout.elements, wrong))
    family.judge()


def test_majority_leaves_weak_cells_as_they_are() -> None:
    layout = Layout("w", 50_000, 1)
    wrong = []
    for wrapper in ("", "majority+"):
        memory = open_memory(f"{wrapper}uniform:ber=0.05,lifetime=die", seed=5)
        region = memory.write(np.zeros(layout.words, np.uint64), layout, Key())
        out = np.empty(layout.words, np.uint64)
        memory.read(region, Key(), out)
        wrong.append(out)
    assert np.array_equal(*wrong)
    assert wrong[0].any()
