"""Storage layouts of kernel weights.

Kernel weights are stored in micropanels of LANES output channels (NR in BLIS). A micropanel is a row of words; word k holds the
weights of LANES output channels for the same inputs:

    values[panel][word][lane]          lane = output channel % LANES, panel = output channel // LANES

Groups follow one another; the last panel of a group is filled up with zeros. Each class below is one layout. The class is the
*type* of a kernel's `weights` argument, so kernels select their instructions at compile time. This module does not need Numba.
"""

from __future__ import annotations

from typing import Any, NamedTuple

LANES = 32
"""Output channels of one micropanel."""


class PackedInt1(NamedTuple):
    """Weights of ±1, one bit each (1 means +1), 64 inputs per word.

    uint64 [panels][words][LANES].
    """

    values: Any


class Int8x4(NamedTuple):
    """Weights of up to 8 bits, four consecutive inputs per word.

    int8 [panels][words][LANES][4].
    """

    values: Any


class PackedInt4(NamedTuple):
    """Weights of 4 bits, eight inputs per word; k and k + 4 share a byte.

    int8 [panels][words][LANES][4].

    The high nibble is weight k + 4 in two's complement. The low nibble is weight k with its sign bit inverted, i.e. w + 8.
    """

    values: Any


class PackedInt2(NamedTuple):
    """Weights of 2 bits, 16 inputs per word; k, k + 4, k + 8, k + 12 share a byte.

    int8 [panels][words][LANES][4]. The lowest bits hold input k.

    The highest slot is in two's complement. In all others the sign bit is inverted, i.e. they hold w + 2.
    """

    values: Any


class Int16x2(NamedTuple):
    """Weights of up to 16 bits, two consecutive inputs per word.

    int16 [panels][words][LANES][2].
    """

    values: Any


class DepthwiseInt8x4(NamedTuple):
    """Depthwise weights of up to 8 bits, four taps of a window column per word.

    int8 [panels][words][LANES][4].

    Channel 16 h + 4 v + i of a panel (v, i < 4) is in lane 8 v + 4 h + i. This is the order in which byte-interleaving
    instructions leave the activations of four taps (`depthwise.py`).
    """

    values: Any


LAYOUTS: tuple[type, ...] = (PackedInt1, Int8x4, PackedInt4, PackedInt2, Int16x2, DepthwiseInt8x4)


def subbyte_slots(layout: type) -> int:
    """Return how many weights share a byte; 1 for layouts without sub-byte packing.

    This is also the number of activation words that one weight word multiplies.
    """
    return 2 if layout is PackedInt4 else 4 if layout is PackedInt2 else 1


def inverted_bits(layout: type) -> int:
    """Return the mask of a byte's bits that are stored inverted.

    These are the sign bits of all slots but the highest.
    """
    bits = 8 // subbyte_slots(layout)
    return sum(1 << (bits * slot + bits - 1) for slot in range(subbyte_slots(layout) - 1))


def word_bytes(layout: type) -> int:
    """Return the bytes of one word of a lane: of weights, of activations and of a sum."""
    return 8 if layout is PackedInt1 else 4


class StorageOrder(NamedTuple):
    """Bit positions of a stored tensor's elements in kernel order.

    Element (o, e) starts at bit outer[o] + inner[e].
    """

    outer: Any
    """int64 (O,): position of each output channel."""
    inner: Any
    """int64 (elements of an output channel,): position within the output channel."""
    flat: bool
    """Whether PackedInt1 weights keep the storage order within each output channel (a dense layer behind Flatten)."""
