"""LLVM building blocks of the kernels: vectors, target features, one multiply-accumulate.

The IR is generic except for a few instructions that LLVM does not select by itself. Those depend on the CPU that code is
generated *for*: an unknown instruction would end the process. Results never depend on the target.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic, overload

from weakcell.emulator.kernels.weight_layouts import DepthwiseInt8x4, Int16x2, PackedInt1, subbyte_slots, word_bytes

I64, I32, I16, I8, I1 = (ir.IntType(bits) for bits in (64, 32, 16, 8, 1))
F32 = ir.FloatType()


def target_has(feature: str) -> bool:
    """Return whether the target CPU has an LLVM feature.

    The target is the host, or the CPU that NUMBA_CPU_NAME names.
    """
    if config.CPU_NAME and config.CPU_NAME != "host":
        return f"+{feature}" in (config.CPU_FEATURES or "").split(",")
    return bool(binding.get_host_cpu_features().get(feature, False))


WIDE = target_has("avx512bw")
"""512-bit registers with 16-bit lanes."""
AVX2 = target_has("avx2")
"""256-bit integer registers."""
POPCOUNT = target_has("avx512vpopcntdq")
"""A vector popcount."""
VNNI = target_has("avx512vnni") and binding.llvm_version_info >= (22,)  # earlier versions declare other operands
"""Dot products of four unsigned and four signed bytes."""

# --- compile-time constants of a weight layout -------------------------------------------------------------------------------


def layout_constant(value_of: Callable[[type], int]) -> Any:
    """Make a property of a weight layout class a compile-time constant of kernels.

    Returns:
        A function of a `weights` record, for compiled and for plain Python code.
    """

    def constant(weights: Any) -> int:
        return value_of(type(weights))

    @overload(constant)  # type: ignore[untyped-decorator]
    def _constant(weights):  # type: ignore[no-untyped-def]
        value = value_of(weights.instance_class)
        return lambda weights: value

    return constant


is_binary = layout_constant(lambda layout: layout is PackedInt1)
"""is_binary(weights): whether weights are ±1 in bits, so that kernels count mismatches instead of adding products."""

is_depthwise = layout_constant(lambda layout: layout is DepthwiseInt8x4)
"""is_depthwise(weights): whether every output channel reads a single input channel."""

activation_bytes = layout_constant(lambda layout: word_bytes(layout) * subbyte_slots(layout))
"""activation_bytes(weights): bytes of activations that one weight word multiplies."""


def empty_sums(weights: Any, rows: int, lanes: int) -> Any:
    """Return an uninitialized array (rows, lanes) of sums.

    int64 for PackedInt1, else int32.
    """
    return np.empty((rows, lanes), dtype=np.int64 if isinstance(weights, PackedInt1) else np.int32)


@overload(empty_sums)  # type: ignore[untyped-decorator]
def _empty_sums(weights, rows, lanes):  # type: ignore[no-untyped-def]
    dtype = np.int64 if weights.instance_class is PackedInt1 else np.int32
    return lambda weights, rows, lanes: np.empty((rows, lanes), dtype=dtype)


# --- vectors -----------------------------------------------------------------------------------------------------------------


def i64(value: int) -> Any:
    """Return an int64 constant."""
    return ir.Constant(I64, value)


def splat(vector: Any, value: float) -> Any:
    """Return a constant vector with `value` in every lane."""
    return ir.Constant(vector, [value] * vector.count)


def call(builder: Any, name: str, result: Any, *args: Any) -> Any:
    """Call an LLVM intrinsic by its name."""
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def broadcast(builder: Any, value: Any, vector: Any) -> Any:
    """Copy a scalar into every lane of a vector type."""
    undefined = ir.Constant(vector, ir.Undefined)
    scalar = builder.insert_element(undefined, value, ir.Constant(I32, 0))
    return builder.shuffle_vector(scalar, undefined, splat(ir.VectorType(I32, vector.count), 0))


def shuffle(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    """Select lanes of the concatenation of two vectors."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))


def load(builder: Any, base: Any, offset: Any, kind: Any, align: int = 0) -> Any:
    """Load a value of type `kind` from address `base` + `offset`.

    align: bytes; by default those of an element.
    """
    loaded = builder.load(builder.inttoptr(builder.add(base, offset), kind.as_pointer()))
    loaded.align = align or (4 if getattr(kind, "element", kind) == I32 else 8)
    return loaded


def load_pointers(builder: Any, base: Any, count: int) -> list[Any]:
    """Load the int64 values base[0] … base[count - 1]."""
    return [load(builder, base, i64(8 * i), I64) for i in range(count)]


