"""Random words, eight at a time, and masks whose cells are 1 with a dyadic probability, made from them.

Eight xoshiro256++ generators run in the lanes of a vector. Compilers do not keep their state in registers, so this file writes the
LLVM IR of the loop itself. The IR uses generic vector operations, which every target has or splits, so all targets draw the same
bits.

A mask of probability n / 2^L takes L random words r per word of cells: m = m & r for a binary 0 of n, m = m | ~r for a 1, lowest
digit first. The loop keeps t = m ^ digit, which makes both cases t = (t ^ step) & r, with `step` the change of the digit. Cells
that hold 1 may have other digits than cells that hold 0. Random words are drawn in the order vector, level:

    for v in vectors:                    # 8 words of the mask
        t = 0
        for level in levels:
            t = (t ^ step[level]) & next_random()
        out[v] = t ^ last                # or out[v] ^= t ^ last
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from weakcell.memmodels.compilation import compiled
from weakcell.memmodels.sampling.pointers import data_ptr

GENERATORS = 8
SEGMENT_WORDS = 128
"""Words of a block whose masks are drawn from one stream."""

_I64 = ir.IntType(64)
_VECTOR = ir.VectorType(_I64, GENERATORS)
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class _LoopArgs(NamedTuple):
    """Arguments of a mask loop, as LLVM values: `stream` is uint64, all others int64.

    Attributes:
        stream: Names the random words.
        steps_ptr: `levels` pairs of uint64: the step where 0 is stored, and what to XOR into it where 1 is.
        levels: Random words per vector of the mask, at least 1.
        last_ptr: One such pair, XORed into the result.
        cells_ptr: The stored words; read only by asymmetric loops.
        out_ptr: The mask.
        vectors: Its length in vectors of GENERATORS words.
    """

    stream: Any
    steps_ptr: Any
    levels: Any
    last_ptr: Any
    cells_ptr: Any
    out_ptr: Any
    vectors: Any


def _make_mask_loop(asymmetric: bool, accumulate: bool) -> Any:
    """Return an intrinsic mask_loop(*_LoopArgs) -> int64.

    Args:
        asymmetric: Whether cells that hold 1 have digits of their own.
        accumulate: Whether the mask is XORed into `out` instead of overwriting it.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def mask_loop(typingctx, stream, steps_ptr, levels, last_ptr, cells_ptr, out_ptr, vectors):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            _emit_mask_loop(builder, asymmetric, accumulate, _LoopArgs(*args))
            return ir.Constant(_I64, 0)

        return types.int64(types.uint64, *[types.int64] * 6), codegen

    return mask_loop


def _emit_mask_loop(builder: Any, asymmetric: bool, accumulate: bool, args: _LoopArgs) -> None:
    """Emit two nested loops (vectors of the mask, levels); the generators' state is four phi nodes."""
    zero, one = ir.Constant(_I64, 0), ir.Constant(_I64, 1)
    seeded = _emit_seed(builder, args.stream)
    last = _emit_pair(builder, args.last_ptr, zero)
    entry = builder.block
    outer, inner, close, done = (builder.append_basic_block(name) for name in ("vector", "level", "vector_end", "end"))
    builder.cbranch(builder.icmp_signed("<", zero, args.vectors), outer, done)

    builder.position_at_end(outer)
    v = builder.phi(_I64)
    state_outer = [builder.phi(_VECTOR) for _ in range(4)]
    offset = builder.mul(v, ir.Constant(_I64, 8 * GENERATORS))
    stored = _emit_load(builder, builder.add(args.cells_ptr, offset), _VECTOR) if asymmetric else None
    builder.branch(inner)

    builder.position_at_end(inner)
    level, mask = builder.phi(_I64), builder.phi(_VECTOR)
    state = [builder.phi(_VECTOR) for _ in range(4)]
    word, state_next = _emit_xoshiro(builder, state)
    step = _emit_select(builder, _emit_pair(builder, args.steps_ptr, builder.mul(level, ir.Constant(_I64, 16))), stored)
    mask_next = builder.and_(builder.xor(mask, step), word)
    level_next = builder.add(level, one)
    builder.cbranch(builder.icmp_signed("<", level_next, args.levels), inner, close)

    builder.position_at_end(close)
    result, target = builder.xor(mask_next, _emit_select(builder, last, stored)), builder.add(args.out_ptr, offset)
    if accumulate:
        result = builder.xor(result, _emit_load(builder, target, _VECTOR))
    builder.store(result, builder.inttoptr(target, result.type.as_pointer())).align = 8
    v_next = builder.add(v, one)
    builder.cbranch(builder.icmp_signed("<", v_next, args.vectors), outer, done)

    for phi, first, again in [(v, zero, v_next), *zip(state_outer, seeded, state_next, strict=True)]:
        phi.add_incoming(first, entry)
        phi.add_incoming(again, close)
    empty = ir.Constant(_VECTOR, [0] * GENERATORS)
    for phi, first, again in [
        (level, zero, level_next),
        (mask, empty, mask_next),
        *zip(state, state_outer, state_next, strict=True),
    ]:
        phi.add_incoming(first, outer)
        phi.add_incoming(again, inner)
    builder.position_at_end(done)


