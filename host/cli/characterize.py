"""`weakcell characterize`: measure a board's flips over its core voltage, and fit a memory profile to them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from weakcell.host.board.boards import BOARDS, DEFAULT_BOARD
from weakcell.host.cli.board import CALIBRATION_HELP, PORT_HELP
from weakcell.host.cli.completion import complete_memory, complete_port
from weakcell.host.cli.options import DryRun, Explain, JsonEvents, Quiet

if TYPE_CHECKING:
    from weakcell.host.api.characterization import BoardRun
    from weakcell.host.board.readbacks.analysis import ReadbackAnalysis, Series
    from weakcell.memmodels.error_model.structure import Bank

_ATTEMPTS = "How often a point is tried whose transfers break; each attempt is logged."
_CYCLE = (
    "How a board is started again that fell silent: dtr or rts (its adapter's line, wired to RUN), dtr:PORT, rts:PORT, or "
    "uhubctl:HUB:PORT. [default: the run ends]"
)
_MEMORY = "Virtual boards only: whose flips its cells make; `vdd` follows the regulator."
_VDD = "Core voltages, V: 0.9,0.85 or 0.9:0.55:0.05. Nominal is always measured first, as a control. [default: every step]"
_DWELL = "How long it stays low, ms; several with commas. [default: 10; 200 with the core off]"
_PATTERN = "zeros, ones, checkerboard, address, random, or weights:NETWORK; several with commas."
_BANK = (
    "ROWSxCOLUMNS of cells in storage addresses, for maps and clustering. "
    f"[default: {'x'.join(map(str, BOARDS[DEFAULT_BOARD].bank))}, an assumption]"
)
_IMPORT = "Measured by somebody else instead of a board: an .npz, a TOML file beside binary files, or a table (.csv, .csv.gz)."
_AS = "How a table of --import is read: dram-retention, conductance, power-up, word-log or long-table. [default: by its columns]"
_ABOUT = "What a table of --import does not say: cells=65536, g_max=240 or words=2097152,bits=8."
_ANYWHERE = "Let the TOML file of --import name files outside its folder."
_SLEEPERS = ", ".join(board.name.upper() for board in BOARDS.values() if board.can_sleep)
_EXPERIMENT = f"What happens while low: nothing; nothing, with the core off ({_SLEEPERS}); the arena is read; it is written."
_SUPPLY = "What lowers the voltage: on-chip, scpi:VISA-NAME, or manual (asks). The last two have not been tried on silicon."
_NOTE = "What the thermometer said; kept with the results."


def characterize(
    port: Annotated[str, typer.Option(metavar="PORT", autocompletion=complete_port, help=PORT_HELP)] = "auto",
    memory: Annotated[
        str | None, typer.Option(metavar="SPEC", autocompletion=complete_memory, help=_MEMORY, show_default=False)
    ] = None,
    vdd: Annotated[str | None, typer.Option(metavar="VOLTS", help=_VDD, show_default=False)] = None,
    dwell_ms: Annotated[str | None, typer.Option(metavar="MS", help=_DWELL, show_default=False)] = None,
    pattern: Annotated[str, typer.Option(metavar="NAMES", help=_PATTERN)] = "zeros,ones",
    experiment: Annotated[Literal["retention", "sleep", "read", "write"], typer.Option(help=_EXPERIMENT)] = "retention",
    supply: Annotated[str, typer.Option(metavar="SUPPLY", help=_SUPPLY)] = "on-chip",
    repeats: Annotated[int, typer.Option(min=1, help="Write, lower, restore, read back: so often at each point.")] = 3,
    kib: Annotated[int | None, typer.Option(min=1, help="Only the first so many KiB of the arena.", show_default=False)] = None,
    bank: Annotated[str | None, typer.Option(metavar="RxC", help=_BANK, show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Of the random pattern, and of a virtual board's die.")] = 0,
    temperature_note: Annotated[str, typer.Option(metavar="TEXT", help=_NOTE)] = "",
    calibration: Annotated[Path | None, typer.Option(metavar="FILE", help=CALIBRATION_HELP, show_default=False)] = None,
    attempts: Annotated[int, typer.Option(help=_ATTEMPTS)] = 2,
    power_cycle: Annotated[str | None, typer.Option(metavar="HOW", help=_CYCLE, show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where read-backs, tables, profile and figures go.", show_default=False)
    ] = None,
    import_: Annotated[Path | None, typer.Option("--import", metavar="FILE", help=_IMPORT, show_default=False)] = None,
    import_anywhere: Annotated[bool, typer.Option("--import-anywhere", help=_ANYWHERE)] = False,
    as_: Annotated[str | None, typer.Option("--as", metavar="NAME", help=_AS, show_default=False)] = None,
    about: Annotated[str | None, typer.Option(metavar="FACTS", help=_ABOUT, show_default=False)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in DIR.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Take more than an hour.")] = False,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
    explain: Explain = False,
    quiet: Quiet = False,
) -> None:
    """Measure a board's flips over its core voltage and fit a memory profile to them.

    At each voltage, dwell and pattern: write the arena, lower the voltage, restore it, read back. Read-backs are kept point by
    point, so a run that was stopped, or killed, goes on with --resume. Nominal voltage is restored whatever ends the run.

    \b
    Examples:
      weakcell characterize --out pico2
      weakcell characterize --vdd 0.85:0.55:0.05 --dwell-ms 10,1000 \\
          --temperature-note "23 C" --out pico2
      weakcell characterize --port virtual:rp2350 --memory file:law.toml \\
          --out virtual
      weakcell characterize --import readbacks.npz --out theirs
      weakcell characterize --import retention.csv --about cells=65536 \\
          --out module
      weakcell emulate --memory file:pico2/profile.toml --sweep vdd=0.55:0.8:0.05
    """
    from weakcell.host.api.characterization import analyze_board_run, analyze_file, begin_run, write_characterization
    from weakcell.host.cli.terminal import emit, errors_as_events, note
    from weakcell.memmodels.errors import UsageError

    with errors_as_events(as_json):
        if dry_run and import_ is not None:
            raise UsageError("--dry-run with --import", "a file is read in seconds and touches no board", "Leave --dry-run out")
        geometry = _bank(bank)
        asked: dict[str, Any] = {
            "port": port, "memory": memory, "vdd": vdd, "dwell_ms": dwell_ms, "pattern": pattern, "experiment": experiment,
            "supply": supply, "repeats": repeats, "kib": kib, "seed": seed, "temperature_note": temperature_note,
            "calibration": calibration, "attempts": attempts, "power_cycle": power_cycle,
        }  # fmt: skip
        if dry_run:
            _show_measurements(asked, as_json)
            return
        folder = _folder_for(out)
        if import_ is not None and (as_ is not None or import_.name.endswith((".csv", ".csv.gz"))):
            from weakcell.host.cli.import_table import import_measurements

            import_measurements(import_, folder, as_, about, as_json, quiet)
            return
        if import_ is not None:
            findings, provenance = analyze_file(import_, geometry, folder, import_anywhere)
        else:
            run = begin_run(folder, resume=resume, **asked)
            with run.rig.link:
                _measure(run, yes, quiet or as_json)
                provenance = run.provenance
            findings = analyze_board_run(run, geometry)
        result = write_characterization(findings, folder, {**provenance, "command": ["weakcell", *sys.argv[1:]]})
    if as_json:
        for row in result.frame.iter_rows(named=True):
            emit("point", **row)
        for path in result.profiles:
            emit("file", file=str(path))
        return
    show_analysis(findings, explain)
    for path, series in zip(result.profiles, findings.series, strict=True):
        assumed = "".join(f":{rate}_share=0" for rate in series.profile.unmeasured)
        note(f"`weakcell emulate --memory file:{path}{assumed}` runs a network on this profile.", quiet)


def _show_measurements(asked: dict[str, Any], as_json: bool) -> None:
    """Ask the board what it is, and say which points would be measured and how long they take; no voltage is lowered."""
    from tempfile import TemporaryDirectory

    from weakcell.host.api.characterization import begin_run
    from weakcell.host.board.characterization.rig import estimate_seconds
    from weakcell.host.cli.result_table import duration
    from weakcell.host.cli.terminal import show_plan

    with TemporaryDirectory() as folder:
        run = begin_run(Path(folder) / "run", resume=False, **asked)
        with run.rig.link as link:
            plan, chip = run.plan, link.board.chip
            seconds = estimate_seconds(run.rig, plan.pages, plan.points)
    lowest = min(point.vdd for point in plan.points)
    text = f"{chip}: {len(plan.points)} points down to {lowest:g} V, {plan.repeats} times each, at most {duration(seconds)}."
    show_plan(text, as_json, chip=chip, points=len(plan.points), repeats=plan.repeats, lowest_v=lowest, seconds=seconds)


def _folder_for(out: Path | None) -> Path:
    from weakcell.memmodels.errors import UsageError

    if out is None:
        raise UsageError("Characterizing without --out", "read-backs must be kept somewhere", "Give --out DIR")
    return out


def _bank(text: str | None) -> Bank | None:
    if text is None:
        return None
    from weakcell.memmodels.error_model.structure import Bank
    from weakcell.memmodels.errors import UsageError

    try:
        rows, columns = map(int, text.lower().split("x"))
        return Bank(rows, columns)
    except ValueError:
        raise UsageError(f"--bank {text}", "it is not ROWSxCOLUMNS", "Write it as in 1024x2048") from None


def _measure(run: BoardRun, yes: bool, quiet: bool) -> None:
    from weakcell.host.board.characterization.rig import characterize
    from weakcell.host.cli.terminal import note, progress_bar
    from weakcell.memmodels.errors import Interrupted

    try:
        with progress_bar(len(run.plan.points), not quiet, "points", "asking the board") as bar:
            records = characterize(run.rig, run.plan, run.dump, lambda record: bar.step(str(record.point)), yes)
    except KeyboardInterrupt:
        kept = f"interrupted; nominal voltage is restored, and {len(run.dump.records())} of {len(run.plan.points)} points are kept"
        raise Interrupted(f"Characterizing into {run.dump.path}", kept, "--resume goes on") from None
    for record in records:
        for failure in record.failures:
            note(f"{record.point}: {failure.outcome}, not counted ({failure.message})", quiet)


_DROPPED = ("flips per read", "F", "outcome", "nested", "at every read", "fit p01", "fit p10")
"""Columns that a narrow terminal leaves out, the last ones first."""


_CAPTION = (
    "BER: share of cells that erred; p01, p10: of those that held 0, and 1. < is an upper bound.",
    "F: how often a weak cell errs. Fit: what the profile says. --explain says more.",
)


def show_analysis(findings: ReadbackAnalysis, explain: bool = False) -> None:
    """Show the tables, the artefacts, the fits, and the caption; `explain`: the caption says everything."""
    from weakcell.host.cli.tables import Column, show_table
    from weakcell.host.cli.terminal import show
    from weakcell.host.report.board_figures import COLUMNS, RATE_COLUMNS, describe_characterization, format_points, format_rates

    show(findings.readbacks.title, "bold")
    for columns, rows in ((COLUMNS, format_points(findings.rows)), (RATE_COLUMNS, format_rates(findings.rows))):
        cells = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
        order = [_DROPPED.index(name) + 1 if name in _DROPPED else 0 for name in columns]
        show_table([Column(name, part, name == "outcome", drop) for name, part, drop in zip(columns, cells, order, strict=True)])
        show("")
    for one in findings.artefacts:
        show(f"Noticed: {one.text}.")
    for series in findings.series:
        show(_describe_fit(series))
    for line in [describe_characterization(findings)] if explain else _CAPTION:
        show(line, "dim")


def _describe_fit(series: Series) -> str:
    """Describe structure and law of a series in a few lines."""
    best = series.points.best
    unmeasured = series.profile.unmeasured
    if not any(row.weak for row in series.rows):
        return f"{1000 * series.dwell_s:g} ms: no cell ever flipped; the upper bounds are all that is known"
    lines = [f"{1000 * series.dwell_s:g} ms: {best.structure}, errors last per {best.lifetime}"]
    if unmeasured:
        other = {"p01": "0", "p10": "1"}[unmeasured[0]]
        lines.append(
            f"{unmeasured[0]} was not measured (no cell held {other}): the profile asks for {unmeasured[0]}_share=0 … 1, "
            "what to assume for it as a share of the other rate"
        )
    if all(any(one.name == "F" and one.basis == "assumed" for one in row.constants) for row in series.rows if row.weak):
        lines.append("Each point was read once, which cannot tell whether its errors come back at the next read: that is assumed")
    if series.law is None:
        return "\n".join([f"{lines[0]}; no law over the voltage: {series.no_law}", *lines[1:]])
    assert series.law.law is not None
    law = series.law.law
    lines[0] += f"; P(a {law.subject} at V) = Phi((mu - V) / s), " + "; ".join(f"{one.name} = {one}" for one in law.constants)
    lines.append(f"The law {law.goodness}{law.advice}")
    if law.near:
        lines.append(f"The law {' and '.join(law.near)} fits as well, with other constants, which the intervals hold too")
    if series.banks is not None and series.banks.differ:
        lines.append(str(series.banks))
    if law.exceptions:
        exceptions = f"{law.exceptions} of {law.erred} (cell, value) pairs that erred above the lowest voltage"
        lines.append(f"{exceptions} did not err at every lower one")
    if series.outside:
        lines.append(f"Not in the law, since a pattern is missing there: {', '.join(f'{vdd:.4g} V' for vdd in series.outside)}")
    return "\n".join(lines)
