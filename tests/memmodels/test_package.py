"""What the package offers by name, whatever was imported before."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

from weakcell import emulator, memmodels


@pytest.mark.parametrize("package", [memmodels, emulator])
def test_no_submodule_hides_a_name(package: object) -> None:
    offered = set(package.__all__)  # type: ignore[attr-defined]
    assert offered.isdisjoint(module.name for module in pkgutil.iter_modules(package.__path__))  # type: ignore[attr-defined]
    for name in offered:
        assert getattr(package, name) is not None


def test_the_memory_protocol_is_light() -> None:
    """Whoever implements a `Memory` needs neither Numba nor its compiler: the protocol names `Sampler`, a plain record."""
    code = "import sys, weakcell.memmodels.memory; print(*sorted({'numba', 'llvmlite', 'scipy'} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == ""
