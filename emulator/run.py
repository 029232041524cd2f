"""A run with faults: a walk over a plan with the weights as their memory returns them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy.typing as npt

from emulator import network as nw
from emulator.buffers import read_back
from emulator.clean import CleanPass, Flipped
from emulator.deployment import Deployment, ReadPolicy, reads_per_inference
from emulator.fusion import compute_step, steps_of
from emulator.outcomes import settle
from emulator.plan import Parameters, Plan
from emulator.redrawn import compute_redrawn, flip_all
from emulator.walk import Arrays, check_inputs, chunk_of, chunk_size, gather, walk

Array = npt.NDArray[Any]


def outputs_under_faults(
    plan: Plan, inputs: Arrays, deployment: Deployment, batch: int = 256, clean: CleanPass | None = None, threads: int = 1
) -> dict[str, Array]:
    """Outputs with every placed bit as its memory returns it, under the deployment's read policy.

    threads: share the images where weights stay the same for all of them (`load`, `batch`); the results are the same.
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
        return gather(plan, plan.network.outputs, chunks)
    step = batch if deployment.policy is ReadPolicy.BATCH else max(images, 1)
    parts: list[dict[str, Array]] = []
    for number, first in enumerate(range(0, max(images, 1), step)):
        parameters.restore()
        flip_all(parameters, deployment, deployment.all_slots, number)
        start = clean.before(flipped.first_of(clean.layers))
        own = {name: x[first : first + step] for name, x in start.values.items()}
        parts.extend(_chunks(plan, parameters, own, plan.network.outputs, deployment, start.layer, begin=first, threads=threads))
    return gather(plan, plan.network.outputs, iter(parts))


def _chunks(
    plan: Plan,
    parameters: Parameters,
    inputs: Arrays,
    wanted: Sequence[str],
    deployment: Deployment,
    start: int = 0,
    begin: int = 0,
    again: bool = False,
    threads: int = 1,
) -> Iterator[dict[str, Array]]:
    """Walk the layers from `start` on; yields the wanted values of each chunk of images.

    begin: the number in the data set of the first image. again: read parameters anew for every image or pixel.
    """
    layers, images = steps_of(plan, {*wanted, *deployment.seen}), len(next(iter(inputs.values())))

    def make(layer: nw.Layer, own: list[Array], first: int) -> Array:
        stored = deployment.slots_of(layer) if again else ()
        if stored:
            return compute_redrawn(layer, own, parameters, deployment, stored, begin + first)
        return compute_step(layer, own, parameters)

    def hold(name: str, x: Array, first: int) -> Array:
        slots = deployment.buffers.get(name)
        return read_back(x, slots, deployment, begin + first) if slots else x

    if again or deployment.buffers:  # what is read meanwhile changes the run's own parameters and counts
        return walk(inputs, wanted, layers[start:], chunk_size(plan.network, layers), make, hold)
    return walk(inputs, wanted, layers[start:], chunk_of(plan, layers, images, threads), make, hold, threads)
