"""DynamicQuantizeLinear, MatMulInteger and ConvInteger.

Quantization at run time, and sums written as integers.

DynamicQuantizeLinear takes its scale from the whole tensor, all images included. The layers here quantize each image on its
own, which is what onnxruntime computes for a batch of one: the result of an image must not depend on the images beside it.
A run that wants the file's meaning for its batch (`weakcell infer`) gives the range of the whole batch to the layers
(`ParameterState.ranges`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer import qdq
from weakcell.emulator.importer.binary import per_channel
from weakcell.emulator.importer.builder import NetworkBuilder, ValueRange
from weakcell.emulator.importer.constant_recipe import ImportedTensor, is_stored
from weakcell.emulator.importer.fallback import lower_float
from weakcell.emulator.importer.folding import integer_encoding
from weakcell.emulator.importer.linear import LIMIT, add_integer_sum, stored_weight
from weakcell.emulator.importer.symbols import (
    INTEGER_RANKS,
    Array,
    Codes,
    Constant,
    DynamicQuantized,
    Floats,
    FloatValue,
    Node,
    OperatorCall,
    PendingQuantized,
    QuantizedConstant,
    RowSums,
    Symbol,
    scalar,
)
from weakcell.emulator.importer.tensor_store import IncompatibleWeightOrder
from weakcell.emulator.ir.layers import DynamicBias, DynamicDequantize, DynamicQuantize, DynamicScale
from weakcell.emulator.ir.values import ValueSpec
from weakcell.memmodels.errors import ModelError


def lower_dynamic_quantize(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower DynamicQuantizeLinear.

    Codes less their zero point, and the scale of each image.
    """
    real = builder.as_float(node.input(0))
    if not real.shape or real.dtype != "float32":
        found = f"its input is {real.dtype} of the shape [N, {', '.join(map(str, real.shape))}]"
        raise ModelError(f"Importing {node}", found, "Integer layers take float32 of [N, …, K]")
    rows = len(real.shape) not in INTEGER_RANKS  # only a matrix product can read it, as rows
    codes = builder.unique_name(f"{node.outputs[0]}.rows" if rows else node.outputs[0])
    _add_quantize(builder, node.name, real.value, codes, rows)
    scale = builder.unique_name(f"{codes}.scale")
    builder.add_layer(DynamicScale(f"{node.name}.scale", (real.value,), scale), ValueSpec(scale, "float", ()))
    parts = (
        DynamicQuantized("codes", codes, codes, real.shape, real.value),
        DynamicQuantized("scale", codes, scale, (), real.value),
        DynamicQuantized("zero", codes, "", (), real.value),
    )
    for name, part in zip(node.outputs, parts, strict=False):
        if name:
            builder.symbols[name] = part
            if part.part != "codes":
                builder.unbatched.add(name)
    return parts[0]


def _add_quantize(builder: NetworkBuilder, name: str, real: str, codes: str, rows: bool) -> None:
    """Add the DynamicQuantize layer of a float value, once for each form of its codes."""
    if codes not in builder.values:
        shape = builder.values[real].shape
        shape = (shape[-1], math.prod(shape[:-1]), 1) if rows else shape
        layer = DynamicQuantize(name, (real,), codes, rows)
        builder.add_layer(layer, ValueSpec(codes, "codes", shape, "int16"), ValueRange(-255, 255))


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
    rows = builder.values[source.value].shape != source.shape
    factor = _per_row(scale.factor, source.shape) if rows else per_channel(scale.factor, source.shape)
    return None if factor is None else _add_dequantize(builder, node, source, scale, factor, rows)


def _add_dequantize(
    builder: NetworkBuilder,
    node: Node,
    codes: DynamicQuantized | PendingQuantized | RowSums,
    scale: DynamicQuantized,
    factor: Floats,
    rows: bool,
) -> FloatValue:
    """Add the layer that multiplies codes or sums with the scale of each image and a factor."""
    name = builder.unique_name(node.outputs[0])
    layer = DynamicDequantize(node.name, (codes.value, scale.value), name, factor, rows)
    builder.add_layer(layer, ValueSpec(name, "float", codes.shape))
    return FloatValue(name, codes.shape)


