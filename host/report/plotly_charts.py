"""The charts of a report as Plotly figures: plain data, no Python object of Plotly's. Colours are left to the page's theme."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import polars as pl

from weakcell.emulator.tasks import Metric
from weakcell.host.report.data import Material, by_metric, clean_of, front_of, where
from weakcell.host.report.margin_data import shares_up_to
from weakcell.host.report.style import COLOURS, level_colours
from weakcell.host.report.weak_cell_map import CELLS, WeakMap

_MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star")
_DASHES = ("solid", "dash", "dot", "dashdot")

_PLAIN = {"exponentformat": "none", "separatethousands": True}
"""Numbers on an axis as people write them."""


@dataclass(frozen=True)
class Chart:
    """One figure of the page. words: what it shows, for those who do not see it. choices: one figure each, to choose from."""

    name: str
    title: str
    words: str
    choices: tuple[tuple[str, dict[str, Any]], ...]
    chooses: str = "Study"


def charts_of(material: Material) -> list[Chart]:
    """Accuracy and energy over each swept condition, the Pareto front for each unit of energy, flips by layer.

    And, where there are any, weak-cell maps and margins.
    """
    charts = []
    keys = material.points["sweep_key"].unique(maintain_order=True).to_list()
    for key in keys:
        part = material.points.filter(pl.col("sweep_key").eq_missing(pl.lit(key, dtype=pl.String)))
        charts += [_scores(material, key, own, metric) for metric, own in by_metric(part)]
        for unit in part["energy_unit"].drop_nulls().unique(maintain_order=True):
            charts.append(_energy(material, key, part.filter(pl.col("energy_unit") == unit), unit))
    for unit in material.points["energy_unit"].drop_nulls().unique(maintain_order=True):
        charts += [
            _pareto(material, unit, metric) for metric, _ in by_metric(material.points.filter(pl.col("energy_unit") == unit))
        ]
    charts.append(_flips(material))
    charts += [_weak(material.maps)] if material.maps else []
    return charts + ([_margins(material)] if material.margins else [])


def _scores(material: Material, key: str | None, points: pl.DataFrame, metric: Metric) -> Chart:
    """Means and intervals of one metric over the swept condition; without one, by memory."""
    traces: list[dict[str, Any]] = []
    for study, part in _by_study(points):
        colour, style = _style(material, study)
        x, mean = _x(part), _shown(part["mean"], metric)
        if part["low"].null_count() < part.height and key is not None:
            low, high = (_shown(part[name].fill_null(end), metric) for name, end in (("low", 0.0), ("high", 1.0)))
            traces.append(_band(x, low, high, colour, study))
        errors = _errors(part, metric) if key is None else {}
        shown = [
            f"{at}<br>{metric.text(score)}, {n} trials"
            for at, score, n in zip(_wheres(part), part["mean"], part["trials"], strict=True)
        ]
        traces.append(
            {**style, **errors, "x": x, "y": mean, "name": study, "legendgroup": study, "text": shown, "hoverinfo": "text"}
        )
    for model, clean in _cleans(material, points).items():
        x = _x(points.sort("sweep_value", nulls_last=True))
        line = {"color": "rgba(128,128,128,0.9)", "dash": "dash", "width": 1}
        label, level = f"{model} without faults", metric.factor * clean
        traces.append({"type": "scatter", "mode": "lines", "x": [x[0], x[-1]], "y": [level] * 2, "name": label, "line": line,
                       "hoverinfo": "name"})  # fmt: skip
    layout = _layout(_axis(key, points), {"title": {"text": metric.label}})
    name = f"{metric.title[:1].upper()}{metric.title[1:]}"
    title = f"{name} over {key}" if key else f"{name} by memory"
    lows = points.sort("mean")
    ends = [f"{_short(metric, row['mean'])} at {where(row)}" for row in (lows.row(0, named=True), lows.row(-1, named=True))]
    words = f"{title}: from {ends[0]} to {ends[1]}. Bands are {material.intervals}."
    slug = "accuracy" if metric.name in ("accuracy", "unchanged") else _slug(metric.name)
    return Chart(f"{slug}-{_slug(key or 'memory')}", title, words, (("", {"data": traces, "layout": layout}),))


def _short(metric: Metric, value: float) -> str:
    return f"{100 * value:.1f} %" if metric.share else metric.text(value)


def _energy(material: Material, key: str | None, points: pl.DataFrame, unit: str) -> Chart:
    traces = []
    for study, part in _by_study(points):
        _, style = _style(material, study)
        how = part["energy_basis"].fill_null("").to_list()
        shown = [f"{at}<br>{e:.4g} {unit} ({b})" for at, e, b in zip(_wheres(part), part["energy"], how, strict=True)]
        traces.append({**style, "x": _x(part), "y": part["energy"].to_list(), "name": study, "text": shown, "hoverinfo": "text"})
    bases = ", ".join(points["energy_basis"].drop_nulls().unique(maintain_order=True))
    title = f"Energy of an inference over {key}" if key else "Energy of an inference by memory"
    layout = _layout(_axis(key, points), {"title": {"text": energy_label(unit)}, "rangemode": "tozero", **_PLAIN})
    low, high = float(min(points["energy"])), float(max(points["energy"]))
    words = f"{title}, in {unit} ({bases}): from {low:.4g} to {high:.4g}."
    return Chart(f"energy-{_slug(f'{key}-{unit}')}", title, words, (("", {"data": traces, "layout": layout}),))


def _pareto(material: Material, unit: str, metric: Metric) -> Chart:
    points = material.points.filter((pl.col("energy_unit") == unit) & (pl.col("score") == metric.name))
    traces = []
    for study, part in _by_study(points):
        _, style = _style(material, study)
        shown = [f"{study}<br>{at}" for at in _wheres(part)]
        traces.append({**style, "mode": "markers", "x": part["energy"].to_list(), "y": _shown(part["mean"], metric), "name": study,
                       "text": shown, "hoverinfo": "text+x+y"})  # fmt: skip
    front = front_of(points, metric)
    line = {"color": "rgba(128,128,128,0.9)", "width": 2, "shape": "hv"}
    traces.insert(0, {"type": "scatter", "mode": "lines", "x": front["energy"].to_list(), "y": _shown(front["mean"], metric),
                      "name": "Pareto front", "line": line, "hoverinfo": "skip"})  # fmt: skip
    layout = _layout({"title": {"text": energy_label(unit)}, **_PLAIN}, {"title": {"text": metric.label}})
    best = "; ".join(f"{_short(metric, row['mean'])} at {row['energy']:.4g}" for row in front.head(8).iter_rows(named=True))
    name = "accuracy" if metric.name in ("accuracy", "unchanged") else metric.title
    words = f"{name.capitalize()} over energy in {unit}; no point beats those on the front in both: {best}."
    slug = _slug(unit) if name == "accuracy" else _slug(f"{metric.name}-{unit}")
    return Chart(f"pareto-{slug}", f"Pareto front: {name} over energy ({unit})", words, (("", {"data": traces, "layout": layout}),))


def _flips(material: Material) -> Chart:
    choices = []
    for study in material.studies:
        runs = material.runs.filter(pl.col("study") == study)
        key = runs["sweep_key"][0]
        traces: list[dict[str, Any]] = []
        for i, (label, means) in enumerate(mean_flips(runs).items()):
            colour = COLOURS[i % len(COLOURS)]
            x = means["sweep_value"].to_list() if key else [runs["memory"][0]]
            marker = {"color": colour, "symbol": _MARKERS[i % len(_MARKERS)]}
            y = means["flips"].to_list()
            traces.append({"type": "scatter", "mode": "lines+markers", "x": x, "y": y, "name": label, "marker": marker,
                           "line": {"color": colour, "dash": _DASHES[i // len(COLOURS) % len(_DASHES)]}})  # fmt: skip
        points = material.points.filter(pl.col("study") == study)
        layout = _layout(
            _axis(key, points), {"title": {"text": "flips per run (mean)"}, "type": "log", "exponentformat": "power", "dtick": 1}
        )
        choices.append((study, {"data": traces, "layout": layout}))
    words = "Mean number of flipped bits per run in each stored tensor, on a logarithmic axis; points without flips are left out."
    return Chart("flips", "Flips by layer", words, tuple(choices))


def mean_flips(runs: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Of one study, by stored tensor: `sweep_value`, ascending, and the mean of `flips` per run, null where there were none."""
    tensors = [name for name in runs.columns if name.startswith("flips[") and runs[name].null_count() < runs.height]
    means = runs.group_by("sweep_value").agg(pl.col(name).mean() for name in tensors).sort("sweep_value")
    some = {name: pl.when(pl.col(name) > 0).then(pl.col(name)).alias("flips") for name in tensors}
    return {name[len("flips[") : -1]: means.select("sweep_value", some[name]) for name in tensors}


