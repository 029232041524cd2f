"""ConvTranspose of integers: zeros inserted into its input, then a Convolution.

y[o, i * stride - pad + k * dilation] = sum of x[c, i] * w[c, o, k]. With zeros inserted into x this is an ordinary convolution
of stride 1 whose weight is w[o, c, K - 1 - k]. So the weights live in the memory like those of a Conv, output channel first.
Reference: https://onnx.ai/onnx/operators/onnx__ConvTranspose.html.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer.builder import NetworkBuilder, ValueRange
from weakcell.emulator.importer.fallback import lower_float
from weakcell.emulator.importer.linear import as_summable, lower_linear
from weakcell.emulator.importer.symbols import Array, Constant, Node, PendingQuantized, Symbol
from weakcell.emulator.ir.layers import InsertZeros
from weakcell.emulator.ir.operators import OperandStep
from weakcell.emulator.onnx_ops.reductions import transposed_geometry
from weakcell.memmodels.errors import ModelError


def lower_conv_transpose(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower ConvTranspose of codes with a stored weight; else it stays float32."""
    weight, source = builder.symbols.get(node.input(1)), builder.symbol(node.input(0))
    if not isinstance(weight, Constant) or not isinstance(source, PendingQuantized):
        return lower_float(builder, node)
    pending, rank = as_summable(builder, source, node.input(0), padded=False), weight.array.ndim
    if rank not in (3, 4) or pending is None or len(pending.shape) != rank - 1:
        return lower_float(builder, node)
    if builder.values[pending.value].kind != "codes" or builder.values[pending.value].shape != pending.shape:
        return lower_float(builder, node)
    groups = int(node.attributes.get("group", 1))
    if groups < 1 or weight.shape[0] != pending.shape[0] or weight.shape[0] % groups:
        found = f"the weight has shape {list(weight.shape)}, group is {groups} and the input has {pending.shape[0]} channels"
        raise ModelError(f"Importing {node}", found, "The weight's first axis must be the input's channels; export the model again")
    try:
        geometry = transposed_geometry(pending.shape[1:], weight.shape[2:], node.attributes)
    except (ValueError, TypeError, IndexError) as e:
        raise ModelError(f"Importing {node}", f"its attributes do not fit ({e})", "Export the model again") from None
    mirrored = _mirror_weight(weight, groups)
    if mirrored is None or min(geometry.conv_pads) < 0:
        return lower_float(builder, node)
    x, w = f"{node.outputs[0]}.spread", f"{node.outputs[0]}.mirrored"
    builder.symbols[x] = _insert_zeros(builder, node, pending, geometry.strides)
    builder.symbols[w] = mirrored
    attributes = {"group": groups, "pads": list(geometry.conv_pads), "dilations": list(geometry.dilations)}
    return lower_linear(builder, replace(node, op_type="Conv", inputs=(x, w, *node.inputs[2:]), attributes=attributes))


def _insert_zeros(builder: NetworkBuilder, node: Node, pending: PendingQuantized, strides: tuple[int, ...]) -> PendingQuantized:
    """Add the layer that puts zeros between the codes; nothing to do for stride 1."""
    if max(strides) == 1:
        return pending
    spec, reached = builder.values[pending.value], builder.ranges[pending.value]
    shape = (spec.shape[0], *((n - 1) * s + 1 for n, s in zip(spec.shape[1:], strides, strict=True)))
    rows, columns = (1, *strides) if len(strides) == 1 else strides
    target = replace(spec, name=builder.unique_name(f"{node.outputs[0]}.spread"), shape=shape)
    layer = InsertZeros(f"{node.name}.spread", (pending.value,), target.name, (rows, columns))
    zero = pending.zero_point
    value = builder.add_layer(layer, target, ValueRange(min(reached.low, zero), max(reached.high, zero)))
    return replace(pending, value=value, shape=shape)


def _mirror_weight(weight: Constant, groups: int) -> Constant | None:
    """Return the weight (C, O/groups, …) as that of a Conv, (O, C/groups, …), mirrored.

    None if its scales are neither one for all nor one for each output.
    """
    inputs, outputs, *kernel = weight.shape
    spatial = len(kernel)
    minus = np.full(spatial, -1, np.int64)
    steps = tuple(
        OperandStep(op_type, 13, attributes, (None, *operands))
        for op_type, attributes, operands in (
            ("Reshape", {}, (np.array([groups, inputs // groups, outputs, *kernel], np.int64),)),
            ("Transpose", {"perm": [0, 2, 1, *range(3, 3 + spatial)]}, ()),
            ("Reshape", {}, (np.array([groups * outputs, inputs // groups, *kernel], np.int64),)),
            ("Slice", {}, (minus, -np.array(kernel, np.int64) - 1, np.arange(2, 2 + spatial), minus)),
        )
    )

    def arrange(x: Array) -> Array:
        """Return an array of the weight's shape in the order of the Conv."""
        for step in steps:
            x = onnx_ops.apply(step.op_type, step.opset, step.attributes, [x, *step.operands[1:]])
        return np.ascontiguousarray(x)

    quantized = weight.quantized
    if quantized is not None:
        if quantized.block or (quantized.scale.ndim and quantized.axis != 1):
            return None
        scale, zero_point = quantized.scale, quantized.zero_point
        if scale.ndim:
            scale, zero_point = np.tile(scale, groups), np.tile(zero_point, groups)
        quantized = replace(quantized, codes=arrange(quantized.codes), scale=scale, zero_point=zero_point, axis=0)
    recipe = None if weight.recipe is None else replace(weight.recipe, steps=(*weight.recipe.steps, *steps))
    return replace(weight, given=arrange(weight.array), quantized=quantized, recipe=recipe)