def _per_row(constant: Array, shape: tuple[int, ...]) -> Floats | None:
    """Return a constant as a scalar, or as one number for each element of the last axis; None if it varies otherwise."""
    if constant.size == 1:
        return constant.astype(np.float32).reshape(())
    along = constant.ndim <= len(shape) + 1 and constant.shape[-1:] == shape[-1:] and constant.size == shape[-1]
    return constant.astype(np.float32).reshape(-1) if along else None


def lower_integer_sum(builder: NetworkBuilder, node: Node) -> Symbol | None:
    """Lower MatMulInteger and ConvInteger with constant weights to int32 sums.

    None if they read dynamically quantized codes in another way.
    """
    weight = builder.symbols.get(node.input(1))
    source = builder.symbol(node.input(0))
    zero = builder.symbols.get(node.input(2)) if node.input(2) else None
    conv = node.op_type == "ConvInteger"
    if not isinstance(weight, Constant) or not isinstance(source, Codes | DynamicQuantized):
        dynamic = any(isinstance(builder.symbols[name], DynamicQuantized) for name in node.inputs if name)
        return None if dynamic else lower_float(builder, node)
    pending = _as_pending(builder, node, source, zero)
    if isinstance(source, DynamicQuantized) and conv and node.input(0) in builder.unbatched:
        return None  # its first axis counts images of another kind
    plain = replace(node, op_type="Conv" if conv else "MatMul")
    plain_weight = is_stored(weight) and not (weight.recipe is not None and weight.recipe.is_shared)
    stored = stored_weight(plain, _dequantized_weight(builder, node, weight, conv)) if plain_weight else None
    rows = not conv and len(source.shape) > 1
    image = len(source.shape) in INTEGER_RANKS and not (rows and isinstance(source, Codes))
    if stored is None or pending is None or not (image or (rows and isinstance(source, DynamicQuantized))):
        return None if isinstance(source, DynamicQuantized) else lower_float(builder, node)
    plain = replace(plain, inputs=node.inputs[:2])
    try:
        if rows and isinstance(source, DynamicQuantized):
            return _add_row_sums(builder, plain, source, stored)
        total = add_integer_sum(builder, plain, pending, stored, wraps=True)
    except IncompatibleWeightOrder:
        return None if isinstance(source, DynamicQuantized) else lower_float(builder, node)
    return Codes(total.value, total.shape)


def _add_row_sums(builder: NetworkBuilder, node: Node, source: DynamicQuantized, stored: ImportedTensor) -> RowSums:
    """Add the matrix product of a sequence (…, K) as a convolution whose pixels are its vectors."""
    outputs, inner = stored.shape
    if inner != source.shape[-1]:
        found = f"the weight has {inner} inputs and the tensor {source.shape[-1]}"
        raise ModelError(f"Importing {node}", found, "Export the model again")
    codes = source.value if source.value.endswith(".rows") else f"{source.value}.rows"
    _add_quantize(builder, codes, source.real, codes, rows=True)
    pending = PendingQuantized(codes, builder.values[codes].shape, scalar(1))
    pixels = replace(stored, codes=stored.codes.reshape(outputs, inner, 1, 1))
    total = add_integer_sum(builder, replace(node, op_type="Conv", inputs=node.inputs[:2]), pending, pixels, wraps=True)
    return RowSums(total.value, (*source.shape[:-1], outputs))


def lower_row_sums(builder: NetworkBuilder, node: Node) -> Symbol | None:
    """Lower a Cast of such sums to float, or a shape operator that keeps them; None for any other node."""
    sums = builder.symbols[node.input(0)]
    if not isinstance(sums, RowSums):
        return None
    cast = node.op_type == "Cast" and int(node.attributes["to"]) == onnx.TensorProto.FLOAT
    return replace(sums, real=True) if cast else sums if node.op_type == "Identity" else None


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
    if points.ndim > 1 or (points.ndim and points.size != weight.shape[axis]):
        raise ModelError(f"Importing {node}", f"its weight has {points.size} zero points", "One per output channel is needed")
    quantized = QuantizedConstant(weight.array.astype(np.int32), encoding, scale, points, axis)
    return Constant(weight.array.astype(np.float32), weight.origin, quantized, recipe=weight.recipe)


