"""What a prediction says: title, caption, files and figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weakcell.emulator.prediction.scoring import scored_layer
from weakcell.host.analysis.prediction import SCHEMA_VERSION, Predicted
from weakcell.host.atomic_files import write_atomically
from weakcell.host.report.caption import judged_of, quantization_note
from weakcell.host.report.interval_text import METHOD, no_difference_note
from weakcell.host.report.style import BLUE, INK, ORANGE, STYLE

_SAMPLED_BY_BIT = (
    "Weights that serve many pixels are drawn bit by bit, once per image; sums of all other layers are drawn from their law"
)


def title_of(predicted: Predicted) -> str:
    """Network, data and memory in one line."""
    resolved = predicted.resolved
    rules = "".join(f", {target} in {spec}" for target, spec in resolved.study.places)
    return f"{resolved.model.name} on {resolved.dataset.name} ({len(resolved.dataset)} images), {resolved.study.memory.name}{rules}"


def caption_of(predicted: Predicted) -> str:
    """What must be known to read the numbers."""
    resolved, study = predicted.resolved, predicted.resolved.study
    one, other = resolved.points[0].memory, resolved.points[-1].memory
    worked_out = scored_layer(resolved.network, resolved.workload.task) is not None
    ending = "the last layer's probabilities are worked out" if worked_out else "the output of each draw is judged"
    sentences = [
        one if one == other else f"{one} … {other}",
        f"Predicted: the mean over all dies and draws, weights read per {study.read_every}; how trials or dies spread around it is "
        "not predicted",
        f"{_SAMPLED_BY_BIT}, {predicted.samples} times per image; {ending}. Where few "
        "flips matter to a sum, they are drawn one by one",
        f"±: half the width of the 95 % interval of that mean: the sampling error of these draws (seed {study.seed}) and "
        f"a bound of the bias of approximate laws (at most {100 * max(one.bias for one in predicted.predictions):.2g} points)",
        *quantization_note(resolved),
        judged_of(resolved),
        f"{predicted.seconds:.2g} s",
    ]
    if predicted.measured is not None:
        sentences.append(
            f"Measured: {study.trials} trials per point in {predicted.measured.seconds:.2g} s, 95 % interval of the mean "
            f"({METHOD}) over trials; outside: by how much the prediction lies outside it"
        )
    if predicted.measured is not None and (note := no_difference_note(predicted.measured.summary["differ_below"])):
        sentences.append(note)
    return ". ".join(sentences) + "."


def write(predicted: Predicted, folder: Path, command: Sequence[str]) -> None:
    """prediction.parquet and .csv (one row per point), prediction.json, prediction.png and .svg."""
    frame = predicted.frame
    write_atomically(folder / "prediction.parquet", frame.write_parquet)
    write_atomically(folder / "prediction.csv", frame.write_csv)
    told = {
        "schema_version": SCHEMA_VERSION,
        "identity": predicted.resolved.identity,
        "samples": predicted.samples,
        "caption": caption_of(predicted),
        "command": list(command),
    }
    text = json.dumps(told, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / "prediction.json", lambda place: place.write_text(text, encoding="utf-8"))
    save_figure(predicted, [folder / "prediction.png", folder / "prediction.svg"])


def save_figure(predicted: Predicted, paths: Sequence[Path]) -> None:
    """The predicted curve, and the measured points if there are any."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.2, 4.0), layout="constrained")
        draw(figure.subplots(), predicted)
        figure.suptitle(title_of(predicted), fontsize=10, fontweight="bold", x=0.01, ha="left")
        for path in paths:
            undated = {"Date": None} if path.suffix == ".svg" else {}
            write_atomically(path, lambda place: figure.savefig(place, dpi=150, metadata=undated))  # noqa: B023


def draw(axes: Any, predicted: Predicted) -> None:
    """Predicted and measured curves into axes."""
    frame, sweep = predicted.frame, predicted.resolved.study.sweep
    x = frame["sweep_value"].to_numpy() if sweep else np.zeros(len(frame))
    order = np.argsort(x)
    score = frame["accuracy"] if predicted.labelled else 1 - frame["changed"]
    axes.plot(x[order], 100 * score.to_numpy()[order], color=BLUE, marker="." if len(x) < 40 else "", label="predicted")
    if predicted.measured is not None:
        mean, low, high = (100 * frame[name].cast(float).to_numpy() for name in ("measured", "low", "high"))
        reach = np.nan_to_num(np.stack([mean - low, high - mean]))
        axes.errorbar(x, mean, yerr=reach, fmt="o", color=ORANGE, markersize=3, label="measured, 95 % interval", zorder=3)
    clean = predicted.resolved.questions.fault_free_accuracy
    axes.axhline(100.0 if clean is None else 100 * clean, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    if sweep and sweep.logarithmic:
        axes.set_xscale("log")
    axes.set(xlabel=sweep.key if sweep else "", ylabel="accuracy (%)" if predicted.labelled else "answers unchanged (%)")
    axes.legend()
