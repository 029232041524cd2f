"""Shared parts of technologies: published tables, range checks, the normal distribution, and the energy of emerging memories.

The energies are those of a 1 MB array at 22 nm from NVSim (`published/array_energy_22nm.csv`), one row per memory: read and
write in pJ/bit, leakage in pW/bit (350 K), latencies in ns. If a bit takes more or less than one cell (2T2R, multi-level
cells), they are multiplied by the cells per bit and are then an assumption.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from weakcell.memmodels.cost import EnergyRates, access_cost
from weakcell.memmodels.definition import Condition, Conditions
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.memory import Accesses, Basis, Cost, Quantity

PUBLISHED = Path(__file__).parents[1] / "published"

EXTRAPOLATE = Condition(
    "extrapolate", "", "use the law outside the range that its source supports", default="no", choices=("no", "yes")
)


@cache
def table(name: str) -> tuple[dict[str, str], ...]:
    """Return the rows of published/NAME.csv, without its header of # lines."""
    lines = (PUBLISHED / f"{name}.csv").read_text(encoding="utf-8").splitlines()
    return tuple(csv.DictReader(line for line in lines if not line.startswith("#")))


def phi(z: float) -> float:
    """Return the normal distribution function, exact in the lower tail."""
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def number(conditions: Conditions, key: str) -> float:
    """Return a condition as a number."""
    return float(conditions[key])


def extrapolates(conditions: Conditions) -> bool:
    """Return whether the user says extrapolate=yes."""
    return conditions.get("extrapolate") == "yes"


def within(
    technology: str,
    conditions: Conditions,
    name: str,
    value: float,
    valid: tuple[float, float],
    *,
    beyond: tuple[float, float] = (-math.inf, math.inf),
    unit: str = "",
) -> float:
    """Return a quantity that several conditions determine together, if the law covers it.

    Args:
        technology: Its name, for the message.
        conditions: Complete conditions; `extrapolate=yes` permits `beyond`.
        name: The quantity and the conditions that determine it, for the message.
        value: The quantity.
        valid: Closed range for which the law was checked. A part in 10^12 beyond it counts as rounding.
        beyond: Range in which the law can be extrapolated.
        unit: Of the value and the ranges.

    Raises:
        MemorySpecError: The value lies outside.
    """
    low, high = beyond if extrapolates(conditions) else valid
    slack = 1e-12 * abs(value)
    if low - slack <= value <= high + slack:
        return value
    words = "extrapolated, the law reaches" if extrapolates(conditions) else "the valid range is"
    exception = "" if extrapolates(conditions) or "extrapolate" not in conditions else " unless extrapolate=yes says so"
    asked, found = f"{name} = {value:.4g} {unit}".rstrip(), f"{words} {low:.4g} … {high:.4g} {unit}".rstrip()
    raise refuse(technology, asked, found, f"Choose other conditions; laws are not extrapolated{exception}")


MOST_BEYOND_NEIGHBOURS = 0.05
"""Largest share of a level's cells that may be read two or more levels off, which `LevelTerm` does not model."""


def check_neighbours(technology: str, beyond: Sequence[float], conditions: str) -> None:
    """Refuse levels that overlap beyond their neighbours.

    Args:
        technology: Its name, for the message.
        beyond: For each level, P(a cell is read two or more levels off).
        conditions: The conditions that widen the levels, for the message.

    Raises:
        MemorySpecError: That probability exceeds 5 % for some level.
    """
    if max(beyond) > MOST_BEYOND_NEIGHBOURS:
        found = (
            f"{100 * max(beyond):.2g} % of a level's cells would be read two or more levels off, and the law covers mistakes "
            f"between neighbours only (at most {100 * MOST_BEYOND_NEIGHBOURS:g} %)"
        )
        raise refuse(technology, f"{conditions}: levels that overlap", found, "Choose fewer bits per cell or levels farther apart")


def refuse(technology: str, asked: str, found: str, do: str) -> MemorySpecError:
    """Return the error for conditions that do not go together."""
    return MemorySpecError(f"{technology}: {asked}", found, do)


def together(technology: str, conditions: Conditions, *keys: str) -> bool:
    """Return whether these optional knobs are given; MemorySpecError if only some are."""
    given = [key for key in keys if key in conditions]
    if given and len(given) < len(keys):
        missing = ", ".join(key for key in keys if key not in conditions)
        raise refuse(technology, f"{' and '.join(given)} without {missing}", "they belong together", f"Give {missing} too")
    return bool(given)


# --- energy of the emerging memories -------------------------------------------------------------------------------------------

ARRAY_SOURCE = "NVSim 22 nm 1 MB array, in NVMExplorer"
_PER_BIT = {"read": "pJ/bit", "write": "pJ/bit", "leakage": "pW/bit"}


def array_figures(memory: str, cells_per_bit: float = 1.0) -> dict[str, Quantity]:
    """Return the energies and latencies of the 22 nm array.

    Args:
        memory: `STT`, `RRAM` or `FeFET`.
        cells_per_bit: Factor of the energies.

    Returns:
        read and write (pJ/bit), leakage (pW/bit), latency and write_latency (ns).
    """
    row = next(row for row in table("array_energy_22nm") if row["memory"] == memory)
    basis: Basis = "published" if cells_per_bit == 1.0 else "assumed"
    source = ARRAY_SOURCE if cells_per_bit == 1.0 else f"{ARRAY_SOURCE}, times {cells_per_bit:.3g} cells per bit"
    scaled = {key: Quantity(float(row[key]) * cells_per_bit, unit, basis, source) for key, unit in _PER_BIT.items()}
    times = {key: Quantity(float(row[key]), "ns", "published", ARRAY_SOURCE) for key in ("latency", "write_latency")}
    return {**scaled, **times}


def array_cost(
    memory: str,
    conditions: Conditions,
    bits: int,
    accesses: Accesses,
    *,
    cells_per_bit: float = 1.0,
    write: Quantity | None = None,
    write_latency: Quantity | None = None,
) -> Cost:
    """Return the cost of accesses to the 22 nm array.

    Args:
        memory: `STT`, `RRAM` or `FeFET`.
        conditions: Complete conditions.
        bits: Cells of the region.
        accesses: Reads and writes. The latency is that of a write if there are writes only.
        cells_per_bit: Factor of the energies.
        write, write_latency: Replace the array's own, if the user gives the pulse.
    """
    figures = array_figures(memory, cells_per_bit)
    writes_only = accesses.reads == 0 and accesses.writes > 0
    latency = (write_latency or figures["write_latency"]) if writes_only else figures["latency"]
    rates = EnergyRates(figures["read"], write or figures["write"], figures["leakage"])
    return access_cost(conditions, bits, accesses, rates, latency)
