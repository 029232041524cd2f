"""One picture per technology: the published points and the law beside them (`weakcell memories --plots DIR`).

Legends say how far a law passes from the points that it was fitted to (rms), and how far it misses either end of a curve when it is
fitted without it (`held_out`), in decades.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weakcell.host.atomic_files import write_atomically
from weakcell.host.report import held_out
from weakcell.host.report.style import COLOURS, STYLE
from weakcell.memmodels.technologies.support import phi, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Points = Iterable[tuple[float, float]]
Law = Callable[[float], float]


def write_curves(out_dir: Path) -> list[Path]:
    """Draw every technology's published points against its law into `out_dir` (created if need be); the files written."""
    import matplotlib as mpl

    out_dir.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context(STYLE):
        for name, draw in PICTURES.items():
            path, figure = out_dir / f"{name}.png", draw()
            write_atomically(path, lambda place, figure=figure: figure.savefig(place, dpi=150))  # type: ignore[misc]
            written.append(path)
    return written


def sram() -> Figure:
    """14 nm chips, block RAM, and how block-RAM faults cluster in columns."""
    from weakcell.memmodels.technologies import block_ram, sram

    figure, (chip, ram, columns) = _panels(3, "SRAM")
    probit = lambda v: sram.probit(v, sram.SRAM_14NM_MU, sram.SRAM_14NM_S)  # noqa: E731
    chips = list(_column("sram_14nm", "v_over_vmin", "ber"))
    _points(chip, chips, 0, "Stutz et al. 2021 (digitised)", law=probit, ends=held_out.of_probits(*zip(*chips, strict=True)))
    _line(chip, 0.75, 1.0, probit, 0, "Φ((μ − V)/s)")
    _dress(chip, "14 nm chips", "V / Vmin", "bit error rate")
    for number, (technology, file, bits) in enumerate(
        (
            (block_ram.SRAM_28NM_KC705B, "sram_28nm_kc705b", 14_581_760),
            (block_ram.SRAM_28NM_VC707, "sram_28nm_vc707", 33_751_040),
        )
    ):
        rate = lambda v, t=technology: _rate(t, "p10", vdd=v)  # noqa: E731
        counted = [(v, n / bits) for v, n in _column(file, "vdd", "faults")]
        ends = held_out.of_probits(*zip(*counted, strict=True))
        _points(ram, counted, number, f"{technology.name}, counted", law=rate, ends=ends)
        low = technology.conditions[0].low or 0.0
        _line(ram, low, 0.61, rate, number, "law")
    _dress(ram, "28 nm block RAM, Salami et al. 2018", "VCCBRAM (V)", "P(read 0 | stored 1)", 1e-10, 2e-3)
    _clusters(columns)
    return figure


def _clusters(axes: Axes) -> None:
    """Faulty (block, column) pairs and Fano factor against the law's column share."""
    from weakcell.memmodels.technologies.block_ram import COLUMN_SHARE

    rows = [row for row in table("sram_28nm_kc705b_columns") if int(row["faults"]) > 10]
    rates = [int(row["faults"]) / (7120 * 1024) for row in rows]
    _points(axes, ((float(row["vdd"]), float(row["pairs"])) for row in rows), 0, "faulty columns of 7120, counted")
    _points(axes, ((float(row["vdd"]), float(row["fano"])) for row in rows), 1, "Fano factor per column, counted")
    volts = [float(row["vdd"]) for row in rows]
    for share, style in ((COLUMN_SHARE, "-"), (0.0, ":")):
        drawn = [column_statistics(rate, share, 1024) for rate in rates]
        label = f"law, share {share}" if share else "independent cells"
        axes.plot(volts, [7120 * faulty for faulty, _ in drawn], style, color=COLOURS[0], linewidth=1.3, label=label)
        axes.plot(volts, [fano for _, fano in drawn], style, color=COLOURS[1], linewidth=1.3)
    _dress(axes, "Clustering, KC705 board B", "VCCBRAM (V)", "columns, Fano factor")


def column_statistics(rate: float, share: float, cells: int) -> tuple[float, float]:
    """(share of columns with a faulty cell, variance / mean of faults per column) at a marginal rate."""
    from scipy.special import ndtr, ndtri

    x = np.linspace(-9.0, 9.0, 4001)
    weight = np.exp(-(x**2) / 2)
    weight /= weight.sum()
    q = ndtr((ndtri(rate) + math.sqrt(share) * x) / math.sqrt(1.0 - share))
    faulty = float(weight @ -np.expm1(cells * np.log1p(-q)))
    mean, square = cells * float(weight @ q), cells * (cells - 1) * float(weight @ q**2)
    return faulty, (square + mean - mean**2) / mean


