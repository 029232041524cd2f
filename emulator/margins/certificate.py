"""How many flipped weights, anywhere in a binarized network, provably cannot change a prediction; and how many, found, can.

The claim for one image: any `tolerated` flips of stored weights, in whatever layers, leave the winner the only maximum. Proof,
layer by layer, for a budget q:

    neuron      turning it takes c flips of its own weights (`margins.neuron_exact` + 1; pixels: the most harmful first); a wrong
                input is worth one flip of each neuron that it reaches
    layer       q flips, spread as badly as can be, and j wrong inputs turn at most so many neurons; flips of a convolution's
                channel serve all its pixels, so channels are filled, not neurons
    network     flips before a layer bound its wrong inputs, for every way to share a budget between layers
    last layer  a wrong input that speaks for the winner against a competitor is worth 4 of their gap, a flip 2

Each step takes the worst case by itself: the bound is sound, and far from tight where many layers follow each other, since one and
the same wrong input is assumed to harm all neurons behind it; behind several convolutions it is mostly 0. `attacked` says how far:
a number of flips, in the last two layers, that does end the prediction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator import margins as mg
from weakcell.emulator.engine.convolution import geometry_of
from weakcell.emulator.engine.executor import infer
from weakcell.emulator.ir.layers import Convolution, MaxPool, Network, Reshape, Threshold
from weakcell.emulator.margins.certificate_kernels import fewest_flips, pixel_costs, pool_costs, turned_through
from weakcell.emulator.plan.plan import Plan
from weakcell.memmodels.errors import ModelError

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Certificate:
    """Per image: flips tolerated anywhere (budget where more are; -1 at a tie), and flips known to end the prediction."""

    tolerated: npt.NDArray[np.int64]
    attacked: npt.NDArray[np.int64]
    budget: int


@dataclass(frozen=True, eq=False)
class _Stage:
    """A hidden layer, the pooling in it, and how many of a channel's neurons one of its inputs reaches."""

    hidden: mg.HiddenLayer
    pool: MaxPool | None
    touched: int


def certify(plan: Plan, inputs: Mapping[str, Array], budget: int = 16) -> Certificate:
    """Certificates of images; ModelError unless the network is a chain of ±1 layers with thresholds, on pixels or bits."""
    stages, head = _chain(plan.network)
    images, step = len(next(iter(inputs.values()))), 64
    tolerated, attacked = (np.empty(images, np.int64) for _ in range(2))
    probes = list(
        dict.fromkeys([head.accumulator, head.input, *(n for s in stages for n in (s.hidden.accumulator, s.hidden.input))])
    )
    for first in range(0, images, step):
        values = infer(plan, {name: x[first : first + step] for name, x in inputs.items()}, probes, dynamic="image")
        costs = [_costs(stage, values, budget) for stage in stages]
        margins = mg.margins_of(head.scores(values[head.accumulator]))
        against = _against(head, values[head.input], margins)
        for image in range(len(margins.winner)):
            own = [cost[image] for cost in costs]
            tolerated[first + image], attacked[first + image] = _certify(head, stages, own, against[image], margins, image, budget)
    return Certificate(tolerated, attacked, budget)


def _chain(network: Network) -> tuple[list[_Stage], mg.OutputLayer]:
    head = mg.output_layer(network)
    hidden = mg.hidden_layers(network)
    allowed = {id(part.layer) for part in hidden} | {id(head.layer)}
    fits = head.binary and all(part.tensor.encoding.kind == "sign" and not part.input_zero for part in hidden)
    plain = all(
        id(layer) in allowed if isinstance(layer, Convolution) else isinstance(layer, MaxPool | Threshold | Reshape)
        for layer in network.layers[: network.layers.index(head.layer)]
    )
    pooled_bits = any(isinstance(x, MaxPool) and network.values[x.output].kind == "bits" for x in network.layers)
    follows = all(part.binary for part in hidden[1:]) and len(network.inputs) == 1
    if not (fits and plain and follows) or pooled_bits:
        raise ModelError(
            f"Certificate of {network.name}",
            "it is not a plain chain of ±1 layers, each a sum, perhaps a maximum, and a threshold",
            "Certify binarized networks without branches; `weakcell validate` has the last layer's bounds of others",
        )
    pools = {layer.inputs[0]: layer for layer in network.layers if isinstance(layer, MaxPool)}
    return [_Stage(part, pools.get(part.accumulator), _touched(network, part.layer)) for part in hidden], head


