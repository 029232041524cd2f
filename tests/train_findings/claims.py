"""Claims of the papers as comparisons of stored runs, and the verdicts that the runs allow.

A verdict about MCEL needs every baseline: CEL with the learned output scale (the paper's), and CEL on logits/√K (as good, at no
cost). CEL on raw sums is shown, but decides nothing. Differences are paired by seed, with Student's t-intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import pearsonr

from tests.train_findings.findings import Gain, Group, Setting, Task, gain
from weakcell.host.train.loss_spec import LossSpec

Floats = npt.NDArray[np.float64]
Verdict = Literal["found", "found in part", "not found", "not run"]
SEEDS = 3
EFFECT_SEEDS = 5


@dataclass(frozen=True)
class Claim:
    """A comparison of a loss with cross entropy.

    Attributes:
        key: Name for `protocol`.
        text: The claim with the paper's figure.
        task: What is trained.
        losses: SPECs of the loss that the claim is about; the protocol chooses one of them.
        rate: Bit error rate of the comparison.
        epochs: The fewest epochs that answer it.
    """

    key: str
    text: str
    task: Task
    losses: tuple[str, ...]
    rate: float
    epochs: int


def _margins(*margins: int) -> tuple[str, ...]:
    return tuple(f"mcel:m={margin},L=100" for margin in margins)


def _fashion(bits: int) -> Task:
    return Task("fashion-mnist", "vgg3", 1.0, bits, None if bits == 1 else "min-max")


CLAIMS = (
    Claim("fashion-4", "MCEL over CEL, Fashion-MNIST, VGG3, 4 bits, m = 32, 1 %: +15.32", _fashion(4), _margins(32), 0.01, 20),
    Claim("fashion-2", "The same, 2 bits: more robust", _fashion(2), _margins(8, 32, 128), 0.01, 20),
    Claim("fashion-8", "The same, 8 bits: little gain", _fashion(8), _margins(8, 32, 128), 0.01, 20),
    Claim("fashion-1", "The same, BNN: more robust", _fashion(1), _margins(32, 64, 128), 0.01, 20),
    Claim(
        "svhn-4", "MCEL over CEL, SVHN, VGG7, 4 bits, 1 %: about +12",
        Task("svhn", "vgg7", 0.5, 4, "min-max"), _margins(64), 0.01, 30,
    ),
    Claim("svhn-1", "The same, BNN: more robust", Task("svhn", "vgg7", 0.5, 1), _margins(64), 0.01, 30),
    Claim(
        "cifar-4", "MCEL over CEL, CIFAR-10, MobileNetV2, 4 bits: clearly more robust",
        Task("cifar-10", "mobilenetv2", 1.0, 4, "min-max"), _margins(32, 64, 128), 0.01, 30,
    ),
    Claim(
        "imagenette-4", "MCEL over CEL, Imagenette 64 × 64, ResNet18, 4 bits: some gain",
        Task("imagenette", "resnet18", 1.0, 4, "min-max"), _margins(32, 64, 128), 0.01, 30,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Baseline:
    """Cross entropy on outputs of one scale. `decides` says whether a verdict needs it."""

    name: str
    decides: bool

    def matches(self, group: Group) -> bool:
        """Return whether a group was trained with it."""
        setting = group.setting
        if not setting.plain_cel:
            return False
        scale = LossSpec.parse(setting.loss).scale
        if self.name == "CEL with output scale":
            return setting.output_scale is not None and scale == 1
        if self.name == "CEL on raw sums":
            return setting.output_scale is None and scale == 1
        return setting.output_scale is None and abs(scale * math.sqrt(setting.fan_in) - 1) < 1e-3


BASELINES = (
    Baseline("CEL with output scale", True),
    Baseline("CEL on logits/√K", True),
    Baseline("CEL on raw sums", False),
)


@dataclass(frozen=True)
class Answer:
    """What the stored runs say to a claim.

    Attributes:
        verdict: As the page's key explains.
        group: The runs of the loss that the claim is about; None if there are none.
        bases: The runs of each baseline, in the order of `BASELINES`; None where there are none.
        complete: Whether they had the width, the epochs and the images that the claim asks for.
    """

    verdict: Verdict
    group: Group | None
    bases: tuple[Group | None, ...]
    complete: bool


def answer(claim: Claim, groups: Sequence[Group]) -> Answer:
    """Return the verdict of the stored runs: of the widest networks, and of those the ones with the most images and epochs.

    Runs that allow no verdict yet count only if no others do.
    """
    plain = [group for group in groups if group.setting.flips is None and group.setting.tolerance is None]
    runs = [group for group in plain if group.setting.task._replace(images=None, width=claim.task.width) == claim.task]
    asked = sorted((group for group in runs if group.setting.loss in claim.losses), key=_size, reverse=True)
    if not asked:
        return Answer("not run", None, (None,) * len(BASELINES), False)
    answers = [_compare(claim, group, runs) for group in asked]
    return next((found for found in answers if found.verdict != "not run"), answers[0])


def _compare(claim: Claim, group: Group, runs: Sequence[Group]) -> Answer:
    same = [run for run in runs if (run.setting.task, run.setting.epochs) == (group.setting.task, group.setting.epochs)]
    bases = tuple(next((run for run in same if baseline.matches(run)), None) for baseline in BASELINES)
    deciding = [base for base, baseline in zip(bases, BASELINES, strict=True) if baseline.decides]
    gains = [None if base is None else gain(group, base, claim.rate) for base in deciding]
    complete = group.setting.epochs >= claim.epochs and group.setting.task == claim.task
    if any(found is None or found.seeds < SEEDS for found in gains):
        return Answer("not run", group, bases, complete)
    above = [found is not None and found.low > 0 for found in gains]
    verdict: Verdict = "found" if all(above) else "found in part" if any(above) else "not found"
    return Answer(verdict, group, bases, complete)


def _size(group: Group) -> tuple[float, float, int, int]:
    task = group.setting.task
    return task.width, math.inf if task.images is None else task.images, group.setting.epochs, len(group.seeds)


@dataclass(frozen=True)
class Effect:
    """A claim about one change of a training: with it and without it, everything else equal.

    Attributes:
        text: The claim.
        without: A setting → the same setting without the change; the setting itself if it does not have it.
        rates: Bit error rates whose differences decide; None is the mean of the curve.
    """

    text: str
    without: Callable[[Setting], Setting]
    rates: tuple[float | None, ...]


def _with_plain_gradient(setting: Setting) -> Setting:
    return setting if setting.flips is None else replace(setting, gradient="plain")


EFFECTS = (
    Effect("Straight-through flip training over-fits less: better below its rate than the plain gradient", _with_plain_gradient,
           (0.0, 0.01, 0.05)),
    Effect("The regularizer of hidden neurons buys tolerance", lambda setting: replace(setting, tolerance=None), (0.1, 0.2, None)),
)  # fmt: skip


@dataclass(frozen=True)
class EffectAnswer:
    """What the runs of one setting say to an effect, against those of the setting without the change."""

    effect: Effect
    group: Group
    base: Group
    verdict: Verdict

    @property
    def gains(self) -> list[Gain]:
        """Differences at the rates that decide."""
        return [gain(self.group, self.base, rate) for rate in self.effect.rates]


def answer_effects(groups: Sequence[Group]) -> list[EffectAnswer]:
    """Return an answer for every pair of settings that differ in the change of an effect alone and share two seeds or more."""
    by_setting = {group.setting: group for group in groups}
    answers = []
    for effect in EFFECTS:
        for group in groups:
            base = by_setting.get(effect.without(group.setting))
            if base is None or base is group or len(set(base.seeds) & set(group.seeds)) < 2:
                continue
            above = [gain(group, base, rate).low > 0 for rate in effect.rates]
            verdict: Verdict = "found" if all(above) else "found in part" if any(above) else "not found"
            answers.append(EffectAnswer(effect, group, base, verdict))
    return answers


@dataclass(frozen=True)
class MetricAnswer:
    """Correlation of a metric of fault-free networks with the mean accuracy over the sweep, and its 95 % interval.

    The unit is the setting, by its means over seeds: seeds of a setting are not independent networks.
    """

    settings: int
    networks: int
    r: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """Found if the whole interval is above zero."""
        return "found" if self.low > 0 else "not found"


def correlate_metric(groups: Sequence[Group], column: str) -> MetricAnswer | None:
    """Correlate a column of the facts with the mean accuracy; None for fewer than four settings that have it."""
    having = [group for group in groups if not math.isnan(group.mean(column))]
    if len(having) < 4:
        return None
    metric, accuracy = np.array([(group.mean(column), group.curves.mean()) for group in having]).T
    found = pearsonr(metric, accuracy)
    interval = found.confidence_interval(0.95)
    networks = sum(len(group.seeds) for group in having)
    return MetricAnswer(len(having), networks, float(found.statistic), float(interval.low), float(interval.high))


HELD_OUT_SEED = 4
"""Networks of this seed and later were trained after `predict_kept_share` was written."""


def predict_kept_share(margin: float, neuron_share: float, rates: Floats, fan_in: float) -> Floats:
    """Predict the share of its accuracy that a binarized network with two hidden layers keeps under bit errors. Nothing is fitted.

    Each product of a sum has the wrong sign with probability r: its weight or its input is flipped. A sum of K products shrinks by
    1 − 2r and gets noise of variance 4Kr(1 − r); the difference of two outputs gets twice that. Distances to thresholds and margins
    are taken as half-normal with the measured mean, so noise of σ changes the sign of a share arctan(σ/τ)/π of them.

    Args:
        margin: Mean logit margin in integer sums.
        neuron_share: Mean flips tolerated by hidden neurons, as a share of the fan-in; taken for both layers.
        rates: Bit error rates.
        fan_in: K of the hidden and the last layer.
    """
    to_half_normal = math.sqrt(math.pi / 2)

    def change_signs(mean: float, products: Floats, terms: float) -> Floats:
        noise = np.sqrt(4 * terms * products * (1 - products))
        share: Floats = np.arctan2(noise, mean * to_half_normal * (1 - 2 * products)) / math.pi
        return share

    inputs: Floats = np.zeros_like(rates)
    for _ in range(2):
        inputs = change_signs(2 * fan_in * neuron_share, rates + inputs - 2 * rates * inputs, fan_in)
    return 1 - change_signs(margin, rates + inputs - 2 * rates * inputs, 2 * fan_in)


@dataclass(frozen=True)
class Predictor:
    """How well something known without errors foretells the share of accuracy that is kept: Pearson's r over networks."""

    name: str
    networks: int
    at: tuple[float, ...]