def store(builder: Any, value: Any, address: Any, align: int) -> None:
    """Store a value at an address that is a multiple of `align` bytes."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = align


# --- one multiply-accumulate -------------------------------------------------------------------------------------------------


def emit_multiply_accumulate(builder: Any, layout: type, total: Any, x: Any, w: Any) -> Any:
    """Add the products of one word of activations and weights to every lane.

    PackedInt1: total + popcount(x ^ w). Int16x2: total + x0 w0 + x1 w1. Otherwise: total + x0 w0 + … + x3 w3, with unsigned x.

    Args:
        layout: the weight layout.
        total: vector of sums, int64 lanes for PackedInt1, else int32.
        x, w: vectors of words of the same width.
    """
    if layout is PackedInt1:
        return builder.add(total, emit_popcount(builder, builder.xor(x, w)))
    if layout is Int16x2:
        return builder.add(total, _emit_pair_products(builder, x, w))
    if VNNI:
        quads = ir.VectorType(I8, 4 * x.type.count)
        name = f"llvm.x86.avx512.vpdpbusd.{32 * x.type.count}"
        return call(builder, name, total.type, total, builder.bitcast(x, quads), builder.bitcast(w, quads))
    pairs = ir.VectorType(I16, 2 * x.type.count)
    x, w, eight = builder.bitcast(x, pairs), builder.bitcast(w, pairs), splat(pairs, 8)
    even = builder.and_(x, splat(pairs, 255)), builder.ashr(builder.shl(w, eight), eight)
    odd = builder.lshr(x, eight), builder.ashr(w, eight)
    return builder.add(builder.add(total, _emit_pair_products(builder, *even)), _emit_pair_products(builder, *odd))


def _emit_pair_products(builder: Any, x: Any, w: Any) -> Any:
    """Emit x0 w0 + x1 w1 of the int16 pairs in every 32-bit lane."""
    lanes = x.type.count // (1 if x.type.element == I32 else 2)
    pairs, sums = ir.VectorType(I16, 2 * lanes), ir.VectorType(I32, lanes)
    x, w = builder.bitcast(x, pairs), builder.bitcast(w, pairs)
    name = {16: "llvm.x86.avx512.pmaddw.d.512", 8: "llvm.x86.avx2.pmadd.wd", 4: "llvm.x86.sse2.pmadd.wd"}[lanes]
    if WIDE or (AVX2 and lanes <= 8):
        return call(builder, name, sums, x, w)

    def products(which: int) -> Any:
        mask = [2 * lane + which for lane in range(lanes)]
        operands = (shuffle(builder, operand, ir.Constant(pairs, ir.Undefined), mask) for operand in (x, w))
        return builder.mul(*(builder.sext(operand, sums) for operand in operands))

    return builder.add(products(0), products(1))


def emit_popcount(builder: Any, x: Any) -> Any:
    """Count the set bits of every 64-bit lane."""
    return call(builder, f"llvm.ctpop.v{x.type.count}i64", x.type, x)


@intrinsic  # type: ignore[untyped-decorator]
def popcount(typingctx, word):  # type: ignore[no-untyped-def]
    """popcount(word) -> uint64: count the set bits of a uint64."""
    return types.uint64(types.uint64), lambda context, builder, signature, args: builder.ctpop(args[0])


def every_byte(vector: Any, byte: int) -> Any:
    """Return a constant vector of 32-bit words in which every byte is `byte`."""
    return splat(vector, byte * 0x01010101)


def unpack_slot(builder: Any, layout: type, packed: Any, slot: int) -> Any:
    """Unpack one sub-byte slot of a vector of weight words to signed bytes.

    The weight stays in the high bits of its byte, i.e. it is 2^(8 - bits) times too large. `undo_packing_shift` removes this
    factor from the finished sum, which costs less than shifting every weight.
    """
    slots = subbyte_slots(layout)
    if slots == 1:
        return packed
    bits, kind = 8 // slots, packed.type
    high = builder.shl(packed, splat(kind, 8 - bits * (slot + 1)))
    if slot < slots - 1:
        high = builder.xor(high, every_byte(kind, 128))
    return builder.and_(high, every_byte(kind, 256 - (1 << (8 - bits))))


def undo_packing_shift(builder: Any, layout: type, total: Any) -> Any:
    """Divide a sum by the factor 2^(8 - bits) of unpacked sub-byte weights."""
    extra = 8 - 8 // subbyte_slots(layout)
    return builder.ashr(total, splat(total.type, extra)) if extra else total
