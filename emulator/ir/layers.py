"""The integer network: frozen layer records in execution order.

Notes for developers:
- A record holds no array that a run writes to. Plans own the buffers, so threads can share records.
- Logical shapes are those of ONNX without the batch: (C, H, W), (C, L) or (K,). The kind of a value fixes its array:

      float   float32 (n, *shape), ONNX order codes   integers (n, H, W, C), channels last; (C, L) is (n, 1, L, C) and (K,)
      is (n, 1, 1, K) bits    uint64 (n, H, W, ceil(C/64)), channels last, LSB first; bit 1 means +1, bit 0 means -1; spare
      bits are 0

- The real number behind a code q is scale * (q - zero_point). An accumulator is a value of kind `codes` and dtype int32.
- Weights, biases and thresholds are `StoredTensor`s. Layers name them, kernels take them as arguments, nothing compiles
them in.
  Scales and zero points are fields of the records. `faultable.py` can store them too: a faulty one is a layer with
  another field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.values import FLOAT32 as FLOAT32
from weakcell.emulator.ir.values import SIGN1 as SIGN1
from weakcell.emulator.ir.values import BatchAxis as BatchAxis
from weakcell.emulator.ir.values import Buffer as Buffer
from weakcell.emulator.ir.values import Encoding as Encoding
from weakcell.emulator.ir.values import Kind as Kind
from weakcell.emulator.ir.values import OutputMeaning as OutputMeaning
from weakcell.emulator.ir.values import Role as Role
from weakcell.emulator.ir.values import Storable as Storable
from weakcell.emulator.ir.values import StoredTensor as StoredTensor
from weakcell.emulator.ir.values import ValueSpec as ValueSpec
from weakcell.emulator.ir.values import Window as Window

# ── layers ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class LayerParameters:
    """Declaration of the fields of a layer record: which of them a memory can store.

    Attributes:
        tensors: fields that name a StoredTensor (or None), with the role of that tensor.
        constants: fields that hold numbers, with their role when a memory stores them. Their order is the order in the memory.
        of_inputs: which quantization parameters of its inputs the layer computes with. A memory can store them, too.
        other: all other fields. No memory stores them: they are code, or records that declare their own parameters.
    """

    tensors: Mapping[str, Role] = field(default_factory=dict)
    constants: Mapping[str, Role] = field(default_factory=dict)
    of_inputs: tuple[Literal["zero_point", "scale"], ...]
    other: tuple[str, ...] = ()


class LayerConstantField(NamedTuple):
    """One constant of a layer.

    Attributes:
        attribute: the field of the record.
        step: the index of the step that the constant belongs to, None if it belongs to the layer.
        name: the name of the stored tensor.
        role: the role of the stored tensor.
        numbers: the fault-free value.
    """

    attribute: str
    step: int | None
    name: str
    role: Role
    numbers: Any


@dataclass(frozen=True, eq=False)
class Layer:
    """Base of all layer records.

    Every subclass declares all its fields in PARAMETERS; a field that is missing there is a TypeError at import.

    Attributes:
        READS: the kinds of value that the layer can read. An importer may give it no other kind. PARAMETERS: which of its
        own fields a memory can store. name: the name for people, usually that of the ONNX node. inputs: names of the values
        that the layer reads. output: name of the value that the layer makes.
    """

    READS: ClassVar[tuple[Kind, ...]] = ("float",)
    PARAMETERS: ClassVar[LayerParameters]
    name: str
    inputs: tuple[str, ...]
    output: str

    def __init_subclass__(cls) -> None:
        """Check that the class declares all its fields in PARAMETERS."""
        super().__init_subclass__()
        if "PARAMETERS" not in cls.__dict__:
            raise TypeError(f"{cls.__name__} must declare PARAMETERS: which of its fields a memory can store")
        declared = [*cls.PARAMETERS.tensors, *cls.PARAMETERS.constants, *cls.PARAMETERS.other]
        fields = [name for name, kind in cls.__annotations__.items() if "ClassVar" not in str(kind)]
        if sorted(declared) != sorted(fields):
            raise TypeError(f"{cls.__name__}.PARAMETERS declares {sorted(declared)}, and its fields are {sorted(fields)}")

    def tensor_names(self, *roles: Role) -> tuple[str, ...]:
        """Return the names of the stored tensors that the layer reads.

        Only of these roles, if any are given.
        """
        fields = (getattr(self, field) for field, role in self.PARAMETERS.tensors.items() if not roles or role in roles)
        return tuple(name for name in fields if name is not None)

    def constant_fields(self) -> Iterator[LayerConstantField]:
        """Yield the layer's own constants that a memory can store, in their order there."""
        for attribute, role in self.PARAMETERS.constants.items():
            numbers = getattr(self, attribute)
            if numbers is not None:
                yield LayerConstantField(attribute, None, f"{self.name}.{attribute}", role, numbers)


