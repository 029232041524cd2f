"""The layer whose sums decide, its margins, and how many flipped cells of two classes' weights keep the winner ahead."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.layers import (
    AffineRequantize,
    ClampedLayer,
    Convolution,
    Dequantize,
    MaxPool,
    Network,
    Requantize,
    Reshape,
    StoredTensor,
)
from weakcell.emulator.ir.values import encode_values
from weakcell.emulator.margins.flip_bounds import Flippable, bit_units, output_exact
from weakcell.emulator.margins.flip_kernels import pair_tolerance
from weakcell.memmodels.errors import ModelError

Array = npt.NDArray[Any]
_Tail = Dequantize | Requantize | AffineRequantize | Reshape
"""Layers that may follow the deciding sums."""


@dataclass(frozen=True, eq=False)
class OutputLayer:
    """The layer whose sums decide the prediction: score[c] = acc[c] * scale[c] + offset[c], in integers; real = score * unit.

    binary: ±1 weights on ±1 inputs and one scale for all classes, which the stated bound is for.
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
        return int(self.tensor.values[0].size)

    @property
    def classes(self) -> int:
        return int(self.tensor.values.shape[0])

    def scores(self, accumulators: Array) -> npt.NDArray[np.int64]:
        """(n, classes) scores of the layer's sums (n, classes, …)."""
        flat: npt.NDArray[np.int64] = accumulators.reshape(len(accumulators), -1).astype(np.int64) * self.scale + self.offset
        return flat


def output_layer(network: Network, output: str | None = None) -> OutputLayer:
    """The convolution or matrix product behind an output (None: the first), with its scales; ModelError if none fits."""
    made_by = {layer.output: layer for layer in network.layers}
    name = output or network.outputs[0]
    tail: list[_Tail] = []
    while name in made_by and not isinstance(made_by[name], Convolution):
        layer = made_by[name]
        if not isinstance(layer, _Tail):
            raise _unfit(network, f"its output comes from {layer.name} ({type(layer).__name__}), not from a sum of weights")
        tail.append(layer)
        name = layer.inputs[0]
    found = made_by.get(name)
    if not isinstance(found, Convolution):
        raise _unfit(network, "no layer with weights is behind its output")
    spec, tensor = network.values[found.inputs[0]], network.tensors[found.weight]
    if spec.kind == "float" or found.groups != 1 or tensor.block:
        raise _unfit(network, f"its last layer {found.name} works on floats, groups or blocks")
    if found.wraps:
        raise _unfit(network, f"the sums of its last layer {found.name} can leave int32, where they wrap")
    if math.prod(network.values[name].shape) != tensor.values.shape[0] or any(found.window.pads):
        raise _unfit(network, f"its last layer {found.name} has more than one sum per class")
    scale, offset = _affine(network, tail, tensor.values.shape[0])
    scales, offsets, unit = _as_integers(network, scale, offset)
    binary = spec.kind == "bits" and tensor.encoding.kind == "sign" and len(set(scales.tolist())) == 1
    zero = spec.zero_point if spec.kind == "codes" else 0
    return OutputLayer(found, tensor, name, found.inputs[0], zero, scales, offsets, unit, binary)


def _unfit(network: Network, found: str) -> ModelError:
    return ModelError(f"Margins of {network.name}", found, "Margins need a classifier that ends in a matrix product of integers")


def _affine(network: Network, tail: list[_Tail], classes: int) -> tuple[Array, Array]:
    """Scale and offset of the step that follows the sums; what comes after it must be increasing and alike for all classes."""
    scale, offset = np.ones(classes, np.float32), np.zeros(classes, np.float32)
    steps = [layer for layer in reversed(tail) if not isinstance(layer, Reshape)]
    for number, layer in enumerate(steps):
        own, bias = (layer.multiplier, None) if isinstance(layer, Requantize) else (layer.scale, layer.bias)
        if isinstance(layer, AffineRequantize) and layer.steps:
            raise _unfit(network, f"{layer.name} has further float steps between the sums and the output")
        if np.any(own <= 0) or (number and (np.size(own) > 1 or bias is not None)):
            raise _unfit(network, f"{layer.name} has scales that are not positive, or that differ by class after a rounding")
        if number == 0:
            scale = np.broadcast_to(np.asarray(own, np.float32).reshape(-1), classes)
            offset = offset if bias is None else np.broadcast_to(np.asarray(bias, np.float32).reshape(-1), classes)
    return scale, offset


