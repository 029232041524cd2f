"""The register tile: MR rows of activations times one block of weights, accumulated without touching memory.

Compilers do not keep such a block of accumulators in vector registers, so its LLVM IR is written out here, once, for two steps:

    binary    acc[r][lane] += popcount(x[r] ^ w[lane])               64-bit lanes, one word of 64 signs per lane and k
    integer   acc[r][lane] += x[r][0] w[lane][0] + x[r][1] w[lane][1]   32-bit lanes, a pair of int16 per lane and k

The lanes of a vector are output channels: an activation is loaded once and broadcast, and no sum runs across a vector. The inner
index k runs through `segments` stretches of `length` words that lie at `offsets` from each row's address, so a convolution needs no
copied patches: the stretches are the rows of its window. The IR is generic but for one multiplication that LLVM does not find by
itself (VPMADDWD, which it then fuses with the sum where the target has VNNI). Tile sizes follow the code generation target, so that
no accumulator spills; results never depend on them.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

LANES = 32
"""Output channels in one block of kernel weights."""

_I64, _I32 = ir.IntType(64), ir.IntType(32)


def target_has(feature: str) -> bool:
    """Whether code is generated for CPUs with this LLVM feature (the host's, unless NUMBA_CPU_NAME says otherwise)."""
    from llvmlite import binding

    if config.CPU_NAME and config.CPU_NAME != "host":
        return f"+{feature}" in (config.CPU_FEATURES or "").split(",")
    return bool(binding.get_host_cpu_features().get(feature, False))


WIDE = target_has("avx512bw")
AVX2 = target_has("avx2")
POPCOUNT = target_has("avx512vpopcntdq")
"""What the target has: 512-bit registers with 16-bit lanes, 256-bit integers, a vector popcount."""

BINARY_ROWS, BINARY_VECTORS = (6, 4) if POPCOUNT else (4, 1)
INTEGER_ROWS, INTEGER_VECTORS = (8, 2) if WIDE else (4, 1)


def make_tile(step: str, rows: int, vectors: int) -> Any:
    """An intrinsic tile(row_addresses, weights, offsets, segments, length, out) -> int64; all arguments are int64.

    row_addresses: address of `rows` int64 byte addresses of activations. weights: address of the block, (segments * length) x LANES
    lanes of 8 bytes (binary) or 4 bytes (integer). offsets: address of `segments` int64 byte offsets. out: address of rows x LANES
    int64 (binary) or int32 (integer). `rows` x `vectors` accumulators live in registers; the block is walked in as many passes as
    LANES needs.
    """
    lanes = _lanes(step, vectors)

    @intrinsic  # type: ignore[untyped-decorator]
    def tile(typingctx, row_addresses, weights, offsets, segments, length, out):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            for first in range(0, LANES, lanes * vectors):
                sums = _emit(builder, args[:5], step, rows, vectors, lanes, first)
                _store_sums(builder, args[5], sums, rows, first)
            return ir.Constant(_I64, 0)

        return types.int64(*[types.int64] * 6), codegen

    return tile


def make_sign_tile(step: str, rows: int, vectors: int) -> Any:
    """The same tile ending in bits: tile(row_addresses, weights, offsets, segments, length, limits, outs) -> int64.

    limits, outs: addresses of `rows` int64 addresses, of LANES limits (as wide as a sum) and of LANES / 8 bytes for the bits. A bit
    is 1 where mismatches <= limit (binary) or the sum >= limit (integer): a folded threshold, made while sums are in registers.
    """
    lanes = _lanes(step, vectors)

    @intrinsic  # type: ignore[untyped-decorator]
    def tile(typingctx, row_addresses, weights, offsets, segments, length, limits, outs):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            for first in range(0, LANES, lanes * vectors):
                sums = _emit(builder, args[:5], step, rows, vectors, lanes, first)
                _store_signs(builder, args[5], args[6], sums, step, rows, first)
            return ir.Constant(_I64, 0)

        return types.int64(*[types.int64] * 7), codegen

    return tile


def _lanes(step: str, vectors: int) -> int:
    """Lanes of one vector."""
    lanes = 8 if step == "binary" else 16 if WIDE else 8
    assert LANES % (lanes * vectors) == 0
    return lanes


def _emit(builder: Any, args: Any, step: str, rows: int, vectors: int, lanes: int, first: int) -> list[Any]:
    """Two nested loops (segments, words of a segment) around the step; accumulators are phi nodes. Returns the final ones."""
    row_addresses, weights, offsets, segments, length = args
    word = 8 if step == "binary" else 4
    vector = ir.VectorType(_I64 if step == "binary" else _I32, lanes)
    zero, one = ir.Constant(_I64, 0), ir.Constant(_I64, 1)
    entry = builder.block
    outer, inner, done_inner, done = (builder.append_basic_block(name) for name in ("segment", "word", "segment_end", "end"))
    bases = [_load(builder, row_addresses, ir.Constant(_I64, 8 * r), _I64) for r in range(rows)]
    start = builder.add(weights, ir.Constant(_I64, first * word))
    empty = ir.Constant(vector, [0] * lanes)
    builder.branch(outer)

    builder.position_at_end(outer)
    segment, at_segment = builder.phi(_I64), builder.phi(_I64)
    sums_outer = [builder.phi(vector) for _ in range(rows * vectors)]
    offset = _load(builder, offsets, builder.mul(segment, ir.Constant(_I64, 8)), _I64)
    builder.branch(inner)

    builder.position_at_end(inner)
    k, at_word = builder.phi(_I64), builder.phi(_I64)
    sums = [builder.phi(vector) for _ in range(rows * vectors)]
    place = builder.add(offset, builder.mul(k, ir.Constant(_I64, word)))
    block = [_load(builder, at_word, ir.Constant(_I64, v * lanes * word), vector) for v in range(vectors)]
    new: list[Any] = []
    for r in range(rows):
        x = _broadcast(builder, _load(builder, bases[r], place, vector.element), vector)
        new.extend(_step(builder, step, sums[r * vectors + v], x, block[v]) for v in range(vectors))
    k_next, word_next = builder.add(k, one), builder.add(at_word, ir.Constant(_I64, LANES * word))
    builder.cbranch(builder.icmp_signed("<", k_next, length), inner, done_inner)

    builder.position_at_end(done_inner)
    segment_next = builder.add(segment, one)
    builder.cbranch(builder.icmp_signed("<", segment_next, segments), outer, done)
    for phi, from_entry, from_loop in [
        (segment, zero, segment_next),
        (at_segment, start, word_next),
        *((a, empty, b) for a, b in zip(sums_outer, new, strict=True)),
    ]:
        phi.add_incoming(from_entry, entry)
        phi.add_incoming(from_loop, done_inner)
    for phi, from_outer, from_loop in [
        (k, zero, k_next),
        (at_word, at_segment, word_next),
        *((a, b, c) for a, b, c in zip(sums, sums_outer, new, strict=True)),
    ]:
        phi.add_incoming(from_outer, outer)
        phi.add_incoming(from_loop, inner)

    builder.position_at_end(done)
    return new


def _store_sums(builder: Any, out: Any, sums: list[Any], rows: int, first: int) -> None:
    """Write the accumulators of each row behind one another."""
    vectors, lanes = len(sums) // rows, sums[0].type.count
    word = sums[0].type.element.width // 8
    for index, total in enumerate(sums):
        r, v = divmod(index, vectors)
        address = builder.add(out, ir.Constant(_I64, (r * LANES + first + v * lanes) * word))
        builder.store(total, builder.inttoptr(address, total.type.as_pointer())).align = word


def _store_signs(builder: Any, limits: Any, outs: Any, sums: list[Any], step: str, rows: int, first: int) -> None:
    """Compare the accumulators of each row with the row's limits and write one bit per lane, lane 0 lowest."""
    vectors, lanes = len(sums) // rows, sums[0].type.count
    word, mask = sums[0].type.element.width // 8, ir.IntType(lanes)
    for r in range(rows):
        own_limits, own_out = (_load(builder, table, ir.Constant(_I64, 8 * r), _I64) for table in (limits, outs))
        for v in range(vectors):
            lane = first + v * lanes
            limit = _load(builder, own_limits, ir.Constant(_I64, lane * word), sums[0].type)
            bits = builder.icmp_signed("<=" if step == "binary" else ">=", sums[r * vectors + v], limit)
            address = builder.add(own_out, ir.Constant(_I64, lane // 8))
            builder.store(builder.bitcast(bits, mask), builder.inttoptr(address, mask.as_pointer())).align = 1


def _step(builder: Any, step: str, total: Any, x: Any, w: Any) -> Any:
    """One accumulation of vector lanes."""
    if step == "binary":
        count = cgutils.get_or_insert_function(builder.module, ir.FunctionType(x.type, [x.type]), f"llvm.ctpop.v{x.type.count}i64")
        return builder.add(total, builder.call(count, [builder.xor(x, w)]))
    pairs = ir.VectorType(ir.IntType(16), 2 * x.type.count)
    x, w = builder.bitcast(x, pairs), builder.bitcast(w, pairs)
    name = "llvm.x86.avx512.pmaddw.d.512" if WIDE else "llvm.x86.avx2.pmadd.wd" if AVX2 else None
    if name:
        multiply = cgutils.get_or_insert_function(builder.module, ir.FunctionType(total.type, [pairs, pairs]), name)
        return builder.add(total, builder.call(multiply, [x, w]))
    return builder.add(total, builder.add(*(builder.mul(_half(builder, x, i), _half(builder, w, i)) for i in (0, 1))))


def _half(builder: Any, pairs: Any, which: int) -> Any:
    """The even or odd int16 of each pair, as int32 lanes."""
    count = pairs.type.count // 2
    mask = ir.Constant(ir.VectorType(_I32, count), [2 * i + which for i in range(count)])
    return builder.sext(builder.shuffle_vector(pairs, ir.Constant(pairs.type, ir.Undefined), mask), ir.VectorType(_I32, count))


def _broadcast(builder: Any, value: Any, vector: Any) -> Any:
    lone = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(
        lone, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(_I32, vector.count), [0] * vector.count)
    )


def _load(builder: Any, base: Any, offset: Any, kind: Any) -> Any:
    loaded = builder.load(builder.inttoptr(builder.add(base, offset), kind.as_pointer()))
    loaded.align = 4 if kind is _I32 else 8
    return loaded


binary_tile = make_tile("binary", BINARY_ROWS, BINARY_VECTORS)
binary_row = make_tile("binary", 1, BINARY_VECTORS)
integer_tile = make_tile("integer", INTEGER_ROWS, INTEGER_VECTORS)
integer_row = make_tile("integer", 1, INTEGER_VECTORS)
binary_sign_tile = make_sign_tile("binary", BINARY_ROWS, BINARY_VECTORS)
binary_sign_row = make_sign_tile("binary", 1, BINARY_VECTORS)
integer_sign_tile = make_sign_tile("integer", INTEGER_ROWS, INTEGER_VECTORS)
integer_sign_row = make_sign_tile("integer", 1, INTEGER_VECTORS)
