"""Bit error rates of a placement: the probability, per bit plane, that a stored bit is read wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weakcell.emulator.faults.placement import Placement
from weakcell.emulator.ir.faultable import storable
from weakcell.emulator.ir.network import Network
from weakcell.memmodels.catalogue import MemorySpec
from weakcell.memmodels.definition import Term
from weakcell.memmodels.error_model.terms import ErrorTerm, Lifetime
from weakcell.memmodels.errors import UsageError
from weakcell.memmodels.protection.wrappers import split_wrappers

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BitRates:
    """Bit error rates of one tensor, averaged over dies, writes and reads.

    Attributes:
        p01: P(read 1 | stored 0) of each bit plane.
        p10: P(read 0 | stored 1) of each bit plane.
    """

    p01: Probabilities
    p10: Probabilities

    @property
    def symmetric(self) -> bool:
        """Whether p01 equals p10 in every plane."""
        return bool(np.array_equal(self.p01, self.p10))

    @property
    def mean(self) -> float:
        """Flip rate on random data."""
        return float((self.p01 + self.p10).mean() / 2)


def compute_bit_rates(network: Network, placement: Placement) -> dict[str, BitRates]:
    """Compute the rates of every placed tensor or buffer that can be read wrong.

    The rates are marginal: the common properties of the cells of a die are averaged out. Planes in a fault-free memory have rate 0.

    Raises:
        UsageError: Cells do not fail independently (structures, multi-level cells, protection), or the error rates are unknown
            (recordings, boards).
    """
    known: dict[int, tuple[float, float]] = {}
    rates: dict[str, BitRates] = {}
    items = storable(network)
    for slot in placement.slots:
        if slot.array not in known:
            known[slot.array] = compute_marginal_rates(placement.arrays[slot.array])
        p01, p10 = known[slot.array]
        if p01 == p10 == 0.0:
            continue
        bits = items[slot.tensor].encoding.bits
        tensor_rates = rates.setdefault(slot.tensor, BitRates(np.zeros(bits), np.zeros(bits)))
        tensor_rates.p01[list(slot.planes)], tensor_rates.p10[list(slot.planes)] = p01, p10
    return rates


def compute_marginal_rates(spec: MemorySpec) -> tuple[float, float]:
    """Return (p01, p10) of a cell of a memory, averaged over dies, writes and reads.

    Raises:
        UsageError: As `compute_bit_rates`.
    """
    asked = f"Flip probabilities of {spec}"
    if split_wrappers(spec.name)[0]:
        raise UsageError(asked, "what gets past a protection depends on whole words", "Emulate it, or ask about the memory inside")
    technology = spec.technology
    terms = technology.terms(technology.resolve(spec.conditions))
    if not terms:
        raise UsageError(asked, "it replays or measures bits and has no law", "Emulate it, or fit a profile to its read-backs")
    return _combine_terms(terms, asked)


def _combine_terms(terms: Sequence[Term], asked: str) -> tuple[float, float]:
    """Combine the terms of a cell as a two-state Markov chain."""
    p01 = p10 = 0.0
    for term in terms:
        if not isinstance(term, ErrorTerm):
            raise UsageError(asked, f"{term.name}: the bits of a multi-level cell err together", "Emulate it")
        if term.grouped:
            raise UsageError(asked, f"{term.name}: its cells fail in groups", "Emulate it, or ask without the structure")
        if term.lifetime is Lifetime.ACCUMULATING and term.exposure == "reads":
            raise UsageError(asked, f"{term.name}: its errors grow from read to read", "Emulate it")
        # A new die holds random bits, so half of all writes switch a cell.
        share = term.failure_probability * (0.5 if term.only_switched else 1.0)
        up, down = term.p01 * share, term.p10 * share
        p01, p10 = (1 - p01) * up + p01 * (1 - down), (1 - p10) * down + p10 * (1 - up)
    return p01, p10
