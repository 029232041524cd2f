"""What a memory does to the bits it holds: error terms, technologies, addresses, exact sampling."""

from memmodels.address import Layout, pack, unpack
from memmodels.catalogue import MemorySpec, names, open_memory, parse_spec, technology
from memmodels.errors import WeakcellError
from memmodels.memory import Accesses, Cost, Key, Memory, Quantity, ReadReport, Region
from memmodels.sampler import Sampler
from memmodels.technology import Condition, Technology
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
