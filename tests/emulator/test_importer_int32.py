"""Integer sums that leave int32: onnxruntime's operators wrap modulo 2^32, and so does the import.

Weights are uint8: with int8 weights onnxruntime itself saturates on processors without VNNI.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.emulator.models import Array, model, node, run
from tests.emulator.reference import evaluate
from weakcell.emulator.engine.executor import infer
from weakcell.emulator.importer import load
from weakcell.emulator.ir.layers import Convolution
from weakcell.emulator.ir.network import Network
from weakcell.emulator.margins import find_output_layer
from weakcell.emulator.plan.plan import compile_plan
from weakcell.memmodels.errors import ModelError

F, EDGE = np.float32, 1 << 31
TYPES = {"x": TensorProto.UINT8, "y": TensorProto.UINT8}


def microsoft(nodes: list[onnx.NodeProto], *rest: Any, **how: Any) -> onnx.ModelProto:
    """A model whose nodes may be of Microsoft's domain."""
    proto = model(nodes, *rest, **how)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


def outputs(network: Network, x: Array) -> Array:
    """The engine's output, which the numpy engine of the tests must give, too."""
    got = infer(compile_plan(network), {network.inputs[0]: x})[network.outputs[0]]
    np.testing.assert_array_equal(got, evaluate(network, {network.inputs[0]: x})[network.outputs[0]])
    return got


def wraps(network: Network) -> list[bool]:
    return [layer.wraps for layer in network.layers if isinstance(layer, Convolution)]


def convolution(bias: list[int]) -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    constants = {
        "sx": F(0.02), "zx": np.uint8(100), "w": rng.integers(0, 256, (len(bias), 2, 3, 3)).astype(np.uint8),
        "sw": rng.uniform(0.01, 0.02, len(bias)).astype(F), "zw": np.full(len(bias), 120, np.uint8),
        "sy": F(5000), "zy": np.uint8(128), "b": np.array(bias, np.int32),
    }  # fmt: skip
    one = node("QLinearConv", "x sx zx w sw zw sy zy b", "y", pads=[1, 1, 1, 1])
    return model([one], constants, {"x": ["N", 2, 6, 6]}, {"y": ["N", len(bias), 6, 6]}, types=TYPES)


near_the_end = st.one_of(st.integers(EDGE - 200_000, EDGE - 1), st.integers(-EDGE, -EDGE + 200_000), st.integers(-EDGE, EDGE - 1))


@settings(max_examples=12, deadline=None)
@given(st.lists(near_the_end, min_size=1, max_size=4), st.integers(0, 99))
def test_qlinearconv_wraps_as_onnxruntime(bias: list[int], seed: int) -> None:
    proto = convolution(bias)
    x = np.random.default_rng(seed).integers(0, 256, (3, 2, 6, 6)).astype(np.uint8)
    np.testing.assert_array_equal(outputs(load(proto), x), run(proto, {"x": x})[0])


def test_sums_that_cannot_leave_int32_do_not_wrap() -> None:
    assert wraps(load(convolution([EDGE - 10]))) == [True]
    assert wraps(load(convolution([1000]))) == [False]


@pytest.mark.parametrize("bias", [EDGE - 10, -EDGE + 5])
@pytest.mark.parametrize("real", [False, True])
def test_qgemm_wraps_as_onnxruntime(bias: int, real: bool) -> None:
    rng = np.random.default_rng(2)
    constants = {
        "sa": F(0.01), "za": np.uint8(3), "b": rng.integers(0, 256, (5, 64)).astype(np.uint8), "sb": F(0.01),
        "zb": np.uint8(128), "c": np.array([bias, 1, 2, bias, -7], np.int32),
    }  # fmt: skip
    ending = {} if real else {"sy": F(2000), "zy": np.uint8(128)}
    name = "x sa za b sb zb c" + "".join(f" {key}" for key in ending)
    one = helper.make_node("QGemm", name.split(), ["y"], "y", domain="com.microsoft", transB=1)
    types = {**TYPES, "y": TensorProto.FLOAT if real else TensorProto.UINT8}
    proto = microsoft([one], {**constants, **ending}, {"x": ["N", 64]}, {"y": ["N", 5]}, types=types)
    x = rng.integers(0, 256, (40, 64)).astype(np.uint8)
    network, want = load(proto), run(proto, {"x": x})[0]
    assert wraps(network) == [True]
    np.testing.assert_array_equal(outputs(network, x), want)
    with pytest.raises(ModelError, match="int32"):
        find_output_layer(network)


