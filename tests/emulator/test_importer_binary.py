"""Binarized networks as exporters write them.

Logits equal onnxruntime's, all layers are integer layers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from tests.emulator.models import exported, model, node, run
from tests.emulator.reference import evaluate
from weakcell.emulator.importer import load
from weakcell.emulator.ir.layers import Convolution, MaxPool, TernarySign, Threshold
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.operators import FloatOperator
from weakcell.emulator.ir.values import SIGN1
from weakcell.memmodels.errors import ModelError

SIZE = (2, 10, 10)


class Ones(nn.Module):
    """Where(x >= 0, 1, -1): no input gives 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x >= 0, 1.0, -1.0)


class Strict(nn.Module):
    """Greater, Cast, Mul 2, Sub 1: 0 gives -1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x > 0).float() * 2.0 - 1.0


class Below(nn.Module):
    """Where(x < 0, -1, 1): levels and comparison the other way round."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x < 0, -1.0, 1.0)


class Sign(nn.Module):
    """Sign: 0 gives 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sign(x)


class HardTanhSign(nn.Module):
    """Clip(-1, 1) then Sign."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sign(torch.clamp(x, -1.0, 1.0))


class SignWeight(nn.Module):
    """A convolution or dense layer that binarizes latent weights in the graph, with or without XNOR-Net's alpha."""

    def __init__(self, layer: nn.Module, how: str, alpha: bool = False) -> None:
        super().__init__()
        self.layer, self.how, self.alpha = layer, how, alpha

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w = self.layer.weight
        b = torch.sign(w) if self.how == "sign" else torch.where(w >= 0, 1.0, -1.0)
        if self.alpha:
            b = b * w.abs().reshape(len(w), -1).mean(1).reshape(-1, *[1] * (w.dim() - 1))
        if w.dim() == 2:
            return nn.functional.linear(x, b)
        return nn.functional.conv2d(x, b, padding=self.layer.padding, stride=self.layer.stride)


def ones(layer: nn.Module) -> nn.Module:
    """The layer with ±1 weights as plain floats."""
    with torch.no_grad():
        layer.weight.copy_(torch.where(layer.weight >= 0, 1.0, -1.0))
    return layer


def norm(layer: nn.Module, seed: int) -> nn.Module:
    """A batch norm with positive, negative and zero gammas, and statistics of the order of the sums."""
    rng = torch.Generator().manual_seed(seed)
    n = layer.num_features
    with torch.no_grad():
        layer.weight.copy_(torch.randn(n, generator=rng))
        layer.weight[::5] = 0.0
        layer.bias.copy_(torch.randn(n, generator=rng))
        layer.running_mean.copy_(torch.randn(n, generator=rng) * 5)
        layer.running_var.copy_(torch.rand(n, generator=rng) * 40 + 1)
    return layer


