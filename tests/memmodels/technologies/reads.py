"""Helpers of the technology tests: random bits, write and read them, and errors in decades."""

from __future__ import annotations

import numpy as np

from weakcell.memmodels import Key, Layout, open_memory
from weakcell.memmodels.address import Words, popcount

BITS = 1 << 20


def random_words(bits: int = BITS, seed: int = 1) -> Words:
    return np.random.default_rng(seed).integers(0, 1 << 64, bits // 64, np.uint64)


def wrong_bits(memory, region, read: int = 0, write: int = 0) -> Words:
    """The bits that a read brings back inverted."""
    out = np.empty(region.layout.words, np.uint64)
    memory.read(region, Key(0, write, read), out)
    return out ^ region.written


def written(spec: str, bits: Words | None = None, seed: int = 1):
    """(memory, region) after one write over the cells' first contents."""
    memory = open_memory(spec, seed=seed)
    bits = random_words() if bits is None else bits
    return memory, memory.write(bits, Layout("w", bits.size * 64, 1), Key())


def within(inner: Words, outer: Words) -> bool:
    return popcount(inner & ~outer) == 0


def decades(law: np.ndarray, data: np.ndarray) -> tuple[float, float]:
    """(rms, largest) of log10 law/data."""
    error = np.log10(np.asarray(law) / np.asarray(data))
    return float(np.sqrt(np.mean(error**2))), float(np.abs(error).max())
