"""The QOperator dialect: networks of onnxruntime's quantizer, exact layer by layer; and the operators one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnxruntime.quantization import QuantType
from torch import nn

from tests.emulator.models import Array, exported, model, node, quantized, run, with_integers_out
from tests.emulator.reference import evaluate, layer_outputs
from weakcell.emulator.engine.executor import infer
from weakcell.emulator.importer import load
from weakcell.emulator.ir.layers import Convolution, LookUp, MulCodes, SumPool
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.operators import FloatOperator
from weakcell.emulator.plan.plan import compile_plan

SIZE = (3, 12, 12)
F = np.float32


def images(seed: int, count: int = 24) -> Array:
    return np.random.default_rng(seed).normal(size=(count, *SIZE)).astype(F)


class Branches(nn.Module):
    """Two branches side by side, one of them gated, then a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)
        self.c = nn.Conv2d(16, 8, 3, stride=2, padding=1)
        self.d = nn.Conv2d(8, 8, 3, padding=1, groups=8)

    def forward(self, x: Any) -> Any:
        import torch

        a, b = nn.functional.leaky_relu(self.a(x), 0.1), torch.sigmoid(self.b(x))
        c = self.c(torch.cat([a, b * a], 1))
        return torch.relu(c + self.d(c))


class Excited(nn.Module):
    """Squeeze and excite: a factor for each channel, on axes that it gets one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 8)

    def forward(self, x: Any) -> Any:
        y = nn.functional.relu(self.conv(x))
        return y * nn.functional.sigmoid(self.linear(y.mean((2, 3))))[:, :, None, None]


def networks() -> dict[str, nn.Module]:
    import torch

    torch.manual_seed(4)
    head = [nn.Flatten(), nn.Linear(8 * 36, 24), nn.ReLU(), nn.Linear(24, 10)]
    return {
        "plain": nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), *head),
        "branches": nn.Sequential(Branches(), *head),
        "average": nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), *head),
        "global": nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)),
        "softmax": nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), *head, nn.Softmax(1)),
    }


OPTIONS: dict[str, dict[str, Any]] = {
    "u8 per tensor": {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8},
    "u8 per channel": {"per_channel": True, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8},
    "s8 per channel": {"per_channel": True, "activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8},
    "u8 weights": {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8},
}


def check_exact(proto: onnx.ModelProto, network: Network, x: Array) -> int:
    """Feed every layer onnxruntime's own integers and demand its integers from both engines; return how many."""
    extended, names = with_integers_out(proto, {"x": x})
    codes = dict(zip(names, run(extended, {"x": x}, names), strict=True))
    made, total = layer_outputs(network, {"x": x}, codes), 0
    for name, theirs in codes.items():
        if name in made:
            np.testing.assert_array_equal(made[name], theirs.astype(np.int64).reshape(made[name].shape), err_msg=name)
            total += theirs.size
    ours = infer(compile_plan(network), {"x": x}, [name for name in network.values if network.values[name].kind == "codes"])
    slow = evaluate(network, {"x": x})
    for name, values in ours.items():
        if network.values[name].kind == "codes":
            np.testing.assert_array_equal(values.astype(np.int64), slow[name], err_msg=name)
    return total


@pytest.mark.parametrize("how", OPTIONS)
@pytest.mark.parametrize("kind", networks())
def test_networks_of_the_quantizer_are_exact(kind: str, how: str) -> None:
    proto = exported(networks()[kind], SIZE, False)
    quant = quantized(proto, images(0), operators=True, **OPTIONS[how])
    network = load(quant)
    assert check_exact(quant, network, images(1)) > 2000
    ours, theirs = infer(compile_plan(network), {"x": images(2)})["y"], run(quant, {"x": images(2)})[0]
    np.testing.assert_array_equal(ours, theirs)
    assert not any(isinstance(layer, FloatOperator) for layer in network.layers)
    assert all(tensor.encoding.kind in ("signed", "unsigned") for tensor in network.tensors.values())


def test_codes_keep_their_type_under_further_axes() -> None:
    quant = quantized(exported(nn.Sequential(Excited(), nn.Flatten(), nn.Linear(288, 10)), SIZE, False), images(0), operators=True)
    assert "Unsqueeze" in {each.op_type for each in quant.graph.node}
    np.testing.assert_array_equal(infer(compile_plan(load(quant)), {"x": images(1)})["y"], run(quant, {"x": images(1)})[0])


def test_the_layers_that_are_expected() -> None:
    network = load(quantized(exported(networks()["branches"], SIZE, False), images(0), operators=True))
    assert {LookUp, MulCodes, Convolution} <= {type(layer) for layer in network.layers}
    network = load(quantized(exported(networks()["global"], SIZE, False), images(0), operators=True))
    assert SumPool in {type(layer) for layer in network.layers}


# ── operators one by one, on every code ─────────────────────────────────────────────────────────────


def single(op: str, names: str, constants: dict[str, Any], shapes: dict[str, list[Any]], kind: int, **attributes: Any) -> Any:
    """A model of one operator of Microsoft's domain on integers."""
    made = helper.make_node(op, names.split(), ["y"], op, domain="com.microsoft", **attributes)
    types = dict.fromkeys([*shapes, "y"], kind)
    proto = model([made], {k: np.asarray(v) for k, v in constants.items()}, shapes, {"y": None}, types=types)  # type: ignore[dict-item]
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


def grid(rng: np.random.Generator, dtype: type, name: str) -> dict[str, Any]:
    info = np.iinfo(dtype)
    return {f"s{name}": F(rng.uniform(0.005, 0.1)), f"z{name}": np.array(rng.integers(info.min, info.max), dtype)}


