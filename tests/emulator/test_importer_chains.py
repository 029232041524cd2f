"""Operators behind every kind of value.

Outputs equal onnxruntime's with all optimizations off.

They are equal bit by bit. Only sums of numbers that are no multiples of a power of two depend on their order: there,
1e-5 of the
value and 1e-4 are allowed (`Chain.rounded`).
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from onnx import TensorProto, helper
from torch import nn

from tests.emulator.chains import Chain, begin_bits, begin_ternary, chains
from tests.emulator.models import exported, model, node, run
from tests.emulator.reference import evaluate
from weakcell.emulator.engine.executor import infer
from weakcell.emulator.importer import load
from weakcell.emulator.importer.builder import NetworkBuilder
from weakcell.emulator.ir.layers import AveragePool, Binarize, Convolution, CountThresholds, LookUp, TernarySign, Threshold
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.operators import FloatOperator
from weakcell.emulator.ir.values import ValueSpec
from weakcell.emulator.plan.plan import compile_plan
from weakcell.memmodels.errors import ModelError

Array = np.ndarray


def check_outputs(proto: onnx.ModelProto, x: Array, rounded: bool = False) -> Network:
    """Compare the engine and the NumPy reference with onnxruntime."""
    names = [output.name for output in proto.graph.output]
    network = load(proto)
    theirs = run(proto, {"x": x}, names)
    made, plain = infer(compile_plan(network), {"x": x}), evaluate(network, {"x": x})
    for name, expected in zip(names, theirs, strict=True):
        assert made[name].dtype == expected.dtype, name
        for ours in (made[name], plain[name]):
            if rounded:
                np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-4, err_msg=name)
            else:
                np.testing.assert_array_equal(ours, expected, err_msg=name)
    return network


@settings(max_examples=100, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(chains())
def test_chains_equal_onnxruntime(drawn: tuple[Chain, Array]) -> None:
    chain, x = drawn
    check_outputs(chain.model(), x, chain.rounded)


@settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(chains([begin_bits, begin_ternary]))
def test_chains_behind_signs_equal_onnxruntime(drawn: tuple[Chain, Array]) -> None:
    chain, x = drawn
    check_outputs(chain.model(), x, chain.rounded)


# ── signs of signs ──────────────────────────────────────────────────────────────────────────────────


def signs(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.float32), shape)


def pixels(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(np.float32)


@pytest.mark.parametrize("terms", [7, 8], ids=["sums that are never 0", "sums that can be 0"])
def test_larq_binarizer_is_one_threshold(terms: int) -> None:
    """sign(sign(x) + 0.1) of a sum of ±1: the first sign and the second are one comparison, x >= 0."""
    nodes = [
        node("MatMul", "x w", "a"), node("Sign", "a", "b"), node("Add", "b tenth", "c"), node("Sign", "c", "d"),
        node("MatMul", "d v", "e"), node("Sign", "e", "f"), node("Add", "f tenth", "g"), node("Sign", "g", "h"),
        node("MatMul", "h u", "y"),
    ]  # fmt: skip
    constants = {"w": signs(0, 5, terms), "v": signs(1, terms, 9), "u": signs(2, 9, 4), "tenth": np.float32(0.1)}
    network = check_outputs(model(nodes, constants, {"x": ["N", 5]}, {"y": ["N", 4]}), pixels(3, 400, 5))
    assert [type(layer).__name__ for layer in network.layers] == [
        "Convolution", "Threshold", "Convolution", "Threshold", "Convolution", "Dequantize",
    ]  # fmt: skip


@pytest.mark.parametrize("between", ["MaxPool", "Reshape", "none"])
@pytest.mark.parametrize("shift", [0.5, -0.5, 1.0, -1.0, 1.5, -2.0])
@pytest.mark.parametrize("factor", [1.0, -1.0, 0.0])
def test_sign_of_a_sign(factor: float, shift: float, between: str) -> None:
    """The same bits, inverted bits, a constant or zeros; the channels differ."""
    nodes = [
        node("Conv", "x w", "a"), node("GreaterOrEqual", "a zero", "b"), node("Where", "b one minus", "c"),
        *{"MaxPool": [node("MaxPool", "c", "d", kernel_shape=[2, 2])], "Reshape": [node("Reshape", "c shape", "d")],
          "none": [node("Identity", "c", "d")]}[between],
        node("Mul", "d factor", "e"), node("Add", "e shift", "f"), node("Sign", "f", "g"), node("Conv", "g v", "y"),
    ]  # fmt: skip
    constants = {
        "w": signs(0, 3, 2, 1, 1), "v": signs(1, 2, 3, 1, 1), "zero": np.float32(0), "one": np.float32(1),
        "minus": np.float32(-1), "factor": np.array([factor, 1.0, -1.0], np.float32).reshape(3, 1, 1),
        "shift": np.array([shift, shift, 0.0], np.float32).reshape(3, 1, 1), "shape": np.array([0, 3, 15, 1], np.int64),
    }  # fmt: skip
    proto = model(nodes, constants, {"x": ["N", 2, 3, 5]}, {"y": ["N", 2, "H", "W"], "g": ["N", 3, "H", "W"]})
    check_outputs(proto, pixels(4, 20, 2, 3, 5))


def test_maximum_of_falling_comparisons() -> None:
    """max(f) < c is true where every f < c: an AND of bits, not their OR. `f` falls in some channels."""
    nodes = [
        node("Conv", "x w", "a"), node("Mul", "a factor", "b"), node("MaxPool", "b", "c", kernel_shape=[2, 2]),
        node("Less", "c half", "d"), node("Where", "d one minus", "e"), node("Conv", "e v", "y"),
    ]  # fmt: skip
    constants = {
        "w": signs(0, 3, 2, 1, 1), "v": signs(1, 2, 3, 1, 1), "half": np.float32(0.5), "one": np.float32(1),
        "minus": np.float32(-1), "factor": np.array([-1, 2, -0.5], np.float32).reshape(3, 1, 1),
    }  # fmt: skip
    proto = model(nodes, constants, {"x": ["N", 2, 4, 4]}, {"y": ["N", 2, 3, 3]})
    network = check_outputs(proto, pixels(5, 50, 2, 4, 4))
    assert not any(isinstance(layer, FloatOperator) for layer in network.layers)


def test_maximum_of_negated_codes_in_front_of_a_sum() -> None:
    """MaxPool(-x) of codes is no maximum of the codes."""
    nodes = [
        node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d"), node("Neg", "d", "n"),
        node("MaxPool", "n", "p", kernel_shape=[2, 2]), node("Conv", "p v", "y"),
    ]  # fmt: skip
    constants = {"v": signs(1, 2, 3, 1, 1), "s": np.float32(1), "z": np.int8(3)}
    check_outputs(model(nodes, constants, {"x": ["N", 3, 4, 4]}, {"y": ["N", 2, 3, 3]}), pixels(6, 20, 3, 4, 4))


def test_zero_padded_signs_are_ternary() -> None:
    """Behind a Pad with zeros, a comparison and a Sign see -1, 0 and 1."""
    for test in ("GreaterOrEqual", "Greater", "Less"):
        nodes = [
            node("Conv", "x w", "a"), node("Sign", "a", "b"), node("Pad", "b pads", "c"), node(test, "c zero", "d"),
            node("Where", "d one minus", "e"), node("Conv", "e v", "y"), node("Sign", "c", "s"), node("Conv", "s u", "z"),
        ]  # fmt: skip
        constants = {
            "w": signs(0, 3, 3, 1, 1), "v": signs(1, 2, 3, 2, 2), "u": signs(2, 2, 3, 2, 2), "zero": np.float32(0),
            "one": np.float32(1), "minus": np.float32(-1), "pads": np.array([0, 0, 1, 1, 0, 0, 0, 1], np.int64),
        }  # fmt: skip
        proto = model(nodes, constants, {"x": ["N", 3, 3, 3]}, {"y": ["N", 2, "H", "W"], "z": ["N", 2, "H", "W"]})
        check_outputs(proto, pixels(7, 30, 3, 3, 3))


@pytest.mark.parametrize("levels", [(0.7, 0.1), (0.1, 0.7), (1.0, 1.0000001), (0.3, -0.9), (2.5, 2.5), (1e30, 0.1)])
def test_two_levels_are_exact(levels: tuple[float, float]) -> None:
    """A comparison at a level itself is a tie: >= holds, > does not."""
    nodes = [
        node("MatMul", "x w", "a"), node("Greater", "a zero", "b"), node("Where", "b high low", "c"),
        node("GreaterOrEqual", "c low", "d"), node("Greater", "c low", "e"), node("LessOrEqual", "c high", "f"),
    ]  # fmt: skip
    high, low = (np.float32(level) for level in levels)
    constants = {"w": signs(0, 4, 6), "zero": np.float32(0), "high": high, "low": low}
    outputs = {name: ["N", 6] for name in "cdef"}
    proto = model(nodes, constants, {"x": ["N", 4]}, outputs, types=dict.fromkeys("def", TensorProto.BOOL))
    check_outputs(proto, pixels(8, 60, 4))


def test_broadcasting_constants_enlarge_a_comparison() -> None:
    """Where and comparisons with constants that have further elements or axes keep onnxruntime's shape."""
    nodes = [
        node("Conv", "x w", "a"), node("Greater", "a zero", "b"), node("Where", "b ones minus", "c"),
        node("Greater", "a five", "y"),
    ]  # fmt: skip
    constants = {
        "w": signs(0, 3, 2, 1, 1), "zero": np.float32(0), "ones": np.ones((1, 3, 4, 1), np.float32), "minus": np.float32(-1),
        "five": np.zeros((1, 1, 1, 1), np.float32),
    }  # fmt: skip
    types = {"y": TensorProto.BOOL}
    proto = model(nodes, constants, {"x": ["N", 2, 1, 3]}, {"c": ["N", 3, 4, 3], "y": ["N", 3, 1, 3]}, types=types)
    check_outputs(proto, pixels(9, 10, 2, 1, 3))


