"""What the stored runs say: groups of runs that differ in their seed alone, their curves, gains, break points and correlations.

Reads `runs.csv` and `curves.csv` as `grid.collect` writes them. Shares are in [0, 1]; intervals are Student's t over seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from weakcell.emulator import mean_interval
from weakcell.host.train.loss_spec import LOSSES, LossSpec, name_stored_loss

Floats = npt.NDArray[np.float64]
RESULTS = Path(__file__).parent / "results"
VALIDATION = RESULTS / "validation"
_FIRST_RATE = 1e-3
"""Learning rate of the first runs, whose rows do not state it."""


class Task(NamedTuple):
    """What one compares within. `quantizer` and `images` are None for power-of-two steps and the whole training part."""

    data: str
    network: str
    width: float
    bits: int
    quantizer: str | None = None
    images: int | None = None


@dataclass(frozen=True)
class Setting:
    """What the runs of a group share."""

    task: Task
    loss: str
    flips: str | None
    gradient: str
    tolerance: str | None
    epochs: int
    largest: float
    output_scale: str | None = None
    rate: float | None = None

    @property
    def label(self) -> str:
        """The loss, its margin in logits and as share of the largest output, and what else it was trained with."""
        spec = LossSpec.parse(self.loss)
        words = [LOSSES[spec.name].label]
        if spec.rls is not None:
            words.append(f"m = {spec.margin:g} (RLS {100 * spec.rls:.3g} %)")
        elif spec.margin is not None:
            share = spec.margin if spec.relative else spec.margin / spec.scale / self.largest
            words.append(f"{LOSSES[spec.name].margin} = {share * self.largest:.4g} ({100 * share:.3g} %)")
        if spec.name == "cel" and spec.scale == 1 and self.output_scale is None:
            words.append("on raw sums")
        if spec.scale != 1:
            words.append("on logits/√K" if abs(spec.scale * math.sqrt(self.fan_in) - 1) < 1e-3 else f"on {spec.scale:.3g} × logits")
        if self.output_scale is not None:
            words.append("with output scale")
        if self.tolerance is not None:
            words.append("+ neurons λ = {}, δ = {}".format(*self.tolerance.split(",")))
        if self.flips is not None:
            rate = self.flips.rpartition("=")[2]
            words.append(f"+ flips {100 * float(rate):g} %" + (", plain" if self.gradient == "plain" else ""))
        return " ".join(words)

    @property
    def fan_in(self) -> float:
        """Inputs of the last layer, K."""
        bits, half = self.task.bits, 2.0 ** (self.task.bits - 1)
        largest_input = 1.0 if bits == 1 else (2**bits - 1) * 2.0 ** (2 - bits)
        return (self.largest - half) / half / largest_input if self.task.quantizer == "min-max" else self.largest / largest_input

    @property
    def plain_cel(self) -> bool:
        """Whether it is a baseline: cross entropy and nothing else, on whatever scale."""
        return self.loss.startswith("cel") and self.flips is None and self.tolerance is None


@dataclass(frozen=True, eq=False)
class Group:
    """The runs of one setting, by seed: `facts` a row per seed, `curves` (seeds, points) accuracies at `points`."""

    setting: Setting
    seeds: tuple[int, ...]
    facts: pl.DataFrame
    points: Floats
    curves: Floats

    def at(self, rate: float) -> Floats:
        """The seeds' accuracies at a bit error rate; NaN where the sweep does not hold it."""
        nearest = int(np.abs(self.points - rate).argmin())
        found: Floats = self.curves[:, nearest]
        return found if abs(self.points[nearest] - rate) < 1e-9 else np.full_like(found, np.nan)

    def mean(self, column: str) -> float:
        """Mean over seeds of a column of `facts`; NaN where it is empty."""
        value = self.facts[column].mean()
        return float(value) if isinstance(value, int | float) else math.nan

    @property
    def scaled_margin(self) -> float:
        """Mean logit margin after the output scale of the training, learned or fixed: equation 1 of MCEL's paper."""
        learned = [row.get("learned_scale") for row in self.facts.iter_rows(named=True)]
        scales = np.array([1.0 if value is None else value for value in learned])
        return float((self.facts["margin"].to_numpy() * scales).mean()) * LossSpec.parse(self.setting.loss).scale

    @property
    def break_point(self) -> float:
        """The lowest rate of the sweep at which the mean accuracy is 10 points below that at 0; infinite if it never is."""
        mean = self.curves.mean(axis=0)
        below = np.flatnonzero(mean < mean[0] - 0.1)
        return float(self.points[below[0]]) if below.size else math.inf


