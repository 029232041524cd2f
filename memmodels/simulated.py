"""A simulated memory: a technology at an operating point, the contents of one die, and the errors its terms make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from memmodels.address import Layout, Words, popcount
from memmodels.dies import weak_cells
from memmodels.errors import MemoryFault
from memmodels.memory import Accesses, ConditionValue, Cost, Key, ReadReport, Region
from memmodels.sampler import VERSION, Sampler, draw_region, make_sampler
from memmodels.streams import random_words, stream_of
from memmodels.technology import Technology
from memmodels.terms import ErrorTerm, Lifetime

_POWER_UP = 0x706F776572


@dataclass(eq=False)
class Contents:
    """What the cells of a die hold: shared by all operating points of it. Regions are given words one after the other."""

    words: int = 0
    regions: dict[tuple[str, tuple[int, ...]], Region] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SimulatedMemory:
    """One array of a die of a technology at one operating point.

    conditions: complete and checked (`Technology.resolve`). seed: of the whole study. die: the manufactured instance.
    array: which of the arrays on that die, so that two placements with different SPECs never share cells.
    """

    technology: Technology
    conditions: Mapping[str, ConditionValue]
    seed: int = 0
    die: int = 0
    array: int = 0
    contents: Contents = field(default_factory=Contents, repr=False)
    _held: dict[int, tuple[Region, int, Words]] = field(default_factory=dict, repr=False)

    def at(self, **conditions: ConditionValue) -> SimulatedMemory:
        resolved = self.technology.resolve({**self.conditions, **conditions})
        return replace(self, conditions=resolved, _held={})

    @property
    def terms(self) -> tuple[ErrorTerm, ...]:
        """The error terms at this operating point, in the order in which they act."""
        return self.technology.terms(self.conditions)

    @property
    def stream(self) -> np.uint64:
        """The stream below which everything of this array is named."""
        return stream_of(VERSION, self.seed, self.die, self.array)

    def write(self, bits: Words, layout: Layout, key: Key) -> Region:
        _check_words(bits, layout)
        old = self.contents.regions.get((layout.name, layout.planes))
        if old is not None and old.layout.bits != layout.bits:
            raise MemoryFault(
                f"Writing {layout.bits} bits as {layout}",
                f"a region of that name with {old.layout.bits} bits is already there",
                "Give the tensor another name, or open a new memory",
            )
        if old is not None:
            self._held.pop(id(old), None)
        first_word = old.first_word if old else self.contents.words
        previous = old.stored if old else self._power_up(first_word, layout)
        fresh = Region(layout, first_word, bits.copy(), bits.copy(), previous, key)
        region = replace(fresh, stored=self._stored(fresh))
        self.contents.words = max(self.contents.words, first_word + layout.words)
        self.contents.regions[layout.name, layout.planes] = region
        return region

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        _check_words(out, region.layout)
        sampler = self._sampler(region, key.read if self._accumulates else 0)
        draw_region(sampler, key.trial, region.key.write, key.read, out)
        flips = popcount(out)
        np.bitwise_xor(out, region.written, out=out)
        return ReadReport(flips, commanded=self.conditions)

    def sampler(self, region: Region) -> Sampler | None:
        return None if self._accumulates else self._sampler(region, 0)

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        return self.technology.cost(self.conditions, region.layout.bits, accesses)

    @property
    def _accumulates(self) -> bool:
        return any(term.lifetime is Lifetime.ACCUMULATING for term in self.terms)

    def _sampler(self, region: Region, reads: int) -> Sampler:
        drawn = tuple((i, term) for i, term in enumerate(self.terms) if term.lifetime is Lifetime.READ)
        held = self._hold(region, reads)
        return make_sampler(self.stream, region.first_word, region.layout.bits, region.written, held, drawn)

    def _hold(self, region: Region, reads: int) -> Words:
        """What the cells return at this operating point after `reads` reads, before anything that is drawn at a read."""
        known = self._held.get(id(region))
        if known is not None and known[1] == reads:
            return known[2]
        cells = region.stored.copy()
        for number, term in enumerate(self.terms):
            if term.lifetime is Lifetime.DIE:
                _spoil(cells, region, term, stream_of(int(self.stream), number))
            elif term.lifetime is Lifetime.ACCUMULATING and reads:
                _spoil(cells, region, term, stream_of(int(self.stream), number, region.key.trial, region.key.write), reads)
        self._held[id(region)] = region, reads, cells
        return cells

    def _stored(self, region: Region) -> Words:
        """The bits that a write leaves in the cells: those asked for, less what the write terms spoil."""
        cells = region.written.copy()
        for number, term in enumerate(self.terms):
            if term.lifetime is not Lifetime.WRITE:
                continue
            flips = np.empty_like(cells)
            once = make_sampler(self.stream, region.first_word, region.layout.bits, cells, cells, ((number, term),))
            draw_region(once, region.key.trial, region.key.write, 0, flips)
            if term.only_switched and region.previous is not None:
                flips &= region.written ^ region.previous
            cells = cells ^ flips
        return cells

    def _power_up(self, first_word: int, layout: Layout) -> Words:
        """What the cells of a fresh die hold before the first write: random bits of their addresses."""
        cells = random_words(stream_of(int(self.stream), _POWER_UP), first_word + layout.words)[first_word:].copy()
        cells[-1:] &= np.uint64((1 << ((layout.bits - 1) % 64 + 1)) - 1)
        return cells


def _check_words(words: Words, layout: Layout) -> None:
    """ValueError unless `words` has the type and size of the layout: compiled code does not look again."""
    if words.dtype != np.uint64 or words.shape != (layout.words,):
        raise ValueError(f"{layout}: {words.shape} words of {words.dtype}, where ({layout.words},) of uint64 are needed")


def _spoil(cells: Words, region: Region, term: ErrorTerm, stream: np.uint64, reads: int = 1) -> None:
    """Let the weak cells of `term` return their values."""
    to_one, to_zero = weak_cells(stream, region.first_word, cells.size, term, reads)
    cells ^= (~cells & to_one) | (cells & to_zero)
