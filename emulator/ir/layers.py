"""The integer network: frozen layer records in execution order, and the tensors that a memory stores.

NOTES for developers
- A record holds no array that a run writes to. Plans (`plan.py`) own buffers; records can be shared between threads.
- Logical shapes are ONNX's without the batch: (C, H, W), (C, L) or (K,). What a value looks like in memory is fixed by its kind:

      float   float32 (n, *shape), ONNX order
      codes   integers (n, H, W, C), channels last; (C, L) is (n, 1, L, C) and (K,) is (n, 1, 1, K)
      bits    uint64 (n, H, W, ceil(C/64)), channels last, LSB first; bit 1 means +1, bit 0 means -1; spare bits are 0

- The real number behind a code q is scale * (q - zero_point). An accumulator is a value of kind `codes` and dtype int32.
- A parameter that a memory could make faulty (weights, biases, thresholds) is a `StoredTensor`; layers name it, kernels take it
  as an argument, and nothing compiles it in. Scales and zero points are fields of the records: `constants.py` stores them too, and
  a faulty one is a layer with another field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.values import FLOAT32 as FLOAT32
from weakcell.emulator.ir.values import SIGN1 as SIGN1
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
# Every layer has `name`, `inputs` and `output`. What it computes is said in its docstring, element by element.


@dataclass(frozen=True, kw_only=True)
class LayerParameters:
    """Declaration of a layer's fields: which ones a memory can store.

    Attributes:
        tensors: fields that name a StoredTensor (or None), with the role of that tensor.
        constants: fields that hold numbers, with their role when a memory stores them. The order is the order in the memory.
        of_inputs: which quantization parameters of its input values the layer computes with. A memory can store them, too.
        other: all other fields. No memory stores them: they are code, or records that declare their own parameters.
    """

    tensors: Mapping[str, Role] = field(default_factory=dict)
    constants: Mapping[str, Role] = field(default_factory=dict)
    of_inputs: tuple[Literal["zero_point", "scale"], ...]
    other: tuple[str, ...] = ()


class LayerConstantField(NamedTuple):
    """One constant of a layer: its field, its index if it belongs to a step, its name, its role and its numbers."""

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
        READS: the kinds of value that the layer can read. An importer may give it no other kind.
        PARAMETERS: which of its own fields a memory can store.
        name: the name for people, usually that of the ONNX node.
        inputs: names of the values that the layer reads.
        output: name of the value that the layer makes.
    """

    READS: ClassVar[tuple[Kind, ...]] = ("float",)
    PARAMETERS: ClassVar[LayerParameters]
    name: str
    inputs: tuple[str, ...]
    output: str

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "PARAMETERS" not in cls.__dict__:
            raise TypeError(f"{cls.__name__} must declare PARAMETERS: which of its fields a memory can store")
        declared = [*cls.PARAMETERS.tensors, *cls.PARAMETERS.constants, *cls.PARAMETERS.other]
        fields = [name for name, kind in cls.__annotations__.items() if "ClassVar" not in str(kind)]
        if sorted(declared) != sorted(fields):
            raise TypeError(f"{cls.__name__}.PARAMETERS declares {sorted(declared)}, and its fields are {sorted(fields)}")

    def tensor_names(self, *roles: Role) -> tuple[str, ...]:
        """Return the names of the stored tensors that the layer reads; of these roles only, if any are given."""
        fields = (getattr(self, field) for field, role in self.PARAMETERS.tensors.items() if not roles or role in roles)
        return tuple(name for name in fields if name is not None)

    def constant_fields(self) -> Iterator[LayerConstantField]:
        """Yield the layer's own constants that a memory can store, in the order of the memory."""
        for attribute, role in self.PARAMETERS.constants.items():
            numbers = getattr(self, attribute)
            if numbers is not None:
                yield LayerConstantField(attribute, None, f"{self.name}.{attribute}", role, numbers)


