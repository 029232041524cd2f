"""Operators that are not there: which, how many nodes, where, and what a user can do about each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

import onnx

from weakcell.emulator.importer.subgraph import all_nodes, captured_names
from weakcell.emulator.importer.symbols import Node
from weakcell.memmodels.errors import ModelError

_SIMPLIFY = "Simplify the file with fixed input shapes (onnxsim, onnxscript.optimizer), or export with torch.onnx's dynamo=True"
_REPORT = "Open an issue with the file, or with its smallest part that shows it"
_MOST_KINDS = 6

_REMEDIES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("Loop", "Scan", "If"), f"Control flow is unrolled where the file fixes it. {_SIMPLIFY}"),
    (("Sequence*", "SplitToSequence", "ConcatFromSequence", "Optional*"), f"Sequences have no fixed shape. {_SIMPLIFY}"),
    (("String*", "Tokenizer", "TfIdfVectorizer", "RegexFullMatch"), "Cut text processing off, and give token ids"),
    (
        ("NonZero", "Unique", "Compress"),
        "The data decide the size of its result. Export the model without it, and select afterwards",
    ),
    (("NonMaxSuppression",), "Export the detector without it (Ultralytics: nms=False); the task `boxes` selects boxes itself"),
    (("Random*", "Bernoulli", "Multinomial"), "It draws random numbers. Export the model in evaluation mode"),
    (("MatMulBnb4", "MatMulFpQ4", "QMoE", "MoE"), "Quantize the weights with onnxruntime's MatMulNBitsQuantizer instead"),
    (("Fused*", "Nhwc*", "QOrdered*", "*NBitsMlp", "*NBitsQkv"), "Save the model without onnxruntime's graph optimizations"),
    (("Adam", "Adagrad", "Momentum", "Gradient"), "Export the model for inference, not for training"),
)
"""What to do about operators by name; * stands for any text at the beginning or the end."""


def find_live_nodes(nodes: Sequence[Node], outputs: Iterable[str]) -> list[Node]:
    """Return the nodes that an output depends on. The nodes are in an order in which every input is known."""
    needed, live = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            live.append(node)
            needed.update(node.inputs)
            needed.update(captured_names(node))
    return live[::-1]


def check_operators(name: str, nodes: Sequence[Node], is_known: Callable[[Node], bool]) -> None:
    """Refuse a graph with operators that are not there, all of them in one message.

    Args:
        name: of the model.
        nodes: those that an output depends on.
        is_known: whether the importer has the operator of a node.

    Raises:
        ModelError: it names each kind of operator with the number of its nodes and where they are.
    """
    kinds: dict[str, list[Node]] = {}
    for node in all_nodes(nodes, branches=False):  # a branch that is never taken does not matter
        if not is_known(node):
            kinds.setdefault(f"{node.domain}.{node.op_type}" if node.domain else node.op_type, []).append(node)
    if not kinds:
        return
    shown = [f"{kind} ({_where(members)})" for kind, members in list(kinds.items())[:_MOST_KINDS]]
    more = f", and {len(kinds) - _MOST_KINDS} more operators" if len(kinds) > _MOST_KINDS else ""
    total = sum(len(members) for members in kinds.values())
    found = f"{total} of its {len(nodes)} nodes have an operator that is not supported: {', '.join(shown)}{more}"
    remedies = dict.fromkeys(_remedy(members[0]) for members in kinds.values())
    raise ModelError(f"Importing the model {name}", found, ". ".join(list(remedies)[:3]))


def unsupported(node: Node) -> ModelError:
    """Return the error for one node whose operator is not supported where it is."""
    return ModelError(f"Importing {node}", f"the operator {node.op_type} is not supported", _remedy(node))


def _where(nodes: Sequence[Node]) -> str:
    """Return number and place of nodes: the part that their names share, or the name of the first."""
    names = [node.name or node.outputs[0] for node in nodes]
    shared = os.path.commonprefix(names)  # noqa: RUF071 - of names, not of paths
    part = shared.rpartition("/")[0] or shared.rpartition(".")[0]
    if len(nodes) == 1:
        return f"1 node, {names[0]!r}"
    return f"{len(nodes)} nodes, in {part!r}" if part else f"{len(nodes)} nodes, the first is {names[0]!r}"


def _remedy(node: Node) -> str:
    """Return what a user can do about an operator."""
    for patterns, remedy in _REMEDIES:
        if any(_matches(node.op_type, pattern) for pattern in patterns):
            return remedy
    if not node.domain and onnx.defs.has(node.op_type) and onnx.defs.get_schema(node.op_type).has_function:
        return f"Export it as the operators that it consists of (torch.onnx.export of a lower opset_version). {_REPORT}"
    if node.domain not in ("", "com.microsoft"):
        return f"Its domain {node.domain!r} is not known. Export the model without custom operators. {_REPORT}"
    return _REPORT


def _matches(name: str, pattern: str) -> bool:
    """Return whether a name is a pattern that may have * at its beginning or end."""
    if pattern.endswith("*"):
        return name.startswith(pattern[:-1])
    return name.endswith(pattern[1:]) if pattern.startswith("*") else name == pattern
