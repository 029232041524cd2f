"""Operators that move codes, and pointwise functions of one code.

Lowers them directly to integer layers, without a detour through float32. Concat, Slice, Split, Transpose, Pad and the like
move the codes; scale and zero point stay. A pointwise function between DequantizeLinear and QuantizeLinear becomes a lookup
table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer.builder import NetworkBuilder, ValueRange
from weakcell.emulator.importer.fallback import lower_float
from weakcell.emulator.importer.symbols import (
    INTEGER_RANKS,
    NO_PADS,
    Array,
    Codes,
    Constant,
    Node,
    PendingConcat,
    PendingPointwise,
    PendingQuantized,
    PointwiseOperator,
    Symbol,
)
from weakcell.emulator.importer.windows import onnx_pads
from weakcell.emulator.ir.layers import Reshape, Step
from weakcell.emulator.ir.operators import CodesOperator
from weakcell.emulator.ir.values import ValueSpec
from weakcell.memmodels.errors import ModelError

MOVES = ("Concat", "DepthToSpace", "Gather", "Pad", "Slice", "SpaceToDepth", "Split", "Transpose")
_TABLE_LIMIT = 1 << 16


# ── operators on codes ──────────────────────────────────────────────────────────────────────────────


def add_codes_operator(
    builder: NetworkBuilder,
    node: Node,
    sources: Sequence[Codes],
    operands: Sequence[Array | None],
    target: ValueSpec,
    value_range: ValueRange,
    *,
    output_index: int = 0,
) -> Codes:
    """Add an operator on codes. Its output shape is found by a run on zeros.

    Args:
        builder: the network under construction.
        node: the ONNX operator.
        sources: its inputs; their values have the ONNX shape.
        operands: all its inputs, with None for the next of `sources`.
        target: the value to make; its shape is ignored.
        value_range: of the output.
        output_index: the output of the operator that is meant.
    """
    values = [builder.values[s.value] for s in sources]
    if sum(math.prod(spec.shape) for spec in values) > 1 << 23:
        raise ModelError(f"Importing {node}", f"it moves more than {1 << 23} codes of an image", "Split the tensor")
    trial = iter([np.zeros((2, *spec.shape), spec.dtype) for spec in values])
    arrays = [next(trial) if x is None else x for x in operands]
    key = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    try:
        result = onnx_ops.apply_all(key, node.opset, node.attributes, arrays, output_index + 1)[output_index]
    except (ValueError, IndexError, TypeError, KeyError, MemoryError) as e:
        raise ModelError(f"Importing {node}", f"its inputs do not fit ({e})", "Export the model again") from None
    if result.ndim - 1 not in INTEGER_RANKS or result.shape[0] != 2 or 0 in result.shape:
        found = f"it makes codes of the shape {list(result.shape)} out of two images"
        raise ModelError(f"Importing {node}", found, "Codes are [N, K], [N, C, L] or [N, C, H, W]; quantize elsewhere")
    layer = CodesOperator(
        node.name,
        tuple(s.value for s in sources),
        target.name,
        key,
        node.opset,
        dict(node.attributes),
        tuple(operands),
        output_index,
    )
    builder.add_layer(layer, replace(target, shape=tuple(result.shape[1:])), value_range)
    return Codes(target.name, tuple(result.shape[1:]))


def lower_move(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower a moving operator on codes, or on codes that are only dequantized.

    Anything else stays float32.
    """
    names = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    symbols = [builder.symbol(name) for name in names]
    if all(isinstance(s, Codes) for s in symbols):
        sources = [PendingQuantized(s.value, s.shape, builder.values[s.value].scale) for s in symbols if isinstance(s, Codes)]
    else:
        sources = [s for s in symbols if isinstance(s, PendingQuantized) and is_uniform(builder, s)]
        if len(sources) < len(symbols):
            return lower_float(builder, node)
    if not all(_same_quantization(builder, sources[0], g) for g in sources):
        return _pending_concat(node, sources, symbols) or lower_float(builder, node)
    operands = _operands(builder, node, len(names), sources[0])
    if operands is None or (node.op_type == "Gather" and not _keeps_integer_rank(operands[1], len(sources[0].shape))):
        return lower_float(builder, node)
    return _add_moves(builder, node, [materialize_codes(builder, g, node) for g in sources], symbols[0], operands)


