"""1-D convolutions: integers of onnxruntime (or qonnx), with flipped bits, and every weight bit in the memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.emulator.flipped import outputs_with_flips, random_cells, with_flipped_initializers
from tests.emulator.models import Array, model, node, qonnx_values, run
from weakcell import emulator
from weakcell.emulator import ReadPolicy
from weakcell.emulator.ir.layers import Convolution
from weakcell.emulator.ir.operators import FloatOperator

WINDOWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "padded": {"pads": [2, 1]},
    "strided": {"strides": [2], "pads": [1, 1]},
    "dilated": {"dilations": [2], "pads": [2, 2]},
    "grouped": {"group": 2, "pads": [1, 1]},
    "depthwise": {"group": 6, "strides": [3]},
    "same": {"auto_pad": "SAME_UPPER", "strides": [2]},
}


def conv1d_qdq(rng: np.random.Generator, window: dict[str, Any]) -> onnx.ModelProto:
    """Two convolutions with int8 weights and an int32 bias, MaxPool, GlobalAveragePool and Flatten, all behind Q and DQ."""
    group = window.get("group", 1)
    w = rng.integers(-128, 128, (12, 6 // group, 3)).astype(np.int8)
    w2 = rng.integers(-128, 128, (5, 12, 1)).astype(np.int8)
    s, s2 = rng.uniform(0.002, 0.01, 12).astype(np.float32), np.float32(0.004)
    constants = {
        "xs": np.float32(1 / 32), "xz": np.uint8(120), "w": w, "ws": s, "wz": np.zeros(12, np.int8),
        "b": rng.integers(-500, 500, 12).astype(np.int32), "bs": (s / 32).astype(np.float32), "hs": np.float32(1 / 16),
        "hz": np.uint8(0), "w2": w2, "w2s": s2, "w2z": np.int8(3), "ys": np.float32(0.25), "yz": np.uint8(128),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", "x xs xz", "xq"), node("DequantizeLinear", "xq xs xz", "xd"),
        node("DequantizeLinear", "w ws wz", "wd", axis=0), node("DequantizeLinear", "b bs", "bd", axis=0),
        node("Conv", "xd wd bd", "h", **window), node("Relu", "h", "r"),
        node("QuantizeLinear", "r hs hz", "rq"), node("DequantizeLinear", "rq hs hz", "rd"),
        node("MaxPool", "rd", "p", kernel_shape=[2], strides=[2]),
        node("DequantizeLinear", "w2 w2s w2z", "w2d"), node("Conv", "p w2d", "h2"),
        node("QuantizeLinear", "h2 ys yz", "y"), node("DequantizeLinear", "y ys yz", "yd"),
        node("GlobalAveragePool", "yd", "g"), node("Flatten", "g", "z"),
    ]  # fmt: skip
    outputs = {"y": ["N", None, None], "z": ["N", 5]}
    return model(nodes, constants, {"x": ["N", 6, 25]}, outputs, types={"y": TensorProto.UINT8})


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("policy", [ReadPolicy.LOAD, ReadPolicy.IMAGE, ReadPolicy.ACCESS])
def test_static_quantization(name: str, policy: ReadPolicy) -> None:
    """QDQ: codes equal onnxruntime's, with and without flips; all layers are integer and all weights live in the memory."""
    rng = np.random.default_rng(5)
    proto = conv1d_qdq(rng, WINDOWS[name])
    network = emulator.load(proto)
    x = {"x": rng.normal(0, 2, (4, 6, 25)).astype(np.float32)}
    assert [t.name for t in network.weights] == ["w", "w2"]
    assert network.weight_bits == 8 * (12 * 6 // WINDOWS[name].get("group", 1) * 3 + 60)
    assert not [layer for layer in network.layers if isinstance(layer, FloatOperator) and layer.op_type != "AveragePool"]
    for flips in ({}, random_cells(network, rng)):
        codes, means = run(with_flipped_initializers(proto, flips), x)
        made = outputs_with_flips(network, x, flips, policy)
        np.testing.assert_array_equal(made["y"], codes)
        np.testing.assert_allclose(made["z"], means, rtol=1e-5, atol=1e-6)


def test_qlinear_conv() -> None:
    """QOperator: unsigned weights, which onnxruntime sums without saturation on every processor."""
    rng = np.random.default_rng(6)
    constants = {
        "xs": np.float32(0.05), "xz": np.uint8(7), "w": rng.integers(0, 256, (8, 2, 5)).astype(np.uint8), "ws": np.float32(0.01),
        "wz": np.uint8(131), "ys": np.float32(0.5), "yz": np.uint8(99), "b": rng.integers(-900, 900, 8).astype(np.int32),
    }  # fmt: skip
    nodes = [node("QLinearConv", "x xs xz w ws wz ys yz b", "y", group=3, dilations=[2], pads=[4, 1], strides=[2])]
    constants["w"] = constants["w"][:6]
    constants["b"] = constants["b"][:6]
    types = dict.fromkeys("xy", TensorProto.UINT8)
    proto = model(nodes, constants, {"x": ["N", 6, 20]}, {"y": ["N", 6, None]}, types=types)
    network = emulator.load(proto)
    x = {"x": rng.integers(0, 256, (3, 6, 20)).astype(np.uint8)}
    assert network.weight_bits == 6 * 2 * 5 * 8
    for flips in ({}, random_cells(network, rng)):
        (codes,) = run(with_flipped_initializers(proto, flips), x)
        np.testing.assert_array_equal(outputs_with_flips(network, x, flips)["y"], codes)


def test_signs() -> None:
    """A binarized 1-D network: Conv of signs, batch norm, Sign, Conv; weights as +1 and -1 in float."""
    rng = np.random.default_rng(7)
    w1, w2 = (rng.choice([-1.0, 1.0], shape).astype(np.float32) for shape in ((16, 6, 3), (4, 16, 4)))
    constants = {
        "w1": w1, "w2": w2, "g": rng.uniform(0.5, 2, 16).astype(np.float32), "b": rng.normal(0, 1, 16).astype(np.float32),
        "m": rng.normal(0, 2, 16).astype(np.float32), "v": rng.uniform(1, 9, 16).astype(np.float32),
    }  # fmt: skip
    nodes = [
        node("Sign", "x", "s"), node("Conv", "s w1", "h", pads=[1, 1]), node("BatchNormalization", "h g b m v", "n"),
        node("Sign", "n", "t"), node("MaxPool", "t", "p", kernel_shape=[2], strides=[2]),
        node("Conv", "p w2", "y", strides=[2], dilations=[2]),
    ]  # fmt: skip
    proto = model(nodes, constants, {"x": ["N", 6, 32]}, {"y": ["N", 4, None]})
    network = emulator.load(proto)
    assert {str(t.encoding) for t in network.weights} == {"sign1"}
    assert network.weight_bits == w1.size + w2.size
    x = {"x": rng.normal(0, 1, (3, 6, 32)).astype(np.float32)}
    for policy in ReadPolicy:
        flips = random_cells(network, rng)
        changed = onnx.ModelProto()
        changed.CopyFrom(proto)
        for tensor in changed.graph.initializer:
            if tensor.name in flips:
                flat = onnx.numpy_helper.to_array(tensor).copy()
                flat.reshape(-1)[[element for element, _ in flips[tensor.name]]] *= -1
                tensor.CopyFrom(onnx.numpy_helper.from_array(flat, tensor.name))
        np.testing.assert_array_equal(outputs_with_flips(network, x, flips, policy)["y"], run(changed, x)[0])


def test_integer_convolution_of_dynamic_quantization() -> None:
    """DynamicQuantizeLinear and ConvInteger, one image at a time: onnxruntime's scales of one image."""
    rng = np.random.default_rng(8)
    constants = {"w": rng.integers(0, 256, (6, 5, 3)).astype(np.uint8), "wz": np.uint8(128), "ws": np.float32(0.01)}
    nodes = [
        node("DynamicQuantizeLinear", "x", "q s z"), node("ConvInteger", "q w z wz", "acc", strides=[2]),
        node("Cast", "acc", "f", to=1), node("Mul", "s ws", "k"), node("Mul", "f k", "y"),
    ]  # fmt: skip
    proto = model(nodes, constants, {"x": ["N", 5, 17]}, {"y": ["N", 6, None]})
    network = emulator.load(proto)
    assert network.weight_bits == 6 * 5 * 3 * 8
    x = rng.normal(0, 1, (3, 5, 17)).astype(np.float32)
    for flips in ({}, random_cells(network, rng)):
        changed = with_flipped_initializers(proto, flips)
        wanted = np.concatenate([run(changed, {"x": x[i : i + 1]})[0] for i in range(3)])
        np.testing.assert_allclose(outputs_with_flips(network, {"x": x}, flips)["y"], wanted, rtol=1e-6)


def test_qonnx_quantizers() -> None:
    """Quant of activations and of latent float weights: integer layers, and the values of the qonnx package."""
    rng = np.random.default_rng(9)

    def quant(x: str, scale: str, y: str, bits: str, signed: int) -> onnx.NodeProto:
        attributes = {"signed": signed, "narrow": 0, "rounding_mode": "ROUND"}
        return helper.make_node("Quant", [x, scale, "zero", bits], [y], y, domain="qonnx.custom_op.general", **attributes)

    constants = {
        "w": rng.normal(0, 0.5, (8, 4, 3)).astype(np.float32), "ws": np.float32(0.125), "zero": np.float32(0),
        "w_bits": np.float32(4),
        "xs": np.float32(0.0625), "a_bits": np.float32(8), "ys": np.float32(0.25),
    }  # fmt: skip
    nodes = [
        quant("x", "xs", "xq", "a_bits", 1), quant("w", "ws", "wq", "w_bits", 1),
        node("Conv", "xq wq", "h", pads=[1, 1], kernel_shape=[3], dilations=[1], strides=[1], group=1), node("Relu", "h", "r"),
        quant("r", "ys", "y", "a_bits", 0),
    ]  # fmt: skip
    proto = model(nodes, constants, {"x": [2, 4, 11]}, {"y": [2, 8, 11]})
    proto.opset_import.append(helper.make_opsetid("qonnx.custom_op.general", 1))
    network = emulator.load(proto)
    assert network.weight_bits == 8 * 4 * 3 * 4
    assert any(isinstance(layer, Convolution) and network.values[layer.inputs[0]].kind == "codes" for layer in network.layers)
    x: Array = rng.normal(0, 1, (2, 4, 11)).astype(np.float32)
    made = emulator.infer(emulator.compile_plan(network), {"x": x})["y"]
    np.testing.assert_array_equal(made, qonnx_values(proto, x)["y"])
