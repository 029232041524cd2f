"""What a deployment costs per inference: each region's cost for its accesses, added up only where the units agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from emulator.deployment import Deployment, reads_per_inference
from memmodels.cost import weakest
from memmodels.memory import Accesses, Key, Quantity


@dataclass(frozen=True)
class InferenceCost:
    """The cost of one inference's accesses to what lives in memories.

    energy: one quantity per unit; picojoules add up, a relative energy is the mean over the bits accessed, in units of the same
    accesses at its reference point. parts: what the picojoules are made of (`read`, `write`, `leakage`, `check bits` …). latency:
    of the slowest access. share: of the bits accessed, for which an energy is known.
    """

    energy: tuple[Quantity, ...] = ()
    parts: Mapping[str, Quantity] | None = None
    latency: Quantity | None = None
    share: float = 0.0


def cost_per_inference(deployment: Deployment, images: int, batch: int) -> InferenceCost:
    """Add up the costs of all regions for the reads that the deployment's read policy makes per image.

    Buffers are read and written once per image. They are written blank here, since only a region can be priced: run another
    deployment than this one.
    """
    reads = reads_per_inference(deployment.plan.network, deployment.policy, images, batch)
    weighed: list[tuple[Quantity, float]] = []
    parts: dict[str, list[Quantity]] = {}
    latencies: list[Quantity] = []
    total = 0.0
    parameters = [(s.memory, s.region, Accesses(reads[s.slot.tensor])) for s in deployment.all_slots]
    buffers = [
        (s.memory, s.memory.write(np.zeros(s.layout.words, np.uint64), s.layout, Key()), Accesses(reads[s.slot.tensor], 1.0))
        for slots in deployment.buffers.values()
        for s in slots
    ]
    for memory, region, accesses in (*parameters, *buffers):
        cost, bits = memory.cost(region, accesses), region.layout.bits * (accesses.reads + accesses.writes)
        total += bits
        if cost.energy is not None:
            weighed.append((cost.energy, bits))
        if cost.latency is not None:
            latencies.append(cost.latency)
        for name, part in cost.parts.items():
            parts.setdefault(name, []).append(part)
    units = dict.fromkeys(quantity.unit for quantity, _ in weighed)
    return InferenceCost(
        energy=tuple(_combine([(q, bits) for q, bits in weighed if q.unit == unit]) for unit in units),
        parts={name: _combine([(q, 1.0) for q in own]) for name, own in parts.items()},
        latency=max(latencies, key=lambda latency: latency.value, default=None),
        share=sum(bits for _, bits in weighed) / total if total else 0.0,
    )


def _combine(weighed: list[tuple[Quantity, float]]) -> Quantity:
    """Quantities of one unit: the sum of joules, the weighted mean of ratios."""
    quantities, weights = zip(*weighed, strict=True)
    source = "; ".join(dict.fromkeys(quantity.source for quantity in quantities))
    values = [quantity.value for quantity in quantities]
    value = sum(values) if quantities[0].unit == "pJ" else float(np.average(values, weights=weights))
    return Quantity(value, quantities[0].unit, weakest(*quantities), source)
