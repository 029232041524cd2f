"""Dynamic quantization: over a whole batch as the file says, or image by image; and the older form of its bias.

Weights are uint8: with int8 weights onnxruntime itself saturates on processors without VNNI.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from tests.emulator.models import Array, model, node, run
from tests.emulator.reference import evaluate
from weakcell.emulator.engine.executor import infer
from weakcell.emulator.importer import load
from weakcell.emulator.ir.layers import DynamicBias, DynamicQuantize
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.operators import FloatOperator
from weakcell.emulator.plan.plan import compile_plan
from weakcell.memmodels.errors import ModelError

F = np.float32
SIZE = (3, 6, 6)


def one_by_one(proto: onnx.ModelProto, x: Array) -> Array:
    """Return what onnxruntime computes for batches of one image."""
    return np.concatenate([run(proto, {"x": x[i : i + 1]})[0] for i in range(len(x))])


def chain(batch: Any = "N", residual: bool = False) -> onnx.ModelProto:
    """Return a dynamically quantized convolution and two dense layers.

    Each quantizes the layer before it.
    """
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> Array:
        return rng.integers(0, 256, shape).astype(np.uint8)

    constants = {
        "w1": weight(4, 3, 3, 3), "z1": np.uint8(120), "s1": F(0.01), "b1": rng.normal(size=(1, 4, 1, 1)).astype(F),
        "w2": weight(144, 10), "z2": rng.integers(100, 150, 10).astype(np.uint8), "s2": rng.uniform(0.005, 0.01, 10).astype(F),
        "w3": weight(10, 5), "z3": np.uint8(128), "s3": F(-0.02),
    }  # fmt: skip
    nodes = [
        node("DynamicQuantizeLinear", "x", "q1 a1 o1"), node("ConvInteger", "q1 w1 o1 z1", "c1", pads=[1, 1, 1, 1]),
        node("Cast", "c1", "f1", to=1), node("Mul", "a1 s1", "m1"), node("Mul", "f1 m1", "r1"), node("Add", "r1 b1", "p1"),
        node("Relu", "p1", "h1"), node("Flatten", "h1", "v1"),
        node("DynamicQuantizeLinear", "v1", "q2 a2 o2"), node("MatMulInteger", "q2 w2 o2 z2", "c2"),
        node("Cast", "c2", "f2", to=1), node("Mul", "a2 s2", "m2"), node("Mul", "f2 m2", "r2"),
        node("DynamicQuantizeLinear", "r2", "q3 a3 o3"), node("MatMulInteger", "q3 w3 o3 z3", "c3"),
        node("Cast", "c3", "f3", to=1), node("Mul", "a3 s3", "m3"), node("Mul", "f3 m3", "t"),
    ]  # fmt: skip
    if residual:  # the second dynamic input is read again behind the third
        nodes += [node("ReduceMean", "v1", "mean", axes=[1], keepdims=1), node("Add", "t mean", "y")]
    else:
        nodes += [node("Identity", "t", "y")]
    return model(nodes, constants, {"x": [batch, *SIZE]}, {"y": [batch, 5]}, 13)


def images(count: int, seed: int = 0) -> Array:
    """Return images of different ranges.

    A scale over the batch is not that of an image.
    """
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, *SIZE)) * rng.uniform(0.1, 3, (count, 1, 1, 1))).astype(F)


@pytest.mark.parametrize("count", [1, 7, 64])
@pytest.mark.parametrize("residual", [False, True])
def test_a_batch_has_one_scale_as_in_onnxruntime(count: int, residual: bool) -> None:
    proto, x = chain(residual=residual), images(count)
    plan = compile_plan(load(proto))
    whole = infer(plan, {"x": x}, dynamic="batch")["y"]
    np.testing.assert_allclose(whole, run(proto, {"x": x})[0], rtol=1e-5, atol=1e-4)
    alone = infer(plan, {"x": x})["y"]
    np.testing.assert_allclose(alone, one_by_one(proto, x), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(alone, evaluate(plan.network, {"x": x})["y"], rtol=1e-5, atol=1e-4)
    assert (count == 1) == np.allclose(whole, alone, rtol=1e-3)


def test_chunks_and_threads_change_nothing() -> None:
    plan, x = compile_plan(load(chain())), {"x": images(50)}
    probes = ["q1", "v1", "c2.acc", "r2"]
    want = infer(plan, x, probes, dynamic="batch")
    for chunk_bytes, threads in ((1, 1), (20_000, 1), (20_000, 2), (8 << 20, 1), (40_000, 3)):
        got = infer(compile_plan(plan.network, chunk_bytes=chunk_bytes), x, probes, threads, "batch")
        assert got.keys() == want.keys()
        for name, values in want.items():
            np.testing.assert_allclose(got[name], values, rtol=1e-6, err_msg=name)
            if values.dtype.kind == "i":
                np.testing.assert_array_equal(got[name], values)


@pytest.mark.parametrize("dynamic", ["batch", "image"])
def test_no_images_at_all(dynamic: Any) -> None:
    assert infer(compile_plan(load(chain())), {"x": images(4)[:0]}, dynamic=dynamic)["y"].shape == (0, 5)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_quantized_group_by_group(batch: int) -> None:
    proto, x = chain(batch), images(12)
    got = infer(compile_plan(load(proto)), {"x": x}, dynamic="batch")["y"]
    groups = [run(proto, {"x": x[i : i + batch]})[0] for i in range(0, len(x), batch)]
    np.testing.assert_allclose(got, np.concatenate(groups), rtol=1e-5, atol=1e-4)


# ── the older bias: bias / (x_scale * w_scale), rounded, added to the integers ──────────────────────


def older(conv: bool, rounding: str | None = "Floor", per_channel: bool = False) -> onnx.ModelProto:
    """Return ConvInteger or MatMulInteger with a bias, as onnxruntime's quantize_dynamic of 2020 wrote it."""
    rng = np.random.default_rng(1)
    outputs = 4
    shape = (outputs, 3, 3, 3) if conv else (108, outputs)
    scale = rng.uniform(0.01, 0.03, outputs).astype(F) if per_channel else np.asarray(F(0.02))
    constants: dict[str, Array] = {
        "w": rng.integers(0, 256, shape).astype(np.uint8), "z": np.asarray(np.uint8(120)), "b": rng.normal(size=outputs).astype(F),
        "s": scale, "shape": np.array([1, -1, 1, 1] if conv else [1, -1], np.int64),
    }  # fmt: skip
    nodes = [] if conv else [node("Flatten", "x", "v")]
    nodes += [node("DynamicQuantizeLinear", "x" if conv else "v", "q a o"), node("Mul", "a s", "m"), node("Div", "b m", "d")]
    nodes += [node(rounding, "d", "r")] if rounding else []
    nodes += [node("Cast", "r" if rounding else "d", "i", to=TensorProto.INT32), node("Reshape", "i shape", "ib")]
    nodes += [node("ConvInteger", "q w o z", "c", pads=[1, 1, 1, 1]) if conv else node("MatMulInteger", "q w o z", "c")]
    nodes += [node("Add", "c ib", "t"), node("Cast", "t", "f", to=1)]
    nodes += [node("Reshape", "m shape", "ms")] if per_channel else []
    nodes += [node("Mul", "f ms" if per_channel else "f m", "y")]
    return model(nodes, constants, {"x": ["N", *SIZE]}, {"y": ["N", outputs, 6, 6] if conv else ["N", outputs]}, 11)


