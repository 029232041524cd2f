"""The output layer, the margins of its scores, and the flips in its weights that keep the winner."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.layers import AffineRequantize, ClampedLayer, Convolution, Dequantize, MaxPool, Requantize, Reshape
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import StoredTensor, encode_values
from weakcell.emulator.kernels.entry_points import fill_pair_tolerance
from weakcell.emulator.margins.flip_counts import Flippable, compute_flip_effects, output_exact, sort_gains
from weakcell.memmodels.errors import ModelError

Array = npt.NDArray[Any]
_FollowingLayer = Dequantize | Requantize | AffineRequantize | Reshape
"""Layers that may follow the sums of the output layer."""


@dataclass(frozen=True, eq=False)
class OutputLayer:
    """The layer whose sums decide the prediction: score[c] = acc[c] · scale[c] + offset[c].

    Scores are integers. The real score is score · unit.

    Attributes:
        layer: The convolution or matrix product.
        tensor: Its weights.
        accumulator: Name of its sums.
        input: Name of its input.
        input_zero: Zero point of the input.
        scale: int64 (classes,).
        offset: int64 (classes,).
        unit: Real value of one unit of the scores.
        binary: Whether weights and inputs are ±1 and all classes share one scale, as the published bound assumes.
    """

    layer: Convolution
    tensor: StoredTensor
    accumulator: str
    input: str
    input_zero: int
    scale: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    unit: float
    binary: bool

    @property
    def fan_in(self) -> int:
        """Number of weights per class."""
        return int(self.tensor.values[0].size)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.tensor.shape[0])

    def scores(self, accumulators: Array) -> npt.NDArray[np.int64]:
        """Return the scores, int64 (n, classes), of sums (n, classes, …)."""
        flat: npt.NDArray[np.int64] = accumulators.reshape(len(accumulators), -1).astype(np.int64) * self.scale + self.offset
        return flat


def find_output_layer(network: Network, output: str | None = None) -> OutputLayer:
    """Find the layer whose sums decide an output.

    Args:
        network: The network.
        output: Name of the output; the first output by default.

    Raises:
        ModelError: The output is not made from the sums of a matrix product of integers.
    """
    producers = {layer.output: layer for layer in network.layers}
    name = output or network.outputs[0]
    following: list[_FollowingLayer] = []
    while name in producers and not isinstance(producers[name], Convolution):
        layer = producers[name]
        if not isinstance(layer, _FollowingLayer):
            raise _reject(network, f"its output comes from {layer.name} ({type(layer).__name__}), not from a sum of weights")
        following.append(layer)
        name = layer.inputs[0]
    output_sum = producers.get(name)
    if not isinstance(output_sum, Convolution):
        raise _reject(network, "no layer with weights is behind its output")
    spec, tensor = network.values[output_sum.inputs[0]], network.tensors[output_sum.weight]
    if spec.kind == "float" or output_sum.groups != 1 or tensor.block:
        raise _reject(network, f"its last layer {output_sum.name} works on floats, groups or blocks")
    if output_sum.wraps:
        raise _reject(network, f"the sums of its last layer {output_sum.name} can leave int32, where they wrap")
    if math.prod(network.values[name].shape) != tensor.shape[0] or any(output_sum.window.pads):
        raise _reject(network, f"its last layer {output_sum.name} has more than one sum per class")
    scale, offset = _find_affine(network, following, tensor.shape[0])
    scales, offsets, unit = _as_integers(network, scale, offset)
    binary = spec.kind == "bits" and tensor.encoding.kind == "sign" and len(set(scales.tolist())) == 1
    zero = spec.zero_point if spec.kind == "codes" else 0
    return OutputLayer(output_sum, tensor, name, output_sum.inputs[0], zero, scales, offsets, unit, binary)


def _reject(network: Network, found: str) -> ModelError:
    return ModelError(f"Margins of {network.name}", found, "Margins need a classifier that ends in a matrix product of integers")


def _find_affine(network: Network, following: list[_FollowingLayer], classes: int) -> tuple[Array, Array]:
    """Return scale and offset of the first step after the sums. Later steps must be increasing and the same for all classes."""
    scale, offset = np.ones(classes, np.float32), np.zeros(classes, np.float32)
    steps = [layer for layer in reversed(following) if not isinstance(layer, Reshape)]
    for number, layer in enumerate(steps):
        step_scale, bias = (layer.multiplier, None) if isinstance(layer, Requantize) else (layer.scale, layer.bias)
        if isinstance(layer, AffineRequantize) and layer.steps:
            raise _reject(network, f"{layer.name} has further float steps between the sums and the output")
        if np.any(step_scale <= 0) or (number and (np.size(step_scale) > 1 or bias is not None)):
            raise _reject(network, f"{layer.name} has scales that are not positive, or that differ by class after a rounding")
        if number == 0:
            scale = np.broadcast_to(np.asarray(step_scale, np.float32).reshape(-1), classes)
            offset = offset if bias is None else np.broadcast_to(np.asarray(bias, np.float32).reshape(-1), classes)
    return scale, offset


def _as_integers(network: Network, scale: Array, offset: Array) -> tuple[Array, Array, float]:
    """Multiply float32 scales and offsets by one power of two that makes all of them integers."""
    exact = [[Fraction(float(x)) for x in part] for part in (scale, offset)]
    power = max(x.denominator for part in exact for x in part)
    wide = [[int(x * power) for x in part] for part in exact]
    common = math.gcd(*wide[0], *wide[1])
    wide = [[x // common for x in part] for part in wide]
    if max(abs(x) for x in wide[0]) >= 1 << 38 or max(abs(x) for x in wide[1]) >= 1 << 61:
        raise _reject(network, "the scales of its classes are too far apart for exact 64-bit scores")
    return np.array(wide[0], np.int64), np.array(wide[1], np.int64), float(Fraction(common, power))


@dataclass(frozen=True, eq=False)
class Margins:
    """Margins of a fault-free pass.

    Attributes:
        scores: int64 (n, classes).
        winner: Class of the highest score, the lowest class at a tie, int64 (n,).
        gaps: Score of the winner less the score of each class, int64 (n, classes).
        margin: Highest less second-highest score, int64 (n,).
    """

    scores: npt.NDArray[np.int64]
    winner: npt.NDArray[np.int64]
    gaps: npt.NDArray[np.int64]
    margin: npt.NDArray[np.int64]

    @property
    def unique(self) -> npt.NDArray[np.bool_]:
        """Whether only one class has the highest score, bool (n,)."""
        unique: npt.NDArray[np.bool_] = self.margin > 0
        return unique


def compute_margins(scores: npt.NDArray[np.int64]) -> Margins:
    """Compute the margins of scores (n, classes)."""
    winner = np.argmax(scores, axis=1)
    gaps = scores[np.arange(len(scores)), winner][:, None] - scores
    others = gaps.copy()
    others[np.arange(len(scores)), winner] = np.iinfo(np.int64).max
    return Margins(scores, winner, gaps, others.min(axis=1))


def compare_winner(scores: npt.NDArray[np.int64], winner: Array) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return two bool arrays (n,): whether `winner` is the only maximum of each image, and whether it shares the maximum."""
    winner_scores = scores[np.arange(len(scores)), winner][:, None]
    above, equal = (scores > winner_scores).any(axis=1), (scores == winner_scores).sum(axis=1) > 1
    return ~above & ~equal, ~above & equal


