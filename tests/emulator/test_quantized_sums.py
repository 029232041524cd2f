"""Quantized sums that are no layer of their own: products of activations, 3-D convolutions, QAttention; against onnxruntime."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.emulator.flipped import outputs_with_flips, random_cells, with_flipped_initializers
from tests.emulator.models import Array, largest_weight, model, node, quietly, run
from weakcell import emulator

RNG = np.random.default_rng(59)


def floats(*shape: int) -> Array:
    return RNG.normal(0, 1, shape).astype(np.float32)


def parameters(**scales: float) -> dict[str, Array]:
    """Return scale `sK` and zero point `zK` for each K."""
    result: dict[str, Array] = {}
    for index, (name, scale) in enumerate(scales.items()):
        result |= {f"s{name}": np.array(scale, np.float32), f"z{name}": np.array(120 + 3 * index, np.uint8)}
    return result


def outputs(proto: onnx.ModelProto, fed: dict[str, Array]) -> Array:
    return emulator.infer(emulator.compile_plan(emulator.load(proto)), fed)["y"]


def test_products_of_activations() -> None:
    """QLinearMatMul of two activations: onnxruntime's integers, which floats would not give at this length."""
    nodes = [
        *(node("QuantizeLinear", f"{name} s{name} z{name}", f"q{name}") for name in "ab"),
        node("QLinearMatMul", "qa sa za qb sb zb sy zy", "qy"), node("DequantizeLinear", "qy sy zy", "y"),
    ]  # fmt: skip
    proto = model(nodes, parameters(a=0.02, b=0.03, y=0.4), {"a": ["N", 2, 5, 900], "b": ["N", 2, 900, 6]}, {"y": ["N", 2, 5, 6]})
    fed = {"a": floats(4, 2, 5, 900), "b": floats(4, 2, 900, 6)}
    np.testing.assert_array_equal(outputs(proto, fed), run(proto, fed)[0])


def test_convolutions_in_three_dimensions() -> None:
    """QLinearConv of a video: onnxruntime's integers, also with flipped weights."""
    largest = largest_weight()
    constants = parameters(x=0.02, y=0.1) | {
        "w": RNG.integers(-largest, largest + 1, (4, 2, 3, 3, 3)).astype(np.int8), "zw": np.zeros(4, np.int8),
        "sw": RNG.uniform(0.01, 0.02, 4).astype(np.float32), "b": RNG.integers(-500, 500, 4).astype(np.int32),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", "x sx zx", "q"), node("QLinearConv", "q sx zx w sw zw sy zy b", "qy", pads=[1] * 6),
        node("DequantizeLinear", "qy sy zy", "y"),
    ]  # fmt: skip
    proto, fed = model(nodes, constants, {"x": ["N", 2, 5, 6, 7]}, {"y": ["N", 4, 5, 6, 7]}), {"x": floats(3, 2, 5, 6, 7)}
    network = emulator.load(proto)
    np.testing.assert_array_equal(outputs(proto, fed), run(proto, fed)[0])
    assert network.weight_bits == 4 * 2 * 27 * 8
    cells = {name: [(element, bit % 6) for element, bit in found] for name, found in random_cells(network, RNG).items()}
    faulty = with_flipped_initializers(proto, cells)
    np.testing.assert_array_equal(outputs_with_flips(network, fed, cells)["y"], run(faulty, fed)[0])


def test_choices_between_codes() -> None:
    """QLinearWhere: both sides get the scale of the output."""
    nodes = [
        *(node("QuantizeLinear", f"{name} s{name} z{name}", f"q{name}") for name in "ab"), node("Greater", "a b", "c"),
        helper.make_node("QLinearWhere", ["c", "qa", "sa", "za", "qb", "sb", "zb", "sy", "zy"], ["qy"], domain="com.microsoft"),
        node("DequantizeLinear", "qy sy zy", "y"),
    ]  # fmt: skip
    proto = model(nodes, parameters(a=0.02, b=0.03, y=0.011), {"a": ["N", 6], "b": ["N", 6]}, {"y": ["N", 6]})
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    fed = {"a": floats(40, 6), "b": floats(40, 6)}
    np.testing.assert_array_equal(outputs(proto, fed), run(proto, fed)[0])


