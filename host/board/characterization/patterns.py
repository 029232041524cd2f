"""What is written into the arena: a pattern that the board generates, or a network's own weights."""

from __future__ import annotations

import numpy as np

from weakcell.host.board.characterization.passes import Contents, Generated, Given
from weakcell.host.board.link.protocol import PAGE, Pattern
from weakcell.memmodels.address import Words
from weakcell.memmodels.errors import UsageError

_WEIGHTS = "weights:"


def contents_of(name: str, pages: int, seed: int = 0) -> Contents:
    """The contents that a pattern's name means: zeros, ones, checkerboard, address, random, or `weights:NETWORK`.

    Weights are laid end to end as the engine stores them, again and again until `pages` pages are full; of a network that is larger
    only the beginning is used.
    """
    if name.startswith(_WEIGHTS):
        stored = _stored_weights(name.removeprefix(_WEIGHTS))
        words = pages * PAGE // 8
        return Given(np.resize(stored, words).astype("<u8").tobytes())
    try:
        return Generated(Pattern[name.upper()], seed)
    except KeyError:
        known = ", ".join(each.name.lower() for each in Pattern)
        raise UsageError(f"Pattern {name!r}", "there is none of that name", f"Choose {known}, or weights:NETWORK") from None


def _stored_weights(model: str) -> Words:
    from weakcell.emulator import compile_plan, load
    from weakcell.emulator.ir.values import storage_layout
    from weakcell.host.study.networks import find_model

    network = load(find_model(model).path)
    plan = compile_plan(network)
    layouts = [storage_layout(tensor) for tensor in network.weights]
    if not layouts:
        raise UsageError(f"Pattern weights:{model}", "the network has no weights", "Choose another")
    return np.concatenate([plan.stored(layout) for layout in layouts])
