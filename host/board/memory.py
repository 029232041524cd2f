"""A board as a memory: what is read came through real (or virtual) SRAM at a lowered voltage.

A read streams the region through the arena in passes (`passes`). Passes share cells, and so faults. A pass that the link breaks is
repeated from its beginning; nothing of a broken pass is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from host.board.errors import LinkError
from host.board.link import Link
from host.board.passes import BoardCounters, Given, Pass, run_pass
from host.board.protocol import MAX_DWELL_US, PAGE
from host.board.supply import Applied, OnChip, Supply
from memmodels.address import Layout, Words, popcount
from memmodels.errors import MemoryFault, MemorySpecError
from memmodels.memory import Accesses, ConditionValue, Cost, Key, ReadReport, Region
from memmodels.sampler import Sampler

_PAGE_WORDS = PAGE // 8
_ATTEMPTS = 3


@dataclass
class _Contents:
    regions: dict[tuple[str, tuple[int, ...]], Region] = field(default_factory=dict)
    words: int = 0


@dataclass(frozen=True, eq=False)
class BoardMemory:
    """The arena behind a link at one operating point. vdd: core voltage while low, in V. dwell_s: how long, in s.

    The board holds nothing between reads: a region's bits are kept here and written again for each read. read_all: read every page
    back, not only those whose CRC changed.
    """

    link: Link
    vdd: float
    dwell_s: float = 0.01
    read_all: bool = False
    supply: Supply = field(default_factory=OnChip)
    counters: BoardCounters = field(default_factory=BoardCounters)
    _contents: _Contents = field(default_factory=_Contents, repr=False)

    def __post_init__(self) -> None:
        self.supply.check(self.link, self.vdd)
        if not 0 <= self.dwell_s * 1e6 <= MAX_DWELL_US:
            raise MemorySpecError(
                f"dwell_s={self.dwell_s}", f"it is not within 0 and {MAX_DWELL_US / 1e6:g} s", "Choose one that is"
            )

    @property
    def conditions(self) -> Mapping[str, ConditionValue]:
        return {"vdd": self.vdd, "dwell_s": self.dwell_s}

    def at(self, **conditions: ConditionValue) -> BoardMemory:
        for name in conditions.keys() - self.conditions.keys():
            raise MemorySpecError(f"Condition {name!r} of a board", "there is none of that name", "Choose vdd or dwell_s")
        try:
            wanted = {name: float(value) for name, value in {**self.conditions, **conditions}.items()}
        except ValueError as error:
            raise MemorySpecError("A board's operating point", str(error), "Give vdd in V and dwell_s in s") from error
        return replace(self, vdd=wanted["vdd"], dwell_s=wanted["dwell_s"])

    def write(self, bits: Words, layout: Layout, key: Key) -> Region:
        _check(bits, layout)
        old = self._contents.regions.get((layout.name, layout.planes))
        if old is not None and old.layout.bits != layout.bits:
            found = f"a region of that name with {old.layout.bits} bits is already there"
            raise MemoryFault(
                f"Writing {layout.bits} bits as {layout}", found, "Give the tensor another name, or open a new memory"
            )
        first_word = old.first_word if old else self._contents.words
        region = Region(layout, first_word, bits.copy(), bits.copy(), old.stored if old else None, key)
        after = first_word + -(-layout.words // _PAGE_WORDS) * _PAGE_WORDS
        self._contents.words = max(self._contents.words, after)
        self._contents.regions[layout.name, layout.planes] = region
        return region

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        _check(out, region.layout)
        pages = -(-region.layout.words // _PAGE_WORDS)
        padded = np.zeros(pages * _PAGE_WORDS, np.uint64)
        padded[: region.layout.words] = region.written
        data, first = padded.astype("<u8").tobytes(), region.first_word // _PAGE_WORDS
        errors, done, passes = np.zeros_like(padded), 0, 0
        told: dict[str, ConditionValue] = {}
        while done < pages:
            cell_page = (first + done) % self.link.board.pages
            count = min(pages - done, self.link.board.pages - cell_page)
            made = self._pass(cell_page, data[done * PAGE : (done + count) * PAGE])
            errors[done * _PAGE_WORDS : (done + count) * _PAGE_WORDS] = made.errors
            done, passes, told = done + count, passes + 1, _measured(made.applied)
        errors = errors[: region.layout.words]
        errors[-1:] &= region.layout.last_mask
        np.bitwise_xor(region.written, errors, out=out)
        flips = popcount(errors)
        self.counters.memory_flips += flips
        return ReadReport(flips, commanded=self.conditions, measured={**told, "passes": float(passes)})

    def sampler(self, region: Region) -> Sampler | None:
        """None: only the board can tell what comes back."""
        return None

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        """Nothing is known about the energy of a board's SRAM."""
        return Cost()

    # --- passes -----------------------------------------------------------------------------------------------------------------

    def _pass(self, first: int, data: bytes) -> Pass:
        pages = len(data) // PAGE
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return run_pass(self.link, first, pages, Given(data), self._lower, self.counters, self.read_all)
            except LinkError:
                self.counters.broken_passes += 1
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError

    def _lower(self) -> Applied:
        return self.supply.lower(self.link, self.vdd, self.dwell_s)


def _measured(applied: Applied) -> dict[str, ConditionValue]:
    told = {"vdd_register": applied.register, "vdd_measured": applied.measured, "dwell_s": applied.dwell_s}
    return {name: value for name, value in told.items() if value is not None}


def _check(words: Words, layout: Layout) -> None:
    if words.dtype != np.uint64 or words.shape != (layout.words,):
        raise ValueError(f"{layout}: {words.shape} words of {words.dtype}, where ({layout.words},) of uint64 are needed")
