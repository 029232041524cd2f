"""Layers whose parameters are read again for every image or every output pixel.

Where all of a layer's regions have samplers, a kernel samples, computes and takes the flips out by itself. Everything else (boards,
wrappers, recordings, biases, recorded faults) goes through the memory's own `read`, one image or pixel at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.conv_inputs import NO_POOL, FusedPool, KernelInput, prepare_inputs
from weakcell.emulator.engine.convolution import NOT_ROUNDED, rounding_constants
from weakcell.emulator.engine.fusion import CodeConvolution, Fused, SignConvolution, empty_signs, finish_signs
from weakcell.emulator.engine.layer_functions import compute, empty_output
from weakcell.emulator.faults.deployment import Deployment, StoredSlot
from weakcell.emulator.faults.kernel_reads import KernelReads, LayerReads, has_kernel_sampler, new_flip_targets
from weakcell.emulator.faults.output_sampling import sample_signs, sample_sums, samples_outputs
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import Convolution
from weakcell.emulator.ir.values import ValueSpec
from weakcell.emulator.kernels import entry_points
from weakcell.emulator.kernels.arguments import ReadSequence, Rounding
from weakcell.emulator.plan.parameters import ParameterState

Array = npt.NDArray[Any]


def compute_with_resampled_weights(layer: Layer, inputs: list[Array], reads: LayerReads) -> Array:
    """Return a layer's output under the read policies `image` and `access`.

    Args:
        layer: the layer or fused step.
        inputs: its inputs in physical form.
        reads: what is read meanwhile.
    """
    output = _compute_in_kernel(layer, inputs[0], reads)
    if output is not None:
        return output
    if isinstance(layer, Fused):
        return _compute_part_by_part(layer, inputs[0], reads)
    spec, rows = reads.parameters.specs[layer.output], []
    for image in range(len(inputs[0])):
        image_inputs = [x[image : image + 1] for x in inputs]
        if reads.per_pixel:
            rows.append(_compute_pixel_by_pixel(layer, image_inputs, reads, reads.first + image))
        else:
            rows.append(_compute_with_one_read(layer, image_inputs, reads, reads.first + image))
    return np.concatenate(rows) if rows else empty_output(spec, 0)


def flip_all(parameters: ParameterState, deployment: Deployment, stored: tuple[StoredSlot, ...], read: int) -> Callable[[], None]:
    """Read slots and put their flips and dropped signs into the parameters.

    Args:
        parameters: changed in place.
        deployment: the stored network.
        stored: the slots.
        read: the number of the read.

    Returns:
        A function that takes them out again.
    """
    results = [(part.slot, deployment.read(part, read)) for part in stored]

    def flip() -> None:
        for slot, result in results:
            parameters.flip(slot.tensor, slot.planes, result.flips)

    flip()
    undo_drops = [parameters.drop_signs(slot.tensor, result.dropped) for slot, result in results if result.dropped is not None]

    def undo() -> None:
        for undo_drop in undo_drops:
            undo_drop()
        flip()

    return undo


# ── through the memory's own read ───────────────────────────────────────────────────────────────────


def _compute_with_one_read(layer: Layer, inputs: list[Array], reads: LayerReads, number: int) -> Array:
    undo = flip_all(reads.parameters, reads.deployment, reads.stored, number)
    out = compute(layer, inputs, reads.parameters)
    undo()
    return out


def _compute_pixel_by_pixel(layer: Layer, inputs: list[Array], reads: LayerReads, image: int) -> Array:
    """Return a layer's output for one image, computed pixel by pixel, each with a separate read."""
    spec = reads.parameters.specs[layer.output]
    height, width = spec.height_width
    out = empty_output(spec, 1)
    for pixel in range(height * width):
        whole = _compute_with_one_read(layer, inputs, reads, image * height * width + pixel)
        if spec.kind == "float" and len(spec.shape) == 1:
            out = whole
        else:
            index = _pixel_index(spec, *divmod(pixel, width))
            out[index] = whole[index]
    return out


def _pixel_index(spec: ValueSpec, y: int, x: int) -> tuple[slice | int, ...]:
    """Return the index of one pixel of an image or signal in its physical form, which has the images first."""
    every = slice(None)
    if spec.kind != "float":
        return every, y, x
    return (every, every, x) if len(spec.shape) == 2 else (every, every, y, x)


def _compute_part_by_part(step: Fused, x: Array, reads: LayerReads) -> Array:
    """Compute a fused step as the layers that it is made of."""
    for part in step.parts:
        stored = reads.deployment.slots_of(part)
        if stored:
            x = compute_with_resampled_weights(part, [x], reads._replace(stored=stored))
        else:
            x = compute(part, [x], reads.parameters)
    return x


# ── in a kernel ─────────────────────────────────────────────────────────────────────────────────────


