"""Tables that programs write into README.md, between two comments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path


def replace_table(path: Path, name: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Replace the table between `<!-- NAME -->` and `<!-- end -->` of a Markdown file."""
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *(f"| {' | '.join(row)} |" for row in rows)]
    text = path.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{path} has no place for the table {name}")
    path.write_text(pattern.sub(lambda found: found[1] + "\n".join(lines) + "\n" + found[2], text), encoding="utf-8")
