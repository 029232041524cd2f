"""Margins of a network on a data set: the summary, and one row per image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from weakcell import emulator
from weakcell.emulator import margins as mg
from weakcell.emulator.margins.certificate import Certificate, certify
from weakcell.emulator.tasks import Asked
from weakcell.host.atomic_files import write_atomically
from weakcell.host.datasets.registry import Dataset
from weakcell.host.study.workload import Workload, open_workload

SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False)
class MarginReport:
    """summary: means. frame: per image, see `_frame`. certificate: of all images, None if none was asked for."""

    workload: Workload
    summary: mg.MarginSummary
    frame: pl.DataFrame
    certificate: Certificate | None

    @property
    def title(self) -> str:
        return f"{self.workload.model.name} on {self.workload.dataset.name} ({len(self.workload.dataset)} images)"

    def lines(self) -> list[tuple[str, str]]:
        """The summary as words and numbers."""
        s, made = self.summary, self.certificate
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
        """Everything but the images, for JSON."""
        return {"schema_version": SCHEMA_VERSION, "title": self.title, "lines": dict(self.lines()), **asdict(self.summary)}


def report_margins(
    model: str,
    data: str | None,
    data_dir: Path | None = None,
    images: int | None = None,
    budget: int = 0,
    asked: Asked | None = None,
) -> MarginReport:
    """One clean pass; budget: of the certificates, 0 for none. asked: task and output as the user named them."""
    return margins_on(open_workload(model, data, images, data_dir, asked=asked), budget)


def margins_on(workload: Workload, budget: int = 0) -> MarginReport:
    """Report on a workload that is open."""
    workload.demand_classes("Margins of")
    plan, inputs = workload.plan, workload.questions.inputs
    certificate = certify(plan, inputs, budget) if budget else None
    return MarginReport(workload, mg.summarize(plan, inputs), _frame(plan, workload.dataset, certificate), certificate)


def _frame(plan: emulator.Plan, dataset: Dataset, certificate: Certificate | None) -> pl.DataFrame:
    """One row per image: label (null without), answer, margin in units of the scores and as share of the largest possible score.

    bound, exact: flips of the output layer's bits that the stated bound (±1 only, else null) and the exact count tolerate.
    certified, attacked: of the whole network, null without certificates.
    """
    network, images = plan.network, len(dataset)
    head = mg.output_layer(network)
    values = emulator.infer(plan, {network.inputs[0]: dataset.x}, [head.accumulator, head.input], dynamic="image")
    margins = mg.margins_of(head.scores(values[head.accumulator]))
    exact = mg.greedy_tolerance(head, values[head.input], margins)
    exact[np.arange(images), margins.winner] = np.iinfo(np.int64).max
    columns: dict[str, Any] = {
        "label": None if dataset.y is None else dataset.y.astype(np.int64),
        "answer": margins.winner,
        "margin": margins.margin * head.unit,
        "relative_margin": margins.margin / mg.largest_score(network, head),
        "bound": mg.output_bound(margins.margin // head.scale[0]) if head.binary else None,
        "exact": exact.min(axis=1),
        "certified": None if certificate is None else certificate.tolerated,
        "attacked": None if certificate is None else certificate.attacked,
    }
    series = [pl.Series(name, [None] * images if x is None else x, pl.Int64 if x is None else None) for name, x in columns.items()]
    return pl.DataFrame([pl.Series("image", np.arange(images)), *series])


def write(found: MarginReport, folder: Path, command: Sequence[str]) -> None:
    """margins.parquet, one row per image, and margins.json."""
    write_atomically(folder / "margins.parquet", found.frame.write_parquet)
    text = json.dumps({**found.as_dict(), "command": list(command)}, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / "margins.json", lambda place: place.write_text(text, encoding="utf-8"))
