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
from weakcell.emulator.ir.values import encoding_of, float_bits, floats_of


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant of one layer, and where it belongs: a field of the record, of a step, of an input's value, or of the weight."""

    tensor: StoredTensor
    home: Literal["layer", "step", "input", "weight"]
    attribute: str
    place: int = 0

    def value(self, held: Any) -> Any:
        """What the stored integers mean, in the type and shape of the field."""
        meant = floats_of(held) if self.tensor.encoding == FLOAT32 else np.asarray(held, np.int32)
        shaped = meant.reshape(self.tensor.values.shape)
        return int(shaped) if self.attribute == "zero_point" and self.home != "weight" else shaped


def constants_of(network: Network) -> dict[str, tuple[Constant, ...]]:
    """The constants of every layer that has any, by the value that the layer makes; names are taken once."""
    taken, made = {*network.tensors, *network.values}, {}
    shared: dict[str, StoredTensor] = {}
    for layer in network.layers:
        own = []
        for constant in _constants(network, layer):
            tensor = constant.tensor
            if constant.home == "weight":
                tensor = shared.setdefault(tensor.name, tensor)
            elif tensor.name in taken:
                number = next(i for i in range(2, len(taken) + 3) if f"{tensor.name}.{i}" not in taken)
                tensor = replace(tensor, name=f"{tensor.name}.{number}")
            taken.add(tensor.name)
            own.append(replace(constant, tensor=tensor))
        if own:
            made[layer.output] = tuple(own)
    return made


def buffers_of(network: Network) -> tuple[Buffer, ...]:
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
    constants = {c.tensor.name: c.tensor for own in constants_of(network).values() for c in own}
    return {**network.tensors, **constants, **{buffer.name: buffer for buffer in buffers_of(network)}}


def names_of(layer: Layer, constants: Mapping[str, tuple[Constant, ...]]) -> tuple[str, ...]:
    """Names of everything that a layer reads and a memory may hold, but for buffers."""
    return (*layer.tensor_names(), *(constant.tensor.name for constant in constants.get(layer.output, ())))


def _constants(network: Network, layer: Layer) -> Iterator[Constant]:
    for part in layer.constant_fields():
        if part.role == "zero_point":
            tensor = _zero(part.name, part.numbers, encoding_of(network.values[layer.output].dtype))
        else:
            tensor = _float(part.name, part.role, part.numbers)
        yield Constant(tensor, "layer", part.attribute) if part.step is None else Constant(tensor, "step", "constant", part.step)
    if "zero_point" in layer.PARAMETERS.of_inputs:
        inputs = dict.fromkeys(layer.inputs)
        for place, value in enumerate(inputs):
            number = place if len(inputs) > 1 else ""
            scaled = "scale" in layer.PARAMETERS.of_inputs
            yield from _of_input(f"{layer.name}.input{number}", network.values[value], place, scaled)
    if isinstance(layer, Convolution):
        yield from _of_weight(network.tensors[layer.weight], network.values[layer.inputs[0]].kind == "float")


def _of_input(name: str, spec: ValueSpec, place: int, scaled: bool) -> Iterator[Constant]:
    if spec.kind != "codes" or not (spec.zero_point or (spec.dtype != "int32" and np.any(spec.scale != 1))):
        return
    yield Constant(_zero(f"{name}_zero_point", spec.zero_point, encoding_of(spec.dtype)), "input", "zero_point", place)
    if scaled:
        yield Constant(_float(f"{name}_scale", "scale", spec.scale), "input", "scale", place)


def _of_weight(weight: StoredTensor, scaled: bool) -> Iterator[Constant]:
    if weight.encoding.kind == "sign" or not (np.any(weight.zero_point) or np.any(weight.scale != 1)):
        return
    yield Constant(_zero(f"{weight.name}.zero_point", weight.zero_point, weight.encoding), "weight", "zero_point")
    if scaled:
        yield Constant(_float(f"{weight.name}.scale", "scale", weight.scale), "weight", "scale")


def _float(name: str, role: Role, held: Any) -> StoredTensor:
    return StoredTensor(name, role, FLOAT32, float_bits(held).reshape(np.shape(held)))


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


def with_faulty_constants(layer: Layer, network: Network, read: Mapping[Constant, Any]) -> FaultyLayer:
    """The layer with the integers in `read` in place of its own constants."""
    specs, tensors = dict(network.values), dict(network.tensors)
    for constant, held in read.items():
        value = constant.value(held)
        if constant.home == "layer":
            layer = replace(layer, **{constant.attribute: value})
        elif constant.home == "step":
            assert isinstance(layer, AffineRequantize)
            steps = list(layer.steps)
            steps[constant.place] = replace(steps[constant.place], constant=value)
            layer = replace(layer, steps=tuple(steps))
        elif constant.home == "input":
            name = list(dict.fromkeys(layer.inputs))[constant.place]
            specs[name] = replace(specs[name], **{constant.attribute: value})
        else:
            assert isinstance(layer, Convolution)
            tensors[layer.weight] = replace(tensors[layer.weight], **{constant.attribute: value})
    return FaultyLayer(layer, specs, tensors)