def test_sign_of_special_numbers() -> None:
    """onnxruntime: Sign(-0) is 0, Sign of a denormal ±1; every comparison with NaN is false; ties as the operator says."""
    x = np.array([[0.0, -0.0, 1e-45, -1e-45, np.inf, -np.inf, 1.5, -1.5]], np.float32)
    nodes = [node("Sign", "x", "a"), node("Greater", "x zero", "b"), node("LessOrEqual", "x zero", "c")]
    proto = model(
        nodes, {"zero": np.float32(0)}, {"x": ["N", 8]}, {"a": ["N", 8], "b": ["N", 8], "c": ["N", 8]},
        types={"b": TensorProto.BOOL, "c": TensorProto.BOOL},
    )  # fmt: skip
    check_outputs(proto, x)


# ── values that a layer cannot read ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["bits", "codes", "float"])
def test_layers_refuse_kinds_they_cannot_read(kind: str) -> None:
    """The importer refuses by name what the engine would read as something else."""
    readers = {
        "bits": (AveragePool, CountThresholds, LookUp, Binarize, FloatOperator),
        "codes": (Binarize, FloatOperator),
        "float": (Threshold, TernarySign, LookUp, AveragePool),
    }[kind]
    for reader in readers:
        builder = NetworkBuilder("test", lambda *_: None, lambda *_: None)  # type: ignore[arg-type, return-value]
        builder.values["v"] = ValueSpec("v", kind, (4,))  # type: ignore[arg-type]
        layer = object.__new__(reader)
        for name, value in (("name", "reader"), ("inputs", ("v",)), ("output", "y")):
            object.__setattr__(layer, name, value)
        with pytest.raises(ModelError, match=f"held as {kind}"):
            builder.add_layer(layer, ValueSpec("y", "codes", (4,)))


