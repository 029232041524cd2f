"""Carry-save popcount of ±1 products: one population count for every two words (Harley–Seal).

A chain is the running XOR of a row of words. With A_j = a_1 ^ … ^ a_j of the activations and W_j of the weights, s_j = A_j ^ W_j
is the XOR of the first j mismatch words x_1 … x_j. A carry-save adder of s_{j-1}, x_j and x_{j+1} then needs no other operands:

    carry(s_{j-1}, s_j, s_{j+1}) = (s_j & ~s_{j+1}) | (s_{j-1} & ~s_j)
    sum over j of popcount(x_j) = popcount(s_n) + 2 * sum over every other j of popcount(carry(s_{j-1}, s_j, s_{j+1}))

Two words take five operations instead of six. Chains are built for a chunk of rows and for one micropanel at a time, which then
stay in the cache. A chain must have an odd number of words; an even one is prefixed with a zero word.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from weakcell.emulator.kernels.arguments import TileOperands
from weakcell.emulator.kernels.isa import (
    I32,
    I64,
    WIDE,
    broadcast,
    call,
    emit_popcount,
    i64,
    is_binary,
    load,
    load_pointers,
    splat,
    store,
)
from weakcell.emulator.kernels.weight_layouts import LANES, PackedInt1
from weakcell.memmodels.compilation import compiled
from weakcell.memmodels.sampling.pointers import data_ptr

MIN_CHAINED_ROWS = 16
"""With fewer rows, building the chains of the weights takes longer than it saves."""

_MAX_ROWS, _MAX_BYTES = 256, 192 << 10
"""Limits of a chunk of rows. The larger a chunk, the less often the weights' chains are built."""


