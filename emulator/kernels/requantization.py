"""Layers that look at one element at a time, in one pass without arrays in between: float32 arithmetic as each record states it.

Codes become clamp(rint(y) + zero_point, low, high), half to even; NaN becomes `low`. Zero points may be any int32.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from weakcell.emulator.kernels.llvm_vectors import call

_EXACT = 1 << 16
"""Zero points up to here keep integers exact in float32."""


@intrinsic  # type: ignore[untyped-decorator]
def rint(typingctx, x):  # type: ignore[no-untyped-def]
    """The nearest integer of a float32, half to even, as a float32."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return call(builder, "llvm.rint.f32", args[0].type, *args)

    return types.float32(types.float32), codegen


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _code(y, zero_point, low, high):  # type: ignore[no-untyped-def]
    """The code of y; low, high: float32 limits before the zero point is added."""
    y = rint(y)
    y = y if y > low else low
    return np.int64(y if y < high else high) + zero_point


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _small_code(y, zero_point, low, high):  # type: ignore[no-untyped-def]
    """The same of at most 16 bits; zero_point: float32, up to _EXACT. Vectors of such have twice as many lanes."""
    y = rint(y)
    y = y if y > low else low
    return np.int32((y if y < high else high) + zero_point)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def requantize(x, centre, scale, steps, constants, out_scale, zero_point, low, high, out):  # type: ignore[no-untyped-def]
    """y = float32(x - centre) * scale[c], then the steps, then / out_scale: integers (pixels, C) -> codes (pixels, C).

    steps: `Step.opcode`, positions in `ir.layers.STEP_OPERATORS`.
    constants: float32 (steps, C), one row for each. out_scale: float32 (1,); 1 changes nothing.
    """
    channels, line = x.shape[1], np.empty(x.shape[1], dtype=np.float32)
    low, high = np.float32(low - zero_point), np.float32(high - zero_point)
    for pixel in range(x.shape[0]):
        for c in range(channels):
            line[c] = np.float32(np.int64(x[pixel, c]) - centre) * scale[c]
        for i in range(steps.size):
            for c in range(channels):
                line[c] = _stepped(line[c], steps[i], constants[i, c])
        for c in range(channels):
            out[pixel, c] = _code(line[c] / out_scale[0], zero_point, low, high)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _stepped(y, step, constant):  # type: ignore[no-untyped-def]
    if step == 0:
        return y * constant
    if step == 1:
        return y + constant
    if step == 2:
        return y - constant
    if step == 3:
        return y / constant
    if y != y or constant != constant:
        return y + constant
    return constant if (y < constant) == (step == 4) else y


@numba.njit(cache=True, nogil=True, error_model="numpy")
def quantize(x, scale, zero_point, low, high, out):  # type: ignore[no-untyped-def]
    """y = x / scale, a float32 (1,): float32 -> codes, both contiguous."""
    flat, to, low, high = x.reshape(-1), out.reshape(-1), np.float32(low - zero_point), np.float32(high - zero_point)
    for i in range(flat.size):
        to[i] = _code(flat[i] / scale[0], zero_point, low, high)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def add(a, b, centres, scales, zero_point, low, high, out):  # type: ignore[no-untyped-def]
    """y = ((a - centre) * scale + (b - centre) * scale) / scale: two arrays of codes -> codes, all flat. scales: float32 (3,)."""
    low, high = np.float32(low - zero_point), np.float32(high - zero_point)
    if max(a.itemsize, b.itemsize, out.itemsize) < 4 and max(abs(centres[0]), abs(centres[1]), abs(zero_point)) <= _EXACT:
        za, zb, zero = np.float32(centres[0]), np.float32(centres[1]), np.float32(zero_point)
        for i in range(a.size):
            y = (np.float32(a[i]) - za) * scales[0] + (np.float32(b[i]) - zb) * scales[1]
            out[i] = _small_code(y / scales[2], zero, low, high)
        return
    for i in range(a.size):
        left = np.float32(np.int64(a[i]) - centres[0]) * scales[0]
        right = np.float32(np.int64(b[i]) - centres[1]) * scales[1]
        out[i] = _code((left + right) / scales[2], zero_point, low, high)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def add_fused(a, b, ratios, low, high, out):  # type: ignore[no-untyped-def]
    """y = fma(a, ratio, fma(b, ratio, offset)): two arrays of codes -> codes, all flat.

    ratios: float32 (3,), the offset, which holds the zero points, at the end. Products of codes and float32 are exact in float64.
    """
    first, second, last = np.float64(ratios[0]), np.float64(ratios[1]), np.float64(ratios[2])
    low, high = np.float32(low), np.float32(high)
    for i in range(a.size):
        inner = np.float64(np.float32(np.float64(b[i]) * second + last))
        y = np.float32(np.float64(a[i]) * first + inner)
        out[i] = _small_code(y, np.float32(0), low, high) if out.itemsize < 4 else _code(y, 0, low, high)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def multiply(a, b, centres, factors, low, high, out):  # type: ignore[no-untyped-def]
    """y = float32((a - centre) * (b - centre)) * factors[0] + factors[1]: two arrays of codes -> codes, all flat."""
    low, high = np.float32(low), np.float32(high)
    for i in range(a.size):
        product = (np.int64(a[i]) - centres[0]) * (np.int64(b[i]) - centres[1])
        out[i] = _code(np.float32(product) * factors[0] + factors[1], 0, low, high)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def look_up(x, first, table, out):  # type: ignore[no-untyped-def]
    """table[x - first], or its nearest entry: codes -> codes, both flat."""
    for i in range(x.size):
        out[i] = table[min(max(np.int64(x[i]) - first, 0), table.size - 1)]
