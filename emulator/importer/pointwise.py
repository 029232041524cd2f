"""Arithmetic of quantized tensors with constants: recorded as float32 steps.

The layer at the end of the chain runs the steps, in the order of the file.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer.binary import per_channel, with_level_step
from weakcell.emulator.importer.builder import NetworkBuilder
from weakcell.emulator.importer.fallback import lower_float
from weakcell.emulator.importer.integer_ops import append_step
from weakcell.emulator.importer.linear import LIMIT, integer_bias
from weakcell.emulator.importer.qdq import lower_clip_codes
from weakcell.emulator.importer.symbols import (
    NO_PADS,
    Codes,
    Constant,
    Floats,
    Node,
    PendingComparison,
    PendingMean,
    PendingPointwise,
    PendingQuantized,
    PendingSum,
    Symbol,
    scalar,
)
from weakcell.emulator.ir.layers import Convolution, Step
from weakcell.memmodels.errors import ModelError

FUSED = "weakcell.fused"
"""Attribute that marks the Add of a QLinearAdd, which has a rounding of its own."""
_OPS = {"Mul": "mul", "Add": "add", "Sub": "sub", "Div": "div", "Max": "max", "Min": "min"}


def lower_arithmetic(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower Add, Sub, Mul, Div, Max or Min.

    A step with a constant, or the sum of two quantized tensors.
    """
    if len(node.inputs) != 2:
        return lower_float(builder, node)
    left, right = (builder.symbols[name] for name in node.inputs)
    fused, node = FUSED in node.attributes, replace(node, attributes={})
    if isinstance(right, Constant):
        return _with_constant(builder, node, node.inputs[0], right, False)
    if isinstance(left, Constant):
        return _with_constant(builder, node, node.inputs[1], left, True)
    if node.op_type == "Add":
        total = _add_pending(builder, builder.symbol(node.inputs[0]), builder.symbol(node.inputs[1]))
        if total is not None:
            return replace(total, fused=fused)
    return lower_float(builder, node)


def _with_constant(builder: NetworkBuilder, node: Node, name: str, constant: Constant, swapped: bool) -> Symbol:
    symbol = builder.symbols[name]
    if node.op_type == "Add" and isinstance(symbol, PendingQuantized):
        biased = _integer_bias(builder, node, symbol, constant)
        if biased is not None:
            return biased
    symbol = symbol if isinstance(symbol, PendingComparison) else builder.symbol(name)
    value = None if isinstance(symbol, Constant) else per_channel(constant.array, symbol.shape)
    if value is None or constant.array.dtype != np.float32 or (swapped and node.op_type == "Div") or _raises_rank(symbol, constant):
        return lower_float(builder, node)
    steps: list[Step] = [Step(_OPS[node.op_type], value)]  # type: ignore[arg-type]
    if swapped and node.op_type == "Sub":
        steps = [Step("mul", scalar(-1)), Step("add", value)]
    result = _apply_steps(builder, symbol, steps, name)
    return lower_float(builder, node) if result is None else result


def _raises_rank(symbol: Symbol, constant: Constant) -> bool:
    """Return whether a broadcast with the constant gives the result a higher rank."""
    return not isinstance(symbol, Constant) and constant.array.ndim > len(symbol.shape) + 1


