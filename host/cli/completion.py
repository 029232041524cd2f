"""What the shell offers for a value behind Tab: networks, data, memories, layers, conditions and ports.

Typer asks these functions. Everything heavy is imported in them. An error while completing offers nothing.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from weakcell.memmodels.definition import Condition

_LARGEST_NETWORK = 50_000_000
"""Bytes of the largest file whose layers are offered; a larger one takes too long to read."""

SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")
"""Shells that have completion."""

_BASH_BREAKS = ":="
"""Characters at which bash splits a word, and which occur in values."""


def complete_network() -> list[str]:
    """Offer shipped networks; the shell itself offers files where none fits."""
    from weakcell.host.study.networks import shipped_models

    return list(shipped_models())


def complete_data() -> list[str]:
    """Offer data sets; the shell itself offers files where none fits."""
    from weakcell.host.datasets.registry import dataset_names

    return list(dataset_names())


def complete_memory(incomplete: str) -> list[str]:
    """Offer the next part of a SPEC: a wrapper, a name, a key, or a value.

    A part that something must follow is offered in two forms, such as `uniform` and `uniform:`, so that shells add no space.
    """
    from weakcell.memmodels.catalogue import names, technology
    from weakcell.memmodels.protection.wrappers import WRAPPERS

    outer = re.match(r"(?:[\w-]+(?:\[[^\]]*\])?\+)*", incomplete)
    before = outer[0] if outer else ""
    last = incomplete[len(before) :]
    if opened := re.fullmatch(r"([\w-]+)\[([^\]]*)", last):
        wrapper = WRAPPERS.get(opened[1])
        options = _conditions(opened[2], wrapper.options) if wrapper else []
        return [f"{before}{opened[1]}[{option}" for option in options]
    name, colon, given = last.partition(":")
    if not colon:
        forms = [*(f"{memory}{end}" for memory in names() for end in ("", ":")), *(f"{w}{end}" for w in WRAPPERS for end in "+[")]
        return [before + form for form in (*forms, "file:", "recording:", "board:")]
    if name == "board":
        return [f"{before}board:{port}" for port in complete_port()]
    if name in ("file", "recording"):
        return []
    return [f"{before}{name}:{part}" for part in _conditions(given, technology(name).conditions)]


def complete_memory_name() -> list[str]:
    """Offer the names of memories and wrappers."""
    from weakcell.memmodels.catalogue import names
    from weakcell.memmodels.protection.wrappers import WRAPPERS

    return [*names(), *WRAPPERS]


def complete_place(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the layers and tensors of the network, and a SPEC behind them."""
    target, equals, spec = incomplete.partition("=")
    if equals:
        return [f"{target}={part}" for part in complete_memory(spec)]
    from weakcell.emulator.faults.placement import layers_by_weight
    from weakcell.host.study.networks import find_model

    found = find_model(ctx.params.get("model") or "digits-bnn")
    if found.path is not None and found.path.stat().st_size > _LARGEST_NETWORK:
        return []
    layers = layers_by_weight(found.load())
    return [f"{name}{end}" for name in dict.fromkeys([*layers.values(), *layers]) for end in "=@"]


def complete_sweep(ctx: typer.Context) -> list[str]:
    """Offer the numeric conditions of the memory with the start of their range."""
    from weakcell.memmodels.catalogue import parse_spec

    conditions = parse_spec(str(ctx.params.get("memory") or "sram-14nm")).technology.conditions
    return [
        f"{condition.name}={'' if condition.low is None else f'{condition.low:.12g}'}{end}"
        for condition in conditions
        if not condition.choices
        for end in ":,"
    ]


def complete_port() -> list[str]:
    """Offer virtual boards and the serial ports of this computer."""
    from weakcell.host.board.boards import BOARDS
    from weakcell.host.board.errors import BoardError
    from weakcell.host.board.link.ports import list_usb_ports

    try:
        ports = [port.device for port in list_usb_ports()]
    except BoardError:  # pyserial is not installed
        ports = []
    return ["auto", *(f"virtual:{name}{image}" for name in BOARDS for image in ("", "-flash", "-usb")), *ports]


def set_up_shell(ctx: typer.Context, option: str, shell: str) -> None:
    """Install or show the completion of a named shell, and exit. Typer itself knows only the shell that it is called from.

    Args:
        ctx: Of the program.
        option: `--install-completion` or `--show-completion`.
        shell: Its name.
    """
    from typer.completion import install_callback, show_callback

    if shell not in SHELLS:
        raise typer.BadParameter(f"There is no completion for {shell!r}. Choose {', '.join(SHELLS)}.", ctx, param_hint=option)
    (install_callback if option == "--install-completion" else show_callback)(ctx, ctx.command.params[0], shell)


def complete_in_bash(run: Callable[[], None]) -> None:
    """Run a completion for bash, which splits a value at its colons and equals signs and replaces only the last piece.

    Args:
        run: Answers the shell, from the environment to stdout, and exits.
    """
    pieces = os.environ.get("COMP_WORDS", "").split("\n")
    at = int(os.environ.get("COMP_CWORD") or 0)
    words = join_pieces(pieces[: at + 1])
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = " ".join(map(shlex.quote, words)), str(len(words) - 1)
    option, equals, value = words[-1].partition("=")
    value = value if equals and option.startswith("--") else words[-1]
    kept = value[: 1 + max(map(value.rfind, _BASH_BREAKS))]
    answer = io.StringIO()
    try:
        with redirect_stdout(answer):
            run()
    finally:
        for line in answer.getvalue().splitlines():
            sys.stdout.write(f"{line.removeprefix(kept)}\n")


def join_pieces(pieces: list[str]) -> list[str]:
    """Join the pieces into which bash split the words of a line."""
    words: list[str] = []
    glued = False
    for piece in pieces:
        breaks = piece != "" and not piece.strip(_BASH_BREAKS)
        if words and (breaks or glued):
            words[-1] += piece
        else:
            words.append(piece)
        glued = breaks
    return words


def _conditions(given: str, conditions: tuple[Condition, ...]) -> list[str]:
    """Complete `key=value,key=value` at its end: the choices of a word, the ends of the range of a number."""
    *done, _ = given.split(",")
    before = "".join(f"{item}," for item in done)
    used = {item.partition("=")[0] for item in done}
    offers = []
    for condition in conditions:
        if condition.name not in used:
            ends = [f"{end:.12g}" for end in (condition.low, condition.high) if end is not None]
            offers += [f"{before}{condition.name}={value}" for value in condition.choices or ends or [""]]
    return offers
