"""RRAM: conductance levels are Gaussian, widen after programming, and overlap.

    sigma(g, t) = sum_k c_k(t) (g / 40 uS)^k uS                 at 1 s, 1 day and 2 days; between them linear in ln t
    P(level read as its neighbour) = Phi(-(g' - g) / (sigma + sigma'))      1T1R, threshold at equal distance in sigmas
    P(bit wrong) = Phi(-(g_high - g_low) / sqrt(sigma_low^2 + sigma_high^2))          2T2R: the sign of a difference

A cell of k bits has 2^k levels, evenly spaced from g_low to g_high; each can be read as a neighbour only. A window so narrow that
more than 5 % of a level's cells would be read farther off is refused. The code decides which bits an error corrupts (Gray: one;
binary: up to k). Levels are evaluated when they are read: lifetime write, and a misread cell stays misread while the levels widen
(nested as long as the deviation grows; the published one shrinks a little after a day at 10 uS). Cycling widens sigma by `wear` per
decade of cycles; that number is the user's. Below about 1e-6 Gaussian tails are unsupported: real cells have outliers, which `tail`
adds at every border between levels (0 by default; the survey's macros report 4e-8 to 1e-5).

Valid: 0 ... 40 uS, 1 s ... 2 days. Source: W. Wan et al., Nature 608 (2022), 130 nm, as fitted in IBM aihwkit.

`rram-mlc`: levels by mean and deviation from NVMExplorer, with maximum-likelihood thresholds, no knob of time.

Energy: the 22 nm array of `support.py`; macros of the survey (read 1 pJ/bit, 22 nm; set 67 and reset 681 pJ/bit, 180 nm: a write
is the mean of both); or, relative only, current through the programmed window: E ~ g_high.
"""

from __future__ import annotations

import math
from itertools import pairwise

from weakcell.memmodels.cost import USE_CONDITIONS, EnergyRates, access_cost
from weakcell.memmodels.curves import Curve, Mark, Panel, make_grid, tabulated_law
from weakcell.memmodels.definition import Condition, Conditions, Technology
from weakcell.memmodels.error_model.levels import Code, LevelTerm
from weakcell.memmodels.memory import Accesses, Cost, Quantity
from weakcell.memmodels.technologies.support import array_cost, check_neighbours, number, phi, refuse, table, together

_NAME = "rram"
_G_MAX = 40.0


def sigma(g: float, time: float) -> float:
    """Return the standard deviation of a conductance of g uS, `time` s after programming."""
    rows = table("rram_relaxation")
    times = [float(row["time"]) for row in rows]
    deviations = [sum(float(row[f"c{k}"]) * (g / _G_MAX) ** k for k in range(5)) for row in rows]
    after = next(i for i in range(1, len(times)) if time <= times[i])
    part = math.log(time / times[after - 1]) / math.log(times[after] / times[after - 1])
    return (1.0 - part) * deviations[after - 1] + part * deviations[after]


def level_term(conditions: Conditions) -> tuple[LevelTerm, ...]:
    """Return the levels of the programming window, widened by time and wear."""
    low, high, bits = number(conditions, "g_low"), number(conditions, "g_high"), int(number(conditions, "bits_per_cell"))
    if high < low:
        raise refuse(_NAME, f"g_low={low:g} with g_high={high:g}", "the window is upside down", "Choose g_high above g_low")
    if conditions["cell"] == "2T2R" and bits > 1:
        raise refuse(_NAME, f"cell=2T2R with bits_per_cell={bits}", "a pair of cells stores one bit", "Choose cell=1T1R")
    steps = (1 << bits) - 1
    levels = [low + (high - low) * i / steps for i in range(steps + 1)]
    wide = [sigma(g, number(conditions, "time")) * _wear_factor(conditions) for g in levels]
    pairs = range(steps)
    if conditions["cell"] == "2T2R":
        z = [(levels[i + 1] - levels[i]) / math.hypot(wide[i], wide[i + 1]) for i in pairs]
    else:
        z = [(levels[i + 1] - levels[i]) / (wide[i] + wide[i + 1]) for i in pairs]
        borders = [levels[i] + z[i] * wide[i] for i in pairs]
        made_by = ", ".join(f"{key}={conditions[key]}" for key in ("bits_per_cell", "g_low", "g_high", "time"))
        check_neighbours(_NAME, [_beyond(i, levels[i], wide[i], borders) for i in range(steps + 1)], made_by)
    p = [min(phi(-step) + number(conditions, "tail"), 0.5) for step in z]
    code: Code = "binary" if conditions["code"] == "binary" else "gray"
    return (LevelTerm("levels", (*p, 0.0), (0.0, *p), code),)


def _beyond(level: int, g: float, wide: float, borders: list[float]) -> float:
    """Return P(a cell of a level is read two or more levels off)."""
    up = phi((g - borders[level + 1]) / wide) if level + 1 < len(borders) else 0.0
    return up + (phi((borders[level - 2] - g) / wide) if level >= 2 else 0.0)


