"""What technologies share: published tables, ranges that depend on another knob, and the normal distribution."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from weakcell.memmodels.definition import Condition, Conditions
from weakcell.memmodels.errors import MemorySpecError

PUBLISHED = Path(__file__).parents[1] / "published"

EXTRAPOLATE = Condition(
    "extrapolate", "", "use the law outside the range that its source supports", default="no", choices=("no", "yes")
)


@cache
def table(name: str) -> tuple[dict[str, str], ...]:
    """The rows of published/NAME.csv, below its header of # lines."""
    lines = (PUBLISHED / f"{name}.csv").read_text(encoding="utf-8").splitlines()
    return tuple(csv.DictReader(line for line in lines if not line.startswith("#")))


def phi(z: float) -> float:
    """The normal distribution function, exact in the lower tail."""
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def number(conditions: Conditions, key: str) -> float:
    return float(conditions[key])


def extrapolates(conditions: Conditions) -> bool:
    return conditions.get("extrapolate") == "yes"


def within(
    technology: str,
    conditions: Conditions,
    name: str,
    value: float,
    valid: tuple[float, float],
    beyond: tuple[float, float] = (-math.inf, math.inf),
    unit: str = "",
) -> float:
    """A quantity that several conditions make together, if the law was checked for it.

    Args:
        technology: its name, for the message.
        conditions: complete; `extrapolate=yes` opens `beyond`.
        name: what the quantity is and which conditions make it.
        value: the quantity.
        valid: the closed range for which the law was checked. A part in 10^12 beyond it is rounding.
        beyond: the range in which the law can be extrapolated.
        unit: of the value and the ranges.

    Raises:
        MemorySpecError: if the value lies outside.
    """
    low, high = beyond if extrapolates(conditions) else valid
    slack = 1e-12 * abs(value)
    if low - slack <= value <= high + slack:
        return value
    words = "extrapolated, the law reaches" if extrapolates(conditions) else "the valid range is"
    unless = "" if extrapolates(conditions) or "extrapolate" not in conditions else " unless extrapolate=yes says so"
    asked, found = f"{name} = {value:.4g} {unit}".rstrip(), f"{words} {low:.4g} … {high:.4g} {unit}".rstrip()
    raise refuse(technology, asked, found, f"Choose other conditions; laws are not extrapolated{unless}")


MOST_BEYOND_NEIGHBOURS = 0.05
"""The largest share of a level's cells that may be read two or more levels off, which a `LevelTerm` leaves out."""


def check_neighbours(technology: str, beyond: Sequence[float], conditions: str) -> None:
    """Levels are mistaken for their neighbours alone, if the law is to hold.

    Args:
        technology: its name, for the message.
        beyond: of each level, the probability that a cell is read two or more levels off.
        conditions: those that make the levels so wide, for the message.

    Raises:
        MemorySpecError: if that happens to more than 5 % of a level's cells.
    """
    if max(beyond) > MOST_BEYOND_NEIGHBOURS:
        found = (
            f"{100 * max(beyond):.2g} % of a level's cells would be read two or more levels off, and the law covers mistakes "
            f"between neighbours only (at most {100 * MOST_BEYOND_NEIGHBOURS:g} %)"
        )
        raise refuse(technology, f"{conditions}: levels that overlap", found, "Choose fewer bits per cell or levels farther apart")


def refuse(technology: str, asked: str, found: str, do: str) -> MemorySpecError:
    """The error for conditions that do not go together."""
    return MemorySpecError(f"{technology}: {asked}", found, do)


def together(technology: str, conditions: Conditions, *keys: str) -> bool:
    """Whether these optional knobs are given; MemorySpecError if only some are."""
    given = [key for key in keys if key in conditions]
    if given and len(given) < len(keys):
        missing = ", ".join(key for key in keys if key not in conditions)
        raise refuse(technology, f"{' and '.join(given)} without {missing}", "they belong together", f"Give {missing} too")
    return bool(given)
