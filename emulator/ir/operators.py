"""Layers that are ONNX operators: on float32 values, and on codes that they move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.layer import Layer, LayerParameters
from weakcell.emulator.ir.values import Role


class OperandStep(NamedTuple):
    """One ONNX operator between stored integers and an operand.

    Attributes:
        operands: its inputs; None is the place of the value so far.
        output_index: the output that is meant.
        output_count: how many outputs the node has.
    """

    op_type: str
    opset: int
    attributes: Mapping[str, Any]
    operands: tuple[npt.NDArray[Any] | None, ...]
    output_index: int = 0
    output_count: int = 1


@dataclass(frozen=True, eq=False)
class StoredOperand:
    """A constant operand that is computed from stored integers at each run.

    Attributes:
        tensor: name of the StoredTensor with the integers.
        shape: of the integers before the first step.
        dtype: of the integers before the first step.
        steps: the operators that turn the integers into the operand.
        order: position of each integer in the tensor; None if the tensor has the same order.
        nested: (step, position, operand) of further operands of the steps that are computed from stored integers.
    """

    tensor: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    steps: tuple[OperandStep, ...]
    order: npt.NDArray[np.int64] | None = None
    nested: tuple[tuple[int, int, StoredOperand], ...] = ()

    def tensor_names(self) -> tuple[str, ...]:
        """Return the tensors that the operand is computed from."""
        return self.tensor, *(name for _, _, operand in self.nested for name in operand.tensor_names())


@dataclass(frozen=True, eq=False)
class FloatOperator(Layer):
    """An ONNX operator that stays float32.

    Attributes:
        op_type: name in `onnx_ops.OPERATORS`.
        attributes: attributes of the ONNX node.
        operands: one entry per ONNX input. None is the next of `inputs`, an array is a constant, a StoredOperand is
            computed from integers that a memory stores, and `onnx_ops.ABSENT` is an input that the node leaves out.
        output_index: the output of the operator that the layer makes.
        each_image: whether the operator runs image by image, on tensors without a batch. Otherwise the first axis of the arrays
            is the batch of the operator; constants of a Concat are repeated along it.
    """

    PARAMETERS = LayerParameters(
        tensors={"operands": "weight"}, of_inputs=(), other=("op_type", "opset", "attributes", "output_index", "each_image")
    )
    op_type: str
    opset: int
    attributes: Mapping[str, Any]
    operands: tuple[npt.NDArray[Any] | StoredOperand | None, ...]
    output_index: int = 0
    each_image: bool = False

    @property
    def stored(self) -> tuple[StoredOperand, ...]:
        """The operands that a memory stores."""
        return tuple(x for x in self.operands if isinstance(x, StoredOperand))

    def tensor_names(self, *roles: Role) -> tuple[str, ...]:
        """Return the tensors that the stored operands come from."""
        names = (name for operand in self.stored for name in operand.tensor_names())
        return tuple(dict.fromkeys(names)) if not roles or "weight" in roles else ()


@dataclass(frozen=True, eq=False)
class CodesOperator(Layer):
    """An ONNX operator on codes, exact.

    It moves codes (Concat, Slice, Transpose, Pad, …), or is one of Microsoft's QLinear operators. The fields are those of
    FloatOperator. The codes count as ONNX integers of their type.
    """

    READS = ("codes",)
    PARAMETERS = LayerParameters(of_inputs=(), other=("op_type", "opset", "attributes", "operands", "output_index"))
    op_type: str
    opset: int
    attributes: Mapping[str, Any]
    operands: tuple[npt.NDArray[Any] | None, ...]
    output_index: int = 0
