"""Operators that stay float: their inputs become floats by layers, and numpy runs them as ONNX defines them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from emulator import floatops
from emulator.importer.draft import Draft
from emulator.importer.fold import unsupported
from emulator.importer.symbols import BATCH, Array, Constant, Node, Real
from memmodels.errors import ModelError

_BATCH_NAME = "weakcell.batch"


def lower_float(draft: Draft, node: Node) -> Real:
    """Draw the node as a FloatOperator."""
    if node.domain or node.op_type not in floatops.OPERATORS:
        raise unsupported(node)
    if len([name for name in node.outputs[1:] if name]) and node.op_type != "Dropout":
        raise ModelError(f"importing {node}", "its second output is used", "only the first output is supported")
    operands: list[Real | Array] = []
    for name in node.inputs:
        symbol = draft.symbols[name] if name else None
        if symbol is None:
            operands.append(floatops.ABSENT)
        elif isinstance(symbol, Constant):
            operands.append(symbol.array)
        else:
            operands.append(draft.real(name))
    for operand in operands:
        if not isinstance(operand, Real) and operand.dtype.kind == "i" and np.any(operand == BATCH):
            raise ModelError(f"importing {node}", "it computes with the batch size", "export with a fixed shape but the batch")
    shape, dtype = output_type(node, operands)
    return draft.operate(
        node.outputs[0], node.op_type, dict(node.attributes), tuple(operands), shape, dtype, node.opset, exact=True
    )


def output_type(node: Node, operands: list[Real | Array]) -> tuple[tuple[int, ...], str]:
    """Shape without the batch, and numpy type, of a node's first output, by ONNX's own shape inference."""
    asked = f"importing {node}"
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    inputs = []
    for i, operand in enumerate(operands):
        name = "" if operand is floatops.ABSENT else f"x{i}"
        inputs.append(name)
        if isinstance(operand, Real):
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(operand.dtype))
            types[name] = helper.make_tensor_type_proto(kind, [_BATCH_NAME, *operand.shape])
        elif name:
            types[name] = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(operand.dtype), operand.shape)
            if operand.size <= 1024:
                data[name] = numpy_helper.from_array(np.asarray(operand, order="C"), name)
    try:
        proto = helper.make_node(node.op_type, inputs, ["y"], **_plain(node))
        schema = onnx.defs.get_schema(node.op_type, node.opset, node.domain)
        opsets = [helper.make_opsetid("", node.opset)]
        found = shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=opsets, ir_version=10)["y"]
    except Exception as e:
        why = (str(e).strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(asked, f"its inputs do not fit ({why[:200]})", "export the model again") from None
    if not found.tensor_type.HasField("shape"):
        raise ModelError(asked, "the shape of its output is not known", "export the model with fixed shapes")
    dims = found.tensor_type.shape.dim
    if not dims or dims[0].dim_param != _BATCH_NAME or any(not d.HasField("dim_value") for d in dims[1:]):
        text = ", ".join(d.dim_param or str(d.dim_value) for d in dims)
        raise ModelError(asked, f"its output has the shape [{text}]", "the first dimension must be the batch, the others fixed")
    dtype = helper.tensor_dtype_to_np_dtype(found.tensor_type.elem_type)
    return tuple(int(d.dim_value) for d in dims[1:]), str(dtype)


def _plain(node: Node) -> dict[str, object]:
    """Attributes that helper.make_node takes: tensors as protobuf messages."""
    return {
        key: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value for key, value in node.attributes.items()
    }
