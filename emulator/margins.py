"""Output margins, neuron distances, and how many flipped cells a prediction or a neuron provably survives.

Two kinds of numbers stand side by side. The *stated* bounds are those of Buschjäger et al. (DATE 2021), for ±1 weights on ±1
inputs. The *exact* counts are the largest for which the claim still holds: one flip more, chosen as badly as possible, breaks it.

NOTES for developers
- All comparisons are between integers. The scores of a network are acc * scale + offset before its last requantization; scales and
  offsets are float32, so a common power of two turns them into integers (`OutputLayer.unit` turns them back).
- A flipped stored bit adds a constant to its weight, whatever the other bits do, so the effects of flips on one sum add up, and
  taking the most harmful bits first finds the smallest number that breaks it. Flipped *inputs* are another matter: with ±1
  weights one counts as one flip of every neuron that it feeds (`unit_tolerance`); with wider weights `greedy_tolerance` speaks of
  the inputs that reached the layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from emulator.margins_kernels import neuron_tolerance, pair_tolerance
from emulator.network import (
    AffineRequantize,
    Convolution,
    Dequantize,
    Layer,
    MaxPool,
    Network,
    Requantize,
    Reshape,
    StoredTensor,
    Threshold,
)
from emulator.plan import Plan
from emulator.storage import codes_of
from emulator.walk import infer
from memmodels.errors import ModelError

Array = npt.NDArray[Any]


# ── bounds on single numbers ────────────────────────────────────────────────────────────────────────


def neuron_bound(h: Array, s: Array) -> Array:
    """Flips that a ±1 neuron with output [h > s] survives, T = |h - s|: max(0, T // 2 - 1) if h > s, else T // 2 (Corollary 1)."""
    h, s = np.asarray(h, np.int64), np.asarray(s, np.int64)
    distance = np.abs(h - s)
    tolerated: Array = np.where(h > s, np.maximum(0, distance // 2 - 1), distance // 2)
    return tolerated


def neuron_exact(h: Array, s: Array) -> Array:
    """The largest number of flips that never changes [h > s], a flip moving h by 2: ceil(T / 2) - 1 if h > s, else T // 2."""
    h, s = np.asarray(h, np.int64), np.asarray(s, np.int64)
    distance = np.abs(h - s)
    tolerated: Array = np.where(h > s, -(-distance // 2) - 1, distance // 2)
    return tolerated


def output_bound(margin: Array) -> Array:
    """Flips in the output layer under which the winner stays: max(0, m // 2 - 1) for a margin m > 0 (Corollary 2); -1 at a tie."""
    margin = np.asarray(margin, np.int64)
    return np.where(margin > 0, np.maximum(0, margin // 2 - 1), -1)


def output_exact(margin: Array) -> Array:
    """The largest such number: ceil(m / 2) - 1, as one flip moves a difference of two ±1 sums by 2; -1 at a tie."""
    margin = np.asarray(margin, np.int64)
    return np.where(margin > 0, -(-margin // 2) - 1, -1)


# ── which cells can flip ────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class Flippable:
    """Which stored bits of a tensor can come back wrong, by bit plane (bool): `rises` 0 read as 1, `falls` 1 read as 0."""

    rises: npt.NDArray[np.bool_]
    falls: npt.NDArray[np.bool_]

    @classmethod
    def every(cls, tensor: StoredTensor) -> Flippable:
        """All of them."""
        return cls(np.ones(tensor.encoding.bits, np.bool_), np.ones(tensor.encoding.bits, np.bool_))

    @property
    def cells(self) -> int:
        """How many cells of one element can flip, whatever it holds, at most."""
        return int(np.count_nonzero(self.rises | self.falls))


def bit_units(tensor: StoredTensor) -> npt.NDArray[np.int64]:
    """What a stored bit adds to its weight when it rises: 2 for a sign, 2^i else, -2^(B-1) for the sign bit of two's complement."""
    encoding = tensor.encoding
    if encoding.kind == "sign":
        return np.array([2], dtype=np.int64)
    units = np.int64(1) << np.arange(encoding.bits, dtype=np.int64)
    if encoding.kind == "signed":
        units[-1] = -units[-1]
    return units


# ── the output layer ────────────────────────────────────────────────────────────────────────────────


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


def output_layer(network: Network) -> OutputLayer:
    """The convolution or matrix product behind the first output, with its scales; ModelError if there is none that fits."""
    made_by = {layer.output: layer for layer in network.layers}
    name = network.outputs[0]
    tail: list[Layer] = []
    while name in made_by and not isinstance(made_by[name], Convolution):
        layer = made_by[name]
        if not isinstance(layer, Dequantize | Requantize | AffineRequantize | Reshape):
            raise _unfit(network, f"its output comes from {layer.name} ({type(layer).__name__}), not from a sum of weights")
        tail.append(layer)
        name = layer.inputs[0]
    found = made_by.get(name)
    if not isinstance(found, Convolution):
        raise _unfit(network, "no layer with weights is behind its output")
    spec, tensor = network.values[found.inputs[0]], network.tensors[found.weight]
    if spec.kind == "float" or found.groups != 1 or tensor.block:
        raise _unfit(network, f"its last layer {found.name} works on floats, groups or blocks")
    if math.prod(network.values[name].shape) != tensor.values.shape[0] or any(found.window.pads):
        raise _unfit(network, f"its last layer {found.name} has more than one sum per class")
    scale, offset = _affine(network, tail, tensor.values.shape[0])
    scales, offsets, unit = _as_integers(network, scale, offset)
    binary = spec.kind == "bits" and tensor.encoding.kind == "sign" and len(set(scales.tolist())) == 1
    zero = spec.zero_point if spec.kind == "codes" else 0
    return OutputLayer(found, tensor, name, found.inputs[0], zero, scales, offsets, unit, binary)


def _unfit(network: Network, found: str) -> ModelError:
    return ModelError(f"Margins of {network.name}", found, "Margins need a classifier that ends in a matrix product of integers")


def _affine(network: Network, tail: list[Layer], classes: int) -> tuple[Array, Array]:
    """Scale and offset of the step that follows the sums; what comes after it must be increasing and alike for all classes."""
    scale, offset = np.ones(classes, np.float32), np.zeros(classes, np.float32)
    steps = [layer for layer in reversed(tail) if not isinstance(layer, Reshape)]
    for number, layer in enumerate(steps):
        own = layer.multiplier if isinstance(layer, Requantize) else getattr(layer, "scale", np.float32(1))
        bias = getattr(layer, "bias", None)
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
    codes = codes_of(head.tensor.values, head.tensor.encoding).astype(np.int64).reshape(head.classes, -1)
    out = np.full(margins.gaps.shape, -1, dtype=np.int64)
    pair_tolerance(
        codes, np.ascontiguousarray(x), head.scale, bit_units(head.tensor), flippable.rises, flippable.falls,
        margins.winner, margins.gaps, out,
    )  # fmt: skip
    return out


# ── hidden neurons ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class HiddenLayer:
    """A layer of neurons [h > s]: its sums, before any pooling, against s = threshold - 1. binary: ±1 weights on ±1 inputs."""

    layer: Convolution
    tensor: StoredTensor
    accumulator: str
    input: str
    input_zero: int
    pivot: npt.NDArray[np.int64]
    binary: bool

    @property
    def fan_in(self) -> int:
        return int(self.tensor.values[0].size)

    @property
    def shaped_pivot(self) -> npt.NDArray[np.int64]:
        """(1, O, 1, 1), to go with `sums`."""
        return self.pivot.reshape(1, -1, 1, 1)


def hidden_layers(network: Network) -> tuple[HiddenLayer, ...]:
    """Convolutions and matrix products of integers that a Threshold follows, directly or behind a MaxPool."""
    users: dict[str, list[Layer]] = {}
    for layer in network.layers:
        for name in layer.inputs:
            users.setdefault(name, []).append(layer)
    found = []
    for layer in network.layers:
        if not isinstance(layer, Convolution) or layer.groups != 1 or network.values[layer.inputs[0]].kind == "float":
            continue
        follower = users.get(layer.output, [])
        if len(follower) == 1 and isinstance(follower[0], MaxPool):
            follower = users.get(follower[0].output, [])
        if len(follower) != 1 or not isinstance(follower[0], Threshold):
            continue
        spec, tensor = network.values[layer.inputs[0]], network.tensors[layer.weight]
        pivot = network.tensors[follower[0].threshold].values.astype(np.int64) - 1
        binary = spec.kind == "bits" and tensor.encoding.kind == "sign"
        zero = spec.zero_point if spec.kind == "codes" else 0
        found.append(HiddenLayer(layer, tensor, layer.output, layer.inputs[0], zero, pivot, binary))
    return tuple(found)


def sums(accumulators: Array) -> npt.NDArray[np.int64]:
    """Accumulators as (n, O, H, W)."""
    wide: npt.NDArray[np.int64] = accumulators.astype(np.int64)
    return wide.reshape(*wide.shape, 1, 1) if wide.ndim == 2 else wide


def windows_of(inputs: Array, layer: Convolution) -> Array:
    """(n, H', W', C * kh * kw): what each neuron of a convolution sees, in the order of its weights, 0 in the padding."""
    x = inputs.reshape(*inputs.shape, 1, 1) if inputs.ndim == 2 else inputs
    window = layer.window
    if inputs.ndim == 2 or (window.kernel == x.shape[2:] and not any(window.pads)):
        return np.ascontiguousarray(x.reshape(len(x), 1, 1, -1))
    (kh, kw), (dh, dw), (top, left, bottom, right) = window.kernel, window.dilation, window.pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    views = np.lib.stride_tricks.sliding_window_view(padded, (dh * (kh - 1) + 1, dw * (kw - 1) + 1), axis=(2, 3))
    views = views[:, :, :: window.stride[0], :: window.stride[1], ::dh, ::dw].transpose(0, 2, 3, 1, 4, 5)
    return np.ascontiguousarray(views).reshape(*views.shape[:3], -1)


def greedy_neurons(
    hidden: HiddenLayer, inputs: Array, accumulators: Array, flippable: Flippable | None = None
) -> npt.NDArray[np.int64]:
    """(n, O, H, W): flipped stored bits of a neuron's weights that never change [h > s], on these inputs: the most harmful first.

    With pixels x a flipped sign moves h by 2 |x_k|, and by nothing in the padding. Where all cells together do not reach s: their
    number.
    """
    flippable = flippable or Flippable.every(hidden.tensor)
    x = windows_of(inputs.astype(np.int64) - hidden.input_zero, hidden.layer)
    h = np.ascontiguousarray(sums(accumulators).transpose(0, 2, 3, 1)).reshape(-1, hidden.tensor.values.shape[0])
    codes = codes_of(hidden.tensor.values, hidden.tensor.encoding).astype(np.int64).reshape(h.shape[1], -1)
    out = np.empty(h.shape, dtype=np.int64)
    neuron_tolerance(codes, x.reshape(len(h), -1), bit_units(hidden.tensor), flippable.rises, flippable.falls, h, hidden.pivot, out)
    n, height, width = x.shape[:3]
    tolerated: npt.NDArray[np.int64] = out.reshape(n, height, width, -1).transpose(0, 3, 1, 2)
    return tolerated


# ── what a clean pass says ──────────────────────────────────────────────────────────────────────────


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
    values = infer(plan, inputs, [head.accumulator, head.input])
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
    return int(getattr(maker, "low", info.min)), int(getattr(maker, "high", info.max))


def _tolerance_of(plan: Plan, inputs: Mapping[str, Array], hidden: HiddenLayer) -> NeuronTolerance:
    """Image by image groups, so that the sums of a convolution never lie in memory all at once."""
    images, step = len(next(iter(inputs.values()))), 256
    distance, flips, count = 0.0, 0.0, 0
    for first in range(0, images, step):
        part = {name: x[first : first + step] for name, x in inputs.items()}
        h = sums(infer(plan, part, [hidden.accumulator])[hidden.accumulator])
        distance += float(np.abs(h - hidden.shaped_pivot).sum(dtype=np.float64))
        flips += float(np.minimum(neuron_exact(h, hidden.shaped_pivot), hidden.fan_in).sum(dtype=np.float64))
        count += h.size
    far, mean, fan_in = distance / max(count, 1), flips / max(count, 1), hidden.fan_in
    if not hidden.binary:
        return NeuronTolerance(hidden.layer.name, far, None, None, None)
    return NeuronTolerance(hidden.layer.name, far, mean, mean / fan_in, far / fan_in)
