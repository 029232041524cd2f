"""Inputs of integer convolutions: activations as a kernel reads them, and the constants of the layer.

A kernel reads unsigned bytes, packed signs or int16 pairs, with the padding of the window around them. Activations that are like
that already are read in place. All others are copied, padded, and shifted to unsigned bytes where they are signed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.layers import Convolution
from weakcell.emulator.ir.values import ValueSpec, Window, unpack_channels
from weakcell.emulator.kernels import entry_points
from weakcell.emulator.kernels.arguments import ConvContext
from weakcell.emulator.kernels.weight_layouts import (
    LANES,
    DepthwiseInt8x4,
    Int16x2,
    PackedInt1,
    subbyte_slots,
    word_bytes,
)
from weakcell.emulator.plan.layout import KernelTensor, contiguous_taps
from weakcell.emulator.plan.parameters import ParameterState

Array = npt.NDArray[Any]
Geometry = tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int, int, int]]
"""Kernel, stride, dilation and padding (top, left, bottom, right) of a window."""

_READABLE_BEYOND = 64
"""Bytes behind activations that a micro-kernel may load and not use: its words are longer than some contiguous runs."""


def window_geometry(window: Window) -> Geometry:
    """Return a window as plain tuples, which compiled kernels take."""
    return window.kernel, window.stride, window.dilation, window.pads


def unpack_values(x: Array, spec: ValueSpec) -> Array:
    """Return codes as they are, and bits as +1 and -1: integers (n, H, W, C)."""
    return unpack_channels(x, spec.channels) if spec.kind == "bits" else x


class KernelInput(NamedTuple):
    """Activations prepared for an integer convolution kernel.

    Attributes:
        activations: (n, H + padding, W + padding, C), padded with `context.input_zero_point`; for packed signs with 0.
        window: the layer's window; 1 x 1 if the layer flattens its input.
        context: zero points, bias and geometry of the layer (`arguments.ConvContext`).
        factor: multiplies the sums: 1, or 256 for the high byte of 16-bit codes.
    """

    activations: Array
    window: Window
    context: ConvContext
    factor: int = 1


@dataclass(frozen=True)
class FusedPool:
    """A pool that a convolution kernel computes on its way.

    Attributes:
        window: the window of the pool.
        output_size: height and width behind the pool; (0, 0) means that there is no pool.
    """

    window: Window
    output_size: tuple[int, int]

    @property
    def pools(self) -> bool:
        """Whether there is a pool at all."""
        return self.output_size != (0, 0)


NO_POOL = FusedPool(Window((1, 1)), (0, 0))
"""The kernel leaves all pixels of the convolution."""


class _ConvSetup(NamedTuple):
    """Window and constants of one convolution. in_place: its kernel can read contiguous activations without a padded copy."""

    window: Window
    context: ConvContext
    in_place: bool


def kernel_tensor(layer: Convolution, parameters: ParameterState) -> KernelTensor:
    """Return the layer's packed weights; as bytes while some of its signs are dropped."""
    return parameters.ternary_weights(layer) if layer.weight in parameters.dropped else parameters.plan.tensors[layer.weight]


def prepare_inputs(layer: Convolution, x: Array, parameters: ParameterState, pool: FusedPool = NO_POOL) -> tuple[KernelInput, ...]:
    """Prepare activations for the layer's kernel.

    Args:
        layer: the convolution.
        x: activations in physical form (n, H, W, C).
        parameters: the current parameters.
        pool: the pool that the kernel computes, too; it decides the order of the output pixels.

    Returns:
        One input; two, for the low and the high bytes, if the codes do not fit into 8 bits. The layer's sums are then
        the sums of both, each multiplied by its `factor`.
    """
    kernel, spec = kernel_tensor(layer, parameters), parameters.specs[layer.inputs[0]]
    window, context, in_place = _conv_setup(layer, parameters, pool)
    if in_place and x.flags.c_contiguous:
        return (KernelInput(x, window, context),)
    if kernel.weight_layout is PackedInt1:
        bits = _flatten_bits(x, spec, context.inputs_per_tap) if kernel.flat else x
        return (KernelInput(_pad_with_zeros(bits, window), window, context),)
    if kernel.weight_layout is Int16x2:
        wide = unpack_values(x, spec).astype(np.int32) - (spec.zero_point if spec.kind == "codes" else 0)
        return (KernelInput(_pad_with_zeros(wide.astype(np.int16), window), window, context),)
    return _byte_inputs(x, spec, window, context)


