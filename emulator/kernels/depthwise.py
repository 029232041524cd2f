"""Loops of depthwise convolutions: lanes have activations of their own, four taps of which are joined to a word."""

from __future__ import annotations

from itertools import chain, pairwise
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from weakcell.emulator.kernels.indirection import SLIDING
from weakcell.emulator.kernels.isa import emit_multiply_accumulate
from weakcell.emulator.kernels.llvm_vectors import I8, I16, I32, I64, load
from weakcell.emulator.kernels.weight_layouts import LANES, DepthwiseInt8x4


def emit_depthwise(builder: Any, args: Any, rows: int) -> list[list[Any]]:
    """One loop over words: four taps of LANES channels are joined channel by channel. Here each segment is a tap."""
    windows, block, offsets, segments, _ = args
    vector, zero = ir.VectorType(I32, 8), ir.Constant(I64, 0)
    entry, loop, end = builder.block, builder.append_basic_block("taps"), builder.append_basic_block("end")
    bases = [load(builder, windows, ir.Constant(I64, 8 * r), I64) for r in range(rows)]
    builder.branch(loop)

    builder.position_at_end(loop)
    tap, at_word = builder.phi(I64), builder.phi(I64)
    sums = [builder.phi(vector) for _ in range(4 * rows)]
    at_offsets = builder.add(offsets, builder.mul(tap, ir.Constant(I64, 8)))
    places = [load(builder, at_offsets, ir.Constant(I64, 8 * i), I64) for i in range(4)]
    w = [load(builder, at_word, ir.Constant(I64, 32 * v), vector) for v in range(4)]
    new = []
    for r, base in enumerate(bases):
        taps = [load(builder, base, place, ir.VectorType(I8, LANES), align=1) for place in places]
        new += [
            emit_multiply_accumulate(builder, DepthwiseInt8x4, sums[4 * r + v], x, w[v])
            for v, x in enumerate(_joined(builder, taps))
        ]
    tap_next, word_next = builder.add(tap, ir.Constant(I64, 4)), builder.add(at_word, ir.Constant(I64, 4 * LANES))
    builder.cbranch(builder.icmp_signed("<", tap_next, segments), loop, end)
    empty = ir.Constant(vector, [0] * 8)
    for phi, at_entry, at_loop in [
        (tap, zero, tap_next),
        (at_word, block, word_next),
        *((s, empty, n) for s, n in zip(sums, new, strict=True)),
    ]:
        phi.add_incoming(at_entry, entry)
        phi.add_incoming(at_loop, loop)

    builder.position_at_end(end)
    return [_in_order(builder, new[4 * r : 4 * r + 4]) for r in range(rows)]


def emit_depthwise_sliding(builder: Any, args: Any, rows: int) -> list[list[Any]]:
    """`_emit_columns` where the windows lie beside one another, else `emit_depthwise`. Here `length` says whether they can."""
    windows, _, offsets, _, length = args
    room = [cgutils.alloca_once(builder, ir.VectorType(I32, 8)) for _ in range(4 * rows)]
    at = [load(builder, windows, ir.Constant(I64, 8 * r), I64) for r in range(rows)]
    apart = builder.sub(*(load(builder, offsets, ir.Constant(I64, 8 * i), I64) for i in (4, 0)))
    beside = builder.icmp_signed("==", length, ir.Constant(I64, SLIDING))
    for left, right in pairwise(at):
        beside = builder.and_(beside, builder.icmp_signed("==", builder.sub(right, left), apart))
    with builder.if_else(beside) as (yes, no):
        for branch, emit in ((yes, _emit_columns), (no, emit_depthwise)):
            with branch:
                for place, total in zip(room, chain.from_iterable(emit(builder, args, rows)), strict=True):
                    builder.store(total, place)
    sums = [builder.load(place) for place in room]
    return [sums[4 * r : 4 * r + 4] for r in range(rows)]


def _emit_columns(builder: Any, args: Any, rows: int) -> list[list[Any]]:
    """Windows of SLIDING columns: each column is joined once and meets the windows that it belongs to."""
    windows, block, offsets, _, _ = args
    vector = ir.VectorType(I32, 8)
    at = load(builder, windows, ir.Constant(I64, 0), I64)
    places = [load(builder, offsets, ir.Constant(I64, 8 * i), I64) for i in range(5)]
    beside = builder.sub(places.pop(), places[0])
    w = [[load(builder, block, ir.Constant(I64, 4 * LANES * kx + 32 * v), vector) for v in range(4)] for kx in range(SLIDING)]
    sums = [ir.Constant(vector, [0] * 8)] * (4 * rows)
    for column in range(rows + SLIDING - 1):
        x = _joined(builder, [load(builder, at, place, ir.VectorType(I8, LANES), align=1) for place in places])
        for r in range(max(0, column - SLIDING + 1), min(rows, column + 1)):
            own = [emit_multiply_accumulate(builder, DepthwiseInt8x4, sums[4 * r + v], x[v], w[column - r][v]) for v in range(4)]
            sums[4 * r : 4 * r + 4] = own
        at = builder.add(at, beside)
    return [_in_order(builder, sums[4 * r : 4 * r + 4]) for r in range(rows)]


def _joined(builder: Any, taps: list[Any]) -> list[Any]:
    """Four vectors of bytes -> four of words that hold a byte of each, in the order of `DepthwiseInt8x4`."""
    a, b, c, d = taps
    made = []
    for half in (0, 8):
        mask = [side + 16 * h + half + j for h in range(2) for j in range(8) for side in (0, LANES)]
        ab, cd = (builder.bitcast(_shuffled(builder, p, q, mask), ir.VectorType(I16, 16)) for p, q in ((a, b), (c, d)))
        for quarter in (0, 4):
            mask = [side + 8 * h + quarter + j for h in range(2) for j in range(4) for side in (0, 16)]
            made.append(builder.bitcast(_shuffled(builder, ab, cd, mask), ir.VectorType(I32, 8)))
    return made


def _in_order(builder: Any, sums: list[Any]) -> list[Any]:
    """Sums in the order of `DepthwiseInt8x4` -> channel by channel."""
    halves = [[4 * h + side + i for side in (0, 8) for i in range(4)] for h in range(2)]
    return [_shuffled(builder, sums[v], sums[v + 1], mask) for mask in halves for v in (0, 2)]


def _shuffled(builder: Any, a: Any, b: Any, mask: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(mask)), mask))
