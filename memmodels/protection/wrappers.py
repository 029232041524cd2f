"""Wrappers by name: the head of a SPEC, `WRAPPER+…+NAME:key=value`.

The leftmost wrapper is the outermost; options are in brackets: `secded[policy=erase]+interleave[stride=64]+uniform:ber=1e-3`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from weakcell.memmodels.definition import Condition
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.memory import ConditionValue, Memory

_HEAD = re.compile(r"\s*([\w-]+)\s*(?:\[([^\]]*)\])?\s*\+")
_ORDER = (
    "Order them from values to cells: range, in-place, then those of words (parity, secded, bch2, msb, majority), then interleave "
    "next to the memory, as in range+secded+interleave+NAME"
)
_POLICY = Condition("policy", "", "what a detected word reads as", "erase", choices=("erase", "drop", "raw", "raise"))


@dataclass(frozen=True)
class WrapperType:
    """One kind of wrapper.

    Attributes:
        name, title: In a SPEC, and in one line.
        overhead: What it costs.
        limits: What it cannot do.
        options: Its knobs.
        build: Puts one around a memory.
        level: What it works on, from 0, values, to 3, cells. A wrapper may only be outside of those of its own level or higher:
            it would take what an inner one does to values for errors.
        rounds: Whether it changes values without any error, which is counted as flips.
        logic: XOR gates of two inputs that make and that check the check bits, none shared, and how many are in a row. Computed
            from the code. Whatever corrects is not counted, nor is the energy of any gate. Empty without check bits.
    """

    name: str
    title: str
    overhead: str
    limits: str
    options: tuple[Condition, ...]
    build: Callable[[Memory, Mapping[str, ConditionValue]], Memory]
    level: int = 2
    rounds: bool = False
    logic: str = ""


@dataclass(frozen=True)
class WrapperSpec:
    """One wrapper of a SPEC with the given options; `str` returns its text."""

    name: str
    options: tuple[tuple[str, str], ...] = ()

    def wrap(self, memory: Memory) -> Memory:
        """Put the wrapper around a memory."""
        wrapper_type = WRAPPERS[self.name]
        defaults = {option.name: option.default for option in wrapper_type.options if option.default is not None}
        return wrapper_type.build(memory, {**defaults, **dict(self.options)})

    def __str__(self) -> str:
        given = ",".join(f"{key}={value}" for key, value in self.options)
        return f"{self.name}[{given}]" if given else self.name


_MOST_WRAPPERS = 16


def split_wrappers(text: str) -> tuple[tuple[WrapperSpec, ...], str]:
    """Split a SPEC into its wrappers, outermost first, and the rest.

    Raises:
        MemorySpecError: A wrapper is unknown, malformed or misplaced.
    """
    wrappers, rest = [], text
    while head := _HEAD.match(rest):
        wrappers.append(_parse_wrapper(text, head[1], head[2]))
        if len(wrappers) > _MOST_WRAPPERS:  # each adds check bits of check bits, and a level of calls
            found = f"it has more than {_MOST_WRAPPERS} wrappers"
            raise MemorySpecError(f"Memory SPEC {text[:80]!r}", found, "Name fewer")
        rest = rest[head.end() :]
    for outer, inner in pairwise(wrappers):
        if WRAPPERS[outer.name].level > WRAPPERS[inner.name].level:
            raise MemorySpecError(f"Memory SPEC {text!r}", f"{outer.name} is outside {inner.name}", _ORDER)
    return tuple(wrappers), rest.strip() if wrappers else rest


def drops_signs(text: str) -> bool:
    """Return whether a SPEC has a wrapper that drops signs out of sums."""
    return any(("policy", "drop") in wrapper.options for wrapper in split_wrappers(text)[0])


def _parse_wrapper(text: str, name: str, options: str | None) -> WrapperSpec:
    if name not in WRAPPERS:
        found = f"there is no wrapper {name!r}"
        raise MemorySpecError(f"Memory SPEC {text!r}", found, f"Wrappers are {', '.join(WRAPPERS)}: write WRAPPER+NAME:key=value")
    known = {option.name: option for option in WRAPPERS[name].options}
    given: dict[str, str] = {}
    for item in options.split(",") if options is not None else []:
        key, equals, value = (part.strip() for part in item.partition("="))
        if not (key and equals and value):
            raise MemorySpecError(f"Memory SPEC {text!r}", f"{item!r} is not key=value", f"Write {name}[key=value]+NAME")
        if key not in known:
            found = f"{name} has no option {key!r}"
            raise MemorySpecError(f"Memory SPEC {text!r}", found, f"It has: {', '.join(known)}")
        if key in given:
            raise MemorySpecError(f"Memory SPEC {text!r}", f"{key} is given twice", "Give it once")
        given[key] = _check_option(known[key], value, name)
    return WrapperSpec(name, tuple(given.items()))


def _check_option(option: Condition, value: str, name: str) -> str:
    """Return the option as a SPEC writes it; numbers are whole ones."""
    checked = option.check(value, name)
    if isinstance(checked, str):
        return checked
    if checked != int(checked):
        raise MemorySpecError(f"{name}: {option.name}={value}", f"{option.name} counts {option.unit}", "Give a whole number")
    return str(int(checked))


def _parity(memory: Memory, options: Mapping[str, ConditionValue]) -> Memory:
    from weakcell.memmodels.protection.check_bits import Parity

    return Parity(memory, policy=str(options["policy"]), word=int(options["word"]))  # type: ignore[arg-type]


def _secded(memory: Memory, options: Mapping[str, ConditionValue]) -> Memory:
    from weakcell.memmodels.protection.check_bits import Linear
    from weakcell.memmodels.protection.linear_codes import SECDED

    return Linear(memory, policy=str(options["policy"]), code=SECDED)  # type: ignore[arg-type]


def _bch2(memory: Memory, options: Mapping[str, ConditionValue]) -> Memory:
    from weakcell.memmodels.protection.check_bits import Linear
    from weakcell.memmodels.protection.linear_codes import DECTED

    return Linear(memory, policy=str(options["policy"]), code=DECTED)  # type: ignore[arg-type]


def _in_place(memory: Memory, options: Mapping[str, ConditionValue]) -> Memory:
    from weakcell.memmodels.protection.element_codes import DEFAULT_LOW
    from weakcell.memmodels.protection.elements import InPlace

    code = str(options["code"])
    low = int(options.get("low", DEFAULT_LOW[code]))
    fewest = {"hamming": 2, "secded": 3, "triple": 2, "parity": 1}[code]
    if low < fewest or (code == "triple" and low % 2):
        needs = "an even number of bits, two for each tripled bit" if code == "triple" else f"{fewest} bits or more"
        advice = f"Choose low={DEFAULT_LOW[code]}, the default"
        raise MemorySpecError(f"in-place[code={code},low={low}]", f"{code} needs {needs}", advice)
    return InPlace(memory, code, low)  # type: ignore[arg-type]


def _range(memory: Memory, options: Mapping[str, ConditionValue]) -> Memory:
    from weakcell.memmodels.protection.elements import Range

    return Range(memory, str(options["policy"]))  # type: ignore[arg-type]


def _majority(memory: Memory, options: Mapping[str, ConditionValue]) -> Memory:
    from weakcell.memmodels.protection.rereads import Majority

    reads = int(options["reads"])
    if reads % 2 == 0:
        raise MemorySpecError(f"majority[reads={reads}]", "an even number of reads can be a draw", f"Choose reads={reads + 1}")
    return Majority(memory, reads)


def _msb(memory: Memory, options: Mapping[str, ConditionValue]) -> Memory:
    from weakcell.memmodels.protection.cells import SafeHighBits

    return SafeHighBits(memory, int(options["planes"]), str(options["store"]))  # type: ignore[arg-type]


def _interleave(memory: Memory, options: Mapping[str, ConditionValue]) -> Memory:
    from weakcell.memmodels.protection.cells import Interleaved

    return Interleaved(memory, int(options["stride"]))


WRAPPERS = {
    wrapper_type.name: wrapper_type
    for wrapper_type in (
        WrapperType(
            "parity",
            "One parity bit per word; words with an odd number of errors are detected",
            "1 check bit per word: 9/8 to 65/64 of the bits",
            "an even number of errors in a word is not seen; the check bit lives in the same memory and fails too",
            (Condition("word", "bits", "data bits per parity bit", "64", choices=("8", "16", "32", "64")), _POLICY),
            _parity,
            logic="per word of 64 bits: 63 to write (6 in a row), 64 to check (7); of 8 bits: 7 (3), 8 (4)",
        ),
        WrapperType(
            "secded",
            "SECDED(72,64): one error per word corrected, two detected",
            "8 check bits per 64: 72/64 of the bits",
            "three errors in a word or more may be corrected into a fourth; check bits live in the same memory and fail too",
            (_POLICY,),
            _secded,
            logic="per word: 200 to write (5 in a row), 208 to check (5)",
        ),
        WrapperType(
            "bch2",
            "BCH(79,64): two errors per word corrected, three detected",
            "15 check bits per 64: 79/64 of the bits",
            "four errors in a word or more may be miscorrected; check bits live in the same memory and fail too",
            (_POLICY,),
            _bch2,
            logic="per word: 475 to write (6 in a row), 490 to check (6)",
        ),
        WrapperType(
            "in-place",
            "Check bits in place of the lowest bits of each element",
            "no bits; each element is rounded to a multiple of 2^low",
            "integers of 3 to 16 bits; the loss by rounding is there without any error, and is counted as flips",
            (
                Condition(
                    "code",
                    "",
                    "Hamming or SECDED of the top bits; three copies of the top low/2 bits; a parity bit for each of `low` chunks",
                    "hamming",
                    choices=("hamming", "secded", "triple", "parity"),
                ),
                Condition("low", "bits", "lowest bits that hold check bits; 3, with secded 4, else 2, if not given", low=1, high=8),
            ),
            _in_place,
            level=1,
            rounds=True,
            logic="per 8-bit element: hamming 6 to write (2 in a row), 9 to check (2); secded 8 (2), 12 (2); parity 4 (2), 6 (2)",
        ),
        WrapperType(
            "range",
            "Values outside the range of what was written read as its nearest end, or as zero",
            "two registers per tensor, which never fail and are not counted",
            "values within the range may be wrong; signs have no other values",
            (Condition("policy", "", "what a value outside reads as", "clip", choices=("clip", "zero")),),
            _range,
            level=0,
        ),
        WrapperType(
            "majority",
            "Every read is the majority of several",
            "reads and their energy and time are multiplied; no bits",
            "errors of the lifetime die or write are in every read",
            (Condition("reads", "reads", "how many, an odd number", 3.0, low=3, high=15),),
            _majority,
        ),
        WrapperType(
            "msb",
            "The top bits of every element are safe",
            "store=safe: hardened cells at an unknown price; store=triple: 2 more bits per safe bit",
            "the other bits stay as they are; with store=triple, two of three copies may err alike",
            (
                Condition("planes", "planes", "how many of the top bits", 1.0, low=1, high=64),
                Condition(
                    "store", "", "cells that never fail, or three copies and their majority", "safe", choices=("safe", "triple")
                ),
            ),
            _msb,
        ),
        WrapperType(
            "interleave",
            "Bits of a word lie apart, so that a burst costs each word one bit",
            "none",
            "corrects nothing by itself; moves single cells, so it stands last, next to the memory",
            (Condition("stride", "cells", "distance of a word's neighbouring bits", 64.0, low=2, high=1 << 20),),
            _interleave,
            level=3,
        ),
    )
}
"""Every wrapper, by its name in a SPEC."""
