"""A run with faults: all layers for all images, with the parameters as their memories return them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from weakcell.emulator.engine.executor import (
    Arrays,
    check_inputs,
    choose_chunk_size,
    chunk_size,
    find_last_uses,
    gather,
    run_layers,
)
from weakcell.emulator.engine.fault_free_cache import FaultFreeCache
from weakcell.emulator.engine.fusion import compute_step, fused_steps
from weakcell.emulator.faults.activation_buffers import read_back
from weakcell.emulator.faults.deployment import Deployment, ReadPolicy, reads_per_image
from weakcell.emulator.faults.kernel_reads import LayerReads, has_kernel_sampler, open_reader
from weakcell.emulator.faults.output_sampling import apply_permanent_errors
from weakcell.emulator.faults.resampling import compute_with_resampled_weights, flip_all
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.plan.parameters import ParameterState, new_parameters
from weakcell.emulator.plan.plan import Plan

Array = npt.NDArray[Any]


def outputs_under_faults(
    plan: Plan,
    inputs: Arrays,
    deployment: Deployment,
    batch: int = 256,
    fault_free_cache: FaultFreeCache | None = None,
    threads: int = 1,
) -> dict[str, Array]:
    """Return outputs with every placed bit as its memory returns it, under the deployment's read policy.

    Args:
        plan: the compiled network.
        inputs: arrays (n, *shape) by input name; not looked at if there is a `fault_free_cache`.
        deployment: the stored network.
        batch: images per batch, for `ReadPolicy.BATCH`.
        fault_free_cache: of the same inputs. Layers before the first one that errs are taken from it.
        threads: they share the images where weights stay the same for all of them (`load`, `batch`). Results are the same.

    Returns:
        Arrays (n, *shape) by output name, in ONNX order and dtype.
    """
    return gather(plan, plan.network.outputs, chunks_under_faults(plan, inputs, deployment, batch, fault_free_cache, threads))


def chunks_under_faults(
    plan: Plan,
    inputs: Arrays,
    deployment: Deployment,
    batch: int = 256,
    fault_free_cache: FaultFreeCache | None = None,
    threads: int = 1,
) -> Iterator[dict[str, Array]]:
    """Yield the outputs of `outputs_under_faults` in physical form, chunk by chunk of images."""
    cache = fault_free_cache or FaultFreeCache(plan, check_inputs(plan, inputs), budget=0)
    images = len(next(iter(cache.inputs.values())))
    if deployment.policy in (ReadPolicy.IMAGE, ReadPolicy.ACCESS):
        return _read_while_running(plan, deployment, cache, images, batch)
    step = batch if deployment.policy is ReadPolicy.BATCH else max(images, 1)
    return _read_between_batches(plan, deployment, cache, images, step, threads)


def _read_between_batches(
    plan: Plan, deployment: Deployment, cache: FaultFreeCache, images: int, step: int, threads: int
) -> Iterator[dict[str, Array]]:
    """Yield chunks of outputs; all parameters are read again for every `step` images."""
    tracker = FlipTracker(deployment)
    in_kernel = {name: has_kernel_sampler(deployment, slots) for name, slots in deployment.slots.items()}
    others = tuple(part for part in deployment.all_slots if not in_kernel[part.slot.tensor])
    sampled = tuple(part for part in deployment.all_slots if in_kernel[part.slot.tensor])
    with open_reader(plan, deployment, sampled) as (parameters, read):
        executor = LayerExecutor.of(parameters, deployment, min(step, images), threads)
        for number, first in enumerate(range(0, max(images, 1), step)):
            read(number)
            if others:
                parameters.restore({part.slot.tensor for part in others})
                flip_all(parameters, deployment, others, number)
            start = cache.latest_start(tracker.first_faulty_layer(cache.layers) if cache.budget else 0)
            batch_inputs = {name: x[first : first + step] for name, x in start.values.items()}
            yield from executor.run(batch_inputs, start.layer, first)


def _read_while_running(
    plan: Plan, deployment: Deployment, cache: FaultFreeCache, images: int, batch: int
) -> Iterator[dict[str, Array]]:
    """Yield chunks of outputs; parameters are read again for every image or pixel, unless every read returns the same."""
    parameters, tracker = new_parameters(plan, deployment.slots), FlipTracker(deployment)
    constant = deployment.slots_same_at_every_read
    reads = reads_per_image(plan.network, deployment.policy, images, batch) if constant else {}
    for part in constant:
        result = deployment.read(part, 0, reads[part.slot.tensor] * images)
        parameters.flip(part.slot.tensor, part.slot.planes, result.flips)
    apply_permanent_errors(parameters, deployment)
    start = cache.latest_start(tracker.first_faulty_layer(cache.layers, resampled=True) if cache.budget else 0)
    return LayerExecutor.of(parameters, deployment, images, resampled=True).run(start.values, start.layer)


@dataclass(frozen=True, eq=False)
class LayerExecutor:
    """Runs the layers of a network with the current parameters of a run.

    Attributes:
        parameters: the parameters; the caller may change them between two calls of `run`.
        deployment: the stored network.
        layers: all steps of the network.
        last_uses: `find_last_uses` of the steps.
        step: images per chunk.
        resampled: parameters are read again for every image or pixel.
        threads: threads that share the chunks.
    """

    parameters: ParameterState
    deployment: Deployment
    layers: tuple[Layer, ...]
    last_uses: tuple[tuple[str, ...], ...]
    step: int
    resampled: bool
    threads: int

    @classmethod
    def of(
        cls, parameters: ParameterState, deployment: Deployment, images: int, threads: int = 1, resampled: bool = False
    ) -> LayerExecutor:
        """Return an executor for `images` images at most."""
        plan = parameters.plan
        outputs = plan.network.outputs
        layers = fused_steps(plan, {*outputs, *deployment.unfusable_values})
        if resampled or deployment.buffers:  # what is read meanwhile changes the run's own parameters and counts
            threads = 1
        step = chunk_size(plan.network, layers, plan.chunk_bytes)
        if threads > 1:
            step = choose_chunk_size(plan, layers, images, threads)
        return cls(parameters, deployment, layers, find_last_uses(layers, keep=outputs), step, resampled, threads)

    def run(self, inputs: Arrays, start: int, first_image: int = 0) -> Iterator[dict[str, Array]]:
        """Run the steps from `start` on, and yield the outputs of each chunk of images.

        Args:
            inputs: the values that these steps need, in physical form.
            start: index of the first step.
            first_image: number in the data set of the first image.
        """

        def compute(layer: Layer, layer_inputs: list[Array], first: int) -> Array:
            stored = self.deployment.slots_of(layer) if self.resampled else ()
            if stored:
                reads = LayerReads(self.parameters, self.deployment, stored, first_image + first)
                return compute_with_resampled_weights(layer, layer_inputs, reads)
            return compute_step(layer, layer_inputs, self.parameters)

        def store(name: str, x: Array, first: int) -> Array:
            slots = self.deployment.buffers.get(name)
            return read_back(x, slots, self.deployment, first_image + first) if slots else x

        outputs, layers = self.parameters.plan.network.outputs, self.layers[start:]
        return run_layers(
            inputs, outputs, layers, self.step, compute, store=store, threads=self.threads, last_uses=self.last_uses[start:]
        )


class FlipTracker:
    """Finds the layers of a deployment in which flips, or dropped signs, have occurred since the last question."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._seen = self._count()

    def first_faulty_layer(self, layers: Sequence[Layer], resampled: bool = False) -> int:
        """Return the index of the first layer with new flips in its parameters, or the number of layers.

        The result is 0 if buffers or a layer's constants live in a memory: their errors do not show in a layer's parameters.

        Args:
            layers: the steps of the network.
            resampled: also count layers whose parameters are read as they run.
        """
        if self._deployment.unfusable_values:
            return 0
        previous, self._seen = self._seen, self._count()
        tensors = {name for name, count in self._seen.items() if count > previous.get(name, 0)}
        for number, layer in enumerate(layers):
            if not tensors.isdisjoint(layer.tensor_names()) or (resampled and self._deployment.slots_of(layer)):
                return number
        return len(layers)

    def _count(self) -> Counter[str]:
        """Return the errors of each tensor up to now. A failing check bit alone can drop signs that are right."""
        return Counter(self._deployment.tally.flips) + Counter(self._deployment.tally.dropped)
