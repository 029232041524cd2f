"""Where in a TOML file something is written: its line, for messages about it.

A line is found by reading the file prefix by prefix: whatever a prefix says that the last readable one did not was written
between the two. That is exact whatever the syntax (strings and arrays over many lines, dotted keys, inline tables), and only done
when there is something to complain about.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Path = tuple[str | int, ...]

MOST_LINES = 5000


def lines_of(text: str) -> dict[Path, int]:
    """The line (from 1) on which each key, table and array element of a valid TOML text begins."""
    found: dict[Path, int] = {(): 1}
    lines = text.splitlines(keepends=True)[:MOST_LINES]
    start = 0
    for end in range(1, len(lines) + 1):
        try:
            content = tomllib.loads("".join(lines[:end]))
        except ValueError:  # not yet readable
            continue
        fresh = [path for path in _paths(content) if path not in found]
        first = next((i for i in range(start, end) if lines[i].strip() and not lines[i].lstrip().startswith("#")), end - 1)
        found.update(dict.fromkeys(fresh, first + 1))
        start = end
    return found


def line_of(lines: dict[Path, int], path: Sequence[str | int]) -> int:
    """The line of a path, or of the nearest thing around it that is written in the file."""
    whole = tuple(path)
    return next(lines[whole[:n]] for n in range(len(whole), -1, -1) if whole[:n] in lines)


def _paths(content: Any, path: Path = ()) -> Iterator[Path]:
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from _paths(value, (*path, key))


def write_toml(tables: Mapping[str, Any]) -> str:
    """Return the TOML text of nested dicts, lists, strings, numbers and booleans.

    A list of dicts becomes tables, `[[name]]`; a dict below these becomes an inline table.
    """
    listed = {name: value for name, value in tables.items() if _is_table_list(value)}
    lines = [f"{_toml_key(name)} = {_toml_value(value)}" for name, value in tables.items() if name not in listed]
    for name, entries in listed.items():
        for entry in entries:
            lines += ["", f"[[{_toml_key(name)}]]", *(f"{_toml_key(key)} = {_toml_value(value)}" for key, value in entry.items())]
    return "\n".join(lines) + "\n"


def _is_table_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(entry, Mapping) for entry in value)


def _toml_key(key: Any) -> str:
    return json.dumps(str(key), ensure_ascii=False)


def _toml_value(value: Any) -> str:
    if hasattr(value, "tolist"):  # NumPy arrays and numbers
        value = value.tolist()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_toml_key(key)} = {_toml_value(part)}" for key, part in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    return json.dumps(str(value), ensure_ascii=False)