def _touched(network: Network, layer: Convolution) -> int:
    """Output pixels that one input pixel is in the window of, at most."""
    if network.values[layer.output].height_width == (1, 1):
        return 1
    taps = [-(-k // s) for k, s in zip(layer.window.kernel, layer.window.stride, strict=True)]
    return taps[0] * taps[1]


def _costs(stage: _Stage, values: Mapping[str, Array], budget: int) -> Array:
    """(n, O, H, W): flips that turn each of a stage's outputs, after its pooling, at least."""
    hidden = stage.hidden
    h = mg.sums(values[hidden.accumulator])
    if hidden.binary:
        costs = mg.neuron_exact(h, hidden.shaped_pivot) + 1
    else:
        x = mg.windows_of(values[hidden.input].astype(np.int64), hidden.layer)
        n, height, width, fan_in = x.shape
        weights = hidden.tensor.values.reshape(-1, fan_in).astype(np.int64)
        rows = np.ascontiguousarray(h.transpose(0, 2, 3, 1)).reshape(-1, len(weights))
        made = np.empty_like(rows)
        pixel_costs(weights, x.reshape(-1, fan_in), rows, hidden.pivot, budget, made)
        costs = np.ascontiguousarray(made.reshape(n, height, width, -1).transpose(0, 3, 1, 2))
    if stage.pool is None:
        return costs
    out = np.empty((*h.shape[:2], *stage.pool.window.output_size(*h.shape[2:])), np.int64)
    pool_costs(costs, h > hidden.shaped_pivot, geometry_of(stage.pool.window), out)
    return out


def _against(head: mg.OutputLayer, x: Array, margins: mg.Margins) -> npt.NDArray[np.bool_]:
    """(n, classes, K): inputs of the last layer that speak for the winner and against that class."""
    signs, weights = x.reshape(len(x), 1, -1), head.tensor.values.reshape(head.classes, -1)
    products = signs * weights
    own = products[np.arange(len(x)), margins.winner][:, None]
    found: npt.NDArray[np.bool_] = (own > 0) & (products < 0)
    return found


def _certify(
    head: mg.OutputLayer, stages: list[_Stage], costs: list[Array], against: Array, margins: mg.Margins, image: int, budget: int
) -> tuple[int, int]:
    if not margins.unique[image]:
        return -1, 0
    wrong = np.zeros(budget + 1, np.int64)
    for stage, cost in zip(stages[:-1], costs[:-1], strict=True):
        turned = np.empty_like(wrong)
        flat = cost.reshape(len(cost), -1)
        turned_through(flat, np.ones(flat.shape, np.bool_), wrong, stage.touched, _dearest(wrong, budget), turned)
        wrong = turned
    scale, tolerated, attacked = int(head.scale[0]), budget, np.iinfo(np.int64).max
    for other in range(head.classes):
        if other == margins.winner[image]:
            continue
        gap, best = int(margins.gaps[image, other]), np.zeros(budget + 1, np.int64)
        alone = 0
        if stages:
            flat = costs[-1].reshape(len(costs[-1]), -1)
            harmful = against[other].reshape(flat.shape)
            turned_through(flat, harmful, wrong, stages[-1].touched, _dearest(wrong, budget), best)
            shares = flat.shape[1] > 1
            alone = 0 if shares else int(np.count_nonzero(harmful & (flat == 1)))
        tolerated = min(tolerated, fewest_flips(best, gap, scale) - 1)
        attacked = min(attacked, _attack(gap, scale, alone))
    return tolerated, int(attacked)


def _dearest(wrong: Array, budget: int) -> int:
    """No neuron that costs more than this can be turned."""
    return int(wrong.max()) + budget


def _attack(gap: int, scale: int, cheap: int) -> int:
    """Flips that end a lead: one in each of `cheap` harmful neurons closes 4, one in the last layer 2."""
    through = min(cheap, -(-gap // (4 * scale)))
    return through + max(0, -(-(gap - 4 * scale * through) // (2 * scale)))
