"""Scales of weights along any axis, in blocks, of any sign: the same numbers as onnxruntime, and every integer in the memory.

Scales are powers of two here, so that float32 holds every sum exactly and the order of its terms does not matter.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import helper

from tests.emulator.flipped import outputs_with_flips, random_cells, with_flipped_initializers
from tests.emulator.models import Array, model, node, quietly, run
from tests.emulator.reference import evaluate
from weakcell.emulator.engine.executor import infer
from weakcell.emulator.importer import load
from weakcell.emulator.ir.layers import Convolution
from weakcell.emulator.ir.network import Network
from weakcell.emulator.plan.plan import compile_plan
from weakcell.memmodels.errors import ModelError

F = np.float32
_LIMITS = {"INT8": (-128, 127), "UINT8": (0, 255), "INT4": (-8, 7), "UINT4": (0, 15)}
_SHAPES = {
    "Conv": (6, 4, 3, 2), "grouped": (6, 2, 3, 2), "depthwise": (4, 1, 3, 2), "signal": (6, 4, 3),
    "Gemm": (6, 12), "GemmT": (12, 6), "MatMul": (12, 6),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One weight: operator, type, axis of the scales (may be negative), block (0: none), what the scales are."""

    operator: str
    kind: str
    axis: int | None
    block: int
    scales: str
    zeros: bool
    ending: str
    seed: int

    @property
    def shape(self) -> tuple[int, ...]:
        return _SHAPES[self.operator]

    @property
    def outputs_first(self) -> bool:
        """Whether there is one scale for each output, or one for all: what an integer sum takes."""
        last = self.operator in ("GemmT", "MatMul")
        return not self.block and (self.axis is None or self.axis % len(self.shape) == (len(self.shape) - 1 if last else 0))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    operator = draw(st.sampled_from(list(_SHAPES)))
    rank = len(_SHAPES[operator])
    axis = draw(st.one_of(st.none(), st.integers(-rank, rank - 1)))
    block = 0 if axis is None else draw(st.sampled_from([0, 0, 2, 3, 4]))
    return Case(
        operator, draw(st.sampled_from(list(_LIMITS))), axis, block,
        draw(st.sampled_from(["positive", "negative", "mixed", "zeros"])),
        draw(st.booleans()), draw(st.sampled_from(["plain", "relu", "pool", "codes", "pooled codes", "relu codes"])),
        draw(st.integers(0, 999)),
    )  # fmt: skip


