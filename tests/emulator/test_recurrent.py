"""LSTM, GRU and RNN with quantized weights: onnxruntime's outputs, also with bits flipped in the file."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.emulator.flipped import outputs_with_flips, random_cells, with_flipped_initializers
from tests.emulator.models import Array, model, node, quietly, run
from weakcell import emulator

RNG = np.random.default_rng(83)
INPUTS, HIDDEN, STEPS = 6, 8, 7
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def floats(*shape: int) -> Array:
    return RNG.normal(0, 1, shape).astype(np.float32)


def layer(kind: str, direction: str, weights: str) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """Return a recurrent layer of x (N, S, I), which reads the weights `w`, `r` by the names `weights`, and its constants."""
    ways, rows = (2 if direction == "bidirectional" else 1), GATES[kind] * HIDDEN
    constants = {
        "w": floats(ways, rows, INPUTS) / 2, "r": floats(ways, rows, HIDDEN) / 2, "b": floats(ways, 2 * rows),
    }  # fmt: skip
    names = [f"{name}{weights}" for name in "wr"]
    nodes = [
        node("Transpose", "x", "t", perm=[1, 0, 2]),
        helper.make_node(kind, ["t", *names, "b"], ["all", "last"], "recurrent", hidden_size=HIDDEN, direction=direction),
        node("Transpose", "all", "y", perm=[2, 1, 0, 3]), node("Transpose", "last", "z", perm=[1, 0, 2]),
    ]  # fmt: skip
    return nodes, constants


def network(nodes: list[onnx.NodeProto], constants: dict[str, Array], ways: int) -> onnx.ModelProto:
    ports: dict[str, Sequence[Any]] = {"y": ["N", ways, STEPS, HIDDEN], "z": ["N", ways, HIDDEN]}
    return model(nodes, constants, {"x": ["N", STEPS, INPUTS]}, ports)


def one_by_one(proto: onnx.ModelProto, x: Array) -> list[Array]:
    """Return onnxruntime's outputs for one signal after the other."""
    parts = [run(proto, {"x": x[i : i + 1]}) for i in range(len(x))]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def check(proto: onnx.ModelProto, weight_bits: int, steps: float) -> None:
    """Compare outputs with and without flips; `steps` is the tolerance relative to 1, the range of a state."""
    x, loaded = floats(3, STEPS, INPUTS), emulator.load(proto)
    assert loaded.weight_bits == weight_bits
    assert all(tensor.registers for tensor in loaded.unplaced)
    found = emulator.infer(emulator.compile_plan(loaded), {"x": x})
    for name, right in zip("yz", one_by_one(proto, x), strict=True):
        np.testing.assert_allclose(found[name], right, rtol=0, atol=steps)
    # bit 6 would lead to products that onnxruntime saturates on processors without VNNI
    cells = {name: [(element, bit % 6) for element, bit in some] for name, some in random_cells(loaded, RNG).items()}
    cells = {name: list(dict.fromkeys(some)) for name, some in cells.items()}
    changed = outputs_with_flips(loaded, {"x": x}, cells)
    assert np.any(changed["y"] != found["y"])
    for name, right in zip("yz", one_by_one(with_flipped_initializers(proto, cells), x), strict=True):
        np.testing.assert_allclose(changed[name], right, rtol=0, atol=steps)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_weights_that_are_dequantized(kind: str, direction: str) -> None:
    """DequantizeLinear in front of W and R, as weight-only quantizers write it."""
    nodes, constants = layer(kind, direction, "d")
    bits = 0
    for name in "wr":
        codes = RNG.integers(-63, 64, constants[name].shape).astype(np.int8)
        constants |= {name: codes, f"s{name}": np.array(0.01, np.float32)}
        nodes.insert(0, node("DequantizeLinear", f"{name} s{name}", f"{name}d"))
        bits += 8 * codes.size
    check(network(nodes, constants, 2 if direction == "bidirectional" else 1), bits, 2e-6)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_dynamically_quantized(direction: str, per_channel: bool) -> None:
    """DynamicQuantizeLSTM, as quantize_dynamic writes it: inputs and states are quantized at run time, each signal by itself."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    nodes, constants = layer("LSTM", direction, "")
    ways = 2 if direction == "bidirectional" else 1
    with tempfile.TemporaryDirectory() as folder, quietly():
        source, target = Path(folder) / "float.onnx", Path(folder) / "int.onnx"
        onnx.save(network(nodes, constants, ways), source)
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=per_channel, reduce_range=True)
        proto = onnx.load(target)
    assert "DynamicQuantizeLSTM" in [n.op_type for n in proto.graph.node]
    check(proto, 8 * ways * 4 * HIDDEN * (INPUTS + HIDDEN), 2e-6)
