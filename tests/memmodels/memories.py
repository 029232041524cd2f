"""Five memories written against the seam, from nothing but `weakcell.memmodels.memory`: what the engine must be able to live with.

uniform      the simulated memory itself, drawn by `read` and by `sampler`
ECC          a wrapper around any memory: SECDED(72,64), check bits stored in the memory that it protects
recording    read-backs of another memory, kept and replayed; what was not recorded is refused
board        a slow device that is read page by page over a transport, has cells of its own, and is colder than it was told
planes       a placement of one tensor in two memories, high bits here and low bits there
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from weakcell.memmodels import (
    Accesses,
    Cost,
    ErrorTerm,
    Key,
    Layout,
    Memory,
    Quantity,
    ReadReport,
    Region,
    Sampler,
    open_memory,
    pack,
    unpack,
)
from weakcell.memmodels.address import Words, popcount
from weakcell.memmodels.definition import Technology, no_cost
from weakcell.memmodels.errors import MemoryFault, MemorySpecError
from weakcell.memmodels.memory import ConditionValue
from weakcell.memmodels.simulated import SimulatedMemory

LAYOUTS = (
    Layout("word", 64, 1),
    Layout("spare bits", 100, 1),
    Layout("less than a word", 9, 4),
    Layout("bytes over a block", 9_000, 8),
    Layout("three of eight planes", 30_001, 8, (0, 3, 7)),
    Layout("many blocks", 300_001, 1),
)
"""Regions that any memory must hold, written in this order: those from the fourth on cross a border of 2^16 cells."""

READS = (0, 1, 2)


def contents(layout: Layout, version: int = 0) -> Words:
    """Random words to store: version 1 differs from version 0 in about half of the bits."""
    rng = np.random.default_rng([layout.elements, layout.width, version])
    return pack(rng.integers(0, 1 << layout.width, layout.elements), layout)


def put(memory: Memory, layout: Layout, version: int = 0) -> Region:
    """Write contents(layout, version) as write number `version` of trial 0."""
    return memory.write(contents(layout, version), layout, Key(0, version, 0))


def get(memory: Memory, region: Region, read: int = 0) -> tuple[Words, ReadReport]:
    """What read number `read` of a region brings; `out` is full of other things before."""
    out = np.full(region.layout.words, 0xA5A5A5A5A5A5A5A5, dtype=np.uint64)
    return out, memory.read(region, Key(0, region.key.write, read), out)


def nothing_known(technology: str, given: Iterable[str], known: Iterable[str]) -> None:
    """MemorySpecError if a condition was given that is not known."""
    for name in set(given) - set(known):
        raise MemorySpecError(f"{technology}: {name}", f"{technology} has no condition {name!r}", f"It has: {', '.join(known)}")


def simulated(*terms: ErrorTerm, seed: int = 1, die: int = 0) -> SimulatedMemory:
    """A memory with exactly these error terms."""
    technology = Technology("terms", "", (), lambda _: terms, no_cost, "", "a test", "assumed")
    return SimulatedMemory(technology, {}, seed, die)


@dataclass(frozen=True, eq=False)
class Parts(Region):
    """A region of a wrapper, kept in regions of other memories."""

    parts: tuple[Region, ...] = ()


# --- ECC ---------------------------------------------------------------------------------------------------------------------

_COLUMNS = np.array([column for column in range(1, 72) if column & (column - 1)])
"""The syndromes of the 64 data bits; those of the seven Hamming check bits are the powers of two."""
_MASKS = [np.uint64(sum(1 << bit for bit in range(64) if _COLUMNS[bit] >> row & 1)) for row in range(7)]
_FIX = np.zeros(128, dtype=np.uint64)
_FIX[_COLUMNS] = np.uint64(1) << np.arange(64, dtype=np.uint64)
_FIXABLE = np.isin(np.arange(128), [0, *(1 << row for row in range(7)), *_COLUMNS])


def _parity(words: Words) -> np.ndarray:
    return np.bitwise_count(words).astype(np.uint8) & 1


def secded_encode(words: Words) -> np.ndarray:
    """Eight check bits of each 64-bit word: seven of a Hamming code, then the parity of all the 71 others (uint8)."""
    checks = sum((_parity(words & mask) << row for row, mask in enumerate(_MASKS)), start=np.zeros(words.size, np.uint8))
    return checks | ((_parity(words) ^ _parity(checks)) << 7)


def secded_decode(words: Words, checks: np.ndarray) -> tuple[Words, np.ndarray, np.ndarray]:
    """(corrected words, which were corrected, which cannot be)."""
    syndrome = (secded_encode(words) ^ checks) & 0x7F
    odd = (_parity(words) ^ _parity(checks)).astype(bool)
    corrected = odd & _FIXABLE[syndrome]
    return words ^ np.where(corrected, _FIX[syndrome], np.uint64(0)), corrected, (odd | (syndrome > 0)) & ~corrected


@dataclass(frozen=True, eq=False)
class EccMemory:
    """SECDED(72,64) around any memory: one error in a word is corrected, two are detected and the word reads as zeros."""

    inner: Memory

    @property
    def conditions(self) -> Mapping[str, ConditionValue]:
        return self.inner.conditions

    def at(self, **conditions: ConditionValue) -> EccMemory:
        return EccMemory(self.inner.at(**conditions))

    def write(self, bits: Words, layout: Layout, key: Key) -> Region:
        code = Layout(f"{layout} check", layout.words, 8)
        data = self.inner.write(bits, layout, key)
        check = self.inner.write(pack(secded_encode(bits), code), code, key)
        return Parts(layout, data.first_word, data.written, data.stored, data.previous, key, (data, check))

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        data, check = region.parts
        checks, codes = np.empty_like(check.written), np.zeros(check.layout.elements, dtype=np.uint64)
        commanded = self.inner.read(data, key, out).commanded
        self.inner.read(check, key, checks)
        unpack(checks, check.layout, codes)
        words, corrected, lost = secded_decode(out, codes.astype(np.uint8))
        cells = pack(np.full(region.layout.elements, -1), region.layout)
        lost |= (words & ~cells) != 0
        zeros = pack(np.full(region.layout.elements, region.layout.erased), region.layout)
        out[:] = np.where(lost, zeros, words)
        flips = popcount(out ^ region.written)
        return ReadReport(flips, int(np.count_nonzero(corrected & ~lost)), int(np.count_nonzero(lost)), commanded)

    def sampler(self, region: Region) -> Sampler | None:
        return None

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        data, check = region.parts
        overhead = 1 + check.layout.bits / data.layout.bits
        energy = self.inner.cost(data, accesses).energy
        return Cost(energy and energy * overhead)


# --- recording ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class RecordingMemory:
    """Read-backs that were taken before: `reads` by operating point, region and read; `regions` as they were written."""

    conditions: Mapping[str, ConditionValue]
    regions: list[Region] = field(default_factory=list)
    reads: dict[tuple[object, ...], tuple[Words, ReadReport]] = field(default_factory=dict)

    def at(self, **conditions: ConditionValue) -> RecordingMemory:
        nothing_known("recording", conditions, self.conditions)
        moved = replace(self, conditions={**self.conditions, **conditions})
        if not any(point == moved._point for point, *_ in self.reads):
            raise MemoryFault(f"A recording at {moved._point}", "nothing was recorded there", "Choose a recorded operating point")
        return moved

    def write(self, bits: Words, layout: Layout, key: Key) -> Region:
        for region in self.regions:
            if region.layout == layout and region.key == key and np.array_equal(region.written, bits):
                return region
        raise MemoryFault(f"Writing {layout} to a recording", "other bits were recorded", "Replay the network that was recorded")

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        recorded = self.reads.get((self._point, id(region), key.trial, key.read))
        if recorded is None:
            raise MemoryFault(f"{key} of {region} from a recording", "it was not recorded", "Read what was recorded")
        out[:] = recorded[0]
        return recorded[1]

    def sampler(self, region: Region) -> Sampler | None:
        return None

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        return Cost()

    @property
    def _point(self) -> tuple[tuple[str, ConditionValue], ...]:
        return tuple(sorted(self.conditions.items()))


def record(memory: Memory, points: Iterable[Mapping[str, ConditionValue]]) -> RecordingMemory:
    """Record both versions of LAYOUTS, all READS of them, at all `points`."""
    tape = RecordingMemory(memory.conditions)
    for version in (0, 1):
        written = [put(memory, layout, version) for layout in LAYOUTS]
        tape.regions.extend(written)
        for point in points:
            there, place = memory.at(**point), replace(tape, conditions={**memory.conditions, **point})._point
            tape.reads.update({(place, id(region), 0, read): get(there, region, read) for region in written for read in READS})
    return tape


# --- a slow board ------------------------------------------------------------------------------------------------------------

PAGE = 256


@dataclass(eq=False)
class FakeTransport:
    """A device behind a wire: pages of an SRAM whose supply sits 13 mV lower than it was told.

    Its die: each cell has a threshold voltage below which it returns the value it prefers; within 0.2 mV of it, a coin decides.
    """

    die: int = 0
    pages: int = 2048
    supply: float = 1.1
    pages_read: int = 0
    pages_written: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng([2040, self.die])
        self.sram = rng.integers(0, 256, (self.pages, PAGE), dtype=np.uint8)
        self.prefers = rng.integers(0, 256, (self.pages, PAGE), dtype=np.uint8)
        self.threshold = rng.normal(0.45, 0.05, (self.pages, PAGE * 8)).astype(np.float32)
        self.coins = np.random.default_rng([self.die, 1])

    @property
    def measured(self) -> float:
        return self.supply - 0.013

    def write_page(self, page: int, data: bytes) -> None:
        self.pages_written += 1
        self.sram[page] = np.frombuffer(data, dtype=np.uint8)

    def read_page(self, page: int) -> bytes:
        self.pages_read += 1
        distance = self.threshold[page] - self.measured + self.coins.uniform(-2e-4, 2e-4, PAGE * 8)
        fails = np.packbits(distance > 0, bitorder="little")
        return bytes((self.sram[page] & ~fails) | (self.prefers[page] & fails))


@dataclass(frozen=True, eq=False)
class FakeBoard:
    """The memory that such a device is; it has no seed, and the same key need not bring the same bits."""

    wire: FakeTransport
    vdd: float = 1.1
    contents: dict[tuple[str, tuple[int, ...]], Region] = field(default_factory=dict)

    @property
    def conditions(self) -> Mapping[str, ConditionValue]:
        return {"vdd": self.vdd}

    def at(self, **conditions: ConditionValue) -> FakeBoard:
        nothing_known("board", conditions, self.conditions)
        vdd = float(conditions.get("vdd", self.vdd))
        if not 0.3 <= vdd <= 1.1:
            raise MemorySpecError(f"board: vdd={vdd}", "the valid range is 0.3 … 1.1 V", "Never above nominal")
        return replace(self, vdd=vdd)

    def write(self, bits: Words, layout: Layout, key: Key) -> Region:
        old = self.contents.get((layout.name, layout.planes))
        words = sum(region.layout.words for region in self.contents.values())
        if (old is None and (words + layout.words) * 8 > self.wire.pages * PAGE) or (old and old.layout.bits != layout.bits):
            raise MemoryFault(f"Writing {layout}", "there is no room for it", "Stream it in passes")
        first = old.first_word if old else words
        region = Region(layout, first, bits.copy(), bits.copy(), old and old.stored, key)
        self.wire.supply = 1.1
        begin, page = first * 8, first * 8 // PAGE
        image = bytearray(self._read_pages(begin, layout.words * 8))
        offset = begin - page * PAGE
        image[offset : offset + layout.words * 8] = bits.tobytes()
        for i in range(len(image) // PAGE):
            self.wire.write_page(page + i, bytes(image[i * PAGE : (i + 1) * PAGE]))
        self.contents[layout.name, layout.planes] = region
        return region

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        self.wire.supply = self.vdd
        begin = region.first_word * 8
        image = self._read_pages(begin, out.size * 8)
        out[:] = np.frombuffer(image, dtype=np.uint64, offset=begin % PAGE, count=out.size)
        out &= pack(np.full(region.layout.elements, -1), region.layout)
        return ReadReport(popcount(out ^ region.written), commanded=self.conditions, measured={"vdd": self.wire.measured})

    def sampler(self, region: Region) -> Sampler | None:
        return None

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        return Cost(latency=Quantity(accesses.reads * region.layout.words * 8 / 45e3, "s", "assumed", "45 kB/s over the wire"))

    def _read_pages(self, begin: int, size: int) -> bytes:
        """The whole pages that hold `size` bytes from `begin` on."""
        return b"".join(self.wire.read_page(page) for page in range(begin // PAGE, -(-(begin + size) // PAGE)))


# --- two bit planes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PlaneMemory:
    """A placement: the upper half of a tensor's bits in `high`, the others in `low`; conditions are called high_… and low_…"""

    high: Memory
    low: Memory

    @property
    def conditions(self) -> Mapping[str, ConditionValue]:
        high = {f"high_{name}": value for name, value in self.high.conditions.items()}
        return high | {f"low_{name}": value for name, value in self.low.conditions.items()}

    def at(self, **conditions: ConditionValue) -> PlaneMemory:
        nothing_known("planes", conditions, self.conditions)
        high = {name.removeprefix("high_"): value for name, value in conditions.items() if name.startswith("high_")}
        low = {name.removeprefix("low_"): value for name, value in conditions.items() if name.startswith("low_")}
        return PlaneMemory(self.high.at(**high), self.low.at(**low))

    def write(self, bits: Words, layout: Layout, key: Key) -> Region:
        codes = np.zeros(layout.elements, dtype=np.uint64)
        unpack(bits, layout, codes)
        parts = []
        for memory, planes in self._split(layout):
            part = replace(layout, planes=planes)
            parts.append(memory.write(pack(codes, part), part, key))
        stored = self._join(layout, [part.stored for part in parts], parts)
        known = all(part.previous is not None for part in parts)
        previous = self._join(layout, [part.previous for part in parts], parts) if known else None
        return Parts(layout, parts[0].first_word, bits.copy(), stored, previous, key, tuple(parts))

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        words, reports = [], []
        for part, (memory, _) in zip(region.parts, self._split(region.layout), strict=True):
            words.append(np.empty_like(part.written))
            reports.append(memory.read(part, key, words[-1]))
        out[:] = self._join(region.layout, words, region.parts)
        return ReadReport(sum(report.flips for report in reports), commanded=self.conditions)

    def sampler(self, region: Region) -> Sampler | None:
        return None

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        return Cost()

    def _split(self, layout: Layout) -> list[tuple[Memory, tuple[int, ...]]]:
        half = len(layout.planes) // 2
        halves = (self.high, layout.planes[half:]), (self.low, layout.planes[:half])
        return [(memory, planes) for memory, planes in halves if planes]

    @staticmethod
    def _join(layout: Layout, words: list[Words], parts: Iterable[Region]) -> Words:
        codes = np.zeros(layout.elements, dtype=np.uint64)
        for part, part_words in zip(parts, words, strict=True):
            unpack(part_words, part.layout, codes)
        return pack(codes, layout)


