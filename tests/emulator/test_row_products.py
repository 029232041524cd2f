"""Products of quantized sequences [N, …, K] as integer layers: onnxruntime's numbers, also with bits flipped in the file.

Scales are powers of two, so onnxruntime's float sums are exact, and every output must be equal bit for bit.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.emulator.flipped import outputs_with_flips, random_cells, with_flipped_initializers
from tests.emulator.models import Array, largest_weight, model, node, run
from weakcell import emulator
from weakcell.emulator.ir.layers import Convolution

F = np.float32
RNG = np.random.default_rng(29)


def weights(*shape: int) -> Array:
    return RNG.integers(-largest_weight(), largest_weight() + 1, shape).astype(np.int8)


QUANTIZED = [node("QuantizeLinear", "x xs xz", "q"), node("DequantizeLinear", "q xs xz", "d")]
CONSTANTS = {"xs": F(2**-5), "xz": np.uint8(120), "ys": F(2**-3), "yz": np.uint8(100)}
Case = tuple[onnx.ModelProto, tuple[int, ...]]


def with_bias_and_relu() -> Case:
    """A linear layer of a transformer: one scale per output, an int32 bias, Relu, and a second layer."""
    nodes = [
        *QUANTIZED, node("DequantizeLinear", "w ws", "wd", axis=1), node("MatMul", "d wd", "a"),
        node("DequantizeLinear", "b bs", "bd", axis=0), node("Add", "a bd", "biased"), node("Relu", "biased", "r"),
        node("QuantizeLinear", "r ys yz", "rq"), node("DequantizeLinear", "rq ys yz", "rd"), node("DequantizeLinear", "v vs", "vd"),
        node("MatMul", "rd vd", "y"),
    ]  # fmt: skip
    scales = 2.0 ** RNG.integers(-9, -6, 10)
    constants = {
        **CONSTANTS, "w": weights(16, 10), "ws": scales.astype(F), "b": RNG.integers(-900, 900, 10).astype(np.int32),
        "bs": (scales * 2**-5).astype(F), "v": weights(10, 4), "vs": F(2**-7),
    }  # fmt: skip
    return model(nodes, constants, {"x": ["N", 7, 16]}, {"y": ["N", 7, 4]}), (7, 16)


def of_heads() -> Case:
    """Rows along two axes, a float bias, two products of the same codes, and no quantizer behind one of them."""
    nodes = [
        *QUANTIZED, node("DequantizeLinear", "w ws", "wd"), node("MatMul", "d wd", "a"), node("Add", "a b", "ab"),
        node("QuantizeLinear", "ab ys yz", "aq"), node("DequantizeLinear", "aq ys yz", "ad"),
        node("DequantizeLinear", "v vs", "vd"), node("MatMul", "d vd", "c"), node("Concat", "ad c", "y", axis=3),
    ]  # fmt: skip
    constants = {**CONSTANTS, "w": weights(8, 6), "ws": F(2**-7), "b": np.arange(6).astype(F), "v": weights(8, 5), "vs": F(2**-8)}
    return model(nodes, constants, {"x": ["N", 3, 4, 8]}, {"y": ["N", 3, 4, 11]}), (3, 4, 8)


def of_an_operator() -> Case:
    """onnxruntime's integer kernel: QLinearMatMul, with zero points of both factors."""
    nodes = [
        node("QuantizeLinear", "x xs xz", "q"), node("QLinearMatMul", "q xs xz w ws wz ys yz", "yq"),
        node("DequantizeLinear", "yq ys yz", "y"),
    ]  # fmt: skip
    w = RNG.integers(0, 256, (12, 9)).astype(np.uint8)
    constants = {**CONSTANTS, "ys": F(0.37), "w": w, "ws": F(0.013), "wz": np.uint8(131)}
    return model(nodes, constants, {"x": ["N", 6, 12]}, {"y": ["N", 6, 9]}), (6, 12)


@pytest.mark.parametrize("make", [with_bias_and_relu, of_heads, of_an_operator])
def test_integer_layers(make: object) -> None:
    proto, shape = make()  # type: ignore[operator]
    x = RNG.normal(0, 2, (5, *shape)).astype(F)
    network = emulator.load(proto)
    layers = [layer for layer in network.layers if isinstance(layer, Convolution)]
    assert layers
    assert all(network.values[layer.inputs[0]].kind == "codes" for layer in layers)
    np.testing.assert_array_equal(emulator.infer(emulator.compile_plan(network), {"x": x})["y"], run(proto, {"x": x})[0])
    flips = random_cells(network, np.random.default_rng(2))
    flips = {name: [(element, bit % 5) for element, bit in cells] for name, cells in flips.items()}  # far from saturation
    flips = {name: list(dict.fromkeys(cells)) for name, cells in flips.items()}
    changed = with_flipped_initializers(proto, flips, frozenset(flips))
    np.testing.assert_array_equal(outputs_with_flips(network, {"x": x}, flips)["y"], run(changed, {"x": x})[0])
