"""`weakcell memories`: list technologies and wrappers that protect them, and how each number is known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weakcell.host.cli.completion import complete_memory_name
from weakcell.host.cli.options import JsonEvents, Quiet

if TYPE_CHECKING:
    from weakcell.memmodels.definition import Condition, Technology
    from weakcell.memmodels.protection.wrappers import WrapperType


def memories(
    name: Annotated[
        str | None,
        typer.Argument(help="Show one technology or wrapper in full.", autocompletion=complete_memory_name, show_default=False),
    ] = None,
    as_json: JsonEvents = False,
    quiet: Quiet = False,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Plot published points and laws into DIR, one picture per family.")
    ] = None,
    formats: Annotated[str, typer.Option("--format", metavar="LIST", help="Formats of the plots: pdf, svg, png.")] = "png",
    separate: Annotated[bool, typer.Option("--separate", help="Write one file per panel.")] = False,
    check: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Check a memory profile: what it covers, and what it does not say.", show_default=False),
    ] = None,
) -> None:
    """List memory technologies: conditions, valid ranges, lifetimes, sources, and what is measured, published or assumed.

    --check exits with 3 if FILE is no profile, is damaged, or gives impossible error rates.

    \b
    Examples:
      weakcell memories sram-14nm
      weakcell memories --plots laws --format pdf --separate
      weakcell memories --check module/profile.toml
    """
    from weakcell.memmodels.catalogue import names, technology
    from weakcell.memmodels.protection.wrappers import WRAPPERS

    if check is not None:
        _check_profile(check, as_json)
        return
    if plots is not None:
        _draw(plots, formats, separate, as_json)
        return
    if name in WRAPPERS:
        _show_wrapper(WRAPPERS[name], as_json)
        return
    chosen = [technology(known) for known in ([_check_name(name)] if name else names())]
    if as_json:
        from weakcell.host.cli.terminal import emit

        for tech in chosen:
            emit(None, **_as_dict(tech))
        return
    if name:
        _show_one(chosen[0])
        return
    from weakcell.host.analysis.technology_curve import list_lifetimes
    from weakcell.host.cli.tables import Column, show_table
    from weakcell.host.cli.terminal import show

    swept = [next((condition for condition in tech.conditions if condition.name == tech.sweep), None) for tech in chosen]
    columns = [
        Column("name", [tech.name for tech in chosen], left=True),
        Column("what it is", [tech.title for tech in chosen], left=True, short_cells=[_subject(tech.title) for tech in chosen]),
        Column("sweep", [tech.sweep or "" for tech in chosen], left=True, drop=1),
        Column("valid range", [condition.range if condition else "" for condition in swept], left=True, drop=2),
        Column("errors last per", [list_lifetimes(tech) for tech in chosen], left=True, drop=4),
        Column("basis", [tech.basis for tech in chosen], left=True, drop=3),
    ]
    show_table(columns)
    if quiet:
        return
    show("`weakcell memories NAME` says everything about one. Use it as --memory NAME:key=value,…", "dim")
    show(f"Wrappers that protect a memory: {', '.join(WRAPPERS)}. Use them as --memory WRAPPER+NAME:key=value,…", "dim")


def _check_name(name: str) -> str:
    """Return the name of a memory; MemorySpecError if it is a whole SPEC, as `--memory` takes it."""
    from weakcell.memmodels.catalogue import names
    from weakcell.memmodels.errors import MemorySpecError
    from weakcell.memmodels.protection.wrappers import WRAPPERS

    heads = [re.split(r"[:\[]", part)[0].strip() for part in name.split("+")]
    known = [head for head in heads if head in (*names(), *WRAPPERS)]
    if name in known or not known:
        return name
    found = "this command shows one name, without keys"
    raise MemorySpecError(f"Memory {name!r}", found, f"Give {' or '.join(f'`weakcell memories {head}`' for head in known)}")


def _check_profile(path: Path, as_json: bool) -> None:
    """Show what a profile covers and lacks."""
    from rich.table import Table
    from rich.text import Text

    from weakcell.host.cli.terminal import emit, show
    from weakcell.memmodels.profile_check import check_profile

    found = check_profile(path)
    profile = found.profile
    facts = {
        "name": profile.name, "title": profile.title, "source": profile.source, "basis": profile.basis, **profile.about,
        "law": found.law, "covers": found.covers, **{f"fit: {name}": str(value) for name, value in profile.fit.items()},
    }  # fmt: skip
    if as_json:
        conditions = [_condition(condition) for condition in profile.conditions]
        emit(None, file=str(path), **facts, conditions=conditions, missing=list(found.missing))
        return
    show(Text(f"{path}: a memory profile", style="bold"))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    for label, fact in facts.items():
        if fact:
            grid.add_row(Text(label), Text(fact))
    show(grid)
    show(_conditions("condition", profile.conditions))
    for text in found.missing:
        show(Text(f"It does not say {text}."))


def _subject(title: str) -> str:
    """Return a title without what follows a colon or a bracket."""
    return title.partition(":")[0].partition(" (")[0]


def _draw(folder: Path, formats: str, separate: bool, as_json: bool) -> None:
    from weakcell.host.cli.terminal import emit, say
    from weakcell.host.report.paper_figures import parse_formats
    from weakcell.host.report.technology_curves import write_curves
    from weakcell.memmodels.errors import OutputError

    try:
        written = write_curves(folder, parse_formats(formats), separate=separate)
    except OSError as error:
        raise OutputError(f"Writing pictures into {folder}", str(error), "Choose a folder that can be written") from error
    for path in written:
        if as_json:
            emit("file", file=str(path))
        else:
            say(str(path))


def _show_one(tech: Technology) -> None:
    from rich.table import Table
    from rich.text import Text

    from weakcell.host.analysis.technology_curve import list_lifetimes, sample_curve, sparkline
    from weakcell.host.cli.terminal import show

    show(Text(f"{tech.name}: {tech.title}", style="bold"))
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    for label, fact in (("law", tech.law), ("basis", tech.basis), ("source", tech.source),
                        ("errors last per", list_lifetimes(tech)), ("notes", tech.notes)):  # fmt: skip
        if fact:
            facts.add_row(label, Text(fact))
    show(facts)
    show(_conditions("condition", tech.conditions))
    if tech.constants:
        constants = _table("constant", "value", "basis")
        for label, value, basis in tech.constants:
            constants.add_row(label, Text(value), basis)
        show(constants)
    curve = sample_curve(tech)
    if not curve:
        return
    published = any(sample.energy for sample in curve)
    shown = _table(str(tech.sweep), "p01", "p10", *(["energy of reading a bit"] if published else []), right=3)
    for sample in curve:
        energy = [str(sample.energy) if sample.energy else "not published"] if published else []
        shown.add_row(f"{sample.value:.4g}", f"{sample.p01:.2e}", f"{sample.p10:.2e}", *energy)
    show(shown)
    if not published:
        show("No energy of a read is published for it.", "dim")
    show(f"\nlog10 p over {tech.sweep}, {curve[0].value:.4g} … {curve[-1].value:.4g}:  {sparkline(curve)}")


def _show_wrapper(kind: WrapperType, as_json: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from weakcell.host.cli.terminal import emit, show

    if as_json:
        facts = {"name": kind.name, "title": kind.title, "overhead": kind.overhead, "logic": kind.logic, "limits": kind.limits}
        emit(None, **facts, options=[_condition(option) for option in kind.options])
        return
    show(Text(f"{kind.name}: {kind.title}", style="bold"))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    grid.add_row("costs", Text(kind.overhead))
    if kind.logic:
        grid.add_row("XOR gates", Text(f"{kind.logic}. Computed; gates that correct, and energies, are not counted"))
    grid.add_row("limits", Text(kind.limits))
    grid.add_row("use it as", Text(f"--memory '{kind.name}[{kind.options[0].name}=…]+NAME:key=value,…'"))
    show(grid)
    show(_conditions("option", kind.options))


def _conditions(heading: str, conditions: Sequence[Condition]) -> Any:
    from rich.text import Text

    table = _table(heading, "unit", "valid", "default", "meaning")
    for condition in conditions:
        default = f"{condition.default:g}" if isinstance(condition.default, float) else str(condition.default or "")
        table.add_row(condition.name, condition.unit, condition.range, default, Text(condition.help))
    return table


def _table(*headings: str, right: int = 0) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for place, heading in enumerate(headings):
        table.add_column(f"\n{heading}", justify="right" if place < right else "left")
    return table


def _as_dict(tech: Technology) -> dict[str, Any]:
    from weakcell.host.analysis.technology_curve import list_lifetimes, sample_curve

    return {
        **{key: getattr(tech, key) for key in ("name", "title", "law", "source", "basis", "sweep", "notes")},
        "lifetimes": list_lifetimes(tech).split(" | "),
        "conditions": [_condition(condition) for condition in tech.conditions],
        "constants": [{"name": label, "value": value, "basis": basis} for label, value, basis in tech.constants],
        "curve": [sample.as_dict() for sample in sample_curve(tech)],
    }


def _condition(condition: Condition) -> dict[str, Any]:
    return {key: getattr(condition, key) for key in ("name", "unit", "help", "default", "low", "high", "choices")}
