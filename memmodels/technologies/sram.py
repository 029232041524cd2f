"""SRAM of 14 nm chips under voltage scaling: a cell fails below its own threshold voltage, and thresholds are normal.

    p(V) = Phi((mu - V) / s)                                    lifetime die, nested: a cell that fails at V fails at every lower V

The constants are a least-squares line through the probits of the published points, Phi^-1(p) over V, in `published/`; a test
repeats the fit. Errors are given in decades of p.

V is in units of Vmin, the lowest voltage without measured errors. The absolute Vmin was not published, so volts need `vmin` from
the user. p is a flip rate (p01 = p10 = p): a share p of the cells prefers 1 and another share p prefers 0. Some papers count stuck
cells instead (NeuralFuse): a share p is stuck, half at 1 and half at 0, so p01 = p10 = p/2 and half as many bits flip;
`counts=stuck` reads the curve as such a density.

    E(V) = (V/Vmin)^(n + m ln(V/Vmin)),  above Vmin (V/Vmin)^n          energy per access, relative to Vmin

E is 1 at Vmin by definition. n and m are a least-squares fit to the published curve under that condition. The digitised curve ends
at 0.987, within the accuracy of digitising (0.005 in energy, 0.006 Vmin in voltage, which is 0.015 in energy there): largest error
0.013 at Vmin, 0.010 elsewhere, rms 0.005.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from weakcell.memmodels.curves import Curve, Panel, hold_out_probit, make_grid
from weakcell.memmodels.definition import Condition, Conditions, Technology
from weakcell.memmodels.error_model.terms import Cells, ErrorTerm, Lifetime
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.memory import Accesses, Cost, Quantity
from weakcell.memmodels.technologies.support import EXTRAPOLATE, table, within

_STUTZ = "Stutz et al., MLSys 2021, Fig. 1"

SRAM_14NM_MU, SRAM_14NM_S = 0.7150, 0.0562
SRAM_14NM_EXPONENT, SRAM_14NM_BEND = 2.4554, 1.5744
"""n and m of the energy per access."""


def probit(voltage: float, mu: float, s: float) -> float:
    """Return Phi((mu - V) / s), the share of cells with a threshold voltage above V; all in one unit."""
    return 0.5 * math.erfc((voltage - mu) / (s * math.sqrt(2.0)))


def terms_14nm(conditions: Conditions) -> tuple[ErrorTerm, ...]:
    """Return the weak cells of a 14 nm die at V/Vmin."""
    p = probit(_relative_voltage(conditions), SRAM_14NM_MU, SRAM_14NM_S) / (2.0 if conditions["counts"] == "stuck" else 1.0)
    return (ErrorTerm("access", Lifetime.DIE, p, p, Cells(str(conditions["cells"]))),)


def cost_14nm(conditions: Conditions, bits: int, accesses: Accesses) -> Cost:
    """Return the access energy relative to the same accesses at Vmin; joules were not published."""
    ratio = access_energy(_relative_voltage(conditions))
    return Cost(energy=Quantity(ratio, "x E(Vmin)", "published", f"{_STUTZ}, fitted within 0.013"))


def access_energy(voltage: float) -> float:
    """Return the energy per access at V/Vmin, relative to Vmin: 1 at 1."""
    return float(voltage ** (SRAM_14NM_EXPONENT + SRAM_14NM_BEND * min(math.log(voltage), 0.0)))


def _relative_voltage(conditions: Conditions) -> float:
    """Return V/Vmin, from v_over_vmin or from vdd and vmin."""
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
    return within("sram-14nm", conditions, "vdd/vmin", ratio, _RANGE_14NM, beyond=_BEYOND_14NM)


def published_curve() -> tuple[Panel, ...]:
    """Return the published bit error rates over V/Vmin and the probit law."""
    points = tuple((float(row["v_over_vmin"]), float(row["ber"])) for row in table("sram_14nm"))
    chips = Curve(
        "Stutz et al. 2021 (digitised)",
        points,
        law=lambda v: probit(v, SRAM_14NM_MU, SRAM_14NM_S),
        law_x=make_grid(0.75, 1.0),
        law_label="Φ((μ − V)/s)",
        ends=hold_out_probit(*zip(*points, strict=True)),
    )
    return (Panel("sram", "SRAM", "14 nm chips", "V / Vmin", "bit error rate", (chips,)),)


def _describe_readings(rate: float) -> str:
    """Describe voltage and energy of a flip rate if the published curve counts flips, and if it counts stuck cells."""
    volts = {
        counts: SRAM_14NM_MU - SRAM_14NM_S * NormalDist().inv_cdf(share)
        for counts, share in (("flips", rate), ("stuck", 2.0 * rate))
    }
    return "; ".join(f"counts={counts} {v:.3f} Vmin, {access_energy(v):.3f}" for counts, v in volts.items())


_RANGE_14NM, _BEYOND_14NM = (0.75, 1.0), (SRAM_14NM_MU, 1.5)
"""In Vmin: the published range, and the one of extrapolate=yes. Below mu more than half of the cells would prefer each value."""

SRAM_14NM = Technology(
    name="sram-14nm",
    title="14 nm FinFET SRAM chips under voltage scaling",
    conditions=(
        Condition("v_over_vmin", "", "supply voltage / Vmin (1 unless given)", None, *_RANGE_14NM, beyond=_BEYOND_14NM),
        Condition("vdd", "V", "supply voltage, together with vmin, instead of v_over_vmin", low=0.0, high=2.0),
        Condition("vmin", "V", "your chip's lowest voltage without errors", low=0.01, high=2.0),
        Condition("cells", "", "which values a weak cell spoils", default="prefer", choices=("prefer", "invert")),
        Condition("counts", "", "what the curve counts: flips, or stuck cells", default="flips", choices=("flips", "stuck")),
        EXTRAPOLATE,
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
        (
            "energy",
            f"(V/Vmin)^({SRAM_14NM_EXPONENT} + {SRAM_14NM_BEND} ln(V/Vmin)), 1 at Vmin; above it (V/Vmin)^{SRAM_14NM_EXPONENT}",
            "published",
        ),
        ("fit error, energy", "rms 0.005, largest 0.013 of E(Vmin), at Vmin itself: the digitised curve ends at 0.987", "computed"),
        ("fit error", "rms 0.10 decades over five decades, largest 0.22", "computed"),
        *((f"flip rate {rate:g}: voltage, energy", _describe_readings(rate), "computed") for rate in (1e-3, 1e-2)),
    ),
    notes="Whether the published curve counts flips or stuck cells is not settled; the constants show both. The default is flips: "
    "the authors' own error model flips every bit with p, their energy figures rest on it, and it is the more careful one. "
    "NeuralFuse takes rates of the same chips as stuck cells, of which half show: counts=stuck. The law does not carry over to "
    "other chips: another 14 nm chip fails about 2 decades less often at the same voltage below its guardband, as far as its "
    "abstract tells (see memmodels/TRUST.md).",
    published_curve=published_curve,
)
