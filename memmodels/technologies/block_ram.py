"""SRAM of 28 nm FPGAs (block RAM) under voltage scaling: weak columns.

    p10(V) = Phi((mu - V) / s)                                  lifetime die, nested: a cell that fails at V fails at every lower V
    threshold of a cell = mu + s (sqrt(share) column + sqrt(1 - share) cell), both standard normal

V in volt. The published rates were measured with all ones stored, so they are p10; p01 was not measured and is 0 unless given.
mu and s are a least-squares line through the probits of the published counts; errors are in decades of p.

Faults cluster in columns: the cells of a column (bitline) of a block of 1024 rows x 16 columns share a part of their thresholds.
Any share keeps the marginal law and stays nested. The share 0.40 was fitted to the maps of KC705 board B by least squares of the
logarithms of two statistics, faulty (block, column) pairs and Fano factor, at 0.53 and 0.55 V. Maps of VC707 were not available, so
its share is assumed to be the same.

Energy: the published power of the block RAM's supply rail at a fixed clock, relative to the nominal 1.0 V. At a fixed clock and
access rate this is the energy of an access with its share of leakage: more than 10 times less at 0.61 V, and 36.1 % less again at
0.54 V. "More than 10 times" is taken as 10 times, so energies below 1.0 V are upper bounds. Between the published voltages
ln(power) is linear in V; below 0.54 V it continues with the same slope (computed). The dynamic energy C V^2 alone would fall 2.7
times to 0.61 V and 21.6 % from there to 0.54 V: most of the saving is leakage. `energy=dynamic` selects it, an assumption.

Source: B. Salami, O. Unsal, A. Cristal Kestelman, MICRO 2018; power also from the same authors, FPL 2018.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from weakcell.memmodels.curves import Curve, Panel, hold_out_probit, make_grid
from weakcell.memmodels.definition import Condition, Conditions, Technology
from weakcell.memmodels.error_model.structure import Bank, Shared
from weakcell.memmodels.error_model.terms import ErrorTerm, Lifetime
from weakcell.memmodels.memory import Accesses, Basis, Cost, Quantity
from weakcell.memmodels.technologies.support import number, phi, table

COLUMN_SHARE = 0.40
BLOCK = Bank(1024, 16)
_COLUMNS = 7120
"""Unique columns of the 890 blocks of KC705 board B."""
_POWER_SOURCE = "Salami et al. 2018: power of the rail at a fixed clock, leakage included; an upper bound below 1.0 V"


def rail_power(vdd: float) -> Quantity:
    """Return an upper bound of the power of the supply rail at a fixed clock, relative to 1.0 V.

    Between published points ln(power) is linear in V.
    """
    points = sorted((float(row["vdd"]), math.log(float(row["power"]))) for row in table("sram_28nm_power"))
    after = next((i for i in range(1, len(points)) if vdd <= points[i][0]), len(points) - 1)
    (low, first), (high, last) = points[after - 1], points[after]
    power = math.exp(first + (last - first) * (vdd - low) / (high - low))
    published_power = next((math.exp(at) for v, at in points if v == vdd), None)
    return Quantity(
        power if published_power is None else published_power,
        "x E(1.0 V)",
        "computed" if published_power is None else "published",
        _POWER_SOURCE,
    )


def column_statistics(rate: float, share: float, cells: int) -> tuple[float, float]:
    """Return statistics of columns at a marginal rate, in closed form.

    Args:
        rate: Share of cells that fail, over all columns.
        share: Share of the threshold variance that a column has in common.
        cells: Cells of a column.

    Returns:
        (share of columns with a faulty cell, variance / mean of faults per column).
    """
    from scipy.special import ndtr, ndtri

    x = np.linspace(-9.0, 9.0, 4001)
    weight = np.exp(-(x**2) / 2)
    weight /= weight.sum()
    q = ndtr((ndtri(rate) + math.sqrt(share) * x) / math.sqrt(1.0 - share))
    faulty = float(weight @ -np.expm1(cells * np.log1p(-q)))
    mean, square = cells * float(weight @ q), cells * (cells - 1) * float(weight @ q**2)
    return faulty, (square + mean - mean**2) / mean


def _cluster_panel() -> Panel:
    """Return how faults of KC705 board B cluster in columns: counted, by the law, and for independent cells."""
    rows = [row for row in table("sram_28nm_kc705b_columns") if int(row["faults"]) > 10]
    rates = [int(row["faults"]) / (_COLUMNS * BLOCK.rows) for row in rows]
    volts = [float(row["vdd"]) for row in rows]
    counted = (
        Curve(f"faulty columns of {_COLUMNS}, counted", tuple(zip(volts, (float(row["pairs"]) for row in rows), strict=True))),
        Curve("Fano factor per column, counted", tuple(zip(volts, (float(row["fano"]) for row in rows), strict=True))),
    )
    laws = []
    for share, label, variant in ((COLUMN_SHARE, f"law, share {COLUMN_SHARE}", 0), (0.0, "independent cells", 2)):
        expected = [column_statistics(rate, share, BLOCK.rows) for rate in rates]
        for which, factor in ((0, _COLUMNS), (1, 1)):
            by_volt = dict(zip(volts, (factor * pair[which] for pair in expected), strict=True))
            group = str(counted[which].label)
            laws.append(Curve(None if which else label, law=by_volt.__getitem__, law_x=tuple(volts), group=group, variant=variant))
    return Panel("sram", "SRAM", "Clustering, KC705 board B", "VCCBRAM (V)", "columns, Fano factor", (*counted, *laws))


class _Board(NamedTuple):
    """A measured board.

    Attributes:
        name, title: Of the technology, without its prefix.
        cells: Cells that were counted.
        mu, s: Constants of the law, in volt.
        low: Lowest voltage at which the device answered.
        high: Highest voltage with faults.
        error: Error of the fit, for people.
        shared: How the column share is known.
    """

    name: str
    title: str
    cells: int
    mu: float
    s: float
    low: float
    high: float
    error: str
    shared: Basis


def _rate_panel(board: _Board) -> Panel:
    """Return the published fault counts of a board as rates, and its law."""
    points = tuple((float(row["vdd"]), int(row["faults"]) / board.cells) for row in table(f"sram_28nm_{board.name}"))
    ends = hold_out_probit(*zip(*points, strict=True))
    law = lambda v: phi((board.mu - v) / board.s)  # noqa: E731
    curve = Curve(f"sram-28nm-{board.name}, counted", points, law, make_grid(board.low, 0.61), "law", ends=ends)
    title = "28 nm block RAM, Salami et al. 2018"
    return Panel("sram", "SRAM", title, "VCCBRAM (V)", "P(read 0 | stored 1)", (curve,), y_range=(1e-10, 2e-3))


def _make_block_ram(board: _Board) -> Technology:
    """Return the technology of a board."""

    def terms(conditions: Conditions) -> tuple[ErrorTerm, ...]:
        p10, other = phi((board.mu - number(conditions, "vdd")) / board.s), number(conditions, "p01_share")
        share = number(conditions, "column_share")
        return (
            ErrorTerm(
                "read",
                Lifetime.DIE,
                min(other * p10, 1.0 - p10),
                p10,
                structure=Shared("column", share, BLOCK) if share else None,
                preference="cell" if other else "zero",
            ),
        )

    def cost(conditions: Conditions, bits: int, accesses: Accesses) -> Cost:
        vdd = number(conditions, "vdd")
        if conditions.get("energy") == "dynamic":
            return Cost(energy=Quantity(vdd**2, "x E(1.0 V)", "assumed", "dynamic energy C V^2, without leakage"))
        return Cost(energy=rail_power(vdd))

    def published_curve() -> tuple[Panel, ...]:
        rate = _rate_panel(board)
        return (rate, _cluster_panel()) if board.name == "kc705b" else (rate,)

    return Technology(
        name=f"sram-28nm-{board.name}",
        title=board.title,
        conditions=(
            Condition("vdd", "V", "supply voltage VCCBRAM", default=1.0, low=board.low, high=1.0),
            Condition(
                "p01_share", "", "cells that prefer 1 per cell that prefers 0 (not measured)", default=0.0, low=0.0, high=1.0
            ),
            Condition(
                "column_share",
                "",
                "share of a cell's threshold variance that its column has in common; 0 makes cells independent",
                default=COLUMN_SHARE,
                low=0.0,
                high=0.95,
            ),
            Condition(
                "energy", "", "the rail's power at a fixed clock (unless given), or C V^2 alone", choices=("rail", "dynamic")
            ),
        ),
        terms=terms,
        cost=cost,
        law="p10 = Phi((mu - V) / s), per cell and die, nested over V; columns of 1024 cells share a part of their thresholds",
        source="Salami et al., MICRO 2018, published fault counts and maps",
        basis="published",
        sweep="vdd",
        constants=(
            ("mu", f"{board.mu} V", "computed"),
            ("s", f"{board.s} V", "computed"),
            ("column share", f"{COLUMN_SHARE}, blocks of 1024 rows x 16 columns", board.shared),
            ("p01", "not measured, 0 by default", "assumed"),
            ("energy", "at most 0.1 at 0.61 V and 0.0639 at 0.54 V, relative to 1.0 V; ln(energy) linear between", "published"),
            ("energy=dynamic", "V^2, relative to 1.0 V", "assumed"),
            ("fit error", board.error, "computed"),
        ),
        notes=f"Faults were counted from {board.high} V down; above, the law says less than one fault in the whole device. "
        f"Below {board.low} V the device no longer answered. A law of one board does not fit the other: at 0.55 V the rates differ "
        "by 1.1 decades. About 1 % of the faults did not persist when the voltage was lowered; here all do. The energy is the "
        "published power of the whole rail at a fixed clock, leakage included, as an upper bound (more than 10 times less at "
        "0.61 V, a further 36.1 % less at 0.54 V). The dynamic energy C V^2 alone would fall 2.7 times and 21.6 %.",
        published_curve=published_curve,
    )


SRAM_28NM_KC705B = _make_block_ram(
    _Board(
        "kc705b", "28 nm FPGA block RAM (KC705, board B)", 14_581_760, 0.3852, 0.0398, 0.53, 0.59,
        "rms 0.055 decades, largest 0.12", "computed",
    )
)  # fmt: skip
SRAM_28NM_VC707 = _make_block_ram(
    _Board(
        "vc707", "28 nm FPGA block RAM (VC707)", 33_751_040, 0.4442, 0.0304, 0.54, 0.60,
        "rms 0.074 decades, largest 0.12", "assumed",
    )
)  # fmt: skip
