"""Resize and Upsample, of whatever opset: as one Resize of the axes behind the batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer.builder import NetworkBuilder
from weakcell.emulator.importer.fallback import lower_float
from weakcell.emulator.importer.integer_ops import lower_move
from weakcell.emulator.importer.symbols import Constant, Node, Symbol
from weakcell.emulator.onnx_ops.interpolation import passes_of
from weakcell.memmodels.errors import ModelError


def lower_resize(builder: NetworkBuilder, node: Node) -> Symbol:
    """The nearest element is moved as a code; what is interpolated is float. The batch stays as it is, whatever `sizes` says."""
    plain = _drop_batch_axis(builder, node)
    _check(builder, plain)
    nearest = onnx_ops.text(plain.attributes, "mode", "nearest") == "nearest"
    return lower_move(builder, plain) if nearest and not _crops_input(plain) else lower_float(builder, plain)


def _check(builder: NetworkBuilder, node: Node) -> None:
    """ModelError if scales or sizes make no sense."""
    source, *rest = (builder.symbols.get(name) for name in node.inputs)
    if isinstance(source, Constant | None) or not all(part is None or isinstance(part, Constant) for part in rest):
        return
    operands = [None, *(part.array if isinstance(part, Constant) else None for part in rest)]
    try:
        passes_of((1, *source.shape), operands, node.attributes)
    except (ValueError, IndexError, TypeError, KeyError, MemoryError) as e:
        raise ModelError(f"Importing {node}", f"its inputs do not fit ({e})", "Export the model again") from None


def _crops_input(node: Node) -> bool:
    """Whether what lies outside the input has a value of its own, and the input a region of interest."""
    return onnx_ops.text(node.attributes, "coordinate_transformation_mode", "") == "tf_crop_and_resize"


def _drop_batch_axis(builder: NetworkBuilder, node: Node) -> Node:
    """The node in opset 18's way, with all axes but the first named; as it is where that would be another one."""
    attributes, old = dict(node.attributes), node.op_type == "Upsample" or node.opset < 11
    index = 1 if old else 3 if node.input(3) else 2
    source, symbol = builder.symbols.get(node.inputs[0]), builder.symbols.get(node.input(index))
    if "scales" in attributes:
        symbol = Constant(np.asarray(attributes.pop("scales"), np.float32), "")
    if (
        source is None
        or isinstance(source, Constant)
        or not isinstance(symbol, Constant)
        or "axes" in attributes
        or _crops_input(node)
    ):
        return node
    given = symbol.array
    if given.size != len(source.shape) + 1 or (index != 3 and given[0] != 1):
        return node
    if old:
        attributes |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "simple"}
    name = builder.unique_name(f"{node.outputs[0]}.{'sizes' if index == 3 else 'scales'}")
    builder.symbols[name] = Constant(given[1:], symbol.origin)
    inputs = (node.inputs[0], "", "", name) if index == 3 else (node.inputs[0], "", name)
    attributes["axes"] = list(range(1, given.size))
    return replace(node, op_type="Resize", opset=max(node.opset, 18), inputs=inputs, attributes=attributes)
