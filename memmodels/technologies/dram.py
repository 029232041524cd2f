"""DRAM below its specified timing, voltage and refresh rate: three causes of errors that add up.

activation  p(t) = 1/2 Phi((ln t50 - ln tRCD) / s), t in ns, per vendor and direction        lifetime die, nested in tRCD
            (p01 with all zeros stored, p10 with all ones). Lognormal was chosen per vendor: it fits the medians over modules
            better than normal. p01 != p10 strongly, in either direction. From 10 ns on no module erred: 0.
retention   p(t) = Phi((ln t - ln t50 + a (T - 45) + b (1.35 - V)) / s), t in s, T in °C, V in volt
            accumulating in time, nested; a cell loses its charge, so true cells err 1 -> 0 and anti-cells 0 -> 1. The source counts
            cells and not directions. By default half of the rows are of either kind (assumed), so p01 = p10 = p / 2 on average;
            polarity=true: p10 = p, p01 = 0; polarity=anti: the reverse. Eight of nine DDR4 modules (`ddr4`) have true cells only.
lines       f(V) = c Phi((mu - V) / s): the share of bad 64-byte lines (c = 1/2 for vendor C, else 1)    lifetime die, nested
            The source counts lines with at least one flip, not bits. How many bits flip in a bad line is not published: the user
            gives p_in_line, and p01 = p10 = f p_in_line. From the first voltage without errors on: 0.

Valid: tRCD 2.5 ... 13.125 ns at 20 °C and nominal voltage; lines at tRCD = tRP = 10 ns and 20 °C, from the last published
voltage of the vendor up (less `vdd_offset`); retention 64 ms ... 2.048 s, 20 ... 70 °C, 1.15 ... 1.35 V. Combinations that were
not measured (a lower voltage and another tRCD; long refresh below 1.15 V) are refused unless extrapolate=yes, which adds the
causes up. tRP below 10 ns returns whole wrong rows (rates of 0.005 to 0.7 at 7.5 ns) and is refused.

Sources: Chang et al., SIGMETRICS 2016 (timing, DDR3) and 2017 (voltage and retention, DDR3L); energy per bit from Accelergy and
Larimi et al., DATE 2021. Over voltage, energy ~ (V/1.35)^2 is an assumption.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.cost import USE_CONDITIONS, EnergyRates, access_cost
from weakcell.memmodels.curves import Curve, Mark, Panel, hold_out_ends, hold_out_tail, make_grid
from weakcell.memmodels.definition import Condition, Conditions, Technology
from weakcell.memmodels.error_model.structure import Bank, Lines, Shared
from weakcell.memmodels.error_model.terms import ErrorTerm, Lifetime
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.memory import Accesses, Basis, Cost, Quantity
from weakcell.memmodels.technologies.support import EXTRAPOLATE, extrapolates, number, phi, refuse, table, within

TRCD: dict[str, dict[str, tuple[float, float]]] = {
    "A": {"p01": (3.5066, 0.2444), "p10": (3.2241, 0.2520)},
    "B": {"p01": (3.8416, 0.4648), "p10": (4.8939, 0.2045)},
    "C": {"p01": (4.9679, 0.0942), "p10": (4.1207, 0.1000)},
}
"""t50 in ns and s, per vendor and direction."""
TRCD_WITHOUT_ERRORS = 10.0
LINES: dict[str, tuple[float, float, float]] = {"A": (1.0936, 0.0117, 1.0), "B": (1.0062, 0.0204, 1.0), "C": (1.1999, 0.0430, 0.5)}
"""mu and s in volt, and the share at which lines saturate."""
VDD_RANGE = {"A": (1.10, 1.15), "B": (1.025, 1.15), "C": (1.10, 1.30)}
"""Lowest published voltage, and lowest voltage without errors."""
RETENTION_T50, RETENTION_S, RETENTION_PER_K, RETENTION_PER_V = 431.5, 0.9882, 0.0123, 0.2468
LONGEST_INTERVAL = 2.048 * math.exp(RETENTION_PER_K * (70.0 - 45.0) + RETENTION_PER_V * (1.35 - 1.15))
"""The longest published interval, at 70 °C and 1.15 V, as an equivalent at 45 °C and 1.35 V: 2.93 s."""
LINE_BITS = 512
_NAME, _NOMINAL, _MEASURED_C = "dram", 1.35, 20.0


def terms(conditions: Conditions) -> tuple[ErrorTerm, ...]:
    """Return activation, retention and line errors, in this order."""
    return activation(conditions), retention(conditions), lines(conditions)


def activation(conditions: Conditions) -> ErrorTerm:
    """Return the cells whose bitline is not ready after tRCD.

    With `fails` F, the density of weak cells is the published rate / F.
    """
    vendor, fails = str(conditions["vendor"]), number(conditions, "fails")
    _refuse_combination(conditions)
    p01, p10 = (activation_rate(vendor, way, number(conditions, "trcd")) / fails for way in ("p01", "p10"))
    if max(p01, p10) > 0.5:
        raise refuse(
            _NAME,
            f"trcd={number(conditions, 'trcd'):g} with fails={fails:g}",
            f"the published rate needs weak cells in a share of {max(p01, p10):.2g}, but at most half can prefer either value",
            "Choose a longer trcd, or fails nearer to 1",
        )
    return ErrorTerm("activation", Lifetime.DIE, p01, p10, failure_probability=fails, structure=shared_structure(_NAME, conditions))


def _refuse_combination(conditions: Conditions) -> None:
    """Refuse a short tRCD together with another voltage or temperature, unless extrapolate=yes."""
    trcd, vdd, temperature = (number(conditions, key) for key in ("trcd", "vdd", "temperature"))
    if trcd >= TRCD_WITHOUT_ERRORS or extrapolates(conditions):
        return
    for key, value, measured, unit in (("vdd", vdd, _NOMINAL, "V"), ("temperature", temperature, _MEASURED_C, "°C")):
        if value != measured:
            raise refuse(
                _NAME,
                f"trcd={trcd:g} with {key}={value:g}",
                f"errors of a short tRCD were measured at {measured:g} {unit} only",
                f"Leave trcd at 10, leave {key} at {measured:g}, or say extrapolate=yes",
            )


def activation_rate(vendor: str, way: str, trcd: float) -> float:
    """Return the bit error rate of the first access after tRCD ns; way: `p01` or `p10`."""
    t50, s = TRCD[vendor][way]
    return 0.0 if trcd >= TRCD_WITHOUT_ERRORS else 0.5 * phi((math.log(t50) - math.log(trcd)) / s)


def shared_structure(technology: str, conditions: Conditions) -> Shared | None:
    """Return the user's structure: columns or rows of cells that share a part of their thresholds."""
    axis = str(conditions["structure"])
    if axis in ("none", "uniform", "data-dependent"):
        return None
    missing = [key for key in ("share", "rows", "columns") if key not in conditions]
    if missing:
        raise refuse(
            technology,
            f"structure={axis} without {', '.join(missing)}",
            "how much cells have in common, and how large a bank is, was not published",
            f"Give {', '.join(missing)}",
        )
    along: Literal["column", "row"] = "column" if axis in ("column", "bitline") else "row"
    return Shared(along, number(conditions, "share"), Bank(int(number(conditions, "rows")), int(number(conditions, "columns"))))


