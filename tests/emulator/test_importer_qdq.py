"""8-bit QDQ networks: each layer fed onnxruntime's own integers, and the fused integer kernels as the exact reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import QuantType
from torch import nn

from tests.emulator.models import Array, exported, largest_weight, model, node, quantized, run, with_codes_out
from tests.emulator.reference import evaluate, layer_outputs, windows
from weakcell.emulator.importer import load
from weakcell.emulator.ir.layers import AddCodes, AffineRequantize, AveragePool, Convolution, Quantize, Requantize
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.operators import FloatOperator

SIZE = (3, 12, 12)


class Residual(nn.Module):
    """x + conv(relu(conv(x))), then relu."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.b(torch.relu(self.a(x))))


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(3)
    head = [nn.Flatten(), nn.Linear(8 * 36, 24), nn.ReLU(), nn.Linear(24, 10)]
    return {
        "plain": nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), *head),
        "residual": nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), Residual(8), *head),
        "average": nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), *head),
        "average 3": nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.AvgPool2d(3, 2, 1), *head),
        "global": nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)),
        "clip": nn.Sequential(nn.Conv2d(3, 8, 3, padding=2, dilation=2), nn.ReLU6(), nn.MaxPool2d(2), *head),
        "groups": nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 8, 3, padding=1, groups=4), nn.ReLU(), nn.MaxPool2d(2), *head
        ),
        "depthwise": nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.ReLU(), *head),
        "no bias": nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10, bias=False)),
    }


OPTIONS: dict[str, dict[str, Any]] = {
    "u8 per tensor": {"activation_type": QuantType.QUInt8},
    "u8 per channel": {"per_channel": True, "activation_type": QuantType.QUInt8},
    "s8 per channel": {"per_channel": True, "activation_type": QuantType.QInt8},
    "s8 symmetric": {
        "activation_type": QuantType.QInt8,
        "weight_type": QuantType.QInt8,
        "extra_options": {"ActivationSymmetric": True},
    },
    "u8 weights": {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8},
    "float bias": {"per_channel": True, "extra_options": {"QuantizeBias": False}},
    "weights in graph": {"extra_options": {"AddQDQPairToWeight": True}},
    "dedicated": {"extra_options": {"DedicatedQDQPair": True}},
}


def images(seed: int, count: int = 24) -> Array:
    return np.random.default_rng(seed).normal(size=(count, *SIZE)).astype(np.float32)


def integer_nodes(network: Network) -> set[str]:
    return {layer.op_type for layer in network.layers if isinstance(layer, FloatOperator)}


def check_layers(proto: onnx.ModelProto, network: Network, x: Array) -> tuple[int, int]:
    """Feed every layer the reference's own integers.

    Return (values 1 LSB apart, values). More than 1 fails.
    """
    extended, names = with_codes_out(proto)
    codes = dict(zip(names, run(extended, {"x": x}, names), strict=True))
    made = layer_outputs(network, {"x": x}, codes)
    values = {"x": x, **made, **codes}
    wrong = total = 0
    for layer in network.layers:
        name = layer.output
        if name in codes:
            distance = np.abs(made[name] - codes[name].reshape(made[name].shape).astype(np.int64))
            assert distance.max(initial=0) <= 1, name
            differs = distance > 0
            if isinstance(layer, AveragePool):
                differs &= ~ties(network, layer, values[layer.inputs[0]])
            wrong, total = wrong + int(differs.sum()), total + distance.size
    return wrong, total


