"""Operators of Microsoft's domain with a rounding of their own, as in onnxruntime.

Reference: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.
"""

from __future__ import annotations

import math

import numpy as np

from weakcell.emulator.onnx_ops.quantization import rounded
from weakcell.emulator.onnx_ops.reductions import windows_of
from weakcell.emulator.onnx_ops.registry import Array, Attributes, Inputs, claim, given, optional, register


def _parameters(inputs: Inputs, x: Array) -> tuple[np.float32, int, np.float32, Array]:
    """Return scale and zero point of the input, then of the output.

    Zero points that are left out are 0.
    """
    zeros = [optional(inputs, index) for index in (2, 4)]
    zx, zy = (np.zeros((), x.dtype) if z is None else z.reshape(()) for z in zeros)
    return np.float32(given(inputs[1]).reshape(())), int(zx), np.float32(given(inputs[3]).reshape(())), zy


@register("com.microsoft.QLinearAveragePool")
def _average_pool(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """QLinearAveragePool.

    Floats are summed row by row and divided; the zero point is added before rounding.
    """
    if attributes.get("channels_last", 0):
        raise ValueError("channels_last is 1")
    x = given(inputs[0])
    sx, zx, sy, zy = _parameters(inputs, x)
    real = (x.astype(np.int32) - zx).astype(np.float32) * sx
    kernel = tuple(int(k) for k in attributes["kernel_shape"])
    windows, _ = windows_of(real, kernel, attributes, 0.0)
    inside, _ = windows_of(np.ones_like(real[:1, :1]), kernel, attributes, 0.0)
    flat = (*windows.shape[: x.ndim], -1)
    parts, total = windows.reshape(flat), np.zeros(windows.shape[: x.ndim], np.float32)
    for i in range(parts.shape[-1]):
        total = total + parts[..., i]
    whole = bool(attributes.get("count_include_pad", 0))
    count = np.float32(math.prod(kernel)) if whole else inside.reshape(*inside.shape[: x.ndim], -1).sum(-1)
    shifted = np.rint(total / count / sy + np.float32(zy))
    return rounded(shifted, np.zeros((), zy.dtype))


@register("com.microsoft.QLinearSoftmax")
def _softmax(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """QLinearSoftmax: a float32 table of exponentials, relative to the largest code.

    onnxruntime lets a quotient of 1 wrap around in int8. Here it saturates, as QuantizeLinear does.
    """
    x, version = given(inputs[0]), int(attributes.get("opset", 13))
    axis = int(attributes.get("axis", -1 if version >= 13 else 1)) % x.ndim
    if version >= 13:
        moved = np.moveaxis(x, axis, -1) if axis != x.ndim - 1 else x
        rows = moved.reshape(-1, x.shape[axis])
    else:
        moved, rows = x, x.reshape(math.prod(x.shape[:axis]), -1)
    sx, _, sy, zy = _parameters(inputs, x)
    room = math.log(float(np.float32(np.finfo(np.float32).max) / np.float32(rows.shape[1])))
    shift = max(0.0, room - 5) / float(sx)
    table = np.exp((np.arange(256) - 255 + shift) * float(sx)).astype(np.float32)
    wide = rows.astype(np.int32)
    e = table[255 - wide.max(1, keepdims=True) + wide]
    total = np.zeros(len(e), np.float32)
    for column in range(e.shape[1]):
        total = total + e[:, column]
    codes = np.rint(e * np.floor(np.float32(1) / sy) / total[:, None]) + np.float32(zy)
    limits = np.iinfo(zy.dtype)
    result = np.clip(codes, limits.min, limits.max).astype(zy.dtype).reshape(moved.shape)
    return np.moveaxis(result, -1, axis) if version >= 13 and axis != x.ndim - 1 else result


@register("com.microsoft.GatherBlockQuantized")
def _gather_blocks(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """GatherBlockQuantized: table, indices, scales, zero points; the table and its zero points are unpacked."""
    table, indices, scale, zero = given(inputs[0]), given(inputs[1]), given(inputs[2]), optional(inputs, 3)
    axis = int(attributes.get("gather_axis", 0)) % table.ndim
    along, block = int(attributes.get("quantize_axis", 1)) % table.ndim, int(attributes.get("block_size", 128))
    rows = indices.astype(np.int64)
    size = table.shape[axis]
    rows = np.where(rows < 0, rows + size, rows)
    if rows.size and (rows.min() < 0 or rows.max() >= size):
        raise ValueError(f"an index is outside a table of {size} rows")
    claim(table.shape[:axis] + rows.shape + table.shape[axis + 1 :], table, rows)
    behind = along + rows.ndim - 1 if along > axis else along

    def gathered(x: Array) -> Array:
        """Return the gathered part of scales or zero points, one for each number."""
        if along == axis:
            return np.take(x, rows // block, axis)
        return np.asarray(np.take(np.take(x, rows, axis), np.arange(table.shape[along]) // block, behind))

    wide = np.take(table, rows, axis).astype(np.float32)
    return np.asarray((wide if zero is None else wide - gathered(zero).astype(np.float32)) * gathered(scale), scale.dtype)
