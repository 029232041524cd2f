"""Rounding onto an integer grid: what a QuantizeLinear makes of the symbol before it.

Operators between DequantizeLinear and QuantizeLinear are collected symbolically. Here they become one integer layer:
a sum with an int32 bias (or none) and limits is a Requantize; a sum with float steps (a float bias, a batch norm) is an
AffineRequantize, which runs the steps as the graph writes them; two grids added are an AddCodes, a mean is an AveragePool,
pointwise operators are a LookUp.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer.builder import Draft, Reach
from weakcell.emulator.importer.integer_ops import codes_operator, movable, padded, settled_codes
from weakcell.emulator.importer.symbols import (
    INTEGER_RANKS,
    NO_PADS,
    Array,
    Codes,
    Curve,
    Grid,
    Joined,
    Mean,
    Node,
    Real,
    Sum,
    Symbol,
)
from weakcell.emulator.ir.layers import (
    AddCodes,
    AffineRequantize,
    AveragePool,
    Layer,
    LookUp,
    Quantize,
    Requantize,
    Step,
    ValueSpec,
)
from weakcell.memmodels.errors import ModelError


def quantize_to(draft: Draft, node: Node, source: Symbol, target: ValueSpec, reach: Reach, fused: bool = True) -> Codes:
    """A tensor onto the codes that `target` describes; fused: QOperator's epilogue for sums, else float32 as written."""
    if isinstance(source, Grid) and source.pads != NO_PADS and movable(draft, replace(source, pads=NO_PADS)):
        source = padded(draft, source, node.input(0))
    if isinstance(source, Grid) and source.pads == NO_PADS:
        return quantize_grid(draft, node, source, target, reach, fused)
    if isinstance(source, Sum):
        return _quantize_sum(draft, node, source, target, reach)
    if isinstance(source, Mean):
        return _quantize_mean(draft, node, source, target, reach)
    if isinstance(source, Curve):
        return quantize_curve(draft, node, source, target, reach)
    if isinstance(source, Joined):
        return quantize_joined(draft, node, source, target, reach)
    real = draft.real(node.input(0))
    layer = Quantize(node.name, (real.value,), target.name, float(target.scale), target.zero_point, reach.low, reach.high)
    return _codes(draft, layer, replace(target, shape=_held(node, real)), reach, real.shape)


def _held(node: Node, real: Real) -> tuple[int, ...]:
    if len(real.shape) not in INTEGER_RANKS or real.dtype != "float32":
        found = f"its input is {real.dtype} of the shape [N, {', '.join(map(str, real.shape))}]"
        raise ModelError(f"Importing {node}", found, "Integer layers take float32 of [N, K], [N, C, L] or [N, C, H, W]")
    return real.shape


def _codes(draft: Draft, layer: Layer, spec: ValueSpec, reach: Reach, view: tuple[int, ...]) -> Codes:
    return Codes(draft.draw(layer, spec, reach), view)


def limits(steps: tuple[Step, ...], spec: ValueSpec, reach: Reach) -> Reach:
    """The codes that scalar limits leave: rounding is monotone, so limits commute with it."""
    low, high = reach.low, reach.high
    for step in steps:
        code = int(np.clip(np.rint(step.constant / spec.scale) + np.float32(spec.zero_point), reach.low, reach.high))
        low, high = (max(low, code), max(high, code)) if step.op == "max" else (min(low, code), min(high, code))
    return Reach(low, high)


def _split(steps: tuple[Step, ...]) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """The steps before the last scalar limits, and those limits."""
    count = len(steps)
    while count and steps[count - 1].op in ("max", "min") and steps[count - 1].constant.ndim == 0:
        count -= 1
    return steps[:count], steps[count:]


