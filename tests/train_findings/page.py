"""`python -m tests.train_findings.page`: the tables of host/train/README.md and its figures, from the stored runs.

Tables stand between `<!-- table: NAME -->` and `<!-- end -->`; everything else in the page is written by hand. `--collect DIR`
first takes the finished runs of a folder of `weakcell train` into `results/`, those judged on the validation part into
`results/validation/`, beside the runs that are there. `--check` changes nothing and says whether the tables are up to date.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tests.train_findings.claims import (
    BASELINES,
    CLAIMS,
    EFFECT_SEEDS,
    HELD_OUT_SEED,
    answer,
    answer_effects,
    compare_predictors,
    correlate_metric,
)
from tests.train_findings.findings import RESULTS, VALIDATION, Gain, Group, Task, correlation, gain, load_groups, read_table
from weakcell.emulator import mean_interval
from weakcell.host.report.style import COLOURS, GREY
from weakcell.host.table_files import write_csv
from weakcell.host.train.training_grid import collect
from weakcell.memmodels.atomic_files import write_atomically, write_text_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROOT = Path(__file__).parents[2]
PAGE = _ROOT / "host" / "train" / "README.md"
PICTURES = _ROOT / ".github"
_RATES = {"fashion-mnist": (0.0, 0.01, 0.05, 0.1, 0.15, 0.2, 0.3), "cifar-10": (0.0, 0.01, 0.02, 0.03, 0.04, 0.06)}
_CHOICE_RATES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
_FINE_RATES = (0.0, 0.0025, 0.005, 0.01, 0.015, 0.02)
_METRICS = {
    "neuron_flips_share": "hidden neurons' flips, of fan-in",
    "output_flips": "flips tolerated, output",
    "margin_share": "MLM, of largest",
}
_COLOURS = (*COLOURS[:6], "#000000", GREY)


def tasks(groups: Sequence[Group]) -> dict[Task, list[Group]]:
    """Groups by what one compares within, in their order."""
    found: dict[Task, list[Group]] = {}
    for group in groups:
        found.setdefault(group.setting.task, []).append(group)
    return found


def title(task: Task) -> str:
    """`Fashion-MNIST, FCNN, BNN`."""
    data, network, width, bits, quantizer, images = task
    name = {"fashion-mnist": "Fashion-MNIST", "cifar-10": "CIFAR-10"}.get(data, data)
    kind = "BNN" if bits == 1 else f"{bits}-bit QNN" if quantizer is None else f"{bits}-bit QNN ({quantizer} codes)"
    part = "" if images is None else f", {images:,} images"
    return f"{name}, {network.upper()}{'' if width == 1 else f' × {width:g}'}, {kind}{part}"


# ── tables ──────────────────────────────────────────────────────────────────────────────────────────


def runs_table(groups: Sequence[Group]) -> str:
    """What was run and how long it took."""
    rows = []
    for group in groups:
        per_epoch = group.mean("train_core_seconds") / group.setting.epochs
        seconds = f"{per_epoch:.0f}", f"{group.mean('judge_seconds'):.0f}"
        accuracy = f"{100 * group.mean('validation_accuracy'):.1f}"
        rows.append(
            (title(group.setting.task), group.setting.label, str(len(group.seeds)), str(group.setting.epochs), *seconds, accuracy)
        )
    return markdown(("network", "loss", "seeds", "epochs", "core s / epoch", "judged in s", "validation %"), rows)


def accuracy_table(groups: Sequence[Group]) -> str:
    """Accuracy over bit error rates, mean over seeds and half-width of its 95 % interval, and where it breaks."""
    parts = []
    for task, members in tasks(groups).items():
        rates = _RATES[task.data] if members[0].points[-1] > _FINE_RATES[-1] else _FINE_RATES
        head = ("loss", "seeds", *(f"{100 * rate:g} %" for rate in rates), "mean of curve", "breaks at")
        rows = [
            (
                group.setting.label, str(len(group.seeds)), *(_spread(group.at(rate)) for rate in rates),
                _spread(group.curves.mean(axis=1)), _rate(group.break_point),
            )
            for group in members
        ]  # fmt: skip
        parts.append(f"**{title(task)}**\n\n" + markdown(head, rows))
    return "\n\n".join(parts)


def list_figures(groups: Sequence[Group]) -> str:
    """The figures that `write_figures` makes."""
    return "\n".join(f"![Accuracy over bit error rate, {title(task)}](../../.github/{picture(task)})" for task in tasks(groups))


def margin_table(groups: Sequence[Group]) -> str:
    """Margins in logits, as share of the largest output, as exact flips, and after the output scale against CEL's."""
    rows = []
    for task, members in tasks(groups).items():
        raw, scaled = (_base(members, output_scale) for output_scale in (False, True))
        for group in members:
            factors = (
                f"{group.mean('margin') / raw.mean('margin'):.1f}" if raw else "",
                f"{group.scaled_margin:.4g}",
                f"{group.scaled_margin / scaled.scaled_margin:.1f}" if scaled else "",
            )
            share = group.mean("neuron_flips_share")
            rows.append(
                (
                    title(task), group.setting.label, f"{group.mean('margin'):.4g}", f"{100 * group.mean('margin_share'):.1f} %",
                    f"{group.mean('output_flips'):.4g}", "" if math.isnan(share) else f"{100 * share:.2f} %", *factors,
                )
            )  # fmt: skip
    head = (
        "network", "loss", "MLM in raw sums", "of largest output", "flips tolerated, output", "hidden neurons, of fan-in",
        "× CEL on raw sums", "MLM after the scale (eq. 1)", "× CEL with output scale",
    )  # fmt: skip
    return markdown(head, rows)


