"""Margins and tolerances of a network on data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.executor import infer
from weakcell.emulator.margins.flip_bounds import neuron_exact
from weakcell.emulator.margins.hidden_neurons import HiddenLayer, hidden_layers, sums
from weakcell.emulator.margins.output_margins import greedy_tolerance, largest_score, margins_of, output_layer
from weakcell.emulator.plan.plan import Plan

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class NeuronTolerance:
    """Of one hidden layer, means over images and neurons: distance T to the threshold, flips tolerated, and as share of the fan-in.

    flips: exact, of weights and inputs (Corollary 1's count made exact) where `binary`, else None: pixels have no unit flip.
    share_of_output: distance as share of the largest possible sum, which for ±1 is the fan-in; None where not `binary`.
    """

    layer: str
    distance: float
    flips: float | None
    share_of_fan_in: float | None
    share_of_output: float | None


@dataclass(frozen=True)
class MarginSummary:
    """mean_margin: the mean logit margin, in units of the scores; relative: as share of the largest score that the layer can make.

    flips: the mean of the exact number of flips in the output layer that keep a prediction (images with a tie left out).
    """

    images: int
    ties: int
    mean_margin: float
    relative_margin: float
    flips: float
    neurons: tuple[NeuronTolerance, ...]


def summarize(plan: Plan, inputs: Mapping[str, Array]) -> MarginSummary:
    """Margins and tolerances of a network on data, from one clean pass."""
    network = plan.network
    head, hidden = output_layer(network), hidden_layers(network)
    values = infer(plan, inputs, [head.accumulator, head.input], dynamic="image")
    margins = margins_of(head.scores(values[head.accumulator]))
    alone = margins.unique
    tolerated = greedy_tolerance(head, values[head.input], margins)
    tolerated[np.arange(len(tolerated)), margins.winner] = np.iinfo(np.int64).max
    neurons = tuple(_tolerance_of(plan, inputs, layer) for layer in hidden)
    return MarginSummary(
        images=len(alone),
        ties=int(np.count_nonzero(~alone)),
        mean_margin=float(margins.margin.mean() * head.unit),
        relative_margin=float(margins.margin.mean() / largest_score(network, head)),
        flips=float(tolerated.min(axis=1)[alone].mean()) if alone.any() else math.nan,
        neurons=neurons,
    )


def _tolerance_of(plan: Plan, inputs: Mapping[str, Array], hidden: HiddenLayer) -> NeuronTolerance:
    """Image by image groups, so that the sums of a convolution never lie in memory all at once."""
    images, step = len(next(iter(inputs.values()))), 256
    distance, flips, count = 0.0, 0.0, 0
    for first in range(0, images, step):
        part = {name: x[first : first + step] for name, x in inputs.items()}
        h = sums(infer(plan, part, [hidden.accumulator], dynamic="image")[hidden.accumulator])
        distance += float(np.abs(h - hidden.shaped_pivot).sum(dtype=np.float64))
        flips += float(np.minimum(neuron_exact(h, hidden.shaped_pivot), hidden.fan_in).sum(dtype=np.float64))
        count += h.size
    far, mean, fan_in = distance / max(count, 1), flips / max(count, 1), hidden.fan_in
    if not hidden.binary:
        return NeuronTolerance(hidden.layer.name, far, None, None, None)
    return NeuronTolerance(hidden.layer.name, far, mean, mean / fan_in, far / fan_in)
