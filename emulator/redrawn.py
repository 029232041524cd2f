"""Layers whose parameters are read again for every image or every output pixel.

Where all of a layer's regions have samplers, a kernel draws, computes and takes back by itself. Everything else (boards, wrappers,
recordings, biases, recorded faults) goes through the memory's own `read`, one image or pixel at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emulator import network as nw
from emulator.deployment import Deployment, ReadPolicy, StoredSlot
from emulator.fusion import SignConvolution, conv_size, empty_signs, finish, places_of
from emulator.kernels import binary, dense, integer, signs
from emulator.layers import (
    centred,
    compute,
    convolution_constants,
    empty_output,
    geometry_of,
    packed_input,
    with_bias,
    with_border,
)
from emulator.outcomes import applies, drawn_sums
from emulator.plan import Parameters
from memmodels.sampler import Sampler

Array = npt.NDArray[Any]


def compute_redrawn(
    layer: nw.Layer,
    inputs: list[Array],
    parameters: Parameters,
    deployment: Deployment,
    stored: tuple[StoredSlot, ...],
    first: int,
) -> Array:
    """A layer's output for images first.. of the data set, under the read policies `image` and `access`."""
    drawable = deployment.faults is None and all(part.sampler is not None for part in stored)
    if isinstance(layer, SignConvolution):
        if drawable and all(part.slot.tensor == layer.weight for part in stored):
            return _redrawn_signs(layer, inputs[0], parameters, deployment, stored, first)
        return _redrawn_in_parts(layer, inputs[0], parameters, deployment, first)
    if (
        isinstance(layer, nw.Convolution)
        and drawable
        and layer.groups == 1
        and parameters.specs[layer.inputs[0]].kind != "float"
        and all(part.slot.tensor == layer.weight for part in stored)
    ):
        return _redrawn_in_kernel(layer, inputs[0], parameters, deployment, stored, first)
    per_pixel = deployment.policy is ReadPolicy.ACCESS
    spec = parameters.specs[layer.output]
    rows = []
    for image in range(len(inputs[0])):
        own = [x[image : image + 1] for x in inputs]
        if not per_pixel:
            rows.append(_once(layer, own, parameters, deployment, stored, first + image))
            continue
        height, width = spec.height_width
        row = empty_output(spec, 1)
        for pixel in range(height * width):
            read = (first + image) * height * width + pixel
            y, x = divmod(pixel, width)
            at = (slice(None), slice(None), y, x) if spec.kind == "float" and len(spec.shape) == 3 else (slice(None), y, x)
            whole = _once(layer, own, parameters, deployment, stored, read)
            if spec.kind == "float" and len(spec.shape) == 1:
                row = whole
            else:
                row[at] = whole[at]
        rows.append(row)
    return np.concatenate(rows) if rows else empty_output(spec, 0)


def _redrawn_in_parts(step: SignConvolution, x: Array, parameters: Parameters, deployment: Deployment, first: int) -> Array:
    """A fused step as the layers that it is made of."""
    for part in step.parts:
        stored = deployment.slots_of(part)
        x = compute_redrawn(part, [x], parameters, deployment, stored, first) if stored else compute(part, [x], parameters)
    return x


def _once(
    layer: nw.Layer, inputs: list[Array], parameters: Parameters, deployment: Deployment, stored: tuple[StoredSlot, ...], read: int
) -> Array:
    undo = flip_all(parameters, deployment, stored, read)
    out = compute(layer, inputs, parameters)
    undo()
    return out


def flip_all(parameters: Parameters, deployment: Deployment, stored: tuple[StoredSlot, ...], read: int) -> Callable[[], None]:
    """Read the slots and put their flips and dropped signs into the parameters; returns the function that takes them out."""
    drawn = [(part.slot, deployment.read(part, read)) for part in stored]

    def flip() -> None:
        for slot, returned in drawn:
            parameters.flip(slot.tensor, slot.planes, returned.flips)

    flip()
    undrop = [parameters.drop(slot.tensor, returned.dropped) for slot, returned in drawn if returned.dropped is not None]

    def undo() -> None:
        for each in undrop:
            each()
        flip()

    return undo


@dataclass(frozen=True, eq=False)
class _Draws:
    """What the kernels need to draw one layer's weights anew: one entry per region of the weight tensor."""

    samplers: tuple[Sampler, ...]
    writes: tuple[int, ...]
    planes: tuple[Array, ...]
    flips: tuple[Array, ...]
    counts: Array
    per_pixel: bool

    def tally(self, deployment: Deployment, stored: tuple[StoredSlot, ...], reads: int) -> None:
        for part, count in zip(stored, self.counts, strict=True):
            deployment.tally.add(part.slot.tensor, int(count), part.region.layout.bits * reads)


