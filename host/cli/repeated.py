"""An option that takes one value is refused when it is given twice: the parser would keep the last value without a word."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

_HINTS = {
    "--sweep": "Give it once. To cross several conditions, write a campaign with a grid: weakcell sweep --example",
    "--memory": "Give it once. To put layers or bits elsewhere, use --place LAYER=SPEC",
}


def refuse_repeated(command: Any) -> None:
    """Make a command, or all commands of a group, refuse options that are given twice.

    Args:
        command: a click command as Typer makes it. Options of lists, counters and flags without an opposite are left as they are.
    """
    for inner in getattr(command, "commands", {}).values():
        refuse_repeated(inner)
    command.make_parser = partial(_checked_parser, command.make_parser)


def _checked_parser(make_parser: Any, ctx: Any) -> Any:
    parser = make_parser(ctx)
    parse = parser.parse_args

    def parse_once(args: list[str]) -> Any:
        options, rest, order = parse(args=args)
        if not ctx.resilient_parsing:
            _check(order)
        return options, rest, order

    parser.parse_args = parse_once
    return parser


def _check(order: list[Any]) -> None:
    """UsageError if a parameter of one value occurs twice in the order in which the parser met parameters."""
    for parameter, times in Counter(order).items():
        if times > 1 and _holds_one_value(parameter):
            from weakcell.memmodels.errors import UsageError

            name = max(parameter.opts, key=len)
            both = "/".join([name, *parameter.secondary_opts])
            found = f"it was given {times} times and holds one value, so all but the last would be lost"
            raise UsageError(f"Option {both}", found, _HINTS.get(name, "Give it once"))


def _holds_one_value(parameter: Any) -> bool:
    if parameter.param_type_name != "option" or parameter.multiple or parameter.count:
        return False
    return not parameter.is_flag or bool(parameter.secondary_opts)