def ties(network: Network, layer: AveragePool, codes: Array) -> Array:
    """Return where a mean of integers lies halfway between two outputs.

    Float noise decides there.
    """
    spec = network.values[layer.inputs[0]]
    total = windows(codes.astype(np.int64) - spec.zero_point, layer.window, 0).sum((4, 5))
    count = np.prod(layer.window.kernel) if layer.count_include_pad else windows(np.ones_like(codes), layer.window, 0).sum((4, 5))
    mean = total * float(spec.scale) / count / layer.out_scale
    return np.asarray(np.abs(mean - np.floor(mean) - 0.5) < 1e-4)


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("kind", networks())
def test_layers_agree_with_onnxruntime(kind: str, dynamo: bool) -> None:
    """The share of values 1 LSB apart is at most 0.1 %, except where ties in a mean are decided by float noise."""
    proto = exported(networks()[kind], SIZE, dynamo)
    every = OPTIONS if not dynamo else {k: OPTIONS[k] for k in ("u8 per tensor", "s8 per channel")}
    for how, options in every.items():
        quant = quantized(proto, images(0), **options)
        network = load(quant)
        assert integer_nodes(network) <= ({"Add"} if how == "float bias" else set()), how
        wrong, total = check_layers(quant, network, images(1, 48))
        assert total > 5000
        assert wrong <= 0.001 * total, (how, wrong, total)
        ours, theirs = evaluate(network, {"x": images(2)})["y"], run(quant, {"x": images(2)})[0]
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        assert kind == "average" or np.mean(np.abs(ours - theirs) > 1e-6) < 0.05, how


def test_the_layers_that_are_expected() -> None:
    protos = {kind: exported(networks()[kind], SIZE, False) for kind in ("residual", "average", "global")}
    quant = {kind: load(quantized(proto, images(0))) for kind, proto in protos.items()}
    assert any(isinstance(layer, AddCodes) for layer in quant["residual"].layers)
    assert any(isinstance(layer, AveragePool) for layer in quant["average"].layers)
    assert any(isinstance(layer, AveragePool) for layer in quant["global"].layers)
    network = load(quantized(protos["residual"], images(0), extra_options={"QuantizeBias": False}))
    assert any(isinstance(layer, AffineRequantize) for layer in network.layers)
    assert not any(t.role == "bias" for t in network.tensors.values())


def fused(
    op: str, x: Array, w: Array, scales: tuple[float, Array, float], zeros: tuple[int, int], bias: Array | None, **attributes: Any
) -> Array:
    """Run onnxruntime's own integer kernel."""
    sx, sw, sy = scales
    dtype = x.dtype
    constants = {
        "w": w, "sx": np.float32(sx), "zx": np.array(zeros[0], dtype), "sw": sw, "zw": np.zeros(sw.shape, np.int8),
        "sy": np.float32(sy), "zy": np.array(zeros[1], dtype),
    }  # fmt: skip
    names = "x sx zx w sw zw sy zy"
    if bias is not None:
        constants["b"], names = bias, names + " b"
    kind = {"uint8": 2, "int8": 3}[str(dtype)]
    proto = model(
        [node(op, names, "y", **attributes)],
        {k: np.asarray(v) for k, v in constants.items()},
        {"x": ["N", *x.shape[1:]]},
        {"y": None},  # type: ignore[dict-item]
        types={"x": kind, "y": kind},
    )
    return run(proto, {"x": x})[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("seed", range(6))
def test_sums_equal_the_fused_integer_kernels(seed: int, dtype: type) -> None:
    """DequantizeLinear, Conv, QuantizeLinear is imported as what QLinearConv computes, exactly."""
    rng = np.random.default_rng(seed)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    x = rng.integers(low, high + 1, (16, 8, 9, 9)).astype(dtype)
    w = rng.integers(-largest_weight(dtype), largest_weight(dtype) + 1, (12, 8, 3, 3)).astype(np.int8)
    sx, sy = np.float32(rng.uniform(0.003, 0.1)), np.float32(rng.uniform(1.0, 9.0))
    sw = rng.uniform(0.001, 0.02, 12 if seed % 2 else ()).astype(np.float32)
    bias = rng.integers(-4000, 4000, 12).astype(np.int32)
    zx, zy = (int(rng.integers(low, high)) for _ in range(2))
    pads, strides = [1, 0, 2, 1], [1, 2]
    nodes = [
        node("DequantizeLinear", "x sx zx", "xf"), node("DequantizeLinear", "w sw", "wf", axis=0),
        node("DequantizeLinear", "b sb", "bf", axis=0), node("Conv", "xf wf bf", "c", pads=pads, strides=strides),
        node("QuantizeLinear", "c sy zy", "y"),
    ]  # fmt: skip
    constants = {
        "sx": sx, "zx": np.array(zx, dtype), "w": w, "sw": sw, "b": bias, "sb": np.asarray(sx * sw, np.float32),
        "sy": sy, "zy": np.array(zy, dtype),
    }  # fmt: skip
    kind = {"uint8": 2, "int8": 3}[np.dtype(dtype).name]
    shapes: tuple[dict[str, Any], dict[str, Any]] = ({"x": ["N", 8, 9, 9]}, {"y": ["N", 12, None, None]})
    proto = model(nodes, {k: np.asarray(v) for k, v in constants.items()}, *shapes, types={"x": kind, "y": kind})
    network = load(proto)
    assert [type(layer) for layer in network.layers] == [Convolution, Requantize]
    ours = evaluate(network, {"x": x})["y"]
    exact = fused("QLinearConv", x, w, (sx, sw, sy), (zx, zy), bias, pads=pads, strides=strides)
    np.testing.assert_array_equal(ours, exact)
    wrong = np.abs(ours - run(proto, {"x": x})[0].astype(np.int64))
    assert wrong.max() <= 1
    assert np.mean(wrong > 0) <= 0.001


@pytest.mark.parametrize("seed", range(4))
def test_products_equal_the_fused_integer_kernel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (300, 64)).astype(np.uint8)
    w = rng.integers(-largest_weight(), largest_weight() + 1, (64, 20)).astype(np.int8)
    sx, sy, sw = np.float32(0.02), np.float32(1.7 + seed), np.float32(0.011).reshape(())
    zx, zy = 117, 131
    nodes = [
        node("DequantizeLinear", "x sx zx", "xf"), node("DequantizeLinear", "w sw", "wf"), node("MatMul", "xf wf", "c"),
        node("QuantizeLinear", "c sy zy", "y"),
    ]  # fmt: skip
    constants = {"sx": sx, "zx": np.uint8(zx), "w": w, "sw": sw, "sy": sy, "zy": np.uint8(zy)}
    proto = model(
        nodes, {k: np.asarray(v) for k, v in constants.items()}, {"x": ["N", 64]}, {"y": ["N", 20]}, types={"x": 2, "y": 2}
    )
    ours = evaluate(load(proto), {"x": x})["y"]
    np.testing.assert_array_equal(ours, fused("QLinearMatMul", x, w, (sx, sw, sy), (zx, zy), None))


