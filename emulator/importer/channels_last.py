"""QONNX's channels-last operators, written in ONNX's own order: transposed, run, and transposed back.

A tensor between two of them is known in ONNX order already (`twins`), so nothing is transposed twice; layers whose results
nobody reads are dropped at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from weakcell.emulator.importer.symbols import Node

DOMAIN = "qonnx.channels_last"
_FORWARD, _BACK = [0, 3, 1, 2], [0, 2, 3, 1]
_POINTWISE = ("BipolarQuant", "Quant", "Trunc", "Relu", "Sign", "Clip", "Identity")
_AXES = {"MultiThreshold": {"data_layout": "NCHW"}}


@dataclass
class ChannelsLast:
    """Rewrites nodes in order."""

    scalars: frozenset[str]
    """Constants of one element: operands that mean the same in every order."""
    channels_first: dict[str, str] = field(default_factory=dict)

    def rewrite(self, node: Node) -> list[Node]:
        """The nodes that mean the same, or the node itself."""
        if node.domain == DOMAIN:
            return self._run_channels_first(replace(node, domain=""), node.op_type == "Conv")
        x = node.input(0)
        if node.op_type == "Transpose" and list(node.attributes.get("perm", [])) == _BACK:
            self.channels_first[node.outputs[0]] = x
        elif node.op_type == "Transpose" and list(node.attributes.get("perm", [])) == _FORWARD and x in self.channels_first:
            return [replace(node, op_type="Identity", inputs=(self.channels_first[x],), attributes={})]
        elif (
            x in self.channels_first
            and node.op_type in _POINTWISE
            and all(name in self.scalars for name in node.inputs[1:] if name)
        ):
            return self._run_channels_first(node)
        elif node.op_type == "MultiThreshold" and _layout(node) == "NHWC":
            return self._run_channels_first(replace(node, attributes={**node.attributes, **_AXES["MultiThreshold"]}))
        return [node]

    def _run_channels_first(self, node: Node, weights: bool = False) -> list[Node]:
        """The node on the twin of its first input; `weights`: its second input is (O, H, W, C) and is turned as well."""
        x, y, rest = node.input(0), node.outputs[0], node.inputs[1:]
        nodes, transposed = [], self.channels_first.get(x)
        if weights and rest:
            nodes.append(self._transpose(node, rest[0], f"{y}.weights", _FORWARD))
            rest = (f"{y}.weights", *rest[1:])
        if transposed is None:
            transposed = self.channels_first[x] = f"{x}.nchw"
            nodes.append(self._transpose(node, x, transposed, _FORWARD))
        made = self.channels_first[y] = f"{y}.nchw"
        nodes.append(replace(node, inputs=(transposed, *rest), outputs=(made,)))
        nodes.append(self._transpose(node, made, y, _BACK))
        return nodes

    def _transpose(self, node: Node, x: str, y: str, perm: list[int]) -> Node:
        return Node("Transpose", "", 13, f"{node.name}.turn", (x,), (y,), {"perm": perm})


def _layout(node: Node) -> str:
    value = node.attributes.get("data_layout", "")
    return value.decode() if isinstance(value, bytes) else str(value)
