"""Convolution + MaxPool + Threshold and convolution + requantization as one step, where nobody looks at what lies between them.

A threshold commutes with a maximum: max(acc) >= t where any acc >= t. So bits are made first, pooled by OR, and inverted last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from weakcell.emulator.engine.convolution import (
    UNPOOLED,
    Array,
    Direct,
    Joined,
    Reading,
    geometry_of,
    needs_weights,
    reading_in_place,
    readings,
    weights_of,
)
from weakcell.emulator.engine.layer_functions import compute, empty_output
from weakcell.emulator.engine.rounding import Requantization, rounded, rounds
from weakcell.emulator.ir.layers import Convolution, Layer, LayerParameters, MaxPool, Network, Role, Threshold
from weakcell.emulator.ir.values import pack_channels
from weakcell.emulator.kernels import entry_points
from weakcell.emulator.kernels.weight_layouts import LANES, PackedInt1
from weakcell.emulator.plan.layout import unsigned_offset
from weakcell.emulator.plan.parameters import ParameterState
from weakcell.emulator.plan.plan import Plan


@dataclass(frozen=True, eq=False)
class Fused(Layer):
    """A convolution and the layers that follow it, run as one step."""

    PARAMETERS = LayerParameters(of_inputs=(), other=("convolution",))
    convolution: Convolution

    def tensor_names(self, *roles: Role) -> tuple[str, ...]:
        return tuple(name for part in self.parts for name in part.tensor_names(*roles))

    @property
    def parts(self) -> tuple[Layer, ...]:
        """The layers that the step stands for, in order."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class CodeConvolution(Fused):
    """Convolution + requantization."""

    PARAMETERS = LayerParameters(of_inputs=(), other=("requantization",))
    requantization: Requantization

    @property
    def parts(self) -> tuple[Layer, ...]:
        return (self.convolution, self.requantization)


@dataclass(frozen=True, eq=False)
class SignConvolution(Fused):
    """Convolution + MaxPool + Threshold.

    joined: the pool that the tile does on its way. inverted: the channels whose bits are inverted last, packed, if there are any.
    """

    PARAMETERS = LayerParameters(of_inputs=(), other=("pool", "thresholding", "joined", "inverted"))
    pool: MaxPool | None
    thresholding: Threshold
    joined: Joined = UNPOOLED
    inverted: Array | None = None

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
        if isinstance(step, Fused):
            seen.update(id(part) for part in step.parts)
        steps.append(step)
    return tuple(steps)


def steps_of(plan: Plan, keep: Collection[str] = ()) -> tuple[Layer, ...]:
    """`fuse`, worked out once for a plan."""
    return plan.cache.get(("fused layers", frozenset(keep)), lambda: fuse(plan.network, keep))


def _chain(network: Network, layer: Layer, uses: dict[str, list[Layer]], keep: set[str]) -> Layer:
    if not isinstance(layer, Convolution):
        return layer
    pooled: MaxPool | None = None
    following = _only_use(layer.output, uses, keep)
    if isinstance(following, Requantization) and rounds(network, layer, following) and following.output not in keep:
        return CodeConvolution(layer.name, layer.inputs, following.output, layer, following)
    if not _fits(network, layer):
        return layer
    if isinstance(following, MaxPool):
        pooled, following = following, _only_use(following.output, uses, keep)
    if not isinstance(following, Threshold):
        return layer
    inverted = pack_channels(following.inverted[None])[0] if following.inverted.any() else None
    step = SignConvolution(layer.name, layer.inputs, following.output, layer, pooled, following, inverted=inverted)
    return replace(step, joined=_pool_in_tile(network, step))


def _fits(network: Network, layer: Convolution) -> bool:
    """Whether a kernel makes signs of this convolution: dense, from bits or codes, without zero points, without a bias.

    A faulty bias can take a sum past int32, where it wraps: no threshold on the sum before it says the same. Nor on very long sums.
    """
    spec, tensor = network.values[layer.inputs[0]], network.tensors[layer.weight]
    plain = layer.groups == 1 and layer.bias is None and not np.any(tensor.zero_point)
    bounded = tensor.encoding.bits <= 8 and tensor.values[:1].size < 1 << 16
    return spec.kind != "float" and plain and bounded and not unsigned_offset(tensor)


