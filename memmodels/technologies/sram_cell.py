"""A six-transistor SRAM cell: hold, read and write failures with the constants of the user's own cell, and energy in joules.

    p_x(V) = Phi((mu_x + k_x (T - 25) - V_x) / s_x)             x = write, hold, read; V_x in volt, T in degrees Celsius

write  the cell cannot be overwritten and keeps its old value: lifetime write, only where the bit switches; at V_write = vdd.
hold   the cell falls to its preferred value in standby: lifetime die, nested, at V_hold = standby_vdd (vdd unless given).
read   the access disturbs the cell, or comes too early: lifetime die (destructive) or read (timing), as `read_lifetime` says.

p_x counts cells that fail. A cell that fails to hold or to be read falls to a preferred value, so half of the failures are
visible: p01 = p10 = p_x / 2. A cell that cannot be written errs whenever the bit switches: p01 = p10 = p_x. No constant of these
laws was found in a source that we could read, so there are no defaults. A term whose mu and s are not given is absent; without any
of the three the SPEC is refused.

Energy: CACTI 7 for node, cell type and array size (computed; log-linear between table sizes), at the node's nominal voltage. Over
voltage (V/vnom)^2, an assumption. Leakage ~ exp(V/V0) with V0 = 0.18 V from two published points of a 28 nm FD-SOI array (Yang &
Murmann, ISQED 2017), assumed to hold for other nodes. Without vnom there is no energy.
"""

from __future__ import annotations

import math

from weakcell.memmodels.cost import USE_CONDITIONS, EnergyRates, access_cost
from weakcell.memmodels.definition import Condition, Conditions, Technology
from weakcell.memmodels.error_model.terms import ErrorTerm, Lifetime
from weakcell.memmodels.memory import Accesses, Basis, Cost, Quantity
from weakcell.memmodels.technologies.support import number, phi, refuse, table, together

LEAKAGE_V0 = 0.18
_NAME = "sram-6t"
_REFERENCE_C = 25.0


def terms(conditions: Conditions) -> tuple[ErrorTerm, ...]:
    """Return write, hold and read failures, in this order; the rate is 0 if constants are not given."""
    vdd = number(conditions, "vdd")
    rates = {
        "write": _rate("write", vdd, conditions),
        "hold": _rate("hold", float(conditions.get("standby_vdd", vdd)), conditions),
        "read": _rate("read", vdd, conditions),
    }
    if all(rate is None for rate in rates.values()):
        raise refuse(
            _NAME,
            "no constants",
            "no published cell has them, so there are no defaults",
            "Give write_mu and write_s, hold_mu and hold_s, or read_mu and read_s, in volt",
        )
    write, hold, read = (rate or 0.0 for rate in rates.values())
    return (
        ErrorTerm("write", Lifetime.WRITE, write, write, only_switched=True),
        ErrorTerm("hold", Lifetime.DIE, hold / 2, hold / 2),
        ErrorTerm("read", Lifetime(str(conditions["read_lifetime"])), read / 2, read / 2),
    )


def _rate(cause: str, voltage: float, conditions: Conditions) -> float | None:
    if not together(_NAME, conditions, f"{cause}_mu", f"{cause}_s"):
        return None
    mu, s = number(conditions, f"{cause}_mu"), number(conditions, f"{cause}_s")
    if number(conditions, "temperature") != _REFERENCE_C:
        if f"{cause}_slope" not in conditions:
            raise refuse(
                _NAME,
                f"temperature={number(conditions, 'temperature'):g} without {cause}_slope",
                f"how the {cause} threshold moves with temperature depends on the cell",
                f"Give {cause}_slope in V/K, or leave temperature at {_REFERENCE_C:g}",
            )
        mu += number(conditions, f"{cause}_slope") * (number(conditions, "temperature") - _REFERENCE_C)
    return phi((mu - voltage) / s)


