"""Fused steps: convolution + MaxPool + Threshold, and convolution + requantization, where nobody reads the values in between.

A threshold commutes with a maximum: max(acc) >= t if any acc >= t. So the kernel makes bits first. They are pooled by OR, and
inverted last.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from weakcell.emulator.engine.conv_inputs import NO_POOL, Array, FusedPool, KernelInput, window_geometry
from weakcell.emulator.engine.convolution import (
    BoundKernel,
    Kernel,
    Requantization,
    can_round_in_kernel,
    compute_offsets,
    convolve_to_codes,
    offsets_use_weights,
    packed_weights,
    run_bound,
)
from weakcell.emulator.engine.layer_functions import compute, empty_output
from weakcell.emulator.ir.layer import Layer, LayerParameters
from weakcell.emulator.ir.layers import Convolution, MaxPool, Threshold
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import Role, pack_channels
from weakcell.emulator.kernels import entry_points
from weakcell.emulator.kernels.weight_layouts import PackedInt1
from weakcell.emulator.plan.layout import unsigned_offset
from weakcell.emulator.plan.parameters import ParameterState
from weakcell.emulator.plan.plan import Plan


@dataclass(frozen=True, eq=False)
class Fused(Layer):
    """A convolution and the layers that follow it, run as one step."""

    PARAMETERS = LayerParameters(of_inputs=(), other=("convolution",))
    convolution: Convolution

    def tensor_names(self, *roles: Role) -> tuple[str, ...]:
        """Return the names of the stored tensors of all parts."""
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
        """The convolution and the requantization."""
        return (self.convolution, self.requantization)


@dataclass(frozen=True, eq=False)
class SignConvolution(Fused):
    """Convolution + MaxPool + Threshold.

    Attributes:
        pool: the MaxPool, if there is one.
        thresholding: the Threshold.
        fused_pool: the pool, if the convolution kernel computes it on its way.
        inverted: packed bits of the channels that are inverted last; None if there are none.
    """

    PARAMETERS = LayerParameters(of_inputs=(), other=("pool", "thresholding", "fused_pool", "inverted"))
    pool: MaxPool | None
    thresholding: Threshold
    fused_pool: FusedPool = NO_POOL
    inverted: Array | None = None

    @property
    def parts(self) -> tuple[Layer, ...]:
        """The convolution, the pool if there is one, and the threshold."""
        middle = (self.pool,) if self.pool else ()
        return (self.convolution, *middle, self.thresholding)


# ── which layers are fused ──────────────────────────────────────────────────────────────────────────


def fuse_layers(network: Network, keep: Collection[str] = ()) -> tuple[Layer, ...]:
    """Return the steps of a network: its layers, fused where the values in between are used once and are not in `keep`."""
    uses: dict[str, list[Layer]] = {}
    for layer in network.layers:
        for name in layer.inputs:
            uses.setdefault(name, []).append(layer)
    fused: set[int] = set()
    steps: list[Layer] = []
    for layer in network.layers:
        if id(layer) in fused:
            continue
        step = _fuse_from(network, layer, uses, {*keep, *network.outputs})
        fused.update(id(part) for part in unfused_layers(step))
        steps.append(step)
    return tuple(steps)


def fused_steps(plan: Plan, keep: Collection[str] = ()) -> tuple[Layer, ...]:
    """Return `fuse_layers` of the plan's network; computed once per plan."""
    return plan.cache.get(("fused layers", frozenset(keep)), lambda: fuse_layers(plan.network, keep))


def unfused_layers(step: Layer) -> tuple[Layer, ...]:
    """Return the layers that a step stands for: itself, if it is not fused."""
    return step.parts if isinstance(step, Fused) else (step,)


def _fuse_from(network: Network, layer: Layer, uses: dict[str, list[Layer]], keep: set[str]) -> Layer:
    """Return the step that begins with a layer: fused with those that follow it, or the layer itself."""
    if not isinstance(layer, Convolution):
        return layer
    following = _only_user(layer.output, uses, keep)
    if isinstance(following, Requantization) and can_round_in_kernel(network, layer, following) and following.output not in keep:
        return CodeConvolution(layer.name, layer.inputs, following.output, layer, following)
    if not _can_make_signs(network, layer):
        return layer
    pool: MaxPool | None = None
    if isinstance(following, MaxPool):
        pool, following = following, _only_user(following.output, uses, keep)
    if not isinstance(following, Threshold):
        return layer
    inverted = pack_channels(following.inverted[None])[0] if following.inverted.any() else None
    step = SignConvolution(layer.name, layer.inputs, following.output, layer, pool, following, inverted=inverted)
    return replace(step, fused_pool=_choose_fused_pool(network, step))


