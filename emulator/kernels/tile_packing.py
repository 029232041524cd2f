"""Rows and micropanels for matrix tiles (`matrix_tiles.py`): where a product takes them from, and which products use tiles.

Sixteen rows of activations whose windows are equally far apart are read where they lie: neighbouring pixels of a convolution need
no copy. Other rows are copied block by block, once for all micropanels. The bits of ±1 activations become bytes 0 and 1.

Weights of 8 bits are read where they lie, unless their last block is not full. Weights of fewer bits are unpacked to bytes once for
a chunk of rows. ±1 weights become 1 - 2 w for the stored bit w. With the number of 1 bits as initial sum, a sum counts mismatches:

    sum over k of x (1 - 2 w) + w  =  sum over k of (x XOR w)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from weakcell.emulator.kernels.arguments import MatrixOperands
from weakcell.emulator.kernels.isa import I1, I8, I64, is_binary, layout_constant, load, popcount, store
from weakcell.emulator.kernels.matrix_tiles import BLOCK, TILE_ROWS, TILED_ROWS
from weakcell.emulator.kernels.weight_layouts import (
    LANES,
    Int8x4,
    PackedInt1,
    PackedInt2,
    PackedInt4,
    subbyte_slots,
    word_bytes,
)
from weakcell.memmodels.compilation import compiled
from weakcell.memmodels.sampling.pointers import bytes_at, data_ptr, move_bytes

MIN_ROWS, MIN_SIGN_ROWS = 16, 128
"""Fewest rows for which products and ±1 products use tiles. Not measured: fewer fill no tile, and do not pay for unpacking bits."""

_MAX_ROWS, _MAX_BYTES = 256, 1 << 19
"""Most rows of a chunk, and the bytes that they should take: a part of the second-level cache."""

_SHARED_SETS = 512
"""Rows that are a multiple of this many bytes apart share few sets of the first-level cache. They are copied."""

_ONES = np.uint32(0x01010101)

_suits_tiles = layout_constant(lambda layout: layout in (Int8x4, PackedInt4, PackedInt2, PackedInt1))
_word_inputs = layout_constant(lambda layout: 64 if layout is PackedInt1 else word_bytes(layout) * subbyte_slots(layout))
"""Inputs that one weight word multiplies: bytes of a row in tiles."""


class TileBuffers(NamedTuple):
    """Memory of one call for rows and micropanels in tiles."""

    rows: Any
    """int64 (rows / 16, 3): for 16 rows the address of the first, the bytes between rows, and the address of their `blocks`."""
    blocks: Any
    """int64 (2, blocks): byte offsets of the blocks of a copied row, and of a row in place."""
    copied: Any
    """uint8 (rows / 16, blocks, 16, 64)."""
    panel: Any
    """uint32 (words, LANES): a micropanel in the order of Int8x4. Behind its last word it is filled up to whole blocks with 0."""
    init: Any
    """int32 (LANES,): initial sums."""
    sums: Any
    """int32 (TILED_ROWS, LANES)."""


@compiled
def fills_tiles(weights, runs, rows, groups):  # type: ignore[no-untyped-def]
    """Return whether a product uses tiles: a rule of shapes alone.

    Args:
        weights: the layout record.
        runs: Runs of the windows.
        rows: output pixels of the call.
        groups: groups of the convolution.
    """
    inputs = runs.offsets.size * runs.words * _word_inputs(weights)
    least = MIN_SIGN_ROWS if is_binary(weights) else MIN_ROWS
    return _suits_tiles(weights) and groups == 1 and rows >= least and inputs >= BLOCK


@compiled
def tiled_rows_per_chunk(weights, runs, rows):  # type: ignore[no-untyped-def]
    """Return how many of `rows` rows form one chunk: a multiple of TILED_ROWS."""
    fitting = _MAX_BYTES // (runs.offsets.size * runs.words * _word_inputs(weights)) & -TILED_ROWS
    return max(TILED_ROWS, min(_MAX_ROWS, fitting, -(-rows // TILED_ROWS) * TILED_ROWS))


@compiled
def new_tile_buffers(weights, runs, rows):  # type: ignore[no-untyped-def]
    """Return TileBuffers for chunks of `rows` rows, a multiple of TILED_ROWS."""
    run_bytes = runs.words * _word_inputs(weights)
    count = -(-runs.offsets.size * run_bytes // BLOCK)
    blocks = np.empty((2, count), np.int64)
    for block in range(count):
        blocks[0, block] = block * TILE_ROWS * BLOCK
        blocks[1, block] = runs.offsets[block * BLOCK // run_bytes] + block * BLOCK % run_bytes
    panel = np.empty((count * TILE_ROWS, LANES), np.uint32)
    panel[runs.offsets.size * run_bytes // 4 :] = 0
    return TileBuffers(
        np.empty((rows // TILE_ROWS, 3), np.int64),
        blocks,
        np.empty((rows // TILE_ROWS, count, TILE_ROWS, BLOCK), np.uint8),
        panel,
        np.zeros(LANES, np.int32),
        np.empty((TILED_ROWS, LANES), np.int32),
    )


# --- rows --------------------------------------------------------------------------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def _spread_bits(typingctx, word_ptr, bytes_ptr):  # type: ignore[no-untyped-def]
    """Write the 64 bits of a word as bytes 0 and 1: (int64, int64) -> int64."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        bits = builder.bitcast(load(builder, args[0], ir.Constant(I64, 0), I64), ir.VectorType(I1, 64))
        store(builder, builder.zext(bits, ir.VectorType(I8, 64)), args[1], 1)
        return args[1]

    return types.int64(types.int64, types.int64), codegen


