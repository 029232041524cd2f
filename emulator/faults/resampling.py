"""Layers whose parameters are read again for every image or every output pixel.

Where all of a layer's regions have samplers, a kernel draws, computes and takes back by itself. Everything else (boards, wrappers,
recordings, biases, recorded faults) goes through the memory's own `read`, one image or pixel at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.convolution import UNPOOLED, UNROUNDED, Joined, Reading, readings
from weakcell.emulator.engine.fusion import CodeConvolution, Fused, SignConvolution, empty_signs, finish
from weakcell.emulator.engine.layer_functions import compute, empty_output
from weakcell.emulator.engine.rounding import rounding_of
from weakcell.emulator.faults.deployment import Deployment, ReadPolicy, StoredSlot
from weakcell.emulator.faults.kernel_reads import Tables, drawable, homes_of, tables_of
from weakcell.emulator.faults.output_sampling import applies, drawn_signs, drawn_sums
from weakcell.emulator.ir import layers as nw
from weakcell.emulator.kernels import bitpack, conv, conv_sign, dense_resampled
from weakcell.emulator.kernels.arguments import ReadSequence, Rounding
from weakcell.emulator.plan.parameters import ParameterState

Array = npt.NDArray[Any]


def compute_redrawn(
    layer: nw.Layer,
    inputs: list[Array],
    parameters: ParameterState,
    deployment: Deployment,
    stored: tuple[StoredSlot, ...],
    first: int,
) -> Array:
    """A layer's output for images first.. of the data set, under the read policies `image` and `access`."""
    convolution = layer.convolution if isinstance(layer, Fused) else layer
    only_weights = isinstance(convolution, nw.Convolution) and all(part.slot.tensor == convolution.weight for part in stored)
    if isinstance(convolution, nw.Convolution) and only_weights and drawable(deployment, stored):
        joined = UNPOOLED
        by_image = deployment.policy is not ReadPolicy.ACCESS and not applies(convolution, deployment)
        if isinstance(layer, SignConvolution) and by_image:
            joined = layer.joined
        reading = _one_reading(convolution, inputs[0], parameters.with_faulty_constants(convolution)[1], joined)
        if reading is not None and isinstance(layer, SignConvolution):
            return _redrawn_signs(layer, reading, joined, parameters, deployment, stored, first)
        if reading is not None and isinstance(layer, CodeConvolution):
            return _redrawn_codes(layer, reading, parameters, deployment, stored, first)
        if reading is not None:
            return _redrawn_sums(convolution, reading, parameters, deployment, stored, first)
    if isinstance(layer, Fused):
        return _redrawn_in_parts(layer, inputs[0], parameters, deployment, first)
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
            at = _pixel(spec, y, x)
            whole = _once(layer, own, parameters, deployment, stored, read)
            if spec.kind == "float" and len(spec.shape) == 1:
                row = whole
            else:
                row[at] = whole[at]
        rows.append(row)
    return np.concatenate(rows) if rows else empty_output(spec, 0)


def _pixel(spec: nw.ValueSpec, y: int, x: int) -> tuple[slice | int, ...]:
    """Where one pixel of an image or signal lies in its physical form, which has the images first."""
    every = slice(None)
    if spec.kind != "float":
        return every, y, x
    return (every, every, x) if len(spec.shape) == 2 else (every, every, y, x)


def _one_reading(layer: nw.Convolution, x: Array, parameters: ParameterState, joined: Joined) -> Reading | None:
    """The layer's input, if a kernel that draws its weights can take it."""
    if layer.groups > 1 or parameters.specs[layer.inputs[0]].kind == "float":
        return None
    own = readings(layer, x, parameters, joined)
    return own[0] if len(own) == 1 else None


def _redrawn_in_parts(step: Fused, x: Array, parameters: ParameterState, deployment: Deployment, first: int) -> Array:
    """A fused step as the layers that it is made of."""
    for part in step.parts:
        stored = deployment.slots_of(part)
        x = compute_redrawn(part, [x], parameters, deployment, stored, first) if stored else compute(part, [x], parameters)
    return x


def _once(
    layer: nw.Layer,
    inputs: list[Array],
    parameters: ParameterState,
    deployment: Deployment,
    stored: tuple[StoredSlot, ...],
    read: int,
) -> Array:
    undo = flip_all(parameters, deployment, stored, read)
    out = compute(layer, inputs, parameters)
    undo()
    return out


def flip_all(parameters: ParameterState, deployment: Deployment, stored: tuple[StoredSlot, ...], read: int) -> Callable[[], None]:
    """Read the slots and put their flips and dropped signs into the parameters; returns the function that takes them out."""
    drawn = [(part.slot, deployment.read(part, read)) for part in stored]

    def flip() -> None:
        for slot, returned in drawn:
            parameters.flip(slot.tensor, slot.planes, returned.flips)

    flip()
    undrop = [parameters.drop_signs(slot.tensor, returned.dropped) for slot, returned in drawn if returned.dropped is not None]

    def undo() -> None:
        for each in undrop:
            each()
        flip()

    return undo