def test_integers_above_2_to_24_stay_exact() -> None:
    """Int32 sums that an integer operator reads do not pass through float32."""
    w = np.full((600, 1), 127, np.int8)
    w[0] = 1
    nodes = [node("MatMulInteger", "x w", "a"), node("Add", "a one", "b"), node("Cast", "b", "y", to=TensorProto.INT64)]
    proto = model(nodes, {"w": w, "one": np.array([1], np.int32)}, {"x": ["N", 600]}, {"y": ["N", 1]},
                  types={"x": TensorProto.UINT8, "y": TensorProto.INT64})  # fmt: skip
    x = np.full((3, 600), 255, np.uint8)
    x[:, 0] = [0, 1, 3]
    made = infer(compile_plan(load(proto)), {"x": x})["y"]
    np.testing.assert_array_equal(made[:, 0], 599 * 255 * 127 + 1 + np.array([0, 1, 3]))


def test_dynamic_codes_without_their_zero_point() -> None:
    """Codes quantized at run time are stored less their zero point. Other readers get the codes of the file."""
    nodes = [node("DynamicQuantizeLinear", "x", "q s z"), node("DequantizeLinear", "q s", "y")]
    proto, x = model(nodes, {}, {"x": ["N", 4]}, {"y": ["N", 4]}), np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    want = np.concatenate([run(proto, {"x": image[None]})[0] for image in x])
    np.testing.assert_array_equal(infer(compile_plan(load(proto)), {"x": x})["y"], want)


