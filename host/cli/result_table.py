"""The result table and its caption."""

from __future__ import annotations

from rich.table import Table

from weakcell.host.cli.terminal import show
from weakcell.host.report.captions import describe_result, format_metric_interval, name_memory, study_title
from weakcell.host.study.results import StudyResult
from weakcell.host.study.study import Point, ResolvedStudy


def show_result(result: StudyResult) -> None:
    """One line per point, under a title and above a caption that says what the numbers mean."""
    show(study_title(result.resolved), "bold")
    show(build_table(result))
    show(describe_result(result), "dim")


def build_table(result: StudyResult) -> Table:
    """The table: means over trials, interval, worst trial, changed predictions, flip rate, energy where there is one."""
    study, summary = result.resolved.study, result.summary
    energy, many = summary["energy"].null_count() == 0, study.trials > 1
    latency = summary["access_latency_ns"].null_count() == 0
    metric, clean = result.resolved.questions.metric, result.resolved.questions.fault_free_score
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(study.sweep.key if study.sweep else "memory", justify="right" if study.sweep else "left")
    table.add_column(metric.words, justify="right")
    if many:
        table.add_column("95 % interval", justify="right")
        table.add_column("worst", justify="right")
    bound = summary["bound"].null_count() < len(summary)
    if bound:
        table.add_column("95 % of dies", justify="right")
    table.add_column("changed", justify="right")
    table.add_column("flip rate", justify="right")
    if energy:
        unit = summary["energy_unit"][0]
        table.add_column(f"energy ({'pJ/inference' if unit == 'pJ' else unit})", justify="right")
    if latency:
        table.add_column("access latency (ns)", justify="right")
    for row in summary.iter_rows(named=True):
        cells = [_value(row["sweep_value"]) if study.sweep else name_memory(result.resolved), metric.text(row["mean"])]
        if many:
            cells += [format_metric_interval(metric, row["low"], row["high"]), metric.text(row["worst"])]
        if bound:
            cells.append("" if row["bound"] is None else f"{'≥' if metric.higher else '≤'} {metric.text(row['bound'])}")
        cells += [percent(row["changed"]), "" if row["flip_rate"] is None else f"{row['flip_rate']:.3g}"]
        if energy:
            cells.append(f"{row['energy']:.4g}")
        if latency:
            cells.append(f"{row['access_latency_ns']:.4g}")
        table.add_row(*cells)
    if clean is not None:
        blank = [""] * (len(table.columns) - 2)
        table.add_section()
        table.add_row("clean", metric.text(clean), *blank)
    return table


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
