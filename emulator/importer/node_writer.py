"""Writes the ONNX nodes that replace one node."""

from __future__ import annotations

from typing import Any

import numpy as np

from weakcell.emulator.importer.symbols import Node

MICROSOFT = "com.microsoft"
OPSET = 23
"""Opset of the nodes that replace one of another domain."""


class NodeWriter:
    """Collects the nodes that replace one node.

    Tensors between them are named after its output.
    """

    def __init__(self, node: Node) -> None:
        self.node, self.nodes = node, list[Node]()

    def add(self, op_type: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node and return the name of its output."""
        output = output or f"{self.node.outputs[0]}.{len(self.nodes)}"
        self.add_several(op_type, inputs, (output,), **attributes)
        return output

    def add_several(
        self, op_type: str, inputs: tuple[str, ...], outputs: tuple[str, ...], domain: str = "", **attributes: Any
    ) -> None:
        """Append a node of several outputs, whose names are given."""
        opset = OPSET if self.node.domain or op_type == "RMSNormalization" else self.node.opset
        self.nodes.append(Node(op_type, domain, 1 if domain else opset, self.node.name, inputs, outputs, attributes))

    def dequantize(self, x: str, scale: str, zero: str, **attributes: Any) -> str:
        """Append the DequantizeLinear of an operand and return its output.

        Activations have one scale. Axis 0, the batch, makes the lowering refuse several.
        """
        return self.add("DequantizeLinear", x, scale, *([zero] if zero else []), **{"axis": 0, **attributes})

    def bias(self, bias: str, scales: tuple[str, str]) -> str:
        """Append the dequantization of an int32 bias with the scale of the sums."""
        product = self.add("Mul", *scales)
        return self.add("DequantizeLinear", bias, self.add("Reshape", product, self.constant([-1])), axis=0)

    def constant(self, numbers: list[int] | float) -> str:
        """Append a constant of int64 for a list, of float32 for a number."""
        return self.add("Constant", value=np.asarray(numbers, np.int64 if isinstance(numbers, list) else np.float32))

    def sum(self, *inputs: str, output: str = "") -> str:
        """Append the sum of all inputs that have a name, from left to right."""
        named = [x for x in inputs if x]
        total = named[0]
        for index, x in enumerate(named[1:], 2):
            total = self.add("Add", total, x, output=output if index == len(named) else "")
        return total

    def quantize(self, y: str, scale: str, zero: str) -> list[Node]:
        """Append the QuantizeLinear of the result and return all nodes."""
        self.add("QuantizeLinear", y, scale, *([zero] if zero else []), output=self.node.outputs[0], axis=0)
        return self.nodes