@pytest.mark.parametrize("integer", [False, True])
def test_long_sums_wrap_as_onnxruntime(integer: bool) -> None:
    """36,000 products of up to 255^2 leave int32 without any bias."""
    rng, terms = np.random.default_rng(3), 36_000
    w = rng.integers(245, 256, (terms, 3)).astype(np.uint8)
    x = rng.integers(245, 256, (4, terms)).astype(np.uint8)
    assert (x.astype(np.int64) @ w.astype(np.int64)).max() >= EDGE
    constants: dict[str, Array] = {"w": w}
    if integer:
        one = node("MatMulInteger", "x w", "y")
    else:
        one = node("QLinearMatMul", "x sx zx w sw zw sy zy", "y")
        scales = {"sx": F(0.01), "sw": F(0.01), "sy": F(2000)}
        constants |= {**scales, "zx": np.uint8(0), "zw": np.uint8(0), "zy": np.uint8(128)}
    types = {**TYPES, "y": TensorProto.INT32 if integer else TensorProto.UINT8}
    proto = model([one], constants, {"x": ["N", terms]}, {"y": ["N", 3]}, types=types)
    network = load(proto)
    assert wraps(network) == [True]
    np.testing.assert_array_equal(outputs(network, x), run(proto, {"x": x})[0])


@pytest.mark.parametrize("operator", ["Conv", "Gemm", "MatMul"])
@pytest.mark.parametrize("bias", [EDGE - 10, -EDGE + 5, 1000])
def test_a_sum_of_dequantized_numbers_never_wraps(operator: str, bias: int) -> None:
    """Scales are powers of two: float32 holds the products, and rounds at the bias as onnxruntime does."""
    rng = np.random.default_rng(6)
    shape = (3, 2, 3, 3) if operator == "Conv" else (8, 3)
    constants = {
        "sx": F(0.5), "zx": np.uint8(100), "w": rng.integers(-128, 128, shape).astype(np.int8), "sw": F(0.25),
        "b": np.array([bias, 3, -bias], np.int32), "sb": F(0.125), "sy": F(2.0**21), "zy": np.uint8(128),
    }  # fmt: skip
    nodes = [node("QuantizeLinear", "x sx zx", "q"), node("DequantizeLinear", "q sx zx", "a")]
    nodes += [node("DequantizeLinear", "w sw", "f"), node("DequantizeLinear", "b sb", "c")]
    if operator == "MatMul":
        nodes += [node("MatMul", "a f", "m"), node("Add", "m c", "h")]
    else:
        nodes.append(node(operator, "a f c", "h"))
    nodes += [node("QuantizeLinear", "h sy zy", "y")]
    size = (2, 5, 5) if operator == "Conv" else (8,)
    out = ["N", 3, None, None] if operator == "Conv" else ["N", 3]
    proto = model(nodes, constants, {"x": ["N", *size]}, {"y": out}, types={"y": TensorProto.UINT8})
    x = rng.normal(0, 20, (6, *size)).astype(F)
    network = load(proto)
    assert network.weight_bits == 8 * np.prod(shape)
    np.testing.assert_array_equal(outputs(network, x), run(proto, {"x": x})[0])


# ── scales of QLinearMatMul ─────────────────────────────────────────────────────────────────────────


def product(b_shape: tuple[int, ...], a_shape: tuple[int, ...] = (), rows: int = 9) -> onnx.ModelProto:
    rng = np.random.default_rng(4)
    constants = {
        "sa": np.full(a_shape, 0.02, F), "za": np.full(a_shape, 7, np.uint8), "b": rng.integers(0, 256, (rows, 5)).astype(np.uint8),
        "sb": rng.uniform(0.01, 0.03, b_shape).astype(F), "zb": rng.integers(90, 130, b_shape).astype(np.uint8),
        "sy": F(0.1), "zy": np.uint8(128),
    }  # fmt: skip
    one = node("QLinearMatMul", "x sa za b sb zb sy zy", "y")
    return model([one], constants, {"x": ["N", rows]}, {"y": ["N", 5]}, types=TYPES)


@pytest.mark.parametrize("shape", [(1, 5), (5,), (1,), ()])
@pytest.mark.parametrize("a_shape", [(), (1,)])
def test_scales_of_columns_in_any_shape(shape: tuple[int, ...], a_shape: tuple[int, ...]) -> None:
    proto = product(shape, a_shape)
    x = np.random.default_rng(5).integers(0, 256, (6, 9)).astype(np.uint8)
    network = load(proto)
    assert network.weight_bits == 9 * 5 * 8
    np.testing.assert_array_equal(outputs(network, x), run(proto, {"x": x})[0])


@pytest.mark.parametrize(
    ("b_shape", "a_shape", "rows"),
    [((9, 1), (), 9), ((5, 1), (), 5), ((3,), (), 9), ((), (6, 1), 9), ((), (6,), 9), ((), (9,), 9), ((), (9, 1), 9)],
)
def test_scales_of_rows_are_refused(b_shape: tuple[int, ...], a_shape: tuple[int, ...], rows: int) -> None:
    """onnxruntime refuses them as well; with as many rows as columns they must not pass for scales of columns."""
    with pytest.raises(ModelError, match=r"scale|along the batch"):
        load(product(b_shape, a_shape, rows))