@compiled
def _copy_row(weights, row_ptr, runs, target_ptr):  # type: ignore[no-untyped-def]
    """Copy the window of one row to its place in tiles; target_ptr: address of its first block."""
    position = 0
    for run in range(runs.offsets.size):
        source_ptr = row_ptr + runs.offsets[run]
        if is_binary(weights):
            for word in range(runs.words):
                _spread_bits(source_ptr + word * 8, target_ptr + (run * runs.words + word) * TILE_ROWS * BLOCK)
            continue
        end = position + runs.words * _word_inputs(weights)
        while position < end:
            place, count = position % BLOCK, min(BLOCK - position % BLOCK, end - position)
            to_ptr = target_ptr + position // BLOCK * TILE_ROWS * BLOCK + place
            if count == BLOCK:
                source_ptr += move_bytes(to_ptr, source_ptr, BLOCK)  # of a constant size: no call
            else:
                source_ptr += move_bytes(to_ptr, source_ptr, count)
            position += count


@compiled
def place_rows(weights, input_ptrs, rows, runs, buffers):  # type: ignore[no-untyped-def]
    """Say where the rows of a chunk are, and copy those that tiles cannot read in place.

    Args:
        weights: the layout record.
        input_ptrs: int64, the addresses of windows. There is one for each of the rows up to a multiple of TILED_ROWS.
        rows: rows of the chunk.
        runs: Runs of the windows.
        buffers: TileBuffers, written.
    """
    in_whole_blocks = not is_binary(weights) and runs.words * _word_inputs(weights) % BLOCK == 0
    for tile in range(-(-rows // TILED_ROWS) * 2):
        first = tile * TILE_ROWS
        step = input_ptrs[first + 1] - input_ptrs[first]
        in_place = in_whole_blocks and step % _SHARED_SETS != 0
        for r in range(first + 2, first + TILE_ROWS):
            in_place = in_place and input_ptrs[r] - input_ptrs[r - 1] == step
        if in_place:
            buffers.rows[tile, 0], buffers.rows[tile, 1] = input_ptrs[first], step
            buffers.rows[tile, 2] = data_ptr(buffers.blocks) + buffers.blocks.strides[0]
            continue
        copy_ptr = data_ptr(buffers.copied) + tile * buffers.copied.strides[0]
        for r in range(TILE_ROWS):
            _copy_row(weights, input_ptrs[first + r], runs, copy_ptr + r * BLOCK)
        buffers.rows[tile, 0], buffers.rows[tile, 1], buffers.rows[tile, 2] = copy_ptr, BLOCK, data_ptr(buffers.blocks)


# --- micropanels -------------------------------------------------------------------------------------------------------------


def _place_panel(weights: Any, panel: int, buffers: TileBuffers) -> int:
    raise NotImplementedError("a kernel calls this")


@overload(_place_panel)  # type: ignore[untyped-decorator]
def _place_panel_of_layout(weights, panel, buffers):  # type: ignore[no-untyped-def]
    layout = weights.instance_class
    slots = subbyte_slots(layout)
    bits = 8 // slots

    def in_place(weights, panel, buffers):  # type: ignore[no-untyped-def]
        panel_ptr = data_ptr(weights.values) + panel * weights.values.strides[0]
        if weights.values.shape[1] % TILE_ROWS == 0:
            return panel_ptr
        move_bytes(data_ptr(buffers.panel), panel_ptr, weights.values.strides[0])
        return data_ptr(buffers.panel)

    def unpack_slots(weights, panel, buffers):  # type: ignore[no-untyped-def]
        """See `isa.unpack_slot`."""
        step = weights.values.strides[1]
        for word in range(weights.values.shape[1]):
            packed = bytes_at(data_ptr(weights.values) + panel * weights.values.strides[0] + word * step, step)
            for slot in range(slots):
                unpacked = bytes_at(data_ptr(buffers.panel) + (word * slots + slot) * step, step)
                for i in range(step):
                    high = np.uint8(packed[i] << np.uint8(8 - bits * (slot + 1)))
                    if slot < slots - 1:
                        high ^= np.uint8(128)
                    unpacked[i] = high & np.uint8(256 - (1 << (8 - bits)))
        return data_ptr(buffers.panel)

    def unpack_bits(weights, panel, buffers):  # type: ignore[no-untyped-def]
        buffers.init[:] = 0
        for word in range(weights.values.shape[1]):
            packed = weights.values[panel, word]
            for lane in range(LANES):
                buffers.init[lane] += np.int32(popcount(packed[lane]))
            for quad in range(BLOCK // 4):
                unpacked = buffers.panel[word * (BLOCK // 4) + quad]
                for lane in range(LANES):
                    four = np.uint32(packed[lane] >> np.uint64(4 * quad)) & np.uint32(15)
                    ones = (four * np.uint32(0x00204081)) & _ONES  # bit i to byte i
                    unpacked[lane] = (ones * np.uint32(254)) ^ _ONES  # 0 to 1, 1 to -1
        return data_ptr(buffers.panel)

    if layout is PackedInt1:
        return unpack_bits
    return in_place if slots == 1 else unpack_slots


@compiled
def tile_operands(weights, panel, buffers):  # type: ignore[no-untyped-def]
    """Return MatrixOperands of the chunk's first rows and a micropanel, which is unpacked if need be."""
    panel_ptr = _place_panel(weights, panel, buffers)
    blocks = buffers.blocks.shape[1]
    return MatrixOperands(data_ptr(buffers.rows), panel_ptr, data_ptr(buffers.init), blocks, data_ptr(buffers.sums))


@compiled
def later_rows(operands, first, buffers):  # type: ignore[no-untyped-def]
    """Return the operands for the rows of a chunk from row `first` on, a multiple of TILED_ROWS."""
    rows_ptr = operands.rows_ptr + first // TILE_ROWS * buffers.rows.strides[0]
    return MatrixOperands(rows_ptr, operands.weights_ptr, operands.init_ptr, operands.blocks, operands.sums_ptr)