def scales_of(case: Case, rng: np.random.Generator) -> Array:
    """Powers of two in the shape that axis and block ask for."""
    if case.axis is None:
        size: tuple[int, ...] = () if case.seed % 2 else (1,)
    elif case.block:
        size = tuple(-(-n // case.block) if i == case.axis % len(case.shape) else n for i, n in enumerate(case.shape))
    else:
        size = (case.shape[case.axis],)
    made = 2.0 ** rng.integers(-3, 0, size)
    signs = {"positive": 1, "negative": -1, "mixed": rng.choice([-1, 1], size), "zeros": rng.choice([-1, 0, 1], size)}
    return np.asarray(made * signs[case.scales], F)


def built(case: Case) -> onnx.ModelProto:
    """x -> QuantizeLinear, DequantizeLinear -> the operator with a dequantized weight -> what comes behind it."""
    rng = np.random.default_rng(case.seed)
    low, high = _LIMITS[case.kind]
    codes, scales = rng.integers(low, high + 1, case.shape), scales_of(case, rng)
    kind = getattr(onnx.TensorProto, case.kind)
    tensors = [helper.make_tensor("w", kind, case.shape, codes.reshape(-1).tolist())]
    inputs = "w s"
    if case.zeros:
        zeros = rng.integers(low, high + 1, scales.shape)
        tensors.append(helper.make_tensor("z", kind, scales.shape, np.asarray(zeros).reshape(-1).tolist()))
        inputs = "w s z"
    how: dict[str, Any] = {"axis": 0 if case.axis is None else case.axis}
    if case.block:
        how["block_size"] = case.block
    nodes = [
        node("QuantizeLinear", "x sx zx", "q"),
        node("DequantizeLinear", "q sx zx", "a"),
        node("DequantizeLinear", inputs, "f", **how),
    ]
    if case.operator in ("Gemm", "GemmT"):
        nodes.append(node("Gemm", "a f", "h", transB=int(case.operator == "Gemm")))
    elif case.operator == "MatMul":
        nodes.append(node("MatMul", "a f", "h"))
    else:
        groups = {"grouped": 2, "depthwise": 4}.get(case.operator, 1)
        nodes.append(node("Conv", "a f", "h", pads=[1, 1] if case.operator == "signal" else [1, 1, 1, 1], group=groups))
    shape: list[Any] = {"signal": ["N", 4, 7], "Gemm": ["N", 12], "GemmT": ["N", 12], "MatMul": ["N", 12]}.get(
        case.operator, ["N", 4, 6, 7]
    )
    ending, last = case.ending, "h"
    if "pool" in ending and len(shape) > 2:
        nodes.append(node("MaxPool", last, "p", kernel_shape=[2] * (len(shape) - 2)))
        last = "p"
    if "relu" in ending:
        nodes.append(node("Relu", last, "r"))
        last = "r"
    if "codes" in ending:
        nodes += [node("QuantizeLinear", f"{last} sy zy", "c"), node("DequantizeLinear", "c sy zy", "d")]
        last = "d"
    nodes.append(node("Identity", last, "y"))
    constants = {"s": scales, "sx": F(0.25), "zx": np.uint8(120), "sy": F(8), "zy": np.uint8(128)}
    proto = model(nodes, constants, {"x": shape}, {"y": ["N", *[None] * (len(shape) - 1)]}, 21)
    proto.graph.initializer.extend(tensors)
    return proto


@settings(max_examples=60, deadline=None)
@given(cases())
@example(Case("Conv", "INT8", 1, 0, "mixed", True, "pooled codes", 0))
@example(Case("Conv", "INT4", -1, 0, "negative", False, "plain", 0))
@example(Case("Conv", "UINT8", 1, 3, "zeros", True, "codes", 0))
@example(Case("Conv", "INT8", 0, 0, "mixed", False, "pooled codes", 1))
@example(Case("Conv", "INT8", None, 0, "negative", True, "pool", 0))
@example(Case("grouped", "INT8", 1, 2, "mixed", False, "relu codes", 0))
@example(Case("depthwise", "UINT4", 2, 0, "mixed", True, "codes", 0))
@example(Case("signal", "INT8", 1, 0, "negative", False, "pooled codes", 0))
@example(Case("MatMul", "INT4", 0, 4, "zeros", True, "relu", 0))
@example(Case("MatMul", "INT8", 0, 0, "mixed", False, "codes", 0))
@example(Case("MatMul", "INT8", None, 0, "zeros", False, "codes", 5))
@example(Case("Gemm", "UINT8", -1, 0, "negative", True, "plain", 0))
@example(Case("GemmT", "INT8", 1, 4, "mixed", False, "plain", 0))
def test_weights_mean_what_onnxruntime_says(case: Case) -> None:
    proto = built(case)
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(case.seed).normal(0, 20, (3, *shape[1:])).astype(F)
    network: Network = load(proto)
    assert network.weight_bits == np.prod(case.shape) * int(case.kind[-1])
    want = run(proto, {"x": x})[0]
    np.testing.assert_array_equal(infer(compile_plan(network), {"x": x})["y"], want)
    if case.outputs_first:  # the sum itself is one of integers
        np.testing.assert_array_equal(evaluate(network, {"x": x})["y"], want)
        (layer,) = (one for one in network.layers if isinstance(one, Convolution))
        assert network.values[layer.inputs[0]].kind == "codes"


@settings(max_examples=25, deadline=None)
@given(cases())
def test_flips_in_the_memory_are_flips_in_the_file(case: Case) -> None:
    proto, rng = built(case), np.random.default_rng(case.seed)
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    x = rng.normal(0, 20, (3, *shape[1:])).astype(F)
    network = load(proto)
    columns = case.operator in ("GemmT", "MatMul") and any(getattr(layer, "weight", None) == "w" for layer in network.layers)
    flips = random_cells(network, rng)
    changed = with_flipped_initializers(proto, flips, frozenset({"w"} if columns else ()))
    np.testing.assert_array_equal(outputs_with_flips(network, {"x": x}, flips)["y"], run(changed, {"x": x})[0])


# ── scales that the real quantizers write ───────────────────────────────────────────────────────────


def nbits(bits: int, symmetric: bool, qdq: bool) -> tuple[onnx.ModelProto, Array]:
    """A MatMul of onnxruntime's block quantizer, with blocks of zeros, and the scales that it wrote."""
    from onnxruntime.quantization import QuantFormat
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    w = np.random.default_rng(0).normal(size=(40, 12)).astype(F)
    w[:16], w[16:32, 3] = 0, 0
    plain = model([node("MatMul", "x w", "y")], {"w": w}, {"x": ["N", 40]}, {"y": ["N", 12]})
    form = QuantFormat.QDQ if qdq else QuantFormat.QOperator
    with quietly(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = DefaultWeightOnlyQuantConfig(block_size=16, is_symmetric=symmetric, quant_format=form, bits=bits, accuracy_level=0)
        quantizer = MatMulNBitsQuantizer(plain, algo_config=config)
        quantizer.process()
    proto = quantizer.model.model
    (scales,) = (onnx.numpy_helper.to_array(t) for t in proto.graph.initializer if t.name.endswith("scales"))
    return proto, scales


@pytest.mark.parametrize(("bits", "symmetric", "qdq"), [(4, True, False), (8, True, False), (4, True, True), (4, False, True)])
def test_block_quantizers_write_negative_and_zero_scales(bits: int, symmetric: bool, qdq: bool) -> None:
    proto, scales = nbits(bits, symmetric, qdq)
    assert (scales == 0).sum() == 13
    assert (scales < 0).any() == symmetric
    x = np.random.default_rng(1).normal(size=(7, 40)).astype(F)
    network = load(proto)
    assert network.weight_bits == 40 * 12 * bits
    want = run(proto, {"x": x})[0]
    np.testing.assert_allclose(infer(compile_plan(network), {"x": x})["y"], want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(evaluate(network, {"x": x})["y"], want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_scale_of_a_block_that_is_not_finite_is_refused(bad: float) -> None:
    for qdq in (False, True):
        proto, scales = nbits(4, True, qdq)
        for tensor in proto.graph.initializer:
            if tensor.name.endswith("scales"):
                changed = scales.copy()
                changed.reshape(-1)[5] = bad
                tensor.CopyFrom(onnx.numpy_helper.from_array(changed, tensor.name))
        with pytest.raises(ModelError, match="scale"):
            load(proto)


@pytest.mark.parametrize("scale", [np.array([-0.01, 0.02, 0, -0.03], F), F(-0.02)])
def test_qlinearconv_of_negative_scales(scale: Array) -> None:
    rng, types = np.random.default_rng(2), {"x": onnx.TensorProto.UINT8, "y": onnx.TensorProto.UINT8}
    constants = {
        "sx": F(0.02), "zx": np.uint8(100), "w": rng.integers(0, 256, (4, 3, 3, 3)).astype(np.uint8), "sw": scale,
        "zw": np.full(np.shape(scale), 128, np.uint8), "sy": F(0.1), "zy": np.uint8(120),
        "b": np.array([100, 200, 300, -50], np.int32),
    }  # fmt: skip
    nodes = [node("QLinearConv", "x sx zx w sw zw sy zy b", "c"), node("MaxPool", "c", "y", kernel_shape=[2, 2])]
    proto = model(nodes, constants, {"x": ["N", 3, 8, 8]}, {"y": ["N", 4, None, None]}, types=types)
    x = rng.integers(0, 256, (5, 3, 8, 8)).astype(np.uint8)
    np.testing.assert_array_equal(infer(compile_plan(load(proto)), {"x": x})["y"], run(proto, {"x": x})[0])


@pytest.mark.parametrize("scale", [np.array([-0.5, 0.25, 1, -0.25], F), F(-0.5)])
def test_a_float_weight_quantized_in_the_graph_by_negative_scales(scale: Array) -> None:
    """QuantizeLinear divides by the scale, so that it may be negative but not 0."""
    rng = np.random.default_rng(3)
    w = rng.normal(0, 20, (4, 9)).astype(F)
    nodes = [
        node("QuantizeLinear", "x sx zx", "q"), node("DequantizeLinear", "q sx zx", "a"),
        node("QuantizeLinear", "w s z", "v", axis=0), node("DequantizeLinear", "v s z", "f", axis=0),
        node("Gemm", "a f", "y", transB=1),
    ]  # fmt: skip
    constants = {"sx": F(0.25), "zx": np.uint8(120), "w": w, "s": scale, "z": np.zeros(np.shape(scale), np.int8)}
    proto, x = model(nodes, constants, {"x": ["N", 9]}, {"y": ["N", 4]}), rng.normal(0, 10, (5, 9)).astype(F)
    network = load(proto)
    assert network.weight_bits == 4 * 9 * 8
    np.testing.assert_array_equal(infer(compile_plan(network), {"x": x})["y"], run(proto, {"x": x})[0])
    zero = model(nodes, {**constants, "s": scale * 0}, {"x": ["N", 9]}, {"y": ["N", 4]})
    with pytest.raises(ModelError, match="scale"):
        load(zero)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["Less", "LessOrEqual", "Greater", "GreaterOrEqual"]), st.booleans(), st.booleans(), st.booleans(),
    st.sampled_from([-1, 1, 0]), st.integers(0, 99),
)  # fmt: skip
def test_a_maximum_of_falling_sums_is_compared(test: str, swapped: bool, turned: bool, spread: bool, sign: int, seed: int) -> None:
    """Where a scale is negative, the largest number comes from the smallest sum. sign 0: scales of both signs."""
    rng = np.random.default_rng(seed)
    scale = rng.choice([-0.5, 0.5], 4).astype(F) if sign == 0 else F(sign * 0.5)
    high, low = (-1, 1) if turned else (1, -1)
    constants = {
        "sx": F(0.25), "zx": np.uint8(120), "w": rng.integers(-8, 8, (4, 3, 3, 3)).astype(np.int8), "s": scale,
        "t": np.asarray(rng.integers(-40, 200, (1, 4, 1, 1) if spread else ()) * 0.125, F), "hi": F(high), "lo": F(low),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", "x sx zx", "q"), node("DequantizeLinear", "q sx zx", "a"),
        node("DequantizeLinear", "w s", "f", axis=0),
        node("Conv", "a f", "c"), node("MaxPool", "c", "p", kernel_shape=[2, 2]),
        node(test, "t p" if swapped else "p t", "b"), node("Where", "b hi lo", "y"),
    ]  # fmt: skip
    proto = model(nodes, constants, {"x": ["N", 3, 6, 6]}, {"y": ["N", 4, None, None]})
    x = rng.normal(0, 6, (3, 3, 6, 6)).astype(F)
    np.testing.assert_array_equal(infer(compile_plan(load(proto)), {"x": x})["y"], run(proto, {"x": x})[0])
