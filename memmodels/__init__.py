"""What a memory does to the bits it holds: error terms, technologies, addresses, exact sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memmodels.lazy import attributes

if TYPE_CHECKING:
    from memmodels.address import Layout, pack, unpack
    from memmodels.catalogue import MemorySpec, names, open_memory, parse_spec, technology
    from memmodels.definition import Condition, Technology
    from memmodels.errors import WeakcellError
    from memmodels.memory import Accesses, Cost, Key, Memory, Quantity, ReadReport, Region
    from memmodels.sampler import Sampler
    from memmodels.terms import Cells, ErrorTerm, Lifetime

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

__getattr__ = attributes(
    __name__,
    {
        "address": ("Layout", "pack", "unpack"),
        "catalogue": ("MemorySpec", "names", "open_memory", "parse_spec", "technology"),
        "definition": ("Condition", "Technology"),
        "errors": ("WeakcellError",),
        "memory": ("Accesses", "Cost", "Key", "Memory", "Quantity", "ReadReport", "Region"),
        "sampler": ("Sampler",),
        "terms": ("Cells", "ErrorTerm", "Lifetime"),
    },
)
