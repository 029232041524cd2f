"""QuantizeLinear and DequantizeLinear at run time.

Operators between DequantizeLinear and QuantizeLinear are collected symbolically. At QuantizeLinear they become one integer
layer (`requantize.py`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from weakcell.emulator.importer.builder import NetworkBuilder, ValueRange
from weakcell.emulator.importer.fallback import lower_float
from weakcell.emulator.importer.folding import check_scale, check_zero_point, integer_encoding
from weakcell.emulator.importer.requantize import quantize_to
from weakcell.emulator.importer.symbols import (
    INTEGER_RANKS,
    Codes,
    Constant,
    Floats,
    FloatValue,
    Node,
    PendingQuantized,
    Symbol,
    scalar,
)
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import AddCodes, AffineRequantize, AveragePool, Quantize, Requantize
from weakcell.emulator.ir.values import ValueSpec
from weakcell.memmodels.errors import ModelError


def read_quantization(builder: NetworkBuilder, node: Node, index: int = 1) -> tuple[Floats, int, str | None]:
    """Return scale, zero point and type of a QuantizeLinear or DequantizeLinear.

    Args:
        builder: the network under construction.
        node: the operator.
        index: of the input that is the scale; the zero point follows it.

    Returns:
        The scale (a scalar, or one per channel), the zero point, and its type or None.
    """
    scale, zero = builder.constant(node, index), builder.constant(node, index + 1)
    if scale is None:
        raise ModelError(f"Importing {node}", "its scale is missing", "Export the model again")
    check_scale(node, scale.array)
    if zero is not None:
        check_zero_point(node, zero.array, scale.array)
    scales = scale.array.astype(np.float32).reshape(-1)
    return (
        scales if np.any(scales != scales[0]) else scales[0].reshape(()),
        0 if zero is None else int(zero.array.reshape(-1)[0]),
        None if zero is None else str(zero.array.dtype),
    )


# ── DequantizeLinear ────────────────────────────────────────────────────────────────────────────────


def lower_dequantize(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower DequantizeLinear: codes become a pending tensor; no layer is needed."""
    source = builder.symbol(node.input(0))
    if isinstance(source, FloatValue) and source.dtype != "float32" and _is_per_tensor(builder, node, source.shape):
        return lower_float(builder, node)  # integers that no layer of codes could hold
    if not isinstance(source, Codes):
        raise ModelError(f"Importing {node}", "its input is not an integer tensor", "Export the model again")
    if not _is_per_tensor(builder, node, source.shape):
        return lower_float(builder, node)
    return read_quantized_input(builder, node, 0)


def _is_per_tensor(builder: NetworkBuilder, node: Node, shape: tuple[int, ...]) -> bool:
    """Return whether there is one zero point for all, and no blocks.

    Scale and zero point must be constants that fit the shape.
    """
    scale, zero = builder.constant(node, 1), builder.constant(node, 2)
    if scale is not None:
        check_scale(node, scale.array)
        axis = int(node.attributes.get("axis", 1)) % (len(shape) + 1)
        blocked = int(node.attributes.get("block_size", 0)) > 0
        if scale.array.size > 1 and not blocked and (scale.array.ndim > 1 or axis == 0 or scale.array.size != shape[axis - 1]):
            found = f"it has {scale.array.size} scales along axis {axis} of [N, {', '.join(map(str, shape))}]"
            raise ModelError(f"Importing {node}", found, "Use one scale, or one per channel")
    if int(node.attributes.get("block_size", 0)):
        return False
    return zero is None or bool(np.all(zero.array == zero.array.reshape(-1)[:1]))


def read_quantized_input(builder: NetworkBuilder, node: Node, index: int) -> PendingQuantized:
    """Return the codes at an input, with scale and zero point of the next inputs."""
    source = builder.symbol(node.input(index))
    if not isinstance(source, Codes):
        raise ModelError(f"Importing {node}", f"its input {node.input(index)!r} is not an integer tensor", "Export the model again")
    scale, zero, dtype = read_quantization(builder, node, index + 1)
    spec = builder.values[source.value]
    if dtype is not None and array_type(dtype) != spec.dtype:
        found = f"its zero point is {dtype} and its input {spec.dtype}"
        raise ModelError(f"Importing {node}", found, "They must have one type; export the model again")
    if scale.ndim and (source.shape != spec.shape or scale.size != spec.channels or node.attributes.get("axis", 1) != 1):
        raise ModelError(f"Importing {node}", f"it has {scale.size} scales", "Use one scale, or one per channel")
    value = source.value
    if spec.zero_point != zero or not np.array_equal(spec.scale, scale):
        value = reinterpret_codes(builder, node, spec, scale, zero)
    return PendingQuantized(value, source.shape, scale, zero)


