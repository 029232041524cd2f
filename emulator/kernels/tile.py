"""The register tile: some rows of activations times one block of weights, accumulated without touching memory.

Compilers do not keep such a block of accumulators in vector registers, so its LLVM IR is written out here, once, for every form of
weights. One word of activations, broadcast, meets one word of weights in each lane of a vector:

    Bits      sum += popcount(x ^ w)                      64 signs to a word; the sum counts mismatches; rows together: `chains.py`
    Bytes     sum += x0 w0 + x1 w1 + x2 w2 + x3 w3        unsigned bytes times signed bytes
    Nibbles   the same, two weights to a byte             each vector of weights meets two words of activations
    Crumbs    the same, four weights to a byte            … and here four
    Pairs     sum += x0 w0 + x1 w1                        int16 times int16
    Taps      the products of Bytes                       four taps of one channel: lanes have activations of their own

Lanes are output channels: an activation is loaded once, and no sum runs across a vector. The inner index k runs through `segments`
stretches of `length` vectors of weights; their activations lie at `offsets` from each row's address, so a convolution needs no
copied patches: the stretches are the rows of its window.

The IR is generic but for two multiplications that LLVM does not find by itself, chosen by what code is generated *for*: an unknown
instruction would end the process. Tile sizes follow the target, too, so that no accumulator spills. Results never depend on either.
"""

from __future__ import annotations

from functools import partial
from itertools import chain, pairwise
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic, overload

from emulator.kernels.endings import store_codes, store_signs, store_sums, with_bases
from emulator.kernels.forms import LANES, Bits, Pairs, Taps, parts_of, word_of
from emulator.kernels.rows import SLIDING
from emulator.kernels.vectors import I8, I16, I32, I64, broadcast, call, load


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
    """Rows of a tile, vectors beside one another, lanes of a vector: rows x vectors accumulators fit into the registers.

    Chains of signs have two vectors for each sum.
    """
    if form is Bits:
        return (4, 1 if pooled else 2, 8) if POPCOUNT else (4 if pooled else 2, 1, 8)
    if form is Taps:
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
    return type(weights) is Taps or shape_of(type(weights))[1] * shape_of(type(weights))[2] == LANES


@overload(row_by_row)  # type: ignore[untyped-decorator]
def _row_by_row(weights):  # type: ignore[no-untyped-def]
    form = weights.instance_class
    whole = form is Taps or shape_of(form)[1] * shape_of(form)[2] == LANES
    return lambda weights: whole


def make_value_tile(passes: Any) -> Any:
    """The intrinsic `value_tile` around the loops that `passes` writes (`_passes`)."""

    @intrinsic  # type: ignore[untyped-decorator]
    def tile(typingctx, weights, made, windows, block, offsets, segments, length, bases, rounding, how, outs):  # type: ignore[no-untyped-def]
        """tile(weights, made, windows, block, offsets, segments, length, bases, rounding, how, outs): see below."""
        form, summed = weights.instance_class, made.dtype.bitwidth == 32
        packs = WIDE and form is not Bits

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            bases, rounding, how, outs = args[7:]
            for sums, first in passes(builder, args[2:7], form):
                values = with_bases(builder, bases, sums, first, form is Bits)
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
                store_signs(builder, args[6], args[7], sums, first, form is Bits, POOL if pooled else 1)
            return ir.Constant(I64, 0)

        return types.int64(weights, *[types.int64] * 7), codegen

    return tile


def _passes(builder: Any, args: Any, form: type, pooled: bool = False) -> Any:
    """The sums (a list per row, a vector each) of as many lanes as registers hold, and the first of these lanes."""
    rows, vectors, lanes = shape_of(form, pooled)
    if form is Taps:
        yield (emit_taps(builder, args, rows) if rows == 1 else _emit_beside(builder, args, rows)), 0
        return
    assert LANES % (vectors * lanes) == 0
    for first in range(0, LANES, vectors * lanes):
        if form is Bits:
            yield _emit_chains(builder, args, rows, vectors, lanes, first), first
        else:
            yield _emit(builder, args, form, rows, vectors, lanes, first), first


