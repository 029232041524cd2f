"""Where the regions of a network lie in an arena that is too small for them: page by page, round and round."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from weakcell.host.board.link.protocol import PAGE
from weakcell.memmodels.address import Layout, Words
from weakcell.memmodels.errors import MemoryFault
from weakcell.memmodels.memory import Key, Region

PAGE_WORDS = PAGE // 8


@dataclass
class Shelf:
    """Regions by name, each on a page of its own. The board holds nothing between reads, so all that is kept is kept here."""

    regions: dict[tuple[str, tuple[int, ...]], Region] = field(default_factory=dict)
    words: int = 0

    def write(self, bits: Words, layout: Layout, key: Key) -> Region:
        """Put a region down, in place of one of the same name and planes; MemoryFault if that one had another size."""
        check(bits, layout)
        old = self.regions.get((layout.name, layout.planes))
        if old is not None and old.layout.bits != layout.bits:
            found = f"a region of that name with {old.layout.bits} bits is already there"
            raise MemoryFault(
                f"Writing {layout.bits} bits as {layout}", found, "Give the tensor another name, or open a new memory"
            )
        first_word = old.first_word if old else self.words
        region = Region(layout, first_word, bits.copy(), bits.copy(), old.stored if old else None, key)
        self.words = max(self.words, first_word + -(-layout.words // PAGE_WORDS) * PAGE_WORDS)
        self.regions[layout.name, layout.planes] = region
        return region


def check(words: Words, layout: Layout) -> None:
    """ValueError unless these are the layout's words."""
    if words.dtype != np.uint64 or words.shape != (layout.words,):
        raise ValueError(f"{layout}: {words.shape} words of {words.dtype}, where ({layout.words},) of uint64 are needed")
