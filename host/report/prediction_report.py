"""Report of a prediction: caption, files and figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from weakcell.emulator.prediction.scoring import find_scored_layer
from weakcell.host.analysis.prediction import SCHEMA_VERSION, PredictionStudy
from weakcell.host.report.answers import TOLERANCE
from weakcell.host.report.captions import METHOD, describe_quantization, describe_task_output, explain_no_difference, study_title
from weakcell.host.report.chart_model import Axis, condition_label
from weakcell.host.report.chart_specs import prediction_panel
from weakcell.host.report.data import point_label
from weakcell.host.report.matplotlib_charts import add_legend_below, plot_panel, save_figure
from weakcell.host.report.style import INK
from weakcell.host.table_files import write_csv
from weakcell.memmodels.atomic_files import write_atomically, write_text_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SAMPLED_BY_BIT = (
    "Weights that serve many pixels are drawn bit by bit, once per image; sums of all other layers are drawn from their law"
)


def describe_prediction(predicted: PredictionStudy) -> str:
    """Return the caption: what one must know to read the numbers."""
    resolved, study = predicted.resolved, predicted.resolved.study
    one, other = resolved.points[0].memory, resolved.points[-1].memory
    worked_out = find_scored_layer(resolved.network, resolved.workload.task) is not None
    ending = "the last layer's probabilities are worked out" if worked_out else "the output of each draw is judged"
    sentences = [
        one if one == other else f"{one} … {other}",
        f"Predicted: the mean over all dies and draws, weights read per {study.read_every}; how trials or dies spread around it is "
        "not predicted",
        f"{_SAMPLED_BY_BIT}, {predicted.samples} times per image; {ending}. Where few "
        "flips matter to a sum, they are drawn one by one",
        f"±: half the width of the 95 % interval of that mean: the sampling error of these draws (seed {study.seed}) and "
        f"a bound of the bias of approximate laws (at most {100 * max(one.bias for one in predicted.predictions):.2g} points)",
        *describe_quantization(resolved),
        describe_task_output(resolved),
        f"{predicted.seconds:.2g} s",
    ]
    if predicted.measured is not None:
        sentences.append(
            f"Measured: {study.trials} trials per point in {predicted.measured.seconds:.2g} s, 95 % interval of the mean "
            f"({METHOD}) over trials; outside: by how much the prediction lies outside it"
        )
    if predicted.measured is not None and (note := explain_no_difference(predicted.measured.summary["differ_below"])):
        sentences.append(note)
    return ". ".join(sentences) + "."


def describe_answer(predicted: PredictionStudy) -> str:
    """Return up to which point, in the order of flip rates, less than one point of the score is lost."""
    words = "accuracy" if predicted.labelled else "unchanged answers"
    clean = predicted.resolved.questions.fault_free_accuracy
    reference = 1.0 if clean is None else clean
    rows = sorted(predicted.frame.to_dicts(), key=lambda row: float(row["flip_rate"]))
    scores = [row["accuracy"] if predicted.labelled else 1 - row["changed"] for row in rows]
    usable = [reference - score + row["half_width"] <= TOLERANCE for row, score in zip(rows, scores, strict=True)]
    good = usable.index(False) if False in usable else len(usable)
    limit = f"{100 * TOLERANCE:g} point"
    if good == len(rows):
        worst = scores.index(min(scores))
        return (
            f"Less than {limit} of {words} is lost everywhere; at least {100 * scores[worst]:.2f} %, at {point_label(rows[worst])}."
        )
    lost = f"{point_label(rows[good])} loses {100 * (reference - scores[good]):.2f} ± {100 * rows[good]['half_width']:.2f} points"
    if not good:
        return f"No point is certain to lose less than {limit} of {words}: {lost}."
    return f"Less than {limit} of {words} is lost up to {point_label(rows[good - 1])}; {lost}."


def describe_briefly(predicted: PredictionStudy) -> list[str]:
    """Return short lines that say what the numbers of the table mean."""
    lines = ["Predicted: the mean over all dies and draws. ±: 95 %, of sampling and bias."]
    if predicted.measured is not None:
        trials = predicted.resolved.study.trials
        lines.append(f"Measured: {trials} trials per point. Outside: distance to the interval.")
    return lines


def write(predicted: PredictionStudy, folder: Path, command: Sequence[str]) -> None:
    """Write prediction.parquet and .csv (one row per point), prediction.json, prediction.png and .svg."""
    frame = predicted.frame
    write_atomically(folder / "prediction.parquet", frame.write_parquet)
    write_atomically(folder / "prediction.csv", partial(write_csv, frame))
    content = {
        "schema_version": SCHEMA_VERSION,
        "identity": predicted.resolved.identity,
        "samples": predicted.samples,
        "caption": describe_prediction(predicted),
        "command": list(command),
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_text_atomically(folder / "prediction.json", text)
    save_figure(partial(plot_prediction, predicted), [folder / "prediction.png", folder / "prediction.svg"])


def plot_prediction(predicted: PredictionStudy) -> Figure:
    """Plot the predicted curve, and the measured points if there are any."""
    from matplotlib.figure import Figure

    frame, study = predicted.frame, predicted.resolved.study
    logarithmic = study.sweep is not None and study.sweep.logarithmic
    label = condition_label(study.sweep.key, study.memory.technology.conditions) if study.sweep else ""
    panel = prediction_panel(
        frame["sweep_value"] if study.sweep else pl.zeros(len(frame), eager=True),
        Axis(label, "log" if logarithmic else "linear"),
        "accuracy (%)" if predicted.labelled else "answers unchanged (%)",
        predicted=frame["accuracy"] if predicted.labelled else 1 - frame["changed"],
        measured=None if predicted.measured is None else frame.select("measured", "low", "high"),
    )
    figure = Figure(figsize=(6.2, 4.0), layout="constrained")
    axes = figure.subplots()
    plot_panel(axes, panel)
    clean = predicted.resolved.questions.fault_free_accuracy
    label = "all answers unchanged" if clean is None else f"fault-free {100 * clean:.2f} %"
    axes.axhline(100.0 if clean is None else 100 * clean, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), label=label)
    figure.set_figheight(4.0 + 0.16 * add_legend_below(axes, 6.2))
    figure.suptitle(study_title(predicted.resolved, study.memory.name), fontsize=10, fontweight="bold", x=0.01, ha="left")
    return figure
