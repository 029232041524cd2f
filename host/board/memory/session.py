"""The board behind a port, shared by everything in this process that reads through it: `--memory board:PORT:vdd=0.6`.

A port can be open once, so its session is one per process and port; it is opened when the first region is read. Reads wait for
each other. With a tape, every read-back is kept, in the order of the reads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from weakcell.host.board.characterization.passes import BoardCounters
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.ports import open_port
from weakcell.host.board.link.protocol import PAGE_WORDS
from weakcell.host.board.memory.board_memory import BoardMemory, PassRecord
from weakcell.host.board.memory.read_recorder import Tape
from weakcell.memmodels.address import Layout, Words
from weakcell.memmodels.memory import Accesses, ConditionValue, Cost, Key, ReadReport, Region, RegionStore
from weakcell.memmodels.sampling.sampler import Sampler


@dataclass(eq=False)
class Session:
    """A port, its link once it is open, and what went through it."""

    port: str
    counters: BoardCounters = field(default_factory=BoardCounters)
    tape: Tape | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    _link: Link | None = None

    @property
    def link(self) -> Link:
        if self._link is None:
            self._link = Link(open_port(self.port))
        return self._link

    def close(self) -> None:
        """Let go of the port; the next read opens it again."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def seconds_per_page(self) -> float:
        """How long it takes to write a page and read it back, measured on some."""
        some = range(min(64, self.link.board.pages))
        began = time.perf_counter()
        self.link.write_pages(some, self.link.read_pages(some))
        return (time.perf_counter() - began) / len(some)


@cache
def session_of(port: str) -> Session:
    """The session of a port in this process."""
    return Session(port)


@dataclass(frozen=True, eq=False)
class SharedBoard:
    """A board at one operating point, through its port's session. conditions: `vdd` (V), `dwell_s`, `kib`, `read_all`."""

    session: Session
    conditions: Mapping[str, ConditionValue]
    regions: RegionStore = field(default_factory=lambda: RegionStore(PAGE_WORDS), repr=False)

    def at(self, **conditions: ConditionValue) -> SharedBoard:
        from weakcell.host.board.memory.spec import technology_of

        moved = technology_of(self.session.port).resolve({**self.conditions, **conditions})
        return SharedBoard(self.session, moved, self.regions)

    def write(self, bits: Words, layout: Layout, key: Key) -> Region:
        return self.regions.write(bits, layout, key)

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        with self.session.lock:
            passes: list[PassRecord] = []
            report = self._memory(passes).read(region, key, out)
            if self.session.tape is not None:
                self.session.tape.add(region, self.conditions, np.array(out), report, passes)
        return report

    def _memory(self, passes: list[PassRecord]) -> BoardMemory:
        given: dict[str, Any] = dict(self.conditions)
        return BoardMemory(
            self.session.link,
            given["vdd"],
            given["dwell_s"],
            given["read_all"] == "yes",
            kib=round(given["kib"]) if "kib" in given else None,
            counters=self.session.counters,
            log=passes,
        )

    def sampler(self, region: Region) -> Sampler | None:
        """None: only the board can tell what comes back."""
        return None

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        """Nothing is known about the energy of a board's SRAM."""
        return Cost()
