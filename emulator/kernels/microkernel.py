"""The register tile: some rows of activations times one block of weights, accumulated without touching memory.

Compilers do not keep such a block of accumulators in vector registers, so its LLVM IR is written out here, once, for every form of
weights. One word of activations, broadcast, meets one word of weights in each lane of a vector:

    PackedInt1      sum += popcount(x ^ w)                      64 signs to a word; see `carry_save.py`
    Bytes     sum += x0 w0 + x1 w1 + x2 w2 + x3 w3        unsigned bytes times signed bytes
    PackedInt4   the same, two weights to a byte             each vector of weights meets two words of activations
    PackedInt2    the same, four weights to a byte            … and here four
    Int16x2     sum += x0 w0 + x1 w1                        int16 times int16
    DepthwiseInt8x4      the products of Bytes                       four taps of one channel: lanes have activations of their own

Lanes are output channels: an activation is loaded once, and no sum runs across a vector. The inner index k runs through `segments`
runs of `length` vectors of weights; their activations lie at `offsets` from each row's address, so a convolution needs no
copied patches: the runs are the rows of its window.

The IR is generic but for a few instructions (`steps.py`). Tile sizes follow the target, too, so that no accumulator spills. Results
never depend on either.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from weakcell.emulator.kernels.carry_save import emit_carry_save
from weakcell.emulator.kernels.depthwise import emit_depthwise, emit_depthwise_sliding
from weakcell.emulator.kernels.epilogues import store_codes, store_signs, store_sums, with_bases
from weakcell.emulator.kernels.isa import POPCOUNT, WIDE, emit_multiply_accumulate, undo_packing_shift, unpacked
from weakcell.emulator.kernels.llvm_vectors import I32, I64, broadcast, load
from weakcell.emulator.kernels.weight_layouts import LANES, DepthwiseInt8x4, PackedInt1, subbyte_slots, word_bytes

POOL = 4
"""Rows whose signs a pooled tile joins: a pool of 2 x 2."""


def shape_of(form: type, pooled: bool = False) -> tuple[int, int, int]:
    """Rows of a tile, vectors beside one another, lanes of a vector: rows x vectors accumulators fit into the registers.

    Chains of signs have two vectors for each sum.
    """
    if form is PackedInt1:
        return (4, 1 if pooled else 2, 8) if POPCOUNT else (4 if pooled else 2, 1, 8)
    if form is DepthwiseInt8x4:
        return (4 if WIDE else 1, 4, 8)
    return (8, 2, 16) if WIDE else (4, 1, 8)


def tile_rows(weights: Any, pooled: bool) -> int:
    """Rows of a whole tile."""
    return shape_of(type(weights), pooled)[0]


@overload(tile_rows)  # type: ignore[untyped-decorator]
def _tile_rows(weights, pooled):  # type: ignore[no-untyped-def]
    plain, joined = (shape_of(weights.instance_class, own)[0] for own in (False, True))
    return lambda weights, pooled: joined if pooled else plain


def row_by_row(weights: Any) -> bool:
    """Whether a tile writes all lanes of a row before it writes the next: all fit into registers at once."""
    return type(weights) is DepthwiseInt8x4 or shape_of(type(weights))[1] * shape_of(type(weights))[2] == LANES


@overload(row_by_row)  # type: ignore[untyped-decorator]
def _row_by_row(weights):  # type: ignore[no-untyped-def]
    form = weights.instance_class
    whole = form is DepthwiseInt8x4 or shape_of(form)[1] * shape_of(form)[2] == LANES
    return lambda weights: whole


def make_value_tile(passes: Any) -> Any:
    """The intrinsic `value_tile` around the loops that `passes` writes (`_passes`)."""

    @intrinsic  # type: ignore[untyped-decorator]
    def tile(typingctx, weights, made, windows, block, offsets, segments, length, bases, rounding, how, outs):  # type: ignore[no-untyped-def]
        """tile(weights, made, windows, block, offsets, segments, length, bases, rounding, how, outs): see below."""
        form, summed = weights.instance_class, made.dtype.bitwidth == 32
        packs = WIDE and form is not PackedInt1

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            bases, rounding, how, outs = args[7:]
            for sums, first in passes(builder, args[2:7], form):
                values = with_bases(builder, bases, sums, first, form is PackedInt1)
                if summed:
                    store_sums(builder, outs, values, first)
                else:
                    store_codes(builder, outs, values, first, rounding, how, made.dtype.signed, packs)
            return ir.Constant(I64, 0)

        return types.int64(weights, made, *[types.int64] * 9), codegen

    return tile


def make_sign_tile(passes: Any, pooled: bool = False) -> Any:
    """The intrinsic `sign_tile`, likewise."""

    @intrinsic  # type: ignore[untyped-decorator]
    def tile(typingctx, weights, windows, block, offsets, segments, length, limits, outs):  # type: ignore[no-untyped-def]
        """tile(weights, windows, block, offsets, segments, length, limits, outs): see below; writes bits."""
        form = weights.instance_class

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            for sums, first in passes(builder, args[1:6], form):
                store_signs(builder, args[6], args[7], sums, first, form is PackedInt1, POOL if pooled else 1)
            return ir.Constant(I64, 0)

        return types.int64(weights, *[types.int64] * 7), codegen

    return tile


def _passes(builder: Any, args: Any, form: type, pooled: bool = False) -> Any:
    """The sums (a list per row, a vector each) of as many lanes as registers hold, and the first of these lanes."""
    rows, vectors, lanes = shape_of(form, pooled)
    if form is DepthwiseInt8x4:
        yield (emit_depthwise(builder, args, rows) if rows == 1 else emit_depthwise_sliding(builder, args, rows)), 0
        return
    assert LANES % (vectors * lanes) == 0
    for first in range(0, LANES, vectors * lanes):
        if form is PackedInt1:
            yield emit_carry_save(builder, args, rows, vectors, lanes, first), first
        else:
            yield _emit(builder, args, form, rows, vectors, lanes, first), first


def _emit(builder: Any, args: Any, form: type, rows: int, vectors: int, lanes: int, first: int) -> list[list[Any]]:
    """Two nested loops (segments, vectors of a segment) around the step; accumulators are phi nodes."""
    windows, block, offsets, segments, length = args
    word, parts = word_bytes(form), subbyte_slots(form)
    vector = ir.VectorType(I64 if form is PackedInt1 else I32, lanes)
    zero, one = ir.Constant(I64, 0), ir.Constant(I64, 1)
    entry = builder.block
    outer, inner, inner_end, end = (builder.append_basic_block(name) for name in ("segment", "word", "segment_end", "end"))
    bases = [load(builder, windows, ir.Constant(I64, 8 * r), I64) for r in range(rows)]
    start = builder.add(block, ir.Constant(I64, first * word))
    builder.branch(outer)

    builder.position_at_end(outer)
    segment, at_segment = builder.phi(I64), builder.phi(I64)
    outer_sums = [builder.phi(vector) for _ in range(rows * vectors)]
    offset = load(builder, offsets, builder.mul(segment, ir.Constant(I64, 8)), I64)
    builder.branch(inner)

    builder.position_at_end(inner)
    k, at_word = builder.phi(I64), builder.phi(I64)
    sums = [builder.phi(vector) for _ in outer_sums]
    place = builder.add(offset, builder.mul(k, ir.Constant(I64, word * parts)))
    packed = [load(builder, at_word, ir.Constant(I64, v * lanes * word), vector) for v in range(vectors)]
    new = list(sums)
    for part in range(parts):
        w = [unpacked(builder, form, own, part) for own in packed]
        at_part = builder.add(place, ir.Constant(I64, part * word))
        for r in range(rows):
            x = broadcast(builder, load(builder, bases[r], at_part, vector.element, align=1 if word == 4 else 8), vector)
            for v in range(vectors):
                i = r * vectors + v
                new[i] = emit_multiply_accumulate(builder, form, new[i], x, w[v])
    k_next, word_next = builder.add(k, one), builder.add(at_word, ir.Constant(I64, LANES * word))
    builder.cbranch(builder.icmp_signed("<", k_next, length), inner, inner_end)

    builder.position_at_end(inner_end)
    segment_next = builder.add(segment, one)
    builder.cbranch(builder.icmp_signed("<", segment_next, segments), outer, end)
    empty = ir.Constant(vector, [0] * lanes)
    for phi, at_entry, at_end in [
        (segment, zero, segment_next),
        (at_segment, start, word_next),
        *((own, empty, total) for own, total in zip(outer_sums, new, strict=True)),
    ]:
        phi.add_incoming(at_entry, entry)
        phi.add_incoming(at_end, inner_end)
    for phi, at_outer, at_inner in [
        (k, zero, k_next),
        (at_word, at_segment, word_next),
        *zip(sums, outer_sums, new, strict=True),
    ]:
        phi.add_incoming(at_outer, outer)
        phi.add_incoming(at_inner, inner)

    builder.position_at_end(end)
    totals = [undo_packing_shift(builder, form, total) for total in new]
    return [totals[r * vectors : (r + 1) * vectors] for r in range(rows)]


value_tile = make_value_tile(_passes)
"""Rows x LANES sums plus what else belongs to them. PackedInt1: minus twice the mismatches, plus that.

All arguments but the weights, whose type says the form, and `made`, whose type says what is made, are int64. windows: address of
`rows` byte addresses of activations. block: address of a block of weights. offsets: address of `segments` byte offsets. length:
words of weights in a segment. Where several rows are signs, windows and block are chains of `length` words, and offsets are not
read. bases: address of `rows` addresses, of LANES int32 to add. outs: address of `rows` addresses to write to: LANES int32 where
`made` is an array of int32, else LANES bytes. rounding, how: `endings.store_codes`.
"""
sign_tile, pooled_sign_tile = (make_sign_tile(partial(_passes, pooled=pooled), pooled) for pooled in (False, True))
"""The same ending in bits: 1 where mismatches <= limit (PackedInt1) or the sum >= limit.

limits, outs: addresses of `rows` addresses, of LANES limits (as wide as a sum) and of LANES / 8 bytes for the bits.
Pooled: the bits of POOL neighbouring rows are one, and so is their address.
"""
