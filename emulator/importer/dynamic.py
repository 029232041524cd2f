"""DynamicQuantizeLinear, MatMulInteger and ConvInteger.

Quantization at run time, and sums written as integers.

DynamicQuantizeLinear takes its scale from the whole tensor, all images included. The layers here quantize each image on its
own, which is what onnxruntime computes for a batch of one: the result of an image must not depend on the images beside it.
A run that wants the file's meaning for its batch (`weakcell infer`) gives the range of the whole batch to the layers
(`ParameterState.ranges`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer import qdq
from weakcell.emulator.importer.binary import per_channel
from weakcell.emulator.importer.builder import NetworkBuilder, ValueRange
from weakcell.emulator.importer.constant_recipe import is_stored
from weakcell.emulator.importer.fallback import lower_float
from weakcell.emulator.importer.folding import integer_encoding
from weakcell.emulator.importer.linear import LIMIT, add_integer_sum, stored_weight
from weakcell.emulator.importer.symbols import (
    INTEGER_RANKS,
    Codes,
    Constant,
    DynamicQuantized,
    Floats,
    FloatValue,
    Node,
    PendingQuantized,
    QuantizedConstant,
    Symbol,
    scalar,
)
from weakcell.emulator.ir.layers import DynamicBias, DynamicDequantize, DynamicQuantize, DynamicScale, ValueSpec
from weakcell.memmodels.errors import ModelError


def lower_dynamic_quantize(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower DynamicQuantizeLinear.

    Codes less their zero point, and the scale of each image.
    """
    real = builder.as_float(node.input(0))
    if len(real.shape) not in INTEGER_RANKS or real.dtype != "float32":
        found = f"its input is {real.dtype} of the shape [N, {', '.join(map(str, real.shape))}]"
        raise ModelError(f"Importing {node}", found, "Integer layers take float32 of [N, K], [N, C, L] or [N, C, H, W]")
    codes = builder.unique_name(node.outputs[0])
    builder.add_layer(
        DynamicQuantize(node.name, (real.value,), codes), ValueSpec(codes, "codes", real.shape, "int16"), ValueRange(-255, 255)
    )
    scale = builder.unique_name(f"{codes}.scale")
    builder.add_layer(DynamicScale(f"{node.name}.scale", (real.value,), scale), ValueSpec(scale, "float", ()))
    parts = (
        DynamicQuantized("codes", codes, codes, real.shape),
        DynamicQuantized("scale", codes, scale, ()),
        DynamicQuantized("zero", codes, "", ()),
    )
    for name, part in zip(node.outputs, parts, strict=False):
        if name:
            builder.symbols[name] = part
    return parts[0]


def _lower_dequantize(builder: NetworkBuilder, node: Node) -> Symbol | None:
    """Lower DequantizeLinear of dynamically quantized codes, with their own scale."""
    source, scale, zero = (builder.symbols.get(node.input(index)) for index in range(3))
    if (
        not isinstance(source, DynamicQuantized)
        or not isinstance(scale, DynamicQuantized)
        or not isinstance(zero, DynamicQuantized)
    ):
        return None
    if (source.part, scale.part, zero.part) != ("codes", "scale", "zero") or len({source.source, scale.source, zero.source}) > 1:
        return None
    factor = per_channel(scale.factor, source.shape)
    if factor is None:
        return None
    name = builder.unique_name(node.outputs[0])
    builder.add_layer(
        DynamicDequantize(node.name, (source.value, scale.value), name, factor), ValueSpec(name, "float", source.shape)
    )
    return FloatValue(name, source.shape)


