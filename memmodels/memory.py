"""The memory protocol: what everything that stores weights can do.

A simulated array, a measured profile, a recording, an ECC wrapper and a board on a serial port look the same to the engine.

    memory.at(**conditions)          -> Memory      same die and contents at another operating point
    memory.write(bits, layout, key)  -> Region      the memory knows the old contents: an unchanged bit cannot fail to switch
    memory.read(region, key, out)    -> ReadReport  the whole region as it is read
    memory.sampler(region)           -> Sampler?    a frozen record from which kernels draw errors, block by block
    memory.cost(region, accesses)    -> Cost        energy and latency, each with its basis

`read` is the definition and every memory has it. `sampler` is optional: a faster way to the same bits.
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
    """Names a draw of random errors.

    Attributes:
        trial: Number of the trial.
        write: Number of the write within the trial.
        read: Number of the read since that write.
    """

    trial: int = 0
    write: int = 0
    read: int = 0


@dataclass(frozen=True, eq=False)
class Region:
    """Bits and the cells that hold them: returned by `Memory.write`, passed to `Memory.read`.

    Attributes:
        layout: What the bits mean.
        first_word: Position in the memory, in 64-bit words.
        written: The bits asked for.
        stored: The bits that the write left in the cells.
        previous: What the cells held before; None if unknown or irrelevant.
        key: Of the write.
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
    """The outcome of one read of a region.

    Attributes:
        flips: Bits that differ from the written ones.
        corrected: Words that the memory corrected.
        erased: Words in which it detected an error that it could not correct.
        commanded: Operating point that was asked for.
        measured: What was measured during the read.
    """

    flips: int
    corrected: int = 0
    erased: int = 0
    commanded: Mapping[str, ConditionValue] = field(default_factory=dict)
    measured: Mapping[str, ConditionValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Quantity:
    """A number with its unit, its basis (how it is known), and its source.

    Energies in joules have the unit `pJ`. A relative energy names its reference in its unit (`x E(Vmin)`); the two are never added.
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
    """The cost of accesses to a region; fields are None if the technology publishes nothing.

    Attributes:
        energy: Of all accesses, in pJ, or relative to the same accesses at a reference point.
        latency: Of one access.
        parts: Contributions to the energy (`read`, `write`, `leakage`, `check bits`, …), in the same unit.
    """

    energy: Quantity | None = None
    latency: Quantity | None = None
    parts: Mapping[str, Quantity] = field(default_factory=dict)


@dataclass(frozen=True)
class Accesses:
    """How often a region is used: reads and writes of the whole region."""

    reads: float
    writes: float = 0.0


@runtime_checkable
class Memory(Protocol):
    """A memory that stores weights; see the head of this module."""

    @property
    def conditions(self) -> Mapping[str, ConditionValue]:
        """The operating point, in the units that the technology documents."""
        ...

    def at(self, **conditions: ConditionValue) -> Memory:
        """Return the same die with the same contents at another operating point.

        Raises:
            MemorySpecError: Unknown condition, or a value out of range.
        """
        ...

    def write(self, bits: Words, layout: Layout, key: Key) -> Region:
        """Store bits. A region of the same name and planes is overwritten in place.

        Args:
            bits: (layout.words,) uint64; spare bits of the last word are 0. The region keeps this array if it is read-only, else
                a copy.
            layout: What the bits mean.
            key: Names the write.
        """
        ...

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        """Read a whole region into `out`, (words,) uint64. A simulated memory returns the same bits for the same key."""
        ...

    def sampler(self, region: Region) -> Sampler | None:
        """Return the region as arrays for kernels, or None if only `read` can tell what is read."""
        ...

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        """Return the cost of accesses to a region at the present operating point."""
        ...