def compute_unit_tolerance(head: OutputLayer, margins: Margins) -> npt.NDArray[np.int64]:
    """Count the flips of weights and inputs, of the winner and a class together, that keep the winner ahead of that class.

    ceil(m_c / 2) − 1, with the gap m_c in sums. It holds for ±1 weights on ±1 inputs (`head.binary`).

    Returns:
        int64 (n, classes); −1 at a tie and at the winner.
    """
    tolerated: npt.NDArray[np.int64] = output_exact(margins.gaps // head.scale)
    return tolerated


def compute_output_tolerance(
    head: OutputLayer, inputs: Array, margins: Margins, flippable: Flippable | None = None
) -> npt.NDArray[np.int64]:
    """Count the flips of stored bits, of the winner's and a class's weights, that keep the winner ahead on these inputs.

    The count is exact for scores before the last requantization.

    Args:
        head: The output layer.
        inputs: Its inputs, (n, …) in ONNX order, ±1 or codes.
        margins: Margins of the same images.
        flippable: Which stored bits can flip; all by default.

    Returns:
        int64 (n, classes). Where all cells together cannot close the gap, the number of cells; −1 at a tie and at the winner.
    """
    x = inputs.reshape(len(inputs), -1).astype(np.int64) - head.input_zero
    codes = encode_values(head.tensor.values, head.tensor.encoding).astype(np.int64).reshape(head.classes, -1)
    out = np.full(margins.gaps.shape, -1, dtype=np.int64)
    effects = compute_flip_effects(head.tensor, flippable)
    grid = sort_gains(x, effects)
    tallies = np.empty((2, grid.order.size), np.int64)
    fill_pair_tolerance(codes, np.ascontiguousarray(x), head.scale, effects, grid, margins.winner, margins.gaps, tallies, out)
    return out


def compute_score_bound(network: Network, head: OutputLayer) -> int:
    """Return the largest magnitude of a score, without bias, for weights of this encoding and inputs of this range."""
    encoding = head.tensor.encoding
    largest_input = 1
    if network.values[head.input].kind == "codes":
        largest_input = max(abs(code - head.input_zero) for code in _find_code_range(network, head.input))
    weight_zeros = [int(z) for z in np.asarray(head.tensor.zero_point).reshape(-1)]
    largest_weight = max(max(abs(encoding.low - z), abs(encoding.high - z)) for z in weight_zeros)
    return int(head.fan_in * largest_weight * largest_input * int(head.scale.max()))


def _find_code_range(network: Network, value: str) -> tuple[int, int]:
    """Return lowest and highest code of a value: the clamp of the layer that makes it, otherwise the range of its type."""
    producer = next((layer for layer in network.layers if layer.output == value), None)
    if isinstance(producer, Reshape | MaxPool):
        return _find_code_range(network, producer.inputs[0])
    info = np.iinfo(network.values[value].dtype)
    return (producer.low, producer.high) if isinstance(producer, ClampedLayer) else (int(info.min), int(info.max))
