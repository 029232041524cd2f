"""Where the batch is: nodes on tensors whose first axis counts images, and on all others.

A network is imported for one image: the batch of the file has size 1. Every value holds a copy of a tensor for each image of
a run, (n, *shape). If the first axis of an ONNX tensor is the batch, the tensor is [1, *shape], and operators read the
array (n, *shape) as the tensor of a batch of n. `NetworkBuilder.unbatched` names all other tensors: heads folded into the
batch, sequences with the time first, scalars. Their ONNX shape is `shape` itself. A node that reads or makes one is written
anew for tensors with one more axis in front, which is the batch then. A node that cannot be written so runs image by image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer.builder import NetworkBuilder
from weakcell.emulator.importer.dynamic import lower_dynamic, with_plain_inputs
from weakcell.emulator.importer.fallback import LosesBatch, lower_each_image
from weakcell.emulator.importer.fixed_batch import note_batch
from weakcell.emulator.importer.folding import fold
from weakcell.emulator.importer.shape_ops import SHAPES, reshape_in_place, reshape_symbol
from weakcell.emulator.importer.symbols import Array, Constant, DynamicQuantized, Node
from weakcell.memmodels.errors import ModelError

Shape = tuple[int, ...]
Lower = Callable[[NetworkBuilder, Node], None]

_BROADCAST = {
    "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "PRelu", "Sub", "Sum", "Where", "Xor",
}  # fmt: skip
"""Operators whose inputs are broadcast to one shape."""

_UNARY = {
    "BitwiseNot", "Cast", "CastLike", "Clip", "Dropout", "DynamicQuantizeLinear", "Identity", "IsInf", "IsNaN", "Not", "Quant",
    "BipolarQuant", "Trunc", "MatMulNBits",
}  # fmt: skip
"""Operators that do the same on a tensor with one more axis in front, besides those of one element."""

_AXIS = {
    "ArgMax": 0, "ArgMin": 0, "Concat": 0, "DequantizeLinear": 1, "Gather": 0, "GatherElements": 0, "Hardmax": -1,
    "LayerNormalization": -1, "LogSoftmax": -1, "LpNormalization": -1, "QuantizeLinear": 1, "RMSNormalization": -1,
    "Scatter": 0, "ScatterElements": 0, "SimplifiedLayerNormalization": -1, "Softmax": -1, "Split": 0, "TopK": -1,
}  # fmt: skip
"""Operators with an attribute `axis`, and its default; that of Softmax and its kin is 1 before opset 13."""


def lower_node(builder: NetworkBuilder, node: Node, lower: Lower) -> None:
    """Lower a node, and note if the first axis of its outputs need not be the batch; see `_lower_anywhere`."""
    _lower_anywhere(builder, node, lower)
    computed = [name for name in node.inputs if name and not isinstance(builder.symbols[name], Constant)]
    if any(name in builder.unbatched or name in builder.strayed for name in computed) or _moves_batch(builder, node):
        builder.strayed.update(node.outputs)
    if builder.batch is not None and builder.batch > 1:
        note_batch(builder, node)


def _moves_batch(builder: NetworkBuilder, node: Node) -> bool:
    """Return whether a first axis of size 1 of the output may be another axis than the batch, though that of the input is not."""
    if node.domain or node.op_type not in ("Transpose", *SHAPES):
        return False
    if node.op_type == "Transpose":
        return int(node.attributes.get("perm", [-1])[0]) != 0
    if node.op_type == "Reshape":
        target = _numbers(builder, node, 1, "shape")
        return target is None or target[:1] == [1]
    if node.op_type == "Flatten":
        return int(node.attributes.get("axis", 1)) != 1
    axes = _numbers(builder, node, 1, "axes")
    return axes is None or any(axis == 0 or axis == -len(builder.onnx_shape(node.outputs[0])) for axis in axes)


def _lower_anywhere(builder: NetworkBuilder, node: Node, lower: Lower) -> None:
    """Lower a node, wherever the batch of its inputs and outputs is.

    Args:
        builder: the network under construction.
        node: the node; one of its inputs is computed at run time.
        lower: lowers a node whose computed inputs and outputs have the batch first.
    """
    read = {name: builder.symbols[name] for name in node.inputs if name}
    if any(isinstance(symbol, DynamicQuantized) for symbol in read.values()):
        symbol = lower_dynamic(builder, node)
        if symbol is not None:
            builder.symbols[node.outputs[0]] = symbol
            if all(name in builder.unbatched or isinstance(x, Constant) for name, x in read.items()):
                builder.unbatched.add(node.outputs[0])
            return
        node = with_plain_inputs(builder, node)
    if node.op_type in (*SHAPES, "Shape", "Size") and not node.domain:
        lower(builder, node)  # it knows where the batch is
        return
    if not any(name in builder.unbatched for name in node.inputs):
        aligned = _align(builder, node)
        if aligned is not None:
            try:
                lower(builder, aligned)
            except LosesBatch:
                pass
            else:
                return
    if node.op_type == "Gemm" and not node.domain:
        for part in _gemm_parts(builder, node):
            lower_node(builder, part, lower) if _is_computed(builder, part) else lower(builder, part)
        return
    lifted = _lift(builder, node)
    if lifted is None:
        lower_each_image(builder, _with_own_shapes(builder, node))
    else:
        lower(builder, lifted)
    for name in node.outputs:
        if name in builder.symbols:
            settle_batch(builder, name)


def _is_computed(builder: NetworkBuilder, node: Node) -> bool:
    return not all(isinstance(builder.symbols[name], Constant) for name in node.inputs if name)


def settle_batch(builder: NetworkBuilder, name: str) -> None:
    """Make the first axis of a new tensor the batch if it has size 1; otherwise note that it is not.

    The symbol of the tensor has the whole ONNX shape of one image.
    """
    shape = builder.symbols[name].shape  # type: ignore[union-attr]
    if shape[:1] != (1,):
        builder.unbatched.add(name)
        return
    reshape_in_place(builder, name, shape[1:])


def is_image_major(builder: NetworkBuilder, nodes: Sequence[Node], name: str) -> bool:
    """Return whether the first axis of a tensor counts image after image: whether only shape operators folded it from the batch.

    Args:
        builder: the network under construction.
        nodes: those of the graph that are computed at run time.
        name: a tensor whose first axis is not the batch.
    """
    makers = {output: node for node in nodes for output in node.outputs}
    while name in builder.unbatched:
        node = makers.get(name)
        keeps = node is not None and (node.op_type in (*SHAPES, *_BROADCAST, *_UNARY) or node.op_type in onnx_ops.POINTWISE)
        matrix = node is not None and node.op_type in ("Gemm", "MatMul", "Softmax", "LayerNormalization")
        if node is None or not (keeps or matrix):
            return False
        computed = [x for x in node.inputs if x and not isinstance(builder.symbols[x], Constant)]
        name = next((x for x in computed if x in builder.unbatched and builder.onnx_shape(x)), computed[0])
    return True


# ── nodes that keep the batch first ─────────────────────────────────────────────────────────────────


def _align(builder: NetworkBuilder, node: Node) -> Node | None:
    """Return the node with computed inputs of one rank, where it broadcasts them; None if its output loses the batch.

    The first axis of all computed inputs is the batch.
    """
    op, shapes = node.op_type, [builder.onnx_shape(name) if name else () for name in node.inputs]
    computed = [i for i, name in enumerate(node.inputs) if name and not isinstance(builder.symbols[name], Constant)]
    constant = [i for i, name in enumerate(node.inputs) if name and i not in computed]
    if node.domain:
        return node
    if op in _BROADCAST or op == "MatMul":
        rank = max(len(shape) for shape in shapes)
        leads = all(len(shapes[i]) < rank or shapes[i][0] == 1 for i in constant)
        if not leads and any(len(shapes[i]) == rank for i in computed) and op != "MatMul":
            _refuse_mixing(builder, node)
        if op == "MatMul":  # its last two axes are those of the product; the batch may be the rows of the first matrix
            matrices = computed == [0] and len(shapes[0]) == rank == 2
            leads = matrices or (leads and rank > 2 and all(len(shapes[i]) > 1 for i in computed))
            if rank == 2 and not matrices:
                _refuse_mixing(builder, node)
        return _with_shapes(builder, node, computed, rank, axes=0) if leads else None
    if op == "Gemm":
        plain = computed == [0] and not node.attributes.get("transA", 0)
        if not plain:
            _refuse_mixing(builder, node)
        return node if plain and all(len(shapes[i]) < 2 or shapes[i][0] == 1 for i in constant if i == 2) else None
    if op == "Gather" and computed != [0]:
        return node if computed == [1] and _axis(node) % len(shapes[0]) == 0 else None
    if op in ("GatherElements", "Scatter", "ScatterElements", "GatherND", "ScatterND") and constant:
        return None
    if op == "Expand":
        target = _numbers(builder, node, 1)
        if target is None:
            return None
        full = np.broadcast_shapes(shapes[0], tuple(target))
        return _with_shapes(builder, node, [0], len(full), axes=0) if full[0] == 1 else None
    touched = _touched_axes(builder, node, len(shapes[computed[0]]))
    if touched is not None and 0 in touched and op not in ("Concat", "GatherND", "ScatterND", "Split", "Transpose"):
        _refuse_mixing(builder, node)
    return None if touched is None or 0 in touched else node


def _refuse_mixing(builder: NetworkBuilder, node: Node) -> None:
    """Refuse a node that computes along the batch, unless the file has a batch of 1."""
    if builder.batch != 1 and not any(name in builder.strayed for name in node.inputs):
        found = "it computes along the batch, its first dimension, so that the result of an image would depend on the others"
        do = "Export the model with the batch as first dimension and this operator behind it. If that dimension is not the batch, "
        raise ModelError(f"Importing {node}", found, do + "name its size: --shape NAME=SIZE, in Python shapes={NAME: SIZE}")


def _touched_axes(builder: NetworkBuilder, node: Node, rank: int) -> set[int] | None:
    """Return the axes over which a node computes, counted from 0; None if they are not known before any data."""
    op = node.op_type
    if op in _AXIS:
        per_tensor = op in ("QuantizeLinear", "DequantizeLinear") and math.prod(builder.onnx_shape(node.input(1))) == 1
        return set() if per_tensor else {_axis(node) % rank}
    if op.startswith("Reduce"):
        axes = _numbers(builder, node, 1, "axes")
        every = axes is None or (not axes and not node.attributes.get("noop_with_empty_axes", 0))
        return set(range(rank)) if every or axes is None else {axis % rank for axis in axes}
    if op == "CumSum":
        axes = _numbers(builder, node, 1)
        return None if axes is None else {axis % rank for axis in axes}
    if op == "MeanVarianceNormalization":
        return {axis % rank for axis in node.attributes.get("axes", (0, 2, 3))}
    if (op == "Trilu" and rank == 2) or op == "ScatterND":
        return {0}
    if op == "GatherND":
        return {int(node.attributes.get("batch_dims", 0))}
    if op == "ReverseSequence":
        return {1 if int(node.attributes.get("batch_axis", 1)) == 0 else 0}
    if op == "Transpose":
        perm = node.attributes.get("perm", range(rank)[::-1])
        return {i for i, axis in enumerate(perm) if i != axis}
    if op == "Slice":
        parts = _slice_parts(builder, node, rank)
        whole = (0, 1)  # of a batch of 1
        return None if parts is None else {a for a, start, end, step in parts if a or (start, min(end, 1)) != whole or step != 1}
    if op == "Pad":
        pads = _pads(builder, node, rank)
        return None if pads is None else {axis for axis, pair in enumerate(pads) if pair != (0, 0)}
    if op == "Tile":
        repeats = _numbers(builder, node, 1)
        return None if repeats is None else {axis for axis, count in enumerate(repeats) if count != 1}
    return set()


# ── nodes for tensors with one more axis in front ─────────────────────────────────────────────────────


def _lift(builder: NetworkBuilder, node: Node) -> Node | None:
    """Return the node for inputs and outputs with one more axis in front; None if it cannot be written so."""
    op, shapes = node.op_type, [builder.onnx_shape(name) if name else () for name in node.inputs]
    computed = [i for i, name in enumerate(node.inputs) if name and not isinstance(builder.symbols[name], Constant)]
    rank = max(len(shape) for shape in shapes)
    if op in _BROADCAST:
        return _with_shapes(builder, node, computed, rank)
    if op == "MatMul":
        return _with_shapes(builder, node, computed, rank) if min(len(shape) for shape in shapes[:2]) > 1 else None
    own = len(shapes[0])
    if op in _UNARY or op in onnx_ops.POINTWISE:
        return _with_shapes(builder, node, computed, own) if computed == [0] else None
    if op == "Gather" and computed == [1]:
        return _with_shapes(builder, node, computed, len(shapes[1])) if _axis(node) % own == 0 else None
    if op == "Concat":
        node = _lift_constants(builder, node, [i for i in range(len(node.inputs)) if i not in computed])
    elif op in ("GatherElements", "ScatterElements"):
        if len(computed) < len(node.inputs):
            return None
    elif computed != [0]:
        return None
    lifted = _with_axes(builder, node, own)
    return None if lifted is None else _with_shapes(builder, lifted, computed, own)


def _with_axes(builder: NetworkBuilder, node: Node, rank: int) -> Node | None:
    """Return the node with its axes counted on a tensor of one more axis in front."""
    op, given = node.op_type, node.attributes
    if op in ("QuantizeLinear", "DequantizeLinear") and not _touched_axes(builder, node, rank):
        return node
    if op in _AXIS:
        axis = _axis(node)
        return replace(node, attributes={**given, "axis": axis + 1 if axis >= 0 else axis})
    touched = _touched_axes(builder, node, rank)
    if op.startswith("Reduce"):
        axes = sorted(axis + 1 for axis in touched or ())
        if node.opset >= 18 or (op == "ReduceSum" and node.opset >= 13):
            return _with_numbers(builder, replace(node, attributes={**given, "noop_with_empty_axes": 1}), 1, axes)
        return replace(node, attributes={**given, "axes": axes}) if axes else None
    if op == "CumSum":
        axes = _numbers(builder, node, 1) or []
        return _with_numbers(builder, node, 1, int(axes[0]) + 1 if axes[0] >= 0 else int(axes[0])) if axes else None
    if op == "Transpose":
        perm = given.get("perm", range(rank)[::-1])
        return replace(node, attributes={**given, "perm": [0, *(axis + 1 for axis in perm)]})
    if op == "Slice":
        parts = _slice_parts(builder, node, rank)
        if parts is None:
            return None
        plain = replace(node, opset=max(node.opset, 13), inputs=node.inputs[:1], attributes={})
        for index, column in enumerate(zip(*((start, end, a + 1, step) for a, start, end, step in parts), strict=True), 1):
            plain = _with_numbers(builder, plain, index, list(column))
        return plain
    if op == "Pad":
        pads = _pads(builder, node, rank)
        if pads is None:
            return None
        flat = [0, *(before for before, _ in pads), 0, *(after for _, after in pads)]
        if node.opset < 11:
            return replace(node, attributes={**{k: v for k, v in given.items() if k != "paddings"}, "pads": flat})
        return _with_numbers(builder, replace(node, inputs=node.inputs[:3]), 1, flat)
    if op in ("Expand", "Tile"):
        numbers = _numbers(builder, node, 1)
        if numbers is None:
            return None
        if op == "Expand":
            numbers = [1] * (rank - len(numbers)) + numbers
            if len(numbers) > rank:
                return None
        return _with_numbers(builder, node, 1, [1, *numbers])
    return None


def _gemm_parts(builder: NetworkBuilder, node: Node) -> list[Node]:
    """Return a Gemm as MatMul and Add, which take any rank."""
    name, given = node.outputs[0], node.attributes
    a, b, c = node.input(0), node.input(1), node.input(2)
    parts: list[Node] = []

    def add(op: str, suffix: str, *inputs: str, **attributes: Any) -> str:
        output = f"{name}.{suffix}" if suffix else name
        parts.append(Node(op, "", 13, f"{node.name}.{suffix or 'sum'}", inputs, (output,), attributes))
        return output

    def scaled(x: str, factor: float, suffix: str) -> str:
        if factor == 1:
            return x
        builder.symbols[f"{name}.{suffix}.factor"] = Constant(np.asarray(factor, np.float32), "")
        return add("Mul", suffix, x, f"{name}.{suffix}.factor")

    a = add("Transpose", "a", a, perm=[1, 0]) if given.get("transA", 0) else a
    b = add("Transpose", "b", b, perm=[1, 0]) if given.get("transB", 0) else b
    alpha = float(given.get("alpha", 1.0))
    if not c and alpha == 1:
        add("MatMul", "", a, b)
        return parts
    total = scaled(add("MatMul", "product", a, b), alpha, "scaled")
    if c:
        add("Add", "", total, scaled(c, float(given.get("beta", 1.0)), "bias"))
    else:
        add("Identity", "", total)
    return parts


# ── parts of nodes ────────────────────────────────────────────────────────────────────────────────────


def _axis(node: Node) -> int:
    old = node.op_type in ("Softmax", "LogSoftmax", "Hardmax") and node.opset < 13
    return int(node.attributes.get("axis", 1 if old else _AXIS[node.op_type]))


def _numbers(builder: NetworkBuilder, node: Node, index: int, attribute: str = "") -> list[int] | None:
    """Return the integers of a constant input, or of the attribute that opsets before have instead; None if there are none."""
    symbol = builder.symbols.get(node.input(index))
    if isinstance(symbol, Constant):
        return [int(n) for n in symbol.array.reshape(-1)]
    return [int(n) for n in node.attributes[attribute]] if attribute in node.attributes else None


def _with_numbers(builder: NetworkBuilder, node: Node, index: int, numbers: Sequence[int] | int) -> Node:
    """Return the node with other integers as its constant input."""
    name = f"{node.outputs[0]}.lifted{index}"
    builder.symbols[name] = Constant(np.array(numbers, np.int64), "")
    inputs = [*node.inputs, *[""] * (index + 1 - len(node.inputs))]
    return replace(node, inputs=(*inputs[:index], name, *inputs[index + 1 :]))


def _slice_parts(builder: NetworkBuilder, node: Node, rank: int) -> list[tuple[int, int, int, int]] | None:
    """Return (axis, start, end, step) of a Slice; None if they are computed."""
    inputs = node.opset >= 10
    starts, ends = (_numbers(builder, node, i, "" if inputs else key) for i, key in ((1, "starts"), (2, "ends")))
    if starts is None or ends is None or any(node.input(i) and _numbers(builder, node, i) is None for i in (3, 4)):
        return None
    axes = _numbers(builder, node, 3, "" if inputs else "axes") or list(range(len(starts)))
    steps = _numbers(builder, node, 4) or [1] * len(starts)
    return [(axis % rank, *rest) for axis, *rest in zip(axes, starts, ends, steps, strict=True)]  # type: ignore[misc]


def _pads(builder: NetworkBuilder, node: Node, rank: int) -> list[tuple[int, int]] | None:
    given = [builder.symbols.get(node.input(i)) for i in range(1, 4)]
    if any(node.input(i + 1) and not isinstance(symbol, Constant) for i, symbol in enumerate(given)):
        return None
    arrays: list[Array | None] = [None, *(symbol.array if isinstance(symbol, Constant) else None for symbol in given)]
    return onnx_ops.pad_amounts(arrays[: len(node.inputs)], node.attributes, rank)[0]


def _with_shapes(builder: NetworkBuilder, node: Node, computed: Sequence[int], rank: int, axes: int = 1) -> Node:
    """Return the node with computed inputs that are raised to a rank, and have `axes` further axes in front.

    With `axes` 0, the first axis of the raised tensors is the batch.
    """
    inputs = list(node.inputs)
    for i in computed:
        shape = builder.onnx_shape(inputs[i])
        shape = (1,) * (rank - len(shape)) + shape
        inputs[i] = _reshaped(builder, inputs[i], shape if axes else shape[1:])
    return replace(node, inputs=tuple(inputs))


def _with_own_shapes(builder: NetworkBuilder, node: Node) -> Node:
    """Return the node with computed inputs whose symbols have the whole ONNX shape of one image."""
    computed = [i for i, name in enumerate(node.inputs) if name and not isinstance(builder.symbols[name], Constant)]
    for i in computed:
        node = _with_shapes(builder, node, [i], len(builder.onnx_shape(node.inputs[i])))
    return node


def _reshaped(builder: NetworkBuilder, name: str, shape: Shape) -> str:
    """Return the name of the same tensor whose symbol has another shape."""
    if builder.symbols[name].shape == shape:  # type: ignore[union-attr]
        return name
    other = f"{name}.{'x'.join(map(str, shape)) or 'scalar'}"
    if other not in builder.symbols:
        builder.symbols[other] = reshape_symbol(builder, Node("Reshape", "", 13, other, (name,), (other,), {}), shape)
    return other


def _lift_constants(builder: NetworkBuilder, node: Node, constant: Sequence[int]) -> Node:
    """Return a Concat whose constants have one more axis in front, along which a run repeats them for each image."""
    inputs = list(node.inputs)
    for i in constant:
        symbol = builder.symbols[inputs[i]]
        assert isinstance(symbol, Constant)
        name = f"{inputs[i]}.lifted"
        unsqueeze = Node("Unsqueeze", "", 13, name, (inputs[i], ""), (name,), {})
        builder.symbols[name] = fold(unsqueeze, [symbol, Constant(np.zeros(1, np.int64), "")])
        inputs[i] = name
    return replace(node, inputs=tuple(inputs))