def styles() -> dict[str, tuple[nn.Module, bool]]:
    """name: (network, whether integers may reach an exact zero of Sign)."""
    torch.manual_seed(1)

    def conv(a: int, b: int, padding: int = 1, **more: int) -> nn.Module:
        return ones(nn.Conv2d(a, b, 3, padding=padding, bias=False, **more))

    def dense(a: int, b: int) -> nn.Module:
        return ones(nn.Linear(a, b, bias=False))

    return {
        "sign": (
            nn.Sequential(
                conv(2, 12),
                norm(nn.BatchNorm2d(12), 0),
                Sign(),
                conv(12, 8),
                nn.MaxPool2d(2),
                norm(nn.BatchNorm2d(8), 1),
                Sign(),
                nn.Flatten(),
                dense(200, 7),
            ),
            False,
        ),
        "where": (
            nn.Sequential(
                conv(2, 12),
                norm(nn.BatchNorm2d(12), 0),
                Ones(),
                conv(12, 8),
                nn.MaxPool2d(2),
                norm(nn.BatchNorm2d(8), 1),
                Ones(),
                nn.Flatten(),
                dense(200, 7),
            ),
            False,
        ),
        "strict": (nn.Sequential(conv(2, 12), Strict(), conv(12, 8, stride=2), Strict(), nn.Flatten(), dense(200, 7)), False),
        "below": (
            nn.Sequential(
                conv(2, 12), Below(), conv(12, 8, stride=2), norm(nn.BatchNorm2d(8), 2), Below(), nn.Flatten(), dense(200, 7)
            ),
            False,
        ),
        "hardtanh": (nn.Sequential(conv(2, 12), norm(nn.BatchNorm2d(12), 3), HardTanhSign(), nn.Flatten(), dense(1200, 7)), False),
        "zeros": (nn.Sequential(conv(2, 12), Sign(), conv(12, 8), Sign(), nn.Flatten(), dense(800, 7)), True),
        "unpadded": (
            nn.Sequential(conv(2, 12, 0), Ones(), conv(12, 9, 0), Ones(), conv(9, 6, 0), Sign(), nn.Flatten(), dense(96, 7)),
            False,
        ),
        "norm before pool": (
            nn.Sequential(conv(2, 12), norm(nn.BatchNorm2d(12), 4), nn.MaxPool2d(2), Ones(), nn.Flatten(), dense(300, 7)),
            False,
        ),
        "norm before pool, sign": (
            nn.Sequential(conv(2, 12), norm(nn.BatchNorm2d(12), 4), nn.MaxPool2d(2), Sign(), nn.Flatten(), dense(300, 7)),
            False,
        ),
        "pool of bits": (
            nn.Sequential(conv(2, 12), Ones(), nn.MaxPool2d(3, 2, 1), conv(12, 6), Ones(), nn.Flatten(), dense(150, 7)),
            False,
        ),
        "norm after flatten": (nn.Sequential(conv(2, 4), nn.Flatten(), norm(nn.BatchNorm1d(400), 5), Ones(), dense(400, 7)), False),
        "graph sign": (
            nn.Sequential(
                SignWeight(nn.Conv2d(2, 12, 3, padding=1), "sign"),
                norm(nn.BatchNorm2d(12), 6),
                Ones(),
                nn.Flatten(),
                SignWeight(nn.Linear(1200, 7), "sign"),
            ),
            False,
        ),
        "graph where": (
            nn.Sequential(
                SignWeight(nn.Conv2d(2, 12, 3, padding=1), "where"),
                norm(nn.BatchNorm2d(12), 6),
                Ones(),
                nn.Flatten(),
                SignWeight(nn.Linear(1200, 7), "where"),
            ),
            False,
        ),
        "dense only": (
            nn.Sequential(
                nn.Flatten(),
                dense(200, 64),
                norm(nn.BatchNorm1d(64), 7),
                Sign(),
                nn.Dropout(),
                dense(64, 32),
                norm(nn.BatchNorm1d(32), 8),
                Ones(),
                dense(32, 7),
            ),
            False,
        ),
        "norm at the end": (nn.Sequential(conv(2, 6), Ones(), nn.Flatten(), dense(600, 7), norm(nn.BatchNorm1d(7), 9)), False),
    }