@dataclass(frozen=True, eq=False)
class Quantize(Layer):
    """q = clamp(rint(x / scale) + zero_point): float to codes, float32 division, half to even (ONNX QuantizeLinear)."""

    PARAMETERS = LayerParameters(constants={"scale": "scale", "zero_point": "zero_point"}, of_inputs=(), other=("low", "high"))
    scale: float
    zero_point: int
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Dequantize(Layer):
    """y = float32(q - zero_point) * scale (+ bias), per channel: codes or bits to float32 in ONNX order."""

    READS = ("codes", "bits")
    PARAMETERS = LayerParameters(constants={"scale": "scale", "bias": "bias"}, of_inputs=("zero_point",))
    scale: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class Convolution(Layer):
    """acc[o] = sum (x - zx) * (w[o] - zw[o]) + bias[o]: the one layer with weights; Gemm and MatMul are its 1x1 case.

    A matrix product after Flatten is a convolution whose kernel is the whole image, so that channels-last data need no copy.
    Input kinds: `bits` with sign weights (XNOR-popcount), `codes` with any weights, `float` with any weights (then the output
    is the float32 sum times the weight's scale). Padding adds nothing to the sum.
    weight: StoredTensor with values (O, C/groups, kh, kw). bias: StoredTensor int32 (O,) or None.
    wraps: the sum can leave int32 without any fault. Then it wraps modulo 2^32, as ONNX's integer operators do.
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
    """q = clamp(rint(float32(acc - zx) * multiplier[c]) + zero_point, low, high): the QOperator epilogue.

    multiplier = float32(float32(s_x * s_w[c]) / s_y). low and high also carry Relu and Clip, which commute with rounding.
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
    """What a Step does: the name of the ONNX operator, and the function on float32 arrays."""

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
    """One float32 operation on every element (channels last) with a constant per channel, or one for all."""

    op: Literal["mul", "add", "sub", "div", "max", "min"]
    constant: npt.NDArray[np.float32]

    def __call__(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
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
    """q = clamp(rint((float32(acc - zx) * scale[c] + bias[c]) / out_scale) + zero_point, low, high): QDQ with a float bias.

    Further per-channel steps before the rounding (an unfused BatchNormalization) are in `steps`, run in order on float32.
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
        for constant in super().constant_fields():
            if constant.attribute != "steps":
                yield constant
                continue
            for i, step in enumerate(self.steps):
                yield LayerConstantField("steps", i, f"{self.name}.{step.op}{i}", constant.role, step.constant)


@dataclass(frozen=True, eq=False)
class Threshold(Layer):
    """bit = (acc >= threshold[c]) != inverted[c]: folded BatchNormalization + binarization of codes, or of bits as ±1.

    threshold: StoredTensor int32 (C,). A channel that is constant has the threshold -2^31 (acc is always at or above it).
    """

    READS = ("codes", "bits")
    PARAMETERS = LayerParameters(tensors={"threshold": "threshold"}, of_inputs=(), other=("inverted",))
    threshold: str
    inverted: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class TernarySign(Layer):
    """t = sign of the folded float value in {-1, 0, +1}, as codes: where an exact 0 can occur (ONNX Sign(0) = 0).

    t = (acc >= upper[c]) - (acc <= lower[c]), times -1 where inverted. upper, lower: StoredTensor int32 (C,).
    """

    READS = ("codes", "bits")
    PARAMETERS = LayerParameters(tensors={"upper": "threshold", "lower": "threshold"}, of_inputs=(), other=("inverted",))
    upper: str
    lower: str
    inverted: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class CountThresholds(Layer):
    """q = number of thresholds t of the channel with acc >= t, or acc < t where falling: QONNX's MultiThreshold on integers.

    threshold: StoredTensor int32 (C, T).
    """

    READS = ("codes",)
    PARAMETERS = LayerParameters(tensors={"threshold": "threshold"}, of_inputs=(), other=("falling",))
    threshold: str
    falling: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Binarize(Layer):
    """A float layer's end: float32 in ONNX order to bits or ternary codes, channels last.

    bits: 1 where `x > pivot` (`strict`) or `x >= pivot`, per channel or for all, else 0; then != inverted. NaN counts as not
    above. ternary (output kind codes, int8): sign(x) in {-1, 0, +1}; `pivot`, `strict` and `inverted` play no part.
    """

    PARAMETERS = LayerParameters(constants={"pivot": "threshold"}, of_inputs=(), other=("strict", "inverted", "ternary"))
    pivot: npt.NDArray[np.float32]
    strict: bool
    inverted: bool = False
    ternary: bool = False

    def constant_fields(self) -> Iterator[LayerConstantField]:
        return iter(()) if self.ternary else super().constant_fields()


@dataclass(frozen=True, eq=False)
class AddCodes(Layer):
    """q = clamp(rint(((a - za) * sa + (b - zb) * sb) / out_scale) + zero_point, low, high) in float32: a residual Add.

    fused: q = clamp(rint(fma(a, ra, fma(b, rb, c))), low, high) with ra = sa / out_scale, rb = sb / out_scale and
    c = zero_point - fma(ra, za, rb * zb): onnxruntime's QLinearAdd with fused multiply-adds. The two differ in ties only.
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
    """Maximum over a window, on codes or bits of one grid; padding never wins."""

    READS = ("codes", "bits")
    PARAMETERS = LayerParameters(of_inputs=(), other=("window",))
    window: Window


@dataclass(frozen=True, eq=False)
class AveragePool(Layer):
    """q = clamp(rint((sum (x - zx) * s_x / count) / out_scale) + zero_point, low, high): exact integer sum, then float32."""

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
    """q = clamp(rint(float32((a - za) * (b - zb)) * multiplier + zero_point), low, high): com.microsoft QLinearMul.

    onnxruntime adds the zero point as a float, before the rounding.
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
    """acc = sum of (x - zx) over a window, int32: the integer half of QLinearGlobalAveragePool; a Requantize follows."""

    READS = ("codes",)
    PARAMETERS = LayerParameters(of_inputs=("zero_point",), other=("window",))
    window: Window


@dataclass(frozen=True, eq=False)
class InsertZeros(Layer):
    """q[i * stride] = x[i], and the code of real zero between: what the stride of a ConvTranspose does to its input.

    A Convolution of stride 1 follows, whose kernel is the mirrored one. stride: (height, width).
    Reference: https://onnx.ai/onnx/operators/onnx__ConvTranspose.html.
    """

    READS = ("codes",)
    PARAMETERS = LayerParameters(of_inputs=("zero_point",), other=("stride",))
    stride: tuple[int, int]


@dataclass(frozen=True, eq=False)
class LookUp(Layer):
    """q = table[x - first]: any function of one code (Sigmoid, LeakyRelu, another grid), worked out once for every code.

    A code beyond the table, which only a faulty buffer can bring, reads the nearest entry.
    """

    READS = ("codes",)
    PARAMETERS = LayerParameters(of_inputs=(), other=("table", "first"))
    table: npt.NDArray[np.int32]
    first: int


@dataclass(frozen=True, eq=False)
class DynamicQuantize(Layer):
    """q = clamp(rint(x / s) + z, 0, 255) - z: float32 to int16 codes, on a grid that follows from the data.

    s and z are the scale and zero point of DynamicQuantizeLinear over one image, so that an image's result does not depend on the
    images that are run with it; or over a whole batch, where a run says so (`ParameterState.ranges`).
    """

    PARAMETERS = LayerParameters(of_inputs=())


@dataclass(frozen=True, eq=False)
class DynamicScale(Layer):
    """The scale s of DynamicQuantize, one float32 per image."""

    PARAMETERS = LayerParameters(of_inputs=())


@dataclass(frozen=True, eq=False)
class DynamicBias(Layer):
    """acc + int32(rounding(bias[c] / (s * scale[c]))), wrapping in int32; s is the scale of each image (the second input).

    rounding: an ONNX operator, or None where only the conversion to int32 rounds (towards 0).
    """

    READS = ("codes", "float")
    PARAMETERS = LayerParameters(constants={"scale": "scale", "bias": "bias"}, of_inputs=(), other=("rounding",))
    bias: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    rounding: Literal["Floor", "Ceil", "Round"] | None = None


@dataclass(frozen=True, eq=False)
class DynamicDequantize(Layer):
    """y = float32(acc) * (s * scale[c]), s being the image's own (the second input): integers to float32 in ONNX order."""

    READS = ("codes", "float")
    PARAMETERS = LayerParameters(constants={"scale": "scale"}, of_inputs=())
    scale: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Reshape(Layer):
    """The same elements in ONNX order under another logical shape (Flatten, Reshape, Squeeze, Unsqueeze).

    Codes may become a value of kind float with their own integer dtype: the ONNX tensor that float operators read.
    """

    READS = ("float", "codes", "bits")
    PARAMETERS = LayerParameters(of_inputs=())


class OperandStep(NamedTuple):
    """One ONNX operator between stored integers and an operand. operands: None where the value so far goes.

    place: which of the operator's `outputs` outputs is meant.
    """

    op_type: str
    opset: int
    attributes: Mapping[str, Any]
    operands: tuple[npt.NDArray[Any] | None, ...]
    output_index: int = 0
    output_count: int = 1


@dataclass(frozen=True, eq=False)
class StoredOperand:
    """A constant operand that is made from stored integers whenever its layer runs: `steps` of the integers of `tensor`.

    shape, dtype: of the integers before the first step. order: their places in the storage of the tensor, None if they lie so.
    """

    tensor: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    steps: tuple[OperandStep, ...]
    order: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class FloatOperator(Layer):
    """An operator that stays float32, run as ONNX defines it; `attributes` and constant operands are frozen here.

    operands: one entry per ONNX input: None where it is the next of `inputs`, an array where it is a constant, a StoredOperand
    where it is made from integers that a memory stores, `floatops.ABSENT` where the node leaves it out. place: which of the
    operator's outputs this is.
    """

    PARAMETERS = LayerParameters(
        tensors={"operands": "weight"}, of_inputs=(), other=("op_type", "opset", "attributes", "output_index")
    )
    op_type: str
    opset: int
    attributes: Mapping[str, Any]
    operands: tuple[npt.NDArray[Any] | StoredOperand | None, ...]
    output_index: int = 0

    @property
    def stored(self) -> tuple[StoredOperand, ...]:
        """The operands that a memory stores."""
        return tuple(x for x in self.operands if isinstance(x, StoredOperand))

    def tensor_names(self, *roles: Role) -> tuple[str, ...]:
        return tuple(dict.fromkeys(operand.tensor for operand in self.stored)) if not roles or "weight" in roles else ()


@dataclass(frozen=True, eq=False)
class CodesOperator(Layer):
    """An ONNX operator on codes, exact: one that moves them (Concat, Slice, Transpose, Pad, …) or one of Microsoft's QLinear
    operators. `operands` as in FloatOperator; the codes count as ONNX integers of their type."""

    READS = ("codes",)
    PARAMETERS = LayerParameters(of_inputs=(), other=("op_type", "opset", "attributes", "operands", "output_index"))
    op_type: str
    opset: int
    attributes: Mapping[str, Any]
    operands: tuple[npt.NDArray[Any] | None, ...]
    output_index: int = 0


@dataclass(frozen=True)
class UnplacedTensor:
    """Integers of the file that live in no memory by default. kind: their type, or the encoding that the file quantizes them to."""

    name: str
    kind: str
    elements: int
    bits: int
    reason: str

    @property
    def registers(self) -> bool:
        """Whether they are what every target keeps in registers or code: biases, zero points, sizes."""
        return self.reason.startswith(("bias", "zero point", "sizes", "threshold"))


ClampedLayer = Quantize | Requantize | AffineRequantize | AddCodes | AveragePool | MulCodes
"""Layers that clamp their codes to their own fields `low` and `high`."""


@dataclass(frozen=True, eq=False)
class Network:
    """An ONNX model as integers: layers in execution order, values by name, stored tensors by name.

    batch: the number of images that the file fixes for one inference, None where it leaves it open.
    endings: how the file's graph makes each output, by its name; a network that was not imported has none.
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

    @property
    def weights(self) -> tuple[StoredTensor, ...]:
        """The weight tensors, in the order in which layers use them."""
        return tuple(t for t in self.tensors.values() if t.role == "weight")

    @property
    def weight_bits(self) -> int:
        """Stored weight bits in all."""
        return sum(t.bits for t in self.weights)

    @property
    def integer_bits(self) -> int:
        """Bits of all integers of the file: of the weights, and of what is outside."""
        return self.weight_bits + sum(tensor.bits for tensor in self.unplaced)

    def __repr__(self) -> str:
        return f"Network<{self.name}: {len(self.layers)} layers, {self.weight_bits} weight bits>"
