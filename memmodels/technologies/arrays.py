"""Energy of the emerging memories: a 1 MB array at 22 nm as NVSim gives it, in joules per bit (`published/array_energy_22nm.csv`).

One row per memory: read and write in pJ/bit, leakage in pW/bit (350 K), latency of a read and of a write in ns. Where a bit takes
more or less than one cell (2T2R, multi-level cells), the figures are multiplied by the cells per bit, and are then an assumption.
"""

from __future__ import annotations

from weakcell.memmodels.cost import EnergyRates, access_cost
from weakcell.memmodels.definition import Conditions
from weakcell.memmodels.memory import Accesses, Basis, Cost, Quantity
from weakcell.memmodels.technologies.support import table

SOURCE = "NVSim 22 nm 1 MB array, in NVMExplorer"


def array_figures(memory: str, cells_per_bit: float = 1.0) -> dict[str, Quantity]:
    """read and write (pJ/bit), leakage (pW/bit), latency and write_latency (ns) of the array of STT, RRAM or FeFET."""
    row = next(row for row in table("array_energy_22nm") if row["memory"] == memory)
    basis: Basis = "published" if cells_per_bit == 1.0 else "assumed"
    source = SOURCE if cells_per_bit == 1.0 else f"{SOURCE}, times {cells_per_bit:.3g} cells per bit"
    scaled = {key: Quantity(float(row[key]) * cells_per_bit, unit, basis, source) for key, unit in _PER_BIT.items()}
    times = {key: Quantity(float(row[key]), "ns", "published", SOURCE) for key in ("latency", "write_latency")}
    return {**scaled, **times}


_PER_BIT = {"read": "pJ/bit", "write": "pJ/bit", "leakage": "pW/bit"}


def array_cost(
    memory: str,
    conditions: Conditions,
    bits: int,
    accesses: Accesses,
    cells_per_bit: float = 1.0,
    write: Quantity | None = None,
    write_latency: Quantity | None = None,
) -> Cost:
    """Cost of accesses to that array; `write` and `write_latency` in place of its own where the user's pulse says so.

    The latency is a read's, or a write's where accesses are writes only.
    """
    figures = array_figures(memory, cells_per_bit)
    writes_only = accesses.reads == 0 and accesses.writes > 0
    latency = (write_latency or figures["write_latency"]) if writes_only else figures["latency"]
    rates = EnergyRates(figures["read"], write or figures["write"], figures["leakage"])
    return access_cost(conditions, bits, accesses, rates, latency)
