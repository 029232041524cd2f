"""The matrix–vector path: one row of activations times one micropanel of weights.

A tile of one row would wait for its own sums, and unpack weights that no other row needs. Here several words of weights are in
flight at once, each with sums of its own, and sub-byte weights are multiplied where they lie in their bytes. A mask selects a slot:

    (w + 2^(bits - 1)) 2^shift      in all slots but the highest (stored with an inverted sign bit)
    w 2^shift                       in the highest slot, whose sign is that of the byte

Every slot has a sum of its own, which is 2^shift too large. The surplus of the lower slots depends on the activations alone. It is
summed once for all lanes, as one more vector of weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from weakcell.emulator.kernels.arguments import ROUNDING_BYTES, SignEpilogue, TileOperands, ValueEpilogue
from weakcell.emulator.kernels.depthwise import emit_depthwise
from weakcell.emulator.kernels.isa import (
    I8,
    I32,
    I64,
    POPCOUNT,
    WIDE,
    broadcast,
    call,
    emit_multiply_accumulate,
    every_byte,
    i64,
    is_depthwise,
    load,
    shuffle,
    splat,
)
from weakcell.emulator.kernels.microkernel import make_sign_microkernel, make_value_microkernel
from weakcell.emulator.kernels.weight_layouts import LANES, DepthwiseInt8x4, Int8x4, PackedInt1, subbyte_slots, word_bytes
from weakcell.memmodels.compilation import compiled
from weakcell.memmodels.sampling.pointers import data_ptr

_SUMS = 8
"""Vectors of sums: more would not fit into the registers of AVX2, fewer would wait for one another."""


class _Shape(NamedTuple):
    """Lanes of a vector, vectors of a word, and words in flight at once."""

    lanes: int
    vectors: int
    words: int


def _shape_of(layout: type) -> _Shape:
    if layout is PackedInt1:
        return _Shape(8, LANES // 8, 2 if POPCOUNT else 1)
    lanes = 16 if WIDE else 8
    vectors = min(LANES // lanes, _SUMS // subbyte_slots(layout))
    return _Shape(lanes, vectors, _SUMS // (vectors * subbyte_slots(layout)))


def _emit_sums(builder: Any, operands: TileOperands, layout: type) -> Iterator[tuple[list[list[Any]], int]]:
    """Emit the loops of a layout for one row: see `microkernel.EmitSums`."""
    if layout is DepthwiseInt8x4:
        yield emit_depthwise(builder, operands, 1), 0
        return
    shape = _shape_of(layout)
    for first in range(0, LANES, shape.vectors * shape.lanes):
        yield [_emit_row(builder, operands, layout, shape, first)], first


def _emit_row(builder: Any, operands: TileOperands, layout: type, shape: _Shape, first: int) -> list[Any]:
    """Emit two nested loops, over runs and over words of a run.

    Optimization keeps the sums' stack slots in registers.
    """
    word, slots = word_bytes(layout), subbyte_slots(layout)
    vector, four = ir.VectorType(I64 if layout is PackedInt1 else I32, shape.lanes), ir.VectorType(I32, 4)
    sums = [[[_new_sum(builder, vector) for _ in range(shape.vectors)] for _ in range(slots)] for _ in range(shape.words)]
    surplus = _new_sum(builder, four)
    word_ptr = cgutils.alloca_once_value(builder, builder.add(operands.weights_ptr, i64(first * word)))
    row_ptr = load(builder, operands.inputs_ptr, i64(0), I64)

    def multiply_word(inputs_ptr: Any, i: int) -> None:
        """Multiply word i of those in flight by the activations at `inputs_ptr`."""
        panel_word_ptr = builder.add(builder.load(word_ptr), i64(i * LANES * word))
        packed = [load(builder, panel_word_ptr, i64(v * shape.lanes * word), vector) for v in range(shape.vectors)]
        for slot in range(slots):
            activation = load(builder, inputs_ptr, i64(slot * word), vector.element, align=1 if word == 4 else 8)
            x = broadcast(builder, activation, vector)
            for v, total in enumerate(sums[i][slot]):
                w = _select_slot(builder, packed[v], slot, slots)
                builder.store(emit_multiply_accumulate(builder, layout, builder.load(total), x, w), total)
        if slots > 1:
            x = _widen(builder, load(builder, inputs_ptr, i64(0), ir.VectorType(I8, 4 * slots), align=1))
            builder.store(emit_multiply_accumulate(builder, Int8x4, builder.load(surplus), x, _surplus_weights(slots)), surplus)

    def loop(begin: Any, end: Any, count: int, base_ptr: Any) -> None:
        with cgutils.for_range_slice(builder, begin, end, i64(count)) as (k, _):
            for i in range(count):
                offset = builder.mul(builder.add(k, i64(i)), i64(word * slots))
                multiply_word(builder.add(base_ptr, offset), i)
            builder.store(builder.add(builder.load(word_ptr), i64(count * LANES * word)), word_ptr)

    with cgutils.for_range(builder, operands.runs) as run:
        base_ptr = builder.add(row_ptr, load(builder, operands.runs_ptr, builder.mul(run.index, i64(8)), I64))
        whole = builder.sub(operands.run_words, builder.urem(operands.run_words, i64(shape.words)))
        loop(i64(0), whole, shape.words, base_ptr)
        if shape.words > 1:
            loop(whole, operands.run_words, 1, base_ptr)
    excess = call(builder, "llvm.vector.reduce.add.v4i32", I32, builder.load(surplus)) if slots > 1 else None
    by_vector = ([[in_flight[slot][v] for in_flight in sums] for slot in range(slots)] for v in range(shape.vectors))
    return [_emit_total(builder, by_slot, excess) for by_slot in by_vector]


def _new_sum(builder: Any, vector: Any) -> Any:
    return cgutils.alloca_once_value(builder, splat(vector, 0))


def _select_slot(builder: Any, packed: Any, slot: int, slots: int) -> Any:
    """Mask the bytes of one slot, without moving them."""
    bits = 8 // slots
    return packed if slots == 1 else builder.and_(packed, every_byte(packed.type, ((1 << bits) - 1) << bits * slot))


def _surplus_weights(slots: int) -> Any:
    """Return the surplus weight of every activation: four words of bytes.

    2^(bits - 1) for slots with an inverted sign bit, else 0.
    """
    word = (1 << (8 // slots - 1)) * 0x01010101
    return ir.Constant(ir.VectorType(I32, 4), [word * (slot < slots - 1) for slot in range(4)])


def _widen(builder: Any, x: Any) -> Any:
    """Return a vector of up to 16 bytes as four words, filled up with zeros."""
    return builder.bitcast(shuffle(builder, x, splat(x.type, 0), [min(i, x.type.count) for i in range(16)]), ir.VectorType(I32, 4))


def _emit_total(builder: Any, sums: list[list[Any]], excess: Any) -> Any:
    """Add the sums of all words in flight.

    Each slot's sum is divided by its factor; then the excess is subtracted.

    Args:
        sums: for each slot the stack slots of its sums.
        excess: int32 value, or None for layouts without sub-byte packing.
    """
    total: Any = None
    for slot, in_flight in enumerate(sums):
        scaled = builder.load(in_flight[0])
        for other in in_flight[1:]:
            scaled = builder.add(scaled, builder.load(other))
        shift = 8 // len(sums) * slot
        exact = builder.ashr(scaled, splat(scaled.type, shift)) if shift else scaled
        total = builder.add(total, exact) if total else exact
    return builder.sub(total, broadcast(builder, excess, total.type)) if excess else total


value_gemv, sign_gemv = make_value_microkernel(_emit_sums), make_sign_microkernel(_emit_sums)
"""`microkernel.value_microkernel` and `microkernel.sign_microkernel` for one row; PackedInt1 operands are not chains."""


@compiled
def gemv_values(weights, out, runs, input_ptr, weights_ptr, epilogue):  # type: ignore[no-untyped-def]
    """Compute all output channels of one row, micropanel by micropanel.

    out[o] = init[o] + sum over k of x[k] w[k][o]

    Args:
        weights: the layout record.
        out: int32 (O,) sums, or int8 or uint8 codes to which they are rounded.
        runs: Runs of the window.
        input_ptr: address of the window.
        weights_ptr: address of the first micropanel.
        epilogue: ValueEpilogue whose `init_ptr` is the address of int32 [panels * LANES] and whose `outputs_ptr` is not read.
    """
    pointers, partial = np.empty(3, np.int64), np.empty(LANES, out.dtype)
    pointers_ptr, runs_ptr, panel_bytes = data_ptr(pointers), data_ptr(runs.offsets), LANES * out.itemsize
    pointers[0] = input_ptr
    for panel in range((out.size + LANES - 1) // LANES):
        left = out.size - panel * LANES
        if is_depthwise(weights):
            pointers[0] = input_ptr + panel * LANES
        pointers[1] = epilogue.init_ptr + panel * LANES * 4
        pointers[2] = data_ptr(out) + panel * panel_bytes if left >= LANES else data_ptr(partial)
        panel_ptr = weights_ptr + panel * weights.values.strides[0]
        operands = TileOperands(pointers_ptr, panel_ptr, runs_ptr, runs.offsets.size, runs.words)
        rounding_ptr = epilogue.rounding_ptr + panel * ROUNDING_BYTES
        ending = ValueEpilogue(pointers_ptr + 8, rounding_ptr, epilogue.rounding_flags, pointers_ptr + 16)
        value_gemv(weights, out, operands, ending)
        for lane in range(0 if left >= LANES else left):
            out[panel * LANES + lane] = partial[lane]


@compiled
def gemv_signs(weights, out, runs, input_ptr, limits):  # type: ignore[no-untyped-def]
    """Compute the bits of all output channels of one row, micropanel by micropanel.

    Args:
        weights: the layout record.
        out: uint64 (ceil(O / 64),).
        runs: Runs of the window.
        input_ptr: address of the window.
        limits: (panels * LANES,) of the dtype of sums.
    """
    pointers = np.empty(3, np.int64)
    pointers_ptr, runs_ptr, weights_ptr = data_ptr(pointers), data_ptr(runs.offsets), data_ptr(weights.values)
    pointers[0] = input_ptr
    for panel in range(weights.values.shape[0]):
        pointers[1] = data_ptr(limits) + panel * LANES * limits.itemsize
        pointers[2] = data_ptr(out) + panel * (LANES // 8)
        panel_ptr = weights_ptr + panel * weights.values.strides[0]
        operands = TileOperands(pointers_ptr, panel_ptr, runs_ptr, runs.offsets.size, runs.words)
        sign_gemv(weights, operands, SignEpilogue(pointers_ptr + 8, pointers_ptr + 16))
