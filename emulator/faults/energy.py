"""Energy and latency of one inference: each region's cost for its accesses, added up only where the units agree.

An inference reads every weight from its memory: once for each layer that uses it (read policies load, batch and image), or once
for each output pixel (access). The size of the data set plays no role, although the emulator samples errors less often under load
and batch. Inferences share a read only where the user says so: `batch` with its batch size, or `inferences_per_read` among the
conditions of a memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from weakcell.emulator.faults.deployment import Deployment, ReadPolicy, reads_per_inference
from weakcell.memmodels.cost import get_read_sharing, weakest_basis
from weakcell.memmodels.definition import Conditions
from weakcell.memmodels.errors import UsageError
from weakcell.memmodels.memory import Accesses, Key, Quantity


@dataclass(frozen=True)
class InferenceCost:
    """The cost of one inference's accesses to memories.

    Attributes:
        energy: one quantity per unit. Picojoules are added up. A relative energy is the mean over the bits accessed, in units of
            the same accesses at its reference point.
        parts: the parts of the picojoules (`read`, `write`, `leakage`, `check bits` …).
        latency: of one access to the slowest memory, not of an inference.
        share: share of the bits accessed for which an energy is known.
        reads: how often one inference reads a stored bit; mean over all stored bits.
        shared: how many inferences share one read of the weights: the different numbers of all memories; 1 if nothing is shared.
    """

    energy: tuple[Quantity, ...] = ()
    parts: Mapping[str, Quantity] | None = None
    latency: Quantity | None = None
    share: float = 0.0
    reads: float = 0.0
    shared: tuple[float, ...] = (1.0,)


def cost_per_inference(deployment: Deployment, batch: int) -> InferenceCost:
    """Return the cost of the accesses that one inference makes under the deployment's read policy.

    Buffers are read and written once per inference. They are overwritten with zeros here, because only a region has a cost. So do
    not run this deployment afterwards.

    Args:
        deployment: the stored network.
        batch: the number of images that share one read under `ReadPolicy.BATCH`.

    Raises:
        UsageError: for `inferences_per_read` under a policy that says itself when weights are read again.
    """
    plan, policy = deployment.plan, deployment.policy
    weighed: list[tuple[Quantity, float]] = []
    parts: dict[str, list[Quantity]] = {}
    latencies: list[Quantity] = []
    total = stored = read = 0.0
    shared = [_sharing(s.memory.conditions, policy, batch) for s in deployment.all_slots]
    reads = {
        number: plan.cache.get(("reads", policy, number), partial(reads_per_inference, plan.network, policy, number))
        for number in {1.0, *shared}
    }
    parameters = [
        (s.memory, s.region, Accesses(reads[number][s.slot.tensor])) for s, number in zip(deployment.all_slots, shared, strict=True)
    ]
    buffers = [
        (s.memory, s.memory.write(np.zeros(s.layout.words, np.uint64), s.layout, Key()), Accesses(reads[1.0][s.slot.tensor], 1.0))
        for slots in deployment.buffers.values()
        for s in slots
    ]
    for memory, region, accesses in (*parameters, *buffers):
        cost, bits = memory.cost(region, accesses), region.layout.bits * (accesses.reads + accesses.writes)
        total, stored, read = total + bits, stored + region.layout.bits, read + region.layout.bits * accesses.reads
        if cost.energy is not None:
            weighed.append((cost.energy, bits))
        if cost.latency is not None:
            latencies.append(cost.latency)
        for name, part in cost.parts.items():
            if part.unit == "pJ":
                parts.setdefault(name, []).append(part)
    units = dict.fromkeys(quantity.unit for quantity, _ in weighed)
    return InferenceCost(
        energy=tuple(_combine([(q, bits) for q, bits in weighed if q.unit == unit]) for unit in units),
        parts={name: _combine([(q, 1.0) for q in quantities]) for name, quantities in parts.items()},
        latency=max(latencies, key=lambda latency: latency.value, default=None),
        share=sum(bits for _, bits in weighed) / total if total else 0.0,
        reads=read / stored if stored else 0.0,
        shared=tuple(dict.fromkeys(shared)) or (1.0,),
    )


def _sharing(conditions: Conditions, policy: ReadPolicy, batch: int) -> float:
    """Return how many inferences share one read of the weights in a memory with these conditions."""
    shared = get_read_sharing(conditions)
    if shared is None:
        return float(batch) if policy is ReadPolicy.BATCH else 1.0
    if policy is not ReadPolicy.LOAD:
        found = (
            f"under this policy a batch shares one read (--batch {batch})"
            if policy is ReadPolicy.BATCH
            else "under this policy every inference reads its weights by itself"
        )
        asked = f"inferences_per_read={shared:g} with --read-every {policy}"
        raise UsageError(asked, found, "Leave inferences_per_read out, or use --read-every load")
    return shared


def _combine(weighed: list[tuple[Quantity, float]]) -> Quantity:
    """Combine quantities of one unit: add up joules, average ratios by weight."""
    quantities, weights = zip(*weighed, strict=True)
    source = "; ".join(dict.fromkeys(quantity.source for quantity in quantities))
    values = [quantity.value for quantity in quantities]
    if quantities[0].unit == "pJ":
        value = sum(values)
    else:  # equal ratios stay exactly as they are
        value = values[0] if len(set(values)) == 1 else float(np.average(values, weights=weights))
    return Quantity(value, quantities[0].unit, weakest_basis(*quantities), source)
