"""Recordings: read-backs that were taken before, replayed as a memory: `recording:PATH`.

A recording is an .npz of plain arrays (no pickles). `about` is JSON: schema version, subject, and one entry per region (layout,
first word, key of its write) and per take (region, operating point, and for each read what was commanded, measured, and which cell
and pass of a streamed network it was). Arrays, all uint64 words: `written/R`, `stored/R`, `previous/R` (if known) of region R, and
`reads/T` (reads, words) of take T.

Replay returns the reads of a region at an operating point in the order in which they were taken: read n of a key is the n-th one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import isclose, isfinite
from pathlib import Path
from typing import Any, Self

import numpy as np

from weakcell.memmodels.address import Layout, Words, popcount
from weakcell.memmodels.atomic_files import write_atomically
from weakcell.memmodels.definition import Condition, Conditions, Technology, no_cost
from weakcell.memmodels.errors import InputError, MemoryFault, MemorySpecError
from weakcell.memmodels.files import parse_json, read_arrays, reason
from weakcell.memmodels.memory import Accesses, ConditionValue, Cost, Key, Memory, ReadReport, Region
from weakcell.memmodels.sampling.sampler import Sampler

SCHEMA = 1
_WIDEST = 64
_SERVING = (
    Condition("cycle", "", "start again after the last recorded read", "no", choices=("no", "yes")),
    Condition("serve", "", "which part of the key counts the recorded reads", "read", choices=("read", "trial")),
)


@dataclass(frozen=True, eq=False)
class Take:
    """Reads of one region at one operating point, in order.

    Attributes:
        region: Number of the region.
        point: The operating point.
        reads: (reads, words) uint64.
        notes: One per read (`commanded`, `measured`, `cell`, `pass` …).
    """

    region: int
    point: Mapping[str, ConditionValue]
    reads: Words
    notes: tuple[Mapping[str, Any], ...]


@dataclass(eq=False)
class Recording:
    """Regions as they were written, and what was read from them."""

    about: dict[str, Any] = field(default_factory=dict)
    regions: list[Region] = field(default_factory=list)
    takes: list[Take] = field(default_factory=list)

    def take(self, memory: Memory, region: Region, reads: Iterable[int], notes: Mapping[str, Any] | None = None) -> Self:
        """Read a region now, at the memory's operating point, and keep the reads.

        Args:
            memory: What is read.
            region: One of its regions.
            reads: Numbers of the reads since the write.
            notes: Kept with each read.
        """
        words, notes_of_reads = [], []
        for read in reads:
            out = np.empty_like(region.written)
            report = memory.read(region, Key(region.key.trial, region.key.write, read), out)
            words.append(out)
            measured = {"commanded": dict(report.commanded), "measured": dict(report.measured)}
            notes_of_reads.append({**measured, "corrected": report.corrected, "erased": report.erased, **(notes or {})})
        if not words:
            return self
        number = next((i for i, known in enumerate(self.regions) if known is region), len(self.regions))
        self.regions[number:] = self.regions[number:] or [region]
        self.takes.append(Take(number, dict(memory.conditions), np.array(words), tuple(notes_of_reads)))
        return self

    @property
    def points(self) -> tuple[Mapping[str, ConditionValue], ...]:
        """The operating points, in the order in which they were recorded."""
        points: list[Mapping[str, ConditionValue]] = []
        for take in self.takes:
            if not any(same_point(take.point, known) for known in points):
                points.append(take.point)
        return tuple(points)

    def save(self, path: str | Path) -> Path:
        """Write the file. Raises OutputError if that fails."""
        target = Path(path)
        arrays: dict[str, Any] = {"about": np.array(json.dumps(self._describe(), ensure_ascii=False))}
        for number, region in enumerate(self.regions):
            arrays |= {f"written/{number}": region.written, f"stored/{number}": region.stored}
            if region.previous is not None:
                arrays[f"previous/{number}"] = region.previous
        arrays |= {f"reads/{number}": take.reads for number, take in enumerate(self.takes)}
        write_atomically(target, lambda file: np.savez_compressed(file, **arrays))
        return target

    def _describe(self) -> dict[str, Any]:
        regions = [
            {"layout": {key: getattr(region.layout, key) for key in ("name", "elements", "width", "planes", "erased")},
             "first_word": region.first_word, "key": list(region.key)}
            for region in self.regions
        ]  # fmt: skip
        takes = [{"region": take.region, "point": dict(take.point), "notes": list(take.notes)} for take in self.takes]
        return {"schema": SCHEMA, "about": self.about, "regions": regions, "takes": takes}


def record(
    path: str | Path,
    memory: Memory,
    regions: Sequence[Region],
    reads: Iterable[int] = (0,),
    points: Sequence[Mapping[str, ConditionValue]] = ({},),
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Read regions of a memory at operating points and save the recording.

    Args:
        path: File to write.
        memory: What is read.
        regions: Regions of the memory.
        reads: Numbers of the reads of each region.
        points: Conditions of each operating point.
        about: Title, source and basis, for people.
    """
    recording, numbers = Recording(dict(about or {})), tuple(reads)
    for point in points:
        there = memory.at(**point)
        for region in regions:
            recording.take(there, region, numbers)
    return recording.save(path)


