"""The charts of a report as files for a paper: PDF, SVG and PNG, one and two columns wide, for any colour vision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from host.atomic import write_atomically
from host.report.charts import energy_label, swept_axis
from host.report.material import Material, clean_of, front_of
from host.report.style import COLOURS, STYLE

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


def _drawings(material: Material) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in material.points["sweep_key"].drop_nulls().unique(maintain_order=True):
        part = material.points.filter(pl.col("sweep_key") == key)
        found[f"accuracy-{key}"] = lambda width, key=key, part=part: _curves(material, key, part, width)
        for unit in part["energy_unit"].drop_nulls().unique(maintain_order=True):
            own = part.filter(pl.col("energy_unit") == unit)
            found[f"energy-{key}-{_plain(unit)}"] = lambda width, key=key, own=own: _curves(material, key, own, width, energy=True)
    for unit in material.points["energy_unit"].drop_nulls().unique(maintain_order=True):
        found[f"pareto-{_plain(unit)}"] = lambda width, unit=unit: _pareto(material, unit, width)
    return found


def _curves(material: Material, key: str, points: pl.DataFrame, width: float, energy: bool = False) -> Figure:
    figure, axes = _axes(width)
    for (study,), part in points.group_by(["study"], maintain_order=True):
        part = part.sort("sweep_value")
        colour, marker, dash = _look(material, str(study))
        y = part["energy"] if energy else 100 * part["mean"]
        x = part["sweep_value"].to_numpy()
        axes.plot(x, y.to_numpy(), color=colour, marker=marker, linestyle=dash, label=str(study))
        if not energy and part["low"].null_count() == 0:
            low, high = (100 * part[name].clip(0.0, 1.0).to_numpy() for name in ("low", "high"))
            axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    if not energy:
        for study in dict.fromkeys(points["study"].to_list()):
            clean = clean_of(material, study)
            if clean is not None:
                axes.axhline(100 * clean, color="#8c959f", linewidth=0.7, linestyle=(0, (4, 3)))
    label, wide = swept_axis(points, key)
    axes.set_xlabel(label)
    if wide:
        axes.set_xscale("log")
    if energy:
        axes.set_ylim(bottom=0)
    axes.set_ylabel(energy_label(points["energy_unit"][0]) if energy else "accuracy (%)")
    _legend(figure, axes, width)
    return figure


def _pareto(material: Material, unit: str, width: float) -> Figure:
    figure, axes = _axes(width)
    points = material.points.filter(pl.col("energy_unit") == unit)
    front = front_of(points)
    axes.step(front["energy"], 100 * front["mean"], where="post", color="#8c959f", linewidth=1.0, label="Pareto front")
    for (study,), part in points.group_by(["study"], maintain_order=True):
        colour, marker, _ = _look(material, str(study))
        axes.plot(part["energy"], 100 * part["mean"], color=colour, marker=marker, linestyle="", label=str(study))
    axes.set_xlabel(energy_label(unit))
    axes.set_ylabel("accuracy (%)")
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
