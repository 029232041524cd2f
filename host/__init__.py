"""Programs on the workstation: the command line, data sets, training, studies and reports. `from host import emulate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weakcell.memmodels.lazy import attributes

if TYPE_CHECKING:
    from weakcell.host.analysis.prediction import Predicted, predict
    from weakcell.host.api import Emulation, emulate
    from weakcell.host.report.notebook import CampaignResults, read_results

__all__ = ["CampaignResults", "Emulation", "Predicted", "emulate", "predict", "read_results"]

__getattr__, __dir__ = attributes(
    __name__,
    {
        "api": ("Emulation", "emulate"),
        "analysis.prediction": ("Predicted", "predict"),
        "report.notebook": ("CampaignResults", "read_results"),
    },
)
