"""The answers of a report: for each study its best usable point, what it saves, and what limits it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from weakcell.emulator.tasks import Metric
from weakcell.host.report.captions import explain_no_difference, format_metric_interval
from weakcell.host.report.data import ReportData, energy_varies, fault_free_score, find_metric, point_label

TOLERANCE = 0.01
"""The loss of accuracy up to which a point is usable."""

HEADINGS = ("network", "memory", "best usable point", "energy saved", "score there", "without faults", "what limits it")
USABLE = (
    f"A point is usable if its whole 95 % interval loses less than {100 * TOLERANCE:g} point of the fault-free score. The best one "
    "needs the least energy; where no energy depends on the condition, it is the one with most flips."
)


@dataclass(frozen=True)
class Answer:
    """What a study found, in words.

    Attributes:
        study: its name.
        network, memory: what ran, and in which memory.
        point: the best usable operating point; "none" if there is none.
        saving: of energy, relative to the study's point of most energy; or why there is none.
        score: mean and interval at that point, or at the best point if none is usable.
        fault_free: the score without faults; "" if it is not known.
        limit: the next worse point, and what it loses.
    """

    study: str
    network: str
    memory: str
    point: str
    saving: str
    score: str
    fault_free: str
    limit: str

    @property
    def cells(self) -> tuple[str, ...]:
        """Return the cells of a table under `HEADINGS`."""
        return (self.network, self.memory, self.point, self.saving, self.score, self.fault_free, self.limit)


def find_answers(data: ReportData) -> list[Answer]:
    """Return one answer per study, in the order of the studies."""
    return [_find_answer(data, study) for study in data.studies]


def summarize(data: ReportData) -> list[str]:
    """Return what was run, the answer of each study, and what "no trial differed" means, as sentences."""
    runs, points = data.runs, data.points
    text = [
        f"{runs.height:,} runs of {_count(runs['model'].n_unique(), 'network')} at {_count(points.height, 'operating point')} in "
        f"{_count(len(data.studies), 'study', 'studies')}; {data.intervals}."
    ]
    text += [_say(data, answer) for answer in find_answers(data)]
    if note := explain_no_difference(points["differ_below"]):
        text.append(f"{note}.")
    return text


def _say(data: ReportData, answer: Answer) -> str:
    """Return an answer as a sentence."""
    words = find_metric(data, answer.study).words
    reference = f" ({answer.fault_free} without faults)" if answer.fault_free else ""
    if answer.point == "none":
        return f"{answer.study}: no point loses less than {100 * TOLERANCE:g} point; best {words} {answer.score}{reference}."
    saved = f", energy saved {answer.saving}" if answer.saving.endswith(")") else ""
    return f"{answer.study}: usable down to {answer.point}, {words} {answer.score}{reference}{saved}; limit: {answer.limit}."


def _find_answer(data: ReportData, study: str) -> Answer:
    points = data.points.filter(pl.col("study") == study)
    metric, clean = find_metric(data, study), fault_free_score(data, study)
    network = str(points["model"][0])
    names = study, network, study.removeprefix(f"{network}, ")
    fault_free = "" if clean is None else metric.text(clean)
    if not metric.share:
        return _answer_errors(names, points, metric, fault_free)
    reference = 1.0 if clean is None else clean
    by_energy = energy_varies(points)
    # from the safest to the boldest point: falling energy, or rising flip rate
    ranked = points.sort(["energy", "mean"], descending=[True, False]) if by_energy else points.sort("flip_rate", "changed")
    rows = ranked.with_columns((reference - pl.coalesce("low", "mean")).alias("loss")).to_dicts()
    usable = [number for number, row in enumerate(rows) if row["loss"] <= TOLERANCE]
    if not usable:
        best = max(rows, key=lambda row: float(row["mean"]))
        lost = _describe_loss(best, reference)
        return Answer(*names, "none", _why_no_saving(points), _score(metric, best), fault_free, f"the best point: {lost}")
    best = rows[usable[-1]]
    saving = _why_no_saving(points)
    if by_energy:
        dearest = points.sort("energy", descending=True).row(0, named=True)
        saved = 1.0 - best["energy"] / dearest["energy"]
        saving = f"{100 * saved:.2f} % (against {point_label(dearest)})" if saved > 0.0005 else "none"
    limit = "nothing in this sweep: its last point is usable"
    for worse in rows[usable[-1] + 1 :][:1]:
        limit = _describe_loss(worse, reference)
    return Answer(*names, point_label(best), saving, _score(metric, best), fault_free, limit)


def _answer_errors(names: tuple[str, str, str], points: pl.DataFrame, metric: Metric, fault_free: str) -> Answer:
    """Return the smallest and the largest error: errors have no common scale, so no point is called usable."""
    ordered = points.sort("mean")
    best, worst = ordered.row(0, named=True), ordered.row(-1, named=True)
    limit = f"{metric.words} grows to {metric.text(worst['mean'])} at {point_label(worst)}"
    point = f"{point_label(best)} (smallest error)"
    return Answer(*names, point, _why_no_saving(points), _score(metric, best), fault_free, limit)


def _why_no_saving(points: pl.DataFrame) -> str:
    if points["energy"].null_count():
        return "energy not published"
    if points.height == 1:
        return "one point only"
    return "" if energy_varies(points) else f"none: {points['sweep_key'][0] or 'the memory'} does not change the energy"


def _score(metric: Metric, point: dict[str, Any]) -> str:
    interval = format_metric_interval(metric, point["low"], point["high"])
    return f"{metric.text(point['mean'])} ({interval})" if interval else metric.text(point["mean"])


def _describe_loss(point: dict[str, Any], reference: float) -> str:
    """Return why a point is not usable: its mean, or too few trials for a narrow interval."""
    loss, most = 100 * (reference - point["mean"]), 100 * point["loss"]
    if loss <= 100 * TOLERANCE:
        return f"the interval at {point_label(point)} reaches {most:.2f} points below; more trials narrow it"
    return f"{point_label(point)} loses {loss:.2f} points" + (f", perhaps {most:.2f}" if point["low"] is not None else "")


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
