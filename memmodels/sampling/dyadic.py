"""Random words, eight side by side, and masks whose cells are 1 with a dyadic probability, made from them.

Eight xoshiro256++ generators run in the lanes of a vector. Compilers do not keep their state in registers, so the LLVM IR of the
loop is written out here: generic vector operations, which every target has or splits, so all draw the same bits.

A mask of probability n / 2^L takes L random words r per word of cells: m = m & r for a binary 0 of n, m = m | ~r for a 1, lowest
digit first. The loop keeps t = m ^ digit, which makes both of them t = (t ^ step) & r, `step` being the change of the digit. Cells
that hold 1 may have other digits than cells that hold 0. The random words of a mask are drawn in the order vector, level.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from weakcell.memmodels.sampling.pointers import address_of

GENERATORS = 8
STRETCH_WORDS = 128
"""Words of a block whose masks are drawn together, from a stream of their own."""

_I64 = ir.IntType(64)
_VECTOR = ir.VectorType(_I64, GENERATORS)
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _make_walk(polar: bool, onto: bool) -> Any:
    """An intrinsic walk(stream, steps, levels, last, cells, out, vectors) -> int64; all but `stream` (uint64) are int64.

    steps: address of `levels` pairs of uint64: the step where 0 is stored, and what to XOR into it where 1 is. last: address of
    one such pair, XORed into the result. cells, out: addresses of the stored words, read only if `polar`, and of the mask's,
    which is XORed into what is there if `onto`.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def walk(typingctx, stream, steps, levels, last, cells, out, vectors):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            _emit_walk(builder, polar, onto, *args)
            return ir.Constant(_I64, 0)

        return types.int64(types.uint64, *[types.int64] * 6), codegen

    return walk


def _emit_walk(
    builder: Any, polar: bool, onto: bool, stream: Any, steps: Any, levels: Any, last: Any, cells: Any, out: Any, vectors: Any
) -> None:
    """Two nested loops (vectors of the mask, levels); the generators' state is four phi nodes."""
    zero, one = ir.Constant(_I64, 0), ir.Constant(_I64, 1)
    seeded = _seed(builder, stream)
    final = _pair(builder, last, zero)
    entry = builder.block
    outer, inner, close, done = (builder.append_basic_block(name) for name in ("vector", "level", "vector_end", "end"))
    builder.cbranch(builder.icmp_signed("<", zero, vectors), outer, done)

    builder.position_at_end(outer)
    v = builder.phi(_I64)
    state_outer = [builder.phi(_VECTOR) for _ in range(4)]
    place = builder.mul(v, ir.Constant(_I64, 8 * GENERATORS))
    stored = _load(builder, builder.add(cells, place), _VECTOR) if polar else None
    builder.branch(inner)

    builder.position_at_end(inner)
    level, mask = builder.phi(_I64), builder.phi(_VECTOR)
    state = [builder.phi(_VECTOR) for _ in range(4)]
    word, state_next = _xoshiro(builder, state)
    step = _of_cells(builder, _pair(builder, steps, builder.mul(level, ir.Constant(_I64, 16))), stored)
    mask_next = builder.and_(builder.xor(mask, step), word)
    level_next = builder.add(level, one)
    builder.cbranch(builder.icmp_signed("<", level_next, levels), inner, close)

    builder.position_at_end(close)
    made, there = builder.xor(mask_next, _of_cells(builder, final, stored)), builder.add(out, place)
    _store(builder, there, builder.xor(made, _load(builder, there, _VECTOR)) if onto else made)
    v_next = builder.add(v, one)
    builder.cbranch(builder.icmp_signed("<", v_next, vectors), outer, done)

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


def _seed(builder: Any, stream: Any) -> list[Any]:
    """State word k of generator g is output 8 k + g of splitmix64 started at `stream`."""
    start, state = _splat(builder, stream), []
    for k in range(4):
        ahead = [((8 * k + g + 1) * _GOLDEN) & (1 << 64) - 1 for g in range(GENERATORS)]
        z = builder.add(start, ir.Constant(_VECTOR, ahead))
        for shift, factor in ((30, _MIX_1), (27, _MIX_2)):
            z = builder.mul(builder.xor(z, builder.lshr(z, _constant(shift))), _constant(factor))
        state.append(builder.xor(z, builder.lshr(z, _constant(31))))
    return state


