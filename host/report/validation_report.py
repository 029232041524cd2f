"""Report of a validation: caption, files, figure, and the command that repeats one trial."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from weakcell.host.report.captions import describe_quantization, study_title
from weakcell.host.report.chart_model import Axis, condition_label
from weakcell.host.report.chart_specs import prediction_panel
from weakcell.host.report.matplotlib_charts import add_legend_below, label_decades, plot_panel, save_figure, share_limits
from weakcell.host.report.style import BLUE, GREY, INK, ORANGE, STYLE
from weakcell.host.validation.accuracy_curve import AccuracyCurve
from weakcell.host.validation.claims import CLAIMS, KEPT, LOST, TIED, TIED_AWAY, CheckSummary, Violation
from weakcell.host.validation.trials import Validation
from weakcell.memmodels.atomic_files import write_atomically, write_text_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCHEMA_VERSION = 2
_STRESSED = "Each point runs on those images only whose flips it brings near their bounds"


def build_repeat_command(validation: Validation, violation: Violation, hidden: bool) -> Sequence[str]:
    """Return the command that repeats the trial of a violation."""
    study = validation.resolved.study
    places = [part for target, spec in study.places for part in ("--place", f"{target}={spec}")]
    data = ["--data", study.data] if study.data else []
    die = ["--die", str(study.die)] if study.die is not None else []
    return [
        "weakcell", "validate", study.model, *data, "--memory", violation.memory, *places, "--read-every", str(study.read_every),
        "--batch", str(study.batch), "--seed", str(study.seed), *die, "--images", str(len(validation.resolved.dataset)),
        "--no-predict",
        "--first-trial", str(violation.trial), "--trials", "1", *(["--hidden"] if hidden else []),
    ]  # fmt: skip


def describe_validation(validation: Validation) -> str:
    """Return the caption: what one must know to read the numbers."""
    resolved, study = validation.resolved, validation.resolved.study
    named = list(dict.fromkeys(point.memory for point in resolved.points))
    points = "; ".join(named) if len(named) < 4 else f"{named[0]} … {named[-1]}"
    sentences = [
        f"{len(resolved.points)} points ({points}), {study.trials} trials each, weights read per {study.read_every}, seed "
        f"{study.seed}",
        *([_STRESSED] if validation.images else []),
        *describe_quantization(resolved),
        "A pair is one image (hidden checks: one neuron of one image) in one trial. Non-vacuous: 1 <= q <= bound; near: besides "
        "q >= 0.9 bound. Pairs of one trial share its flips where weights are read less often than once per image",
        *(f"{check.check}: {CLAIMS[check.check]}" for check in validation.checks),
        "Changed: the claim fails. Tied: of these, the winner shares the maximum. Tie lost: of these, argmax answers another",
        f"{validation.ties} images with a tie in the clean run are left out",
        f"The answer changed by equal codes of the last requantization, the score still highest, in {validation.rounded} pairs",
    ]
    return ". ".join(sentences) + "."


def describe_outcome(validation: Validation) -> str:
    """Return the answer in one sentence."""
    tested = sum(check.non_vacuous for check in validation.checks)
    if validation.violation_count:
        return f"{validation.violation_count:,} pairs broke a bound that was to hold, of {tested:,} that could."
    if not tested:
        return "No pair could have broken a bound: choose more flips or fewer, so that 1 <= q <= bound."
    return f"No bound was broken by {tested:,} pairs that could have."


def as_dict(validation: Validation, curve: AccuracyCurve | None = None) -> dict[str, Any]:
    """Return everything except the tallies, for JSON."""
    margins = validation.margins
    return {
        "schema_version": SCHEMA_VERSION,
        "identity": validation.resolved.identity,
        "points": [point.memory for point in validation.resolved.points],
        "violations": validation.violation_count,
        "ties": validation.ties,
        "rounded": validation.rounded,
        "mean_margin": float(margins.mean()) if len(margins) else None,
        "curve": None if curve is None else curve.frame.to_dicts(),
        "checks": [{**vars(check), "claim": CLAIMS[check.check]} for check in validation.checks],
    }


def tally_frame(validation: Validation) -> pl.DataFrame:
    """Return the pairs counted by point, check, bound, flips q and outcome, one row for each combination that occurred."""
    columns = {"point": pl.Int64, "check": pl.String, "bound": pl.Int64, "q": pl.Int64, "outcome": pl.Int64}
    keys = sorted(validation.tally)
    return pl.DataFrame(keys, schema=columns, orient="row").with_columns(
        pl.Series("pairs", [validation.tally[key] for key in keys], dtype=pl.Int64),
        pl.col("outcome").replace_strict(
            {KEPT: "kept", TIED: "tied", LOST: "lost", TIED_AWAY: "tied, a lower class answered"}, return_dtype=pl.String
        ),
        pl.lit(SCHEMA_VERSION, dtype=pl.Int32).alias("schema_version"),
    )


def write(validation: Validation, curve: AccuracyCurve | None, folder: Path, command: Sequence[str]) -> None:
    """Write the tallies, the violations, validation.json and the figure; with a curve, curve.parquet too."""
    kinds: dict[str, Any] = dict.fromkeys(("point", "trial", "die", "image", "q", "bound"), pl.Int64)
    names = list(Violation.__dataclass_fields__)
    violations = pl.DataFrame([vars(v) for v in validation.violations], schema={name: kinds.get(name, pl.String) for name in names})
    write_atomically(folder / "tallies.parquet", tally_frame(validation).write_parquet)
    write_atomically(folder / "violations.parquet", violations.write_parquet)
    if curve is not None:
        write_atomically(folder / "curve.parquet", curve.frame.write_parquet)
    text = json.dumps({**as_dict(validation, curve), "command": list(command)}, indent=2, ensure_ascii=False) + "\n"
    write_text_atomically(folder / "validation.json", text)
    paths = [folder / "validation.png", folder / "validation.svg"]
    save_figure(partial(plot_validation, validation, curve), paths, {**STYLE, "axes.grid": False})


def plot_validation(validation: Validation, curve: AccuracyCurve | None) -> Figure:
    """Plot the margins' histogram, the predicted and measured accuracy, and for each check the flips over the bound.

    Below the line flips = bound nothing may change.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    resolved = validation.resolved
    columns = (1 if curve is None else 2) + len(validation.checks)
    figure = Figure(figsize=(4.0 * columns, 4.4), layout="constrained")
    histogram, *others = figure.subplots(1, columns, squeeze=False)[0]
    histogram.hist(validation.margins, bins=60, color=BLUE)
    histogram.yaxis.set_major_locator(MaxNLocator(integer=True))
    histogram.set(title="margins of the clean network", xlabel="highest minus second-highest score", ylabel="images")
    if curve is not None:
        _plot_curve(others[0], validation, curve)
    for axes, check in zip(others[columns - 1 - len(validation.checks) :], validation.checks, strict=True):
        _plot_check(axes, validation, check)
    share_limits(others[columns - 1 - len(validation.checks) :])
    figure.suptitle(study_title(resolved, resolved.study.memory.name), fontsize=10, fontweight="bold", x=0.01, ha="left")
    return figure