@pytest.mark.parametrize("conv", [True, False])
@pytest.mark.parametrize("rounding", ["Floor", "Ceil", "Round", None])
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_bias_on_the_grid_of_the_sums(conv: bool, rounding: str | None, per_channel: bool) -> None:
    proto, x = older(conv, rounding, per_channel), images(5)
    network: Network = load(proto)
    assert [type(layer) for layer in network.layers].count(DynamicBias) == 1
    assert network.weight_bits == 108 * 8 if conv else 108 * 4 * 8
    np.testing.assert_allclose(
        infer(compile_plan(network), {"x": x}, dynamic="batch")["y"], run(proto, {"x": x})[0], rtol=1e-6, atol=1e-6
    )
    alone = one_by_one(proto, x)
    np.testing.assert_allclose(infer(compile_plan(network), {"x": x})["y"], alone, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(evaluate(network, {"x": x})["y"], alone, rtol=1e-6, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.sampled_from([1e-30, 1.0, 1e4, 1e6, -3e8, 1e12, -1e12]), min_size=4, max_size=4))
def test_a_bias_that_leaves_int32(bias: list[float]) -> None:
    """A quotient beyond int32 becomes -2^31 on x86, in onnxruntime as here."""
    proto, x = older(False), images(3)
    for tensor in proto.graph.initializer:
        if tensor.name == "b":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(bias, F), "b"))
    np.testing.assert_allclose(infer(compile_plan(load(proto)), {"x": x}, dynamic="batch")["y"], run(proto, {"x": x})[0], rtol=1e-6)


# ── sequences: a matrix product on the last axis ────────────────────────────────────────────────────