def input_in_place(layer: Convolution, parameters: ParameterState, pool: FusedPool = NO_POOL) -> KernelInput | None:
    """Return an input without activations, for a kernel that reads contiguous ones in place; None if it cannot."""
    window, context, in_place = _conv_setup(layer, parameters, pool)
    return KernelInput(np.empty(0), window, context) if in_place else None


def _conv_setup(layer: Convolution, parameters: ParameterState, pool: FusedPool) -> _ConvSetup:
    key = "pooled setup" if pool.pools else "setup"
    return parameters.cached(layer, key, lambda: _make_setup(layer, parameters, pool), lambda: False)


def _make_setup(layer: Convolution, parameters: ParameterState, pool: FusedPool) -> _ConvSetup:
    kernel, spec = kernel_tensor(layer, parameters), parameters.specs[layer.inputs[0]]
    window, size, inputs = layer.window, spec.height_width, spec.channels // layer.groups
    if kernel.flat:
        window, size, inputs = Window((1, 1)), (1, 1), spec.channels * size[0] * size[1]
    if kernel.weight_layout is PackedInt1:
        pixel_bytes = -(-inputs // 64) * 8
    else:
        pixel_bytes = spec.channels * (2 if kernel.weight_layout is Int16x2 else 1)
    in_place = _reads_in_place(layer, kernel, spec)
    patterns, rows = border_patterns(window, size, pixel_bytes, pool, only_full=kernel.weight_layout is not PackedInt1)
    input_zero_point = spec.zero_point if in_place and kernel.weight_layout is not PackedInt1 else 0
    outputs = parameters.tensors[layer.weight].shape[0]
    zero_points = np.broadcast_to(parameters.tensors[layer.weight].zero_point, outputs).astype(np.int32) - np.int32(kernel.offset)
    bias = parameters.values[layer.bias].astype(np.int32) if layer.bias else np.zeros(outputs, dtype=np.int32)
    geometry = window_geometry(window)
    context = ConvContext(geometry, layer.groups, pool.pools, inputs, patterns, rows, input_zero_point, zero_points, bias)
    return _ConvSetup(window, context, in_place)


def _reads_in_place(layer: Convolution, kernel: KernelTensor, spec: ValueSpec) -> bool:
    """Return whether a kernel can read contiguous activations without a copy.

    They need no border. They are packed signs, or unsigned bytes whose contiguous runs are whole words of weights.
    """
    if any(layer.window.pads):
        return False
    if kernel.weight_layout is PackedInt1:
        return not kernel.flat or spec.height_width == (1, 1)
    if spec.dtype != "uint8" or not 0 <= spec.zero_point <= 255:
        return False
    if kernel.weight_layout is DepthwiseInt8x4:
        return spec.channels % LANES == 0
    assert kernel.weight_layout is not None
    run, word = contiguous_taps(layer) * spec.channels // layer.groups, word_bytes(kernel.weight_layout)
    return run % (word * subbyte_slots(kernel.weight_layout)) == 0


# ── padded copies ───────────────────────────────────────────────────────────────────────────────────


def _byte_inputs(x: Array, spec: ValueSpec, window: Window, context: ConvContext) -> tuple[KernelInput, ...]:
    """Copy codes to unsigned bytes: signed ones are shifted, wider ones become a low and a high byte if they need both."""
    values, zero = unpack_values(x, spec), spec.zero_point if spec.kind == "codes" else 0
    shift = {"uint8": 0, "int8": 128}.get(values.dtype.name, 0)
    single, used_bits = _copy_bytes(values, shift, False, zero + shift, window)
    if not (used_bits | (zero + shift)) & ~255:
        return (KernelInput(single, window, context._replace(input_zero_point=zero + shift)),)
    shift = 0 if values.dtype.name == "uint16" else 1 << 15
    zero += shift
    low, high = (_copy_bytes(values, shift, upper, zero >> 8 if upper else zero & 255, window)[0] for upper in (False, True))
    high_context = context._replace(bias=np.zeros_like(context.bias), input_zero_point=zero >> 8)
    low_input = KernelInput(low, window, context._replace(input_zero_point=zero & 255))
    return low_input, KernelInput(high, window, high_context, 256)


def _copy_bytes(x: Array, shift: int, upper: bool, zero_point: int, window: Window) -> tuple[Array, int]:
    """Return one byte of x + shift with its border, and all bits that occur in x + shift."""
    out = _allocate_padded(x, window, np.uint8, np.empty)
    return out, entry_points.to_padded_bytes(x, shift, upper, zero_point & 255, window.pads[:2], out)


def _pad_with_zeros(x: Array, window: Window) -> Array:
    """Return contiguous activations with zeros as the window's padding; packed signs without padding are not copied."""
    if not any(window.pads) and x.dtype == np.uint64:
        return np.ascontiguousarray(x)
    (top, left, *_), (_, height, width, _) = window.pads, x.shape
    padded = _allocate_padded(x, window, x.dtype, np.zeros)
    padded[:, top : top + height, left : left + width] = x
    return padded


def _allocate_padded(x: Array, window: Window, dtype: npt.DTypeLike, allocate: Callable[..., Array]) -> Array:
    """Return memory for x (n, H, W, C) with its border; `_READABLE_BEYOND` bytes behind it are readable, too."""
    top, left, bottom, right = window.pads
    images, height, width, channels = x.shape
    shape = (images, height + top + bottom, width + left + right, channels)
    size = math.prod(shape)
    return allocate(size + _READABLE_BEYOND // np.dtype(dtype).itemsize, dtype=dtype)[:size].reshape(shape)


def _flatten_bits(x: Array, spec: ValueSpec, bits: int) -> Array:
    """Return packed signs of each image as one row of bits, in the order of Flatten."""
    if spec.height_width == (1, 1):
        return x
    flat = np.zeros((len(x), 1, 1, -(-bits // 64)), dtype=np.uint64)
    entry_points.flatten_bits(x, spec.channels, flat)
    return flat


# ── borders ─────────────────────────────────────────────────────────────────────────────────────────


@lru_cache(maxsize=256)
def border_patterns(
    window: Window, size: tuple[int, int], pixel_bytes: int, pool: FusedPool, only_full: bool = False
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Return how the windows of all output pixels overlap the border.

    Args:
        window: the window of the convolution.
        size: height and width of the input.
        pixel_bytes: bytes of an input pixel.
        pool: the output pixels are ordered row by row, or by the windows of this pool.
        only_full: let all pixels have one pattern, in which no tap is missing.

    Returns:
        patterns: bool (patterns, taps), the distinct sets of taps inside the image.
        rows: int64 (2, output pixels), the byte offset of each pixel's window, and the index of its pattern.
    """
    out = window.output_size(*size)
    y, x = _output_pixels(pool.window, out if pool == NO_POOL else pool.output_size)
    width = size[1] + window.pads[1] + window.pads[3]
    offsets = (y * window.stride[0] * width + x * window.stride[1]) * pixel_bytes
    if only_full:
        return np.ones((1, window.kernel[0] * window.kernel[1]), dtype=np.bool_), np.stack([offsets, np.zeros_like(offsets)])
    inside = []
    for axis, position in ((0, y), (1, x)):
        first = position * window.stride[axis] - window.pads[axis]
        taps = first[:, None] + np.arange(window.kernel[axis]) * window.dilation[axis]
        inside.append((taps >= 0) & (taps < size[axis]))
    overlap = (inside[0][:, :, None] & inside[1][:, None, :]).reshape(len(y), -1)
    patterns, pattern_index = np.unique(overlap, axis=0, return_inverse=True)
    return np.ascontiguousarray(patterns), np.stack([offsets, pattern_index.reshape(-1).astype(np.int64)])


def _output_pixels(window: Window, out: tuple[int, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return row and column of every pixel that the windows of a pool without padding read, window by window."""
    oy, ox, ky, kx = np.meshgrid(*(np.arange(n) for n in (*out, *window.kernel)), indexing="ij")
    return (oy * window.stride[0] + ky).reshape(-1), (ox * window.stride[1] + kx).reshape(-1)
