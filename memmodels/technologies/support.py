"""What technologies share: published tables, ranges that depend on another knob, and the normal distribution."""

from __future__ import annotations

import csv
import math
from functools import cache
from pathlib import Path

from memmodels.definition import Condition, Conditions
from memmodels.errors import MemorySpecError

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