def _weak(maps: tuple[WeakMap, ...]) -> Chart:
    choices = []
    for one in maps:
        level, step = one.drawn()
        trace = {
            "type": "heatmap",
            "z": level.tolist(),
            "dy": step,
            "zmin": -0.5,
            "zmax": len(one.points) + 0.5,
            "colorscale": _steps(one),
            "colorbar": {"title": {"text": one.scale_title, "side": "right"}, **_ticks(one), "thickness": 14, "outlinewidth": 0},
            "showlegend": False,
            "hovertemplate": f"row %{{y}}, column %{{x}}: weak at %{{z}} of {len(one.points)} points<extra></extra>",
        }
        rows = {"title": {"text": "row"}, "showgrid": False, "autorange": "reversed"}
        layout = _layout({"title": {"text": "column"}, "showgrid": False}, rows)
        choices.append((one.name, {"data": [trace], "layout": layout}))
    arranged = "" if all(one.arranged for one in maps) else " Rows of 256 cells are assumed where a memory names none."
    words = (
        f"Cells that err at every read, of the first {CELLS:,} of a die, and from which point on they are weak; worked out again "
        f"from seed, die and memory. Studies on the same die share a map.{arranged} "
        f"Weak cells: {'; '.join(one.words for one in maps)}."
    )
    return Chart("weak-cells", "Weak cells by row and column", words, tuple(choices), "Die")


