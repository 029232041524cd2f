"""ConvTranspose of quantized integers.

Numbers of onnxruntime, also with flipped bits; all weights are in the memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.emulator.flipped import Cells, outputs_with_flips, random_cells
from tests.emulator.models import Array, model, node, run
from tests.emulator.reference import evaluate
from weakcell import emulator
from weakcell.emulator.ir.layers import Convolution, InsertZeros
from weakcell.emulator.ir.operators import CodesOperator, FloatOperator
from weakcell.memmodels.errors import ModelError

F = np.float32
WINDOWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "strided": {"strides": [2, 2], "pads": [1, 1, 1, 1]},
    "uneven": {"strides": [3, 2], "pads": [0, 1, 2, 0], "output_padding": [1, 0]},
    "dilated": {"dilations": [2, 1], "strides": [1, 2]},
    "grouped": {"group": 2, "strides": [2, 1], "pads": [1, 0, 1, 0]},
    "depthwise": {"group": 4, "strides": [2, 2]},
    "same": {"auto_pad": "SAME_UPPER", "strides": [2, 3]},
    "output shape": {"output_shape": [12, 9], "strides": [2, 2]},
    "cropped": {"pads": [3, 2, 2, 2], "strides": [2, 2]},
}
"""With pads beyond the kernel ("cropped") the layer stays float32; all others are integer layers."""


def conv_transpose_qdq(rng: np.random.Generator, window: dict[str, Any], signal: bool = False) -> onnx.ModelProto:
    """Return Q, DQ, ConvTranspose with an int32 bias, Q, DQ.

    Scales are powers of two, so onnxruntime's float sums are exact.
    """
    group, kernel = window.get("group", 1), (3,) if signal else (3, 2)
    outputs = 8 // group
    s = F(2.0) ** -rng.integers(7, 10, outputs)
    constants: dict[str, Any] = {
        "xs": F(1 / 32), "xz": np.uint8(120), "w": rng.integers(-100, 101, (4, outputs, *kernel)).astype(np.int8),
        "ws": s.astype(F), "wz": np.zeros(outputs, np.int8), "b": rng.integers(-500, 500, 8).astype(np.int32),
        "bs": (np.tile(s, group) / 32).astype(F), "ys": F(0.125), "yz": np.uint8(128),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", "x xs xz", "xq"), node("DequantizeLinear", "xq xs xz", "xd"),
        node("DequantizeLinear", "w ws wz", "wd", axis=1), node("DequantizeLinear", "b bs", "bd", axis=0),
        node("ConvTranspose", "xd wd bd", "h", **window), node("QuantizeLinear", "h ys yz", "q"),
        node("DequantizeLinear", "q ys yz", "y"),
    ]  # fmt: skip
    size = [7] if signal else [6, 5]
    return model(nodes, constants, {"x": ["N", 4, *size]}, {"y": ["N", 8, *[None] * len(size)]})


def with_flips(proto: onnx.ModelProto, cells: Cells, group: int) -> onnx.ModelProto:
    """Return the model with bits of `w` inverted.

    A stored element counts as (output, input of the group, mirrored kernel).
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    tensor = next(t for t in changed.graph.initializer if t.name == "w")
    w = numpy_helper.to_array(tensor).copy()
    inputs, outputs, *kernel = w.shape
    for element, bit in cells:
        output, c, *taps = np.unravel_index(element, (group * outputs, inputs // group, *kernel))
        at = (output // outputs * (inputs // group) + c, output % outputs, *(k - 1 - t for k, t in zip(kernel, taps, strict=True)))
        w.view(np.uint8)[at] ^= np.uint8(1 << bit)
    tensor.CopyFrom(numpy_helper.from_array(w, "w"))
    return changed


def check(proto: onnx.ModelProto, x: Array, group: int, rng: np.random.Generator) -> emulator.Network:
    """Compare the engine, fault-free and with flips, and the NumPy reference with onnxruntime."""
    network = emulator.load(proto)
    np.testing.assert_array_equal(evaluate(network, {"x": x})["y"], run(proto, {"x": x})[0])
    for flips in ({}, random_cells(network, rng)):
        (theirs,) = run(with_flips(proto, flips.get("w", []), group), {"x": x})
        np.testing.assert_array_equal(outputs_with_flips(network, {"x": x}, flips)["y"], theirs)
    return network


@pytest.mark.parametrize("name", WINDOWS)
def test_images(name: str) -> None:
    """Every geometry; onnxruntime is the reference."""
    rng = np.random.default_rng(5)
    proto, group = conv_transpose_qdq(rng, WINDOWS[name]), WINDOWS[name].get("group", 1)
    x = rng.normal(0, 2, (3, 4, 6, 5)).astype(F)
    if name == "cropped":
        network = emulator.load(proto)
        assert any(isinstance(layer, FloatOperator) and layer.op_type == "ConvTranspose" for layer in network.layers)
        np.testing.assert_array_equal(evaluate(network, {"x": x})["y"], run(proto, {"x": x})[0])
        return
    network = check(proto, x, group, rng)
    assert network.weight_bits == 8 * 4 * 8 // group * 6
    assert not any(isinstance(layer, FloatOperator | CodesOperator) for layer in network.layers)
    assert any(isinstance(layer, InsertZeros) for layer in network.layers) == (max(WINDOWS[name].get("strides", [1])) > 1)


def test_signals() -> None:
    """A 1-D kernel; onnxruntime is the reference."""
    rng = np.random.default_rng(6)
    proto = conv_transpose_qdq(rng, {"strides": [3], "pads": [1, 0]}, signal=True)
    network = check(proto, rng.normal(0, 2, (3, 4, 7)).astype(F), 1, rng)
    assert sum(isinstance(layer, Convolution) for layer in network.layers) == 1
    assert network.weight_bits == 8 * 4 * 8 * 3


def test_weight_only_quantization_stays_float_with_weights_in_the_memory() -> None:
    """A float input: the operand is computed from stored integers. Reference: onnxruntime."""
    rng = np.random.default_rng(7)
    proto = conv_transpose_qdq(rng, {"strides": [2, 2]})
    del proto.graph.node[:2]
    proto.graph.node[2].input[0] = "x"
    network, x = emulator.load(proto), rng.normal(0, 2, (3, 4, 6, 5)).astype(F)
    assert network.weight_bits == 8 * 4 * 8 * 6
    made = outputs_with_flips(network, {"x": x}, {})["y"]
    assert np.mean(np.abs(made - run(proto, {"x": x})[0]) < 1e-6) > 0.99  # the others are ties of float sums


@pytest.mark.parametrize(
    ("window", "found"),
    [
        ({"strides": [0, 1]}, "do not fit"),
        ({"group": 3}, "group is 3"),
        ({"pads": [9, 9, 9, 9]}, "leave nothing"),
        ({"strides": [2]}, "2 axes"),
    ],
)
def test_attributes_that_do_not_fit_are_refused(window: dict[str, Any], found: str) -> None:
    proto = conv_transpose_qdq(np.random.default_rng(8), {})
    proto.graph.node[4].attribute.extend(onnx.helper.make_attribute(key, value) for key, value in window.items())
    with pytest.raises(ModelError, match=found):
        emulator.load(proto)
