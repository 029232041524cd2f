"""Stored tensors in kernel order: which weight layout a layer uses, and where each stored element lies in it.

A memory holds a tensor in storage order: output channel after output channel, element by element (`ir/values.py`). A kernel
reads it in blocks of LANES output channels (`kernels/weight_layouts.py`). `KernelTensor` holds the packed values and the map
between the two orders, so that a flip of a stored bit can be applied to the packed values in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.layers import Convolution
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import Encoding, StoredTensor
from weakcell.emulator.kernels.entry_points import scatter_codes
from weakcell.emulator.kernels.weight_layouts import (
    LANES,
    DepthwiseInt8x4,
    Int8x4,
    Int16x2,
    PackedInt1,
    PackedInt2,
    PackedInt4,
    StorageOrder,
    inverted_bits,
    subbyte_slots,
)
from weakcell.emulator.plan.workspace import aligned_copy, aligned_zeros

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class KernelTensor:
    """A stored tensor as its kernel reads it.

    Attributes:
        tensor: the stored tensor.
        weight_layout: one of `weight_layouts.LAYOUTS`; None for integers that no micro-kernel reads (biases, thresholds, …).
        values: the packed values, without faults. Read-only by agreement: runs that share a plan share them.
        order: maps each stored element to its bit offset in `values`: outer (output channels,) + inner (elements per channel,).
        flip_masks: int64 (stored bits per element,): XOR mask of a flip of each stored bit, within the packed element.
        offset: subtracted from unsigned codes so that they fit a signed byte; kernels treat it as part of the zero point.
    """

    tensor: StoredTensor
    weight_layout: type | None
    values: npt.NDArray[np.generic]
    order: StorageOrder
    flip_masks: Integers
    offset: int = 0

    @property
    def is_sign_packed(self) -> bool:
        """Whether the values are signs, 64 to a word."""
        return self.weight_layout is PackedInt1

    @property
    def flat(self) -> bool:
        """Whether an output channel keeps its bits in storage order (`weight_layouts.StorageOrder`)."""
        return self.order.flat

    def same_layout(self, other: KernelTensor) -> bool:
        """Return whether the elements of both tensors lie at the same offsets of the same layout."""
        a, b = self.order, other.order
        same_order = a.flat == b.flat and np.array_equal(a.outer, b.outer) and np.array_equal(a.inner, b.inner)
        return self.weight_layout is other.weight_layout and same_order


# ── which layout ────────────────────────────────────────────────────────────────────────────────────


def pack_weights(network: Network, layer: Convolution) -> KernelTensor:
    """Return a layer's weights in the layout that its kernel reads."""
    tensor = network.tensors[layer.weight]
    kind = network.values[layer.inputs[0]].kind
    if kind == "float":
        return _pack_row_major(tensor)
    if kind == "bits" and tensor.encoding.kind == "sign" and layer.groups == 1:
        return _pack_signs(tensor, flattens_input(network, layer))
    if choose_weight_layout(tensor, layer.groups) is DepthwiseInt8x4:
        return _pack_depthwise(tensor)
    return pack_integers(tensor, choose_weight_layout(tensor, layer.groups), contiguous_taps(layer), layer.groups)


def choose_weight_layout(tensor: StoredTensor, groups: int = 1) -> type:
    """Return the layout of integer weights (O, C / groups, kh, kw)."""
    bits, products = tensor.encoding.bits, tensor.values[0].size if tensor.shape[0] else 0
    if bits > 8:
        return Int16x2
    if groups == tensor.shape[0] > 1 and tensor.shape[1] == 1:
        return DepthwiseInt8x4
    # Sub-byte weights are summed in the upper bits of int32. From 2^16 products on, such a sum could overflow.
    return {2: PackedInt2, 4: PackedInt4}.get(bits, Int8x4) if products < 1 << 16 else Int8x4


def contiguous_taps(layer: Convolution) -> int:
    """Return how many taps of a window have contiguous activations: a row of it, unless dilated or grouped."""
    return layer.window.kernel[1] if layer.window.dilation[1] == 1 and layer.groups == 1 else 1


def flattens_input(network: Network, layer: Convolution) -> bool:
    """Return whether a layer of packed signs is a matrix product behind Flatten: its window is the whole image."""
    window, size = layer.window, network.values[layer.inputs[0]].height_width
    return window.kernel == size and not any(window.pads) and window.dilation == (1, 1)


