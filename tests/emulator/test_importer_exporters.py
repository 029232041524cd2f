"""What the real tools write: Brevitas (QCDQ and QONNX), torchao's PT2E, torch's fake quantization, onnxruntime's other quantizers.

Each layer is fed the reference's own integers: onnxruntime's, of the model as written, or qonnx's.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from tests.emulator.models import Array, exported, model, node, qonnx_values, quietly, reference_saturates, run, with_codes_out
from tests.emulator.reference import evaluate, layer_outputs
from weakcell.emulator.engine.executor import infer
from weakcell.emulator.importer import load
from weakcell.emulator.ir.layers import AffineRequantize, Convolution, DynamicQuantize
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.operators import FloatOperator
from weakcell.emulator.plan.plan import compile_plan

F = np.float32
SIZE = (3, 12, 12)


def images(seed: int, count: int = 16) -> Array:
    return np.random.default_rng(seed).normal(size=(count, *SIZE)).astype(F)


def both_engines(network: Network, x: Array) -> Array:
    """The output of the kernels, after making sure that every integer in between is the plain engine's."""
    inputs, names = {network.inputs[0]: x}, [n for n, spec in network.values.items() if spec.kind == "codes"]
    slow, fast = evaluate(network, inputs), infer(compile_plan(network), inputs, names, dynamic="image")
    for name in names:
        np.testing.assert_array_equal(fast[name].astype(np.int64), slow[name], err_msg=name)
    return fast[network.outputs[0]]


def lsb_apart(proto: onnx.ModelProto, network: Network, x: Array) -> tuple[int, int]:
    """(integers that differ from onnxruntime's by 1, integers compared); more than 1 fails."""
    extended, names = with_codes_out(proto)
    name = network.inputs[0]
    codes = dict(zip(names, run(extended, {name: x}, names), strict=True))
    made = layer_outputs(network, {name: x}, codes)
    wrong = total = 0
    for key in set(made) & set(codes):
        apart = np.abs(made[key] - codes[key].reshape(made[key].shape).astype(np.int64))
        assert apart.max(initial=0) <= 1, key
        wrong, total = wrong + int((apart > 0).sum()), total + apart.size
    return wrong, total


# ── Brevitas ────────────────────────────────────────────────────────────────────────────────────────


def brevitas_network(weight_bits: int, activation_bits: int) -> Any:
    """Convolutions, one depthwise, with their batch norms left unfused, and a residual sum."""
    qnn = pytest.importorskip("brevitas.nn", reason="Brevitas is not installed")
    pytest.importorskip("onnxoptimizer", reason="Brevitas' exporters need onnxoptimizer")
    torch.manual_seed(weight_bits)

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = qnn.QuantConv2d(8, 8, 3, padding=1, groups=8, weight_bit_width=weight_bits, bias=False)
            self.norm, self.add = nn.BatchNorm2d(8), qnn.QuantEltwiseAdd(return_quant_tensor=True)

        def forward(self, x: Any) -> Any:
            return self.add(x, self.norm(self.conv(x)))

    net = nn.Sequential(
        qnn.QuantIdentity(bit_width=8, return_quant_tensor=True),
        qnn.QuantConv2d(3, 8, 3, padding=1, weight_bit_width=weight_bits, bias=True),
        nn.BatchNorm2d(8),
        qnn.QuantReLU(bit_width=activation_bits, return_quant_tensor=True),
        nn.MaxPool2d(2),
        Sum(),
        nn.Flatten(),
        qnn.QuantLinear(8 * 36, 10, bias=True, weight_bit_width=weight_bits),
    )
    net.train()
    for seed in range(3):
        net(torch.from_numpy(images(seed)))
    return net.eval()


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize(("weights", "activations"), [(8, 8), (4, 4), (2, 4)])
def test_brevitas_qcdq(weights: int, activations: int, dynamo: bool, tmp_path: Path) -> None:
    net = brevitas_network(weights, activations)
    from brevitas.export import export_onnx_qcdq

    path, x = tmp_path / "net.onnx", images(5)
    with quietly():
        export_onnx_qcdq(net, args=torch.from_numpy(x), export_path=str(path), dynamo=dynamo, opset_version=18 if dynamo else 13)
    proto = onnx.load(path)
    network = load(proto)
    assert {str(t.encoding) for t in network.weights} == {f"int{weights}"}
    assert not any(isinstance(layer, FloatOperator) for layer in network.layers)
    wrong, total = lsb_apart(proto, network, x)
    assert total > 5000
    assert wrong <= 0.001 * total
    theirs = run(proto, {network.inputs[0]: x})[0]
    np.testing.assert_allclose(both_engines(network, x), theirs, rtol=1e-4, atol=0.02)
    np.testing.assert_array_equal(both_engines(network, x[:3]), both_engines(network, x)[:3])  # another batch than exported


