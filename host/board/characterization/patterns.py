"""What is written into the arena: a pattern that the board generates, or bytes such as a network's own weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weakcell.host.board.link.protocol import PAGE, Pattern, pattern_words
from weakcell.memmodels.address import Words
from weakcell.memmodels.errors import UsageError

_WEIGHTS = "weights:"


@dataclass(frozen=True)
class GeneratedPattern:
    """A pattern that the board writes and compares by itself."""

    pattern: Pattern
    seed: int = 0

    def words(self, first: int, pages: int) -> Words:
        """Return the contents of `pages` pages from page `first` on, as uint64."""
        return pattern_words(self.pattern, self.seed, first * PAGE // 4, pages * PAGE // 4).astype("<u4").view(np.uint64)


@dataclass(frozen=True)
class GivenBytes:
    """Bytes that the host sends."""

    data: bytes

    def words(self, first: int, pages: int) -> Words:
        """Return the first `pages` pages of the data as uint64, wherever they are written."""
        return np.frombuffer(self.data, "<u8", count=pages * PAGE // 8)


Contents = GeneratedPattern | GivenBytes


def parse_contents(name: str, pages: int, seed: int = 0) -> Contents:
    """Return the contents that a pattern's name means.

    Args:
        name: zeros, ones, checkerboard, address, random, or `weights:NETWORK`. Weights are laid end to end as the engine stores
            them, and repeated until the pages are full; of a larger network only the beginning is used.
        pages: pages to fill.
        seed: of the random pattern.

    Raises:
        UsageError: there is no such pattern, or the network has no weights.
    """
    if name.startswith(_WEIGHTS):
        weights = _load_weights(name.removeprefix(_WEIGHTS))
        return GivenBytes(np.resize(weights, pages * PAGE // 8).astype("<u8").tobytes())
    try:
        return GeneratedPattern(Pattern[name.upper()], seed)
    except KeyError:
        known = ", ".join(each.name.lower() for each in Pattern)
        raise UsageError(f"Pattern {name!r}", "there is none of that name", f"Choose {known}, or weights:NETWORK") from None


def _load_weights(model: str) -> Words:
    from weakcell.emulator import compile_plan
    from weakcell.emulator.ir.values import storage_layout
    from weakcell.host.study.networks import find_model

    network = find_model(model).load()
    plan = compile_plan(network)
    layouts = [storage_layout(tensor) for tensor in network.weights]
    if not layouts:
        raise UsageError(f"Pattern weights:{model}", "the network has no weights", "Choose another")
    return np.concatenate([plan.stored(layout) for layout in layouts])