def test_softmax_of_flattened_codes() -> None:
    """QLinearSoftmax behind Flatten normalizes over the flattened axis."""
    nodes = [
        node("QuantizeLinear", "x s z", "q"), node("Flatten", "q", "f"),
        helper.make_node("QLinearSoftmax", ["f", "s", "z", "t", "u"], ["y"], domain="com.microsoft", axis=1, opset=13),
    ]  # fmt: skip
    constants = {"s": np.float32(0.25), "z": np.uint8(40), "t": np.float32(1 / 256), "u": np.uint8(0)}
    proto = model(nodes, constants, {"x": ["N", 2, 2, 2]}, {"y": ["N", 8]}, types={"y": TensorProto.UINT8})
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    check_outputs(proto, pixels(10, 20, 2, 2, 2))


def test_clip_of_codes_beyond_their_reach() -> None:
    """A Clip whose limits are beyond all codes of the layer before it gives the limit."""
    nodes = [
        node("QuantizeLinear", "x s z", "q"), node("Clip", "q a b", "c"), node("Clip", "c d e", "f"),
        node("DequantizeLinear", "f s z", "y"),
    ]  # fmt: skip
    limits = {"a": np.int8(-5), "b": np.int8(4), "d": np.int8(9), "e": np.int8(20)}
    proto = model(nodes, {"s": np.float32(1), "z": np.int8(0), **limits}, {"x": ["N", 4]}, {"y": ["N", 4]})
    check_outputs(proto, pixels(11, 20, 4))


@pytest.mark.parametrize("limit", [-2.0, 3.0, 300.0])
@pytest.mark.parametrize("op_type", ["Min", "Max"])
def test_limits_that_no_code_holds(op_type: str, limit: float) -> None:
    """min(x, -2) of unsigned codes is no unsigned code: the sum behind it is one of floats."""
    nodes = [
        node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d"), node(op_type, "d limit", "m"),
        node("MatMul", "m w", "y"),
    ]  # fmt: skip
    constants = {"s": np.float32(1), "z": np.uint8(0), "limit": np.float32(limit), "w": signs(1, 4, 2)}
    check_outputs(model(nodes, constants, {"x": ["N", 4]}, {"y": ["N", 2]}), pixels(14, 20, 4))


