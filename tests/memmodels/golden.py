"""Checksums of what sampling format 2 draws: every branch of the sampler, the dies and the writes.

`python -m tests.memmodels.golden` prints them; `test_format.py` holds them. They may change only together with
`weakcell.memmodels.sampling.sampler.VERSION`: saved results name that version and rely on its bits.
"""

from __future__ import annotations

import json
from hashlib import sha256

import numpy as np

from tests.memmodels.memories import simulated
from weakcell.memmodels import Cells, ErrorTerm, Key, Layout, Lifetime
from weakcell.memmodels.sampling.streams import derive_stream, random_words

READ, WRITE, DIE, ACCUMULATING = Lifetime.READ, Lifetime.WRITE, Lifetime.DIE, Lifetime.ACCUMULATING
TERMS = {
    "read, hits": (ErrorTerm("t", READ, 0.003, 0.003),),
    "read, levels and hits": (ErrorTerm("t", READ, 0.1, 0.1),),
    "read, sixteen levels": (ErrorTerm("t", READ, 0.4999, 0.4999),),
    "read, one half": (ErrorTerm("t", READ, 0.5, 0.5),),
    "read, inverted": (ErrorTerm("t", READ, 0.93, 0.93),),
    "read, asymmetric": (ErrorTerm("t", READ, 0.3, 0.001),),
    "read, asymmetric hits": (ErrorTerm("t", READ, 0.001, 0.006),),
    "read, asymmetric and inverted": (ErrorTerm("t", READ, 0.8, 0.1),),
    "write": (ErrorTerm("t", WRITE, 0.05, 0.2),),
    "write, only switched": (ErrorTerm("t", WRITE, 0.05, 0.2, only_switched=True),),
    "die, prefer": (ErrorTerm("t", DIE, 0.02, 0.2),),
    "die, most prefer 1": (ErrorTerm("t", DIE, 0.8, 0.1),),
    "die, all": (ErrorTerm("t", DIE, 0.5, 0.5),),
    "die, invert": (ErrorTerm("t", DIE, 0.02, 0.7, Cells.INVERT),),
    "accumulating": (ErrorTerm("t", ACCUMULATING, 0.01, 0.03),),
    "die, write and read": (ErrorTerm("d", DIE, 0.1, 0.1), ErrorTerm("w", WRITE, 0.02, 0.01), ErrorTerm("r", READ, 0.01, 0.01)),
}


def draws() -> dict[str, str]:
    """Checksums of two regions each: a small one, and one that begins inside a block, crosses two, and ends in a word."""
    sums = {"streams": _checksum(random_words(derive_stream(1, 2, 3), 5, 100))}
    layouts = (Layout("before", 5000, 1), Layout("w", 150_001, 1))
    for name, terms in TERMS.items():
        memory, read = simulated(*terms, seed=20260101, die=3), []
        for layout in layouts:
            stored = random_words(derive_stream(layout.bits), 0, layout.words)
            stored[-1] &= np.uint64((1 << layout.bits % 64) - 1)
            region = memory.write(stored, layout, Key(1, 2, 0))
            read.append(np.empty_like(stored))
            memory.read(region, Key(1, 2, 3), read[-1])
        sums[name] = _checksum(np.concatenate(read))
    return sums


def _checksum(words: np.ndarray) -> str:
    return sha256(words.astype("<u8").tobytes()).hexdigest()[:16]


if __name__ == "__main__":
    print(json.dumps(draws(), indent=4))