def _keeps_integer_rank(indices: Array | None, rank: int) -> bool:
    """Return whether a Gather makes a value of a rank that integer layers hold."""
    return indices is None or rank - 1 + indices.ndim in INTEGER_RANKS


def is_uniform(builder: NetworkBuilder, pending: PendingQuantized) -> bool:
    """Return whether one function of the codes gives every element."""
    one = pending.scale.ndim == 0 and all(step.constant.ndim == 0 for step in pending.steps)
    return one and builder.values[pending.value].kind == "codes" and pending.pool is None and pending.pads == NO_PADS


def _same_quantization(builder: NetworkBuilder, a: PendingQuantized, b: PendingQuantized) -> bool:
    types = builder.values[a.value].dtype == builder.values[b.value].dtype
    steps = [(s.op, float(s.constant)) for s in a.steps] == [(s.op, float(s.constant)) for s in b.steps]
    return types and steps and bool(a.scale == b.scale) and a.zero_point == b.zero_point


def materialize_codes(builder: NetworkBuilder, pending: PendingQuantized | Codes, node: Node) -> Codes:
    """Return codes in a value of their own ONNX shape."""
    spec = builder.values[pending.value]
    if spec.shape == pending.shape:
        return Codes(pending.value, pending.shape)
    name = builder.unique_name(f"{node.outputs[0]}.flat")
    layer = Reshape(f"{node.name}.reshape", (pending.value,), name)
    return Codes(
        builder.add_layer(layer, replace(spec, name=name, shape=pending.shape), builder.ranges.get(pending.value)), pending.shape
    )


def _operands(builder: NetworkBuilder, node: Node, count: int, pending: PendingQuantized) -> list[Array | None] | None:
    """Return the constants behind the first `count` inputs.

    None if one is computed, or a pad value is no code.
    """
    constants: list[Array | None] = []
    for name in node.inputs[count:]:
        symbol = builder.symbols[name] if name else None
        if symbol is not None and not isinstance(symbol, Constant):
            return None
        constants.append(onnx_ops.ABSENT if symbol is None else symbol.array)
    if node.op_type == "Pad":
        code = _pad_code(builder, node, constants, pending)
        if code is None:
            return None
        pads = constants[0] if constants else np.asarray(node.attributes.get("pads", node.attributes.get("paddings")), np.int64)
        constants = [pads, code, *constants[2:]]
    return [*[None] * count, *constants]


def _pad_code(builder: NetworkBuilder, node: Node, constants: list[Array | None], pending: PendingQuantized) -> Array | None:
    """Return the code of a Pad's constant; None if no code means it."""
    if not np.all(pending.scale):
        return None
    spec, value_range = builder.values[pending.value], builder.ranges[pending.value]
    if pending.scale == 0:
        return None
    given = constants[1] if len(constants) > 1 and constants[1] is not onnx_ops.ABSENT else None
    real = np.float32(node.attributes.get("value", 0.0) if given is None else given.reshape(()))
    code = (
        int(real) if isinstance(builder.symbols[node.input(0)], Codes) else int(np.rint(real / pending.scale)) + pending.zero_point
    )
    exact = isinstance(builder.symbols[node.input(0)], Codes) or np.float32(code - pending.zero_point) * pending.scale == real
    return np.asarray(code, spec.dtype) if exact and not pending.steps and value_range.low <= code <= value_range.high else None