def _emit(builder: Any, args: Any, form: type, rows: int, vectors: int, lanes: int, first: int) -> list[list[Any]]:
    """Two nested loops (segments, vectors of a segment) around the step; accumulators are phi nodes."""
    windows, block, offsets, segments, length = args
    word, parts = word_of(form), parts_of(form)
    vector = ir.VectorType(I64 if form is Bits else I32, lanes)
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
        w = [_unpack(builder, form, own, part) for own in packed]
        at_part = builder.add(place, ir.Constant(I64, part * word))
        for r in range(rows):
            x = broadcast(builder, load(builder, bases[r], at_part, vector.element, align=1 if word == 4 else 8), vector)
            for v in range(vectors):
                i = r * vectors + v
                new[i] = step(builder, form, new[i], x, w[v])
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
    totals = [_right(builder, form, total) for total in new]
    return [totals[r * vectors : (r + 1) * vectors] for r in range(rows)]


def _emit_chains(builder: Any, args: Any, rows: int, vectors: int, lanes: int, first: int) -> list[list[Any]]:
    """One loop over pairs of words, see `chains.py`. Here `length` is the number of words, which is odd, and no stretch is read."""
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
            sums.append(builder.add(carried[r * vectors + v], _population(builder, carry)))
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
    totals = [builder.add(builder.add(twos, twos), _population(builder, ones)) for twos, ones in zip(carried, last, strict=True)]
    return [totals[r * vectors : (r + 1) * vectors] for r in range(rows)]


def _carry(builder: Any, before: Any, middle: Any, new: Any) -> Any:
    """(middle & ~new) | (before & ~middle), which LLVM does not find to be one instruction."""
    if WIDE and before.type.count == 8:
        return call(builder, "llvm.x86.avx512.pternlog.q.512", before.type, before, middle, new, ir.Constant(I32, 0x74))
    return builder.or_(builder.and_(middle, builder.not_(new)), builder.and_(before, builder.not_(middle)))


def _population(builder: Any, x: Any) -> Any:
    return call(builder, f"llvm.ctpop.v{x.type.count}i64", x.type, x)


def emit_taps(builder: Any, args: Any, rows: int) -> list[list[Any]]:
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
        new += [step(builder, Taps, sums[4 * r + v], x, w[v]) for v, x in enumerate(_joined(builder, taps))]
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


def _emit_beside(builder: Any, args: Any, rows: int) -> list[list[Any]]:
    """`_emit_columns` where the windows lie beside one another, else `emit_taps`. Here `length` says whether they can."""
    windows, _, offsets, _, length = args
    room = [cgutils.alloca_once(builder, ir.VectorType(I32, 8)) for _ in range(4 * rows)]
    at = [load(builder, windows, ir.Constant(I64, 8 * r), I64) for r in range(rows)]
    apart = builder.sub(*(load(builder, offsets, ir.Constant(I64, 8 * i), I64) for i in (4, 0)))
    beside = builder.icmp_signed("==", length, ir.Constant(I64, SLIDING))
    for left, right in pairwise(at):
        beside = builder.and_(beside, builder.icmp_signed("==", builder.sub(right, left), apart))
    with builder.if_else(beside) as (yes, no):
        for branch, emit in ((yes, _emit_columns), (no, emit_taps)):
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
            own = [step(builder, Taps, sums[4 * r + v], x[v], w[column - r][v]) for v in range(4)]
            sums[4 * r : 4 * r + 4] = own
        at = builder.add(at, beside)
    return [_in_order(builder, sums[4 * r : 4 * r + 4]) for r in range(rows)]


def _joined(builder: Any, taps: list[Any]) -> list[Any]:
    """Four vectors of bytes -> four of words that hold a byte of each, in the order of `Taps`: as unpack instructions go."""
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
    """Sums in the order of `Taps` -> channel by channel."""
    halves = [[4 * h + side + i for side in (0, 8) for i in range(4)] for h in range(2)]
    return [_shuffled(builder, sums[v], sums[v + 1], mask) for mask in halves for v in (0, 2)]


