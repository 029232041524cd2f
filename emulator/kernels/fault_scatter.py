"""Put flips in storage order into values in kernel order.

A region's flips come as one 64-bit word per 64 cells. Storage is output-channel-major: element e belongs to channel
e // inner.size, and its lowest bit is bit outer[channel] + inner[e % inner.size] of the kernel's array (`StorageOrder`). Two small
tables stay in cache; one entry per element would not. Every function undoes itself when called again with the same flips.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from weakcell.emulator.kernels.isa import I64, i64, load, shuffle, store
from weakcell.emulator.kernels.weight_layouts import LANES
from weakcell.memmodels.compilation import compiled
from weakcell.memmodels.sampling.pointers import data_ptr, words_at

_U0, _U1 = np.uint64(0), np.uint64(1)

SQUARE = 8
"""Words of a vector, and rows that are transposed into vectors together."""

_WORDS_LISTED = 64
"""Words of flips whose set bits are listed together."""


class FlatPanels(NamedTuple):
    """PackedInt1 weights in flat order, without flips and with them.

    Both are uint64 [panels][words][LANES].
    """

    fault_free_ptr: Any
    values_ptr: Any
    """A multiple of 64; may equal `fault_free_ptr`."""
    words: Any
    """Words of an output channel."""
    row_bits: Any
    """Stored bits of an output channel."""
    rows: Any
    """Output channels; the lanes behind them are not flipped."""


class FlipWords(NamedTuple):
    """Flips of a part of a region: `size` words from the region's word `begin`."""

    ptr: Any
    begin: Any
    size: Any


@intrinsic  # type: ignore[untyped-decorator]
def lowest_bit(typingctx, word):  # type: ignore[no-untyped-def]
    """lowest_bit(word) -> uint64: the index of the lowest set bit of a uint64.

    64 if there is none; one instruction.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), codegen


@compiled
def scatter_codes(values, outer, inner, codes):  # type: ignore[no-untyped-def]
    """OR the stored codes of every element into kernel order.

    Args:
        values: zeros, contiguous; written.
        outer, inner: see `StorageOrder`.
        codes: integers (O, inner.size): the stored bits of every element.
    """
    flat, shift = values.reshape(-1), np.int64(lowest_bit(np.uint64(values.itemsize * 8)))
    within = (np.int64(1) << shift) - 1
    for o in range(outer.size):
        for e in range(inner.size):
            bit = outer[o] + inner[e]
            flat[bit >> shift] |= np.int64(codes[o, e]) << (bit & within)


@compiled(error_model="numpy")
def flip_cells(values_ptr, outer, inner, masks, flips, begin):  # type: ignore[no-untyped-def]
    """XOR the mask of each flipped cell at its element's lowest bit.

    Args:
        values_ptr: address of the values. Whole 64-bit words are written, behind the last element too.
        outer, inner: see `StorageOrder`.
        masks: int64 (cells,): what a flip of each cell of an element changes.
        flips: uint64 words of the region.
        begin: number of the first of these words in the region.
    """
    # Whether a word holds a flip is unpredictable. The first two bits of each word are therefore listed without a branch.
    listed = np.empty(_WORDS_LISTED * 64 + 2, dtype=np.uint64)
    row, cells = np.uint64(inner.size), np.uint64(masks.size)
    start, stop, base = _U0, _U0, np.int64(0)
    for first_word in range(0, flips.size, _WORDS_LISTED):
        count = 0
        for i in range(first_word, min(first_word + _WORDS_LISTED, flips.size)):
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
            bit = np.uint64(base + inner[element - start])
            words_at(values_ptr, np.int64(bit >> np.uint64(6)) + 1)[bit >> np.uint64(6)] ^= mask << (bit & np.uint64(63))


@compiled
def flip_values(values, outer, inner, masks, flips):  # type: ignore[no-untyped-def]
    """Flip the cells of a whole region in an array: see `flip_cells`.

    The array is followed by the rest of its last 64-bit word.
    """
    flip_cells(data_ptr(values), outer, inner, masks, flips, 0)


@intrinsic  # type: ignore[untyped-decorator]
def _flip_square(typingctx, flips_ptr, flips_stride, fault_free_ptr, values_ptr, stride):  # type: ignore[no-untyped-def]
    """Flip 8 words of 8 rows: values[k][row] = fault_free[k][row] ^ flips[row][k].

    _flip_square(flips_ptr, flips_stride, fault_free_ptr, values_ptr, stride) -> int64; all arguments are int64, strides in bytes.

    values[k][row] = fault_free[k][row] ^ flips[row][k]; strides are in bytes.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        flips_ptr, flips_stride, fault_free_ptr, values_ptr, stride = args
        vector = ir.VectorType(I64, SQUARE)

        def offset(k: int, by: Any) -> Any:
            return builder.mul(by, i64(k))

        rows = [load(builder, flips_ptr, offset(r, flips_stride), vector) for r in range(SQUARE)]
        for k, column in enumerate(_transpose(builder, rows)):
            flipped = builder.xor(column, load(builder, fault_free_ptr, offset(k, stride), vector))
            store(builder, flipped, builder.add(values_ptr, offset(k, stride)), 64)
        return i64(0)

    return types.int64(*[types.int64] * 5), codegen


