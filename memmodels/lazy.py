"""Lazy imports: names of a package that are imported on first use, so that importing the package costs little."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module


def attributes(package: str, homes: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return the `__getattr__` and `__dir__` (PEP 562) of a package whose names are imported on first use.

    Args:
        package: Dotted name of the package.
        homes: For each module, relative to the package, the names that come from it.
    """
    modules = {name: f"{package}.{module}" for module, names in homes.items() for name in names}

    def get_attribute(name: str) -> object:
        if name in modules:
            return getattr(import_module(modules[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def list_attributes() -> list[str]:
        return sorted(set(modules) | {name for name in vars(sys.modules[package]) if name.startswith("__")})

    return get_attribute, list_attributes
