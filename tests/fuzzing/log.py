"""The log of fuzzing: one JSON row for each run, and the table that README.md shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.fuzzing.readers import MODULES, get_reader

LOG = Path(__file__).parent / "log.jsonl"
README = Path(__file__).parent / "README.md"
_START, _END = "<!-- table: python -m tests.fuzzing --table -->", "<!-- end of the table -->"


def make_table(log: Path) -> str:
    """Return the runs of the log as a Markdown table, one line for each reader."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    lines = [
        "| reader | inputs | beyond the first check | accepted | found in these runs | corpus | minutes |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name in MODULES:
        runs = [row for row in rows if row["reader"] == name]
        if not runs:
            continue
        inputs = sum(row["inputs"] for row in runs)
        beyond, accepted, seconds = (sum(row[key] for row in runs) for key in ("beyond", "accepted", "seconds"))
        findings = {finding for row in runs for finding in row["findings"]}
        shares = f"{beyond / inputs:.0%} | {accepted / inputs:.0%}"
        lines.append(f"| {name} | {inputs:,} | {shares} | {len(findings)} | {len(get_reader(name).corpus)} | {seconds / 60:.0f} |")
    return "\n".join(lines)


def write_table(log: Path) -> str:
    """Write the table into README.md, and return it."""
    table, text = make_table(log), README.read_text(encoding="utf-8")
    before, rest = text.split(_START)
    README.write_text(f"{before}{_START}\n\n{table}\n\n{_END}{rest.split(_END)[1]}", encoding="utf-8")
    return table


def read_rows(log: Path) -> list[dict[str, Any]]:
    """Return the rows of the log."""
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
