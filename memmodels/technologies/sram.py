"""SRAM under voltage scaling: a cell fails below its own threshold voltage, and thresholds are normally distributed.

    p(V) = Phi((mu - V) / s)                                    lifetime die, nested: a cell that fails at V fails at every lower V

The constants are least-squares lines through the probits of the published points, Phi^-1(p) over V, in `published/`;
`tests/memmodels/test_sram.py` fits them again. Deviations are given in decades of p.

14 nm chips: V in units of Vmin, the lowest voltage without measured errors; the absolute Vmin was not published, so volts need
`vmin` from the user. p is a flip rate (p01 = p10 = p): by polarity, a share p of the cells prefers 1 and another share p prefers
0. Energy per access ~ 0.980 (V/Vmin)^2.03, relative to Vmin.

28 nm block RAM: measured with all ones stored, so the published rate is p10; p01 was not measured and is 0 unless given.
Cells are independent here; the clustering in columns that was observed is not in this law yet. Energy ~ V^2 is an assumption
(dynamic energy C V^2), relative to the nominal 1.0 V.
"""

from __future__ import annotations

import math

from memmodels.errors import MemorySpecError
from memmodels.memory import Accesses, Cost, Quantity
from memmodels.technology import Condition, Conditions, Technology
from memmodels.terms import Cells, ErrorTerm, Lifetime

_STUTZ = "Stutz et al., MLSys 2021, Fig. 1"
_SALAMI = "Salami et al., MICRO 2018"

SRAM_14NM_MU, SRAM_14NM_S = 0.7150, 0.0562
SRAM_14NM_ENERGY, SRAM_14NM_EXPONENT = 0.9805, 2.034


def probit(voltage: float, mu: float, s: float) -> float:
    """Phi((mu - V) / s): the share of cells whose threshold voltage lies above V; V, mu and s in one unit."""
    return 0.5 * math.erfc((voltage - mu) / (s * math.sqrt(2.0)))


def terms_14nm(conditions: Conditions) -> tuple[ErrorTerm, ...]:
    """Weak cells of a 14 nm die at V/Vmin."""
    p = probit(_relative_voltage(conditions), SRAM_14NM_MU, SRAM_14NM_S)
    return (ErrorTerm("access", Lifetime.DIE, p, p, Cells(str(conditions["cells"]))),)


def cost_14nm(conditions: Conditions, bits: int, accesses: Accesses) -> Cost:
    """Access energy relative to the same accesses at Vmin; joules were not published."""
    ratio = SRAM_14NM_ENERGY * _relative_voltage(conditions) ** SRAM_14NM_EXPONENT
    return Cost(energy=Quantity(ratio, "x E(Vmin)", "published", f"{_STUTZ}, power law fitted"))


def _relative_voltage(conditions: Conditions) -> float:
    """V/Vmin, from v_over_vmin or from vdd and vmin."""
    if "vdd" not in conditions and "vmin" not in conditions:
        return float(conditions.get("v_over_vmin", 1.0))
    if "v_over_vmin" in conditions:
        raise MemorySpecError(
            "sram-14nm: v_over_vmin together with vdd or vmin",
            "they say the same thing twice",
            "Give v_over_vmin, or vdd and vmin",
        )
    if "vdd" not in conditions or "vmin" not in conditions:
        raise MemorySpecError(
            "sram-14nm with only one of vdd and vmin",
            "the chips' absolute Vmin was not published, so volts mean nothing without yours",
            "Give both in volt, or v_over_vmin alone",
        )
    ratio = float(conditions["vdd"]) / float(conditions["vmin"])
    if not _RANGE_14NM[0] <= ratio <= _RANGE_14NM[1]:
        raise MemorySpecError(
            f"sram-14nm: vdd/vmin = {ratio:.4g}",
            f"the valid range is {_RANGE_14NM[0]} … {_RANGE_14NM[1]}",
            "Choose vdd within it; laws are not extrapolated",
        )
    return ratio