def _add_moves(builder: NetworkBuilder, node: Node, codes: list[Codes], first: Symbol, operands: list[Array | None]) -> Symbol:
    """Add one layer per named output."""
    spec = builder.values[codes[0].value]
    value_ranges = [builder.ranges[c.value] for c in codes]
    value_range = ValueRange(min(r.low for r in value_ranges), max(r.high for r in value_ranges))
    current = replace(node, attributes=_output_attributes(node), opset=max(node.opset, 13) if node.op_type == "Pad" else node.opset)
    results: list[Symbol] = []
    for output_index, name in enumerate(node.outputs):
        target = replace(spec, name=builder.integer_name(name or f"{node.outputs[0]}.{output_index}"))
        moved = add_codes_operator(builder, current, codes, operands, target, value_range, output_index=output_index)
        results.append(replace(first, value=moved.value, shape=moved.shape) if isinstance(first, PendingQuantized) else moved)
        if name:
            builder.symbols[name] = results[-1]
    return results[0]


def _output_attributes(node: Node) -> dict[str, Any]:
    """Return the attributes, independent of the number of outputs that are named."""
    given = dict(node.attributes)
    if node.op_type == "Split" and "split" not in given and len(node.inputs) < 2:
        given.setdefault("num_outputs", len(node.outputs))
    if node.op_type == "Pad":
        given = {key: value for key, value in given.items() if key == "mode"}
    return given


def materialize_padding(builder: NetworkBuilder, pending: PendingQuantized, tensor: str) -> PendingQuantized:
    """Carry out the pending padding on the codes."""
    spec = builder.values[pending.value]
    pads = onnx_pads(pending.pads, len(spec.shape))
    node = Node("Pad", "", 13, f"{tensor}.pad", (), (tensor,), {})
    target = replace(spec, name=builder.unique_name(f"{tensor}.materialize_padding"))
    zero = np.asarray(pending.zero_point, spec.dtype)
    known = builder.ranges[pending.value]
    value_range = ValueRange(min(known.low, pending.zero_point), max(known.high, pending.zero_point))
    moved = add_codes_operator(builder, node, [Codes(pending.value, spec.shape)], [None, pads, zero], target, value_range)
    return replace(pending, value=moved.value, shape=moved.shape, pads=NO_PADS)


def _pending_concat(node: Node, sources: list[PendingQuantized], symbols: list[Symbol]) -> PendingConcat | None:
    """Return quantized tensors of different scales as a PendingConcat.

    None if the node is no Concat of them.
    """
    if node.op_type != "Concat" or any(isinstance(s, Codes) for s in symbols):
        return None
    rank = len(sources[0].shape) + 1
    axis = int(node.attributes["axis"]) % rank
    others = {(*g.shape[: axis - 1], *g.shape[axis:]) for g in sources}
    if axis == 0 or len(others) > 1 or rank - 1 not in INTEGER_RANKS:
        return None
    total = sum(g.shape[axis - 1] for g in sources)
    return PendingConcat(tuple(sources), axis, (*sources[0].shape[: axis - 1], total, *sources[0].shape[axis:]))


# ── functions of one code ───────────────────────────────────────────────────────────────────────────


def lower_pointwise(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower a pointwise operator on quantized codes.

    Pending until a QuantizeLinear follows.
    """
    symbol = builder.symbol(node.input(0))
    pointwise = PendingPointwise(symbol, ()) if isinstance(symbol, PendingQuantized) and fits_table(builder, symbol) else symbol
    if not isinstance(pointwise, PendingPointwise) or len([name for name in node.inputs if name]) > 1:
        return lower_float(builder, node)
    operator = PointwiseOperator(node.op_type, node.opset, dict(node.attributes))
    return replace(pointwise, operators=(*pointwise.operators, operator))


def fits_table(builder: NetworkBuilder, pending: PendingQuantized) -> bool:
    """Return whether a table of every code is small enough."""
    value_range = builder.ranges.get(pending.value)
    return is_uniform(builder, pending) and value_range is not None and value_range.high - value_range.low < _TABLE_LIMIT


def append_step(pointwise: PendingPointwise, step: Step) -> PendingPointwise | None:
    """Append a float step with one constant to pointwise operators.

    None if its constant varies.
    """
    if step.constant.ndim:
        return None
    return replace(pointwise, operators=(*pointwise.operators, PointwiseOperator(step.onnx_operator, 17, {}, (step.constant,))))
