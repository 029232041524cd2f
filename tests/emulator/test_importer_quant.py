"""QONNX's Quant, against the qonnx package: every width from one bit on, signs, narrow ranges, rounding modes, zero points."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import helper

from tests.emulator.models import Array, model, node, qonnx_values
from tests.emulator.reference import evaluate
from weakcell.emulator.engine.executor import infer
from weakcell.emulator.importer import load
from weakcell.emulator.ir.layers import Convolution
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import SIGN1, Encoding
from weakcell.emulator.plan.plan import compile_plan

F = np.float32
DOMAIN = "qonnx.custom_op.general"
MODES = ["ROUND", "HALF_EVEN", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN"]


def quant(x: str, name: str, signed: int, narrow: int, mode: str) -> onnx.NodeProto:
    inputs = [x, f"{name}.s", f"{name}.z", f"{name}.b"]
    return helper.make_node("Quant", inputs, [name], name, domain=DOMAIN, signed=signed, narrow=narrow, rounding_mode=mode)


def finished(
    nodes: list[onnx.NodeProto], constants: dict[str, Any], shape: tuple[int, ...], out: tuple[int, ...]
) -> onnx.ModelProto:
    arrays = {name: np.asarray(value, F) for name, value in constants.items()}
    proto = model(nodes, arrays, {"x": shape}, {"y": out}, 13)
    proto.opset_import.append(helper.make_opsetid(DOMAIN, 2))
    return proto


def check(network: Network, proto: onnx.ModelProto, x: Array, exact: bool = True) -> None:
    want = qonnx_values(proto, x)["y"]
    for got in (infer(compile_plan(network), {"x": x})["y"], evaluate(network, {"x": x})["y"]):
        if exact:
            np.testing.assert_array_equal(got, want)
        else:
            np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6)


quants = st.tuples(
    st.integers(1, 5), st.integers(0, 1), st.integers(0, 1), st.sampled_from(MODES), st.sampled_from([0.25, 0.3]),
    st.sampled_from([0, 0, 0, 1, -2]),
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(quants, st.integers(0, 99))
@example((1, 1, 0, "ROUND", 0.3, 0), 0)
@example((1, 1, 1, "FLOOR", 0.3, 0), 0)
@example((1, 1, 0, "CEIL", 0.3, 1), 0)
@example((1, 0, 0, "ROUND", 0.3, 0), 0)
@example((1, 0, 1, "ROUND", 0.3, 0), 0)
def test_activations(how: tuple[int, int, int, str, float, int], seed: int) -> None:
    bits, signed, narrow, mode, scale, zero = how
    x = np.random.default_rng(seed).normal(size=(8, 6)).astype(F)
    x[0] = [0.0, -0.0, scale / 2, -scale / 2, 1e-45, -1e-45]
    constants = {"y.s": scale, "y.z": zero, "y.b": bits}
    proto = finished([quant("x", "y", signed, narrow, mode)], constants, x.shape, x.shape)
    check(load(proto), proto, x)


def test_one_bit_of_a_large_scale_divides_small_numbers_to_zero() -> None:
    """-1e-45 / 64 is -0 in float32, and -0 is not below 0: qonnx says +1, and so does the threshold."""
    x = np.array([[-1e-45, -4e-44, -5e-44, 1e-45, 0, -1]], F)
    proto = finished([quant("x", "y", 1, 0, "ROUND")], {"y.s": 64, "y.z": 0, "y.b": 1}, x.shape, x.shape)
    check(load(proto), proto, x)


@settings(max_examples=25, deadline=None)
@given(quants, st.booleans(), st.booleans(), st.integers(0, 99))
@example((1, 1, 0, "ROUND", 0.25, 0), False, False, 0)
@example((1, 1, 0, "ROUND", 0.25, 0), True, True, 0)
@example((1, 1, 1, "ROUND", 0.25, 1), True, False, 0)
@example((1, 0, 0, "ROUND", 0.25, 0), False, True, 0)
@example((3, 1, 0, "ROUND", 0.25, 0), True, False, 0)
def test_weights(how: tuple[int, int, int, str, float, int], channels: bool, falling: bool, seed: int) -> None:
    """The integers live in the memory at their own width; scales of weights may be negative."""
    bits, signed, narrow, mode, scale, zero = how
    rng = np.random.default_rng(seed)
    scales: Any = scale * 2.0 ** rng.integers(-1, 2, (1, 5)) if channels else scale
    scales = -np.asarray(scales) if falling else scales
    constants = {
        "a.s": 0.5, "a.z": 0, "a.b": 4, "w": rng.normal(size=(11, 5)), "q.s": scales, "q.z": np.full(np.shape(scales), zero),
        "q.b": bits,
    }  # fmt: skip
    nodes = [quant("x", "a", 1, 0, "ROUND"), quant("w", "q", signed, narrow, mode), node("MatMul", "a q", "y")]
    proto = finished(nodes, constants, (7, 11), (7, 5))
    network = load(proto)
    assert network.weight_bits == 11 * 5 * bits
    if bits == 1:
        assert network.weights[0].encoding == (SIGN1 if signed else Encoding("unsigned", 1))
    check(network, proto, rng.normal(size=(7, 11)).astype(F), exact=scale == 0.25)


def test_one_bit_on_one_bit_is_a_sum_of_signs() -> None:
    rng = np.random.default_rng(6)
    constants = {"a.s": 0.5, "a.z": 0, "a.b": 1, "w": rng.normal(size=(70, 5)), "q.s": 0.25, "q.z": 0, "q.b": 1}
    nodes = [quant("x", "a", 1, 0, "ROUND"), quant("w", "q", 1, 0, "ROUND"), node("MatMul", "a q", "y")]
    proto = finished(nodes, constants, (7, 70), (7, 5))
    network = load(proto)
    (layer,) = (one for one in network.layers if isinstance(one, Convolution))
    assert network.values[layer.inputs[0]].kind == "bits"
    check(network, proto, rng.normal(size=(7, 70)).astype(F))
