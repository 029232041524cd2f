"""Quantization operators on arrays.

They run where scales are known only at run time, and in the conformance tests.

A float32 quotient is rounded half to even, the zero point is added, and the limits of the type are applied. NaN gives the
lowest code. Integer sums wrap at 32 bits. Reference: https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from weakcell.emulator.onnx_ops.arithmetic import numpy_type
from weakcell.emulator.onnx_ops.reductions import convolve
from weakcell.emulator.onnx_ops.registry import Array, Attributes, Inputs, given, optional, register, register_several


def integer_limits(dtype: Any) -> tuple[int, int]:
    """Return lowest and highest value of an integer type, also of ml_dtypes."""
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return int(info.min), int(info.max)
    import ml_dtypes

    narrow: Any = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
    return int(narrow.min), int(narrow.max)


def rounded(quotient: Array, zero: Array) -> Array:
    """Return clamp(rint(quotient) + zero) in the type of the zero point."""
    low, high = integer_limits(zero.dtype)
    wide = np.rint(quotient) + zero.astype(np.float32)
    return np.asarray(np.nan_to_num(np.clip(wide, low, high), nan=low).astype(np.int32).astype(zero.dtype))


def spread(x: Array, parameter: Array, attributes: Attributes) -> Array:
    """Return a scale or zero point in a shape that broadcasts over x.

    One number, one per index of the axis, or per block.
    """
    block = int(attributes.get("block_size", 0))
    if block and parameter.ndim == x.ndim:
        axis = int(attributes.get("axis", 1)) % x.ndim
        if parameter.shape[axis] != -(-x.shape[axis] // block):
            raise ValueError(f"{parameter.shape[axis]} blocks of {block} for {x.shape[axis]} elements")
        return np.take(np.repeat(parameter, block, axis), np.arange(x.shape[axis]), axis)
    if parameter.size == 1:
        return parameter.reshape(())
    axis = int(attributes.get("axis", 1)) % x.ndim
    if parameter.size != x.shape[axis]:
        raise ValueError(f"{parameter.size} scales for {x.shape[axis]} elements")
    return np.asarray(parameter.reshape(-1, *[1] * (x.ndim - axis - 1)))


@register("QuantizeLinear")
def _quantize(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x, scale = given(inputs[0]), given(inputs[1])
    zero = optional(inputs, 2)
    if zero is None:
        zero = np.zeros(scale.shape, numpy_type(int(attributes.get("output_dtype", 0)) or 2))
    return rounded(x.astype(np.float32) / spread(x, scale, attributes).astype(np.float32), spread(x, zero, attributes))


@register("DequantizeLinear")
def _dequantize(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    q, scale, zero = given(inputs[0]), given(inputs[1]), optional(inputs, 2)
    wide = q.astype(np.int64)
    if zero is not None:
        wide = wide - spread(q, zero, attributes).astype(np.int64)
    real = wide.astype(np.float32) * spread(q, scale, attributes).astype(np.float32)
    to = int(attributes.get("output_dtype", 0))
    return np.asarray(real, numpy_type(to) if to else scale.dtype)


@register_several("DynamicQuantizeLinear")
def _dynamic(inputs: Inputs, attributes: Attributes, opset: int, outputs: int) -> tuple[Array, ...]:
    """DynamicQuantizeLinear: uint8 codes of a range that includes 0."""
    x = given(inputs[0]).astype(np.float32)
    scale, zero = quantized_range(x)
    return rounded(x / scale, zero), scale, zero


def quantized_range(x: Array) -> tuple[Array, Array]:
    """Return scale and uint8 zero point of the range of x with 0."""
    low, high = np.minimum(x.min(initial=0), np.float32(0)), np.maximum(x.max(initial=0), np.float32(0))
    scale = (high - low) / np.float32(255)
    scale = np.asarray(scale if scale > 0 else 1, np.float32)
    return scale, np.asarray(np.clip(np.rint(-low / scale), 0, 255).astype(np.uint8))


@register("weakcell.LookUp")
def _look_up(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """Return the entry of a table for each code."""
    return np.asarray(given(inputs[1])[given(inputs[0]).astype(np.int64)])


# ── integer products ────────────────────────────────────────────────────────────────────────────────


def _int32(exact: Array) -> Array:
    """Return exact float64 sums of integers as int32 that wraps."""
    return np.asarray(exact.astype(np.int64).astype(np.int32))


def _centred(q: Array, zero: Array | None, axis: int) -> Array:
    """Return q - zero_point as float64; several zero points are along `axis`."""
    wide = q.astype(np.float64)
    if zero is None:
        return wide
    real = zero.astype(np.float64)
    return np.asarray(wide - (real if zero.ndim > 1 else spread(q, real, {"axis": axis})))


@register("MatMulInteger")
def _matmul_integer(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """MatMulInteger: a zero point per row of A, per column of B."""
    a, b = given(inputs[0]), given(inputs[1])
    left, right = _centred(a, optional(inputs, 2), max(a.ndim - 2, 0)), _centred(b, optional(inputs, 3), b.ndim - 1)
    return _int32(np.asarray(np.matmul(left, right)))


@register("ConvInteger")
def _conv_integer(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """ConvInteger: padding adds nothing."""
    x, w = given(inputs[0]), given(inputs[1])
    return _int32(convolve(_centred(x, optional(inputs, 2), 0), _centred(w, optional(inputs, 3), 0), attributes))


def requantized(acc: Array, scales: tuple[Array, Array, Array], zero: Array, axis: int) -> Array:
    """Return clamp(rint(float32(acc) * M) + zero), M = float32(float32(a * b) / y).

    Several scales b are along `axis`.
    """
    a, b, y = scales
    multiplier = spread(acc, np.asarray(np.float32(1) * (a * b) / y, np.float32), {"axis": axis})
    return rounded(acc.astype(np.float32) * multiplier, zero.reshape(()))


@register("QLinearMatMul")
def _qlinear_matmul(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    a, sa, za, b, sb, zb, sy, zy = (given(x) for x in inputs)
    left, right = _centred(a, za, max(a.ndim - 2, 0)), _centred(b, zb, b.ndim - 1)
    acc = _int32(np.asarray(np.matmul(left, right)))
    return requantized(acc, (sa, sb, sy), zy, acc.ndim - 1)


@register("QLinearConv")
def _qlinear_conv(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x, sx, zx, w, sw, zw, sy, zy = (given(v) for v in inputs[:8])
    acc = convolve(_centred(x, zx, 0), _centred(w, zw, 0), attributes)
    if (bias := optional(inputs, 8)) is not None:
        acc = acc + bias.reshape(-1, *[1] * (x.ndim - 2))
    return requantized(_int32(acc), (sx, sw, sy), zy, 1)