def retention(conditions: Conditions) -> ErrorTerm:
    """Return the cells that lose their charge within a refresh interval."""
    interval, vdd = number(conditions, "refresh_interval"), number(conditions, "vdd")
    if interval > 0.256 and vdd < 1.15 and not extrapolates(conditions):
        raise refuse(
            _NAME,
            f"refresh_interval={interval:g} with vdd={vdd:g}",
            "retention was measured from 1.15 V up",
            "Raise vdd, choose at most 0.256 s, or say extrapolate=yes",
        )
    temperature, slope = number(conditions, "temperature"), number(conditions, "retention_slope")
    equivalent = interval * math.exp(slope * (temperature - 45.0) + RETENTION_PER_V * (_NOMINAL - vdd))
    asked = f"refresh_interval={interval:g}, temperature={temperature:g}, retention_slope={slope:g}"
    name = f"the interval that loses as many cells at 45 °C and 1.35 V ({asked})"
    within(_NAME, conditions, name, equivalent, (0.0, LONGEST_INTERVAL), unit="s")
    p = retention_rate(interval, temperature, vdd, slope)
    if conditions["polarity"] == "true":
        return ErrorTerm("retention", Lifetime.ACCUMULATING, 0.0, p, preference="zero", exposure="time", resampled=False)
    if conditions["polarity"] == "anti":
        return ErrorTerm("retention", Lifetime.ACCUMULATING, p, 0.0, preference="one", exposure="time", resampled=False)
    if conditions["polarity"] == "cell":
        return ErrorTerm("retention", Lifetime.ACCUMULATING, p / 2, p / 2, exposure="time", resampled=False)
    rows = Shared("row", 0.0, Bank(1, int(number(conditions, "row_bits"))))
    return ErrorTerm(
        "retention", Lifetime.ACCUMULATING, p / 2, p / 2, structure=rows, preference="row", exposure="time", resampled=False
    )


