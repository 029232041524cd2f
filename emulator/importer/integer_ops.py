"""What moves codes, and what is any function of one code: exact layers beneath a grid, so that no float is made between.

Moving operators (Concat, Slice, Split, Transpose, Pad, …) act on the codes themselves; the grid stays. A pointwise function
between DequantizeLinear and QuantizeLinear becomes a table of every code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer.builder import Draft, Reach, onnx_pads
from weakcell.emulator.importer.fallback import lower_float
from weakcell.emulator.importer.symbols import INTEGER_RANKS, NO_PADS, Array, Codes, Constant, Curve, Grid, Joined, Node, Symbol
from weakcell.emulator.ir.layers import CodesOperator, Reshape, Step, ValueSpec
from weakcell.memmodels.errors import ModelError

MOVES = ("Concat", "DepthToSpace", "Gather", "Pad", "Slice", "SpaceToDepth", "Split", "Transpose")
_TABLE_LIMIT = 1 << 16


# ── operators on codes ──────────────────────────────────────────────────────────────────────────────


def codes_operator(
    draft: Draft,
    node: Node,
    sources: Sequence[Codes],
    operands: Sequence[Array | None],
    target: ValueSpec,
    reach: Reach,
    place: int = 0,
) -> Codes:
    """Draw an operator on codes that lie in their own shapes; its shape is found by a trial on zeros."""
    values = [draft.values[s.value] for s in sources]
    if sum(math.prod(spec.shape) for spec in values) > 1 << 23:
        raise ModelError(f"Importing {node}", f"it moves more than {1 << 23} codes of an image", "Split the tensor")
    trial = iter([np.zeros((2, *spec.shape), spec.dtype) for spec in values])
    arrays = [next(trial) if x is None else x for x in operands]
    key = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    try:
        made = onnx_ops.apply_all(key, node.opset, node.attributes, arrays, place + 1)[place]
    except (ValueError, IndexError, TypeError, KeyError, MemoryError) as e:
        raise ModelError(f"Importing {node}", f"its inputs do not fit ({e})", "Export the model again") from None
    if made.ndim - 1 not in INTEGER_RANKS or made.shape[0] != 2 or 0 in made.shape:
        found = f"it makes codes of the shape {list(made.shape)} out of two images"
        raise ModelError(f"Importing {node}", found, "Codes are [N, K], [N, C, L] or [N, C, H, W]; quantize elsewhere")
    layer = CodesOperator(
        node.name, tuple(s.value for s in sources), target.name, key, node.opset, dict(node.attributes), tuple(operands), place
    )
    draft.draw(layer, replace(target, shape=tuple(made.shape[1:])), reach)
    return Codes(target.name, tuple(made.shape[1:]))


def lower_move(draft: Draft, node: Node) -> Symbol:
    """A moving operator on codes or on plain grids; on anything else it stays float."""
    names = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    symbols = [draft.symbol(name) for name in names]
    if all(isinstance(s, Codes) for s in symbols):
        grids = [Grid(s.value, s.shape, draft.values[s.value].scale) for s in symbols if isinstance(s, Codes)]
    else:
        grids = [s for s in symbols if isinstance(s, Grid) and movable(draft, s)]
        if len(grids) < len(symbols):
            return lower_float(draft, node)
    if not all(_same(draft, grids[0], g) for g in grids):
        return _joined(node, grids, symbols) or lower_float(draft, node)
    operands = _operands(draft, node, len(names), grids[0])
    if operands is None or (node.op_type == "Gather" and not _gathers(operands[1], len(grids[0].shape))):
        return lower_float(draft, node)
    return _moved(draft, node, [settled_codes(draft, g, node) for g in grids], symbols[0], operands)


def _gathers(indices: Array | None, rank: int) -> bool:
    """Whether a Gather with these indices makes a value of a rank that integer layers hold."""
    return indices is None or rank - 1 + indices.ndim in INTEGER_RANKS


def movable(draft: Draft, grid: Grid) -> bool:
    """Whether all of a grid is one function of its codes, the same for every element."""
    one = grid.scale.ndim == 0 and all(step.constant.ndim == 0 for step in grid.steps)
    return one and draft.values[grid.value].kind == "codes" and grid.pool is None and grid.pads == NO_PADS


def _same(draft: Draft, a: Grid, b: Grid) -> bool:
    types = draft.values[a.value].dtype == draft.values[b.value].dtype
    steps = [(s.op, float(s.constant)) for s in a.steps] == [(s.op, float(s.constant)) for s in b.steps]
    return types and steps and bool(a.scale == b.scale) and a.zero_point == b.zero_point


def settled_codes(draft: Draft, grid: Grid | Codes, node: Node) -> Codes:
    """Codes in a value of their own ONNX shape."""
    spec = draft.values[grid.value]
    if spec.shape == grid.shape:
        return Codes(grid.value, grid.shape)
    name = draft.free(f"{node.outputs[0]}.flat")
    layer = Reshape(f"{node.name}.reshape", (grid.value,), name)
    return Codes(draft.draw(layer, replace(spec, name=name, shape=grid.shape), draft.reach.get(grid.value)), grid.shape)


def _operands(draft: Draft, node: Node, count: int, grid: Grid) -> list[Array | None] | None:
    """The constants behind the first `count` inputs; None where an input is no constant or a pad value no code."""
    rest: list[Array | None] = []
    for name in node.inputs[count:]:
        symbol = draft.symbols[name] if name else None
        if symbol is not None and not isinstance(symbol, Constant):
            return None
        rest.append(onnx_ops.ABSENT if symbol is None else symbol.array)
    if node.op_type == "Pad":
        code = _pad_code(draft, node, rest, grid)
        if code is None:
            return None
        pads = rest[0] if rest else np.asarray(node.attributes.get("pads", node.attributes.get("paddings")), np.int64)
        rest = [pads, code, *rest[2:]]
    return [*[None] * count, *rest]


def _pad_code(draft: Draft, node: Node, rest: list[Array | None], grid: Grid) -> Array | None:
    """The code that a Pad's constant is on the grid; None where there is none."""
    if not np.all(grid.scale):
        return None
    spec, reach = draft.values[grid.value], draft.reach[grid.value]
    if grid.scale == 0:
        return None
    given = rest[1] if len(rest) > 1 and rest[1] is not onnx_ops.ABSENT else None
    real = np.float32(node.attributes.get("value", 0.0) if given is None else given.reshape(()))
    code = int(real) if isinstance(draft.symbols[node.input(0)], Codes) else int(np.rint(real / grid.scale)) + grid.zero_point
    exact = isinstance(draft.symbols[node.input(0)], Codes) or np.float32(code - grid.zero_point) * grid.scale == real
    return np.asarray(code, spec.dtype) if exact and not grid.steps and reach.low <= code <= reach.high else None


