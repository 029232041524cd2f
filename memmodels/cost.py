"""Energy of accesses in joules: reads, a share of the writes, and leakage during an inference, added up with their bases.

Only the user knows how many inferences share one write of the weights and how long an inference takes. Neither has a default.
Without them the write and leakage energies are left out, which `parts` shows. Without `inferences_per_read`, every inference reads
its weights from the memory.
"""

from __future__ import annotations

from typing import NamedTuple

from weakcell.memmodels.definition import Condition, Conditions
from weakcell.memmodels.memory import Accesses, Basis, Cost, Quantity

USE_CONDITIONS = (
    Condition(
        "inferences_per_write", "", "inferences that share one write of the weights; adds write energy (no default)", low=1.0
    ),
    Condition(
        "inferences_per_read", "", "inferences that share one read of the weights (each reads its own unless given)", low=1.0
    ),
    Condition("time_per_inference", "s", "time of one inference; adds leakage energy (no default)", low=0.0),
)
"""Knobs of every technology whose energy is known in joules."""

_WEAKEST: tuple[Basis, ...] = ("measured", "published", "computed", "assumed")


def weakest_basis(*quantities: Quantity) -> Basis:
    """Return the least certain basis of some quantities: a sum is as good as its worst term."""
    return max((quantity.basis for quantity in quantities), key=_WEAKEST.index)


def get_read_sharing(conditions: Conditions) -> float | None:
    """Return how many inferences share one read of the weights, or None if the user does not say."""
    return float(conditions["inferences_per_read"]) if "inferences_per_read" in conditions else None


class EnergyRates(NamedTuple):
    """Energy per bit: read and write in pJ/bit, leakage in pW/bit; None if unknown."""

    read: Quantity
    write: Quantity | None = None
    leakage: Quantity | None = None


def access_cost(
    conditions: Conditions,
    bits: int,
    accesses: Accesses,
    rates: EnergyRates,
    latency: Quantity | None = None,
) -> Cost:
    """Return the cost of accesses from numbers per bit; in pJ per inference if `accesses` counts one inference.

    Args:
        conditions: Complete conditions of the technology, with those of USE_CONDITIONS that the user gives.
        bits: Cells of the region.
        accesses: Reads and writes. Writes (of a buffer) are charged in full. A region that is only read is charged its share of the
            one write, if `inferences_per_write` is given.
        rates: Energy per bit.
        latency: Of one access, in ns.
    """
    read, write, leakage = rates
    parts = {"read": Quantity(read.value * bits * accesses.reads, "pJ", read.basis, read.source)}
    share = accesses.writes
    if not share and "inferences_per_write" in conditions:
        share = 1.0 / float(conditions["inferences_per_write"])
    if write is not None and share:
        parts["write"] = Quantity(write.value * bits * share, "pJ", write.basis, write.source)
    if leakage is not None and "time_per_inference" in conditions:
        value = leakage.value * bits * float(conditions["time_per_inference"])
        parts["leakage"] = Quantity(value, "pJ", leakage.basis, leakage.source)
    total = sum(part.value for part in parts.values())
    source = "; ".join(dict.fromkeys(part.source for part in parts.values()))
    return Cost(Quantity(total, "pJ", weakest_basis(*parts.values()), source), latency, parts)
