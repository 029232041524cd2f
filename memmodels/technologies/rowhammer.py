"""Read disturbance: cells that flip beside a DRAM row that is activated often, in three DDR3 modules.

    p = Phi(z(ln N))        N = activations of one neighbouring row within a refresh interval

p is the share of cells that flip, if they hold the value that they can lose. z interpolates the published probits (monotone cubic).
A true cell loses a 1 (p10 = p), an anti-cell a 0. Weak cells belong to the die and are nested in N.

Two ways to space the activations were measured, and they differ by up to ten times:

    spacing=tight    55 ns apart. The refresh interval is as long as they take, up to 128 ms; the usual 64 ms hold 1.138e6
    spacing=even     evenly over a refresh interval of 64 ms. From 70 ns apart: closer ones were measured, but their counts do not
                     rise with N

N is (interval - 8192 x 160 ns) / spacing, as the source counts it: refreshes take time, too.

One row was activated at a time, so a cell had one busy neighbour. In A23 and C19, 99.7 % of the flips or more are in the two rows
next to it; in B11 69 % are, 19 % three and 12 % seven addresses away. Each row of a bank of 32768 had its turn, and all flips were
added: 2^32 cells beside an active row. Rows differ: `SHARES` is the part of a cell's threshold that its row shares, from the
variance of the counts per active row (figure 7), with both neighbours taken as equal.

Not known: busy rows on both sides, rows kept open (RowPress), temperature, DDR4, and which cells are true cells. That the source
counts cells of either value is assumed; if it wrote one value only, p is up to twice as large. No energy depends on N.

Source: Y. Kim et al., "Flipping Bits in Memory Without Accessing Them", ISCA 2014, data of figures 4 to 9.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from weakcell.memmodels.curves import Curve, Law, Panel
from weakcell.memmodels.definition import Condition, Conditions, Technology, no_cost
from weakcell.memmodels.error_model.structure import Bank, Lines, Shared
from weakcell.memmodels.error_model.terms import ErrorTerm, Lifetime
from weakcell.memmodels.technologies.support import number, phi, refuse, table

_NAME = "rowhammer"
SHARES = {"A23": 0.0199, "B11": 0.00165, "C19": 0.00179}
"""Part of the variance of thresholds that cells of a row share."""
ROW_CELLS = 65536
REFRESHES_MS = 8192 * 160e-6
"""Time that refreshes take of an interval."""
FEWEST_ERRORS, CLOSEST_NS = 20, 70.0
"""Points with fewer errors take no part, nor activations closer than that with spacing=even."""
_FEWEST = 244_300.0
_FIGURES = {"tight": "4", "even": "5"}


@cache
def points(module: str, spacing: str) -> tuple[tuple[float, float], ...]:
    """Return the published (activations, share of cells beside an active row that flip), ascending."""
    found = []
    for row in table("ddr3_disturbance"):
        apart, errors = float(row["apart"]), int(row["errors"])
        if (row["module"], row["figure"]) != (module, _FIGURES[spacing]) or errors < FEWEST_ERRORS:
            continue
        if spacing == "tight" or apart >= CLOSEST_NS:
            found.append(((float(row["interval"]) - REFRESHES_MS) * 1e6 / apart, errors / int(row["cells"])))
    return tuple(sorted(found))


@cache
def _interpolate(module: str, spacing: str) -> Law:
    """Return the probit over ln(activations)."""
    from scipy.interpolate import PchipInterpolator
    from scipy.special import ndtri

    activations, rates = zip(*points(module, spacing), strict=True)
    curve = PchipInterpolator(np.log(activations), ndtri(rates))
    return lambda x: float(curve(x))


def flipped_share(module: str, activations: float, spacing: str = "tight") -> float:
    """Return the share of cells that flip beside a row with so many activations in a refresh interval."""
    return phi(_interpolate(module, spacing)(math.log(activations)))


def terms(conditions: Conditions) -> tuple[ErrorTerm, ...]:
    """Return the cells that flip."""
    module, spacing, polarity = (str(conditions[key]) for key in ("module", "spacing", "polarity"))
    measured, count = points(module, spacing), number(conditions, "activations")
    low, high = max(measured[0][0], _FEWEST), measured[-1][0]
    if not low <= count <= high:
        asked = f"activations={count:g} with module={module},spacing={spacing}"
        found = f"{low:.4g} to {high:.4g} were measured there"
        raise refuse(_NAME, asked, found, f"Give activations in that range, as in activations={math.sqrt(low * high):.0e}")
    p, rows = flipped_share(module, count, spacing), number(conditions, "rows")
    structure = Shared("row", SHARES[module], Bank(1, ROW_CELLS)) if rows == 1.0 else Lines(ROW_CELLS, p)
    p01, p10, preference = {
        "row": (p / 2, p / 2, "row"),
        "true": (0.0, p, "zero"),
        "anti": (p, 0.0, "one"),
    }[polarity]
    return (
        ErrorTerm("disturbance", Lifetime.DIE, rows * p01, rows * p10, structure=structure, preference=preference),  # type: ignore[arg-type]
    )


def published_curve() -> tuple[Panel, ...]:
    """Return the published rates over activations, and the law."""
    panels = []
    for spacing, title in (("tight", "55 ns apart, interval as long as they take"), ("even", "Evenly over 64 ms")):
        curves = tuple(
            Curve(
                module,
                points(module, spacing),
                lambda n, module=module, spacing=spacing: flipped_share(module, n, spacing),  # type: ignore[misc]
                tuple(np.geomspace(points(module, spacing)[0][0], points(module, spacing)[-1][0], 121).tolist()),
            )
            for module in SHARES
        )
        x = "activations of a neighbouring row per refresh interval"
        panels.append(Panel("rowhammer", "DDR3 read disturbance", title, x, "share of cells that flip", curves, x_log=True))
    return tuple(panels)


ROWHAMMER = Technology(
    name=_NAME,
    title="DDR3 beside busy rows (RowHammer)",
    conditions=(
        Condition("module", "", "which of the measured modules", default="A23", choices=tuple(SHARES)),
        Condition(
            "activations", "", "of one neighbouring row per refresh interval", default=1_100_000.0, low=_FEWEST, high=2_299_700.0
        ),
        Condition("spacing", "", "55 ns apart, or evenly over 64 ms", default="tight", choices=tuple(_FIGURES)),
        Condition("rows", "", "share of rows that have such a neighbour", default=1.0, low=1e-6, high=1.0),
        Condition(
            "polarity",
            "",
            "half of the rows hold anti-cells, or all cells are of one kind",
            default="row",
            choices=("row", "true", "anti"),
        ),
    ),
    terms=terms,
    cost=no_cost,
    law="p = Phi(z(ln N)), z interpolated; true cells p10 = p, anti-cells p01 = p (die); a row shares a part of the thresholds",
    source="Kim et al., ISCA 2014, data of figures 4, 5 and 7",
    basis="published",
    sweep="activations",
    constants=(
        *((f"share of a row, {m}", f"{share}, from the counts per active row", "computed") for m, share in SHARES.items()),
        ("cells", "2^32 beside an active row: 32768 rows in turn, two neighbours of 65536 cells", "computed"),
        ("polarity", "half of the rows are anti-cells; both values were tested", "assumed"),
        ("held out: one point between others", "even: 0.053 decades, tight: 0.038", "computed"),
    ),
    notes="With polarity=row the rates shown are averages over rows of true cells and of anti-cells: p / 2 each. At 55 ns, "
    "1.138e6 activations fill a refresh interval of 64 ms, and 2.3e6 one of 128 ms. One busy neighbour per row. Busy rows on both "
    "sides, rows kept open (RowPress), temperature and DDR4 are not covered. Modules of the same source differ by seven decades: "
    "19 of 129 had no errors.",
    published_curve=published_curve,
)