def test_matmul_then_add_takes_an_integer_bias() -> None:
    rng = np.random.default_rng(0)
    nodes = [
        node("QuantizeLinear", "x sx zx", "q"), node("DequantizeLinear", "q sx zx", "xf"), node("DequantizeLinear", "w sw", "wf"),
        node("DequantizeLinear", "b sb", "bf"), node("MatMul", "xf wf", "c"), node("Add", "c bf", "d"), node("Relu", "d", "e"),
        node("QuantizeLinear", "e sy zy", "r"), node("DequantizeLinear", "r sy zy", "y"),
    ]  # fmt: skip
    constants = {
        "sx": np.float32(0.04), "zx": np.uint8(128), "w": rng.integers(-127, 128, (3 * 144, 9)).astype(np.int8),
        "sw": np.float32(0.01), "b": rng.integers(-900, 900, 9).astype(np.int32),
        "sb": np.float32(0.04) * np.float32(0.01), "sy": np.float32(0.3), "zy": np.uint8(100),
    }  # fmt: skip
    nodes.insert(2, node("Flatten", "xf", "flat"))
    nodes[5 if nodes[5].op_type == "MatMul" else 6] = node("MatMul", "flat wf", "c")
    proto = model(nodes, {k: np.asarray(v) for k, v in constants.items()}, {"x": ["N", *SIZE]}, {"y": ["N", 9]})
    network = load(proto)
    assert [type(layer).__name__ for layer in network.layers] == ["Quantize", "Convolution", "Requantize", "Dequantize"]
    assert network.layers[1].window.kernel == (12, 12)  # type: ignore[attr-defined]
    assert network.layers[2].low == 100  # type: ignore[attr-defined]
    x = images(1)
    ours, theirs = evaluate(network, {"x": x})["y"], run(proto, {"x": x})[0]
    assert np.mean(ours != theirs) <= 0.01


