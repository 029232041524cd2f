"""A board's flips over its voltage, and the memory profile that they fit: `characterize`."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from weakcell.host.board.characterization.bench_supply import open_supply
from weakcell.host.board.characterization.dump import Dump, open_dump
from weakcell.host.board.characterization.experiments import DEFAULT_DWELL_MS, Experiment
from weakcell.host.board.characterization.passes import count_arena_pages
from weakcell.host.board.characterization.patterns import parse_contents
from weakcell.host.board.characterization.points import Plan, Record, make_plan
from weakcell.host.board.characterization.power_cycle import open_power_cycle
from weakcell.host.board.characterization.results import tabulate_points, write_results
from weakcell.host.board.characterization.rig import ATTEMPTS, CharacterizationRig, check_plan, list_voltages
from weakcell.host.board.characterization.rig import characterize as measure_points
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.meter import load_reading
from weakcell.host.board.link.ports import FailsAt, open_port
from weakcell.host.board.readbacks.analysis import ReadbackAnalysis, analyze_readbacks
from weakcell.host.board.readbacks.loading import load_readbacks, load_run
from weakcell.host.report import board_figures
from weakcell.host.report.displayed_result import DisplayedResult, count_points, wrap_result
from weakcell.host.study.results_folder import versions
from weakcell.host.study.sweep_values import parse_sweep
from weakcell.memmodels.atomic_files import create_folder
from weakcell.memmodels.error_model.structure import Bank
from weakcell.memmodels.errors import OutputError, UsageError
from weakcell.memmodels.numbers import parse_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def characterize(
    out: str | Path,
    *,
    port: str = "auto",
    memory: str | None = None,
    vdd: str | Sequence[float] | None = None,
    dwell_ms: str | Sequence[float] | float | None = None,
    pattern: str | Sequence[str] = "zeros,ones",
    experiment: Literal["retention", "sleep", "read", "write"] = "retention",
    supply: str = "on-chip",
    repeats: int = 3,
    kib: int | None = None,
    bank: tuple[int, int] | None = None,
    seed: int = 0,
    temperature_note: str = "",
    calibration: str | Path | None = None,
    attempts: int = ATTEMPTS,
    power_cycle: str | None = None,
    readbacks: str | Path | None = None,
    anywhere: bool = False,
    resume: bool = False,
    allow_long: bool = False,
    on_point: Callable[[Record, int], None] | None = None,
) -> Characterization:
    """Measure a board's flips over its core voltage, and fit a memory profile to them.

    At each voltage, dwell time and pattern: write the arena, lower the voltage, restore it, read back. Nominal voltage is restored
    whatever ends the run.

    Args:
        out: The folder for read-backs, tables, profile and figures.
        port: `auto`, a serial port, `socket://HOST:PORT`, or a virtual board: `virtual:rp2350`, `virtual:rp2040`.
        memory: Virtual boards only: the SPEC of the memory that makes the flips; its `vdd` follows the regulator.
        vdd: Core voltages in V, as numbers or as in `"0.9:0.55:0.05"`. None: every step of the regulator. Nominal is always
            measured first, as a control.
        dwell_ms: How long the voltage stays low, ms; one or several. None: 10, or 200 for `sleep`, where the core's capacitor
            is discharged more slowly.
        pattern: `zeros`, `ones`, `checkerboard`, `address`, `random` or `weights:NETWORK`; one or several.
        experiment: What happens while the voltage is low: nothing (`retention`), nothing with the core off (`sleep`, RP2350), the
            arena is read (`read`) or written (`write`).
        supply: What lowers the voltage: `on-chip`, `scpi:VISA-NAME` or `manual`.
        repeats: How often each point is measured.
        kib: Use only the first `kib` KiB of the arena.
        bank: Rows and columns of cells of a bank, for maps and clustering. None: 1024 x 2048, an assumption.
        seed: Of the random pattern, and of a virtual board's die.
        temperature_note: What the thermometer said; kept with the results.
        calibration: The file of `weakcell board calibrate`, with which voltages become absolute.
        attempts: How often a point is tried whose transfers break.
        power_cycle: How a board is started again that fell silent: `dtr` or `rts` (its adapter's line, at its RUN pin), `dtr:PORT`,
            `rts:PORT` or `uhubctl:HUB:PORT`. None: the run ends then.
        readbacks: Analyze this file of read-backs (`.npz` or `.toml`) instead of a board.
        anywhere: Let a `.toml` of `readbacks` name files outside its folder.
        resume: Continue the run in `out`.
        allow_long: Take more than an hour.
        on_point: Called with each measured point and the number of all points.

    Returns:
        The characterization. `.profiles` are memory profiles: `memory=f"file:{profile}"` runs a network on one.

    Raises:
        BoardError: A board is missing or answers wrongly. `VoltageRefused`: a voltage was refused or not confirmed.
        UsageError: An argument cannot be understood, or the run would take more than an hour.
        OutputError: The folder cannot be written or holds another run.
        InputError: Read-backs are damaged, or nothing was counted.

    Examples:
        >>> import numpy as np, weakcell
        >>> rng, written = np.random.default_rng(0), np.zeros(4096, np.uint8)
        >>> flips = [np.packbits(rng.random((4096, 8)) < rate, axis=1)[:, 0] for rate in (0.001, 0.01)]
        >>> np.savez("readbacks.npz", vdd=[0.6, 0.55], written=written, read=np.stack(flips))
        >>> result = weakcell.characterize("board", readbacks="readbacks.npz")
        >>> result.summary["vdd"].to_list(), [profile.name for profile in result.profiles]
        ([0.6, 0.55], ['profile.toml'])
    """
    folder = Path(out)
    rows_and_columns = None if bank is None else Bank(*bank)
    if readbacks is not None:
        findings, provenance = analyze_file(Path(readbacks), rows_and_columns, folder, anywhere)
    else:
        run = begin_run(
            folder, port=port, memory=memory, vdd=vdd, dwell_ms=dwell_ms, pattern=pattern, experiment=experiment, supply=supply,
            repeats=repeats, kib=kib, seed=seed, temperature_note=temperature_note,
            calibration=None if calibration is None else Path(calibration), resume=resume, attempts=attempts,
            power_cycle=power_cycle,
        )  # fmt: skip
        with run.rig.link:
            count = len(run.plan.points)
            measure_points(run.rig, run.plan, run.dump, (lambda record: on_point(record, count)) if on_point else None, allow_long)
            provenance = run.provenance
        findings = analyze_board_run(run, rows_and_columns)
    return write_characterization(findings, folder, provenance)


@dataclass(frozen=True, eq=False)
class BoardRun:
    """A board that answers, the plan for it, and the folder that keeps its read-backs."""

    rig: CharacterizationRig
    plan: Plan
    dump: Dump

    @property
    def provenance(self) -> dict[str, Any]:
        """What was asked of which board, and the link's counters."""
        return {**self.dump.run, "link": vars(self.rig.link.counters)}


def begin_run(
    folder: Path,
    *,
    port: str,
    memory: str | None,
    vdd: str | Sequence[float] | None,
    dwell_ms: str | Sequence[float] | float | None,
    pattern: str | Sequence[str],
    experiment: str,
    supply: str,
    repeats: int,
    kib: int | None,
    seed: int,
    temperature_note: str,
    calibration: Path | None,
    resume: bool,
    attempts: int = ATTEMPTS,
    power_cycle: str | None = None,
) -> BoardRun:
    """Open a board and plan its measurements; the arguments are those of `characterize`.

    A virtual board continues where a resumed run left it.
    """
    kind = Experiment(experiment)
    if attempts < 1:
        raise UsageError(f"{attempts} attempts at each point", "there must be one at least", "Give 1 or more")
    voltages = None if vdd is None else parse_sweep(f"vdd={_downwards(vdd) if isinstance(vdd, str) else _listed(vdd)}").values
    if dwell_ms is None:
        dwell_ms = DEFAULT_DWELL_MS[kind]
    dwells = parse_sweep(f"dwell_ms={dwell_ms if isinstance(dwell_ms, str) else _listed(dwell_ms)}").values
    fails_at: FailsAt = "read" if kind is Experiment.READ else "write" if kind is Experiment.WRITE else "retention"
    link = Link(open_port(port, memory, seed, _pulses_before(folder) if resume else 0, fails_at))
    board = link.board
    reading = None if calibration is None else load_reading(calibration)
    if reading is not None:
        reading.check(link)
        link.core_scale = reading.scale
    nominal = board.volts(board.nominal_code)
    pages = count_arena_pages(link, kib)
    plan = make_plan(
        experiment=experiment,
        voltages=voltages or list_voltages(board),
        dwells=tuple(value / 1000 for value in dwells),
        patterns=tuple(name.strip() for name in (pattern.split(",") if isinstance(pattern, str) else pattern)),
        repeats=repeats,
        pages=pages,
        nominal=nominal,
        seed=seed,
    )
    contents = {name: parse_contents(name, pages, plan.seed) for name in plan.patterns}
    if port.startswith("virtual:") and supply != "on-chip" and kind is Experiment.RETENTION:
        raise UsageError(
            f"--supply {supply} with --port {port}", "no supply feeds the core of a virtual board", "Leave --supply out"
        )
    lowered_by = open_supply(supply, nominal)
    run = {
        "identity": {"chip": board.chip, "virtual": port.startswith("virtual:"), "memory": memory, "supply": lowered_by.name},
        "plan": vars(plan),
        "board": {**vars(board), "image_crc": link.info().image_crc},
        "temperature_note": temperature_note,
        "meter": None if reading is None else vars(reading),
        "versions": {"python": platform.python_version(), **versions()},
    }
    words = {name: each.words(0, pages) for name, each in contents.items()}
    cycle = None if power_cycle is None else open_power_cycle(power_cycle, link.transport)
    rig = CharacterizationRig(link, lowered_by, contents, kind, attempts=attempts, power_cycle=cycle)
    check_plan(rig, plan)
    return BoardRun(rig, plan, open_dump(folder, run, words, resume))


def analyze_board_run(run: BoardRun, bank: Bank | None) -> ReadbackAnalysis:
    """Fit what a board's read-backs say."""
    return analyze_readbacks(load_run(run.dump, bank))


def analyze_file(file: Path, bank: Bank | None, folder: Path, anywhere: bool = False) -> tuple[ReadbackAnalysis, dict[str, Any]]:
    """Fit what a file of read-backs says; returns the findings and where they are from.

    Raises:
        OutputError: The folder cannot be made, or holds a run on a board.
    """
    readbacks = load_readbacks(file, bank, anywhere)
    if os.path.exists(folder / "run.json"):
        raise OutputError(f"Results in {folder}", "it holds a run on a board", "Choose another --out")
    create_folder(folder)
    known = {"python": platform.python_version(), **versions()}
    return analyze_readbacks(readbacks), {"imported": file.name, "sha256": sha256(file.read_bytes()).hexdigest(), "versions": known}


def write_characterization(findings: ReadbackAnalysis, folder: Path, provenance: dict[str, Any]) -> Characterization:
    """Write tables, profiles and figures, and return the result."""
    profiles = write_results(findings, folder, provenance)
    return wrap_result(Characterization, findings, folder=folder, profiles=tuple(profiles))


def _listed(values: Sequence[float] | float) -> str:
    return ",".join(str(float(value)) for value in (values if isinstance(values, Sequence) else (values,)))


def _downwards(text: str) -> str:
    """Let 0.9:0.6:0.05 step down, as voltages do here."""
    parts = text.split(":")
    try:
        if len(parts) == 3 and parse_number(parts[0]) > parse_number(parts[1]) and parse_number(parts[2]) > 0:
            return f"{parts[0]}:{parts[1]}:-{parts[2].strip()}"
    except ValueError:
        pass
    return text


def _pulses_before(folder: Path) -> int:
    """Count the low phases that the folder's run has had."""
    dump = Dump(folder)
    if not os.path.exists(folder / "run.json"):
        return 0
    shots = sum(len(record.shots) for record in dump.records() if record.point.vdd < dump.plan.nominal)
    return shots + dump.count_calibration_pulses()


@dataclass(frozen=True, eq=False, repr=False)
class Characterization(DisplayedResult, ReadbackAnalysis):
    """A board's bit errors over its voltage, and the memory profiles fitted to them: from `characterize`.

    Attributes:
        folder: Where read-backs, tables and profiles lie; None if nothing was written.
        profiles: The profile files, one per dwell time; `memory=f"file:{profile}"` runs a network on one.
    """

    folder: Path | None = None
    profiles: tuple[Path, ...] = ()

    @property
    def title(self) -> str:
        """The board and its memory."""
        return self.readbacks.title

    @property
    def headline(self) -> str:
        """Voltages, cells and the largest error rate."""
        rates = [row.rate.value for row in self.rows if row.rate is not None]
        worst = f"; bit error rate up to {max(rates):.3g}" if rates else ""
        return f"{self.title}: {count_points(len(self.rows))}, {self.readbacks.bits:,} cells{worst}"

    @property
    def caption(self) -> str:
        """Experiment, intervals and what the rates count."""
        return board_figures.describe_characterization(self)

    @property
    def frame(self) -> pl.DataFrame:
        """One row per operating point: reads, flips, rates with intervals, fitted constants."""
        return tabulate_points(self)

    @property
    def summary(self) -> pl.DataFrame:
        """Voltage, dwell time, outcome, flips and the bit error rate with its interval."""
        return self.frame.select("vdd", "dwell_s", "outcome", "flips_per_read", "rate", "rate_low", "rate_high")

    def build_figure(self) -> Figure:
        """Plot the rates over voltage and the map of weak cells."""
        return board_figures.plot_characterization(self)