@compiled
def chained_rows_per_chunk(weights, rows):  # type: ignore[no-untyped-def]
    """Return how many of `rows` rows form one chunk: a multiple of 8."""
    fitting = max(MIN_CHAINED_ROWS, _MAX_BYTES // (8 * (weights.values.shape[1] | 1)) & -8)
    return min(_MAX_ROWS, fitting, max(8, -(-rows // 8) * 8))


@compiled
def empty_chains(weights, rows):  # type: ignore[no-untyped-def]
    """Return buffers for the chains of `rows` rows and of one micropanel.

    Returns:
        uint64 (rows, words | 1), and uint64 (words | 1, LANES) that starts at a multiple of 64 bytes. Without words if the layout
        is not PackedInt1.
    """
    words = (weights.values.shape[1] | 1) if is_binary(weights) else 0
    buffer = np.empty(words * LANES + 8, np.uint64)
    skipped = -(data_ptr(buffer) >> 3) & 7
    return np.empty((rows, words), np.uint64), buffer[skipped : skipped + words * LANES].reshape(words, LANES)


def build_panel_chain(weights: Any, panel: int, chain: Any) -> int:
    """Build the chain of a micropanel of weights.

    Args:
        weights: the layout record; nothing is done if it is not PackedInt1.
        panel: index of the micropanel.
        chain: uint64 (words | 1, LANES), written.

    Returns:
        The address of the chain.
    """
    raise NotImplementedError("a kernel calls this")


@overload(build_panel_chain)  # type: ignore[untyped-decorator]
def _build_panel_chain(weights, panel, chain):  # type: ignore[no-untyped-def]
    if weights.instance_class is not PackedInt1:
        return lambda weights, panel, chain: 0

    def build(weights, panel, chain):  # type: ignore[no-untyped-def]
        values = weights.values
        _chain_lanes(data_ptr(values) + panel * values.strides[0], values.shape[1], data_ptr(chain), chain.shape[0])
        return data_ptr(chain)

    return build


@intrinsic  # type: ignore[untyped-decorator]
def _chain_lanes(typingctx, source_ptr, count, chain_ptr, words):  # type: ignore[no-untyped-def]
    """_chain_lanes(source_ptr, count, chain_ptr, words): build LANES chains.

    All arguments are int64. Each chain is built from `count` words.

    If `words` is greater than `count`, the chains begin with a zero word.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        source_ptr, count, chain_ptr, words = args
        vector, row_bytes = ir.VectorType(I64, 8), i64(8 * LANES)
        prefix = builder.mul(builder.sub(words, count), row_bytes)
        for lane in range(0, LANES, 8):
            begin = i64(8 * lane)
            running = cgutils.alloca_once_value(builder, splat(vector, 0))
            store(builder, builder.load(running), builder.add(chain_ptr, begin), 8)
            with cgutils.for_range(builder, count) as word:
                offset = builder.add(begin, builder.mul(word.index, row_bytes))
                value = builder.xor(builder.load(running), load(builder, source_ptr, offset, vector))
                builder.store(value, running)
                store(builder, value, builder.add(chain_ptr, builder.add(prefix, offset)), 8)
        return i64(0)

    return types.int64(*[types.int64] * 4), codegen


@compiled
def word_offsets(weights, runs):  # type: ignore[no-untyped-def]
    """Return the byte offsets of all words of a window.

    int64 (runs * words,); empty if the layout is not PackedInt1.
    """
    offsets = np.empty(runs.offsets.size * runs.words if is_binary(weights) else 0, np.int64)
    for i in range(offsets.size):
        offsets[i] = runs.offsets[i // runs.words] + i % runs.words * 8
    return offsets


@compiled
def build_row_chains(input_ptrs, offsets, chains):  # type: ignore[no-untyped-def]
    """Build the chains of rows of activations.

    Args:
        input_ptrs: int64 (rows,), addresses of the windows; replaced by the addresses of the chains.
        offsets: from `word_offsets`.
        chains: uint64 (rows, words | 1), written.
    """
    prefix = chains.shape[1] - offsets.size
    chain_ptr, offsets_ptr, step = data_ptr(chains), data_ptr(offsets), chains.shape[1] * 8
    for row in range(input_ptrs.size):
        if prefix:
            chains[row, 0] = 0
        _chain_words(input_ptrs[row], offsets_ptr, offsets.size, chain_ptr + prefix * 8)
        input_ptrs[row] = chain_ptr
        chain_ptr += step


@intrinsic  # type: ignore[untyped-decorator]
def _chain_words(typingctx, input_ptr, offsets_ptr, words, chain_ptr):  # type: ignore[no-untyped-def]
    """_chain_words(input_ptr, offsets_ptr, words, chain_ptr): build one chain.

    All arguments are int64.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        input_ptr, offsets_ptr, words, chain_ptr = args
        running = cgutils.alloca_once_value(builder, i64(0))
        with cgutils.for_range(builder, words) as word:
            offset = builder.mul(word.index, i64(8))
            value = builder.xor(builder.load(running), load(builder, input_ptr, load(builder, offsets_ptr, offset, I64), I64))
            builder.store(value, running)
            store(builder, value, builder.add(chain_ptr, offset), 8)
        return i64(0)

    return types.int64(*[types.int64] * 4), codegen


def emit_carry_save(builder: Any, operands: TileOperands, shape: Any, first: int) -> list[list[Any]]:
    """Emit one loop over pairs of chain words that counts mismatches.

    Args:
        operands: rows and panel are chains of `run_words` words, an odd number; no run offset is read.
        shape: TileShape.
        first: first lane of the panel.
    """
    vector, row_bytes = ir.VectorType(I64, shape.lanes), LANES * 8
    row_ptrs = load_pointers(builder, operands.inputs_ptr, shape.mr)

    def load_weights(word_ptr: Any) -> list[Any]:
        return [load(builder, word_ptr, i64(v * shape.lanes * 8), vector) for v in range(shape.vectors)]

    def load_signs(row: int, offset: Any) -> Any:
        return broadcast(builder, load(builder, row_ptrs[row], offset, I64), vector)

    start = builder.add(operands.weights_ptr, i64(first * 8))
    w = load_weights(start)
    first_xors = [builder.xor(x, words) for x in (load_signs(r, i64(0)) for r in range(shape.mr)) for words in w]
    pairs, entry = builder.lshr(operands.run_words, i64(1)), builder.block
    test, loop, end = (builder.append_basic_block(name) for name in ("pairs", "pair", "end"))
    builder.branch(test)

    builder.position_at_end(test)
    pair, word_ptr = builder.phi(I64), builder.phi(I64)
    last, carries = ([builder.phi(vector) for _ in first_xors] for _ in range(2))
    builder.cbranch(builder.icmp_signed("<", pair, pairs), loop, end)

    builder.position_at_end(loop)
    offset, next_word_ptr = builder.mul(pair, i64(16)), builder.add(word_ptr, i64(2 * row_bytes))
    w = [load_weights(ptr) for ptr in (builder.add(word_ptr, i64(row_bytes)), next_word_ptr)]
    new, sums = [], []
    for r in range(shape.mr):
        x = [load_signs(r, builder.add(offset, i64(8 * i))) for i in (1, 2)]
        for v in range(shape.vectors):
            i = r * shape.vectors + v
            middle, latest = (builder.xor(x[j], w[j][v]) for j in range(2))
            new.append(latest)
            sums.append(builder.add(carries[i], emit_popcount(builder, _emit_carry(builder, last[i], middle, latest))))
    next_pair = builder.add(pair, i64(1))
    builder.branch(test)
    for phi, at_entry, at_loop in [
        (pair, i64(0), next_pair),
        (word_ptr, start, next_word_ptr),
        *zip(last, first_xors, new, strict=True),
        *((phi, splat(vector, 0), total) for phi, total in zip(carries, sums, strict=True)),
    ]:
        phi.add_incoming(at_entry, entry)
        phi.add_incoming(at_loop, loop)

    builder.position_at_end(end)
    totals = [builder.add(builder.add(twos, twos), emit_popcount(builder, ones)) for twos, ones in zip(carries, last, strict=True)]
    return [totals[r * shape.vectors : (r + 1) * shape.vectors] for r in range(shape.mr)]


def _emit_carry(builder: Any, before: Any, middle: Any, latest: Any) -> Any:
    """Emit (middle & ~latest) | (before & ~middle).

    LLVM does not find the single instruction by itself.
    """
    if WIDE and before.type.count == 8:
        return call(builder, "llvm.x86.avx512.pternlog.q.512", before.type, before, middle, latest, ir.Constant(I32, 0x74))
    return builder.or_(builder.and_(middle, builder.not_(latest)), builder.and_(before, builder.not_(middle)))
