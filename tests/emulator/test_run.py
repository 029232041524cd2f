"""Fault-free runs. Oracles: a plain NumPy network for every value, and onnxruntime for the shipped networks."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.emulator.models import model, node, run, with_codes_out
from tests.emulator.reference import evaluate
from tests.emulator.small import INT8, RandomNetwork, pixels, small_bnn, small_qnn
from weakcell.emulator import Network, ReadPolicy, compile_plan, deploy, infer, load, outputs_under_faults, place
from weakcell.emulator.engine.executor import choose_chunk_size, chunk_size, map_in_threads
from weakcell.emulator.engine.fusion import fused_steps
from weakcell.emulator.ir.values import SIGN1, Window
from weakcell.host.datasets.readers import read_idx
from weakcell.memmodels.catalogue import parse_spec

SHIPPED = Path(__file__).resolve().parents[2] / "host" / "shipped"
NUMBERS = {"zero": np.float32(0), "one": np.float32(1), "minus": np.float32(-1)}


def digits() -> np.ndarray:
    with np.load(SHIPPED / "digits.npz") as data:
        return data["x_test"].astype(np.float32)


def signs(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).choice([-1.0, 1.0], shape).astype(np.float32)


def norm(seed: int, channels: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    gamma = rng.normal(size=channels).astype(np.float32)
    gamma[::5] = 0
    mean, variance = rng.normal(size=channels) * 4, rng.uniform(1, 30, channels)
    named = {"g": gamma, "b": rng.normal(size=channels), "m": mean, "v": variance}
    return {f"{k}{seed}": v.astype(np.float32) for k, v in named.items()}


def bnn_of_models(binarizer: str, integer_input: bool | None = None) -> Network:
    """Return Conv, BatchNormalization, binarizer, MaxPool, Conv, binarizer, Flatten, MatMul, imported from ONNX nodes."""

    def binarize(x: str, y: str) -> list[onnx.NodeProto]:
        if binarizer == "Sign":
            return [node("Sign", x, y)]
        return [node("GreaterOrEqual", f"{x} zero", f"{y}c"), node("Where", f"{y}c one minus", y)]

    nodes = [
        node("Conv", "x w1", "a", pads=[1, 1, 1, 1]), node("BatchNormalization", "a g1 b1 m1 v1", "n"), *binarize("n", "s"),
        node("MaxPool", "s", "p", kernel_shape=[2, 2], strides=[2, 2]), node("Conv", "p w2", "c", strides=[2, 1]),
        *binarize("c", "t"), node("Flatten", "t", "f"), node("MatMul", "f w3", "y"),
    ]  # fmt: skip
    constants = {"w1": signs(1, 12, 2, 3, 3), "w2": signs(2, 7, 12, 2, 2), "w3": signs(3, 2 * 4 * 7, 5), **norm(1, 12), **NUMBERS}
    return load(model(nodes, constants, {"x": ["N", 2, 10, 10]}, {"y": ["N", 5]}), integer_input=integer_input)


def float_tail() -> Network:
    """Return QuantizeLinear, Conv with a float bias, and float operators: AffineRequantize and FloatOperator."""
    rng, f = np.random.default_rng(4), np.float32
    nodes = [
        node("QuantizeLinear", "x sx zx", "q"), node("DequantizeLinear", "q sx zx", "xf"), node("DequantizeLinear", "w sw", "wf"),
        node("Conv", "xf wf bf", "c", group=2), node("BatchNormalization", "c g2 b2 m2 v2", "n"), node("Relu", "n", "r"),
        node("QuantizeLinear", "r sy zy", "s"), node("DequantizeLinear", "s sy zy", "d"), node("Sigmoid", "d", "e"),
        node("Transpose", "e", "y", perm=[0, 2, 3, 1]),
    ]  # fmt: skip
    constants = {
        "sx": f(0.5), "zx": np.uint8(99), "w": rng.integers(-127, 128, (6, 2, 3, 3)).astype(np.int8), "sw": f(0.01),
        "bf": rng.normal(size=6).astype(f), "sy": f(0.2), "zy": np.uint8(0), **norm(2, 6),
    }  # fmt: skip
    return load(model(nodes, {k: np.asarray(v) for k, v in constants.items()}, {"x": ["N", 4, 7, 6]}, {"y": None}))  # type: ignore[dict-item]


def means() -> Network:
    """Return AveragePool and GlobalAveragePool between quantized values."""
    f = np.float32
    nodes = [
        node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "f"),
        node("AveragePool", "f", "a", kernel_shape=[2, 3], strides=[2, 1], pads=[1, 1, 0, 1]),
        node("QuantizeLinear", "a s2 z", "r"), node("DequantizeLinear", "r s2 z", "g"), node("GlobalAveragePool", "g", "h"),
        node("QuantizeLinear", "h s2 z", "t"), node("DequantizeLinear", "t s2 z", "y"),
    ]  # fmt: skip
    constants = {k: np.asarray(v) for k, v in {"s": f(1), "s2": f(0.37), "z": np.int8(5)}.items()}
    return load(model(nodes, constants, {"x": ["N", 5, 7, 6]}, {"y": None}))  # type: ignore[dict-item]


def two_in_two_out() -> Network:
    """Return a network of two inputs, their sum, and two outputs, one of them in the middle."""
    d = RandomNetwork(np.random.default_rng(8))
    a = d.requantize(d.convolution(d.input("left", (2, 5, 5)), 6, Window((3, 3), pads=(1, 1, 1, 1)), INT8), 0.01, 100)
    b = d.requantize(d.convolution(d.input("right", (3, 5, 5), "int8"), 6, Window((1, 1)), INT8, bias=True), 0.02, 50)
    total = d.add(a, b)
    return d.network(d.dequantize(d.dense(total, 3, INT8)), total)


def depthwise_signs() -> Network:
    """Return grouped and depthwise convolutions of signs, with dilation, stride, and a pool that pads."""
    d = RandomNetwork(np.random.default_rng(9))
    x = d.threshold(d.convolution(d.input("x", (4, 9, 8), "int8"), 8, Window((3, 3), dilation=(2, 1)), SIGN1, groups=2), 99)
    x = d.threshold(d.convolution(x, 8, Window((2, 2), (1, 2), pads=(1, 1, 0, 0)), SIGN1, groups=8), 2)
    return d.network(d.dequantize(d.dense(d.pool(x, Window((3, 3), (2, 2), pads=(1, 1, 1, 1))), 3, SIGN1)))


NETWORKS: dict[str, Callable[[], Network]] = {
    "small bnn": small_bnn,
    "small qnn": small_qnn,
    "where": lambda: bnn_of_models("Where"),
    "sign": lambda: bnn_of_models("Sign"),
    "where, float input": lambda: bnn_of_models("Where", integer_input=False),
    "sign, float input": lambda: bnn_of_models("Sign", integer_input=False),
    "float tail": float_tail,
    "means": means,
    "two in, two out": two_in_two_out,
    "depthwise signs": depthwise_signs,
    "digits_bnn": lambda: load(SHIPPED / "digits_bnn.onnx"),
    "digits_qnn": lambda: load(SHIPPED / "digits_qnn.onnx"),
    "digits_bnn, float input": lambda: load(SHIPPED / "digits_bnn.onnx", integer_input=False),
}
LAYERS_SEEN = {
    "AddCodes", "AffineRequantize", "AveragePool", "Binarize", "Convolution", "Dequantize", "FloatOperator", "MaxPool", "Quantize",
    "Requantize", "TernarySign", "Threshold",
}  # fmt: skip


def equal(network: Network, made: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, x in made.items():
        np.testing.assert_array_equal(x, expected[name], err_msg=name)
        assert x.shape[1:] == network.values[name].shape


@pytest.mark.parametrize("name", NETWORKS)
def test_every_value_equals_the_reference(name: str) -> None:
    """If all values are probed, nothing is fused. Without a probe, the fused steps give the same outputs."""
    network = NETWORKS[name]()
    plan, inputs = compile_plan(network), pixels(network, 7)
    expected = evaluate(network, inputs)
    probed = infer(plan, inputs, [v for v in network.values if v not in network.outputs])
    assert set(probed) == set(network.values)
    equal(network, probed, expected)
    equal(network, infer(plan, inputs), expected)


def test_all_layers_are_there() -> None:
    seen = {type(layer).__name__ for make in NETWORKS.values() for layer in make().layers}
    assert seen >= LAYERS_SEEN


def test_a_view_between_integer_layers() -> None:
    """Reshape in ONNX order, of codes and of bits, where channels-last data must move."""
    nodes = [
        node("Conv", "x w", "a"), node("GreaterOrEqual", "a zero", "c"), node("Where", "c one minus", "b"),
        node("Reshape", "b shape", "r"), node("Conv", "r v", "d"), node("Flatten", "d", "y"),
    ]  # fmt: skip
    constants = {"w": signs(5, 6, 2, 1, 1), "v": signs(6, 4, 3, 2, 2), "shape": np.array([0, 3, 8, 4]), **NUMBERS}
    proto = model(nodes, constants, {"x": ["N", 2, 4, 4]}, {"y": None})  # type: ignore[dict-item]
    network = load(proto)
    assert "Reshape" in {type(layer).__name__ for layer in network.layers}
    x = pixels(network, 5)["x"]
    plan = compile_plan(network)
    np.testing.assert_array_equal(infer(plan, {"x": x})["y"], run(proto, {"x": x})[0])
    equal(network, infer(plan, {"x": x}, [v for v in network.values if v != "y"]), evaluate(network, {"x": x}))


@pytest.mark.parametrize("name", ["small bnn", "small qnn", "two in, two out", "sign, float input", "digits_qnn"])
@pytest.mark.parametrize("images", [0, 1, 300])
def test_any_number_of_images_and_any_chunk(name: str, images: int) -> None:
    network = NETWORKS[name]()
    plan, inputs = compile_plan(network), pixels(network, images)
    whole = infer(plan, inputs)
    assert all(len(x) == images for x in whole.values())
    parts = [infer(plan, {k: v[i : i + 7] for k, v in inputs.items()}) for i in range(0, images, 7)]
    for small in (1, 40_000):
        equal(network, infer(compile_plan(network, chunk_bytes=small), inputs), whole)
    for name in whole:
        np.testing.assert_array_equal(np.concatenate([whole[name][:0], *(part[name] for part in parts)]), whole[name])


@pytest.mark.parametrize("name", ["small bnn", "two in, two out", "sign, float input", "digits_qnn"])
@pytest.mark.parametrize("images", [1, 2, 301])
def test_threads_change_nothing(name: str, images: int) -> None:
    network = NETWORKS[name]()
    plan, inputs = compile_plan(network), pixels(network, images)
    alone = infer(plan, inputs)
    for threads in (2, 3):
        shared = infer(plan, inputs, threads=threads)
        assert all(np.array_equal(shared[value], alone[value]) for value in alone)


def test_shared_work_keeps_its_order_and_its_errors() -> None:
    """The first items are slow, so that others overtake them. An error reaches the caller, and no new item begins."""
    seen: list[int] = []

    def make(item: int) -> int:
        time.sleep(0.02 if item == 0 else 0)
        seen.append(item)
        if item == 7:
            raise KeyError(item)
        return -item

    for threads in (2, 5):
        assert map_in_threads(make, range(6), threads) == [0, -1, -2, -3, -4, -5]
        assert sorted(seen) == list(range(6))
        seen.clear()
    with pytest.raises(KeyError):
        map_in_threads(make, [0, 7, *[1] * 5000], 2)
    seen.clear()
    with pytest.raises(KeyError):
        map_in_threads(make, [7, *[0] * 500], 2)
    assert len(seen) < 250


def test_threads_share_the_images_and_networks_that_sum_floats_keep_their_chunks() -> None:
    network = NETWORKS["digits_qnn"]()
    plan = compile_plan(network)
    layers = fused_steps(plan, network.outputs)
    assert [choose_chunk_size(plan, layers, 100, threads) for threads in (1, 2, 3)] == [100, 50, 34]
    whole = chunk_size(network, layers)
    assert [choose_chunk_size(plan, layers, 5 * whole, threads) for threads in (1, 2)] == [whole, -(-5 * whole // 6)]
    assert [choose_chunk_size(plan, layers, 0, threads) for threads in (1, 2)] == [1, 1]
    floating = NETWORKS["sign, float input"]()
    plan = compile_plan(floating)
    layers = fused_steps(plan, floating.outputs)
    assert choose_chunk_size(plan, layers, 100, 4) == chunk_size(floating, layers)


@pytest.mark.parametrize("policy", list(ReadPolicy))
def test_threads_change_nothing_under_faults(policy: ReadPolicy) -> None:
    network = small_bnn()
    plan, inputs = compile_plan(network), pixels(network, 50)
    placement = place(network, parse_spec("uniform:ber=0.05"))
    found = []
    for threads in (1, 2, 4):
        deployment = deploy(plan, placement, policy, trial=3)
        made = outputs_under_faults(plan, inputs, deployment, batch=20, threads=threads)
        found.append(({name: x.tobytes() for name, x in made.items()}, deployment.tally.flips, deployment.tally.bits_read))
    assert found[0] == found[1] == found[2]


# --- the shipped networks against onnxruntime --------------------------------------------------------------------------------


def test_digits_bnn_equals_onnxruntime_on_all_images() -> None:
    path, x = SHIPPED / "digits_bnn.onnx", digits()
    assert len(x) == 450
    ours = infer(compile_plan(load(path)), {"input": x})["logits"]
    np.testing.assert_array_equal(ours, run(onnx.load(path), {"input": x})[0])


def test_fashion_bnn_equals_onnxruntime() -> None:
    """Uses noise, flat images and edges, so that it runs without data."""
    path, rng = SHIPPED / "fashion_bnn.onnx", np.random.default_rng(0)
    x = rng.integers(0, 256, (60, 1, 28, 28)).astype(np.float32)
    x[:20] = rng.integers(0, 256, (20, 1, 1, 1))
    x[20:40] = 255 * (np.arange(28) > rng.integers(0, 28, (20, 1, 1, 1)))
    np.testing.assert_array_equal(infer(compile_plan(load(path)), {"input": x})["logits"], run(onnx.load(path), {"input": x})[0])


def test_fashion_bnn_equals_onnxruntime_on_all_images(shared: Path) -> None:
    images = shared / "data" / "fashion-mnist" / "t10k-images-idx3-ubyte.gz"
    if not images.is_file():
        pytest.skip(f"there is no {images}")
    path = SHIPPED / "fashion_bnn.onnx"
    x = read_idx(images).reshape(-1, 1, 28, 28).astype(np.float32)
    assert len(x) == 10_000
    ours, proto = infer(compile_plan(load(path)), {"input": x})["logits"], onnx.load(path)
    for first in range(0, len(x), 500):
        np.testing.assert_array_equal(ours[first : first + 500], run(proto, {"input": x[first : first + 500]})[0])


def test_digits_qnn_against_onnxruntime(capsys: pytest.CaptureFixture[str]) -> None:
    """Layers that are fed onnxruntime's own integers differ by at most 1 LSB, in at most 0.1 %; the rest is printed."""
    proto, x = onnx.load(SHIPPED / "digits_qnn.onnx"), digits()
    network = load(SHIPPED / "digits_qnn.onnx")
    extended, names = with_codes_out(proto)
    codes = dict(zip(names, run(extended, {"input": x}, names), strict=True))
    wrong = total = 0
    for first, last in segments(network, set(codes)):
        part = Network("part", (first,), (last,), between(network, first, last), network.values, network.tensors)
        theirs = codes.get(first, x)
        made = infer(compile_plan(part), {first: theirs.reshape(-1, *network.values[first].shape)})[last]
        apart = np.abs(made.astype(np.int64) - codes[last].reshape(made.shape))
        assert apart.max() <= 1, last
        wrong, total = wrong + np.count_nonzero(apart), total + apart.size
    assert wrong <= 0.001 * total

    ours, theirs = infer(compile_plan(network), {"input": x})["logits"], run(proto, {"input": x})[0]
    lsb = float(network.values["logits_QuantizeLinear_Output"].scale)
    steps, counts = np.unique(np.rint((ours - theirs) / lsb).astype(int), return_counts=True)
    changed = ours.argmax(1) != theirs.argmax(1)
    top = np.sort(theirs, 1)
    assert np.all((top[:, -1] - top[:, -2])[changed] <= lsb * 1.001)
    assert np.abs(steps).max() <= 3
    with capsys.disabled():
        spread = ", ".join(f"{step:+d} LSB: {count}" for step, count in zip(steps, counts, strict=True))
        print(f"\ndigits QNN: {wrong} of {total} codes 1 LSB apart; logits {spread}; {changed.sum()} classes changed")


def segments(network: Network, codes: set[str]) -> list[tuple[str, str]]:
    """Return (from, to): each value that onnxruntime shows, and the nearest one before it on the chain of layers."""
    ends, before = [], network.inputs[0]
    for layer in network.layers:
        if layer.output in codes:
            ends.append((before, layer.output))
            before = layer.output
    return ends


def between(network: Network, first: str, last: str) -> tuple[Any, ...]:
    names = [network.inputs[0], *(layer.output for layer in network.layers)]
    return network.layers[names.index(first) : names.index(last)]
