"""Epilogues of a register tile: what is done to its sums before they leave the registers.

Sums are a list of vectors for each row. The lanes of a row's vectors, in order, are the output channels from `first` on.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from weakcell.emulator.kernels.arguments import (
    BIAS,
    BOUNDED,
    DIVIDED,
    HIGH,
    LOW,
    OUT_SCALE,
    SCALE,
    ZERO,
    SignEpilogue,
    ValueEpilogue,
)
from weakcell.emulator.kernels.isa import F32, I8, I16, I32, I64, broadcast, call, i64, load, shuffle, splat, store
from weakcell.emulator.kernels.weight_layouts import LANES


def add_init(builder: Any, init_ptr: Any, sums: list[list[Any]], first: int, mismatches: bool) -> list[list[Any]]:
    """Return init + sum as int32, or init - 2 sum if sums count mismatches.

    init_ptr: see `ValueEpilogue`.
    """
    values: list[list[Any]] = []
    for r, row in enumerate(sums):
        row_ptr = load(builder, init_ptr, i64(8 * r), I64)
        values.append([])
        for total, offset in _with_offsets(row, first, 4):
            vector = ir.VectorType(I32, total.type.count)
            init = load(builder, row_ptr, offset, vector)
            if mismatches:
                total = builder.trunc(total, vector)
                values[-1].append(builder.sub(builder.sub(init, total), total))
            else:
                values[-1].append(builder.add(init, total))
    return values


def store_sums(builder: Any, outputs_ptr: Any, sums: list[list[Any]], first: int) -> None:
    """Store the int32 sums of each row; outputs_ptr: see `ValueEpilogue`."""
    for r, row in enumerate(sums):
        row_ptr = load(builder, outputs_ptr, i64(8 * r), I64)
        for total, offset in _with_offsets(row, first, 4):
            store(builder, total, builder.add(row_ptr, offset), 4)


def store_codes(builder: Any, epilogue: ValueEpilogue, sums: list[list[Any]], first: int, signed: bool, packs: bool) -> None:
    """Round the int32 sums of each row to bytes and store them.

        q = clamp(rint(y), low, high) + zero
        y = float32(sum) * scale                                   without the flag DIVIDED
        y = (float32(sum) * scale + bias) / out_scale              with it

    All arithmetic is float32; NaN becomes low + zero. The flag BOUNDED promises: no |y| reaches 2^31, divisors lie in
    [2^-60, 2^60], low + zero and high + zero are codes of the output type, and all lanes share low, high and zero.

    Args:
        epilogue: `rounding_ptr` is the address of float32 [6][LANES], rows SCALE … ZERO of `arguments.py`.
        signed: whether the output is int8, not uint8.
        packs: whether the target has instructions for BOUNDED rounding.
    """

    def branch_on_divided(write: Any) -> None:
        divided = builder.icmp_signed("!=", builder.and_(epilogue.rounding_flags, i64(DIVIDED)), i64(0))
        with builder.if_else(divided) as (yes, no):
            with yes:
                write(True)
            with no:
                write(False)

    if not packs:
        branch_on_divided(lambda divided: _round(builder, epilogue, sums, first, divided))
        return
    with builder.if_else(builder.icmp_signed(">=", epilogue.rounding_flags, i64(BOUNDED))) as (bounded, any_other):
        with bounded:
            branch_on_divided(lambda divided: _round_bounded(builder, epilogue, sums, divided, signed))
        with any_other:  # without DIVIDED, the bias is 0 and the divisor 1
            _round(builder, epilogue, sums, first, True)


def _round_bounded(builder: Any, epilogue: ValueEpilogue, sums: list[list[Any]], divided: bool, signed: bool) -> None:
    """Round rows of LANES sums under the promises of BOUNDED.

    Saturating pack instructions make bytes of two vectors.
    """
    lanes = sums[0][0].type.count
    floats, integers = ir.VectorType(F32, lanes), ir.VectorType(I32, lanes)

    def load_constants(row: int) -> list[Any]:
        offsets = (i64((row * LANES + v * lanes) * 4) for v in range(len(sums[0])))
        return [load(builder, epilogue.rounding_ptr, offset, floats, align=4) for offset in offsets]

    def load_integer(row: int) -> Any:
        return builder.fptosi(load(builder, epilogue.rounding_ptr, i64(row * LANES * 4), F32), I32)

    scale = load_constants(SCALE)
    bias, out_scale = map(load_constants, (BIAS, OUT_SCALE)) if divided else ([], [])
    inverse = [builder.fdiv(splat(floats, 1.0), divisor) for divisor in out_scale]
    words, bytes_ = ir.VectorType(I16, 2 * lanes), ir.VectorType(I8, 4 * lanes)
    offset, low, high = load_integer(ZERO), load_integer(LOW), load_integer(HIGH)
    zero = broadcast(builder, builder.trunc(offset, I16), words)
    lowest, highest = (broadcast(builder, builder.trunc(builder.add(end, offset), I8), bytes_) for end in (low, high))

    def round_to_words(row: list[Any]) -> list[Any]:
        rounded = []
        for v, total in enumerate(row):
            y = builder.fmul(builder.sitofp(total, floats), scale[v])
            if divided:
                y = _emit_quotient(builder, builder.fadd(y, bias[v]), out_scale[v], inverse[v])
            rounded.append(call(builder, f"llvm.lrint.v{lanes}i32.v{lanes}f32", integers, y))
        packed = [_pack(builder, "packssdw", words, *rounded[v : v + 2]) for v in range(0, len(rounded), 2)]
        return [call(builder, f"llvm.sadd.sat.v{2 * lanes}i16", words, part, zero) for part in packed]

    rows_per_vector = 4 * lanes // LANES
    for r in range(0, len(sums), rows_per_vector):
        halves = [half for row in sums[r : r + rows_per_vector] for half in round_to_words(row)]
        q = _pack(builder, "packsswb" if signed else "packuswb", bytes_, halves[0], halves[-1])
        for name, limit in (("max", lowest), ("min", highest)):
            q = call(builder, f"llvm.{'s' if signed else 'u'}{name}.v{4 * lanes}i8", bytes_, q, limit)
        # pack instructions work within 128-bit parts: bring the 32-bit groups back into order
        parts, quads = lanes // 4, ir.VectorType(I32, lanes)
        undefined = ir.Constant(quads, ir.Undefined)
        q = shuffle(builder, builder.bitcast(q, quads), undefined, [4 * part + i for i in range(4) for part in range(parts)])
        for i, _ in enumerate(sums[r : r + rows_per_vector]):
            row_ptr = load(builder, epilogue.outputs_ptr, i64(8 * (r + i)), I64)
            row = shuffle(builder, q, undefined, [i * LANES // 4 + j for j in range(LANES // 4)])
            store(builder, row, row_ptr, 1)


def _emit_quotient(builder: Any, y: Any, divisor: Any, inverse: Any) -> Any:
    """Emit y / divisor, correctly rounded, in half the time of a division.

    A quotient within one ulp becomes the nearest by one fused correction with the nearest inverse (Markstein 1990). One such
    correction brings y * inverse within an ulp. A quotient too small for its remainder to be exact may differ, and is as small.
    """
    fma, kind = f"llvm.fma.v{y.type.count}f32", y.type
    quotient = builder.fmul(y, inverse)
    for _ in range(2):
        remainder = call(builder, fma, kind, builder.fneg(quotient), divisor, y)
        quotient = call(builder, fma, kind, remainder, inverse, quotient)
    return quotient


def _pack(builder: Any, name: str, result: Any, a: Any, b: Any) -> Any:
    """Narrow two vectors of integers to half their bits, saturated, into one vector."""
    wide = a.type.count * a.type.element.width == 512
    return call(builder, f"llvm.x86.avx512.{name}.512" if wide else f"llvm.x86.avx2.{name}", result, a, b)


def _round(builder: Any, epilogue: ValueEpilogue, sums: list[list[Any]], first: int, affine: bool) -> None:
    """Round the sums of any lanes and constants; affine: with bias and divisor."""
    lanes = sums[0][0].type.count
    floats, integers, bytes_ = (ir.VectorType(element, lanes) for element in (F32, I32, I8))

    def load_constants(row: int) -> list[Any]:
        offsets = (i64((row * LANES + first + v * lanes) * 4) for v in range(len(sums[0])))
        return [load(builder, epilogue.rounding_ptr, offset, floats, align=4) for offset in offsets]

    scale, low, high, zero = map(load_constants, (SCALE, LOW, HIGH, ZERO))
    bias, out_scale = map(load_constants, (BIAS, OUT_SCALE)) if affine else ([], [])
    for r, row in enumerate(sums):
        row_ptr = load(builder, epilogue.outputs_ptr, i64(8 * r), I64)
        for v, (total, offset) in enumerate(_with_offsets(row, first, 1)):
            y = builder.fmul(builder.sitofp(total, floats), scale[v])
            if affine:
                y = builder.fdiv(builder.fadd(y, bias[v]), out_scale[v])
            y = call(builder, f"llvm.rint.v{lanes}f32", floats, y)
            y = builder.select(builder.fcmp_ordered(">", y, low[v]), y, low[v])
            y = builder.select(builder.fcmp_ordered("<", y, high[v]), y, high[v])
            codes = builder.trunc(builder.fptosi(builder.fadd(y, zero[v]), integers), bytes_)
            store(builder, codes, builder.add(row_ptr, offset), 1)


def store_signs(builder: Any, epilogue: SignEpilogue, sums: list[list[Any]], first: int, mismatches: bool, pool: int) -> None:
    """Compare sums with limits and store one bit per lane, lane 0 lowest.

    The bits of `pool` consecutive rows are joined by OR.
    """
    word, compare = (8, "<=") if mismatches else (4, ">=")
    joined: list[Any] = []
    largest: list[Any] = []
    for r, row in enumerate(sums):
        is_last = (r + 1) % pool == 0
        if not mismatches and pool > 1:  # all rows have the same limits: compare their maximum
            largest = row if r % pool == 0 else [_emit_maximum(builder, a, b) for a, b in zip(largest, row, strict=True)]
            joined = _emit_signs(builder, epilogue.limits_ptr, r, largest, word, first, compare) if is_last else []
        else:
            bits = _emit_signs(builder, epilogue.limits_ptr, r, row, word, first, compare)
            joined = bits if r % pool == 0 else [builder.or_(a, b) for a, b in zip(joined, bits, strict=True)]
        if not is_last:
            continue
        row_ptr = load(builder, epilogue.outputs_ptr, i64(8 * (r // pool)), I64)
        for v, signs in enumerate(joined):
            mask = builder.bitcast(signs, ir.IntType(signs.type.count))
            store(builder, mask, builder.add(row_ptr, i64((first + v * signs.type.count) // 8)), 1)


def _emit_signs(builder: Any, limits_ptr: Any, r: int, row: list[Any], word: int, first: int, compare: str) -> list[Any]:
    """Compare row `r` with its limits: one vector of bits for each vector of sums."""
    row_ptr = load(builder, limits_ptr, i64(8 * r), I64)
    return [
        builder.icmp_signed(compare, total, load(builder, row_ptr, offset, total.type))
        for total, offset in _with_offsets(row, first, word)
    ]


def _with_offsets(row: list[Any], first: int, word: int) -> list[tuple[Any, Any]]:
    """Return the vectors of a row, each with the byte offset of its lanes.

    word: bytes of an element.
    """
    return [(total, i64((first + v * total.type.count) * word)) for v, total in enumerate(row)]


def _emit_maximum(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed(">", a, b), a, b)