def gain_table(groups: Sequence[Group]) -> str:
    """Percentage points over each CEL trained without flips, seed by seed, with the interval over seeds."""
    rows = []
    for task, members in tasks(groups).items():
        bases = [group for group in members if group.setting.plain_cel]
        for base, group in product(bases, members):
            if group.setting.plain_cel:
                continue
            gains = [gain(group, base, rate) for rate in (0.0, 0.01, 0.05, 0.1, None)]
            if gains[0].seeds:
                names = title(task), group.setting.label, base.setting.label
                rows.append((*names, str(gains[0].seeds), *(_points(found) for found in gains)))
    return markdown(("network", "loss", "over", "seeds", "0 %", "1 %", "5 %", "10 %", "mean of curve"), rows)


def correlation_table(groups: Sequence[Group]) -> str:
    """How well metrics of the fault-free network foretell its mean accuracy over the sweep."""
    rows = []
    for task, members in tasks(groups).items():
        for of, subset in (("all", members), *one_loss(members)):
            for column, name in _METRICS.items():
                found = correlation(subset, column)
                if found.networks >= 5 and not math.isnan(found.pearson):
                    numbers = str(found.networks), f"{found.pearson:.2f}", f"{found.spearman:.2f}"
                    rows.append((title(task), of, name, *numbers))
    return markdown(("network", "trained with", "metric", "networks", "Pearson", "Spearman"), rows)


def one_loss(members: Sequence[Group]) -> list[tuple[str, list[Group]]]:
    """Groups that share their loss and differ in the flips or the regularizer of their training, under that loss's label."""
    losses = dict.fromkeys((group.setting.loss, group.setting.output_scale) for group in members)
    shared = [[group for group in members if (group.setting.loss, group.setting.output_scale) == loss] for loss in losses]
    return [(f"{of[0].setting.label.split(' +')[0]}, any errors or regularizer", of) for of in shared if len(of) > 1]


def verdict_table(groups: Sequence[Group]) -> str:
    """What the stored runs say to each claim about MCEL, with the differences to every baseline."""
    rows = []
    for claim in CLAIMS:
        found = answer(claim, groups)
        if found.group is None:
            rows.append((claim.text, found.verdict, *[""] * (2 + len(BASELINES))))
            continue
        setting, base = found.group.setting, found.bases[0]
        images = "all images" if setting.task.images is None else f"{setting.task.images:,} images"
        part = f"{title(setting.task).split(', ')[1]}, {setting.epochs} epochs of {images}"
        verdict = (
            found.verdict if found.complete or found.verdict == "not run" else f"not run as asked; {found.verdict} with {part}"
        )
        gains = [None if base is None else gain(found.group, base, claim.rate) for base in found.bases]
        cells = ["" if over is None else f"{_points(over)}, {over.seeds} seed{'s' if over.seeds != 1 else ''}" for over in gains]
        factor = "" if base is None else f"{found.group.scaled_margin / base.scaled_margin:.1f}"
        rows.append((f"{claim.text} → {setting.label}", verdict, part, *cells, factor))
    head = ("claim", "verdict", "trained here", *(f"points over {baseline.name}" for baseline in BASELINES), "MLM (eq. 1), × CEL's")
    return markdown(head, rows)


