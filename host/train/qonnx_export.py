"""A trained network in QONNX, the form that FINN, hls4ml and the qonnx tools read: float values behind Quant and BipolarQuant.

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
    """The network that `export.pack` wrote with stored weights of that many bits, in QONNX: same codes, same logits.

    A weight is its float values behind BipolarQuant (1 bit) or Quant; an activation's QuantizeLinear and DequantizeLinear are
    one Quant, Sign becomes BipolarQuant, which differs only at 0, where no settled threshold lies. Metadata stay.
    """
    model = copy.deepcopy(model)
    graph = model.graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    quantized = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    kept, nodes = {"zero": np.float32(0), "one": np.float32(1)}, []
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            source, step = node.input[:2]
            kept[step] = arrays[step].astype(np.float32)
            if source in quantized:
                source, codes = quantized[source], arrays[node.input[2]].dtype
                width, signed = _width(codes.name), not codes.name.startswith("u")
            else:
                kept[source], width, signed = arrays[source].astype(np.float32) * kept[step], bits, True
            made = _bipolar(source, step, node) if width == 1 else _quant(source, step, width, signed, node)
            kept[f"{width}"] = np.float32(width)
            nodes.append(made)
        elif node.op_type == "Sign":
            nodes.append(_bipolar(node.input[0], "one", node))
        elif node.op_type != "QuantizeLinear":
            nodes.append(node)
    return _with(model, nodes, arrays | kept)


def _width(codes: str) -> int:
    """8 of `uint8`, 4 of `int4`."""
    return int(codes.removeprefix("u").removeprefix("int"))


def _bipolar(source: str, step: str, node: NodeProto) -> NodeProto:
    return helper.make_node("BipolarQuant", [source, step], node.output, node.name, domain=DOMAIN)


def _quant(source: str, step: str, width: int, signed: bool, node: NodeProto) -> NodeProto:
    inputs, how = [source, step, "zero", f"{width}"], {"signed": int(signed), "narrow": 0, "rounding_mode": "ROUND"}
    return helper.make_node("Quant", inputs, node.output, node.name, domain=DOMAIN, **how)


def _with(model: onnx.ModelProto, nodes: list[NodeProto], arrays: dict[str, np.ndarray]) -> onnx.ModelProto:
    """`model` made of `nodes` and those of the arrays that they read."""
    read = {name for node in nodes for name in node.input}
    del model.graph.node[:], model.graph.initializer[:], model.opset_import[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items() if name in read)
    model.opset_import.extend([helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)])
    model.ir_version = IR_VERSION
    return model
