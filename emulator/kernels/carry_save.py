"""Words of signs as chains: each the XOR of all before it, so that a register tile counts two products with one population count.

With A_j = a_1 ^ … ^ a_j of the activations and W_j likewise, s_j = A_j ^ W_j is the XOR of the first j products x_1 … x_j. Adding
the bits x_j and x_{j+1} to s_{j-1} carries one, of the value 2, where two or all of the three are 1:

    carry(s_{j-1}, s_j, s_{j+1}) = (s_j & ~s_{j+1}) | (s_{j-1} & ~s_j)
    sum over j of popcount(x_j) = popcount(s_n) + 2 * sum over every other j of popcount(carry(s_{j-1}, s_j, s_{j+1}))

Two words take five operations instead of six: a carry-save adder, as Harley and Seal count. Activations and weights keep the form
that they have elsewhere; chains are made of some rows, and of one block of weights at a time, which then stay in the cache. A chain
has an odd number of words; where there are as many as even, it begins with 0.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from weakcell.emulator.kernels.isa import WIDE, population
from weakcell.emulator.kernels.llvm_vectors import I32, I64, broadcast, call, load
from weakcell.emulator.kernels.weight_layouts import LANES, PackedInt1

FEW = 16
"""With fewer rows than these, making the chains of the weights takes longer than it saves."""

_ROWS, _ROOM = 256, 192 << 10
"""Rows whose chains are made together, and what they may take: the more, the less often are those of the weights made."""


def is_chained(weights: Any) -> bool:
    """Whether tiles of several rows read these weights as chains."""
    return isinstance(weights, PackedInt1)


@overload(is_chained)  # type: ignore[untyped-decorator]
def _is_chained(weights):  # type: ignore[no-untyped-def]
    chained = weights.instance_class is PackedInt1
    return lambda weights: chained


@numba.njit(cache=True, nogil=True)
def chained_rows(weights, rows):  # type: ignore[no-untyped-def]
    """How many of so many rows have their chains made together: a multiple of 8."""
    return min(_ROWS, max(FEW, _ROOM // (8 * (weights.values.shape[1] | 1)) & -8), max(8, -(-rows // 8) * 8))


@numba.njit(cache=True, nogil=True)
def new_chains(weights, rows):  # type: ignore[no-untyped-def]
    """Room for the chains of so many rows, and of a block of weights (at a multiple of 64 bytes)."""
    words = (weights.values.shape[1] | 1) if is_chained(weights) else 0
    room = np.empty(words * LANES + 8, np.uint64)
    skipped = -(np.int64(room.ctypes.data) >> 3) & 7
    return np.empty((rows, words), np.uint64), room[skipped : skipped + words * LANES].reshape(words, LANES)


def chained_block(weights: Any, block: int, to: Any) -> int:
    """Make the chain of a block of weights and return its address; to: uint64 (words | 1, LANES). Nothing to do for other forms."""
    raise NotImplementedError("a kernel calls this")


@overload(chained_block)  # type: ignore[untyped-decorator]
def _chained_block(weights, block, to):  # type: ignore[no-untyped-def]
    if weights.instance_class is not PackedInt1:
        return lambda weights, block, to: 0

    def chain(weights, block, to):  # type: ignore[no-untyped-def]
        own = weights.values
        _chain_vectors(np.int64(own.ctypes.data) + block * own.strides[0], own.shape[1], to.ctypes.data, to.shape[0])
        return np.int64(to.ctypes.data)

    return chain


@intrinsic  # type: ignore[untyped-decorator]
def _chain_vectors(typingctx, source, count, to, words):  # type: ignore[no-untyped-def]
    """_chain_vectors(source, count, to, words) -> int64: LANES chains of `count` words, behind 0 if `words` is greater.

    source, to: addresses of rows of LANES words; all are int64.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        source, count, to, words = args
        vector, row = ir.VectorType(I64, 8), ir.Constant(I64, 8 * LANES)
        behind = builder.mul(builder.sub(words, count), row)
        for lane in range(0, LANES, 8):
            begin = ir.Constant(I64, 8 * lane)
            total = cgutils.alloca_once_value(builder, ir.Constant(vector, [0] * 8))
            builder.store(builder.load(total), builder.inttoptr(builder.add(to, begin), vector.as_pointer())).align = 8
            with cgutils.for_range(builder, count) as word:
                place = builder.add(begin, builder.mul(word.index, row))
                made = builder.xor(builder.load(total), load(builder, source, place, vector))
                builder.store(made, total)
                at = builder.add(to, builder.add(behind, place))
                builder.store(made, builder.inttoptr(at, vector.as_pointer())).align = 8
        return ir.Constant(I64, 0)

    return types.int64(*[types.int64] * 4), codegen


