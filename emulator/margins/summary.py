"""Summary of the margins and tolerances of a network on data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.executor import infer
from weakcell.emulator.margins.flip_counts import neuron_exact
from weakcell.emulator.margins.hidden_neurons import HiddenLayer, find_hidden_layers, reshape_sums
from weakcell.emulator.margins.output_margins import (
    compute_margins,
    compute_output_tolerance,
    compute_score_bound,
    find_output_layer,
)
from weakcell.emulator.plan.plan import Plan

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class NeuronTolerance:
    """Tolerance of one hidden layer: means over images and neurons.

    The last three are None for layers whose weights or inputs are not ±1.

    Attributes:
        layer: Name of the layer.
        distance: Distance T = |h − s| of the sum to the threshold.
        flips: Exact number of flips of weights and inputs that never change the output.
        share_of_fan_in: `flips` as a share of the fan-in.
        share_of_output: `distance` as a share of the largest possible sum.
    """

    layer: str
    distance: float
    flips: float | None
    share_of_fan_in: float | None
    share_of_output: float | None


@dataclass(frozen=True)
class MarginSummary:
    """Margins and tolerances of a network: means over images.

    Attributes:
        images: Number of images.
        ties: Images whose highest score belongs to several classes.
        mean_margin: Logit margin, in units of the scores.
        relative_margin: Margin as a share of the largest score that the layer can make.
        flips: Exact number of flips in the output layer that keep the prediction, without the ties.
        neurons: Tolerance of each hidden layer.
    """

    images: int
    ties: int
    mean_margin: float
    relative_margin: float
    flips: float
    neurons: tuple[NeuronTolerance, ...]


def summarize(plan: Plan, inputs: Mapping[str, Array]) -> MarginSummary:
    """Compute the margins and tolerances of a network on data, from fault-free passes.

    Args:
        plan: The compiled network.
        inputs: Arrays (n, …) by input name.

    Raises:
        ModelError: The network has no output layer with margins; see `find_output_layer`.
    """
    network = plan.network
    head, hidden = find_output_layer(network), find_hidden_layers(network)
    values = infer(plan, inputs, [head.accumulator, head.input], dynamic="image")
    margins = compute_margins(head.scores(values[head.accumulator]))
    unique = margins.unique
    tolerated = compute_output_tolerance(head, values[head.input], margins)
    tolerated[np.arange(len(tolerated)), margins.winner] = np.iinfo(np.int64).max
    neurons = tuple(_measure_tolerance(plan, inputs, layer) for layer in hidden)
    return MarginSummary(
        images=len(unique),
        ties=int(np.count_nonzero(~unique)),
        mean_margin=float(margins.margin.mean() * head.unit),
        relative_margin=float(margins.margin.mean() / compute_score_bound(network, head)),
        flips=float(tolerated.min(axis=1)[unique].mean()) if unique.any() else math.nan,
        neurons=neurons,
    )


def _measure_tolerance(plan: Plan, inputs: Mapping[str, Array], hidden: HiddenLayer) -> NeuronTolerance:
    # Groups of images, because the sums of a convolution for all images can exceed the memory.
    images, step = len(next(iter(inputs.values()))), 256
    distance, flips, count = 0.0, 0.0, 0
    for first in range(0, images, step):
        part = {name: x[first : first + step] for name, x in inputs.items()}
        h = reshape_sums(infer(plan, part, [hidden.accumulator], dynamic="image")[hidden.accumulator])
        distance += float(np.abs(h - hidden.shaped_pivot).sum(dtype=np.float64))
        flips += float(np.minimum(neuron_exact(h, hidden.shaped_pivot), hidden.fan_in).sum(dtype=np.float64))
        count += h.size
    far, mean, fan_in = distance / max(count, 1), flips / max(count, 1), hidden.fan_in
    if not hidden.binary:
        return NeuronTolerance(hidden.layer.name, far, None, None, None)
    return NeuronTolerance(hidden.layer.name, far, mean, mean / fan_in, far / fan_in)
