"""Neurons behind a threshold, what each of them sees, and how many flipped cells of its weights it survives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.layers import Convolution, Layer, MaxPool, Network, StoredTensor, Threshold
from weakcell.emulator.ir.values import encode_values
from weakcell.emulator.margins.flip_bounds import Flippable, bit_units
from weakcell.emulator.margins.flip_kernels import neuron_tolerance

Array = npt.NDArray[Any]


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
        if (
            not isinstance(layer, Convolution)
            or layer.groups != 1
            or layer.wraps
            or network.values[layer.inputs[0]].kind == "float"
        ):
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
    codes = encode_values(hidden.tensor.values, hidden.tensor.encoding).astype(np.int64).reshape(h.shape[1], -1)
    out = np.empty(h.shape, dtype=np.int64)
    neuron_tolerance(codes, x.reshape(len(h), -1), bit_units(hidden.tensor), flippable.rises, flippable.falls, h, hidden.pivot, out)
    n, height, width = x.shape[:3]
    tolerated: npt.NDArray[np.int64] = out.reshape(n, height, width, -1).transpose(0, 3, 1, 2)
    return tolerated
