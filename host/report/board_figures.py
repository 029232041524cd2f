"""Figures of a characterization: error rates over voltage, the array's weak cells, and their positions."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weakcell.host.board.readbacks.analysis import PointSummary, ReadbackAnalysis, Series, count_weak_cells
from weakcell.host.board.readbacks.readback_set import ReadbackSet
from weakcell.host.report.matplotlib_charts import add_legend_below, label_decades
from weakcell.host.report.style import COLOURS, MARKERS, series_look
from weakcell.memmodels.atomic_files import write_atomically
from weakcell.memmodels.error_model.terms import Lifetime
from weakcell.memmodels.profile import Constant, ProbitLaw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PIXELS = 512


def plot_characterization(findings: ReadbackAnalysis) -> Figure:
    """Plot the rates of all series, and image, columns and rows of the series in which most cells failed."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(9.6, 7.4), layout=ConstrainedLayoutEngine(rect=(0.0, 0.06, 1.0, 0.94)))
    (rates, image), (columns, rows) = figure.subplots(2, 2, height_ratios=[1.5, 1])
    for number, one in enumerate(findings.series):
        _plot_rates(rates, one, series_look(number))
    _label_rates(rates)
    worst = max(findings.series, key=lambda one: int((one.highest > 0).sum()))
    _plot_image(image, worst, findings.readbacks)
    grouped = count_weak_cells(worst, findings.readbacks)
    _plot_profile(columns, grouped["column"].sum(axis=0), "column")
    _plot_profile(rows, grouped["row"], "row")
    figure.suptitle(textwrap.fill(findings.readbacks.title, 110), fontsize=10, fontweight="bold", x=0.01, ha="left")
    figure.text(0.01, 0.008, textwrap.fill(describe_characterization(findings), 165), fontsize=7, color="#57606a", va="bottom")
    return figure


def describe_characterization(findings: ReadbackAnalysis) -> str:
    """Return the caption: what one must know to read the numbers."""
    readbacks = findings.readbacks
    methods = sorted({row.rate.method.split(",")[0] for row in findings.rows if row.rate is not None})
    sentences = [
        f"Experiment: {readbacks.experiment}; {readbacks.bits} cells, {readbacks.basis}",
        _describe_rates(findings),
        f"95 % intervals ({'; '.join(methods)}); no flips: the upper bound",
        "fit p01, fit p10 and F are constants of the fitted structure",
        _describe_banks(readbacks),
        readbacks.notes,
    ]
    return ". ".join(sentence for sentence in sentences if sentence) + "."


def _describe_banks(readbacks: ReadbackSet) -> str:
    rows, columns, stripes = readbacks.bank.rows, readbacks.bank.columns, readbacks.stripes
    if stripes == 1:
        return f"Rows and columns are of storage addresses, {rows} x {columns} cells a bank (assumed)"
    return f"Words are spread over {stripes} banks, drawn side by side, of {rows} x {columns // stripes} cells each (shape assumed)"


def _describe_rates(findings: ReadbackAnalysis) -> str:
    """Return what BER, p01 and p10 count."""
    fresh = {one.points.best.lifetime is Lifetime.READ for one in findings.series}
    once = "the share of (cell, stored value) pairs that erred at least once; F is the share of reads at which a weak cell errs"
    reads = "the share of single reads of a cell that came back inverted, since errors are drawn anew at each read"
    told = " or ".join(text for text, there in ((once, False in fresh), (reads, True in fresh)) if there)
    left = f", without {findings.excluded} cells that are left out" if findings.excluded else ""
    return f"BER is {told}{left}. p01 and p10 are the same of cells that held 0, and 1: blank where none did"


def _plot_rates(axes: Axes, series: Series, look: dict[str, Any]) -> None:
    """Plot rates with intervals, upper bounds as arrows where nothing flipped, and the law if there is one."""
    seen = [(row, row.rate) for row in series.rows if row.rate is not None]
    some = [(row.vdd, rate) for row, rate in seen if rate.value > 0]
    none = [(row.vdd, rate.high) for row, rate in seen if rate.value == 0]
    label = f"{1000 * series.dwell_s:g} ms low" if series.dwell_s else "read-backs"
    colour, marker = look["colour"], MARKERS[look["marker"]]
    if some:
        x, y = [vdd for vdd, _ in some], [rate.value for _, rate in some]
        reach = [[max(rate.value - rate.low, 0.0) for _, rate in some], [max(rate.high - rate.value, 0.0) for _, rate in some]]
        axes.errorbar(x, y, yerr=reach, fmt=marker, color=colour, markersize=4, capsize=3, label=label)
    if none:
        x, y = [vdd for vdd, _ in none], [high for _, high in none]
        axes.scatter(x, y, marker="v", s=22, facecolors="none", edgecolors=colour, label=f"{label}: no flips, upper bound")
    law = series.law.profile.law if series.law is not None else None
    if isinstance(law, ProbitLaw):
        volts = np.linspace(law.low, law.high, 200)
        at = np.array([sum(term.rate for term in law.terms(float(value))) for value in volts])
        axes.plot(volts[at > 1e-12], at[at > 1e-12], color=colour, linewidth=1, label=f"{label}: law, on random data")
    for row in series.rows:
        if not row.outcome.has_counts:
            axes.annotate(str(row.outcome), (row.vdd, 1.0), fontsize=7, rotation=90, color=colour, ha="center", va="top")


