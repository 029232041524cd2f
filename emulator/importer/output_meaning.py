"""What a graph output means.

The last operators before it say what its numbers are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from weakcell.emulator.importer.parse import Graph
from weakcell.emulator.importer.symbols import Constant, Node, Symbol
from weakcell.emulator.ir.values import OutputMeaning

_MOST = 8
_MOVES = {"Flatten", "Reshape", "Squeeze", "Unsqueeze"}
_QUIET = {
    *_MOVES, "BipolarQuant", "Cast", "CastLike", "DequantizeLinear", "Dropout", "Identity", "Quant", "QuantizeLinear", "Transpose",
}  # fmt: skip
"""Operators that move, cast or round numbers and leave their meaning as it is."""

_CHOOSES = {"ArgMax", "ArgMin", "TopK"}
_SOFT = {"Softmax", "LogSoftmax", "Hardmax"}
_CHANNELS_FIRST = {"Conv", "ConvInteger", "ConvTranspose"}
_CHANNELS_LAST = {"Gemm", "MatMul", "MatMulInteger", "MatMulNBits"}
_POINTWISE = {
    "Add", "BatchNormalization", "Clip", "Div", "Floor", "HardSigmoid", "LeakyRelu", "Mul", "Relu", "Resize", "Round", "Sigmoid",
    "Sub", "Tanh", "Upsample",
}  # fmt: skip
"""Operators that leave classes or channels on the axis where they are."""


def find_output_meaning(graph: Graph, tensors: Mapping[str, Symbol], unbatched: Collection[str], output: str) -> OutputMeaning:
    """Follow a graph output backwards over the file's nodes.

    Args:
        graph: the file's checked graph.
        tensors: what its tensors mean; shapes are without the batch.
        unbatched: names of tensors whose first axis is not the batch. Their axes say nothing about classes.
        output: the name of one of its outputs.
    """
    symbols = {name: symbol for name, symbol in tensors.items() if isinstance(symbol, Constant) or name not in unbatched}
    makers = {name: node for node in graph.nodes for name in node.outputs if name}
    computing, seen, output_index = list[tuple[str, Node]](), set[str](), 0
    perms: list[tuple[int, ...]] | None = []
    axis: int | None = None
    name = output
    while name in makers and len(computing) < _MOST and name not in seen:
        seen.add(name)
        node = makers[name]
        kind = node.op_type.removeprefix("QLinear")
        if kind in _QUIET:
            perms = _compose_permutations(perms, node)
        else:
            output_index = output_index if computing else node.outputs.index(name)
            computing.append((kind, node))
            class_axis = None if perms is None else _class_axis(kind, node, symbols)
            if class_axis is not None and perms is not None:
                axis, perms = _undo_permutations(class_axis, perms), None
            elif kind not in _POINTWISE:
                perms = None
        name = _computed_input(node, symbols)
    operators = tuple(kind for kind, _ in computing)
    return OutputMeaning(operators, output_index, axis, _class_count(*computing[0], symbols)) if computing else OutputMeaning()


def _compose_permutations(perms: list[tuple[int, ...]] | None, node: Node) -> list[tuple[int, ...]] | None:
    """Return the Transposes so far; None as soon as axes are moved in any other way."""
    if perms is None or node.op_type in _MOVES or (node.op_type == "Transpose" and "perm" not in node.attributes):
        return None
    return [*perms, tuple(node.attributes["perm"])] if node.op_type == "Transpose" else perms


def _undo_permutations(axis: int, perms: list[tuple[int, ...]]) -> int | None:
    """Return where an axis lies behind these Transposes, the last one first."""
    for perm in reversed(perms):
        if axis not in perm:
            return None
        axis = perm.index(axis)
    return axis


def _computed_input(node: Node, symbols: Mapping[str, Symbol]) -> str:
    """Return the first input that is not constant; "" if there is none."""
    return next((name for name in node.inputs if name and not isinstance(symbols.get(name), Constant)), "")


def _input_axes(node: Node, symbols: Mapping[str, Symbol]) -> tuple[int, ...] | None:
    """Return the shape of a node's computed input, with 0 for the batch."""
    shape = getattr(symbols.get(_computed_input(node, symbols)), "shape", None)
    return (0, *shape) if isinstance(shape, tuple) else None


def _class_axis(kind: str, node: Node, symbols: Mapping[str, Symbol]) -> int | None:
    """Return the axis of a node's output that counts classes or channels.

    Axes are counted with the batch as axis 0. None if the operator does not say it.
    """
    shape = _input_axes(node, symbols)
    if shape is None:
        return None
    if kind in _CHANNELS_FIRST:
        return 1
    if kind in _CHANNELS_LAST:
        return len(shape) - 1
    return _operator_axis(kind, node, len(shape)) if kind in {*_SOFT, *_CHOOSES} else None


def _operator_axis(kind: str, node: Node, rank: int) -> int | None:
    """Return the operator's axis, counted with the batch; default: that of its opset."""
    default = 0 if kind in ("ArgMax", "ArgMin") else 1 if kind in _SOFT and node.opset < 13 and not node.domain else -1
    axis = int(node.attributes.get("axis", default))
    axis = axis + rank if axis < 0 else axis
    return axis if 0 < axis < rank else None


def _class_count(kind: str, node: Node, symbols: Mapping[str, Symbol]) -> int | None:
    """Return from how many classes an operator chooses; None if it does not choose."""
    shape = _input_axes(node, symbols)
    if shape is None or kind not in _CHOOSES:
        return None
    axis = _operator_axis(kind, node, len(shape))
    return None if axis is None else shape[axis]