def _draws(deployment: Deployment, stored: tuple[StoredSlot, ...]) -> _Draws:
    return _Draws(
        samplers=tuple(part.sampler for part in stored if part.sampler is not None),
        writes=tuple(part.region.key.write for part in stored),
        planes=tuple(np.array(part.slot.planes, dtype=np.int64) for part in stored),
        flips=tuple(np.zeros((2, part.region.written.size), dtype=np.uint64) for part in stored),
        counts=np.zeros(len(stored), dtype=np.int64),
        per_pixel=deployment.policy is ReadPolicy.ACCESS,
    )


def _redrawn_in_kernel(
    layer: nw.Convolution,
    x: Array,
    parameters: Parameters,
    deployment: Deployment,
    stored: tuple[StoredSlot, ...],
    first: int,
) -> Array:
    """Draw, compute and take back inside the kernel, image by image or pixel by pixel."""
    _, parameters = parameters.as_read(layer)
    spec, tensor = parameters.specs[layer.inputs[0]], parameters.plan.tensors[layer.weight]
    if applies(layer, deployment):
        return with_bias(layer, drawn_sums(layer, x, parameters, deployment, stored[0], first), parameters)
    if tensor.flat:
        return with_bias(layer, _redrawn_dense(layer, x, parameters, deployment, stored[0], first), parameters)
    draws = _draws(deployment, stored)
    weights, out = parameters.values[layer.weight], empty_output(parameters.specs[layer.output], len(x))
    geometry = geometry_of(layer.window)
    if tensor.packed:
        own = packed_input(layer, x, parameters)
        binary.binary_convolution_redrawn(
            own.x, own.size, own.channels, weights, geometry_of(own.window), out, tensor.outer, tensor.inner, tensor.flat,
            draws.samplers, draws.flips, deployment.trial, draws.writes, first, draws.per_pixel, draws.counts,
        )  # fmt: skip
        with_bias(layer, out, parameters)
    else:
        x = with_border(centred(x, spec, even=True), layer.window)
        zero_points, bias = convolution_constants(layer, parameters)
        bits, signed = tensor.encoding.bits, tensor.encoding.kind == "signed"
        integer.integer_convolution_redrawn(
            x, weights, zero_points, bias, geometry, out, tensor.outer, tensor.inner, draws.samplers, draws.planes, bits, signed,
            draws.flips, deployment.trial, draws.writes, first, draws.per_pixel, draws.counts,
        )  # fmt: skip
    draws.tally(deployment, stored, len(x) * (out.shape[1] * out.shape[2] if draws.per_pixel else 1))
    return out


def _redrawn_dense(
    layer: nw.Convolution,
    x: Array,
    parameters: Parameters,
    deployment: Deployment,
    stored: StoredSlot,
    first: int,
) -> Array:
    """Sums (n, 1, 1, O) of a matrix product of packed signs, whose one region is read for each image."""
    own, outputs = packed_input(layer, x, parameters), parameters.specs[layer.output].channels
    sums = np.empty((len(x), 1, 1, outputs), dtype=np.int32)
    write = stored.region.key.write
    count = dense.dense_redrawn(own.x, own.channels, stored.sampler, deployment.trial, write, first, sums)
    deployment.tally.add(stored.slot.tensor, int(count), stored.region.layout.bits * len(x))
    return sums


def _redrawn_signs(
    step: SignConvolution,
    x: Array,
    parameters: Parameters,
    deployment: Deployment,
    stored: tuple[StoredSlot, ...],
    first: int,
) -> Array:
    """The same for a fused step."""
    network, layer, draws = parameters.plan.network, step.convolution, _draws(deployment, stored)
    spec, tensor = network.values[layer.inputs[0]], parameters.plan.tensors[layer.weight]
    weights, threshold = parameters.values[layer.weight], parameters.values[step.threshold]
    out, geometry = empty_signs(network, step, len(x)), geometry_of(layer.window)
    outputs = applies(layer, deployment)
    if outputs or tensor.flat:
        make = drawn_sums if outputs else _redrawn_dense
        sums = make(layer, x, parameters, deployment, stored[0], first)
        binary.threshold_pack(sums, threshold, np.zeros(threshold.size, dtype=np.bool_), out)
        return finish(step, out, parameters)
    if tensor.packed:
        own = packed_input(layer, x, parameters)
        places, place_of = places_of(own.window, own.size, conv_size(layer, spec))
        signs.binary_signs_redrawn(
            own.x, own.channels, weights, threshold, places, place_of, geometry_of(own.window), out, tensor.outer, tensor.inner,
            tensor.flat, draws.samplers, draws.flips, deployment.trial, draws.writes, first, draws.per_pixel, draws.counts,
        )  # fmt: skip
    else:
        x = with_border(centred(x, spec, even=True), layer.window)
        bits, signed = tensor.encoding.bits, tensor.encoding.kind == "signed"
        signs.integer_signs_redrawn(
            x, weights, threshold, geometry, out, tensor.outer, tensor.inner, draws.samplers, draws.planes, bits, signed,
            draws.flips, deployment.trial, draws.writes, first, draws.per_pixel, draws.counts,
        )  # fmt: skip
    draws.tally(deployment, stored, len(x) * (out.shape[1] * out.shape[2] if draws.per_pixel else 1))
    return finish(step, out, parameters)
