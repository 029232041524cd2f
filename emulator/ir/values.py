"""Encodings, stored tensors, values and windows: what layer records are made of.

`encode_values` and `decode_codes` convert integers to the codes that a memory stores. `pack_channels` and `unpack_channels`
convert ±1 values to words of 64 channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weakcell.emulator.kernels.entry_points import pack
from weakcell.memmodels.address import Layout

Kind = Literal["float", "codes", "bits"]
Role = Literal["weight", "bias", "threshold", "scale", "zero_point", "buffer", "accumulator", "cache"]


@dataclass(frozen=True)
class Encoding:
    """How one element is stored: sign, two's complement, unsigned, or IEEE 754 float.

    The integer behind a float32 is the int32 of the same 32 bits (`floats_to_bits`, `bits_to_floats`).

    Attributes:
        bits: per element.
    """

    kind: Literal["sign", "signed", "unsigned", "float"]
    bits: int

    def __post_init__(self) -> None:
        if self.kind == "sign" and self.bits != 1:
            raise ValueError("a sign is stored in one bit")
        if self.kind in ("signed", "float") and self.bits < 2:
            raise ValueError("an integer with a sign is stored in two bits or more")
        if self.bits < 1:
            raise ValueError("an integer is stored in one bit or more")
        if self.kind == "float" and self.bits != 32:
            raise ValueError("a float is stored in 32 bits")

    @property
    def low(self) -> int:
        """The smallest value that the stored bits can mean."""
        return {"sign": -1, "unsigned": 0}.get(self.kind, -(1 << (self.bits - 1)))

    @property
    def high(self) -> int:
        """The largest value that the stored bits can mean."""
        return {"sign": 1, "unsigned": (1 << self.bits) - 1}.get(self.kind, (1 << (self.bits - 1)) - 1)

    @property
    def dtype(self) -> np.dtype[np.integer[Any]]:
        """The narrowest NumPy type that holds all values."""
        ranges = ((np.dtype(name), np.iinfo(name)) for name in ("int8", "uint8", "int16", "uint16", "int32"))
        return next((dtype for dtype, info in ranges if info.min <= self.low and self.high <= info.max), np.dtype("int64"))

    def __str__(self) -> str:
        return "sign1" if self.kind == "sign" else f"{_TYPES[self.kind]}{self.bits}"


_TYPES = {"signed": "int", "unsigned": "uint", "float": "float"}
SIGN1, FLOAT32 = Encoding("sign", 1), Encoding("float", 32)


def type_encoding(dtype: str) -> Encoding:
    """Return how codes of a NumPy integer type are stored."""
    numpy_type = np.dtype(dtype)
    return Encoding("unsigned" if numpy_type.kind == "u" else "signed", 8 * numpy_type.itemsize)


def floats_to_bits(x: npt.ArrayLike) -> npt.NDArray[np.int32]:
    """Return floats as the int32 values that a FLOAT32 tensor holds."""
    return np.ascontiguousarray(x, dtype=np.float32).view(np.int32)


def bits_to_floats(bits: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Return the floats behind int32 values.

    Every pattern is a float, NaN and infinities included.
    """
    return np.ascontiguousarray(bits, dtype=np.int32).view(np.float32)


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A parameter as the target stores it.

    Attributes:
        codes: integers, output channel first, C order: ±1 for `sign1`, else the codes of the file. The storage order is this
            array flattened. They are kept in the narrowest type that holds the encoding, for networks of 10^8 weights.
        scale: turns an integer into the real weight; a scalar, or one per output channel. Not stored here.
        zero_point: likewise.
        block: if not 0, scale and zero_point are (O, blocks), one for every `block` inputs of an output, and values (O, C,
        1, 1).
    """

    name: str
    role: Role
    encoding: Encoding
    codes: npt.NDArray[np.integer[Any]]
    scale: npt.NDArray[np.float32] = field(default_factory=lambda: np.array(1.0, dtype=np.float32))
    zero_point: npt.NDArray[np.int32] = field(default_factory=lambda: np.array(0, dtype=np.int32))
    block: int = 0

    def __post_init__(self) -> None:
        if self.codes.size and (self.codes.min() < self.encoding.low or self.codes.max() > self.encoding.high):
            raise ValueError(f"{self.name}: values outside {self.encoding}")
        object.__setattr__(self, "codes", self.codes.astype(self.encoding.dtype, copy=False))

    @property
    def values(self) -> npt.NDArray[np.int32]:
        """The integers as int32 (int64 above 31 bits without a sign): a new array, unless the codes are as wide."""
        return self.codes.astype(np.promote_types(self.codes.dtype, np.int32), copy=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the integers, output channel first."""
        return self.codes.shape

    @property
    def elements(self) -> int:
        """Number of elements."""
        return self.codes.size

    @property
    def bits(self) -> int:
        """Number of stored bits."""
        return self.elements * self.encoding.bits

    @property
    def erased(self) -> int:
        """The code of real zero: what an element reads as where a memory erases it."""
        return 0 if self.encoding.kind == "sign" else int(np.asarray(self.zero_point).reshape(-1)[0])

    def spread(self, parameter: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return `scale` or `zero_point` in a shape that broadcasts over (O, K)."""
        if self.block:
            inputs = self.codes.size // max(self.shape[0], 1)
            return np.repeat(parameter, self.block, axis=1)[:, :inputs]
        return parameter.reshape(-1, 1)

    def __repr__(self) -> str:
        return f"StoredTensor<{self.name}: {self.role} {self.encoding}{list(self.shape)}>"


@dataclass(frozen=True, eq=False)
class ValueSpec:
    """What is known of a value before any data.

    Attributes:
        kind: float, codes or bits; see `layers.py`.
        shape: logical shape, without the batch.
        dtype: of the elements.
        scale: of codes; a scalar, or one per channel.
        zero_point: of codes.
        cache: whether it is a float32 cache of keys or values, which tokens write once and later tokens read.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    dtype: str = "float32"
    scale: npt.NDArray[np.float32] = field(default_factory=lambda: np.array(1.0, dtype=np.float32))
    zero_point: int = 0
    cache: bool = False

    @property
    def channels(self) -> int:
        """Number of channels: the size of the first axis."""
        return self.shape[0]

    @property
    def height_width(self) -> tuple[int, int]:
        """Size of the image.

        A signal (C, L) has height 1, a vector (K,) is a single pixel.
        """
        if len(self.shape) == 2:
            return 1, self.shape[1]
        return (self.shape[1], self.shape[2]) if len(self.shape) == 3 else (1, 1)

    def __repr__(self) -> str:
        return f"Value<{self.name}: {self.kind} {self.dtype}{list(self.shape)}>"


@dataclass(frozen=True)
class BatchAxis:
    """The axis of an input or output of the file that counts images.

    Attributes:
        folded: whether it counts further things for each image, such as heads.
    """

    axis: int
    folded: bool = False


@dataclass(frozen=True)
class OutputMeaning:
    """How the graph of the file computes an output, and what that says about classes.

    Attributes:
        operators: types from the output backwards, along the first computed input. Operators that only reshape, cast or
            (de)quantize are left out.
        output_index: which output of the last operator this is (TopK has two).
        axis: of a Softmax or ArgMax at the end, counted with the batch as axis 0; None if there is none.
        classes: number of classes from which an ArgMax, ArgMin or TopK chooses.
    """

    operators: tuple[str, ...] = ()
    output_index: int = 0
    axis: int | None = None
    classes: int | None = None

    @property
    def last(self) -> str:
        """The last operator that computes something; "" if it is not known."""
        return self.operators[0] if self.operators else ""


@dataclass(frozen=True, eq=False)
class Buffer:
    """Memory for a value of one image, written and read back for every image.

    It holds integers or signs in ONNX order; of a key-value cache, float32 numbers.

    A sum that nothing has rounded yet is an accumulator, not a buffer: a rule for all buffers leaves it in its register. A rule for
    all buffers leaves key-value caches where they are, too.

    Attributes:
        value: the value that the buffer holds.
        layer: name of the layer that makes the value; None for an input of the network.
    """

    value: ValueSpec
    layer: str | None

    @property
    def role(self) -> Role:
        """`accumulator` for an int32 sum of a layer, `cache` for a key-value cache, else `buffer`."""
        if self.value.cache:
            return "cache"
        return "accumulator" if self.layer is not None and self.value.dtype == "int32" else "buffer"

    @property
    def name(self) -> str:
        """The name under which a rule can place the buffer."""
        return f"{self.role}:{self.value.name}"

    @property
    def encoding(self) -> Encoding:
        """How an element is stored."""
        if self.value.cache:
            return FLOAT32
        return SIGN1 if self.value.kind == "bits" else type_encoding(self.value.dtype)

    @property
    def elements(self) -> int:
        """Number of elements of one image."""
        return math.prod(self.value.shape)

    @property
    def bits(self) -> int:
        """Number of stored bits of one image."""
        return self.elements * self.encoding.bits

    @property
    def erased(self) -> int:
        """The code of real zero."""
        return self.value.zero_point if self.value.kind == "codes" else 0


Storable = StoredTensor | Buffer
"""What `--place` can put into a memory."""


@dataclass(frozen=True)
class Window:
    """Window of a convolution or pool.

    Attributes:
        kernel: (height, width); stride and dilation likewise.
        pads: (top, left, bottom, right).
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    ceil_mode: bool = False

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the output, as ONNX. With ceil_mode, no window starts in the end padding."""
        sizes = []
        for i, n in enumerate((height, width)):
            span = n + self.pads[i] + self.pads[i + 2] - self.dilation[i] * (self.kernel[i] - 1) - 1
            size = -(-span // self.stride[i]) + 1 if self.ceil_mode else span // self.stride[i] + 1
            if self.ceil_mode and (size - 1) * self.stride[i] >= n + self.pads[i]:
                size -= 1
            sizes.append(size)
        return sizes[0], sizes[1]

    def output_shape(self, channels: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the output shape: (channels, H, W), or (channels, L) for a signal."""
        if len(shape) == 2:
            return channels, self.output_size(1, shape[1])[1]
        return (channels, *self.output_size(shape[1], shape[2]))


# ── bits ────────────────────────────────────────────────────────────────────────────────────────────


def encode_values(values: npt.NDArray[np.int32], encoding: Encoding) -> npt.NDArray[np.uint64]:
    """Return values as unsigned codes, uint64 and flat: 1 and 0 for the signs +1 and -1, else two's complement."""
    flat = values.reshape(-1).astype(np.int64)
    if encoding.kind == "sign":
        return (flat > 0).astype(np.uint64)
    return flat.astype(np.uint64) & np.uint64((1 << encoding.bits) - 1)


def decode_codes(codes: npt.NDArray[np.uint64], encoding: Encoding) -> npt.NDArray[np.int64]:
    """Return the values behind unsigned codes, int64 and flat."""
    wide = codes.astype(np.int64)
    if encoding.kind == "sign":
        return 2 * wide - 1
    if encoding.kind in ("signed", "float"):
        return wide - ((wide >> (encoding.bits - 1)) << encoding.bits)
    return wide


def storage_layout(item: Storable, planes: tuple[int, ...] = ()) -> Layout:
    """Return the layout of a tensor or buffer, or of some of its bit planes, in a memory.

    Erased elements read as real zero.
    """
    width = item.encoding.bits
    return Layout(item.name, item.elements, width, planes, item.erased & ((1 << width) - 1), item.encoding.kind)


def pack_channels(plus: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """Pack (…, C) booleans (True = +1) into (…, ceil(C/64)) words, LSB first."""
    channels = plus.shape[-1]
    words = np.zeros((*plus.shape[:-1], -(-channels // 64)), dtype=np.uint64)
    pack(plus.reshape(-1, channels), words.reshape(-1, words.shape[-1]))
    return words


def unpack_channels(words: npt.NDArray[np.uint64], channels: int) -> npt.NDArray[np.int8]:
    """Unpack (…, ceil(C/64)) words into (…, C) values +1 and -1 (int8)."""
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")[..., :channels]
    return (bits.astype(np.int8) << 1) - 1
