"""Draw `chart_specs` with Plotly, as plain dictionaries. The page chooses the colours of text, grid and background."""

from __future__ import annotations

from typing import Any

from weakcell.host.report.chart_specs import Axis, Panel, Series
from weakcell.host.report.style import level_colours
from weakcell.host.report.weak_cell_map import WeakMap

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star")
_DASHES = ("solid", "dash", "dot", "dashdot")


def plot_panel(panel: Panel) -> dict[str, Any]:
    """Return `data` and `layout` of a Plotly figure."""
    x, y = _axis(panel.x), _axis(panel.y)
    if panel.heat_map is not None:
        x["showgrid"] = y["showgrid"] = False
        y["autorange"] = "reversed"
        traces = [_heat_map(panel.heat_map)]
    else:
        traces = [trace for series in panel.series for trace in _traces(series, panel.x)]
    layout = {
        "xaxis": x,
        "yaxis": y,
        # below the axes, where it covers nothing
        "legend": {"orientation": "h", "yanchor": "top", "y": -0.22, "x": 0, "xanchor": "left"},
        "margin": {"l": 64, "r": 16, "t": 12, "b": 56},
        "hovermode": "closest",
    }
    return {"data": traces, "layout": layout}


def _axis(axis: Axis) -> dict[str, Any]:
    layout: dict[str, Any] = {"automargin": True, "zeroline": False, "title": {"text": axis.label}}
    match axis.scale:
        case "log":
            layout |= {"type": "log", "exponentformat": "power", "dtick": 1}
        case "category":
            layout |= {"type": "category", "tickangle": -20}
        case "linear":
            layout |= {"exponentformat": "none", "separatethousands": True}
    if axis.from_zero:
        layout["rangemode"] = "tozero"
    return layout


def _traces(series: Series, x: Axis) -> list[dict[str, Any]]:
    modes = [name for name, there in (("lines", series.dash), ("markers", series.marker)) if there is not None]
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "+".join(modes),
        "x": list(series.x),
        "y": list(series.y),
        "name": series.name,
        "showlegend": bool(series.name),
    }
    if series.marker is not None:
        trace["marker"] = {"color": series.colour, "symbol": _SYMBOLS[series.marker % len(_SYMBOLS)], "size": 7}
    if series.dash is not None:
        line = {"color": series.colour, "dash": _DASHES[series.dash % len(_DASHES)], "width": 1 if series.thin else 2}
        trace["line"] = {**line, "shape": "hv"} if series.step else line
    if series.labels:
        trace |= {"text": [label.replace("\n", "<br>") for label in series.labels], "hoverinfo": "text"}
    elif series.labels is not None:
        trace["hoverinfo"] = "skip"
    if series.interval is None:
        return [trace]
    if x.scale == "category" or series.dash is None:
        return [{**trace, "error_y": _error_bars(series)}]
    return [_band(series), {**trace, "legendgroup": series.name}]


def _error_bars(series: Series) -> dict[str, Any]:
    assert series.interval is not None
    low, high = series.interval
    above = [None if y is None or end is None else end - y for y, end in zip(series.y, high, strict=True)]
    below = [None if y is None or end is None else y - end for y, end in zip(series.y, low, strict=True)]
    return {"type": "data", "array": above, "arrayminus": below, "symmetric": False}


def _band(series: Series) -> dict[str, Any]:
    assert series.interval is not None
    ends = [(x, low, high) for x, low, high in zip(series.x, *series.interval, strict=True) if low is not None and high is not None]
    x = [x for x, _, _ in ends] + [x for x, _, _ in reversed(ends)]
    y = [high for _, _, high in ends] + [low for _, low, _ in reversed(ends)]
    red, green, blue = (int(series.colour[i : i + 2], 16) for i in (1, 3, 5))
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "fill": "toself", "fillcolor": f"rgba({red},{green},{blue},0.2)",
            "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False, "legendgroup": series.name}  # fmt: skip


def _heat_map(die: WeakMap) -> dict[str, Any]:
    levels, rows_per_pixel = die.shrink_rows()
    names = die.level_names
    every = -(-len(names) // 12)
    ticks = {"tickvals": list(range(0, len(names), every)), "ticktext": list(names[::every])}
    return {
        "type": "heatmap",
        "z": levels.tolist(),
        "dy": rows_per_pixel,
        "zmin": -0.5,
        "zmax": len(die.points) + 0.5,
        "colorscale": _flat_colours(len(die.points)),
        "colorbar": {"title": {"text": die.scale_title, "side": "right"}, **ticks, "thickness": 14, "outlinewidth": 0},
        "showlegend": False,
        "hovertemplate": f"row %{{y}}, column %{{x}}: weak at %{{z}} of {len(die.points)} points<extra></extra>",
    }


def _flat_colours(levels: int) -> list[list[Any]]:
    """Return a Plotly colour scale with one flat colour for "never" and for each level."""
    colours = ["rgba(128,128,128,0.12)", *level_colours(levels)]
    edges = [k / len(colours) for k in range(len(colours) + 1)]
    return [[edge, colour] for k, colour in enumerate(colours) for edge in edges[k : k + 2]]