def _steps(one: WeakMap) -> list[list[Any]]:
    """Plotly's scale: one flat colour for each level."""
    colours = ["rgba(128,128,128,0.12)", *level_colours(len(one.points))]
    edges = [k / len(colours) for k in range(len(colours) + 1)]
    return [[edge, colour] for k, colour in enumerate(colours) for edge in edges[k : k + 2]]


def _ticks(one: WeakMap) -> dict[str, Any]:
    names = one.level_names
    every = -(-len(names) // 12)
    return {"tickvals": list(range(0, len(names), every)), "ticktext": list(names[::every])}


def _margins(material: Material) -> Chart:
    choices = []
    for title, label, factor in (
        ("margin", "margin (% of the largest possible score)", 100.0),
        ("flips tolerated", "flips in the output layer's weights that the answer survives", 1.0),
    ):
        traces = []
        for number, network in enumerate(material.margins):
            x, y = shares_up_to(factor * (network.shares if factor > 1 else network.flips))
            line = {"color": COLOURS[number % len(COLOURS)], "dash": _DASHES[number % len(_DASHES)], "width": 2, "shape": "hv"}
            traces.append({"type": "scatter", "mode": "lines", "x": x, "y": y, "name": network.name, "line": line})
        layout = _layout({"title": {"text": label}, "rangemode": "tozero", **_PLAIN}, {"title": {"text": "images at or below (%)"}})
        choices.append((title, {"data": traces, "layout": layout}))
    words = (
        "Margins without faults: the share of images whose answer leads by at most so much, and the share whose answer survives at "
        f"most so many flips in the output layer, whichever they are. {'; '.join(network.words for network in material.margins)}."
    )
    return Chart("margins", "Margins of the networks", words, tuple(choices), "Show")


def _layout(x: dict[str, Any], y: dict[str, Any]) -> dict[str, Any]:
    """Legends lie below the axes, where they cover nothing."""
    return {
        "xaxis": {"automargin": True, "zeroline": False, **x},
        "yaxis": {"automargin": True, "zeroline": False, **y},
        "legend": {"orientation": "h", "yanchor": "top", "y": -0.22, "x": 0, "xanchor": "left"},
        "margin": {"l": 64, "r": 16, "t": 12, "b": 56},
        "hovermode": "closest",
    }


def _axis(key: str | None, points: pl.DataFrame) -> dict[str, Any]:
    if key is None:
        return {"title": {"text": "memory"}, "type": "category", "tickangle": -20}
    label, wide = swept_axis(points, key)
    axis = {"title": {"text": label}}
    return {**axis, "type": "log", "exponentformat": "power", "dtick": 1} if wide else axis


def swept_axis(points: pl.DataFrame, key: str) -> tuple[str, bool]:
    """The swept condition with its unit, and whether its values span decades."""
    values = points["sweep_value"].drop_nulls().to_list()
    wide = len(values) > 1 and min(values) > 0 and max(values) / min(values) >= 100
    return (f"{key} ({unit})" if (unit := _unit(points, key)) else key), wide


def _unit(points: pl.DataFrame, key: str) -> str:
    """The unit of a swept condition, as its technology documents it."""
    from weakcell.memmodels.catalogue import parse_spec
    from weakcell.memmodels.errors import WeakcellError

    try:
        conditions = parse_spec(points["memory"][0]).technology.conditions
    except WeakcellError:
        return ""
    return next((condition.unit for condition in conditions if condition.name == key), "")


def energy_label(unit: str) -> str:
    """What an axis of energies is called."""
    return "energy per inference (pJ)" if unit == "pJ" else f"energy, relative ({unit})"


def _by_study(points: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    parts = points.group_by(["study"], maintain_order=True)
    return [(str(study), part.sort("sweep_value", nulls_last=True)) for (study,), part in parts]


def _style(material: Material, study: str) -> tuple[str, dict[str, Any]]:
    number = material.studies.index(study)
    colour, marker = COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)]
    line = {"color": colour, "dash": _DASHES[number // len(COLOURS) % len(_DASHES)], "width": 2}
    return colour, {
        "type": "scatter",
        "mode": "lines+markers",
        "marker": {"color": colour, "symbol": marker, "size": 7},
        "line": line,
    }


def _band(x: list[Any], low: list[float | None], high: list[float | None], colour: str, study: str) -> dict[str, Any]:
    ends = [(a, low_, high_) for a, low_, high_ in zip(x, low, high, strict=True) if low_ is not None and high_ is not None]
    xs = [a for a, _, _ in ends] + [a for a, _, _ in reversed(ends)]
    ys = [h for _, _, h in ends] + [low_ for _, low_, _ in reversed(ends)]
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return {"type": "scatter", "mode": "lines", "x": xs, "y": ys, "fill": "toself", "fillcolor": f"rgba({red},{green},{blue},0.2)",
            "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False, "legendgroup": study}  # fmt: skip


def _errors(part: pl.DataFrame, metric: Metric) -> dict[str, Any]:
    if part["low"].null_count():
        return {}
    above = [metric.factor * (high - mean) for high, mean in zip(part["high"], part["mean"], strict=True)]
    below = [metric.factor * (mean - low) for low, mean in zip(part["low"], part["mean"], strict=True)]
    return {"error_y": {"type": "data", "array": above, "arrayminus": below, "symmetric": False}}


def _cleans(material: Material, points: pl.DataFrame) -> dict[str, float]:
    found = {
        str(model): clean_of(material, study) for study, model in points.select("study", "model").unique(maintain_order=True).rows()
    }
    return {model: clean for model, clean in found.items() if clean is not None}


def _x(part: pl.DataFrame) -> list[Any]:
    return [row["memory"] if row["sweep_value"] is None else row["sweep_value"] for row in part.iter_rows(named=True)]


def _wheres(part: pl.DataFrame) -> list[str]:
    return [where(row) for row in part.iter_rows(named=True)]


def _shown(values: pl.Series, metric: Metric) -> list[float | None]:
    """Values as an axis shows them."""
    return [None if value is None else metric.factor * value for value in values.to_list()]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
