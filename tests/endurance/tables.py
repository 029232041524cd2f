"""Tables that programs write into README.md, between two comments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path


def update_table(path: Path, name: str, heads: Sequence[str], rows: Sequence[Sequence[str]], keys: int) -> None:
    """Put rows into the table between `<!-- NAME -->` and `<!-- end -->` of a Markdown file.

    Args:
        path: the file.
        name: the table.
        heads: headings of its columns.
        rows: each replaces the row with the same first cells, or is added.
        keys: how many first cells name a row.
    """
    text = path.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {name} -->\n)(.*?)(<!-- end -->)", re.DOTALL)
    place = pattern.search(text)
    if place is None:
        raise ValueError(f"{path} has no place for the table {name}")
    there = [tuple(line.strip("| ").split(" | ")) for line in place[2].splitlines()[2:]]
    merged = {row[:keys]: row for row in (*there, *map(tuple, rows))}
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *(f"| {' | '.join(row)} |" for row in merged.values())]
    content = "\n".join(lines)
    path.write_text(pattern.sub(lambda found: f"{found[1]}{content}\n{found[3]}", text), encoding="utf-8")