@pytest.mark.parametrize(("weights", "activations"), [(8, 8), (4, 4), (2, 3)])
def test_brevitas_qonnx(weights: int, activations: int, tmp_path: Path) -> None:
    pytest.importorskip("qonnx", reason="qonnx is not installed")
    net = brevitas_network(weights, activations)
    from brevitas.export import export_qonnx

    path, x = tmp_path / "net.onnx", images(5)
    with quietly():
        export_qonnx(net, args=torch.from_numpy(x), export_path=str(path))
    network = load(path)
    assert {str(t.encoding) for t in network.weights} == {f"int{weights}"}
    wrong, total = qonnx_apart(onnx.load(path), network, x)
    assert total > 5000
    assert wrong <= 0.001 * total
    np.testing.assert_allclose(both_engines(network, x), net(torch.from_numpy(x)).detach().numpy(), rtol=1e-4, atol=0.02)


# ── QONNX ───────────────────────────────────────────────────────────────────────────────────────────


def qonnx_apart(proto: onnx.ModelProto, network: Network, x: Array) -> tuple[int, int]:
    """As `lsb_apart`, against the qonnx package: its floats divided by our scale are its integers."""
    values, codes = qonnx_values(proto, x), {}
    for name, spec in network.values.items():
        if spec.kind == "codes" and spec.dtype != "int32" and name in values:
            codes[name] = np.rint(values[name] / spec.scale).astype(np.int64) + spec.zero_point
    made = layer_outputs(network, {network.inputs[0]: x}, codes)
    wrong = total = 0
    for key in set(made) & set(codes):
        apart = np.abs(made[key] - codes[key].reshape(made[key].shape))
        assert apart.max(initial=0) <= 1, key
        wrong, total = wrong + int((apart > 0).sum()), total + apart.size
    return wrong, total


def qonnx_model(nodes: list[Any], constants: dict[str, Any], shape: tuple[Any, ...], out: tuple[Any, ...]) -> onnx.ModelProto:
    arrays = {k: np.asarray(v) for k, v in constants.items()}
    proto = model(nodes, arrays, {"x": shape}, {"y": out}, opset=13)
    for domain, version in (("qonnx.custom_op.general", 1), ("qonnx.custom_op.channels_last", 1)):
        proto.opset_import.append(helper.make_opsetid(domain, version))
    return proto


def general(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], output, domain="qonnx.custom_op.general", **attributes)


