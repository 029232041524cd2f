"""Graph structure: ResNet18 and MobileNetV2 as quantizers write them, and operators that move, pad, pool and pick on integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnxruntime.quantization import QuantType
from torch import nn

from tests.emulator.models import Array, exported, model, node, quantized, run, with_codes_out, with_integers_out
from tests.emulator.reference import evaluate, layer_outputs
from weakcell.emulator.engine.executor import infer
from weakcell.emulator.importer import load
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import Convolution, LookUp
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.operators import CodesOperator, FloatOperator
from weakcell.emulator.plan.plan import compile_plan

F = np.float32


# ── whole networks ──────────────────────────────────────────────────────────────────────────────────


class Block(nn.Module):
    """ResNet's basic block."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.a, self.na = nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer)
        self.b, self.nb = nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer)
        same = inner == outer and stride == 1
        self.short = nn.Identity() if same else nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.nb(self.b(torch.relu(self.na(self.a(x))))) + self.short(x))


def resnet18() -> nn.Module:
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    widths = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
    return nn.Sequential(*stem, *(Block(*w) for w in widths), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 100))


class Inverted(nn.Module):
    """MobileNetV2's inverted residual."""

    def __init__(self, inner: int, outer: int, stride: int, grow: int) -> None:
        super().__init__()
        wide = inner * grow
        first = [nn.Conv2d(inner, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()] if grow > 1 else []
        depthwise = [nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
        self.body = nn.Sequential(*first, *depthwise, nn.Conv2d(wide, outer, 1, bias=False), nn.BatchNorm2d(outer))
        self.residual = inner == outer and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.body(x)
        return x + y if self.residual else y


def mobilenet_v2() -> nn.Module:
    plan, inner, blocks = (
        [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)],
        32,
        [],
    )
    for grow, outer, count, stride in plan:
        for i in range(count):
            blocks.append(Inverted(inner, outer, stride if i == 0 else 1, grow))
            inner = outer
    stem = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()]
    last = [nn.Conv2d(320, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*stem, *blocks, *last, nn.Linear(1280, 100))


def whole(kind: str) -> tuple[onnx.ModelProto, Array]:
    """Return the float network with random weights, trained a few steps for its batch norms, and images."""
    torch.manual_seed(0)
    net = {"resnet18": resnet18, "mobilenet_v2": mobilenet_v2}[kind]()
    images = np.random.default_rng(0).normal(size=(12, 3, 32, 32)).astype(F)
    net.train()
    with torch.no_grad():
        for _ in range(4):
            net(torch.from_numpy(images))
    return exported(net, (3, 32, 32), True), images


@pytest.mark.parametrize(
    ("kind", "operators"), [("resnet18", True), ("mobilenet_v2", False)], ids=["resnet18-qoperator", "mobilenet_v2-qdq"]
)
def test_whole_networks(kind: str, operators: bool) -> None:
    """Every layer on onnxruntime's own integers: QOperator equal, QDQ (written in float32) at most 1 LSB apart, and rarely.

    One network for each dialect: small networks of test_importer_qdq.py and test_importer_qoperator.py have the other pairs.
    """
    proto, images = whole(kind)
    rules = {"per_channel": True, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quant = quantized(proto, images, operators=operators, **rules)
    network, x = load(quant), images[:4]
    floats = {layer.op_type for layer in network.layers if isinstance(layer, FloatOperator)}
    assert not floats
    assert len(network.weights) == {"resnet18": 21, "mobilenet_v2": 53}[kind]
    extended, names = with_integers_out(quant, {"x": x}) if operators else with_codes_out(quant)
    codes = dict(zip(names, run(extended, {"x": x}, names), strict=True))
    made = infer_on(network, {"x": x}, codes)
    wrong = total = 0
    for name, theirs in codes.items():
        if name in made:
            apart = np.abs(made[name].astype(np.int64) - theirs.astype(np.int64).reshape(made[name].shape))
            assert apart.max(initial=0) <= (0 if operators else 1), name
            wrong, total = wrong + int((apart > 0).sum()), total + apart.size
    assert total > 200_000
    assert wrong <= 0.001 * total
    if operators:
        np.testing.assert_array_equal(infer(compile_plan(network), {"x": x})["y"], run(quant, {"x": x})[0])


def infer_on(network: Network, inputs: dict[str, Array], codes: dict[str, Array]) -> dict[str, Array]:
    """Return what the kernels make of each value of the reference, from the reference's integers before it."""
    known = {
        **{name: network.values[name] for name in network.inputs},
        **{n: network.values[n] for n in codes if n in network.values},
    }
    makers = {layer.output: layer for layer in network.layers}
    made: dict[str, Array] = {}
    for name in codes:
        if name not in makers:
            continue
        layers, sources = between(makers, name, known)
        part = Network("part", tuple(sources), (name,), layers, network.values, network.tensors)
        given = {s: inputs.get(s, codes.get(s)) for s in sources}
        shaped = {s: np.asarray(a).reshape(-1, *network.values[s].shape) for s, a in given.items()}
        made[name] = infer(compile_plan(part), shaped)[name]
    return made


def between(makers: dict[str, Layer], name: str, known: set[str]) -> tuple[tuple[Layer, ...], list[str]]:
    """Return the layers from known values to a value, in order, and these values."""
    layers, sources, wanted = [], [], [name]
    while wanted:
        layer = makers[wanted.pop()]
        if layer not in layers:
            layers.append(layer)
            sources += [x for x in layer.inputs if x in known and x not in sources]
            wanted += [x for x in layer.inputs if x not in known]
    order = list(makers.values())
    return tuple(sorted(layers, key=order.index)), sources


# ── operators on integers ───────────────────────────────────────────────────────────────────────────

GRID = {"s": F(0.05), "z": np.uint8(117), "s2": F(0.08), "z2": np.uint8(90)}


def around(nodes: list[onnx.NodeProto], out: list[Any], extra: dict[str, Any] | None = None, opset: int = 18) -> onnx.ModelProto:
    """Return x -> Q -> DQ -> (a …) nodes (… b) -> Q -> DQ -> y."""
    before = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "a")]
    after = [node("QuantizeLinear", "b s2 z2", "r"), node("DequantizeLinear", "r s2 z2", "y")]
    constants = {k: np.asarray(v) for k, v in {**GRID, **(extra or {})}.items()}
    return model([*before, *nodes, *after], constants, {"x": ["N", 6, 9, 8]}, {"y": ["N", *out]}, opset)


