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
from weakcell.emulator.importer.symbols import Array, Constant, FloatValue, Node, OperatorCall, Recipe, Symbol
from weakcell.emulator.importer.unsupported import unsupported
from weakcell.emulator.ir.operators import StoredOperand
from weakcell.memmodels.errors import ModelError


class LosesBatch(ModelError):
    """The output of an operator does not have the batch as its first axis."""


_BATCH_NAME, _ONE = "weakcell.batch", 1
_DROPS_NAMES = ("Resize", "Tile")
"""The batch in shapes: a name. Shape inference of some operators drops a name, so they get one image."""

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


def lower_float(builder: NetworkBuilder, node: Node) -> FloatValue:
    """Add the node as FloatOperator layers, one for each output that has a name.

    Raises:
        LosesBatch: the first axis of an output is not the batch.
    """
    if node.op_type in NEVER:
        raise unsupported(node)
    return _add_operators(builder, node, each_image=False)


def lower_each_image(builder: NetworkBuilder, node: Node) -> FloatValue:
    """Add the node as FloatOperator layers that run image by image.

    The symbols of its computed inputs have the whole ONNX shape of one image, and so have those of its outputs.
    """
    return _add_operators(builder, node, each_image=True)


def _add_operators(builder: NetworkBuilder, node: Node, each_image: bool) -> FloatValue:
    key = operator_key(node)
    if key not in onnx_ops.OPERATORS:
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
        layer_operands.append(operands[-1] if recipe is None else builder.stored.store_operand(recipe, _zero(symbol)))
    count = len(node.outputs) if key in onnx_ops.SEVERAL else 1
    if any(node.outputs[count:]):
        raise ModelError(f"Importing {node}", "its second output is used", "Only the first output is supported")
    attributes = {**node.attributes, "num_outputs": count} if node.op_type == "Split" else dict(node.attributes)
    results = []
    tried = bool(node.domain) or _lacks_inference(node)
    types = (_tried_types if tried else output_types)(node, operands, count, each_image)
    for index, (name, (shape, dtype)) in enumerate(zip(node.outputs, types, strict=False)):
        if name:
            results.append(
                builder.add_float_operator(
                    name,
                    OperatorCall(key, tuple(layer_operands), attributes, node.opset, index),
                    shape,
                    dtype,
                    exact=True,
                    each_image=each_image,
                )
            )
            builder.symbols[name] = results[-1]
    return results[0]


def _lacks_inference(node: Node) -> bool:
    """Return whether ONNX knows the operator and cannot tell the shape of its output."""
    try:
        return not onnx.defs.get_schema(node.op_type, node.opset).has_type_and_shape_inference_function
    except onnx.defs.SchemaError:
        return False  # `output_types` says that there is no such operator


def operator_key(node: Node) -> str:
    """Return the name of a node's operator in `onnx_ops.OPERATORS`."""
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


_TRIED = 1 << 24
"""Limit of the elements of a trial run."""


def _tried_types(node: Node, operands: list[FloatValue | Array], count: int, each_image: bool) -> list[tuple[tuple[int, ...], str]]:
    """Return shape (without the batch) and type of a node's outputs, by a run on zeros for two images, or for each image."""
    lead = () if each_image else (2,)
    if sum(int(np.prod(x.shape)) for x in operands if isinstance(x, FloatValue)) > _TRIED:
        raise ModelError(f"Importing {node}", f"it reads more than {_TRIED} numbers of an image", "Split the tensor")
    arrays = [np.zeros((*lead, *x.shape), x.dtype) if isinstance(x, FloatValue) else x for x in operands]
    try:
        results = onnx_ops.apply_all(operator_key(node), node.opset, node.attributes, arrays, count)
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as e:
        raise ModelError(f"Importing {node}", f"its inputs do not fit ({e})", "Export the model again") from None
    if any(x.shape[: len(lead)] != lead for x in results):
        found = f"it makes the shapes {[list(x.shape) for x in results]} out of two images"
        raise LosesBatch(f"Importing {node}", found, "The first dimension must be the batch; export the model again")
    return [(tuple(x.shape[len(lead) :]), str(x.dtype)) for x in results]


def _weight_recipe(node: Node, index: int, constant: Constant) -> Recipe | None:
    """Return how an operand is computed from integers that a memory stores.

    None for what is no weight.

    Integers that nothing has dequantized are weights only where the operator reads them as data. A single number is folded.
    """
    recipe = constant.recipe
    if recipe is None and constant.array.dtype == np.float32 and (node.op_type in _SUMS or constant.signed):
        recipe = find_sign_recipe(constant.array, constant.origin) if constant.signed or np.any(constant.array < 0) else None
    if recipe is not None and recipe.is_shared and constant.array.dtype.kind == "f":
        return recipe
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


def output_types(
    node: Node, operands: list[FloatValue | Array], count: int, each_image: bool = False
) -> list[tuple[tuple[int, ...], str]]:
    """Infer shape (without the batch) and NumPy type of a node's outputs by ONNX.

    Args:
        node: the operator.
        operands: its inputs.
        count: number of outputs.
        each_image: whether the shapes of inputs and outputs are those of one image, with no batch in front.

    Raises:
        LosesBatch: the first axis of an output is not the batch.
        ModelError: the inputs do not fit, or an output has no fixed shape.
    """
    asked = f"Importing {node}"
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    inputs = []
    batch = None if each_image else _ONE if node.op_type in _DROPS_NAMES else _BATCH_NAME
    lead = [] if batch is None else [batch]
    for i, operand in enumerate(operands):
        name = "" if operand is onnx_ops.ABSENT else f"x{i}"
        inputs.append(name)
        if isinstance(operand, FloatValue):
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(operand.dtype))
            types[name] = helper.make_tensor_type_proto(kind, [*lead, *operand.shape])
        elif name:
            # a run repeats the constants of a Concat for each image
            shape = [*lead, *operand.shape[1:]] if node.op_type == "Concat" and operand.ndim and lead else operand.shape
            types[name] = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(operand.dtype), shape)
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


def _checked_shape(asked: str, found: onnx.TypeProto, batch: str | int | None) -> tuple[tuple[int, ...], str]:
    """Return an inferred shape, which must be fixed behind the batch, and the type."""
    if not found.tensor_type.HasField("shape"):
        raise ModelError(asked, "the shape of its output is not known before any data", "Export the model with fixed shapes")
    dims = list(found.tensor_type.shape.dim)
    shown = f"its output has the shape [{', '.join(d.dim_param or str(d.dim_value) for d in dims)}]"
    if batch is not None:
        if not dims or (dims[0].dim_param or dims[0].dim_value) != batch:
            raise LosesBatch(asked, shown, "The first dimension must be the batch")
        dims = dims[1:]
    if any(not d.HasField("dim_value") for d in dims):
        raise (ModelError if batch is None else LosesBatch)(asked, shown, "Export the model so that data choose no size")
    dtype = helper.tensor_dtype_to_np_dtype(found.tensor_type.elem_type)
    return tuple(int(d.dim_value) for d in dims), str(dtype)


def _plain(node: Node) -> dict[str, object]:
    """Return attributes as helper.make_node takes them: tensors are protobuf messages."""
    return {
        key: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value for key, value in node.attributes.items()
    }
