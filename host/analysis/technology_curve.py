"""A technology's error rates over the condition that is usually swept, as numbers and as a line of text."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from weakcell.memmodels.definition import Technology
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.memory import Accesses, Quantity

_POINTS = 11
_LEVELS = "▁▂▃▄▅▆▇█"
_LOWEST_RATE = 1e-9


@dataclass(frozen=True)
class CurvePoint:
    """One point: the error rates, added over all terms, and the energy of a read if it is published."""

    value: float
    p01: float
    p10: float
    energy: Quantity | None

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, for JSON."""
        return asdict(self)


def sample_curve(technology: Technology, points: int = _POINTS) -> list[CurvePoint]:
    """Sample a technology's law over the valid range of its swept condition, the others at their defaults.

    Args:
        technology: The technology.
        points: The number of points.

    Returns:
        The points; none if no condition is usually swept or it has no range.
    """
    swept = next((condition for condition in technology.conditions if condition.name == technology.sweep), None)
    if swept is None or swept.low is None or swept.high is None:
        return []
    if technology.measured_values:
        measured = (_sample(technology, swept.name, value) for value in technology.measured_values)
        return [sample for sample in measured if sample is not None]
    low, high = swept.low, swept.high
    if low > 0.0:
        high = _last_visible(technology, swept.name, low, high)
    if low == 0.0:
        values = [10.0 ** -(points - 2 - i) * high for i in range(points - 1)]
    else:
        values = [low + (high - low) * i / (points - 1) for i in range(points)]
    samples = (_sample(technology, swept.name, round(value, 12)) for value in values)
    return [sample for sample in samples if sample is not None]


def suggest_sweep(technology: Technology) -> str:
    """Return a `--sweep` of about ten values of the usual condition, over which the error rate changes, or of all measured ones."""
    curve = sample_curve(technology)
    if not curve:
        return f"{technology.sweep}=START:STOP:STEP"
    if technology.measured_values:
        return f"{technology.sweep}={','.join(f'{sample.value:.12g}' for sample in curve)}"
    low, high = curve[0].value, curve[-1].value
    if high >= 1000 * low:
        return f"{technology.sweep}={low:.12g}:{high:.12g}:x10"
    digits = 1 - math.floor(math.log10(high - low))
    step = round((high - low) / 10, digits)
    return f"{technology.sweep}={low:.12g}:{low + step * math.floor((high - low) / step):.12g}:{step:.12g}"


def _last_visible(technology: Technology, key: str, low: float, high: float) -> float:
    """Return the highest value with an error rate of at least 1e-9; `high` if there is none.

    It is found in steps of 0.01, or of a thousandth of a range wider than 100.
    """
    steps_per_unit = 100.0 if high - low <= 100.0 else 1000.0 / (high - low)
    for step in range(round((high - low) * steps_per_unit), 0, -1):
        value = low + step / steps_per_unit
        sample = _sample(technology, key, round(value, 12))
        if sample is not None and max(sample.p01, sample.p10) >= _LOWEST_RATE:
            return value
    return high


def _sample(technology: Technology, key: str, value: float) -> CurvePoint | None:
    """Evaluate the law at one value; None where it does not cover the default conditions."""
    try:
        conditions = technology.resolve({key: value})
        terms = technology.terms(conditions)
    except MemorySpecError:
        return None
    energy = technology.cost(conditions, 1, Accesses(1.0)).energy
    p01, p10 = (float(sum(getattr(term, name, term.rate) for term in terms)) for name in ("p01", "p10"))
    return CurvePoint(value, p01, p10, energy)


def sparkline(curve: list[CurvePoint]) -> str:
    """Draw log10 of the larger rate in eight levels; a blank is a rate below 1e-9."""
    rates = [max(sample.p01, sample.p10) for sample in curve]
    logs = [math.log10(rate) if rate >= _LOWEST_RATE else None for rate in rates]
    seen = [value for value in logs if value is not None]
    if not seen:
        return " " * len(curve)
    low, span = min(seen), max(max(seen) - min(seen), 1e-9)
    return "".join(" " if value is None else _LEVELS[min(7, int(8 * (value - low) / span))] for value in logs)


def list_lifetimes(technology: Technology) -> str:
    """Return the lifetimes of a technology's errors in words; all choices where the user chooses."""
    chosen = next((condition for condition in technology.conditions if condition.name == "lifetime"), None)
    if chosen is not None:
        return " | ".join(chosen.choices)
    swept = next((condition for condition in technology.conditions if condition.name == technology.sweep), None)
    given = {swept.name: swept.low} if swept is not None and swept.low is not None and swept.default is None else {}
    try:
        return " | ".join(map(str, technology.lifetimes(technology.resolve(given))))
    except MemorySpecError:
        return ""
