"""What layers handle: how an element is stored, stored tensors, what is known of a value, and windows. See `network.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["float", "codes", "bits"]
Role = Literal["weight", "bias", "threshold"]


@dataclass(frozen=True)
class Encoding:
    """How one element is stored: `bits` per element as 1-bit sign, two's complement, or unsigned."""

    kind: Literal["sign", "signed", "unsigned"]
    bits: int

    def __post_init__(self) -> None:
        if self.kind == "sign" and self.bits != 1:
            raise ValueError("a sign is stored in one bit")
        if self.kind != "sign" and self.bits < 2:
            raise ValueError("an integer is stored in two bits or more")

    @property
    def low(self) -> int:
        """The smallest value that the stored bits can mean."""
        return {"sign": -1, "signed": -(1 << (self.bits - 1)), "unsigned": 0}[self.kind]

    @property
    def high(self) -> int:
        """The largest value that the stored bits can mean."""
        return {"sign": 1, "signed": (1 << (self.bits - 1)) - 1, "unsigned": (1 << self.bits) - 1}[self.kind]

    def __str__(self) -> str:
        return {"sign": "sign1", "signed": f"int{self.bits}", "unsigned": f"uint{self.bits}"}[self.kind]


SIGN1 = Encoding("sign", 1)


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A parameter as the target stores it.

    `values` are the integers that the stored bits mean (int32, output channel first, C order): ±1 for `sign1`, the codes of
    the file otherwise. Storage order is this array flattened: output-channel-major, element by element.
    `scale` and `zero_point` (scalar or one per output channel) turn an integer into the real weight; they are not stored here.
    With `block` they are (O, blocks): one for every `block` inputs of an output, and the values are (O, C, 1, 1).
    """

    name: str
    role: Role
    encoding: Encoding
    values: npt.NDArray[np.int32]
    scale: npt.NDArray[np.float32] = field(default_factory=lambda: np.array(1.0, dtype=np.float32))
    zero_point: npt.NDArray[np.int32] = field(default_factory=lambda: np.array(0, dtype=np.int32))
    block: int = 0

    def __post_init__(self) -> None:
        if self.values.size and (self.values.min() < self.encoding.low or self.values.max() > self.encoding.high):
            raise ValueError(f"{self.name}: values outside {self.encoding}")

    @property
    def bits(self) -> int:
        """Stored bits in all."""
        return self.values.size * self.encoding.bits

    def spread(self, parameter: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """`scale` or `zero_point` in a shape that broadcasts over (O, K), the weights of one output in a row."""
        if self.block:
            inputs = self.values.size // max(self.values.shape[0], 1)
            return np.repeat(parameter, self.block, axis=1)[:, :inputs]
        return parameter.reshape(-1, 1)

    def __repr__(self) -> str:
        return f"StoredTensor<{self.name}: {self.role} {self.encoding}{list(self.values.shape)}>"


@dataclass(frozen=True, eq=False)
class ValueSpec:
    """What is known of a value before any data: name, kind, logical shape without the batch, and its integer grid."""

    name: str
    kind: Kind
    shape: tuple[int, ...]
    dtype: str = "float32"
    scale: npt.NDArray[np.float32] = field(default_factory=lambda: np.array(1.0, dtype=np.float32))
    zero_point: int = 0

    @property
    def channels(self) -> int:
        return self.shape[0]

    @property
    def height_width(self) -> tuple[int, int]:
        return (self.shape[1], self.shape[2]) if len(self.shape) == 3 else (1, 1)

    def __repr__(self) -> str:
        return f"Value<{self.name}: {self.kind} {self.dtype}{list(self.shape)}>"


@dataclass(frozen=True)
class Window:
    """The window of a convolution or pool: kernel, stride, dilation as (height, width), pads as (top, left, bottom, right)."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    ceil_mode: bool = False

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the output (ONNX Conv and Pool; with ceil_mode no window starts in the end padding)."""
        sizes = []
        for i, n in enumerate((height, width)):
            span = n + self.pads[i] + self.pads[i + 2] - self.dilation[i] * (self.kernel[i] - 1) - 1
            size = -(-span // self.stride[i]) + 1 if self.ceil_mode else span // self.stride[i] + 1
            if self.ceil_mode and (size - 1) * self.stride[i] >= n + self.pads[i]:
                size -= 1
            sizes.append(size)
        return sizes[0], sizes[1]