def retention_rate(interval: float, temperature: float, vdd: float, slope: float = RETENTION_PER_K) -> float:
    """Return the share of cells that lose their bit.

    Args:
        interval: Time between refreshes in s.
        temperature: In °C.
        vdd: In V.
        slope: ln(interval) per K.
    """
    shift = slope * (temperature - 45.0) + RETENTION_PER_V * (_NOMINAL - vdd)
    return phi((math.log(interval) - math.log(RETENTION_T50) + shift) / RETENTION_S)


def lines(conditions: Conditions) -> ErrorTerm:
    """Return bad 64-byte lines at low voltage, and the bits that flip in them."""
    vendor, vdd = str(conditions["vendor"]), number(conditions, "vdd")
    share = bad_lines(vendor, vdd - number(conditions, "vdd_offset"))
    if share == 0.0:
        return ErrorTerm("lines", Lifetime.DIE, 0.0, 0.0)
    _check_voltage(vendor, conditions)
    if "p_in_line" not in conditions:
        raise refuse(
            _NAME,
            f"vdd={vdd:g} without p_in_line",
            f"{share:.2g} of the 64-byte lines have errors, but how many bits flip in a bad line was not published",
            "Give p_in_line, the probability that a bit of a bad line is inverted",
        )
    p_in_line = number(conditions, "p_in_line")
    rate = share * p_in_line
    return ErrorTerm("lines", Lifetime.DIE, rate, rate, structure=Lines(LINE_BITS, 2.0 * p_in_line))


def _check_voltage(vendor: str, conditions: Conditions) -> None:
    vdd, offset, trcd, temperature = (number(conditions, key) for key in ("vdd", "vdd_offset", "trcd", "temperature"))
    lowest = VDD_RANGE[vendor][0]
    if extrapolates(conditions):
        return
    if vdd - offset < lowest - 1e-9:
        moved = f" and vdd_offset={offset:g}" if offset else ""
        raise MemorySpecError(
            f"dram: vdd={vdd:g} with vendor={vendor}{moved}",
            f"the valid range of this vendor's mean module{' (vdd - vdd_offset)' if offset else ''} is {lowest:g} … {_NOMINAL:g} V",
            "Choose vdd within it; laws are not extrapolated unless extrapolate=yes says so",
        )
    if temperature != _MEASURED_C:
        raise refuse(
            _NAME,
            f"vdd={vdd:g} with temperature={temperature:g}",
            f"errors at low voltage were measured at {_MEASURED_C:g} °C only",
            f"Leave temperature at {_MEASURED_C:g}, or say extrapolate=yes",
        )
    if trcd != TRCD_WITHOUT_ERRORS:
        raise refuse(
            _NAME,
            f"vdd={vdd:g} with trcd={trcd:g}",
            "errors at low voltage were measured at tRCD = 10 ns only, and they vanish when it is raised",
            "Leave trcd at 10, or say extrapolate=yes to add both laws up",
        )