# --- the cases ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A memory to hold against the contract, and what must be true of it.

    spec: what `build` makes it of. worse: conditions with more errors. varies: other reads bring other errors.
    repeats: the same key brings the same bits. drawn: it hands out samplers. nested: errors stay where conditions get worse.
    made_by_writes: conditions matter at writes only.
    """

    name: str
    spec: str
    worse: Mapping[str, ConditionValue]
    varies: bool = False
    repeats: bool = True
    drawn: bool = False
    nested: bool = False
    made_by_writes: bool = False

    def build(self, seed: int = 1, die: int = 0) -> Memory:
        """A fresh memory of this kind."""
        if self.name.startswith("board"):
            return FakeBoard(FakeTransport(die), 0.4)
        inner = open_memory(self.spec, seed, die)
        if self.name.startswith("ecc"):
            return EccMemory(inner)
        if self.name.startswith("recording"):
            return record(inner, [{}, self.worse])
        if self.name.startswith("planes"):
            return PlaneMemory(open_memory("uniform:ber=0.001", seed, die, array=1), inner)
        return inner


CASES = (
    Case("uniform", "uniform:ber=0.02", {"ber": 0.2}, varies=True, drawn=True),
    Case("uniform, asymmetric", "uniform:p01=0.02,p10=0.3", {"p01": 0.4}, varies=True, drawn=True),
    Case("uniform, per write", "uniform:ber=0.02,lifetime=write", {"ber": 0.2}, drawn=True, made_by_writes=True),
    Case("uniform, per die", "uniform:ber=0.02,lifetime=die", {"ber": 0.2}, drawn=True, nested=True),
    Case("sram", "sram-14nm:v_over_vmin=0.85", {"v_over_vmin": 0.76}, drawn=True, nested=True),
    Case("ecc around uniform", "uniform:ber=0.01", {"ber": 0.05}, varies=True),
    Case("ecc around a die", "sram-14nm:v_over_vmin=0.85", {"v_over_vmin": 0.8}),
    Case("recording of uniform", "uniform:ber=0.02", {"ber": 0.2}, varies=True),
    Case("recording of a die", "sram-14nm:v_over_vmin=0.85", {"v_over_vmin": 0.76}, nested=True),
    Case("board", "", {"vdd": 0.36}, repeats=False),
    Case("planes", "uniform:ber=0.2", {"high_ber": 0.4}, varies=True),
)