# ── what follows from a scale that is known at run time only ────────────────────────────────────────


def lower_dynamic(builder: NetworkBuilder, node: Node) -> Symbol | None:
    """Lower a node that reads an output of DynamicQuantizeLinear, in one of the forms that quantizers write.

    Such an output has no batch in ONNX, and one number per image here. None if the node has another form.
    """
    lowering = _LOWERINGS.get(node.op_type) if not node.domain else None
    return lowering(builder, node) if lowering is not None else None


def with_plain_inputs(builder: NetworkBuilder, node: Node) -> Node:
    """Return the node with outputs of DynamicQuantizeLinear as plain values of each image, which any operator reads."""
    inputs = []
    for name in node.inputs:
        symbol, plain = builder.symbols[name] if name else None, f"{name}.plain"
        if isinstance(symbol, DynamicQuantized):
            if plain not in builder.symbols:
                builder.symbols[plain] = _as_plain(builder, symbol, plain)
                builder.unbatched.update({plain} if name in builder.unbatched else ())
            name = plain
        inputs.append(name)
    return replace(node, inputs=tuple(inputs))


def _as_plain(builder: NetworkBuilder, symbol: DynamicQuantized, name: str) -> FloatValue:
    """Add operators that compute an output of DynamicQuantizeLinear as the file does, image by image."""
    index = {"codes": 0, "scale": 1, "zero": 2, "bias": 1}[symbol.part]
    real = FloatValue(symbol.real, builder.values[symbol.real].shape)
    call = OperatorCall("DynamicQuantizeLinear", (real,), {}, 11, index)
    shape = real.shape if index == 0 else ()
    plain = builder.add_float_operator(name, call, shape, "float32" if index == 1 else "uint8", each_image=True)
    if index != 1 or (symbol.part == "scale" and symbol.factor.size == 1 and symbol.factor == 1):
        return plain

    def computed(op: str, *operands: FloatValue | Array, dtype: str = "float32", **attributes: Any) -> FloatValue:
        shape = np.broadcast_shapes(*(x.shape for x in operands))
        return builder.add_float_operator(name, OperatorCall(op, operands, attributes), shape, dtype, each_image=True)

    plain = computed("Mul", plain, symbol.factor)
    if symbol.part == "scale":
        return plain
    plain = computed("Div", symbol.dividend, plain)
    for op in symbol.operators:
        plain = computed(op, plain, dtype="int32", to=6) if op == "Cast" else computed(op, plain)
    return plain


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
    if isinstance(other, RowSums):
        factor = _per_row(scale.factor, other.shape) if other.real else None
        return None if factor is None else _add_dequantize(builder, node, other, scale, factor, rows=True)
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
    return _add_dequantize(builder, node, pending, scale, factor, rows=False)


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
    sums = [s for s in symbols if isinstance(s, Codes | RowSums)]
    if len(biases) != 1 or len(sums) != 1 or biases[0].part != "bias" or biases[0].operators[-1:] != ("Cast",):
        return None
    bias, total = biases[0], sums[0]
    spec = builder.values[total.value]
    rows = isinstance(total, RowSums)
    dividend, factor = ((_per_row if rows else per_channel)(x, total.shape) for x in (bias.dividend, bias.factor))
    if dividend is None or factor is None or spec.dtype != "int32" or spec.zero_point:
        return None
    if spec.shape != total.shape and not rows:
        return None
    rounding: Any = bias.operators[0] if len(bias.operators) > 1 else None
    name = builder.unique_name(node.outputs[0])
    layer = DynamicBias(node.name, (total.value, bias.value), name, dividend, factor, rounding)
    return replace(total, value=builder.add_layer(layer, replace(spec, name=name), ValueRange(-LIMIT - 1, LIMIT)))


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