def lower_integer_sum(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower MatMulInteger and ConvInteger with constant weights to int32 sums."""
    weight = builder.symbols.get(node.input(1))
    source = builder.symbol(node.input(0))
    zero = builder.symbols.get(node.input(2)) if node.input(2) else None
    conv = node.op_type == "ConvInteger"
    if not isinstance(weight, Constant) or not isinstance(source, Codes | DynamicQuantized):
        return lower_float(builder, node)
    pending = _as_pending(builder, node, source, zero)
    plain = replace(node, op_type="Conv" if conv else "MatMul")
    stored = stored_weight(plain, _dequantized_weight(builder, node, weight, conv))
    if stored is None or pending is None or (not conv and len(pending.shape) != 1):
        if isinstance(source, DynamicQuantized):
            raise ModelError(f"Importing {node}", "its operands are no matrix or image with 2-D weights", "Quantize it statically")
        return lower_float(builder, node)
    total = add_integer_sum(builder, replace(plain, inputs=node.inputs[:2]), pending, stored, wraps=True)
    return Codes(total.value, total.shape)


def _as_pending(
    builder: NetworkBuilder, node: Node, source: Codes | DynamicQuantized, zero: Symbol | None
) -> PendingQuantized | None:
    if isinstance(source, DynamicQuantized):
        same = (
            isinstance(zero, DynamicQuantized) and zero.part == "zero" and zero.source == source.source and source.part == "codes"
        )
        return PendingQuantized(source.value, source.shape, scalar(1)) if same else None
    if zero is not None and (not isinstance(zero, Constant) or zero.array.size != 1):
        return None
    point = 0 if zero is None else int(zero.array.reshape(()))
    spec = builder.values[source.value]
    value = source.value
    if spec.zero_point != point or np.any(spec.scale != 1):
        value = qdq.reinterpret_codes(builder, node, spec, scalar(1), point)
    return PendingQuantized(value, source.shape, scalar(1), point)


def _dequantized_weight(builder: NetworkBuilder, node: Node, weight: Constant, conv: bool) -> Constant:
    """Return the weight as if it had been dequantized with scale 1."""
    zero, encoding = builder.constant(node, 3), integer_encoding(weight.array.dtype)
    if encoding is None or encoding.bits > 16:
        raise ModelError(f"Importing {node}", f"its weight is {weight.array.dtype}", "2- to 16-bit integers are supported")
    points = np.zeros((), np.int32) if zero is None else zero.array.astype(np.int32)
    if points.size == 1:
        points = points.reshape(())
    axis = 0 if conv else weight.array.ndim - 1
    scale: Floats = np.ones(points.shape, np.float32)
    if points.ndim > 1 or (points.ndim and points.size != weight.array.shape[axis]):
        raise ModelError(f"Importing {node}", f"its weight has {points.size} zero points", "One per output channel is needed")
    quantized = QuantizedConstant(weight.array.astype(np.int32), encoding, scale, points, axis)
    return Constant(weight.array.astype(np.float32), weight.origin, quantized, recipe=weight.recipe if is_stored(weight) else None)


# ── what follows from a scale that is known at run time only ────────────────────────────────────────


def lower_dynamic(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower a node that reads an output of DynamicQuantizeLinear.

    Such an output has no batch in ONNX, and one number per image here. So no other lowering may see it.

    Raises:
        ModelError: the operator cannot read such an output.
    """
    lowering = _LOWERINGS.get(node.op_type) if not node.domain else None
    symbol = lowering(builder, node) if lowering is not None else None
    if symbol is None:
        name, part = next((n, s.part) for n in node.inputs if n and isinstance(s := builder.symbols[n], DynamicQuantized))
        found = f"it reads {name!r}, {_PARTS[part]} of DynamicQuantizeLinear, in a way that is not supported"
        do = "Supported are MatMulInteger and ConvInteger with constant weights, a Mul of their sums with the scale, and the bias "
        raise ModelError(f"Importing {node}", found, do + "forms of onnxruntime's quantize_dynamic; or quantize it statically")
    return symbol


_PARTS = {"codes": "the codes", "scale": "the scale", "zero": "the zero point", "bias": "a bias divided by the scale"}


def _lower_product(builder: NetworkBuilder, node: Node) -> Symbol | None:
    """Lower Mul with the scale: of a constant (recorded), or of a sum (dequantized)."""
    symbols = [builder.symbols[name] for name in node.inputs]
    scales = [s for s in symbols if isinstance(s, DynamicQuantized) and s.part == "scale"]
    if len(scales) != 1 or len(symbols) != 2:
        return None
    scale, other = scales[0], symbols[0] if symbols[1] is scales[0] else symbols[1]
    if isinstance(other, Constant):
        return (
            replace(scale, factor=np.asarray(scale.factor * other.array, np.float32)) if other.array.dtype == np.float32 else None
        )
    pending = builder.symbol(node.inputs[symbols.index(other)])
    if (
        not isinstance(pending, PendingQuantized)
        or pending.steps
        or pending.pool is not None
        or builder.values[pending.value].shape != pending.shape
    ):
        return None
    factor = per_channel(scale.factor, pending.shape)
    if np.any(pending.scale != 1) or pending.zero_point or factor is None or builder.values[pending.value].kind != "codes":
        return None
    name = builder.unique_name(node.outputs[0])
    builder.add_layer(
        DynamicDequantize(node.name, (pending.value, scale.value), name, factor), ValueSpec(name, "float", pending.shape)
    )
    return FloatValue(name, pending.shape)


def _lower_quotient(builder: NetworkBuilder, node: Node) -> Symbol | None:
    """Lower Div of a constant by the scale: a bias with the scale of the sums."""
    dividend, scale = (builder.symbols[name] for name in node.inputs)
    if not isinstance(dividend, Constant) or not isinstance(scale, DynamicQuantized) or scale.part != "scale":
        return None
    if dividend.array.dtype != np.float32:
        return None
    return replace(scale, part="bias", dividend=dividend.array)


def _lower_rounding(builder: NetworkBuilder, node: Node) -> Symbol | None:
    """Lower Floor, Ceil, Round or a Cast to int32 of such a bias."""
    bias = builder.symbols[node.input(0)]
    if not isinstance(bias, DynamicQuantized) or bias.part != "bias" or "Cast" in bias.operators:
        return None
    if node.op_type == "Cast":
        return replace(bias, operators=(*bias.operators, "Cast")) if int(node.attributes["to"]) == onnx.TensorProto.INT32 else None
    return replace(bias, operators=(node.op_type,)) if not bias.operators else None


def _lower_bias_move(builder: NetworkBuilder, node: Node) -> Symbol | None:
    """Lower a shape operator on such a bias or on the scale, which have no batch."""
    moved = builder.symbols[node.input(0)]
    if not isinstance(moved, DynamicQuantized) or moved.part not in ("scale", "bias"):
        return None
    given = [builder.constant(node, i) for i in range(1, len(node.inputs))]
    operands = [onnx_ops.ABSENT if c is None else c.array for c in given]
    try:
        both = np.broadcast_arrays(moved.factor, moved.dividend)
        factor, dividend = (onnx_ops.apply(node.op_type, node.opset, node.attributes, [x, *operands]) for x in both)
    except (ValueError, IndexError, TypeError) as e:
        raise ModelError(f"Importing {node}", f"its inputs do not fit ({e})", "Export the model again") from None
    return replace(moved, factor=factor, dividend=dividend)


def _lower_biased_sum(builder: NetworkBuilder, node: Node) -> Symbol | None:
    """Lower Add of such a bias, as int32, to an integer sum."""
    symbols = [builder.symbols[name] for name in node.inputs]
    biases = [s for s in symbols if isinstance(s, DynamicQuantized)]
    sums = [s for s in symbols if isinstance(s, Codes)]
    if len(biases) != 1 or len(sums) != 1 or biases[0].part != "bias" or biases[0].operators[-1:] != ("Cast",):
        return None
    bias, total = biases[0], sums[0]
    spec = builder.values[total.value]
    dividend, factor = per_channel(bias.dividend, total.shape), per_channel(bias.factor, total.shape)
    if dividend is None or factor is None or spec.dtype != "int32" or spec.shape != total.shape or spec.zero_point:
        return None
    rounding: Any = bias.operators[0] if len(bias.operators) > 1 else None
    name = builder.unique_name(node.outputs[0])
    layer = DynamicBias(node.name, (total.value, bias.value), name, dividend, factor, rounding)
    return Codes(builder.add_layer(layer, replace(spec, name=name), ValueRange(-LIMIT - 1, LIMIT)), total.shape)


def _lower_identity(builder: NetworkBuilder, node: Node) -> Symbol:
    return builder.symbols[node.input(0)]


_LOWERINGS: dict[str, Callable[[NetworkBuilder, Node], Symbol | None]] = {
    **dict.fromkeys(("MatMulInteger", "ConvInteger"), lower_integer_sum),
    **dict.fromkeys(("Floor", "Ceil", "Round", "Cast"), _lower_rounding),
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze"), _lower_bias_move),
    "Add": _lower_biased_sum,
    "DequantizeLinear": _lower_dequantize,
    "Div": _lower_quotient,
    "Identity": _lower_identity,
    "Mul": _lower_product,
}
