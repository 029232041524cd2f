"""What becomes of the sums of a register tile, while they are in registers: sums with all that belongs to them, codes, or bits.

Sums come as a list of vectors per row; the lanes of its vectors, one behind another, are output channels from `first` on.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from weakcell.emulator.kernels.llvm_vectors import F32, I8, I16, I32, I64, broadcast, call, load
from weakcell.emulator.kernels.weight_layouts import BIAS, BOUNDED, DIVIDED, HIGH, LANES, LOW, OUT_SCALE, SCALE, ZERO


def with_bases(builder: Any, bases: Any, sums: list[list[Any]], first: int, mismatches: bool) -> list[list[Any]]:
    """base + sum as int32, or base - 2 sum of counted mismatches. bases: address of a row's address of LANES int32 each."""
    made: list[list[Any]] = []
    for r, row in enumerate(sums):
        own = load(builder, bases, ir.Constant(I64, 8 * r), I64)
        made.append([])
        for total, place in _placed(row, first, 4):
            kind = ir.VectorType(I32, total.type.count)
            base = load(builder, own, place, kind)
            if mismatches:
                total = builder.trunc(total, kind)
                made[-1].append(builder.sub(builder.sub(base, total), total))
            else:
                made[-1].append(builder.add(base, total))
    return made


def store_sums(builder: Any, outs: Any, sums: list[list[Any]], first: int) -> None:
    """Write the int32 sums of each row to the row's address in `outs`."""
    for r, row in enumerate(sums):
        own = load(builder, outs, ir.Constant(I64, 8 * r), I64)
        for total, place in _placed(row, first, 4):
            builder.store(total, builder.inttoptr(builder.add(own, place), total.type.as_pointer())).align = 4


def store_codes(
    builder: Any, outs: Any, sums: list[list[Any]], first: int, rounding: Any, how: Any, signed: bool, packs: bool
) -> None:
    """Round the int32 sums of each row and write a byte for each to the row's address in `outs`.

    q = clamp(rint(y), low, high) + zero, with y = float32(sum) * scale or, if `how` has the bit DIVIDED, (float32(sum) * scale +
    bias) / out_scale, all in float32; NaN becomes low + zero. rounding: address of (6, LANES) float32, rows as named in `forms.py`.
    If `how` has the bit BOUNDED too, no |y| reaches 2^31, divisors are from 2^-60 to 2^60, and low + zero, high + zero are codes of
    the type, which is `signed` or not; all lanes have the same three. packs: whether there are instructions for such.
    """

    def divided_or_not(write: Any) -> None:
        divided = builder.icmp_signed("!=", builder.and_(how, ir.Constant(I64, DIVIDED)), ir.Constant(I64, 0))
        with builder.if_else(divided) as (yes, no):
            with yes:
                write(True)
            with no:
                write(False)

    if not packs:
        divided_or_not(lambda divided: _round(builder, outs, sums, first, rounding, divided))
        return
    with builder.if_else(builder.icmp_signed(">=", how, ir.Constant(I64, BOUNDED))) as (bounded, any_other):
        with bounded:
            divided_or_not(lambda divided: _round_bounded(builder, outs, sums, rounding, divided, signed))
        with any_other:  # undivided, the bias is 0 and the divisor 1
            _round(builder, outs, sums, first, rounding, True)


