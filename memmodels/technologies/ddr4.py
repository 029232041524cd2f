"""DDR4 without refresh: cells that lose a stored 1, in seven modules of two manufacturers.

    p10(t, T) = Phi(a + b x + c x^2),   x = ln t90,   t90 = t 8.0^((1/T50 - 1/T) / (1/T50 - 1/T90))

t is the time without refresh in s, T the temperature in K, T50 and T90 those of 50 and 90 °C. t90 is the time at 90 °C that loses
as many cells. Every cell of these modules is a true cell: it loses a 1. Errors accumulate, nested in time and temperature.

a, b, c are a least-squares fit to the probits of the published rates at 90 °C, 4 … 256 s, per module: rms at most 0.026 decades. A
straight line in ln t, as `dram` has it, leaves up to 0.12. The factor 8.0 between 50 and 90 °C is measured on one module (hyhy13,
rms 0.034 decades at 50 °C); that it holds for the others is assumed.

Valid: t90 from 4 to 256 s, 50 … 90 °C. Stored 0s erred at rates up to 5e-7 at 64 s and 1.4e-5 at 256 s; they are left out.
One bank per module, one run, solid patterns: nothing is known about neighbours' data or variable retention times. No energy was
published.

Source: H. Luo et al., "Revisiting DRAM Read Disturbance", VTS 2025 (arXiv 2503.16749), raw data.
"""

from __future__ import annotations

import math

from weakcell.memmodels.curves import Curve, Panel, hold_out_probit, make_grid
from weakcell.memmodels.definition import Condition, Conditions, Technology, no_cost
from weakcell.memmodels.error_model.terms import ErrorTerm, Lifetime
from weakcell.memmodels.technologies.support import number, phi, table, within

PROBITS: dict[str, tuple[float, float, float]] = {
    "hisasa01": (-3.8586, 0.7647, -0.0454),
    "hisasa02": (-4.0766, 0.7197, -0.0429),
    "hisasa03": (-4.1633, 0.7549, -0.0456),
    "sasa29": (-3.0141, 0.5458, -0.0227),
    "hyhy03": (-4.1929, 0.8623, -0.0602),
    "hyhy0c": (-4.1884, 0.7899, -0.0504),
    "hyhy13": (-4.1892, 0.7911, -0.0511),
}
"""a, b and c per module, with the names of the source."""
SPEED_UP = 8.0
"""How many times as fast cells lose their charge at 90 °C as at 50 °C."""
_NAME, _KELVIN = "ddr4", 273.15
_SHORTEST, _LONGEST = 4.0, 256.0


def scale_time(interval: float, temperature: float) -> float:
    """Return the time at 90 °C, in s, that loses as many cells as `interval` s at `temperature` °C."""
    cold, hot = 1.0 / (50.0 + _KELVIN), 1.0 / (90.0 + _KELVIN)
    share = (1.0 / (temperature + _KELVIN) - hot) / (cold - hot)
    return float(interval * SPEED_UP**-share)


def retention_rate(module: str, interval: float, temperature: float) -> float:
    """Return P(read 0 | stored 1) after `interval` s without refresh at °C."""
    a, b, c = PROBITS[module]
    x = math.log(scale_time(interval, temperature))
    return phi(a + b * x + c * x * x)


def terms(conditions: Conditions) -> tuple[ErrorTerm, ...]:
    """Return the cells that lose a 1."""
    interval, temperature = number(conditions, "interval"), number(conditions, "temperature")
    name = f"the time at 90 °C that loses as many cells (interval={interval:g}, temperature={temperature:g})"
    within(_NAME, conditions, name, scale_time(interval, temperature), (_SHORTEST, _LONGEST), unit="s")
    p10 = retention_rate(str(conditions["module"]), interval, temperature)
    return (ErrorTerm("retention", Lifetime.ACCUMULATING, 0.0, p10, preference="zero", exposure="time", resampled=False),)


def published_curve() -> tuple[Panel, ...]:
    """Return the published rates of each module over time, and the law."""
    curves = []
    for module in PROBITS:
        for temperature in (90, 50):
            rows = [row for row in table("ddr4_retention") if (row["module"], row["temperature"]) == (module, str(temperature))]
            points = tuple((float(row["interval"]), float(row["rate"])) for row in rows if _fits(row))
            if not points:
                continue
            law = lambda t, module=module, temperature=temperature: retention_rate(module, t, temperature)  # noqa: E731
            fitted = temperature == 90
            curves.append(
                Curve(
                    module if fitted else f"{module}, {temperature} °C (not fitted)",
                    points,
                    law,
                    make_grid(points[0][0], _LONGEST),
                    group=module,
                    variant=0 if fitted else 1,
                    ends=hold_out_probit([math.log(t) for t, _ in points], [p for _, p in points], degree=2) if fitted else None,
                )
            )
    title = "Retention without refresh, 90 °C"
    return (Panel("ddr4", "DDR4", title, "time without refresh (s)", "P(read 0 | stored 1)", tuple(curves), x_log=True),)


def _fits(row: dict[str, str]) -> bool:
    """Return whether the law covers a published point."""
    return scale_time(float(row["interval"]), float(row["temperature"])) >= _SHORTEST * (1.0 - 1e-12)


DDR4 = Technology(
    name=_NAME,
    title="DDR4 modules without refresh",
    conditions=(
        Condition("module", "", "which of the measured modules", default="hyhy13", choices=tuple(PROBITS)),
        Condition("interval", "s", "time without refresh", default=_SHORTEST, low=_SHORTEST, high=_LONGEST),
        Condition("temperature", "°C", "of the cells", default=90.0, low=50.0, high=90.0),
    ),
    terms=terms,
    cost=no_cost,
    law="p10 = Phi(a + b x + c x^2), x = ln of the time at 90 °C that loses as many cells; p01 = 0 (accumulating, per die)",
    source="Luo et al., VTS 2025 (arXiv 2503.16749), raw data",
    basis="published",
    sweep="interval",
    constants=(
        *((f"a, b, c of {module}", ", ".join(map(str, abc)), "computed") for module, abc in PROBITS.items()),
        ("time factor, 50 to 90 °C", f"{SPEED_UP:g}, measured on hyhy13, assumed for the others", "computed"),
        ("p01", "0: the source counts at most 5.1e-7 at 64 s and 1.4e-5 at 256 s", "assumed"),
        ("fit error", "rms at most 0.026, largest 0.038 decades; 0.034 rms at 50 °C", "computed"),
    ),
    notes="Modules of manufacturers S and H only: all their rows are true cells. A module of a third one has anti-cell rows and "
    "another law. The shortest measured time is 4 s at 90 °C, so a refresh interval of 64 ms is out of range.",
    published_curve=published_curve,
)
