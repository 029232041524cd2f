"""Operators that stay float32.

Layers make their inputs floats, and NumPy runs them as ONNX defines them.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer.builder import NetworkBuilder
from weakcell.emulator.importer.constant_recipe import find_sign_recipe
from weakcell.emulator.importer.symbols import BATCH, Array, Constant, FloatValue, Node, OperatorCall, Recipe, Symbol
from weakcell.emulator.importer.unsupported import unsupported
from weakcell.emulator.ir.layers import StoredOperand
from weakcell.memmodels.errors import ModelError

_BATCH_NAME, _ONE = "weakcell.batch", 1
"""The batch in shapes: a name. Shape inference of Resize drops a name, so it gets one image."""

_SUMS = ("Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul")
"""Operators whose operands of ±1 times a scale are binary weights."""

_DATA = {
    **dict.fromkeys(("Gather", "GatherElements", "GatherND", "Slice", "DequantizeLinear", "GatherBlockQuantized"), (0,)),
    **dict.fromkeys(("MatMulInteger", "ConvInteger"), (0, 1)),
    **dict.fromkeys(("QLinearMatMul", "QLinearConv"), (0, 3)),
    "DynamicQuantizeLSTM": (1, 2),
    "Where": (1, 2),
    "Concat": tuple(range(64)),
}
"""Inputs of operators that are data, not sizes, indices or zero points."""

NEVER = ("DynamicQuantizeLinear", "NonMaxSuppression")
"""Operators over the whole batch: as one layer, the result of an image would depend on the other images."""

_ALONG = {
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LayerNormalization", "RMSNormalization", "LpNormalization"), -1),
    **dict.fromkeys(("GatherElements", "ScatterElements", "Scatter"), 0),
}
"""Operators along `axis`, with its default. Along the batch, the result of an image would depend on the other images."""


def lower_float(builder: NetworkBuilder, node: Node) -> FloatValue:
    """Add the node as FloatOperator layers, one for each output that has a name."""
    key = operator_key(node)
    if key not in onnx_ops.OPERATORS or node.op_type in NEVER:
        raise unsupported(node)
    operands: list[FloatValue | Array] = []
    layer_operands: list[FloatValue | Array | StoredOperand] = []
    for index, name in enumerate(node.inputs):
        symbol = builder.symbols[name] if name else None
        if symbol is None:
            operands.append(onnx_ops.ABSENT)
        elif isinstance(symbol, Constant):
            operands.append(symbol.array)
        else:
            operands.append(builder.as_typed(name))
        recipe = _weight_recipe(node, index, symbol) if isinstance(symbol, Constant) else None
        layer_operands.append(operands[-1] if recipe is None else builder.store_operand(recipe, _zero(symbol)))
    for operand in operands:
        if not isinstance(operand, FloatValue) and operand.dtype.kind == "i" and np.any(operand == BATCH):
            raise ModelError(f"Importing {node}", "it computes with the batch size", "Export with a fixed shape but the batch")
    _check_images_apart(node, operands)
    count = len(node.outputs) if key in onnx_ops.SEVERAL else 1
    if any(node.outputs[count:]):
        raise ModelError(f"Importing {node}", "its second output is used", "Only the first output is supported")
    attributes = {**node.attributes, "num_outputs": count} if node.op_type == "Split" else dict(node.attributes)
    results = []
    tried = node.domain or not onnx.defs.get_schema(node.op_type, node.opset).has_type_and_shape_inference_function
    types = _tried_types(node, key, operands, count) if tried else output_types(node, operands, count)
    for index, (name, (shape, dtype)) in enumerate(zip(node.outputs, types, strict=False)):
        if name:
            results.append(
                builder.add_float_operator(
                    name,
                    OperatorCall(key, tuple(layer_operands), attributes, node.opset, index),
                    shape,
                    dtype,
                    exact=True,
                )
            )
            builder.symbols[name] = results[-1]
    return results[0]


def operator_key(node: Node) -> str:
    """Return the name of a node's operator in `onnx_ops.OPERATORS`."""
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _check_images_apart(node: Node, operands: list[FloatValue | Array]) -> None:
    """Refuse a node that computes along the batch."""
    source = operands[0] if operands else None
    if node.domain or not isinstance(source, FloatValue):
        return
    rank, along = len(source.shape) + 1, 1
    if node.op_type in _ALONG:
        along = int(node.attributes.get("axis", _ALONG[node.op_type] if node.opset >= 13 else 1)) % rank
    elif node.op_type == "CumSum" and not isinstance(operands[1], FloatValue):
        along = int(operands[1].reshape(())) % rank
    elif node.op_type == "MeanVarianceNormalization":
        along = min(a % rank for a in node.attributes.get("axes", [0, 2, 3]))
    elif (node.op_type == "Trilu" and rank == 2) or node.op_type == "ScatterND":
        along = 0
    elif node.op_type == "GatherND":
        along = int(node.attributes.get("batch_dims", 0))
    elif node.op_type == "ReverseSequence":
        along = 1 if int(node.attributes.get("batch_axis", 1)) == 0 else 0
    if along == 0:
        found = "it computes along the batch, so that the result of an image would depend on the others"
        raise ModelError(
            f"Importing {node}", found, "Export the model with the batch as first dimension and this operator behind it"
        )


