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
from numba.extending import intrinsic

from weakcell.emulator.kernels.weight_layouts import LANES
from weakcell.memmodels.sampling.pointers import data_ptr, words_at

_U0, _U1 = np.uint64(0), np.uint64(1)
_I64 = ir.IntType(64)
SIDE = 8
"""Words of a vector, and rows that are turned into vectors together."""

_AHEAD = 64
"""Words of flips whose bits are listed together."""


@intrinsic  # type: ignore[untyped-decorator]
def lowest_bit(typingctx, word):  # type: ignore[no-untyped-def]
    """The index (uint64) of the lowest set bit of a uint64, 64 if there is none: one instruction."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), codegen


@numba.njit(cache=True, nogil=True)
def scatter_codes(values, outer, inner, codes):  # type: ignore[no-untyped-def]
    """Put the stored bits of every element, codes (O, inner.size), into `values`, which are 0 and contiguous."""
    flat, shift = values.reshape(-1), np.int64(lowest_bit(np.uint64(values.itemsize * 8)))
    within = (np.int64(1) << shift) - 1
    for o in range(outer.size):
        for e in range(inner.size):
            place = outer[o] + inner[e]
            flat[place >> shift] |= np.int64(codes[o, e]) << (place & within)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def flip_cells(values, outer, inner, masks, flips, begin):  # type: ignore[no-untyped-def]
    """Flip stored bits at the address `values`: an element's place is its lowest bit, counted over all of them.

    masks: for each cell of an element, what its flip does to it (`plan.masks_of`). flips: words of the region from number `begin`.
    Whole words are written, behind the last element too. What a word of flips holds is not foreseeable, so the first two bits of
    each are listed as if there were two: few branches go astray then.
    """
    listed = np.empty(_AHEAD * 64 + 2, dtype=np.uint64)
    row, cells = np.uint64(inner.size), np.uint64(masks.size)
    start, stop, base = _U0, _U0, np.int64(0)
    for ahead in range(0, flips.size, _AHEAD):
        count = 0
        for i in range(ahead, min(ahead + _AHEAD, flips.size)):
            word, first = flips[i], np.uint64(begin + i) << np.uint64(6)
            listed[count] = first + lowest_bit(word)
            count += word != _U0
            word &= word - _U1
            listed[count] = first + lowest_bit(word)
            count += word != _U0
            word &= word - _U1
            while word != _U0:
                listed[count] = first + lowest_bit(word)
                count += 1
                word &= word - _U1
        for k in range(count):
            element, mask = listed[k], np.uint64(masks[0])
            if cells != _U1:
                element //= cells
                mask = np.uint64(masks[listed[k] - element * cells])
            if element >= stop:
                channel = element // row
                start, stop, base = channel * row, channel * row + row, outer[channel]
            place = np.uint64(base + inner[element - start])
            words_at(values, np.int64(place >> np.uint64(6)) + 1)[place >> np.uint64(6)] ^= mask << (place & np.uint64(63))


@numba.njit(cache=True, nogil=True)
def flip_values(values, outer, inner, masks, flips):  # type: ignore[no-untyped-def]
    """`flip_cells` of a whole region in an array, behind which there is room for what is left of a word."""
    flip_cells(data_ptr(values), outer, inner, masks, flips, 0)


@intrinsic  # type: ignore[untyped-decorator]
def _flip_square(typingctx, flips, stride, clean, weights, step):  # type: ignore[no-untyped-def]
    """_flip_square(flips, stride, clean, weights, step) -> int64: eight words of each of eight rows, all arguments int64.

    Words k of all rows lie side by side at `weights` + k `step`, and become those at `clean` + k `step` XOR the flips, of which row
    r has its own at `flips` + r `stride`. Addresses and bytes.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        flips, stride, clean, weights, step = args
        vector = ir.VectorType(_I64, SIDE)

        def at(base: Any, k: int, by: Any) -> Any:
            address = builder.add(base, builder.mul(by, ir.Constant(_I64, k)))
            return builder.inttoptr(address, vector.as_pointer())

        rows = [_load(builder, at(flips, r, stride), 8) for r in range(SIDE)]
        for k, column in enumerate(_transposed(builder, rows)):
            flipped = builder.xor(column, _load(builder, at(clean, k, step), 8))
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
        for r in range(SIDE):
            if not r & reach:
                low = [k if not k & reach else k - reach + SIDE for k in range(SIDE)]
                high = [k + reach if not k & reach else k + SIDE for k in range(SIDE)]
                for to, places in ((r, low), (r + reach, high)):
                    mask = ir.Constant(ir.VectorType(ir.IntType(32), SIDE), places)
                    made[to] = builder.shuffle_vector(rows[r], rows[r + reach], mask)
        rows = made
    return rows


@numba.njit(cache=True, nogil=True)
def flip_block(clean, weights, words, row_bits, rows, block, flips, begin, size):  # type: ignore[no-untyped-def]
    """Block `block` of weights = clean, some signs flipped, whose kernel order is the storage order within each output channel.

    clean, weights: addresses of uint64 [O/LANES][words][LANES], the second aligned; they may be one. rows: output
    channels; behind them nothing is flipped. row_bits: stored bits of an output channel. flips: address of `size` words of the
    region from number `begin`. A word of flips is put together from the two storage words that it straddles, unless rows are whole
    words.
    """
    row, done = block * LANES, 0
    source, target = clean + row * words * 8, weights + row * words * 8
    if row_bits & 63 == 0 and row + LANES <= rows:
        done = words // SIDE * SIDE
        for word in range(0, done, SIDE):
            for lane in range(0, LANES, SIDE):
                place, here = flips + ((row + lane) * words + word - begin) * 8, (word * LANES + lane) * 8
                _flip_square(place, words * 8, source + here, target + here, LANES * 8)
    if done == words:
        return
    spare = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(-row_bits & 63)
    drawn, before, after = words_at(flips, size), words_at(source, words * LANES), words_at(target, words * LANES)
    for lane in range(LANES):
        start = (row + lane) * row_bits
        index, shift = (start >> 6) - begin, np.uint64(start & 63)
        for word in range(done, words):
            part = _U0
            if row + lane < rows:
                part = drawn[index + word] >> shift
                if shift != _U0 and index + word + 1 < size:
                    part |= drawn[index + word + 1] << (np.uint64(64) - shift)
                if word == words - 1:
                    part &= spare
            after[word * LANES + lane] = before[word * LANES + lane] ^ part


@numba.njit(cache=True, nogil=True)
def flip_rows(clean, weights, row_bits, flips):  # type: ignore[no-untyped-def]
    """`flip_block` of all blocks of arrays [O/LANES][words][LANES]."""
    words, rows = weights.shape[1], flips.size * 64 // row_bits
    for block in range(weights.shape[0]):
        flip_block(data_ptr(clean), data_ptr(weights), words, row_bits, rows, block, data_ptr(flips), 0, flips.size)
