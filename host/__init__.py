"""Programs on the workstation: the command line, data sets, training, studies and reports. `from host import emulate`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from host.api import Emulation, emulate
    from host.forecast import Predicted, predict
    from host.report.notebook import CampaignResults, read_results

__all__ = ["CampaignResults", "Emulation", "Predicted", "emulate", "predict", "read_results"]

_HOMES = {
    "CampaignResults": "host.report.notebook",
    "Emulation": "host.api",
    "Predicted": "host.forecast",
    "emulate": "host.api",
    "predict": "host.forecast",
    "read_results": "host.report.notebook",
}


def __getattr__(name: str) -> object:
    """Load what is asked for when it is asked for: `import host` itself imports nothing heavy."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