def _emit_seed(builder: Any, stream: Any) -> list[Any]:
    """Emit the seeds: state word k of generator g is output 8 k + g of splitmix64 started at `stream`."""
    start, state = _emit_splat(builder, stream), []
    for k in range(4):
        ahead = [((8 * k + g + 1) * _GOLDEN) & (1 << 64) - 1 for g in range(GENERATORS)]
        z = builder.add(start, ir.Constant(_VECTOR, ahead))
        for shift, factor in ((30, _MIX_1), (27, _MIX_2)):
            z = builder.mul(builder.xor(z, builder.lshr(z, _constant(shift))), _constant(factor))
        state.append(builder.xor(z, builder.lshr(z, _constant(31))))
    return state


def _emit_xoshiro(builder: Any, state: list[Any]) -> tuple[Any, list[Any]]:
    """Emit one step of xoshiro256++ in every lane; return (output, next state)."""
    s0, s1, s2, s3 = state
    word = builder.add(_emit_rotate(builder, builder.add(s0, s3), 23), s0)
    t = builder.shl(s1, _constant(17))
    s2, s3 = builder.xor(s2, s0), builder.xor(s3, s1)
    s1, s0 = builder.xor(s1, s2), builder.xor(s0, s3)
    return word, [s0, s1, builder.xor(s2, t), _emit_rotate(builder, s3, 45)]


def _emit_rotate(builder: Any, value: Any, count: int) -> Any:
    name = f"llvm.fshl.v{GENERATORS}i64"
    rotate = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), name)
    return builder.call(rotate, [value, value, _constant(count)])


def _emit_pair(builder: Any, pointer: Any, offset: Any) -> tuple[Any, Any]:
    """Load two uint64 at pointer + offset, each into all lanes."""
    first = builder.add(pointer, offset)
    second = builder.add(first, ir.Constant(_I64, 8))
    return _emit_splat(builder, _emit_load(builder, first, _I64)), _emit_splat(builder, _emit_load(builder, second, _I64))


def _emit_select(builder: Any, pair: tuple[Any, Any], stored: Any) -> Any:
    """Emit the first of a pair, XOR the second where 1 is stored."""
    return pair[0] if stored is None else builder.xor(pair[0], builder.and_(stored, pair[1]))


def _constant(value: int) -> Any:
    return ir.Constant(_VECTOR, [value] * GENERATORS)


def _emit_splat(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    lane_0 = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(lane_0, undefined, ir.Constant(ir.VectorType(ir.IntType(32), GENERATORS), [0] * GENERATORS))


def _emit_load(builder: Any, pointer: Any, kind: Any) -> Any:
    loaded = builder.load(builder.inttoptr(pointer, kind.as_pointer()))
    loaded.align = 8
    return loaded


_overwrite = _make_mask_loop(asymmetric=False, accumulate=False)
_xor_symmetric = _make_mask_loop(asymmetric=False, accumulate=True)
_xor_asymmetric = _make_mask_loop(asymmetric=True, accumulate=True)

_IDENTITY = np.array([[0xFFFFFFFFFFFFFFFF, 0], [0, 0]], dtype=np.uint64)
"""One step that leaves a random word as it is, and a `last` pair of zeros."""


class DyadicMask(NamedTuple):
    """The digits of a mask, as `rates.dyadic_steps` encodes them. A record of type `sampler.TERM` has the same fields.

    asymmetric: whether stored values matter. steps: (>= levels, 2) uint64. levels: > 0. last: (2,) uint64.
    """

    asymmetric: bool
    steps: Any
    levels: int
    last: Any


@compiled
def fill_random(stream, out_ptr, words):  # type: ignore[no-untyped-def]
    """Write `words` random words of `stream`, a multiple of GENERATORS, to the address `out_ptr`."""
    identity = data_ptr(_IDENTITY)
    _overwrite(stream, identity, 1, identity + 16, 0, out_ptr, words // GENERATORS)


@compiled
def flip_dyadic(mask, stream, cells_ptr, flips_ptr, words):  # type: ignore[no-untyped-def]
    """XOR a random mask into `words` words, a multiple of GENERATORS, at the address `flips_ptr`.

    mask: a `DyadicMask` or a record of type TERM. cells_ptr: the stored words; read only if the mask is asymmetric.
    """
    vectors = words // GENERATORS
    if mask.asymmetric:
        _xor_asymmetric(stream, data_ptr(mask.steps), mask.levels, data_ptr(mask.last), cells_ptr, flips_ptr, vectors)
    else:
        _xor_symmetric(stream, data_ptr(mask.steps), mask.levels, data_ptr(mask.last), 0, flips_ptr, vectors)
