"""What a prediction costs against 100 trials, and what it would say if neurons were independent; prints a Markdown table.

    python tests/benchmarks/prediction.py MODEL [--data fashion-mnist --data-dir DIR] [--memory uniform --sweep ber=0.02,0.06,0.1]

One thread. Trials read weights once per batch of 256; the time of 100 is the median of `--trials` of them times 100. The mean field
(dense ±1 networks, p01 = p10) multiplies probabilities of neurons as if these were independent.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import numpy as np
from scipy.special import ndtr

from weakcell.emulator import infer
from weakcell.emulator import margins as mg
from weakcell.emulator.evaluation.trials import run_trial
from weakcell.emulator.faults.deployment import ReadPolicy
from weakcell.emulator.kernels.entry_points import win_probability
from weakcell.emulator.prediction import predict
from weakcell.emulator.prediction.bit_rates import compute_marginal_rates
from weakcell.emulator.prediction.sum_kernels import cumulative_table
from weakcell.host.study.study import Point, ResolvedStudy, Study, resolve_study
from weakcell.host.study.sweep_values import parse_sweep
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.errors import ModelError


def mean_field(resolved: ResolvedStudy, point: Point) -> float | None:
    """Accuracy if all neurons were independent; None for networks that are not dense chains of ±1, or rates that differ."""
    network, labels = resolved.network, resolved.questions.labels
    p, other = compute_marginal_rates(point.placement.arrays[0])
    hidden = mg.find_hidden_layers(network)
    try:
        head = mg.find_output_layer(network)
    except ModelError:
        return None
    dense = all(network.values[part.accumulator].height_width == (1, 1) for part in hidden)
    if p != other or labels is None or not (head.binary and dense and hidden):
        return None
    made = infer(resolved.plan, resolved.questions.inputs, [hidden[0].input])[hidden[0].input]
    x = made.reshape(len(made), -1).astype(np.float32)
    slope, second = np.float32(1 - 2 * p), x**2
    for part in hidden:
        weights = part.tensor.values.reshape(len(part.pivot), -1).astype(np.float32)
        variance = (second - slope**2 * x**2).sum(axis=1, keepdims=True)
        after = next(layer for layer in network.layers if layer.inputs[0] == part.accumulator)
        sign = np.where(after.inverted, -1, 1)  # type: ignore[attr-defined]
        x = (sign * (2 * ndtr((slope * x @ weights.T - part.pivot - 0.5) / np.sqrt(variance)) - 1)).astype(np.float32)
        second = np.ones_like(x)
    mean = slope * x @ head.tensor.values.reshape(head.classes, -1).T.astype(np.float32)
    deviation = np.sqrt((1 - slope**2 * x**2).sum(axis=1, keepdims=True)) + np.zeros_like(mean)
    out = np.empty(len(mean))
    origin = np.zeros(mean.shape)
    win_probability(
        mean / 2.0,
        deviation / 2.0,
        np.zeros((2, *mean.shape)),
        origin,
        -np.inf,
        np.inf,
        labels.astype(np.int64),
        cumulative_table(),
        out,
    )
    return float(out.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--memory", default="uniform")
    parser.add_argument("--sweep", default="ber=0.02,0.06,0.1")
    parser.add_argument("--images", type=int)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--samples", type=int, default=2)
    given = parser.parse_args()
    study = Study(
        given.model, given.data, parse_spec(given.memory), sweep=parse_sweep(given.sweep), read_every=ReadPolicy.BATCH,
        images=given.images,
    )  # fmt: skip
    resolved = resolve_study(study, given.data_dir)
    few = resolve_study(Study(**{**vars(study), "images": 256}), given.data_dir)
    placements = [point.placement for point in resolved.points]
    predict(few.plan, placements, few.questions)
    run_trial(few.plan, placements[0], few.questions, few.study.read_every)
    began = time.perf_counter()
    found = predict(resolved.plan, placements, resolved.questions, samples=given.samples)
    cost = (time.perf_counter() - began) / len(placements)
    print(f"{resolved.model.name}, {len(resolved.dataset)} images, {given.samples} samples")
    print("| point | predicted | ± | mean field | seconds | 100 trials | ratio |")
    print("|---|---|---|---|---|---|---|")
    for point, guess in zip(resolved.points, found, strict=True):
        seconds = []
        for trial in range(given.trials):
            start = time.perf_counter()
            run_trial(resolved.plan, point.placement, resolved.questions, resolved.study.read_every, trial=trial)
            seconds.append(time.perf_counter() - start)
        alone = mean_field(resolved, point)
        shown = "" if alone is None else f"{100 * alone:.2f} %"
        hundred = 100 * median(seconds)
        print(
            f"| {point.value:g} | {100 * (guess.accuracy or 0):.2f} % | {100 * guess.error:.2f} % | {shown} | {cost:.2f} | "
            f"{hundred:.0f} | {hundred / cost:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
