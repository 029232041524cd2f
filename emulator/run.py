"""A run walks a plan: chunk by chunk, layer by layer, with the weights as their memory returns them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from emulator import network as nw
from emulator.buffers import read_back
from emulator.clean import CleanPass, Flipped
from emulator.convolution import values_of
from emulator.deployment import Deployment, ReadPolicy, reads_per_inference
from emulator.fusion import SignConvolution, signs_of, steps_of
from emulator.kernels import packing
from emulator.layers import compute, to_channels_last, to_onnx_order
from emulator.outcomes import settle
from emulator.plan import Parameters, Plan, last_uses
from emulator.redrawn import compute_redrawn, flip_all
from memmodels.errors import InputError, ModelError

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]

_CHUNK_BYTES, _CHUNK_IMAGES = 2 << 20, 384
"""What the largest value of a chunk may take, and images that are a whole number of tiles; chunks never change results."""


def infer(plan: Plan, inputs: Arrays, probe: Sequence[str] = ()) -> dict[str, Array]:
    """Fault-free outputs, and the values named by `probe`, in ONNX order and dtype: {name: (n, *shape)}."""
    unknown = [name for name in probe if name not in plan.network.values]
    if unknown:
        known = ", ".join(plan.network.values)
        raise ModelError(f"Probing {unknown[0]!r}", "the network has no such value after import", f"It has: {known}")
    wanted = (*plan.network.outputs, *probe)
    return _gather(plan, wanted, _chunks(plan, plan.faultless, check_inputs(plan, inputs), wanted))


def clean_values(plan: Plan, inputs: Arrays, wanted: Sequence[str]) -> Iterator[dict[str, Array]]:
    """Fault-free values in physical form, chunk by chunk, of inputs that are checked already."""
    return _chunks(plan, plan.faultless, inputs, wanted)


def outputs_under_faults(
    plan: Plan, inputs: Arrays, deployment: Deployment, batch: int = 256, clean: CleanPass | None = None
) -> dict[str, Array]:
    """Outputs with every placed bit as its memory returns it, under the deployment's read policy.

    clean: of the same inputs; layers in front of the first one that errs are then taken from it instead of being computed again.
    """
    clean = clean or CleanPass(plan, check_inputs(plan, inputs), budget=0)
    checked, parameters, flipped = clean.inputs, plan.parameters(deployment.slots), Flipped(deployment)
    images = len(next(iter(checked.values())))
    if deployment.policy in (ReadPolicy.IMAGE, ReadPolicy.ACCESS):
        reads = reads_per_inference(plan.network, deployment.policy, images, batch)
        for part in deployment.steady_slots:
            returned = deployment.read(part, 0, reads[part.slot.tensor] * images)
            parameters.flip(part.slot.tensor, part.slot.planes, returned.flips)
        settle(parameters, deployment)
        start = clean.before(flipped.first_of(clean.layers, redrawn=True))
        chunks = _chunks(plan, parameters, start.values, plan.network.outputs, deployment, start.layer, again=True)
        return _gather(plan, plan.network.outputs, chunks)
    step = batch if deployment.policy is ReadPolicy.BATCH else max(images, 1)
    parts: list[dict[str, Array]] = []
    for number, first in enumerate(range(0, max(images, 1), step)):
        parameters.restore()
        flip_all(parameters, deployment, deployment.all_slots, number)
        start = clean.before(flipped.first_of(clean.layers))
        own = {name: x[first : first + step] for name, x in start.values.items()}
        parts.extend(_chunks(plan, parameters, own, plan.network.outputs, deployment, start.layer, begin=first))
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
        if x.dtype.kind not in "buif":
            raise InputError(f"Input {name!r} of {network.name}", f"the data are of type {x.dtype}", "Bring real numbers")
        if x.shape[1:] != spec.shape:
            if not _fits(x.shape, spec.shape):
                raise InputError(
                    f"Input {name!r} of {network.name}, shape (n, {', '.join(map(str, spec.shape))})",
                    f"the data have shape {x.shape}",
                    "Bring images of that shape, the first axis counting them",
                )
            x = x.reshape(len(x), *spec.shape)
        checked[name] = x.astype(np.float32) if spec.kind == "float" else to_channels_last(_integers(x, spec), spec)
    if len({len(x) for x in checked.values()}) > 1:
        counts = ", ".join(f"{len(x)} in {name}" for name, x in checked.items())
        raise InputError(f"Inputs of {network.name}", f"they hold different numbers of images: {counts}", "Bring as many in each")
    return checked


def _fits(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether data of another shape mean the same images: flattened, or with axes of size 1 more or less."""
    if not given or math.prod(given[1:]) != math.prod(shape):
        return False
    return len(given) == 2 or [n for n in given[1:] if n != 1] == [n for n in shape if n != 1]


