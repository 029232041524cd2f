"""QuantizeLinear of a pending tensor.

One integer layer for all operators since the DequantizeLinear.

A sum with an int32 bias (or none) and limits is a Requantize. A sum with float steps (a float bias, a batch norm) is an
AffineRequantize, which runs the steps in the order of the file. The sum of two quantized tensors is an AddCodes, a mean is
an AveragePool, pointwise operators are a LookUp.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer.builder import NetworkBuilder, ValueRange
from weakcell.emulator.importer.integer_ops import add_codes_operator, is_uniform, materialize_codes, materialize_padding
from weakcell.emulator.importer.symbols import (
    INTEGER_RANKS,
    NO_PADS,
    Array,
    Codes,
    FloatValue,
    Node,
    PendingConcat,
    PendingMean,
    PendingPointwise,
    PendingQuantized,
    PendingSum,
    Symbol,
)
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import AddCodes, AffineRequantize, AveragePool, LookUp, Quantize, Requantize, Step
from weakcell.emulator.ir.values import ValueSpec
from weakcell.memmodels.errors import ModelError


def quantize_to(
    builder: NetworkBuilder, node: Node, source: Symbol, target: ValueSpec, value_range: ValueRange, fused: bool = True
) -> Codes:
    """Quantize a tensor to the codes that `target` describes.

    Args:
        builder: the network under construction.
        node: the quantizing operator; its first input is the tensor.
        source: what the tensor means.
        target: the value to make; its shape is ignored.
        value_range: the codes that the type of the target has.
        fused: whether sums get QOperator's epilogue; else float32 operations as written.
    """
    if isinstance(source, PendingQuantized) and source.pads != NO_PADS and is_uniform(builder, replace(source, pads=NO_PADS)):
        source = materialize_padding(builder, source, node.input(0))
    if isinstance(source, PendingQuantized) and source.pads == NO_PADS:
        return quantize_pending(builder, node, source, target, value_range, fused)
    if isinstance(source, PendingSum):
        return _quantize_sum(builder, node, source, target, value_range)
    if isinstance(source, PendingMean):
        return _quantize_mean(builder, node, source, target, value_range)
    if isinstance(source, PendingPointwise):
        return quantize_pointwise(builder, node, source, target, value_range)
    if isinstance(source, PendingConcat):
        return quantize_concat(builder, node, source, target, value_range)
    real = builder.as_float(node.input(0))
    layer = Quantize(
        node.name, (real.value,), target.name, float(target.scale), target.zero_point, value_range.low, value_range.high
    )
    return _codes(builder, layer, replace(target, shape=_checked_shape(node, real)), value_range, real.shape)


def _checked_shape(node: Node, real: FloatValue) -> tuple[int, ...]:
    if len(real.shape) not in INTEGER_RANKS or real.dtype != "float32":
        found = f"its input is {real.dtype} of the shape [N, {', '.join(map(str, real.shape))}]"
        raise ModelError(f"Importing {node}", found, "Integer layers take float32 of [N, K], [N, C, L] or [N, C, H, W]")
    return real.shape


def _codes(builder: NetworkBuilder, layer: Layer, spec: ValueSpec, value_range: ValueRange, view: tuple[int, ...]) -> Codes:
    return Codes(builder.add_layer(layer, spec, value_range), view)


def limits(steps: tuple[Step, ...], spec: ValueSpec, value_range: ValueRange) -> ValueRange:
    """Return the codes that scalar limits leave.

    Rounding is monotone, so limits commute with it.
    """
    low, high = value_range.low, value_range.high
    for step in steps:
        code = int(np.clip(np.rint(step.constant / spec.scale) + np.float32(spec.zero_point), value_range.low, value_range.high))
        low, high = (max(low, code), max(high, code)) if step.op == "max" else (min(low, code), min(high, code))
    return ValueRange(low, high)


def _split_limits(steps: tuple[Step, ...]) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Return the steps before the last scalar limits, and those limits."""
    count = len(steps)
    while count and steps[count - 1].op in ("max", "min") and steps[count - 1].constant.ndim == 0:
        count -= 1
    return steps[:count], steps[count:]


