"""DDR4 without refresh: cells that lose their charge, in nine modules of three manufacturers.

    lost   p = Phi(z(ln t90)), t90 = t 8.0^((1/T50 - 1/T) / (1/T50 - 1/T90))       the law z: `retention.py`
    gained q = exp(u + k ln t'), t' as t90 with a factor 2.8 instead of 8.0

t is the time without refresh in s, T the temperature in K, T50 and T90 those of 50 and 90 °C. t90 is the time at 90 °C that loses
as many cells: temperature scales time, not the rate. A true cell loses a 1 (p10 = p), an anti-cell a 0. A cell without charge
hardly ever gains some (q). Errors accumulate, nested in time and temperature.

Manufacturers S and H: all rows are true cells. level, body and knee of each module, and tail and width of all together, are a
least-squares fit of ln p to the published counts: rms 0.006 to 0.010 decades at 90 °C over 4 … 4096 s, and 0.037 for hyhy13, whose
counts at 50 °C (2.8e-7 … 0.019) take part. The factor 8.0 (0.53 eV) is of hyhy13, +- 0.3; that it holds for the others is assumed.
Manufacturer M (axmicr02): blocks of 336 to 688 rows are true cells or anti-cells, and the retention time is nearly bounded. Its law
interpolates the published probits of either kind (monotone cubic in ln t90).

Valid: t90 from 4 to 4096 s; hyhy13 from 0.5 s. 50 … 90 °C. hyhy13 was measured up to 256 s: the other modules, fitted up to there,
are predicted to 4096 s within 0.06 decades. hisasa00 is without its dead lane. One bank per module, one run,
solid patterns: nothing is known about neighbours' data or variable retention times. No energy was published.

Source: H. Luo et al., "Revisiting DRAM Read Disturbance", VTS 2025 (arXiv 2503.16749), raw data.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.curves import Curve, Law, Panel, hold_out_ends
from weakcell.memmodels.definition import Condition, Conditions, Technology, no_cost
from weakcell.memmodels.error_model.structure import Bank, Shared
from weakcell.memmodels.error_model.terms import ErrorTerm, Lifetime
from weakcell.memmodels.technologies.retention import TAIL, WIDTH, RetentionLaw, activation_energy, speed_up
from weakcell.memmodels.technologies.support import number, phi, refuse, table, within

LAWS: dict[str, RetentionLaw] = {
    "hisasa00": RetentionLaw(-3.0295, 0.3074, 2.1478),
    "hisasa01": RetentionLaw(-2.7186, 0.3099, 1.9489),
    "hisasa02": RetentionLaw(-3.0409, 0.2981, 1.7627),
    "hisasa03": RetentionLaw(-3.0443, 0.3032, 1.8903),
    "sasa29": RetentionLaw(-2.4632, 0.3191, 0.9961),
    "hyhy03": RetentionLaw(-2.6665, 0.2600, 2.2867),
    "hyhy0c": RetentionLaw(-2.9081, 0.2827, 2.0653),
    "hyhy13": RetentionLaw(-2.7888, 0.2575, 2.2382),
}
"""The laws at 90 °C, with the names of the source."""
GAINS: dict[str, tuple[float, float]] = {
    "hisasa00": (-25.545, 1.866),
    "hisasa01": (-24.251, 1.927),
    "hisasa02": (-24.968, 1.899),
    "hisasa03": (-22.649, 1.653),
    "sasa29": (-23.532, 1.522),
    "hyhy03": (-27.478, 1.876),
    "hyhy0c": (-24.328, 2.337),
    "hyhy13": (-24.470, 2.406),
}
"""u and k per module."""
SPEED_UP, SPEED_UP_OF_GAINS = 8.0, 2.8
"""How many times as fast cells lose their charge, and gain some, at 90 °C as at 50 °C."""
ROW_CELLS, BLOCK_ROWS = 65536, 680
"""Cells of a row over the whole rank, and rows of a block of one kind in module axmicr02."""
_NAME, _BOUNDED, _HOT = "ddr4", "axmicr02", 90.0
_RANGE = (4.0, 4096.0)
_RANGES = {"hyhy13": (0.5, 4096.0)}
_KINDS = {"true": ("ones", 0), "anti": ("zeros", 1)}


def scale_time(interval: float, temperature: float, factor: float = SPEED_UP) -> float:
    """Return the time at 90 °C, in s, that loses as many cells as `interval` s at `temperature` °C."""
    return interval * speed_up(temperature, _HOT, activation_energy(factor, 50.0, _HOT))


def lost_share(module: str, interval: float, temperature: float, rows: str = "true") -> float:
    """Return the share of charged cells that lost their charge after `interval` s without refresh at °C.

    rows: `true` or `anti`; they differ in module axmicr02.
    """
    time = scale_time(interval, temperature)
    return phi(_interpolate(rows)(math.log(time))) if module == _BOUNDED else LAWS[module].share(time)


def gained_share(module: str, interval: float, temperature: float) -> float:
    """Return the share of cells without charge that read as charged after `interval` s at °C."""
    if module == _BOUNDED:
        return 0.0
    u, k = GAINS[module]
    return math.exp(u + k * math.log(scale_time(interval, temperature, SPEED_UP_OF_GAINS)))


@cache
def _interpolate(rows: str) -> Law:
    """Return the probit over ln(t90) of the module with a bounded retention time."""
    from scipy.interpolate import PchipInterpolator
    from scipy.special import ndtri

    times, rates = zip(*_points(_BOUNDED, 90, rows), strict=True)
    curve = PchipInterpolator(np.log(times), ndtri(rates))
    return lambda x: float(curve(x))


def terms(conditions: Conditions) -> tuple[ErrorTerm, ...]:
    """Return the cells that lose their charge, and the few that gain some."""
    module, rows = str(conditions["module"]), str(conditions["rows"])
    interval, temperature = number(conditions, "interval"), number(conditions, "temperature")
    name = f"the time at 90 °C that loses as many cells (interval={interval:g}, temperature={temperature:g})"
    within(f"{_NAME}:module={module}", conditions, name, scale_time(interval, temperature), _RANGES.get(module, _RANGE), unit="s")
    if module != _BOUNDED and rows == "anti":
        raise refuse(_NAME, f"rows=anti with module={module}", "all its rows are true cells", f"Choose module={_BOUNDED}")
    true, anti = (lost_share(module, interval, temperature, kind) for kind in _KINDS)
    if module == _BOUNDED and rows == "measured":
        blocks = Shared("row", 0.0, Bank(1, BLOCK_ROWS * ROW_CELLS))
        return (
            ErrorTerm("retention", Lifetime.ACCUMULATING, anti / 2, true / 2, structure=blocks, preference="row",
                      exposure="time", resampled=False),
        )  # fmt: skip
    if rows == "anti":
        return (ErrorTerm("retention", Lifetime.ACCUMULATING, anti, 0.0, preference="one", exposure="time", resampled=False),)
    gained = gained_share(module, interval, temperature)
    return (
        ErrorTerm("retention", Lifetime.ACCUMULATING, 0.0, true, preference="zero", exposure="time", resampled=False),
        ErrorTerm("gain", Lifetime.ACCUMULATING, gained, 0.0, preference="one", exposure="time", resampled=False),
    )


def _points(module: str, temperature: int, rows: str = "true") -> tuple[tuple[float, float], ...]:
    """Return the published (time in s, share of charged cells that lost their charge)."""
    asked = (module, str(temperature), rows, _KINDS[rows][0])
    found = [row for row in table("ddr4_retention") if (row["module"], row["temperature"], row["rows"], row["stored"]) == asked]
    return tuple((float(row["interval"]), int(row["flips"]) / int(row["cells"])) for row in found)


def published_curve() -> tuple[Panel, ...]:
    """Return the published rates of each module over time, and the law."""
    curves = []
    for module in (*LAWS, _BOUNDED):
        for temperature in (90, 50):
            for rows in _KINDS if module == _BOUNDED else ("true",):
                points = _points(module, temperature, rows)
                if not points:
                    continue
                law = lambda t, module=module, temperature=temperature, rows=rows: lost_share(module, t, temperature, rows)  # noqa: E731
                kind = f", {rows} cells (interpolated)" if module == _BOUNDED else ""
                curves.append(
                    Curve(
                        f"{module}{'' if temperature == 90 else ', 50 °C'}{kind}",
                        points,
                        law,
                        tuple(np.geomspace(points[0][0], points[-1][0], 121).tolist()),
                        group=module,
                        variant=1 if temperature == 50 or rows == "anti" else 0,
                        ends=_hold_out(points) if temperature == 90 and module != _BOUNDED else None,
                    )
                )
    title = "Retention without refresh, 90 °C"
    return (
        Panel(
            "ddr4", "DDR4", title, "time without refresh (s)", "share of cells that lose their charge", tuple(curves), x_log=True
        ),
    )


def _hold_out(points: tuple[tuple[float, float], ...]) -> float:
    """Return the error of level, body and knee at the held-out ends, in decades."""
    from scipy.optimize import least_squares
    from scipy.special import log_ndtr

    times, rates = np.array(points).T

    def law(constants: npt.NDArray[np.float64], where: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        fitted = RetentionLaw(*map(float, constants))
        return np.array([log_ndtr(fitted.probit(float(t))) for t in where])

    def refit(kept: npt.NDArray[np.bool_]) -> Any:
        found = least_squares(lambda c: law(c, times[kept]) - np.log(rates[kept]), (-2.8, 0.29, 2.0))
        return law(found.x, times[~kept])

    return hold_out_ends(refit, times, rates)


_MODULES = (*LAWS, _BOUNDED)

DDR4 = Technology(
    name=_NAME,
    title="DDR4 modules without refresh",
    conditions=(
        Condition("module", "", "which of the measured modules", default="hyhy13", choices=_MODULES),
        Condition("interval", "s", "time without refresh", default=_RANGE[0], low=_RANGE[0], high=_RANGE[1]),
        Condition("temperature", "°C", "of the cells", default=_HOT, low=50.0, high=_HOT),
        Condition(
            "rows",
            "",
            "true cells, anti-cells, or as measured (axmicr02: blocks of 680 rows of 65536 cells of either kind)",
            default="measured",
            choices=("measured", "true", "anti"),
        ),
    ),
    terms=terms,
    cost=no_cost,
    law="lost: p = Phi(level + body x - (tail - body) width ln(1 + exp(-(x - knee) / width))), x = ln of the time at 90 °C that "
    "loses as many cells; gained: q = exp(u + k ln t); true cells p10 = p, p01 = q (accumulating, per die)",
    source="Luo et al., VTS 2025 (arXiv 2503.16749), raw data",
    basis="published",
    sweep="interval",
    constants=(
        ("tail, width", f"{TAIL}, {WIDTH}, of the eight modules of S and H together", "computed"),
        *((f"level, body, knee of {m}", f"{law.level}, {law.body}, {law.knee}", "computed") for m, law in LAWS.items()),
        *((f"u, k of {m}", f"{u}, {k}", "computed") for m, (u, k) in GAINS.items()),
        (_BOUNDED, "published probits, interpolated; u, k: no charge gained in 2.6e-7 of the cells", "published"),
        ("time factor, 50 to 90 °C", f"{SPEED_UP:g} (0.53 eV), measured on hyhy13, assumed for the others", "computed"),
        ("the same for gains", f"{SPEED_UP_OF_GAINS:g} (0.26 eV), measured on hyhy13, assumed for the others", "computed"),
        ("fit error, lost", "rms 0.006 to 0.010, largest 0.017 decades; hyhy13 with 50 °C 0.037, 0.097", "computed"),
        ("held out: one wait of a module", "largest 0.072 decades", "computed"),
        ("held out: a module known at 4, 64, 4096 s", "largest 0.037 decades at the other eight times", "computed"),
        ("held out: a module known up to 64 s", "largest 0.10 decades up to 4096 s", "computed"),
        ("held out: a module known up to 256 s (as hyhy13 is)", "largest 0.06 decades up to 4096 s", "computed"),
    ),
    notes="Modules differ: at 4 s by a factor of 22, at 4096 s by 2 (S and H); sweep `module` to see the spread. hisasa00 is "
    "without its dead lane (one eighth of every row, which always read 0). Rows of a module differ little: beyond chance, the "
    "standard deviation of a row's rate is below 5 % of it. The shortest measured time is 4 s at 90 °C, so a refresh interval of "
    "64 ms is out of range.",
    published_curve=published_curve,
    version=2,  # nine modules to 4096 s; version 1 had three to 256 s
)
