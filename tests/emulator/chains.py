"""Random chains of ONNX operators behind every kind of value that the importer knows, drawn with hypothesis.

A chain begins with a value that the importer stores as bits, ternary codes, 8- or 16-bit codes, int32 sums or floats.
One to six
operators follow, then an output or another layer. Constants and scales are multiples of powers of two, so sums are exact in
float32 in any order. `inexact` marks a number that is not (0.1, Sigmoid, 1/3). After a sum of such numbers, `rounded`
says that
only a tolerance holds, and that no discontinuous operator may follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray
Draw = Callable[[Any], Any]

IMAGE, SEQUENCE, VECTOR = (3, 4, 5), (3, 6), (6,)
CODES = ("int8", "uint8", "int16", "uint16")
_TYPES = {"bool": TensorProto.BOOL, "int8": TensorProto.INT8, "uint8": TensorProto.UINT8, "int16": TensorProto.INT16,
          "uint16": TensorProto.UINT16, "float32": TensorProto.FLOAT}  # fmt: skip
_DYADIC = [-2.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 1.5, 3.0]


@dataclass
class Chain:
    """A graph under construction.

    Attributes:
        x: the last tensor.
        shape: its shape without the batch.
    """

    draw: Draw
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    x: str = "x"
    shape: tuple[int, ...] = IMAGE
    input_shape: tuple[int, ...] = IMAGE
    input_type: str = "float32"
    inexact: bool = False
    rounded: bool = False
    outputs: dict[str, str] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    grid: tuple[Any, Any] = (np.float32(1), np.uint8(0))

    def add(self, op_type: str, *inputs: Any, shape: tuple[int, ...] | None = None, **attributes: Any) -> str:
        """Append a node behind `x`. Arrays among its other inputs become initializers."""
        names = [self.x]
        for value in inputs:
            names.append(value if isinstance(value, str) else self.constant(value))
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, names, [name], name, **attributes))
        self.x, self.shape = name, self.shape if shape is None else shape
        self.words.append(op_type)
        return name

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def number(self, choices: list[float]) -> Array:
        """Draw one number, or one per channel."""
        if self.draw(st.booleans()):
            return np.float32(self.draw(st.sampled_from(choices)))
        numbers = self.random().choice(np.array(choices, np.float32), self.shape[0])
        return numbers.reshape(-1, *[1] * (len(self.shape) - 1))

    def random(self) -> np.random.Generator:
        return np.random.default_rng(self.draw(st.integers(0, 999)))

    def model(self) -> onnx.ModelProto:
        """Return the graph with the last tensor and all requested tensors as outputs."""
        outputs = {**self.outputs, self.x: self.outputs.get(self.x, "float32")}
        graph = helper.make_graph(
            self.nodes,
            "chain",
            [helper.make_tensor_value_info("x", _TYPES[self.input_type], ["N", *self.input_shape])],
            [helper.make_tensor_value_info(name, _TYPES[dtype], None) for name, dtype in outputs.items()],
            [numpy_helper.from_array(np.asarray(a, order="C"), n) for n, a in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)

    def data(self, images: int = 6) -> Array:
        rng = self.random()
        size = (images, *self.input_shape)
        if self.input_type != "float32":
            info = np.iinfo(self.input_type)
            return rng.integers(info.min, info.max + 1, size).astype(self.input_type)
        return rng.integers(-12, 13, size).astype(np.float32)


# ── where a chain begins ────────────────────────────────────────────────────────────────────────────


def _signs(c: Chain, shape: tuple[int, ...]) -> Array:
    return c.random().choice(np.array([-1.0, 1.0], np.float32), shape)


def sum_layer(c: Chain, integers: bool) -> None:
    """Append a Conv or a MatMul with ±1 weights, or with int8 weights of positive and negative scales."""
    c.rounded |= c.inexact
    conv, pads = len(c.shape) > 1, 0
    out = c.draw(st.sampled_from([2, 3, 4]))
    if conv:
        k = min(c.draw(st.sampled_from([1, 2])), *c.shape[1:])
        pads = c.draw(st.sampled_from([0, 1]))
        size, axis = (out, c.shape[0], *[k] * (len(c.shape) - 1)), 0
        shape = (out, *(n + 2 * pads - k + 1 for n in c.shape[1:]))
    else:
        size, axis, shape = (c.shape[0], out), 1, (out,)
    if integers:
        scale = np.float32(c.draw(st.sampled_from([0.25, 1.0, -0.5])))
        if c.draw(st.booleans()):
            scale = np.array([0.25, -1.0, 0.0, 2.0], np.float32)[:out]
        weight = c.constant(c.random().integers(-5, 6, size).astype(np.int8))
        held, c.x = c.x, weight
        real = c.add("DequantizeLinear", scale, axis=axis)
        c.x = held
    else:
        real = c.constant(_signs(c, size))
    if conv:
        c.add("Conv", real, shape=shape, pads=[pads] * 2 * (len(c.shape) - 1))
    else:
        c.add("MatMul", real, shape=shape)


def begin_integer_sum(c: Chain) -> None:
    """Begin with MatMulInteger or ConvInteger of codes, as floats."""
    begin_codes(c, ("int8", "uint8"))
    zero = c.grid[1]
    c.nodes.pop()
    c.words.pop()
    c.x = c.nodes[-1].output[0]
    conv, out = len(c.shape) == 3, c.draw(st.sampled_from([2, 3]))
    size = (out, c.shape[0], 2, 2) if conv else (c.shape[0], out)
    if len(c.shape) == 2:
        size = (c.shape[1], out)
    shape = (out, *(n - 1 for n in c.shape[1:])) if conv else (*c.shape[:-1], out)
    weight = c.random().integers(-5, 6, size).astype(np.int8)
    # onnxruntime has no kernels for signed codes in convolutions
    if conv and zero.dtype == np.int8:
        c.add("Cast", to=TensorProto.UINT8)
        zero = zero.astype(np.uint8)
    c.add("ConvInteger" if conv else "MatMulInteger", weight, zero, shape=shape)
    c.add("Cast", to=TensorProto.FLOAT)


def begin_q_operator(c: Chain) -> None:
    """Begin with QLinearConv or QLinearMatMul, whose sums are codes."""
    begin_codes(c, ("uint8",))
    scale, zero = c.grid
    c.nodes.pop()
    c.words.pop()
    c.x = c.nodes[-1].output[0]
    conv, out = len(c.shape) == 3, c.draw(st.sampled_from([2, 3]))
    size = (out, c.shape[0], 2, 2) if conv else (c.shape[-1], out)
    shape = (out, *(n - 1 for n in c.shape[1:])) if conv else (*c.shape[:-1], out)
    weight = c.random().integers(-5, 6, size).astype(np.int8)
    after = (np.float32(c.draw(st.sampled_from([1.0, 4.0]))), np.uint8(c.draw(st.sampled_from([0, 90]))))
    c.add("QLinearConv" if conv else "QLinearMatMul", scale, zero, weight, np.float32(0.5), np.int8(0), *after, shape=shape)
    c.add("DequantizeLinear", *after)


def begin_bits(c: Chain) -> None:
    """Begin with bits: a comparison of integer sums."""
    sum_layer(c, False)
    compare(c)


def begin_ternary(c: Chain) -> None:
    """Begin with the codes -1, 0, 1: the sign of sums that can be 0."""
    sum_layer(c, False)
    c.add("Sign")


def begin_codes(c: Chain, types: tuple[str, ...] = CODES) -> None:
    quantize(c, types)
    c.add("DequantizeLinear", *c.grid)


def begin_input_codes(c: Chain) -> None:
    """Begin with a graph input of an integer type."""
    c.input_type = c.draw(st.sampled_from(["uint8", "int8", "int16", "uint16"]))
    zero = np.asarray(c.draw(st.sampled_from([0, 3])), c.input_type)
    c.add("DequantizeLinear", np.float32(c.draw(st.sampled_from([0.25, 1.0]))), zero)


def begin_sums(c: Chain) -> None:
    sum_layer(c, False)


def begin_quantized_sums(c: Chain) -> None:
    begin_codes(c)
    sum_layer(c, True)


def begin_floats(c: Chain) -> None:
    c.add("Identity")
    c.add("Add", np.float32(0.5))


BEGINNINGS = [
    begin_bits, begin_ternary, begin_codes, begin_input_codes, begin_sums, begin_quantized_sums, begin_integer_sum,
    begin_q_operator, begin_floats,
]  # fmt: skip


# ── operators ───────────────────────────────────────────────────────────────────────────────────────


def arithmetic(c: Chain) -> None:
    op = c.draw(st.sampled_from(["Mul", "Add", "Sub", "Div", "Max", "Min"]))
    if op == "Div":
        c.add(op, c.number([-2.0, 0.5, 4.0]))
    else:
        c.add(op, c.number(_DYADIC))


def tenth(c: Chain) -> None:
    """Append a number that is no multiple of a power of two, and ties that its rounding decides."""
    c.inexact = True
    c.add(c.draw(st.sampled_from(["Add", "Mul", "Div"])), c.number([0.1, -0.3, 1 / 3, 0.7]))


def from_constant(c: Chain) -> None:
    """Append constant - x."""
    name = c.constant(c.number(_DYADIC))
    held, c.x = c.x, name
    c.add("Sub", held)


def unary(c: Chain) -> None:
    op = c.draw(st.sampled_from(["Relu", "Neg", "Clip", "Identity", "Abs"]))
    limits = (np.float32(-1), np.float32(c.draw(st.sampled_from([0.5, 1.0])))) if op == "Clip" else ()
    c.add(op, *limits)


def curve(c: Chain) -> None:
    c.inexact = True
    c.add(c.draw(st.sampled_from(["LeakyRelu", "HardSigmoid"])))


def norm(c: Chain) -> None:
    """Append a batch norm with variance 1 and no epsilon.

    Its factors are multiples of powers of two.
    """
    rng, n = c.random(), c.shape[0]
    gamma, beta, mean = (rng.choice(np.array(_DYADIC, np.float32), n) for _ in range(3))
    c.add("BatchNormalization", gamma, beta, mean, np.ones(n, np.float32), epsilon=0.0)


def pool(c: Chain) -> None:
    if len(c.shape) < 2 or min(c.shape[1:]) < 2:
        return
    rank, pads = len(c.shape) - 1, c.draw(st.sampled_from([0, 1]))
    shape = (c.shape[0], *(n + 2 * pads - 1 for n in c.shape[1:]))
    op = c.draw(st.sampled_from(["MaxPool", "MaxPool", "AveragePool"]))
    more = {"count_include_pad": 1} if op == "AveragePool" else {}
    c.rounded |= c.inexact and op == "AveragePool"
    c.add(op, shape=shape, kernel_shape=[2] * rank, pads=[pads] * 2 * rank, **more)


def whole(c: Chain) -> None:
    if len(c.shape) > 1:
        op = c.draw(st.sampled_from(["GlobalMaxPool", "GlobalAveragePool"]))
        if op == "GlobalAveragePool":
            if c.rounded or math.log2(math.prod(c.shape[1:])) % 1:
                return
            c.rounded |= c.inexact
        c.add(op, shape=(c.shape[0], *[1] * (len(c.shape) - 1)))


def pad(c: Chain) -> None:
    if len(c.shape) < 2 or max(c.shape[1:]) > 8:
        return
    rest = len(c.shape) - 2
    shape = (c.shape[0], c.shape[1] + 1, *(n + 1 for n in c.shape[2:]))
    value = np.float32(c.draw(st.sampled_from([0.0, 0.0, 1.0, -0.5])))
    c.add("Pad", np.array([0, 0, 1, *[0] * rest, 0, 0, 0, *[1] * rest], np.int64), value, shape=shape)


def move(c: Chain) -> None:
    """Append Flatten, Reshape, Transpose, Slice, Concat or Gather."""
    way = c.draw(st.sampled_from(["flatten", "reshape", "transpose", "slice", "concat", "gather"]))
    size = math.prod(c.shape)
    if way == "flatten":
        c.add("Flatten", shape=(size,))
    elif way == "reshape":
        shape = (c.shape[0], size // c.shape[0], 1) if c.draw(st.booleans()) else (c.shape[0], size // c.shape[0])
        c.add("Reshape", np.array([-1 if c.draw(st.booleans()) else 0, *shape], np.int64), shape=shape)
    elif way == "transpose" and len(c.shape) == 3:
        c.add("Transpose", perm=[0, 2, 3, 1], shape=(c.shape[1], c.shape[2], c.shape[0]))
    elif way == "transpose" and len(c.shape) == 2:
        c.add("Transpose", perm=[0, 2, 1], shape=c.shape[::-1])
    elif way == "slice" and c.shape[0] > 1:
        c.add("Slice", *(np.array([n], np.int64) for n in (1, 1 << 20, 1)), shape=(c.shape[0] - 1, *c.shape[1:]))
    elif way == "concat" and size < 200:
        c.add("Concat", c.x, axis=1, shape=(2 * c.shape[0], *c.shape[1:]))
    elif way == "gather":
        c.add("Gather", np.array([c.shape[0] - 1, 0], np.int64), axis=1, shape=(2, *c.shape[1:]))


def sign(c: Chain) -> None:
    if not c.rounded:
        c.add("Sign")
        c.inexact = False


def larq(c: Chain) -> None:
    """Append Larq's binarizer as tf2onnx writes it."""
    if not c.rounded:
        c.add("Sign")
        c.add("Add", np.float32(0.1))
        c.add("Sign")
        c.inexact = False


