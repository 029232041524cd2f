"""The charts of a report as files for a paper: PDF, SVG and PNG, one and two columns wide, for any colour vision."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from weakcell.emulator.tasks import Metric, metric_of
from weakcell.host.atomic_files import write_atomically
from weakcell.host.report.data import Material, by_metric, clean_of, front_of
from weakcell.host.report.margin_data import shares_up_to
from weakcell.host.report.plotly_charts import energy_label, mean_flips, swept_axis
from weakcell.host.report.style import COLOURS, STYLE, level_colours
from weakcell.host.report.weak_cell_map import WeakMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTHS = {"one-column": 3.35, "two-column": 6.9}
"""Inches, as conference styles of two columns have them."""

_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_DASHES = ("-", "--", ":", "-.")
_STYLE: dict[str, Any] = {
    **STYLE,
    "font.size": 7.5,
    "legend.fontsize": 6.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "pdf.fonttype": 42,
}


def write_figures(material: Material, folder: Path) -> list[Path]:
    """Draw every chart into `folder`, made if need be, in both widths and three formats; equal results give equal files."""
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context(_STYLE):
        for name, draw in _drawings(material).items():
            for width, inches in _WIDTHS.items():
                figure = draw(inches)
                for suffix in ("pdf", "svg", "png"):
                    path = folder / f"{name}-{width}.{suffix}"
                    undated: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(suffix, {})

                    def save(place: Path, figure: Figure = figure, undated: dict[str, Any] = undated) -> None:
                        figure.savefig(place, dpi=300, metadata=undated)

                    write_atomically(path, save)
                    written.append(path)
    return written


def accuracy_figures(material: Material, width: float) -> list[tuple[str, Figure]]:
    """The swept conditions, and accuracy over each of them, `width` inches wide."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        keys = material.points["sweep_key"].drop_nulls().unique(maintain_order=True)
        parts = [(key, own) for key in keys for _, own in by_metric(material.points.filter(pl.col("sweep_key") == key))]
        return [(key, _curves(material, key, own, width)) for key, own in parts]


def _drawings(material: Material) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in material.points["sweep_key"].drop_nulls().unique(maintain_order=True):
        part = material.points.filter(pl.col("sweep_key") == key)
        for metric, scored in by_metric(part):
            name = "accuracy" if metric.name == "unchanged" else _plain(metric.name)
            found[f"{name}-{key}"] = lambda width, key=key, scored=scored: _curves(material, key, scored, width)
        for unit in part["energy_unit"].drop_nulls().unique(maintain_order=True):
            own = part.filter(pl.col("energy_unit") == unit)
            found[f"energy-{key}-{_plain(unit)}"] = lambda width, key=key, own=own: _curves(material, key, own, width, energy=True)
    for unit in material.points["energy_unit"].drop_nulls().unique(maintain_order=True):
        for metric, _ in by_metric(material.points.filter(pl.col("energy_unit") == unit)):
            name = "" if metric.name in ("accuracy", "unchanged") else f"{_plain(metric.name)}-"
            found[f"pareto-{name}{_plain(unit)}"] = lambda width, unit=unit, metric=metric: _pareto(material, unit, metric, width)
    for number, study in enumerate(material.studies, 1):
        found[f"flips-{number}"] = lambda width, study=study: _flips(material, study, width)
    for number, one in enumerate(material.maps, 1):
        found[f"weak-cells-{number}"] = lambda width, one=one: _weak(one, width)
    if material.margins:
        found["margins"] = lambda width: _margins(material, width)
    return found


def _curves(material: Material, key: str, points: pl.DataFrame, width: float, energy: bool = False) -> Figure:
    figure, axes = _axes(width)
    metric = metric_of(points["score"][0])
    for (study,), part in points.group_by(["study"], maintain_order=True):
        part = part.sort("sweep_value")
        colour, marker, dash = _look(material, str(study))
        y = part["energy"] if energy else metric.factor * part["mean"]
        x = part["sweep_value"].to_numpy()
        axes.plot(x, y.to_numpy(), color=colour, marker=marker, linestyle=dash, label=str(study))
        if not energy and part["low"].null_count() == 0:
            low, high = (metric.factor * part[name].to_numpy() for name in ("low", "high"))
            axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    if not energy:
        for study in dict.fromkeys(points["study"].to_list()):
            clean = clean_of(material, study)
            if clean is not None:
                axes.axhline(metric.factor * clean, color="#8c959f", linewidth=0.7, linestyle=(0, (4, 3)))
    label, wide = swept_axis(points, key)
    axes.set_xlabel(label)
    if wide:
        axes.set_xscale("log")
    if energy:
        axes.set_ylim(bottom=0)
    axes.set_ylabel(energy_label(points["energy_unit"][0]) if energy else metric.label)
    _legend(figure, axes, width)
    return figure


