"""What a virtual board does wrong, on demand."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from weakcell.memmodels.errors import UsageError


class Failure(StrEnum):
    """How a board fails.

    HANG: the CPU stops; the watchdog ends it. RESET: as by the watchdog, at once. BROWN_OUT: power is lost for a moment: what SRAM
    held is gone, and only a flash image comes back.
    """

    HANG = "hang"
    RESET = "reset"
    BROWN_OUT = "brown-out"


@dataclass(frozen=True)
class Misbehaviour:
    """hang, reset: how often, per lowering of the voltage. brown_out: the voltage below which power is lost, V. noise: the share of
    frames, either way, that are damaged, lost, repeated or delayed. ignore_voltage: the regulator's register does not move.
    """

    hang: float = 0.0
    reset: float = 0.0
    brown_out: float = 0.0
    noise: float = 0.0
    ignore_voltage: bool = False


_LIMITS = {"hang": 1.0, "reset": 1.0, "brown-out": 1.1, "noise": 1.0}


def parse_misbehaviour(text: str) -> Misbehaviour:
    """`hang=0.1,noise=0.02,brown-out=0.7,ignore-voltage`; UsageError names what is not known."""
    given: dict[str, float] = {}
    ignore = False
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if part == "ignore-voltage":
            ignore = True
            continue
        if name not in _LIMITS:
            known = ", ".join([*_LIMITS, "ignore-voltage"])
            raise UsageError(f"--misbehave {part}", "there is no such misbehaviour", f"Choose from {known}")
        try:
            given[name] = float(value)
        except ValueError as error:
            raise UsageError(f"--misbehave {part}", f"{value!r} is not a number", f"Write for instance {name}=0.1") from error
        if not 0 <= given[name] <= _LIMITS[name]:
            raise UsageError(f"--misbehave {part}", "it is out of range", f"Give 0 to {_LIMITS[name]:g}")
    get = given.get
    return Misbehaviour(get("hang", 0.0), get("reset", 0.0), get("brown-out", 0.0), get("noise", 0.0), ignore)
