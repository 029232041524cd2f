"""Metrics by name: what a score measures, in which unit it is shown, and which way is better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from weakcell.memmodels.errors import InputError


@dataclass(frozen=True)
class Metric:
    """What a score measures.

    name: of its column in the results. words: its name in tables and captions. share: it lies between 0 and 1 and is shown in
    per cent; other metrics are 0 or more, in a unit of their own. better: the end at which it is best.
    """

    name: str
    words: str
    share: bool = True
    better: Literal["high", "low"] = "high"

    @property
    def higher(self) -> bool:
        """Whether larger values are better."""
        return self.better == "high"

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value that there can be."""
        return (0.0, 1.0 if self.share else math.inf)

    def worst(self, values: Sequence[float]) -> float:
        """The value of the worst trial."""
        return min(values) if self.higher else max(values)

    def loss(self, clean: float, faulty: float) -> float:
        """By how much a faulty score is worse than the clean one, positive where it is worse."""
        return clean - faulty if self.higher else faulty - clean

    def text(self, value: float) -> str:
        """A value as people read it: 93.75 %, or 0.01234."""
        return f"{100 * value:.2f} %" if self.share else f"{value:.4g}"

    @property
    def factor(self) -> float:
        """What a value is multiplied by on an axis or in a table."""
        return 100.0 if self.share else 1.0

    @property
    def title(self) -> str:
        """Its name where there is more room."""
        return "unchanged predictions" if self.name == "unchanged" else self.words

    @property
    def label(self) -> str:
        """The label of an axis."""
        return f"{self.title} (%)" if self.share else self.title


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy"),
        Metric("unchanged", "unchanged"),
        Metric("mean_iou", "mean IoU"),
        Metric("mean_ap", "mAP 0.5:0.95"),
        Metric("mean_ap_50", "mAP 0.5"),
        Metric("mae", "mean absolute error", share=False, better="low"),
        Metric("mse", "mean squared error", share=False, better="low"),
        Metric("mean_change", "mean change", share=False, better="low"),
        Metric("perplexity", "perplexity", share=False, better="low"),
        Metric("nll", "loss per token (nats)", share=False, better="low"),
    )
}
"""Every metric that can be a score or a column, by name. mean_change: see `weakcell.emulator.tasks.values`."""

COLUMNS = tuple(name for name in METRICS if name not in ("accuracy", "unchanged"))
"""Metrics with a column of their own in the results, besides `accuracy` and `changed`."""


def get_metric(name: str | None, labelled: bool = True) -> Metric:
    """The metric of that name; where results name none, accuracy, or without labels the share of unchanged answers.

    InputError for a name that this program does not know.
    """
    if name is not None and name not in METRICS:
        raise InputError("Reading results", f"their score is {name[:40]!r}, which is no metric", "Run them again with this version")
    return METRICS[name or ("accuracy" if labelled else "unchanged")]
