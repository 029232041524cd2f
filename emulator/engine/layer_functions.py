"""What each layer record computes, on whole chunks of images: one function per record, looked up by its type.

A function takes the layer, its input arrays and the run's parameters. It returns the output in the physical form that
`ir/layers.py` describes. For the formula of a layer see its record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.conv_inputs import unpack_values, window_geometry
from weakcell.emulator.engine.convolution import convolve
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import (
    STEP_OPERATORS,
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
    Step,
    SumPool,
    TernarySign,
    Threshold,
)
from weakcell.emulator.ir.operators import CodesOperator, FloatOperator, StoredOperand
from weakcell.emulator.ir.values import ValueSpec, pack_channels
from weakcell.emulator.kernels import entry_points
from weakcell.emulator.kernels.arguments import CodeRange, FloatSteps
from weakcell.emulator.plan.parameters import ParameterState
from weakcell.memmodels.errors import ModelError

Array = npt.NDArray[Any]


def compute(layer: Layer, inputs: list[Array], parameters: ParameterState) -> Array:
    """Return the layer's output for a chunk of images.

    Args:
        layer: the layer.
        inputs: its inputs in physical form, in the order of `layer.inputs`.
        parameters: the current parameters.
    """
    if not parameters.stored_constants:
        return FUNCTIONS[type(layer)](layer, inputs, parameters)
    layer, parameters = parameters.with_faulty_constants(layer)
    with np.errstate(all="ignore"):
        return FUNCTIONS[type(layer)](layer, inputs, parameters)


def empty_output(spec: ValueSpec, images: int) -> Array:
    """Return a zeroed array in the physical form of a value."""
    if spec.kind == "float":
        return np.zeros((images, *spec.shape), dtype=np.float32)
    height, width = spec.height_width
    if spec.kind == "bits":
        return np.zeros((images, height, width, -(-spec.channels // 64)), dtype=np.uint64)
    return np.zeros((images, height, width, spec.channels), dtype=spec.dtype)


def to_onnx_order(x: Array, spec: ValueSpec) -> Array:
    """Return channels-last codes (n, H, W, C) in ONNX order (n, *shape)."""
    return x.transpose(0, 3, 1, 2).reshape(len(x), *spec.shape)


def to_channels_last(x: Array, spec: ValueSpec) -> Array:
    """Return values in ONNX order (n, *shape) as channels-last (n, H, W, C)."""
    height, width = spec.height_width
    return np.ascontiguousarray(x.reshape(len(x), spec.channels, height, width).transpose(0, 2, 3, 1))


def _convolution(layer: Convolution, inputs: list[Array], parameters: ParameterState) -> Array:
    x = inputs[0]
    if parameters.specs[layer.inputs[0]].kind == "float":
        return _float_convolution(layer, x, parameters)
    out = empty_output(parameters.specs[layer.output], len(x))
    convolve(layer, x, parameters, out)
    return out


def _float_convolution(layer: Convolution, x: Array, parameters: ParameterState) -> Array:
    """Return the convolution of float activations: patches times a float32 matrix, in ONNX order."""
    tensor, spec, window = parameters.tensors[layer.weight], parameters.specs[layer.inputs[0]], layer.window
    (kh, kw), (dh, dw), (top, left, bottom, right) = window.kernel, window.dilation, window.pads
    outputs, channels = tensor.shape[:2]
    height, width = spec.height_width
    padded = np.pad(x.reshape(len(x), spec.channels, height, width), ((0, 0), (0, 0), (top, bottom), (left, right)))
    views = np.lib.stride_tricks.sliding_window_view(padded, (dh * (kh - 1) + 1, dw * (kw - 1) + 1), axis=(2, 3))
    views = views[:, :, :: window.stride[0], :: window.stride[1], ::dh, ::dw]
    patches = views.transpose(0, 2, 3, 4, 5, 1)
    real = parameters.values[layer.weight].astype(np.float32) - tensor.spread(tensor.zero_point).astype(np.float32)
    real = real * tensor.spread(tensor.scale)
    per_group, groups = outputs // layer.groups, []
    for group in range(layer.groups):
        group_patches = patches[..., group * channels : (group + 1) * channels].reshape(*patches.shape[:3], kh * kw * channels)
        groups.append(group_patches @ real[group * per_group : (group + 1) * per_group].T)
    out = np.concatenate(groups, axis=-1).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(out).reshape(len(x), *parameters.specs[layer.output].shape)


def _quantize(layer: Quantize, inputs: list[Array], parameters: ParameterState) -> Array:
    spec, x = parameters.specs[layer.output], np.ascontiguousarray(inputs[0])
    codes = np.empty(x.shape, dtype=spec.dtype)
    codes_range = CodeRange(layer.zero_point, layer.low, layer.high)
    entry_points.quantize(x.reshape(-1), _floats(layer.scale), codes_range, codes.reshape(-1))
    return to_channels_last(codes, spec)


def _round(x: Array, zero_point: int, low: int, high: int, dtype: str) -> Array:
    """Return clamp(rint(x) + zero_point, low, high), half to even; NaN becomes `low`, as in onnxruntime."""
    limited = np.clip(np.rint(x), np.float32(low - zero_point), np.float32(high - zero_point))
    codes: Array = np.nan_to_num(limited, nan=low - zero_point).astype(np.int64) + zero_point
    return codes.astype(dtype)


def _to_float(x: Array, spec: ValueSpec) -> Array:
    """Return float32(q - zero_point), channels last."""
    wide = unpack_values(x, spec).astype(np.int64) - (spec.zero_point if spec.kind == "codes" else 0)
    real: Array = wide.astype(np.float32)
    return real


def _dequantize(layer: Dequantize, inputs: list[Array], parameters: ParameterState) -> Array:
    y = _to_float(inputs[0], parameters.specs[layer.inputs[0]]) * layer.scale
    if layer.bias is not None:
        y = y + layer.bias
    return to_onnx_order(y, parameters.specs[layer.output])


def _requantize(layer: Requantize, inputs: list[Array], parameters: ParameterState) -> Array:
    return _scale_and_round(layer, inputs[0], parameters, layer.multiplier)


def _affine_requantize(layer: AffineRequantize, inputs: list[Array], parameters: ParameterState) -> Array:
    bias = () if layer.bias is None else (Step("add", layer.bias),)
    return _scale_and_round(layer, inputs[0], parameters, layer.scale, (*bias, *layer.steps), layer.out_scale)


def _scale_and_round(
    layer: Requantize | AffineRequantize,
    x: Array,
    parameters: ParameterState,
    scale: Array,
    steps: tuple[Step, ...] = (),
    out_scale: float = 1.0,
) -> Array:
    """Return integers times a scale, after further steps, rounded to codes."""
    spec = parameters.specs[layer.inputs[0]]
    codes = np.ascontiguousarray(unpack_values(x, spec))
    out, channels = np.empty(codes.shape, dtype=parameters.specs[layer.output].dtype), codes.shape[-1]
    constants = np.empty((len(steps), channels), dtype=np.float32)
    opcodes = np.array([step.opcode for step in steps], dtype=np.int64)
    for row, step in zip(constants, steps, strict=True):
        row[:] = step.constant
    entry_points.requantize(
        codes.reshape(-1, channels), spec.zero_point if spec.kind == "codes" else 0,
        np.array(np.broadcast_to(scale, channels), dtype=np.float32),
        FloatSteps(opcodes, constants, _floats(out_scale)), CodeRange(layer.zero_point, layer.low, layer.high),
        out.reshape(-1, channels),
    )  # fmt: skip
    return out


def _threshold(layer: Threshold, inputs: list[Array], parameters: ParameterState) -> Array:
    out = empty_output(parameters.specs[layer.output], len(inputs[0]))
    acc = np.ascontiguousarray(unpack_values(inputs[0], parameters.specs[layer.inputs[0]]), dtype=np.int32)
    entry_points.threshold_pack(acc, parameters.values[layer.threshold], layer.inverted, out)
    return out


def _ternary_sign(layer: TernarySign, inputs: list[Array], parameters: ParameterState) -> Array:
    upper, lower = parameters.values[layer.upper], parameters.values[layer.lower]
    x = unpack_values(inputs[0], parameters.specs[layer.inputs[0]])
    sign = (x >= upper).astype(np.int8) - (x <= lower).astype(np.int8)
    return np.where(layer.inverted, -sign, sign).astype(np.int8)


def _add_codes(layer: AddCodes, inputs: list[Array], parameters: ParameterState) -> Array:
    (a, b), zero_points, out = _broadcast_pair(layer, inputs, parameters)
    specs, flat = [parameters.specs[name] for name in layer.inputs], out.reshape(-1)
    if layer.fused:
        ra, rb = (np.float32(spec.scale / np.float32(layer.out_scale)) for spec in specs)
        shift = np.float32(np.float64(ra) * specs[0].zero_point + np.float64(np.float32(rb * np.float32(specs[1].zero_point))))
        entry_points.add_fused(a, b, _floats(ra, rb, np.float32(layer.zero_point) - shift), (layer.low, layer.high), flat)
        return out
    scales = _floats(*(spec.scale for spec in specs), layer.out_scale)
    entry_points.add(a, b, zero_points, scales, CodeRange(layer.zero_point, layer.low, layer.high), flat)
    return out


def _floats(*values: Any) -> Array:
    return np.array(values, dtype=np.float32)


def _broadcast_pair(layer: Layer, inputs: list[Array], parameters: ParameterState) -> tuple[list[Array], tuple[int, int], Array]:
    """Return two inputs broadcast to one shape, as flat integers; their zero points; an empty array for the output codes."""
    a, b = (parameters.specs[name] for name in layer.inputs)
    values = [np.ascontiguousarray(x) for x in np.broadcast_arrays(unpack_values(inputs[0], a), unpack_values(inputs[1], b))]
    zero_points = (a.zero_point if a.kind == "codes" else 0, b.zero_point if b.kind == "codes" else 0)
    return [x.reshape(-1) for x in values], zero_points, np.empty(values[0].shape, dtype=parameters.specs[layer.output].dtype)


def _max_pool(layer: MaxPool, inputs: list[Array], parameters: ParameterState) -> Array:
    spec = parameters.specs[layer.output]
    out = empty_output(spec, len(inputs[0]))
    kernel = entry_points.or_pool if spec.kind == "bits" else entry_points.max_pool
    kernel(inputs[0], window_geometry(layer.window), out)
    return out


def _average_pool(layer: AveragePool, inputs: list[Array], parameters: ParameterState) -> Array:
    spec, out_spec = parameters.specs[layer.inputs[0]], parameters.specs[layer.output]
    height, width = out_spec.height_width
    sums = np.zeros((len(inputs[0]), height, width, spec.channels), dtype=np.int32)
    counts = np.zeros((height, width), dtype=np.int64)
    entry_points.sum_pool(inputs[0], spec.zero_point, window_geometry(layer.window), layer.count_include_pad, sums, counts)
    if counts.min() == counts.max():
        out, count = np.empty(sums.shape, dtype=out_spec.dtype), np.full((1, spec.channels), counts[0, 0], dtype=np.float32)
        entry_points.requantize(
            sums.reshape(-1, spec.channels), 0, np.full(spec.channels, spec.scale, dtype=np.float32),
            FloatSteps(np.array([list(STEP_OPERATORS).index("div")]), count, _floats(layer.out_scale)),
            CodeRange(layer.zero_point, layer.low, layer.high), out.reshape(-1, spec.channels),
        )  # fmt: skip
        return out
    mean = sums.astype(np.float32) * spec.scale / counts[:, :, None].astype(np.float32)
    return _round(mean / np.float32(layer.out_scale), layer.zero_point, layer.low, layer.high, out_spec.dtype)


def _reshape(layer: Reshape, inputs: list[Array], parameters: ParameterState) -> Array:
    spec, out_spec = parameters.specs[layer.inputs[0]], parameters.specs[layer.output]
    if spec.kind == "float":
        return inputs[0].reshape(len(inputs[0]), *out_spec.shape)
    plain = to_onnx_order(unpack_values(inputs[0], spec), spec).reshape(len(inputs[0]), *out_spec.shape)
    if out_spec.kind == "float":
        return plain.astype(out_spec.dtype)
    last = to_channels_last(plain, out_spec)
    return pack_channels(last > 0) if out_spec.kind == "bits" else last


def _binarize(layer: Binarize, inputs: list[Array], parameters: ParameterState) -> Array:
    spec, x = parameters.specs[layer.output], inputs[0]
    if layer.ternary:
        return to_channels_last(np.nan_to_num(np.sign(x)).astype(np.int8), spec)
    pivot = layer.pivot.reshape((-1,) + (1,) * (x.ndim - 2)) if layer.pivot.ndim else layer.pivot
    above = (x > pivot) if layer.strict else (x >= pivot)
    return pack_channels(to_channels_last(above != layer.inverted, spec))


def _count_thresholds(layer: CountThresholds, inputs: list[Array], parameters: ParameterState) -> Array:
    out = empty_output(parameters.specs[layer.output], len(inputs[0]))
    x, thresholds = inputs[0], parameters.values[layer.threshold].reshape(parameters.tensors[layer.threshold].shape)
    for column in thresholds.T:
        out += ((x >= column) != layer.falling).astype(out.dtype)
    return out


def _mul_codes(layer: MulCodes, inputs: list[Array], parameters: ParameterState) -> Array:
    (a, b), zero_points, out = _broadcast_pair(layer, inputs, parameters)
    factors = _floats(layer.multiplier, layer.zero_point)
    entry_points.multiply(a, b, zero_points, factors, (layer.low, layer.high), out.reshape(-1))
    return out


def _sum_pool(layer: SumPool, inputs: list[Array], parameters: ParameterState) -> Array:
    out = empty_output(parameters.specs[layer.output], len(inputs[0]))
    counts = np.zeros(out.shape[1:3], dtype=np.int64)
    zero = parameters.specs[layer.inputs[0]].zero_point
    entry_points.sum_pool(inputs[0], zero, window_geometry(layer.window), False, out, counts)
    return out


def _insert_zeros(layer: InsertZeros, inputs: list[Array], parameters: ParameterState) -> Array:
    x, (rows, columns) = inputs[0], layer.stride
    out = empty_output(parameters.specs[layer.output], len(x))
    out[...] = parameters.specs[layer.inputs[0]].zero_point
    out[:, ::rows, ::columns] = x
    return out


def _look_up(layer: LookUp, inputs: list[Array], parameters: ParameterState) -> Array:
    x = np.ascontiguousarray(inputs[0])
    out = np.empty(x.shape, dtype=parameters.specs[layer.output].dtype)
    entry_points.look_up(x.reshape(-1), layer.first, layer.table, out.reshape(-1))
    return out


def dynamic_parameters(layer: Layer, x: Array, parameters: ParameterState) -> tuple[Array, Array]:
    """Return scale and zero point of DynamicQuantizeLinear for each image, float32 (n,).

    The range is that of the image, unless `parameters.ranges` gives one for all images.
    """
    low, high = parameters.ranges.get(layer.inputs[0], (None, None))
    if low is None or high is None:
        axes = tuple(range(1, x.ndim))
        low, high = x.min(axes, initial=0), x.max(axes, initial=0)
    low = np.minimum(np.broadcast_to(low, len(x)), np.float32(0))
    high = np.maximum(np.broadcast_to(high, len(x)), np.float32(0))
    scale = (high - low) / np.float32(255)
    scale = np.where(scale > 0, scale, np.float32(1)).astype(np.float32)
    return scale, np.clip(np.rint(-low / scale), 0, 255).astype(np.float32)


def _dynamic_quantize(layer: DynamicQuantize, inputs: list[Array], parameters: ParameterState) -> Array:
    spec, x = parameters.specs[layer.output], inputs[0]
    scale, zero = (p.reshape(-1, *[1] * (x.ndim - 1)) for p in dynamic_parameters(layer, x, parameters))
    q = np.nan_to_num(np.clip(np.rint(x / scale) + zero, 0, 255) - zero).astype(spec.dtype)
    return np.ascontiguousarray(q).reshape(len(x), *spec.height_width, spec.channels) if layer.rows else to_channels_last(q, spec)


def _dynamic_scale(layer: DynamicScale, inputs: list[Array], parameters: ParameterState) -> Array:
    return dynamic_parameters(layer, inputs[0], parameters)[0]


_ROUNDINGS: Mapping[str | None, Callable[[Array], Array]] = {"Floor": np.floor, "Ceil": np.ceil, "Round": np.rint, None: np.trunc}


def _dynamic_bias(layer: DynamicBias, inputs: list[Array], parameters: ParameterState) -> Array:
    with np.errstate(all="ignore"):
        quotient = layer.bias / (inputs[1].reshape(-1, 1, 1, 1) * layer.scale)
        bias = _ROUNDINGS[layer.rounding](quotient).astype(np.int32)
    total: Array = inputs[0] + bias
    return total


def _dynamic_dequantize(layer: DynamicDequantize, inputs: list[Array], parameters: ParameterState) -> Array:
    factor = inputs[1].reshape(-1, 1, 1, 1) * layer.scale
    real: Array = inputs[0].astype(np.float32) * factor
    spec = parameters.specs[layer.output]
    return real.reshape(len(real), *spec.shape) if layer.rows else to_onnx_order(real, spec)


def _with_specs(layer: Layer, inputs: list[Array], parameters: ParameterState) -> list[tuple[Array, ValueSpec]]:
    return [(x, parameters.specs[name]) for x, name in zip(inputs, layer.inputs, strict=True)]


def _float_operator(layer: FloatOperator, inputs: list[Array], parameters: ParameterState) -> Array:
    spec = parameters.specs[layer.output]
    if not layer.stored:
        return _run_float_operator(layer, layer.operands, inputs, spec)
    operands = [
        parameters.cached(layer, ("operand", index), partial(operand_values, x, parameters)) if isinstance(x, StoredOperand) else x
        for index, x in enumerate(layer.operands)
    ]
    return _run_float_operator(layer, operands, inputs, spec)


def _run_float_operator(layer: FloatOperator, operands: Sequence[Any], inputs: list[Array], spec: ValueSpec) -> Array:
    if layer.each_image:
        images = [_run_operator(layer, operands, [np.asarray(x) for x in image]) for image in zip(*inputs, strict=True)]
        return np.stack(images) if images else np.zeros((0, *spec.shape), spec.dtype)
    if layer.op_type == "Concat":
        count = len(inputs[0])
        operands = [x if x is None or not x.ndim else np.broadcast_to(x, (count, *x.shape[1:])) for x in operands]
    return _run_operator(layer, operands, inputs)


def operand_shape(operand: StoredOperand) -> tuple[int, ...]:
    """Return the shape of the operand that a StoredOperand makes."""
    return _operand_of_zeros(operand).shape


def _operand_of_zeros(operand: StoredOperand) -> Array:
    with np.errstate(all="ignore"):
        return _apply_operand_steps(operand, np.zeros(operand.shape, operand.dtype), _operand_of_zeros)


def operand_values(operand: StoredOperand, parameters: ParameterState) -> Array:
    """Return a constant operand, computed from its current integers by the operators that the graph has in between."""
    stored = parameters.stored_integers(operand.tensor)
    if operand.order is not None:
        stored = stored[operand.order]
    integers = stored.reshape(operand.shape).astype(operand.dtype)
    return _apply_operand_steps(operand, integers, partial(operand_values, parameters=parameters))


def _apply_operand_steps(operand: StoredOperand, x: Array, evaluate: Callable[[StoredOperand], Array]) -> Array:
    """Return what the steps make of `x`. `evaluate` gives further operands that are stored."""
    from weakcell.emulator import onnx_ops

    for index, step in enumerate(operand.steps):
        others = {position: other for at, position, other in operand.nested if at == index}
        given = [
            x if part is None else evaluate(others[position]) if position in others else part
            for position, part in enumerate(step.operands)
        ]
        x = onnx_ops.apply_all(step.op_type, step.opset, step.attributes, given, step.output_count)[step.output_index]
    return x


def _codes_operator(layer: CodesOperator, inputs: list[Array], parameters: ParameterState) -> Array:
    plain = [to_onnx_order(x, spec) for x, spec in _with_specs(layer, inputs, parameters)]
    return to_channels_last(_run_operator(layer, layer.operands, plain), parameters.specs[layer.output])


def _run_operator(layer: FloatOperator | CodesOperator, given: Sequence[Any], inputs: list[Array]) -> Array:
    from weakcell.emulator import onnx_ops

    remaining = iter(inputs)
    operands = [next(remaining) if operand is None else operand for operand in given]
    try:
        outputs = onnx_ops.apply_all(layer.op_type, layer.opset, layer.attributes, operands, layer.output_index + 1)
        return outputs[layer.output_index]
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as e:
        asked = f"Running {layer.name} ({layer.op_type}, opset {layer.opset})"
        raise ModelError(asked, f"its inputs do not fit ({e})", "Check the model with onnx.checker") from e


FUNCTIONS: Mapping[type[Layer], Callable[[Any, list[Array], ParameterState], Array]] = {
    Convolution: _convolution,
    Quantize: _quantize,
    Dequantize: _dequantize,
    Requantize: _requantize,
    AffineRequantize: _affine_requantize,
    Threshold: _threshold,
    TernarySign: _ternary_sign,
    AddCodes: _add_codes,
    MaxPool: _max_pool,
    AveragePool: _average_pool,
    Reshape: _reshape,
    Binarize: _binarize,
    FloatOperator: _float_operator,
    CodesOperator: _codes_operator,
    CountThresholds: _count_thresholds,
    MulCodes: _mul_codes,
    SumPool: _sum_pool,
    InsertZeros: _insert_zeros,
    LookUp: _look_up,
    DynamicQuantize: _dynamic_quantize,
    DynamicScale: _dynamic_scale,
    DynamicBias: _dynamic_bias,
    DynamicDequantize: _dynamic_dequantize,
}