def compare_predictors(groups: Sequence[Group], rates: Sequence[float], first_seed: int = 0) -> list[Predictor]:
    """Correlate metrics, and predictions from them, with accuracy at some rates divided by accuracy without errors.

    Networks without hidden neurons of ±1 are left out. There is no answer for fewer than four.

    Args:
        groups: Networks of one kind.
        rates: Bit error rates.
        first_seed: Only networks of this seed and later count.
    """
    networks = [
        (row["margin"], row["neuron_flips_share"], group.setting.fan_in, [group.at(rate)[index] for rate in rates] / curve[0])
        for group in groups
        for index, (seed, row, curve) in enumerate(zip(group.seeds, group.facts.iter_rows(named=True), group.curves, strict=True))
        if seed >= first_seed and row["neuron_flips_share"] is not None
    ]
    if len(networks) < 4:
        return []
    kept = np.array([network[3] for network in networks])
    usual = float(np.mean([share for _, share, _, _ in networks]))
    points = np.array(rates)
    predictors = {
        "output margin": [np.full_like(points, margin) for margin, _, _, _ in networks],
        "hidden neurons": [np.full_like(points, share) for _, share, _, _ in networks],
        "formula, all networks with the mean of the neurons": [
            predict_kept_share(margin, usual, points, fan_in) for margin, _, fan_in, _ in networks
        ],
        "formula, margin and neurons": [predict_kept_share(margin, share, points, fan_in) for margin, share, fan_in, _ in networks],
    }
    return [
        Predictor(name, len(networks), tuple(_correlate(told, true) for told, true in zip(np.array(values).T, kept.T, strict=True)))
        for name, values in predictors.items()
    ]


def _correlate(told: Floats, true: Floats) -> float:
    """Return Pearson's r; NaN for a constant."""
    return float(pearsonr(told, true).statistic) if np.ptp(told) and np.ptp(true) else math.nan
