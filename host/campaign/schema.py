"""The campaign file: networks, memories with grids of conditions, placements, trials. TOML, checked before anything runs.

title = "Undervolted digits"  # optional: the heading of the report
trials = 100                  # the most per point; with half_width, a point stops as soon as its interval is narrow enough
half_width = 0.005            # optional
seeds = [0]
read_every = ["load"]
batch = 256
compute = "emulator"          # or "board": the board that holds all weights computes the images itself

[[network]]
model = "digits-bnn"          # a shipped name or an ONNX file, from the campaign file's folder
data = "digits"               # optional for shipped networks
images = 200                  # optional
task = "classes:top=5"        # optional; what the output means, as after --task
output = "scores"             # optional; which output is judged

[[memory]]
spec = "sram-14nm"
grid = { v_over_vmin = "0.75:1.0:0.05" }      # START:STOP:STEP, START:STOP:xFACTOR, or a list; several keys are crossed

[[placement]]                 # optional; without one, every weight lives in the memory
name = "safe first layer"
rules = { "/conv1/Conv" = "uniform:ber=0" }
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from weakcell.emulator.faults.read_policy import DEFAULT_READS, Reads
from weakcell.emulator.tasks import parse_task
from weakcell.host.board.inference.studies import Compute
from weakcell.host.study.sweep_values import parse_sweep
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.errors import InputError, MemorySpecError, WeakcellError
from weakcell.memmodels.files import read_text
from weakcell.memmodels.toml_text import format_key, format_value, parse_toml

MOST_BYTES = 1 << 20
_BIG = (1 << 63) - 1
_LISTED = 20
"""Mistakes of a file that a message lists."""
Place = tuple[str | int, ...]


def _spec(text: str) -> str:
    """Check that a SPEC can be parsed; whether it is complete is known only with its grid."""
    try:
        parse_spec(text)
    except WeakcellError as error:
        raise ValueError(str(error)) from None
    return text


def _task(text: str) -> str:
    """Check that a task can be parsed; whether it fits an output is known only with the network."""
    try:
        parse_task(text)
    except WeakcellError as error:
        raise ValueError(str(error)) from None
    return text


_Name = Annotated[str, StringConstraints(min_length=1, max_length=400, strip_whitespace=True)]
_Spec = Annotated[_Name, AfterValidator(_spec)]
_Task = Annotated[_Name, AfterValidator(_task)]
_Count = Annotated[int, Field(ge=1, le=_BIG, strict=True)]
_Whole = Annotated[int, Field(ge=0, le=_BIG, strict=True)]
_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Values = Annotated[list[_Number], Field(min_length=1)] | Annotated[list[_Name], Field(min_length=1)] | _Number | _Name


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkTable(_Table):
    """`[[network]]`: a network and the data that score it."""

    model: _Name
    data: _Name | None = None
    images: _Count | None = None
    task: _Task | None = None
    output: _Name | None = None


class MemoryTable(_Table):
    """`[[memory]]`: a memory, and values of its conditions; all combinations are run."""

    spec: _Spec
    grid: dict[str, _Values] = {}


class PlacementTable(_Table):
    """`[[placement]]`: what is in another memory: layer, tensor or pattern, with bits -> SPEC; later rules win."""

    name: _Name = ""
    rules: dict[str, _Spec] = {}


class CampaignTable(_Table):
    """The whole campaign file."""

    network: Annotated[list[NetworkTable], Field(min_length=1)]
    memory: Annotated[list[MemoryTable], Field(min_length=1)]
    placement: list[PlacementTable] = []
    title: _Name = ""
    trials: _Count = 10
    half_width: Annotated[float, Field(gt=0.0, lt=0.5, strict=True)] | None = None
    seeds: Annotated[list[_Whole], Field(min_length=1)] = [0]
    read_every: Annotated[list[Reads], Field(min_length=1)] = [DEFAULT_READS]
    batch: _Count = 256
    die: _Whole | None = None
    compute: Compute = "emulator"


@dataclass(frozen=True, order=True)
class Mistake:
    """A mistake in a campaign file: its line and the reason."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


@dataclass(frozen=True)
class CampaignFile:
    """A campaign file whose form is correct."""

    path: Path
    text: str
    table: CampaignTable

    def mistake(self, place: Place, reason: str) -> Mistake:
        """Return a mistake at a place of the file."""
        return Mistake(find_line(self._lines, place), reason)

    @cached_property
    def _lines(self) -> dict[Place, int]:
        """The line of each key and table; found once, as a grid may hold thousands of mistakes."""
        return find_lines(self.text)


def refuse(path: Path, mistakes: list[Mistake]) -> InputError:
    """Return the error that lists the mistakes by line, each once: the first `_LISTED` of them."""
    unique = sorted(set(mistakes))
    count = "one mistake" if len(unique) == 1 else f"{len(unique):,} mistakes"
    listed = "".join(f"\n  {mistake}" for mistake in unique[:_LISTED])
    if len(unique) > _LISTED:
        listed += f"\n  and {len(unique) - _LISTED:,} more"
    return InputError(f"Campaign {path}", f"{count}{listed}\nNothing was run or written", "Correct the file and run it again")


def read_campaign(path: Path) -> CampaignFile:
    """Read and check a campaign file. InputError with every mistake and its line."""
    return parse_campaign(_read_text(path), path)


def parse_campaign(text: str, path: Path) -> CampaignFile:
    """Check the text of a campaign file; `path` is its name in messages and the folder of its networks."""
    try:
        content = parse_toml(text)
    except ValueError as error:  # TOMLDecodeError, or a number of more digits than Python reads
        raise refuse(path, [_syntax(error, text)]) from None
    except RecursionError:
        raise refuse(path, [Mistake(1, "it is nested too deeply")]) from None
    try:
        table = CampaignTable.model_validate(content)
    except ValidationError as error:
        lines = find_lines(text)
        mistakes = [Mistake(find_line(lines, place), reason) for place, reason in _reasons(error, content)]
        raise refuse(path, mistakes) from None
    return CampaignFile(path, text, table)