def _tables(layer: nw.Convolution, parameters: ParameterState, stored: tuple[StoredSlot, ...]) -> tuple[Tables, Any]:
    """Tables of a layer's weights, and the weights that a kernel puts its reads into."""
    form, homes = parameters.plan.tensors[layer.weight].weight_layout, homes_of(parameters.plan, stored, parameters.values)
    assert form is not None
    return tables_of(stored, homes), form(homes.values[layer.weight])


def _redrawn_sums(
    layer: nw.Convolution,
    own: Reading,
    parameters: ParameterState,
    deployment: Deployment,
    stored: tuple[StoredSlot, ...],
    first: int,
) -> Array:
    """Draw, compute and take back inside the kernel, image by image or pixel by pixel."""
    _, parameters = parameters.with_faulty_constants(layer)
    if applies(layer, deployment):
        made = drawn_sums(layer, own, parameters, deployment, stored[0], first)
        made += own.context.bias
        return made
    if parameters.plan.tensors[layer.weight].flat:
        made = _redrawn_dense(own, deployment, stored[0], first)
        made += own.context.bias
        return made
    out = empty_output(parameters.specs[layer.output], len(own.x))
    _draw_and_convolve(layer, own, UNROUNDED, parameters, deployment, stored, first, out)
    return out


def _redrawn_codes(
    step: CodeConvolution,
    own: Reading,
    parameters: ParameterState,
    deployment: Deployment,
    stored: tuple[StoredSlot, ...],
    first: int,
) -> Array:
    """The same, rounded."""
    layer, following = step.convolution, step.requantization
    if applies(layer, deployment) or parameters.plan.tensors[layer.weight].flat:
        return compute(following, [_redrawn_sums(layer, own, parameters, deployment, stored, first)], parameters)
    out = empty_output(parameters.specs[step.output], len(own.x))
    rounding = rounding_of(layer, following, parameters)
    _draw_and_convolve(layer, own, rounding, parameters, deployment, stored, first, out)
    return out


def _draw_and_convolve(
    layer: nw.Convolution,
    own: Reading,
    rounding: Rounding,
    parameters: ParameterState,
    deployment: Deployment,
    stored: tuple[StoredSlot, ...],
    first: int,
    out: Array,
) -> None:
    tables, weights = _tables(layer, parameters, stored)
    per_pixel = deployment.policy is ReadPolicy.ACCESS
    conv.convolution_resampled(own.x, out, weights, own.context, rounding, tables.fault_source(deployment, first, per_pixel))
    if own.context.weight_zero_points.any():
        conv.subtract_window_sums(own.x, out, own.context)
    tables.tally(deployment, len(out) * (out.shape[1] * out.shape[2] if per_pixel else 1))


def _redrawn_dense(own: Reading, deployment: Deployment, part: StoredSlot, first: int) -> Array:
    """Sums (n, 1, 1, O) of a matrix product of packed signs, whose one region is read for each image."""
    made = np.empty((len(own.x), 1, 1, own.context.bias.size), dtype=np.int32)
    write = part.region.key.write
    assert part.sampler is not None
    reads = ReadSequence(part.sampler.source, deployment.trial, write, np.arange(first, first + len(own.x)))
    count = dense_resampled.dense_resampled(own.x, made, own.context.inputs_per_tap, reads)
    deployment.tally.add(part.slot.tensor, int(count), part.region.layout.bits * len(own.x))
    return made


def _redrawn_signs(
    step: SignConvolution,
    own: Reading,
    joined: Joined,
    parameters: ParameterState,
    deployment: Deployment,
    stored: tuple[StoredSlot, ...],
    first: int,
) -> Array:
    """The same for a fused step."""
    layer, threshold, images = step.convolution, parameters.values[step.thresholding.threshold], len(own.x)
    out = empty_signs(parameters.plan.network, step, joined, images)
    if applies(layer, deployment):
        drawn_signs(layer, own, threshold, parameters, deployment, stored[0], first, out)
        return finish(step, joined, out, parameters)
    if parameters.plan.tensors[layer.weight].flat:
        made = _redrawn_dense(own, deployment, stored[0], first)
        bitpack.threshold_pack(made, threshold, np.zeros(threshold.size, dtype=np.bool_), out)
        return finish(step, joined, out, parameters)
    tables, weights = _tables(layer, parameters, stored)
    per_pixel = deployment.policy is ReadPolicy.ACCESS
    faults = tables.fault_source(deployment, first, per_pixel)
    conv_sign.sign_convolution_resampled(own.x, out, weights, own.context, threshold, faults)
    tables.tally(deployment, images * (out.shape[1] * out.shape[2] if per_pixel else 1))
    return finish(step, joined, out, parameters)
