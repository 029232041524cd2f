"""A run with faults: a walk over a plan with the weights as their memory returns them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from weakcell.emulator.engine.executor import Arrays, check_inputs, chunk_of, chunk_size, find_last_uses, gather, walk
from weakcell.emulator.engine.fault_free_cache import FaultFreeCache, Flipped
from weakcell.emulator.engine.fusion import compute_step, steps_of
from weakcell.emulator.faults.activation_buffers import read_back
from weakcell.emulator.faults.deployment import Deployment, ReadPolicy, reads_per_image
from weakcell.emulator.faults.kernel_reads import drawable, reader_of
from weakcell.emulator.faults.output_sampling import settle
from weakcell.emulator.faults.resampling import compute_redrawn, flip_all
from weakcell.emulator.ir import layers as nw
from weakcell.emulator.plan.parameters import ParameterState, new_parameters
from weakcell.emulator.plan.plan import Plan

Array = npt.NDArray[Any]


def outputs_under_faults(
    plan: Plan, inputs: Arrays, deployment: Deployment, batch: int = 256, clean: FaultFreeCache | None = None, threads: int = 1
) -> dict[str, Array]:
    """Outputs with every placed bit as its memory returns it, under the deployment's read policy.

    threads: share the images where weights stay the same for all of them (`load`, `batch`); the results are the same.
    clean: of the same inputs; layers in front of the first one that errs are then taken from it instead of being computed again.
    """
    return gather(plan, plan.network.outputs, chunks_under_faults(plan, inputs, deployment, batch, clean, threads))


def chunks_under_faults(
    plan: Plan, inputs: Arrays, deployment: Deployment, batch: int = 256, clean: FaultFreeCache | None = None, threads: int = 1
) -> Iterator[dict[str, Array]]:
    """The same outputs in physical form, chunk by chunk of images."""
    clean = clean or FaultFreeCache(plan, check_inputs(plan, inputs), budget=0)
    images = len(next(iter(clean.inputs.values())))
    if deployment.policy in (ReadPolicy.IMAGE, ReadPolicy.ACCESS):
        return _read_again(plan, deployment, clean, images, batch)
    step = batch if deployment.policy is ReadPolicy.BATCH else max(images, 1)
    return _read_between(plan, deployment, clean, images, step, threads)


def _read_between(
    plan: Plan, deployment: Deployment, clean: FaultFreeCache, images: int, step: int, threads: int
) -> Iterator[dict[str, Array]]:
    """Chunks of outputs; weights are read anew for every `step` images."""
    flipped = Flipped(deployment)
    held = {name: drawable(deployment, slots) for name, slots in deployment.slots.items()}
    others = tuple(part for part in deployment.all_slots if not held[part.slot.tensor])
    drawn = tuple(part for part in deployment.all_slots if held[part.slot.tensor])
    with reader_of(plan, deployment, drawn) as (parameters, read):
        walks = _walks(plan, parameters, deployment, min(step, images), threads)
        for number, first in enumerate(range(0, max(images, 1), step)):
            read(number)
            if others:
                parameters.restore({part.slot.tensor for part in others})
                flip_all(parameters, deployment, others, number)
            start = clean.before(flipped.first_of(clean.layers) if clean.budget else 0)
            own = {name: x[first : first + step] for name, x in start.values.items()}
            yield from walks.over(own, start.layer, first)


def _read_again(plan: Plan, deployment: Deployment, clean: FaultFreeCache, images: int, batch: int) -> Iterator[dict[str, Array]]:
    """Chunks of outputs; parameters are read anew for every image or pixel, but for those that are the same at every read."""
    parameters, flipped = new_parameters(plan, deployment.slots), Flipped(deployment)
    steady = deployment.steady_slots
    reads = reads_per_image(plan.network, deployment.policy, images, batch) if steady else {}
    for part in steady:
        returned = deployment.read(part, 0, reads[part.slot.tensor] * images)
        parameters.flip(part.slot.tensor, part.slot.planes, returned.flips)
    settle(parameters, deployment)
    start = clean.before(flipped.first_of(clean.layers, redrawn=True) if clean.budget else 0)
    return _walks(plan, parameters, deployment, images, again=True).over(start.values, start.layer)


@dataclass(frozen=True, eq=False)
class _Walks:
    """Walks with the same parameters, as they are at the time. again: they are read anew for every image or pixel.

    layers, dead: of a whole network, and what nobody needs behind each. step: images of a chunk.
    """

    plan: Plan
    parameters: ParameterState
    deployment: Deployment
    layers: tuple[nw.Layer, ...]
    dead: tuple[tuple[str, ...], ...]
    step: int
    again: bool
    threads: int

    def over(self, inputs: Arrays, start: int, begin: int = 0) -> Iterator[dict[str, Array]]:
        """Walk the layers from `start` on; yields the outputs of each chunk of images.

        begin: the number in the data set of the first image.
        """

        def make(layer: nw.Layer, own: list[Array], first: int) -> Array:
            stored = self.deployment.slots_of(layer) if self.again else ()
            if stored:
                return compute_redrawn(layer, own, self.parameters, self.deployment, stored, begin + first)
            return compute_step(layer, own, self.parameters)

        def hold(name: str, x: Array, first: int) -> Array:
            slots = self.deployment.buffers.get(name)
            return read_back(x, slots, self.deployment, begin + first) if slots else x

        outputs, layers, dead = self.plan.network.outputs, self.layers[start:], self.dead[start:]
        return walk(inputs, outputs, layers, self.step, make, hold, self.threads, dead)


def _walks(
    plan: Plan, parameters: ParameterState, deployment: Deployment, images: int, threads: int = 1, again: bool = False
) -> _Walks:
    """Walks over `images` images at most."""
    outputs = plan.network.outputs
    layers = steps_of(plan, {*outputs, *deployment.seen})
    if again or deployment.buffers:  # what is read meanwhile changes the run's own parameters and counts
        threads = 1
    step = chunk_of(plan, layers, images, threads) if threads > 1 else chunk_size(plan.network, layers)
    return _Walks(plan, parameters, deployment, layers, find_last_uses(layers, keep=outputs), step, again, threads)
