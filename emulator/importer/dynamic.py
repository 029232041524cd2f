"""Integer sums written as such (MatMulInteger, ConvInteger) and quantization at run time (DynamicQuantizeLinear).

DynamicQuantizeLinear takes its scale from the whole tensor, images and all. The layers here quantize each image on its own, which
is what onnxruntime computes for a batch of one; otherwise an image's result would depend on the images beside it. Where a run wants
the file's meaning for its batch (`weakcell infer`), it hands the range of the whole batch to the layers (`ParameterState.ranges`).
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
from weakcell.emulator.importer.builder import Draft, Reach
from weakcell.emulator.importer.constant_recipe import is_stored
from weakcell.emulator.importer.fallback import lower_float
from weakcell.emulator.importer.folding import encoding_of
from weakcell.emulator.importer.linear import LIMIT, stored_weight, sum_of_codes
from weakcell.emulator.importer.symbols import (
    INTEGER_RANKS,
    Codes,
    Constant,
    Dynamic,
    Floats,
    Grid,
    Node,
    Quantized,
    Real,
    Symbol,
    scalar,
)
from weakcell.emulator.ir.layers import DynamicBias, DynamicDequantize, DynamicQuantize, DynamicScale, ValueSpec
from weakcell.memmodels.errors import ModelError


def lower_dynamic_quantize(draft: Draft, node: Node) -> Symbol:
    """Codes less their zero point, and the scale of each image."""
    real = draft.real(node.input(0))
    if len(real.shape) not in INTEGER_RANKS or real.dtype != "float32":
        found = f"its input is {real.dtype} of the shape [N, {', '.join(map(str, real.shape))}]"
        raise ModelError(f"Importing {node}", found, "Integer layers take float32 of [N, K], [N, C, L] or [N, C, H, W]")
    codes = draft.free(node.outputs[0])
    draft.draw(DynamicQuantize(node.name, (real.value,), codes), ValueSpec(codes, "codes", real.shape, "int16"), Reach(-255, 255))
    scale = draft.free(f"{codes}.scale")
    draft.draw(DynamicScale(f"{node.name}.scale", (real.value,), scale), ValueSpec(scale, "float", ()))
    parts = (Dynamic("codes", codes, codes, real.shape), Dynamic("scale", codes, scale, ()), Dynamic("zero", codes, "", ()))
    for name, part in zip(node.outputs, parts, strict=False):
        if name:
            draft.symbols[name] = part
    return parts[0]


def _dequantized(draft: Draft, node: Node) -> Symbol | None:
    """DequantizeLinear of codes that were quantized at run time, by their own scale and zero point."""
    source, scale, zero = (draft.symbols.get(node.input(place)) for place in range(3))
    if not isinstance(source, Dynamic) or not isinstance(scale, Dynamic) or not isinstance(zero, Dynamic):
        return None
    if (source.part, scale.part, zero.part) != ("codes", "scale", "zero") or len({source.source, scale.source, zero.source}) > 1:
        return None
    factor = per_channel(scale.factor, source.shape)
    if factor is None:
        return None
    name = draft.free(node.outputs[0])
    draft.draw(DynamicDequantize(node.name, (source.value, scale.value), name, factor), ValueSpec(name, "float", source.shape))
    return Real(name, source.shape)


def lower_integer_sum(draft: Draft, node: Node) -> Symbol:
    """MatMulInteger and ConvInteger with constant weights: codes of an int32 accumulator."""
    weight = draft.symbols.get(node.input(1))
    source = draft.symbol(node.input(0))
    zero = draft.symbols.get(node.input(2)) if node.input(2) else None
    conv = node.op_type == "ConvInteger"
    if not isinstance(weight, Constant) or not isinstance(source, Codes | Dynamic):
        return lower_float(draft, node)
    grid = _grid(draft, node, source, zero)
    plain = replace(node, op_type="Conv" if conv else "MatMul")
    stored = stored_weight(plain, _weight(draft, node, weight, conv))
    if stored is None or grid is None or (not conv and len(grid.shape) != 1):
        if isinstance(source, Dynamic):
            raise ModelError(f"Importing {node}", "its operands are no matrix or image with 2-D weights", "Quantize it statically")
        return lower_float(draft, node)
    made = sum_of_codes(draft, replace(plain, inputs=node.inputs[:2]), grid, stored, wraps=True)
    return Codes(made.value, made.shape)


def _grid(draft: Draft, node: Node, source: Codes | Dynamic, zero: Symbol | None) -> Grid | None:
    if isinstance(source, Dynamic):
        same = isinstance(zero, Dynamic) and zero.part == "zero" and zero.source == source.source and source.part == "codes"
        return Grid(source.value, source.shape, scalar(1)) if same else None
    if zero is not None and (not isinstance(zero, Constant) or zero.array.size != 1):
        return None
    point = 0 if zero is None else int(zero.array.reshape(()))
    spec = draft.values[source.value]
    value = source.value
    if spec.zero_point != point or np.any(spec.scale != 1):
        value = qdq.renamed(draft, node, spec, scalar(1), point)
    return Grid(value, source.shape, scalar(1), point)


def _weight(draft: Draft, node: Node, weight: Constant, conv: bool) -> Constant:
    """The weight as if it had been dequantized with scale 1."""
    zero, encoding = draft.constant(node, 3), encoding_of(weight.array.dtype)
    if encoding is None or encoding.bits > 16:
        raise ModelError(f"Importing {node}", f"its weight is {weight.array.dtype}", "2- to 16-bit integers are supported")
    points = np.zeros((), np.int32) if zero is None else zero.array.astype(np.int32)
    if points.size == 1:
        points = points.reshape(())
    axis = 0 if conv else weight.array.ndim - 1
    scale: Floats = np.ones(points.shape, np.float32)
    if points.ndim > 1 or (points.ndim and points.size != weight.array.shape[axis]):
        raise ModelError(f"Importing {node}", f"its weight has {points.size} zero points", "One per output channel is needed")
    quantized = Quantized(weight.array.astype(np.int32), encoding, scale, points, axis)
    return Constant(weight.array.astype(np.float32), weight.origin, quantized, recipe=weight.recipe if is_stored(weight) else None)


# ── what follows from a scale that is known at run time only ────────────────────────────────────────


def lower_dynamic(draft: Draft, node: Node) -> Symbol:
    """Lower a node that reads an output of DynamicQuantizeLinear; ModelError for an operator that cannot take it.

    Such an output has no batch in ONNX and one number per image here, so no lowering of other values may see it.
    """
    lowering = _LOWERINGS.get(node.op_type) if not node.domain else None
    symbol = lowering(draft, node) if lowering is not None else None
    if symbol is None:
        name, part = next((n, s.part) for n in node.inputs if n and isinstance(s := draft.symbols[n], Dynamic))
        found = f"it reads {name!r}, {_PARTS[part]} of DynamicQuantizeLinear, in a way that is not supported"
        do = "Supported are MatMulInteger and ConvInteger with constant weights, a Mul of their sums with the scale, and the bias "
        raise ModelError(f"Importing {node}", found, do + "forms of onnxruntime's quantize_dynamic; or quantize it statically")
    return symbol


_PARTS = {"codes": "the codes", "scale": "the scale", "zero": "the zero point", "bias": "a bias divided by the scale"}


def _product(draft: Draft, node: Node) -> Symbol | None:
    """Mul with the scale: of a constant (remembered) or of a sum (made float)."""
    symbols = [draft.symbols[name] for name in node.inputs]
    scales = [s for s in symbols if isinstance(s, Dynamic) and s.part == "scale"]
    if len(scales) != 1 or len(symbols) != 2:
        return None
    scale, other = scales[0], symbols[0] if symbols[1] is scales[0] else symbols[1]
    if isinstance(other, Constant):
        return (
            replace(scale, factor=np.asarray(scale.factor * other.array, np.float32)) if other.array.dtype == np.float32 else None
        )
    grid = draft.symbol(node.inputs[symbols.index(other)])
    if not isinstance(grid, Grid) or grid.steps or grid.pool is not None or draft.values[grid.value].shape != grid.shape:
        return None
    factor = per_channel(scale.factor, grid.shape)
    if np.any(grid.scale != 1) or grid.zero_point or factor is None or draft.values[grid.value].kind != "codes":
        return None
    name = draft.free(node.outputs[0])
    draft.draw(DynamicDequantize(node.name, (grid.value, scale.value), name, factor), ValueSpec(name, "float", grid.shape))
    return Real(name, grid.shape)


def _quotient(draft: Draft, node: Node) -> Symbol | None:
    """Div of a constant by the scale: a bias on the grid of the sums."""
    dividend, scale = (draft.symbols[name] for name in node.inputs)
    if not isinstance(dividend, Constant) or not isinstance(scale, Dynamic) or scale.part != "scale":
        return None
    if dividend.array.dtype != np.float32:
        return None
    return replace(scale, part="bias", dividend=dividend.array)


def _rounded_bias(draft: Draft, node: Node) -> Symbol | None:
    """Floor, Ceil, Round or a Cast to int32 of such a bias."""
    bias = draft.symbols[node.input(0)]
    if not isinstance(bias, Dynamic) or bias.part != "bias" or "Cast" in bias.operators:
        return None
    if node.op_type == "Cast":
        return replace(bias, operators=(*bias.operators, "Cast")) if int(node.attributes["to"]) == onnx.TensorProto.INT32 else None
    return replace(bias, operators=(node.op_type,)) if not bias.operators else None


def _moved_bias(draft: Draft, node: Node) -> Symbol | None:
    """A shape operator on such a bias or on the scale, which have no batch."""
    moved = draft.symbols[node.input(0)]
    if not isinstance(moved, Dynamic) or moved.part not in ("scale", "bias"):
        return None
    given = [draft.constant(node, i) for i in range(1, len(node.inputs))]
    rest = [onnx_ops.ABSENT if c is None else c.array for c in given]
    try:
        both = np.broadcast_arrays(moved.factor, moved.dividend)
        factor, dividend = (onnx_ops.apply(node.op_type, node.opset, node.attributes, [x, *rest]) for x in both)
    except (ValueError, IndexError, TypeError) as e:
        raise ModelError(f"Importing {node}", f"its inputs do not fit ({e})", "Export the model again") from None
    return replace(moved, factor=factor, dividend=dividend)


def _biased_sum(draft: Draft, node: Node) -> Symbol | None:
    """Add of such a bias, as int32, to an integer sum."""
    symbols = [draft.symbols[name] for name in node.inputs]
    biases = [s for s in symbols if isinstance(s, Dynamic)]
    sums = [s for s in symbols if isinstance(s, Codes)]
    if len(biases) != 1 or len(sums) != 1 or biases[0].part != "bias" or biases[0].operators[-1:] != ("Cast",):
        return None
    bias, total = biases[0], sums[0]
    spec = draft.values[total.value]
    dividend, factor = per_channel(bias.dividend, total.shape), per_channel(bias.factor, total.shape)
    if dividend is None or factor is None or spec.dtype != "int32" or spec.shape != total.shape or spec.zero_point:
        return None
    rounding: Any = bias.operators[0] if len(bias.operators) > 1 else None
    name = draft.free(node.outputs[0])
    layer = DynamicBias(node.name, (total.value, bias.value), name, dividend, factor, rounding)
    return Codes(draft.draw(layer, replace(spec, name=name), Reach(-LIMIT - 1, LIMIT)), total.shape)


def _unchanged(draft: Draft, node: Node) -> Symbol:
    return draft.symbols[node.input(0)]


_LOWERINGS: dict[str, Callable[[Draft, Node], Symbol | None]] = {
    **dict.fromkeys(("MatMulInteger", "ConvInteger"), lower_integer_sum),
    **dict.fromkeys(("Floor", "Ceil", "Round", "Cast"), _rounded_bias),
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze"), _moved_bias),
    "Add": _biased_sum,
    "DequantizeLinear": _dequantized,
    "Div": _quotient,
    "Identity": _unchanged,
    "Mul": _product,
}
