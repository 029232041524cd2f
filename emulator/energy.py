"""What a deployment costs per inference: each array's cost for its accesses, added up only where the units agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emulator.deployment import Deployment, reads_per_inference
from memmodels.memory import Accesses, Basis, Quantity

_WEAKEST: Sequence[Basis] = ("measured", "published", "computed", "assumed")


def energy_per_inference(deployment: Deployment, images: int, batch: int) -> tuple[Quantity, ...]:
    """Energy of the reads of one inference, one quantity per unit.

    Picojoules add up. A relative energy is the mean over the bits read, in units of the same reads at its reference point.
    """
    reads = reads_per_inference(deployment.plan.network, deployment.policy, images, batch)
    by_unit: dict[str, list[tuple[Quantity, float]]] = {}
    for stored in deployment.all_slots:
        count = reads[stored.slot.tensor]
        energy = stored.memory.cost(stored.region, Accesses(count)).energy
        if energy is not None:
            by_unit.setdefault(energy.unit, []).append((energy, stored.region.layout.bits * count))
    return tuple(_combine(parts) for parts in by_unit.values())


def _combine(parts: list[tuple[Quantity, float]]) -> Quantity:
    first = parts[0][0]
    basis = max((quantity.basis for quantity, _ in parts), key=_WEAKEST.index)
    source = "; ".join(dict.fromkeys(quantity.source for quantity, _ in parts))
    if first.unit == "pJ":
        return Quantity(sum(quantity.value for quantity, _ in parts), first.unit, basis, source)
    values, weights = zip(*((quantity.value, weight) for quantity, weight in parts), strict=True)
    return Quantity(float(np.average(values, weights=weights)), first.unit, basis, source)