def quantize_grid(draft: Draft, node: Node, grid: Grid, target: ValueSpec, reach: Reach, fused: bool = True) -> Codes:
    """A grid onto another, by the epilogue that its steps call for; the layers before stay."""
    spec = draft.values[grid.value]
    same = grid.zero_point == target.zero_point and np.array_equal(grid.scale, target.scale)
    held = draft.reach[grid.value]
    within = reach.low <= held.low and held.high <= reach.high
    if same and within and not grid.steps and grid.pool is None and spec.dtype == target.dtype:
        return Codes(grid.value, grid.shape)
    steps, ends = _split(grid.steps)
    reach = limits(ends, target, reach)
    if grid.pool is not None:
        target = replace(target, name=draft.free(f"{target.name}.unpooled"))
    target = replace(target, shape=spec.shape)
    args = (target.zero_point, reach.low, reach.high)
    layer: Layer
    if draft.accumulator(grid) and not steps and fused:
        multiplier = np.asarray(grid.scale / target.scale, np.float32)
        layer = Requantize(node.name, (grid.value,), target.name, multiplier, *args)
    else:
        bias = None
        if steps and steps[0].op == "add":
            bias, steps = steps[0].constant, steps[1:]
        out_scale = float(target.scale)
        layer = AffineRequantize(node.name, (grid.value,), target.name, grid.scale, bias, out_scale, *args, steps)
    made = _codes(draft, layer, target, reach, grid.shape)
    if grid.pool is None:
        return made
    return Codes(draft.pooled(made.value, grid.pool, node.outputs[0]), grid.shape)


def _quantize_sum(draft: Draft, node: Node, total: Sum, target: ValueSpec, reach: Reach) -> Codes:
    spec = draft.values[total.left.value]
    reach = limits(total.steps, target, reach)
    args = (float(target.scale), target.zero_point, reach.low, reach.high)
    layer = AddCodes(node.name, (total.left.value, total.right.value), target.name, *args, total.fused)
    return _codes(draft, layer, replace(target, shape=spec.shape), reach, total.shape)


def _quantize_mean(draft: Draft, node: Node, mean: Mean, target: ValueSpec, reach: Reach) -> Codes:
    reach = limits(mean.steps, target, reach)
    args = (float(target.scale), target.zero_point, reach.low, reach.high)
    layer = AveragePool(node.name, (mean.source.value,), target.name, mean.window, mean.count_include_pad, *args)
    return _codes(draft, layer, replace(target, shape=mean.pooled), reach, mean.shape)


def quantize_joined(draft: Draft, node: Node, joined: Joined, target: ValueSpec, reach: Reach) -> Codes:
    """Each part onto the target grid by a table (or its epilogue, if it is a sum), then side by side."""
    parts = []
    for i, grid in enumerate(joined.parts):
        own = replace(target, name=draft.free(f"{target.name}.part{i}"))
        parts.append(settled_codes(draft, _requantized(draft, node, grid, own, reach), node))
    plain = Node("Concat", "", 13, node.name, (), node.outputs, {"axis": joined.axis})
    return codes_operator(draft, plain, parts, [None] * len(parts), target, reach)


def _requantized(draft: Draft, node: Node, grid: Grid, target: ValueSpec, reach: Reach) -> Grid:
    if draft.accumulator(grid):
        codes = quantize_grid(draft, node, grid, target, reach)
    else:
        codes = quantize_curve(draft, node, Curve(grid, ()), target, reach)
    return replace(grid, value=codes.value, scale=target.scale, zero_point=target.zero_point, steps=())


def quantize_curve(draft: Draft, node: Node, curve: Curve, target: ValueSpec, reach: Reach) -> Codes:
    """The table of every code."""
    grid, source = curve.source, draft.reach[curve.source.value]
    x: Array = (np.arange(source.low, source.high + 1) - grid.zero_point).astype(np.float32) * grid.scale
    with np.errstate(all="ignore"):
        for step in grid.steps:
            x = step(x)
        for op_type, opset, attributes, constants in curve.operators:
            x = onnx_ops.apply(op_type, opset, attributes, [x, *constants])
        wide = np.clip(np.rint(x / target.scale) + np.float32(target.zero_point), reach.low, reach.high)
    table = np.nan_to_num(wide, nan=reach.low).astype(np.int32).reshape(-1)
    if table.size != source.high - source.low + 1:
        raise ModelError(f"Importing {node}", "a constant before it is more than one number", "Export the model again")
    layer = LookUp(node.name, (grid.value,), target.name, table, source.low)
    shape = draft.values[grid.value].shape
    return Codes(draft.draw(layer, replace(target, shape=shape), Reach(int(table.min()), int(table.max()))), grid.shape)
