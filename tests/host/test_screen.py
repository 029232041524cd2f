"""What reaches a terminal: no control sequence of a name, and text in every encoding."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table

from weakcell.host.cli.terminal import note, say, show, show_error
from weakcell.memmodels.errors import InputError
from weakcell.memmodels.printable import printable

HOSTILE = "w\x1b]0;owned\x07\x1b[31m\x9b2J\r\u202eabc"


@given(st.text())
@settings(derandomize=True)
def test_printable_text_holds_no_control_characters(text: str) -> None:
    shown = printable(text)
    assert not any(letter in shown for letter in map(chr, [*range(9), *range(11, 32), *range(127, 160)]))
    assert printable(shown) == shown


def test_names_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(box=None)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    for way in (show, say, note):
        way(HOSTILE)
    show(table)
    show_error(InputError(HOSTILE, HOSTILE, HOSTILE))
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        assert "\\x1b" in text
        assert not {"\x1b", "\x07", "\x9b", "\r", "\u202e"} & set(text)


def test_names_cannot_steer_a_real_terminal() -> None:
    """On a terminal rich adds sequences of its own; those of the name are escaped all the same."""
    from rich.console import Console

    from weakcell.host.cli import terminal

    table, target = Table(box=None), io.StringIO()
    table.add_row(HOSTILE)
    console = Console(file=target, force_terminal=True, color_system="truecolor")
    console.print(terminal._printable_parts(console, table), end="")
    assert "\x1b]0;owned" not in target.getvalue()
    assert "\\x1b]0;owned" in target.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_encoding_takes_every_text(encoding: str) -> None:
    program = "from weakcell.host.cli.encoding import accept_any_text as a; a(); print('97.9 ± 0.3 … × √ \\udc80 漢')"
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, check=True).stdout
    text = out.decode(encoding)
    assert text.startswith("97.9 ± 0.3" if encoding != "ascii" else "97.9 +- 0.3 ... x sqrt")
