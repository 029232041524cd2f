"""Programs on the workstation: the command line, data sets, training, studies and reports. `from host import emulate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memmodels.lazy import attributes

if TYPE_CHECKING:
    from host.api import Emulation, emulate
    from host.forecast import Predicted, predict
    from host.report.notebook import CampaignResults, read_results

__all__ = ["CampaignResults", "Emulation", "Predicted", "emulate", "predict", "read_results"]

__getattr__ = attributes(
    __name__,
    {
        "api": ("Emulation", "emulate"),
        "forecast": ("Predicted", "predict"),
        "report.notebook": ("CampaignResults", "read_results"),
    },
)
