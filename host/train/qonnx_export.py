"""Write a trained network as QONNX, the dialect of FINN, hls4ml and the qonnx tools: float values behind Quant and BipolarQuant.

https://github.com/fastmachinelearning/qonnx/tree/main/docs/qonnx-custom-ops
"""

from __future__ import annotations

import copy

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from weakcell.host.train.export import IR_VERSION, OPSET

DOMAIN = "qonnx.custom_op.general"


def to_qonnx(model: onnx.ModelProto, bits: int) -> onnx.ModelProto:
    """Convert a model of `export.pack` to QONNX with the same codes and logits.

    Weights become float values behind a BipolarQuant (1 bit) or a Quant. The QuantizeLinear and DequantizeLinear of an activation
    become one Quant. Sign becomes BipolarQuant. The two differ only at 0, which `export.center_thresholds` has excluded. The
    metadata stay.

    Args:
        model: Result of `export.pack`.
        bits: Bits of a stored weight.
    """
    model = copy.deepcopy(model)
    graph = model.graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    quantized = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    constants, nodes = {"zero": np.float32(0), "one": np.float32(1)}, []
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            source, step = node.input[:2]
            constants[step] = arrays[step].astype(np.float32)
            if source in quantized:
                source, codes = quantized[source], arrays[node.input[2]].dtype
                width, signed = _width(codes.name), not codes.name.startswith("u")
            else:
                constants[source], width, signed = arrays[source].astype(np.float32) * constants[step], bits, True
            quantizer = _bipolar(source, step, node) if width == 1 else _quant(source, step, width, signed, node)
            constants[f"{width}"] = np.float32(width)
            nodes.append(quantizer)
        elif node.op_type == "Sign":
            nodes.append(_bipolar(node.input[0], "one", node))
        elif node.op_type != "QuantizeLinear":
            nodes.append(node)
    return _replace_nodes(model, nodes, arrays | constants)


def _width(codes: str) -> int:
    """Return the bits of a type: 8 for `uint8`, 4 for `int4`."""
    return int(codes.removeprefix("u").removeprefix("int"))


def _bipolar(source: str, step: str, node: NodeProto) -> NodeProto:
    return helper.make_node("BipolarQuant", [source, step], node.output, node.name, domain=DOMAIN)


def _quant(source: str, step: str, width: int, signed: bool, node: NodeProto) -> NodeProto:
    inputs, attributes = [source, step, "zero", f"{width}"], {"signed": int(signed), "narrow": 0, "rounding_mode": "ROUND"}
    return helper.make_node("Quant", inputs, node.output, node.name, domain=DOMAIN, **attributes)


def _replace_nodes(model: onnx.ModelProto, nodes: list[NodeProto], arrays: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Replace the nodes of a model, with the arrays that they read as initializers."""
    used = {name for node in nodes for name in node.input}
    del model.graph.node[:], model.graph.initializer[:], model.opset_import[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items() if name in used)
    model.opset_import.extend([helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)])
    model.ir_version = IR_VERSION
    return model