def _only_use(name: str, uses: dict[str, list[Layer]], keep: set[str]) -> Layer | None:
    users = uses.get(name, [])
    return users[0] if len(users) == 1 and name not in keep else None


def compute_step(step: Layer, inputs: list[Array], parameters: ParameterState) -> Array:
    """The output of a layer or of a fused step for a chunk of images."""
    made = None
    if isinstance(step, Fused) and step.convolution.weight not in parameters.dropped:
        if isinstance(step, SignConvolution):
            made = signs_of(step, inputs[0], parameters)
        elif isinstance(step, CodeConvolution):
            made = rounded(step.convolution, step.requantization, inputs[0], parameters)
    if made is not None:
        return made
    for part in parts_of(step):
        inputs = [compute(part, inputs, parameters)]
    return inputs[0]


def parts_of(step: Layer) -> tuple[Layer, ...]:
    """The layers that a step stands for: itself, if it is not fused."""
    return step.parts if isinstance(step, Fused) else (step,)


def signs_of(step: SignConvolution, x: Array, parameters: ParameterState) -> Array | None:
    """The step's output bits for a chunk of images; None if its threshold is on a sum of two readings' sums."""
    layer, joined = step.convolution, step.joined

    def make() -> Direct | None:
        own = reading_in_place(layer, parameters, joined)
        return _direct(step, own, parameters) if own else None

    direct = parameters.cached(step, "direct signs", make)
    if direct is not None and x.flags.c_contiguous:
        return finish(step, joined, direct.made(x), parameters)
    own = readings(layer, x, parameters, joined)
    return finish(step, joined, _direct(step, own[0], parameters).made(own[0].x), parameters) if len(own) == 1 else None


def _direct(step: SignConvolution, own: Reading, parameters: ParameterState) -> Direct:
    layer, joined, context = step.convolution, step.joined, own.context

    def make() -> Callable[[Array, Array], int]:
        weights, shape = weights_of(layer, parameters), (len(context.border_patterns), len(parameters.values[layer.weight]) * LANES)
        limits = np.empty(shape, np.int64 if isinstance(weights, PackedInt1) else np.int32)
        entry_points.fill_limits(
            weights, context, parameters.values[step.thresholding.threshold], np.empty(shape, np.int32), limits
        )
        return entry_points.sign_convolution.bind(weights, context, limits)

    run = parameters.cached(step, ("signs", context.input_zero_point), make, partial(needs_weights, layer, context, parameters))
    return Direct(run, np.zeros, signs_shape(parameters.plan.network, step, joined), np.dtype(np.uint64))


def _pool_in_tile(network: Network, step: SignConvolution) -> Joined:
    """The pool that the tile does on its way, if it is one of 2 x 2 and none of its taps is outside."""
    if step.pool is None:
        return UNPOOLED
    window, size, out = step.pool.window, conv_size(network, step), network.values[step.output].height_width
    inside = all((out[i] - 1) * window.stride[i] + 2 <= size[i] for i in (0, 1))
    plain = window.kernel == (2, 2) and window.dilation == (1, 1) and not any(window.pads)
    return Joined(window, out) if plain and inside else UNPOOLED


def conv_size(network: Network, step: SignConvolution) -> tuple[int, int]:
    """Height and width of the convolution's output."""
    layer = step.convolution
    return layer.window.output_size(*network.values[layer.inputs[0]].height_width)


def signs_shape(network: Network, step: SignConvolution, joined: Joined) -> tuple[int, int, int]:
    """Height, width and words of an image's bits as the tile leaves them."""
    height, width = conv_size(network, step) if step.pool and not joined.pools else network.values[step.output].height_width
    return height, width, -(-network.values[step.output].channels // 64)


def empty_signs(network: Network, step: SignConvolution, joined: Joined, images: int) -> Array:
    """Room for these bits."""
    return np.zeros((images, *signs_shape(network, step, joined)), dtype=np.uint64)


def finish(step: SignConvolution, joined: Joined, bits: Array, parameters: ParameterState) -> Array:
    """Pool by OR, if that is still to be done, and invert."""
    if step.pool and not joined.pools:
        pooled = empty_output(parameters.plan.network.values[step.output], len(bits))
        entry_points.or_pool(bits, geometry_of(step.pool.window), pooled)
        bits = pooled
    if step.inverted is not None:
        entry_points.invert_bits(bits, step.inverted)
    return bits
