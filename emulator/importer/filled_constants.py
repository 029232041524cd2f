"""Constants of the shape of a run-time tensor, batch included: what torch.ones_like and torch.full_like export.

The exporters write Expand or ConstantOfShape with the Shape of a run-time tensor. The batch is not known at import, so the
constant keeps one image: its first axis has size 1 and stands for the batch (`Constant.batched`). Broadcasting gives the
right values in elementwise operators. Any other operator could see the wrong number of images and is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from weakcell.emulator.importer.folding import fold
from weakcell.emulator.importer.symbols import BATCH, Constant, Node
from weakcell.memmodels.errors import ModelError

_FILLS = ("Expand", "ConstantOfShape")
_ELEMENTWISE = {
    "Abs", "Add", "And", "Cast", "Clip", "Div", "Equal", "Exp", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual",
    "Max", "Min", "Mul", "Neg", "Not", "Or", "Pow", "Relu", "Sign", "Sqrt", "Sub", "Where", "Xor",
}  # fmt: skip


def fold_fill(node: Node, inputs: list[Constant | None]) -> Constant | None:
    """The constant over the batch that a node makes of constants; None if it makes none.

    Raises:
        ModelError: the result does not have the batch as its first dimension, or the operator is not elementwise.
    """
    index = 1 if node.op_type == "Expand" else 0
    shape = inputs[index] if node.op_type in _FILLS and index < len(inputs) else None
    first = inputs[0] if inputs else None
    if shape is not None and not shape.batched and shape.array.ndim == 1 and np.any(shape.array == BATCH):
        return _fold_shape_fill(node, inputs, index, shape)
    if node.op_type == "Shape" and first is not None and first.batched:
        full = np.array([BATCH, *first.array.shape[1:]], np.int64)
        return Constant(full[int(node.attributes.get("start", 0)) : node.attributes.get("end")], node.outputs[0])
    if check_batched_use(node, inputs, ()):
        return replace(fold(node, inputs), batched=True)
    return None


def _fold_shape_fill(node: Node, inputs: list[Constant | None], index: int, shape: Constant) -> Constant:
    """Expand or ConstantOfShape with one image in place of the batch."""
    target = shape.array.copy()
    source = inputs[0] if node.op_type == "Expand" else None
    leads = target[0] == BATCH and not np.any(target[1:] == BATCH)
    wider = source is not None and (
        source.array.ndim > target.size or (source.array.ndim == target.size and source.array.shape[0] != 1)
    )
    if not leads or wider:
        found = f"it makes the shape {['N' if n == BATCH else int(n) for n in target]}"
        raise ModelError(f"Importing {node}", found, "The first dimension must be the batch; export the model again")
    target[0] = 1
    given = [replace(shape, array=target) if i == index else x for i, x in enumerate(inputs)]
    return replace(fold(node, given), batched=True, quantized=None)


def check_batched_use(node: Node, inputs: Sequence[Constant | None], ranks: Iterable[int]) -> bool:
    """Whether an input stands for the whole batch.

    Args:
        node: the operator that reads the inputs.
        inputs: its constant inputs, None for the others.
        ranks: the number of dimensions, with the batch, of each input that is known at run time only.

    Raises:
        ModelError: the operator is not elementwise, or broadcasting would move the batch to another axis.
    """
    batched = [x for x in inputs if x is not None and x.batched]
    if not batched:
        return False
    rank = batched[0].array.ndim
    plain = [x.array.shape for x in inputs if x is not None and not x.batched]
    aligned = all(r == rank for r in (*ranks, *(x.array.ndim for x in batched)))
    aligned = aligned and all(len(shape) < rank or (len(shape) == rank and shape[0] == 1) for shape in plain)
    if node.domain or node.op_type not in _ELEMENTWISE or not aligned:
        found = f"its input {batched[0].origin!r} is a constant with one copy for each image of the batch"
        raise ModelError(f"Importing {node}", found, "Export it with a constant that does not depend on the batch")
    return True
