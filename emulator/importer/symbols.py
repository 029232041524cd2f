"""What an ONNX tensor means while a graph is being lowered: a constant, codes, a grid of reals over codes, or plain floats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.layers import Encoding, OperandStep, Step, StoredOperand, Window

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Pads = tuple[int, int, int, int]

NO_PADS: Pads = (0, 0, 0, 0)
INTEGER_RANKS = (1, 2, 3)
"""Ranks, without the batch, of values that integer layers hold: vectors (K,), signals (C, L) and images (C, H, W)."""


def scalar(x: float) -> Floats:
    """A float32 constant for all channels."""
    return np.asarray(x, np.float32).reshape(())


BATCH = 2_305_843_009_213_693_951
"""Stands for the batch in the constants that Shape makes. A prime, so that arithmetic on it cannot pass for another size."""


@dataclass(frozen=True)
class Node:
    """One operator of the graph, with its opset, its omitted inputs as "" and its attributes as plain Python values."""

    op_type: str
    domain: str
    opset: int
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(hash=False, compare=False)

    def input(self, index: int) -> str:
        """The name of an input, "" if it is left out."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def __str__(self) -> str:
        domain = f"{self.domain}." if self.domain else ""
        return f"node {self.name or self.outputs[0]} ({domain}{self.op_type}, opset {self.opset})"


@dataclass(frozen=True, eq=False)
class QuantizedConstant:
    """The integers behind a dequantized constant: codes, their encoding, and a scale and zero point (scalars, or along `axis`).

    With `block`, scale and zero point have the rank of the codes: one for every `block` codes along `axis`.
    """

    codes: npt.NDArray[np.int32]
    encoding: Encoding
    scale: Floats
    zero_point: npt.NDArray[np.int32]
    axis: int
    block: int = 0


@dataclass(frozen=True, eq=False)
class Recipe:
    """How a constant is made: `codes` (the integers, in the order and type of the file), then `steps`, operator by operator.

    origin: the initializer that holds the integers, or the floats that the file quantizes to them. encoding: of a stored integer.
    """

    origin: str
    codes: Array
    encoding: Encoding
    steps: tuple[OperandStep, ...] = ()


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor known before any data. `origin` is the initializer it comes from, `signed` says that a Sign made it.

    limits: where a Clip of integers said so (Brevitas' way to write narrow weights), the lowest and highest code.
    recipe: how it is made from stored integers, if it is.
    batched: the first axis has size 1 and stands for the batch (`filled.py`).
    """

    array: Array
    origin: str
    quantized: QuantizedConstant | None = None
    signed: bool = False
    limits: tuple[int, int] | None = None
    recipe: Recipe | None = None
    batched: bool = False


@dataclass(frozen=True, eq=False)
class Codes:
    """An integer ONNX tensor, held by the value `value`; `shape` is how ONNX sees it (the value's, or flattened)."""

    value: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class PendingQuantized:
    """A float tensor that no layer has made yet: steps(scale * (q - zero_point)) of the codes or bits in `value`.

    `shape` is the ONNX shape without the batch: the value's, or its flattened form. Constants of `scale` and `steps` are
    scalars or one per channel of the value. Afterwards come, if any, a maximum over `pool` windows and zero `pads`.
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
    """A float (or other non-code) tensor that a layer has made: the value of that name."""

    value: str
    shape: tuple[int, ...]
    dtype: str = "float32"


class OperatorCall(NamedTuple):
    """One ONNX operator that becomes a FloatOperator: its operands are float values and constants, in the order of its inputs.

    Attributes:
        output_index: the output of the operator that is meant.
    """

    op_type: str
    operands: tuple[FloatValue | Array | StoredOperand, ...]
    attributes: Mapping[str, Any] = {}
    opset: int = 17
    output_index: int = 0


@dataclass(frozen=True, eq=False)
class PendingComparison:
    """A two-valued tensor: `levels`[1] where source `test` pivot holds, else `levels`[0]; None while it is boolean."""

    source: str
    symbol: PendingQuantized | FloatValue
    test: str
    pivot: Floats
    levels: tuple[float, float] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.symbol.shape


@dataclass(frozen=True, eq=False)
class PendingSum:
    """left + right, then scalar limits, waiting for a QuantizeLinear; fused: as QLinearAdd rounds it."""

    left: PendingQuantized
    right: PendingQuantized
    steps: tuple[Step, ...] = ()
    fused: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.left.shape


@dataclass(frozen=True, eq=False)
class PendingMean:
    """The mean of `source` over windows, then scalar limits, waiting for a QuantizeLinear."""

    source: PendingQuantized
    window: Window
    count_include_pad: bool
    shape: tuple[int, ...]
    pooled: tuple[int, ...]
    steps: tuple[Step, ...] = ()


class PointwiseOperator(NamedTuple):
    """One ONNX operator with one computed input, followed by constants."""

    op_type: str
    opset: int
    attributes: Mapping[str, Any]
    constants: tuple[Array, ...] = ()


@dataclass(frozen=True, eq=False)
class PendingPointwise:
    """Pointwise operators on a plain grid of codes: a table, once quantized. Each is (op_type, opset, attributes, constants)."""

    source: PendingQuantized
    operators: tuple[PointwiseOperator, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape


@dataclass(frozen=True, eq=False)
class PendingConcat:
    """Grids of different scales side by side along an ONNX axis, waiting for a QuantizeLinear."""

    parts: tuple[PendingQuantized, ...]
    axis: int
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class DynamicQuantized:
    """What follows from DynamicQuantizeLinear: its codes (centred, in `value`), its scale (in `value`, times `factor`) or its zero.

    A part `bias` is `dividend` / (scale * factor), the older way to quantize a bias; `operators` are those that came after the
    division (Floor, Cast). dividend and factor have the shape that the ONNX tensor has: these tensors have no batch.
    """

    part: Literal["codes", "scale", "zero", "bias"]
    source: str
    value: str
    shape: tuple[int, ...]
    factor: Floats = field(default_factory=lambda: scalar(1))
    dividend: Floats = field(default_factory=lambda: scalar(1))
    operators: tuple[str, ...] = ()


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
)
