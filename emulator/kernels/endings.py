"""What becomes of the sums of a register tile, while they are in registers: sums with all that belongs to them, codes, or bits.

Sums come as a list of vectors per row; the lanes of its vectors, one behind another, are output channels from `first` on.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from emulator.kernels.forms import BIAS, HIGH, LANES, LOW, OUT_SCALE, SCALE, ZERO
from emulator.kernels.vectors import F32, I8, I32, I64, call, load


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


def store_codes(builder: Any, outs: Any, sums: list[list[Any]], first: int, rounding: Any, affine: Any) -> None:
    """Round the int32 sums of each row and write a byte for each to the row's address in `outs`.

    q = clamp(rint(y), low, high) + zero, with y = float32(sum) * scale or, if `affine` is not 0, (float32(sum) * scale + bias) /
    out_scale, all in float32; NaN becomes low + zero. rounding: address of (6, LANES) float32, rows as named in `forms.py`.
    """
    with builder.if_else(builder.icmp_signed("!=", affine, ir.Constant(I64, 0))) as (divided, plain):
        with divided:
            _round(builder, outs, sums, first, rounding, True)
        with plain:
            _round(builder, outs, sums, first, rounding, False)


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
