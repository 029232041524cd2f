"""Margins of a network on a data set: the summary, and one row per image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from weakcell import emulator
from weakcell.emulator import margins as mg
from weakcell.emulator.margins.certificate import Certificate, certify
from weakcell.host.report.displayed_result import DisplayedResult
from weakcell.host.report.simple_figures import plot_histogram
from weakcell.host.study.workload import Workload
from weakcell.memmodels.atomic_files import write_atomically, write_text_atomically
from weakcell.memmodels.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA_VERSION = 1
_MOST_CERTIFIED = 1000


@dataclass(frozen=True, eq=False, repr=False)
class MarginReport(DisplayedResult):
    """Margins of a network on data: from `margins`.

    Attributes:
        workload: The network and the data.
        means: Means over the images, and of each hidden layer (`means.neurons`).
        frame: One row per image. label and answer; margin: highest minus second-highest score, in units of the scores, and
            `relative_margin` as a share of the largest possible score; bound, exact: flips in the output layer that the stated
            bound (±1 only) and the exact count tolerate; certified, attacked: flips anywhere in the network, of a certificate.
        certificate: The certificates of all images; None if none were asked for.

    Examples:
        >>> import weakcell
        >>> weakcell.margins("digits-bnn", images=50).frame.height
        50
    """

    workload: Workload
    means: mg.MarginSummary
    frame: pl.DataFrame
    certificate: Certificate | None

    @property
    def title(self) -> str:
        """Network and data in one line."""
        return f"{self.workload.model.name} on {self.workload.dataset.name} ({len(self.workload.dataset)} images)"

    @property
    def headline(self) -> str:
        """Mean margin and flips tolerated."""
        return f"{self.title}: mean margin {self.means.mean_margin:.4g}, {self.means.flips:.2f} flips of the output layer tolerated"

    @property
    def caption(self) -> str:
        """What a margin is."""
        return "Margin: highest minus second-highest score of the fault-free network. Images with a tie have margin 0."

    @property
    def summary(self) -> pl.DataFrame:
        """The means in words and numbers, one row each."""
        return pl.DataFrame(self.lines(), schema=["quantity", "value"], orient="row")

    def build_figure(self) -> Figure:
        """Plot how many images have which margin."""
        return plot_histogram(self.title, "margin (units of the scores)", self.frame["margin"].to_numpy())

    def lines(self) -> list[tuple[str, str]]:
        """Return the means in words and numbers."""
        s, made = self.means, self.certificate
        found = [
            ("mean logit margin", f"{s.mean_margin:.4g} ({100 * s.relative_margin:.2f} % of the largest possible score)"),
            ("flips in the output layer that keep an answer, mean", f"{s.flips:.2f}"),
            ("images with a tie", str(s.ties)),
        ]
        if made is None or not (alone := made.tolerated >= 0).any():
            return found
        certain, attacked = made.tolerated[alone], made.attacked[alone]
        full = f", {int((certain == made.budget).sum())} images at the budget of {made.budget}"
        return [
            *found,
            ("flips anywhere that keep an answer, certified", f"mean {certain.mean():.2f}, median {np.median(certain):g}{full}"),
            ("flips that end an answer, found", f"mean {attacked.mean():.2f}, median {np.median(attacked):g}"),
            ("certified + 1 over found, mean", f"{100 * np.mean((certain + 1) / attacked):.1f} %"),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the images, for JSON."""
        return {"schema_version": SCHEMA_VERSION, "title": self.title, "lines": dict(self.lines()), **asdict(self.means)}


def report_margins(workload: Workload, budget: int = 0) -> MarginReport:
    """Measure the margins of a workload in one fault-free pass.

    Args:
        workload: The network and the data.
        budget: Flips that a certificate is tried for; 0 for no certificates.

    Raises:
        UsageError: The output is not judged by its largest score, the network is no binarized chain, or `budget` is too large.
    """
    if budget > _MOST_CERTIFIED:
        raise UsageError(f"--certify {budget}", f"{_MOST_CERTIFIED} flips are the most that are tried", "Give a smaller number")
    workload.require_class_scores("Margins of")
    plan, inputs = workload.plan, workload.questions.inputs
    certificate = certify(plan, inputs, budget) if budget else None
    return MarginReport(workload, mg.summarize(plan, inputs), _frame(workload, certificate), certificate)


def _frame(workload: Workload, certificate: Certificate | None) -> pl.DataFrame:
    """Return one row per image; `MarginReport.frame` says what the columns are. Columns that do not apply are null."""
    plan, dataset, inputs = workload.plan, workload.dataset, workload.questions.inputs
    network, images = plan.network, len(dataset)
    head = mg.find_output_layer(network)
    values = emulator.infer(plan, inputs, [head.accumulator, head.input])
    margins = mg.compute_margins(head.scores(values[head.accumulator]))
    exact = mg.compute_output_tolerance(head, values[head.input], margins)
    exact[np.arange(images), margins.winner] = np.iinfo(np.int64).max
    columns: dict[str, Any] = {
        "label": None if dataset.y is None else dataset.y.astype(np.int64),
        "answer": margins.winner,
        "margin": margins.margin * head.unit,
        "relative_margin": margins.margin / mg.compute_score_bound(network, head),
        "bound": mg.output_bound(margins.margin // head.scale[0]) if head.binary else None,
        "exact": exact.min(axis=1),
        "certified": None if certificate is None else certificate.tolerated,
        "attacked": None if certificate is None else certificate.attacked,
    }
    series = [pl.Series(name, [None] * images if x is None else x, pl.Int64 if x is None else None) for name, x in columns.items()]
    return pl.DataFrame([pl.Series("image", np.arange(images)), *series])


def write_margins(report: MarginReport, folder: Path, command: Sequence[str]) -> None:
    """Write margins.parquet, one row per image, and margins.json."""
    write_atomically(folder / "margins.parquet", report.frame.write_parquet)
    text = json.dumps({**report.as_dict(), "command": list(command)}, indent=2, ensure_ascii=False) + "\n"
    write_text_atomically(folder / "margins.json", text)