def test_mean_of_large_sums() -> None:
    """A mean of int32 sums whose total int32 cannot hold is computed in float32, as the graph says."""
    w = np.full((1, 64, 3, 3), 127, np.int8)
    nodes = [
        node("DequantizeLinear", "x one", "d"), node("DequantizeLinear", "w one", "e"), node("Conv", "d e", "a"),
        node("GlobalAveragePool", "a", "b"), node("QuantizeLinear", "b big zero", "y"),
    ]  # fmt: skip
    constants = {"w": w, "one": np.float32(1), "big": np.float32(1e6), "zero": np.int8(0)}
    types = {"x": TensorProto.UINT8, "y": TensorProto.INT8}
    proto = model(nodes, constants, {"x": ["N", 64, 14, 14]}, {"y": ["N", 1, 1, 1]}, 21, types)
    check_outputs(proto, np.full((2, 64, 14, 14), 255, np.uint8))


def test_narrower_quantizer_on_the_same_grid() -> None:
    """QONNX: Quant to 4 bits behind Quant to 8 bits of the same scale limits the codes."""

    def quant(x: str, bits: str, y: str) -> onnx.NodeProto:
        return helper.make_node("Quant", [x, "s", "z", bits], [y], y, domain="qonnx.custom_op.general", signed=1, narrow=0)

    constants = {"s": np.float32(0.5), "z": np.float32(0), "eight": np.float32(8), "four": np.float32(4)}
    proto = model([quant("x", "eight", "a"), quant("a", "four", "y")], constants, {"x": ["N", 4]}, {"y": ["N", 4]})
    proto.opset_import.append(helper.make_opsetid("qonnx.custom_op.general", 1))
    x = pixels(12, 20, 4)
    made = infer(compile_plan(load(proto)), {"x": x})["y"]
    np.testing.assert_array_equal(made, np.clip(x, -4, 3.5))


# ── constants over the batch ────────────────────────────────────────────────────────────────────────


class OnesLike(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, torch.ones_like(x), -torch.ones_like(x))


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
def test_where_with_ones_like(dynamo: bool) -> None:
    """torch.where(x > 0, ones_like(x), -ones_like(x)): an Expand, or a ConstantOfShape, over the batch."""
    torch.manual_seed(0)
    first, second, last = nn.Conv2d(2, 6, 3, bias=False), nn.Conv2d(6, 4, 3, bias=False), nn.Linear(64, 5, bias=False)
    with torch.no_grad():
        for layer in (first, second, last):
            layer.weight.copy_(torch.where(layer.weight >= 0, 1.0, -1.0))
    proto = exported(nn.Sequential(first, OnesLike(), second, OnesLike(), nn.Flatten(), last), (2, 8, 8), dynamo)
    network = check_outputs(proto, pixels(13, 20, 2, 8, 8))
    assert not any(isinstance(layer, FloatOperator) for layer in network.layers)
    assert sum(isinstance(layer, Convolution) for layer in network.layers) == 3


@pytest.mark.parametrize("reader", ["ReduceSum", "Concat", "Transpose", "output"])
def test_constants_over_the_batch(reader: str) -> None:
    """Any operator may read a constant of the shape of the batch: it has one image, as in a run of one image."""
    nodes = [node("Shape", "x", "s"), node("ConstantOfShape", "s", "c", value=helper.make_tensor("v", 1, [1], [1.0]))]
    if reader == "ReduceSum":
        nodes += [node("ReduceSum", "c axes", "d"), node("Mul", "x d", "y")]
    elif reader == "Concat":
        nodes += [node("Concat", "x c", "y", axis=1)]
    elif reader == "Transpose":
        nodes += [node("Transpose", "c", "d", perm=[1, 0]), node("MatMul", "x d", "y")]
    else:
        nodes += [node("Add", "c c", "y")]
    proto = model(nodes, {"axes": np.array([0], np.int64)}, {"x": ["N", 4]}, {"y": ["N", "K"]})
    if reader == "output":
        with pytest.raises(ModelError, match="does not depend"):
            load(proto)
        return
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    want = np.concatenate([run(proto, {"x": image[None]})[0] for image in x])
    np.testing.assert_allclose(infer(compile_plan(load(proto)), {"x": x})["y"], want, rtol=1e-6)
