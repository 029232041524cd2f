"""How likely a stored bit comes back wrong, plane by plane: a placement as probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weakcell.emulator.faults.placement import Placement
from weakcell.emulator.ir.faultable import storable
from weakcell.emulator.ir.layers import Network
from weakcell.memmodels.catalogue import MemorySpec
from weakcell.memmodels.definition import Term
from weakcell.memmodels.error_model.terms import ErrorTerm, Lifetime
from weakcell.memmodels.errors import UsageError
from weakcell.memmodels.protection.wrappers import split_wrappers

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BitRates:
    """Of one tensor, by bit plane: p01 = P(read 1 | stored 0), p10 = P(read 0 | stored 1), averaged over dies, writes and reads."""

    p01: Probabilities
    p10: Probabilities

    @property
    def symmetric(self) -> bool:
        """Whether a bit is as likely to fall as to rise, plane by plane."""
        return bool(np.array_equal(self.p01, self.p10))

    @property
    def mean(self) -> float:
        """The flip rate on random data."""
        return float((self.p01 + self.p10).mean() / 2)


def bit_rates(network: Network, placement: Placement) -> dict[str, BitRates]:
    """Rates of every placed tensor or buffer that can err; planes that live in a safe place have 0.

    The rates are marginal: what cells of one die have in common is averaged out. UsageError where cells do not err independently
    of each other (structures, multi-level cells, protection), or where no law is known (recordings, boards).
    """
    known: dict[int, tuple[float, float]] = {}
    rates: dict[str, BitRates] = {}
    items = storable(network)
    for slot in placement.slots:
        if slot.array not in known:
            known[slot.array] = marginal_rates(placement.arrays[slot.array])
        p01, p10 = known[slot.array]
        if p01 == p10 == 0.0:
            continue
        bits = items[slot.tensor].encoding.bits
        own = rates.setdefault(slot.tensor, BitRates(np.zeros(bits), np.zeros(bits)))
        own.p01[list(slot.planes)], own.p10[list(slot.planes)] = p01, p10
    return rates


def marginal_rates(spec: MemorySpec) -> tuple[float, float]:
    """(p01, p10) of a cell of this memory over all its dies and draws: its terms one after the other."""
    asked = f"Flip probabilities of {spec}"
    if split_wrappers(spec.name)[0]:
        raise UsageError(asked, "what gets past a protection depends on whole words", "Emulate it, or ask about the memory inside")
    technology = spec.technology
    terms = technology.terms(technology.resolve(spec.conditions))
    if not terms:
        raise UsageError(asked, "it replays or measures bits and has no law", "Emulate it, or fit a profile to its read-backs")
    return _in_sequence(terms, asked)


def _in_sequence(terms: Sequence[Term], asked: str) -> tuple[float, float]:
    """Two-state chain: p01 and p10 of all terms together."""
    p01 = p10 = 0.0
    for term in terms:
        if not isinstance(term, ErrorTerm):
            raise UsageError(asked, f"{term.name}: the bits of a multi-level cell err together", "Emulate it")
        if term.grouped:
            raise UsageError(asked, f"{term.name}: its cells fail in groups", "Emulate it, or ask without the structure")
        if term.lifetime is Lifetime.ACCUMULATING and term.exposure == "reads":
            raise UsageError(asked, f"{term.name}: its errors grow from read to read", "Emulate it")
        # a fresh die holds either bit: half of all writes switch
        share = term.failure_probability * (0.5 if term.only_switched else 1.0)
        up, down = term.p01 * share, term.p10 * share
        p01, p10 = (1 - p01) * up + p01 * (1 - down), (1 - p10) * down + p10 * (1 - up)
    return p01, p10