def _compute_in_kernel(layer: Layer, x: Array, reads: LayerReads) -> Array | None:
    """Return the output if a kernel can sample the layer's weights by itself, else None."""
    convolution, deployment = layer.convolution if isinstance(layer, Fused) else layer, reads.deployment
    if not isinstance(convolution, Convolution) or convolution.groups > 1:
        return None
    only_weights = all(part.slot.tensor == convolution.weight for part in reads.stored)
    if not only_weights or not has_kernel_sampler(deployment, reads.stored):
        return None
    _, parameters = reads.parameters.with_faulty_constants(convolution)
    if parameters.specs[convolution.inputs[0]].kind == "float":
        return None
    per_image = not reads.per_pixel and not samples_outputs(convolution, deployment)
    pool = layer.fused_pool if isinstance(layer, SignConvolution) and per_image else NO_POOL
    kernel_inputs = prepare_inputs(convolution, x, parameters, pool)
    if len(kernel_inputs) > 1:
        return None
    if isinstance(layer, SignConvolution):
        return _resampled_signs(layer, kernel_inputs[0], pool, reads)
    if isinstance(layer, CodeConvolution):
        return _resampled_codes(layer, kernel_inputs[0], reads)
    return _resampled_sums(convolution, kernel_inputs[0], reads)


def _resampled_sums(layer: Convolution, kernel_input: KernelInput, reads: LayerReads) -> Array:
    """Return int32 sums (n, H, W, O)."""
    reads = reads._replace(parameters=reads.parameters.with_faulty_constants(layer)[1])
    if samples_outputs(layer, reads.deployment):
        sums = sample_sums(layer, kernel_input, reads)
        sums += kernel_input.context.bias
        return sums
    if reads.parameters.plan.tensors[layer.weight].flat:
        sums = _resampled_matrix_product(kernel_input, reads)
        sums += kernel_input.context.bias
        return sums
    out = empty_output(reads.parameters.specs[layer.output], len(kernel_input.activations))
    _resample_and_convolve(layer, kernel_input, NOT_ROUNDED, reads, out)
    return out


def _resampled_codes(step: CodeConvolution, kernel_input: KernelInput, reads: LayerReads) -> Array:
    """Return the codes of a convolution and a requantization."""
    layer, following, parameters = step.convolution, step.requantization, reads.parameters
    if samples_outputs(layer, reads.deployment) or parameters.plan.tensors[layer.weight].flat:
        return compute(following, [_resampled_sums(layer, kernel_input, reads)], parameters)
    out = empty_output(parameters.specs[step.output], len(kernel_input.activations))
    _resample_and_convolve(layer, kernel_input, rounding_constants(layer, following, parameters), reads, out)
    return out


def _resampled_signs(step: SignConvolution, kernel_input: KernelInput, pool: FusedPool, reads: LayerReads) -> Array:
    """Return the bits of a convolution, a pool and a threshold."""
    layer, parameters, deployment = step.convolution, reads.parameters, reads.deployment
    threshold, x = parameters.values[step.thresholding.threshold], kernel_input.activations
    out = empty_signs(parameters.plan.network, step, pool, len(x))
    if samples_outputs(layer, deployment):
        sample_signs(layer, kernel_input, reads, threshold, out)
    elif parameters.plan.tensors[layer.weight].flat:
        sums = _resampled_matrix_product(kernel_input, reads)
        entry_points.threshold_pack(sums, threshold, np.zeros(threshold.size, dtype=np.bool_), out)
    else:
        table, weights = _new_kernel_reads(layer, reads)
        source = table.fault_source(reads)
        entry_points.sign_convolution_resampled(x, out, weights, kernel_input.context, threshold, source)
        table.add_to_tally(deployment, reads.reads_of(out))
    return finish_signs(step, pool, out, parameters)


def _resample_and_convolve(
    layer: Convolution, kernel_input: KernelInput, rounding: Rounding, reads: LayerReads, out: Array
) -> None:
    """Fill `out` (n, H, W, O) with sums, or with the codes that they are rounded to."""
    (table, weights), x = _new_kernel_reads(layer, reads), kernel_input.activations
    entry_points.convolution_resampled(x, out, weights, kernel_input.context, rounding, table.fault_source(reads))
    if kernel_input.context.weight_zero_points.any():
        entry_points.subtract_window_sums(x, out, kernel_input.context)
    table.add_to_tally(reads.deployment, reads.reads_of(out))


def _new_kernel_reads(layer: Convolution, reads: LayerReads) -> tuple[KernelReads, Any]:
    """Return the reads of a layer's weights for a kernel, and the weights that it puts them into."""
    parameters = reads.parameters
    layout = parameters.plan.tensors[layer.weight].weight_layout
    assert layout is not None
    targets = new_flip_targets(parameters.plan, reads.stored, parameters.values)
    return KernelReads.of(reads.stored, targets), layout(targets.values[layer.weight])


def _resampled_matrix_product(kernel_input: KernelInput, reads: LayerReads) -> Array:
    """Return sums (n, 1, 1, O) of a matrix product of packed signs, whose one region is read for each image."""
    x, context, (part,) = kernel_input.activations, kernel_input.context, reads.stored
    sums = np.empty((len(x), 1, 1, context.bias.size), dtype=np.int32)
    assert part.sampler is not None
    sequence = ReadSequence(
        part.sampler.source, reads.deployment.trial, part.region.key.write, np.arange(reads.first, reads.first + len(x))
    )
    count = entry_points.dense_resampled(x, sums, context.inputs_per_tap, sequence)
    reads.deployment.tally.add(part.slot.tensor, count, part.region.layout.bits * len(x))
    return sums