def _integers(x: Array, spec: nw.ValueSpec) -> Array:
    info = np.iinfo(spec.dtype)
    high = (1 << 15) - 1 if spec.dtype == "int32" else info.max
    low = max(info.min, -high - 1)
    made = np.empty(x.shape, spec.dtype)
    if packing.as_integers(np.ascontiguousarray(x).reshape(-1), low, high, made.reshape(-1)):
        odd = x[~((x == np.rint(x)) & (x <= high) & (x >= low))]
        raise InputError(
            f"Input {spec.name!r}, which the first layer reads as integers",
            f"the data have values like {float(odd[0]):g}",
            "Feed integer pixels, or export the network with its scaling inside, or import it with integer_input=False",
        )
    return made


def _chunks(
    plan: Plan,
    parameters: Parameters,
    inputs: Arrays,
    wanted: Sequence[str],
    deployment: Deployment | None = None,
    start: int = 0,
    begin: int = 0,
    again: bool = False,
) -> Iterator[dict[str, Array]]:
    """Walk the layers from `start` on for one chunk of images after the other; yields the wanted values of each.

    begin: the number in the data set of the first image. again: read parameters anew for every image or pixel.
    """
    images, layers = len(next(iter(inputs.values()))), steps_of(plan, {*wanted, *deployment.seen} if deployment else wanted)
    step, layers = chunk_size(plan.network, layers), layers[start:]
    dead = last_uses(layers, keep=wanted)
    for first in range(0, max(images, 1), step):
        values = {name: _held(name, x[first : first + step], deployment, begin + first) for name, x in inputs.items()}
        for layer, unused in zip(layers, dead, strict=True):
            own = [values[name] for name in layer.inputs]
            stored = deployment.slots_of(layer) if deployment and again else ()
            if deployment and stored:
                made = compute_redrawn(layer, own, parameters, deployment, stored, begin + first)
            else:
                made = _compute(layer, own, parameters)
            values[layer.output] = _held(layer.output, made, deployment, begin + first)
            for name in unused:
                del values[name]
        yield {name: values[name] for name in wanted}


def _held(name: str, x: Array, deployment: Deployment | None, first: int) -> Array:
    """A value as layers read it: back from its buffer if that lies in a memory."""
    slots = deployment.buffers.get(name) if deployment else None
    return read_back(x, slots, deployment, first) if deployment and slots else x


def _compute(layer: nw.Layer, inputs: list[Array], parameters: Parameters) -> Array:
    if not isinstance(layer, SignConvolution):
        return compute(layer, inputs, parameters)
    if layer.weight not in parameters.dropped:
        return signs_of(layer, inputs[0], parameters)
    for part in layer.parts:
        inputs = [compute(part, inputs, parameters)]
    return inputs[0]


def chunk_size(network: nw.Network, layers: Sequence[nw.Layer] = ()) -> int:
    """Images per chunk, so that what the layers write stays near the processor: 384 and its halves, down to 1. layers: as fused."""
    specs = [network.values[name] for layer in layers or network.layers for name in (*layer.inputs, layer.output)]
    largest = max(math.prod(spec.shape) * _bits_of(spec) // 8 for spec in specs)
    return max(1, _CHUNK_IMAGES >> max(0, _CHUNK_IMAGES * largest // _CHUNK_BYTES).bit_length())


def _bits_of(spec: nw.ValueSpec) -> int:
    return 1 if spec.kind == "bits" else np.dtype(spec.dtype).itemsize * 8


def _gather(plan: Plan, wanted: Sequence[str], parts: Iterator[dict[str, Array]]) -> dict[str, Array]:
    """Concatenate chunks and give each value its ONNX order."""
    chunks = list(parts)
    return {name: np.concatenate([_as_onnx(chunk[name], plan.network.values[name]) for chunk in chunks]) for name in wanted}


def _as_onnx(x: Array, spec: nw.ValueSpec) -> Array:
    return x if spec.kind == "float" else to_onnx_order(values_of(x, spec), spec)
