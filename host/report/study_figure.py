"""Figure of a study: accuracy over the swept value, below it the energy, and a caption."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from weakcell.host.report.captions import describe_result, study_title
from weakcell.host.report.chart_model import condition_label
from weakcell.host.report.data import energy_varies
from weakcell.host.report.figure_layout import wrap_text
from weakcell.host.report.matplotlib_charts import label_decades, save_figure, tick_label
from weakcell.host.report.style import BLUE, INK, ORANGE, STUDY_STYLE
from weakcell.host.study.results import StudyResult, scores_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 6.6
"""Width of the figure, in inches."""
_ROOM = 0.95
"""Share of the width that texts may take: pixels make them up to 2 % wider than their letters are."""
_TITLE_POINTS, _CAPTION_POINTS = 10.0, 6.8
"""Sizes of type."""


def save_study_figure(result: StudyResult, paths: Sequence[Path]) -> None:
    """Plot a study into .png, .svg or .pdf files; OutputError if one cannot be written."""
    save_figure(partial(plot_study, result), paths, STUDY_STYLE, dpi=160)


def plot_study(result: StudyResult) -> Figure:
    """Plot accuracy over the swept value, and below it the energy if the swept value changes it; needs no display."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    energy = energy_varies(result.summary)
    caption = wrap_text(describe_result(result), 72 * _ROOM * _WIDTH, _CAPTION_POINTS)
    below = 0.15 + (caption.count("\n") + 1) * _CAPTION_POINTS * 1.4 / 72  # inches of the caption
    rows, height = (2, 5.0 + below) if energy else (1, 3.6 + below)
    bottom = below / height
    layout = ConstrainedLayoutEngine(rect=(0.01, bottom, 0.98, 0.99 - bottom), hspace=0.03, h_pad=0.08)
    figure = Figure(figsize=(_WIDTH, height), layout=layout)
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=[2.4, 1] if energy else [1])[:, 0]
    x = _sweep_positions(result)
    _plot_accuracy(axes[0], result, x)
    if energy:
        _plot_energy(axes[1], result, x)
    _label_sweep(axes[-1], result, x)
    title = wrap_text(study_title(result.resolved), 72 * _ROOM * _WIDTH, _TITLE_POINTS, bold=True)
    figure.suptitle(title, fontsize=_TITLE_POINTS, fontweight="bold", x=0.015, ha="left")
    figure.text(0.015, 0.012, caption, fontsize=_CAPTION_POINTS, color="#57606a", va="bottom", linespacing=1.4)
    return figure


def _plot_accuracy(axes: Axes, result: StudyResult, x: np.ndarray) -> None:
    """Plot mean and interval of each point, single trials behind them, and the fault-free score as a line."""
    frame, summary = result.frame, result.summary
    metric, series = scores_of(frame)
    scores, trials = metric.factor * series.to_numpy(), result.resolved.study.trials
    mean, low, high = (metric.factor * summary[name].to_numpy().astype(float) for name in ("mean", "low", "high"))
    clean = result.resolved.questions.fault_free_score
    reference = metric.factor * (clean if clean is not None else 1.0 if metric.higher else 0.0)
    label = None if clean is None else f"fault-free {reference:.2f} %" if metric.share else f"fault-free {reference:.4g}"
    axes.axhline(reference, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), label=label)
    if trials > 1:
        axes.scatter(np.repeat(x, trials), scores, s=9, color=BLUE, alpha=0.28, linewidths=0, label="single trials", zorder=2)
        label = "95 % interval of the mean"
        if len(x) > 1:
            axes.fill_between(x, low, high, color=BLUE, alpha=0.18, linewidth=0, zorder=1, label=label)
        else:
            axes.errorbar(x, mean, yerr=[mean - low, high - mean], color=BLUE, capsize=4, fmt="none", label=label)
    axes.plot(x, mean, color=BLUE, linewidth=1.8, marker="o", markersize=4, label="mean" if trials > 1 else "one trial", zorder=3)
    axes.set_ylabel(metric.label)
    shown = np.concatenate([scores, [reference], *([low, high] if trials > 1 else [])])
    lowest, highest = float(shown.min()), float(shown.max())
    if metric.share:
        span = max(100 - lowest, 1.0)
        axes.set_ylim(max(0.0, lowest - 0.08 * span), min(100.0, highest) + 0.05 * span)
    else:
        axes.set_ylim(0.0, 1.08 * highest or 1.0)
    # above the axes, where it covers no data
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, borderaxespad=0.2, columnspacing=1.4)


def _plot_energy(axes: Axes, result: StudyResult, x: np.ndarray) -> None:
    """Plot the energy of one inference; the axis names what it is relative to."""
    summary = result.summary
    unit, basis = summary["energy_unit"][0], ", ".join(summary["energy_basis"].unique(maintain_order=True))
    values = summary["energy"].to_numpy()
    axes.plot(x, values, color=ORANGE, linewidth=1.8, marker="s", markersize=3.5)
    shown = "pJ per inference" if unit == "pJ" else f"× {unit.removeprefix('x ')}"
    axes.set_ylabel(f"energy\n{shown}")
    axes.text(0.985, 0.07, basis, transform=axes.transAxes, ha="right", fontsize=8, color="#57606a")
    axes.set_ylim(0, 1.12 * float(values.max()))


def _sweep_positions(result: StudyResult) -> np.ndarray:
    values = result.summary["sweep_value"].to_list()
    return np.array([0.0 if value is None else value for value in values])


def _label_sweep(axes: Axes, result: StudyResult, x: np.ndarray) -> None:
    """Label the swept condition with its unit; use a logarithmic scale if the sweep spans decades."""
    study = result.resolved.study
    if study.sweep is None:
        axes.set_xticks([0.0], [tick_label(result.resolved.points[0].memory)])
        axes.set_xlim(-1, 1)
        return
    axes.set_xlabel(condition_label(study.sweep.key, study.memory.technology.conditions))
    positive = x[x > 0]
    if study.sweep.logarithmic or (len(positive) > 1 and positive.max() / positive.min() >= 100):
        if len(positive) == len(x):
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=float(positive.min()))
            axes.set_xlim(left=0.0)
        label_decades(axes.xaxis)
