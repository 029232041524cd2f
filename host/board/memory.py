"""A board as a memory: what is read came through real (or virtual) SRAM at a lowered voltage.

A read streams the region through the arena in passes. Each pass is: write the pages, ask for their CRCs (they must be right: what
is wrong now is the device's error and no memory flip), lower the voltage, restore it, ask for the CRCs again, and read back the
pages whose CRC changed. Passes share cells, and so faults. A pass that the link breaks is repeated from its beginning; nothing of
a broken pass is counted. A page whose flips leave its CRC-32 unchanged is missed unless `read_all`: at most once in 2^32 pages
that flip, and never for one to three flips.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from host.board.errors import BoardError, LinkError, VoltageRefused
from host.board.link import Link
from host.board.protocol import MAX_DWELL_US, PAGE, Board, Pulse
from memmodels.address import Layout, Words, popcount
from memmodels.errors import MemoryFault, MemorySpecError
from memmodels.memory import Accesses, ConditionValue, Cost, Key, ReadReport, Region
from memmodels.sampler import Sampler

_PAGE_WORDS = PAGE // 8
_ATTEMPTS = 3


@dataclass
class BoardCounters:
    """Errors by where they happened. Only `memory_flips` are flips of cells; frames are counted by the link."""

    passes: int = 0
    broken_passes: int = 0
    device_errors: int = 0
    pages_read: int = 0
    memory_flips: int = 0


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
    counters: BoardCounters = field(default_factory=BoardCounters)
    _contents: _Contents = field(default_factory=_Contents, repr=False)

    def __post_init__(self) -> None:
        code_of(self.link.board, self.vdd)
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
        back, done, pulse, passes = bytearray(data), 0, None, 0
        while done < pages:
            cell_page = (first + done) % self.link.board.pages
            count = min(pages - done, self.link.board.pages - cell_page)
            part = slice(done * PAGE, (done + count) * PAGE)
            back[part], pulse = self._pass(cell_page, data[part])
            done, passes = done + count, passes + 1
        out[:] = np.frombuffer(back, "<u8")[: region.layout.words]
        out[-1:] = (out[-1:] & region.layout.last_mask) | (region.written[-1:] & ~region.layout.last_mask)
        flips = popcount(out ^ region.written)
        self.counters.memory_flips += flips
        told = {} if pulse is None else {"vdd_register": self.link.board.volts(pulse.low_code), "dwell_s": pulse.dwell_us / 1e6}
        return ReadReport(flips, commanded=self.conditions, measured={**told, "passes": float(passes)})

    def sampler(self, region: Region) -> Sampler | None:
        """None: only the board can tell what comes back."""
        return None

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        """Nothing is known about the energy of a board's SRAM."""
        return Cost()

    # --- passes -----------------------------------------------------------------------------------------------------------------

    def _pass(self, first: int, data: bytes) -> tuple[bytes, Pulse]:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                done = self._try_pass(first, data)
            except LinkError:
                self.counters.broken_passes += 1
                if attempt == _ATTEMPTS:
                    raise
            else:
                self.counters.passes += 1
                return done
        raise AssertionError

    def _try_pass(self, first: int, data: bytes) -> tuple[bytes, Pulse]:
        link, count = self.link, len(data) // PAGE
        code, image_crc = code_of(link.board, self.vdd), link.info().image_crc
        pages = range(first, first + count)
        contents = [data[at : at + PAGE] for at in range(0, len(data), PAGE)]
        wanted = [zlib.crc32(content) for content in contents]
        link.write_pages(pages, contents)
        if link.page_crcs(first, count) != wanted:
            self._device_error("Writing pages at nominal voltage", "the board's CRCs differ from what was written")
        pulse = link.pulse(code, round(self.dwell_s * 1e6))
        if pulse.image_crc != image_crc:
            self._device_error("A pulse", "the firmware's own code changed while the voltage was low")
        crcs = link.page_crcs(first, count)
        changed = [number for number in range(count) if self.read_all or crcs[number] != wanted[number]]
        found = link.read_pages([first + number for number in changed])
        self.counters.pages_read += len(found)
        for number, content in zip(changed, found, strict=True):
            if zlib.crc32(content) != crcs[number]:
                self._device_error(f"Reading page {first + number}", "two looks at nominal voltage disagree")
            contents[number] = content
        return b"".join(contents), pulse

    def _device_error(self, asked: str, found: str) -> None:
        self.counters.device_errors += 1
        raise BoardError(asked, found, "Nothing was counted; reset the board, and raise the voltage if it happens again")


def code_of(board: Board, vdd: float) -> int:
    """The regulator code of a voltage in V; VoltageRefused above nominal, below the minimum or between two codes."""
    asked = f"A core voltage of {vdd:g} V"
    low, high = board.volts(board.minimum_code), board.volts(board.nominal_code)
    if not low - 1e-6 <= vdd <= high + 1e-6:
        raise VoltageRefused(
            asked, f"the {board.chip} allows {low:.2f} to {high:.2f} V here, never above nominal", "Choose one of these"
        )
    code = round((vdd - 0.55) / 0.05)
    if abs(board.volts(code) - vdd) > 1e-6:
        raise VoltageRefused(asked, "the regulator has steps of 0.05 V", f"Choose {board.volts(code):.2f} V or a neighbour")
    return code


def _check(words: Words, layout: Layout) -> None:
    if words.dtype != np.uint64 or words.shape != (layout.words,):
        raise ValueError(f"{layout}: {words.shape} words of {words.dtype}, where ({layout.words},) of uint64 are needed")
