"""Small networks made of layer records, their replay under recorded faults in plain numpy, and memories that only read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tests.emulator.reference import LAYERS, as_held
from tests.memmodels.memories import RecordingMemory
from weakcell.emulator.faults.deployment import Fault, ReadPolicy
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import AddCodes, Convolution, Dequantize, MaxPool, Quantize, Requantize, Threshold
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import (
    SIGN1,
    Encoding,
    StoredTensor,
    ValueSpec,
    Window,
    decode_codes,
    encode_values,
    storage_layout,
)
from weakcell.memmodels.address import Words, pack, unpack
from weakcell.memmodels.memory import Key, Memory, ReadReport, Region

Array = np.ndarray

INT8, UINT8, INT4, INT2, INT32 = (
    Encoding("signed", 8), Encoding("unsigned", 8), Encoding("signed", 4), Encoding("signed", 2), Encoding("signed", 32),
)  # fmt: skip


@dataclass
class RandomNetwork:
    """Builder of a network with random parameters: each method adds one layer and returns the name of its output."""

    rng: np.random.Generator
    values: dict[str, ValueSpec] = field(default_factory=dict)
    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)

    def value(self, name: str, kind: Any, shape: Sequence[int], dtype: str, scale: float = 1.0, zero_point: int = 0) -> str:
        """Declare a value and return its name."""
        self.values[name] = ValueSpec(name, kind, tuple(shape), dtype, np.array(scale, np.float32), zero_point)
        return name

    def input(self, name: str, shape: Sequence[int], dtype: str = "uint8", zero_point: int = 0) -> str:
        """Add an input of the network."""
        self.inputs.append(name)
        return self.value(name, "float" if dtype == "float32" else "codes", shape, dtype, 1.0, zero_point)

    def store(self, name: str, role: Any, encoding: Encoding, values: Array, zero_point: Any = 0) -> str:
        """Store a tensor and return its name."""
        zero = np.asarray(zero_point, np.int32)
        self.tensors[name] = StoredTensor(name, role, encoding, values.astype(np.int32), zero_point=zero)
        return name

    def convolution(
        self, x: str, outputs: int, window: Window, encoding: Encoding, groups: int = 1, bias: bool = False, zero_point: Any = 0,
        flat: bool = False,
    ) -> str:  # fmt: skip
        name, spec = f"c{len(self.layers)}", self.values[x]
        shape = (outputs, spec.channels // groups, *window.kernel)
        low, high = encoding.low, encoding.high
        values = self.rng.choice([-1, 1], shape) if encoding == SIGN1 else self.rng.integers(low, high + 1, shape)
        self.store(f"{name}.w", "weight", encoding, values, zero_point)
        if bias:
            self.store(f"{name}.b", "bias", INT32, self.rng.integers(-900, 900, outputs))
        size = window.output_size(*spec.height_width)
        out = self.value(f"{name}.acc", "codes", (outputs,) if flat else (outputs, *size), "int32")
        self.layers.append(Convolution(name, (x,), out, f"{name}.w", f"{name}.b" if bias else None, window, groups))
        return out

    def dense(self, x: str, outputs: int, encoding: Encoding, bias: bool = False, zero_point: Any = 0) -> str:
        return self.convolution(x, outputs, Window(self.values[x].height_width), encoding, 1, bias, zero_point, flat=True)

    def pool(self, x: str, window: Window) -> str:
        spec = self.values[x]
        shape = (spec.channels, *window.output_size(*spec.height_width))
        out = self.value(f"p{len(self.layers)}", spec.kind, shape, spec.dtype, float(spec.scale), spec.zero_point)
        self.layers.append(MaxPool(out, (x,), out, window))
        return out

    def threshold(self, x: str, spread: int = 6) -> str:
        spec, name = self.values[x], f"t{len(self.layers)}"
        self.store(f"{name}.t", "threshold", INT32, self.rng.integers(-spread, spread + 1, spec.channels))
        inverted = self.rng.integers(0, 2, spec.channels).astype(bool)
        self.value(name, "bits", spec.shape, "uint64")
        self.layers.append(Threshold(name, (x,), name, f"{name}.t", inverted))
        return name

    def requantize(self, x: str, multiplier: float, zero_point: int = 0, dtype: str = "uint8") -> str:
        spec, name, limits = self.values[x], f"q{len(self.layers)}", np.iinfo(dtype)
        self.value(name, "codes", spec.shape, dtype, 0.5, zero_point)
        per_channel = (multiplier * self.rng.uniform(0.5, 2.0, spec.channels)).astype(np.float32)
        self.layers.append(Requantize(name, (x,), name, per_channel, zero_point, limits.min, limits.max))
        return name

    def add(self, a: str, b: str) -> str:
        name = f"a{len(self.layers)}"
        self.value(name, "codes", self.values[a].shape, "uint8", 0.75, 3)
        self.layers.append(AddCodes(name, (a, b), name, 0.75, 3, 0, 255))
        return name

    def quantize(self, x: str, scale: float, zero_point: int = 0, dtype: str = "uint8") -> str:
        name, limits = f"q{len(self.layers)}", np.iinfo(dtype)
        self.value(name, "codes", self.values[x].shape, dtype, scale, zero_point)
        self.layers.append(Quantize(name, (x,), name, scale, zero_point, limits.min, limits.max))
        return name

    def dequantize(self, x: str) -> str:
        name = f"d{len(self.layers)}"
        self.value(name, "float", self.values[x].shape, "float32")
        self.layers.append(Dequantize(name, (x,), name, np.array(0.5, np.float32)))
        return name

    def network(self, *outputs: str) -> Network:
        return Network("small", tuple(self.inputs), outputs, tuple(self.layers), self.values, self.tensors)


def small_bnn(seed: int = 0) -> Network:
    """Pixels, two padded binary convolutions (one pooled), two dense layers; 35 channels, so words and blocks have rests."""
    d = RandomNetwork(np.random.default_rng(seed))
    x = d.threshold(d.convolution(d.input("x", (2, 6, 5), "int8"), 9, Window((3, 3), pads=(1, 1, 1, 1)), SIGN1), 200)
    x = d.convolution(x, 35, Window((3, 2), pads=(1, 0, 1, 1)), SIGN1)
    x = d.threshold(d.pool(x, Window((2, 2), (2, 2))))
    x = d.threshold(d.dense(x, 20, SIGN1))
    return d.network(d.dequantize(d.dense(x, 4, SIGN1)))


def small_qnn(seed: int = 0) -> Network:
    """Float pixels, int8 and grouped convolutions with a residual sum, uint8 weights with zero points, int4, int2 at the end."""
    d = RandomNetwork(np.random.default_rng(seed))
    x = d.quantize(d.input("x", (3, 6, 5), "float32"), 1.0, 100)
    a = d.requantize(d.convolution(x, 6, Window((3, 3), (1, 2), pads=(1, 1, 1, 1)), INT8, bias=True), 0.004, 90)
    b = d.requantize(d.convolution(a, 6, Window((1, 3), pads=(0, 1, 0, 1)), INT8, groups=3, bias=True), 0.01, 120)
    x = d.pool(d.add(a, b), Window((2, 1), (2, 1)))
    x = d.requantize(d.convolution(x, 5, Window((2, 2)), UINT8, zero_point=np.array([128, 7, 0, 255, 60])), 0.004, 110)
    x = d.requantize(d.dense(x, 7, INT4, bias=True), 0.03, 100)
    return d.network(d.dequantize(d.dense(x, 4, INT2, bias=True)))


def pixels(network: Network, images: int, seed: int = 0) -> dict[str, Array]:
    """Integer-valued inputs, as floats, for every input of a network."""
    rng = np.random.default_rng(seed)
    made = {}
    for name in network.inputs:
        spec = network.values[name]
        info = np.iinfo(spec.dtype) if spec.kind == "codes" else np.iinfo("int8")
        low, high = max(info.min, -32767), min(info.max, 32767)
        made[name] = rng.integers(low, high + 1, (images, *spec.shape)).astype(np.float32)
    return made


# --- faults in plain numpy ---------------------------------------------------------------------------------------------------


def with_flips(tensor: StoredTensor, planes: tuple[int, ...], flips: Words) -> StoredTensor:
    """The tensor as it reads with these stored bits flipped: packed, XORed, unpacked, and decoded."""
    layout, codes = storage_layout(tensor, planes), encode_values(tensor.values, tensor.encoding)
    unpack(pack(codes, layout) ^ flips, layout, codes)
    return replace(tensor, codes=decode_codes(codes, tensor.encoding).reshape(tensor.shape).astype(np.int32))


def faulty(network: Network, faults: Sequence[Fault], read: int) -> Network:
    """The network as read number `read` brings it."""
    tensors = dict(network.tensors)
    for fault in faults:
        if fault.read == read:
            tensors[fault.slot.tensor] = with_flips(tensors[fault.slot.tensor], fault.slot.planes, fault.flips)
    return replace(network, tensors=tensors)


def replay(network: Network, inputs: Mapping[str, Array], faults: Sequence[Fault], policy: ReadPolicy, batch: int) -> Array:
    """The first output under recorded faults, by the reference: image by image, layer by layer, pixel by pixel."""
    rows = []
    for image in range(len(next(iter(inputs.values())))):
        values = {name: as_held(network, name, x[image : image + 1]) for name, x in inputs.items()}
        known = {read: faulty(network, faults, read) for read in {f.read for f in faults}}
        for layer in network.layers:
            own = [values[name] for name in layer.inputs]
            height, width = network.values[layer.output].height_width
            read = {ReadPolicy.LOAD: 0, ReadPolicy.BATCH: image // batch, ReadPolicy.IMAGE: image, ReadPolicy.ACCESS: -1}[policy]
            made = wrapped(layer, LAYERS[type(layer)](known.get(read, network), layer, own))
            if policy is ReadPolicy.ACCESS:
                flat = made.reshape(*made.shape[:2], -1)
                for pixel in range(height * width):
                    here = known.get(image * height * width + pixel, network)
                    other = wrapped(layer, LAYERS[type(layer)](here, layer, own)).reshape(flat.shape)
                    flat[:, :, pixel] = other[:, :, pixel]
            values[layer.output] = made
        rows.append(values[network.outputs[0]])
    return np.concatenate(rows)


def wrapped(layer: Layer, made: Array) -> Array:
    """Sums as int32 registers hold them: a faulty bias can take one past their ends."""
    return made.astype(np.int32).astype(np.int64) if isinstance(layer, Convolution) else made


# --- memories ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class OnlyReads:
    """Any memory without its sampler: everything goes through `read`. A `tape` keeps what is read."""

    inner: Memory
    tape: RecordingMemory | None = None

    @property
    def conditions(self) -> Any:
        return self.inner.conditions

    def at(self, **conditions: Any) -> OnlyReads:
        return OnlyReads(self.inner.at(**conditions))

    def write(self, bits: Words, layout: Any, key: Key) -> Region:
        region = self.inner.write(bits, layout, key)
        if self.tape is not None:
            self.tape.regions.append(region)
        return region

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        report = self.inner.read(region, key, out)
        if self.tape is not None:
            self.tape.reads[self.tape._point, id(region), key.trial, key.read] = out.copy(), report
        return report

    def sampler(self, region: Region) -> None:
        return None

    def cost(self, region: Region, accesses: Any) -> Any:
        return self.inner.cost(region, accesses)
