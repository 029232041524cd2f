"""Small float formats (QONNX FloatQuant) and the quantizers of Sony's toolkit, whose codes live in the memory."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper

from tests.emulator.flipped import outputs_with_flips, random_cells
from tests.emulator.models import Array, model, node, qonnx_values
from weakcell import emulator

RNG = np.random.default_rng(31)
F = np.float32


def floats(*shape: int) -> Array:
    return RNG.normal(0, 1, shape).astype(F)


def network(domain: str, quantizers: list[onnx.NodeProto], constants: dict[str, Array]) -> onnx.ModelProto:
    """Return y = x W with the quantizers of x and W in front; they make `xq` and `wq`."""
    constants = {"w": floats(12, 8), **constants}
    proto = model([*quantizers, node("MatMul", "xq wq", "y")], constants, {"x": [5, 12]}, {"y": [5, 8]})
    proto.opset_import.append(helper.make_opsetid(domain, 1))
    return proto


# ── FloatQuant ────────────────────────────────────────────────────────────────────────────────────────


GENERAL = "qonnx.custom_op.general"
FORMATS: dict[str, tuple[type, int, int, int]] = {
    "e2m1": (ml_dtypes.float4_e2m1fn, 2, 1, 1),
    "e2m3": (ml_dtypes.float6_e2m3fn, 2, 3, 1),
    "e3m2": (ml_dtypes.float6_e3m2fn, 3, 2, 3),
}
"""The formats of ml_dtypes without infinities and NaN: bits of exponent and mantissa, bias."""


def float_quant(source: str, target: str, scale: str) -> onnx.NodeProto:
    inputs = [source, scale, "exponent", "mantissa", "bias", "most"]
    return helper.make_node(
        "FloatQuant", inputs, [target], target, domain=GENERAL, has_inf=0, has_nan=0, has_subnormal=1, saturation=1,
        rounding_mode="ROUND",
    )  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
def test_small_floats(kind: str) -> None:
    """The qonnx package, and the types of ml_dtypes for what the codes mean, also with flipped bits."""
    dtype, exponent, mantissa, bias = FORMATS[kind]
    most = float(np.nanmax(np.arange(1 << 1 + exponent + mantissa, dtype=np.uint8).view(dtype).astype(F)))
    constants = {
        "exponent": F(exponent), "mantissa": F(mantissa), "bias": F(bias), "most": F(most), "sx": F(0.3),
        "sw": RNG.uniform(0.1, 0.4, (1, 8)).astype(F),
    }  # fmt: skip
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    proto = network(GENERAL, [float_quant("x", "xq", "sx"), float_quant("w", "wq", "sw")], arrays)
    imported, x = emulator.load(proto), floats(5, 12)
    right = qonnx_values(proto, x)
    found = emulator.infer(emulator.compile_plan(imported), {"x": x}, ("xq",))
    np.testing.assert_array_equal(found["xq"], right["xq"])
    np.testing.assert_allclose(found["y"], right["y"], rtol=1e-6, atol=1e-6)
    (weight,) = imported.weights
    assert (weight.encoding.bits, weight.elements) == (1 + exponent + mantissa, 12 * 8)
    cells = random_cells(imported, RNG, 20)
    codes = (right["wq"] / arrays["sw"]).astype(dtype).view(np.uint8).reshape(-1)
    for element, bit in cells[weight.name]:
        codes[element] ^= 1 << bit
    faulty = codes.view(dtype).astype(F).reshape(12, 8) * arrays["sw"]
    np.testing.assert_allclose(outputs_with_flips(imported, {"x": x}, cells)["y"], right["xq"] @ faulty, rtol=1e-5, atol=1e-5)


# ── mct_quantizers ────────────────────────────────────────────────────────────────────────────────────


def mct(op_type: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], output, domain="mct_quantizers", **attributes)


def symmetric(x: Array, threshold: Array, bits: int, signed: bool = True) -> Array:
    """The formula of mct_quantizers: clip to [-t, t - s] (from 0 without a sign), then to the grid."""
    step = threshold / 2 ** (bits - signed)
    return np.asarray(np.round(np.clip(x, -threshold if signed else 0 * threshold, threshold - step) / step) * step)


def uniform(x: Array, low: Array, high: Array, bits: int) -> Array:
    """The formula of mct_quantizers: the range is moved so that 0 is on the grid."""
    step = (high - low) / (2**bits - 1)
    low, high = step * np.round(low / step), high - low + step * np.round(low / step)
    return np.asarray(step * np.round((np.clip(x, low, high) - low) / step) + low)


def table(x: Array, values: Array, threshold: Array) -> Array:
    """The formula of mct_quantizers: the nearest value of a table on the grid of 8 bits."""
    grid = np.clip(x / (threshold + 1e-8) * 128, -128, 127)
    return np.asarray(values[np.abs(grid[..., None] - values).argmin(-1)] / 128 * threshold)


@pytest.mark.parametrize("kind", ["power of two", "symmetric", "uniform", "table"])
def test_quantizers_of_sony(kind: str) -> None:
    """Closed forms of the toolkit's own operators; every code of a weight is in the memory."""
    x, limits = floats(5, 12), RNG.uniform(0.5, 2, 8).astype(F)
    attributes: dict[str, Any] = {"num_bits": 4, "per_channel": 1, "channel_axis": 1, "signed": 1}
    constants: dict[str, Array] = {"t": limits}
    name, inputs = "WeightsSymmetricQuantizer", "w t"
    activation = mct("ActivationSymmetricQuantizer", "x", "xq", threshold=1.7, signed=1, num_bits=8)
    xq, bits = symmetric(x, np.array(1.7, F), 8), 4
    if kind == "power of two":
        name, constants["t"] = "WeightsPOTQuantizer", 2.0 ** np.rint(np.log2(limits)).astype(F)
        activation = mct("ActivationPOTQuantizer", "x", "xq", threshold=2.0, signed=0, num_bits=6)
        xq = symmetric(x, np.array(2, F), 6, signed=False)
    elif kind == "uniform":
        name, inputs, constants = "WeightsUniformQuantizer", "w low high", {"low": -limits, "high": limits[::-1].copy()}
        activation = mct("ActivationUniformQuantizer", "x", "xq", min_range=-0.7, max_range=1.9, num_bits=8)
        xq = uniform(x, np.array(-0.7, F), np.array(1.9, F), 8)
    elif kind == "table":
        name, inputs, bits = "WeightsLUTSymmetricQuantizer", "w v t", 3
        constants["v"] = np.array([-100, -60, -20, 0, 20, 50, 110], F)
        attributes |= {"num_bits": 3, "lut_values_bitwidth": 8, "eps": 1e-8, "input_rank": 2}
    proto = network("mct_quantizers", [activation, mct(name, inputs, "wq", **attributes)], constants)
    w = onnx.numpy_helper.to_array(proto.graph.initializer[0])
    rows = {key: value.reshape(1, -1) for key, value in constants.items()}
    if kind == "uniform":
        wq = uniform(w, rows["low"], rows["high"], 4)
    else:
        wq = table(w, constants["v"], rows["t"]) if kind == "table" else symmetric(w, rows["t"], 4)
    imported = emulator.load(proto)
    plan = emulator.compile_plan(imported)
    found = emulator.infer(plan, {"x": x})["y"]
    np.testing.assert_allclose(found, xq @ wq, rtol=1e-5, atol=1e-5)
    assert imported.weight_bits == imported.integer_bits == bits * 12 * 8
    cells = random_cells(imported, RNG)
    assert np.any(outputs_with_flips(imported, {"x": x}, cells)["y"] != found)
