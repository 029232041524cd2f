"""Parse numbers of options as strictly as those of files.

The option parser would take the digits of every script, and 1e-400 for 0.
"""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import Any


def check_numbers(command: Any) -> None:
    """Let all options of numbers refuse what `weakcell.memmodels.numbers` refuses.

    Args:
        command: a click command as Typer makes it, or a group.
    """
    for inner in getattr(command, "commands", {}).values():
        check_numbers(inner)
    for parameter in command.params:
        if parameter.type.name.startswith(("int", "float")):
            strict = copy(parameter.type)  # options share types
            strict.convert = partial(_convert, parameter.type)
            parameter.type = strict


def _convert(plain: Any, value: Any, parameter: Any, ctx: Any) -> Any:
    if isinstance(value, str):
        from weakcell.memmodels.numbers import NumberRangeError, parse_number

        try:
            parse_number(value)
        except NumberRangeError as error:
            if plain.name.startswith("float"):
                plain.fail(str(error), parameter, ctx)
        except ValueError as error:
            if not value.isascii():
                plain.fail(str(error), parameter, ctx)
    return plain.convert(value, parameter, ctx)
