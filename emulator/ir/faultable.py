"""Scales, zero points and other constants of layers as stored tensors, and a layer as its constants came back from a memory.

What is stored is the number that a layer computes with: a requantization's multiplier s_x s_w / s_y, not the three scales of the
file. Every layer has its own copy of the zero points that it reads; names are those of the layer or weight with `.scale`,
`.zero_point` and so on behind. Clamping limits belong to the code, so Relu cuts where it did.

A flipped float may be negative, 0, infinite or NaN. It is used as it is, in IEEE arithmetic: codes made from NaN are the lowest
that the layer can make, from infinities the lowest or highest, and a NaN among the final scores never wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from weakcell.emulator.ir.layers import (
    FLOAT32,
    AffineRequantize,
    Buffer,
    Convolution,
    Encoding,
    Layer,
    Network,
    Role,
    Storable,
    StoredTensor,
    ValueSpec,
)
from weakcell.emulator.ir.values import bits_to_floats, floats_to_bits, type_encoding


@dataclass(frozen=True, eq=False)
class LayerConstant:
    """A constant of one layer, and where it belongs: a field of the record, of a step, of an input's value, or of the weight."""

    tensor: StoredTensor
    owner: Literal["layer", "step", "input", "weight"]
    attribute: str
    index: int = 0

    def value(self, held: Any) -> Any:
        """What the stored integers mean, in the type and shape of the field."""
        meant = bits_to_floats(held) if self.tensor.encoding == FLOAT32 else np.asarray(held, np.int32)
        shaped = meant.reshape(self.tensor.values.shape)
        return int(shaped) if self.attribute == "zero_point" and self.owner != "weight" else shaped


def collect_constants(network: Network) -> dict[str, tuple[LayerConstant, ...]]:
    """The constants of every layer that has any, by the value that the layer makes; names are taken once."""
    taken, made = {*network.tensors, *network.values}, {}
    shared: dict[str, StoredTensor] = {}
    for layer in network.layers:
        own = []
        for constant in _constants(network, layer):
            tensor = constant.tensor
            if constant.owner == "weight":
                tensor = shared.setdefault(tensor.name, tensor)
            elif tensor.name in taken:
                number = next(i for i in range(2, len(taken) + 3) if f"{tensor.name}.{i}" not in taken)
                tensor = replace(tensor, name=f"{tensor.name}.{number}")
            taken.add(tensor.name)
            own.append(replace(constant, tensor=tensor))
        if own:
            made[layer.output] = tuple(own)
    return made


def collect_buffers(network: Network) -> tuple[Buffer, ...]:
    """Every value that a buffer can hold: integers and signs, but no 32-bit integer that a convolution reads as 16-bit."""
    makers = {layer.output: layer.name for layer in network.layers}
    narrow = {layer.inputs[0] for layer in network.layers if isinstance(layer, Convolution)}
    return tuple(
        Buffer(spec, makers.get(name))
        for name, spec in network.values.items()
        if spec.kind != "float" and not (name in narrow and spec.dtype == "int32")
    )


def storable(network: Network) -> dict[str, Storable]:
    """Everything that can be placed, by name: the network's tensors, its other constants, its buffers."""
    constants = {c.tensor.name: c.tensor for own in collect_constants(network).values() for c in own}
    return {**network.tensors, **constants, **{buffer.name: buffer for buffer in collect_buffers(network)}}


def storable_names(layer: Layer, constants: Mapping[str, tuple[LayerConstant, ...]]) -> tuple[str, ...]:
    """Names of everything that a layer reads and a memory may hold, but for buffers."""
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


def _float(name: str, role: Role, held: Any) -> StoredTensor:
    return StoredTensor(name, role, FLOAT32, floats_to_bits(held).reshape(np.shape(held)))


def _zero(name: str, held: Any, encoding: Encoding) -> StoredTensor:
    """A zero point as its code; one that its type cannot hold (the importer allows it) takes 32 bits."""
    codes = np.asarray(held, np.int32)
    fits = encoding.low <= codes.min() and codes.max() <= encoding.high
    return StoredTensor(name, "zero_point", encoding if fits else Encoding("signed", 32), codes)


@dataclass(frozen=True, eq=False)
class FaultyLayer:
    """A layer with its constants as a memory returned them, the specs of its inputs likewise, and its weight's if those changed."""

    layer: Layer
    specs: Mapping[str, ValueSpec]
    tensors: Mapping[str, StoredTensor]


def with_faulty_constants(layer: Layer, network: Network, read: Mapping[LayerConstant, Any]) -> FaultyLayer:
    """The layer with the integers in `read` in place of its own constants."""
    specs, tensors = dict(network.values), dict(network.tensors)
    for constant, held in read.items():
        value = constant.value(held)
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