def _pareto(material: Material, unit: str, metric: Metric, width: float) -> Figure:
    figure, axes = _axes(width)
    points = material.points.filter((pl.col("energy_unit") == unit) & (pl.col("score") == metric.name))
    front = front_of(points, metric)
    axes.step(front["energy"], metric.factor * front["mean"], where="post", color="#8c959f", linewidth=1.0, label="Pareto front")
    for (study,), part in points.group_by(["study"], maintain_order=True):
        colour, marker, _ = _look(material, str(study))
        axes.plot(part["energy"], metric.factor * part["mean"], color=colour, marker=marker, linestyle="", label=str(study))
    axes.set_xlabel(energy_label(unit))
    axes.set_ylabel(metric.label)
    _legend(figure, axes, width)
    return figure


def _flips(material: Material, study: str, width: float) -> Figure:
    figure, axes = _axes(width)
    runs = material.runs.filter(pl.col("study") == study)
    key, means = runs["sweep_key"][0], mean_flips(runs)
    for number, (name, column) in enumerate(means.items()):
        colour, marker = COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)]
        x = [0] if key is None else column["sweep_value"].to_numpy()
        axes.plot(x, column["flips"].to_numpy(), color=colour, marker=marker, label=name)
    axes.set_yscale("log")
    axes.set_ylabel("flips per run (mean)")
    if key is None:
        axes.set_xticks([0], ["at this memory"])
    else:
        label, wide = swept_axis(material.points.filter(pl.col("study") == study), key)
        axes.set_xlabel(label)
        axes.set_xscale("log" if wide else "linear")
    axes.set_title(textwrap.fill(study, int(18 * width)), fontsize=7)
    _legend(figure, axes, width)
    return figure


def _weak(one: WeakMap, width: float) -> Figure:
    from matplotlib.colors import ListedColormap

    figure, axes = _axes(width)
    names = one.level_names
    colours = ListedColormap(["#f2f4f6", *level_colours(len(names) - 1)])
    level, step = one.drawn()
    image = axes.imshow(level, cmap=colours, vmin=-0.5, vmax=len(names) - 0.5, aspect="auto", interpolation="nearest",
                        extent=(0, level.shape[1], step * len(level), 0))  # fmt: skip
    axes.grid(False)
    axes.set(xlabel="column", ylabel="row")
    axes.set_title(textwrap.fill(one.name, int(18 * width)), fontsize=7)
    every = -(-len(names) // 8)
    bar = figure.colorbar(image, ax=axes, ticks=range(0, len(names), every), label=one.scale_title)
    bar.ax.set_yticklabels(names[::every])
    return figure


def _margins(material: Material, width: float) -> Figure:
    figure, axes = _axes(width)
    for number, network in enumerate(material.margins):
        x, y = shares_up_to(100 * network.shares)
        axes.step(x, y, where="post", color=COLOURS[number % len(COLOURS)], linestyle=_DASHES[number % len(_DASHES)],
                  label=network.name)  # fmt: skip
    axes.set(xlabel="margin (% of the largest possible score)", ylabel="images at or below (%)")
    axes.set_xlim(left=0)
    _legend(figure, axes, width)
    return figure


def _axes(width: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 0.62 * width if width < 5 else 0.45 * width), layout="constrained")
    return figure, figure.subplots()


def _legend(figure: Figure, axes: Axes, width: float) -> None:
    """Under the axes, where it covers nothing; the figure grows by it."""
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, int(width / (0.45 + 0.062 * max(map(len, labels)))))
    rows = -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + 0.13 * rows)
    figure.legend(handles, labels, loc="outside lower left", ncols=columns)


def _look(material: Material, study: str) -> tuple[str, str, str]:
    number = material.studies.index(study)
    return COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)], _DASHES[number // len(COLOURS) % len(_DASHES)]


def _plain(text: str) -> str:
    return "".join(char if char.isalnum() else "-" for char in text).strip("-").lower()