MODES = ["ROUND", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN"]


@pytest.mark.parametrize("mode", MODES)
def test_rounding_modes(mode: str) -> None:
    """An odd zero point, then the same again on codes (a table), bit for bit the qonnx package's numbers."""
    nodes = [
        general("Quant", "x s z b", "a", signed=1, narrow=0, rounding_mode=mode),
        general("Quant", "a t o c", "y", signed=0, narrow=1, rounding_mode=mode),
    ]
    constants = {"s": F(0.25), "z": F(3), "b": F(6), "t": F(0.5), "o": F(0), "c": F(3)}
    proto = qonnx_model(nodes, constants, (8, 5), (8, 5))
    x = (np.random.default_rng(0).integers(-60, 60, (8, 5)) / 8).astype(F)
    np.testing.assert_array_equal(infer(compile_plan(load(proto)), {"x": x})["y"], qonnx_values(proto, x)["y"])


def test_multi_threshold_and_trunc() -> None:
    """Integer sums counted against thresholds with rising and falling channels, as FINN writes them; and Trunc."""
    rng = np.random.default_rng(1)
    nodes = [
        general("Quant", "x s z b", "q", signed=1, narrow=0, rounding_mode="ROUND"),
        general("Quant", "w sw z wb", "wq", signed=1, narrow=1, rounding_mode="ROUND"),
        node("Conv", "q wq", "c", pads=[1, 1, 1, 1]), node("Mul", "c g", "n"),
        general("MultiThreshold", "n t", "m", out_scale=1.0, out_bias=-3.0, out_dtype="INT3"),
        general("Trunc", "m one z four two", "r", rounding_mode="FLOOR"),
        general("MultiThreshold", "r u", "y", out_scale=2.0, out_bias=-1.0, out_dtype="BIPOLAR"),
    ]  # fmt: skip
    constants = {
        "s": F(0.125), "z": F(0), "b": F(4), "w": rng.normal(size=(4, 3, 3, 3)).astype(F) * F(0.3), "sw": F(0.125), "wb": F(4),
        "g": rng.choice([-1.0, 1.0], (1, 4, 1, 1)).astype(F), "t": np.sort(rng.normal(size=(4, 7)), 1).astype(F), "one": F(1),
        "four": F(4), "two": F(3), "u": np.array([[0.5], [-0.5], [0.0], [1.0]], F),
    }  # fmt: skip
    proto = qonnx_model(nodes, constants, (6, 3, 7, 7), (6, 4, 7, 7))
    x = rng.normal(size=(6, 3, 7, 7)).astype(F)
    network = load(proto)
    assert [type(layer).__name__ for layer in network.layers[:3]] == ["Quantize", "Convolution", "CountThresholds"]
    np.testing.assert_array_equal(both_engines(network, x), qonnx_values(proto, x)["y"])


def test_channels_last() -> None:
    """qonnx's own transformation to channels-last operators leaves the same integer network."""
    wrapper = pytest.importorskip("qonnx.core.modelwrapper", reason="qonnx is not installed")
    from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
    from qonnx.transformation.infer_shapes import InferShapes

    rng, plain = np.random.default_rng(2), {"strides": [1, 1], "dilations": [1, 1], "group": 1}
    nodes = [
        general("Quant", "x s z b", "q", signed=1, narrow=0, rounding_mode="ROUND"),
        general("Quant", "w sw z wb", "wq", signed=1, narrow=1, rounding_mode="ROUND"),
        node("Conv", "q wq", "c", pads=[1, 1, 1, 1], kernel_shape=[3, 3], **plain), node("BatchNormalization", "c g h m v", "n"),
        general("Quant", "n s z b", "r", signed=1, narrow=0, rounding_mode="ROUND"),
        node("MaxPool", "r", "y", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0], dilations=[1, 1]),
    ]  # fmt: skip
    constants = {
        "s": F(0.125), "z": F(0), "b": F(4), "w": rng.normal(size=(4, 3, 3, 3)).astype(F) * F(0.3), "sw": F(0.125), "wb": F(4),
        "g": rng.normal(size=4).astype(F), "h": rng.normal(size=4).astype(F), "m": rng.normal(size=4).astype(F),
        "v": rng.uniform(0.5, 2, 4).astype(F),
    }  # fmt: skip
    proto = qonnx_model(nodes, constants, (1, 3, 8, 8), (1, 4, 4, 4))
    with quietly():
        turned = wrapper.ModelWrapper(proto).transform(InferShapes()).transform(ConvertToChannelsLastAndClean()).model
    assert any("channels_last" in item.domain for item in turned.graph.node)
    x, network = rng.normal(size=(1, 3, 8, 8)).astype(F), load(turned)
    assert not any(isinstance(layer, FloatOperator) for layer in network.layers)
    np.testing.assert_array_equal(both_engines(network, x), qonnx_values(proto, x)["y"])


