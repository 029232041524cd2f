"""A second engine in plain NumPy: every layer record as its docstring defines it.

All values are in ONNX order, (n, *shape): floats as float32, codes as int64, bits as int64 ±1. Sums are int64 over sliding
windows, so nothing overflows, and no code is shared with the kernels. Tests compare the kernels with this engine, and
this engine
with onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from weakcell.emulator import onnx_ops
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import (
    AddCodes,
    AffineRequantize,
    AveragePool,
    Binarize,
    Convolution,
    CountThresholds,
    Dequantize,
    DynamicBias,
    DynamicDequantize,
    DynamicQuantize,
    DynamicScale,
    InsertZeros,
    LookUp,
    MaxPool,
    MulCodes,
    Quantize,
    Requantize,
    Reshape,
    SumPool,
    TernarySign,
    Threshold,
)
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.operators import CodesOperator, FloatOperator, StoredOperand
from weakcell.emulator.ir.values import StoredTensor, Window

Array = np.ndarray
f32 = np.float32


def evaluate(network: Network, inputs: Mapping[str, Array], given: Mapping[str, Array] | None = None) -> dict[str, Array]:
    """Return every value of a fault-free run.

    Args:
        network: the network.
        inputs: by name, in ONNX order.
        given: values that replace those of the layers (the integers of another reference).
    """
    values = {name: as_held(network, name, np.asarray(x)) for name, x in inputs.items()}
    for layer in network.layers:
        made = LAYERS[type(layer)](network, layer, [values[name] for name in layer.inputs])
        spec = network.values[layer.output]
        assert made.shape[1:] == spec.shape, f"{layer.name}: {made.shape} for {spec}"
        values[layer.output] = made
        if given is not None and layer.output in given:
            values[layer.output] = np.asarray(given[layer.output]).astype(np.int64)
    return values


def layer_outputs(network: Network, inputs: Mapping[str, Array], given: Mapping[str, Array]) -> dict[str, Array]:
    """Return what each layer makes when its inputs are the integers in `given`, if they are there."""
    values = {name: as_held(network, name, np.asarray(x)) for name, x in inputs.items()}
    made: dict[str, Array] = {}
    for layer in network.layers:
        made[layer.output] = LAYERS[type(layer)](network, layer, [values[name] for name in layer.inputs])
        values[layer.output] = made[layer.output]
        if layer.output in given:
            values[layer.output] = np.asarray(given[layer.output]).astype(np.int64)
    return made


def as_held(network: Network, name: str, x: Array) -> Array:
    """Return an input as its value stores it.

    Integers where codes are expected, which it must be.
    """
    spec = network.values[name]
    if spec.kind == "float":
        return x
    assert np.array_equal(x, np.rint(x)), f"{name} is not integer-valued"
    return x.astype(np.int64)


def channelwise(constant: Array, x: Array) -> Array:
    """Return a scalar or per-channel constant in a shape that broadcasts over (n, C, …)."""
    constant = np.asarray(constant)
    return constant if constant.ndim == 0 else constant.reshape(1, -1, *[1] * (x.ndim - 2))


def image(x: Array) -> Array:
    """Return (n, K) as (n, K, 1, 1), and a signal (n, C, L) as (n, C, 1, L)."""
    if x.ndim == 3:
        return x[:, :, None]
    return x if x.ndim == 4 else x.reshape(*x.shape, 1, 1)


def windows(x: Array, window: Window, padding: Any) -> Array:
    """Return every window of a padded copy, (n, C, H', W', kh, kw)."""
    top, left, bottom, right = window.pads
    rows, columns = window.output_size(x.shape[2], x.shape[3])
    (kh, kw), (sh, sw), (dh, dw) = window.kernel, window.stride, window.dilation
    below = (rows - 1) * sh + (kh - 1) * dh + 1 - x.shape[2] - top
    beside = (columns - 1) * sw + (kw - 1) * dw + 1 - x.shape[3] - left
    padded = np.pad(x, [(0, 0), (0, 0), (top, max(bottom, below)), (left, max(right, beside))], constant_values=padding)
    result = np.empty((*x.shape[:2], rows, columns, kh, kw), x.dtype)
    for r in range(rows):
        for c in range(columns):
            y, z = r * sh, c * sw
            result[:, :, r, c] = padded[:, :, y : y + (kh - 1) * dh + 1 : dh, z : z + (kw - 1) * dw + 1 : dw]
    return result


def _over_inputs(weight: StoredTensor, parameter: Array) -> Array:
    spread = weight.spread(parameter)
    return spread.reshape(*spread.shape, 1, 1)


def convolution(network: Network, layer: Convolution, inputs: list[Array]) -> Array:
    weight = network.tensors[layer.weight]
    spec, made = network.values[layer.inputs[0]], network.values[layer.output]
    x = image(inputs[0])
    w = weight.values.astype(np.int64) - _over_inputs(weight, weight.zero_point)
    if spec.kind == "float":
        x, w = x.astype(np.float64), w.astype(np.float64)
    else:
        x = x - (spec.zero_point if spec.kind == "codes" else 0)
    if spec.kind == "float" and layer.groups == 1 and x.shape[1:] != (w.shape[1], *x.shape[2:]):
        x = x.reshape(x.shape[0], w.shape[1], *w.shape[2:])
    if weight.block:
        w = w * _over_inputs(weight, weight.scale)
    seen = windows(x, layer.window, 0)
    inner, outer = w.shape[1], w.shape[0] // layer.groups
    parts = [
        np.einsum("nchwij,ocij->nohw", seen[:, g * inner : (g + 1) * inner], w[g * outer : (g + 1) * outer], optimize=True)
        for g in range(layer.groups)
    ]
    total = np.concatenate(parts, 1)
    if spec.kind == "float":
        total = (total.astype(f32) * (f32(1) if weight.block else channelwise(weight.scale, total))).astype(f32)
    elif layer.bias is not None:
        total = total + channelwise(network.tensors[layer.bias].values.astype(np.int64), total)
    if layer.wraps:
        total = total.astype(np.int32).astype(np.int64)
    return total.reshape(len(total), *made.shape)


def _codes_to_float(network: Network, name: str, q: Array) -> Array:
    return (q - network.values[name].zero_point).astype(f32)


def _rounded(x: Array, layer: Any) -> Array:
    limited = np.clip(np.rint(x.astype(f32)) + layer.zero_point, layer.low, layer.high)
    return np.nan_to_num(limited, nan=layer.low).astype(np.int64)


def quantize(network: Network, layer: Quantize, inputs: list[Array]) -> Array:
    x = np.nan_to_num(inputs[0].astype(f32) / f32(layer.scale), nan=-np.inf)
    return _rounded(np.clip(x, -1e9, 1e9), layer)


def dequantize(network: Network, layer: Dequantize, inputs: list[Array]) -> Array:
    x = _codes_to_float(network, layer.inputs[0], inputs[0])
    y = x * channelwise(layer.scale, x)
    return (y if layer.bias is None else y + channelwise(layer.bias, x)).astype(f32)


def requantize(network: Network, layer: Requantize, inputs: list[Array]) -> Array:
    x = _codes_to_float(network, layer.inputs[0], inputs[0])
    return _rounded(x * channelwise(layer.multiplier, x), layer)


def affine_requantize(network: Network, layer: AffineRequantize, inputs: list[Array]) -> Array:
    x = _codes_to_float(network, layer.inputs[0], inputs[0])
    y = x * channelwise(layer.scale, x)
    if layer.bias is not None:
        y = y + channelwise(layer.bias, x)
    for step in layer.steps:
        y = type(step)(step.op, channelwise(step.constant, x))(y)
    return _rounded(y / f32(layer.out_scale), layer)


def _cut(network: Network, name: str, x: Array) -> Array:
    tensor: StoredTensor = network.tensors[name]
    return channelwise(tensor.values.astype(np.int64), x)


def threshold(network: Network, layer: Threshold, inputs: list[Array]) -> Array:
    x = inputs[0]
    up = (x >= _cut(network, layer.threshold, x)) != channelwise(layer.inverted, x)
    return np.where(up, 1, -1)


def ternary_sign(network: Network, layer: TernarySign, inputs: list[Array]) -> Array:
    x = inputs[0]
    t = (x >= _cut(network, layer.upper, x)).astype(np.int64) - (x <= _cut(network, layer.lower, x))
    return np.where(channelwise(layer.inverted, x), -t, t)


def binarize(network: Network, layer: Binarize, inputs: list[Array]) -> Array:
    x = inputs[0]
    if layer.ternary:
        return np.nan_to_num(np.sign(x)).astype(np.int64)
    pivot = channelwise(layer.pivot, x)
    up = (x > pivot if layer.strict else x >= pivot) != layer.inverted
    return np.where(up, 1, -1)


def add_codes(network: Network, layer: AddCodes, inputs: list[Array]) -> Array:
    if layer.fused:
        (ra, za), (rb, zb) = (
            (f32(v.scale / f32(layer.out_scale)), v.zero_point) for v in map(network.values.get, layer.inputs) if v
        )
        wide = [q.astype(np.float64) for q in inputs]
        fixed = f32(layer.zero_point) - f32(float(ra) * za + float(f32(rb * f32(zb))))
        total = f32(wide[0] * float(ra) + f32(wide[1] * float(rb) + float(fixed)))
        return np.clip(np.rint(total), layer.low, layer.high).astype(np.int64)
    a, b = (_codes_to_float(network, n, q) * network.values[n].scale for n, q in zip(layer.inputs, inputs, strict=True))
    return _rounded((a + b) / f32(layer.out_scale), layer)


def max_pool(network: Network, layer: MaxPool, inputs: list[Array]) -> Array:
    pooled = windows(image(inputs[0]), layer.window, np.iinfo(np.int64).min).max((4, 5))
    return pooled.reshape(len(pooled), *network.values[layer.output].shape)


def average_pool(network: Network, layer: AveragePool, inputs: list[Array]) -> Array:
    spec = network.values[layer.inputs[0]]
    centred = inputs[0] - spec.zero_point
    total = windows(centred, layer.window, 0).sum((4, 5))
    inside = np.ones_like(centred[:1, :1])
    kernel = layer.window.kernel
    count = kernel[0] * kernel[1] if layer.count_include_pad else windows(inside, layer.window, 0).sum((4, 5))
    mean = total.astype(f32) * spec.scale / np.asarray(count, f32)
    return _rounded(mean / f32(layer.out_scale), layer)


def reshape(network: Network, layer: Reshape, inputs: list[Array]) -> Array:
    spec = network.values[layer.output]
    x = inputs[0].reshape(len(inputs[0]), *spec.shape)
    return x.astype(spec.dtype) if spec.kind == "float" and network.values[layer.inputs[0]].kind != "float" else x


def count_thresholds(network: Network, layer: CountThresholds, inputs: list[Array]) -> Array:
    x, cuts = inputs[0], network.tensors[layer.threshold].values.astype(np.int64)
    each = [(x >= channelwise(column, x)) != channelwise(layer.falling, x) for column in cuts.T]
    return np.sum(each, axis=0, dtype=np.int64)


def mul_codes(network: Network, layer: MulCodes, inputs: list[Array]) -> Array:
    a, b = (q - network.values[name].zero_point for name, q in zip(layer.inputs, inputs, strict=True))
    y = (a * b).astype(f32) * f32(layer.multiplier) + f32(layer.zero_point)
    return np.clip(np.rint(y), layer.low, layer.high).astype(np.int64)


def sum_pool(network: Network, layer: SumPool, inputs: list[Array]) -> Array:
    return windows(inputs[0] - network.values[layer.inputs[0]].zero_point, layer.window, 0).sum((4, 5))


def look_up(network: Network, layer: LookUp, inputs: list[Array]) -> Array:
    return np.asarray(layer.table)[inputs[0] - layer.first].astype(np.int64)


def _dynamic(x: Array) -> list[tuple[np.float32, int]]:
    """Return scale and zero point of each image by ONNX's own reference."""
    known = []
    for one in x.astype(f32):
        _, scale, zero = onnx_ops.apply_all("DynamicQuantizeLinear", 11, {}, [one], 3)
        known.append((f32(scale), int(zero)))
    return known


