"""The register tile: some rows of activations times one block of weights, accumulated without touching memory.

Compilers do not keep such a block of accumulators in vector registers, so its LLVM IR is written out here, once, for every form of
weights. One word of activations, broadcast, meets one word of weights in each lane of a vector:

    Bits      sum += popcount(x ^ w)                      64 signs to a word; the sum counts mismatches
    Bytes     sum += x0 w0 + x1 w1 + x2 w2 + x3 w3        unsigned bytes times signed bytes
    Nibbles   the same, two weights to a byte             each vector of weights meets two words of activations
    Crumbs    the same, four weights to a byte            … and here four
    Pairs     sum += x0 w0 + x1 w1                        int16 times int16

Lanes are output channels: an activation is loaded once, and no sum runs across a vector. The inner index k runs through `segments`
stretches of `length` vectors of weights; their activations lie at `offsets` from each row's address, so a convolution needs no
copied patches: the stretches are the rows of its window.

The IR is generic but for two multiplications that LLVM does not find by itself, chosen by what code is generated *for*: an unknown
instruction would end the process. Tile sizes follow the target, too, so that no accumulator spills. Results never depend on either.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic, overload

from emulator.kernels.forms import LANES, Bits, Pairs, parts_of, word_of

_I64, _I32, _I16, _I8 = (ir.IntType(bits) for bits in (64, 32, 16, 8))


def target_has(feature: str) -> bool:
    """Whether code is generated for CPUs with this LLVM feature (the host's, unless NUMBA_CPU_NAME says otherwise)."""
    if config.CPU_NAME and config.CPU_NAME != "host":
        return f"+{feature}" in (config.CPU_FEATURES or "").split(",")
    return bool(binding.get_host_cpu_features().get(feature, False))


WIDE = target_has("avx512bw")
AVX2 = target_has("avx2")
POPCOUNT = target_has("avx512vpopcntdq")
VNNI = target_has("avx512vnni") and binding.llvm_version_info >= (22,)  # its operands were declared otherwise before
"""What the target has: 512-bit registers with 16-bit lanes, 256-bit integers, a vector popcount, dot products of bytes."""


POOL = 4
"""Rows whose signs a pooled tile joins: a pool of 2 x 2."""


def shape_of(form: type, pooled: bool = False) -> tuple[int, int, int]:
    """Rows of a tile, vectors beside one another, lanes of a vector: rows x vectors accumulators fit into the registers."""
    if form is Bits:
        return (4 if pooled else 6, 4, 8) if POPCOUNT else (4, 1, 8)
    return (8, 2, 16) if WIDE else (4, 1, 8)


def tile_rows(weights: Any, pooled: bool) -> int:
    """Rows of a whole tile."""
    return shape_of(type(weights), pooled)[0]


@overload(tile_rows)  # type: ignore[untyped-decorator]
def _tile_rows(weights, pooled):  # type: ignore[no-untyped-def]
    plain, joined = (shape_of(weights.instance_class, own)[0] for own in (False, True))
    return lambda weights, pooled: joined if pooled else plain


def _make_sum_tile(lone: bool) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def tile(typingctx, weights, windows, block, offsets, segments, length, out):  # type: ignore[no-untyped-def]
        """tile(weights, windows, block, offsets, segments, length, out): see below; writes rows x LANES sums at `out`."""
        form = weights.instance_class

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            shape = (1, *shape_of(form)[1:]) if lone else shape_of(form)
            for sums, first in _passes(builder, args[1:6], form, shape):
                _store_sums(builder, args[6], sums, form, first)
            return ir.Constant(_I64, 0)

        return types.int64(weights, *[types.int64] * 6), codegen

    return tile


def _make_sign_tile(lone: bool, pooled: bool = False) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def tile(typingctx, weights, windows, block, offsets, segments, length, limits, outs):  # type: ignore[no-untyped-def]
        """tile(weights, windows, block, offsets, segments, length, limits, outs): see below; writes bits."""
        form = weights.instance_class

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            shape = (1, *shape_of(form)[1:]) if lone else shape_of(form, pooled)
            for sums, first in _passes(builder, args[1:6], form, shape):
                _store_signs(builder, args[6], args[7], sums, form, first, POOL if pooled else 1)
            return ir.Constant(_I64, 0)

        return types.int64(weights, *[types.int64] * 7), codegen

    return tile


def _passes(builder: Any, args: Any, form: type, shape: tuple[int, int, int]) -> Any:
    """The sums (a list per row, a vector each) of as many lanes as registers hold, and the first of these lanes."""
    rows, vectors, lanes = shape
    assert LANES % (vectors * lanes) == 0
    for first in range(0, LANES, vectors * lanes):
        yield _emit(builder, args, form, rows, vectors, lanes, first), first


def _emit(builder: Any, args: Any, form: type, rows: int, vectors: int, lanes: int, first: int) -> list[list[Any]]:
    """Two nested loops (segments, vectors of a segment) around the step; accumulators are phi nodes.

    A lone row has an accumulator for each part of a byte, or it would wait for its own sums.
    """
    windows, block, offsets, segments, length = args
    word, parts = word_of(form), parts_of(form)
    vector = ir.VectorType(_I64 if form is Bits else _I32, lanes)
    chains = parts if rows == 1 else 1
    zero, one = ir.Constant(_I64, 0), ir.Constant(_I64, 1)
    entry = builder.block
    outer, inner, inner_end, end = (builder.append_basic_block(name) for name in ("segment", "word", "segment_end", "end"))
    bases = [_load(builder, windows, ir.Constant(_I64, 8 * r), _I64) for r in range(rows)]
    start = builder.add(block, ir.Constant(_I64, first * word))
    builder.branch(outer)

    builder.position_at_end(outer)
    segment, at_segment = builder.phi(_I64), builder.phi(_I64)
    outer_sums = [builder.phi(vector) for _ in range(rows * vectors * chains)]
    offset = _load(builder, offsets, builder.mul(segment, ir.Constant(_I64, 8)), _I64)
    builder.branch(inner)

    builder.position_at_end(inner)
    k, at_word = builder.phi(_I64), builder.phi(_I64)
    sums = [builder.phi(vector) for _ in outer_sums]
    place = builder.add(offset, builder.mul(k, ir.Constant(_I64, word * parts)))
    packed = [_load(builder, at_word, ir.Constant(_I64, v * lanes * word), vector) for v in range(vectors)]
    new = list(sums)
    for part in range(parts):
        w = [_unpack(builder, form, own, part) for own in packed]
        at_part = builder.add(place, ir.Constant(_I64, part * word))
        for r in range(rows):
            x = _broadcast(builder, _load(builder, bases[r], at_part, vector.element, align=1 if word == 4 else 8), vector)
            for v in range(vectors):
                i = (r * vectors + v) * chains + part % chains
                new[i] = _step(builder, form, new[i], x, w[v])
    k_next, word_next = builder.add(k, one), builder.add(at_word, ir.Constant(_I64, LANES * word))
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
    totals = [_total(builder, form, new[i : i + chains]) for i in range(0, len(new), chains)]
    return [totals[r * vectors : (r + 1) * vectors] for r in range(rows)]


def _step(builder: Any, form: type, total: Any, x: Any, w: Any) -> Any:
    """One accumulation in every lane."""
    if form is Bits:
        count = f"llvm.ctpop.v{x.type.count}i64"
        return builder.add(total, _call(builder, count, x.type, builder.xor(x, w)))
    if form is Pairs:
        return builder.add(total, _products(builder, x, w))
    if VNNI:
        quads = ir.VectorType(_I8, 4 * x.type.count)
        name = f"llvm.x86.avx512.vpdpbusd.{32 * x.type.count}"
        return _call(builder, name, total.type, total, builder.bitcast(x, quads), builder.bitcast(w, quads))
    pairs = ir.VectorType(_I16, 2 * x.type.count)
    x, w, eight = builder.bitcast(x, pairs), builder.bitcast(w, pairs), ir.Constant(pairs, [8] * pairs.count)
    even = builder.and_(x, ir.Constant(pairs, [255] * pairs.count)), builder.ashr(builder.shl(w, eight), eight)
    odd = builder.lshr(x, eight), builder.ashr(w, eight)
    return builder.add(builder.add(total, _products(builder, *even)), _products(builder, *odd))


def _products(builder: Any, x: Any, w: Any) -> Any:
    """x0 w0 + x1 w1 of the int16 pairs in every 32-bit lane."""
    lanes = x.type.count // (1 if x.type.element == _I32 else 2)
    pairs, sums = ir.VectorType(_I16, 2 * lanes), ir.VectorType(_I32, lanes)
    x, w = builder.bitcast(x, pairs), builder.bitcast(w, pairs)
    name = "llvm.x86.avx512.pmaddw.d.512" if WIDE else "llvm.x86.avx2.pmadd.wd" if AVX2 else None
    if name:
        return _call(builder, name, sums, x, w)

    def half(which: int) -> Any:
        mask = ir.Constant(sums, [2 * lane + which for lane in range(lanes)])
        sides = (builder.shuffle_vector(side, ir.Constant(pairs, ir.Undefined), mask) for side in (x, w))
        return builder.mul(*(builder.sext(side, sums) for side in sides))

    return builder.add(half(0), half(1))


def _unpack(builder: Any, form: type, packed: Any, part: int) -> Any:
    """Weights of one part as signed bytes: where there are several, in the upper bits of each byte, and so too large."""
    parts = parts_of(form)
    if parts == 1:
        return packed
    bits = 8 // parts
    mask = int.from_bytes(bytes([256 - (1 << (8 - bits))] * 4), "little")
    shift, keep = (ir.Constant(packed.type, [value] * packed.type.count) for value in (8 - bits * (part + 1), mask))
    return builder.and_(builder.shl(packed, shift), keep)


def _total(builder: Any, form: type, chains: list[Any]) -> Any:
    """The sum of the chains, made right where the weights were too large (`_unpack`)."""
    total = chains[0]
    for other in chains[1:]:
        total = builder.add(total, other)
    extra = 8 - 8 // parts_of(form)
    return builder.ashr(total, ir.Constant(total.type, [extra] * total.type.count)) if extra else total


def _store_sums(builder: Any, out: Any, sums: list[list[Any]], form: type, first: int) -> None:
    """Write the sums of each row behind one another."""
    word = word_of(form)
    for r, row in enumerate(sums):
        for v, total in enumerate(row):
            address = builder.add(out, ir.Constant(_I64, (r * LANES + first + v * total.type.count) * word))
            builder.store(total, builder.inttoptr(address, total.type.as_pointer())).align = word


def _store_signs(builder: Any, limits: Any, outs: Any, sums: list[list[Any]], form: type, first: int, pool: int) -> None:
    """Compare the sums of each row with the row's limits, join `pool` rows by OR and write one bit per lane, lane 0 lowest."""
    word, better = word_of(form), "<=" if form is Bits else ">="
    joined: list[Any] = []
    largest: list[Any] = []
    for r, row in enumerate(sums):
        last = (r + 1) % pool == 0
        if form is not Bits and pool > 1:  # all rows have the same limits: compare their maximum
            largest = row if r % pool == 0 else [_maximum(builder, a, b) for a, b in zip(largest, row, strict=True)]
            joined = _signs(builder, limits, r, largest, word, first, better) if last else []
        else:
            bits = _signs(builder, limits, r, row, word, first, better)
            joined = bits if r % pool == 0 else [builder.or_(a, b) for a, b in zip(joined, bits, strict=True)]
        if not last:
            continue
        out = _load(builder, outs, ir.Constant(_I64, 8 * (r // pool)), _I64)
        for v, signs in enumerate(joined):
            mask = ir.IntType(signs.type.count)
            address = builder.add(out, ir.Constant(_I64, (first + v * signs.type.count) // 8))
            builder.store(builder.bitcast(signs, mask), builder.inttoptr(address, mask.as_pointer())).align = 1


def _signs(builder: Any, limits: Any, r: int, row: list[Any], word: int, first: int, better: str) -> list[Any]:
    """One row compared with its limits: a vector of bits for each of sums."""
    own = _load(builder, limits, ir.Constant(_I64, 8 * r), _I64)
    places = [ir.Constant(_I64, (first + v * total.type.count) * word) for v, total in enumerate(row)]
    return [builder.icmp_signed(better, total, _load(builder, own, at, total.type)) for total, at in zip(row, places, strict=True)]


def _maximum(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def _call(builder: Any, name: str, result: Any, *args: Any) -> Any:
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def _broadcast(builder: Any, value: Any, vector: Any) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    lone = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(lone, undefined, ir.Constant(ir.VectorType(_I32, vector.count), [0] * vector.count))


def _load(builder: Any, base: Any, offset: Any, kind: Any, align: int = 0) -> Any:
    loaded = builder.load(builder.inttoptr(builder.add(base, offset), kind.as_pointer()))
    loaded.align = align or (4 if getattr(kind, "element", kind) == _I32 else 8)
    return loaded


sum_tile, sum_row = (_make_sum_tile(lone) for lone in (False, True))
"""Rows x LANES sums (int64 for Bits, int32 otherwise); `sum_row` is a tile of one row.

All arguments but the weights, whose type says the form, are int64. windows: address of `rows` byte addresses of activations.
block: address of a block of weights. offsets: address of `segments` byte offsets. length: words of weights in a segment.
out: address of the sums.
"""
sign_tile, sign_row, pooled_sign_tile = _make_sign_tile(False), _make_sign_tile(True), _make_sign_tile(False, pooled=True)
"""The same ending in bits: 1 where mismatches <= limit (Bits) or the sum >= limit: a folded threshold, while sums are in registers.

limits, outs: addresses of `rows` addresses, of LANES limits (as wide as a sum) and of LANES / 8 bytes for the bits.
Pooled: the bits of POOL neighbouring rows are one, and so is their address.
"""