def quantize_pending(
    builder: NetworkBuilder, node: Node, pending: PendingQuantized, target: ValueSpec, value_range: ValueRange, fused: bool = True
) -> Codes:
    """Quantize a pending tensor by the epilogue that its steps call for.

    See `quantize_to`.
    """
    spec = builder.values[pending.value]
    same = pending.zero_point == target.zero_point and np.array_equal(pending.scale, target.scale)
    source_range = builder.ranges[pending.value]
    within = value_range.low <= source_range.low and source_range.high <= value_range.high
    if same and within and not pending.steps and pending.pool is None and spec.dtype == target.dtype:
        return Codes(pending.value, pending.shape)
    steps, ends = _split_limits(pending.steps)
    value_range = limits(ends, target, value_range)
    if pending.pool is not None:
        target = replace(target, name=builder.unique_name(f"{target.name}.unpooled"))
    target = replace(target, shape=spec.shape)
    args = (target.zero_point, value_range.low, value_range.high)
    layer: Layer
    if builder.is_accumulator(pending) and not steps and fused:
        multiplier = np.asarray(pending.scale / target.scale, np.float32)
        layer = Requantize(node.name, (pending.value,), target.name, multiplier, *args)
    else:
        bias = None
        if steps and steps[0].op == "add":
            bias, steps = steps[0].constant, steps[1:]
        out_scale = float(target.scale)
        layer = AffineRequantize(node.name, (pending.value,), target.name, pending.scale, bias, out_scale, *args, steps)
    codes = _codes(builder, layer, target, value_range, pending.shape)
    if pending.pool is None:
        return codes
    return Codes(builder.add_max_pool(codes.value, pending.pool, node.outputs[0]), pending.shape)


def _quantize_sum(builder: NetworkBuilder, node: Node, total: PendingSum, target: ValueSpec, value_range: ValueRange) -> Codes:
    spec = builder.values[total.left.value]
    value_range = limits(total.steps, target, value_range)
    args = (float(target.scale), target.zero_point, value_range.low, value_range.high)
    layer = AddCodes(node.name, (total.left.value, total.right.value), target.name, *args, total.fused)
    return _codes(builder, layer, replace(target, shape=spec.shape), value_range, total.shape)


def _quantize_mean(builder: NetworkBuilder, node: Node, mean: PendingMean, target: ValueSpec, value_range: ValueRange) -> Codes:
    value_range = limits(mean.steps, target, value_range)
    args = (float(target.scale), target.zero_point, value_range.low, value_range.high)
    layer = AveragePool(node.name, (mean.source.value,), target.name, mean.window, mean.count_include_pad, *args)
    return _codes(builder, layer, replace(target, shape=mean.pooled), value_range, mean.shape)


def quantize_concat(
    builder: NetworkBuilder, node: Node, concat: PendingConcat, target: ValueSpec, value_range: ValueRange
) -> Codes:
    """Quantize each part by a table or an epilogue, then concatenate the codes."""
    parts = []
    for i, pending in enumerate(concat.parts):
        part_target = replace(target, name=builder.unique_name(f"{target.name}.part{i}"))
        parts.append(materialize_codes(builder, _requantize_part(builder, node, pending, part_target, value_range), node))
    plain = Node("Concat", "", 13, node.name, (), node.outputs, {"axis": concat.axis})
    return add_codes_operator(builder, plain, parts, [None] * len(parts), target, value_range)


def _requantize_part(
    builder: NetworkBuilder, node: Node, pending: PendingQuantized, target: ValueSpec, value_range: ValueRange
) -> PendingQuantized:
    if builder.is_accumulator(pending):
        codes = quantize_pending(builder, node, pending, target, value_range)
    else:
        codes = quantize_pointwise(builder, node, PendingPointwise(pending, ()), target, value_range)
    return replace(pending, value=codes.value, scale=target.scale, zero_point=target.zero_point, steps=())


def quantize_pointwise(
    builder: NetworkBuilder, node: Node, pointwise: PendingPointwise, target: ValueSpec, value_range: ValueRange
) -> Codes:
    """Add the LookUp with the result of every code."""
    pending, source = pointwise.source, builder.ranges[pointwise.source.value]
    x: Array = (np.arange(source.low, source.high + 1) - pending.zero_point).astype(np.float32) * pending.scale
    with np.errstate(all="ignore"):
        for step in pending.steps:
            x = step(x)
        for op in pointwise.operators:
            x = onnx_ops.apply(op.op_type, op.opset, op.attributes, [x, *op.constants])
        wide = np.clip(np.rint(x / target.scale) + np.float32(target.zero_point), value_range.low, value_range.high)
    table = np.nan_to_num(wide, nan=value_range.low).astype(np.int32).reshape(-1)
    if table.size != source.high - source.low + 1:
        raise ModelError(f"Importing {node}", "a constant before it is more than one number", "Export the model again")
    layer = LookUp(node.name, (pending.value,), target.name, table, source.low)
    shape = builder.values[pending.value].shape
    return Codes(
        builder.add_layer(layer, replace(target, shape=shape), ValueRange(int(table.min()), int(table.max()))), pending.shape
    )
