"""Symbols: what an ONNX tensor means while its graph is lowered.

A symbol is a constant, integers (`Codes`), a float value that a layer has made, or something pending: operators that are
only recorded, until a later node decides which layer computes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.layers import Step
from weakcell.emulator.ir.operators import OperandStep, StoredOperand
from weakcell.emulator.ir.values import Encoding, Window

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Pads = tuple[int, int, int, int]

NO_PADS: Pads = (0, 0, 0, 0)
INTEGER_RANKS = (1, 2, 3)
"""Ranks, without the batch, of values that integer layers hold: vectors (K,), signals (C, L) and images (C, H, W)."""


def scalar(x: float) -> Floats:
    """Return a float32 constant for all channels."""
    return np.asarray(x, np.float32).reshape(())


@dataclass(frozen=True)
class Node:
    """One operator of the graph.

    Attributes:
        inputs: names of tensors; "" is an input that the node leaves out.
        outputs: names of tensors; "" is an output that nobody names.
        attributes: as plain Python values and NumPy arrays.
    """

    op_type: str
    domain: str
    opset: int
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(hash=False, compare=False)

    def input(self, index: int) -> str:
        """Return the name of an input, "" if it is left out."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def __str__(self) -> str:
        domain = f"{self.domain}." if self.domain else ""
        return f"node {self.name or self.outputs[0]} ({domain}{self.op_type}, opset {self.opset})"


@dataclass(frozen=True, eq=False)
class QuantizedConstant:
    """The integers behind a dequantized constant.

    Attributes:
        codes: integers of at most 32 bits, in the shape of the constant.
        encoding: how a code is stored.
        scale: a scalar, or one along `axis`.
        zero_point: likewise.
        block: if not 0, scale and zero point have the rank of the codes: one for every `block` codes along `axis`.
    """

    codes: npt.NDArray[np.integer[Any]]
    encoding: Encoding
    scale: Floats
    zero_point: npt.NDArray[np.int32]
    axis: int
    block: int = 0

    def dequantized(self) -> Array:
        """Return float32(q - zero_point) * scale."""
        scale: Array = self.scale
        zero: Array = self.zero_point
        if self.block:
            keep = np.arange(self.codes.shape[self.axis])
            scale, zero = (np.take(np.repeat(x, self.block, self.axis), keep, self.axis) for x in (scale, zero))
        else:
            shape = [1] * self.codes.ndim
            if scale.ndim:
                shape[self.axis] = scale.size
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        wide = np.int32 if self.codes.itemsize < 4 and _is_narrow(zero) else np.int64
        real: Array = (np.subtract(self.codes, zero, dtype=wide)).astype(np.float32)
        real *= scale
        return real.reshape(self.codes.shape)


def _is_narrow(zero_point: npt.NDArray[np.int32]) -> bool:
    """Return whether int32 holds the difference of a zero point and 16-bit codes."""
    return not zero_point.size or bool(np.abs(zero_point.astype(np.int64)).max() < 1 << 30)


@dataclass(frozen=True, eq=False)
class Recipe:
    """How a constant is computed from stored integers.

    Attributes:
        origin: the initializer that holds the integers, or the floats that the file quantizes to them.
        codes: the integers, in the order and type of the file.
        encoding: of a stored integer.
        steps: the operators from the integers to the constant.
        kind: where the integers are from. `quantized`: the importer or the graph makes them of floats. `file`: the file has them.
            `shared`: the file has them, and its nodes read them in ways that no layer of integers has together
            (`shared_integers.py`). Every value that is computed from shared integers is computed again from those that were read.
        nested: (step, position, recipe) of further operands of the steps that are computed from shared integers.
    """

    origin: str
    codes: Array
    encoding: Encoding
    steps: tuple[OperandStep, ...] = ()
    kind: Literal["quantized", "file", "shared"] = "quantized"
    nested: tuple[tuple[int, int, Recipe], ...] = ()

    @property
    def origins(self) -> frozenset[str]:
        """All tensors of stored integers that the constant is computed from."""
        return frozenset({self.origin}.union(*(recipe.origins for _, _, recipe in self.nested)))

    @property
    def is_shared(self) -> bool:
        """Whether it reads shared integers."""
        return self.kind == "shared" or bool(self.nested)


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that is known before any data.

    Attributes:
        given: its elements; None for those of `quantized`, which are computed when they are needed.
        origin: the initializer that it comes from.
        quantized: the integers behind a dequantized constant.
        signed: whether a Sign made it.
        limits: lowest and highest code, if a Clip of integers gives them (Brevitas writes narrow weights so).
        recipe: how it is computed from stored integers, if it is.
        frozen: tensors of integers whose values it depends on, besides those that the recipe reads: it does not follow their flips.
    """

    given: Array | None
    origin: str
    quantized: QuantizedConstant | None = None
    signed: bool = False
    limits: tuple[int, int] | None = None
    recipe: Recipe | None = None
    frozen: frozenset[str] = frozenset()

    @property
    def array(self) -> Array:
        """The elements; an array of floats is made anew at each use if only its integers are kept."""
        if self.given is not None:
            return self.given
        assert self.quantized is not None
        return self.quantized.dequantized()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor."""
        kept = self.given if self.quantized is None or self.given is not None else self.quantized.codes
        assert kept is not None
        return kept.shape


