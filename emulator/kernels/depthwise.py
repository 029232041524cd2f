"""Micro-kernel loops of depthwise convolutions.

    acc[r][c] = sum over taps of x[r][tap][c] * w[tap][c]

Every lane has activations of its own, so nothing is broadcast. The bytes of four taps of a window column are interleaved to one
word per channel; a vector of such words meets a vector of weight words (`DepthwiseInt8x4`).
"""

from __future__ import annotations

from itertools import chain, pairwise
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from weakcell.emulator.kernels.arguments import TileOperands
from weakcell.emulator.kernels.indirection import SLIDING
from weakcell.emulator.kernels.isa import I8, I16, I32, I64, emit_multiply_accumulate, i64, load, load_pointers, shuffle, splat
from weakcell.emulator.kernels.weight_layouts import LANES, DepthwiseInt8x4

_VECTOR = ir.VectorType(I32, 8)
_VECTORS = LANES // 8


def emit_depthwise(builder: Any, operands: TileOperands, rows: int) -> list[list[Any]]:
    """Emit one loop over words of four taps. Each run is a single tap.

    Args:
        operands: `runs` is the number of taps, a multiple of 4; `run_words` is not read.
        rows: rows of the tile.

    Returns:
        For each row the sums of LANES channels, four vectors of 8 int32.
    """
    entry, loop, end = builder.block, builder.append_basic_block("taps"), builder.append_basic_block("end")
    row_ptrs = load_pointers(builder, operands.inputs_ptr, rows)
    builder.branch(loop)

    builder.position_at_end(loop)
    tap, word_ptr = builder.phi(I64), builder.phi(I64)
    sums = [builder.phi(_VECTOR) for _ in range(_VECTORS * rows)]
    offsets = load_pointers(builder, builder.add(operands.runs_ptr, builder.mul(tap, i64(8))), 4)
    w = [load(builder, word_ptr, i64(32 * v), _VECTOR) for v in range(_VECTORS)]
    new = []
    for r, row_ptr in enumerate(row_ptrs):
        for v, x in enumerate(_load_taps(builder, row_ptr, offsets)):
            new.append(emit_multiply_accumulate(builder, DepthwiseInt8x4, sums[_VECTORS * r + v], x, w[v]))
    next_tap, next_word_ptr = builder.add(tap, i64(4)), builder.add(word_ptr, i64(4 * LANES))
    builder.cbranch(builder.icmp_signed("<", next_tap, operands.runs), loop, end)
    for phi, at_entry, at_loop in [
        (tap, i64(0), next_tap),
        (word_ptr, operands.weights_ptr, next_word_ptr),
        *((phi, splat(_VECTOR, 0), total) for phi, total in zip(sums, new, strict=True)),
    ]:
        phi.add_incoming(at_entry, entry)
        phi.add_incoming(at_loop, loop)

    builder.position_at_end(end)
    return [_to_channel_order(builder, new[_VECTORS * r : _VECTORS * (r + 1)]) for r in range(rows)]


def emit_depthwise_sliding(builder: Any, operands: TileOperands, rows: int) -> list[list[Any]]:
    """Emit a tile that reuses columns shared by neighbouring windows.

    Rows whose windows are neighbours in an image row take `_emit_sliding_columns`, others `emit_depthwise`.

    Args:
        operands: `run_words` is SLIDING if neighbouring windows overlap in all but one column.
        rows: rows of the tile.
    """
    slots = [cgutils.alloca_once(builder, _VECTOR) for _ in range(_VECTORS * rows)]
    row_ptrs = load_pointers(builder, operands.inputs_ptr, rows)
    column_step = builder.sub(*(load(builder, operands.runs_ptr, i64(8 * i), I64) for i in (4, 0)))
    slides = builder.icmp_signed("==", operands.run_words, i64(SLIDING))
    for left, right in pairwise(row_ptrs):
        slides = builder.and_(slides, builder.icmp_signed("==", builder.sub(right, left), column_step))
    with builder.if_else(slides) as (yes, no):
        for branch, emit in ((yes, _emit_sliding_columns), (no, emit_depthwise)):
            with branch:
                for slot, total in zip(slots, chain.from_iterable(emit(builder, operands, rows)), strict=True):
                    builder.store(total, slot)
    sums = [builder.load(slot) for slot in slots]
    return [sums[_VECTORS * r : _VECTORS * (r + 1)] for r in range(rows)]


def _emit_sliding_columns(builder: Any, operands: TileOperands, rows: int) -> list[list[Any]]:
    """Load each column once and multiply it in every window that contains it."""
    row_ptr = load(builder, operands.inputs_ptr, i64(0), I64)
    offsets = load_pointers(builder, operands.runs_ptr, 5)
    column_step = builder.sub(offsets.pop(), offsets[0])
    w = [
        [load(builder, operands.weights_ptr, i64(4 * LANES * kx + 32 * v), _VECTOR) for v in range(_VECTORS)]
        for kx in range(SLIDING)
    ]
    sums = [splat(_VECTOR, 0)] * (_VECTORS * rows)
    for column in range(rows + SLIDING - 1):
        x = _load_taps(builder, row_ptr, offsets)
        for r in range(max(0, column - SLIDING + 1), min(rows, column + 1)):
            for v in range(_VECTORS):
                i = _VECTORS * r + v
                sums[i] = emit_multiply_accumulate(builder, DepthwiseInt8x4, sums[i], x[v], w[column - r][v])
        row_ptr = builder.add(row_ptr, column_step)
    return [_to_channel_order(builder, sums[_VECTORS * r : _VECTORS * (r + 1)]) for r in range(rows)]


def _load_taps(builder: Any, row_ptr: Any, offsets: list[Any]) -> list[Any]:
    """Load the bytes of four taps and interleave them.

    Returns four vectors of words, in the lane order of `DepthwiseInt8x4`.
    """
    a, b, c, d = (load(builder, row_ptr, offset, ir.VectorType(I8, LANES), align=1) for offset in offsets)
    words = []
    for half in (0, 8):
        mask = [side + 16 * h + half + j for h in range(2) for j in range(8) for side in (0, LANES)]
        ab, cd = (builder.bitcast(shuffle(builder, p, q, mask), ir.VectorType(I16, 16)) for p, q in ((a, b), (c, d)))
        for quarter in (0, 4):
            mask = [side + 8 * h + quarter + j for h in range(2) for j in range(4) for side in (0, 16)]
            words.append(builder.bitcast(shuffle(builder, ab, cd, mask), _VECTOR))
    return words


def _to_channel_order(builder: Any, sums: list[Any]) -> list[Any]:
    """Reorder sums from the lane order of `DepthwiseInt8x4` to consecutive channels."""
    masks = [[4 * h + side + i for side in (0, 8) for i in range(4)] for h in range(2)]
    return [shuffle(builder, sums[v], sums[v + 1], mask) for mask in masks for v in (0, 2)]