def dynamic_quantize(network: Network, layer: DynamicQuantize, inputs: list[Array]) -> Array:
    parts = zip(inputs[0].astype(f32), _dynamic(inputs[0]), strict=True)
    codes = np.stack([np.clip(np.rint(x / s) + z, 0, 255).astype(np.int64) - z for x, (s, z) in parts])
    if not layer.rows:
        return codes
    return np.moveaxis(codes, -1, 1).reshape(len(codes), *network.values[layer.output].shape)


def dynamic_scale(network: Network, layer: DynamicScale, inputs: list[Array]) -> Array:
    return np.array([s for s, _ in _dynamic(inputs[0])], f32)


def dynamic_bias(network: Network, layer: DynamicBias, inputs: list[Array]) -> Array:
    acc, scale = inputs[0], inputs[1].astype(f32).reshape(-1, *[1] * (inputs[0].ndim - 1))
    quotient = channelwise(layer.bias, acc) / (scale * channelwise(layer.scale, acc))
    rounded = quotient if layer.rounding is None else onnx_ops.apply(layer.rounding, 13, {}, [quotient])
    return (acc + rounded.astype(np.int32)).astype(np.int32).astype(np.int64)


def dynamic_dequantize(network: Network, layer: DynamicDequantize, inputs: list[Array]) -> Array:
    acc, scale = inputs[0].astype(f32), inputs[1].reshape(-1, *[1] * (inputs[0].ndim - 1))
    real = acc * (scale * channelwise(layer.scale, acc))
    return np.moveaxis(real, 1, -1).reshape(len(real), *network.values[layer.output].shape) if layer.rows else real


