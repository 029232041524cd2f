"""Figure of trained networks: loss and accuracy over the epochs, and accuracy under errors."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from weakcell.host.report.chart_model import MOST_SERIES, Axis, Panel, Series
from weakcell.host.report.matplotlib_charts import plot_panel
from weakcell.host.report.style import series_look
from weakcell.memmodels.files import parse_json, read_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pick_runs(frame: pl.DataFrame, curves: pl.DataFrame) -> list[tuple[str, str]]:
    """Return (id, name) of the runs that a figure shows: all of up to eight, else those of highest mean accuracy under errors."""
    rows = frame.select("id", "name").rows()
    if len(rows) <= MOST_SERIES:
        return rows
    means = dict(curves.group_by("id").agg(pl.col("accuracy").mean()).rows())
    best = sorted(rows, key=lambda row: -means.get(row[0], 0.0))[:MOST_SERIES]
    return [row for row in rows if row in best]


def plot_training(title: str, folder: Path, frame: pl.DataFrame, curves: pl.DataFrame, x: Axis) -> Figure:
    """Plot loss, validation accuracy, and accuracy over the memory's swept value: one line per run, at most eight runs.

    Args:
        title: of the figure.
        folder: with the record of each run, NAME.json.
        frame: one row per run, with `id` and `name`.
        curves: accuracy per `id`, `value` and trial.
        x: axis of the swept value.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    shown = pick_runs(frame, curves)
    figure = Figure(figsize=(10.2, 3.4), layout="constrained")
    epochs = [parse_json(read_text(folder / f"{name}.json"))["epochs"] for _, name in shown]
    names = [name for _, name in shown]
    percent = (0.0, 100.0)
    under_errors = [_average(curves, run) for run, _ in shown]
    panels = (
        Panel(Axis("epoch"), Axis("training loss"), _over_epochs(names, epochs, "loss", 1.0)),
        Panel(Axis("epoch"), Axis("validation accuracy (%)", bounds=percent), _over_epochs(names, epochs, "accuracy", 100.0)),
        Panel(x, Axis("accuracy under errors (%)", bounds=percent), _lines(names, under_errors)),
    )
    for axes, panel in zip(figure.subplots(1, 3), panels, strict=True):
        plot_panel(axes, panel)
    for axes in figure.axes[:2]:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    ends = [end for axes in figure.axes[1:] for end in axes.get_ylim()]
    for axes in figure.axes[1:]:  # both show an accuracy
        axes.set_ylim(min(ends), max(ends))
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = max(1, 130 // (8 + max(map(len, labels), default=0)))
    figure.set_figheight(3.4 + 0.16 * -(-len(labels) // columns))
    figure.legend(handles, labels, loc="outside lower left", ncols=columns)
    picked = "" if len(shown) == frame.height else f": the {len(shown)} of {frame.height} runs that are best under errors"
    figure.suptitle(textwrap.fill(title + picked, 120), fontsize=10, fontweight="bold", x=0.01, ha="left")
    return figure


def _average(curves: pl.DataFrame, run: str) -> tuple[list[float], list[float]]:
    """Return the swept values of a run, and the mean accuracy over trials at each, in percent."""
    means = curves.filter(pl.col("id") == run).group_by("value").agg(pl.col("accuracy").mean() * 100).sort("value")
    return means["value"].to_list(), means["accuracy"].to_list()


def _over_epochs(names: Sequence[str], epochs: Sequence[Any], key: str, factor: float) -> tuple[Series, ...]:
    return _lines(names, [([epoch["number"] for epoch in run], [factor * epoch[key] for epoch in run]) for run in epochs])


def _lines(names: Sequence[str], lines: Sequence[tuple[list[float], list[float]]]) -> tuple[Series, ...]:
    """Return one line per run; symbols only where there are few points."""
    series = []
    for number, (name, (x, y)) in enumerate(zip(names, lines, strict=True)):
        look = series_look(number)
        series.append(Series(**{**look, "marker": look["marker"] if len(x) < 30 else None, "dash": number}, name=name, x=x, y=y))
    return tuple(series)