def agree(proto: onnx.ModelProto, inputs: dict[str, Array]) -> Network:
    """Compare both engines with onnxruntime's integers."""
    network = load(proto)
    theirs = run(proto, inputs)[0]
    np.testing.assert_array_equal(evaluate(network, inputs)["y"], theirs.astype(np.int64))
    np.testing.assert_array_equal(infer(compile_plan(network), inputs)["y"], theirs)
    return network


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("seed", range(4))
def test_pointwise_operators_and_pools(seed: int, dtype: type) -> None:
    rng, info = np.random.default_rng(seed), np.iinfo(dtype)
    kind = {np.uint8: 2, np.int8: 3}[dtype]
    x = rng.integers(info.min, info.max + 1, (40, 4, 9, 9)).astype(dtype)
    y = rng.integers(info.min, info.max + 1, (40, 4, 9, 9)).astype(dtype)
    constants = {**grid(rng, dtype, "x"), **grid(rng, dtype, "y"), **grid(rng, dtype, "b")}
    one, two = {"x": ["N", 4, 9, 9]}, {"x": ["N", 4, 9, 9], "b": ["N", 4, 9, 9]}
    only = {k: constants[k] for k in ("sx", "zx", "sy", "zy")}
    for op, attributes in (("QLinearLeakyRelu", {"alpha": 0.1}), ("QLinearSigmoid", {}), ("QLinearGlobalAveragePool", {})):
        network = agree(single(op, "x sx zx sy zy", only, one, kind, **attributes), {"x": x})
        assert not any(isinstance(layer, FloatOperator) for layer in network.layers)
    for window in ({"kernel_shape": [2, 2], "strides": [2, 2]}, {"kernel_shape": [3, 3], "pads": [1, 0, 1, 1], "strides": [2, 1]}):
        for include in (0, 1):
            agree(single("QLinearAveragePool", "x sx zx sy zy", only, one, kind, count_include_pad=include, **window), {"x": x})
    for op in ("QLinearAdd", "QLinearMul"):
        agree(single(op, "x sx zx b sb zb sy zy", constants, two, kind), {"x": x, "b": y})
    agree(single("QLinearConcat", "sy zy x sx zx b sb zb", constants, two, kind, axis=1), {"x": x, "b": y})


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_softmax(dtype: type) -> None:
    rng, info = np.random.default_rng(0), np.iinfo(dtype)
    x = rng.integers(info.min, info.max + 1, (500, 10)).astype(dtype)
    constants = {"sx": F(0.07), "zx": np.array(3, dtype), "sy": F(1 / 256), "zy": np.array(info.min, dtype)}
    kind = {np.uint8: 2, np.int8: 3}[dtype]
    agree(single("QLinearSoftmax", "x sx zx sy zy", constants, {"x": ["N", 10]}, kind, axis=-1, opset=13), {"x": x})


@pytest.mark.parametrize("seed", range(3))
def test_integer_sums(seed: int) -> None:
    """ConvInteger and MatMulInteger, then a float scale: onnxruntime's numbers, with stored weights."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (20, 4, 8, 8)).astype(np.uint8)
    w, zx = rng.integers(-128, 128, (6, 4, 3, 3)).astype(np.int8), np.uint8(rng.integers(256))
    nodes = [node("ConvInteger", "x w zx", "a", strides=[2, 1]), node("Cast", "a", "f", to=1), node("Mul", "f s", "y")]
    constants = {"w": w, "zx": zx, "s": F(0.003)}
    shapes: tuple[dict[str, Any], dict[str, Any]] = ({"x": ["N", 4, 8, 8]}, {"y": ["N", 6, None, None]})
    proto = model(nodes, constants, *shapes, types={"x": 2})
    network = load(proto)
    assert [t.role for t in network.tensors.values()] == ["weight"]
    np.testing.assert_array_equal(infer(compile_plan(network), {"x": x})["y"], run(proto, {"x": x})[0])
    flat, v = x.reshape(20, -1), rng.integers(0, 256, (256, 7)).astype(np.uint8)
    zeros = rng.integers(0, 256, 7).astype(np.uint8)
    proto = model([node("MatMulInteger", "x v zx zv", "y")], {"v": v, "zx": zx, "zv": zeros}, {"x": ["N", 256]}, {"y": ["N", 7]},
                  types={"x": 2, "y": 6})  # fmt: skip
    np.testing.assert_array_equal(infer(compile_plan(load(proto)), {"x": flat})["y"], run(proto, {"x": flat})[0])


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zero_points", [False, True])
def test_packed_weights_in_blocks(bits: int, zero_points: bool) -> None:
    """MatMulNBits: stored are the packed codes; float32 sums as onnxruntime's, but for their order."""
    rng, (n, k, block) = np.random.default_rng(bits), (12, 40, 16)
    blocks = -(-k // block)
    packed = rng.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8)
    scales = rng.uniform(0.01, 0.1, n * blocks).astype(F)
    constants: dict[str, Any] = {"B": packed, "s": scales}
    if zero_points:
        constants["z"] = rng.integers(0, 256, n * -(-blocks * bits // 8)).astype(np.uint8)
    made = helper.make_node("MatMulNBits", ["x", *constants], ["y"], domain="com.microsoft", K=k, N=n, bits=bits, block_size=block)
    proto = model([made], constants, {"x": ["N", k]}, {"y": ["N", n]})
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    x = rng.normal(size=(30, k)).astype(F)
    network = load(proto)
    (tensor,) = network.weights
    assert (tensor.encoding.bits, tensor.encoding.kind, tensor.elements) == (bits, "unsigned", n * k)
    theirs = run(proto, {"x": x})[0]
    np.testing.assert_allclose(infer(compile_plan(network), {"x": x})["y"], theirs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(evaluate(network, {"x": x})["y"], theirs, rtol=1e-4, atol=1e-4)
