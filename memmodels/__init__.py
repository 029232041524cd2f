"""What a memory does to the bits it holds: error terms, technologies, addresses, exact sampling."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

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

_HOMES = {
    "Layout": "memmodels.address",
    "pack": "memmodels.address",
    "unpack": "memmodels.address",
    "MemorySpec": "memmodels.catalogue",
    "names": "memmodels.catalogue",
    "open_memory": "memmodels.catalogue",
    "parse_spec": "memmodels.catalogue",
    "technology": "memmodels.catalogue",
    "WeakcellError": "memmodels.errors",
    "Accesses": "memmodels.memory",
    "Cost": "memmodels.memory",
    "Key": "memmodels.memory",
    "Memory": "memmodels.memory",
    "Quantity": "memmodels.memory",
    "ReadReport": "memmodels.memory",
    "Region": "memmodels.memory",
    "Sampler": "memmodels.sampler",
    "Condition": "memmodels.definition",
    "Technology": "memmodels.definition",
    "Cells": "memmodels.terms",
    "ErrorTerm": "memmodels.terms",
    "Lifetime": "memmodels.terms",
}


def __getattr__(name: str) -> object:
    """Load what is asked for when it is asked for: the package itself imports nothing heavy."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