def _can_make_signs(network: Network, layer: Convolution) -> bool:
    """Return whether a kernel can make signs of a convolution: dense, from bits or codes, without zero points and bias.

    A faulty bias, or a very long sum, can take the accumulator past int32, where it wraps. No threshold on the sum before the
    bias says the same.
    """
    spec, tensor = network.values[layer.inputs[0]], network.tensors[layer.weight]
    plain = layer.groups == 1 and layer.bias is None and not np.any(tensor.zero_point)
    bounded = tensor.encoding.bits <= 8 and tensor.values[:1].size < 1 << 16
    return spec.kind != "float" and plain and bounded and not unsigned_offset(tensor)


def _only_user(name: str, uses: dict[str, list[Layer]], keep: set[str]) -> Layer | None:
    users = uses.get(name, [])
    return users[0] if len(users) == 1 and name not in keep else None


def _choose_fused_pool(network: Network, step: SignConvolution) -> FusedPool:
    """Return the step's pool if a kernel can compute it: 2 x 2, and no tap outside of the image."""
    if step.pool is None:
        return NO_POOL
    window, size, out = step.pool.window, _convolution_size(network, step), network.values[step.output].height_width
    inside = all((out[i] - 1) * window.stride[i] + 2 <= size[i] for i in (0, 1))
    plain = window.kernel == (2, 2) and window.dilation == (1, 1) and not any(window.pads)
    return FusedPool(window, out) if plain and inside else NO_POOL


# ── computing a step ────────────────────────────────────────────────────────────────────────────────


def compute_step(step: Layer, inputs: list[Array], parameters: ParameterState) -> Array:
    """Return the output of a layer or of a fused step for a chunk of images.

    Args:
        step: the layer or fused step.
        inputs: its inputs in physical form, in the order of `step.inputs`.
        parameters: the current parameters.
    """
    output = None
    if isinstance(step, Fused) and step.convolution.weight not in parameters.dropped:
        if isinstance(step, SignConvolution):
            output = _convolve_to_signs(step, inputs[0], parameters)
        elif isinstance(step, CodeConvolution):
            output = convolve_to_codes(step.convolution, step.requantization, inputs[0], parameters)
    if output is not None:
        return output
    for part in unfused_layers(step):
        inputs = [compute(part, inputs, parameters)]
    return inputs[0]


def _convolve_to_signs(step: SignConvolution, x: Array, parameters: ParameterState) -> Array | None:
    """Return the step's output bits; None: see `run_bound`."""
    bits = run_bound(step.convolution, step, x, parameters, partial(_bind_signs, step, parameters), step.fused_pool)
    return None if bits is None else finish_signs(step, step.fused_pool, bits, parameters)


def _bind_signs(step: SignConvolution, parameters: ParameterState, kernel_input: KernelInput) -> BoundKernel:
    layer, pool, context = step.convolution, step.fused_pool, kernel_input.context

    def bind() -> Kernel:
        weights = packed_weights(layer, parameters)
        binary, offsets = isinstance(weights, PackedInt1), compute_offsets(weights, context)
        limits = np.empty(offsets.shape, np.int64 if binary else np.int32)
        entry_points.fill_limits(binary, parameters.values[step.thresholding.threshold], offsets, limits)
        return entry_points.sign_convolution.bind(weights, context, limits)

    uses_weights = partial(offsets_use_weights, layer, context, parameters)
    run = parameters.cached(step, ("signs", context.input_zero_point), bind, uses_weights)
    return BoundKernel(run, np.zeros, _signs_shape(parameters.plan.network, step, pool), np.dtype(np.uint64))


def _convolution_size(network: Network, step: SignConvolution) -> tuple[int, int]:
    """Return height and width of the convolution's output."""
    layer = step.convolution
    return layer.window.output_size(*network.values[layer.inputs[0]].height_width)


def _signs_shape(network: Network, step: SignConvolution, pool: FusedPool) -> tuple[int, int, int]:
    """Return height, width and 64-bit words of the bits that the kernel leaves for each image."""
    spec = network.values[step.output]
    height, width = _convolution_size(network, step) if step.pool and not pool.pools else spec.height_width
    return height, width, -(-spec.channels // 64)


def empty_signs(network: Network, step: SignConvolution, pool: FusedPool, images: int) -> Array:
    """Return zeroed memory for the bits that the kernel leaves, before `finish_signs`.

    Args:
        network: the network.
        step: the step.
        pool: the pool that the kernel computes: the step's, or NO_POOL.
        images: the number of images.
    """
    return np.zeros((images, *_signs_shape(network, step, pool)), dtype=np.uint64)


def finish_signs(step: SignConvolution, pool: FusedPool, bits: Array, parameters: ParameterState) -> Array:
    """Pool by OR, unless the kernel has done so (`pool`), and invert channels; `bits` may be changed in place."""
    if step.pool and not pool.pools:
        pooled = empty_output(parameters.plan.network.values[step.output], len(bits))
        entry_points.or_pool(bits, window_geometry(step.pool.window), pooled)
        bits = pooled
    if step.inverted is not None:
        entry_points.invert_bits(bits, step.inverted)
    return bits
