"""Wrappers by name: round trips, order, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest

from tests.memmodels.test_catalogue import one_paragraph
from weakcell.memmodels import MemorySpec, open_memory, parse_spec
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.protection.cells import Interleaved, SafeHighBits
from weakcell.memmodels.protection.check_bits import Linear
from weakcell.memmodels.protection.element_codes import make_tables
from weakcell.memmodels.protection.linear_codes import DECTED, SECDED, LinearCode
from weakcell.memmodels.protection.wrappers import WRAPPERS

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
    assert isinstance(memory, Linear)
    assert memory.policy == "raw"
    assert memory.at(vdd=0.58).conditions["vdd"] == 0.58
    with pytest.raises(MemorySpecError, match=r"0\.54 … 1 V"):
        memory.at(vdd=0.5)


def test_stacks_are_built_outermost_first() -> None:
    memory = open_memory("secded+msb[planes=3]+interleave[stride=9]+uniform:ber=0.5")
    assert isinstance(memory, Linear)
    assert isinstance(memory.inner, SafeHighBits)
    assert isinstance(memory.inner.inner, Interleaved)
    assert (memory.inner.planes, memory.inner.inner.stride) == (3, 9)


REFUSED = {
    "nothing+uniform:ber=0": "parity, secded, bch2, in-place, range, majority, msb, interleave",
    "secded[policy=ignore]+uniform:ber=0": "erase, drop, raw, raise",
    "secded[mode=raw]+uniform:ber=0": "It has: policy",
    "secded[policy]+uniform:ber=0": "'policy' is not key=value",
    "secded[]+uniform:ber=0": "is not key=value",
    "secded[policy=raw,policy=raw]+uniform:ber=0": "given twice",
    "parity[word=7]+uniform:ber=0": "8, 16, 32, 64",
    "msb[planes=0]+uniform:ber=0": "1 … 64",
    "msb[planes=1.5]+uniform:ber=0": "whole number",
    "interleave[stride=x]+uniform:ber=0": "takes a number",
    "interleave+secded+uniform:ber=0": "interleave is outside secded. Order them from values to cells",
    "secded+in-place+uniform:ber=0": "secded is outside in-place",
    "in-place+range+uniform:ber=0": "in-place is outside range",
    "secded+": "no memory is named",
    "secded": "needs a memory behind it",
    "secded+unifrom:ber=0": "Did you mean secded+uniform:ber=0?",
    "secded+uniform:ber=2": "0 … 1",
    "secded+file:": "does not say which file",
    "recording": "does not say which recording",
}


@pytest.mark.parametrize(("text", "said"), REFUSED.items())
def test_bad_wrappers_are_refused_with_advice(text: str, said: str) -> None:
    with pytest.raises(MemorySpecError) as caught:
        parse_spec(text)
    assert said in one_paragraph(caught.value)


@pytest.mark.parametrize("kind", WRAPPERS.values(), ids=lambda kind: kind.name)
def test_every_wrapper_tells_its_overhead(kind: object) -> None:
    assert kind.title
    assert kind.overhead
    for option in kind.options:
        assert option.help
        if option.default is not None:
            option.check(option.default, kind.name)


def _count_gates(ones: Sequence[int]) -> tuple[int, int, int, int]:
    """Return XOR gates and levels of an encoder, and of what checks, for check bits over so many data bits."""
    depth = [math.ceil(math.log2(inputs)) for inputs in (max(ones), max(ones) + 1)]
    return sum(ones) - len(ones), depth[0], sum(ones), depth[1]


def _ones_of_word_code(code: LinearCode) -> list[int]:
    """Count the data bits behind each check bit, from the check bits of words with a single one."""
    checks = code.encode(np.uint64(1) << np.arange(64, dtype=np.uint64))
    return [int((checks >> row & 1).sum()) for row in range(code.check_bits)]


def _ones_of_element_code(code: Literal["hamming", "secded", "parity"], low: int) -> list[int]:
    """The same of an 8-bit element: whether one more step of the upper bits changes a check bit."""
    stored = make_tables(8, False, 0, code, low).stored
    checks = [int(stored[1 << bit]) & ((1 << low) - 1) for bit in range(low, 8)]
    return [sum(check >> row & 1 for check in checks) for row in range(low)]


def test_gates_are_those_of_the_codes() -> None:
    """SECDED: the matrix of Hsiao (1970) for (72,64) has 216 ones, 27 in each row; 8 of them are those of the check bits."""
    assert _ones_of_word_code(SECDED) == [26] * 8
    secded, bch = (_count_gates(_ones_of_word_code(code)) for code in (SECDED, DECTED))
    parity = [_count_gates([word]) for word in (64, 8)]
    found = {
        "secded": "per word: {} to write ({} in a row), {} to check ({})".format(*secded),
        "bch2": "per word: {} to write ({} in a row), {} to check ({})".format(*bch),
        "parity": "per word of 64 bits: {} to write ({} in a row), {} to check ({}); of 8 bits: {} ({}), {} ({})".format(
            *parity[0], *parity[1]
        ),
    }
    elements = [_count_gates(_ones_of_element_code(code, low)) for code, low in (("hamming", 3), ("secded", 4), ("parity", 2))]
    text = (
        "per 8-bit element: hamming {} to write ({} in a row), {} to check ({}); secded {} ({}), {} ({}); parity {} ({}), {} ({})"
    )
    found["in-place"] = text.format(*(number for element in elements for number in element))
    assert {name: kind.logic for name, kind in WRAPPERS.items() if kind.logic} == found
