"""A run walks a plan: chunk by chunk, layer by layer, with the weights as their memory returns them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emulator import network as nw
from emulator.deployment import Deployment, ReadPolicy, StoredSlot, reads_per_inference
from emulator.fusion import SignConvolution, conv_size, empty_signs, finish, fuse, places_of, signs_of
from emulator.kernels import binary, integer, signs
from emulator.layers import (
    centred,
    compute,
    convolution_constants,
    empty_output,
    geometry_of,
    packed_input,
    to_channels_last,
    to_onnx_order,
    values_of,
    with_bias,
    with_border,
)
from emulator.plan import Parameters, Plan, last_uses
from memmodels.errors import InputError, ModelError
from memmodels.sampler import Sampler

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]

_CHUNK_BYTES = 8 << 20
"""What the largest value of a chunk may take; chunks never change results."""


def infer(plan: Plan, inputs: Arrays, probe: Sequence[str] = ()) -> dict[str, Array]:
    """Fault-free outputs, and the values named by `probe`, in ONNX order and dtype: {name: (n, *shape)}."""
    unknown = [name for name in probe if name not in plan.network.values]
    if unknown:
        known = ", ".join(plan.network.values)
        raise ModelError(f"Probing {unknown[0]!r}", "the network has no such value after import", f"It has: {known}")
    wanted = (*plan.network.outputs, *probe)
    return _gather(plan, wanted, _chunks(plan, plan.parameters(), check_inputs(plan, inputs), wanted))


def outputs_under_faults(plan: Plan, inputs: Arrays, deployment: Deployment, batch: int = 256) -> dict[str, Array]:
    """Outputs with every placed bit as its memory returns it, under the deployment's read policy."""
    checked, parameters = check_inputs(plan, inputs), plan.parameters()
    images = len(next(iter(checked.values())))
    if deployment.policy in (ReadPolicy.IMAGE, ReadPolicy.ACCESS):
        reads = reads_per_inference(plan.network, deployment.policy, images, batch)
        for part in deployment.steady_slots:
            flips = deployment.read(part, 0, reads[part.slot.tensor] * images)
            parameters.flip(part.slot.tensor, part.slot.planes, flips)
        return _gather(plan, plan.network.outputs, _chunks(plan, parameters, checked, plan.network.outputs, deployment))
    step = batch if deployment.policy is ReadPolicy.BATCH else max(images, 1)
    parts: list[dict[str, Array]] = []
    for number, first in enumerate(range(0, images, step)):
        own = {name: x[first : first + step] for name, x in checked.items()}
        undo = _flip_all(parameters, deployment, deployment.all_slots, number)
        parts.extend(_chunks(plan, parameters, own, plan.network.outputs))
        undo()
    return _gather(plan, plan.network.outputs, iter(parts))


def check_inputs(plan: Plan, inputs: Arrays) -> dict[str, Array]:
    """The graph inputs in physical form; InputError if one is missing, misshapen, or not an integer where it must be."""
    network, checked = plan.network, {}
    for name in network.inputs:
        spec = network.values[name]
        if name not in inputs:
            raise InputError(
                f"Input {name!r} of {network.name}", f"the data have {', '.join(inputs) or 'nothing'}", "Name the array so"
            )
        x = np.asarray(inputs[name])
        if x.shape[1:] != spec.shape:
            if x.ndim < 1 or int(np.prod(x.shape[1:])) != int(np.prod(spec.shape)):
                raise InputError(
                    f"Input {name!r} of {network.name}, shape (n, {', '.join(map(str, spec.shape))})",
                    f"the data have shape {x.shape}",
                    "Bring images of that shape, the first axis counting them",
                )
            x = x.reshape(len(x), *spec.shape)
        checked[name] = x.astype(np.float32) if spec.kind == "float" else to_channels_last(_integers(x, spec), spec)
    return checked


def _integers(x: Array, spec: nw.ValueSpec) -> Array:
    info = np.iinfo(spec.dtype)
    limit = (1 << 15) - 1 if spec.dtype == "int32" else info.max
    if x.size and (not np.array_equal(x, np.rint(x)) or x.max() > limit or x.min() < max(info.min, -limit - 1)):
        raise InputError(
            f"Input {spec.name!r}, which the first layer reads as integers",
            f"the data have values like {_odd_one(x, limit):g}",
            "Feed integer pixels, or export the network with its scaling inside, or import it with integer_input=False",
        )
    return x.astype(spec.dtype)


def _odd_one(x: Array, limit: int) -> float:
    odd = x[(x != np.rint(x)) | (np.abs(x) > limit)]
    return float(odd.reshape(-1)[0]) if odd.size else float(x.max())


