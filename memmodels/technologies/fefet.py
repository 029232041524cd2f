"""FeFET: gamma distributions of the read current and a threshold between them.

    I of a level ~ loc + Gamma(a, scale), in ampere             a, loc, scale per level from simulations, in `published/`
    p_up = P(I above the threshold to the next level), p_down = P(I below the threshold to the one before)

The threshold is half-way between the medians (the source's rule), or where p_up + p_down is least (`optimal`). Lifetime write.
One bit: the more domains a cell has, the narrower the currents. Parameters exist for 50, 100, 200 and 300 domains. Between them
the quantile z = Phi^-1(1 - p) is linear in sqrt(domains), which z = 0.202 + 0.252 sqrt(domains) describes within 0.07 decades.
Half-way, only 0 is read as 1 (p10 below 1e-12: the gamma law starts at loc). The optimal threshold lowers p01 by 0.7 to 3.5
decades. Two and three bits: levels written without verify, as LevelTerm with Gray or binary code.

Temperature: levels move towards the middle of the whole window by `window_slope` per kelvin above 25 °C; widths and thresholds
stay.
No number of this was published that we could read, so it is the user's. Energy: the 22 nm array of `support.py`.

Source: msxFI / NVMExplorer (simulations of the University of Notre Dame).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from weakcell.memmodels.cost import USE_CONDITIONS
from weakcell.memmodels.curves import Curve, Panel, describe_errors, hold_out_probit, make_grid, tabulated_law
from weakcell.memmodels.definition import Condition, Conditions, Technology, Term
from weakcell.memmodels.error_model.levels import Code, LevelTerm
from weakcell.memmodels.error_model.terms import ErrorTerm, Lifetime
from weakcell.memmodels.memory import Accesses, Cost
from weakcell.memmodels.technologies.support import EXTRAPOLATE, array_cost, check_neighbours, number, phi, refuse, table

_NAME = "fefet"
_REFERENCE_C = 25.0
_NEVER = 1e-12
"""Smaller probabilities only tell where the gamma law begins; they count as 0."""


@dataclass(frozen=True)
class Level:
    """Read current of a level: loc + Gamma(a, scale), in ampere."""

    a: float
    loc: float
    scale: float

    def above(self, current: float) -> float:
        """Return P(the current is above a threshold)."""
        from scipy.special import gammaincc

        return float(gammaincc(self.a, max(current - self.loc, 0.0) / self.scale))

    def below(self, current: float) -> float:
        """Return P(the current is below a threshold)."""
        from scipy.special import gammainc

        return float(gammainc(self.a, max(current - self.loc, 0.0) / self.scale))

    @property
    def median(self) -> float:
        """Median of the current."""
        from scipy.special import gammaincinv

        return self.loc + self.scale * float(gammaincinv(self.a, 0.5))


def threshold(lower: Level, upper: Level, rule: str) -> float:
    """Return the border between two levels in ampere."""
    low, high = lower.median, upper.median
    if rule == "half-way":
        return (low + high) / 2.0
    from scipy.optimize import minimize_scalar

    bounds = (max(low, min(upper.loc, high)), high)
    found = minimize_scalar(
        lambda current: lower.above(current) + upper.below(current), bounds=bounds, method="bounded", options={"xatol": 1e-14}
    )
    return min(bounds[0], float(found.x), key=lambda current: lower.above(current) + upper.below(current))


def misread(levels: list[Level], rule: str, shrink: float) -> tuple[list[float], list[float]]:
    """Return (up, down): P(read as the next level, the one before) of each level.

    Thresholds stay; levels move to the middle of the window by `shrink`.
    """
    middle = (levels[0].median + levels[-1].median) / 2.0
    moved = [replace(level, loc=level.loc + shrink * (middle - level.median)) for level in levels]
    borders = [threshold(lower, upper, rule) for lower, upper in pairwise(levels)]
    beyond = [
        (level.above(borders[i + 1]) if i + 1 < len(borders) else 0.0) + (level.below(borders[i - 2]) if i >= 2 else 0.0)
        for i, level in enumerate(moved)
    ]
    check_neighbours(_NAME, beyond, f"{len(levels)} levels in a window that has lost {100 * shrink:.3g} % of its width")
    up = [_or_never(level.above(border)) for level, border in zip(moved, borders, strict=False)]
    down = [_or_never(level.below(border)) for level, border in zip(moved[1:], borders, strict=False)]
    return [*up, 0.0], [0.0, *down]


def _or_never(p: float) -> float:
    return p if p >= _NEVER else 0.0


def one_bit(domains: float, rule: str, shrink: float) -> tuple[float, float]:
    """Return (p01, p10) of a one-bit cell.

    The normal quantile of a rate is linear in sqrt(domains) between published sizes, and beyond the first and last.

    Args:
        domains: Size of the cell.
        rule: Of the threshold.
        shrink: How far the levels have moved to the middle.
    """
    rows = table("fefet_domains")
    sizes = [float(row["domains"]) for row in rows]
    after = next((i for i in range(1, len(sizes)) if domains <= sizes[i]), len(sizes) - 1)
    part = (math.sqrt(domains) - math.sqrt(sizes[after - 1])) / (math.sqrt(sizes[after]) - math.sqrt(sizes[after - 1]))
    rates = []
    for row in rows[after - 1 : after + 1]:
        levels = [Level(*(float(row[f"{key}{state}"]) for key in ("a", "loc", "scale"))) for state in "01"]
        up, down = misread(levels, rule, shrink)
        rates.append((up[0], down[1]))
    p01, p10 = (_between(first, second, part) for first, second in zip(*rates, strict=True))
    return p01, p10


def _between(first: float, second: float, part: float) -> float:
    """Interpolate probabilities in their normal quantile; 0 counts as 1e-300."""
    if part in (0.0, 1.0):
        return second if part else first
    from scipy.special import ndtri

    z = (1.0 - part) * float(ndtri(max(first, 1e-300))) + part * float(ndtri(max(second, 1e-300)))
    return _or_never(phi(z))


def terms(conditions: Conditions) -> tuple[Term, ...]:
    """Return p01 and p10 of lifetime write for one bit, levels for more."""
    bits, rule = str(conditions["bits_per_cell"]), str(conditions["threshold"])
    shrink = _shrink(conditions)
    if bits == "1":
        if "domains" not in conditions:
            raise refuse(_NAME, "no domains", "the error rate of one bit is that of a cell size", "Give domains, 50 … 300")
        p01, p10 = one_bit(number(conditions, "domains"), rule, shrink)
        return (ErrorTerm("threshold", Lifetime.WRITE, p01, p10),)
    if "domains" in conditions:
        raise refuse(_NAME, f"domains with bits_per_cell={bits}", "multi-level cells were published for one size", "Leave it out")
    rows = [row for row in table("fefet_levels") if row["bits"] == bits]
    levels = [Level(float(row["a"]), float(row["loc"]), float(row["scale"])) for row in rows]
    up, down = misread(levels, rule, shrink)
    code: Code = "binary" if conditions["code"] == "binary" else "gray"
    return (LevelTerm("levels", tuple(up), tuple(down), code),)


def _shrink(conditions: Conditions) -> float:
    """Return how far the levels have moved to the middle, 0 at 25 °C."""
    temperature = number(conditions, "temperature")
    if temperature == _REFERENCE_C:
        return 0.0
    if "window_slope" not in conditions:
        raise refuse(
            _NAME,
            f"temperature={temperature:g} without window_slope",
            "how the window closes with temperature is published nowhere that we could read",
            "Give window_slope per K, or leave temperature at 25",
        )
    shrink = number(conditions, "window_slope") * (temperature - _REFERENCE_C)
    if abs(shrink) > 0.9:
        found = "the window has closed there" if shrink > 0 else f"the window is {1.0 - shrink:.2g} times as wide there"
        raise refuse(_NAME, f"temperature={temperature:g}", found, "Choose a lower window_slope, or a temperature nearer to 25")
    return shrink


def cost(conditions: Conditions, bits: int, accesses: Accesses) -> Cost:
    """Return the cost of the 22 nm array, with 1/k cells per bit."""
    return array_cost("FeFET", conditions, bits, accesses, cells_per_bit=1.0 / number(conditions, "bits_per_cell"))


def published_curve() -> tuple[Panel, ...]:
    """Return one-bit error rates over cell size with either threshold, and the levels of multi-bit cells."""
    points = tuple((float(row["domains"]), float(row["p01"])) for row in table("fefet_domains"))
    sizes = make_grid(50.0, 300.0)
    half_way = lambda n: one_bit(n, "half-way", 0.0)[0]  # noqa: E731
    optimal = lambda n: one_bit(n, "optimal", 0.0)[0]  # noqa: E731
    root = lambda n: phi(-(0.202 + 0.252 * math.sqrt(n)))  # noqa: E731
    ends = hold_out_probit([math.sqrt(n) for n, _ in points], [p for _, p in points])
    sized = (
        Curve("published gamma, half-way (p01)", points, half_way, sizes, "law, half-way"),
        Curve("law, optimal (p01)", law=optimal, law_x=sizes),
        Curve(f"Φ(−(0.202 + 0.252 √N)), {describe_errors(points, root, ends)}", law=root, law_x=sizes, variant=2),
    )
    levels = []
    for bits in ("2", "3"):
        rows = [row for row in table("fefet_levels") if row["bits"] == bits]
        up = getattr(terms(FEFET.resolve({"bits_per_cell": bits}))[0], "up", ())
        published = tuple((float(row["level"]), float(row["up"])) for row in rows if float(row["up"]) > 0.0)
        places = tuple(float(row["level"]) for row in rows[:-1])
        levels.append(Curve(f"{bits} bits, up", published, tabulated_law(up), places, "law"))
    return (
        Panel("fefet", "FeFET", "One bit", "domains", "P(read 1 | stored 0)", sized, y_range=(1e-10, 2.0)),
        Panel("fefet", "FeFET", "Levels without verify", "level", "P(read one level up)", tuple(levels), y_range=(5e-3, 0.2)),
    )


FEFET = Technology(
    name=_NAME,
    title="FeFET: gamma-distributed read currents, by cell size or levels",
    conditions=(
        Condition(
            "domains",
            "",
            "ferroelectric domains of a one-bit cell: its size (no default)",
            low=50.0,
            high=300.0,
            beyond=(10.0, 2000.0),
        ),
        Condition("bits_per_cell", "", "bits in a cell", default="1", choices=("1", "2", "3")),
        Condition("threshold", "", "where levels are told apart", default="half-way", choices=("half-way", "optimal")),
        Condition("code", "", "which bits a level stands for", default="gray", choices=("gray", "binary")),
        Condition("temperature", "°C", "of the cells, with window_slope", default=_REFERENCE_C, low=-40.0, high=125.0),
        Condition("window_slope", "1/K", "part of the window lost per kelvin above 25 °C (no default)", low=0.0, high=0.1),
        EXTRAPOLATE,
        *USE_CONDITIONS,
    ),
    terms=terms,
    cost=cost,
    law="read current ~ loc + Gamma(a, scale); threshold half-way between the medians, or optimal; "
    "p01 = Phi(-(0.202 + 0.252 sqrt(domains))) within 0.07 decades",
    source="msxFI / NVMExplorer FeFET model (simulations, University of Notre Dame)",
    basis="published",
    sweep="domains",
    constants=(
        ("50 domains", "p01 = 2.5e-2, p10 below 1e-12", "computed"),
        ("100 domains", "p01 = 2.8e-3, p10 below 1e-12", "computed"),
        ("200 domains", "p01 = 8.5e-5, p10 below 1e-12", "computed"),
        ("300 domains", "p01 = 2.5e-6, p10 below 1e-12", "computed"),
        ("window_slope", "from the user: rates over temperature were only recalled", "assumed"),
        ("multi-level energy", "1/k cells per bit", "assumed"),
    ),
    notes="Parameters are of simulations, not of chips. Without verify, two bits err with 0.9 to 1.8 % per level and three bits "
    "with 6 to 12 %. Left out because only recalled: error rates at 85 °C of Yayla et al.",
    published_curve=published_curve,
)
