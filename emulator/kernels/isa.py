"""One accumulation in every lane, and what the target has for it.

The IR is generic but for a few instructions that LLVM does not find by itself, chosen by what code is generated *for*: an unknown
instruction would end the process. Results never depend on it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba.core import config

from weakcell.emulator.kernels.llvm_vectors import I8, I16, I32, call
from weakcell.emulator.kernels.weight_layouts import Int16x2, PackedInt1, subbyte_slots


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


def emit_multiply_accumulate(builder: Any, form: type, total: Any, x: Any, w: Any) -> Any:
    """One accumulation in every lane."""
    if form is PackedInt1:
        return builder.add(total, population(builder, builder.xor(x, w)))
    if form is Int16x2:
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


def unpacked(builder: Any, form: type, packed: Any, part: int) -> Any:
    """Weights of one part as signed bytes: where there are several, in the upper bits of each byte, and so too large."""
    parts = subbyte_slots(form)
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


def undo_packing_shift(builder: Any, form: type, total: Any) -> Any:
    """A sum made right where the weights were too large (`unpacked`)."""
    extra = 8 - 8 // subbyte_slots(form)
    return builder.ashr(total, ir.Constant(total.type, [extra] * total.type.count)) if extra else total


def population(builder: Any, x: Any) -> Any:
    return call(builder, f"llvm.ctpop.v{x.type.count}i64", x.type, x)
