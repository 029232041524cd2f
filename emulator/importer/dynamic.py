"""Integer sums written as such (MatMulInteger, ConvInteger) and quantization at run time (DynamicQuantizeLinear).

DynamicQuantizeLinear takes its scale from the whole tensor, images and all. Here each image is quantized on its own: what
onnxruntime computes for a batch of one. Otherwise an image's result would depend on the images beside it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from emulator.importer import qdq
from emulator.importer.draft import Draft, Reach
from emulator.importer.floats import lower_float
from emulator.importer.fold import encoding_of
from emulator.importer.linear import stored_weight, sum_of_codes
from emulator.importer.symbols import INTEGER_RANKS, Codes, Constant, Dynamic, Floats, Grid, Node, Quantized, Real, Symbol, scalar
from emulator.network import DynamicDequantize, DynamicQuantize, DynamicScale, ValueSpec
from memmodels.errors import ModelError


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


def lower_dequantize(draft: Draft, node: Node) -> Symbol:
    """DequantizeLinear: of codes that were quantized at run time, by their image's scale; else as ever."""
    source = draft.symbols[node.input(0)]
    scale = draft.symbols.get(node.input(1))
    if not isinstance(source, Dynamic) or not isinstance(scale, Dynamic) or scale.source != source.source:
        return qdq.lower_dequantize(draft, node)
    name = draft.free(node.outputs[0])
    layer = DynamicDequantize(node.name, (source.value, scale.value), name, scale.factor)
    draft.draw(layer, ValueSpec(name, "float", source.shape))
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
    return Constant(weight.array.astype(np.float32), weight.origin, quantized)


def lower_dynamic_product(draft: Draft, node: Node) -> Symbol | None:
    """Mul with the scale of an image: of a constant (remembered) or of a sum (made float). None for any other Mul."""
    symbols = [draft.symbols[name] for name in node.inputs]
    scales = [s for s in symbols if isinstance(s, Dynamic) and s.part == "scale"]
    if len(scales) != 1 or len(symbols) != 2:
        return None
    scale, other = scales[0], symbols[0] if symbols[1] is scales[0] else symbols[1]
    if isinstance(other, Constant):
        factor = np.asarray(other.array, np.float32)
        if scale.factor.size != 1 or (factor.size > 1 and max(factor.shape) != factor.size):
            return None
        return replace(scale, factor=scale.factor.reshape(()) * (factor.reshape(-1) if factor.size > 1 else factor.reshape(())))
    grid = draft.symbol(node.inputs[symbols.index(other)])
    if not isinstance(grid, Grid) or grid.steps or grid.pool is not None or draft.values[grid.value].shape != grid.shape:
        return None
    if np.any(grid.scale != 1) or scale.factor.size not in (1, grid.shape[0]):
        return None
    name = draft.free(node.outputs[0])
    layer = DynamicDequantize(node.name, (grid.value, scale.value), name, scale.factor)
    draft.draw(layer, ValueSpec(name, "float", grid.shape))
    return Real(name, grid.shape)
