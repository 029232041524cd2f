"""A board as a memory: read data passed through real (or virtual) SRAM at a lowered voltage.

A region is streamed through the arena in passes (`passes`). Passes share cells and therefore faults. A pass that the link breaks is
repeated from its beginning; nothing of a broken pass is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from weakcell.host.board.characterization.passes import BoardCounters, PassResult, count_arena_pages, run_pass
from weakcell.host.board.characterization.patterns import GivenBytes
from weakcell.host.board.characterization.supply import LowPhase, OnChipSupply, Supply
from weakcell.host.board.errors import LinkError
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import MAX_DWELL_US, PAGE, PAGE_WORDS
from weakcell.memmodels.address import Layout, Words, popcount
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.memory import Accesses, ConditionValue, Cost, Key, ReadReport, Region, RegionStore
from weakcell.memmodels.numbers import parse_number
from weakcell.memmodels.sampling.sampler import Sampler

_ATTEMPTS = 3


@dataclass(frozen=True)
class PassRecord:
    """One pass of a region.

    Attributes:
        first_word, words: the part of the region.
        first_cell: of the arena, in bits.
        commanded, register, measured, dwell_s, seen, celsius: as in `supply.LowPhase`.
    """

    first_word: int
    words: int
    first_cell: int
    commanded: float
    register: float | None
    measured: float | None
    dwell_s: float
    seen: float | None = None
    celsius: float | None = None


@dataclass(frozen=True, eq=False)
class BoardMemory:
    """The arena behind a link, at one operating point.

    The board keeps nothing between reads: the host keeps the bits of a region and writes them again for each read.

    Attributes:
        link: the board.
        vdd: core voltage while low, in V.
        dwell_s: time at that voltage, in s.
        read_all: read back all pages, not only those whose CRC changed.
        supply: lowers the voltage.
        kib: size of the part of the arena that is used; None: all.
        counters: errors of all reads, by where they happened.
        log: all passes of all reads, in their order.
        regions: what was written.
    """

    link: Link
    vdd: float
    dwell_s: float = 0.01
    read_all: bool = False
    supply: Supply = field(default_factory=OnChipSupply)
    kib: int | None = None
    counters: BoardCounters = field(default_factory=BoardCounters)
    log: list[PassRecord] = field(default_factory=list, repr=False)
    regions: RegionStore = field(default_factory=lambda: RegionStore(PAGE_WORDS), repr=False)

    def __post_init__(self) -> None:
        self.supply.check(self.link, self.vdd)
        if not 0 <= self.dwell_s * 1e6 <= MAX_DWELL_US:
            raise MemorySpecError(
                f"dwell_s={self.dwell_s}", f"it is not within 0 and {MAX_DWELL_US / 1e6:g} s", "Choose one that is"
            )

    @property
    def conditions(self) -> Mapping[str, ConditionValue]:
        """The operating point: vdd in V, dwell_s in s."""
        return {"vdd": self.vdd, "dwell_s": self.dwell_s}

    def at(self, **conditions: ConditionValue) -> BoardMemory:
        """Return the same memory at another operating point."""
        for name in conditions.keys() - self.conditions.keys():
            raise MemorySpecError(f"Condition {name!r} of a board", "there is none of that name", "Choose vdd or dwell_s")
        try:
            values = {name: parse_number(str(value)) for name, value in {**self.conditions, **conditions}.items()}
        except ValueError as error:
            raise MemorySpecError("A board's operating point", str(error), "Give vdd in V and dwell_s in s") from error
        return replace(self, vdd=values["vdd"], dwell_s=values["dwell_s"])

    def write(self, bits: Words, layout: Layout, key: Key) -> Region:
        """Store a region on the host; the board gets it at each read."""
        return self.regions.write(bits, layout, key)

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        """Send a region through the board.

        Args:
            region: what `write` returned.
            key: unused; the board has only one die.
            out: (words,) uint64, receives what came back.

        Returns:
            The number of flips, and the voltages of the last pass.
        """
        region.layout.check_words(out)
        pages = -(-region.layout.words // PAGE_WORDS)
        padded = np.zeros(pages * PAGE_WORDS, np.uint64)
        padded[: region.layout.words] = region.written
        data, first = padded.astype("<u8").tobytes(), region.first_word // PAGE_WORDS
        errors, pages_done, passes = np.zeros_like(padded), 0, 0
        arena = count_arena_pages(self.link, self.kib)
        measured: dict[str, ConditionValue] = {}
        while pages_done < pages:
            cell_page = (first + pages_done) % arena
            count = min(pages - pages_done, arena - cell_page)
            result = self._run_pass(cell_page, data[pages_done * PAGE : (pages_done + count) * PAGE])
            errors[pages_done * PAGE_WORDS : (pages_done + count) * PAGE_WORDS] = result.errors
            self.log.append(_record(pages_done, count, cell_page, result.applied))
            pages_done, passes, measured = pages_done + count, passes + 1, _measured(result.applied)
        errors = errors[: region.layout.words]
        errors[-1:] &= region.layout.last_mask
        np.bitwise_xor(region.written, errors, out=out)
        flips = popcount(errors)
        self.counters.memory_flips += flips
        return ReadReport(flips, commanded=self.conditions, measured={**measured, "passes": float(passes)})

    def sampler(self, region: Region) -> Sampler | None:
        """Return None: what comes back cannot be sampled without the board."""
        return None

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        """Return no cost: the energy of a board's SRAM is unknown."""
        return Cost()

    # --- passes -----------------------------------------------------------------------------------------------------------------

    def _run_pass(self, first: int, data: bytes) -> PassResult:
        pages = len(data) // PAGE
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self.supply.prepare(self.link, self.vdd, self.dwell_s)
                return run_pass(self.link, first, pages, GivenBytes(data), self._lower, self.counters, read_all=self.read_all)
            except LinkError:
                self.counters.broken_passes += 1
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError

    def _lower(self) -> LowPhase:
        return self.supply.lower(self.link, self.vdd, self.dwell_s)


def _measured(applied: LowPhase) -> dict[str, ConditionValue]:
    values = {
        "vdd_register": applied.register,
        "vdd_measured": applied.measured,
        "vdd_seen": applied.seen,
        "celsius": applied.celsius,
        "dwell_s": applied.dwell_s,
    }
    return {name: value for name, value in values.items() if value is not None}


def _record(pages_done: int, count: int, cell_page: int, applied: LowPhase) -> PassRecord:
    return PassRecord(pages_done * PAGE_WORDS, count * PAGE_WORDS, cell_page * PAGE * 8, **vars(applied))
