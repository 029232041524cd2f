"""What the package offers by name, whatever was imported before."""

from __future__ import annotations

import pkgutil

import pytest

from weakcell import emulator, memmodels


@pytest.mark.parametrize("package", [memmodels, emulator])
def test_no_submodule_hides_a_name(package: object) -> None:
    offered = set(package.__all__)  # type: ignore[attr-defined]
    assert offered.isdisjoint(module.name for module in pkgutil.iter_modules(package.__path__))  # type: ignore[attr-defined]
    for name in offered:
        assert getattr(package, name) is not None
