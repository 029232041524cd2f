"""Activation functions, and Softmax.

The formulas are those of https://onnx.ai/onnx/operators/, in the type of the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from weakcell.emulator.onnx_ops.registry import OPERATORS, Array, Attributes, Inputs, claim, given, register, text


def _erf(x: Array) -> Array:
    from scipy.special import erf

    return np.asarray(erf(x.astype(np.float64)))


def _register_pointwise(name: str, function: Callable[..., Any], **defaults: float) -> None:
    """Register y = function(x, attribute, …), element by element.

    Attributes are floats with these defaults.
    """

    @register(name, pointwise=True)
    def run(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
        """Apply the function to the first input."""
        x = given(inputs[0])
        constants = [x.dtype.type(attributes.get(key, default)) for key, default in defaults.items()]
        return np.asarray(function(x, *constants), x.dtype)


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), with exponents that never overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


_register_pointwise("Sigmoid", sigmoid)
_register_pointwise("Tanh", np.tanh)
_register_pointwise("Erf", _erf)
_register_pointwise("Softplus", lambda x: np.logaddexp(x, 0))
_register_pointwise("Mish", lambda x: x * np.tanh(np.logaddexp(x, 0)))
_register_pointwise("Softsign", lambda x: x / (1 + np.abs(x)))
_register_pointwise("LeakyRelu", lambda x, alpha: np.where(x >= 0, x, x * alpha), alpha=0.01)
_register_pointwise("Elu", lambda x, alpha: np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0))), alpha=1.0)
_register_pointwise(
    "Selu",
    lambda x, alpha, gamma: gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))),
    alpha=1.67326319217681884765625,
    gamma=1.05070102214813232421875,
)
_register_pointwise("HardSigmoid", lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1), alpha=0.2, beta=0.5)
_register_pointwise("HardSwish", lambda x: x * np.clip(x * x.dtype.type(1 / 6) + x.dtype.type(0.5), 0, 1))
_register_pointwise("Swish", lambda x, alpha: x * sigmoid(alpha * x), alpha=1.0)
_register_pointwise("Celu", lambda x, alpha: np.maximum(x, 0) + np.minimum(alpha * np.expm1(x / alpha), 0), alpha=1.0)
_register_pointwise(
    "Shrink", lambda x, bias, lambd: np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0)), bias=0.0, lambd=0.5
)
_register_pointwise("ThresholdedRelu", lambda x, alpha: np.where(x > alpha, x, 0), alpha=1.0)


@register("Relu")
def _relu(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = given(inputs[0])
    return np.asarray(np.maximum(x, 0), x.dtype)


@register("PRelu")
def _prelu(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x, slope = given(inputs[0]), given(inputs[1])
    claim(np.broadcast_shapes(x.shape, slope.shape), x, slope)
    return np.asarray(np.where(x >= 0, x, x * slope), x.dtype)


@register("Gelu", pointwise=True)
def _gelu(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """Gelu (https://onnx.ai/onnx/operators/onnx__Gelu.html).

    By erf, or by tanh if `approximate` asks for it.
    """
    x = given(inputs[0])
    wide = x.astype(np.float64)
    if text(attributes, "approximate", "none") == "tanh":
        inner = np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3))
    else:
        inner = _erf(wide / math.sqrt(2))
    return np.asarray(0.5 * wide * (1 + inner), x.dtype)


def _along(function: Callable[[Array, int], Array], name: str) -> None:
    """Register an operator along one axis.

    Before opset 13, everything from `axis` on is one axis.
    """

    def run(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
        """Apply the function along the axis."""
        x = given(inputs[0])
        axis = int(attributes.get("axis", -1 if opset >= 13 else 1))
        if opset >= 13:
            return np.asarray(function(x, axis), x.dtype)
        axis = axis % x.ndim if axis < 0 else axis
        flat = x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
        return np.asarray(function(flat, -1), x.dtype).reshape(x.shape)

    OPERATORS[name] = run


def softmax(x: Array, axis: int) -> Array:
    """Return exp(x) / sum(exp(x)) along an axis."""
    e = np.exp(x - x.max(axis, keepdims=True))
    return np.asarray(e / e.sum(axis, keepdims=True))


def _log_softmax(x: Array, axis: int) -> Array:
    shifted = x - x.max(axis, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis, keepdims=True)))


def _hardmax(x: Array, axis: int) -> Array:
    first = np.expand_dims(x.argmax(axis), axis)
    return np.asarray(np.arange(x.shape[axis]).reshape(-1, *[1] * (x.ndim - axis % x.ndim - 1)) == first)


_along(_hardmax, "Hardmax")
_along(softmax, "Softmax")
_along(_log_softmax, "LogSoftmax")
