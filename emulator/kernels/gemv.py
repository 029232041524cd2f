"""A lone row of activations times one block of weights: a matrix times a vector, which is to read the weights and do little else.

A tile of one row (`tile.py`) would wait for its own sums, and unpack weights that no other row needs. Here several words of weights
are under way at once, with sums of their own, and weights of 4 and 2 bits stay where they are in their bytes: a mask makes factors
of a dot product of them,

    (w + 2^(bits - 1)) 2^shift    in all parts of a byte but the highest    (`forms.PackedInt4`)
    w 2^shift                     in the highest, whose sign is that of the byte

Every part has its own sum, which is 2^shift too large. What is too much besides depends on the activations alone: it is summed once
for all lanes, as one more vector of weights.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils

from weakcell.emulator.kernels.depthwise import emit_depthwise
from weakcell.emulator.kernels.indirection import is_depthwise
from weakcell.emulator.kernels.isa import POPCOUNT, WIDE, emit_multiply_accumulate, every_byte
from weakcell.emulator.kernels.llvm_vectors import I8, I32, I64, broadcast, call, load
from weakcell.emulator.kernels.microkernel import make_sign_tile, make_value_tile
from weakcell.emulator.kernels.weight_layouts import (
    LANES,
    ROUNDING_BYTES,
    DepthwiseInt8x4,
    Int8x4,
    PackedInt1,
    subbyte_slots,
    word_bytes,
)

_SUMS = 8
"""Vectors of sums: more would not fit into the registers of AVX2, fewer would wait for one another."""


def _rows(builder: Any, args: Any, form: type) -> Any:
    """The sums (a list of vectors, of one row) of as many lanes as registers hold, and the first of these lanes."""
    if form is DepthwiseInt8x4:
        yield emit_depthwise(builder, args, 1), 0
        return
    lanes, vectors, many = _shape_of(form)
    for first in range(0, LANES, vectors * lanes):
        yield [_emit(builder, args, form, lanes, vectors, many, first)], first


def _shape_of(form: type) -> tuple[int, int, int]:
    """Lanes of a vector, vectors beside one another, words of weights under way at once."""
    if form is PackedInt1:
        return 8, LANES // 8, 2 if POPCOUNT else 1
    lanes = 16 if WIDE else 8
    vectors = min(LANES // lanes, _SUMS // subbyte_slots(form))
    return lanes, vectors, _SUMS // (vectors * subbyte_slots(form))


def _emit(builder: Any, args: Any, form: type, lanes: int, vectors: int, many: int, first: int) -> list[Any]:
    """Two nested loops (segments, words of a segment) around several steps; optimization makes registers of the sums' places."""
    windows, block, offsets, segments, length = args
    word, parts = word_bytes(form), subbyte_slots(form)
    vector, four = ir.VectorType(I64 if form is PackedInt1 else I32, lanes), ir.VectorType(I32, 4)
    rooms = [[[_room(builder, vector) for _ in range(vectors)] for _ in range(parts)] for _ in range(many)]
    excess = _room(builder, four)
    at_words = cgutils.alloca_once_value(builder, builder.add(block, ir.Constant(I64, first * word)))
    row = load(builder, windows, ir.Constant(I64, 0), I64)

    def meet(place: Any, i: int) -> None:
        """Word i of those under way, and the activations at `place`."""
        here = builder.add(builder.load(at_words), ir.Constant(I64, i * LANES * word))
        packed = [load(builder, here, ir.Constant(I64, v * lanes * word), vector) for v in range(vectors)]
        for part in range(parts):
            own = load(builder, place, ir.Constant(I64, part * word), vector.element, align=1 if word == 4 else 8)
            x = broadcast(builder, own, vector)
            for v, room in enumerate(rooms[i][part]):
                w = _factor(builder, packed[v], part, parts)
                builder.store(emit_multiply_accumulate(builder, form, builder.load(room), x, w), room)
        if parts > 1:
            x = load(builder, place, ir.Constant(I64, 0), ir.VectorType(I8, 4 * parts), align=1)
            builder.store(
                emit_multiply_accumulate(builder, Int8x4, builder.load(excess), _padded(builder, x), _excess_weights(parts)), excess
            )

    def loop(begin: Any, end: Any, count: int, base: Any) -> None:
        with cgutils.for_range_slice(builder, begin, end, ir.Constant(I64, count)) as (k, _):
            for i in range(count):
                at = builder.mul(builder.add(k, ir.Constant(I64, i)), ir.Constant(I64, word * parts))
                meet(builder.add(base, at), i)
            builder.store(builder.add(builder.load(at_words), ir.Constant(I64, count * LANES * word)), at_words)

    with cgutils.for_range(builder, segments) as segment:
        base = builder.add(row, load(builder, offsets, builder.mul(segment.index, ir.Constant(I64, 8)), I64))
        whole = builder.sub(length, builder.urem(length, ir.Constant(I64, many)))
        loop(ir.Constant(I64, 0), whole, many, base)
        if many > 1:
            loop(whole, length, 1, base)
    surplus = call(builder, "llvm.vector.reduce.add.v4i32", I32, builder.load(excess)) if parts > 1 else None
    return [_total(builder, [[own[part][v] for own in rooms] for part in range(parts)], surplus) for v in range(vectors)]


