"""Elementwise arithmetic, comparisons, casts, selection, BatchNormalization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from weakcell.emulator.onnx_ops.registry import (
    OPERATORS,
    Array,
    Attributes,
    Inputs,
    claim,
    given,
    optional,
    register,
    register_several,
    text,
)

_TYPES: dict[int, Any] = {
    1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64,
    9: np.bool_, 10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64,
}  # fmt: skip
_NARROW = {16: "bfloat16", 21: "uint4", 22: "int4", 25: "uint2", 26: "int2"}


def numpy_type(number: int) -> Any:
    """Return the NumPy type of an ONNX element type.

    ValueError for types that no operator here has.
    """
    if number in _NARROW:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, _NARROW[number]))
    if number not in _TYPES:
        raise ValueError(f"ONNX type {number}")
    return np.dtype(_TYPES[number])


def _unary(name: str, function: Callable[..., Any]) -> None:
    @register(name, pointwise=name in _TABULATED)
    def run(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
        """Apply the function to the only input."""
        x = given(inputs[0])
        return np.asarray(function(x), x.dtype)


def _divide(a: Array, b: Array) -> Array:
    """Div: integers are divided towards zero."""
    if a.dtype.kind not in "iu":
        return np.asarray(a / b)
    quotient = np.floor_divide(a, b)
    return np.asarray(quotient + ((quotient < 0) & (quotient * b != a)), a.dtype)


def _binary(name: str, function: Callable[..., Any]) -> None:
    def run(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
        """Apply the function to all inputs, from left to right."""
        result = given(inputs[0])
        for x in inputs[1:]:
            right = given(x)
            claim(np.broadcast_shapes(result.shape, right.shape), result, right)
            result = np.asarray(function(result, right))
        return result

    OPERATORS[name] = run


_UNARY: dict[str, Callable[..., Any]] = {
    "Abs": np.abs,
    "Acos": np.arccos,
    "Acosh": np.arccosh,
    "Asin": np.arcsin,
    "Asinh": np.arcsinh,
    "Atan": np.arctan,
    "Atanh": np.arctanh,
    "BitwiseNot": np.invert,
    "Ceil": np.ceil,
    "Cos": np.cos,
    "Cosh": np.cosh,
    "Exp": np.exp,
    "Floor": np.floor,
    "Log": np.log,
    "Neg": np.negative,
    "Not": np.logical_not,
    "Reciprocal": lambda x: 1 / x,
    "Round": np.rint,
    "Sign": lambda x: np.nan_to_num(np.sign(x), nan=0.0),
    "Sin": np.sin,
    "Sinh": np.sinh,
    "Sqrt": np.sqrt,
    "Tan": np.tan,
}
_TABULATED = {"Abs", "Exp", "Reciprocal", "Sqrt"}
"""Operators that become lookup tables. The others stay float32."""

for _name, _function in _UNARY.items():
    _unary(_name, _function)

_BINARY: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "And": np.logical_and,
    "BitwiseAnd": np.bitwise_and,
    "BitwiseOr": np.bitwise_or,
    "BitwiseXor": np.bitwise_xor,
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


@register("Identity")
def _identity(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    return given(inputs[0])


@register_several("Dropout")
def _dropout(inputs: Inputs, attributes: Attributes, opset: int, outputs: int) -> tuple[Array, ...]:
    """Dropout in evaluation mode: the input, and a mask of ones."""
    training = optional(inputs, 2)
    if training is not None and bool(training.reshape(())):
        raise ValueError("training_mode is 1")
    x = given(inputs[0])
    return x, np.ones(x.shape, np.bool_)


@register("Mean")
def _mean(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    total = OPERATORS["Sum"](inputs, attributes, opset)
    return np.asarray(total / total.dtype.type(len(inputs)), total.dtype)


@register("Mod")
def _mod(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """Mod (https://onnx.ai/onnx/operators/onnx__Mod.html).

    The sign of the divisor, or of the dividend with `fmod`.
    """
    a, b = given(inputs[0]), given(inputs[1])
    claim(np.broadcast_shapes(a.shape, b.shape), a, b)
    return np.asarray(np.fmod(a, b) if attributes.get("fmod", 0) else np.mod(a, b), a.dtype)


@register("BitShift")
def _bit_shift(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    a, b = given(inputs[0]), given(inputs[1])
    claim(np.broadcast_shapes(a.shape, b.shape), a, b)
    shift = np.left_shift if text(attributes, "direction", "LEFT") == "LEFT" else np.right_shift
    return np.asarray(shift(a, b), a.dtype)


@register("Pow")
def _pow(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    base, exponent = given(inputs[0]), given(inputs[1])
    claim(np.broadcast_shapes(base.shape, exponent.shape), base, exponent)
    return np.asarray(np.power(base, exponent), base.dtype)


@register("Clip")
def _clip(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = given(inputs[0])
    low, high = clip_limits(inputs, attributes)
    if low is not None:
        x = np.maximum(x, low.astype(x.dtype))
    return x if high is None else np.minimum(x, high.astype(x.dtype))


def clip_limits(inputs: Inputs, attributes: Attributes) -> tuple[Array | None, Array | None]:
    """Return the limits of a Clip: attributes before opset 11, inputs since."""
    limits = [*inputs[1:3], None, None][:2]
    for i, key in enumerate(("min", "max")):
        if limits[i] is None and key in attributes:
            limits[i] = np.asarray(attributes[key], np.float32)
    return limits[0], limits[1]


@register("Cast")
def _cast(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    return given(inputs[0]).astype(numpy_type(int(attributes["to"])))


@register("CastLike")
def _cast_like(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    return given(inputs[0]).astype(given(inputs[1]).dtype)


@register("Where")
def _where(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    condition, a, b = (given(x) for x in inputs)
    claim(np.broadcast_shapes(condition.shape, a.shape, b.shape), condition, a, b)
    return np.where(condition, a, b)


def batch_norm_factors(gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float) -> tuple[Array, Array]:
    """Return BatchNormalization as y = x * factor + offset, in float32.

    The order of operations is onnxruntime's, without fused multiply-add.
    """
    one, eps = np.float32(1.0), np.float32(epsilon)
    factor = (one / np.sqrt(variance.astype(np.float32) + eps)) * gamma.astype(np.float32)
    return factor, beta.astype(np.float32) - mean.astype(np.float32) * factor


@register("BatchNormalization")
def _batch_norm(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x, gamma, beta, mean, variance = (given(v) for v in inputs)
    factor, offset = batch_norm_factors(gamma, beta, mean, variance, float(attributes.get("epsilon", 1e-5)))
    shape = (-1,) + (1,) * (x.ndim - 2)
    return np.asarray(x * factor.reshape(shape) + offset.reshape(shape))