def _chunks(
    plan: Plan, parameters: Parameters, inputs: Arrays, wanted: Sequence[str], deployment: Deployment | None = None
) -> Iterator[dict[str, Array]]:
    """Walk the layers for one chunk of images after the other; yields the wanted values of each."""
    images, step, layers = len(next(iter(inputs.values()))), chunk_size(plan.network), fuse(plan.network, wanted)
    dead = last_uses(layers, keep=wanted)
    for first in range(0, max(images, 1), step):
        values = {name: x[first : first + step] for name, x in inputs.items()}
        for layer, unused in zip(layers, dead, strict=True):
            own = [values[name] for name in layer.inputs]
            stored = deployment.slots_of(layer) if deployment else ()
            if deployment and stored:
                values[layer.output] = _redrawn(layer, own, parameters, deployment, stored, first)
            else:
                values[layer.output] = _compute(layer, own, parameters)
            for name in unused:
                del values[name]
        yield {name: values[name] for name in wanted}


def _compute(layer: nw.Layer, inputs: list[Array], parameters: Parameters) -> Array:
    return signs_of(layer, inputs[0], parameters) if isinstance(layer, SignConvolution) else compute(layer, inputs, parameters)


def chunk_size(network: nw.Network) -> int:
    """Images per chunk, so that the largest value stays small; a power of two up to 256."""
    largest = max(int(np.prod(spec.shape)) * 4 for spec in network.values.values())
    return 1 << max(0, min(8, (_CHUNK_BYTES // largest).bit_length() - 1))


def _redrawn(
    layer: nw.Layer,
    inputs: list[Array],
    parameters: Parameters,
    deployment: Deployment,
    stored: tuple[StoredSlot, ...],
    first: int,
) -> Array:
    """A layer whose parameters are read again for each image or each output pixel."""
    drawable = deployment.faults is None and all(part.sampler is not None for part in stored)
    if isinstance(layer, SignConvolution):
        if drawable and all(part.slot.tensor == layer.weight for part in stored):
            return _redrawn_signs(layer, inputs[0], parameters, deployment, stored, first)
        return _redrawn_in_parts(layer, inputs[0], parameters, deployment, first)
    if (
        isinstance(layer, nw.Convolution)
        and drawable
        and layer.groups == 1
        and parameters.plan.network.values[layer.inputs[0]].kind != "float"
        and all(part.slot.tensor == layer.weight for part in stored)
    ):
        return _redrawn_in_kernel(layer, inputs[0], parameters, deployment, stored, first)
    per_pixel = deployment.policy is ReadPolicy.ACCESS
    spec = parameters.plan.network.values[layer.output]
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
        x = _redrawn(part, [x], parameters, deployment, stored, first) if stored else compute(part, [x], parameters)
    return x


def _once(
    layer: nw.Layer, inputs: list[Array], parameters: Parameters, deployment: Deployment, stored: tuple[StoredSlot, ...], read: int
) -> Array:
    undo = _flip_all(parameters, deployment, stored, read)
    out = compute(layer, inputs, parameters)
    undo()
    return out


def _flip_all(parameters: Parameters, deployment: Deployment, stored: tuple[StoredSlot, ...], read: int) -> Callable[[], None]:
    """Read the slots and put their flips into the parameters; returns the function that takes them out."""
    drawn = [(part.slot, deployment.read(part, read)) for part in stored]

    def flip() -> None:
        for slot, flips in drawn:
            parameters.flip(slot.tensor, slot.planes, flips)

    flip()
    return flip


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
    network, draws = parameters.plan.network, _draws(deployment, stored)
    spec, tensor = network.values[layer.inputs[0]], parameters.plan.tensors[layer.weight]
    weights, out = parameters.values[layer.weight], empty_output(network.values[layer.output], len(x))
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
    if tensor.packed:
        own = packed_input(layer, x, parameters)
        places, place_of = places_of(own.window, own.size, conv_size(layer, spec))
        signs.binary_signs_redrawn(
            own.x, own.channels, weights, threshold, places, place_of, geometry_of(own.window), out, tensor.outer, tensor.inner,
            tensor.flat, draws.samplers, draws.flips, deployment.trial, draws.writes, first, draws.per_pixel, draws.counts,
        )  # fmt: skip
    else:
        x = with_border(centred(x, spec, even=True), layer.window)
        _, bias = convolution_constants(layer, parameters)
        bits, signed = tensor.encoding.bits, tensor.encoding.kind == "signed"
        signs.integer_signs_redrawn(
            x, weights, bias, threshold, geometry, out, tensor.outer, tensor.inner, draws.samplers, draws.planes, bits, signed,
            draws.flips, deployment.trial, draws.writes, first, draws.per_pixel, draws.counts,
        )  # fmt: skip
    draws.tally(deployment, stored, len(x) * (out.shape[1] * out.shape[2] if draws.per_pixel else 1))
    return finish(step, out, parameters)


def _gather(plan: Plan, wanted: Sequence[str], parts: Iterator[dict[str, Array]]) -> dict[str, Array]:
    """Concatenate chunks and give each value its ONNX order."""
    chunks = list(parts)
    return {name: np.concatenate([_as_onnx(chunk[name], plan.network.values[name]) for chunk in chunks]) for name in wanted}


def _as_onnx(x: Array, spec: nw.ValueSpec) -> Array:
    return x if spec.kind == "float" else to_onnx_order(values_of(x, spec), spec)
