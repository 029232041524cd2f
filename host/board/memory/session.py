"""The open port of a board, shared by every memory of this process that reads through it, and the recorder of its reads.

A serial port can be open only once. So a process has one session per port, kept in `PROCESS_SESSIONS`. The port is opened at the
first read. Reads of several threads wait for each other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from weakcell.host.board.characterization.passes import BoardCounters
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.ports import open_port
from weakcell.host.board.memory.board_memory import PassRecord
from weakcell.memmodels.address import Words
from weakcell.memmodels.memory import ConditionValue, ReadReport, Region
from weakcell.memmodels.recording import Recording, Take, same_point


@dataclass(eq=False)
class _ReadSeries:
    """The reads of one region at one operating point."""

    region: int
    point: Mapping[str, ConditionValue]
    words: list[Words] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)


@dataclass(eq=False)
class ReadRecorder:
    """Records reads in their order, for a recording that replays as `recording:PATH`.

    Equal bits under the same name are one region, whichever trial wrote them.
    """

    regions: list[Region] = field(default_factory=list)
    reads: list[_ReadSeries] = field(default_factory=list)

    def add(
        self,
        region: Region,
        point: Mapping[str, ConditionValue],
        words: Words,
        report: ReadReport,
        passes: Sequence[PassRecord],
    ) -> None:
        """Record one read.

        Args:
            region: what was read.
            point: the operating point.
            words: (words,) uint64, what came back.
            report: what the memory reported.
            passes: the cells of the arena that each part of the region went through.
        """
        index = self._region_index(region)
        series = next((one for one in self.reads if one.region == index and same_point(one.point, point)), None)
        if series is None:
            series = _ReadSeries(index, dict(point))
            self.reads.append(series)
        series.words.append(words)
        voltages = {"commanded": dict(report.commanded), "measured": dict(report.measured)}
        series.notes.append({**voltages, "trial": region.key.trial, "passes": [vars(one) for one in passes]})

    def save(self, path: Path, metadata: Mapping[str, Any]) -> Path:
        """Write the recording to `path`; OutputError if that fails."""
        takes = [Take(one.region, one.point, np.stack(one.words), tuple(one.notes)) for one in self.reads]
        return Recording(dict(metadata), list(self.regions), takes).save(path)

    def _region_index(self, region: Region) -> int:
        for index, known in enumerate(self.regions):
            if known.layout == region.layout and np.array_equal(known.written, region.written):
                return index
        self.regions.append(region)
        return len(self.regions) - 1


@dataclass(eq=False)
class PortSession:
    """A port, its link once it is open, and what was counted and recorded on it.

    Attributes:
        port: as `open_port` takes it.
        counters: errors of all reads, by where they happened.
        recorder: records every read; None: no recording.
        lock: held during a read.
    """

    port: str
    counters: BoardCounters = field(default_factory=BoardCounters)
    recorder: ReadRecorder | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    _link: Link | None = None

    @property
    def link(self) -> Link:
        """The open link; the first use opens the port."""
        if self._link is None:
            self._link = Link(open_port(self.port))
        return self._link

    def close(self) -> None:
        """Close the port; the next read opens it again."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def measure_seconds_per_page(self) -> float:
        """Measure how long it takes to write a page and read it back, in s."""
        pages = range(min(64, self.link.board.pages))
        start = time.perf_counter()
        self.link.write_pages(pages, self.link.read_pages(pages))
        return (time.perf_counter() - start) / len(pages)


class SessionRegistry:
    """Sessions by port: the same port always gives the same session."""

    def __init__(self) -> None:
        self._sessions: dict[str, PortSession] = {}
        self._lock = threading.Lock()

    def get(self, port: str) -> PortSession:
        """Return the session of a port, a new one if there is none yet; the port is not opened."""
        with self._lock:
            return self._sessions.setdefault(port, PortSession(port))


PROCESS_SESSIONS = SessionRegistry()
"""The sessions of this process. Global on purpose: the operating system lets a process open a port only once."""