# ── torch ───────────────────────────────────────────────────────────────────────────────────────────


def float_network() -> nn.Module:
    torch.manual_seed(7)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.pool, self.fc = nn.MaxPool2d(2), nn.Linear(8 * 36, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.a(x))
            x = self.pool(torch.relu(x + self.b(x)))
            return self.fc(torch.flatten(x, 1))

    return Net().eval()


@pytest.mark.parametrize("quantizer", ["xnnpack", "x86"])
def test_torchao_pt2e(quantizer: str) -> None:
    pytest.importorskip("torchao", reason="torchao is not installed")
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    if quantizer == "xnnpack":
        from torchao.testing.pt2e._xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config

        rules = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    else:
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

        rules = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    x = torch.from_numpy(images(0))
    with quietly():
        prepared = prepare_pt2e(torch.export.export(float_network(), (x,)).module(), rules)
        prepared(x)
        converted = convert_pt2e(prepared)
        proto = torch.onnx.export(converted, (x,), dynamo=True, input_names=["x"], output_names=["y"], verbose=False).model_proto
    network = load(proto)
    assert {str(t.encoding) for t in network.weights} == {"int8"}
    wrong, total = lsb_apart(proto, network, images(1))
    assert total > 5000
    assert wrong <= 0.001 * total
    np.testing.assert_allclose(both_engines(network, images(1)), run(proto, {"x": images(1)})[0], rtol=1e-3, atol=0.05)


