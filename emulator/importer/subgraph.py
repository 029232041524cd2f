"""Graphs inside of nodes: the branches of an If, the bodies of a Loop or Scan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from weakcell.emulator.importer.symbols import Node


@dataclass(frozen=True, eq=False)
class Subgraph:
    """A graph that is an attribute of a node. It reads tensors of the graphs around it by their names.

    Attributes:
        inputs: names of its own inputs.
        outputs: names of its outputs.
        nodes: in an order in which every input is known.
        scope: the tensor around it that a name inside means, where that has another name.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    scope: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def captured(self) -> Mapping[str, str]:
        """The tensors around it that it reads, by the name that they have inside."""
        made = {*self.inputs, *(name for node in self.nodes for name in node.outputs)}
        read = {name for node in self.nodes for name in (*node.inputs, *captured_names(node))} | set(self.outputs)
        return {name: self.scope.get(name, name) for name in read - made if name}

    def renamed(self, names: Mapping[str, str]) -> Subgraph:
        """Return the graph, where the tensors around it have new names."""
        return replace(self, scope={name: names.get(target, target) for name, target in self.captured.items()})


def subgraphs_of(node: Node) -> list[Subgraph]:
    """Return the graphs inside of a node."""
    return [value for value in node.attributes.values() if isinstance(value, Subgraph)]


def captured_names(node: Node) -> frozenset[str]:
    """Return the names that the graphs inside of a node read from around it."""
    return frozenset(name for graph in subgraphs_of(node) for name in graph.captured.values())


def all_nodes(nodes: Iterable[Node], *, branches: bool = True) -> Iterator[Node]:
    """Yield nodes, and those of the graphs inside of them; those of an If only with `branches`."""
    stack = list(nodes)[::-1]
    while stack:
        node = stack.pop()
        yield node
        if branches or node.op_type != "If":
            stack += [inner for graph in subgraphs_of(node) for inner in graph.nodes]


def rename_node(node: Node, names: Mapping[str, str], prefix: str) -> Node:
    """Return a node of a subgraph with the names that its tensors have outside.

    Args:
        node: the node.
        names: the outer name of each tensor that it reads; others get the prefix.
        prefix: of its own name and of what it makes.
    """

    def outer(name: str) -> str:
        """Return the name outside."""
        return names.get(name, f"{prefix}{name}") if name else ""

    inputs, outputs = (tuple(outer(name) for name in part) for part in (node.inputs, node.outputs))
    attributes = {
        key: value.renamed({name: outer(name) for name in value.captured.values()}) if isinstance(value, Subgraph) else value
        for key, value in node.attributes.items()
    }
    return replace(node, name=f"{prefix}{node.name}", inputs=inputs, outputs=outputs, attributes=attributes)
