"""Certificates: how many flipped weights, anywhere in a binarized network, provably do not change a prediction.

The claim for one image is: any `tolerated` flips of stored weights, in any layers, leave the winner the only maximum. The proof
goes layer by layer, for a budget of q flips:

    neuron      changing its output needs c flips of its own weights (`neuron_exact` + 1; on pixels, the most harmful flips first);
                a wrong input counts as one flip of each neuron that it reaches
    layer       q flips in the worst places and j wrong inputs change at most so many neurons. The flips of a channel of a
                convolution act on all its pixels, so flips are assigned to channels, not to neurons.
    network     flips in earlier layers bound the wrong inputs of a layer, for every division of the budget between layers.
    last layer  a wrong input that supports the winner against a competitor changes their gap by 4, a flip by 2

Each step takes its own worst case. So the bound is sound, but not tight in deep networks: the same wrong input is assumed to harm
all later neurons, and behind several convolutions the bound is mostly 0. `attacked` shows how far it can be off: a number of flips,
in the last two layers, that does change the prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.emulator import margins as mg
from weakcell.emulator.engine.conv_inputs import window_geometry
from weakcell.emulator.engine.executor import infer
from weakcell.emulator.ir.layers import Convolution, MaxPool, Reshape, Threshold
from weakcell.emulator.ir.network import Network
from weakcell.emulator.kernels.entry_points import count_changed_neurons, fill_pixel_costs, fill_pool_costs
from weakcell.emulator.plan.plan import Plan
from weakcell.memmodels.errors import ModelError

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Certificate:
    """Certificates of images.

    Attributes:
        tolerated: Flips that provably do not change the prediction, int64 (n,); at most `budget`; −1 at a tie.
        attacked: Number of flips that is known to change the prediction, int64 (n,).
        budget: Largest number of flips that was considered.
    """

    tolerated: npt.NDArray[np.int64]
    attacked: npt.NDArray[np.int64]
    budget: int


@dataclass(frozen=True, eq=False)
class _Stage:
    """A hidden layer, its pooling, and the number of neurons of a channel that one input reaches."""

    hidden: mg.HiddenLayer
    pool: MaxPool | None
    reached: int


def certify(plan: Plan, inputs: Mapping[str, Array], budget: int = 16) -> Certificate:
    """Certify the predictions of images.

    Args:
        plan: A network that is a chain of ±1 layers with thresholds, on pixels or bits.
        inputs: Arrays (n, …) by input name.
        budget: Largest number of flips to consider.

    Raises:
        ModelError: The network is of another kind.
    """
    stages, head = _split_chain(plan.network)
    images, step = len(next(iter(inputs.values()))), 64
    tolerated, attacked = (np.empty(images, np.int64) for _ in range(2))
    probes = list(
        dict.fromkeys([head.accumulator, head.input, *(n for s in stages for n in (s.hidden.accumulator, s.hidden.input))])
    )
    for first in range(0, images, step):
        values = infer(plan, {name: x[first : first + step] for name, x in inputs.items()}, probes, dynamic="image")
        costs = [_compute_costs(stage, values, budget) for stage in stages]
        margins = mg.compute_margins(head.scores(values[head.accumulator]))
        harmful = _find_harmful_inputs(head, values[head.input], margins)
        for image in range(len(margins.winner)):
            image_costs = [cost[image] for cost in costs]
            case = _Case(image_costs, harmful[image], margins, image, budget)
            tolerated[first + image], attacked[first + image] = _certify(head, stages, case)
    return Certificate(tolerated, attacked, budget)


def _split_chain(network: Network) -> tuple[list[_Stage], mg.OutputLayer]:
    head = mg.find_output_layer(network)
    hidden = mg.find_hidden_layers(network)
    obstacle = _find_obstacle(network, head, hidden)
    if obstacle is not None:
        raise ModelError(
            f"Certificate of {network.name}",
            f"it is not a plain chain of ±1 layers, each a sum, perhaps a maximum, and a threshold: {obstacle}",
            "Certify binarized networks without branches; `weakcell validate` has the last layer's bounds of others",
        )
    pools = {layer.inputs[0]: layer for layer in network.layers if isinstance(layer, MaxPool)}
    return [_Stage(part, pools.get(part.accumulator), _count_reached(network, part.layer)) for part in hidden], head


def _find_obstacle(network: Network, head: mg.OutputLayer, hidden: Sequence[mg.HiddenLayer]) -> str | None:
    """Return the first thing that keeps a network from being a chain of ±1 layers; None if nothing does."""
    if len(network.inputs) != 1:
        return f"it has {len(network.inputs)} inputs"
    for number, part in enumerate(hidden):
        if part.tensor.encoding.kind != "sign" or part.input_zero:
            return f"the weights of {part.layer.name} are not ±1, or its inputs have a zero point"
        if number and not part.binary:
            return f"the inputs of {part.layer.name} are not ±1"
    if not head.binary:
        return f"weights or inputs of {head.layer.name} are not ±1"
    known = {id(part.layer) for part in hidden}
    for layer in network.layers[: network.layers.index(head.layer)]:
        if not (id(layer) in known or isinstance(layer, MaxPool | Threshold | Reshape)):
            return f"{layer.name} is a {type(layer).__name__}"
    pools = (layer for layer in network.layers if isinstance(layer, MaxPool) and network.values[layer.output].kind == "bits")
    return next((f"{pool.name} pools signs" for pool in pools), None)


def _count_reached(network: Network, layer: Convolution) -> int:
    """Return the largest number of output pixels whose window contains one input pixel."""
    if network.values[layer.output].height_width == (1, 1):
        return 1
    taps = [-(-k // s) for k, s in zip(layer.window.kernel, layer.window.stride, strict=True)]
    return taps[0] * taps[1]


def _compute_costs(stage: _Stage, values: Mapping[str, Array], budget: int) -> Array:
    """Return the smallest number of flips that changes each output of a stage, after its pooling; int64 (n, O, H, W)."""
    hidden = stage.hidden
    h = mg.reshape_sums(values[hidden.accumulator])
    if hidden.binary:
        costs = mg.neuron_exact(h, hidden.shaped_pivot) + 1
    else:
        x = mg.extract_windows(values[hidden.input].astype(np.int64), hidden.layer)
        n, height, width, fan_in = x.shape
        weights = hidden.tensor.values.reshape(-1, fan_in).astype(np.int64)
        rows = np.ascontiguousarray(h.transpose(0, 2, 3, 1)).reshape(-1, len(weights))
        row_costs = np.empty_like(rows)
        fill_pixel_costs(weights, x.reshape(-1, fan_in), rows, hidden.pivot, budget, row_costs)
        costs = np.ascontiguousarray(row_costs.reshape(n, height, width, -1).transpose(0, 3, 1, 2))
    if stage.pool is None:
        return costs
    out = np.empty((*h.shape[:2], *stage.pool.window.output_size(*h.shape[2:])), np.int64)
    above = np.ascontiguousarray(h > hidden.shaped_pivot)
    fill_pool_costs(np.ascontiguousarray(costs), above, window_geometry(stage.pool.window), out)
    return out


def _find_harmful_inputs(head: mg.OutputLayer, x: Array, margins: mg.Margins) -> npt.NDArray[np.bool_]:
    """Return the inputs of the last layer that support the winner against each class; bool (n, classes, K)."""
    signs, weights = x.reshape(len(x), 1, -1), head.tensor.values.reshape(head.classes, -1)
    products = signs * weights
    winner_products = products[np.arange(len(x)), margins.winner][:, None]
    harmful: npt.NDArray[np.bool_] = (winner_products > 0) & (products < 0)
    return harmful


class _Case(NamedTuple):
    """One image: costs of each stage (O, H, W), harmful inputs (classes, K), margins of all images, its number, the budget."""

    costs: list[Array]
    harmful: Array
    margins: mg.Margins
    image: int
    budget: int


def _certify(head: mg.OutputLayer, stages: list[_Stage], case: _Case) -> tuple[int, int]:
    """Return the flips that are tolerated, and the flips of an attack that succeeds."""
    costs, margins, image, budget = case.costs, case.margins, case.image, case.budget
    if not margins.unique[image]:
        return -1, 0
    wrong = np.zeros(budget + 1, np.int64)
    for stage, cost in zip(stages[:-1], costs[:-1], strict=True):
        changed = np.empty_like(wrong)
        flat = cost.reshape(len(cost), -1)
        count_changed_neurons(flat, np.ones(flat.shape, np.bool_), wrong, stage.reached, _limit_cost(wrong, budget), changed)
        wrong = changed
    scale, tolerated, attacked = int(head.scale[0]), budget, np.iinfo(np.int64).max
    for other in range(head.classes):
        if other == margins.winner[image]:
            continue
        gap, best = int(margins.gaps[image, other]), np.zeros(budget + 1, np.int64)
        cheap = 0
        if stages:
            flat = costs[-1].reshape(len(costs[-1]), -1)
            harmful = case.harmful[other].reshape(flat.shape)
            count_changed_neurons(flat, harmful, wrong, stages[-1].reached, _limit_cost(wrong, budget), best)
            shared_weights = flat.shape[1] > 1
            cheap = 0 if shared_weights else int(np.count_nonzero(harmful & (flat == 1)))
        tolerated = min(tolerated, _find_fewest_flips(best, gap, scale) - 1)
        attacked = min(attacked, _attack(gap, scale, cheap))
    return tolerated, int(attacked)


def _limit_cost(wrong: Array, budget: int) -> int:
    """Return the largest cost of a neuron that can be changed."""
    return int(wrong.max()) + budget


def _find_fewest_flips(best: Array, gap: int, scale: int) -> int:
    """Return the smallest number of flips in the whole network that may close a gap; the size of `best` if it exceeds the budget.

    best[q] is the number of inputs of the last layer that q earlier flips turn against the winner. Each closes 4, a flip in
    the last layer closes 2.
    """
    flips = np.arange(best.size)
    closed = (np.maximum.accumulate(4 * best - 2 * flips) + 2 * flips) * scale
    enough = np.flatnonzero(closed >= gap)
    return int(enough[0]) if enough.size else best.size


def _attack(gap: int, scale: int, cheap: int) -> int:
    """Count the flips that close a gap: one in each of `cheap` harmful neurons closes 4, one in the last layer closes 2."""
    hidden_flips = min(cheap, -(-gap // (4 * scale)))
    return hidden_flips + max(0, -(-(gap - 4 * scale * hidden_flips) // (2 * scale)))
