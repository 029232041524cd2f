"""Where the batch is inside of tensors of a file that fixes a batch of several images.

A Reshape of such a file has the batch in one of its numbers: [36, 16] for 3 images of 12 rows. Which of them it is follows from the
order of the elements. The elements of one image that lie inside of the batch, one behind the other, stay the same in a Reshape: in
[3, 12, 16] these are 12 * 16, in [12, 3, 16] they are 16.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer.builder import BatchPlace, NetworkBuilder
from weakcell.emulator.importer.symbols import Constant, Node

Shape = tuple[int, ...]


def batch_place(builder: NetworkBuilder, name: str) -> BatchPlace | None:
    """Return where the batch of a tensor is; None if that cannot be told."""
    if name in builder.batch_places or name in builder.unbatched or name in builder.strayed:
        return builder.batch_places.get(name)
    return BatchPlace(0, 1)


def place_in_reshape(sizes: Sequence[int], place: BatchPlace, shape: Shape, batch: int) -> BatchPlace | None:
    """Return where the numbers of a Reshape have the batch; None if they split it.

    Args:
        sizes: the numbers, for the whole batch.
        place: in the tensor that is reshaped.
        shape: of this tensor, for one image.
        batch: number of images.
    """
    inside, behind = place.inner * math.prod(shape[place.axis + 1 :]), 1
    for axis in range(len(sizes) - 1, -1, -1):
        if sizes[axis] % batch == 0 and inside % behind == 0 and sizes[axis] // batch % (inside // behind) == 0:
            return BatchPlace(axis, inside // behind)
        behind *= sizes[axis]
    return None


def note_batch(builder: NetworkBuilder, node: Node) -> None:
    """Remember where the batch is in the outputs of a node, if that can be told. Reshape and its kin do so themselves."""
    computed = [n for n in node.inputs if n and not isinstance(builder.symbols[n], Constant)]
    if not computed or node.domain or any(name in builder.batch_places for name in node.outputs):
        return
    data = max(computed, key=lambda name: len(builder.onnx_shape(name)))
    place, shape = batch_place(builder, data), builder.onnx_shape(data)
    for name in node.outputs:
        symbol = builder.symbols.get(name)
        if place is not None and symbol is not None and not isinstance(symbol, Constant):
            moved = _moved(node, place, shape, builder.onnx_shape(name))
            if moved is not None:
                builder.batch_places[name] = moved


def place_behind(node: Node, place: BatchPlace, shape: Shape, axes: Collection[int]) -> BatchPlace:
    """Return where the batch is behind a Flatten, Squeeze or Unsqueeze. axes: those that it removes or adds."""
    if node.op_type == "Flatten":
        split = int(node.attributes.get("axis", 1)) % max(len(shape), 1)
        inside = place.inner * math.prod(shape[place.axis + 1 :])
        return BatchPlace(0, inside // math.prod(shape[split:])) if place.axis < split else BatchPlace(1, inside)
    if node.op_type == "Squeeze":
        return BatchPlace(place.axis - sum(a < place.axis for a in axes), place.inner)
    others = [i for i in range(len(shape) + len(axes)) if i not in axes]
    return BatchPlace(others[place.axis], place.inner)


def _moved(node: Node, place: BatchPlace, shape: Shape, made: Shape) -> BatchPlace | None:
    """Return the place of the batch behind a node that is no Reshape; None if the node may move it in another way."""
    op, axis = node.op_type, place.axis
    if op == "Transpose":
        perm = [int(n) for n in node.attributes.get("perm", range(len(shape))[::-1])]
        return BatchPlace(perm.index(axis), place.inner)
    if op == "Gather" and len(made) == len(shape) - 1:
        picked = int(node.attributes.get("axis", 0)) % len(shape)
        return None if picked == axis else BatchPlace(axis - (picked < axis), place.inner)
    if op in ("MatMul", "Gemm") and (axis == len(shape) - 1 or node.attributes.get("transA", 0)):
        return None
    axis += len(made) - len(shape)
    same = len(made) >= len(shape) and made[axis] == shape[place.axis]
    return BatchPlace(axis, place.inner) if same and op in onnx_ops.OPERATORS else None