def unsigned_offset(tensor: StoredTensor, groups: int = 1) -> int:
    """Return `KernelTensor.offset`: 2^(bits - 1) for unsigned codes as wide as the signed integers of their layout, else 0."""
    bits = tensor.encoding.bits
    layout = choose_weight_layout(tensor, groups)
    full = bits == (16 if layout is Int16x2 else 8 // subbyte_slots(layout))
    return 1 << (bits - 1) if tensor.encoding.kind == "unsigned" and full else 0


def flip_masks(encoding: Encoding, width: int) -> Integers:
    """Return `KernelTensor.flip_masks` for integers of `width` bits.

    A flip of a ±1 weight negates it. A flip of a sign bit also flips its copies above it.
    """
    masks = np.int64(1) << np.arange(encoding.bits, dtype=np.int64)
    if encoding.kind == "sign":
        masks[0] = -2
    elif encoding.kind in ("signed", "float"):
        masks[-1] = -masks[-1]
    return masks if width == 64 else masks & ((1 << width) - 1)


# ── packing ─────────────────────────────────────────────────────────────────────────────────────────


def pack_constants(tensor: StoredTensor) -> KernelTensor:
    """Return a tensor that no micro-kernel reads as int32 in storage order; as int64 if it is unsigned and wider than 31 bits."""
    dtype = np.int64 if tensor.encoding.bits > 31 and tensor.encoding.kind == "unsigned" else np.int32
    return _keep_integers(tensor, tensor.values.astype(dtype), np.arange(tensor.elements), np.zeros(1, dtype=np.int64))


def _keep_integers(tensor: StoredTensor, values: npt.NDArray[np.generic], outer: Integers, inner: Integers) -> KernelTensor:
    """Wrap integers that no micro-kernel reads. outer, inner: indices into `values`."""
    width = values.itemsize * 8
    order = StorageOrder(outer.astype(np.int64) * width, inner.astype(np.int64) * width, False)
    return KernelTensor(tensor, None, aligned_copy(values), order, flip_masks(tensor.encoding, width))


def _pack_row_major(tensor: StoredTensor) -> KernelTensor:
    """Integers -> int16 or int32 (O, taps * C)."""
    outputs, channels, taps = _weight_shape(tensor)
    c, tap = np.ix_(np.arange(channels), np.arange(taps))
    outer, inner = np.arange(outputs) * (taps * channels), (tap * channels + c).reshape(-1)
    values = np.zeros((outputs, taps * channels), dtype=np.int16 if tensor.encoding.high < 1 << 15 else np.int32)
    values.reshape(-1)[outer[:, None] + inner] = tensor.values.reshape(outputs, -1)
    return _keep_integers(tensor, values, outer, inner)


def _pack_signs(tensor: StoredTensor, flat: bool) -> KernelTensor:
    """Signs -> `PackedInt1`, each tap in words of its own. flat: all taps and channels are one row of bits."""
    outputs, channels, taps = _weight_shape(tensor)
    if flat:
        channels, taps = channels * taps, 1
    words, blocks = -(-channels // 64), -(-outputs // LANES)
    o, (c, tap) = np.arange(outputs), np.ix_(np.arange(channels), np.arange(taps))
    outer = (o // LANES * (taps * words) * LANES + o % LANES) * 64
    inner = ((tap * words + c // 64) * LANES * 64 + c % 64).reshape(-1)
    values = aligned_zeros((blocks, taps * words, LANES), np.uint64)
    _scatter(values, outer, inner, tensor.values.reshape(outputs, -1) > 0)
    return KernelTensor(tensor, PackedInt1, values, StorageOrder(outer, inner, flat), np.ones(1, dtype=np.int64))


def pack_integers(tensor: StoredTensor, layout: type, contiguous: int, groups: int) -> KernelTensor:
    """Pack integers into one of the dense layouts.

    Args:
        tensor: weights (O, C / groups, kh, kw).
        layout: `Int8x4`, `PackedInt4`, `PackedInt2` or `Int16x2`.
        contiguous: taps in a contiguous run (`contiguous_taps`); each run begins with a new word.
        groups: groups of channels; each has blocks of its own.
    """
    outputs, channels, taps = _weight_shape(tensor)
    item, slots = (16, 1) if layout is Int16x2 else (8, subbyte_slots(layout))
    width, in_word = item // slots, 32 // item
    words = -(-contiguous * channels // (in_word * slots))
    per_group = outputs // groups
    blocks = -(-per_group // LANES)
    o, (c, tap) = np.arange(outputs), np.ix_(np.arange(channels), np.arange(taps))
    group, o = o // per_group, o % per_group
    outer = ((group * blocks + o // LANES) * (taps // contiguous * words) * LANES + o % LANES) * 32
    k = tap % contiguous * channels + c
    word, part, within = k // (in_word * slots), k // in_word % slots, k % in_word
    inner = ((tap // contiguous * words + word) * LANES * 32 + within * item + part * width).reshape(-1)
    offset = unsigned_offset(tensor, groups)
    shape = (groups * blocks, taps // contiguous * words, LANES, in_word)
    values = aligned_zeros(shape, np.int16 if layout is Int16x2 else np.int8)
    _scatter(values, outer, inner, (tensor.values.reshape(outputs, -1) - offset) & ((1 << width) - 1))
    values ^= inverted_bits(layout)
    return KernelTensor(tensor, layout, values, StorageOrder(outer, inner, False), flip_masks(tensor.encoding, width), offset)


def _pack_depthwise(tensor: StoredTensor) -> KernelTensor:
    """Integers with one input channel per output channel -> `DepthwiseInt8x4`."""
    outputs, _, height, width = tensor.shape
    words, blocks = width * -(-height // 4), -(-outputs // LANES)
    o, (ky, kx) = np.arange(outputs), np.divmod(np.arange(height * width), width)
    lane = o % 16 // 4 * 8 + o % LANES // 16 * 4 + o % 4
    outer, inner = (o // LANES * words * LANES + lane) * 32, (kx * -(-height // 4) + ky // 4) * LANES * 32 + ky % 4 * 8
    offset = unsigned_offset(tensor, outputs)
    values = aligned_zeros((blocks, words, LANES, 4), np.int8)
    _scatter(values, outer, inner, (tensor.values.reshape(outputs, -1) - offset) & 255)
    return KernelTensor(tensor, DepthwiseInt8x4, values, StorageOrder(outer, inner, False), flip_masks(tensor.encoding, 8), offset)


def _scatter(values: Array, outer: Integers, inner: Integers, codes: Array) -> None:
    """OR stored codes (O, inner.size) into values in kernel order; one machine code serves all values of a size."""
    scatter_codes(values.reshape(-1).view(f"u{values.itemsize}"), outer, inner, codes.astype(np.int32, copy=False))


def _weight_shape(tensor: StoredTensor) -> tuple[int, int, int]:
    """Return output channels, input channels of a group, and taps of weights (O, C, kh, kw)."""
    outputs, channels, height, width = tensor.shape
    return outputs, channels, height * width


def unpack_integers(kernel: KernelTensor, values: npt.NDArray[np.generic]) -> npt.NDArray[np.integer]:
    """Return packed values as the integers that they mean.

    Args:
        kernel: the layout of the values.
        values: values in kernel order, possibly with flips.

    Returns:
        Integers (elements,), in storage order.
    """
    offsets = (kernel.order.outer[:, None] + kernel.order.inner).reshape(-1)
    if kernel.weight_layout is None:
        return np.asarray(values.reshape(-1)[offsets // (8 * values.itemsize)])
    if kernel.weight_layout is PackedInt1:
        bits = np.unpackbits(values.view(np.uint8).reshape(-1), bitorder="little")[offsets]
        return np.asarray(2 * bits.astype(np.int32) - 1)
    if kernel.weight_layout is Int16x2:
        return np.asarray(values.reshape(-1)[offsets // 16].astype(np.int32) + kernel.offset)
    width = 8 // subbyte_slots(kernel.weight_layout)
    stored_bytes = (values.view(np.uint8) ^ np.uint8(inverted_bits(kernel.weight_layout))).reshape(-1)[offsets // 8]
    codes = (stored_bytes >> (offsets % 8).astype(np.uint8)).astype(np.int32) & ((1 << width) - 1)
    return np.asarray(codes - ((codes >> (width - 1)) << width) + kernel.offset)
