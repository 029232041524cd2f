"""What kernels are given besides activations: forms of weights, their order, what stands around them."""

from __future__ import annotations

from typing import Any, NamedTuple

LANES = 32
"""Output channels in one block of kernel weights."""


class PackedInt1(NamedTuple):
    """±1 weights as bits: uint64 [blocks][words][LANES]."""

    values: Any


class Int8x4(NamedTuple):
    """Weights of up to 8 bits: int8 [blocks][words][LANES][4], four neighbours in k to a word."""

    values: Any


class PackedInt4(NamedTuple):
    """Weights of 4 bits: int8 [blocks][words][LANES][4]; k and k + 4 share a byte.

    The upper bits are the weight of k + 4 in two's complement, the lower ones are that of k with its sign bit inverted: w + 8.
    """

    values: Any


class PackedInt2(NamedTuple):
    """Weights of 2 bits: int8 [blocks][words][LANES][4]; k, k + 4, k + 8 and k + 12 share a byte, likewise."""

    values: Any


class Int16x2(NamedTuple):
    """Weights of up to 16 bits: int16 [blocks][words][LANES][2]."""

    values: Any


class DepthwiseInt8x4(NamedTuple):
    """Weights of up to 8 bits of a depthwise convolution: int8 [blocks][words][LANES][4], four taps of a column to a word.

    Channel 16 h + 4 v + i of a block (v, i < 4) is in lane 8 v + 4 h + i: where the bytes of activations go when taps are joined.
    """

    values: Any


LAYOUTS: tuple[type, ...] = (PackedInt1, Int8x4, PackedInt4, PackedInt2, Int16x2, DepthwiseInt8x4)


def subbyte_slots(form: type) -> int:
    """How many words of activations one word of weights meets."""
    return 2 if form is PackedInt4 else 4 if form is PackedInt2 else 1


def inverted_bits(form: type) -> int:
    """The bits of a byte that are stored inverted: the sign bits of all parts but the highest."""
    bits = 8 // subbyte_slots(form)
    return sum(1 << (bits * part + bits - 1) for part in range(subbyte_slots(form) - 1))


def word_bytes(form: type) -> int:
    """Bytes of a word: of weights, of activations, and of a sum."""
    return 8 if form is PackedInt1 else 4


SCALE, BIAS, OUT_SCALE, LOW, HIGH, ZERO = range(6)
"""Rows of a block's rounding, float32 (6, LANES): see `endings.store_codes`."""

ROUNDING_BYTES = 6 * LANES * 4
"""Bytes of it."""

DIVIDED, BOUNDED = 1, 2
"""Bits that say how sums are rounded: see there."""


class StorageOrder(NamedTuple):
    """Where the elements of a tensor went. flat: within an output channel, PackedInt1 keep the order of the storage."""

    outer: Any
    inner: Any
    flat: bool


class ConvContext(NamedTuple):
    """What stands around the stored integers of a layer."""

    inputs_per_tap: int
    """Values that a tap sees: the channels of a group."""
    border_patterns: Any
    """bool (patterns, taps): which taps of the window are inside the image. One full pattern for anything but PackedInt1."""
    row_table: Any
    """int64 (2, rows of an image): see `rows.row_addresses`."""
    input_zero_point: int
    """The stored activation that means 0."""
    weight_zero_points: Any
    """int32 (O): the stored weight that means 0."""
    bias: Any
    """int32 (O)."""
