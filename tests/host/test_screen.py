"""What reaches a terminal: no control sequence of a name, and text in every encoding."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table

from weakcell.host.cli.terminal import emit, note, say, show, show_error
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


@pytest.mark.parametrize("name", ["conv[/]", "[bold]x", "[link=file:///etc/passwd]x[/link]", "a:bomb:b", "\\[x"])
def test_names_are_no_markup(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets are rich's markup, words between colons its pictures."""
    table = Table(box=None)
    table.add_column(name)
    table.add_row(name)
    show(table)
    show(name, "bold")
    note(name)
    show_error(InputError(name, name, name))
    captured = capsys.readouterr()
    assert captured.out.split("\n")[:-1] == [f" {name}", f" {name}", name]
    assert captured.err == f"{name}\nError: {name}: {name}. {name}.\n"


def test_a_name_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(InputError("Results in a\nDone: all is well", "there are none", "Try again"))
    assert capsys.readouterr().err == "Error: Results in a\\nDone: all is well: there are none. Try again.\n"


def test_events_are_escaped_json(capsys: pytest.CaptureFixture[str]) -> None:
    emit("file", file=HOSTILE, text="ü 漢")
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["file"] == HOSTILE
    assert "ü 漢" in line
    assert not {"\x1b", "\x07", "\x9b", "\r", "\u202e", "\x7f"} & set(line)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_encoding_takes_every_text(encoding: str) -> None:
    program = "from weakcell.host.cli.encoding import accept_any_text as a; a(); print('97.9 ± 0.3 … × √ \\udc80 漢')"
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, check=True).stdout
    text = out.decode(encoding)
    assert text.startswith("97.9 ± 0.3" if encoding != "ascii" else "97.9 +- 0.3 ... x sqrt")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")
@pytest.mark.parametrize("words", [["--version"], ["memories"]])
def test_a_full_disk_behind_standard_output_is_one_paragraph(words: list[str]) -> None:
    command = [sys.executable, "-m", "weakcell", *words]
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (6, 1), done.stderr
    assert "No space left" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="a shell that closes standard output")
def test_a_closed_standard_output_is_no_error() -> None:
    done = subprocess.run(f"{sys.executable} -m weakcell --version >&-", shell=True, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(os.name != "posix", reason="pipes without a reader")
@pytest.mark.parametrize("words", [["--help"], ["memories"], ["--version"]])
def test_a_pipe_without_a_reader_ends_a_command_as_sigpipe_does(words: list[str]) -> None:
    """`| head -1`, in a shell with pipefail: 141 without a word, as of seq, grep or git."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        command = [sys.executable, "-m", "weakcell", *words]
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(os.name != "posix", reason="a shell that closes standard streams")
def test_no_file_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """Whatever a library prints would land in it."""
    program = "from weakcell.host.cli.encoding import accept_any_text as a; a(); f = open('number', 'w'); f.write(str(f.fileno()))"
    subprocess.run(f'{sys.executable} -c "{program}" <&- >&- 2>&-', shell=True, cwd=tmp_path, check=True)
    assert int((tmp_path / "number").read_text()) > 2