def agree(proto: onnx.ModelProto, x: Array, floats: bool = False, lsb: int = 0) -> Network:
    """Compare both engines with onnxruntime on the model as written."""
    network, theirs = load(proto), run(proto, {"x": x})[0]
    assert floats or not any(isinstance(layer, FloatOperator) for layer in network.layers)
    for ours in (evaluate(network, {"x": x})["y"], infer(compile_plan(network), {"x": x})["y"]):
        assert ours.shape == theirs.shape
        if lsb:
            apart = np.abs(ours - theirs) / GRID["s2"]
            assert apart.max() < 1.01
            assert np.mean(apart > 0.5) < 0.006  # ties, which float noise decides there
        else:
            np.testing.assert_array_equal(ours, theirs)
    return network


def images() -> Array:
    return np.random.default_rng(1).normal(size=(5, 6, 9, 8)).astype(F) * F(3)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


MOVES: dict[str, tuple[list[onnx.NodeProto], list[int], dict[str, Any]]] = {
    "transpose": ([node("Transpose", "a", "b", perm=[0, 2, 3, 1])], [9, 8, 6], {}),
    "slice": ([node("Slice", "a st en ax sp", "b")], [6, 5, 3],
              {"st": ints(-1, 1), "en": ints(-99, 7), "ax": ints(2, 3), "sp": ints(-2, 2)}),
    "split": ([node("Split", "a", "c d", axis=1, num_outputs=2), node("Concat", "d c", "b", axis=2)], [3, 18, 8], {}),
    "pad": ([node("Pad", "a p v", "b")], [6, 12, 8], {"p": ints(0, 0, 1, 0, 0, 0, 2, 0), "v": F(1.0)}),
    "pad then quantize": ([node("Pad", "a p", "b")], [6, 10, 10], {"p": ints(0, 0, 1, 2, 0, 0, 0, 0)}),
    "reflect": ([node("Pad", "a p", "b", mode="reflect")], [6, 11, 8], {"p": ints(0, 0, 1, 0, 0, 0, 1, 0)}),
    "gather": ([node("Gather", "a i", "b", axis=1)], [4, 9, 8], {"i": ints(5, 0, 0, 2)}),
    "depth": ([node("Slice", "a o f c", "c1"), node("DepthToSpace", "c1", "b", blocksize=2)], [1, 18, 16],
              {"o": ints(0), "f": ints(4), "c": ints(1)}),
    "nearest": ([node("Resize", "a - sc", "b", mode="nearest")], [6, 16, 12], {"sc": np.array([1, 1, 1.8, 1.5], F)}),
    "flat": ([node("Flatten", "a", "c"), node("Slice", "c o f u", "b")], [100], {"o": ints(7), "f": ints(107), "u": ints(1)}),
    "relu": ([node("Relu", "a", "c"), node("Transpose", "c", "b", perm=[0, 3, 1, 2])], [8, 6, 9], {}),
}  # fmt: skip


