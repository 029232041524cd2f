"""QONNX's quantizers on arrays.

The order is that of the qonnx package: scale, shift, clamp, round, shift back, scale back.
Reference: https://github.com/fastmachinelearning/qonnx/tree/main/docs/qonnx-custom-ops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from weakcell.emulator.onnx_ops.registry import Array, Attributes, Inputs, claim, given, register, text

_ROUNDINGS: dict[str, Callable[[Any], Any]] = {
    "ROUND": np.rint,
    "HALF_EVEN": np.rint,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda x: np.sign(x) * np.ceil(np.abs(x)),
    "DOWN": np.fix,
    "ROUND_TO_ZERO": np.fix,
    "HALF_UP": lambda x: np.sign(x) * np.floor(np.abs(x) + 0.5),
    "HALF_DOWN": lambda x: np.sign(x) * np.ceil(np.abs(x) - 0.5),
}


def rounding(attributes: Attributes, default: str) -> tuple[str, Callable[[Any], Any]]:
    """Return the rounding mode, in capitals, and its function."""
    mode = text(attributes, "rounding_mode", default).upper()
    if mode not in _ROUNDINGS:
        raise ValueError(f"the rounding mode {mode}")
    return mode, _ROUNDINGS[mode]


def code_limits(attributes: Attributes, bits: float) -> tuple[int, int]:
    """Return lowest and highest code of a Quant."""
    if bits != int(bits) or not 1 <= bits <= 32:
        raise ValueError(f"a width of {bits} bits")
    whole, narrow = int(bits), bool(attributes.get("narrow", 0))
    if attributes.get("signed", 1):
        return -(1 << (whole - 1)) + narrow, (1 << (whole - 1)) - 1
    return 0, (1 << whole) - 1 - narrow


def is_bipolar(attributes: Attributes, bits: float) -> bool:
    """Return whether a Quant has the two levels -1 and +1.

    One signed bit, whatever `narrow` says.
    """
    return bits == 1 and bool(attributes.get("signed", 1))


def codes(inputs: Inputs, attributes: Attributes) -> Array:
    """Return the integers of a Quant, zero point included, as floats."""
    x, scale, zero, width = (given(v) for v in inputs[:4])
    claim(np.broadcast_shapes(x.shape, scale.shape, zero.shape), x, scale)
    bits = float(width.reshape(-1)[0])
    low, high = code_limits(attributes, bits)
    _, rounded = rounding(attributes, "ROUND")
    shifted = x / scale + zero
    if is_bipolar(attributes, bits):
        return np.where(shifted >= 0, np.float32(1), np.float32(-1))
    return np.asarray(rounded(np.clip(shifted, np.float32(low), np.float32(high))), np.float32)


@register("qonnx.Quant")
def _quant(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    return np.asarray((codes(inputs, attributes) - given(inputs[2])) * given(inputs[1]), np.float32)


@register("qonnx.BipolarQuant")
def _bipolar(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x, scale = given(inputs[0]), given(inputs[1])
    return np.asarray(np.where(x >= 0, np.float32(1), np.float32(-1)) * scale, np.float32)


def minifloat_table(exponent_bits: int, mantissa_bits: int, bias: float) -> Array:
    """Return the numbers of a small float format by code: sign, exponent, mantissa, without infinities and NaN."""
    code = np.arange(1 << (exponent_bits + mantissa_bits))
    exponent, mantissa = code >> mantissa_bits, (code & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    positive = np.where(exponent == 0, mantissa * 2.0 ** (1 - bias), (1 + mantissa) * 2.0 ** (exponent - bias))
    return np.concatenate([positive, -positive]).astype(np.float32)


@register("qonnx.FloatQuant")
def _float_quant(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """FloatQuant: x, scale, bits of exponent and mantissa, exponent bias, largest value."""
    scale = given(inputs[1])
    return np.asarray(rounded_floats(inputs, attributes) * scale, np.float32)


def rounded_floats(inputs: Inputs, attributes: Attributes) -> Array:
    """Return x / scale rounded to a small float format, as the qonnx package computes it."""
    x, scale = given(inputs[0]), given(inputs[1])
    claim(np.broadcast_shapes(x.shape, scale.shape), x, scale)
    exponent_bits, mantissa_bits, bias, most = (float(given(v).reshape(-1)[0]) for v in inputs[2:6])
    _, rounded = rounding(attributes, "ROUND")
    scaled = np.asarray(x / scale, np.float32)
    exponent = np.floor(np.log2(np.abs(scaled) + np.finfo(np.float32).tiny)) - np.float32(mantissa_bits)
    step = np.exp2(np.maximum(exponent, np.float32(1 - bias - mantissa_bits)))
    y = step * rounded(scaled / step)
    limit = min((2 - 2.0**-mantissa_bits) * 2.0 ** (2**exponent_bits - 1 - bias), most)
    clipped = np.clip(y, np.float32(-limit), np.float32(limit))
    if attributes.get("saturation", 1):
        return np.asarray(clipped, np.float32)
    beyond = np.abs(y) > limit
    if attributes.get("has_inf", 0):
        return np.asarray(np.where(beyond, np.sign(y) * np.inf, clipped), np.float32)
    if attributes.get("has_nan", 0):
        return np.asarray(np.where(beyond | np.isinf(y), np.nan, clipped), np.float32)
    raise ValueError("it neither saturates nor has infinities or NaN")


@register("qonnx.Trunc")
def _trunc(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """Trunc: version 1 drops low bits, version 2 has an output scale and clamps."""
    x, scale, zero, bits_in = (given(v) for v in inputs[:4])
    y = np.rint(x / scale + zero)
    _, rounded = rounding(attributes, "FLOOR")
    if len(inputs) < 6:
        y = rounded(y / np.float32(2.0 ** float(bits_in.reshape(-1)[0] - given(inputs[4]).reshape(-1)[0])))
        return np.asarray((y - zero) * scale, np.float32)
    out_scale, bits_out = given(inputs[4]), float(given(inputs[5]).reshape(-1)[0])
    step = np.exp2(np.rint(np.log2(out_scale / scale)))
    low, high = code_limits(attributes, bits_out)
    y = rounded(np.clip(y / step, np.float32(low), np.float32(high)))
    return np.asarray((y - zero / step) * out_scale, np.float32)


@register("qonnx.MultiThreshold")
def _multi_threshold(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """MultiThreshold: how many thresholds of its channel each element reaches."""
    x, thresholds = given(inputs[0]), given(inputs[1])
    shape = (-1,) + (1,) * (x.ndim - 2)
    count = np.zeros(x.shape, np.float32)
    for t in thresholds.T:
        count += x >= t.reshape(shape)
    return np.asarray(
        np.float32(attributes.get("out_scale", 1.0)) * count + np.float32(attributes.get("out_bias", 0.0)), np.float32
    )