def effect_table(groups: Sequence[Group]) -> str:
    """Claims about one change of a training, with the differences that it makes."""
    rates = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, None)
    rows = []
    for found in answer_effects(groups):
        seeds = gain(found.group, found.base, None).seeds
        verdict = found.verdict if seeds >= EFFECT_SEEDS else f"not run as asked; {found.verdict} with {seeds} seeds"
        compared = f"{found.group.setting.label} − {found.base.setting.label}"
        cells = [_points(gain(found.group, found.base, rate)) for rate in rates]
        rows.append((found.effect.text, verdict, title(found.group.setting.task), compared, str(seeds), *cells))
    columns = ("curve" if rate is None else f"{100 * rate:g} %" for rate in rates)
    head = ("claim", "verdict", "network", "compared", "seeds", *columns)
    return markdown(head, rows)


def metric_table(groups: Sequence[Group]) -> str:
    """The claim that metrics of the fault-free network foretell its accuracy over bit error rates, over all networks of a kind."""
    rows = []
    for task, members in tasks(groups).items():
        for column, name in _METRICS.items():
            found = correlate_metric(members, column)
            if found is not None:
                correlation = f"{found.r:+.2f} ({found.low:+.2f} … {found.high:+.2f})"
                rows.append((title(task), name, found.verdict, str(found.settings), str(found.networks), correlation))
    return markdown(("network", "metric", "verdict", "settings", "networks", "r with the mean of the curve"), rows)


def predictor_table(groups: Sequence[Group]) -> str:
    """What foretells the accuracy that binarized FCNNs keep: the margin, the neurons, or both; of all and of held-out networks."""
    rates = (0.01, 0.05, 0.1, 0.15, 0.2, 0.3)
    members = [group for group in groups if group.setting.task == Task("fashion-mnist", "fcnn", 1.0, 1)]
    rows = [
        (name, found.name, str(found.networks), *(f"{r:+.2f}" for r in found.at))
        for name, first in (("all", 0), ("trained after the formula was written", HELD_OUT_SEED))
        for found in compare_predictors(members, rates, first)
    ]
    return markdown(("networks", "foretold by", "number", *(f"r at {100 * rate:g} %" for rate in rates)), rows)


def selection_table(groups: Sequence[Group]) -> str:
    """The trials on held-out training images that choices were made by: the highest mean over these rates.

    Those of `protocol` have a finer sweep and a learning rate each; its choices are made at the claim's rate.
    """
    members = load_groups(VALIDATION)
    fine = [group for group in members if group.points[-1] <= _FINE_RATES[-1]]
    tables = []
    for chosen, rates in (([group for group in members if group not in fine], _CHOICE_RATES), (fine, _FINE_RATES)):
        rows = []
        for group in chosen:
            found = [float(group.at(rate).mean()) for rate in rates]
            cells = [f"{100 * accuracy:.1f}" for accuracy in (*found, sum(found) / len(found))]
            learning = "1e-3" if group.setting.rate in (None, 1e-3) else f"{group.setting.rate:g}"
            rows.append((title(group.setting.task), group.setting.label, learning, *cells, f"{group.mean('margin'):.4g}"))
        if rows:
            head = ("network", "loss", "learning rate", *(f"{100 * rate:g} %" for rate in rates), "mean", "MLM")
            tables.append(markdown(head, rows))
    return "\n\n".join(tables)


TABLES: dict[str, Callable[[Sequence[Group]], str]] = {
    "verdicts": verdict_table,
    "effects": effect_table,
    "metrics": metric_table,
    "predictors": predictor_table,
    "runs": runs_table,
    "selection": selection_table,
    "accuracy": accuracy_table,
    "figures": list_figures,
    "margins": margin_table,
    "gains": gain_table,
    "correlation": correlation_table,
}


def _base(members: Sequence[Group], output_scale: bool) -> Group | None:
    """Return CEL without a fixed scale, with or without the learned one."""
    plain = [group for group in members if group.setting.loss == "cel" and group.setting.plain_cel]
    return next((group for group in plain if (group.setting.output_scale is not None) == output_scale), None)


