"""Intervals over trials in words: table cells, captions and the sentence for points at which no trial differed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weakcell.emulator.tasks import Metric

METHOD = "Student's t, corrected for skewness"
NO_DIFFERENCE = "no trial differed"


def interval_text(low: float | None, high: float | None, unit: str = " %") -> str:
    """Return the table cell of an interval of shares, in percent.

    Returns:
        "97.10 … 97.90 %"; "" where there is no interval (one trial); `NO_DIFFERENCE` where the interval has no width.
    """
    if low is None or high is None:
        return ""
    return NO_DIFFERENCE if low == high else f"{100 * low:.2f} … {100 * high:.2f}{unit}"


def metric_interval(metric: Metric, low: float | None, high: float | None) -> str:
    """Return the same for an interval of any metric: in percent for shares, in the metric's own unit for errors."""
    if metric.share or low is None or high is None or low == high:
        return interval_text(low, high)
    return f"{metric.text(low)} … {metric.text(high)}"


def no_difference_note(differ_below: Iterable[float | None]) -> str | None:
    """Return the sentence that explains `NO_DIFFERENCE` below a table; None if trials differed at every point.

    Args:
        differ_below: column of the same name of `weakcell.host.study.results.summary_of`.
    """
    bounds = [bound for bound in differ_below if bound is not None]
    if not bounds:
        return None
    return (
        f"{NO_DIFFERENCE.capitalize()}: all trials of the point gave the same score; with 95 % confidence, at most "
        f"{100 * max(bounds):.2g} % of further trials would give another"
    )