def compare(c: Chain) -> None:
    """Append a comparison with one number, or one per channel, with two levels."""
    if c.rounded:
        return
    op = c.draw(st.sampled_from(["Greater", "GreaterOrEqual", "Less", "LessOrEqual"]))
    pivot = c.number([-0.5, 0.0, 0.0, 1.0])
    if c.draw(st.booleans()):
        c.add(op, pivot)
    else:
        held, c.x = c.x, c.constant(pivot)
        c.add(op, held)
    c.inexact = False
    if c.draw(st.booleans()):
        c.add("Cast", to=TensorProto.FLOAT)
    else:
        levels = c.draw(st.sampled_from([(1.0, -1.0), (1.0, -1.0), (-1.0, 1.0), (0.5, 0.5), (0.7, 0.1), (-2.0, 3.0), (0.0, 1.0)]))
        c.inexact = levels == (0.7, 0.1)
        c.add("Where", *(np.float32(level) for level in levels))


def quantize(c: Chain, types: tuple[str, ...] = CODES) -> None:
    """Append QuantizeLinear; `grid` is what a DequantizeLinear needs."""
    dtype = c.draw(st.sampled_from(types))
    scale = np.float32(c.draw(st.sampled_from([0.25, 0.5, 1.0, 2.0])))
    zero = np.asarray(c.draw(st.sampled_from([0, 0, 5, 100])), dtype)
    c.grid = (scale, zero)
    c.add("QuantizeLinear", scale, zero)


