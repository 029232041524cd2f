"""Memory models: what a memory does to the bits it stores.

The usual way in is `open_memory(SPEC)`. A new technology is a `Technology` made of `Condition`s and `ErrorTerm`s; a new kind of
memory implements the `Memory` protocol. See README.md beside this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weakcell.memmodels.lazy import attributes

if TYPE_CHECKING:
    from weakcell.memmodels.address import Layout, pack, unpack
    from weakcell.memmodels.catalogue import MemorySpec, names, open_memory, parse_spec, technology
    from weakcell.memmodels.definition import Condition, Technology
    from weakcell.memmodels.error_model.terms import Cells, ErrorTerm, Lifetime
    from weakcell.memmodels.errors import WeakcellError
    from weakcell.memmodels.memory import Accesses, Cost, Key, Memory, Quantity, ReadReport, Region
    from weakcell.memmodels.sampling.sampler import Sampler

__all__ = [
    "Accesses",
    "Cells",
    "Condition",
    "Cost",
    "ErrorTerm",
    "Key",
    "Layout",
    "Lifetime",
    "Memory",
    "MemorySpec",
    "Quantity",
    "ReadReport",
    "Region",
    "Sampler",
    "Technology",
    "WeakcellError",
    "names",
    "open_memory",
    "pack",
    "parse_spec",
    "technology",
    "unpack",
]

__getattr__, __dir__ = attributes(
    __name__,
    {
        "address": ("Layout", "pack", "unpack"),
        "catalogue": ("MemorySpec", "names", "open_memory", "parse_spec", "technology"),
        "definition": ("Condition", "Technology"),
        "errors": ("WeakcellError",),
        "memory": ("Accesses", "Cost", "Key", "Memory", "Quantity", "ReadReport", "Region"),
        "sampling.sampler": ("Sampler",),
        "error_model.terms": ("Cells", "ErrorTerm", "Lifetime"),
    },
)
