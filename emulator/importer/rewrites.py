"""Operators that are another spelling of ONNX operators.

One node becomes several before lowering.

A QLinear operator is written as DequantizeLinear, the operator, and QuantizeLinear, whose meaning it has. The lowering makes
one integer layer of them, with exactly QOperator's epilogue:

    rint(float32(acc) * M) + zero_point, M = float32(float32(s_x * s_w) / s_y)

A bias is int32 with the scale s_x * s_w.

QONNX's channels-last operators are transposed, run in ONNX's order, and transposed back. A tensor between two of them is
known in ONNX order already, so nothing is transposed twice; dead layers are dropped at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from weakcell.emulator.importer import transformer_rewrites
from weakcell.emulator.importer.linear import INT32_SUM
from weakcell.emulator.importer.node_writer import MICROSOFT, OPSET, NodeWriter
from weakcell.emulator.importer.pointwise import FUSED
from weakcell.emulator.importer.symbols import Node

_FUSED: dict[str, Any] = {FUSED: 1}
_INT32: dict[str, Any] = {INT32_SUM: 1}


# ── rewriting ───────────────────────────────────────────────────────────────────────────────────────


def _conv(w: NodeWriter) -> list[Node]:
    i = w.node.input
    parts = [w.dequantize(i(0), i(1), i(2)), w.dequantize(i(3), i(4), i(5), axis=0)]
    if i(8):
        parts.append(w.bias(i(8), (i(1), i(4))))
    return w.quantize(w.add("Conv", *parts, **w.node.attributes, **_INT32), i(6), i(7))


def _matmul(w: NodeWriter) -> list[Node]:
    i = w.node.input
    y = w.add("MatMul", w.dequantize(i(0), i(1), i(2)), w.dequantize(i(3), i(4), i(5), axis=-1), **_INT32)
    return w.quantize(y, i(6), i(7))


def _gemm(w: NodeWriter) -> list[Node]:
    """Rewrite com.microsoft QGemm.

    A, s, z, B, s, z, C, s, z. Without a scale of y its result is float.
    """
    i, given = w.node.input, w.node.attributes
    axis = 0 if given.get("transB", 0) else 1
    parts = [w.dequantize(i(0), i(1), i(2)), w.dequantize(i(3), i(4), i(5), axis=axis)]
    if i(6):
        parts.append(w.bias(i(6), (i(1), i(4))))
    if not i(7):
        w.add("Gemm", *parts, output=w.node.outputs[0], **given, **_INT32)
        return w.nodes
    return w.quantize(w.add("Gemm", *parts, **given, **_INT32), i(7), i(8))


def _add(w: NodeWriter) -> list[Node]:
    i = w.node.input
    total = w.add("Add", w.dequantize(i(0), i(1), i(2)), w.dequantize(i(3), i(4), i(5)), **_FUSED)
    return w.quantize(total, i(6), i(7))


def _unary(op_type: str) -> Callable[[NodeWriter], list[Node]]:
    def write(w: NodeWriter) -> list[Node]:
        """Return the nodes for one operator."""
        i = w.node.input
        return w.quantize(w.add(op_type, w.dequantize(i(0), i(1), i(2)), **w.node.attributes), i(3), i(4))

    return write


def _concat(w: NodeWriter) -> list[Node]:
    names = w.node.inputs
    parts = [w.dequantize(*names[k : k + 3]) for k in range(2, len(names) - 2, 3)]
    return w.quantize(w.add("Concat", *parts, **w.node.attributes), names[0], names[1])


def _where(w: NodeWriter) -> list[Node]:
    """Rewrite com.microsoft QLinearWhere: condition, x, s, z, y, s, z, s, z."""
    i = w.node.input
    return w.quantize(w.add("Where", i(0), w.dequantize(i(1), i(2), i(3)), w.dequantize(i(4), i(5), i(6))), i(7), i(8))


def _to_float(w: NodeWriter) -> list[Node]:
    """Rewrite com.microsoft MatMulIntegerToFloat: A, B, s_a, s_b, z_a, z_b, bias."""
    i = w.node.input
    acc = w.add("MatMulInteger", i(0), i(1), i(4), i(5))
    return _scaled(w, acc, i(2), i(3), i(6))


def _dynamic(w: NodeWriter) -> list[Node]:
    """Rewrite com.microsoft DynamicQuantizeMatMul: A, B, s_b, z_b, bias."""
    i, name = w.node.input, f"{w.node.outputs[0]}.quantized"
    quantized = (name, f"{name}.scale", f"{name}.zero")
    w.nodes.append(Node("DynamicQuantizeLinear", "", 11, w.node.name, (i(0),), quantized, {}))
    return _scaled(w, w.add("MatMulInteger", name, i(1), quantized[2], i(3)), quantized[1], i(2), i(4))


def _scaled(w: NodeWriter, acc: str, left: str, right: str, bias: str) -> list[Node]:
    last = w.node.outputs[0]
    y = w.add("Mul", w.add("Cast", acc, to=1), w.add("Mul", left, right), output="" if bias else last)
    if bias:
        w.add("Add", y, bias, output=last)
    return w.nodes


def _channels_first(op_type: str, domain: str = "") -> Callable[[NodeWriter], list[Node]]:
    """Return the rewrite of an operator on channels-last images, which onnxruntime's optimizer writes, with channels first."""

    def write(w: NodeWriter) -> list[Node]:
        """Return the nodes for one operator."""
        node, last = w.node, w.node.op_type.startswith("Nhwc") or bool(w.node.attributes.get("channels_last", 0))
        if not last:
            return [node] if domain else rewrite(replace(node, domain=domain, opset=OPSET))
        plain = {key: value for key, value in node.attributes.items() if key != "channels_last"}
        rank = 2 + len(plain.get("kernel_shape", (1, 1)))
        x, y = w.add("Transpose", node.input(0), perm=[0, rank - 1, *range(1, rank - 1)]), f"{node.outputs[0]}.first"
        w.nodes += rewrite(Node(op_type, domain, OPSET, node.name, (x, *node.inputs[1:]), (y,), plain))
        w.add("Transpose", y, output=node.outputs[0], perm=[0, *range(2, rank), 1])
        return w.nodes

    return write


