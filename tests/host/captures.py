"""Captures of commands on terminals of several widths: `python -m tests.host.captures` writes `captures.txt` anew.

Read the difference before you commit it: these are the pages that a user sees.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from typer.testing import CliRunner

from weakcell.host.cli import app

FILE = Path(__file__).with_name("captures.txt")
WIDTHS = (60, 80, 120)
COMMANDS = (
    "emulate digits-bnn --images 40 --trials 3 --memory sram-14nm --sweep v_over_vmin=0.8,0.9 --quiet",
    "emulate digits-bnn --images 20 --trials 2 --memory uniform:p01=0.01,p10=0.001,lifetime=die --quiet",
    "predict digits-bnn --images 20 --memory uniform --sweep ber=0.001,0.1 --quiet",
    "rank digits-bnn --images 20 --memory uniform:ber=0.01 --quiet",
    "optimize digits-bnn --images 40 --sweep v_over_vmin=0.9,1.0 --failures 0 --tries 1 --partitions 1 --quiet",
    "margins digits-bnn --images 20 --quiet",
    "inspect digits-bnn",
    "memories uniform",
    "report --help",
    "--help",
    "firmware --help",
)


def widths_of(command: str) -> tuple[int, ...]:
    """Return the widths at which a command is captured; help is laid out for 80 columns whatever the terminal of a test is."""
    return (80,) if command.endswith("--help") else WIDTHS


def capture(command: str, width: int) -> str:
    """Return what a command prints on a terminal of this width, without colours and spaces at the ends of lines."""
    environment = {"FORCE_COLOR": "1", "COLUMNS": str(width), "NO_COLOR": "1", "TERM": "xterm", "TERMINAL_WIDTH": str(width)}
    result = CliRunner().invoke(app, command.split(), env=environment)
    assert result.exit_code == 0, result.output
    text = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout)
    return "".join(f"{line.rstrip()}\n" for line in text.rstrip().splitlines())


def captures() -> Iterator[tuple[str, int, str]]:
    """Yield command, width and text of each capture in the file."""
    parts = re.split(r"^\$ weakcell (.*)  # (\d+) columns\n", FILE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    for command, width, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        yield command, int(width), text.rstrip() + "\n"


if __name__ == "__main__":
    texts = [
        f"$ weakcell {command}  # {width} columns\n{capture(command, width)}"
        for command in COMMANDS
        for width in widths_of(command)
    ]
    FILE.write_text("\n".join(texts), encoding="utf-8")