def codes_operator(network: Network, layer: CodesOperator, inputs: list[Array]) -> Array:
    typed = [x.astype(network.values[name].dtype) for x, name in zip(inputs, layer.inputs, strict=True)]
    return float_operator(network, layer, typed).astype(np.int64)


def stored_operand(network: Network, operand: StoredOperand) -> Array:
    """Return a constant operand, computed from its stored integers step by step."""
    flat = network.tensors[operand.tensor].values.reshape(-1)
    x = (flat if operand.order is None else flat[operand.order]).reshape(operand.shape).astype(operand.dtype)
    for index, step in enumerate(operand.steps):
        given = [x if part is None else part for part in step.operands]
        for at, position, other in operand.nested:
            if at == index:
                given[position] = stored_operand(network, other)
        x = onnx_ops.apply_all(step.op_type, step.opset, step.attributes, given, step.output_count)[step.output_index]
    return x


def float_operator(network: Network, layer: FloatOperator | CodesOperator, inputs: list[Array]) -> Array:
    if isinstance(layer, FloatOperator) and layer.each_image:
        alone = replace(layer, each_image=False)
        return np.stack([float_operator(network, alone, [np.asarray(x) for x in image]) for image in zip(*inputs, strict=True)])
    rest = iter(inputs)
    operands = [
        next(rest) if x is None else stored_operand(network, x) if isinstance(x, StoredOperand) else x for x in layer.operands
    ]
    return onnx_ops.apply_all(layer.op_type, layer.opset, layer.attributes, operands, layer.output_index + 1)[layer.output_index]