def dram() -> Figure:
    """Activation per vendor and direction, bad lines over voltage, retention."""
    from weakcell.memmodels.technologies import dram

    figure, (activation, bad, kept) = _panels(3, "DRAM")
    for number, vendor in enumerate("ABC"):
        rows = [row for row in table("dram_trcd") if row["vendor"] == vendor]
        for way, marker, style in (("p01", "o", "-"), ("p10", "s", "--")):
            points = [(float(row["trcd"]), float(row[way] if float(row[way]) else row[f"{way}_mean"]))
                      for row in rows if float(row.get(f"{way}_mean") or row[way])]  # fmt: skip
            times, rates = zip(*points, strict=True)
            ends = held_out.of_tails(np.log(times).tolist(), rates, 0.5, (math.log(4.0), 0.2))
            rate = lambda t, v=vendor, w=way: dram.activation_rate(v, w, t)  # noqa: E731
            _points(activation, points, number, f"{vendor} {way}", marker, rate, ends)
            _line(activation, 2.5, 9.99, rate, number, None, style)
        lines = [row for row in table("dram_lines") if row["vendor"] == vendor and float(row["share"])]
        share = lambda v, w=vendor: dram.bad_lines(w, v)  # noqa: E731
        known = [(float(row["vdd"]), float(row["share"])) for row in lines]
        told = f"vendor {vendor}"
        if len(known) > 2:
            volts, shares = zip(*known, strict=True)
            ends = held_out.of_tails(volts, shares, dram.LINES[vendor][2], (1.1, 0.03))
            _points(bad, known, number, told, law=share, ends=ends)
        else:
            _points(bad, known, number, f"{told}: two points, two constants")
        lowest, free = dram.VDD_RANGE[vendor]
        _line(bad, lowest, free - 1e-6, share, number, None)
    activation.axvline(10.0, color="#8c959f", linewidth=1, linestyle=":")
    _dress(activation, "tRCD: first access, 20 °C (no errors from 10 ns)", "tRCD (ns)", "bit error rate, median module", 1e-10)
    _dress(bad, "Low voltage, tRCD = tRP = 10 ns", "VDD (V)", "share of bad 64-byte lines", 1e-12)
    for number, (temperature, vdd) in enumerate((t, v) for t in (20, 70) for v in (1.35, 1.15)):
        rows = [row for row in table("dram_retention") if (float(row["temperature"]), float(row["vdd"])) == (temperature, vdd)]
        label = f"{temperature} °C, {vdd} V"
        lost = lambda t, c=temperature, v=vdd: dram.retention_rate(t, c, v)  # noqa: E731
        points = [(float(row["interval"]), float(row["rate"])) for row in rows if float(row["rate"])]
        _points(kept, points, number, label, law=lost)
        _line(kept, 0.4, 2.048, lost, number, None)
    lost_cells = [tuple(float(row[key]) for key in ("interval", "temperature", "vdd", "rate")) for row in table("dram_retention")]
    worst = held_out.of_retention([row for row in lost_cells if row[3] > 0])  # type: ignore[misc]
    kept.set_xscale("log")
    _ticks(kept, (0.5, 1.0, 2.0))
    _dress(
        kept,
        f"Retention, 29 modules (held-out ends {worst:.2f} decades)",
        "refresh interval (s)",
        "share of cells that lose their bit",
        1e-14,
        1e-6,
    )
    return figure