def _moved(draft: Draft, node: Node, codes: list[Codes], first: Symbol, operands: list[Array | None]) -> Symbol:
    """One layer per output that somebody names."""
    spec = draft.values[codes[0].value]
    reaches = [draft.reach[c.value] for c in codes]
    reach = Reach(min(r.low for r in reaches), max(r.high for r in reaches))
    plain = replace(node, attributes=_current(node), opset=max(node.opset, 13) if node.op_type == "Pad" else node.opset)
    made: list[Symbol] = []
    for place, name in enumerate(node.outputs):
        target = replace(spec, name=draft.integer_name(name or f"{node.outputs[0]}.{place}"))
        moved = codes_operator(draft, plain, codes, operands, target, reach, place)
        made.append(replace(first, value=moved.value, shape=moved.shape) if isinstance(first, Grid) else moved)
        if name:
            draft.symbols[name] = made[-1]
    return made[0]


def _current(node: Node) -> dict[str, Any]:
    """Attributes that do not depend on how many outputs are asked for."""
    given = dict(node.attributes)
    if node.op_type == "Split" and "split" not in given and len(node.inputs) < 2:
        given.setdefault("num_outputs", len(node.outputs))
    if node.op_type == "Pad":
        given = {key: value for key, value in given.items() if key == "mode"}
    return given


def padded(draft: Draft, grid: Grid, tensor: str) -> Grid:
    """A grid of codes whose pending padding is carried out on the codes."""
    spec = draft.values[grid.value]
    pads = onnx_pads(grid.pads, len(spec.shape))
    node = Node("Pad", "", 13, f"{tensor}.pad", (), (tensor,), {})
    target = replace(spec, name=draft.free(f"{tensor}.padded"))
    zero = np.asarray(grid.zero_point, spec.dtype)
    known = draft.reach[grid.value]
    reach = Reach(min(known.low, grid.zero_point), max(known.high, grid.zero_point))
    moved = codes_operator(draft, node, [Codes(grid.value, spec.shape)], [None, pads, zero], target, reach)
    return replace(grid, value=moved.value, shape=moved.shape, pads=NO_PADS)


def _joined(node: Node, grids: list[Grid], symbols: list[Symbol]) -> Joined | None:
    """Grids of different scales side by side, for the QuantizeLinear that may follow."""
    if node.op_type != "Concat" or any(isinstance(s, Codes) for s in symbols):
        return None
    rank = len(grids[0].shape) + 1
    axis = int(node.attributes["axis"]) % rank
    others = {(*g.shape[: axis - 1], *g.shape[axis:]) for g in grids}
    if axis == 0 or len(others) > 1 or rank - 1 not in INTEGER_RANKS:
        return None
    total = sum(g.shape[axis - 1] for g in grids)
    return Joined(tuple(grids), axis, (*grids[0].shape[: axis - 1], total, *grids[0].shape[axis:]))


# ── functions of one code ───────────────────────────────────────────────────────────────────────────


def lower_curve(draft: Draft, node: Node) -> Symbol:
    """A pointwise operator on a grid of few codes, kept for the QuantizeLinear that may follow."""
    symbol = draft.symbol(node.input(0))
    curve = Curve(symbol, ()) if isinstance(symbol, Grid) and tabular(draft, symbol) else symbol
    if not isinstance(curve, Curve) or len([name for name in node.inputs if name]) > 1:
        return lower_float(draft, node)
    operator = (node.op_type, node.opset, dict(node.attributes), ())
    return replace(curve, operators=(*curve.operators, operator))


def tabular(draft: Draft, grid: Grid) -> bool:
    """Whether a table of every code of the grid is small enough."""
    reach = draft.reach.get(grid.value)
    return movable(draft, grid) and reach is not None and reach.high - reach.low < _TABLE_LIMIT


def stepped_curve(curve: Curve, step: Step) -> Curve | None:
    """A curve after a float step with one constant."""
    if step.constant.ndim:
        return None
    return replace(curve, operators=(*curve.operators, (step.onnx_operator, 17, {}, (step.constant,))))
