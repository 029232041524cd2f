"""Read-backs of a network that came through a board, kept as a recording that replays as `recording:PATH`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from weakcell.host.board.memory.board_memory import PassRecord
from weakcell.memmodels.address import Words
from weakcell.memmodels.memory import ConditionValue, ReadReport, Region
from weakcell.memmodels.recording import Recording, Take, same_point


@dataclass(eq=False)
class _Reads:
    """The reads of one region at one operating point."""

    region: int
    point: Mapping[str, ConditionValue]
    words: list[Words] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)


@dataclass(eq=False)
class Tape:
    """Reads in the order in which they were made; the same bits under the same name are one region, whichever trial wrote them."""

    regions: list[Region] = field(default_factory=list)
    reads: list[_Reads] = field(default_factory=list)

    def add(
        self,
        region: Region,
        point: Mapping[str, ConditionValue],
        words: Words,
        report: ReadReport,
        passes: Sequence[PassRecord],
    ) -> None:
        """Keep one read: what came back, and through which cells in which pass."""
        number = self._region(region)
        home = next((one for one in self.reads if one.region == number and same_point(one.point, point)), None)
        if home is None:
            self.reads.append(home := _Reads(number, dict(point)))
        home.words.append(words)
        told = {"commanded": dict(report.commanded), "measured": dict(report.measured)}
        home.notes.append({**told, "trial": region.key.trial, "passes": [vars(one) for one in passes]})

    def save(self, path: Path, about: Mapping[str, Any]) -> Path:
        """Write the recording; OutputError if that cannot be."""
        takes = [Take(one.region, one.point, np.stack(one.words), tuple(one.notes)) for one in self.reads]
        return Recording(dict(about), list(self.regions), takes).save(path)

    def _region(self, region: Region) -> int:
        for number, known in enumerate(self.regions):
            if known.layout == region.layout and np.array_equal(known.written, region.written):
                return number
        self.regions.append(region)
        return len(self.regions) - 1
