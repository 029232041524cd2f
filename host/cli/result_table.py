"""The result table and its caption."""

from __future__ import annotations

from weakcell.host.cli.tables import Column, place_column, show_table
from weakcell.host.cli.terminal import show
from weakcell.host.report.captions import describe_briefly, describe_result, format_metric_interval, name_memory, study_title
from weakcell.host.study.results import StudyResult
from weakcell.host.study.study import Point, ResolvedStudy


def show_result(result: StudyResult, explain: bool = False) -> None:
    """Print title, table and caption; `explain`: the caption says everything."""
    show(study_title(result.resolved), "bold")
    show_table(build_columns(result))
    for line in [describe_result(result)] if explain else describe_briefly(result):
        show(line, "dim")


def build_columns(result: StudyResult) -> list[Column]:
    """Return means over trials, interval, worst trial, changed predictions, flip rate, and the energy where there is one."""
    study, summary, questions = result.resolved.study, result.summary, result.resolved.questions
    metric, rows = questions.metric, summary.to_dicts()
    name = name_memory(result.resolved)
    places = [_value(row["sweep_value"]) if study.sweep else name for row in rows]
    columns = [
        place_column(study.sweep.key if study.sweep else None, places),
        Column(metric.words, [metric.text(row["mean"]) for row in rows]),
    ]
    if study.trials > 1:
        intervals = [format_metric_interval(metric, row["low"], row["high"]) for row in rows]
        columns.append(Column("95 % interval", intervals))
        columns.append(Column("worst", [metric.text(row["worst"]) for row in rows], drop=4))
    if summary["bound"].null_count() < len(summary):
        sign = "≥" if metric.higher else "≤"
        bounds = ["" if row["bound"] is None else f"{sign} {metric.text(row['bound'])}" for row in rows]
        columns.append(Column("95 % of dies", bounds, drop=1))
    columns.append(Column("changed", [percent(row["changed"]) for row in rows], drop=3))
    flip_rates = ["" if row["flip_rate"] is None else f"{row['flip_rate']:.3g}" for row in rows]
    columns.append(Column("flip rate", flip_rates, drop=2, short="flips"))
    if summary["energy"].null_count() == 0:
        unit = summary["energy_unit"][0]
        shown, short = ("pJ/inference", "energy pJ") if unit == "pJ" else (unit, unit)
        columns.append(Column(f"energy ({shown})", [f"{row['energy']:.4g}" for row in rows], short=short))
    if summary["access_latency_ns"].null_count() == 0:
        latencies = [f"{row['access_latency_ns']:.4g}" for row in rows]
        columns.append(Column("access latency (ns)", latencies, drop=5, short="ns"))
    score = questions.fault_free_score
    return add_fault_free_row(columns, None if score is None else metric.text(score))


def add_fault_free_row(columns: list[Column], score: str | None) -> list[Column]:
    """Return the columns with a last row for the network without faults; unchanged if its score is not known."""
    if score is None:
        return columns
    last = ["fault-free", score, *[""] * (len(columns) - 2)]
    return [column.extended(cell) for column, cell in zip(columns, last, strict=True)]


def format_point(point: Point, resolved: ResolvedStudy) -> str:
    """A point in a few characters."""
    sweep = resolved.study.sweep
    return f"{sweep.key}={_value(point.value)}" if sweep else str(resolved.study.memory)


def percent(share: float) -> str:
    """0.9375 -> 93.75 %."""
    return f"{100 * share:.2f} %"


def duration(seconds: float) -> str:
    """Seconds in a unit that people read."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _value(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