def _round_bounded(builder: Any, outs: Any, sums: list[list[Any]], rounding: Any, divided: bool, signed: bool) -> None:
    """As many sums to a row as LANES. Bytes come from instructions that join two vectors within their parts of 128 bits."""
    lanes = sums[0][0].type.count
    kind, integers = ir.VectorType(F32, lanes), ir.VectorType(I32, lanes)

    def constants(row: int) -> list[Any]:
        places = (ir.Constant(I64, (row * LANES + v * lanes) * 4) for v in range(len(sums[0])))
        return [load(builder, rounding, place, kind, align=4) for place in places]

    def lone(row: int) -> Any:
        return builder.fptosi(load(builder, rounding, ir.Constant(I64, row * LANES * 4), F32), I32)

    scale = constants(SCALE)
    bias, out_scale = map(constants, (BIAS, OUT_SCALE)) if divided else ([], [])
    inverse = [builder.fdiv(ir.Constant(kind, [1.0] * lanes), own) for own in out_scale]
    words, bytes_ = ir.VectorType(I16, 2 * lanes), ir.VectorType(I8, 4 * lanes)
    offset, low, high = lone(ZERO), lone(LOW), lone(HIGH)
    zero = broadcast(builder, builder.trunc(offset, I16), words)
    least, most = (broadcast(builder, builder.trunc(builder.add(end, offset), I8), bytes_) for end in (low, high))

    def codes(row: list[Any]) -> list[Any]:
        made = []
        for v, total in enumerate(row):
            y = builder.fmul(builder.sitofp(total, kind), scale[v])
            if divided:
                y = _quotient(builder, builder.fadd(y, bias[v]), out_scale[v], inverse[v])
            made.append(call(builder, f"llvm.lrint.v{lanes}i32.v{lanes}f32", integers, y))
        joined = [_packed(builder, "packssdw", words, *made[v : v + 2]) for v in range(0, len(made), 2)]
        return [call(builder, f"llvm.sadd.sat.v{2 * lanes}i16", words, own, zero) for own in joined]

    width = 4 * lanes // LANES
    """Rows to a vector of bytes."""
    for r in range(0, len(sums), width):
        own = [half for row in sums[r : r + width] for half in codes(row)]
        q = _packed(builder, "packsswb" if signed else "packuswb", bytes_, own[0], own[-1])
        for name, limit in (("max", least), ("min", most)):
            q = call(builder, f"llvm.{'s' if signed else 'u'}{name}.v{4 * lanes}i8", bytes_, q, limit)
        parts = lanes // 4
        order = [4 * part + i for i in range(4) for part in range(parts)]
        quads = ir.VectorType(I32, lanes)
        q = builder.shuffle_vector(builder.bitcast(q, quads), ir.Constant(quads, ir.Undefined), ir.Constant(quads, order))
        for i, _ in enumerate(sums[r : r + width]):
            out = load(builder, outs, ir.Constant(I64, 8 * (r + i)), I64)
            mine = ir.Constant(ir.VectorType(I32, LANES // 4), [i * LANES // 4 + j for j in range(LANES // 4)])
            row = builder.shuffle_vector(q, ir.Constant(quads, ir.Undefined), mine)
            builder.store(row, builder.inttoptr(out, row.type.as_pointer())).align = 1


def _quotient(builder: Any, y: Any, divisor: Any, inverse: Any) -> Any:
    """y / divisor, rounded as a division is, in half its time.

    A quotient within an ulp becomes the nearest by one fused correction with the nearest inverse (Markstein 1990), and one such
    correction brings y * inverse within an ulp. A quotient too small for its remainder to be exact may be another, just as small.
    """
    fma, kind = f"llvm.fma.v{y.type.count}f32", y.type
    quotient = builder.fmul(y, inverse)
    for _ in range(2):
        rest = call(builder, fma, kind, builder.fneg(quotient), divisor, y)
        quotient = call(builder, fma, kind, rest, inverse, quotient)
    return quotient


def _packed(builder: Any, name: str, result: Any, a: Any, b: Any) -> Any:
    """Two vectors of integers with half the bits, saturated."""
    wide = a.type.count * a.type.element.width == 512
    return call(builder, f"llvm.x86.avx512.{name}.512" if wide else f"llvm.x86.avx2.{name}", result, a, b)


def _round(builder: Any, outs: Any, sums: list[list[Any]], first: int, rounding: Any, affine: bool) -> None:
    lanes = sums[0][0].type.count
    kind, integers, bytes_ = (ir.VectorType(element, lanes) for element in (F32, I32, I8))

    def constants(row: int) -> list[Any]:
        places = (ir.Constant(I64, (row * LANES + first + v * lanes) * 4) for v in range(len(sums[0])))
        return [load(builder, rounding, place, kind, align=4) for place in places]

    scale, low, high, zero = map(constants, (SCALE, LOW, HIGH, ZERO))
    bias, out_scale = map(constants, (BIAS, OUT_SCALE)) if affine else ([], [])
    for r, row in enumerate(sums):
        own = load(builder, outs, ir.Constant(I64, 8 * r), I64)
        for v, (total, place) in enumerate(_placed(row, first, 1)):
            y = builder.fmul(builder.sitofp(total, kind), scale[v])
            if affine:
                y = builder.fdiv(builder.fadd(y, bias[v]), out_scale[v])
            y = call(builder, f"llvm.rint.v{lanes}f32", kind, y)
            y = builder.select(builder.fcmp_ordered(">", y, low[v]), y, low[v])
            y = builder.select(builder.fcmp_ordered("<", y, high[v]), y, high[v])
            codes = builder.trunc(builder.fptosi(builder.fadd(y, zero[v]), integers), bytes_)
            builder.store(codes, builder.inttoptr(builder.add(own, place), bytes_.as_pointer())).align = 1


def store_signs(builder: Any, limits: Any, outs: Any, sums: list[list[Any]], first: int, mismatches: bool, pool: int) -> None:
    """Compare the sums of each row with the row's limits, join `pool` rows by OR and write one bit per lane, lane 0 lowest."""
    word, better = (8, "<=") if mismatches else (4, ">=")
    joined: list[Any] = []
    largest: list[Any] = []
    for r, row in enumerate(sums):
        last = (r + 1) % pool == 0
        if not mismatches and pool > 1:  # all rows have the same limits: compare their maximum
            largest = row if r % pool == 0 else [_maximum(builder, a, b) for a, b in zip(largest, row, strict=True)]
            joined = _signs(builder, limits, r, largest, word, first, better) if last else []
        else:
            bits = _signs(builder, limits, r, row, word, first, better)
            joined = bits if r % pool == 0 else [builder.or_(a, b) for a, b in zip(joined, bits, strict=True)]
        if not last:
            continue
        out = load(builder, outs, ir.Constant(I64, 8 * (r // pool)), I64)
        for v, signs in enumerate(joined):
            mask = ir.IntType(signs.type.count)
            address = builder.add(out, ir.Constant(I64, (first + v * signs.type.count) // 8))
            builder.store(builder.bitcast(signs, mask), builder.inttoptr(address, mask.as_pointer())).align = 1


def _signs(builder: Any, limits: Any, r: int, row: list[Any], word: int, first: int, better: str) -> list[Any]:
    """One row compared with its limits: a vector of bits for each of sums."""
    own = load(builder, limits, ir.Constant(I64, 8 * r), I64)
    return [builder.icmp_signed(better, total, load(builder, own, at, total.type)) for total, at in _placed(row, first, word)]


def _placed(row: list[Any], first: int, word: int) -> list[tuple[Any, Any]]:
    """The vectors of a row, each with the byte offset of its lanes in a row of elements of `word` bytes."""
    return [(total, ir.Constant(I64, (first + v * total.type.count) * word)) for v, total in enumerate(row)]


def _maximum(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed(">", a, b), a, b)
