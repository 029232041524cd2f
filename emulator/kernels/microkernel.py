"""The micro-kernel: mr rows of activations times one micropanel of weights, accumulated in registers.

    acc[r][lane] = sum over k of x[r][k] * w[k][lane]          r < mr, lane < LANES

Lanes are output channels. One word of activations is broadcast and multiplied by one word of weights in each lane, so no sum runs
across a vector. Index k runs over the contiguous runs of a window; a convolution therefore needs no im2col copy. The loop body is
`isa.emit_multiply_accumulate`; layouts with loops of their own are PackedInt1 (`carry_save.py`) and DepthwiseInt8x4
(`depthwise.py`).

Compilers do not keep such a tile of accumulators in vector registers, so its LLVM IR is written out here, once for all layouts.
Tile shapes follow the target CPU, so that no accumulator spills. Results never depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from weakcell.emulator.kernels.arguments import SignEpilogue, TileOperands, ValueEpilogue
from weakcell.emulator.kernels.carry_save import emit_carry_save
from weakcell.emulator.kernels.depthwise import emit_depthwise, emit_depthwise_sliding
from weakcell.emulator.kernels.epilogues import add_init, store_codes, store_signs, store_sums
from weakcell.emulator.kernels.isa import (
    I32,
    I64,
    POPCOUNT,
    WIDE,
    broadcast,
    emit_multiply_accumulate,
    i64,
    layout_constant,
    load,
    load_pointers,
    splat,
    undo_packing_shift,
    unpack_slot,
)
from weakcell.emulator.kernels.weight_layouts import LANES, DepthwiseInt8x4, PackedInt1, subbyte_slots, word_bytes

POOL = 4
"""Rows whose bits a pooled sign micro-kernel joins: a pool of 2 x 2."""


class TileShape(NamedTuple):
    """Shape of the accumulators that are in registers at once: mr x vectors x lanes."""

    mr: int
    """Rows."""
    vectors: int
    """Vectors of each row."""
    lanes: int
    """Lanes of a vector."""


Sums = list[list[Any]]
"""Sums of a tile: for each row a list of vectors, whose lanes in order are consecutive output channels."""

EmitSums = Callable[[Any, TileOperands, type], Iterator[tuple[Sums, int]]]
"""Emits the loops of a layout: yields the sums of as many lanes as registers hold, and the first of these lanes."""


def tile_shape(layout: type, pooled: bool = False) -> TileShape:
    """Return the shape of a layout's register tile.

    Carry-save sums need two vectors each.
    """
    if layout is PackedInt1:
        return TileShape(4, 1 if pooled else 2, 8) if POPCOUNT else TileShape(4 if pooled else 2, 1, 8)
    if layout is DepthwiseInt8x4:
        return TileShape(4 if WIDE else 1, 4, 8)
    return TileShape(8, 2, 16) if WIDE else TileShape(4, 1, 8)


def tile_rows(weights: Any, pooled: bool) -> int:
    """Return mr, the rows of one micro-kernel call."""
    return tile_shape(type(weights), pooled).mr


@overload(tile_rows)  # type: ignore[untyped-decorator]
def _tile_rows(weights, pooled):  # type: ignore[no-untyped-def]
    plain, joined = (tile_shape(weights.instance_class, is_pooled).mr for is_pooled in (False, True))
    return lambda weights, pooled: joined if pooled else plain


def _writes_rows_in_order(layout: type) -> bool:
    shape = tile_shape(layout)
    return layout is DepthwiseInt8x4 or shape.vectors * shape.lanes == LANES


writes_rows_in_order = layout_constant(_writes_rows_in_order)
"""writes_rows_in_order(weights): whether a micro-kernel stores all lanes of a row before it stores the next row."""


def make_value_microkernel(emit_sums: EmitSums) -> Any:
    """Make the intrinsic `value_microkernel` around the loops that `emit_sums` emits."""

    @intrinsic  # type: ignore[untyped-decorator]
    def microkernel(typingctx, weights, out, operands, epilogue):  # type: ignore[no-untyped-def]
        """Compute one tile and store values; see `value_microkernel`."""
        layout, is_int32 = weights.instance_class, out.dtype.bitwidth == 32
        packs = WIDE and layout is not PackedInt1

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            tile, end = (cgutils.unpack_tuple(builder, record) for record in args[2:])
            ending = ValueEpilogue(*end)
            for sums, first in emit_sums(builder, TileOperands(*tile), layout):
                values = add_init(builder, ending.init_ptr, sums, first, layout is PackedInt1)
                if is_int32:
                    store_sums(builder, ending.outputs_ptr, values, first)
                else:
                    store_codes(builder, ending, values, first, out.dtype.signed, packs)
            return i64(0)

        return types.int64(weights, out, operands, epilogue), codegen

    return microkernel


def make_sign_microkernel(emit_sums: EmitSums, pooled: bool = False) -> Any:
    """Make the intrinsic `sign_microkernel` around the loops that `emit_sums` emits."""

    @intrinsic  # type: ignore[untyped-decorator]
    def microkernel(typingctx, weights, operands, epilogue):  # type: ignore[no-untyped-def]
        """Compute one tile and store bits; see `sign_microkernel`."""
        layout = weights.instance_class

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            tile, end = (cgutils.unpack_tuple(builder, record) for record in args[1:])
            for sums, first in emit_sums(builder, TileOperands(*tile), layout):
                store_signs(builder, SignEpilogue(*end), sums, first, layout is PackedInt1, POOL if pooled else 1)
            return i64(0)

        return types.int64(weights, operands, epilogue), codegen

    return microkernel


def _emit_sums(builder: Any, operands: TileOperands, layout: type, pooled: bool = False) -> Iterator[tuple[Sums, int]]:
    """Emit the loops of a layout, pass by pass over the lanes of the micropanel."""
    shape = tile_shape(layout, pooled)
    if layout is DepthwiseInt8x4:
        yield (emit_depthwise if shape.mr == 1 else emit_depthwise_sliding)(builder, operands, shape.mr), 0
        return
    assert LANES % (shape.vectors * shape.lanes) == 0
    for first in range(0, LANES, shape.vectors * shape.lanes):
        if layout is PackedInt1:
            yield emit_carry_save(builder, operands, shape, first), first
        else:
            yield _emit_products(builder, operands, layout, shape, first), first


def _emit_products(builder: Any, operands: TileOperands, layout: type, shape: TileShape, first: int) -> Sums:
    """Emit two nested loops, over runs and words; accumulators are phi nodes."""
    word, slots = word_bytes(layout), subbyte_slots(layout)
    vector = ir.VectorType(I64 if layout is PackedInt1 else I32, shape.lanes)
    entry = builder.block
    outer, inner, inner_end, end = (builder.append_basic_block(name) for name in ("run", "word", "run_end", "end"))
    row_ptrs = load_pointers(builder, operands.inputs_ptr, shape.mr)
    start = builder.add(operands.weights_ptr, i64(first * word))
    builder.branch(outer)

    builder.position_at_end(outer)
    run, run_weights_ptr = builder.phi(I64), builder.phi(I64)
    run_sums = [builder.phi(vector) for _ in range(shape.mr * shape.vectors)]
    run_offset = load(builder, operands.runs_ptr, builder.mul(run, i64(8)), I64)
    builder.branch(inner)

    builder.position_at_end(inner)
    k, word_ptr = builder.phi(I64), builder.phi(I64)
    sums = [builder.phi(vector) for _ in run_sums]
    word_offset = builder.add(run_offset, builder.mul(k, i64(word * slots)))
    packed = [load(builder, word_ptr, i64(v * shape.lanes * word), vector) for v in range(shape.vectors)]
    new = list(sums)
    for slot in range(slots):
        w = [unpack_slot(builder, layout, words, slot) for words in packed]
        slot_offset = builder.add(word_offset, i64(slot * word))
        for r in range(shape.mr):
            activation = load(builder, row_ptrs[r], slot_offset, vector.element, align=1 if word == 4 else 8)
            x = broadcast(builder, activation, vector)
            for v in range(shape.vectors):
                i = r * shape.vectors + v
                new[i] = emit_multiply_accumulate(builder, layout, new[i], x, w[v])
    next_k, next_word_ptr = builder.add(k, i64(1)), builder.add(word_ptr, i64(LANES * word))
    builder.cbranch(builder.icmp_signed("<", next_k, operands.run_words), inner, inner_end)

    builder.position_at_end(inner_end)
    next_run = builder.add(run, i64(1))
    builder.cbranch(builder.icmp_signed("<", next_run, operands.runs), outer, end)
    for phi, at_entry, at_end in [
        (run, i64(0), next_run),
        (run_weights_ptr, start, next_word_ptr),
        *((phi, splat(vector, 0), total) for phi, total in zip(run_sums, new, strict=True)),
    ]:
        phi.add_incoming(at_entry, entry)
        phi.add_incoming(at_end, inner_end)
    for phi, at_outer, at_inner in [
        (k, i64(0), next_k),
        (word_ptr, run_weights_ptr, next_word_ptr),
        *zip(sums, run_sums, new, strict=True),
    ]:
        phi.add_incoming(at_outer, outer)
        phi.add_incoming(at_inner, inner)

    builder.position_at_end(end)
    totals = [undo_packing_shift(builder, layout, total) for total in new]
    return [totals[r * shape.vectors : (r + 1) * shape.vectors] for r in range(shape.mr)]


value_microkernel = make_value_microkernel(_emit_sums)
"""value_microkernel(weights, out, operands, epilogue) -> int64: compute mr x LANES values and store them.

    value[r][lane] = init[r][lane] + acc[r][lane]              PackedInt1: init - 2 * mismatches

Args:
    weights: the layout record; only its type is used.
    out: array of the output's dtype: int32 for sums, int8 or uint8 for rounded codes (`epilogues.store_codes`). Only its type
        is used.
    operands: TileOperands. With PackedInt1 its rows and panel are carry-save chains.
    epilogue: ValueEpilogue.
"""

sign_microkernel, pooled_sign_microkernel = (
    make_sign_microkernel(partial(_emit_sums, pooled=pooled), pooled) for pooled in (False, True)
)
"""sign_microkernel(weights, operands, epilogue) -> int64: compute mr x LANES sums and store one bit for each.

    bit[r][lane] = acc[r][lane] >= limit[r][lane]              PackedInt1: mismatches <= limit

The pooled variant joins the bits of POOL consecutive rows by OR and stores them once.

Args:
    weights: the layout record; only its type is used.
    operands: TileOperands. With PackedInt1 its rows and panel are carry-save chains.
    epilogue: SignEpilogue.
"""
