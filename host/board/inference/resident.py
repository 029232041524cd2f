"""A board that keeps a whole network: all regions are written together, are at the low voltage once, and are read together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from weakcell.host.board.characterization.passes import count_arena_pages
from weakcell.host.board.errors import BoardError
from weakcell.host.board.link.protocol import PAGE, PAGE_WORDS
from weakcell.host.board.memory.board_memory import PassRecord
from weakcell.host.board.memory.spec import SharedBoard
from weakcell.memmodels.address import Layout, Words, popcount
from weakcell.memmodels.memory import Key, ReadReport, Region


@dataclass(frozen=True, eq=False)
class ResidentBoard(SharedBoard):
    """The memory `board:PORT` of one trial, whose cells hold all regions after the first read.

    Each region lies where `SharedBoard` would put it, and holds the same bits. The first read of any region writes all of them,
    lowers the voltage once, and reads all of them back. Every read returns what was read then.

    Attributes:
        readback: what came back, all pages; empty before the first read.
        reports: of each region's read, by its first word.
    """

    readback: list[Words] = field(default_factory=list, repr=False)
    reports: dict[int, ReadReport] = field(default_factory=dict, repr=False)

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        """Return what came back of a region in `out`; the first read sends all regions through the board."""
        with self.session.lock:
            if not self.readback:
                self._read_all(key)
        out[:] = self.readback[0][region.first_word :][: region.layout.words]
        out[-1:] &= region.layout.last_mask
        return self.reports[region.first_word]

    @property
    def pages(self) -> int:
        """Pages of the arena that hold regions."""
        return self.regions.words // PAGE_WORDS

    def first_words(self) -> Mapping[str, int]:
        """Return the first word of 32 bits of each region in the arena, by the name of its tensor."""
        return {name: 2 * region.first_word for (name, _), region in self.regions.regions.items()}

    def _read_all(self, key: Key) -> None:
        session, passes = self.session, list[PassRecord]()
        memory = self._memory(passes)
        room = count_arena_pages(session.link, memory.kib)
        if self.pages > room:
            raise BoardError(
                "Keeping a network in the board",
                f"its weights take {self.pages * PAGE / 1024:.0f} KiB, and the memory has {room * PAGE / 1024:.0f} KiB",
                "Take a board with more SRAM or a larger kib=, or leave out --compute board, which streams the weights",
            )
        written = np.zeros(self.regions.words, np.uint64)
        for region in self.regions.regions.values():
            written[region.first_word :][: region.layout.words] = region.written
        whole, back = Region(Layout("all regions", written.size * 64, 1), 0, written, written, None, key), np.empty_like(written)
        report = memory.read(whole, key, back)
        for region in self.regions.regions.values():
            words = back[region.first_word :][: region.layout.words].copy()
            words[-1:] &= region.layout.last_mask
            self.reports[region.first_word] = replace(report, flips=popcount(words ^ region.written))
            if session.recorder is not None:
                session.recorder.add(region, self.conditions, words, self.reports[region.first_word], [_part(passes[0], region)])
        session.counters.memory_flips += sum(each.flips for each in self.reports.values()) - report.flips
        self.readback.append(back)


def _part(whole: PassRecord, region: Region) -> PassRecord:
    """Return the record of a region's part of a pass."""
    words = -(-region.layout.words // PAGE_WORDS) * PAGE_WORDS
    return replace(whole, first_word=0, words=words, first_cell=region.first_word * 64)
