"""Wrappers by name: the head of a SPEC, `WRAPPER+…+NAME:key=value`.

The leftmost wrapper is the outermost; options are in brackets: `secded[policy=erase]+interleave[stride=64]+uniform:ber=1e-3`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from weakcell.memmodels.definition import Condition
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.memory import ConditionValue, Memory

_HEAD = re.compile(r"\s*([\w-]+)\s*(?:\[([^\]]*)\])?\s*\+")
_POLICY = Condition("policy", "", "what a detected word reads as", "erase", choices=("erase", "drop", "raw", "raise"))


@dataclass(frozen=True)
class WrapperType:
    """A wrapper_type of wrapper.

    Attributes:
        name, title: In a SPEC, and in one line.
        overhead: What it costs.
        limits: What it cannot do.
        options: Its knobs.
        build: Puts one around a memory.
    """

    name: str
    title: str
    overhead: str
    limits: str
    options: tuple[Condition, ...]
    build: Callable[[Memory, Mapping[str, ConditionValue]], Memory]


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


def split_wrappers(text: str) -> tuple[tuple[WrapperSpec, ...], str]:
    """Split a SPEC into its wrappers, outermost first, and the rest.

    Raises:
        MemorySpecError: A wrapper is unknown, malformed or misplaced.
    """
    wrappers, rest = [], text
    while head := _HEAD.match(rest):
        wrappers.append(_parse_wrapper(text, head[1], head[2]))
        rest = rest[head.end() :]
    for outer in wrappers[:-1]:
        if outer.name == "interleave":
            raise MemorySpecError(
                f"Memory SPEC {text!r}",
                "interleave moves single cells, so a wrapper inside it would no longer see words and elements",
                "Put interleave last, next to the memory, as in secded+interleave+NAME",
            )
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
    from weakcell.memmodels.protection.check_bits import Secded

    return Secded(memory, policy=str(options["policy"]))  # type: ignore[arg-type]


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
        ),
        WrapperType(
            "secded",
            "SECDED(72,64): one error per word corrected, two detected",
            "8 check bits per 64: 72/64 of the bits",
            "three errors in a word or more may be corrected into a fourth; check bits live in the same memory and fail too",
            (_POLICY,),
            _secded,
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
        ),
    )
}
"""Every wrapper, by its name in a SPEC."""
