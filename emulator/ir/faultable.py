"""What a memory can store besides weights: constants of layers, and buffers.

A memory stores the number that a layer computes with: the multiplier s_x s_w / s_y of a requantization, not the three
scales of the file. Every layer has its own copy of the zero points that it reads. The name of a constant is that of its
layer or weight, followed by `.scale`, `.zero_point` and so on. Clamping limits are code, so a Relu always cuts at the same
place.

A flipped float may be negative, 0, infinite or NaN. It is used as it is, in IEEE arithmetic. A code made from NaN is the
lowest code of the layer, a code made from an infinity is the lowest or highest one, and a NaN among the final scores never
wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np

from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import AffineRequantize, Convolution
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import (
    FLOAT32,
    Buffer,
    Encoding,
    Role,
    Storable,
    StoredTensor,
    ValueSpec,
    bits_to_floats,
    floats_to_bits,
    type_encoding,
)


@dataclass(frozen=True, eq=False)
class LayerConstant:
    """A constant of one layer, as a stored tensor.

    Attributes:
        tensor: name, role, encoding and values of the constant.
        owner: what has the constant: the layer, one of its steps, one of its inputs, or its weight.
        attribute: the field of the owner.
        index: which step or input, if the owner is one.
    """

    tensor: StoredTensor
    owner: Literal["layer", "step", "input", "weight"]
    attribute: str
    index: int = 0

    def value(self, integers: Any) -> Any:
        """Return what the stored integers mean, in the type and shape of the field."""
        numbers = bits_to_floats(integers) if self.tensor.encoding == FLOAT32 else np.asarray(integers, np.int32)
        shaped = numbers.reshape(self.tensor.shape)
        return int(shaped) if self.attribute == "zero_point" and self.owner != "weight" else shaped


def collect_constants(network: Network) -> Mapping[str, tuple[LayerConstant, ...]]:
    """Return the constants of every layer that has any.

    Returns:
        Constants by the name of the value that the layer makes. Each has a name of its own.
    """
    known = _CONSTANTS.get(network)
    if known is None:
        known = _CONSTANTS[network] = _collect_constants(network)
    return known


_CONSTANTS: WeakKeyDictionary[Network, Mapping[str, tuple[LayerConstant, ...]]] = WeakKeyDictionary()
"""Constants of networks that are in use: a campaign asks for them at every operating point."""


def _collect_constants(network: Network) -> dict[str, tuple[LayerConstant, ...]]:
    taken, by_layer = {*network.tensors, *network.values}, {}
    shared: dict[str, StoredTensor] = {}
    for layer in network.layers:
        of_layer = []
        for constant in _constants(network, layer):
            tensor = constant.tensor
            if constant.owner == "weight":
                tensor = shared.setdefault(tensor.name, tensor)
            elif tensor.name in taken:
                number = next(i for i in range(2, len(taken) + 3) if f"{tensor.name}.{i}" not in taken)
                tensor = replace(tensor, name=f"{tensor.name}.{number}")
            taken.add(tensor.name)
            of_layer.append(replace(constant, tensor=tensor))
        if of_layer:
            by_layer[layer.output] = tuple(of_layer)
    return by_layer


def collect_buffers(network: Network) -> tuple[Buffer, ...]:
    """Return every value that a buffer can hold: integers, signs, and key-value caches.

    A 32-bit integer that a convolution reads as 16-bit is left out.
    """
    makers = {layer.output: layer.name for layer in network.layers}
    narrow = {layer.inputs[0] for layer in network.layers if isinstance(layer, Convolution)}
    return tuple(
        Buffer(spec, makers.get(name))
        for name, spec in network.values.items()
        if (spec.kind != "float" or spec.cache) and not (name in narrow and spec.dtype == "int32")
    )


def storable(network: Network) -> dict[str, Storable]:
    """Return everything that a memory can hold, by name."""
    constants = {c.tensor.name: c.tensor for of_layer in collect_constants(network).values() for c in of_layer}
    return {**network.tensors, **constants, **{buffer.name: buffer for buffer in collect_buffers(network)}}


def storable_names(layer: Layer, constants: Mapping[str, tuple[LayerConstant, ...]]) -> tuple[str, ...]:
    """Return the names of all that a layer reads and a memory can hold, but buffers."""
    return (*layer.tensor_names(), *(constant.tensor.name for constant in constants.get(layer.output, ())))


def _constants(network: Network, layer: Layer) -> Iterator[LayerConstant]:
    for part in layer.constant_fields():
        if part.role == "zero_point":
            tensor = _zero(part.name, part.numbers, type_encoding(network.values[layer.output].dtype))
        else:
            tensor = _float(part.name, part.role, part.numbers)
        yield (
            LayerConstant(tensor, "layer", part.attribute)
            if part.step is None
            else LayerConstant(tensor, "step", "constant", part.step)
        )
    if "zero_point" in layer.PARAMETERS.of_inputs:
        inputs = dict.fromkeys(layer.inputs)
        for index, value in enumerate(inputs):
            number = index if len(inputs) > 1 else ""
            scaled = "scale" in layer.PARAMETERS.of_inputs
            yield from _of_input(f"{layer.name}.input{number}", network.values[value], index, scaled)
    if isinstance(layer, Convolution):
        yield from _of_weight(network.tensors[layer.weight], network.values[layer.inputs[0]].kind == "float")


def _of_input(name: str, spec: ValueSpec, index: int, scaled: bool) -> Iterator[LayerConstant]:
    if spec.kind != "codes" or not (spec.zero_point or (spec.dtype != "int32" and np.any(spec.scale != 1))):
        return
    yield LayerConstant(_zero(f"{name}_zero_point", spec.zero_point, type_encoding(spec.dtype)), "input", "zero_point", index)
    if scaled:
        yield LayerConstant(_float(f"{name}_scale", "scale", spec.scale), "input", "scale", index)


def _of_weight(weight: StoredTensor, scaled: bool) -> Iterator[LayerConstant]:
    if weight.encoding.kind == "sign" or not (np.any(weight.zero_point) or np.any(weight.scale != 1)):
        return
    yield LayerConstant(_zero(f"{weight.name}.zero_point", weight.zero_point, weight.encoding), "weight", "zero_point")
    if scaled:
        yield LayerConstant(_float(f"{weight.name}.scale", "scale", weight.scale), "weight", "scale")


def _float(name: str, role: Role, numbers: Any) -> StoredTensor:
    return StoredTensor(name, role, FLOAT32, floats_to_bits(numbers).reshape(np.shape(numbers)))


def _zero(name: str, zero_point: Any, encoding: Encoding) -> StoredTensor:
    """Return a zero point as a stored code.

    A zero point that its type cannot hold (the importer allows it) takes 32 bits.
    """
    codes = np.asarray(zero_point, np.int32)
    fits = encoding.low <= codes.min() and codes.max() <= encoding.high
    return StoredTensor(name, "zero_point", encoding if fits else Encoding("signed", 32), codes)


@dataclass(frozen=True, eq=False)
class FaultyLayer:
    """A layer with its constants as a memory returned them.

    Attributes:
        layer: the record with these constants.
        specs: all values of the network; those of the inputs with the zero points and scales that were read.
        tensors: all tensors of the network; the weight with the scale and zero point that were read.
    """

    layer: Layer
    specs: Mapping[str, ValueSpec]
    tensors: Mapping[str, StoredTensor]


def with_faulty_constants(layer: Layer, network: Network, read: Mapping[LayerConstant, Any]) -> FaultyLayer:
    """Return a layer with the integers in `read` as its constants.

    Args:
        layer: the fault-free layer.
        network: the network of the layer.
        read: integers as the memory returned them, by constant.
    """
    specs, tensors = dict(network.values), dict(network.tensors)
    for constant, integers in read.items():
        value = constant.value(integers)
        if constant.owner == "layer":
            layer = replace(layer, **{constant.attribute: value})
        elif constant.owner == "step":
            assert isinstance(layer, AffineRequantize)
            steps = list(layer.steps)
            steps[constant.index] = replace(steps[constant.index], constant=value)
            layer = replace(layer, steps=tuple(steps))
        elif constant.owner == "input":
            name = list(dict.fromkeys(layer.inputs))[constant.index]
            specs[name] = replace(specs[name], **{constant.attribute: value})
        else:
            assert isinstance(layer, Convolution)
            tensors[layer.weight] = replace(tensors[layer.weight], **{constant.attribute: value})
    return FaultyLayer(layer, specs, tensors)