def _wear_factor(conditions: Conditions) -> float:
    """Return by how much cycling has widened the levels."""
    if not together(_NAME, conditions, "cycles", "wear"):
        return 1.0
    return 1.0 + number(conditions, "wear") * math.log10(number(conditions, "cycles"))


def cost(conditions: Conditions, bits: int, accesses: Accesses) -> Cost:
    """Return joules of the array or the survey, or programming energy relative to a window up to 40 uS."""
    cells = (2.0 if conditions["cell"] == "2T2R" else 1.0) / number(conditions, "bits_per_cell")
    if conditions["energy"] == "nvsim-22nm":
        return array_cost("RRAM", conditions, bits, accesses, cells_per_bit=cells)
    if conditions["energy"] == "window":
        ratio = number(conditions, "g_high") / _G_MAX
        return Cost(Quantity(ratio, "x E(g_high = 40 uS)", "assumed", "energy ~ current through the window, one voltage"))
    figures = {row["access"]: float(row["energy"]) * cells for row in table("rram_survey_energy")}
    single = cells == 1.0
    read = Quantity(figures["read"], "pJ/bit", "published" if single else "assumed", "survey: 22 nm, ISSCC 2019")
    mean = (figures["set"] + figures["reset"]) / 2
    source = "survey: 180 nm, VLSI 2014, mean of set and reset"
    write = Quantity(mean, "pJ/bit", "computed" if single else "assumed", source)
    return access_cost(conditions, bits, accesses, EnergyRates(read, write))


def nvmexplorer_term(conditions: Conditions) -> tuple[LevelTerm, ...]:
    """Return the levels of NVMExplorer, with thresholds where two neighbours are equally likely."""
    rows = [row for row in table("rram_levels") if row["bits"] == conditions["bits_per_cell"]]
    levels = [(float(row["mean"]), float(row["sigma"])) for row in rows]
    up, down = [], [0.0]
    for (mean, wide), (above, its) in pairwise(levels):
        border = cross_densities(mean, wide, above, its)
        up.append(phi((mean - border) / wide))
        down.append(phi((border - above) / its))
    code: Code = "binary" if conditions["code"] == "binary" else "gray"
    return (LevelTerm("levels", (*up, 0.0), tuple(down), code),)


def cross_densities(mean: float, wide: float, above: float, its: float) -> float:
    """Return where two normal densities cross between their means.

    Args:
        mean, wide: Mean and deviation of the lower one.
        above, its: Mean and deviation of the upper one.
    """
    a = 1.0 / wide**2 - 1.0 / its**2
    b = above / its**2 - mean / wide**2
    c = mean**2 / wide**2 - above**2 / its**2 + 2.0 * math.log(wide / its)
    root = math.sqrt(b * b - a * c)
    return next(x for x in ((-b + root) / a, (-b - root) / a) if mean < x < above)


def nvmexplorer_cost(conditions: Conditions, bits: int, accesses: Accesses) -> Cost:
    """Return the cost of the 22 nm array, with 1/k cells per bit."""
    return array_cost("RRAM", conditions, bits, accesses, cells_per_bit=1.0 / number(conditions, "bits_per_cell"))


def published_curve() -> tuple[Panel, ...]:
    """Return the widths of a conductance over time and their one-bit error rates; nothing is fitted."""
    times = {1.0: "1 s", 3600.0: "1 h (between)", 86400.0: "1 day", 172800.0: "2 days"}
    widths, rates = [], []
    for time, label in times.items():
        wide = time == 86400.0  # two days lie on one day almost everywhere
        width = lambda g, time=time: sigma(g, time)  # noqa: E731
        widths.append(Curve(label, law=width, law_x=make_grid(0.0, _G_MAX, 101), wide=wide))
        for variant, cell in enumerate(("1T1R", "2T2R")):
            shown = f"{label} {cell}" if time == 1.0 else None if variant else label
            rate = lambda g, time=time, cell=cell: _one_bit_rate(g, time, cell)  # noqa: E731
            rates.append(Curve(shown, law=rate, law_x=make_grid(3.0, _G_MAX), group=label, variant=variant, wide=wide))
    survey = [float(row["rate"]) for row in table("rram_survey")]
    marks = [Mark("y", (rate,), None if i else "survey: rates that macros report") for i, rate in enumerate(survey)]
    marks.append(Mark("y", (1e-9, 1e-6), "Gaussian tails unsupported"))
    title = "One bit, 1 µS against g_high (published coefficients, no fit)"
    return (
        Panel("rram", "RRAM", "σ of a conductance (coefficients as published)", "conductance (µS)", "σ (µS)", tuple(widths),
              y_log=False),
        Panel("rram", "RRAM", title, "g_high (µS)", "bit error rate", tuple(rates), tuple(marks), y_range=(1e-9, 2.0)),
    )  # fmt: skip