_TRIED = 1 << 24
"""Limit of the elements of a trial run."""


def _tried_types(node: Node, key: str, operands: list[FloatValue | Array], count: int) -> list[tuple[tuple[int, ...], str]]:
    """Return shape (without the batch) and type of a node's outputs, by a run on zeros for two images."""
    if sum(int(np.prod(x.shape)) for x in operands if isinstance(x, FloatValue)) > _TRIED:
        raise ModelError(f"Importing {node}", f"it reads more than {_TRIED} numbers of an image", "Split the tensor")
    arrays = [np.zeros((2, *x.shape), x.dtype) if isinstance(x, FloatValue) else x for x in operands]
    try:
        results = onnx_ops.apply_all(key, node.opset, node.attributes, arrays, count)
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as e:
        raise ModelError(f"Importing {node}", f"its inputs do not fit ({e})", "Export the model again") from None
    if any(x.shape[:1] != (2,) for x in results):
        found = f"it makes the shapes {[list(x.shape) for x in results]} out of two images"
        raise ModelError(f"Importing {node}", found, "The first dimension must be the batch; export the model again")
    return [(tuple(x.shape[1:]), str(x.dtype)) for x in results]


def _weight_recipe(node: Node, index: int, constant: Constant) -> Recipe | None:
    """Return how an operand is computed from integers that a memory stores.

    None for what is no weight.

    Integers that nothing has dequantized are weights only where the operator reads them as data. A single number is folded.
    """
    recipe = constant.recipe
    if recipe is None and constant.array.dtype == np.float32 and (node.op_type in _SUMS or constant.signed):
        recipe = find_sign_recipe(constant.array, constant.origin) if constant.signed or np.any(constant.array < 0) else None
    if recipe is None or recipe.codes.size < 2 or constant.array.size < 2:
        return None
    if constant.array.dtype.kind != "f" and index not in _DATA.get(node.op_type, ()):
        return None
    return recipe


def _zero(symbol: Symbol | None) -> int:
    """Return the integer of a constant that means real zero.

    Of the first channel, if channels differ.
    """
    if not isinstance(symbol, Constant) or symbol.recipe is None:
        return 0
    if symbol.quantized is not None:
        return int(symbol.quantized.zero_point.reshape(-1)[0])
    for step in symbol.recipe.steps:
        index = {"Sub": 1, "DequantizeLinear": 2}.get(step.op_type, 0)
        point = step.operands[index] if 0 < index < len(step.operands) else None
        if point is not None and point.size:
            return int(point.reshape(-1)[0])
    return 0


def output_types(node: Node, operands: list[FloatValue | Array], count: int) -> list[tuple[tuple[int, ...], str]]:
    """Infer shape (without the batch) and NumPy type of a node's outputs by ONNX.

    Args:
        node: the operator.
        operands: its inputs.
        count: number of outputs.

    Raises:
        ModelError: the inputs do not fit, or an output has no fixed shape behind the batch.
    """
    asked = f"Importing {node}"
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    inputs, batch = [], _ONE if node.op_type == "Resize" else _BATCH_NAME
    for i, operand in enumerate(operands):
        name = "" if operand is onnx_ops.ABSENT else f"x{i}"
        inputs.append(name)
        if isinstance(operand, FloatValue):
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(operand.dtype))
            types[name] = helper.make_tensor_type_proto(kind, [batch, *operand.shape])
        elif name:
            types[name] = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(operand.dtype), operand.shape)
            if operand.size <= 1024:
                data[name] = numpy_helper.from_array(np.asarray(operand, order="C"), name)
    outputs = [f"y{i}" for i in range(count)]
    try:
        proto = helper.make_node(node.op_type, inputs, outputs, **_plain(node))
        schema = onnx.defs.get_schema(node.op_type, node.opset, node.domain)
        opsets = [helper.make_opsetid("", node.opset)]
        found = shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=opsets, ir_version=10)
    except Exception as e:
        why = (str(e).strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(asked, f"its inputs do not fit ({why[:200]})", "Export the model again") from None
    return [
        _checked_shape(asked, found[name], batch) if wanted else ((), "")
        for name, wanted in zip(outputs, node.outputs, strict=False)
    ]


def _checked_shape(asked: str, found: onnx.TypeProto, batch: str | int) -> tuple[tuple[int, ...], str]:
    """Return an inferred shape and type; the shape must be fixed behind the batch."""
    if not found.tensor_type.HasField("shape"):
        raise ModelError(asked, "the shape of its output is not known", "Export the model with fixed shapes")
    dims = found.tensor_type.shape.dim
    if not dims or (dims[0].dim_param or dims[0].dim_value) != batch or any(not d.HasField("dim_value") for d in dims[1:]):
        text = ", ".join(d.dim_param or str(d.dim_value) for d in dims)
        raise ModelError(asked, f"its output has the shape [{text}]", "The first dimension must be the batch, the others fixed")
    dtype = helper.tensor_dtype_to_np_dtype(found.tensor_type.elem_type)
    return tuple(int(d.dim_value) for d in dims[1:]), str(dtype)


def _plain(node: Node) -> dict[str, object]:
    """Return attributes as helper.make_node takes them: tensors are protobuf messages."""
    return {
        key: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value for key, value in node.attributes.items()
    }
