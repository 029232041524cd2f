"""Weakcell: approximate-memory emulator for quantized and binarized neural networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weakcell.memmodels.lazy import attributes

if TYPE_CHECKING:
    from weakcell.emulator import load
    from weakcell.host.analysis.prediction import Predicted, predict
    from weakcell.host.api import Emulation, emulate
    from weakcell.host.report.notebook import CampaignResults, read_results
    from weakcell.memmodels.errors import WeakcellError

__version__ = "0.1.0"

__all__ = ["CampaignResults", "Emulation", "Predicted", "WeakcellError", "emulate", "load", "predict", "read_results"]

__getattr__, __dir__ = attributes(
    __name__,
    {
        "emulator": ("load",),
        "host.api": ("Emulation", "emulate"),
        "host.analysis.prediction": ("Predicted", "predict"),
        "host.report.notebook": ("CampaignResults", "read_results"),
        "memmodels.errors": ("WeakcellError",),
    },
)
