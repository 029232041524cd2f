"""One pass through the arena: write pages, verify them, lower the voltage, restore it, and read back what changed.

A cell that is wrong before the voltage falls is a device error, not a memory flip. A read-back whose two reads at nominal voltage
differ is reported as a device error, never as memory flips.

A generated pattern is compared on the board. If more cells differ than one reply lists, and for given bytes, the board reports the
CRC of each page, and only pages whose CRC changed are read. A page whose flips leave its CRC-32 unchanged is missed unless
`read_all`: at most one in 2^32 pages with flips, and never one with one to three flips.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weakcell.host.board.characterization.patterns import Contents, GeneratedPattern
from weakcell.host.board.characterization.supply import LowPhase
from weakcell.host.board.errors import BoardError
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import PAGE
from weakcell.memmodels.address import Words, popcount
from weakcell.memmodels.errors import UsageError


@dataclass
class BoardCounters:
    """Errors by where they happened. Only `memory_flips` are flips of cells.

    Attributes:
        passes: completed passes.
        broken_passes: passes that were repeated because the link broke.
        device_errors: failed checks of the board itself.
        pages_read: pages that were read back.
        memory_flips: flips of cells, in regions that were read.
        images_computed: images that the board itself computed.
    """

    passes: int = 0
    broken_passes: int = 0
    device_errors: int = 0
    pages_read: int = 0
    memory_flips: int = 0
    images_computed: int = 0


@dataclass(frozen=True, eq=False)
class PassResult:
    """The result of a pass.

    Attributes:
        errors: (words,) uint64, read XOR written, of all pages.
        applied: what the supply did.
    """

    errors: Words
    applied: LowPhase


def run_pass(
    link: Link,
    first: int,
    pages: int,
    contents: Contents,
    lower: Callable[[], LowPhase],
    counters: BoardCounters,
    *,
    read_all: bool = False,
) -> PassResult:
    """Run one pass.

    Args:
        link: the board.
        first: first page.
        pages: number of pages.
        contents: what to write.
        lower: lowers the voltage and restores it.
        counters: are updated; a LinkError leaves them unchanged.
        read_all: read back all pages, not only those whose CRC changed.

    Raises:
        BoardError: a check of the board failed.
        LinkError: bytes were lost on the line.
    """
    arena = ArenaPass(link, first, pages, contents, counters)
    image_crc = link.info().image_crc
    arena.write()
    applied = lower()
    if link.info().image_crc != image_crc:
        raise arena.device_error("Lowering the voltage", "the firmware's own code changed while the voltage was low")
    errors = arena.errors(read_all)
    counters.passes += 1
    return PassResult(errors, applied)


def count_arena_pages(link: Link, kib: int | None) -> int:
    """Return the pages under test: all, or those of the first `kib` KiB; UsageError if there are fewer."""
    if kib is None:
        return link.board.pages
    pages = kib * 1024 // PAGE
    if not 0 < pages <= link.board.pages:
        found = f"the {link.board.chip} has {link.board.arena_bytes // 1024} KiB"
        raise UsageError(f"An arena of {kib} KiB", found, "Choose no more than that")
    return pages


@dataclass(frozen=True)
class ArenaPass:
    """The pages of one pass."""

    link: Link
    first: int
    pages: int
    contents: Contents
    counters: BoardCounters

    def write(self) -> None:
        """Write the pages at nominal voltage and verify them."""
        link, contents = self.link, self.contents
        if isinstance(contents, GeneratedPattern):
            link.fill(self.first, self.pages, contents.pattern, contents.seed)
            wrong, _ = link.compare_once(self.first, self.pages, contents.pattern, contents.seed)
            if wrong:
                raise self.device_error("Filling pages at nominal voltage", f"{wrong} cells differ from the pattern")
            return
        numbers = range(self.first, self.first + self.pages)
        link.write_pages(numbers, [contents.data[at : at + PAGE] for at in range(0, self.pages * PAGE, PAGE)])
        if link.page_crcs(self.first, self.pages) != self._expected_crcs():
            raise self.device_error("Writing pages at nominal voltage", "the board's CRCs differ from what was written")

    def errors(self, read_all: bool) -> Words:
        """Return read XOR written, (words,) uint64."""
        contents = self.contents
        if not isinstance(contents, GeneratedPattern):
            return self._read(read_all)
        total, cells = self.link.compare_once(self.first, self.pages, contents.pattern, contents.seed)
        if total == len(cells) and not read_all:
            return pack_cells(np.array(cells, np.int64) - self.first * PAGE * 8, self.pages)
        errors = self._read(read_all)
        if popcount(errors) != total:
            found = f"{popcount(errors)} cells differ in the bytes that were read, {total} by the board's own comparison"
            raise self.device_error("Reading back", found)
        return errors

    def _read(self, read_all: bool) -> Words:
        """Return read XOR written, from the pages whose CRC changed, or all."""
        link, expected_crcs = self.link, self._expected_crcs()
        crcs = link.page_crcs(self.first, self.pages)
        changed = [number for number in range(self.pages) if read_all or crcs[number] != expected_crcs[number]]
        found = link.read_pages([self.first + number for number in changed])
        self.counters.pages_read += len(found)
        errors = np.zeros((self.pages, PAGE // 8), np.uint64)
        expected = self.contents.words(self.first, self.pages).reshape(errors.shape)
        for number, content in zip(changed, found, strict=True):
            if zlib.crc32(content) != crcs[number]:
                raise self.device_error(f"Reading page {self.first + number}", "two looks at nominal voltage disagree")
            errors[number] = np.frombuffer(content, "<u8") ^ expected[number]
        return errors.reshape(-1)

    def _expected_crcs(self) -> list[int]:
        data = self.contents.words(self.first, self.pages).tobytes()
        return [zlib.crc32(data[at : at + PAGE]) for at in range(0, len(data), PAGE)]

    def device_error(self, asked: str, found: str) -> BoardError:
        """Count a device error and return it."""
        self.counters.device_errors += 1
        return BoardError(asked, found, "Nothing was counted; reset the board, and raise the voltage if it happens again")


def pack_cells(cells: npt.NDArray[np.int64], pages: int) -> Words:
    """Return the words of `pages` pages in which exactly these cells are set, (words,) uint64."""
    words = np.zeros(pages * PAGE // 8, np.uint64)
    np.bitwise_xor.at(words, cells // 64, np.uint64(1) << (cells % 64).astype(np.uint64))
    return words