@numba.njit(cache=True, nogil=True)
def words_of(weights, starts, length):  # type: ignore[no-untyped-def]
    """Byte offsets of all words of a window of `length` words behind each of `starts`; none for other forms."""
    offsets = np.empty(starts.size * length if is_chained(weights) else 0, np.int64)
    for i in range(offsets.size):
        offsets[i] = starts[i // length] + i % length * 8
    return offsets


@numba.njit(cache=True, nogil=True)
def chain_rows(windows, offsets, to):  # type: ignore[no-untyped-def]
    """Make the chains of the rows whose windows begin at these addresses, and let `windows` be the addresses of the chains.

    offsets: `words_of`. to: uint64 (rows, words | 1).
    """
    behind = to.shape[1] - offsets.size
    at, at_offsets, step = np.int64(to.ctypes.data), offsets.ctypes.data, to.shape[1] * 8
    for row in range(windows.size):
        if behind:
            to[row, 0] = 0
        _chain(windows[row], at_offsets, offsets.size, at + behind * 8)
        windows[row] = at
        at += step


@intrinsic  # type: ignore[untyped-decorator]
def _chain(typingctx, window, offsets, words, to):  # type: ignore[no-untyped-def]
    """_chain(window, offsets, words, to) -> int64: one chain; all are addresses, or a count, int64."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        window, offsets, words, to = args
        total = cgutils.alloca_once_value(builder, ir.Constant(I64, 0))
        with cgutils.for_range(builder, words) as word:
            place = builder.mul(word.index, ir.Constant(I64, 8))
            made = builder.xor(builder.load(total), load(builder, window, load(builder, offsets, place, I64), I64))
            builder.store(made, total)
            builder.store(made, builder.inttoptr(builder.add(to, place), I64.as_pointer()))
        return ir.Constant(I64, 0)

    return types.int64(*[types.int64] * 4), codegen


def emit_carry_save(builder: Any, args: Any, rows: int, vectors: int, lanes: int, first: int) -> list[list[Any]]:
    """One loop over pairs of words. Here `length` is the number of words, which is odd, and no stretch is read."""
    windows, block, _, _, length = args
    vector, word, zero = ir.VectorType(I64, lanes), LANES * 8, ir.Constant(I64, 0)
    bases = [load(builder, windows, ir.Constant(I64, 8 * r), I64) for r in range(rows)]

    def words_of(at_word: Any) -> list[Any]:
        return [load(builder, at_word, ir.Constant(I64, v * lanes * 8), vector) for v in range(vectors)]

    def signs_of(row: int, place: Any) -> Any:
        return broadcast(builder, load(builder, bases[row], place, I64), vector)

    start = builder.add(block, ir.Constant(I64, first * 8))
    w = words_of(start)
    before = [builder.xor(x, own) for x in (signs_of(r, zero) for r in range(rows)) for own in w]
    pairs, entry = builder.lshr(length, ir.Constant(I64, 1)), builder.block
    test, loop, end = (builder.append_basic_block(name) for name in ("pairs", "pair", "end"))
    builder.branch(test)

    builder.position_at_end(test)
    pair, at_word = builder.phi(I64), builder.phi(I64)
    last, carried = ([builder.phi(vector) for _ in before] for _ in range(2))
    builder.cbranch(builder.icmp_signed("<", pair, pairs), loop, end)

    builder.position_at_end(loop)
    place, word_next = builder.mul(pair, ir.Constant(I64, 16)), builder.add(at_word, ir.Constant(I64, 2 * word))
    w = [words_of(at) for at in (builder.add(at_word, ir.Constant(I64, word)), word_next)]
    new, sums = [], []
    for r in range(rows):
        x = [signs_of(r, builder.add(place, ir.Constant(I64, 8 * i))) for i in (1, 2)]
        for v in range(vectors):
            middle, own = (builder.xor(x[i], w[i][v]) for i in range(2))
            carry = _carry(builder, last[r * vectors + v], middle, own)
            new.append(own)
            sums.append(builder.add(carried[r * vectors + v], population(builder, carry)))
    pair_next = builder.add(pair, ir.Constant(I64, 1))
    builder.branch(test)
    for phi, at_entry, at_loop in [
        (pair, zero, pair_next),
        (at_word, start, word_next),
        *zip(last, before, new, strict=True),
        *((s, ir.Constant(vector, [0] * lanes), n) for s, n in zip(carried, sums, strict=True)),
    ]:
        phi.add_incoming(at_entry, entry)
        phi.add_incoming(at_loop, loop)

    builder.position_at_end(end)
    totals = [builder.add(builder.add(twos, twos), population(builder, ones)) for twos, ones in zip(carried, last, strict=True)]
    return [totals[r * vectors : (r + 1) * vectors] for r in range(rows)]


def _carry(builder: Any, before: Any, middle: Any, new: Any) -> Any:
    """(middle & ~new) | (before & ~middle), which LLVM does not find to be one instruction."""
    if WIDE and before.type.count == 8:
        return call(builder, "llvm.x86.avx512.pternlog.q.512", before.type, before, middle, new, ir.Constant(I32, 0x74))
    return builder.or_(builder.and_(middle, builder.not_(new)), builder.and_(before, builder.not_(middle)))
