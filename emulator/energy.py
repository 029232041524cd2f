"""What a deployment costs per inference: each region's cost for its accesses, added up only where the units agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from emulator.deployment import Deployment, reads_per_inference
from memmodels.cost import weakest
from memmodels.memory import Accesses, Quantity


@dataclass(frozen=True)
class InferenceCost:
    """The cost of one inference's accesses to the weights.

    energy: one quantity per unit; picojoules add up, a relative energy is the mean over the bits read, in units of the same reads
    at its reference point. parts: what the picojoules are made of (`read`, `write`, `leakage`, `check bits` …). latency: of the
    slowest access. share: of the bits read, for which an energy is known.
    """

    energy: tuple[Quantity, ...] = ()
    parts: Mapping[str, Quantity] | None = None
    latency: Quantity | None = None
    share: float = 0.0


def cost_per_inference(deployment: Deployment, images: int, batch: int) -> InferenceCost:
    """Add up the costs of all regions for the reads that the deployment's read policy makes per image."""
    reads = reads_per_inference(deployment.plan.network, deployment.policy, images, batch)
    weighed: list[tuple[Quantity, float]] = []
    parts: dict[str, list[Quantity]] = {}
    latencies: list[Quantity] = []
    total = 0.0
    for stored in deployment.all_slots:
        count = reads[stored.slot.tensor]
        cost = stored.memory.cost(stored.region, Accesses(count))
        total += stored.region.layout.bits * count
        if cost.energy is not None:
            weighed.append((cost.energy, stored.region.layout.bits * count))
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