def _room(builder: Any, kind: Any) -> Any:
    return cgutils.alloca_once_value(builder, ir.Constant(kind, [0] * kind.count))


def _factor(builder: Any, packed: Any, part: int, parts: int) -> Any:
    """The bytes that activations of a part are multiplied by."""
    bits = 8 // parts
    return packed if parts == 1 else builder.and_(packed, every_byte(packed.type, ((1 << bits) - 1) << bits * part))


def _excess_weights(parts: int) -> Any:
    """2^(bits - 1) for every activation of a part that has it too often; none behind the last part."""
    word = (1 << (8 // parts - 1)) * 0x01010101
    return ir.Constant(ir.VectorType(I32, 4), [word * (part < parts - 1) for part in range(4)])


def _padded(builder: Any, x: Any) -> Any:
    """Bytes as four words, zeros last."""
    zeros = ir.Constant(x.type, [0] * x.type.count)
    mask = ir.Constant(ir.VectorType(I32, 16), [min(i, x.type.count) for i in range(16)])
    return builder.bitcast(builder.shuffle_vector(x, zeros, mask), ir.VectorType(I32, 4))


def _total(builder: Any, rooms: list[list[Any]], surplus: Any) -> Any:
    """The sum over all words under way of each part, made as small as it is, less the surplus."""
    total: Any = None
    for part, own in enumerate(rooms):
        largest = builder.load(own[0])
        for room in own[1:]:
            largest = builder.add(largest, builder.load(room))
        shift = 8 // len(rooms) * part
        exact = builder.ashr(largest, ir.Constant(largest.type, [shift] * largest.type.count)) if shift else largest
        total = builder.add(total, exact) if total else exact
    return builder.sub(total, broadcast(builder, surplus, total.type)) if surplus else total


value_row, sign_row = make_value_tile(_rows), make_sign_tile(_rows)
"""`tile.value_tile` and `tile.sign_tile` for one row."""


@numba.njit(cache=True, nogil=True)
def gemv_values(weights, window, here, starts, length, bases, rounding, how, out):  # type: ignore[no-untyped-def]
    """All output channels of one row, `out`, block by block: int32 sums, or bytes that they are rounded to.

    Addresses: window, of the activations; here, of the first block of weights; bases, of what is added to the sums; rounding, see
    `endings.store_codes`. starts, length: see `rows.contiguous_runs`.
    """
    places, spare = np.empty(3, np.int64), np.empty(LANES, out.dtype)
    at, at_starts, wide = places.ctypes.data, starts.ctypes.data, LANES * out.itemsize
    places[0] = window
    for block in range((out.size + LANES - 1) // LANES):
        left = out.size - block * LANES
        if is_depthwise(weights):
            places[0] = window + block * LANES
        places[1] = bases + block * LANES * 4
        places[2] = np.int64(out.ctypes.data) + block * wide if left >= LANES else np.int64(spare.ctypes.data)
        own, at_rounding = here + block * weights.values.strides[0], rounding + block * ROUNDING_BYTES
        value_row(weights, out, at, own, at_starts, starts.size, length, at + 8, at_rounding, how, at + 16)
        for lane in range(0 if left >= LANES else left):
            out[block * LANES + lane] = spare[lane]


@numba.njit(cache=True, nogil=True)
def gemv_signs(weights, window, starts, length, limits, out):  # type: ignore[no-untyped-def]
    """The bits of all output channels of one row, `out`, block by block. limits: what its sums are compared with."""
    places = np.empty(3, np.int64)
    at, at_starts, here = places.ctypes.data, starts.ctypes.data, weights.values.ctypes.data
    places[0] = window
    for block in range(weights.values.shape[0]):
        places[1] = np.int64(limits.ctypes.data) + block * LANES * limits.itemsize
        places[2] = np.int64(out.ctypes.data) + block * (LANES // 8)
        own = here + block * weights.values.strides[0]
        sign_row(weights, at, own, at_starts, starts.size, length, at + 8, at + 16)
