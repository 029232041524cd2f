"""Convolution + MaxPool + Threshold as one step, where nobody looks at what lies between them.

A threshold commutes with a maximum: max(acc) >= t where any acc >= t. So bits are made first, pooled by OR, and inverted last.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from emulator.kernels import binary, pool, signs
from emulator.layers import Array, centred, empty_output, geometry_of, packed_input, with_border
from emulator.network import Convolution, Layer, MaxPool, Network, Threshold, ValueSpec, Window
from emulator.plan import Parameters


@dataclass(frozen=True, eq=False)
class SignConvolution(Layer):
    """The parts in order; `weight` and `threshold` name the parameters that it reads."""

    convolution: Convolution
    pool: MaxPool | None
    thresholding: Threshold

    @property
    def weight(self) -> str:
        return self.convolution.weight

    @property
    def threshold(self) -> str:
        return self.thresholding.threshold

    @property
    def parts(self) -> tuple[Layer, ...]:
        middle = (self.pool,) if self.pool else ()
        return (self.convolution, *middle, self.thresholding)


def fuse(network: Network, keep: Collection[str] = ()) -> tuple[Layer, ...]:
    """The layers of a network, fused where the values in between are used once and are not in `keep`."""
    uses: dict[str, list[Layer]] = {}
    for layer in network.layers:
        for name in layer.inputs:
            uses.setdefault(name, []).append(layer)
    seen: set[int] = set()
    steps: list[Layer] = []
    for layer in network.layers:
        if id(layer) in seen:
            continue
        step = _chain(network, layer, uses, {*keep, *network.outputs})
        if isinstance(step, SignConvolution):
            seen.update(id(part) for part in step.parts)
        steps.append(step)
    return tuple(steps)


def _chain(network: Network, layer: Layer, uses: dict[str, list[Layer]], keep: set[str]) -> Layer:
    if not (isinstance(layer, Convolution) and _fits(network, layer)):
        return layer
    pooled: MaxPool | None = None
    following = _only_use(layer.output, uses, keep)
    if isinstance(following, MaxPool):
        pooled, following = following, _only_use(following.output, uses, keep)
    if not isinstance(following, Threshold):
        return layer
    return SignConvolution(layer.name, layer.inputs, following.output, layer, pooled, following)


def _fits(network: Network, layer: Convolution) -> bool:
    """Whether a kernel makes signs of this convolution: dense, from bits or codes, without zero points, without a bias.

    A faulty bias can take a sum past int32, where it wraps: no threshold on the sum before it says the same.
    """
    spec, tensor = network.values[layer.inputs[0]], network.tensors[layer.weight]
    return spec.kind != "float" and layer.groups == 1 and layer.bias is None and not np.any(tensor.zero_point)


def _only_use(name: str, uses: dict[str, list[Layer]], keep: set[str]) -> Layer | None:
    users = uses.get(name, [])
    return users[0] if len(users) == 1 and name not in keep else None


@lru_cache(maxsize=256)
def places_of(window: Window, size: tuple[int, int], out: tuple[int, int]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Which taps of a window are inside the image: the distinct sets (places, taps), and the place of every output pixel."""
    inside = []
    for axis in (0, 1):
        start = np.arange(out[axis]) * window.stride[axis] - window.pads[axis]
        at = start[:, None] + np.arange(window.kernel[axis]) * window.dilation[axis]
        inside.append((at >= 0) & (at < size[axis]))
    taps = inside[0][:, None, :, None] & inside[1][None, :, None, :]
    places, place_of = np.unique(taps.reshape(out[0] * out[1], -1), axis=0, return_inverse=True)
    return np.ascontiguousarray(places), place_of.reshape(-1).astype(np.int64)


def conv_size(layer: Convolution, spec: ValueSpec) -> tuple[int, int]:
    """Height and width of a convolution's output."""
    return layer.window.output_size(*spec.height_width)


def signs_of(step: SignConvolution, x: Array, parameters: Parameters) -> Array:
    """The step's output bits for a chunk of images."""
    network, layer = parameters.plan.network, step.convolution
    spec, weights = network.values[layer.inputs[0]], parameters.values[layer.weight]
    out, threshold = empty_signs(network, step, len(x)), parameters.values[step.threshold]
    if weights.dtype == np.uint64:
        own = packed_input(layer, x, parameters)
        places, place_of = places_of(own.window, own.size, conv_size(layer, spec))
        signs.binary_signs(own.x, own.channels, weights, threshold, places, place_of, geometry_of(own.window), out)
    else:
        x = with_border(centred(x, spec, even=True), layer.window)
        signs.integer_signs(x, weights, threshold, geometry_of(layer.window), out)
    return finish(step, out, parameters)


def empty_signs(network: Network, step: SignConvolution, images: int) -> Array:
    """Room for the bits before pooling."""
    layer = step.convolution
    height, width = conv_size(layer, network.values[layer.inputs[0]])
    return np.zeros((images, height, width, -(-network.values[layer.output].channels // 64)), dtype=np.uint64)


def finish(step: SignConvolution, bits: Array, parameters: Parameters) -> Array:
    """Pool by OR and invert."""
    if step.pool:
        pooled = empty_output(parameters.plan.network.values[step.output], len(bits))
        pool.or_pool(bits, geometry_of(step.pool.window), pooled)
        bits = pooled
    if step.thresholding.inverted.any():
        signs.invert_bits(bits, binary.pack_channels(step.thresholding.inverted[None])[0])
    return bits
