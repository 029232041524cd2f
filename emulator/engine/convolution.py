"""Integer convolutions: kernels bound to the current weights, for int32 sums and for codes rounded while they are in registers.

Both epilogues (QOperator and QDQ requantization) are rounded by one kernel function, `epilogues.store_codes`. Everything that a
memory may make faulty reaches the kernel as an argument. Where the constants of a requantization live in a memory, its layer runs
by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.conv_inputs import (
    NO_POOL,
    Array,
    FusedPool,
    KernelInput,
    input_in_place,
    kernel_tensor,
    prepare_inputs,
)
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import AffineRequantize, Convolution, Requantize
from weakcell.emulator.ir.network import Network
from weakcell.emulator.kernels import entry_points
from weakcell.emulator.kernels.arguments import (
    BIAS,
    BOUNDED,
    DIVIDED,
    HIGH,
    LOW,
    OUT_SCALE,
    SCALE,
    ZERO,
    ConvContext,
    Epilogue,
    Rounding,
)
from weakcell.emulator.kernels.weight_layouts import LANES, DepthwiseInt8x4, PackedInt1
from weakcell.emulator.plan.layout import unsigned_offset
from weakcell.emulator.plan.parameters import ParameterState

Requantization = Requantize | AffineRequantize
Kernel = Callable[[Array, Array], int]
"""Called with activations and the output that it fills."""

_EXACT = 1 << 16
"""Zero points and limits up to here are integers in float32, and so are their sums."""


NOT_ROUNDED = Rounding(np.zeros((0, 6, LANES), dtype=np.float32), 0)
"""For a kernel that leaves int32 sums."""


class BoundKernel(NamedTuple):
    """A layer's kernel with all arguments but the activations, and the shape of its output.

    One lookup per call: for a single image, anything more takes longer than many a layer.

    Attributes:
        run: the kernel.
        allocate: `np.empty`, or `np.zeros` if the kernel leaves spare bits as they are.
        shape: of the output of one image.
        dtype: of the output.
    """

    run: Kernel
    allocate: Callable[..., Array]
    shape: tuple[int, ...]
    dtype: npt.DTypeLike

    def __call__(self, x: Array) -> Array:
        """Return the output (n, *shape) for n images."""
        out = self.allocate((len(x), *self.shape), self.dtype)
        self.run(x, out)
        return out


Bind = Callable[[KernelInput], BoundKernel]


def run_bound(
    layer: Convolution, key: Layer, x: Array, parameters: ParameterState, bind: Bind, pool: FusedPool = NO_POOL
) -> Array | None:
    """Run a convolution with an epilogue that needs the complete sums.

    Args:
        layer: the convolution.
        key: the layer or fused step under which the bound kernel is cached.
        x: activations in physical form.
        parameters: the current parameters.
        bind: returns the kernel for an input.
        pool: the pool that the kernel computes, too.

    Returns:
        The output; None if the activations take two inputs, whose sums must be added before the epilogue.
    """

    def bind_in_place() -> BoundKernel | None:
        kernel_input = input_in_place(layer, parameters, pool)
        return bind(kernel_input) if kernel_input else None

    in_place = parameters.cached(key, "kernel in place", bind_in_place)
    if in_place is not None and x.flags.c_contiguous:
        return in_place(x)
    inputs = prepare_inputs(layer, x, parameters, pool)
    return bind(inputs[0])(inputs[0].activations) if len(inputs) == 1 else None


def convolve(layer: Convolution, x: Array, parameters: ParameterState, out: Array) -> None:
    """Fill `out` (n, H, W, O) with the layer's int32 sums."""
    for part, kernel_input in enumerate(prepare_inputs(layer, x, parameters)):
        sums = np.empty_like(out) if part else out
        bind_convolution(layer, kernel_input, ("sums", part), parameters)(kernel_input.activations, sums)
        if part:
            out += sums * np.int32(kernel_input.factor)


def convolve_to_codes(layer: Convolution, following: Requantization, x: Array, parameters: ParameterState) -> Array | None:
    """Return the codes (n, H, W, O) of a convolution and the requantization behind it; None: see `run_bound`."""

    def bind(kernel_input: KernelInput) -> BoundKernel:
        spec = parameters.specs[following.output]
        run = bind_convolution(layer, kernel_input, "codes", parameters, lambda: rounding_constants(layer, following, parameters))
        return BoundKernel(run, np.empty, (*spec.height_width, spec.channels), np.dtype(spec.dtype))

    return run_bound(layer, layer, x, parameters, bind)


def bind_convolution(
    layer: Convolution,
    kernel_input: KernelInput,
    key: str | tuple[str, int],
    parameters: ParameterState,
    rounding: Callable[[], Rounding] = lambda: NOT_ROUNDED,
) -> Kernel:
    """Return the kernel of a convolution for the current parameters; it is put together once.

    Args:
        layer: the convolution.
        kernel_input: its prepared input.
        key: what the kernel makes, and for which of the inputs.
        parameters: the current parameters.
        rounding: returns how the sums are rounded.

    Returns:
        A function that fills an output (n, H, W, O) from activations: int32 sums, or the bytes that they are rounded to.
    """
    context = kernel_input.context

    def bind() -> Kernel:
        weights = packed_weights(layer, parameters)
        sums = entry_points.convolution.bind(weights, context, Epilogue(compute_offsets(weights, context), rounding()))
        if not context.weight_zero_points.any():
            return sums
        subtract = entry_points.subtract_window_sums.bind(context)
        return lambda x, out: sums(x, out) or subtract(x, out)

    uses_weights = partial(offsets_use_weights, layer, context, parameters)
    return parameters.cached(layer, (key, context.input_zero_point), bind, uses_weights)