def read_table(path: Path) -> pl.DataFrame:
    """One of the two files; ids are text even where all are digits."""
    return pl.read_csv(path, schema_overrides={"id": pl.String})


def load_groups(folder: Path = RESULTS) -> list[Group]:
    """All groups of the stored runs: tasks in the order of the file, losses in each as in `LOSSES`, flips last."""
    runs, curves = read_table(folder / "runs.csv"), read_table(folder / "curves.csv")
    by_setting: dict[Setting, list[dict[str, object]]] = {}
    for row in runs.iter_rows(named=True):
        quantizer = row.get("quantizer")
        task = Task(
            row["data"], row["network"], float(row["width"]), row["bits"],
            None if quantizer == "power-of-two" else quantizer, row["images"],
        )  # fmt: skip
        loss = name_stored_loss(row["loss"])
        setting = Setting(
            task, loss, row["flips"], row["gradient"], row["tolerance"], row["epochs"], row["largest_output"],
            row.get("output_scale"), row.get("rate") or _FIRST_RATE,
        )  # fmt: skip
        by_setting.setdefault(setting, []).append(row)
    mean = curves.group_by("id", "value").agg(pl.col("accuracy").mean()).sort("value")
    groups = []
    for setting, rows in by_setting.items():
        ordered = sorted(rows, key=lambda row: int(str(row["seed"])))
        drawn = [mean.filter(pl.col("id") == row["id"]) for row in ordered]
        points = drawn[0]["value"].to_numpy()
        accuracies = np.array([curve["accuracy"].to_numpy() for curve in drawn])
        seeds = tuple(int(str(row["seed"])) for row in ordered)
        groups.append(Group(setting, seeds, pl.DataFrame(ordered, infer_schema_length=None), points, accuracies))
    tasks = list(dict.fromkeys(group.setting.task for group in groups))
    return sorted(groups, key=lambda group: (tasks.index(group.setting.task), *_rank(group.setting)))


def _rank(setting: Setting) -> tuple[bool, int, float, str, str]:
    spec = LossSpec.parse(setting.loss)
    scale = -spec.scale if setting.output_scale is None else 0.0
    return setting.flips is not None, list(LOSSES).index(spec.name), scale, setting.gradient, setting.tolerance or ""


@dataclass(frozen=True)
class Gain:
    """What one group has over another, seed by seed: mean and interval of the difference (NaN for a single seed)."""

    mean: float
    low: float
    high: float
    seeds: int


def gain(group: Group, base: Group, rate: float | None) -> Gain:
    """Accuracy of `group` minus that of `base` at a rate, or its mean over the sweep if there is none, over the seeds of both."""
    shared = [seed for seed in group.seeds if seed in base.seeds]

    def scores(of: Group) -> Floats:
        values: Floats = of.curves.mean(axis=1) if rate is None else of.at(rate)
        return values[[of.seeds.index(seed) for seed in shared]]

    mean, low, high = mean_interval((scores(group) - scores(base)).tolist(), skewed=False)
    return Gain(mean, low, high, len(shared))


@dataclass(frozen=True)
class Correlation:
    """Pearson's and Spearman's coefficient over so many networks."""

    pearson: float
    spearman: float
    networks: int


def correlation(groups: list[Group], column: str) -> Correlation:
    """Of a column of the facts with the mean accuracy over the sweep, over all runs of the groups that have it."""
    from scipy.stats import pearsonr, spearmanr

    pairs = [
        (value, curve.mean())
        for group in groups
        for value, curve in zip(group.facts[column].to_list(), group.curves, strict=True)
        if value is not None
    ]
    if len(pairs) < 3:
        return Correlation(math.nan, math.nan, len(pairs))
    x, y = zip(*pairs, strict=True)
    return Correlation(float(pearsonr(x, y).statistic), float(spearmanr(x, y).statistic), len(pairs))
