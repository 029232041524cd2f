"""Programs on the workstation: the command line, data sets, training, studies and reports. `from host import emulate, predict`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from host.api import emulate
    from host.forecast import Predicted, predict
    from host.results import StudyResult

__all__ = ["Predicted", "StudyResult", "emulate", "predict"]


def __getattr__(name: str) -> object:
    """Load what is asked for when it is asked for: `import host` itself imports nothing heavy."""
    if name == "emulate":
        from host.api import emulate

        return emulate
    if name in ("Predicted", "predict"):
        from host import forecast

        return getattr(forecast, name)
    if name == "StudyResult":
        from host.results import StudyResult

        return StudyResult
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
