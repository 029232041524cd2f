"""Normalizations, by the formulas of https://onnx.ai/onnx/operators/.

Means and variances are summed in float64 and rounded to float32 once. onnxruntime sums them in float32, so the last bits of
a result can differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weakcell.emulator.onnx_ops.registry import Array, Attributes, Inputs, claim, given, ints, optional, register, register_several


def standardized(x: Array, axes: Sequence[int], epsilon: float) -> tuple[Array, Array, Array]:
    """Return (x - mean) / sqrt(variance + epsilon), the mean, and the factor 1 / sqrt(variance + epsilon)."""
    along = tuple(axes)
    mean = x.mean(along, keepdims=True, dtype=np.float64)
    centred = x - mean
    factor = 1 / np.sqrt(np.square(centred).mean(along, keepdims=True) + epsilon)
    return np.asarray(centred * factor, x.dtype), mean, factor


def rms_factor(x: Array, axes: Sequence[int], epsilon: float) -> Array:
    """Return 1 / sqrt(mean(x * x) + epsilon), float64."""
    squares = np.square(x, dtype=np.float64)
    return np.asarray(1 / np.sqrt(squares.mean(tuple(axes), keepdims=True) + epsilon))


def _last_axes(x: Array, attributes: Attributes) -> range:
    """Return the axes from `axis` to the last."""
    return range(int(attributes.get("axis", -1)) % max(x.ndim, 1), x.ndim)


def _per_channel(parameter: Array, x: Array) -> Array:
    return parameter.reshape(-1, *[1] * (x.ndim - 2))


@register_several("LayerNormalization")
def _layer(inputs: Inputs, attributes: Attributes, opset: int, outputs: int) -> tuple[Array, ...]:
    x, scale, bias = given(inputs[0]), given(inputs[1]), optional(inputs, 2)
    y, mean, factor = standardized(x, _last_axes(x, attributes), float(attributes.get("epsilon", 1e-5)))
    y = y * scale
    return np.asarray(y if bias is None else y + bias, x.dtype), mean.astype(np.float32), factor.astype(np.float32)


@register_several("RMSNormalization")
def _rms(inputs: Inputs, attributes: Attributes, opset: int, outputs: int) -> tuple[Array, ...]:
    """RMSNormalization; onnxruntime's SimplifiedLayerNormalization has the factor as second output."""
    x, scale = given(inputs[0]), given(inputs[1])
    factor = rms_factor(x, _last_axes(x, attributes), float(attributes.get("epsilon", 1e-5)))
    return np.asarray((x * factor).astype(x.dtype) * scale, x.dtype), factor.astype(np.float32)


@register("InstanceNormalization")
def _instance(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x, scale, bias = (given(v) for v in inputs)
    y = standardized(x, range(2, x.ndim), float(attributes.get("epsilon", 1e-5)))[0]
    return np.asarray(y * _per_channel(scale, x) + _per_channel(bias, x), x.dtype)


@register("GroupNormalization")
def _group(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """GroupNormalization: until opset 20, scale and bias are one for each group."""
    x, scale, bias = (given(v) for v in inputs)
    groups = int(attributes["num_groups"])
    grouped = x.reshape(x.shape[0], groups, -1)
    y = standardized(grouped, (2,), float(attributes.get("epsilon", 1e-5)))[0]
    if scale.size == groups:
        return np.asarray(y * scale.reshape(-1, 1) + bias.reshape(-1, 1), x.dtype).reshape(x.shape)
    return np.asarray(y.reshape(x.shape) * _per_channel(scale, x) + _per_channel(bias, x), x.dtype)


@register("MeanVarianceNormalization")
def _mean_variance(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x, axes = given(inputs[0]), ints(attributes.get("axes", [0, 2, 3]))
    along = tuple(axes)
    mean = x.mean(along, keepdims=True, dtype=np.float64)
    deviation = np.sqrt(np.square(x - mean).mean(along, keepdims=True))
    return np.asarray((x - mean) / (deviation + 1e-9), x.dtype)


@register("LpNormalization")
def _lp(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """LpNormalization: 0 where the norm is 0."""
    x, axis, p = given(inputs[0]), int(attributes.get("axis", -1)), int(attributes.get("p", 2))
    norm = np.linalg.norm(x, p, axis, keepdims=True)
    return np.asarray(np.where(norm == 0, 0, x / np.where(norm == 0, 1, norm)), x.dtype)


@register("LRN")
def _local_response(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """LRN: a sum of squares over neighbouring channels."""
    x, size = given(inputs[0]), int(attributes["size"])
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    claim((x.shape[0], x.shape[1] + size, *x.shape[2:]), x)
    squares = np.pad(np.square(x), [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)])
    total = sum((squares[:, i : i + x.shape[1]] for i in range(size)), np.zeros_like(x))
    alpha, beta, bias = (x.dtype.type(attributes.get(k, v)) for k, v in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    return np.asarray(x / (bias + alpha / x.dtype.type(size) * total) ** beta, x.dtype)
