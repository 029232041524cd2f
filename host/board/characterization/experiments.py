"""The experiments: which cells are wrong during or after a time at low voltage.

Retention: nothing accesses the arena while the voltage is low. Sleep: the same with the core switched off (RP2350). Read: the arena
is read while low; a cell may read wrongly and still hold its bit. Write: the arena held the inverse and is written while low.

`ReportMode` says how the wrong cells are found. COMPARE: the board compares with a generated pattern and lists cells. CRCS: the
host reads the pages whose CRC differs. PAGES: the host reads all pages. Only with `Experiment.READ` this happens while the voltage
is low. Then CRCS and the pages read after them are two reads, and `pulses` has one entry for each lowering.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from weakcell.host.board.errors import BoardError
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import INVERTED, MAX_CRCS, PAGE, Capability, Command, Pattern, Pulse, pattern_words

_CELLS = PAGE * 8


class Experiment(StrEnum):
    """What happens while the voltage is low."""

    RETENTION = "retention"
    SLEEP = "sleep"
    READ = "read"
    WRITE = "write"


class ReportMode(StrEnum):
    """How the host learns which cells are wrong."""

    COMPARE = "compare"
    CRCS = "crcs"
    PAGES = "pages"


@dataclass(frozen=True)
class Setting:
    """An experiment at an operating point.

    Attributes:
        experiment: what happens while the voltage is low.
        code: regulator code.
        dwell_us: time at the low voltage before the access, or in total if there is none.
    """

    experiment: Experiment
    code: int
    dwell_us: int


@dataclass(frozen=True)
class ExperimentResult:
    """The result of an experiment.

    Attributes:
        cells: (n,) int64, bits of the arena that were wrong, ascending.
        pulses: one for each lowering of the voltage.
    """

    cells: npt.NDArray[np.int64]
    pulses: tuple[Pulse, ...]


DEFAULT_DWELL_MS = dict.fromkeys(Experiment, 10.0) | {Experiment.SLEEP: 200.0}
"""A sleeping core draws some 0.2 mA: 10 uF take 30 ms to fall by 0.55 V."""
REQUIRED_CAPABILITIES = {
    Experiment.RETENTION: Capability.RETENTION,
    Experiment.SLEEP: Capability.SLEEP,
    Experiment.READ: Capability.READ_LOW,
    Experiment.WRITE: Capability.WRITE_LOW,
}


def run_experiment(
    link: Link,
    setting: Setting,
    pattern: Pattern,
    seed: int = 0,
    pages: range | None = None,
    report: ReportMode = ReportMode.COMPARE,
) -> ExperimentResult:
    """Fill pages with a pattern at nominal voltage, run an experiment, and return the wrong cells.

    Args:
        link: the board.
        setting: the experiment and its operating point.
        pattern: what the pages hold.
        seed: of Pattern.RANDOM.
        pages: consecutive pages of the arena; all by default.
        report: how wrong cells are found.

    Raises:
        BoardError: the board cannot run this experiment, cells are wrong before the voltage falls, or the firmware's code changed.
        VoltageRefused: the board refused the voltage or did not confirm it.
        LinkError: bytes were lost on the line.
    """
    if not link.board.can(REQUIRED_CAPABILITIES[setting.experiment]):
        found = f"the firmware of this {link.board.chip} cannot do it"
        raise BoardError(f"The experiment {setting.experiment}", found, "Choose another, or flash the image of this version")
    area = _PatternArea(link, pattern, seed, pages if pages is not None else range(link.board.pages))
    first_crc = link.info().image_crc
    area.prepare(inverted=setting.experiment is Experiment.WRITE)
    pulses: list[Pulse] = []
    if setting.experiment is Experiment.READ:
        cells = area.find_wrong_cells_while_low(setting, report, pulses)
    else:
        pulses.append(area.lower(setting))
        cells = area.find_wrong_cells(report)
    if any(pulse.image_crc != first_crc for pulse in pulses):
        link.device_errors += 1
        raise BoardError("An experiment", "the firmware's own code changed while the voltage was low", "Flash the board again")
    return ExperimentResult(np.asarray(cells, np.int64), tuple(pulses))


@dataclass(frozen=True)
class _PatternArea:
    """Pages of a board's arena and what they should hold."""

    link: Link
    pattern: Pattern
    seed: int
    pages: range

    def body(self, pattern: int) -> bytes:
        return struct.pack("<HHBI", self.pages.start, len(self.pages), pattern, self.seed)

    def prepare(self, inverted: bool) -> None:
        pattern = self.pattern | (INVERTED if inverted else 0)
        self.link.fill(self.pages.start, len(self.pages), pattern, self.seed)
        if wrong := self.link.compare(self.pages.start, len(self.pages), pattern, self.seed):
            self.link.device_errors += 1
            raise BoardError("Filling the arena at nominal voltage", f"{len(wrong)} cells differ", "Check the supply")

    def lower(self, setting: Setting) -> Pulse:
        match setting.experiment:
            case Experiment.SLEEP:
                return self.link.sleep(setting.code, setting.dwell_us)
            case Experiment.WRITE:
                return self.link.while_low(Command.FILL_LOW, setting.code, setting.dwell_us, self.body(self.pattern))[0]
            case _:
                return self.link.pulse(setting.code, setting.dwell_us)

    # --- at nominal voltage, afterwards -------------------------------------------------------------------------------------------

    def find_wrong_cells(self, report: ReportMode) -> list[int]:
        link, pages = self.link, self.pages
        if report is ReportMode.COMPARE:
            return link.compare(pages.start, len(pages), self.pattern, self.seed)
        if report is ReportMode.CRCS:
            crcs = link.page_crcs(pages.start, len(pages))
            pages_read = [page for page, crc in zip(pages, crcs, strict=True) if crc != zlib.crc32(self.expected(page))]
        else:
            pages_read = list(pages)
        contents = link.read_pages(pages_read)
        return [cell for page, content in zip(pages_read, contents, strict=True) for cell in self.wrong_cells(page, content)]

    # --- while low ----------------------------------------------------------------------------------------------------------------

    def find_wrong_cells_while_low(self, setting: Setting, report: ReportMode, pulses: list[Pulse]) -> list[int]:
        def ask(command: Command, body: bytes) -> bytes:
            pulse, reply = self.link.while_low(command, setting.code, setting.dwell_us, body)
            pulses.append(pulse)
            return reply

        if report is ReportMode.COMPARE:
            return self._compare_low(ask)
        cells: list[int] = []
        for page in self._unequal_pages_low(ask) if report is ReportMode.CRCS else self.pages:
            reply = ask(Command.READ_LOW, struct.pack("<H", page))
            cells += self.wrong_cells(page, reply[2:])
        return cells

    def _compare_low(self, ask: Callable[[Command, bytes], bytes]) -> list[int]:
        cells: list[int] = []
        start = 0
        while True:
            reply = ask(Command.COMPARE_LOW, self.body(self.pattern) + struct.pack("<I", start))
            total, listed = self.link.parse_flip_list(reply, start)
            cells += listed
            if total == len(listed):
                return cells
            start = cells[-1] + 1

    def _unequal_pages_low(self, ask: Callable[[Command, bytes], bytes]) -> list[int]:
        unequal: list[int] = []
        for start in range(self.pages.start, self.pages.stop, MAX_CRCS):
            count = min(MAX_CRCS, self.pages.stop - start)
            crcs = struct.unpack_from(f"<{count}I", ask(Command.CRCS_LOW, struct.pack("<HB", start, count)), 2)
            unequal += [start + i for i, crc in enumerate(crcs) if crc != zlib.crc32(self.expected(start + i))]
        return unequal

    def expected(self, page: int) -> bytes:
        return pattern_words(self.pattern, self.seed, page * PAGE // 4, PAGE // 4).astype("<u4").tobytes()

    def wrong_cells(self, page: int, content: bytes) -> list[int]:
        differs = np.frombuffer(content, np.uint8) ^ np.frombuffer(self.expected(page), np.uint8)
        return (page * _CELLS + np.flatnonzero(np.unpackbits(differs, bitorder="little"))).tolist()