@dataclass(frozen=True, eq=False)
class Codes:
    """An integer ONNX tensor.

    Attributes:
        value: the value that holds the integers.
        shape: how ONNX sees it: the shape of the value, or its flattened form.
    """

    value: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class PendingQuantized:
    """A float tensor that no layer has made yet.

    Steps(scale * (q - zero_point)) of codes or bits.

    Attributes:
        value: the value that holds the codes or bits.
        shape: the ONNX shape without the batch: that of the value, or its flattened form.
        scale: a scalar, or one per channel of the value.
        steps: float32 operations that follow.
        pool: a maximum over windows that follows the steps.
        pads: zero padding that follows the pool.
    """

    value: str
    shape: tuple[int, ...]
    scale: Floats
    zero_point: int = 0
    steps: tuple[Step, ...] = ()
    pool: Window | None = None
    pads: Pads = NO_PADS


@dataclass(frozen=True, eq=False)
class FloatValue:
    """A tensor that a layer has made, of floats or of any other type but codes.

    The value of that name.
    """

    value: str
    shape: tuple[int, ...]
    dtype: str = "float32"


class OperatorCall(NamedTuple):
    """One ONNX operator that becomes a FloatOperator.

    Attributes:
        operands: float values and constants, in the order of the ONNX inputs.
        output_index: the output of the operator that is meant.
    """

    op_type: str
    operands: tuple[FloatValue | Array | StoredOperand, ...]
    attributes: Mapping[str, Any] = {}
    opset: int = 17
    output_index: int = 0


@dataclass(frozen=True, eq=False)
class PendingComparison:
    """A two-valued tensor: levels[1] where `source test pivot` holds, else levels[0].

    Attributes:
        source: name of the compared tensor.
        symbol: what that tensor means.
        test: one of > >= < <=.
        pivot: a scalar, or one per channel.
        levels: the two values; None while the tensor is boolean.
    """

    source: str
    symbol: PendingQuantized | FloatValue
    test: str
    pivot: Floats
    levels: tuple[float, float] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the compared tensor."""
        return self.symbol.shape


@dataclass(frozen=True, eq=False)
class PendingSum:
    """left + right, then scalar limits.

    A QuantizeLinear may follow.

    Attributes:
        fused: whether it is rounded as QLinearAdd rounds.
    """

    left: PendingQuantized
    right: PendingQuantized
    steps: tuple[Step, ...] = ()
    fused: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of both summands."""
        return self.left.shape


@dataclass(frozen=True, eq=False)
class PendingMean:
    """The mean of `source` over windows, then scalar limits.

    A QuantizeLinear may follow.

    Attributes:
        shape: as ONNX sees the result.
        pooled: shape of the pool's own output.
    """

    source: PendingQuantized
    window: Window
    count_include_pad: bool
    shape: tuple[int, ...]
    pooled: tuple[int, ...]
    steps: tuple[Step, ...] = ()


class PointwiseOperator(NamedTuple):
    """One ONNX operator whose first input is computed; the others are constants."""

    op_type: str
    opset: int
    attributes: Mapping[str, Any]
    constants: tuple[Array, ...] = ()


@dataclass(frozen=True, eq=False)
class PendingPointwise:
    """Pointwise operators on codes of one scale.

    A lookup table, once a QuantizeLinear follows.
    """

    source: PendingQuantized
    operators: tuple[PointwiseOperator, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the source, which pointwise operators keep."""
        return self.source.shape


@dataclass(frozen=True, eq=False)
class PendingConcat:
    """Quantized tensors of different scales, concatenated along an ONNX axis."""

    parts: tuple[PendingQuantized, ...]
    axis: int
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class DynamicQuantized:
    """An output of DynamicQuantizeLinear, or a bias divided by its scale.

    Attributes:
        part: codes (less their zero point, in `value`), scale (in `value`, times `factor`), zero point, or bias:
            `dividend` / (scale * factor), the older way to quantize a bias.
        source: name of the quantized tensor.
        real: the value that is quantized.
        operators: what followed the division of a bias (Floor, Cast).
        factor: in the ONNX shape; these tensors have no batch.
        dividend: likewise.
    """

    part: Literal["codes", "scale", "zero", "bias"]
    source: str
    value: str
    shape: tuple[int, ...]
    real: str
    factor: Floats = field(default_factory=lambda: scalar(1))
    dividend: Floats = field(default_factory=lambda: scalar(1))
    operators: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class RowSums:
    """Integer sums of a MatMulInteger on vectors of a sequence.

    Attributes:
        value: the int32 sums, (O, rows, 1).
        shape: as ONNX sees them: (…, O).
        real: whether a Cast to float followed.
    """

    value: str
    shape: tuple[int, ...]
    real: bool = False


@dataclass(frozen=True, eq=False)
class RowProduct:
    """The product of a quantized sequence with stored weights.

    Attributes:
        pending: the sums, (O, rows, 1), and the steps behind them.
        shape: as ONNX sees them: (…, O).
    """

    pending: PendingQuantized
    shape: tuple[int, ...]


Symbol = (
    Constant
    | Codes
    | PendingQuantized
    | FloatValue
    | PendingComparison
    | PendingSum
    | PendingMean
    | PendingPointwise
    | PendingConcat
    | DynamicQuantized
    | RowSums
    | RowProduct
)
