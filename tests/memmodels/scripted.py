"""A memory whose errors are chosen cell by cell, and codes read back through a wrapper."""

from __future__ import annotations

import numpy as np

from tests.memmodels.memories import get
from weakcell.memmodels import Accesses, Cost, Key, Layout, Memory, ReadReport, pack, unpack
from weakcell.memmodels.address import Words, popcount
from weakcell.memmodels.memory import Region


class Scripted:
    """A memory that flips chosen cells of chosen regions: {layout name: addresses}."""

    def __init__(self, flips: dict[str, list[int]], cost: Cost | None = None) -> None:
        self.flips, self.price, self.words = flips, cost or Cost(), 0

    conditions: dict[str, float] = {}  # noqa: RUF012

    def at(self, **conditions: float) -> Scripted:
        return self

    def write(self, bits: Words, layout: Layout, key: Key) -> Region:
        region = Region(layout, self.words, bits.copy(), bits.copy(), None, key)
        self.words += layout.words
        return region

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        out[:] = region.written
        for place in self.flips.get(region.layout.name, []):
            out[place // 64] ^= np.uint64(1 << place % 64)
        return ReadReport(popcount(out ^ region.written), commanded={})

    def sampler(self, region: Region) -> None:
        return None

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        if self.price.energy is None:
            return Cost()
        energy = self.price.energy * (region.layout.bits if self.price.energy.unit == "pJ" else 1)
        return Cost(energy, self.price.latency, {"read": energy})


def codes_read(memory: Memory, layout: Layout, codes: np.ndarray) -> tuple[np.ndarray, ReadReport]:
    region = memory.write(pack(codes, layout), layout, Key())
    words, report = get(memory, region)
    read = np.zeros(layout.elements, dtype=np.uint64)
    unpack(words, layout, read)
    return read, report