def insert_zeros(network: Network, layer: InsertZeros, inputs: list[Array]) -> Array:
    """numpy.kron with a 1 at the first of `stride` places, on the integers less their zero point."""
    spec = network.values[layer.inputs[0]]
    x = image(inputs[0]) - spec.zero_point
    first = np.zeros(layer.stride, np.int64)
    first[0, 0] = 1
    rows, columns = network.values[layer.output].height_width
    return (np.kron(x, first)[:, :, :rows, :columns] + spec.zero_point).reshape(len(x), *network.values[layer.output].shape)


LAYERS: dict[type[Layer], Callable[[Network, Any, list[Array]], Array]] = {
    AddCodes: add_codes,
    AffineRequantize: affine_requantize,
    AveragePool: average_pool,
    Binarize: binarize,
    CodesOperator: codes_operator,
    Convolution: convolution,
    CountThresholds: count_thresholds,
    Dequantize: dequantize,
    DynamicBias: dynamic_bias,
    DynamicDequantize: dynamic_dequantize,
    DynamicQuantize: dynamic_quantize,
    DynamicScale: dynamic_scale,
    FloatOperator: float_operator,
    InsertZeros: insert_zeros,
    LookUp: look_up,
    MaxPool: max_pool,
    MulCodes: mul_codes,
    Quantize: quantize,
    Requantize: requantize,
    Reshape: reshape,
    SumPool: sum_pool,
    TernarySign: ternary_sign,
    Threshold: threshold,
}