def load(path: str | Path) -> Recording:
    """Read a recording. Cached until the file changes.

    Raises:
        InputError: The file cannot be read, is damaged, or has another schema.
    """
    found = Path(path)
    try:
        stat = found.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise InputError(f"Recording {found}", f"it cannot be read ({reason(error)})", "Check the path") from error
    return _load(found, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _load(path: Path, _changed: int, _size: int) -> Recording:
    asked = f"Recording {path}"
    arrays = read_arrays(path, asked, "Record again")
    try:
        content = parse_json(str(arrays["about"]))
        if content.get("schema") != SCHEMA:
            found = f"its schema is {content.get('schema')!r}, this version reads {SCHEMA}"
            raise InputError(asked, found, "Record again, or use the version that wrote it")
        regions = [_parse_region(one, number, arrays) for number, one in enumerate(content["regions"])]
        takes = [_parse_take(one, arrays[f"reads/{number}"], regions) for number, one in enumerate(content["takes"])]
        about = content.get("about", {})
        if not isinstance(about, dict):
            raise ValueError("what it is about is no table")
        return Recording(about, regions, takes)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise InputError(asked, f"it is no recording or is damaged ({reason(error)})", "Record again") from error


def _parse_region(entry: dict[str, Any], number: int, arrays: Any) -> Region:
    stated = entry["layout"]
    planes = tuple(stated["planes"])
    counts = (stated["elements"], stated["width"], stated["erased"], entry["first_word"], *planes, *entry["key"])
    if not (isinstance(stated["name"], str) and all(isinstance(count, int) for count in counts)):
        raise ValueError("the layout of a region is a name and integers")
    if stated["elements"] < 0 or not 1 <= stated["width"] <= _WIDEST:
        raise ValueError(f"{stated['elements']} elements of {stated['width']} bits; elements have 1 to {_WIDEST} bits")
    layout = Layout(stated["name"], stated["elements"], stated["width"], planes, stated["erased"])
    written, stored = (_check_array(arrays[f"{kind}/{number}"], (layout.words,)) for kind in ("written", "stored"))
    previous = _check_array(arrays[f"previous/{number}"], (layout.words,)) if f"previous/{number}" in arrays else None
    return Region(layout, entry["first_word"], written, stored, previous, Key(*entry["key"]))


def _parse_take(entry: dict[str, Any], reads: Words, regions: list[Region]) -> Take:
    number, point, notes = entry["region"], entry["point"], entry["notes"]
    if not (isinstance(number, int) and 0 <= number < len(regions)):
        raise ValueError(f"a take is of region {number!r}, and there are {len(regions)}")
    if not isinstance(point, dict) or not all(is_condition(value) for value in point.values()):
        raise ValueError(f"an operating point is {str(point)[:80]!r}, not names with numbers or words")
    if not isinstance(notes, list) or not all(isinstance(note, dict) for note in notes):
        raise ValueError("the notes of a take are not one table per read")
    if not all(isinstance(note.get(key, 0), int) for note in notes for key in ("corrected", "erased")):
        raise ValueError("a note counts corrected or erased words by something else than an integer")
    return Take(number, point, _check_array(reads, (len(notes), regions[number].layout.words)), tuple(notes))


def is_condition(value: object) -> bool:
    """Return whether a value of a file can be that of a condition: a word or a finite number."""
    return isinstance(value, str) or (isinstance(value, int | float) and isfinite(value))


def _check_array(array: Any, shape: tuple[int, ...]) -> Words:
    if array.dtype != np.uint64 or array.shape != shape:
        raise ValueError(f"{array.shape} of {array.dtype} where {shape} of uint64 were announced")
    words: Words = array
    return words


def same_point(one: Mapping[str, ConditionValue], other: Mapping[str, ConditionValue]) -> bool:
    """Return whether two operating points are equal: words exactly, numbers but for rounding."""
    return one.keys() == other.keys() and all(
        value == other[key]
        if isinstance(value, str) or isinstance(other[key], str)
        else isclose(value, float(other[key]), rel_tol=1e-9)
        for key, value in one.items()
    )


# --- replay ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class RecordingMemory:
    """A recording, replayed.

    It has one die: seed and die numbers do not matter. Trials see the same reads unless serve=trial.
    """

    recording: Recording
    technology: Technology
    conditions: Mapping[str, ConditionValue]

    def at(self, **conditions: ConditionValue) -> RecordingMemory:
        """Return the recording at another recorded operating point."""
        moved = self.technology.resolve({**self.conditions, **conditions})
        self.technology.terms(moved)
        return replace(self, conditions=moved)

    def write(self, bits: Words, layout: Layout, key: Key) -> Region:
        """Return the recorded region of these bits; of that write, if the same bits were written more than once.

        Raises:
            MemoryFault: Nothing of that name, or other bits, were recorded.
        """
        named = [region for region in self.recording.regions if str(region.layout) == str(layout)]
        same = [r for r in named if r.layout.bits == layout.bits and np.array_equal(r.written, bits)]
        if not same:
            asked = f"Writing {layout}, {layout.bits} bits, to {self.technology.name}"
            if not named:
                known = ", ".join(dict.fromkeys(str(region.layout) for region in self.recording.regions)) or "nothing"
                raise MemoryFault(asked, f"it was not recorded; recorded are {known}", "Replay the network that was recorded")
            nearest = named[-1]
            differ = f"{nearest.layout.bits} bits"
            if nearest.layout.bits == layout.bits:
                differ = f"other bits ({popcount(nearest.written ^ bits)} of them differ)"
            raise MemoryFault(asked, f"{differ} were recorded under that name", "Replay the network that was recorded")
        return next((region for region in same if region.key.write == key.write), same[0])

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        """Copy a recorded read into `out`.

        Raises:
            MemoryFault: Fewer reads were recorded, and `cycle` is not `yes`.
        """
        reads, notes = self._reads(region)
        count = len(notes)
        which = key.trial if self.conditions["serve"] == "trial" else key.read
        number = which % count if count and self.conditions["cycle"] == "yes" else which
        if not 0 <= number < count:
            raise MemoryFault(
                f"{self.conditions['serve']} {which} of {region.layout} from {self.technology.name}",
                f"{count} reads of it were recorded here, counted from 0" if count else "nothing of it was recorded here",
                "Read what was recorded, or say cycle=yes to start again after the last one",
            )
        out[:] = reads[number]
        note = notes[number]
        return ReadReport(
            popcount(out ^ region.written),
            int(note.get("corrected", 0)),
            int(note.get("erased", 0)),
            self.conditions,
            note.get("measured", {}),
        )

    def sampler(self, region: Region) -> Sampler | None:
        """Return None: only recorded reads exist."""
        return None

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        """Return no cost: a recording knows none."""
        return self.technology.cost(self.conditions, region.layout.bits, accesses)

    def _reads(self, region: Region) -> tuple[Sequence[Words], Sequence[Mapping[str, Any]]]:
        """Return all reads of a region at this point, and their notes."""
        point = {key: value for key, value in self.conditions.items() if key not in ("cycle", "serve")}
        takes = [
            take
            for take in self.recording.takes
            if self.recording.regions[take.region] is region and same_point(_complete_point(take.point, point), point)
        ]
        return [words for take in takes for words in take.reads], [note for take in takes for note in take.notes]


def technology_of(path: str) -> Technology:
    """Return the technology of a recording: its operating points."""
    recording = load(path)
    points = recording.points
    if not points:
        raise InputError(f"Recording {path}", "it holds no reads", "Record again")
    knobs = tuple(dict.fromkeys(key for point in points for key in point))
    conditions = tuple(_make_condition(key, [point[key] for point in points if key in point]) for key in knobs)
    moved = [c.name for c in conditions if len(c.choices) > 1 or c.low != c.high]
    numbers = [c.name for c in conditions if c.name in moved and not c.choices]
    reads = sum(len(take.notes) for take in recording.takes)

    def terms(asked: Conditions) -> tuple[()]:
        here = {key: value for key, value in asked.items() if key in knobs}
        if not any(same_point(_complete_point(point, here), here) for point in points):
            shown = "; ".join(_format_point(point, moved) for point in points)
            wanted = _format_point(here, moved)
            raise MemorySpecError(
                f"recording:{path} at {wanted}", f"nothing was recorded there; it holds {shown}", "Choose one of these"
            )
        return ()

    return Technology(
        name=f"recording:{path}",
        title=str(recording.about.get("title", "Recorded read-backs")),
        conditions=(*conditions, *_SERVING),
        terms=terms,
        cost=no_cost,
        law="what was read then is read again",
        source=str(recording.about.get("source", Path(path).name)),
        basis="measured" if recording.about.get("basis", "measured") == "measured" else "computed",
        sweep=numbers[0] if numbers else None,
        notes=f"{len(recording.regions)} regions, {reads} reads. One die, whatever die is asked for.",
    )


def open_recording(path: str, conditions: Mapping[str, ConditionValue]) -> RecordingMemory:
    """Return the memory of a recording at one of its operating points."""
    technology = technology_of(path)
    resolved = technology.resolve(conditions)
    technology.terms(resolved)
    return RecordingMemory(load(path), technology, resolved)


def _make_condition(name: str, values: list[ConditionValue]) -> Condition:
    if any(isinstance(value, str) for value in values):
        return Condition(name, "", "as recorded", str(values[0]), choices=tuple(dict.fromkeys(map(str, values))))
    numbers = [float(value) for value in values]
    return Condition(name, "", "as recorded", numbers[0], low=min(numbers), high=max(numbers))


def _format_point(point: Mapping[str, ConditionValue], knobs: Sequence[str]) -> str:
    """Return an operating point as text, by the conditions that differ between points."""
    return ", ".join(f"{key}={point[key]}" for key in knobs if key in point) or "one operating point"


def _complete_point(point: Mapping[str, ConditionValue], like: Mapping[str, ConditionValue]) -> Mapping[str, ConditionValue]:
    """Return a recorded point, completed with conditions of `like` that it lacks."""
    return {**{key: value for key, value in like.items() if key not in point}, **point}
