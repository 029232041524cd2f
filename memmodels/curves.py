"""Published points against laws: the data that a technology hands to whoever plots or checks it.

A technology's `published_curve()` returns panels; a panel holds curves; a curve holds published points, the law, or both.

Errors are log10(law / point), in decades: the rms over the points of the fit, and the largest error at a *held-out end*, i.e. after
the law was fitted again without the points at that end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Points = tuple[tuple[float, float], ...]
Law = Callable[[float], float]


@dataclass(frozen=True)
class Curve:
    """Published points, a law, or both.

    Attributes:
        label: Legend entry of the points, or of the law if there are none. None: not in the legend.
        points: Published (x, y).
        law: y of the law at x.
        law_x: Where the law is plotted, ascending.
        law_label: Legend entry of the law, if the points have one of their own.
        group: Curves of one group share a colour; the label unless given.
        variant: 0, 1, 2: marker and dash that tell the curves of a group apart.
        ends: Error at the held-out ends, in decades; None if not tested.
        wide: Whether the law is plotted as a wide band, because another curve lies on it.
    """

    label: str | None
    points: Points = ()
    law: Law | None = None
    law_x: tuple[float, ...] = ()
    law_label: str | None = None
    group: str = ""
    variant: int = 0
    ends: float | None = None
    wide: bool = False


@dataclass(frozen=True)
class Mark:
    """A line at one place of an axis, or a band between two: an end of validity, or a rate for comparison."""

    axis: str
    at: tuple[float, ...]
    label: str | None = None


@dataclass(frozen=True)
class Panel:
    """One plot of published points against laws.

    Attributes:
        figure: Name of the figure that the panel belongs to. Panels of equal figure and title are merged.
        heading: What the whole figure is about.
        title, x, y: Title and axes with units.
        curves, marks: What is plotted.
        x_log, y_log: Whether an axis is logarithmic.
        x_ticks: Places of the ticks, if the usual ones are too many or too few.
        y_range: Limits of the y axis, if given.
    """

    figure: str
    heading: str
    title: str
    x: str
    y: str
    curves: tuple[Curve, ...]
    marks: tuple[Mark, ...] = ()
    x_log: bool = False
    y_log: bool = True
    x_ticks: tuple[float, ...] = ()
    y_range: tuple[float, float] | None = None


def make_grid(low: float, high: float, count: int = 241) -> tuple[float, ...]:
    """Return evenly spaced positions for the line of a law."""
    return tuple(np.linspace(low, high, count).tolist())


def tabulated_law(values: Sequence[float]) -> Law:
    """Return the law with values[x] at x = 0, 1, …"""
    return lambda level: values[int(level)]


def rms_decades(points: Iterable[tuple[float, float]], law: Law) -> float:
    """Return the root mean square of log10(law / point)."""
    return math.sqrt(float(np.mean([math.log10(law(x) / y) ** 2 for x, y in points])))


def describe_errors(points: Iterable[tuple[float, float]], law: Law, ends: float | None = None) -> str:
    """Return the errors of a law for a legend, as in `rms 0.10, ends 0.37`."""
    return f"rms {rms_decades(points, law):.2f}" + ("" if ends is None else f", ends {ends:.2f}")


# --- laws fitted again without the ends of a curve ------------------------------------------------------------------------------


def hold_out_ends(refit: Callable[[npt.NDArray[np.bool_]], Any], x: Floats, rates: Floats) -> float:
    """Return the larger of the errors at both ends of a curve, in decades.

    Each end is held out with all points that lie there.

    Args:
        refit: Fits the law to the points of a mask and returns ln(rate) at the points outside it.
        x: Position of each point.
        rates: Published rate of each point.
    """
    errors = []
    for end in (x.min(), x.max()):
        kept = x != end
        errors.append(float(np.abs(np.asarray(refit(kept)) / math.log(10.0) - np.log10(rates[~kept])).max()))
    return max(errors)


def hold_out_probit(x: Sequence[float], p: Sequence[float], *, degree: int = 1) -> float:
    """Return the error at the held-out ends of p = Phi(polynomial of x), fitted to the probits of p."""
    from scipy.special import log_ndtr, ndtri

    positions, rates = np.array(x), np.array(p)

    def refit(kept: npt.NDArray[np.bool_]) -> Any:
        polynomial = np.polyfit(positions[kept], ndtri(rates[kept]), degree)
        return log_ndtr(np.polyval(polynomial, positions[~kept]))

    return hold_out_ends(refit, positions, rates)


def hold_out_tail(x: Sequence[float], p: Sequence[float], top: float, start: tuple[float, float]) -> float:
    """Return the error at the held-out ends of p = top Phi((mu - x) / s).

    The law is fitted by least squares of ln p, from a first (mu, s).
    """
    from scipy.optimize import least_squares
    from scipy.special import log_ndtr

    positions, rates = np.array(x), np.array(p)

    def law(constants: Floats, where: Floats) -> Floats:
        return np.asarray(math.log(top) + log_ndtr((constants[0] - where) / constants[1]))

    def refit(kept: npt.NDArray[np.bool_]) -> Any:
        goal = np.log(np.minimum(rates[kept], 0.998 * top))
        fitted = least_squares(lambda c: law(c, positions[kept]) - goal, start, xtol=1e-12, ftol=1e-12)
        return law(fitted.x, positions[~kept])

    return hold_out_ends(refit, positions, rates)