def test_a_float_batch_norm_runs_as_the_graph_writes_it() -> None:
    """Brevitas' form: weights quantized and clipped in the graph, a float batch norm, narrow activations by Clip."""
    rng = np.random.default_rng(1)
    nodes = [
        node("QuantizeLinear", "x sx zx", "q"), node("DequantizeLinear", "q sx zx", "xf"),
        node("QuantizeLinear", "w sw zw", "wq", axis=0), node("Clip", "wq lo hi", "wc"),
        node("DequantizeLinear", "wc sw zw", "wf", axis=0),
        node("Conv", "xf wf", "c"), node("BatchNormalization", "c g b m v", "n"), node("Relu", "n", "r"),
        node("QuantizeLinear", "r sy zy", "s"), node("Clip", "s zero fifteen", "t"), node("DequantizeLinear", "t sy zy", "y"),
    ]  # fmt: skip
    f = np.float32
    constants = {
        "sx": f(0.02), "zx": np.int8(0), "w": rng.normal(size=(8, 3, 3, 3)).astype(f), "sw": rng.uniform(0.1, 0.3, 8).astype(f),
        "zw": np.zeros(8, np.int8), "lo": np.int8(-7), "hi": np.int8(7), "g": rng.normal(size=8).astype(f),
        "b": rng.normal(size=8).astype(f), "m": rng.normal(size=8).astype(f), "v": rng.uniform(1, 9, 8).astype(f),
        "sy": f(0.1), "zy": np.uint8(0), "zero": np.uint8(0), "fifteen": np.uint8(15),
    }  # fmt: skip
    proto = model(nodes, {k: np.asarray(v) for k, v in constants.items()}, {"x": ["N", *SIZE]}, {"y": ["N", 8, 10, 10]})
    network = load(proto)
    assert [type(i).__name__ for i in network.layers] == ["Quantize", "Convolution", "AffineRequantize", "Dequantize"]
    assert np.abs(network.tensors["w"].values).max() == 7
    assert network.layers[2].high == 15  # type: ignore[attr-defined]
    x = images(1)
    assert np.mean(evaluate(network, {"x": x})["y"] != run(proto, {"x": x})[0]) <= 0.001


def test_a_mean_without_a_quantization_after_it_is_float() -> None:
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "f"), node("GlobalAveragePool", "f", "y")]
    proto = model(
        nodes, {"s": np.asarray(np.float32(0.05)), "z": np.asarray(np.uint8(100))}, {"x": ["N", *SIZE]}, {"y": ["N", 3, 1, 1]}
    )
    network, x = load(proto), images(1)
    assert isinstance(network.layers[0], Quantize)
    np.testing.assert_allclose(evaluate(network, {"x": x})["y"], run(proto, {"x": x})[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tail", ["Sigmoid", "Tanh", "Softmax", "LeakyRelu", "Exp", "Transpose", "Concat", "ArgMax", "Pad"])
def test_other_operators_stay_float(tail: str) -> None:
    """Float operators between integer layers: as ONNX defines them, with constants and shapes kept."""
    more: dict[str, dict[str, Any]] = {"Transpose": {"perm": [0, 2, 3, 1]}, "Concat": {"axis": 1}, "ArgMax": {"axis": 1}}
    inputs = {"Concat": "f f", "Pad": "f pads"}.get(tail, "f")
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "f"),
        node(tail, inputs, "y", **more.get(tail, {})),
    ]
    constants = {"s": np.asarray(np.float32(0.05)), "z": np.asarray(np.int8(-3))}
    if tail == "Pad":
        constants["pads"] = np.array([0, 0, 1, 0, 0, 0, 2, 3])
    proto = model(nodes, constants, {"x": ["N", *SIZE]}, {"y": None}, types={"y": 7 if tail == "ArgMax" else 1})  # type: ignore[dict-item]
    network, x = load(proto), images(1)
    ours, theirs = evaluate(network, {"x": x})["y"], run(proto, {"x": x})[0]
    assert str(ours.dtype) == str(theirs.dtype) == network.values["y"].dtype
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