@pytest.mark.parametrize("kind", MOVES)
def test_moves_leave_the_codes_as_they_are(kind: str) -> None:
    nodes, out, extra = MOVES[kind]
    network = agree(around(nodes, out, extra), images())
    assert any(isinstance(layer, CodesOperator) for layer in network.layers)


POINTWISE: dict[str, list[onnx.NodeProto]] = {
    "sigmoid": [node("Sigmoid", "a", "b")],
    "tanh": [node("Tanh", "a", "b")],
    "leaky": [node("LeakyRelu", "a", "b", alpha=0.2)],
    "hard swish": [node("HardSwish", "a", "b")],
    "hard sigmoid": [node("HardSigmoid", "a", "b")],
    "mish": [node("Mish", "a", "b")],
    "elu": [node("Elu", "a", "b", alpha=0.7)],
    "chain": [node("Tanh", "a", "c"), node("Mul", "c three", "d"), node("Relu", "d", "b")],
}


@pytest.mark.parametrize("kind", POINTWISE)
def test_functions_of_one_code_are_tables(kind: str) -> None:
    """onnxruntime's own operators are the reference; the layer must be a table."""
    network = agree(around(POINTWISE[kind], [6, 9, 8], {"three": F(3)}), images())
    assert any(isinstance(layer, LookUp) for layer in network.layers)


def test_parts_of_different_scales_side_by_side() -> None:
    nodes = [node("Sigmoid", "a", "c"), node("QuantizeLinear", "c s3 z3", "d"), node("DequantizeLinear", "d s3 z3", "e"),
             node("MaxPool", "a", "f", kernel_shape=[1, 1]), node("Concat", "a e f", "b", axis=1)]  # fmt: skip
    agree(around(nodes, [18, 9, 8], {"s3": F(1 / 255), "z3": np.uint8(0)}), images())