_RANGE_14NM = (0.75, 1.0)

SRAM_14NM = Technology(
    name="sram-14nm",
    title="14 nm FinFET SRAM chips under voltage scaling",
    conditions=(
        Condition("v_over_vmin", "", "supply voltage / Vmin (1 unless given)", low=_RANGE_14NM[0], high=_RANGE_14NM[1]),
        Condition("vdd", "V", "supply voltage, together with vmin, instead of v_over_vmin", low=0.0, high=2.0),
        Condition("vmin", "V", "your chip's lowest voltage without errors", low=0.01, high=2.0),
        Condition("cells", "", "which values a weak cell spoils", default="prefer", choices=("prefer", "invert")),
    ),
    terms=terms_14nm,
    cost=cost_14nm,
    law="p01 = p10 = Phi((mu - V/Vmin) / s), per cell and die, nested over V",
    source=f"{_STUTZ} (digitised from the authors' poster)",
    basis="published",
    sweep="v_over_vmin",
    constants=(
        ("mu", f"{SRAM_14NM_MU} Vmin", "computed"),
        ("s", f"{SRAM_14NM_S} Vmin", "computed"),
        ("energy", f"{SRAM_14NM_ENERGY} (V/Vmin)^{SRAM_14NM_EXPONENT}, relative to Vmin", "published"),
        ("fit error", "rms 0.10 decades over five decades, largest 0.22", "computed"),
    ),
    notes="The published rate counts flips, so the two preferences have density p each.",
)


def _block_ram(board: str, title: str, mu: float, s: float, lowest: float, highest: float, error: str) -> Technology:
    """A 28 nm block-RAM law; `lowest` is the last voltage at which the device answered, `highest` the first with faults."""

    def terms(conditions: Conditions) -> tuple[ErrorTerm, ...]:
        p10 = probit(float(conditions["vdd"]), mu, s)
        p01 = min(float(conditions["p01_share"]) * p10, 1.0 - p10)
        return (ErrorTerm("read", Lifetime.DIE, p01, p10),)

    def cost(conditions: Conditions, bits: int, accesses: Accesses) -> Cost:
        ratio = float(conditions["vdd"]) ** 2
        return Cost(energy=Quantity(ratio, "x E(1.0 V)", "assumed", "dynamic energy C V^2"))

    return Technology(
        name=f"sram-28nm-{board}",
        title=title,
        conditions=(
            Condition("vdd", "V", "VCCBRAM", default=1.0, low=lowest, high=1.0),
            Condition(
                "p01_share", "", "cells that prefer 1 per cell that prefers 0 (not measured)", default=0.0, low=0.0, high=1.0
            ),
        ),
        terms=terms,
        cost=cost,
        law="p10 = Phi((mu - V) / s), per cell and die, nested over V; independent cells",
        source=f"{_SALAMI}, published fault counts",
        basis="published",
        sweep="vdd",
        constants=(
            ("mu", f"{mu} V", "computed"),
            ("s", f"{s} V", "computed"),
            ("p01", "not measured, 0 by default", "assumed"),
            ("energy", "V^2, relative to 1.0 V", "assumed"),
            ("fit error", error, "computed"),
        ),
        notes=f"Faults were counted from {highest} V down; above, the law says less than one fault in the whole device. "
        f"Below {lowest} V the device no longer answered. The published faults cluster in columns; this law has independent cells.",
    )


SRAM_28NM_KC705B = _block_ram(
    "kc705b", "28 nm FPGA block RAM (KC705, board B)", 0.3852, 0.0398, 0.53, 0.59, "rms 0.055 decades, largest 0.12"
)
SRAM_28NM_VC707 = _block_ram("vc707", "28 nm FPGA block RAM (VC707)", 0.4442, 0.0304, 0.54, 0.60, "rms 0.074 decades, largest 0.12")
