"""Charts of a report as plain data: series, axes, intervals and captions, without a plotting library.

`matplotlib_charts` draws a chart, on the page and for a paper. A new figure is one function here and its line in `CHARTS`.
A chart is left out where there is nothing to see: one point, an energy that nothing changes, a front of two columns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from weakcell.emulator.tasks import Metric
from weakcell.host.report.captions import describe_rounding
from weakcell.host.report.chart_model import (
    MOST_SERIES,
    Axis,
    Chart,
    Number,
    Panel,
    Series,
    condition_axis,
    condition_label,
    file_slug,
    merge_equal_series,
    share_limits,
    split_panels,
)
from weakcell.host.report.data import ReportData, energy_varies, fault_free_score, pareto_front, point_label, split_by_metric
from weakcell.host.report.margin_data import cumulative_shares
from weakcell.host.report.style import BLUE, ORANGE, reference_look, series_look
from weakcell.host.report.weak_cell_map import CELLS
from weakcell.memmodels.definition import Condition

_MOST_FLIP_PANELS = 20
"""Studies whose flips a report shows: each takes 30 kB of the page."""


def swept_charts(data: ReportData) -> Iterator[Chart]:
    """Yield, for each swept condition, the chart of each score, and of the energy in each unit where the condition changes it."""
    for key in data.points["sweep_key"].unique(maintain_order=True).to_list():
        points = data.points.filter(pl.col("sweep_key").eq_missing(pl.lit(key, dtype=pl.String)))
        yield from score_charts(data, key)
        for unit in points["energy_unit"].drop_nulls().unique(maintain_order=True):
            moved = [part for _, part in _split_by_study(points.filter(pl.col("energy_unit") == unit)) if energy_varies(part)]
            if moved:
                yield _energy_chart(data, key, pl.concat(moved), unit)


def score_charts(data: ReportData, key: str | None) -> Iterator[Chart]:
    """Yield the chart of each score over one swept condition; `key` None: by memory."""
    points = data.points.filter(pl.col("sweep_key").eq_missing(pl.lit(key, dtype=pl.String)))
    for metric, scored in split_by_metric(points):
        if scored.height > 1:
            yield _score_chart(data, key, scored, metric)


def pareto_charts(data: ReportData) -> Iterator[Chart]:
    """Yield score over energy with the Pareto front, where several points of at least three energies lie on it."""
    for unit in data.points["energy_unit"].drop_nulls().unique(maintain_order=True):
        for metric, points in split_by_metric(data.points.filter(pl.col("energy_unit") == unit)):
            if points["energy"].round_sig_figs(6).n_unique() > 2 and pareto_front(points, metric).height > 1:
                yield _pareto_chart(data, unit, metric, points)


def changed_charts(data: ReportData) -> Iterator[Chart]:
    """Yield the share of changed predictions over the flip rate, which compares memories on one axis, if anything flipped."""
    points = data.points.filter(pl.col("flip_rate") > 0).sort("flip_rate")
    if not points.height:
        return
    series = []
    for study in (study for study in data.studies if study in set(points["study"])):
        part = points.filter(pl.col("study") == study)
        low, high = ((100 * part[name].fill_null(end)).to_list() for name, end in (("changed_low", 0.0), ("changed_high", 1.0)))
        interval = None if part["changed_low"].null_count() == part.height else (low, high)
        labels = [
            f"{study}\n{point_label(row)}\n{100 * row['changed']:.2f} % changed at a flip rate of {row['flip_rate']:.4g}"
            for row in part.iter_rows(named=True)
        ]
        x, y = part["flip_rate"].to_list(), (100 * part["changed"]).to_list()
        series.append(Series(**_study_style(data, study), x=x, y=y, interval=interval, labels=labels))
    caption = (
        "Share of predictions that differ from those of the fault-free network, over the share of flipped bits among those read. "
        f"At equal flip rates, a higher curve means flips that do more harm. Bands are {data.intervals}; points without flips "
        "are left out."
    ) + "".join(f" {note}." for note in describe_rounding(points["memory"].unique(maintain_order=True)))
    axes = Axis("flip rate (flips per bit read)", "log"), Axis("changed predictions (%)", from_zero=True)
    panels = split_panels(Panel(*axes, file_name="changed-flip-rate"), series)
    yield Chart("changed-flip-rate", "Changed predictions over flip rate", caption, panels)


def flip_charts(data: ReportData) -> Iterator[Chart]:
    """Yield the mean flips per run in each stored tensor, one panel per study in which several points flipped bits."""
    caption = (
        "Mean number of flipped bits per run in each stored tensor, on a logarithmic axis; points without flips are left out. "
        f"Of more than {MOST_SERIES} tensors, those with most flips are shown, and the sum of the others."
    )
    panels = [panel for study in data.studies if (panel := _flip_panel(data, study)) is not None][:_MOST_FLIP_PANELS]
    if len(panels) < len(data.studies):
        shown = f"{len(panels)} of {len(data.studies)} studies"
        caption += f" Shown are {shown}: those whose flips change, at most {_MOST_FLIP_PANELS}."
    if panels:
        yield Chart("flips", "Flips by layer", caption, tuple(panels))


def weak_cell_charts(data: ReportData) -> Iterator[Chart]:
    """Yield the weak-cell maps, one panel per die, if there are any."""
    if not data.maps:
        return
    assumed = "" if all(die.arranged for die in data.maps) else " Rows of 256 cells are assumed where a memory names none."
    caption = (
        f"Cells that err at every read, of the first {CELLS:,} of a die, and from which point on they are weak; worked out again "
        f"from seed, die and memory. Studies on the same die share a map.{assumed} "
        f"Weak cells: {'; '.join(die.caption for die in data.maps)}."
    )
    maps = [replace(die, condition=condition_label(die.key or "", _conditions(die.memory))) for die in data.maps]
    axes = Axis("column"), Axis("row")
    panels = [
        Panel(*axes, heat_map=die, choice=die.name, title=die.name, file_name=f"weak-cells-{file_slug(die.name)}") for die in maps
    ]
    yield Chart("weak-cells", "Weak cells by row and column", caption, tuple(panels), "Die")


def margin_charts(data: ReportData) -> Iterator[Chart]:
    """Yield the cumulative margins of the networks, as shares of the score and in flips, if they are known."""
    if not data.margins:
        return
    shares = [(network.name, 100 * network.shares) for network in data.margins]
    flips = [(network.name, network.flips) for network in data.margins]
    panels = (
        *_margin_panels(shares, "margin", "margin (% of the largest possible score)", "margins"),
        *_margin_panels(flips, "flips tolerated", "flips in the output layer's weights that the answer survives", None),
    )
    caption = (
        "Margins without faults: the share of images whose answer leads by at most so much, and the share whose answer survives at "
        f"most so many flips in the output layer, whichever they are. {'; '.join(network.caption for network in data.margins)}."
    )
    yield Chart("margins", "Margins of the networks", caption, panels, "Quantity")


CHARTS: tuple[Callable[[ReportData], Iterator[Chart]], ...] = (
    swept_charts,
    pareto_charts,
    changed_charts,
    flip_charts,
    weak_cell_charts,
    margin_charts,
)
"""Every figure of a report, in the order of the page."""


def build_charts(data: ReportData) -> list[Chart]:
    """Return all charts of a report for which there are data; panels of a chart share the limits of equal axes."""
    return [replace(chart, panels=share_limits(chart.panels)) for build in CHARTS for chart in build(data)]


def prediction_panel(
    x: pl.Series, x_axis: Axis, y_label: str, *, predicted: pl.Series | None, measured: pl.DataFrame | None
) -> Panel:
    """Return predicted and measured shares, in percent, over a swept value.

    Args:
        x: the swept value of each point.
        x_axis: its axis.
        y_label: what the shares are of.
        predicted: one share per point; None if there is no prediction.
        measured: one row per point, columns `measured`, `low` and `high`; None if nothing was measured.
    """
    series = []
    if predicted is not None:
        order = x.arg_sort()
        marker = 0 if len(x) < 40 else None
        y = (100 * predicted)[order].to_list()
        series.append(Series(name="predicted", x=x[order].to_list(), y=y, colour=BLUE, marker=marker))
    if measured is not None:
        mean, low, high = ((100 * measured[name].cast(pl.Float64)).to_list() for name in ("measured", "low", "high"))
        name = "measured, 95 % interval"
        series.append(Series(name=name, x=x.to_list(), y=mean, interval=(low, high), colour=ORANGE, marker=1, dash=None))
    return Panel(x_axis, Axis(y_label), tuple(series))


def _score_chart(data: ReportData, key: str | None, points: pl.DataFrame, metric: Metric) -> Chart:
    """Return means and intervals of one metric over the swept condition; without one, by memory."""
    series = []
    for study, part in _split_by_study(points):
        labels = [
            f"{study}\n{point_label(row)}\n{metric.text(row['mean'])}, {row['trials']} trials" for row in part.iter_rows(named=True)
        ]
        series.append(
            Series(**_study_style(data, study), x=_positions(part), y=_scaled(part["mean"], metric),
                   interval=_interval(part, metric), labels=labels)
        )  # fmt: skip
    name = f"{metric.title[:1].upper()}{metric.title[1:]}"
    x = _swept_axis(key, points)
    title = f"{name} over {_without_unit(x.label)}" if key else f"{name} by memory"
    by_mean = points.sort("mean")
    least, most = (f"{metric.text(row['mean'])} at {point_label(row)}" for row in (by_mean.row(end, named=True) for end in (0, -1)))
    slug = _metric_slug(data, metric)
    panel = Panel(x, _score_axis(metric), file_name=f"{slug}-{key or 'memory'}")
    same = metric.text(by_mean["mean"][0]) == metric.text(by_mean["mean"][-1])
    reach = f"{metric.text(by_mean['mean'][0])} at every point" if same else f"from {least} to {most}"
    caption = f"{title}: {reach}. Bands are {data.intervals}."
    panels = split_panels(panel, series, _fault_free_lines(data, points, metric))
    return Chart(f"{slug}-{file_slug(key or 'memory')}", title, caption, panels)


def _energy_chart(data: ReportData, key: str | None, points: pl.DataFrame, unit: str) -> Chart:
    series = []
    for study, part in _split_by_study(points):
        labels = [
            f"{point_label(row)}\n{row['energy']:.4g} {unit} ({row['energy_basis'] or ''})" for row in part.iter_rows(named=True)
        ]
        series.append(Series(**_study_style(data, study), x=_positions(part), y=part["energy"].to_list(), labels=labels))
    x = _swept_axis(key, points)
    title = f"Energy of an inference over {_without_unit(x.label)}" if key else "Energy of an inference by memory"
    bases = ", ".join(points["energy_basis"].drop_nulls().unique(maintain_order=True))
    low, high = float(min(points["energy"])), float(max(points["energy"]))
    caption = f"{title}, in {unit} ({bases}): from {low:.4g} to {high:.4g}."
    panel = Panel(x, Axis(energy_label(unit), from_zero=True), file_name=f"energy-{key or 'memory'}-{file_slug(unit)}")
    return Chart(f"energy-{file_slug(f'{key}-{unit}')}", title, caption, split_panels(panel, merge_equal_series(series)))


def _pareto_chart(data: ReportData, unit: str, metric: Metric, points: pl.DataFrame) -> Chart:
    front = pareto_front(points, metric)
    line = Series(name="Pareto front", x=front["energy"].to_list(), y=_scaled(front["mean"], metric), step=True, labels=())
    series = []
    for study, part in _split_by_study(points):
        labels = [
            f"{study}\n{point_label(row)}\n{row['energy']:.4g} {unit}, {metric.text(row['mean'])}"
            for row in part.iter_rows(named=True)
        ]
        style = {**_study_style(data, study), "dash": None}
        series.append(Series(**style, x=part["energy"].to_list(), y=_scaled(part["mean"], metric), labels=labels))
    best = "; ".join(f"{metric.text(row['mean'])} at {row['energy']:.4g}" for row in front.head(8).iter_rows(named=True))
    name = "accuracy" if metric.name in ("accuracy", "unchanged") else metric.title
    caption = f"{name.capitalize()} over energy in {unit}; no point beats those on the front in both: {best}."
    slug = _metric_slug(data, metric)
    file_name = f"pareto-{file_slug(unit)}" if slug == "accuracy" else f"pareto-{slug}-{file_slug(unit)}"
    panel = Panel(Axis(energy_label(unit)), _score_axis(metric), file_name=file_name)
    return Chart(file_name, f"Pareto front: {name} over energy ({unit})", caption, split_panels(panel, series, [line]))


def _flip_panel(data: ReportData, study: str) -> Panel | None:
    """Return the flips of one study by tensor; None if fewer than two points have any."""
    runs = data.runs.filter(pl.col("study") == study)
    flips = _pick_tensors(mean_flips(runs))
    if max((means["flips"].count() for means in flips.values()), default=0) < 2:
        return None
    series = [
        Series(**series_look(number), name=tensor, x=means["sweep_value"].to_list(), y=means["flips"].to_list())
        for number, (tensor, means) in enumerate(flips.items())
    ]
    x = _swept_axis(runs["sweep_key"][0], data.points.filter(pl.col("study") == study))
    y = Axis("flips per run (mean)", "log")
    return Panel(x, y, tuple(series), choice=study, title=study, file_name=f"flips-{file_slug(study)}")


def _pick_tensors(flips: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Return the tensors with most flips, and the sum of the others where there are too many for one panel."""
    if len(flips) <= MOST_SERIES:
        return flips
    by_flips = sorted(flips, key=lambda tensor: -float(flips[tensor]["flips"].sum()))
    picked = set(by_flips[: MOST_SERIES - 1])
    total = pl.concat([means for tensor, means in flips.items() if tensor not in picked]).group_by("sweep_value").agg(
        pl.when(pl.col("flips").count() > 0).then(pl.col("flips").sum())
    )  # fmt: skip
    others = {f"{len(flips) - len(picked)} other tensors": total.sort("sweep_value")}
    return {tensor: means for tensor, means in flips.items() if tensor in picked} | others