@dataclass(frozen=True, eq=False)
class Quantize(Layer):
    """QuantizeLinear of a float value.

    q = clamp(rint(x / scale) + zero_point, low, high), with a float32 division, rounded half to even.
    """

    PARAMETERS = LayerParameters(constants={"scale": "scale", "zero_point": "zero_point"}, of_inputs=(), other=("low", "high"))
    scale: float
    zero_point: int
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Dequantize(Layer):
    """DequantizeLinear: codes or bits to float32 in ONNX order.

    y = float32(q - zero_point) * scale[c] (+ bias[c]).
    """

    READS = ("codes", "bits")
    PARAMETERS = LayerParameters(constants={"scale": "scale", "bias": "bias"}, of_inputs=("zero_point",))
    scale: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class Convolution(Layer):
    """Sum of products with a stored weight: Conv, Gemm and MatMul.

    acc[o] = sum (x - zx) * (w[o] - zw[o]) + bias[o]. Padding adds nothing to the sum. Gemm and MatMul have a 1x1 kernel.
    A matrix product after Flatten has a kernel as large as the image, so channels-last data need no copy.
    Inputs may be `bits` with sign weights (XNOR-popcount), `codes` with any weights, or `float` with any weights.
    With floats, the output is the float32 sum times the weight's scale.

    Attributes:
        weight: StoredTensor with values (O, C/groups, kh, kw).
        bias: StoredTensor int32 (O,), or None.
        wraps: whether the fault-free sum can leave int32. Then it wraps modulo 2^32, as ONNX's integer operators do.
    """

    READS = ("float", "codes", "bits")
    PARAMETERS = LayerParameters(
        tensors={"weight": "weight", "bias": "bias"}, of_inputs=("zero_point",), other=("window", "groups", "wraps")
    )
    weight: str
    bias: str | None
    window: Window
    groups: int = 1
    wraps: bool = False

    def __post_init__(self) -> None:
        if self.groups < 1:
            raise ValueError(f"{self.name}: groups must be at least 1")


@dataclass(frozen=True, eq=False)
class Requantize(Layer):
    """The QOperator epilogue: int32 sums to codes with one multiplication.

    q = clamp(rint(float32(acc - zx) * multiplier[c]) + zero_point, low, high), multiplier = float32(float32(s_x * s_w[c]) /
    s_y). `low` and `high` also carry Relu and Clip, which commute with rounding.
    """

    READS = ("codes", "bits")
    PARAMETERS = LayerParameters(
        constants={"multiplier": "scale", "zero_point": "zero_point"}, of_inputs=("zero_point",), other=("low", "high")
    )
    multiplier: npt.NDArray[np.float32]
    zero_point: int
    low: int
    high: int


class StepOperator(NamedTuple):
    """What a Step computes.

    The ONNX operator of the same meaning, and the function on float32 arrays.
    """

    onnx: str
    compute: Callable[..., npt.NDArray[np.float32]]


STEP_OPERATORS: Mapping[str, StepOperator] = {
    "mul": StepOperator("Mul", np.multiply),
    "add": StepOperator("Add", np.add),
    "sub": StepOperator("Sub", np.subtract),
    "div": StepOperator("Div", np.divide),
    "max": StepOperator("Max", np.maximum),
    "min": StepOperator("Min", np.minimum),
}
"""The operators of steps. Kernels know them by their position (`Step.opcode`): `kernels.requantization` branches on it."""