def bad_lines(vendor: str, vdd: float) -> float:
    """Return the share of 64-byte lines with an error at tRCD = tRP = 10 ns."""
    mu, s, top = LINES[vendor]
    return 0.0 if vdd >= VDD_RANGE[vendor][1] else top * phi((mu - vdd) / s)


def cost(conditions: Conditions, bits: int, accesses: Accesses) -> Cost:
    """Return the energy per bit of the DRAM type.

    It scales with (V/1.35)^2 below nominal. Refresh power is the user's, ~ 1 / interval.
    """
    kind, vdd = str(conditions["type"]), number(conditions, "vdd")
    row = next(row for row in table("dram_energy") if row["type"] == kind)
    basis: Basis = "published" if vdd == _NOMINAL else "assumed"
    source = "Larimi et al., DATE 2021" if kind in ("HBM", "DDRx") else "Accelergy CACTI plug-in, public data"
    scaled = source if vdd == _NOMINAL else f"{source}; (V/1.35)^2"
    access = Quantity(float(row["energy"]) * (vdd / _NOMINAL) ** 2, "pJ/bit", basis, scaled)
    refresh = None
    if "refresh_power" in conditions:
        power = number(conditions, "refresh_power") * 0.064 / number(conditions, "refresh_interval")
        refresh = Quantity(power, "pW/bit", "assumed", "the user's refresh power at 64 ms, ~ 1 / interval")
    latency = Quantity(number(conditions, "trcd"), "ns", "computed", "tRCD alone")
    return access_cost(conditions, bits, accesses, EnergyRates(access, access, refresh), latency)


def published_curve() -> tuple[Panel, ...]:
    """Return activation errors, bad lines and retention over their conditions, each with its law."""
    return _activation_panel(), _line_panel(), _retention_panel()


def _activation_panel() -> Panel:
    curves = []
    for vendor in TRCD:
        rows = [row for row in table("dram_trcd") if row["vendor"] == vendor]
        for variant, way in enumerate(("p01", "p10")):
            # where the median module has no errors, the mean over modules is the published number
            rates = [(float(row["trcd"]), float(row[way]) or float(row.get(f"{way}_mean") or 0.0)) for row in rows]
            points = tuple(point for point in rates if point[1])
            times, p = zip(*points, strict=True)
            curves.append(
                Curve(
                    f"{vendor} {way}",
                    points,
                    law=lambda t, vendor=vendor, way=way: activation_rate(vendor, way, t),  # type: ignore[misc]
                    law_x=make_grid(2.5, 9.99),
                    group=vendor,
                    variant=variant,
                    ends=hold_out_tail(np.log(times).tolist(), p, 0.5, (math.log(4.0), 0.2)),
                )
            )
    title = "tRCD: first access, 20 °C (no errors from 10 ns)"
    limit = (Mark("x", (TRCD_WITHOUT_ERRORS,)),)
    return Panel("dram", "DRAM", title, "tRCD (ns)", "bit error rate, median module", tuple(curves), limit, y_range=(1e-10, 2.0))


