"""Arithmetic on a grid with constants: remembered as float32 steps, carried out by the layer that ends the chain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer.binary import per_channel, with_level_step
from weakcell.emulator.importer.builder import Draft
from weakcell.emulator.importer.fallback import lower_float
from weakcell.emulator.importer.integer_ops import stepped_curve
from weakcell.emulator.importer.linear import LIMIT, integer_bias
from weakcell.emulator.importer.qdq import lower_clip_codes
from weakcell.emulator.importer.symbols import (
    NO_PADS,
    Codes,
    Compared,
    Constant,
    Curve,
    Floats,
    Grid,
    Mean,
    Node,
    Sum,
    Symbol,
    scalar,
)
from weakcell.emulator.ir.layers import Convolution, Step
from weakcell.memmodels.errors import ModelError

FUSED = "weakcell.fused"
"""Marks the Add of a QLinearAdd, which rounds in a way of its own."""
_OPS = {"Mul": "mul", "Add": "add", "Sub": "sub", "Div": "div", "Max": "max", "Min": "min"}


def lower_arithmetic(draft: Draft, node: Node) -> Symbol:
    """Add, Sub, Mul, Div, Max and Min: a step with a constant, or the sum of two grids."""
    if len(node.inputs) != 2:
        return lower_float(draft, node)
    left, right = (draft.symbols[name] for name in node.inputs)
    fused, node = FUSED in node.attributes, replace(node, attributes={})
    if isinstance(right, Constant):
        return _with_constant(draft, node, node.inputs[0], right, False)
    if isinstance(left, Constant):
        return _with_constant(draft, node, node.inputs[1], left, True)
    if node.op_type == "Add":
        total = _sum(draft, draft.symbol(node.inputs[0]), draft.symbol(node.inputs[1]))
        if total is not None:
            return replace(total, fused=fused)
    return lower_float(draft, node)


def _with_constant(draft: Draft, node: Node, name: str, constant: Constant, swapped: bool) -> Symbol:
    symbol = draft.symbols[name]
    if node.op_type == "Add" and isinstance(symbol, Grid):
        biased = _integer_bias(draft, node, symbol, constant)
        if biased is not None:
            return biased
    symbol = symbol if isinstance(symbol, Compared) else draft.symbol(name)
    value = None if isinstance(symbol, Constant) else per_channel(constant.array, symbol.shape)
    if value is None or constant.array.dtype != np.float32 or (swapped and node.op_type == "Div") or _grows(symbol, constant):
        return lower_float(draft, node)
    steps: list[Step] = [Step(_OPS[node.op_type], value)]  # type: ignore[arg-type]
    if swapped and node.op_type == "Sub":
        steps = [Step("mul", scalar(-1)), Step("add", value)]
    result = _stepped(draft, symbol, steps, name)
    return lower_float(draft, node) if result is None else result


def _grows(symbol: Symbol, constant: Constant) -> bool:
    """Whether broadcasting with the constant would give the result a higher rank."""
    return not isinstance(symbol, Constant) and constant.array.ndim > len(symbol.shape) + 1


def lower_unary(draft: Draft, node: Node) -> Symbol:
    """Relu, Neg and Clip."""
    name = node.input(0)
    symbol = draft.symbols[name]
    zero = scalar(0)
    if node.op_type == "Relu":
        steps = [Step("max", zero)]
    elif node.op_type == "Neg":
        steps = [Step("mul", scalar(-1))]
    else:
        given = [draft.constant(node, i) for i in (1, 2)]
        if any(c is not None and c.array.size != 1 for c in given):
            raise ModelError(f"Importing {node}", "its limits are not single numbers", "Export the model again")
        if isinstance(symbol, Codes) and draft.values[symbol.value].dtype != "int32":
            return lower_clip_codes(draft, node, symbol, *given)
        if isinstance(symbol, Codes):
            return lower_float(draft, node)  # a Requantize rounds integers above 2^24
        arrays = [None, *(None if c is None else c.array for c in given)]
        low, high = onnx_ops.clip_limits(arrays, node.attributes)
        both: list[tuple[Floats | None, str]] = [(low, "max"), (high, "min")]
        steps = [Step(op, scalar(float(x.reshape(())))) for x, op in both if x is not None]  # type: ignore[arg-type]
    if isinstance(symbol, Codes):
        return lower_float(draft, node)
    result = _stepped(draft, symbol, steps, name)
    return lower_float(draft, node) if result is None else result


def lower_batch_norm(draft: Draft, node: Node) -> Symbol:
    """BatchNormalization as a multiplication and an addition per channel, as onnxruntime computes it."""
    given = [draft.constant(node, i) for i in range(1, 5)]
    parameters = [c.array.astype(np.float32) for c in given if c is not None]
    asked = f"Importing {node}"
    if node.attributes.get("training_mode", 0) or len(parameters) != 4:
        raise ModelError(asked, "it is in training mode", "Export the model in evaluation mode")
    symbol = draft.symbol(node.input(0))
    if isinstance(symbol, Constant | Codes) or any(p.shape != (symbol.shape[0],) for p in parameters):
        shapes = [list(p.shape) for p in parameters]
        raise ModelError(asked, f"its parameters have shapes {shapes}", "One number per channel is needed; export the model again")
    with np.errstate(all="ignore"):
        factor, offset = onnx_ops.batch_norm_factors(
            parameters[0], parameters[1], parameters[2], parameters[3], float(node.attributes.get("epsilon", 1e-5))
        )
    if not (np.all(np.isfinite(factor)) and np.all(np.isfinite(offset))):
        raise ModelError(asked, "its scale or offset is not finite (NaN, or a variance below 0)", "Export the model again")
    if isinstance(symbol, Grid):
        result = _stepped(draft, symbol, [Step("mul", factor), Step("add", offset)], node.input(0))
        if result is not None:
            return result
    return lower_float(draft, node)


def _stepped(draft: Draft, symbol: Symbol, steps: list[Step], name: str) -> Symbol | None:
    """The symbol after the steps; None where a layer must carry them out."""
    given = symbol
    for step in steps:
        after = _after(draft, symbol, step, name)
        if after is None and isinstance(given, Compared) and given.levels is not None:
            return _stepped(draft, draft.symbol(name), steps, name)  # as a grid over bits: one constant per channel
        if after is None:
            return None
        symbol = after
    return symbol


def _after(draft: Draft, symbol: Symbol, step: Step, name: str) -> Symbol | None:
    if isinstance(symbol, Compared):
        return with_level_step(symbol, step)
    if isinstance(symbol, Curve):
        return stepped_curve(symbol, step)
    if isinstance(symbol, Sum | Mean):
        limit = step.op in ("max", "min") and step.constant.ndim == 0
        return replace(symbol, steps=(*symbol.steps, step)) if limit else None
    if not isinstance(symbol, Grid) or symbol.pads != NO_PADS:
        return None
    factor = step.op in ("mul", "div")
    if not np.all(np.isfinite(step.constant)) or (step.op == "div" and np.any(step.constant == 0)):
        return None
    if symbol.pool is not None and factor and np.any(step.constant < 0):
        return None
    if step.constant.ndim and draft.values[symbol.value].shape != symbol.shape:
        if symbol.pool is not None:
            return None
        symbol = draft.settled(symbol, name)
    if step.op == "mul" and not symbol.steps and np.all(symbol.scale == 1):
        return replace(symbol, scale=step.constant)
    return replace(symbol, steps=(*symbol.steps, step))


def _integer_bias(draft: Draft, node: Node, grid: Grid, constant: Constant) -> Grid | None:
    """MatMul then Add of an int32 bias on the accumulator's grid: the sum drawn again, with its bias."""
    maker = draft.makers.get(grid.value)
    spec = draft.values[grid.value]
    if not isinstance(maker, Convolution) or maker.bias is not None or grid.steps or grid.pool is not None:
        return None
    if spec.shape != grid.shape or not np.array_equal(grid.scale, spec.scale) or spec.kind != "codes":
        return None
    if per_channel(constant.array, grid.shape) is None or _grows(grid, constant):
        return None
    bias = integer_bias(constant, np.asarray(grid.scale), spec.channels)
    if bias is None:
        return None
    reach = draft.reach[grid.value]
    low, high = reach.low + int(bias.values.min()), reach.high + int(bias.values.max())
    if maker.wraps or max(-low, high) >= LIMIT:
        return None  # the graph adds floats, which do not wrap
    name = draft.free(f"{node.outputs[0]}.acc")
    layer = replace(maker, output=name, bias=draft.store(bias))
    draft.draw(layer, replace(spec, name=name), type(reach)(low, high))
    return replace(grid, value=name)


def _sum(draft: Draft, left: Symbol, right: Symbol) -> Sum | None:
    """The sum of two plain grids of codes."""
    if not isinstance(left, Grid) or not isinstance(right, Grid) or left.shape != right.shape:
        return None
    for grid in (left, right):
        plain = not grid.steps and grid.pool is None and grid.pads == NO_PADS and grid.scale.ndim == 0
        if not plain or draft.accumulator(grid) or draft.values[grid.value].kind != "codes":
            return None
    if draft.values[left.value].shape != draft.values[right.value].shape:
        return None
    return Sum(left, right)