def on_a_grid(c: Chain) -> None:
    """Append QuantizeLinear, an operator on integers, and DequantizeLinear."""
    if c.rounded:
        return
    quantize(c)
    scale, zero = c.grid
    way = c.draw(st.sampled_from(["none", "none", "move", "pool", "clip", "again"]))
    if way == "move":
        move(c)
    elif way == "pool" and len(c.shape) == 3 and min(c.shape[1:]) > 1 and zero.dtype.itemsize == 1:
        c.add("MaxPool", kernel_shape=[2, 2], shape=(c.shape[0], c.shape[1] - 1, c.shape[2] - 1))
    elif way == "clip" and zero.dtype.itemsize == 1:
        c.add("Clip", zero, np.asarray(int(zero) + c.draw(st.sampled_from([1, 20])), zero.dtype))
    elif way == "again":
        c.add("DequantizeLinear", scale, zero)
        c.add("QuantizeLinear", scale, zero)
    c.add("DequantizeLinear", scale, zero)
    c.inexact = False


def layer(c: Chain) -> None:
    sum_layer(c, c.draw(st.booleans()))


OPERATORS = [
    arithmetic, arithmetic, tenth, from_constant, unary, unary, curve, norm, norm, pool, pool, whole, pad, pad, move, move, sign,
    larq, larq, compare, compare, on_a_grid, on_a_grid, layer,
]  # fmt: skip