def _xoshiro(builder: Any, state: list[Any]) -> tuple[Any, list[Any]]:
    """The next output of xoshiro256++ in every lane, and the state behind it."""
    s0, s1, s2, s3 = state
    word = builder.add(_rotate(builder, builder.add(s0, s3), 23), s0)
    t = builder.shl(s1, _constant(17))
    s2, s3 = builder.xor(s2, s0), builder.xor(s3, s1)
    s1, s0 = builder.xor(s1, s2), builder.xor(s0, s3)
    return word, [s0, s1, builder.xor(s2, t), _rotate(builder, s3, 45)]


def _rotate(builder: Any, value: Any, count: int) -> Any:
    name = f"llvm.fshl.v{GENERATORS}i64"
    rotate = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), name)
    return builder.call(rotate, [value, value, _constant(count)])


def _pair(builder: Any, address: Any, offset: Any) -> tuple[Any, Any]:
    """Two uint64 at address + offset, each in all lanes."""
    here = builder.add(address, offset)
    return tuple(_splat(builder, _load(builder, builder.add(here, ir.Constant(_I64, 8 * i)), _I64)) for i in (0, 1))  # type: ignore[return-value]


def _of_cells(builder: Any, pair: tuple[Any, Any], stored: Any) -> Any:
    """The first of a pair, XOR the second where 1 is stored."""
    return pair[0] if stored is None else builder.xor(pair[0], builder.and_(stored, pair[1]))


def _constant(value: int) -> Any:
    return ir.Constant(_VECTOR, [value] * GENERATORS)


def _splat(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    lone = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(lone, undefined, ir.Constant(ir.VectorType(ir.IntType(32), GENERATORS), [0] * GENERATORS))


def _load(builder: Any, address: Any, kind: Any) -> Any:
    loaded = builder.load(builder.inttoptr(address, kind.as_pointer()))
    loaded.align = 8
    return loaded


def _store(builder: Any, address: Any, value: Any) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = 8


_walk = _make_walk(polar=False, onto=False)
_walk_onto = _make_walk(polar=False, onto=True)
_walk_onto_polar = _make_walk(polar=True, onto=True)


_PLAIN = np.array([[0xFFFFFFFFFFFFFFFF, 0], [0, 0]], dtype=np.uint64)
"""The one step that leaves a random word as it is, and what is XORed into it: nothing."""


@numba.njit(cache=True, nogil=True)
def fill_random(stream, out, words):  # type: ignore[no-untyped-def]
    """So many random words of `stream`, a multiple of GENERATORS, to the address `out`."""
    plain = address_of(_PLAIN)
    _walk(stream, plain, 1, plain + 16, 0, out, words // GENERATORS)


@numba.njit(cache=True, nogil=True)
def flip_dyadic(stream, polar, steps, levels, last, cells, flips, words):  # type: ignore[no-untyped-def]
    """XOR a mask into so many words, a multiple of GENERATORS, at the address `flips`.

    steps (MAX_LEVELS, 2), of which `levels` > 0 are used, last (2,), polar: see `_make_walk` and `dyadic_steps`. cells: the address
    of the stored words, for polar masks.
    """
    if polar:
        _walk_onto_polar(stream, address_of(steps), levels, address_of(last), cells, flips, words // GENERATORS)
    else:
        _walk_onto(stream, address_of(steps), levels, address_of(last), 0, flips, words // GENERATORS)


def dyadic_steps(
    numerators: tuple[int, int], inverted: tuple[bool, bool], levels: int, room: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Steps (room, 2) and last words (2,) of masks of rate numerators / 2^levels where 0 and 1 is stored, or one less that rate."""
    digits = np.zeros((room + 1, 2), dtype=np.bool_)
    for value, numerator in enumerate(numerators):
        digits[1 : levels + 1, value] = [numerator >> level & 1 for level in range(levels)]
    steps, last = digits[1:] ^ digits[:-1], digits[levels] ^ np.array(inverted)
    return _masks(steps), _masks(last)


def _masks(pairs: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """(..., 2) bits where 0 and where 1 is stored -> words: the first, and what to XOR into it where 1 is stored."""
    return np.stack([pairs[..., 0], pairs[..., 0] ^ pairs[..., 1]], axis=-1) * np.uint64(0xFFFFFFFFFFFFFFFF)
