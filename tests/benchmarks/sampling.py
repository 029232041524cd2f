"""Exact sampling of errors, against a Bernoulli mask from torch on the same bits; one thread, interleaved.

    python tests/benchmarks/sampling.py [--rounds 15] [--json FILE]

Reads: all flips of a 4-Mbit region (2048 x 2048 signs) at one read, drawn inside one compiled call. Maps: the weak cells of a die,
drawn once for all its reads at an operating point. Theirs: torch.bernoulli on one float32 per bit. Every candidate runs once per
round, after an untimed call that brings what it touches into the cache; a row is the median over rounds, in microseconds of
processor time per 2^20 bits, and the median ratio to torch and to the independent, symmetric errors of the same rate and lifetime.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from weakcell.memmodels import ErrorTerm, Key, Layout, Lifetime, open_memory
from weakcell.memmodels.error_model.structure import Bank, Lines, Shared
from weakcell.memmodels.sampling.dies import weak_cells
from weakcell.memmodels.sampling.sampler import draw_region

MBIT = 4
LAYOUT = Layout("w", MBIT << 20, 1)
RATES = (1e-6, 1e-4, 1e-3, 3e-3, 1e-2, 2e-2, 3e-2, 0.05, 0.1, 0.2, 0.3, 0.4, 0.47, 0.5, 0.7)
READS = {f"uniform:ber={p:g}": f"uniform:ber={p:g}" for p in RATES} | {
    "uniform:p01=0.01,p10=0.001": "uniform:ber=0.01",
    "uniform:p01=0.1,p10=0.3": "uniform:ber=0.3",
    "eden:p=0.02,f=0.5": "uniform:ber=0.01",
    "eden:p=0.02,f=0.5,structure=bitline,share=0.42,rows=512,columns=1024": "uniform:ber=0.01",
    "eden:p=0.02,f=0.5,structure=wordline,share=0.3,rows=512,columns=8192": "uniform:ber=0.01",
}
"""SPEC -> the one that it is compared with."""

STRUCTURES = {
    "columns of 1024": Shared("column", 0.42, Bank(1024, 16)),
    "blocks of 1024 x 16": Shared("bank", 0.25, Bank(1024, 16)),
    "bitlines of 512": Shared("column", 0.42, Bank(512, 1024)),
    "wordlines of 8192": Shared("row", 0.3, Bank(512, 8192)),
    "wordlines of 64": Shared("row", 0.3, Bank(512, 64)),
    "lines of 512, a fifth of a bad one": Lines(512, 0.2),
}


def read_drawer(spec: str) -> Callable[[], object]:
    bits = np.random.default_rng(0).integers(0, 2**64, LAYOUT.words, dtype=np.uint64)
    memory, reads = open_memory(spec), iter(range(1 << 40))
    sampler, flips = memory.sampler(memory.write(bits, LAYOUT, Key())), np.empty(LAYOUT.words, np.uint64)
    assert sampler is not None
    return lambda: draw_region(sampler, 0, 0, next(reads), flips)


def map_drawer(rate: float, structure: Shared | Lines | None) -> Callable[[], object]:
    term, dies = ErrorTerm("weak", Lifetime.DIE, rate, rate, structure=structure), iter(range(1 << 40))
    return lambda: weak_cells(np.uint64(next(dies)), 0, LAYOUT.words, term)


def candidates() -> dict[str, tuple[Callable[[], object], str]]:
    """Name -> what to time, and the name of what it is compared with."""
    calls = {f"read  {spec}": (read_drawer(spec), f"read  {base}") for spec, base in READS.items()}
    for rate in (1e-3, 1e-2, 0.1):
        base = f"map   {rate:g}"
        calls[base] = map_drawer(rate, None), base
        calls |= {f"{base}, {name}": (map_drawer(rate, structure), base) for name, structure in STRUCTURES.items()}
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    p = torch.full((MBIT << 20,), 0.01)
    calls = {"torch.bernoulli": (lambda: torch.bernoulli(p), "torch.bernoulli")} | candidates()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(arguments.rounds):
        for name, (call, _) in calls.items():
            call()
            start = time.thread_time()
            call()
            times[name].append((time.thread_time() - start) / MBIT * 1e6)

    def ratio(one: str, other: str) -> float:
        return statistics.median(b / a for a, b in zip(times[one], times[other], strict=True))

    rows = {
        name: {
            "us_per_mbit": statistics.median(times[name]),
            "torch": ratio(name, "torch.bernoulli"),
            "symmetric": 1 / ratio(name, base),
        }
        for name, (_, base) in calls.items()
    }
    print(f"{'':76s} {'us/Mbit':>9s} {'torch takes':>12s} {'symmetric errors':>17s}")
    for name, row in rows.items():
        compared = f"{row['symmetric']:16.2f}x" if calls[name][1] != name else ""
        print(f"{name:76s} {row['us_per_mbit']:9.1f} {row['torch']:11.0f}x {compared:>17s}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