def _label_rates(axes: Axes) -> None:
    axes.set_yscale("log")
    label_decades(axes.yaxis)
    axes.set(title="bit errors over voltage", xlabel="supply voltage (V), commanded", ylabel="share of cells that err")
    axes.set_ylim(top=min(2.0, 10 * axes.get_ylim()[1]), bottom=max(axes.get_ylim()[0], 1e-9))
    add_legend_below(axes, 4.8)


def _plot_image(axes: Axes, series: Series, readbacks: ReadbackSet) -> None:
    """Plot the array; each pixel is the highest voltage at which one of its cells failed."""
    from matplotlib.colors import ListedColormap

    volts = sorted({row.vdd for row in series.rows if row.weak})
    array = build_cell_image(series, readbacks)
    small = _shrink(array)
    numbers = np.searchsorted(np.array([0.0, *volts], np.float32), small)
    colours = ["#ffffff", *(f"{1 - (k + 1) / max(len(volts), 1):.2f}" for k in range(len(volts)))]
    axes.imshow(numbers, cmap=ListedColormap(colours), vmin=0, vmax=len(volts), aspect="auto", interpolation="nearest",
                extent=(0, array.shape[1], array.shape[0], 0))  # fmt: skip
    axes.grid(False)
    shown = ", ".join(f"{value:.3g}" for value in volts) or "no voltage"
    axes.set(title=f"weak cells (darker: fail at a higher voltage; {shown} V)", xlabel="column", ylabel="row")
    axes.title.set_fontsize(8)


def build_cell_image(series: Series, readbacks: ReadbackSet) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return (rows of all banks, columns): the highest voltage at which each cell failed, 0 for never."""
    return readbacks.arrange(series.highest).reshape(-1, readbacks.bank.columns)


def _shrink(array: Any) -> Any:
    """Return at most 512 x 512 pixels, each the maximum of its cells."""
    by = [max(1, -(-side // _PIXELS)) for side in array.shape]
    rows, columns = (-(-side // step) for side, step in zip(array.shape, by, strict=True))
    padded = np.zeros((rows * by[0], columns * by[1]), array.dtype)
    padded[: array.shape[0], : array.shape[1]] = array
    return padded.reshape(rows, by[0], columns, by[1]).max(axis=(1, 3))


def _plot_profile(axes: Axes, counts: Any, axis: str) -> None:
    axes.plot(np.arange(len(counts)), counts, color=COLOURS[0], linewidth=0.6)
    axes.set(title=f"weak cells by {axis}", xlabel=axis, ylabel="weak cells")
    axes.set_ylim(bottom=0)


def save_cells(series: Series, readbacks: ReadbackSet, path: Path) -> None:
    """Write one pixel per cell: white never failed; the darker, the higher the voltage at which it failed."""
    from matplotlib.image import imsave

    array = build_cell_image(series, readbacks)
    low, high = 0.0, float(array.max())
    lowest = float(array[array > 0].min()) if high > low else 0.0
    grey = np.full(array.shape, 255, np.uint8)
    weak = array > 0
    grey[weak] = np.round(160.0 * (high - array[weak]) / max(high - lowest, 1e-6)).astype(np.uint8)
    write_atomically(path, lambda file: imsave(file, grey, format=path.suffix[1:], cmap="gray", vmin=0, vmax=255))


def format_points(rows: Sequence[PointSummary]) -> list[list[str]]:
    """Return the first table as text: one row per operating point."""
    shown = []
    for row in rows:
        fails = row.fitted("F")
        pairs = ["" if pair is None or not pair[1] else f"{pair[0]} of {pair[1]}" for pair in (row.always, row.nested)]
        flips = f"{row.flips:.1f}" if row.reads else ""
        known = "" if fails is None or not row.weak else f"{fails.value:.3g}"
        shown.append([*_format_point(row), str(row.outcome), flips, *_format_rate(row.rate), known, *pairs])
    return shown


def format_rates(rows: Sequence[PointSummary]) -> list[list[str]]:
    """Return the second table as text: counted and fitted rates by stored value, blank if not measured."""
    shown = []
    for row in rows:
        if row.rate is None:
            continue
        fitted = [row.fitted(name) for name in ("p01", "p10")]
        known = ["" if found is None or not row.weak else f"{found.value:.3g}" for found in fitted]
        shown.append([*_format_point(row), *_format_rate(row.p01), *_format_rate(row.p10), *known])
    return shown


def _format_point(row: PointSummary) -> list[str]:
    return [f"{row.vdd:.4g}", f"{1000 * row.dwell_s:g}"]


def _format_rate(rate: Constant | None) -> list[str]:
    """Return a counted rate and its interval; the upper bound where nothing erred."""
    if rate is None:
        return ["", ""]
    if rate.value == 0.0:
        return [f"< {rate.high:.2g}", ""]
    return [f"{rate.value:.3g}", f"{rate.low:.3g} … {rate.high:.3g}"]


COLUMNS = ("vdd (V)", "low (ms)", "outcome", "flips per read", "BER", "95 % interval", "F", "at every read", "nested")
RATE_COLUMNS = ("vdd (V)", "low (ms)", "p01", "95 % interval", "p10", "95 % interval", "fit p01", "fit p10")