def rram() -> Figure:
    """Relaxation: widths over conductance, and what they mean for two and four levels; levels of NVMExplorer."""
    from weakcell.memmodels.technologies import rram as law

    figure, (width, binary, levels) = _panels(3, "RRAM")
    names = {1: "1 s", 3600: "1 h (between)", 86400: "1 day", 172800: "2 days"}
    for number, (time, label) in enumerate(names.items()):
        g = np.linspace(0.0, 40.0, 101)
        # two days lie on one day almost everywhere: a broad band below keeps both in sight
        broad, below = (1.3, 3.0) if time < 86400 else (4.5, 1.0) if time == 86400 else (1.3, 2.0)
        width.plot(g, [law.sigma(x, time) for x in g], color=COLOURS[number], linewidth=broad, zorder=below, label=label)
        for cell, style in (("1T1R", "-"), ("2T2R", "--")):
            rate = lambda x, t=time, c=cell: _levels_rate(law.RRAM, g_high=x, time=t, cell=c)  # noqa: E731
            said = None if cell == "2T2R" and number else f"{label} {cell}" if number == 0 else label
            _line(binary, 3.0, 40.0, rate, number, said, style, broad, below)
    width.set_title("σ of a conductance (coefficients as published)", fontsize=9, loc="left")
    width.set(xlabel="conductance (µS)", ylabel="σ (µS)")
    width.legend()
    for number, row in enumerate(table("rram_survey")):
        said = None if number else "survey: rates that macros report"
        binary.axhline(float(row["rate"]), color="#8c959f", linewidth=0.7, linestyle=":", label=said)
    binary.axhspan(1e-9, 1e-6, color="#e6eaef", zorder=0, label="Gaussian tails unsupported")
    _dress(binary, "One bit, 1 µS against g_high (published coefficients, no fit)", "g_high (µS)", "bit error rate", 1e-9)
    for number, bits in enumerate(("2", "3")):
        rows = [row for row in table("rram_levels") if row["bits"] == bits]
        (term,) = law.nvmexplorer_term({"bits_per_cell": bits, "code": "gray"})
        for way, marker, found in (("up", "^", term.up), ("down", "v", term.down)):
            points = [(int(row["level"]), float(row[way])) for row in rows]
            colour = number * 2 + (way == "down")
            shown = [point for point in points if point[1] > 1e-9]
            _points(levels, shown, colour, f"{bits} bits {way}", marker, _table_law(found))
            levels.plot([at for at, _ in points], [p or math.nan for p in found], color=COLOURS[colour], linewidth=1.0)
    _dress(levels, "NVMExplorer levels (below 1e-9: 1e-19 and less)", "level", "P(read as neighbour)", 1e-9)
    return figure


def sttram() -> Figure:
    """Write errors against Fokker-Planck solutions, with and without the correction; retention and read disturb."""
    from weakcell.memmodels.technologies import sttram as law

    figure, (write, keep, disturb) = _panels(3, "STT-RAM")
    solved = [tuple(float(row[key]) for key in ("delta", "current", "tau", "rate")) for row in table("stt_write")]
    for number, current in enumerate((1.5, 2.0, 3.0)):
        failing = lambda t, i=current: law.write_error_rate(60.0, i, t)  # noqa: E731
        points = [(tau, rate) for delta, i, tau, rate in solved if (delta, i) == (60.0, current)]
        _points(write, points, number, f"I = {current:g} Ic0, Fokker-Planck", law=failing)
        _line(write, 1.0, 20.0, failing, number, None)
    worst = held_out.of_write_errors(solved)  # type: ignore[arg-type]
    _dress(write, f"Write error, D = 60 (ours; D held out {worst:.2f} decades)", "pulse / τD", "write error rate", 1e-9)
    times = np.logspace(0, 10, 201)
    for number, delta in enumerate((30, 40, 50, 60)):
        rates = [law.retention(law.STTRAM.resolve({"time": float(t), "delta": delta})).p01 for t in times]
        keep.plot(times, rates, color=COLOURS[number], linewidth=1.4, label=f"D = {delta}")
        _line(disturb, 0.0, 0.9, lambda i, d=delta: _disturbed(i, d), number, f"D = {delta}")  # type: ignore[misc]
    keep.axvline(3.156e8, color="#8c959f", linewidth=1, linestyle=":", label="10 years")
    keep.set_xscale("log")
    _dress(keep, "Retention, 300 K (law only)", "time since the write (s)", "bit error rate", 1e-15)
    _dress(disturb, "Read disturb, 5 ns reads (law only)", "read current / Ic0", "bit error rate per read", 1e-25)
    return figure