REWRITES: dict[tuple[str, str], Callable[[NodeWriter], list[Node]]] = {
    **transformer_rewrites.REWRITES,
    ("", "QLinearConv"): _conv,
    ("", "QLinearMatMul"): _matmul,
    (MICROSOFT, "QGemm"): _gemm,
    (MICROSOFT, "QLinearAdd"): _add,
    (MICROSOFT, "QLinearLeakyRelu"): _unary("LeakyRelu"),
    (MICROSOFT, "QLinearSigmoid"): _unary("Sigmoid"),
    (MICROSOFT, "QLinearConcat"): _concat,
    (MICROSOFT, "QLinearConv"): _channels_first("QLinearConv"),
    (MICROSOFT, "NhwcMaxPool"): _channels_first("MaxPool"),
    (MICROSOFT, "QLinearAveragePool"): _channels_first("QLinearAveragePool", MICROSOFT),
    (MICROSOFT, "QLinearGlobalAveragePool"): _channels_first("QLinearGlobalAveragePool", MICROSOFT),
    (MICROSOFT, "QLinearWhere"): _where,
    (MICROSOFT, "MatMulIntegerToFloat"): _to_float,
    (MICROSOFT, "DynamicQuantizeMatMul"): _dynamic,
}


def rewrite(node: Node) -> list[Node]:
    """Return the nodes of the same meaning, or the node itself."""
    rewrite = REWRITES.get((node.domain, node.op_type))
    return [node] if rewrite is None else rewrite(NodeWriter(node))


# ── channels-last operators ────────────────────────────────────────────────────────────────────────


CHANNELS_LAST = "qonnx.channels_last"
_FORWARD, _BACK = [0, 3, 1, 2], [0, 2, 3, 1]
_POINTWISE = ("BipolarQuant", "Quant", "Trunc", "Relu", "Sign", "Clip", "Identity")
_AXES = {"MultiThreshold": {"data_layout": "NCHW"}}


@dataclass
class ChannelsLast:
    """Rewrites channels-last nodes, in the order of the graph.

    Attributes:
        channels_first: the tensor in ONNX order for each channels-last tensor.
    """

    scalars: frozenset[str]
    """Constants of one element: operands that mean the same in every order."""
    channels_first: dict[str, str] = field(default_factory=dict)

    def rewrite(self, node: Node) -> list[Node]:
        """Return the nodes of the same meaning, or the node itself."""
        if node.domain == CHANNELS_LAST:
            return self._run_channels_first(replace(node, domain=""), node.op_type == "Conv")
        x = node.input(0)
        if node.op_type == "Transpose" and list(node.attributes.get("perm", [])) == _BACK:
            self.channels_first[node.outputs[0]] = x
        elif node.op_type == "Transpose" and list(node.attributes.get("perm", [])) == _FORWARD and x in self.channels_first:
            return [replace(node, op_type="Identity", inputs=(self.channels_first[x],), attributes={})]
        elif (
            x in self.channels_first
            and node.op_type in _POINTWISE
            and all(name in self.scalars for name in node.inputs[1:] if name)
        ):
            return self._run_channels_first(node)
        elif node.op_type == "MultiThreshold" and _layout(node) == "NHWC":
            return self._run_channels_first(replace(node, attributes={**node.attributes, **_AXES["MultiThreshold"]}))
        return [node]

    def _run_channels_first(self, node: Node, weights: bool = False) -> list[Node]:
        """Run the node in ONNX order.

        With `weights`, its second input is (O, H, W, C) and transposed, too.
        """
        x, y, operands = node.input(0), node.outputs[0], node.inputs[1:]
        nodes, transposed = [], self.channels_first.get(x)
        if weights and operands:
            nodes.append(self._transpose(node, operands[0], f"{y}.weights", _FORWARD))
            operands = (f"{y}.weights", *operands[1:])
        if transposed is None:
            transposed = self.channels_first[x] = f"{x}.nchw"
            nodes.append(self._transpose(node, x, transposed, _FORWARD))
        result = self.channels_first[y] = f"{y}.nchw"
        nodes.append(replace(node, inputs=(transposed, *operands), outputs=(result,)))
        nodes.append(self._transpose(node, result, y, _BACK))
        return nodes

    def _transpose(self, node: Node, x: str, y: str, perm: list[int]) -> Node:
        return Node("Transpose", "", 13, f"{node.name}.turn", (x,), (y,), {"perm": perm})


def _layout(node: Node) -> str:
    value = node.attributes.get("data_layout", "")
    return value.decode() if isinstance(value, bytes) else str(value)
