"""Programs on the workstation: the command line, data sets, training, studies and reports. `from host import emulate`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from host.api import Emulation, emulate
    from host.forecast import Predicted, predict

__all__ = ["Emulation", "Predicted", "emulate", "predict"]

_HOMES = {"Emulation": "host.api", "emulate": "host.api", "Predicted": "host.forecast", "predict": "host.forecast"}


def __getattr__(name: str) -> object:
    """Load what is asked for when it is asked for: `import host` itself imports nothing heavy."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