def cost(conditions: Conditions, bits: int, accesses: Accesses) -> Cost:
    """Return reads, writes and leakage in joules; nothing without vnom."""
    if "vnom" not in conditions:
        return Cost()
    figures = cacti(str(conditions["node"]), str(conditions["cell"]), number(conditions, "size"))
    vdd, vnom = number(conditions, "vdd"), number(conditions, "vnom")
    basis: Basis = "computed" if vdd == vnom else "assumed"
    square, source = (vdd / vnom) ** 2, "CACTI 7" if vdd == vnom else "CACTI 7, (V/Vnom)^2"
    standby = float(conditions.get("standby_vdd", vdd))
    leak = Quantity(
        figures["leakage"] * math.exp((standby - vnom) / LEAKAGE_V0),
        "pW/bit",
        "computed" if standby == vnom else "assumed",
        "CACTI 7" if standby == vnom else f"CACTI 7, exp(V/{LEAKAGE_V0} V)",
    )
    read, write = (Quantity(figures[key] * square, "pJ/bit", basis, source) for key in ("read", "write"))
    latency = Quantity(figures["access"], "ns", "computed", "CACTI 7, at nominal voltage")
    return access_cost(conditions, bits, accesses, EnergyRates(read, write, leak), latency)


def cacti(node: str, cell: str, size: float) -> dict[str, float]:
    """Return the numbers of an array from the CACTI table, log-linear between its sizes.

    Args:
        node, cell: Of the table.
        size: Of the array in bytes.

    Returns:
        access (ns), read, write (pJ/bit) and leakage (pW/bit).
    """
    rows = [row for row in table("sram_cacti") if row["node"] == node and row["cell"] == cell]
    above = next(i for i in range(1, len(rows)) if size <= float(rows[i]["size"]))
    low, high = rows[above - 1], rows[above]
    part = math.log(size / float(low["size"])) / math.log(float(high["size"]) / float(low["size"]))
    return {
        key: math.exp((1 - part) * math.log(float(low[key])) + part * math.log(float(high[key])))
        for key in ("access", "read", "write", "leakage")
    }


def _constants(cause: str, what: str) -> tuple[Condition, ...]:
    return (
        Condition(f"{cause}_mu", "V", f"voltage at which half of the cells fail to {what} (no default)", low=-2.0, high=2.0),
        Condition(f"{cause}_s", "V", f"spread of that voltage over cells, with {cause}_mu", low=1e-4, high=1.0),
        Condition(f"{cause}_slope", "V/K", f"how {cause}_mu moves with temperature (no default)", low=-0.01, high=0.01),
    )


SRAM_6T = Technology(
    name=_NAME,
    title="Six-transistor SRAM cell: write, hold and read failures with your constants",
    conditions=(
        Condition("vdd", "V", "supply voltage at accesses", default=0.8, low=0.1, high=2.0),
        Condition("standby_vdd", "V", "supply voltage between accesses (vdd unless given)", low=0.05, high=2.0),
        Condition("temperature", "°C", "junction temperature", default=_REFERENCE_C, low=-40.0, high=125.0),
        *_constants("write", "be written"),
        *_constants("hold", "hold their bit"),
        *_constants("read", "be read"),
        Condition("read_lifetime", "", "a read failure destroys (die) or passes (read)", default="die", choices=("die", "read")),
        Condition("vnom", "V", "nominal supply voltage of the node; adds energy (no default)", low=0.3, high=2.0),
        Condition("node", "nm", "CMOS node of the energy figures", default="32", choices=("22", "32", "45", "65")),
        Condition("cell", "", "low standby power or high performance cells", default="lstp", choices=("lstp", "hp")),
        Condition("size", "bytes", "size of the array", default=32768.0, low=8192.0, high=2097152.0),
        *USE_CONDITIONS,
    ),
    terms=terms,
    cost=cost,
    law="share of failing cells p = Phi((mu + k (T - 25) - V) / s) for write (only where the bit switches), hold and read (half of "
    "the failures show); the three add up",
    source="the user's constants; energy from CACTI 7; leakage slope from Yang & Murmann, ISQED 2017",
    basis="assumed",
    sweep="vdd",
    constants=(
        ("mu, s, k", "from the user: no source that we could read gives them", "assumed"),
        ("energy at vnom", "CACTI 7 table of node, cell and size, 300 K", "computed"),
        ("energy over voltage", "(V/vnom)^2", "assumed"),
        ("leakage over voltage", f"exp(V/V0), V0 = {LEAKAGE_V0} V from two points of 28 nm FD-SOI", "published"),
    ),
    notes="Left out because they were only recalled: ratios of hold, read and write thresholds, data retention voltages of "
    "130 nm cells and microcontrollers, their slopes with temperature. The temperature does not move the energy figures. Published "
    "access power of a 28 nm FD-SOI array falls faster than the square: 2.6 times at -280 mV, 2.9 times at -310 mV (its nominal "
    "voltage is not stated), where the square gives 2.1 and 2.3 times from 0.9 V.",
)
