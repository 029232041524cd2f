"""Layers on integers: products, steps on their sums, pooling, and quantization of values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.layer import Layer, LayerConstantField, LayerParameters
from weakcell.emulator.ir.values import Window


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


ClampedLayer = Quantize | Requantize | AffineRequantize | AddCodes | AveragePool | MulCodes
"""Layers that clamp their codes to their own fields `low` and `high`."""