def _spread(values: np.ndarray) -> str:
    mean, low, _ = mean_interval(values.tolist(), skewed=False)
    if math.isnan(mean):
        return ""
    return f"{100 * mean:.1f}" + ("" if math.isnan(low) else f" ± {100 * (mean - low):.1f}")


def _points(found: Gain) -> str:
    if math.isnan(found.mean):
        return ""
    interval = "" if math.isnan(found.low) else f" ({100 * found.low:+.1f} … {100 * found.high:+.1f})"
    return f"{100 * found.mean:+.1f}{interval}"


def _rate(rate: float) -> str:
    return "never" if math.isinf(rate) else f"{100 * rate:g} %"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in the page's markup."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def filled(page: str, groups: Sequence[Group]) -> str:
    """The page with its tables made anew."""

    def table(found: re.Match[str]) -> str:
        return f"{found[1]}\n{TABLES[found[2]](groups)}\n{found[3]}"

    return re.sub(r"(<!-- table: (\w+) -->)\n.*?(<!-- end -->)", table, page, flags=re.DOTALL)


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────


def draw(members: Sequence[Group]) -> Figure:
    """Accuracy over the bit error rate: mean over seeds, and the range between the lowest and the highest seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, group in enumerate(members):
        colour, dashes = _COLOURS[number % len(_COLOURS)], "--" if group.setting.flips else "-"
        rates, curves = 100 * group.points, 100 * group.curves
        label = f"{group.setting.label} ({len(group.seeds)} seed{'s' if len(group.seeds) > 1 else ''})"
        axes.plot(rates, curves.mean(axis=0), dashes, color=colour, linewidth=1.5, label=label)
        if len(curves) > 1:
            axes.fill_between(rates, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="bit error rate (%)", ylabel="test accuracy (%)", ylim=(0, 100))
    axes.set_title(title(members[0].setting.task), loc="left", fontsize=10, fontweight="bold")
    axes.grid(color="#eaeef2")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def picture(task: Task) -> str:
    """The file name of a task's figure."""
    words = [task.data, task.network, "bnn" if task.bits == 1 else f"qnn{task.bits}"]
    # The first figures were named without the width of their networks.
    width = None if task.width == 1 or task.data == "cifar-10" or task.images is not None else f"x{task.width:g}"
    words += [str(word) for word in (width, task.quantizer, task.images) if word is not None]
    return f"train_{'_'.join(words)}.svg"


def write_figures(groups: Sequence[Group]) -> None:
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "weakcell", "font.size": 9}):
        for task, members in tasks(groups).items():
            figure = draw(members)
            save = lambda place, figure=figure: figure.savefig(place, format="svg", metadata={"Date": None})  # noqa: E731
            write_atomically(PICTURES / picture(task), save)


def take(folder: Path) -> None:
    """Store the finished runs of `folder` beside those stored before; a run of the same identity replaces its former self."""
    with TemporaryDirectory() as scratch:
        runs = collect(folder, into=Path(scratch))
        curves = read_table(Path(scratch) / "curves.csv") if runs.height else pl.DataFrame()
    for part, place in (("test", RESULTS), ("validation", VALIDATION)):
        taken = runs.filter(pl.col("judged_on") == part) if runs.height else runs
        if not taken.height:
            continue
        ids = taken["id"].implode()
        place.mkdir(parents=True, exist_ok=True)
        for name, new in (("runs.csv", taken), ("curves.csv", curves.filter(pl.col("id").is_in(ids)))):
            stored = read_table(place / name).filter(~pl.col("id").is_in(ids)) if (place / name).is_file() else new.clear()
            both = pl.concat([stored, new], how="diagonal_relaxed")
            write_atomically(place / name, partial(write_csv, both, float_precision=6))


def main(arguments: list[str] | None = None) -> int:
    """Collect if asked to, then write; with --check 1 if the page is not what the runs say."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.train_findings.page", description="Tables and figures from the stored runs."
    )
    parser.add_argument("--collect", type=Path, metavar="DIR", help="take the finished runs of DIR into results/ first")
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if the tables are out of date")
    options = parser.parse_args(arguments)
    if options.collect is not None:
        take(options.collect)
    groups = load_groups()
    page = PAGE.read_text(encoding="utf-8")
    made = filled(page, groups)
    if options.check:
        return int(made != page)
    write_text_atomically(PAGE, made)
    write_figures(groups)
    return 0


if __name__ == "__main__":
    sys.exit(main())
