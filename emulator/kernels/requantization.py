"""Element-wise requantization kernels: one pass, float32 arithmetic as each layer record states it.

    q = clamp(rint(y) + zero_point, low, high)

Rounding is half to even; NaN becomes `low`. Zero points may be any int32. Arrays are contiguous.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from weakcell.emulator.kernels.isa import call
from weakcell.memmodels.compilation import compiled

_EXACT = 1 << 16
"""Zero points up to here keep integers exact in float32."""


@intrinsic  # type: ignore[untyped-decorator]
def rint(typingctx, x):  # type: ignore[no-untyped-def]
    """rint(x) -> float32: the nearest integer of a float32, half to even."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return call(builder, "llvm.rint.f32", args[0].type, *args)

    return types.float32(types.float32), codegen


@compiled(error_model="numpy")
def _to_code(y, zero_point, low, high):  # type: ignore[no-untyped-def]
    """Return the code of y as int64.

    low, high: float32 limits before the zero point is added.
    """
    y = rint(y)
    y = y if y > low else low
    return np.int64(y if y < high else high) + zero_point


@compiled(error_model="numpy")
def _to_small_code(y, zero_point, low, high):  # type: ignore[no-untyped-def]
    """Return the code of y as int32, for at most 16 bits.

    Vectors have twice the lanes of `_to_code`. zero_point: float32, up to _EXACT.
    """
    y = rint(y)
    y = y if y > low else low
    return np.int32((y if y < high else high) + zero_point)


@compiled(error_model="numpy")
def requantize(x, input_zero_point, scale, steps, codes, out):  # type: ignore[no-untyped-def]
    """Requantize integers per channel.

    y = float32(x - input_zero_point) * scale[c], then the float steps, then / divisor

    Args:
        x: integers (pixels, C).
        input_zero_point: int.
        scale: float32 (C,).
        steps: FloatSteps.
        codes: CodeRange.
        out: integers (pixels, C), written.
    """
    channels, line = x.shape[1], np.empty(x.shape[1], dtype=np.float32)
    low, high = np.float32(codes.low - codes.zero_point), np.float32(codes.high - codes.zero_point)
    for pixel in range(x.shape[0]):
        for c in range(channels):
            line[c] = np.float32(np.int64(x[pixel, c]) - input_zero_point) * scale[c]
        for i in range(steps.operators.size):
            for c in range(channels):
                line[c] = _apply_step(line[c], steps.operators[i], steps.constants[i, c])
        for c in range(channels):
            out[pixel, c] = _to_code(line[c] / steps.divisor[0], codes.zero_point, low, high)


@compiled(error_model="numpy")
def _apply_step(y, operator, constant):  # type: ignore[no-untyped-def]
    """Apply one float step.

    operator: position in `ir.layers.STEP_OPERATORS` (mul, add, sub, div, max, min).
    """
    if operator == 0:
        return y * constant
    if operator == 1:
        return y + constant
    if operator == 2:
        return y - constant
    if operator == 3:
        return y / constant
    if y != y or constant != constant:
        return y + constant
    return constant if (y < constant) == (operator == 4) else y


@compiled(error_model="numpy")
def quantize(x, scale, codes, out):  # type: ignore[no-untyped-def]
    """Quantize floats: y = x / scale.

    Args:
        x: float32 array.
        scale: float32 (1,).
        codes: CodeRange.
        out: integers of x's shape, written.
    """
    flat, to = x.reshape(-1), out.reshape(-1)
    low, high = np.float32(codes.low - codes.zero_point), np.float32(codes.high - codes.zero_point)
    for i in range(flat.size):
        to[i] = _to_code(flat[i] / scale[0], codes.zero_point, low, high)


@compiled(error_model="numpy")
def add(a, b, zero_points, scales, codes, out):  # type: ignore[no-untyped-def]
    """Add two arrays of codes: y = ((a - za) * sa + (b - zb) * sb) / sy.

    Args:
        a, b: integers (elements,).
        zero_points: (za, zb).
        scales: float32 (3,): sa, sb, sy.
        codes: CodeRange.
        out: integers (elements,), written.
    """
    zero_point = codes.zero_point
    low, high = np.float32(codes.low - zero_point), np.float32(codes.high - zero_point)
    largest = max(abs(zero_points[0]), abs(zero_points[1]), abs(zero_point))
    if max(a.itemsize, b.itemsize, out.itemsize) < 4 and largest <= _EXACT:
        za, zb, zero = np.float32(zero_points[0]), np.float32(zero_points[1]), np.float32(zero_point)
        for i in range(a.size):
            y = (np.float32(a[i]) - za) * scales[0] + (np.float32(b[i]) - zb) * scales[1]
            out[i] = _to_small_code(y / scales[2], zero, low, high)
        return
    for i in range(a.size):
        left = np.float32(np.int64(a[i]) - zero_points[0]) * scales[0]
        right = np.float32(np.int64(b[i]) - zero_points[1]) * scales[1]
        out[i] = _to_code((left + right) / scales[2], zero_point, low, high)


@compiled(error_model="numpy")
def add_fused(a, b, ratios, limits, out):  # type: ignore[no-untyped-def]
    """Add two arrays of codes with fused multiply-adds.

    y = fma(a, ratios[0], fma(b, ratios[1], ratios[2]))

    Products of codes and float32 are exact in float64, so the sum of two of them is rounded once.

    Args:
        a, b: integers (elements,).
        ratios: float32 (3,); the last contains all zero points.
        limits: (low, high) of the codes.
        out: integers (elements,), written.
    """
    first, second, last = np.float64(ratios[0]), np.float64(ratios[1]), np.float64(ratios[2])
    low, high = np.float32(limits[0]), np.float32(limits[1])
    for i in range(a.size):
        inner = np.float64(np.float32(np.float64(b[i]) * second + last))
        y = np.float32(np.float64(a[i]) * first + inner)
        out[i] = _to_small_code(y, np.float32(0), low, high) if out.itemsize < 4 else _to_code(y, 0, low, high)


@compiled(error_model="numpy")
def multiply(a, b, zero_points, factors, limits, out):  # type: ignore[no-untyped-def]
    """Multiply two arrays of codes.

    y = float32((a - za) * (b - zb)) * factors[0] + factors[1]

    Args:
        a, b: integers (elements,).
        zero_points: (za, zb).
        factors: float32 (2,); the second contains the output's zero point.
        limits: (low, high) of the codes.
        out: integers (elements,), written.
    """
    low, high = np.float32(limits[0]), np.float32(limits[1])
    for i in range(a.size):
        product = (np.int64(a[i]) - zero_points[0]) * (np.int64(b[i]) - zero_points[1])
        out[i] = _to_code(np.float32(product) * factors[0] + factors[1], 0, low, high)


@compiled(error_model="numpy")
def look_up(x, first, table, out):  # type: ignore[no-untyped-def]
    """Look codes up in a table: out = table[clamp(x - first, 0, size - 1)].

    x, out: integers (elements,).
    """
    for i in range(x.size):
        out[i] = table[min(max(np.int64(x[i]) - first, 0), table.size - 1)]