# ── where a chain ends ──────────────────────────────────────────────────────────────────────────────


def end_in_layer(c: Chain) -> None:
    layer(c)


def end_in_truth(c: Chain) -> None:
    if not c.rounded:
        c.add("Greater", np.float32(0.25))
        c.outputs[c.x] = "bool"


def end_in_codes(c: Chain) -> None:
    if not c.rounded:
        quantize(c)
        c.outputs[c.x] = str(c.grid[1].dtype)


def end_as_it_is(c: Chain) -> None:
    c.add("Identity")


ENDS = [end_in_layer, end_in_layer, end_in_truth, end_in_codes, end_as_it_is]


@st.composite
def chains(draw: Draw, beginnings: Any = None) -> tuple[Chain, Array]:
    """Draw a chain, and data for it."""
    c = Chain(draw)
    c.shape = c.input_shape = draw(st.sampled_from([IMAGE, IMAGE, SEQUENCE, VECTOR]))
    draw(st.sampled_from(beginnings or BEGINNINGS))(c)
    if draw(st.booleans()):
        c.outputs[c.x] = "float32"
    for _ in range(draw(st.integers(1, 6))):
        draw(st.sampled_from(OPERATORS))(c)
    draw(st.sampled_from(ENDS))(c)
    return c, c.data()
