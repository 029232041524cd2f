"""Names and SPEC strings -> memories.

A SPEC is `NAME` or `NAME:key=value,key=value`. Built-in technologies are listed in `_BUILT_IN`: adding one is one file and one
line. Other packages register theirs by an entry point in the group `weakcell.memories`: name = "package.module:TECHNOLOGY".
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from memmodels.errors import MemorySpecError
from memmodels.memory import ConditionValue, Memory
from memmodels.simulated import SimulatedMemory
from memmodels.technology import Technology

_BUILT_IN = {
    "uniform": "memmodels.technologies.uniform:UNIFORM",
    "sram-14nm": "memmodels.technologies.sram:SRAM_14NM",
    "sram-28nm-kc705b": "memmodels.technologies.sram:SRAM_28NM_KC705B",
    "sram-28nm-vc707": "memmodels.technologies.sram:SRAM_28NM_VC707",
}
_GROUP = "weakcell.memories"


@dataclass(frozen=True)
class MemorySpec:
    """A technology by name and the conditions that were given; `str` gives the SPEC back, keys in the order given."""

    name: str
    conditions: Mapping[str, ConditionValue]

    def __str__(self) -> str:
        given = ",".join(f"{key}={_plain(value)}" for key, value in self.conditions.items())
        return f"{self.name}:{given}" if given else self.name

    @property
    def technology(self) -> Technology:
        return technology(self.name)

    def at(self, **conditions: ConditionValue) -> MemorySpec:
        """The same memory at another operating point."""
        return MemorySpec(self.name, {**self.conditions, **conditions})

    def check(self) -> None:
        """Resolve the conditions and compute the terms once; MemorySpecError if anything is wrong with them."""
        tech = self.technology
        tech.terms(tech.resolve(self.conditions))


def names() -> tuple[str, ...]:
    """All registered technologies, the built-in ones first."""
    return (*_BUILT_IN, *(point.name for point in entry_points(group=_GROUP) if point.name not in _BUILT_IN))


@cache
def technology(name: str) -> Technology:
    """The technology of that name; MemorySpecError names the nearest one if there is none."""
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name].split(":")
        found = getattr(import_module(module), attribute)
    else:
        points = [point for point in entry_points(group=_GROUP) if point.name == name]
        if not points:
            near = difflib.get_close_matches(name, names(), n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(names())};"
            raise MemorySpecError(
                f"Memory {name!r}", "there is no technology of that name", f"{hint} `weakcell memories` lists them"
            )
        try:
            found = points[0].load()
        except Exception as error:
            raise MemorySpecError(
                f"Memory {name!r}", f"its package cannot be loaded ({points[0].value}: {error})", "Repair or remove that package"
            ) from error
    if not isinstance(found, Technology):
        raise MemorySpecError(
            f"Memory {name!r}", f"its entry point holds a {type(found).__name__}", "Register a memmodels Technology"
        )
    return found


def parse_spec(text: str) -> MemorySpec:
    """Read a SPEC; MemorySpecError if it is malformed, names nothing known, or asks for what the law does not cover."""
    name, colon, rest = text.strip().partition(":")
    conditions: dict[str, ConditionValue] = {}
    for item in rest.split(",") if colon else []:
        key, equals, value = item.partition("=")
        key, value = key.strip(), value.strip()
        if not (key and equals and value):
            raise MemorySpecError(f"Memory SPEC {text!r}", f"{item!r} is not key=value", "Write NAME:key=value,key=value")
        if key in conditions:
            raise MemorySpecError(f"Memory SPEC {text!r}", f"{key} is given twice", "Give it once")
        conditions[key] = value
    tech = technology(name)
    checked = {key: value for key, value in tech.resolve(conditions).items() if key in conditions} if conditions else {}
    return MemorySpec(name, {key: checked[key] for key in conditions})


def open_memory(spec: MemorySpec | str, seed: int = 0, die: int = 0, array: int = 0) -> Memory:
    """The array `array` of die `die`, at the operating point that the SPEC names."""
    parsed = parse_spec(spec) if isinstance(spec, str) else spec
    return SimulatedMemory(parsed.technology, parsed.technology.resolve(parsed.conditions), seed, die, array)


def _plain(value: ConditionValue) -> str:
    """The value as short as it can be written without becoming another one."""
    if not isinstance(value, float):
        return str(value)
    short = f"{value:.12g}"
    return short if float(short) == value else repr(float(value))
