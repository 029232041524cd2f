"""Options given twice: refused where one value would be lost, for every command and option of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from weakcell.host.cli import _COMMANDS, app
from weakcell.host.cli.repeated import _holds_one_value


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its words, those of groups included."""
    import typer.main

    group = typer.main.get_command(app)
    waiting = [((name,), group.get_command(None, name)) for name in _COMMANDS]  # type: ignore[attr-defined, arg-type]
    while waiting:
        words, command = waiting.pop()
        inner = getattr(command, "commands", None)
        if inner:
            waiting += [((*words, name), one) for name, one in inner.items()]
        else:
            yield words, command


def test_every_option_of_one_value_is_refused_twice() -> None:
    tried = 0
    for words, command in commands():
        for parameter in command.params:
            if parameter.name == "help" or not _holds_one_value(parameter):
                continue
            name = max(parameter.opts, key=len)
            values = [] if parameter.is_flag else ["1"]
            result = CliRunner().invoke(app, [*words, name, *values, name, *values])
            assert result.exit_code == 2, (words, name, result.output)
            assert name in result.stderr, (words, name, result.output)
            assert "given 2 times" in result.stderr, (words, name, result.output)
            tried += 1
    assert tried > 100


@pytest.mark.parametrize("second", [["--sweep=p10=0.03,0.04"], ["--sweep", "p01=0.001"]])
def test_two_sweeps_are_refused_with_what_to_do(second: list[str]) -> None:
    result = CliRunner().invoke(app, ["emulate", "--memory", "uniform", "--sweep", "p01=0.001,0.002", *second])
    assert result.exit_code == 2
    assert "weakcell sweep" in " ".join(result.stderr.split())


def test_lists_and_flags_may_be_repeated() -> None:
    """The command goes on to what is wrong besides: a data file that is not there (exit code 3)."""
    words = ["emulate", "--place", "a=uniform:ber=0", "--place", "b=uniform:ber=0", "--quiet", "-q", "--data", "nowhere.npz"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 3, result.output


def test_an_option_and_its_opposite_are_refused() -> None:
    result = CliRunner().invoke(app, ["validate", "--predict", "--no-predict"])
    assert result.exit_code == 2
    assert "--no-predict" in result.stderr