@dataclass(frozen=True, eq=False)
class Step:
    """One float32 operation with a constant per channel (channels last), or with one."""

    op: Literal["mul", "add", "sub", "div", "max", "min"]
    constant: npt.NDArray[np.float32]

    def __call__(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the result for float32 values, channels last."""
        return STEP_OPERATORS[self.op].compute(x, self.constant)

    @property
    def onnx_operator(self) -> str:
        """The name of the ONNX operator that computes the same."""
        return STEP_OPERATORS[self.op].onnx

    @property
    def opcode(self) -> int:
        """The number by which kernels know the operator."""
        return list(STEP_OPERATORS).index(self.op)


@dataclass(frozen=True, eq=False)
class AffineRequantize(Layer):
    """The QDQ epilogue: int32 sums to codes by float32 operations.

    q = clamp(rint((float32(acc - zx) * scale[c] + bias[c]) / out_scale) + zero_point, low, high).
    `steps` are further float32 operations before the division, such as a BatchNormalization that was not fused.
    """

    READS = ("codes", "bits")
    PARAMETERS = LayerParameters(
        constants={"scale": "scale", "out_scale": "scale", "bias": "bias", "steps": "scale", "zero_point": "zero_point"},
        of_inputs=("zero_point",),
        other=("low", "high"),
    )
    scale: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32] | None
    out_scale: float
    zero_point: int
    low: int
    high: int
    steps: tuple[Step, ...] = ()

    def constant_fields(self) -> Iterator[LayerConstantField]:
        """Yield the constants; those of the steps one by one."""
        for constant in super().constant_fields():
            if constant.attribute != "steps":
                yield constant
                continue
            for i, step in enumerate(self.steps):
                yield LayerConstantField("steps", i, f"{self.name}.{step.op}{i}", constant.role, step.constant)


@dataclass(frozen=True, eq=False)
class Threshold(Layer):
    """Folded BatchNormalization and binarization of codes, or of bits as ±1.

    bit = (acc >= threshold[c]) != inverted[c].

    Attributes:
        threshold: StoredTensor int32 (C,). A constant channel has the threshold -2^31, which every sum reaches.
    """

    READS = ("codes", "bits")
    PARAMETERS = LayerParameters(tensors={"threshold": "threshold"}, of_inputs=(), other=("inverted",))
    threshold: str
    inverted: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class TernarySign(Layer):
    """Sign of the folded float value where an exact 0 can occur (ONNX Sign(0) = 0).

    t = (acc >= upper[c]) - (acc <= lower[c]), negated where inverted[c]; codes in {-1, 0, +1}.

    Attributes:
        upper: StoredTensor int32 (C,).
        lower: StoredTensor int32 (C,).
    """

    READS = ("codes", "bits")
    PARAMETERS = LayerParameters(tensors={"upper": "threshold", "lower": "threshold"}, of_inputs=(), other=("inverted",))
    upper: str
    lower: str
    inverted: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class CountThresholds(Layer):
    """QONNX MultiThreshold on integers.

    q = number of thresholds t of the channel with acc >= t, or with acc < t where falling[c].

    Attributes:
        threshold: StoredTensor int32 (C, T).
    """

    READS = ("codes",)
    PARAMETERS = LayerParameters(tensors={"threshold": "threshold"}, of_inputs=(), other=("falling",))
    threshold: str
    falling: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Binarize(Layer):
    """Binarization of float32 in ONNX order to bits or ternary codes, channels last.

    bit = (x > pivot[c]) != inverted if strict, else (x >= pivot[c]) != inverted. NaN counts as not above.
    If ternary, the output is sign(x) as int8 codes in {-1, 0, +1}; pivot, strict and inverted are not used.
    """

    PARAMETERS = LayerParameters(constants={"pivot": "threshold"}, of_inputs=(), other=("strict", "inverted", "ternary"))
    pivot: npt.NDArray[np.float32]
    strict: bool
    inverted: bool = False
    ternary: bool = False

    def constant_fields(self) -> Iterator[LayerConstantField]:
        """Yield the pivot, unless the layer is ternary and does not use it."""
        return iter(()) if self.ternary else super().constant_fields()


@dataclass(frozen=True, eq=False)
class AddCodes(Layer):
    """Add of two quantized values (a residual connection).

    q = clamp(rint(((a - za) * sa + (b - zb) * sb) / out_scale) + zero_point, low, high), in float32.
    If fused: q = clamp(rint(fma(a, ra, fma(b, rb, c))), low, high) with ra = sa / out_scale, rb = sb / out_scale and
    c = zero_point - fma(ra, za, rb * zb): onnxruntime's QLinearAdd. The two formulas differ in ties only.
    """

    READS = ("codes", "bits")
    PARAMETERS = LayerParameters(
        constants={"out_scale": "scale", "zero_point": "zero_point"},
        of_inputs=("zero_point", "scale"),
        other=("low", "high", "fused"),
    )
    out_scale: float
    zero_point: int
    low: int
    high: int
    fused: bool = False


@dataclass(frozen=True, eq=False)
class MaxPool(Layer):
    """MaxPool of codes or bits of one scale and zero point. Padding never wins."""

    READS = ("codes", "bits")
    PARAMETERS = LayerParameters(of_inputs=(), other=("window",))
    window: Window


@dataclass(frozen=True, eq=False)
class AveragePool(Layer):
    """AveragePool of codes: an exact integer sum, then float32.

    q = clamp(rint((sum (x - zx) * s_x / count) / out_scale) + zero_point, low, high).
    """

    READS = ("codes",)
    PARAMETERS = LayerParameters(
        constants={"out_scale": "scale", "zero_point": "zero_point"},
        of_inputs=("zero_point", "scale"),
        other=("window", "count_include_pad", "low", "high"),
    )
    window: Window
    count_include_pad: bool
    out_scale: float
    zero_point: int
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class MulCodes(Layer):
    """com.microsoft QLinearMul of two quantized values.

    q = clamp(rint(float32((a - za) * (b - zb)) * multiplier + zero_point), low, high).
    onnxruntime adds the zero point as a float, before it rounds.
    """

    READS = ("codes", "bits")
    PARAMETERS = LayerParameters(
        constants={"multiplier": "scale", "zero_point": "zero_point"}, of_inputs=("zero_point",), other=("low", "high")
    )
    multiplier: float
    zero_point: int
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class SumPool(Layer):
    """The integer half of QLinearGlobalAveragePool; a Requantize follows.

    acc = sum of (x - zx) over a window, int32.
    """

    READS = ("codes",)
    PARAMETERS = LayerParameters(of_inputs=("zero_point",), other=("window",))
    window: Window


@dataclass(frozen=True, eq=False)
class InsertZeros(Layer):
    """Zeros between the elements of an image: the first half of a ConvTranspose.

    q[i * stride] = x[i]; all other elements are the code of real zero. A Convolution of stride 1 with the mirrored kernel
    follows.
    Reference: https://onnx.ai/onnx/operators/onnx__ConvTranspose.html.

    Attributes:
        stride: (height, width).
    """

    READS = ("codes",)
    PARAMETERS = LayerParameters(of_inputs=("zero_point",), other=("stride",))
    stride: tuple[int, int]


@dataclass(frozen=True, eq=False)
class LookUp(Layer):
    """Any function of one code, as a table (Sigmoid, LeakyRelu, another scale).

    q = table[x - first]. A code outside the table, which only a faulty buffer can bring, reads the nearest entry.
    """

    READS = ("codes",)
    PARAMETERS = LayerParameters(of_inputs=(), other=("table", "first"))
    table: npt.NDArray[np.int32]
    first: int


@dataclass(frozen=True, eq=False)
class DynamicQuantize(Layer):
    """DynamicQuantizeLinear.

    Float32 to int16 codes with a scale that follows from the data.

    q = clamp(rint(x / s) + z, 0, 255) - z. s and z follow from the range of one image, so that the result of an image does not
    depend on the images beside it. A run can ask for the range of its whole batch instead (`ParameterState.ranges`).

    Attributes:
        rows: whether the codes are (K, rows, 1) for an input (…, K): an image with a pixel for each vector of K numbers.
    """

    PARAMETERS = LayerParameters(of_inputs=(), other=("rows",))
    rows: bool = False


@dataclass(frozen=True, eq=False)
class DynamicScale(Layer):
    """The scale s of DynamicQuantize, one float32 per image."""

    PARAMETERS = LayerParameters(of_inputs=())


@dataclass(frozen=True, eq=False)
class DynamicBias(Layer):
    """Bias of a dynamically quantized sum.

    acc + int32(rounding(bias[c] / (s * scale[c]))), wrapping in int32; s is the scale of each image (the second input).

    Attributes:
        rounding: an ONNX operator, or None if only the conversion to int32 rounds (towards 0).
    """

    READS = ("codes", "float")
    PARAMETERS = LayerParameters(constants={"scale": "scale", "bias": "bias"}, of_inputs=(), other=("rounding",))
    bias: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    rounding: Literal["Floor", "Ceil", "Round"] | None = None


@dataclass(frozen=True, eq=False)
class DynamicDequantize(Layer):
    """Dynamically quantized sums to float32 in ONNX order.

    y = float32(acc) * (s * scale[c]); s is the scale of each image (the second input).

    Attributes:
        rows: whether sums (O, rows, 1) become an output (…, O).
    """

    READS = ("codes", "float")
    PARAMETERS = LayerParameters(constants={"scale": "scale"}, of_inputs=(), other=("rows",))
    scale: npt.NDArray[np.float32]
    rows: bool = False


@dataclass(frozen=True, eq=False)
class Reshape(Layer):
    """Flatten, Reshape, Squeeze or Unsqueeze: the same elements in ONNX order.

    Codes may become a value of kind float that keeps their integer dtype: the ONNX tensor that float operators read.
    """

    READS = ("float", "codes", "bits")
    PARAMETERS = LayerParameters(of_inputs=())


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
    """

    tensor: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    steps: tuple[OperandStep, ...]
    order: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class FloatOperator(Layer):
    """An ONNX operator that stays float32.

    Attributes:
        op_type: name in `onnx_ops.OPERATORS`.
        attributes: attributes of the ONNX node.
        operands: one entry per ONNX input. None is the next of `inputs`, an array is a constant, a StoredOperand is
        computed from
            integers that a memory stores, and `onnx_ops.ABSENT` is an input that the node leaves out.
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
        return tuple(dict.fromkeys(operand.tensor for operand in self.stored)) if not roles or "weight" in roles else ()


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


@dataclass(frozen=True)
class UnplacedTensor:
    """Integers of the file that are in no memory by default.

    Attributes:
        kind: their type, or the encoding to which the file quantizes them.
        bits: all their bits.
        reason: why no memory holds them.
    """

    name: str
    kind: str
    elements: int
    bits: int
    reason: str

    @property
    def registers(self) -> bool:
        """Whether every target keeps them in registers or code, as biases and sizes are."""
        return self.reason.startswith(("bias", "zero point", "sizes", "threshold"))


ClampedLayer = Quantize | Requantize | AffineRequantize | AddCodes | AveragePool | MulCodes
"""Layers that clamp their codes to their own fields `low` and `high`."""


@dataclass(frozen=True, eq=False)
class Network:
    """An ONNX model as integer layers.

    Attributes:
        layers: in execution order.
        values: specifications of all values, by name.
        tensors: all stored tensors, by name.
        unplaced: integers of the file that no tensor holds.
        batch: the number of images that the file fixes for one inference; None if it leaves it open.
        output_meanings: how the file computes each output, by name; empty for a network that was not imported.
        batch_axes: inputs and outputs whose images do not lie along the first axis in the file, by name; None if no axis counts
            images. Values have the images first.
        sizes: sizes that were given to open dimensions of the file, by name.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[Layer, ...]
    values: Mapping[str, ValueSpec]
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    unplaced: tuple[UnplacedTensor, ...] = ()
    batch: int | None = None
    output_meanings: Mapping[str, OutputMeaning] = field(default_factory=dict)
    batch_axes: Mapping[str, BatchAxis | None] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def weights(self) -> tuple[StoredTensor, ...]:
        """The weight tensors, in the order in which layers use them."""
        return tuple(t for t in self.tensors.values() if t.role == "weight")

    @property
    def weight_bits(self) -> int:
        """Number of stored weight bits."""
        return sum(t.bits for t in self.weights)

    @property
    def integer_bits(self) -> int:
        """Number of bits of all integers of the file, in weights or not."""
        return self.weight_bits + sum(tensor.bits for tensor in self.unplaced)

    def __repr__(self) -> str:
        return f"Network<{self.name}: {len(self.layers)} layers, {self.weight_bits} weight bits>"
