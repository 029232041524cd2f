"""Flips in storage order -> flips in kernel order.

A region's flips come as one word per 64 cells. Each kernel keeps its weights in an order of its own. Storage is output-channel-
major, so element e belongs to channel e // inner.size, and went to place outer[channel] + inner[e % inner.size]: two small tables,
where one entry per element would not stay in cache. Every function here undoes itself when called again with the same flips.
"""

from __future__ import annotations

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_U0, _U1 = np.uint64(0), np.uint64(1)


@intrinsic  # type: ignore[untyped-decorator]
def lowest_bit(typingctx, word):  # type: ignore[no-untyped-def]
    """The index (int64) of the lowest set bit of a uint64 that is not 0: one instruction."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen


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
def flip_values(values, outer, inner, planes, bits, signed, flips):  # type: ignore[no-untyped-def]
    """Flip stored bits of integers: an element's place is its index in `values` (contiguous).

    planes: the bit of an element that each cell of it holds. bits: of an element; bits == 1 means a sign, which is negated.
    """
    flat = values.reshape(-1)
    cells = planes.size
    for i in range(flips.size):
        word = flips[i]
        while word != _U0:
            element, cell = divmod(i * 64 + lowest_bit(word), cells)
            word &= word - _U1
            channel, rest = divmod(element, inner.size)
            place = outer[channel] + inner[rest]
            if bits == 1:
                flat[place] = -flat[place]
                continue
            plane = planes[cell]
            if signed and plane == bits - 1:
                code = np.int64(flat[place])
                flat[place] = code + (1 << plane) if code < 0 else code - (1 << plane)
            else:
                flat[place] ^= 1 << plane


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
    """`flip_rows` where the order of the weights allows it and flips are many, else `flip_packed`."""
    if flat and np.count_nonzero(flips) * 8 > flips.size:
        flip_rows(weights, inner.size, flips)
    else:
        flip_packed(weights, outer, inner, flips)