def pixels(seed: int, count: int = 40, shape: tuple[int, ...] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(-16, 17, (count, *shape)).astype(np.float32)


def kinds(network: Network) -> set[str]:
    return {type(layer).__name__ for layer in network.layers}


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("style", styles())
def test_logits_equal_onnxruntime(style: str, dynamo: bool) -> None:
    net, zeros = styles()[style]
    proto = exported(net, SIZE, dynamo)
    folded = dynamo and any(
        isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in net.modules()
    )  # dynamo folds norms into ±1 weights
    network = load(proto, integer_input=None if not dynamo else True)
    x = pixels(3)
    ours = evaluate(network, {"x": x})["y"]
    reference = run(proto, {"x": x})[0]
    assert ours.dtype == reference.dtype
    assert ours.shape == reference.shape
    if folded:
        np.testing.assert_allclose(ours, reference, rtol=1e-5, atol=1e-4)
        return
    np.testing.assert_array_equal(ours, reference)
    assert ("TernarySign" in kinds(network)) == zeros
    assert all(t.encoding == SIGN1 for t in network.weights)
    if style != "norm at the end":
        assert not any(isinstance(layer, FloatOperator) for layer in network.layers)


def test_xnor_alpha() -> None:
    torch.manual_seed(2)
    net = nn.Sequential(
        SignWeight(nn.Conv2d(2, 12, 3), "sign", alpha=True), norm(nn.BatchNorm2d(12), 6), Ones(), nn.Flatten(),
        SignWeight(nn.Linear(768, 7), "sign", alpha=True),
    )  # fmt: skip
    proto, x = exported(net, SIZE, False), pixels(4)
    network = load(proto)
    assert kinds(network) == {"Convolution", "Threshold", "Dequantize"}
    np.testing.assert_allclose(evaluate(network, {"x": x})["y"], run(proto, {"x": x})[0], rtol=1e-5, atol=1e-5)


def test_alpha_after_the_sum_is_exact() -> None:
    rng = np.random.default_rng(0)
    w = rng.choice([-1.0, 1.0], (6, 2, 3, 3)).astype(np.float32)
    v = rng.choice([-1.0, 1.0], (600, 5)).astype(np.float32)
    nodes = [
        node("Conv", "x w", "a", pads=[1, 1, 1, 1]), node("Mul", "a alpha", "b"), node("Add", "b beta", "c"),
        node("Sign", "c", "d"), node("Flatten", "d", "e"), node("MatMul", "e v", "f"), node("Mul", "f gamma", "y"),
    ]  # fmt: skip
    constants = {
        "w": w, "v": v, "alpha": rng.normal(size=(6, 1, 1)).astype(np.float32),
        "beta": rng.normal(size=(1, 6, 1, 1)).astype(np.float32), "gamma": rng.normal(size=5).astype(np.float32),
    }  # fmt: skip
    proto = model(nodes, constants, {"x": ["N", *SIZE]}, {"y": ["N", 5]})
    network, x = load(proto), pixels(5)
    assert kinds(network) == {"Convolution", "Threshold", "Dequantize"}
    np.testing.assert_array_equal(evaluate(network, {"x": x})["y"], run(proto, {"x": x})[0])


@pytest.mark.parametrize("binarizer", [Sign, Ones, Strict, Below])
def test_every_accumulator_of_a_fold_agrees(binarizer: Callable[[], nn.Module]) -> None:
    """One weight per channel lets every integer through: the folded layer and the unfolded one agree on all of them."""
    channels = 40
    rng = np.random.default_rng(6)
    gamma = rng.normal(size=channels).astype(np.float32)
    gamma[:4] = 0.0
    parameters = {
        "g": gamma, "b": np.round(rng.normal(size=channels)).astype(np.float32),
        "m": np.round(rng.normal(size=channels) * 20).astype(np.float32), "v": np.full(channels, 4.0, np.float32),
    }  # fmt: skip
    middle = {
        Sign: [node("Sign", "n", "s")],
        Ones: [node("GreaterOrEqual", "n zero", "c"), node("Where", "c one minus", "s")],
        Strict: [
            node("Greater", "n zero", "c"),
            node("Cast", "c", "f", to=1),
            node("Mul", "f two", "t"),
            node("Sub", "t one", "s"),
        ],
        Below: [node("Less", "n zero", "c"), node("Where", "c minus one", "s")],
    }[binarizer]
    nodes = [node("Conv", "x w", "a"), node("BatchNormalization", "a g b m v", "n", epsilon=0.0), *middle, node("Conv", "s u", "y")]
    numbers = {"zero": 0.0, "one": 1.0, "minus": -1.0, "two": 2.0}
    constants = {
        "w": np.ones((channels, 1, 1, 1), np.float32), "u": np.ones((channels, channels, 1, 1), np.float32),
        **parameters, **{k: np.array(x, np.float32) for k, x in numbers.items()},
    }  # fmt: skip
    proto = model(nodes, constants, {"x": ["N", 1, 1, 1]}, {"y": ["N", channels, 1, 1], "s": ["N", channels, 1, 1]})
    x = np.arange(-300, 301).astype(np.float32).reshape(-1, 1, 1, 1)
    network = load(proto)
    ours, (y, s) = evaluate(network, {"x": x}), run(proto, {"x": x})
    np.testing.assert_array_equal(ours["s"], s)
    np.testing.assert_array_equal(ours["y"], y)
    assert ("TernarySign" in kinds(network)) == (binarizer is Sign)


def test_float_input_stays_float() -> None:
    net, _ = styles()["where"]
    proto = exported(net, SIZE, False)
    x = (pixels(7) / 16).astype(np.float32)
    network = load(proto, integer_input=False)
    assert network.values["x"].kind == "float"
    assert "Binarize" in kinds(network)
    ours, reference = evaluate(network, {"x": x})["y"], run(proto, {"x": x})[0]
    assert np.mean(ours != reference) < 0.02  # a float sum near 0 may fall on either side
    proto.metadata_props.add(key="weakcell.integer_input", value="false")
    assert load(proto).values["x"].kind == "float"
    assert load(proto, integer_input=True).values["x"].kind == "codes"


def test_shared_weights_are_stored_once() -> None:
    w = np.random.default_rng(0).choice([-1.0, 1.0], (8, 8)).astype(np.float32)
    nodes = [node("MatMul", "x w", "a"), node("Sign", "a", "b"), node("MatMul", "b w", "y")]
    network = load(model(nodes, {"w": w}, {"x": ["N", 8]}, {"y": ["N", 8]}))
    assert [t.name for t in network.weights] == ["w"]
    assert network.weight_bits == 64


def test_parity_excludes_zeros() -> None:
    """Nine products of ±1 cannot add up to 0; eight can."""
    for inner, layer in ((9, Threshold), (8, TernarySign)):
        rng = np.random.default_rng(inner)
        w, v = (rng.choice([-1.0, 1.0], s).astype(np.float32) for s in ((4, inner), (inner, 3)))
        nodes = [
            node("MatMul", "x w", "a"), node("GreaterOrEqual", "a zero", "c"), node("Where", "c one minus", "b"),
            node("MatMul", "b v", "d"), node("Sign", "d", "e"), node("MatMul", "e u", "y"),
        ]  # fmt: skip
        u = rng.choice([-1.0, 1.0], (3, 2)).astype(np.float32)
        numbers = {k: np.array(x, np.float32) for k, x in (("zero", 0), ("one", 1), ("minus", -1))}
        proto = model(nodes, {"w": w, "v": v, "u": u, **numbers}, {"x": ["N", 4]}, {"y": ["N", 2]})
        network, x = load(proto), pixels(1, 200, (4,))
        assert any(isinstance(i, layer) and i.output == "e" for i in network.layers)
        np.testing.assert_array_equal(evaluate(network, {"x": x})["y"], run(proto, {"x": x})[0])


def test_a_zero_latent_weight_is_refused() -> None:
    w = np.array([[1.0, -0.5], [0.0, 2.0]], np.float32)
    nodes = [node("Sign", "w", "s"), node("MatMul", "x s", "y")]
    with pytest.raises(ModelError, match="Sign\\(0\\)"):
        load(model(nodes, {"w": w}, {"x": ["N", 2]}, {"y": ["N", 2]}))


def test_packed_weights_become_signs() -> None:
    import ml_dtypes

    rng = np.random.default_rng(0)
    for dtype, opset in ((ml_dtypes.int2, 25), (ml_dtypes.int4, 21), (np.int8, 21)):
        w = rng.choice([-1, 1], (5, 7)).astype(dtype)
        nodes = [node("DequantizeLinear", "w s", "d"), node("Gemm", "x d", "y", transB=1)]
        proto = model(nodes, {"w": w, "s": np.float32(1).reshape(())}, {"x": ["N", 7]}, {"y": ["N", 5]}, opset)
        network, x = load(proto), pixels(1, 20, (7,))
        assert network.tensors["w"].encoding == SIGN1
        assert network.values["x"].kind == "codes"
        np.testing.assert_array_equal(evaluate(network, {"x": x})["y"], x @ w.astype(np.float32).T)


def test_layers_are_named_after_their_nodes_and_pools_stay_integer() -> None:
    net, _ = styles()["norm before pool, sign"]
    network = load(exported(net, SIZE, False))
    pools = [layer for layer in network.layers if isinstance(layer, MaxPool)]
    assert [network.values[p.output].kind for p in pools] == ["bits"]
    assert [layer.name for layer in network.layers if isinstance(layer, Convolution)] == ["/0/Conv", "/5/MatMul"]