def _shuffled(builder: Any, a: Any, b: Any, mask: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(mask)), mask))


def step(builder: Any, form: type, total: Any, x: Any, w: Any) -> Any:
    """One accumulation in every lane."""
    if form is Bits:
        return builder.add(total, _population(builder, builder.xor(x, w)))
    if form is Pairs:
        return builder.add(total, _products(builder, x, w))
    if VNNI:
        quads = ir.VectorType(I8, 4 * x.type.count)
        name = f"llvm.x86.avx512.vpdpbusd.{32 * x.type.count}"
        return call(builder, name, total.type, total, builder.bitcast(x, quads), builder.bitcast(w, quads))
    pairs = ir.VectorType(I16, 2 * x.type.count)
    x, w, eight = builder.bitcast(x, pairs), builder.bitcast(w, pairs), ir.Constant(pairs, [8] * pairs.count)
    even = builder.and_(x, ir.Constant(pairs, [255] * pairs.count)), builder.ashr(builder.shl(w, eight), eight)
    odd = builder.lshr(x, eight), builder.ashr(w, eight)
    return builder.add(builder.add(total, _products(builder, *even)), _products(builder, *odd))


def _products(builder: Any, x: Any, w: Any) -> Any:
    """x0 w0 + x1 w1 of the int16 pairs in every 32-bit lane."""
    lanes = x.type.count // (1 if x.type.element == I32 else 2)
    pairs, sums = ir.VectorType(I16, 2 * lanes), ir.VectorType(I32, lanes)
    x, w = builder.bitcast(x, pairs), builder.bitcast(w, pairs)
    name = {16: "llvm.x86.avx512.pmaddw.d.512", 8: "llvm.x86.avx2.pmadd.wd", 4: "llvm.x86.sse2.pmadd.wd"}[lanes]
    if WIDE or (AVX2 and lanes <= 8):
        return call(builder, name, sums, x, w)

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
    bits, kind = 8 // parts, packed.type
    upper = builder.shl(packed, ir.Constant(kind, [8 - bits * (part + 1)] * kind.count))
    if part < parts - 1:
        upper = builder.xor(upper, every_byte(kind, 128))
    return builder.and_(upper, every_byte(kind, 256 - (1 << (8 - bits))))


def every_byte(kind: Any, byte: int) -> Any:
    """A vector of 32-bit words whose bytes are all the same."""
    return ir.Constant(kind, [byte * 0x01010101] * kind.count)


def _right(builder: Any, form: type, total: Any) -> Any:
    """A sum made right where the weights were too large (`_unpack`)."""
    extra = 8 - 8 // parts_of(form)
    return builder.ashr(total, ir.Constant(total.type, [extra] * total.type.count)) if extra else total


value_tile = make_value_tile(_passes)
"""Rows x LANES sums plus what else belongs to them. Bits: minus twice the mismatches, plus that.

All arguments but the weights, whose type says the form, and `made`, whose type says what is made, are int64. windows: address of
`rows` byte addresses of activations. block: address of a block of weights. offsets: address of `segments` byte offsets. length:
words of weights in a segment. Where several rows are signs, windows and block are chains of `length` words, and offsets are not
read. bases: address of `rows` addresses, of LANES int32 to add. outs: address of `rows` addresses to write to: LANES int32 where
`made` is an array of int32, else LANES bytes. rounding, how: `endings.store_codes`.
"""
sign_tile, pooled_sign_tile = (make_sign_tile(partial(_passes, pooled=pooled), pooled) for pooled in (False, True))
"""The same ending in bits: 1 where mismatches <= limit (Bits) or the sum >= limit: a folded threshold, while sums are in registers.

limits, outs: addresses of `rows` addresses, of LANES limits (as wide as a sum) and of LANES / 8 bytes for the bits.
Pooled: the bits of POOL neighbouring rows are one, and so is their address.
"""