def test_torch_fake_quantize() -> None:
    """Quantize and dequantize in the graph, the weight's scale computed there from the weight itself."""

    class Fake(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(800, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.fake_quantize_per_tensor_affine(x, 0.03, 5, -128, 127)
            w = self.conv.weight
            scale = w.detach().abs().amax((1, 2, 3)) / 127
            w = torch.fake_quantize_per_channel_affine(w, scale, torch.zeros(8, dtype=torch.int32), 0, -128, 127)
            x = torch.relu(nn.functional.conv2d(x, w, self.conv.bias))
            x = torch.fake_quantize_per_tensor_affine(x, 0.02, 0, 0, 255)
            return self.fc(torch.flatten(x, 1))

    torch.manual_seed(1)
    proto = exported(Fake(), SIZE, False)
    network = load(proto)
    assert any(str(t.encoding) == "int8" for t in network.weights)
    assert any(isinstance(layer, AffineRequantize) for layer in network.layers)
    wrong, total = lsb_apart(proto, network, images(1))
    assert total > 5000
    assert wrong <= 0.001 * total


# ── onnxruntime's other quantizers ──────────────────────────────────────────────────────────────────


def test_dynamic_quantization_is_that_of_a_batch_of_one() -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(288, 32), nn.ReLU(), nn.Linear(32, 10))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "a.onnx", Path(folder) / "b.onnx"
        onnx.save(exported(net, SIZE, False), source)
        for kind in (QuantType.QInt8, QuantType.QUInt8):
            narrow = kind == QuantType.QInt8 and reference_saturates()
            types = ["Conv", "MatMul", "Gemm"]
            quantize_dynamic(source, target, weight_type=kind, op_types_to_quantize=types, reduce_range=narrow)
            proto, x = onnx.load(target), images(3)
            network = load(proto)
            assert sum(isinstance(layer, DynamicQuantize) for layer in network.layers) == 3
            assert len([t for t in network.weights if t.encoding.bits == 8]) == 3
            one_by_one = np.concatenate([run(proto, {"x": x[i : i + 1]})[0] for i in range(len(x))])
            np.testing.assert_allclose(both_engines(network, x), one_by_one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bits", ["INT4", "UINT4", "INT2", "UINT2"])
@pytest.mark.parametrize("blocked", [False, True])
def test_narrow_weights(bits: str, blocked: bool) -> None:
    """Packed weights of opset 21 (25 for 2 bits), with one scale per output or one per block of 16 inputs."""
    rng, kind = np.random.default_rng(0), getattr(onnx.TensorProto, bits)
    low, high = {"INT4": (-8, 7), "UINT4": (0, 15), "INT2": (-2, 1), "UINT2": (0, 3)}[bits]
    codes = rng.integers(low, high + 1, (40, 12))
    weight = helper.make_tensor("w", kind, codes.shape, codes.astype(np.int32).reshape(-1).tolist())
    scale = rng.uniform(0.05, 0.2, (3, 12) if blocked else 12).astype(F)
    how = {"axis": 0, "block_size": 16} if blocked else {"axis": 1}
    nodes = [node("DequantizeLinear", "w s", "f", **how), node("MatMul", "x f", "y")]
    proto = model(nodes, {"s": scale}, {"x": ["N", 40]}, {"y": ["N", 12]}, opset=25 if bits.endswith("2") else 21)
    proto.graph.initializer.append(weight)
    network, x = load(proto), rng.normal(size=(9, 40)).astype(F)
    (tensor,) = network.weights
    assert str(tensor.encoding) == bits.lower()
    np.testing.assert_array_equal(np.sort(tensor.values.reshape(-1)), np.sort(codes.reshape(-1)))
    real = codes.astype(F) * (np.repeat(scale, 16, 0)[:40] if blocked else scale)
    np.testing.assert_allclose(both_engines(network, x), x @ real, rtol=1e-4, atol=1e-4)
    assert numpy_helper.to_array(weight).shape == (40, 12)


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 13, 17, 18, 21, 23, 25, 28])
def test_every_opset(opset: int) -> None:
    """Attributes became inputs over the years: the same network in each opset's way of writing it."""
    if opset > onnx.defs.onnx_opset_version():
        pytest.skip("the installed onnx does not know this opset")
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(5, 3, 8, 8)).astype(F), rng.choice([-1.0, 1.0], (4, 3, 3, 3)).astype(F)
    constants: dict[str, Any] = {"w": w, "lo": F(-6), "hi": F(6), "p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "ax": np.array([2, 3])}
    constants |= {"st": np.array([1]), "en": np.array([3]), "ch": np.array([1]), "sp": np.array([1, 1])}
    pad = node("Pad", "x", "a", pads=[0, 0, 1, 1, 0, 0, 1, 1]) if opset < 11 else node("Pad", "x p", "a")
    clip = node("Clip", "c", "d", min=-6.0, max=6.0) if opset < 11 else node("Clip", "c lo hi", "d")
    cut = node("Slice", "d", "e", starts=[1], ends=[3], axes=[1]) if opset < 10 else node("Slice", "d st en ch", "e")
    split = node("Split", "e", "f g", axis=1, split=[1, 1]) if opset < 13 else node("Split", "e sp", "f g", axis=1)
    mean = node("ReduceMean", "h", "m", axes=[2, 3]) if opset < 18 else node("ReduceMean", "h ax", "m")
    drop = node("Squeeze", "m", "y", axes=[2, 3]) if opset < 13 else node("Squeeze", "m ax", "y")
    nodes = [pad, node("Conv", "a w", "c"), clip, cut, split, node("Sub", "f g", "h"), mean, drop]
    proto = model(nodes, {k: np.asarray(v) for k, v in constants.items()}, {"x": ["N", 3, 8, 8]}, {"y": ["N", 1]}, opset=opset)
    network = load(proto, integer_input=False)
    assert any(isinstance(layer, Convolution) for layer in network.layers)
    plain = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    views = np.lib.stride_tricks.sliding_window_view(plain, (3, 3), (2, 3))
    c = np.clip(np.einsum("nchwij,ocij->nohw", views, w), -6, 6)
    np.testing.assert_allclose(both_engines(network, x)[:, 0], (c[:, 1] - c[:, 2]).mean((1, 2)), rtol=1e-4, atol=1e-4)
