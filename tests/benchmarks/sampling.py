"""Exact sampling of read errors, against a Bernoulli mask from torch on the same bits; one thread, interleaved.

    python tests/benchmarks/sampling.py [--rounds 15] [--json FILE]

Ours: all flips of a 16-Mbit region at one read, drawn inside one compiled call. Theirs: torch.bernoulli on one float32 per bit.
Every candidate runs once per round; a row is the median over rounds, in microseconds of processor time per 2^20 bits.
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

from memmodels import Key, Layout, open_memory
from memmodels.sampler import draw_region

MBIT = 16
SPECS = [
    *(f"uniform:ber={p:g}" for p in (1e-6, 1e-4, 1e-3, 3e-3, 1e-2, 2e-2, 3e-2, 0.05, 0.1, 0.2, 0.3, 0.4, 0.47, 0.5, 0.7)),
    "uniform:p01=0.01,p10=0.001",
    "uniform:p01=0.1,p10=0.3",
]


def region_drawer(spec: str) -> Callable[[], int]:
    layout = Layout("w", MBIT << 20, 1)
    bits = np.random.default_rng(0).integers(0, 2**64, layout.words, dtype=np.uint64)
    memory = open_memory(spec)
    sampler, flips, read = (
        memory.sampler(memory.write(bits, layout, Key())),
        np.empty(layout.words, np.uint64),
        iter(range(1 << 40)),
    )
    assert sampler is not None
    return lambda: draw_region(sampler, 0, 0, next(read), flips)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    p = torch.full((1 << 20,), 0.01)
    calls: dict[str, tuple[int, Callable[[], object]]] = {"torch.bernoulli": (1, lambda: torch.bernoulli(p))}
    calls |= {spec: (MBIT, region_drawer(spec)) for spec in SPECS}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _, call in calls.values():
        call()
    for _ in range(arguments.rounds):
        for name, (mbit, call) in calls.items():
            start = time.thread_time()
            call()
            times[name].append((time.thread_time() - start) / mbit * 1e6)
    theirs = times["torch.bernoulli"]
    rows = {
        name: (statistics.median(own), statistics.median(b / a for a, b in zip(own, theirs, strict=True)))
        for name, own in times.items()
    }
    print(f"{'':32s} {'us/Mbit':>9s} {'times faster than torch':>24s}")
    for name, (value, ratio) in rows.items():
        print(f"{name:32s} {value:9.1f} {ratio:24.0f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({name: {"us_per_mbit": v, "ratio": r} for name, (v, r) in rows.items()}, indent=1))


if __name__ == "__main__":
    main()
