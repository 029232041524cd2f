"""Operators of Microsoft's domain with a rounding or weight format of their own.

All other QLinear operators are written as ONNX operators first (`rewrites.py`).
Reference: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.

MatMulNBits has packed 2-, 4- or 8-bit weights with one scale for every block of inputs. B is uint8
[N, blocks, block_size * bits / 8], low bits first. Scales are [N, blocks]. Zero points are packed like B; without them they are
2^(bits - 1). Activations stay float32: `accuracy_level`, which lets onnxruntime round them to 8 bits, is a hint for speed only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer.builder import NetworkBuilder, ValueRange
from weakcell.emulator.importer.folding import check_weight_scale, dequantize_constant, integer_encoding
from weakcell.emulator.importer.integer_ops import add_codes_operator, materialize_codes
from weakcell.emulator.importer.qdq import read_quantization, read_quantized_input
from weakcell.emulator.importer.rewrites import NodeWriter
from weakcell.emulator.importer.symbols import (
    INTEGER_RANKS,
    Array,
    Codes,
    Constant,
    Node,
    QuantizedConstant,
    Recipe,
    Symbol,
    scalar,
)
from weakcell.emulator.ir.layers import Encoding, MulCodes, OperandStep, Requantize, SumPool, ValueSpec, Window
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


# ── MatMulNBits ───────────────────────────────────────────────────────────────────────────────────────


def lower_matmul_nbits(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower MatMulNBits to MatMul and Add; the weight is stored as its packed bits."""
    asked, given = f"Importing {node}", node.attributes
    outputs, inputs, block = (int(given.get(key, 0)) for key in ("N", "K", "block_size"))
    bits = int(given.get("bits", 4))
    packed, scale, zero = (builder.constant(node, index) for index in (1, 2, 3))
    if node.input(4) or packed is None or scale is None:
        raise ModelError(asked, "it has a group index, or no weights", "Export the model without g_idx")
    if bits not in (2, 4, 8) or min(outputs, inputs, block) < 1 or packed.array.dtype != np.uint8:
        found = f"N {outputs}, K {inputs}, {bits} bits in blocks of {block}, held as {packed.array.dtype}"
        raise ModelError(asked, found, "2-, 4- or 8-bit weights packed in uint8 are supported")
    check_weight_scale(node, scale.array)
    blocks = -(-inputs // block)
    codes = _unpack(packed.array, bits, outputs, blocks * block, asked)[:, :inputs]
    points = np.full((outputs, blocks), 1 << (bits - 1), np.int32)
    if zero is not None:
        if zero.array.dtype != np.uint8:
            raise ModelError(asked, f"its zero points are {zero.array.dtype}", "Integer zero points (packed uint8) are supported")
        points = _unpack(zero.array, bits, outputs, blocks, asked)
    if scale.array.size != outputs * blocks:
        raise ModelError(asked, f"it has {scale.array.size} scales, and {outputs} x {blocks} are needed", "Export the model again")
    scales = scale.array.astype(np.float32).reshape(outputs, blocks)
    encoding = Encoding("unsigned", bits)
    quantized = QuantizedConstant(codes.T, encoding, scales.T, points.T, 0, block)
    steps = (
        OperandStep("DequantizeLinear", 21, {"axis": 1, "block_size": block}, (None, scales, points)),
        OperandStep("Transpose", 13, {"perm": [1, 0]}, (None,)),
    )
    recipe = Recipe(packed.origin, np.ascontiguousarray(codes), encoding, steps)
    weight = f"{packed.origin}.weight"
    builder.symbols[weight] = Constant(dequantize_constant(quantized), packed.origin, quantized, recipe=recipe)
    bias = node.input(5)
    product = f"{node.outputs[0]}.product" if bias else node.outputs[0]
    plain = replace(node, op_type="MatMul", domain="", opset=17, attributes={})
    builder.lower(builder, replace(plain, inputs=(node.input(0), weight), outputs=(product,)))
    if bias:
        builder.lower(builder, replace(plain, op_type="Add", inputs=(product, bias)))
    return builder.symbols[node.outputs[0]]


def _unpack(packed: Array, bits: int, rows: int, columns: int, asked: str) -> Array:
    """Return unsigned codes (rows, columns).

    Each packed row starts at a byte of its own.
    """
    per_byte = 8 // bits
    row_bytes = -(-columns // per_byte)
    if packed.size != rows * row_bytes:
        found = f"its packed tensor has {packed.size} bytes, and {rows} x {row_bytes} are needed"
        raise ModelError(asked, found, "Export the model again")
    parts = packed.reshape(rows, row_bytes, 1) >> (np.arange(per_byte, dtype=np.uint8) * bits)
    return np.asarray((parts & ((1 << bits) - 1)).reshape(rows, -1)[:, :columns].astype(np.int32))
