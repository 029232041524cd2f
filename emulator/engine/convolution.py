"""Convolutions of integers: a layer's input as its kernel reads it, and what stands around it, for all weights as they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir import layers as nw
from weakcell.emulator.ir.values import unpack_channels
from weakcell.emulator.kernels import entry_points
from weakcell.emulator.kernels.arguments import ConvContext, Epilogue, Rounding
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

_SPARE = 64
"""Bytes behind activations that a tile may read, though not use: its words are longer than some stretches."""


def geometry_of(window: nw.Window) -> Geometry:
    """A window as plain tuples, for kernels."""
    return window.kernel, window.stride, window.dilation, window.pads


def values_of(x: Array, spec: nw.ValueSpec) -> Array:
    """Codes or bits as integers (n, H, W, C); bits become +1 and -1."""
    return unpack_channels(x, spec.channels) if spec.kind == "bits" else x


def centred(x: Array, spec: nw.ValueSpec) -> Array:
    """Codes or bits as int16 values, zero point subtracted."""
    wide: Array = values_of(x, spec).astype(np.int32) - (spec.zero_point if spec.kind == "codes" else 0)
    return wide.astype(np.int16)


class Reading(NamedTuple):
    """A layer's input as its kernel reads it: with its border, `centre` standing for 0; its part of a sum counts `factor` times."""

    x: Array
    window: nw.Window
    context: ConvContext
    factor: int = 1


@dataclass(frozen=True)
class Joined:
    """A pool behind a convolution: its window, and the height and width of its output."""

    window: nw.Window
    out: tuple[int, int]

    @property
    def pools(self) -> bool:
        """Whether it is a pool at all."""
        return self.out != (0, 0)


UNPOOLED = Joined(nw.Window((1, 1)), (0, 0))
"""No pool: all pixels one by one."""


class _Around(NamedTuple):
    """What stands around a layer's integers, and the window as its kernel sees it. ready: codes can be read where they lie."""

    window: nw.Window
    context: ConvContext
    ready: bool


def kernel_tensor(layer: nw.Convolution, parameters: ParameterState) -> KernelTensor:
    """The layer's weights as its kernel has them, or as bytes while some of its signs are dropped."""
    return parameters.ternary_weights(layer) if layer.weight in parameters.dropped else parameters.plan.tensors[layer.weight]


def weights_of(layer: nw.Convolution, parameters: ParameterState) -> Any:
    """The layer's weights in their form."""
    kernel = kernel_tensor(layer, parameters)
    assert kernel.weight_layout is not None
    return kernel.weight_layout(kernel.values if layer.weight in parameters.dropped else parameters.values[layer.weight])


def constants_of(layer: nw.Convolution, parameters: ParameterState) -> tuple[Array, Array]:
    """Weight zero points, as stored, and bias of a convolution: one int32 per output channel."""
    kernel, outputs = kernel_tensor(layer, parameters), len(parameters.tensors[layer.weight].values)
    zero_points = np.broadcast_to(parameters.tensors[layer.weight].zero_point, outputs).astype(np.int32) - np.int32(kernel.offset)
    bias = parameters.values[layer.bias].astype(np.int32) if layer.bias else np.zeros(outputs, dtype=np.int32)
    return zero_points, bias


def readings(layer: nw.Convolution, x: Array, parameters: ParameterState, joined: Joined = UNPOOLED) -> list[Reading]:
    """One reading, or the lower and the upper bytes of activations that do not fit into one; rows in the order of a pool."""
    kernel, spec = kernel_tensor(layer, parameters), parameters.specs[layer.inputs[0]]
    window, context, ready = _around(layer, parameters, joined)
    if ready and x.flags.c_contiguous:
        return [Reading(x, window, context)]
    if kernel.weight_layout is PackedInt1:
        return [Reading(with_border(_flattened(x, spec, context.inputs_per_tap) if kernel.flat else x, window), window, context)]
    if kernel.weight_layout is Int16x2:
        return [Reading(with_border(centred(x, spec), window), window, context)]
    return _byte_readings(x, spec, window, context)


def reading_in_place(layer: nw.Convolution, parameters: ParameterState, joined: Joined = UNPOOLED) -> Reading | None:
    """The reading of contiguous activations where they lie, without any yet; None if the layer's kernel needs them otherwise."""
    window, context, ready = _around(layer, parameters, joined)
    return Reading(np.empty(0), window, context) if ready else None


def _around(layer: nw.Convolution, parameters: ParameterState, joined: Joined) -> _Around:
    which = "pooled around" if joined.pools else "around"
    return parameters.cached(layer, which, lambda: _make_around(layer, parameters, joined), lambda: False)


