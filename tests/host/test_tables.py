"""Tables fit the terminal: shortened, then columns left out in a stated order; no digit is lost."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.host.captures import COMMANDS, capture, captures, widths_of
from weakcell.host.cli import app
from weakcell.host.cli.tables import Column, fit_columns
from weakcell.memmodels import names

CELLS = st.one_of(
    st.floats(0, 1).map(lambda share: f"{100 * share:.2f} %"),
    st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda ends: f"{100 * ends[0]:.2f} … {100 * ends[1]:.2f} %"),
    st.floats(1e-9, 1).map(lambda rate: f"{rate:.3g}"),
    st.sampled_from(["", "no trial differed"]),
)
COLUMNS = st.lists(
    st.builds(Column, st.text("abcxyz ", min_size=1, max_size=20), st.lists(CELLS, min_size=3, max_size=3), drop=st.integers(0, 5)),
    min_size=1,
    max_size=9,
)


def width_of(columns: list[Column]) -> int:
    return sum(max(map(len, (column.title, *column.cells))) for column in columns) + 2 * (len(columns) - 1)


def digits(text: str) -> list[str]:
    return re.findall(r"\d[\d.e-]*", text)


def lines_on_a_terminal(arguments: list[str], width: int) -> list[str]:
    environment = {"FORCE_COLOR": "1", "COLUMNS": str(width), "NO_COLOR": "1", "TERM": "xterm"}
    result = CliRunner().invoke(app, arguments, env=environment)
    assert result.exit_code == 0, result.output
    return re.sub(r"\x1b\[[0-9;]*m", "", result.stdout).splitlines()


@given(COLUMNS, st.integers(1, 200))
def test_what_fits_is_shown_with_all_its_digits(columns: list[Column], width: int) -> None:
    shown, left_out = fit_columns(columns, width)
    assert len(shown) + len(left_out) == len(columns)
    assert sum(not column.drop for column in shown) == sum(not column.drop for column in columns)
    assert width_of(shown) <= width or not any(column.drop for column in shown)
    originals = iter(columns)
    for column in shown:  # in the order of the table
        original = next(part for part in originals if [digits(x) for x in part.cells] == [digits(x) for x in column.cells])
        assert original.drop == column.drop


@given(COLUMNS)
def test_a_wide_line_shows_everything_as_it_is(columns: list[Column]) -> None:
    assert fit_columns(columns, width_of(columns)) == (columns, [])


def test_columns_are_left_out_in_their_order() -> None:
    columns = [
        Column("key", ["1"]),
        Column("first", ["12345"], drop=1),
        Column("second", ["12345678"], drop=2),
        Column("last", ["1"], drop=3),
    ]
    assert fit_columns(columns, 10)[1] == ["second", "last"]
    assert fit_columns(columns, 16)[1] == ["second"]  # a narrow column of lower rank fills the space


@pytest.mark.parametrize("width", [60, 200])
def test_a_long_memory_is_shortened_to_its_name(width: int) -> None:
    """The row without faults has no memory, in both lengths."""
    memory = "secded+interleave[stride=64]+dram:vdd=1.1,vendor=A,p_in_line=0.02,trcd=10"
    arguments = ["emulate", "--trials", "2", "--images", "5", "--memory", memory]
    lines = lines_on_a_terminal(arguments, width)
    assert any(line.startswith(f"{memory}  ") for line in lines) == (width == 200)
    assert any(line.startswith("fault-free") for line in lines)


def test_captures_are_no_wider_than_the_terminal() -> None:
    """But for commands to copy, which are not broken: the last line of optimize, and examples."""
    kept = list(captures())
    assert [(name, width) for name, width, _ in kept] == [(name, width) for name in COMMANDS for width in widths_of(name)]
    for _, width, text in kept:
        assert [line for line in text.splitlines() if len(line) > width and not line.lstrip().startswith("weakcell ")] == []


@pytest.mark.parametrize("number", range(len(COMMANDS)), ids=lambda number: COMMANDS[number].split(" --")[0])
def test_commands_print_what_was_looked_at(number: int) -> None:
    """One width each. After a change that is meant: `python -m tests.host.captures`, and read the difference."""
    command = COMMANDS[number]
    width = widths_of(command)[number % len(widths_of(command))]
    kept = {(name, columns): text for name, columns, text in captures()}
    assert capture(command, width) == kept[command, width]


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize(
    "arguments",
    [
        ["emulate", "--trials", "3", "--images", "20"],
        ["emulate", "digits-qnn", "--trials", "2", "--images", "20", "--memory", "dram", "--sweep", "trcd=6:10:2"],
        ["predict", "--images", "10", "--memory", "uniform", "--sweep", "ber=1e-4:1e-1:x10"],
        ["memories"],
        ["inspect", "digits-qnn"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_commands_on_a_narrow_terminal(arguments: list[str], width: int) -> None:
    """Rich believes that it writes to a terminal of this width. No line is longer, no cell is cut; only titles wrap."""
    lines = lines_on_a_terminal(arguments, width)
    assert max(map(len, lines)) <= width
    (heading,) = [index for index, line in enumerate(lines) if re.match(r" *(v_over_vmin|trcd|ber|name|layer) ", line)]
    last = {"emulate": "fault-free", "predict": "fault-free", "memories": "fefet", "inspect": "total"}[arguments[0]]
    (end,) = [index for index, line in enumerate(lines) if re.match(f" *{last} ", line)]
    rows = lines[heading + 1 : end + 1]
    expected = {"emulate": {4, 12}, "predict": {5}, "memories": {len(names()), len(names()) + 3}, "inspect": {13}}[arguments[0]]
    assert len(rows) in expected, rows