def _read_text(path: Path) -> str:
    try:
        return read_text(path, MOST_BYTES).replace("\r\n", "\n")
    except OSError as error:
        raise InputError(f"Campaign {path}", error.strerror or str(error), "Name a campaign file") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise refuse(path, [Mistake(line, "it is not UTF-8 text")]) from None


def _syntax(error: ValueError, text: str) -> Mistake:
    """Return line and reason of a syntax error; tomllib has them in its message: `… (at line 3, column 7)`."""
    reason, _, place = str(error).rpartition(" (at ")
    number = place.removeprefix("line ").partition(",")[0]
    line = int(number) if number.isdigit() else text.count("\n") + 1
    return Mistake(line, f"not TOML: {reason or error}")


def _reasons(error: ValidationError, content: Any) -> Iterator[tuple[Place, str]]:
    """Yield place and reason of each mistake; one for a value that fits none of several forms."""
    seen: set[Place] = set()
    for entry in error.errors(include_url=False, include_context=False):
        place = _in_file(entry["loc"], content)
        if place in seen and entry["type"] != "extra_forbidden":
            continue
        seen.add(place)
        name = ".".join(str(part) for part in entry["loc"] if isinstance(part, str) and part in map(str, place))
        reason = entry["msg"].removeprefix("Value error, ")
        match entry["type"]:
            case "missing":
                yield place, f"{entry['loc'][-1]} is missing"
            case "extra_forbidden":
                yield place, f"{entry['loc'][-1]!r} is not a key here"
            case "value_error":
                yield place, reason
            case _ if "grid" in place and len(place) >= 4:
                yield place, f"grid.{place[3]}: write numbers or words as a list, or 'START:STOP:STEP'"
            case _:
                yield place, f"{name or 'the file'}: {reason[:1].lower()}{reason[1:]}, not {_short(entry['input'])}"


def _in_file(loc: tuple[str | int, ...], content: Any) -> Place:
    """Return the part of a location that is in the file; pydantic adds names of a union's forms and of missing keys."""
    place: list[str | int] = []
    for part in loc:
        known = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
        if part not in known:
            break
        content = content[part]
        place.append(part)
    return tuple(place)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def parse_grid_values(key: str, values: Any) -> list[float] | list[str]:
    """Return the values of one condition of a grid.

    Args:
        key: the condition.
        values: a range as text, one value, or a list.

    Raises:
        UsageError: a range cannot be parsed.
        MemorySpecError: a value is given twice.
    """
    if isinstance(values, str):
        ranged = ":" in values or "," in values
        return list(parse_sweep(f"{key}={values}").values) if ranged else [values]
    listed = list(values) if isinstance(values, list) else [values]
    if len(set(listed)) != len(listed):
        raise MemorySpecError(f"grid.{key}", "a value is given twice", "Give each value once")
    return listed


_MOST_PARSED = 1 << 20
"""Characters that are parsed to find lines; what is beyond is said to be on the line of the table around it."""


def find_lines(text: str) -> dict[Place, int]:
    """Return the line (from 1) on which each key, table and array element of a valid TOML text begins.

    The text is parsed prefix by prefix. Whatever a prefix contains that the last valid prefix did not was written between the two.
    That is exact for any syntax (multi-line strings and arrays, dotted keys, inline tables). It is slow, so it is done only for
    messages.
    """
    found: dict[Place, int] = {(): 1}
    lines = text.splitlines(keepends=True)
    start, parsed = 0, 0
    for end in range(1, len(lines) + 1):
        prefix = "".join(lines[:end])
        parsed += len(prefix)
        if parsed > _MOST_PARSED:
            break
        try:
            content = parse_toml(prefix)
        except ValueError:  # not yet readable
            continue
        fresh = [path for path in _paths(content) if path not in found]
        first = next((i for i in range(start, end) if lines[i].strip() and not lines[i].lstrip().startswith("#")), end - 1)
        found.update(dict.fromkeys(fresh, first + 1))
        start = end
    return found


def find_line(lines: dict[Place, int], path: Sequence[str | int]) -> int:
    """Return the line of a path, or of its nearest parent that is in the file."""
    whole = tuple(path)
    return next(lines[whole[:n]] for n in range(len(whole), -1, -1) if whole[:n] in lines)


def _paths(content: Any, path: Place = ()) -> Iterator[Place]:
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from _paths(value, (*path, key))


def write_toml(tables: Mapping[str, Any]) -> str:
    """Return the TOML text of a campaign that was given as nested dicts, lists, strings, numbers and booleans.

    A list of dicts becomes tables, `[[name]]`; a dict below these becomes an inline table.

    Raises:
        InputError: It holds something else.
    """
    listed = {name: value for name, value in tables.items() if _is_table_list(value)}
    try:
        lines = [_assignment(name, value) for name, value in tables.items() if name not in listed]
        for name, entries in listed.items():
            for entry in entries:
                lines += ["", f"[[{format_key(str(name))}]]", *(_assignment(key, value) for key, value in entry.items())]
    except TypeError as error:
        raise InputError(
            "A campaign", f"it cannot be written as a file: {error}", "Use what TOML has: names, numbers, lists"
        ) from None
    return "\n".join(lines) + "\n"


def _assignment(key: Any, value: Any) -> str:
    return f"{format_key(str(key))} = {format_value(value)}"


def _is_table_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(entry, Mapping) for entry in value)
