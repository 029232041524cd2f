"""Protection that costs time: several reads and their majority."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from weakcell.memmodels.address import Layout, Words, popcount
from weakcell.memmodels.memory import Accesses, Cost, Key, Region
from weakcell.memmodels.protection.check_bits import ProtectedRegion, ProtectedReport, Wrapper, inner_regions


@dataclass(frozen=True, eq=False)
class Majority(Wrapper):
    """A wrapper that reads every region `reads` times, an odd number, and returns the majority of each bit.

    It helps against errors that are drawn at each read. An error of the lifetime `die` or `write` is in every read.
    """

    reads: int = 3

    def write(self, bits: Words, layout: Layout, key: Key) -> ProtectedRegion:
        """Store bits."""
        inner = self.inner.write(bits, layout, key)
        return ProtectedRegion(layout, inner.first_word, inner.written, inner.stored, inner.previous, key, (inner,))

    def read(self, region: Region, key: Key, out: Words) -> ProtectedReport:
        """Read a region. `corrected` counts bits on which the reads differ."""
        (inner,) = inner_regions(region)
        seen = np.empty((self.reads, out.size), dtype=np.uint64)
        reports = [self.inner.read(inner, key._replace(read=key.read * self.reads + i), seen[i]) for i in range(self.reads)]
        counts = np.zeros(out.size * 64, dtype=np.uint8)
        for words in seen:
            counts += np.unpackbits(words.view(np.uint8), bitorder="little")
        out[:] = np.packbits(counts > self.reads // 2, bitorder="little").view(np.uint64)
        differ = np.bitwise_or.reduce(seen ^ out, axis=0)
        last = reports[-1]
        dropped = [report.dropped for report in reports if isinstance(report, ProtectedReport) and report.dropped is not None]
        return ProtectedReport(
            popcount(out ^ region.written),
            popcount(differ) + sum(report.corrected for report in reports),
            sum(report.erased for report in reports),
            last.commanded,
            last.measured,
            dropped=np.bitwise_and.reduce(dropped) if len(dropped) == self.reads else None,
        )

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        """Return the cost of all the reads. An access takes as long as they do, one after the other."""
        (inner,) = inner_regions(region)
        cost = self.inner.cost(inner, replace(accesses, reads=accesses.reads * self.reads))
        return cost if cost.latency is None else replace(cost, latency=cost.latency * self.reads)
