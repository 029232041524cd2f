"""The QOperator dialect: each QLinear operator is what DequantizeLinear, the operator and QuantizeLinear say, so it is written so.

The lowering makes one integer layer of such a triple, with exactly QOperator's epilogue: rint(float32(acc) * M) + zero_point,
M = float32(float32(s_x * s_w) / s_y). A bias is int32 on the grid s_x * s_w. Operators of Microsoft's domain
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md) that round in a way of their own have own layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer.builder import NetworkBuilder, ValueRange
from weakcell.emulator.importer.folding import integer_encoding
from weakcell.emulator.importer.integer_ops import codes_operator, materialize_codes
from weakcell.emulator.importer.linear import INT32_SUM
from weakcell.emulator.importer.pointwise import FUSED
from weakcell.emulator.importer.qdq import parameters, read_quantized_input
from weakcell.emulator.importer.symbols import INTEGER_RANKS, Codes, Node, Symbol, scalar
from weakcell.emulator.ir.layers import MulCodes, Requantize, SumPool, ValueSpec, Window
from weakcell.memmodels.errors import ModelError

MICROSOFT = "com.microsoft"
_FUSED: dict[str, Any] = {FUSED: 1}
_INT32: dict[str, Any] = {INT32_SUM: 1}


# ── rewriting ───────────────────────────────────────────────────────────────────────────────────────


class _NodeWriter:
    """Collects the nodes that stand for one node; tensors in between are named after its output."""

    def __init__(self, node: Node) -> None:
        self.node, self.nodes = node, list[Node]()

    def add(self, op_type: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{self.node.outputs[0]}.{len(self.nodes)}"
        opset = self.node.opset if not self.node.domain else 21
        self.nodes.append(Node(op_type, "", opset, self.node.name, inputs, (output,), attributes))
        return output

    def dequantize(self, x: str, scale: str, zero: str, **attributes: Any) -> str:
        """A dequantized operand. Activations have one scale: axis 0, the batch, makes the lowering refuse several."""
        return self.add("DequantizeLinear", x, scale, *([zero] if zero else []), **{"axis": 0, **attributes})

    def bias(self, bias: str, scales: tuple[str, str]) -> str:
        """An int32 bias on the grid of the sums."""
        product = self.add("Mul", *scales)
        return self.add("DequantizeLinear", bias, self.add("Reshape", product, self.minus_one()), axis=0)

    def minus_one(self) -> str:
        return self.add("Constant", value=np.array([-1], np.int64))

    def quantize(self, y: str, scale: str, zero: str) -> list[Node]:
        self.add("QuantizeLinear", y, scale, *([zero] if zero else []), output=self.node.outputs[0], axis=0)
        return self.nodes


def _conv(w: _NodeWriter) -> list[Node]:
    i = w.node.input
    parts = [w.dequantize(i(0), i(1), i(2)), w.dequantize(i(3), i(4), i(5), axis=0)]
    if i(8):
        parts.append(w.bias(i(8), (i(1), i(4))))
    return w.quantize(w.add("Conv", *parts, **w.node.attributes, **_INT32), i(6), i(7))


def _matmul(w: _NodeWriter) -> list[Node]:
    i = w.node.input
    y = w.add("MatMul", w.dequantize(i(0), i(1), i(2)), w.dequantize(i(3), i(4), i(5), axis=-1), **_INT32)
    return w.quantize(y, i(6), i(7))


def _gemm(w: _NodeWriter) -> list[Node]:
    """com.microsoft QGemm: A, s, z, B, s, z, C, s, z; without a y scale its result is float."""
    i, given = w.node.input, w.node.attributes
    axis = 0 if given.get("transB", 0) else 1
    parts = [w.dequantize(i(0), i(1), i(2)), w.dequantize(i(3), i(4), i(5), axis=axis)]
    if i(6):
        parts.append(w.bias(i(6), (i(1), i(4))))
    if not i(7):
        w.add("Gemm", *parts, output=w.node.outputs[0], **given, **_INT32)
        return w.nodes
    return w.quantize(w.add("Gemm", *parts, **given, **_INT32), i(7), i(8))


def _add(w: _NodeWriter) -> list[Node]:
    i = w.node.input
    total = w.add("Add", w.dequantize(i(0), i(1), i(2)), w.dequantize(i(3), i(4), i(5)), **_FUSED)
    return w.quantize(total, i(6), i(7))


def _unary(op_type: str) -> Callable[[_NodeWriter], list[Node]]:
    def write(w: _NodeWriter) -> list[Node]:
        i = w.node.input
        return w.quantize(w.add(op_type, w.dequantize(i(0), i(1), i(2)), **w.node.attributes), i(3), i(4))

    return write


def _concat(w: _NodeWriter) -> list[Node]:
    names = w.node.inputs
    parts = [w.dequantize(*names[k : k + 3]) for k in range(2, len(names) - 2, 3)]
    return w.quantize(w.add("Concat", *parts, **w.node.attributes), names[0], names[1])


def _to_float(w: _NodeWriter) -> list[Node]:
    """com.microsoft MatMulIntegerToFloat: A, B, s_a, s_b, z_a, z_b, bias."""
    i = w.node.input
    acc = w.add("MatMulInteger", i(0), i(1), i(4), i(5))
    return _scaled(w, acc, i(2), i(3), i(6))


def _dynamic(w: _NodeWriter) -> list[Node]:
    """com.microsoft DynamicQuantizeMatMul: A, B, s_b, z_b, bias."""
    i, name = w.node.input, f"{w.node.outputs[0]}.quantized"
    quantized = (name, f"{name}.scale", f"{name}.zero")
    w.nodes.append(Node("DynamicQuantizeLinear", "", 11, w.node.name, (i(0),), quantized, {}))
    return _scaled(w, w.add("MatMulInteger", name, i(1), quantized[2], i(3)), quantized[1], i(2), i(4))


def _scaled(w: _NodeWriter, acc: str, left: str, right: str, bias: str) -> list[Node]:
    last = w.node.outputs[0]
    y = w.add("Mul", w.add("Cast", acc, to=1), w.add("Mul", left, right), output="" if bias else last)
    if bias:
        w.add("Add", y, bias, output=last)
    return w.nodes


_REWRITES: dict[tuple[str, str], Callable[[_NodeWriter], list[Node]]] = {
    ("", "QLinearConv"): _conv,
    ("", "QLinearMatMul"): _matmul,
    (MICROSOFT, "QGemm"): _gemm,
    (MICROSOFT, "QLinearAdd"): _add,
    (MICROSOFT, "QLinearLeakyRelu"): _unary("LeakyRelu"),
    (MICROSOFT, "QLinearSigmoid"): _unary("Sigmoid"),
    (MICROSOFT, "QLinearConcat"): _concat,
    (MICROSOFT, "MatMulIntegerToFloat"): _to_float,
    (MICROSOFT, "DynamicQuantizeMatMul"): _dynamic,
}


def rewrite(node: Node) -> list[Node]:
    """The nodes that mean the same, or the node itself."""
    rewrite = _REWRITES.get((node.domain, node.op_type))
    return [node] if rewrite is None else rewrite(_NodeWriter(node))


# ── operators with a rounding of their own ──────────────────────────────────────────────────────────


def _target(builder: NetworkBuilder, node: Node, index: int) -> tuple[ValueSpec, ValueRange]:
    scale, zero, dtype = parameters(builder, node, index)
    encoding = integer_encoding(np.dtype(dtype or "uint8"))
    if scale.ndim or encoding is None:
        raise ModelError(f"Importing {node}", f"it quantizes to {dtype} with {scale.size} scales", "Use 8 bits and one scale")
    return ValueSpec(builder.unique_name(node.outputs[0]), "codes", (), dtype or "uint8", scale, zero), ValueRange(
        encoding.low, encoding.high
    )


def lower_multiply(builder: NetworkBuilder, node: Node) -> Symbol:
    """QLinearMul of two tensors of codes; with a constant, by the floats that it means."""
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
    """The product in float32, by the lowering of Mul; exact but for the order of two float multiplications."""
    w = _NodeWriter(node)
    i = node.input
    w.quantize(w.add("Mul", w.dequantize(i(0), i(1), i(2)), w.dequantize(i(3), i(4), i(5))), i(6), i(7))
    for part in w.nodes:
        builder.lower(builder, part)
    return builder.symbols[node.outputs[0]]


def lower_global_average(builder: NetworkBuilder, node: Node) -> Symbol:
    """QLinearGlobalAveragePool: an integer sum, then one multiplication by s_x / (s_y * count)."""
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
    """QLinearAveragePool and QLinearSoftmax: onnxruntime's own arithmetic, on codes, by the table of operators."""
    source = builder.symbol(node.input(0))
    if not isinstance(source, Codes) or len(source.shape) not in INTEGER_RANKS:
        raise ModelError(f"Importing {node}", "its input is no image of codes", "Quantize the tensor before")
    source = materialize_codes(builder, source, node)
    target, value_range = _target(builder, node, 3)
    constants = [builder.constant(node, i) for i in range(1, 5)]
    operands = [None, *(onnx_ops.ABSENT if c is None else c.array for c in constants)]
    return codes_operator(builder, node, [source], operands, target, value_range)


LOWERINGS: dict[str, Callable[[NetworkBuilder, Node], Symbol]] = {
    "QLinearAveragePool": lower_codes,
    "QLinearGlobalAveragePool": lower_global_average,
    "QLinearMul": lower_multiply,
    "QLinearSoftmax": lower_codes,
}
