"""A simulated memory: a technology at an operating point, the contents of one die, and the errors of its terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from weakcell.memmodels.address import Layout, Words, popcount
from weakcell.memmodels.definition import Technology, Term
from weakcell.memmodels.error_model.levels import LevelTerm, misread_levels
from weakcell.memmodels.error_model.terms import ErrorTerm, Lifetime
from weakcell.memmodels.memory import Accesses, ConditionValue, Cost, Key, ReadReport, Region, RegionStore
from weakcell.memmodels.sampling.dies import weak_cells
from weakcell.memmodels.sampling.sampler import ROOT, PerReadTerm, Sampler, draw_region, make_sampler
from weakcell.memmodels.sampling.streams import derive_stream, random_words

_POWER_UP = 0x706F776572


@dataclass(frozen=True, eq=False)
class SimulatedMemory:
    """One array of one die of a technology, at one operating point.

    Attributes:
        technology: What is simulated.
        conditions: Complete and checked (`Technology.resolve`).
        seed: Of the whole study.
        die: The manufactured instance.
        array: Which array on that die; placements with different SPECs never share cells.
        contents: What the cells hold, shared by all operating points of the die.
    """

    technology: Technology
    conditions: Mapping[str, ConditionValue]
    seed: int = 0
    die: int = 0
    array: int = 0
    contents: RegionStore = field(default_factory=RegionStore, repr=False)
    _baselines: dict[int, tuple[Region, int, Words]] = field(default_factory=dict, repr=False)

    def at(self, **conditions: ConditionValue) -> SimulatedMemory:
        """Return the same die with the same contents at another operating point."""
        resolved = self.technology.resolve({**self.conditions, **conditions})
        return replace(self, conditions=resolved, _baselines={})

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """The error terms at this operating point, in the order in which they act."""
        return self.technology.terms(self.conditions)

    @cached_property
    def stream(self) -> np.uint64:
        """Root of the random streams of this array."""
        return derive_stream(ROOT, self.seed, self.die, self.array)

    def write(self, bits: Words, layout: Layout, key: Key) -> Region:
        """Store bits, and draw the errors of lifetime WRITE."""
        first_word, old = self.contents.locate(bits, layout)
        if old is not None:
            self._baselines.pop(id(old), None)
        previous = old.stored if old else self._power_up(first_word, layout) if self._switches else None
        written = bits.copy() if bits.flags.writeable else bits
        stored = self._stored(written, layout.bits, first_word, previous, key)
        return self.contents.put(Region(layout, first_word, written, stored, previous, key))

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        """Read a region with all its errors."""
        region.layout.check_words(out)
        sampler = self._sampler(region, key.read if self._accumulates else 0)
        draw_region(sampler, key.trial, region.key.write, key.read, out)
        flips = popcount(out)
        np.bitwise_xor(out, region.written, out=out)
        return ReadReport(flips, commanded=self.conditions)

    def sampler(self, region: Region) -> Sampler | None:
        """Return the sampler of a region; None if errors grow with reads."""
        return None if self._accumulates else self._sampler(region, 0)

    def permanent_weak_cells(self, words: int) -> tuple[Words, Words]:
        """Return the weak cells that belong to the die at this operating point.

        Args:
            words: How many words of the array, from its first.

        Returns:
            Masks (to_one, to_zero), (words,) uint64: cells that read 1 though 0 is stored, and the reverse.
        """
        to_one, to_zero = np.zeros((2, words), dtype=np.uint64)
        for number, term in enumerate(self.terms):
            if isinstance(term, ErrorTerm) and term.permanent:
                one, zero = weak_cells(derive_stream(int(self.stream), number), 0, words, term)
                to_one |= one
                to_zero |= zero
        return to_one, to_zero

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        """Return what the technology says about the cost of accesses."""
        return self.technology.cost(self.conditions, region.layout.bits, accesses)

    @cached_property
    def _accumulates(self) -> bool:
        return any(isinstance(term, ErrorTerm) and term.grows_with_reads for term in self.terms)

    @cached_property
    def _switches(self) -> bool:
        """Whether the result of a write depends on the old contents."""
        return any(isinstance(term, ErrorTerm) and term.only_switched for term in self.terms)

    def _sampler(self, region: Region, reads: int) -> Sampler:
        baseline = self._baseline(region, reads)
        drawn = tuple(self._per_read_term(number, term, region) for number, term in enumerate(self.terms) if term.drawn_at_read)
        return make_sampler(self.stream, region.first_word, region.layout.bits, region.written, baseline, drawn)

    def _per_read_term(self, number: int, term: Term, region: Region) -> PerReadTerm:
        assert isinstance(term, ErrorTerm)
        if term.lifetime is Lifetime.READ:
            return PerReadTerm(number, term.p01, term.p10)
        weak = weak_cells(self._cells(number, term, region), region.first_word, region.written.size, term)
        return PerReadTerm(number, term.failure_probability, term.failure_probability, weak)

    def _cells(self, number: int, term: ErrorTerm, region: Region) -> np.uint64:
        """Return the stream that names the weak cells of a term: of the die, or of the write if that resamples them."""
        if term.lifetime is Lifetime.ACCUMULATING and term.resampled:
            return derive_stream(int(self.stream), number, region.key.trial, region.key.write)
        return derive_stream(int(self.stream), number)

    def _baseline(self, region: Region, reads: int) -> Words:
        """Return the bits that the cells return after `reads` reads, before any error that is drawn at a read."""
        known = self._baselines.get(id(region))
        if known is not None and known[1] == reads:
            return known[2]
        cells = region.stored
        for number, term in enumerate(self.terms):
            if isinstance(term, LevelTerm):
                stream = derive_stream(int(self.stream), number, region.key.trial, region.key.write)
                cells = misread_levels(cells, region.layout.bits, region.first_word, term, stream)
                continue
            if term.drawn_at_read or term.lifetime is Lifetime.WRITE:
                continue
            times = reads if term.grows_with_reads else 1
            if times:
                stream = self._cells(number, term, region)
                to_one, to_zero = weak_cells(stream, region.first_word, cells.size, term, times)
                cells = cells ^ ((~cells & to_one) | (cells & to_zero))
        self._baselines[id(region)] = region, reads, cells
        return cells

    def _stored(self, written: Words, bits: int, first_word: int, previous: Words | None, key: Key) -> Words:
        """Return the bits that a write leaves in the cells: those asked for, with the errors of lifetime WRITE.

        Levels of multi-level cells are evaluated when they are read, since the operating point may change in between.
        """
        cells = written
        for number, term in enumerate(self.terms):
            if isinstance(term, ErrorTerm) and term.lifetime is Lifetime.WRITE:
                flips, once = np.empty_like(cells), (PerReadTerm(number, term.p01, term.p10),)
                draw_region(make_sampler(self.stream, first_word, bits, cells, cells, once), key.trial, key.write, 0, flips)
                if term.only_switched and previous is not None:
                    flips &= written ^ previous
                cells = cells ^ flips
        return cells

    def _power_up(self, first_word: int, layout: Layout) -> Words:
        """Return what the cells of a fresh die hold before the first write: random bits of their addresses."""
        cells = random_words(derive_stream(int(self.stream), _POWER_UP), first_word, layout.words)
        cells[-1:] &= layout.last_mask
        return cells
