"""The ONNX backend plug-in.

Any graph of supported operators, run strictly as written.

ONNX's node tests feed weights as graph inputs, in every type, and their shapes have no batch. `load` is not for them: it
demands a batch, stores the weights and lowers to integers. This module checks the graph and runs each node by the operators
of `onnx_ops`, which also fold constants and run what stays float32 in a network.

    import onnx
    from weakcell.emulator.onnx_backend import Backend
    Backend.prepare(onnx.load("model.onnx")).run([x])

It implements `onnx.backend.base` (https://onnx.ai/onnx/api/backend.html). An operator that is not supported raises
`BackendIsNotSupposedToImplementIt`, which the official runner counts as skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.backend.base import Backend as OnnxBackend
from onnx.backend.base import BackendRep
from onnx.backend.test.runner import BackendIsNotSupposedToImplementIt

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer.parse import Graph, read_model
from weakcell.emulator.importer.symbols import Node
from weakcell.emulator.onnx_ops.registry import Array
from weakcell.memmodels.errors import InputError, ModelError


class GraphRun(BackendRep):  # type: ignore[misc]
    """A checked graph, ready to run on arrays of any shape that it takes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants = {name: np.asarray(tensor.numpy()) for name, tensor in graph.initializers.items()}

    def run(self, inputs: Any, **options: Any) -> tuple[Array, ...]:
        """Run the graph.

        Args:
            inputs: one array per input, in the order of the graph. Tensors of narrow types may come as TensorProto.

        Returns:
            The outputs, in the order of the graph.
        """
        names = [port.name for port in self.graph.inputs]
        if len(inputs) != len(names):
            found = f"{len(inputs)} arrays were given"
            raise InputError(f"Running {self.graph.name}, which reads {', '.join(names)}", found, "Give one array per input")
        values = {**self.constants, **{name: _array(x) for name, x in zip(names, inputs, strict=True)}}
        for node in self.graph.nodes:
            values.update(evaluate(node, values))
        return tuple(values[port.name] for port in self.graph.outputs)


def evaluate(node: Node, values: dict[str, Array]) -> dict[str, Array]:
    """Run one node on arrays and return its named outputs."""
    inputs = [values[name] if name else None for name in node.inputs]
    wanted = max((i + 1 for i, name in enumerate(node.outputs) if name), default=1)
    try:
        results = onnx_ops.apply_all(key_of(node), node.opset, node.attributes, inputs, wanted)
    except (ValueError, IndexError, TypeError, KeyError, OverflowError, ArithmeticError, MemoryError) as e:
        raise ModelError(f"Running {node}", f"its inputs do not fit ({e})", "Check the model with onnx.checker") from e
    return {name: x for name, x in zip(node.outputs, results, strict=False) if name}


def key_of(node: Node) -> str:
    """Return a node's name in the table of operators."""
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _array(x: Any) -> Array:
    return numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else np.asarray(x)


class Backend(OnnxBackend):  # type: ignore[misc]
    """The entry points of `onnx.backend`."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **options: Any) -> GraphRun:
        """Check a model and return it ready to run."""
        graph = read_model(model)
        for node in graph.nodes:
            if key_of(node) not in onnx_ops.OPERATORS:
                raise BackendIsNotSupposedToImplementIt(f"{node} is not supported")
        return GraphRun(graph)

    @classmethod
    def run_node(
        cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU", outputs_info: Sequence[Any] | None = None, **options: Any
    ) -> tuple[Array, ...]:
        """Run one node, of the newest opset unless `opset_version` says which."""
        arrays = [_array(x) for x in inputs]
        names = [name for name in node.input if name]
        opset = int(options.get("opset_version", onnx.defs.onnx_opset_version()))
        ports = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for name, x in zip(names, arrays, strict=True)
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        graph = helper.make_graph([node], node.op_type, ports, outputs)
        imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(node.domain, 1)] if node.domain else [])]
        model = helper.make_model(graph, opset_imports=imports, ir_version=10)
        return cls.prepare(model, device).run(arrays)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Return whether a device name is a CPU."""
        return device.split(":")[0] == "CPU"


prepare, run_node, run_model, supports_device = Backend.prepare, Backend.run_node, Backend.run_model, Backend.supports_device