def fefet() -> Figure:
    """One bit over cell size with either threshold, levels of multi-bit cells."""
    from weakcell.memmodels.technologies import fefet as law

    figure, (size, levels) = _panels(2, "FeFET")
    points = list(_column("fefet_domains", "domains", "p01"))
    half_way = lambda n: law.one_bit(n, "half-way", 0.0)[0]  # noqa: E731
    _points(size, points, 0, "published gamma, half-way (p01)", law=half_way)
    _line(size, 50.0, 300.0, half_way, 0, "law, half-way")
    _line(size, 50.0, 300.0, lambda n: law.one_bit(n, "optimal", 0.0)[0], 1, "law, optimal (p01)")
    ends = held_out.of_probits([math.sqrt(n) for n, _ in points], [p for _, p in points])
    root = lambda n: phi(-(0.202 + 0.252 * math.sqrt(n)))  # noqa: E731
    said = f"Φ(−(0.202 + 0.252 √N)), {_missed(points, root, ends)}"
    _line(size, 50.0, 300.0, root, 2, said, ":")
    _dress(size, "One bit", "domains", "P(read 1 | stored 0)", 1e-10)
    for number, bits in enumerate(("2", "3")):
        rows = [row for row in table("fefet_levels") if row["bits"] == bits]
        points = [(int(row["level"]), float(row["up"])) for row in rows]
        conditions = law.FEFET.resolve({"bits_per_cell": bits})
        up = getattr(law.terms(conditions)[0], "up", ())
        shown = [point for point in points if point[1] > 0]
        _points(levels, shown, number, f"{bits} bits, up", law=_table_law(up))
        levels.plot([at for at, _ in points[:-1]], up[:-1], color=COLOURS[number], linewidth=1.2, label="law")
    _dress(levels, "Levels without verify", "level", "P(read one level up)", 5e-3, 0.2)
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {"sram": sram, "dram": dram, "rram": rram, "sttram": sttram, "fefet": fefet}
"""Name of the file -> who draws it."""


def _disturbed(current: float, delta: float) -> float:
    from weakcell.memmodels.technologies import sttram as law

    return law.disturb(law.STTRAM.resolve({"read_current": current, "read_pulse": 5.0, "delta": delta})).rate * 2


def _rate(technology: Any, way: str, **conditions: float | str) -> float:
    return float(getattr(technology.terms(technology.resolve(conditions))[0], way))


def _levels_rate(technology: Any, **conditions: float | str) -> float:
    return float(technology.terms(technology.resolve(conditions))[0].rate)


def _column(name: str, x: str, y: str) -> Points:
    return ((float(row[x]), float(row[y])) for row in table(name))


def _panels(count: int, title: str) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.3 * count, 3.7), layout="constrained")
    figure.suptitle(f"{title}: published points and the law (rms, and ends held out, in decades)", fontsize=11, fontweight="bold")
    return figure, figure.subplots(1, count)


def decades(points: Points, law: Law) -> float:
    """Root mean square of log10(law / point): how far a law passes from the points that it was fitted to."""
    return math.sqrt(float(np.mean([math.log10(law(x) / y) ** 2 for x, y in points])))


def _table_law(values: tuple[float, ...]) -> Law:
    return lambda level: values[int(level)]


def _missed(points: Points, law: Law, ends: float | None) -> str:
    return f"rms {decades(points, law):.2f}" + ("" if ends is None else f", ends {ends:.2f}")


def _points(
    axes: Axes, points: Points, colour: int, label: str, marker: str = "o", law: Law | None = None, ends: float | None = None
) -> None:
    """Points, and in the legend how far the law passes from them, and from the ends that were held out."""
    known = list(points)
    x, y = zip(*known, strict=True)
    label = label if law is None else f"{label}, {_missed(known, law, ends)}"
    axes.plot(x, y, linestyle="", marker=marker, markersize=4.5, color=COLOURS[colour], label=label)


def _line(
    axes: Axes,
    low: float,
    high: float,
    law: Law,
    colour: int,
    label: str | None,
    style: str = "-",
    broad: float = 1.3,
    below: float = 2.0,
) -> None:
    x = np.linspace(low, high, 241)
    y = [law(float(value)) or math.nan for value in x]
    axes.plot(x, y, style, color=COLOURS[colour], linewidth=broad, zorder=below, label=label)


def _ticks(axes: Axes, values: tuple[float, ...]) -> None:
    """Plain numbers at these places of a logarithmic axis."""
    from matplotlib.ticker import NullLocator

    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.xaxis.set_minor_locator(NullLocator())


def _dress(axes: Axes, title: str, x: str, y: str, lowest: float | None = None, highest: float = 2.0) -> None:
    axes.set_title(title, fontsize=9, loc="left")
    axes.set(xlabel=x, ylabel=y, yscale="log")
    if lowest is not None:
        axes.set_ylim(lowest, highest)
    axes.legend()