def _as_integers(network: Network, scale: Array, offset: Array) -> tuple[Array, Array, float]:
    """float32 scales and offsets times one power of two, so that all are integers."""
    exact = [[Fraction(float(x)) for x in part] for part in (scale, offset)]
    power = max(x.denominator for part in exact for x in part)
    wide = [[int(x * power) for x in part] for part in exact]
    common = math.gcd(*wide[0], *wide[1])
    wide = [[x // common for x in part] for part in wide]
    if max(abs(x) for x in wide[0]) >= 1 << 38 or max(abs(x) for x in wide[1]) >= 1 << 61:
        raise _unfit(network, "the scales of its classes are too far apart for exact 64-bit scores")
    return np.array(wide[0], np.int64), np.array(wide[1], np.int64), float(Fraction(common, power))


@dataclass(frozen=True, eq=False)
class Margins:
    """Scores of a clean pass: winner (the lowest class at a tie), gap to every class (0 at the winner itself), and the margin."""

    scores: npt.NDArray[np.int64]
    winner: npt.NDArray[np.int64]
    gaps: npt.NDArray[np.int64]
    margin: npt.NDArray[np.int64]

    @property
    def unique(self) -> npt.NDArray[np.bool_]:
        """Whether one class alone has the highest score."""
        alone: npt.NDArray[np.bool_] = self.margin > 0
        return alone


def margins_of(scores: npt.NDArray[np.int64]) -> Margins:
    """m = highest minus second-highest score, per image."""
    winner = np.argmax(scores, axis=1)
    gaps = scores[np.arange(len(scores)), winner][:, None] - scores
    others = gaps.copy()
    others[np.arange(len(scores)), winner] = np.iinfo(np.int64).max
    return Margins(scores, winner, gaps, others.min(axis=1))


def still_unique(scores: npt.NDArray[np.int64], winner: Array) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(kept, tied): whether `winner` still is the only maximum of each image, and whether it shares the maximum with others."""
    own = scores[np.arange(len(scores)), winner][:, None]
    above, equal = (scores > own).any(axis=1), (scores == own).sum(axis=1) > 1
    return ~above & ~equal, ~above & equal


def unit_tolerance(head: OutputLayer, margins: Margins) -> npt.NDArray[np.int64]:
    """(n, classes): flips of the winner and that class together that keep the winner ahead: weights and inputs, per neuron.

    ceil(m_c / 2) - 1 with m_c the gap in accumulators: for ±1 weights on ±1 inputs (`head.binary`). -1 at a tie and at the winner.
    """
    tolerated: npt.NDArray[np.int64] = output_exact(margins.gaps // head.scale)
    return tolerated


def greedy_tolerance(
    head: OutputLayer, inputs: Array, margins: Margins, flippable: Flippable | None = None
) -> npt.NDArray[np.int64]:
    """(n, classes): flipped stored bits of the winner's and that class's weights that keep the winner ahead, on these inputs.

    inputs: the layer's inputs (n, …) in ONNX order, ±1 or codes. Exact for scores before the last requantization. Where all cells
    together cannot close the gap, their number; -1 at a tie and at the winner.
    """
    flippable = flippable or Flippable.every(head.tensor)
    x = inputs.reshape(len(inputs), -1).astype(np.int64) - head.input_zero
    codes = encode_values(head.tensor.values, head.tensor.encoding).astype(np.int64).reshape(head.classes, -1)
    out = np.full(margins.gaps.shape, -1, dtype=np.int64)
    pair_tolerance(
        codes, np.ascontiguousarray(x), head.scale, bit_units(head.tensor), flippable.rises, flippable.falls,
        margins.winner, margins.gaps, out,
    )  # fmt: skip
    return out


def largest_score(network: Network, head: OutputLayer) -> int:
    """The largest magnitude that weights of this encoding and inputs of this range can give a score, without bias."""
    encoding = head.tensor.encoding
    largest_input = 1
    if network.values[head.input].kind == "codes":
        largest_input = max(abs(code - head.input_zero) for code in _range_of(network, head.input))
    zero = [int(z) for z in np.asarray(head.tensor.zero_point).reshape(-1)]
    largest_weight = max(max(abs(encoding.low - z), abs(encoding.high - z)) for z in zero)
    return int(head.fan_in * largest_weight * largest_input * int(head.scale.max()))


def _range_of(network: Network, value: str) -> tuple[int, int]:
    """The lowest and highest code of a value: what its maker clamps to (uint8 may hold 4-bit codes), else its type."""
    maker = next((layer for layer in network.layers if layer.output == value), None)
    if isinstance(maker, Reshape | MaxPool):
        return _range_of(network, maker.inputs[0])
    info = np.iinfo(network.values[value].dtype)
    return (maker.low, maker.high) if isinstance(maker, ClampedLayer) else (int(info.min), int(info.max))