POOLS: dict[str, tuple[list[onnx.NodeProto], list[Any], int]] = {
    "max ceil": ([node("MaxPool", "a", "b", kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1)], [6, 4, 4], 0),
    "max dilated": ([node("MaxPool", "a", "b", kernel_shape=[2, 3], dilations=[2, 1], pads=[1, 1, 0, 1])], [6, 8, 8], 0),
    "max same": ([node("MaxPool", "a", "b", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER")], [6, 5, 4], 0),
    "mean ceil": ([node("AveragePool", "a", "b", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], [6, 4, 4], 1),
    "mean padded": ([node("AveragePool", "a", "b", kernel_shape=[3, 3], pads=[1, 1, 1, 0], count_include_pad=1)], [6, 9, 7], 1),
    "mean same": ([node("AveragePool", "a", "b", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")], [6, 5, 4], 1),
    "global max": ([node("GlobalMaxPool", "a", "b")], [6, 1, 1], 0),
    "global mean": ([node("GlobalAveragePool", "a", "b")], [6, 1, 1], 1),
    "reduce mean": ([node("ReduceMean", "a hw", "b", keepdims=0)], [6], 1),
}


@pytest.mark.parametrize("kind", POOLS)
def test_pools(kind: str) -> None:
    nodes, out, lsb = POOLS[kind]
    agree(around(nodes, out, {"hw": ints(2, 3)}, opset=22), images(), lsb=lsb)


CONVOLUTIONS: dict[str, tuple[dict[str, Any], tuple[int, ...], list[int]]] = {
    "uneven pads": ({"pads": [2, 0, 1, 1]}, (4, 6, 3, 3), [4, 10, 7]),
    "same upper": ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (4, 6, 3, 3), [4, 5, 4]),
    "same lower": ({"auto_pad": "SAME_LOWER", "strides": [2, 3]}, (4, 6, 2, 2), [4, 5, 3]),
    "valid": ({"auto_pad": "VALID"}, (4, 6, 3, 1), [4, 7, 8]),
    "dilated": ({"dilations": [2, 3], "pads": [1, 1, 1, 1]}, (4, 6, 3, 2), [4, 7, 7]),
    "grouped": ({"group": 3, "pads": [1, 1, 1, 1]}, (9, 2, 3, 3), [9, 9, 8]),
    "depthwise twice": ({"group": 6, "pads": [1, 1, 1, 1], "strides": [2, 1]}, (12, 1, 3, 3), [12, 5, 8]),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions(kind: str) -> None:
    attributes, shape, out = CONVOLUTIONS[kind]
    rng = np.random.default_rng(3)
    extra = {"w": rng.integers(-127, 128, shape).astype(np.int8), "sw": rng.uniform(0.001, 0.004, shape[0]).astype(F)}
    nodes = [node("DequantizeLinear", "w sw", "f", axis=0), node("Conv", "a f", "b", **attributes)]
    agree(around(nodes, out, extra), images(), lsb=1)


def test_sixteen_bits_beside_eight() -> None:
    """int16 activations on int8 weights stay integers; on int16 weights their sums could leave int32, so they stay float."""
    rng = np.random.default_rng(4)
    for dtype, kind in ((np.int8, False), (np.int16, True)):
        info = np.iinfo(dtype)
        w = rng.integers(info.min, info.max, (40, 12)).astype(dtype)
        constants = {"s": F(0.001), "z": np.int16(0), "w": w, "sw": F(1.0 / info.max), "s2": F(0.002), "z2": np.int16(0)}
        nodes = [
            node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "a"), node("DequantizeLinear", "w sw", "f"),
            node("MatMul", "a f", "b"), node("QuantizeLinear", "b s2 z2", "r"), node("DequantizeLinear", "r s2 z2", "y"),
        ]  # fmt: skip
        proto = model(nodes, {k: np.asarray(v) for k, v in constants.items()}, {"x": ["N", 40]}, {"y": ["N", 12]}, 21)
        network, x = load(proto), rng.normal(size=(50, 40)).astype(F)
        (layer,) = (item for item in network.layers if isinstance(item, Convolution))
        assert (network.values[layer.inputs[0]].kind == "float") == kind
        assert str(network.weights[0].encoding) == np.dtype(dtype).name
        theirs = run(proto, {"x": x})[0]
        assert np.abs(infer(compile_plan(network), {"x": x})["y"] - theirs).max() <= 0.0021


def test_a_network_that_ends_in_classes() -> None:
    """Softmax, ArgMax and TopK stay float operators, and are exact on exact logits."""
    rng = np.random.default_rng(5)
    extra = {"w": rng.integers(-127, 128, (432, 10)).astype(np.int8), "sw": F(0.0005), "three": ints(3)}
    nodes = [node("Flatten", "a", "c"), node("DequantizeLinear", "w sw", "f"), node("MatMul", "c f", "b")]
    proto = around(nodes, [10], extra)
    proto.graph.node.extend(
        [node("Softmax", "y", "p", axis=-1), node("ArgMax", "y", "best", axis=1), node("TopK", "y three", "top at")]
    )
    kinds = {"p": (1, ["N", 10]), "best": (7, ["N", 1]), "top": (1, ["N", 3]), "at": (7, ["N", 3])}
    proto.graph.output.extend(helper.make_tensor_value_info(name, *kind) for name, kind in kinds.items())
    ours, theirs = infer(compile_plan(load(proto)), {"x": images()}), run(proto, {"x": images()})
    for name, values in zip(["y", *kinds], theirs, strict=True):
        assert ours[name].dtype == values.dtype
        np.testing.assert_allclose(ours[name], values, rtol=1e-6)


def test_tokens_keep_their_weights_stored() -> None:
    """A matrix product on [N, T, K]: the rows are pixels, the weights stored."""
    rng = np.random.default_rng(6)
    constants = {
        "w": rng.integers(-127, 128, (16, 12)).astype(np.int8),
        "sw": rng.uniform(0.01, 0.1, 12).astype(F),
        "b": np.ones(12, F),
    }
    nodes = [node("DequantizeLinear", "w sw", "f", axis=1), node("MatMul", "x f", "c"), node("Add", "c b", "y")]
    proto = model(nodes, constants, {"x": ["N", 2, 7, 16]}, {"y": ["N", 2, 7, 12]})
    network, x = load(proto), rng.normal(size=(3, 2, 7, 16)).astype(F)
    assert [str(t.encoding) for t in network.weights] == ["int8"]
    for ours in (evaluate(network, {"x": x}), infer(compile_plan(network), {"x": x})):
        np.testing.assert_allclose(ours["y"], run(proto, {"x": x})[0], rtol=1e-4, atol=1e-3)


def test_layers_of_the_reference_agree_with_the_kernels() -> None:
    """The plain engine fed onnxruntime's integers of a QOperator network makes what the kernels make."""
    proto, x = whole("resnet18")
    quant = quantized(proto, x, operators=True)
    network = load(quant)
    extended, names = with_integers_out(quant, {"x": x[:1]})
    codes = dict(zip(names, run(extended, {"x": x[:1]}, names), strict=True))
    made = layer_outputs(network, {"x": x[:1]}, codes)
    for name in set(names) & set(made):
        np.testing.assert_array_equal(made[name], codes[name].astype(np.int64).reshape(made[name].shape))