def array_type(dtype: str) -> str:
    """Return the type of an array that holds codes of an ONNX type.

    Narrow ones lie in bytes.
    """
    return {"int4": "int8", "uint4": "uint8", "int2": "int8", "uint2": "uint8"}.get(dtype, dtype)


def reinterpret_codes(builder: NetworkBuilder, node: Node, spec: ValueSpec, scale: Floats, zero: int) -> str:
    """Return the same codes with another scale and zero point.

    The codes of a graph input, whose scale was not known, need no layer.
    """
    untouched = spec.name not in builder.makers and not any(spec.name in layer.inputs for layer in builder.layers)
    if untouched:  # a graph input of an integer type
        builder.values[spec.name] = replace(spec, scale=scale, zero_point=zero)
        return spec.name
    value_range, one = builder.ranges[spec.name], scalar(1)
    name = builder.unique_name(f"{node.outputs[0]}.codes")
    layer = Requantize(node.name, (spec.name,), name, one, spec.zero_point, value_range.low, value_range.high)
    return builder.add_layer(layer, replace(spec, name=name, scale=scale, zero_point=zero), value_range)


# ── QuantizeLinear ──────────────────────────────────────────────────────────────────────────────────


def lower_quantize(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower QuantizeLinear by the layer that its input calls for.

    Float32 where no integer layer fits.
    """
    source = builder.symbol(node.input(0))
    assert not isinstance(source, Constant)
    if not _is_per_tensor(builder, node, source.shape) or len(source.shape) not in INTEGER_RANKS:
        return lower_float(builder, node)
    scale, zero, dtype = read_quantization(builder, node)
    if scale.ndim:
        return lower_float(builder, node)
    if dtype is None:
        dtype = _output_type(node)
    encoding = integer_encoding(np.dtype(dtype) if dtype[-2:] in ("t8", "16", "32") else _narrow(dtype))
    if encoding is None or encoding.bits > 16:
        raise ModelError(f"Importing {node}", f"it quantizes to {dtype}", "2- to 16-bit integers are supported")
    target = ValueSpec(builder.unique_name(node.outputs[0]), "codes", (), array_type(dtype), scale, zero)
    value_range = ValueRange(encoding.low, encoding.high)
    return quantize_to(builder, node, source, target, value_range)


def _narrow(dtype: str) -> Any:
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, dtype))


def _output_type(node: Node) -> str:
    to = int(node.attributes.get("output_dtype", 0))
    if not to:
        return "uint8"

    return str(onnx.helper.tensor_dtype_to_np_dtype(to))


# ── Clip of integers ───────────────────────────────────────────────────────────────────────────────


def lower_clip_codes(builder: NetworkBuilder, node: Node, source: Codes, low: Constant | None, high: Constant | None) -> Codes:
    """Lower a Clip of codes, by which Brevitas writes narrow types.

    The layer that made the codes is added again, with tighter limits.
    """
    spec, value_range = builder.values[source.value], builder.ranges[source.value]
    bounds = [
        int(limit if given is None else given.array.reshape(()))
        for given, limit in ((low, value_range.low), (high, value_range.high))
    ]
    low_code, high_code = (min(max(end, bounds[0]), bounds[1]) for end in (value_range.low, value_range.high))
    name = builder.unique_name(node.outputs[0])
    maker = builder.makers.get(source.value)
    if isinstance(maker, Quantize | Requantize | AffineRequantize | AddCodes | AveragePool):
        layer: Layer = replace(maker, name=node.name, output=name, low=low_code, high=high_code)
    else:
        one = scalar(1)
        layer = Requantize(node.name, (source.value,), name, one, spec.zero_point, low_code, high_code)
    value_range = ValueRange(low_code, high_code)
    return Codes(builder.add_layer(layer, replace(spec, name=name), value_range), source.shape)
