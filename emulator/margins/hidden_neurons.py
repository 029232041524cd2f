"""Hidden neurons: layers with a threshold, their windows of inputs, and the flips that each neuron survives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import Convolution, MaxPool, Threshold
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import StoredTensor, encode_values
from weakcell.emulator.kernels.entry_points import fill_neuron_tolerance
from weakcell.emulator.margins.flip_counts import Flippable, compute_flip_effects, sort_gains

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class HiddenLayer:
    """A layer of neurons [h > s].

    Attributes:
        layer: The convolution or matrix product.
        tensor: Its weights.
        accumulator: Name of its sums h, before any pooling.
        input: Name of its input.
        input_zero: Zero point of the input.
        pivot: s = threshold − 1 of each channel, int64 (O,).
        binary: Whether weights and inputs are ±1.
    """

    layer: Convolution
    tensor: StoredTensor
    accumulator: str
    input: str
    input_zero: int
    pivot: npt.NDArray[np.int64]
    binary: bool

    @property
    def fan_in(self) -> int:
        """Number of weights per neuron."""
        return int(self.tensor.values[0].size)

    @property
    def shaped_pivot(self) -> npt.NDArray[np.int64]:
        """`pivot` as (1, O, 1, 1), for sums (n, O, H, W)."""
        return self.pivot.reshape(1, -1, 1, 1)


def find_hidden_layers(network: Network) -> tuple[HiddenLayer, ...]:
    """Return the integer convolutions and matrix products whose sums go to a Threshold, directly or through a MaxPool."""
    users: dict[str, list[Layer]] = {}
    for layer in network.layers:
        for name in layer.inputs:
            users.setdefault(name, []).append(layer)
    hidden = []
    for layer in network.layers:
        if (
            not isinstance(layer, Convolution)
            or layer.groups != 1
            or layer.wraps
            or network.values[layer.inputs[0]].kind == "float"
        ):
            continue
        followers = users.get(layer.output, [])
        if len(followers) == 1 and isinstance(followers[0], MaxPool):
            followers = users.get(followers[0].output, [])
        if len(followers) != 1 or not isinstance(followers[0], Threshold):
            continue
        spec, tensor = network.values[layer.inputs[0]], network.tensors[layer.weight]
        pivot = network.tensors[followers[0].threshold].values.astype(np.int64) - 1
        binary = spec.kind == "bits" and tensor.encoding.kind == "sign"
        zero = spec.zero_point if spec.kind == "codes" else 0
        hidden.append(HiddenLayer(layer, tensor, layer.output, layer.inputs[0], zero, pivot, binary))
    return tuple(hidden)


def reshape_sums(accumulators: Array) -> npt.NDArray[np.int64]:
    """Return sums as int64 (n, O, H, W); those of a matrix product as (n, O, 1, 1)."""
    wide: npt.NDArray[np.int64] = accumulators.astype(np.int64)
    return wide.reshape(*wide.shape, 1, 1) if wide.ndim == 2 else wide


def extract_windows(inputs: Array, layer: Convolution) -> Array:
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


def compute_neuron_tolerance(
    hidden: HiddenLayer, inputs: Array, accumulators: Array, flippable: Flippable | None = None
) -> npt.NDArray[np.int64]:
    """Count the flips of stored bits of each neuron's weights that never change [h > s] on these inputs.

    The most harmful flips are taken first. On pixels x, a flipped sign moves h by 2 |x_k|, and by 0 in the padding.

    Args:
        hidden: The layer.
        inputs: Its inputs, (n, …) in ONNX order.
        accumulators: Its sums, (n, O, …).
        flippable: Which stored bits can flip; all by default.

    Returns:
        int64 (n, O, H, W). Where all cells together do not reach s, the number of cells.
    """
    x = extract_windows(inputs.astype(np.int64) - hidden.input_zero, hidden.layer)
    h = np.ascontiguousarray(reshape_sums(accumulators).transpose(0, 2, 3, 1)).reshape(-1, hidden.tensor.shape[0])
    codes = encode_values(hidden.tensor.values, hidden.tensor.encoding).astype(np.int64).reshape(h.shape[1], -1)
    out = np.empty(h.shape, dtype=np.int64)
    effects = compute_flip_effects(hidden.tensor, flippable)
    grid = sort_gains(x, effects)
    tallies = np.empty((1, grid.order.size), np.int64)
    fill_neuron_tolerance(codes, x.reshape(len(h), -1), effects, grid, h, hidden.pivot, tallies, out)
    n, height, width = x.shape[:3]
    tolerated: npt.NDArray[np.int64] = out.reshape(n, height, width, -1).transpose(0, 3, 1, 2)
    return tolerated