def _transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose a square of words held in vectors.

    Halves of two rows change places, then quarters, then single words.
    """
    for reach in (4, 2, 1):
        swapped = list(rows)
        for r in range(SQUARE):
            if not r & reach:
                low = [k if not k & reach else k - reach + SQUARE for k in range(SQUARE)]
                high = [k + reach if not k & reach else k + SQUARE for k in range(SQUARE)]
                for target, lanes in ((r, low), (r + reach, high)):
                    swapped[target] = shuffle(builder, rows[r], rows[r + reach], lanes)
        rows = swapped
    return rows


@compiled
def flip_panel(panels, panel, flips):  # type: ignore[no-untyped-def]
    """Write one micropanel of flat PackedInt1 weights: values = fault_free ^ flips.

    A row's flips are put together from the two storage words that each word straddles, unless rows are whole words.

    Args:
        panels: FlatPanels.
        panel: index of the micropanel.
        flips: FlipWords that contain the panel's bits.
    """
    words, row_bits = panels.words, panels.row_bits
    row, done = panel * LANES, 0
    source_ptr, target_ptr = panels.fault_free_ptr + row * words * 8, panels.values_ptr + row * words * 8
    if row_bits & 63 == 0 and row + LANES <= panels.rows:
        done = words // SQUARE * SQUARE
        for word in range(0, done, SQUARE):
            for lane in range(0, LANES, SQUARE):
                flips_ptr = flips.ptr + ((row + lane) * words + word - flips.begin) * 8
                offset = (word * LANES + lane) * 8
                _flip_square(flips_ptr, words * 8, source_ptr + offset, target_ptr + offset, LANES * 8)
    if done == words:
        return
    last_mask = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(-row_bits & 63)
    drawn, before, after = words_at(flips.ptr, flips.size), words_at(source_ptr, words * LANES), words_at(target_ptr, words * LANES)
    for lane in range(LANES):
        start = (row + lane) * row_bits
        index, shift = (start >> 6) - flips.begin, np.uint64(start & 63)
        for word in range(done, words):
            flipped = _U0
            if row + lane < panels.rows:
                flipped = drawn[index + word] >> shift
                if shift != _U0 and index + word + 1 < flips.size:
                    flipped |= drawn[index + word + 1] << (np.uint64(64) - shift)
                if word == words - 1:
                    flipped &= last_mask
            after[word * LANES + lane] = before[word * LANES + lane] ^ flipped


@compiled
def flip_rows(fault_free, values, row_bits, flips):  # type: ignore[no-untyped-def]
    """Write all micropanels of flat PackedInt1 weights: values = fault_free ^ flips.

    Args:
        fault_free, values: uint64 [panels][words][LANES]; the second starts at a multiple of 64 bytes.
        row_bits: stored bits of an output channel.
        flips: uint64: all words of the region.
    """
    rows = flips.size * 64 // row_bits
    panels = FlatPanels(data_ptr(fault_free), data_ptr(values), values.shape[1], row_bits, rows)
    for panel in range(values.shape[0]):
        flip_panel(panels, panel, FlipWords(data_ptr(flips), 0, flips.size))
