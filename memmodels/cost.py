"""Energy of accesses in joules: reads, a share of the writes, leakage over the time of an inference, added up with their bases.

What a user must say because nobody else can: how many inferences share one write of the weights, and how long an inference takes.
Neither has a default; without them the write and leakage energies are left out, and `parts` shows that they are. How many
inferences share one read has no default either: without it, every inference reads its weights from the memory.
"""

from __future__ import annotations

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


def weakest(*quantities: Quantity) -> Basis:
    """The least certain basis among quantities: a sum is as good as its worst term."""
    return max((quantity.basis for quantity in quantities), key=_WEAKEST.index)


def sharing_of(conditions: Conditions) -> float | None:
    """How many inferences share one read of the weights, as the user says; None if nothing is said."""
    return float(conditions["inferences_per_read"]) if "inferences_per_read" in conditions else None


def joules(
    conditions: Conditions,
    bits: int,
    accesses: Accesses,
    read: Quantity,
    write: Quantity | None = None,
    leakage: Quantity | None = None,
    latency: Quantity | None = None,
) -> Cost:
    """Cost of `accesses` to `bits` cells from figures per bit: read and write in pJ/bit, leakage in pW/bit, latency in ns.

    Result in pJ per inference when accesses count one inference's. Accesses that write (a buffer's) are charged as such; a region
    that is only read is charged its share of the one write, if `inferences_per_write` says how large that is.
    """
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
    return Cost(Quantity(total, "pJ", weakest(*parts.values()), source), latency, parts)
