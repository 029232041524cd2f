"""Flips in storage order -> flips in kernel order.

A region's flips come as one word per 64 cells. Each kernel keeps its weights in an order of its own. Storage is output-channel-
major, so element e belongs to channel e // inner.size, and its lowest bit went to bit outer[channel] + inner[e % inner.size] of the
kernel's array: two small tables, where one entry per element would not stay in cache. Every function here undoes itself when called
again with the same flips.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from emulator.kernels.forms import Bits, Order

_U0, _U1 = np.uint64(0), np.uint64(1)
_I64 = ir.IntType(64)
_SIDE = 8
"""Words of a vector, and rows that are turned into vectors together."""


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


@intrinsic  # type: ignore[untyped-decorator]
def _flip_square(typingctx, flips, stride, clean, weights, step):  # type: ignore[no-untyped-def]
    """_flip_square(flips, stride, clean, weights, step) -> int64: eight words of each of eight rows, all arguments int64.

    Words k of all rows lie side by side at `weights` + k `step`, and become those at `clean` + k `step` XOR the flips, of which row
    r has its own at `flips` + r `stride`. Addresses and bytes.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        flips, stride, clean, weights, step = args
        vector = ir.VectorType(_I64, _SIDE)

        def at(base: Any, k: int, by: Any) -> Any:
            address = builder.add(base, builder.mul(by, ir.Constant(_I64, k)))
            return builder.inttoptr(address, vector.as_pointer())

        rows = [_load(builder, at(flips, r, stride), 8) for r in range(_SIDE)]
        for k, column in enumerate(_transposed(builder, rows)):
            flipped = builder.xor(column, _load(builder, at(clean, k, step), 64))
            builder.store(flipped, at(weights, k, step)).align = 64
        return ir.Constant(_I64, 0)

    return types.int64(*[types.int64] * 5), codegen


def _load(builder: Any, pointer: Any, align: int) -> Any:
    loaded = builder.load(pointer)
    loaded.align = align
    return loaded


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Columns of a square of words, as vectors: halves of two rows change places, then quarters, then single words."""
    for reach in (4, 2, 1):
        made = list(rows)
        for r in range(_SIDE):
            if not r & reach:
                low = [k if not k & reach else k - reach + _SIDE for k in range(_SIDE)]
                high = [k + reach if not k & reach else k + _SIDE for k in range(_SIDE)]
                for to, places in ((r, low), (r + reach, high)):
                    mask = ir.Constant(ir.VectorType(ir.IntType(32), _SIDE), places)
                    made[to] = builder.shuffle_vector(rows[r], rows[r + reach], mask)
        rows = made
    return rows


@numba.njit(cache=True, nogil=True)
def flip_rows(clean, weights, row_bits, flips):  # type: ignore[no-untyped-def]
    """weights = clean, some of its signs flipped, whose kernel order is the storage order within each output channel.

    clean, weights: uint64 [O/LANES][words][LANES] (`plan.KernelTensor.flat`), aligned; they may be one. row_bits: stored bits of an
    output channel. A word of flips is put together from the two storage words that it straddles, unless rows are whole words.
    """
    blocks, words, lanes = weights.shape
    rows = flips.size * 64 // row_bits
    last = _U1 << np.uint64((row_bits - 1) & 63)
    spare = last | (last - _U1)
    for block in range(blocks):
        done = 0
        if row_bits & 63 == 0 and (block + 1) * lanes <= rows:
            done = words // _SIDE * _SIDE
            for word in range(0, done, _SIDE):
                for lane in range(0, lanes, _SIDE):
                    place = flips.ctypes.data + ((block * lanes + lane) * words + word) * 8
                    here = ((block * words + word) * lanes + lane) * 8
                    _flip_square(place, words * 8, clean.ctypes.data + here, weights.ctypes.data + here, lanes * 8)
        for lane in range(lanes):
            start = (block * lanes + lane) * row_bits
            index, shift = start >> 6, np.uint64(start & 63)
            for word in range(done, words):
                part = _U0
                if block * lanes + lane < rows:
                    part = flips[index + word] >> shift
                    if shift != _U0 and index + word + 1 < flips.size:
                        part |= flips[index + word + 1] << (np.uint64(64) - shift)
                    if word == words - 1:
                        part &= spare
                weights[block, word, lane] = clean[block, word, lane] ^ part


@numba.njit(cache=True, nogil=True)
def _flip_bits(weights, order, flips):  # type: ignore[no-untyped-def]
    if order.flat:
        flip_rows(weights, weights, order.inner.size, flips)
    else:
        flip_packed(weights, order.outer, order.inner, flips)


def flip(weights: Any, order: Order, masks: Any, flips: Any) -> None:
    """Flip the stored bits of weights in kernel order (one of `tile.FORMS`)."""
    _flip(weights, order, masks, flips)


@overload(flip)  # type: ignore[untyped-decorator]
def _flip_form(weights, order, masks, flips):  # type: ignore[no-untyped-def]
    if weights.instance_class is Bits:
        return lambda weights, order, masks, flips: _flip_bits(weights.values, order, flips)
    return lambda weights, order, masks, flips: flip_values(weights.values, order.outer, order.inner, masks, flips)


@numba.njit(cache=True, nogil=True)
def _flip(weights, order, masks, flips):  # type: ignore[no-untyped-def]
    flip(weights, order, masks, flips)