def _line_panel() -> Panel:
    curves = []
    for vendor, (lowest, free) in VDD_RANGE.items():
        rows = [row for row in table("dram_lines") if row["vendor"] == vendor and float(row["share"])]
        points = tuple((float(row["vdd"]), float(row["share"])) for row in rows)
        tested = len(points) > 2
        curves.append(
            Curve(
                f"vendor {vendor}" if tested else f"vendor {vendor}: two points, two constants",
                points,
                law=lambda v, vendor=vendor: bad_lines(vendor, v),  # type: ignore[misc]
                law_x=make_grid(lowest, free - 1e-6),
                ends=_hold_out_lines(points, LINES[vendor][2]) if tested else None,
            )
        )
    title = "Low voltage, tRCD = tRP = 10 ns"
    return Panel("dram", "DRAM", title, "VDD (V)", "share of bad 64-byte lines", tuple(curves), y_range=(1e-12, 2.0))


def _hold_out_lines(points: tuple[tuple[float, float], ...], top: float) -> float:
    volts, shares = zip(*points, strict=True)
    return hold_out_tail(volts, shares, top, (1.1, 0.03))


def _retention_panel() -> Panel:
    rows = [tuple(float(row[key]) for key in ("interval", "temperature", "vdd", "rate")) for row in table("dram_retention")]
    failing = np.array([row for row in rows if row[3] > 0.0])
    curves = tuple(
        Curve(
            f"{temperature} °C, {vdd} V",
            tuple((t, rate) for t, c, v, rate in failing.tolist() if (c, v) == (temperature, vdd)),
            law=lambda t, temperature=temperature, vdd=vdd: retention_rate(t, temperature, vdd),  # type: ignore[misc]
            law_x=make_grid(0.4, 2.048),
        )
        for temperature in (20, 70)
        for vdd in (1.35, 1.15)
    )
    title = f"Retention, 29 modules (held-out ends {hold_out_retention(failing):.2f} decades)"
    return Panel(
        "dram", "DRAM", title, "refresh interval (s)", "share of cells that lose their bit", curves,
        x_log=True, x_ticks=(0.5, 1.0, 2.0), y_range=(1e-14, 1e-6),
    )  # fmt: skip