def _make_around(layer: nw.Convolution, parameters: ParameterState, joined: Joined) -> _Around:
    kernel, spec = kernel_tensor(layer, parameters), parameters.specs[layer.inputs[0]]
    zero_points, bias = constants_of(layer, parameters)
    window, size, inputs = layer.window, spec.height_width, spec.channels // layer.groups
    if kernel.flat:
        window, size, inputs = nw.Window((1, 1)), (1, 1), spec.channels * size[0] * size[1]
    layout = kernel.weight_layout
    pixel = -(-inputs // 64) * 8 if layout is PackedInt1 else spec.channels * (2 if layout is Int16x2 else 1)
    patterns, row_table = rows_of(window, size, pixel, joined, one_place=kernel.weight_layout is not PackedInt1)
    ready = _is_ready(layer, kernel, spec)
    centre = spec.zero_point if ready and kernel.weight_layout is not PackedInt1 else 0
    context = ConvContext(geometry_of(window), layer.groups, joined.pools, inputs, patterns, row_table, centre, zero_points, bias)
    return _Around(window, context, ready)


def _is_ready(layer: nw.Convolution, kernel: KernelTensor, spec: nw.ValueSpec) -> bool:
    """Whether a kernel can read activations where they lie, if they are contiguous.

    They must have no border, and be signs in words, or unsigned bytes whose stretches meet whole words of weights.
    """
    if kernel.weight_layout is PackedInt1:
        return not any(layer.window.pads) and (not kernel.flat or spec.height_width == (1, 1))
    if spec.dtype != "uint8" or any(layer.window.pads) or not 0 <= spec.zero_point <= 255:
        return False
    if kernel.weight_layout is DepthwiseInt8x4:
        return spec.channels % LANES == 0
    assert kernel.weight_layout is not None
    return (
        contiguous_taps(layer)
        * spec.channels
        // layer.groups
        % (word_bytes(kernel.weight_layout) * subbyte_slots(kernel.weight_layout))
        == 0
    )


def _byte_readings(x: Array, spec: nw.ValueSpec, window: nw.Window, context: ConvContext) -> list[Reading]:
    """Codes as unsigned bytes, shifted if they are signed; 16-bit codes are read byte by byte where one does not do."""
    values, zero = values_of(x, spec), spec.zero_point if spec.kind == "codes" else 0
    shift = {"uint8": 0, "int8": 128}.get(values.dtype.name, 0)
    single, used = _bytes(values, shift, False, zero + shift, window)
    if not (used | (zero + shift)) & ~255:
        return [Reading(single, window, context._replace(input_zero_point=zero + shift))]
    shift = 0 if values.dtype.name == "uint16" else 1 << 15
    centre = zero + shift
    low, high = (_bytes(values, shift, upper, centre >> 8 if upper else centre & 255, window)[0] for upper in (False, True))
    rest = context._replace(bias=np.zeros_like(context.bias), input_zero_point=centre >> 8)
    return [Reading(low, window, context._replace(input_zero_point=centre & 255)), Reading(high, window, rest, 256)]


def _bytes(x: Array, shift: int, upper: bool, centre: int, window: nw.Window) -> tuple[Array, int]:
    """Bytes of x + shift with their border, and all bits that occur in x + shift."""
    top, left, bottom, right = window.pads
    images, height, width, channels = x.shape
    shape = (images, height + top + bottom, width + left + right, channels)
    size = math.prod(shape)
    out = np.empty(size + _SPARE, dtype=np.uint8)[:size].reshape(shape)
    return out, entry_points.to_padded_bytes(x, shift, upper, centre & 255, (top, left), out)


def with_border(x: Array, window: nw.Window) -> Array:
    """Channels-last activations with the window's padding around them, as zeros, contiguous, with room to read beyond."""
    top, left, bottom, right = window.pads
    images, height, width, channels = x.shape
    if not any(window.pads) and x.dtype == np.uint64:
        return np.ascontiguousarray(x)
    shape = (images, height + top + bottom, width + left + right, channels)
    size = math.prod(shape)
    padded = np.zeros(size + _SPARE // x.itemsize, dtype=x.dtype)[:size].reshape(shape)
    padded[:, top : top + height, left : left + width] = x
    return padded


def _flattened(x: Array, spec: nw.ValueSpec, bits: int) -> Array:
    if spec.height_width == (1, 1):
        return x
    flat = np.zeros((len(x), 1, 1, -(-bits // 64)), dtype=np.uint64)
    entry_points.flatten_bits(x, spec.channels, flat)
    return flat


@lru_cache(maxsize=256)
def rows_of(
    window: nw.Window, size: tuple[int, int], pixel: int, joined: Joined, one_place: bool = False
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Places, as bool (places, taps): the distinct sets of taps that are inside the image, or one full set; and the table of rows.

    pixel: bytes of a pixel. The table has the output pixels row by row, or in the order of a pool, all taps of a window together.
    """
    out = window.output_size(*size)
    y, x = _pixels(joined.window, out if joined == UNPOOLED else joined.out)
    width = size[1] + window.pads[1] + window.pads[3]
    offsets = (y * window.stride[0] * width + x * window.stride[1]) * pixel
    if one_place:
        return np.ones((1, window.kernel[0] * window.kernel[1]), dtype=np.bool_), np.stack([offsets, np.zeros_like(offsets)])
    inside = []
    for axis, at in ((0, y), (1, x)):
        taps = (at * window.stride[axis] - window.pads[axis])[:, None] + np.arange(window.kernel[axis]) * window.dilation[axis]
        inside.append((taps >= 0) & (taps < size[axis]))
    seen = (inside[0][:, :, None] & inside[1][:, None, :]).reshape(len(y), -1)
    places, place_of = np.unique(seen, axis=0, return_inverse=True)
    return np.ascontiguousarray(places), np.stack([offsets, place_of.reshape(-1).astype(np.int64)])


def _pixels(window: nw.Window, out: tuple[int, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row and column of every pixel that the windows of a pool without padding see, window by window."""
    oy, ox, ky, kx = np.meshgrid(*(np.arange(n) for n in (*out, *window.kernel)), indexing="ij")
    return (oy * window.stride[0] + ky).reshape(-1), (ox * window.stride[1] + kx).reshape(-1)


UNROUNDED = Rounding(np.zeros((0, 6, LANES), dtype=np.float32), 0)
"""For a kernel that leaves int32 sums."""


def convolve(layer: nw.Convolution, x: Array, parameters: ParameterState, out: Array) -> None:
    """The layer's int32 sums (n, H, W, O)."""
    for part, own in enumerate(readings(layer, x, parameters)):
        to = np.empty_like(out) if part else out
        kernel_of(layer, own, f"sums {part}", parameters, lambda: UNROUNDED)(own.x, to)
        if part:
            out += to * np.int32(own.factor)


class Direct(NamedTuple):
    """A layer's kernel for activations that it reads where they lie, and what room it needs for each image.

    It is looked up once a call: for one image, anything more takes longer than many a layer.
    """

    run: Callable[[Array, Array], int]
    room: Callable[..., Array]
    shape: tuple[int, ...]
    dtype: npt.DTypeLike

    def made(self, x: Array) -> Array:
        out = self.room((len(x), *self.shape), self.dtype)
        self.run(x, out)
        return out


def kernel_of(
    layer: nw.Convolution, own: Reading, what: str, parameters: ParameterState, rounding: Callable[[], Rounding]
) -> Callable[[Array, Array], int]:
    """What makes a reading's int32 sums (n, H, W, O), or the bytes that they are rounded to: called with `own.x` and room for them.

    what: a name for it. It is put together once for the parameters as they are.
    """
    context = own.context

    def make() -> Callable[[Array, Array], int]:
        weights = weights_of(layer, parameters)
        offsets = offsets_of(layer, context, what, weights, parameters)
        sums = entry_points.convolution.bind(weights, context, Epilogue(offsets, rounding()))
        if not context.weight_zero_points.any():
            return sums
        shift = entry_points.subtract_window_sums.bind(context)
        return lambda x, out: sums(x, out) or shift(x, out)

    return parameters.cached(layer, (what, context.input_zero_point), make, partial(needs_weights, layer, context, parameters))


def needs_weights(layer: nw.Convolution, context: ConvContext, parameters: ParameterState) -> bool:
    """Whether `conv.fill_offsets` depends on the weights: at a border of bits, or where a code that is not 0 means 0."""
    form = kernel_tensor(layer, parameters).weight_layout
    return layer.weight in parameters.dropped or (
        not context.border_patterns.all() if form is PackedInt1 else context.input_zero_point != 0
    )


def offsets_of(layer: nw.Convolution, context: ConvContext, what: str, weights: Any, parameters: ParameterState) -> Array:
    """`conv.fill_offsets`, worked out once for the parameters as they are."""

    def make() -> Array:
        made = np.empty((len(context.border_patterns), len(weights.values) * LANES), dtype=np.int32)
        entry_points.fill_offsets(weights, context, made)
        return made

    return parameters.cached(
        layer, ("offsets", what, context.input_zero_point), make, partial(needs_weights, layer, context, parameters)
    )