def _plot_curve(axes: Axes, validation: Validation, curve: AccuracyCurve) -> None:
    """Plot accuracy over the swept value, or over the number of the point."""
    frame, study = curve.frame, validation.resolved.study
    sweep, labelled = study.sweep, validation.resolved.questions.labels is not None
    label = condition_label(sweep.key, study.memory.technology.conditions) if sweep else "point"
    panel = prediction_panel(
        frame["value"] if sweep else pl.int_range(len(frame), eager=True),
        Axis(label, "log" if sweep and sweep.logarithmic else "linear"),
        "accuracy (%)" if labelled else "answers unchanged (%)",
        predicted=None if curve.why else frame["predicted"],
        measured=frame,
    )
    plot_panel(axes, panel)
    axes.set(title="predicted and measured")
    add_legend_below(axes, 4.0)


def _plot_check(axes: Axes, validation: Validation, check: CheckSummary) -> None:
    keys = [key for key in validation.tally if key[1] == check.check]
    kept = {(bound, q) for _, _, bound, q, outcome in keys if outcome == KEPT}
    changed = {(bound, q) for _, _, bound, q, outcome in keys if outcome != KEPT}
    for pairs, colour, label in ((kept, GREY, "kept"), (changed, ORANGE, "changed")):
        if pairs:
            bounds, flips = zip(*sorted(pairs), strict=True)
            axes.scatter(bounds, flips, s=5, color=colour, alpha=0.5, linewidths=0, label=label, rasterized=True)
    most = max((bound for _, _, bound, _, _ in keys), default=1)
    line = np.linspace(0, most, 200)
    axes.plot(line, line, color=INK, linewidth=1, label="q = bound")
    axes.set_yscale("symlog", linthresh=10)
    label_decades(axes.yaxis)
    axes.set_ylim(bottom=0)
    claim = f"{check.non_vacuous:,} non-vacuous, {check.near:,} near, {check.violations:,} violations"
    axes.set_title(f"{check.check}\n{claim}", fontsize=8)
    axes.set(xlabel="bound (flips tolerated)", ylabel="flips q")
    add_legend_below(axes, 4.0)