@pytest.mark.parametrize("axes", [(7,), (3, 5), (2, 3, 4), (1,)])
@pytest.mark.parametrize("bias", ["none", "float", "older"])
def test_a_sequence(axes: tuple[int, ...], bias: str) -> None:
    """Two products on [N, …, K] with scales and zero points per output; a sum is also an output of the graph."""
    rng = np.random.default_rng(3)
    constants = {
        "w1": rng.integers(0, 256, (12, 9)).astype(np.uint8), "z1": rng.integers(100, 150, 9).astype(np.uint8),
        "s1": rng.uniform(0.005, 0.01, 9).astype(F), "b1": rng.normal(size=9).astype(F),
        "w2": rng.integers(0, 256, (9, 4)).astype(np.uint8), "z2": np.uint8(128), "s2": F(0.02),
    }  # fmt: skip
    nodes = [node("DynamicQuantizeLinear", "x", "q1 a1 o1"), node("MatMulInteger", "q1 w1 o1 z1", "c1"), node("Mul", "a1 s1", "m1")]
    if bias == "older":
        nodes += [node("Div", "b1 m1", "d"), node("Floor", "d", "r"), node("Cast", "r", "i", to=6), node("Add", "c1 i", "t1")]
    nodes += [node("Cast", "t1" if bias == "older" else "c1", "f1", to=1), node("Mul", "m1 f1", "p1")]
    nodes += [node("Add", "p1 b1", "h1")] if bias == "float" else [node("Identity", "p1", "h1")]
    nodes += [
        node("Relu", "h1", "v1"), node("DynamicQuantizeLinear", "v1", "q2 a2 o2"), node("MatMulInteger", "q2 w2 o2 z2", "c2"),
        node("Cast", "c2", "f2", to=1), node("Mul", "a2 s2", "m2"), node("Mul", "f2 m2", "y"),
    ]  # fmt: skip
    outputs = {"y": ["N", *axes, 4], "c1": ["N", *axes, 9]}
    proto = model(nodes, constants, {"x": ["N", *axes, 12]}, outputs, 13, {"c1": TensorProto.INT32})
    x = (rng.normal(size=(5, *axes, 12)) * rng.uniform(0.1, 3, (5, *[1] * len(axes), 1))).astype(F)
    network = load(proto)
    assert network.weight_bits == (12 * 9 + 9 * 4) * 8
    got = infer(compile_plan(network), {"x": x})
    alone = [run(proto, {"x": x[i : i + 1]}) for i in range(len(x))]
    np.testing.assert_array_equal(got["c1"], np.concatenate([c for _, c in alone]))
    want = np.concatenate([y for y, _ in alone])
    np.testing.assert_allclose(got["y"], want, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(evaluate(network, {"x": x})["y"], want, rtol=1e-5, atol=1e-4)


# ── other readers of an output of DynamicQuantizeLinear ─────────────────────────────────────────────

_READERS = {
    "scale as a number": [node("Sqrt", "a", "t"), node("Mul", "x t", "y")],
    "scale divided": [node("Div", "a s", "t"), node("Mul", "x t", "y")],
    "scale added": [node("Add", "a s", "t"), node("Mul", "x t", "y")],
    "scale on floats": [node("Mul", "x a", "y")],
    "codes without a zero point": [node("DequantizeLinear", "q a", "y")],
    "codes moved": [node("Transpose", "q", "t", perm=[0, 2, 3, 1]), node("DequantizeLinear", "t a o", "y")],
    "bias as a float": [node("Div", "s a", "t"), node("Add", "x t", "y")],
    "zero point": [node("Cast", "o", "t", to=1), node("Mul", "x t", "y")],
    "codes as the second factor": [
        node("MatMulInteger", "w q - o", "c"), node("Cast", "c", "t", to=1), node("Mul", "t a", "y"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("reader", _READERS)
def test_other_readers(reader: str) -> None:
    nodes = [node("DynamicQuantizeLinear", "x", "q a o"), *_READERS[reader]]
    constants = {"s": np.asarray(F(2)), "w": np.arange(36, dtype=np.uint8).reshape(6, 6)}
    proto = model(nodes, constants, {"x": ["N", *SIZE]}, {"y": ["N", None, None, None]}, 13)
    x = images(5)
    plan = compile_plan(load(proto))
    np.testing.assert_array_equal(infer(plan, {"x": x})["y"], one_by_one(proto, x))
    if any(isinstance(layer, FloatOperator) and layer.each_image for layer in plan.network.layers):
        with pytest.raises(ModelError, match="each image by itself"):
            infer(plan, {"x": x}, dynamic="batch")


@pytest.mark.parametrize("factor", [(6,), (1, 1, 1, 6)])
def test_a_scale_of_another_axis(factor: tuple[int, ...]) -> None:
    """Six factors along the width of an image of six channels are no factors of its channels."""
    rng = np.random.default_rng(2)
    constants = {"w": rng.integers(0, 256, (6, 3, 3, 3)).astype(np.uint8), "s": rng.uniform(1, 2, factor).astype(F)}
    nodes = [
        node("DynamicQuantizeLinear", "x", "q a o"), node("ConvInteger", "q w o", "c", pads=[1, 1, 1, 1]),
        node("Cast", "c", "f", to=1), node("Mul", "a s", "m"), node("Mul", "f m", "y"),
    ]  # fmt: skip
    proto, x = model(nodes, constants, {"x": ["N", *SIZE]}, {"y": ["N", 6, 6, 6]}, 13), images(5)
    network = load(proto)
    assert network.weight_bits == 6 * 27 * 8
    np.testing.assert_allclose(infer(compile_plan(network), {"x": x})["y"], one_by_one(proto, x), rtol=1e-6)


def test_codes_dequantized_at_once() -> None:
    nodes = [node("DynamicQuantizeLinear", "x", "q a o"), node("DequantizeLinear", "q a o", "y")]
    proto, x = model(nodes, {}, {"x": ["N", *SIZE]}, {"y": ["N", *SIZE]}, 13), images(5)
    network = load(proto)
    assert sum(isinstance(layer, DynamicQuantize) for layer in network.layers) == 1
    np.testing.assert_array_equal(infer(compile_plan(network), {"x": x})["y"], one_by_one(proto, x))