def mean_flips(runs: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Average the flips of one study's runs by stored tensor.

    Returns:
        By tensor: `sweep_value`, ascending, and the mean of `flips` per run, null where there were none.
    """
    tensors = [name for name in runs.columns if name.startswith("flips[") and runs[name].null_count() < runs.height]
    means = runs.group_by("sweep_value").agg(pl.col(name).mean() for name in tensors).sort("sweep_value")
    nonzero = {name: pl.when(pl.col(name) > 0).then(pl.col(name)).alias("flips") for name in tensors}
    return {name[len("flips[") : -1]: means.select("sweep_value", nonzero[name]) for name in tensors}


def _margin_panels(networks: Sequence[tuple[str, Any]], choice: str, label: str, file_name: str | None) -> tuple[Panel, ...]:
    series = []
    for number, (name, values) in enumerate(networks):
        x, y = cumulative_shares(values)
        style = {**series_look(number), "marker": None, "dash": number}
        series.append(Series(**style, name=name, x=x, y=y, step=True))
    axes = Axis(label, from_zero=True), Axis("images at or below (%)")
    return split_panels(Panel(*axes, choice=choice, file_name=file_name), series)


def _fault_free_lines(data: ReportData, points: pl.DataFrame, metric: Metric) -> list[Series]:
    """Return a horizontal guide line at each fault-free score that is known; networks of equal score share one."""
    studies = points.select("study", "model").unique(maintain_order=True).rows()
    models: dict[float, list[str]] = {}
    for model, score in {str(model): fault_free_score(data, study) for study, model in studies}.items():
        if score is not None:
            models.setdefault(score, []).append(model)
    names = {score: f"{' and '.join(shared)} without faults" for score, shared in models.items()}
    x = _positions(points.sort("sweep_value", nulls_last=True))
    ends = [x[0], x[-1]]
    return [
        Series(name=name, x=ends, y=[metric.factor * score] * 2, thin=True, **reference_look(number),
               labels=[f"{name}: {metric.text(score)}"] * 2)
        for number, (score, name) in enumerate(names.items())
    ]  # fmt: skip


def _swept_axis(key: str | None, points: pl.DataFrame) -> Axis:
    """Return the axis of a swept condition, named as the technology of the first point names it."""
    return condition_axis(key, points["sweep_value"].drop_nulls().to_list(), _conditions(points["memory"][0]))


def _conditions(memory: str) -> tuple[Condition, ...]:
    """Return the conditions of a memory; none if it is not known here."""
    from weakcell.memmodels.catalogue import parse_spec
    from weakcell.memmodels.errors import WeakcellError

    try:
        return parse_spec(memory).technology.conditions
    except WeakcellError:
        return ()


def _score_axis(metric: Metric) -> Axis:
    least, most = metric.bounds
    return Axis(metric.label, bounds=(metric.factor * least, metric.factor * most))


def _without_unit(label: str) -> str:
    return re.sub(r" \([^)]*\)$", "", label)


def energy_label(unit: str) -> str:
    """Return the label of an axis of energies."""
    return "energy per inference (pJ)" if unit == "pJ" else f"energy, relative ({unit})"


def _split_by_study(points: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    parts = points.group_by(["study"], maintain_order=True)
    return [(str(study), part.sort("sweep_value", nulls_last=True)) for (study,), part in parts]


def _study_style(data: ReportData, study: str) -> dict[str, Any]:
    """Return name and look of a study's series, the same in every chart."""
    return {"name": study, **series_look(data.studies.index(study))}


def _positions(part: pl.DataFrame) -> list[Any]:
    return [row["memory"] if row["sweep_value"] is None else row["sweep_value"] for row in part.iter_rows(named=True)]


def _interval(part: pl.DataFrame, metric: Metric) -> tuple[list[Number], list[Number]] | None:
    """Return the ends of the intervals; a point of one trial may lie anywhere between the metric's bounds."""
    if part["low"].null_count() == part.height:
        return None
    least, most = metric.bounds
    low, high = part["low"].fill_null(least), part["high"].fill_null(most) if math.isfinite(most) else part["high"]
    return _scaled(low, metric), _scaled(high, metric)


def _scaled(values: pl.Series, metric: Metric) -> list[Number]:
    """Return values in the unit of the metric's axis."""
    return [None if value is None else metric.factor * value for value in values.to_list()]


def _metric_slug(data: ReportData, metric: Metric) -> str:
    """Return the metric's part of a chart's name: "accuracy" also for unchanged predictions, unless a report has both."""
    both = {"accuracy", "unchanged"} <= set(data.points["score"])
    return "accuracy" if metric.name == "unchanged" and not both else file_slug(metric.name)
