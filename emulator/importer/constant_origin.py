"""The integers behind a constant, through operators that only move elements or that dequantize step by step."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer.constant_recipe import is_stored
from weakcell.emulator.importer.symbols import Array, Constant, Node, QuantizedConstant, scalar


def propagate_quantization(node: Node, inputs: list[Constant | None], array: Array, output_index: int) -> QuantizedConstant | None:
    """Return the integers behind a folded node's output `array`, with scale and zero point; None where they cannot follow.

    Cast of integers, then Sub of a zero point, then Mul with a scale is a dequantization, too. place: of the output.
    """
    first = inputs[0] if inputs else None
    if node.op_type == "Cast" and first is not None and array.dtype == np.float32:
        if first.recipe is None or not is_stored(first) or first.array.ndim == 0:
            return None
        return QuantizedConstant(first.array.astype(np.int32), first.recipe.encoding, scalar(1), np.zeros((), np.int32), 0)
    if node.op_type in ("Sub", "Mul") and len(inputs) == 2:
        a, b = inputs
        if node.op_type == "Mul" and b is not None and b.quantized is not None:
            a, b = b, a
        if a is None or b is None or a.quantized is None or b.array.dtype != np.float32 or array.shape != a.array.shape:
            return None
        return _scaled(node, a.quantized, b.array)
    if first is None or first.quantized is None:
        return None
    return (
        _slice_quantization(node, first.quantized, inputs, array, output_index)
        if node.op_type in ("Slice", "Split")
        else _move_quantization(node, first.quantized, array)
    )


def _scaled(node: Node, quantized: QuantizedConstant, constant: Array) -> QuantizedConstant | None:
    """After a subtraction or multiplication with one number, or with one for each place of an axis.

    float32(q - zero_point) * scale is what the graph computes only if whole numbers are subtracted first and there is one factor.
    """
    if quantized.block or np.any(quantized.scale != 1) or not np.all(np.isfinite(constant)):
        return None
    rank = quantized.codes.ndim
    shape = (1,) * (rank - constant.ndim) + constant.shape
    long = [i for i, n in enumerate(shape) if n > 1]
    axis = long[0] if long else quantized.axis
    if len(long) > 1 or (quantized.zero_point.ndim and long and axis != quantized.axis):
        return None
    size = quantized.codes.shape[axis]
    flat = constant.reshape(-1) if long else constant.reshape(())
    if node.op_type == "Mul":
        scale = np.asarray(flat, np.float32)
        zero = quantized.zero_point
    else:
        if np.any(flat != np.rint(flat)) or np.any(np.abs(flat) > 1 << 16) or np.any(quantized.zero_point):
            return None
        scale, zero = quantized.scale, flat.astype(np.int32)
    if scale.ndim or zero.ndim:
        scale = np.ascontiguousarray(np.broadcast_to(scale, (size,)))
        zero = np.ascontiguousarray(np.broadcast_to(zero, (size,)))
    return replace(quantized, scale=scale, zero_point=zero, axis=axis)


def _slice_quantization(
    node: Node, quantized: QuantizedConstant, inputs: list[Constant | None], array: Array, output_index: int
) -> QuantizedConstant | None:
    """A part of the integers, with the scales of that part."""
    if quantized.block:
        return None
    rest = [None if x is None else x.array for x in inputs[1:]]

    def part(x: Array) -> Array:
        made = onnx_ops.apply_all(node.op_type, node.opset, node.attributes, [x, *rest], max(output_index + 1, len(node.outputs)))
        return made[output_index]

    if quantized.scale.ndim == 0:
        return replace(quantized, codes=np.ascontiguousarray(part(quantized.codes)))
    shape = [1] * array.ndim
    shape[quantized.axis] = quantized.scale.size
    line = tuple(slice(None) if i == quantized.axis else 0 for i in range(array.ndim))
    scale, zero = (
        part(np.broadcast_to(x.reshape(shape), quantized.codes.shape))[line] for x in (quantized.scale, quantized.zero_point)
    )
    return replace(quantized, codes=np.ascontiguousarray(part(quantized.codes)), scale=scale.copy(), zero_point=zero.copy())


def _move_quantization(node: Node, quantized: QuantizedConstant, array: Array) -> QuantizedConstant | None:
    """The integers behind a constant that was only moved about; None where they cannot follow."""
    codes, axis = quantized.codes, quantized.axis
    if node.op_type in ("Identity", "Dropout"):
        return quantized
    if quantized.block:
        return _transpose_blocks(node, quantized)
    if node.op_type == "Transpose":
        perm = node.attributes.get("perm") or list(range(codes.ndim))[::-1]
        codes, axis = np.transpose(codes, perm), list(perm).index(axis) if codes.ndim else 0
    elif node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        old, new = codes.shape, array.shape
        if quantized.scale.ndim:
            before = math.prod(old[:axis])
            places = [i for i in range(len(new)) if math.prod(new[:i]) == before and new[i] == old[axis]]
            if not places:
                return None
            axis = places[0]
        codes = codes.reshape(new)
    else:
        return None
    return QuantizedConstant(np.asarray(codes, order="C"), quantized.encoding, quantized.scale, quantized.zero_point, axis)


def _transpose_blocks(node: Node, quantized: QuantizedConstant) -> QuantizedConstant | None:
    """Blocked codes after a transposition; None for any other move."""
    if node.op_type != "Transpose":
        return None
    perm = list(node.attributes.get("perm") or range(quantized.codes.ndim)[::-1])
    codes, scale = np.transpose(quantized.codes, perm), np.transpose(quantized.scale, perm)
    zero = np.transpose(quantized.zero_point, perm)
    return QuantizedConstant(
        np.ascontiguousarray(codes), quantized.encoding, scale, zero, perm.index(quantized.axis), quantized.block
    )
