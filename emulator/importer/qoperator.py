"""Operators of Microsoft's domain with a rounding of their own.

All other QLinear operators are written as ONNX operators first (`rewrites.py`).
Reference: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer.builder import NetworkBuilder, ValueRange
from weakcell.emulator.importer.fallback import lower_float
from weakcell.emulator.importer.folding import integer_encoding
from weakcell.emulator.importer.integer_ops import add_codes_operator, materialize_codes
from weakcell.emulator.importer.node_writer import NodeWriter
from weakcell.emulator.importer.qdq import read_quantization, read_quantized_input
from weakcell.emulator.importer.symbols import (
    INTEGER_RANKS,
    Codes,
    FloatValue,
    Node,
    Symbol,
    scalar,
)
from weakcell.emulator.ir.layers import MulCodes, Requantize, SumPool
from weakcell.emulator.ir.values import ValueSpec, Window
from weakcell.memmodels.errors import ModelError

# ── operators with a rounding of their own ──────────────────────────────────────────────────────────


def _target(builder: NetworkBuilder, node: Node, index: int) -> tuple[ValueSpec, ValueRange]:
    """Return the value and the range of codes of the output.

    `index` is the input that is its scale.
    """
    scale, zero, dtype = read_quantization(builder, node, index)
    encoding = integer_encoding(np.dtype(dtype or "uint8"))
    if scale.ndim or encoding is None:
        raise ModelError(f"Importing {node}", f"it quantizes to {dtype} with {scale.size} scales", "Use 8 bits and one scale")
    return ValueSpec(builder.unique_name(node.outputs[0]), "codes", (), dtype or "uint8", scale, zero), ValueRange(
        encoding.low, encoding.high
    )


def lower_multiply(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower QLinearMul of two tensors of codes.

    With a constant it is computed in float32.
    """
    target, value_range = _target(builder, node, 6)
    left, right = (builder.symbols[node.input(i)] for i in (0, 3))
    if not isinstance(left, Codes) or not isinstance(right, Codes) or left.shape != right.shape:
        return _lower_by_floats(builder, node)
    a, b = (read_quantized_input(builder, node, index) for index in (0, 3))
    spec = builder.values[a.value]
    if spec.shape != builder.values[b.value].shape:
        return _lower_by_floats(builder, node)
    multiplier = float(np.float32(a.scale * b.scale) / target.scale)
    layer = MulCodes(node.name, (a.value, b.value), target.name, multiplier, target.zero_point, value_range.low, value_range.high)
    return Codes(builder.add_layer(layer, replace(target, shape=spec.shape), value_range), a.shape)


def _lower_by_floats(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower the product as a Mul of dequantized inputs.

    It is exact but for the order of two float multiplications.
    """
    w = NodeWriter(node)
    i = node.input
    w.quantize(w.add("Mul", w.dequantize(i(0), i(1), i(2)), w.dequantize(i(3), i(4), i(5))), i(6), i(7))
    for part in w.nodes:
        builder.lower(builder, part)
    return builder.symbols[node.outputs[0]]


def lower_global_average(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower QLinearGlobalAveragePool: an integer sum times s_x / (s_y * count)."""
    pending = read_quantized_input(builder, node, 0)
    target, value_range = _target(builder, node, 3)
    if (
        node.attributes.get("channels_last", 0)
        or len(pending.shape) not in (2, 3)
        or builder.values[pending.value].shape != pending.shape
    ):
        raise ModelError(f"Importing {node}", "it is channels-last, or no image", "Export the model with channels first")
    channels, (height, width) = pending.shape[0], builder.values[pending.value].height_width
    pooled = (channels, *[1] * (len(pending.shape) - 1))
    name = builder.unique_name(f"{node.outputs[0]}.acc")
    reached, count = builder.ranges[pending.value], height * width
    low, high = ((limit - pending.zero_point) * count for limit in (reached.low, reached.high))
    multiplier = np.float32(pending.scale / (target.scale * np.float32(count)))
    layer = SumPool(node.name, (pending.value,), name, Window((height, width), (height, width)))
    builder.add_layer(layer, ValueSpec(name, "codes", pooled, "int32", scalar(1)), ValueRange(low, high))
    last = Requantize(node.name, (name,), target.name, np.asarray(multiplier), target.zero_point, value_range.low, value_range.high)
    return Codes(builder.add_layer(last, replace(target, shape=pooled), value_range), pooled)


def lower_codes(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower QLinearAveragePool or QLinearSoftmax.

    The arithmetic is onnxruntime's own, on codes.
    """
    source = builder.symbol(node.input(0))
    if isinstance(source, FloatValue) and source.dtype in ("int8", "uint8"):
        return lower_float(builder, node)  # codes that a float operator made, such as a product of activations
    if not isinstance(source, Codes) or len(source.shape) not in INTEGER_RANKS:
        raise ModelError(f"Importing {node}", "its input is no image of codes", "Quantize the tensor before")
    source = materialize_codes(builder, source, node)
    target, value_range = _target(builder, node, 3)
    constants = [builder.constant(node, i) for i in range(1, 5)]
    operands = [None, *(onnx_ops.ABSENT if c is None else c.array for c in constants)]
    return add_codes_operator(builder, node, [source], operands, target, value_range)


LOWERINGS: dict[str, Callable[[NetworkBuilder, Node], Symbol]] = {
    "QLinearAveragePool": lower_codes,
    "QLinearGlobalAveragePool": lower_global_average,
    "QLinearMul": lower_multiply,
    "QLinearSoftmax": lower_codes,
}