def lower_unary(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower Relu, Neg or Clip."""
    name = node.input(0)
    symbol = builder.symbols[name]
    zero = scalar(0)
    if node.op_type == "Relu":
        steps = [Step("max", zero)]
    elif node.op_type == "Neg":
        steps = [Step("mul", scalar(-1))]
    else:
        given = [builder.constant(node, i) for i in (1, 2)]
        if any(c is not None and c.array.size != 1 for c in given):
            raise ModelError(f"Importing {node}", "its limits are not single numbers", "Export the model again")
        if isinstance(symbol, Codes) and builder.values[symbol.value].dtype != "int32":
            return lower_clip_codes(builder, node, symbol, *given)
        if isinstance(symbol, Codes):
            return lower_float(builder, node)  # a Requantize rounds integers above 2^24
        arrays = [None, *(None if c is None else c.array for c in given)]
        low, high = onnx_ops.clip_limits(arrays, node.attributes)
        both: list[tuple[Floats | None, str]] = [(low, "max"), (high, "min")]
        steps = [Step(op, scalar(float(x.reshape(())))) for x, op in both if x is not None]  # type: ignore[arg-type]
    if isinstance(symbol, Codes):
        return lower_float(builder, node)
    result = _apply_steps(builder, symbol, steps, name)
    return lower_float(builder, node) if result is None else result


def lower_batch_norm(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower BatchNormalization to Mul and Add per channel, as onnxruntime does."""
    given = [builder.constant(node, i) for i in range(1, 5)]
    parameters = [c.array.astype(np.float32) for c in given if c is not None]
    asked = f"Importing {node}"
    if node.attributes.get("training_mode", 0) or len(parameters) != 4:
        raise ModelError(asked, "it is in training mode", "Export the model in evaluation mode")
    symbol = builder.symbol(node.input(0))
    if isinstance(symbol, Constant | Codes) or any(p.shape != (symbol.shape[0],) for p in parameters):
        shapes = [list(p.shape) for p in parameters]
        raise ModelError(asked, f"its parameters have shapes {shapes}", "One number per channel is needed; export the model again")
    with np.errstate(all="ignore"):
        factor, offset = onnx_ops.batch_norm_factors(
            parameters[0], parameters[1], parameters[2], parameters[3], float(node.attributes.get("epsilon", 1e-5))
        )
    if not (np.all(np.isfinite(factor)) and np.all(np.isfinite(offset))):
        raise ModelError(asked, "its scale or offset is not finite (NaN, or a variance below 0)", "Export the model again")
    if isinstance(symbol, PendingQuantized):
        result = _apply_steps(builder, symbol, [Step("mul", factor), Step("add", offset)], node.input(0))
        if result is not None:
            return result
    return lower_float(builder, node)


def _apply_steps(builder: NetworkBuilder, symbol: Symbol, steps: list[Step], name: str) -> Symbol | None:
    """Return the symbol after the steps; None if a layer must carry them out."""
    given = symbol
    for step in steps:
        after = _apply_step(builder, symbol, step, name)
        if after is None and isinstance(given, PendingComparison) and given.levels is not None:
            return _apply_steps(builder, builder.symbol(name), steps, name)  # as bits, which take one constant per channel
        if after is None:
            return None
        symbol = after
    return symbol


def _apply_step(builder: NetworkBuilder, symbol: Symbol, step: Step, name: str) -> Symbol | None:
    if isinstance(symbol, PendingComparison):
        return with_level_step(symbol, step)
    if isinstance(symbol, PendingPointwise):
        return append_step(symbol, step)
    if isinstance(symbol, PendingSum | PendingMean):
        limit = step.op in ("max", "min") and step.constant.ndim == 0
        return replace(symbol, steps=(*symbol.steps, step)) if limit else None
    if not isinstance(symbol, PendingQuantized) or symbol.pads != NO_PADS:
        return None
    factor = step.op in ("mul", "div")
    if not np.all(np.isfinite(step.constant)) or (step.op == "div" and np.any(step.constant == 0)):
        return None
    if symbol.pool is not None and factor and np.any(step.constant < 0):
        return None
    if step.constant.ndim and builder.values[symbol.value].shape != symbol.shape:
        if symbol.pool is not None:
            return None
        symbol = builder.materialize_view(symbol, name)
    if step.op == "mul" and not symbol.steps and np.all(symbol.scale == 1):
        return replace(symbol, scale=step.constant)
    return replace(symbol, steps=(*symbol.steps, step))


def _integer_bias(builder: NetworkBuilder, node: Node, pending: PendingQuantized, constant: Constant) -> PendingQuantized | None:
    """Add an int32 bias to the sum of a MatMul.

    The Convolution is added again, with its bias.
    """
    maker = builder.makers.get(pending.value)
    spec = builder.values[pending.value]
    if not isinstance(maker, Convolution) or maker.bias is not None or pending.steps or pending.pool is not None:
        return None
    if spec.shape != pending.shape or not np.array_equal(pending.scale, spec.scale) or spec.kind != "codes":
        return None
    if per_channel(constant.array, pending.shape) is None or _raises_rank(pending, constant):
        return None
    bias = integer_bias(constant, np.asarray(pending.scale), spec.channels)
    if bias is None:
        return None
    value_range = builder.ranges[pending.value]
    low, high = value_range.low + int(bias.values.min()), value_range.high + int(bias.values.max())
    if maker.wraps or max(-low, high) >= LIMIT:
        return None  # the graph adds floats, which do not wrap
    name = builder.unique_name(f"{node.outputs[0]}.acc")
    layer = replace(maker, output=name, bias=builder.stored.store(bias))
    builder.add_layer(layer, replace(spec, name=name), type(value_range)(low, high))
    return replace(pending, value=name)


def _add_pending(builder: NetworkBuilder, left: Symbol, right: Symbol) -> PendingSum | None:
    """Return the pending sum of two quantized tensors; None if they are anything else."""
    if not isinstance(left, PendingQuantized) or not isinstance(right, PendingQuantized) or left.shape != right.shape:
        return None
    for pending in (left, right):
        plain = not pending.steps and pending.pool is None and pending.pads == NO_PADS and pending.scale.ndim == 0
        if not plain or builder.is_accumulator(pending) or builder.values[pending.value].kind != "codes":
            return None
    if builder.values[left.value].shape != builder.values[right.value].shape:
        return None
    return PendingSum(left, right)
