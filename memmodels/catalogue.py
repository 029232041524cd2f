"""Turn names and SPEC strings into memories.

A SPEC is `NAME` or `NAME:key=value,key=value`. NAME is one of:

    a technology        `uniform`; built-in ones are listed in `_BUILT_IN`. Other packages register theirs with an entry point in
                        the group `weakcell.memories`: name = "package.module:TECHNOLOGY"
    a file              `file:PATH` (a profile) or `recording:PATH`
    SCHEME:WHERE        a scheme of another package, as the host's boards are, registered with an entry point in the group
                        `weakcell.kinds`: scheme = "package.module" (a `SpecScheme`)

Wrappers precede it, the outermost first: `secded[policy=erase]+interleave[stride=64]+uniform:ber=1e-3`,
`parity+file:board.toml:vdd=0.6`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoints, entry_points
from typing import Protocol

from weakcell.memmodels.definition import Technology
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.memory import ConditionValue, Memory
from weakcell.memmodels.protection.wrappers import WRAPPERS, split_wrappers
from weakcell.memmodels.simulated import SimulatedMemory

_BUILT_IN = {
    "uniform": "weakcell.memmodels.technologies.uniform:UNIFORM",
    "sram-14nm": "weakcell.memmodels.technologies.sram:SRAM_14NM",
    "sram-28nm-kc705b": "weakcell.memmodels.technologies.block_ram:SRAM_28NM_KC705B",
    "sram-28nm-vc707": "weakcell.memmodels.technologies.block_ram:SRAM_28NM_VC707",
    "sram-6t": "weakcell.memmodels.technologies.sram_cell:SRAM_6T",
    "dram": "weakcell.memmodels.technologies.dram:DRAM",
    "ddr4": "weakcell.memmodels.technologies.ddr4:DDR4",
    "rowhammer": "weakcell.memmodels.technologies.rowhammer:ROWHAMMER",
    "eden": "weakcell.memmodels.technologies.eden:EDEN",
    "rram": "weakcell.memmodels.technologies.rram:RRAM",
    "rram-mlc": "weakcell.memmodels.technologies.rram:RRAM_MLC",
    "rram-relaxation": "weakcell.memmodels.technologies.rram_relaxation:RRAM_RELAXATION",
    "sttram": "weakcell.memmodels.technologies.sttram:STTRAM",
    "fefet": "weakcell.memmodels.technologies.fefet:FEFET",
}
_GROUP, _SCHEMES = "weakcell.memories", "weakcell.kinds"
_FILES = {"file": "weakcell.memmodels.profile", "recording": "weakcell.memmodels.recording"}
"""Modules whose `technology_of(path)` is a technology that lives in a file."""


class SpecScheme(Protocol):
    """A module that makes memories for `SCHEME:WHERE`.

    WHERE may contain brackets; the conditions begin after them.
    """

    def technology_of(self, where: str) -> Technology:
        """Return the technology of WHERE: its conditions and sources."""
        ...

    def open_memory(self, where: str, conditions: Mapping[str, ConditionValue], seed: int, die: int, array: int) -> Memory:
        """Open the memory of WHERE at an operating point."""
        ...


@dataclass(frozen=True)
class MemorySpec:
    """A parsed SPEC. `str` returns its text, keys in the order given.

    Attributes:
        name: NAME with the wrappers before it.
        conditions: Given conditions of the memory inside the wrappers.
    """

    name: str
    conditions: Mapping[str, ConditionValue]

    def __str__(self) -> str:
        given = ",".join(f"{key}={_plain(value)}" for key, value in self.conditions.items())
        return f"{self.name}:{given}" if given else self.name

    @property
    def technology(self) -> Technology:
        """The technology inside all wrappers."""
        return technology_of(split_wrappers(self.name)[1])

    def at(self, **conditions: ConditionValue) -> MemorySpec:
        """Return the same memory at another operating point."""
        return MemorySpec(self.name, {**self.conditions, **conditions})

    def check(self) -> None:
        """Resolve the conditions and compute the error terms once.

        Raises:
            MemorySpecError: The conditions are incomplete, unknown or out of range.
        """
        tech = self.technology
        tech.terms(tech.resolve(self.conditions))


def names() -> tuple[str, ...]:
    """Return the names of all registered technologies, the built-in ones first."""
    return (*_BUILT_IN, *(point.name for point in _entry_points(_GROUP) if point.name not in _BUILT_IN))


@cache
def _entry_points(group: str) -> EntryPoints:
    """Return what installed packages register in a group. A look through all packages takes milliseconds."""
    return entry_points(group=group)


def technology_of(name: str) -> Technology:
    """Return the technology of a NAME without wrappers; a file is read again at each call."""
    scheme, _, where = name.partition(":")
    if not _is_scheme(scheme):
        return technology(name)
    if not where:
        raise MemorySpecError(
            f"Memory SPEC {name!r}", f"it does not say which {scheme}", f"Write {scheme}:PATH or {scheme}:PATH:key=value"
        )
    if scheme in _FILES:
        in_file: Technology = import_module(_FILES[scheme]).technology_of(where)
        return in_file
    return _load_scheme(scheme).technology_of(where)


@cache
def _is_scheme(name: str) -> bool:
    """Return whether NAME:… names a file or uses a registered scheme."""
    return name in _FILES or any(point.name == name for point in _entry_points(_SCHEMES))


@cache
def _load_scheme(name: str) -> SpecScheme:
    """Load the registered scheme of that name; MemorySpecError if its package cannot be loaded."""
    (point, *_) = _entry_points(_SCHEMES).select(name=name)
    try:
        found: SpecScheme = point.load()
    except Exception as error:
        raise MemorySpecError(f"Memory kind {name!r}", f"it cannot be loaded ({error})", "Install what it needs") from error
    return found


@cache
def technology(name: str) -> Technology:
    """Return the technology of a NAME, inside its wrappers. Cached: a file is read once.

    Raises:
        MemorySpecError: There is none; the message suggests near names.
    """
    inside = split_wrappers(name)[1]
    if inside != name or _is_scheme(inside.partition(":")[0]):
        return technology_of(inside)
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name].split(":")
        loaded = getattr(import_module(module), attribute)
    else:
        points = [point for point in _entry_points(_GROUP) if point.name == name]
        if not points:
            family = [known for known in names() if name and known.startswith(f"{name}-")]
            near = family or difflib.get_close_matches(name, names(), n=1)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(names())};"
            found = "there is no technology of that name"
            if name in WRAPPERS:
                found = "this is a wrapper, and it needs a memory behind it"
            elif not name:
                found = "no memory is named"
            raise MemorySpecError(f"Memory {name!r}", found, f"{hint} `weakcell memories` lists them")
        try:
            loaded = points[0].load()
        except Exception as error:
            raise MemorySpecError(
                f"Memory {name!r}", f"its package cannot be loaded ({points[0].value}: {error})", "Repair or remove that package"
            ) from error
    if not isinstance(loaded, Technology):
        raise MemorySpecError(
            f"Memory {name!r}", f"its entry point holds a {type(loaded).__name__}", "Register a memmodels Technology"
        )
    return loaded


def parse_spec(text: str) -> MemorySpec:
    """Parse a SPEC and check its conditions.

    Raises:
        MemorySpecError: It is malformed, names nothing known, or asks for conditions that the law does not cover. Where another
            SPEC was probably meant, the message shows it.
    """
    try:
        return _parse(text)
    except MemorySpecError as error:
        meant = _corrected(text)
        if meant is None:
            raise
        raise MemorySpecError(
            error.asked, error.found, f"Did you mean {meant}? `weakcell memories` lists all names and keys"
        ) from None


def _corrected(text: str) -> str | None:
    """Return a valid SPEC that the text probably means, or None."""
    if _is_scheme(text.strip().partition(":")[0]):
        return None
    from weakcell.memmodels.spec_correction import correct_spec

    meant = correct_spec(text, tuple(_BUILT_IN), lambda name: technology(name).conditions)
    if meant is None or meant == text:
        return None
    try:
        _parse(meant)
    except MemorySpecError:
        return None
    return meant


def _parse(text: str) -> MemorySpec:
    wrappers, bare = split_wrappers(text.strip())
    name, given = _split_file(bare) if _is_scheme(bare.partition(":")[0]) else _split(bare)
    conditions: dict[str, ConditionValue] = {}
    for item in given.split(",") if given is not None else []:
        key, equals, value = item.partition("=")
        key, value = key.strip(), value.strip()
        if not (key and equals and value):
            raise MemorySpecError(f"Memory SPEC {text!r}", f"{item!r} is not key=value", "Write NAME:key=value,key=value")
        if key in conditions:
            raise MemorySpecError(f"Memory SPEC {text!r}", f"{key} is given twice", "Give it once")
        conditions[key] = value
    tech = technology_of(name)
    checked = {key: value for key, value in tech.resolve(conditions).items() if key in conditions} if conditions else {}
    return MemorySpec("+".join([*map(str, wrappers), name]), {key: checked[key] for key in conditions})


def _split(text: str) -> tuple[str, str | None]:
    name, colon, given = text.partition(":")
    return name, given if colon else None


def _split_file(text: str) -> tuple[str, str | None]:
    """Split `file:PATH:key=value`, where PATH may contain colons and commas: conditions begin at the first colon before a `key=`.

    Text in brackets belongs to PATH: `board:virtual:rp2350[uniform:ber=1e-3]:vdd=0.6`.
    """
    found = re.fullmatch(r"(\w+:(?:\[.*\]|.)*?)(?::([A-Za-z_]\w*\s*=.*))?", text, re.DOTALL)
    return (found[1], found[2]) if found else (text, None)


def open_memory(spec: MemorySpec | str, seed: int = 0, die: int = 0, array: int = 0) -> Memory:
    """Open a memory.

    Args:
        spec: A SPEC, as text or parsed.
        seed: Seed of the whole study.
        die: Number of the manufactured instance.
        array: Number of the array on that die; two arrays share no cells.

    Returns:
        The memory at the operating point of the SPEC, inside its wrappers.
    """
    parsed = parse_spec(spec) if isinstance(spec, str) else spec
    wrappers, name = split_wrappers(parsed.name)
    memory: Memory
    if name.startswith("recording:"):
        from weakcell.memmodels.recording import open_recording

        memory = open_recording(name.removeprefix("recording:"), parsed.conditions)
    elif ":" in name and (scheme := name.partition(":")[0]) not in _FILES:
        memory = _load_scheme(scheme).open_memory(name.partition(":")[2], parsed.conditions, seed, die, array)
    else:
        found = technology_of(name)
        memory = SimulatedMemory(found, found.resolve(parsed.conditions), seed, die, array)
    for wrapper in reversed(wrappers):
        memory = wrapper.wrap(memory)
    return memory


def _plain(value: ConditionValue) -> str:
    """Return the shortest text that reads back as the same value."""
    if not isinstance(value, float):
        return str(value)
    short = f"{value:.12g}"
    return short if float(short) == value else repr(float(value))
