"""The seam: what everything that stores weights can do.

A simulated array, a measured profile, a recording, an ECC wrapper and a board on a serial port are the same thing to the engine.

    memory.at(**conditions)          -> Memory      same die, same contents, another operating point
    memory.write(bits, layout, key)  -> Region      remembers what was there: a write that switches nothing cannot fail
    memory.read(region, key, out)    -> ReadReport  the whole region as it comes back
    memory.sampler(region)           -> Sampler?    a frozen record that kernels draw from, block by block
    memory.cost(region, accesses)    -> Cost        energy and latency, each with its basis

`read` is the truth and every memory has it; `sampler` is an optional faster road to the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from weakcell.memmodels.address import Layout, Words
from weakcell.memmodels.errors import MemoryFault
from weakcell.memmodels.sampling.sampler import Sampler

Basis = Literal["measured", "published", "computed", "assumed"]
ConditionValue = float | str


class Key(NamedTuple):
    """Which draw is meant: the trial, the number of the write in it, and the number of the read since that write."""

    trial: int = 0
    write: int = 0
    read: int = 0


@dataclass(frozen=True, eq=False)
class Region:
    """Bits that were written and where: made by `Memory.write`, given back to `Memory.read`.

    first_word: the region's place in the memory, in 64-bit words. written: the bits asked for. stored: what the write left in
    the cells. previous: what they held before, None if that is not known, or makes no difference. key: of the write.
    """

    layout: Layout
    first_word: int
    written: Words
    stored: Words
    previous: Words | None
    key: Key

    def __repr__(self) -> str:
        return f"Region<{self.layout}: {self.layout.bits} bits at word {self.first_word}>"


@dataclass(eq=False)
class RegionStore:
    """The regions that a memory holds, by tensor name and planes. Each starts on a page of its own.

    Attributes:
        page_words: Words of a page.
        words: Words in use.
    """

    page_words: int = 1
    words: int = 0
    regions: dict[tuple[str, tuple[int, ...]], Region] = field(default_factory=dict)

    def locate(self, bits: Words, layout: Layout) -> tuple[int, Region | None]:
        """Return (first word of the region to write, the region that it replaces or None).

        Raises:
            ValueError: `bits` does not fit the layout.
            MemoryFault: A region of that name and planes has another size.
        """
        layout.check_words(bits)
        old = self.regions.get((layout.name, layout.planes))
        if old is not None and old.layout.bits != layout.bits:
            raise MemoryFault(
                f"Writing {layout.bits} bits as {layout}",
                f"a region of that name with {old.layout.bits} bits is already there",
                "Give the tensor another name, or open a new memory",
            )
        return (self.words if old is None else old.first_word), old

    def put(self, region: Region) -> Region:
        """Keep a region, in place of one of the same name and planes, and return it."""
        pages = -(-region.layout.words // self.page_words)
        self.words = max(self.words, region.first_word + pages * self.page_words)
        self.regions[region.layout.name, region.layout.planes] = region
        return region

    def write(self, bits: Words, layout: Layout, key: Key) -> Region:
        """Keep a copy of `bits` as a region whose cells hold exactly what was written, and return it."""
        first_word, old = self.locate(bits, layout)
        return self.put(Region(layout, first_word, bits.copy(), bits.copy(), old.stored if old else None, key))


@dataclass(frozen=True)
class ReadReport:
    """What one read of a region did: bits that differ from those written, and what the memory knows about it."""

    flips: int
    corrected: int = 0
    erased: int = 0
    commanded: Mapping[str, ConditionValue] = field(default_factory=dict)
    measured: Mapping[str, ConditionValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Quantity:
    """A number with its unit, how it is known, and from where.

    Joules have unit `pJ`. A relative figure has a unit that names its reference (`x E(Vmin)`), and never meets joules in a sum.
    """

    value: float
    unit: str
    basis: Basis
    source: str

    def __mul__(self, factor: float) -> Quantity:
        return Quantity(self.value * factor, self.unit, self.basis, self.source)

    def __str__(self) -> str:
        return f"{self.value:.4g} {self.unit} ({self.basis})"


@dataclass(frozen=True)
class Cost:
    """What accesses to a region cost; None where the technology publishes nothing.

    energy: of the accesses in all, in pJ; or relative to the same accesses at a reference point. parts: what it is made of
    (`read`, `write`, `leakage`, `check bits` …), in the same unit. latency: of one access.
    """

    energy: Quantity | None = None
    latency: Quantity | None = None
    parts: Mapping[str, Quantity] = field(default_factory=dict)


@dataclass(frozen=True)
class Accesses:
    """How often a region is used: whole-region reads and writes."""

    reads: float
    writes: float = 0.0


@runtime_checkable
class Memory(Protocol):
    """Where weights are stored; see the head of this module."""

    @property
    def conditions(self) -> Mapping[str, ConditionValue]:
        """The operating point, in the units that the technology documents."""
        ...

    def at(self, **conditions: ConditionValue) -> Memory:
        """The same die with the same contents at another operating point; unknown names and values out of range are refused."""
        ...

    def write(self, bits: Words, layout: Layout, key: Key) -> Region:
        """Store `bits` (uint64 words, see `address`); a layout of the same name and planes is overwritten in place.

        The region may keep `bits` themselves if they are read-only, else a copy.
        """
        ...

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        """Read the whole region into `out`; the same key gives the same bits from a memory that is simulated."""
        ...

    def sampler(self, region: Region) -> Sampler | None:
        """The region as arrays for kernels, or None if only `read` can tell what comes back."""
        ...

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        """What these accesses cost at the present operating point."""
        ...