def packed_weights(layer: Convolution, parameters: ParameterState) -> Any:
    """Return the layer's current weights as the record of their weight layout, for kernels."""
    kernel = kernel_tensor(layer, parameters)
    assert kernel.weight_layout is not None
    return kernel.weight_layout(kernel.values if layer.weight in parameters.dropped else parameters.values[layer.weight])


def compute_offsets(weights: Any, context: ConvContext) -> Array:
    """Return what a kernel adds to its sums, int32 (patterns, panels * LANES): see `conv.fill_offsets`."""
    binary, (patterns, taps) = isinstance(weights, PackedInt1), context.border_patterns.shape
    lanes, offsets = len(weights.values) * LANES, np.empty((patterns, len(weights.values) * LANES), np.int32)
    weight_sums = np.zeros((taps if binary else 1, lanes), np.int64)
    if context.input_zero_point != 0 or (binary and not context.border_patterns.all()):
        entry_points.add_weights_by_tap(weights, len(weight_sums), weight_sums)
    groups = 1 if isinstance(weights, DepthwiseInt8x4) else context.groups
    entry_points.fill_offsets(binary, groups, context, weight_sums, offsets)
    return offsets


def offsets_use_weights(layer: Convolution, context: ConvContext, parameters: ParameterState) -> bool:
    """Return whether the constants that a kernel adds to its sums (`conv.fill_offsets`) depend on the weights.

    They do at a border of packed signs, and where the input's zero point is not 0.
    """
    if layer.weight in parameters.dropped:
        return True
    if kernel_tensor(layer, parameters).weight_layout is PackedInt1:
        return not context.border_patterns.all()
    return context.input_zero_point != 0


# ── requantization in the kernel ────────────────────────────────────────────────────────────────────


def can_round_in_kernel(network: Network, layer: Convolution, following: Layer | None) -> bool:
    """Return whether a kernel makes the codes of the layer behind a convolution: 8-bit ones, without further float steps.

    Weights must have no zero points: the micro-kernel's sums lack their part.
    """
    if not isinstance(following, Requantization) or network.values[layer.inputs[0]].kind == "float":
        return False
    tensor, spec = network.tensors[layer.weight], network.values[layer.output]
    steps = following.steps if isinstance(following, AffineRequantize) else ()
    exact = max(abs(following.zero_point), abs(following.low), abs(following.high)) <= _EXACT
    plain = not steps and spec.zero_point == 0 and not np.any(tensor.zero_point - unsigned_offset(tensor, layer.groups))
    return plain and exact and network.values[following.output].dtype in ("int8", "uint8")


def rounding_constants(layer: Convolution, following: Requantization, parameters: ParameterState) -> Rounding:
    """Return the constants of a requantization as the kernel of the convolution before it reads them; computed once."""
    groups = 1 if parameters.plan.tensors[layer.weight].weight_layout is DepthwiseInt8x4 else layer.groups
    outputs, dtype = parameters.tensors[layer.weight].shape[0], parameters.specs[following.output].dtype
    return parameters.cached(following, "rounding", lambda: _make_rounding(following, outputs, groups, dtype))


def _make_rounding(layer: Requantization, outputs: int, groups: int, dtype: str) -> Rounding:
    affine, per_group = isinstance(layer, AffineRequantize), outputs // groups
    channels = np.zeros((6, groups, -(-per_group // LANES) * LANES), dtype=np.float32)
    channels[OUT_SCALE] = 1
    rows: dict[int, npt.ArrayLike] = {ZERO: layer.zero_point}
    rows |= {LOW: layer.low - layer.zero_point, HIGH: layer.high - layer.zero_point}
    if isinstance(layer, AffineRequantize):
        rows |= {SCALE: layer.scale, BIAS: 0 if layer.bias is None else layer.bias, OUT_SCALE: layer.out_scale}
    else:
        rows[SCALE] = layer.multiplier
    for row, values in rows.items():
        channels[row, :, :per_group] = np.broadcast_to(np.asarray(values), outputs).reshape(groups, per_group)
    flags = (DIVIDED if affine else 0) | (BOUNDED if _is_bounded(channels, layer, dtype) else 0)
    return Rounding(np.ascontiguousarray(channels.reshape(6, -1, LANES).transpose(1, 0, 2)), flags)


def _is_bounded(channels: npt.NDArray[np.float32], layer: Requantization, dtype: str) -> bool:
    """Return whether constants and limits are what `epilogues.store_codes` calls bounded."""
    wide, codes = channels.astype(np.float64), np.iinfo(dtype)
    with np.errstate(all="ignore"):
        largest = (2.0**31 * np.abs(wide[SCALE]) + np.abs(wide[BIAS])) / np.abs(wide[OUT_SCALE])
    small = abs(layer.zero_point) < 1 << 14 and codes.min <= layer.low and layer.high <= codes.max
    plain = 2.0**-60 <= np.abs(wide[OUT_SCALE]).min() <= np.abs(wide[OUT_SCALE]).max() <= 2.0**60
    return bool(np.all(largest < 2.0**30)) and bool(plain) and small  # half of 2^31 leaves room for rounding on the way