@pytest.mark.parametrize("masked", [False, True])
def test_quantized_attention(masked: bool) -> None:
    """quantize_dynamic of a fused Attention: the projection is an integer layer, its weights live in the memory."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    fed: dict[str, Array] = {"x": floats(3, 5, 8)}
    if masked:
        fed["mask"] = (np.arange(5) < np.array([[2], [5], [4]])).astype(np.int32)
    attention = helper.make_node("Attention", ["x", "w", "b", *list(fed)[1:]], ["y"], "heads", domain="com.microsoft", num_heads=2)
    proto = model(
        [attention], {"w": floats(8, 24) / 3, "b": floats(24)}, {name: ["N", *x.shape[1:]] for name, x in fed.items()},
        {"y": ["N", 5, 8]}, types={"mask": onnx.TensorProto.INT32},
    )  # fmt: skip
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with tempfile.TemporaryDirectory() as folder, quietly():
        onnx.save(proto, Path(folder) / "float.onnx")
        quantize_dynamic(Path(folder) / "float.onnx", Path(folder) / "int.onnx", weight_type=QuantType.QInt8, reduce_range=True)
        made = onnx.load(Path(folder) / "int.onnx")
    assert [n.op_type for n in made.graph.node] == ["DynamicQuantizeLinear", "QAttention"]
    network = emulator.load(made)
    assert network.weight_bits == 8 * 24 * 8
    assert all(tensor.registers for tensor in network.unplaced)
    right = np.concatenate([run(made, {name: x[i : i + 1] for name, x in fed.items()})[0] for i in range(3)])
    np.testing.assert_allclose(outputs(made, fed), right, rtol=1e-5, atol=1e-6)


# ── what onnxruntime's optimizer writes ───────────────────────────────────────────────────────────────


def channels_last(op_type: str) -> onnx.ModelProto:
    """Return an operator on codes of a channels-last image (N, 8, 8, 4), in Microsoft's domain."""
    largest = largest_weight()
    constants = parameters(x=0.02, y=0.05) | {
        "w": RNG.integers(-largest, largest + 1, (6, 4, 3, 3)).astype(np.int8), "zw": np.array(0, np.int8),
        "sw": np.array(0.01, np.float32), "b": RNG.integers(-500, 500, 6).astype(np.int32),
    }  # fmt: skip
    inputs = {"QLinearConv": "q sx zx w sw zw sy zy b", "NhwcMaxPool": "q"}.get(op_type, "q sx zx sy zy")
    attributes: dict[str, Any] = {} if op_type == "NhwcMaxPool" else {"channels_last": 1}
    if op_type != "QLinearGlobalAveragePool":
        attributes |= {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}
    scale = "x" if op_type == "NhwcMaxPool" else "y"
    nodes = [
        node("QuantizeLinear", "x sx zx", "q"),
        helper.make_node(op_type, inputs.split(), ["r"], domain="com.microsoft", **attributes),
        node("DequantizeLinear", f"r s{scale} z{scale}", "y"),
    ]  # fmt: skip
    size = [1, 1] if op_type == "QLinearGlobalAveragePool" else [4, 4]
    channels = 6 if op_type == "QLinearConv" else 4
    proto = model(nodes, constants, {"x": ["N", 8, 8, 4]}, {"y": ["N", *size, channels]})
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


@pytest.mark.parametrize("op_type", ["QLinearConv", "NhwcMaxPool", "QLinearAveragePool", "QLinearGlobalAveragePool"])
def test_channels_last(op_type: str) -> None:
    proto, fed = channels_last(op_type), {"x": floats(3, 8, 8, 4)}
    np.testing.assert_array_equal(outputs(proto, fed), run(proto, fed)[0])
    assert emulator.load(proto).weight_bits == (6 * 4 * 9 * 8 if op_type == "QLinearConv" else 0)


def test_a_product_of_activations_before_a_softmax() -> None:
    """QLinearSoftmax of codes that a product of activations made: onnxruntime's integers."""
    nodes = [
        *(node("QuantizeLinear", f"{name} s{name} z{name}", f"q{name}") for name in "ab"),
        node("QLinearMatMul", "qa sa za qb sb zb sy zy", "qy"),
        helper.make_node("QLinearSoftmax", ["qy", "sy", "zy", "sp", "zp"], ["p"], domain="com.microsoft", axis=-1, opset=13),
        node("DequantizeLinear", "p sp zp", "y"),
    ]  # fmt: skip
    constants = parameters(a=0.02, b=0.03, y=0.1) | {"sp": np.array(1 / 256, np.float32), "zp": np.array(0, np.uint8)}
    proto = model(nodes, constants, {"a": ["N", 2, 5, 9], "b": ["N", 2, 9, 6]}, {"y": ["N", 2, 5, 6]})
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    fed = {"a": floats(4, 2, 5, 9), "b": floats(4, 2, 9, 6)}
    np.testing.assert_array_equal(outputs(proto, fed), run(proto, fed)[0])
