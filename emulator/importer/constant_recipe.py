"""Provenance of constants: the stored integers that a constant is computed from.

A weight-only layer has integers in the file and floats at its operator, with DequantizeLinear, Cast and Mul, Transpose or
Slice between them. The recipe records these operators, so that a layer can repeat them on the integers that a memory
returned. `propagate_quantization` follows scale and zero point through operators that move elements or dequantize step by
step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer.symbols import Array, Constant, Node, QuantizedConstant, Recipe, scalar
from weakcell.emulator.ir.operators import OperandStep
from weakcell.emulator.ir.values import SIGN1, Encoding, StoredTensor

Kind = Literal["quantized", "file", "shared"]
"""See `Recipe.kind`."""

WIDEST_WEIGHT = 16
"""Bits of the widest integer that counts as a weight; wider ones are biases, sizes and indices."""

_ELEMENTWISE = ("Add", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Cast", "Div", "Floor", "Mod", "Mul", "Neg", "Sub")
_MOVES = (
    "Dropout", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
)  # fmt: skip
SHAPES_ONLY = ("ConstantOfShape", "Shape", "Size")
"""Operators that do not read the values of their input, or read only sizes."""

_EITHER_SIDE = ("Add", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Mul", "Sub")


def integer_encoding(dtype: object) -> Encoding | None:
    """Return how an integer type is stored.

    None for any type but integers of 2 to 32 bits.
    """
    names = {"int": "signed", "uint": "unsigned"}
    text = str(np.dtype(dtype))  # type: ignore[call-overload]
    stem = text.rstrip("0123456789")
    if stem not in names or not 2 <= int(text[len(stem) :]) <= 32:
        return None
    return Encoding("signed" if stem == "int" else "unsigned", int(text[len(stem) :]))


def integer_recipe(array: Array, origin: str, kind: Kind, encoding: Encoding | None = None) -> Recipe | None:
    """Return the recipe of integers as they are stored.

    None for wide integers and other types.
    """
    encoding = encoding or integer_encoding(array.dtype)
    if encoding is None or encoding.bits > WIDEST_WEIGHT:
        return None
    return Recipe(origin, array, encoding, kind=kind)


def extend_recipe(
    node: Node, inputs: Sequence[Constant | None], encoding: Encoding | None, output_index: int = 0, at: int | None = None
) -> Recipe | None:
    """Return the recipe of a folded node's output.

    None if it is not computed from one tensor of integers.

    Args:
        node: the folded node.
        inputs: its inputs.
        encoding: of the integers, if the node dequantizes some that need fewer bits than their type has.
        output_index: the output that is meant.
        at: the input that the integers come through; None to find it.
    """
    at = _source(node, inputs) if at is None else at
    if at is None:
        return None
    source = inputs[at]
    assert source is not None
    assert source.recipe is not None
    recipe = source.recipe if encoding is None or source.recipe.steps else replace(source.recipe, encoding=encoding)
    operands = tuple(None if i == at else onnx_ops.ABSENT if given is None else given.array for i, given in enumerate(inputs))
    step = OperandStep(
        node.op_type, node.opset, dict(node.attributes), operands, output_index, max(output_index + 1, len(node.outputs))
    )
    others = [(len(recipe.steps), i, x.recipe) for i, x in enumerate(inputs) if i != at and x is not None and x.recipe is not None]
    shared = tuple((step_index, i, other) for step_index, i, other in others if other.is_shared)
    return replace(recipe, steps=(*recipe.steps, step), nested=(*recipe.nested, *shared))


def find_frozen(node: Node, inputs: Sequence[Constant | None], recipe: Recipe | None) -> frozenset[str]:
    """Return the stored tensors that a folded node's output depends on, although its recipe does not read them there.

    Args:
        node: the folded node.
        inputs: its inputs.
        recipe: of its output.
    """
    if node.op_type in SHAPES_ONLY:
        return frozenset()
    constants = [x for x in inputs if x is not None]
    frozen = {origin for x in constants for origin in x.frozen}
    if recipe is None or not recipe.steps or recipe.steps[-1].op_type != node.op_type:  # the node itself makes integers, or none
        frozen.update(*(x.recipe.origins for x in constants if x.recipe is not None))
        return frozenset(frozen) - ({recipe.origin} if recipe is not None else set())
    last = len(recipe.steps) - 1
    read = {i for i, x in enumerate(recipe.steps[-1].operands) if x is None} | {i for step, i, _ in recipe.nested if step == last}
    frozen.update(*(x.recipe.origins for i, x in enumerate(inputs) if x is not None and x.recipe is not None and i not in read))
    return frozenset(frozen)


def _source(node: Node, inputs: Sequence[Constant | None]) -> int | None:
    """Return the index of the input that the integers come through.

    None if the node mixes them.
    """
    sizes = {i: x.recipe.codes.size for i, x in enumerate(inputs) if x is not None and x.recipe is not None}
    if node.domain or not sizes:
        return None
    if node.op_type in _EITHER_SIDE:
        return max(sizes, key=lambda i: sizes[i])
    if 0 in sizes and node.op_type in ("DequantizeLinear", *_ELEMENTWISE, *_MOVES):
        return 0
    shared = [i for i, x in enumerate(inputs) if x is not None and x.recipe is not None and x.recipe.is_shared]
    return shared[0] if shared and node.op_type not in SHAPES_ONLY else None


def is_stored(constant: Constant) -> bool:
    """Return whether a constant is stored integers in any order, without arithmetic."""
    recipe = constant.recipe
    return recipe is not None and all(step.op_type in _MOVES for step in recipe.steps)


def find_sign_recipe(array: Array, origin: str) -> Recipe | None:
    """Return the recipe of floats that are ±1 times a scale.

    The scale is one number, or one per index of an axis. None for all other floats.
    """
    magnitude = np.abs(array)
    if array.size < 2 or not np.all(np.isfinite(array)) or np.any(magnitude == 0):
        return None
    for axis in (None, *range(array.ndim)):
        others = tuple(i for i in range(array.ndim) if i != axis)
        scale = magnitude.max(axis=others, keepdims=True)
        if scale.size < array.size and np.all(magnitude == scale):
            step = OperandStep("Mul", 14, {}, (None, scale.astype(np.float32)))
            return Recipe(origin, np.where(array > 0, np.float32(1), np.float32(-1)), SIGN1, (step,))
    return None


def element_positions(recipe: Recipe) -> Array:
    """Return, for each element of a constant, the position of its integer in the file."""
    positions: Array = np.arange(recipe.codes.size).reshape(recipe.codes.shape)
    for step in recipe.steps:
        operands = [positions if x is None else x for x in step.operands]
        if step.op_type in _MOVES:
            positions = onnx_ops.apply_all(step.op_type, step.opset, step.attributes, operands, step.output_count)[
                step.output_index
            ]
        elif len(operands) > 1 and step.op_type != "DequantizeLinear":
            positions = np.broadcast_to(positions, np.broadcast_shapes(*(x.shape for x in operands)))
    return positions


@dataclass(frozen=True, eq=False, repr=False)
class ImportedTensor(StoredTensor):
    """A weight tensor and the origin of its integers.

    Attributes:
        recipe: how the constant is computed from the integers.
        axis: of the constant; it became the first axis of the tensor.
    """

    recipe: Recipe | None = None
    axis: int = 0

    def positions(self) -> Array:
        """Return the position in the file of each stored element."""
        assert self.recipe is not None
        return np.moveaxis(element_positions(self.recipe), self.axis, 0).reshape(-1)

    def as_stored_tensor(self, name: str) -> StoredTensor:
        """Return the tensor for the network, without its origin."""
        return StoredTensor(name, self.role, self.encoding, self.codes, self.scale, self.zero_point, self.block)


def same_integers(a: Recipe, b: Recipe) -> bool:
    """Return whether two recipes start from the same integers of the same tensor."""
    return a.origin == b.origin and (a.codes is b.codes or np.array_equal(a.codes, b.codes))


def undo_dequantization(node: Node, inputs: Sequence[Constant | None], array: Array) -> Recipe | None:
    """Return the recipe of a QuantizeLinear that gives back every integer, of any value, that was dequantized before it.

    Args:
        node: the QuantizeLinear.
        inputs: its inputs, with a zero point.
        array: what it gives.

    Returns:
        None if there is no such DequantizeLinear: the same scale, zero point and type, and only moves after it.
    """
    recipe = inputs[0].recipe if inputs[0] is not None else None
    if recipe is None or recipe.is_shared or not recipe.steps:
        return None
    at = max((i for i, step in enumerate(recipe.steps) if step.op_type == "DequantizeLinear"), default=-1)
    before, after = recipe.steps[:at], recipe.steps[at + 1 :]
    if at < 0 or any(step.op_type not in _MOVES for step in (*before, *after)) or recipe.codes.dtype != array.dtype:
        return None
    operands = [*recipe.steps[at].operands[1:], None]
    scale, zero = operands[0], np.zeros((), array.dtype) if operands[1] is None else operands[1]
    given = [x.array for x in inputs[1:3] if x is not None]
    if not isinstance(scale, np.ndarray) or len(given) != 2 or not np.all(scale > np.finfo(np.float32).tiny):
        return None
    same = np.array_equal(scale.reshape(-1), given[0].reshape(-1)) and np.array_equal(zero.reshape(-1), given[1].reshape(-1))
    if not same or scale.size != 1 or np.asarray(zero).size != 1:
        return None
    return replace(recipe, steps=(*before, *after))


# ── quantization of a constant that was moved or scaled ───────────────────────────────────────────────


def propagate_quantization(node: Node, inputs: list[Constant | None], array: Array, output_index: int) -> QuantizedConstant | None:
    """Return the integers, scale and zero point behind a folded node's output.

    Cast of integers, then Sub of a zero point, then Mul with a scale is a dequantization, too.

    Args:
        node: the folded node.
        inputs: its inputs.
        array: its output.
        output_index: which output that is.

    Returns:
        None if the integers cannot be followed through the node.
    """
    first = inputs[0] if inputs else None
    if node.op_type == "Cast" and first is not None and array.dtype == np.float32:
        if first.recipe is None or not is_stored(first) or first.array.ndim == 0:
            return None
        return QuantizedConstant(first.array.astype(np.int32), first.recipe.encoding, scalar(1), np.zeros((), np.int32), 0)
    if node.op_type in ("Sub", "Mul") and len(inputs) == 2:
        a, b = inputs
        if node.op_type == "Mul" and b is not None and b.quantized is not None:
            a, b = b, a
        if a is None or b is None or a.quantized is None or b.array.dtype != np.float32 or array.shape != a.shape:
            return None
        return _scaled(node, a.quantized, b.array)
    if first is None or first.quantized is None:
        return None
    return (
        _slice_quantization(node, first.quantized, inputs, array, output_index)
        if node.op_type in ("Slice", "Split")
        else _move_quantization(node, first.quantized, array)
    )


def _scaled(node: Node, quantized: QuantizedConstant, constant: Array) -> QuantizedConstant | None:
    """Apply Sub or Mul with one number, or with one number per index of an axis.

    float32(q - zero_point) * scale equals what the graph computes only for integers subtracted first and one factor.
    """
    if quantized.block or np.any(quantized.scale != 1) or not np.all(np.isfinite(constant)):
        return None
    rank = quantized.codes.ndim
    shape = (1,) * (rank - constant.ndim) + constant.shape
    long = [i for i, n in enumerate(shape) if n > 1]
    axis = long[0] if long else quantized.axis
    if len(long) > 1 or (quantized.zero_point.ndim and long and axis != quantized.axis):
        return None
    size = quantized.codes.shape[axis]
    flat = constant.reshape(-1) if long else constant.reshape(())
    if node.op_type == "Mul":
        scale = np.asarray(flat, np.float32)
        zero = quantized.zero_point
    else:
        if np.any(flat != np.rint(flat)) or np.any(np.abs(flat) > 1 << 16) or np.any(quantized.zero_point):
            return None
        scale, zero = quantized.scale, flat.astype(np.int32)
    if scale.ndim or zero.ndim:
        scale = np.ascontiguousarray(np.broadcast_to(scale, (size,)))
        zero = np.ascontiguousarray(np.broadcast_to(zero, (size,)))
    return replace(quantized, scale=scale, zero_point=zero, axis=axis)


def _slice_quantization(
    node: Node, quantized: QuantizedConstant, inputs: list[Constant | None], array: Array, output_index: int
) -> QuantizedConstant | None:
    """Return a part of the integers, with the scales of that part."""
    if quantized.block:
        return None
    operands = [None if x is None else x.array for x in inputs[1:]]

    def part(x: Array) -> Array:
        """Return the output of the node for an array of the same shape."""
        outputs = onnx_ops.apply_all(
            node.op_type, node.opset, node.attributes, [x, *operands], max(output_index + 1, len(node.outputs))
        )
        return outputs[output_index]

    if quantized.scale.ndim == 0:
        return replace(quantized, codes=np.ascontiguousarray(part(quantized.codes)))
    shape = [1] * array.ndim
    shape[quantized.axis] = quantized.scale.size
    line = tuple(slice(None) if i == quantized.axis else 0 for i in range(array.ndim))
    scale, zero = (
        part(np.broadcast_to(x.reshape(shape), quantized.codes.shape))[line] for x in (quantized.scale, quantized.zero_point)
    )
    return replace(quantized, codes=np.ascontiguousarray(part(quantized.codes)), scale=scale.copy(), zero_point=zero.copy())


def _move_quantization(node: Node, quantized: QuantizedConstant, array: Array) -> QuantizedConstant | None:
    """Follow the integers through an operator that only moves elements.

    None if their scales cannot follow.
    """
    codes, axis = quantized.codes, quantized.axis
    if node.op_type in ("Identity", "Dropout"):
        return quantized
    if quantized.block:
        return _transpose_blocks(node, quantized)
    if node.op_type == "Transpose":
        perm = node.attributes.get("perm") or list(range(codes.ndim))[::-1]
        codes, axis = np.transpose(codes, perm), list(perm).index(axis) if codes.ndim else 0
    elif node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        old, new = codes.shape, array.shape
        if quantized.scale.ndim:
            before = math.prod(old[:axis])
            candidates = [i for i in range(len(new)) if math.prod(new[:i]) == before and new[i] == old[axis]]
            if not candidates:
                return None
            axis = candidates[0]
        codes = codes.reshape(new)
    else:
        return None
    return QuantizedConstant(np.asarray(codes, order="C"), quantized.encoding, quantized.scale, quantized.zero_point, axis)


def _transpose_blocks(node: Node, quantized: QuantizedConstant) -> QuantizedConstant | None:
    """Transpose blocked codes; None for any other move."""
    if node.op_type != "Transpose":
        return None
    perm = list(node.attributes.get("perm") or range(quantized.codes.ndim)[::-1])
    codes, scale = np.transpose(quantized.codes, perm), np.transpose(quantized.scale, perm)
    zero = np.transpose(quantized.zero_point, perm)
    return QuantizedConstant(
        np.ascontiguousarray(codes), quantized.encoding, scale, zero, perm.index(quantized.axis), quantized.block
    )