def hold_out_retention(rows: npt.NDArray[np.float64]) -> float:
    """Return the error of the retention law at intervals that were held out, in decades.

    Args:
        rows: (n, 4) interval in s, temperature in °C, voltage in V, rate > 0. Probits are linear in ln t, temperature and voltage.
    """
    from scipy.special import log_ndtr, ndtri

    t, temperature, vdd, rates = rows.T
    design = np.c_[np.ones_like(t), np.log(t), temperature - 45.0, _NOMINAL - vdd]

    def refit(kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        fitted = np.linalg.lstsq(design[kept], ndtri(rates[kept]), rcond=None)[0]
        return np.asarray(log_ndtr(design[~kept] @ fitted))

    return hold_out_ends(refit, t, rates)


BANK_CONDITIONS = (
    Condition("share", "", "common part of the threshold variance, with structure (no default)", low=0.0, high=0.95),
    Condition("rows", "", "rows of a bank, with structure (no default)", low=1.0, high=1048576.0),
    Condition("columns", "", "columns of a bank, with structure (no default)", low=1.0, high=1048576.0),
)

DRAM = Technology(
    name=_NAME,
    title="DDR3 and DDR3L below specified timing and voltage",
    conditions=(
        Condition("vendor", "", "whose modules", default="B", choices=("A", "B", "C")),
        Condition("trcd", "ns", "activation time; 10 is error-free, nominal is 13.125", default=10.0, low=2.5, high=13.125),
        Condition("trp", "ns", "precharge time; below 10 whole rows come back wrong", default=10.0, low=10.0, high=13.125),
        Condition("vdd", "V", "supply voltage", default=_NOMINAL, low=1.025, high=_NOMINAL, beyond=(0.8, _NOMINAL)),
        Condition("vdd_offset", "V", "how much more voltage this module needs than the mean one", default=0.0, low=-0.1, high=0.1),
        Condition("p_in_line", "", "P(a bit of a bad line is inverted), needed at low vdd (no default)", low=1e-3, high=0.5),
        Condition("refresh_interval", "s", "time between refreshes", default=0.064, low=0.064, high=2.048, beyond=(1e-3, 1e4)),
        Condition("temperature", "°C", "of the cells; acts on retention", default=20.0, low=20.0, high=70.0, beyond=(-40.0, 125.0)),
        Condition("retention_slope", "1/K", "ln(retention time) lost per kelvin", default=RETENTION_PER_K, low=0.0, high=0.1),
        Condition(
            "polarity",
            "",
            "true and anti-cells: half of the rows (of row_bits cells) or of the cells, or all of one kind",
            default="row",
            choices=("row", "cell", "true", "anti"),
        ),
        Condition("row_bits", "", "cells of a row, or of a block of rows, of one polarity", default=8192.0, low=1.0, high=2.0**30),
        Condition("fails", "", "probability that a weak cell fails at an access (EDEN's F)", default=1.0, low=0.001, high=1.0),
        Condition("structure", "", "what activation errors share", default="none", choices=("none", "column", "row")),
        *BANK_CONDITIONS,
        Condition(
            "type", "", "whose energy per bit", default="DDR3", choices=("DDR3", "LPDDR4", "LPDDR", "GDDR5", "HBM2", "HBM", "DDRx")
        ),
        Condition("refresh_power", "pW/bit", "refresh power at 64 ms (no default)", low=0.0, high=1e6),
        EXTRAPOLATE,
        *USE_CONDITIONS,
    ),
    terms=terms,
    cost=cost,
    law="activation: p = 1/2 Phi((ln t50 - ln tRCD) / s), p01 != p10 (die); retention: p = Phi((ln t - ln t50 + a (T - 45) + "
    "b (1.35 - V)) / s) (accumulating); bad 64-byte lines: f = c Phi((mu - V) / s), p = f p_in_line (die)",
    source="Chang et al., SIGMETRICS 2016 (timing) and 2017 (voltage, retention), raw data",
    basis="published",
    sweep="trcd",
    constants=(
        *(
            (f"activation, vendor {v}", "; ".join(f"{way} t50 = {t} ns, s = {s}" for way, (t, s) in ways.items()), "computed")
            for v, ways in TRCD.items()
        ),
        *((f"bad lines, vendor {v}", f"mu = {mu} V, s = {s} V, at most {top}", "computed") for v, (mu, s, top) in LINES.items()),
        (
            "retention",
            f"t50 = {RETENTION_T50} s at 45 °C and 1.35 V, s = {RETENTION_S}, a = {RETENTION_PER_K}/K, b = {RETENTION_PER_V}/V",
            "computed",
        ),
        ("row_bits", "8192, a guess at the row of one chip: set your part's", "assumed"),
        (
            "polarity",
            "half of the rows are anti-cells: measured on no DDR3 module; eight of nine DDR4 modules have none",
            "assumed",
        ),
        ("fails", "1: a weak cell always fails", "assumed"),
        ("energy over voltage", "(V/1.35)^2", "assumed"),
        ("fit error, activation", "A rms 0.05, largest 0.08; B 0.04, 0.08; C 0.03, 0.06 decades", "computed"),
        ("fit error, lines", "B rms 0.23, largest 0.35; C 0.01, 0.02 decades; A two points", "computed"),
        ("fit error, retention", "rms 0.21, largest 0.40 decades", "computed"),
    ),
    notes="Constants are of the median module (timing) or the mean one (voltage, retention); modules differ by decades: vendor A "
    "at 7.5 ns spans 3.5e-6 to 4.4e-2. At 10 ns and at the first error-free voltage the laws are cut off: there vendor B's tRCD "
    "law would still say 1e-2, so between 7.5 and 10 ns it says too much. The slope of retention with temperature is a pooled "
    "fit; single modules span 1.7x to 5e4x between 20 and 70 °C, so it is the user's to set. With it, the interval that loses as "
    "many cells at 45 °C and 1.35 V stays below 2.93 s, the longest one measured. vdd - vdd_offset stays in the vendor's range.",
    published_curve=published_curve,
)