def _one_bit_rate(g_high: float, time: float, cell: str) -> float:
    (term,) = level_term(RRAM.resolve({"g_high": g_high, "time": time, "cell": cell}))
    return term.rate


def nvmexplorer_curve() -> tuple[Panel, ...]:
    """Return the published probabilities that a level is read as its neighbour, and the law's."""
    curves = []
    for bits in ("2", "3"):
        rows = [row for row in table("rram_levels") if row["bits"] == bits]
        (term,) = nvmexplorer_term({"bits_per_cell": bits, "code": "gray"})
        for way, law in (("up", term.up), ("down", term.down)):
            points = tuple((float(row["level"]), float(row[way])) for row in rows if float(row[way]) > 1e-9)
            levels = tuple(float(row["level"]) for row in rows)
            curves.append(Curve(f"{bits} bits {way}", points, tabulated_law(law), levels))
    title = "NVMExplorer levels (below 1e-9: 1e-19 and less)"
    return (Panel("rram", "RRAM", title, "level", "P(read as neighbour)", tuple(curves), y_range=(1e-9, 2.0)),)


_CODE = Condition("code", "", "which bits a level stands for", default="gray", choices=("gray", "binary"))

RRAM = Technology(
    name=_NAME,
    title="RRAM (HfOx/TaOx, 130 nm): conductance levels that relax after programming",
    conditions=(
        Condition("g_high", "uS", "highest programmed conductance (window, current)", default=40.0, low=1.0, high=_G_MAX),
        Condition("g_low", "uS", "lowest programmed conductance", default=1.0, low=0.0, high=_G_MAX),
        Condition("time", "s", "time since programming", default=1.0, low=1.0, high=172800.0),
        Condition("cell", "", "one cell and a threshold, or the sign of a pair", default="1T1R", choices=("1T1R", "2T2R")),
        Condition("bits_per_cell", "", "bits in a cell", default="1", choices=("1", "2", "3")),
        _CODE,
        Condition("cycles", "", "write cycles before, with wear", low=1.0, high=1e12),
        Condition("wear", "", "widening of sigma per decade of cycles, with cycles (no default)", low=0.0, high=10.0),
        Condition("tail", "", "outliers at every border between levels", default=0.0, low=0.0, high=0.1),
        Condition("energy", "", "where energies are from", default="nvsim-22nm", choices=("nvsim-22nm", "survey", "window")),
        *USE_CONDITIONS,
    ),
    terms=level_term,
    cost=cost,
    law="P(neighbour) = Phi(-d / (sigma + sigma')) (1T1R), Phi(-d / sqrt(sigma^2 + sigma'^2)) (2T2R), sigma(g, t) by polynomials "
    "at 1 s, 1 day, 2 days",
    source="Wan et al., Nature 608 (2022), coefficients as fitted in IBM aihwkit",
    basis="published",
    sweep="g_high",
    constants=(
        *(
            (f"sigma after {float(row['time']):g} s", ", ".join(row[f"c{k}"] for k in range(5)) + " uS", "published")
            for row in table("rram_relaxation")
        ),
        ("tail", "0: Gaussian tails, unsupported below 1e-6", "assumed"),
        ("wear", "from the user: published only as recalled", "assumed"),
        ("2T2R and multi-level energy", "cells per bit times one cell", "assumed"),
    ),
    notes="Errors stay until the next write and are judged at reads, so the time can be swept on one written array. Left out "
    "because only recalled: programming energy against error rate of the 2T2R arrays of Hirtzlin et al., growth of sigma with "
    "cycles.",
    published_curve=published_curve,
)

RRAM_MLC = Technology(
    name="rram-mlc",
    title="RRAM multi-level cell with the levels of NVMExplorer",
    conditions=(
        Condition("bits_per_cell", "", "bits in a cell", default="3", choices=("1", "2", "3")),
        _CODE,
        *USE_CONDITIONS,
    ),
    terms=nvmexplorer_term,
    cost=nvmexplorer_cost,
    law="Gaussian levels, thresholds where neighbours are equally likely; P(neighbour) = Phi(-(threshold - mean) / sigma)",
    source="NVMExplorer (Pentecost et al., HPCA 2022), extrapolated there from Zhao et al., VLSI 2014",
    basis="published",
    sweep="bits_per_cell",
    constants=(
        ("3 bits, worst", "6.3e-3 (level 6 down)", "computed"),
        ("2 bits, worst", "1.7e-8 (level 1 up)", "computed"),
        ("1 bit", "below 1e-300", "computed"),
    ),
    notes="Gaussian tails below about 1e-6 are unsupported. Levels are not evenly spaced.",
    published_curve=nvmexplorer_curve,
)
