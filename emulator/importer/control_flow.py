"""If, Loop and Scan, written out where the file fixes what they do.

The branch of an If is chosen by a condition that is constant, or that depends on shapes only. A Loop with a constant number of
trips, and a Scan over an axis of known size, become their bodies one after the other. What the data decide is refused.

Sequences of tensors, which exporters put around loops, are lists of tensors here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from weakcell.emulator.importer.builder import NetworkBuilder
from weakcell.emulator.importer.folding import fold
from weakcell.emulator.importer.rewrites import rewrite
from weakcell.emulator.importer.subgraph import Subgraph, rename_node
from weakcell.emulator.importer.symbols import Array, Constant, Node
from weakcell.memmodels.errors import ModelError

MOST_NODES = 100_000
"""Limit of the nodes that all graphs inside of nodes may become."""

_DO = "Export it with fixed sizes and without conditions on the data, or simplify it with fixed input shapes (onnxsim)"


def lower_control_flow(builder: NetworkBuilder, node: Node) -> None:
    """Give the outputs of an If, Loop, Scan or of an operator of sequences their symbols."""
    LOWERINGS[node.op_type](builder, node)


# ── graphs in place of their node ─────────────────────────────────────────────────────────────────────


def _subgraph(node: Node, key: str) -> Subgraph:
    graph = node.attributes.get(key)
    if not isinstance(graph, Subgraph):
        raise ModelError(f"Importing {node}", f"it has no {key}", "Export the model again")
    return graph


def _write_out(builder: NetworkBuilder, graph: Subgraph, given: Sequence[str], prefix: str) -> list[str]:
    """Lower the nodes of a subgraph and return the names that its outputs have outside.

    Args:
        builder: the network under construction.
        graph: the subgraph.
        given: names of the tensors that its inputs are.
        prefix: of the names of its tensors.
    """
    builder.written_nodes += len(graph.nodes) + 1
    if builder.written_nodes > MOST_NODES:
        asked, found = f"Importing {builder.name}", f"its loops become more than {MOST_NODES} nodes"
        raise ModelError(asked, found, "Export it with fewer steps, or with the recurrent operators of ONNX")
    names = {**graph.captured, **dict(zip(graph.inputs, given, strict=True))}
    for inner in graph.nodes:
        if inner.op_type == "Constant" and not inner.domain:
            builder.symbols[f"{prefix}{inner.outputs[0]}"] = _literal(builder, inner)
            continue
        for part in rewrite(rename_node(inner, names, prefix)):
            builder.lower(builder, part)
    return [names.get(name, f"{prefix}{name}") for name in graph.outputs]


def _literal(builder: NetworkBuilder, node: Node) -> Constant:
    """Return the constant that a Constant inside of a subgraph makes: one for all trips of a loop."""
    key = id(node.attributes.get("value", node))
    if key not in builder.literals:
        builder.literals[key] = fold(node, [], shared=builder.shared)
    return builder.literals[key]


def _name_outputs(builder: NetworkBuilder, node: Node, results: Sequence[str]) -> None:
    """Give the outputs of a node the meaning of other tensors."""
    for name, result in zip(node.outputs, results, strict=False):
        if name and result in builder.sequences:
            builder.sequences[name] = builder.sequences[result]
        elif name:
            _lower(builder, node, "Identity", (result,), name)


def _lower(builder: NetworkBuilder, node: Node, op_type: str, inputs: tuple[str, ...], output: str, **attributes: object) -> str:
    """Lower one further node, and return its output."""
    builder.lower(builder, Node(op_type, "", max(node.opset, 13), output, inputs, (output,), dict(attributes)))
    return output


def _constant(builder: NetworkBuilder, node: Node, name: str, what: str) -> Array | None:
    """Return an input that must not depend on the data; None if it is left out."""
    if not name:
        return None
    symbol = builder.symbols.get(name)
    if not isinstance(symbol, Constant):
        raise ModelError(f"Importing {node}", f"the data decide {what} ({name!r} is computed at run time)", _DO)
    return symbol.array.reshape(-1)


def _add_constant(builder: NetworkBuilder, name: str, array: Array) -> str:
    builder.symbols[name] = Constant(array, name)
    return name


# ── If, Loop, Scan ────────────────────────────────────────────────────────────────────────────────────


def _lower_if(builder: NetworkBuilder, node: Node) -> None:
    condition = _constant(builder, node, node.input(0), "which branch it takes")
    graph = _subgraph(node, "then_branch" if condition is not None and bool(condition[0]) else "else_branch")
    _name_outputs(builder, node, _write_out(builder, graph, (), f"{node.name}/"))


def _lower_loop(builder: NetworkBuilder, node: Node) -> None:
    """Write out a Loop: trips, condition and carried tensors in; carried tensors and stacked outputs out."""
    asked, body = f"Importing {node}", _subgraph(node, "body")
    limit = _constant(builder, node, node.input(0), "how often it runs")
    going = _constant(builder, node, node.input(1), "whether it runs")
    trips = MOST_NODES if limit is None else int(limit[0])
    if trips > MOST_NODES:
        raise ModelError(asked, f"it runs {trips} times", f"At most {MOST_NODES} nodes are written out; export fewer steps")
    carried = list(node.inputs[2:])
    stacked: list[list[str]] = [[] for _ in body.outputs[1 + len(carried) :]]
    trip, again = 0, going is None or bool(going[0])
    while again and trip < trips:
        prefix = f"{node.name}/{trip}/"
        counter = _add_constant(builder, f"{prefix}trip", np.array(trip, np.int64))
        condition = _add_constant(builder, f"{prefix}condition", np.array(True))
        results = _write_out(builder, body, (counter, condition, *carried), prefix)
        carried = results[1 : 1 + len(carried)]
        for parts, result in zip(stacked, results[1 + len(carried) :], strict=True):
            parts.append(result)
        verdict = _constant(builder, node, results[0], "when it ends")
        again, trip = verdict is None or bool(verdict[0]), trip + 1
    wholes = [_stack(builder, node, parts, 0, index) for index, parts in enumerate(stacked)]
    _name_outputs(builder, node, [*carried, *wholes])


def _lower_scan(builder: NetworkBuilder, node: Node) -> None:
    """Write out a Scan: states and scanned tensors in; states and stacked outputs out."""
    asked, body, given = f"Importing {node}", _subgraph(node, "body"), node.attributes
    if node.opset < 9:
        raise ModelError(asked, "it has the form of opset 8", "Export the model with opset 9 or newer")
    scanned = node.inputs[len(node.inputs) - int(given["num_scan_inputs"]) :]
    states = list(node.inputs[: len(node.inputs) - len(scanned)])
    count = len(body.outputs) - len(states)
    in_axes, in_back = (_per_tensor(given, f"scan_input_{key}", len(scanned)) for key in ("axes", "directions"))
    out_axes, out_back = (_per_tensor(given, f"scan_output_{key}", count) for key in ("axes", "directions"))
    shapes = [builder.onnx_shape(name) for name in scanned]
    lengths = {shape[axis] for shape, axis in zip(shapes, in_axes, strict=True)}
    if len(lengths) != 1:
        raise ModelError(asked, f"its tensors have the lengths {sorted(lengths)}", "Export the model again")
    length = lengths.pop()
    stacked: list[list[str]] = [[] for _ in range(count)]
    for trip in range(length):
        prefix, parts = f"{node.name}/{trip}/", []
        for name, axis, back in zip(scanned, in_axes, in_back, strict=True):
            index = _add_constant(builder, f"{prefix}{name}.index", np.array(length - 1 - trip if back else trip, np.int64))
            parts.append(_lower(builder, node, "Gather", (name, index), f"{prefix}{name}.part", axis=axis))
        results = _write_out(builder, body, (*states, *parts), prefix)
        states = results[: len(states)]
        for whole, result in zip(stacked, results[len(states) :], strict=True):
            whole.append(result)
    wholes = [
        _stack(builder, node, parts[::-1] if back else parts, axis, index)
        for index, (parts, axis, back) in enumerate(zip(stacked, out_axes, out_back, strict=True))
    ]
    _name_outputs(builder, node, [*states, *wholes])


def _per_tensor(attributes: Mapping[str, Any], key: str, count: int) -> list[int]:
    """Return an attribute of Scan that has one number for each tensor, 0 by default."""
    numbers = [int(n) for n in attributes.get(key, [0] * count)]
    if len(numbers) != count:
        raise ValueError(f"{key} has {len(numbers)} numbers for {count} tensors")
    return numbers


def _stack(builder: NetworkBuilder, node: Node, parts: Sequence[str], axis: int, index: int) -> str:
    """Return the stack of tensors along a new axis."""
    prefix = f"{node.name}/output{index}/"
    if not parts:
        raise ModelError(f"Importing {node}", "it never runs, and one of its outputs has no size then", _DO)
    at = _add_constant(builder, f"{prefix}axis", np.array([axis], np.int64))
    rows = tuple(_lower(builder, node, "Unsqueeze", (part, at), f"{prefix}{i}") for i, part in enumerate(parts))
    return _lower(builder, node, "Concat", rows, f"{prefix}whole", axis=axis)


# ── sequences ─────────────────────────────────────────────────────────────────────────────────────────


def _members(builder: NetworkBuilder, node: Node) -> list[str]:
    """Return the tensors of the sequence that a node reads first."""
    name = node.input(0)
    if name not in builder.sequences:
        raise ModelError(f"Importing {node}", f"its input {name!r} is no sequence that was made before", _DO)
    return list(builder.sequences[name])


def _position(builder: NetworkBuilder, node: Node, index: int, size: int) -> int | None:
    """Return a position in a sequence, None if it is left out."""
    given = _constant(builder, node, node.input(index), "a position in a sequence")
    if given is None:
        return None
    if not -size <= int(given[0]) < size:
        raise ModelError(f"Importing {node}", f"its position is {int(given[0])}, and the sequence has {size} tensors", _DO)
    return int(given[0]) % size


def _lower_sequence(builder: NetworkBuilder, node: Node) -> None:
    """Lower an operator that makes, changes or reads a sequence."""
    kind, output = node.op_type, node.outputs[0]
    if kind in ("SequenceEmpty", "SequenceConstruct"):
        builder.sequences[output] = tuple(node.inputs)
    elif kind == "SplitToSequence":
        builder.sequences[output] = _split(builder, node)
    elif kind == "SequenceInsert":
        members = _members(builder, node)
        at = _position(builder, node, 2, len(members) + 1)
        members.insert(len(members) if at is None else at, node.input(1))
        builder.sequences[output] = tuple(members)
    elif kind == "SequenceErase":
        members = _members(builder, node)
        members.pop(-1 if (at := _position(builder, node, 1, len(members))) is None else at)
        builder.sequences[output] = tuple(members)
    elif kind == "SequenceAt":
        members = _members(builder, node)
        at = _position(builder, node, 1, len(members))
        _lower(builder, node, "Identity", (members[at or 0],), output)
    elif kind == "SequenceLength":
        _add_constant(builder, output, np.array(len(_members(builder, node)), np.int64))
    else:
        members, axis = _members(builder, node), int(node.attributes["axis"])
        if node.attributes.get("new_axis", 0):
            _lower(builder, node, "Identity", (_stack(builder, node, members, axis, 0),), output)
        else:
            _lower(builder, node, "Concat", tuple(members), output, axis=axis)


def _split(builder: NetworkBuilder, node: Node) -> tuple[str, ...]:
    """Return the parts of a SplitToSequence."""
    axis, shape = int(node.attributes.get("axis", 0)), builder.onnx_shape(node.input(0))
    size, wanted = shape[axis], _constant(builder, node, node.input(1), "the sizes of its parts")
    scalar = node.input(1) and builder.onnx_shape(node.input(1)) == ()
    step = 1 if wanted is None else int(wanted[0])
    sizes = [min(step, size - i) for i in range(0, size, max(step, 1))] if wanted is None or scalar else [int(n) for n in wanted]
    if len(sizes) > MOST_NODES:
        raise ModelError(f"Importing {node}", f"it makes {len(sizes)} tensors", f"The limit is {MOST_NODES}; split fewer parts")
    names = tuple(f"{node.outputs[0]}.{i}" for i in range(len(sizes)))
    parts = _add_constant(builder, f"{node.outputs[0]}.sizes", np.array(sizes, np.int64))
    builder.lower(builder, Node("Split", "", 13, node.name, (node.input(0), parts), names, {"axis": axis}))
    if wanted is not None or node.attributes.get("keepdims", 1):
        return names
    at = _add_constant(builder, f"{node.outputs[0]}.axis", np.array([axis], np.int64))
    return tuple(_lower(builder, node, "Squeeze", (name, at), f"{name}.part") for name in names)


LOWERINGS: dict[str, Callable[[NetworkBuilder, Node], None]] = {
    "If": _lower_if,
    "Loop": _lower_loop,
    "Scan": _lower_scan,
    **dict.fromkeys(
        (
            "ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert",
            "SequenceLength", "SplitToSequence",
        ),
        _lower_sequence,
    ),
}  # fmt: skip
