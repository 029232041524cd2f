"""Operators that work element by element, and the normalizations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from emulator.floatops.table import OPERATORS, Array, Attributes, Inputs, claim, given, register

_TYPES: dict[int, Any] = {
    1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64,
    9: np.bool_, 10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64,
}  # fmt: skip


def _unary(name: str, function: Callable[..., Any]) -> None:
    def run(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
        x = given(inputs[0])
        return np.asarray(function(x), x.dtype)

    OPERATORS[name] = run


def _divide(a: Array, b: Array) -> Array:
    """ONNX Div: integers are divided towards zero."""
    if a.dtype.kind not in "iu":
        return np.asarray(a / b)
    quotient = np.floor_divide(a, b)
    return np.asarray(quotient + ((quotient < 0) & (quotient * b != a)), a.dtype)


def _binary(name: str, function: Callable[..., Any]) -> None:
    def run(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
        result = given(inputs[0])
        for x in inputs[1:]:
            right = given(x)
            claim(np.broadcast_shapes(result.shape, right.shape))
            result = np.asarray(function(result, right))
        return result

    OPERATORS[name] = run


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


_UNARY: dict[str, Callable[..., Any]] = {
    "Abs": np.abs,
    "Ceil": np.ceil,
    "Exp": np.exp,
    "Floor": np.floor,
    "Log": np.log,
    "Neg": np.negative,
    "Not": np.logical_not,
    "Reciprocal": lambda x: 1 / x,
    "Relu": lambda x: np.maximum(x, 0),
    "Round": np.rint,
    "Sigmoid": _sigmoid,
    "Sign": lambda x: np.nan_to_num(np.sign(x), nan=0.0),
    "Sqrt": np.sqrt,
    "Tanh": np.tanh,
}
for _name, _function in _UNARY.items():
    _unary(_name, _function)

_BINARY: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "And": np.logical_and,
    "Div": _divide,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Or": np.logical_or,
    "Sub": np.subtract,
    "Sum": np.add,
    "Xor": np.logical_xor,
}
for _name, _function in _BINARY.items():
    _binary(_name, _function)


@register("Identity", "Dropout")
def _identity(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    return given(inputs[0])


@register("Pow")
def _pow(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    base, exponent = given(inputs[0]), given(inputs[1])
    claim(np.broadcast_shapes(base.shape, exponent.shape))
    return np.asarray(np.power(base, exponent), base.dtype)


@register("LeakyRelu")
def _leaky_relu(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = given(inputs[0])
    return np.where(x >= 0, x, x * x.dtype.type(attributes.get("alpha", 0.01)))


@register("Clip")
def _clip(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = given(inputs[0])
    low, high = clip_limits(inputs, attributes)
    if low is not None:
        x = np.maximum(x, low.astype(x.dtype))
    return x if high is None else np.minimum(x, high.astype(x.dtype))


def clip_limits(inputs: Inputs, attributes: Attributes) -> tuple[Array | None, Array | None]:
    """The limits of a Clip: attributes before opset 11, inputs since."""
    limits = [*inputs[1:3], None, None][:2]
    for i, key in enumerate(("min", "max")):
        if limits[i] is None and key in attributes:
            limits[i] = np.asarray(attributes[key], np.float32)
    return limits[0], limits[1]


@register("Cast")
def _cast(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    if (to := _TYPES.get(int(attributes["to"]))) is None:
        raise ValueError(f"Cast to ONNX type {attributes['to']}")
    return given(inputs[0]).astype(to)


@register("Where")
def _where(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    condition, a, b = (given(x) for x in inputs)
    claim(np.broadcast_shapes(condition.shape, a.shape, b.shape))
    return np.where(condition, a, b)


@register("Softmax", "LogSoftmax")
def _softmax(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = given(inputs[0])
    axis = int(attributes.get("axis", -1 if opset >= 13 else 1))
    if opset < 13:  # everything from `axis` on is one axis
        axis = axis % x.ndim
        flat = x.reshape(*x.shape[:axis], -1)
        return _softmax([flat], {"axis": -1}, 13).reshape(x.shape)
    e = np.exp(x - x.max(axis, keepdims=True))
    return np.asarray(e / e.sum(axis, keepdims=True), x.dtype)


def batch_norm_factors(gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float) -> tuple[Array, Array]:
    """BatchNormalization as y = x * factor + offset, in float32 and in the order of onnxruntime (no fused multiply-add)."""
    one, eps = np.float32(1.0), np.float32(epsilon)
    factor = (one / np.sqrt(variance.astype(np.float32) + eps)) * gamma.astype(np.float32)
    return factor, beta.astype(np.float32) - mean.astype(np.float32) * factor


@register("BatchNormalization")
def _batch_norm(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x, gamma, beta, mean, variance = (given(v) for v in inputs)
    factor, offset = batch_norm_factors(gamma, beta, mean, variance, float(attributes.get("epsilon", 1e-5)))
    shape = (-1,) + (1,) * (x.ndim - 2)
    return np.asarray(x * factor.reshape(shape) + offset.reshape(shape))


@register("QuantizeLinear")
def _quantize(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """Half to even of a float32 division, then the zero point, then the limits of the type (NaN gives the lowest)."""
    x, scale = given(inputs[0]), given(inputs[1])
    zero = inputs[2] if len(inputs) > 2 and inputs[2] is not None else np.zeros(scale.shape, np.uint8)
    if scale.size > 1:
        axis = int(attributes.get("axis", 1)) % x.ndim
        shape = [1] * x.ndim
        shape[axis] = scale.size
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    else:
        scale, zero = scale.reshape(()), zero.reshape(())
    low, high = integer_limits(zero.dtype)
    q = np.rint(x.astype(np.float32) / scale) + zero.astype(np.float32)
    return np.asarray(np.nan_to_num(np.clip(q, low, high), nan=low).astype(np.int32).astype(zero.dtype))


def integer_limits(dtype: Any) -> tuple[int, int]:
    """Lowest and highest value of an integer type, ml_dtypes' narrow ones included."""
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return int(info.min), int(info.max)
    import ml_dtypes

    narrow: Any = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
    return int(narrow.min), int(narrow.max)
