"""Flips in storage order -> flips in kernel order.

A region's flips come as one word per 64 cells. Each kernel keeps its weights in an order of its own. Storage is output-channel-
major, so element e belongs to channel e // inner.size, and its lowest bit went to bit outer[channel] + inner[e % inner.size] of the
kernel's array: two small tables, where one entry per element would not stay in cache. Every function here undoes itself when called
again with the same flips.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from emulator.kernels.tile import Bits

_U0, _U1 = np.uint64(0), np.uint64(1)


class Order(NamedTuple):
    """Where the elements of a tensor went. flat: within an output channel, Bits keep the order of the storage."""

    outer: Any
    inner: Any
    flat: bool


@intrinsic  # type: ignore[untyped-decorator]
def lowest_bit(typingctx, word):  # type: ignore[no-untyped-def]
    """The index (int64) of the lowest set bit of a uint64 that is not 0: one instruction."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen


@numba.njit(cache=True, nogil=True)
def put(values, outer, inner, codes):  # type: ignore[no-untyped-def]
    """Put the stored bits of every element, codes (O, inner.size), into `values`, which are 0 and contiguous."""
    flat, shift = values.reshape(-1), lowest_bit(np.uint64(values.itemsize * 8))
    within = (np.int64(1) << shift) - 1
    for o in range(outer.size):
        for e in range(inner.size):
            place = outer[o] + inner[e]
            flat[place >> shift] |= np.int64(codes[o, e]) << (place & within)


@numba.njit(cache=True, nogil=True)
def flip_packed(weights, outer, inner, flips):  # type: ignore[no-untyped-def]
    """Flip signs that are packed in words: an element's place is its bit in `weights` (uint64, any shape, contiguous)."""
    words = weights.reshape(-1)
    for i in range(flips.size):
        word = flips[i]
        if word == _U0:
            continue
        channel, rest = divmod(i * 64, inner.size)
        while word != _U0:
            element = rest + lowest_bit(word)
            word &= word - _U1
            o = channel
            while element >= inner.size:
                element -= inner.size
                o += 1
            place = outer[o] + inner[element]
            words[place >> 6] ^= _U1 << np.uint64(place & 63)


@numba.njit(cache=True, nogil=True)
def flip_values(values, outer, inner, masks, flips):  # type: ignore[no-untyped-def]
    """Flip stored bits of integers in `values` (contiguous): an element's place is its lowest bit, counted over all of them.

    masks: for each cell of an element, what its flip does to the integer (`plan.masks_of`).
    """
    flat = values.reshape(-1)
    cells, width = masks.size, np.uint64(values.itemsize * 8)
    shift, within = lowest_bit(width), np.int64(width) - 1
    for i in range(flips.size):
        word = flips[i]
        while word != _U0:
            element, cell = divmod(i * 64 + lowest_bit(word), cells)
            word &= word - _U1
            channel, rest = divmod(element, inner.size)
            place = outer[channel] + inner[rest]
            flat[place >> shift] ^= masks[cell] << (place & within)


@numba.njit(cache=True, nogil=True)
def flip_rows(weights, row_bits, flips):  # type: ignore[no-untyped-def]
    """Flip signs whose kernel order is the storage order within each output channel: whole words at a time.

    weights: uint64 [O/LANES][words][LANES] (`plan.KernelTensor.flat`), walked in order; a word of flips is put together from the
    two storage words that it straddles. row_bits: stored bits of one output channel.
    """
    blocks, words, lanes = weights.shape
    rows = flips.size * 64 // row_bits
    last = _U1 << np.uint64((row_bits - 1) & 63)
    spare = last | (last - _U1)
    for block in range(blocks):
        for lane in range(min(lanes, rows - block * lanes)):
            start = (block * lanes + lane) * row_bits
            index, shift = start >> 6, np.uint64(start & 63)
            for word in range(words):
                part = flips[index + word] >> shift
                if shift != _U0 and index + word + 1 < flips.size:
                    part |= flips[index + word + 1] << (np.uint64(64) - shift)
                if word == words - 1:
                    part &= spare
                weights[block, word, lane] ^= part


@numba.njit(cache=True, nogil=True)
def flip_signs(weights, outer, inner, flat, flips):  # type: ignore[no-untyped-def]
    """`flip_rows` where the order of the weights allows it, else `flip_packed`."""
    if flat:
        flip_rows(weights, inner.size, flips)
    else:
        flip_packed(weights, outer, inner, flips)


def flip(weights: Any, order: Order, masks: Any, flips: Any) -> None:
    """Flip the stored bits of weights in kernel order (one of `tile.FORMS`)."""
    _flip(weights, order, masks, flips)


@overload(flip)  # type: ignore[untyped-decorator]
def _flip_form(weights, order, masks, flips):  # type: ignore[no-untyped-def]
    if weights.instance_class is Bits:
        return lambda weights, order, masks, flips: flip_signs(weights.values, order.outer, order.inner, order.flat, flips)
    return lambda weights, order, masks, flips: flip_values(weights.values, order.outer, order.inner, masks, flips)


@numba.njit(cache=True, nogil=True)
def _flip(weights, order, masks, flips):  # type: ignore[no-untyped-def]
    flip(weights, order, masks, flips)
