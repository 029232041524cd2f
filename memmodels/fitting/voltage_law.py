"""A voltage law from nested cells: thresholds that are known only to lie between two operating points.

Two laws are tried. With Phi_V = Phi((mu - V) / s), mu and s in the unit of V, and `ratio` = the rarer rate / the more frequent one:

    per value   the more frequent of p01, p10 is Phi_V, the other one ratio * Phi_V: every stored value has its own thresholds
    per cell    p01 + p10 = Phi_V: a cell has one threshold, and its preferred value does not depend on it; the rates are
                Phi_V / (1 + ratio) and ratio * Phi_V / (1 + ratio)

Likelihood: a cell that fails at V_j and not at the next higher V_(j-1) has its threshold between them, with probability
P_j - P_(j-1). A cell that never fails has it below the lowest, 1 - P_J. A cell that was seen with both values fails on at most one
of them, so it never fails with probability 1 - P01_J - P10_J. In groups, P_j becomes G_j(x) of `likelihood.py`, and the product
over the cells of a group is summed over x. Points without errors count too.

The law with the higher likelihood is taken; both have as many constants, so BIC agrees. If the law does not fit, its intervals are
widened by the dispersion (`goodness.py`). If BIC does not exclude the other law, the intervals are widened to contain its
constants: over a short range both describe the same rates with different constants.

A cell counts as failing from the highest V on at which it erred. `exceptions` counts the cells that erred there and not at every
lower V, which a nested die does not have. If most cells are exceptions, there is no law.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

from weakcell.memmodels.error_model.structure import Bank
from weakcell.memmodels.errors import InputError
from weakcell.memmodels.fitting.counts import Counts, ReadBack, group_numbers
from weakcell.memmodels.fitting.goodness import Goodness, check_goodness
from weakcell.memmodels.fitting.likelihood import Floats, expit, fine_grid, logit, maximize
from weakcell.memmodels.fitting.models import Model
from weakcell.memmodels.profile import Constant

LawKind = Literal["per value", "per cell"]
LAW_KINDS: tuple[LawKind, ...] = ("per value", "per cell")
_Z95 = 1.959963984540054
_BIC_GAP = 6.0
"""Difference of BIC from which on a law is excluded: odds of 20 to 1."""
_MOST_EXCEPTIONS, _FEWEST_CELLS = 0.5, 10
"""Largest permitted share of cells that erred and did not at a lower point, and the fewest cells for this test."""


@dataclass(frozen=True, eq=False)
class VoltageLaw:
    """A fitted probit law.

    Attributes:
        kind: Which of the two laws.
        constants: mu, s, ratio and share, with 95 % intervals.
        share01, share10: p01 and p10 in units of Phi_V.
        share: Share of the threshold variance that a group has in common; None for independent cells.
        exceptions: Of the `erred` cells, those that did not err at every lower point.
        erred: Cells that erred above the lowest point.
        log_likelihood: Its maximum.
        goodness: How well the law fits.
        rivals: BIC of the other laws, above that of this one.
    """

    kind: LawKind
    constants: tuple[Constant, ...]
    share01: float
    share10: float
    share: float | None
    exceptions: int
    erred: int
    log_likelihood: float
    goodness: Goodness
    rivals: dict[LawKind, float] = field(default_factory=dict)

    @property
    def near(self) -> list[LawKind]:
        """The laws that BIC does not exclude."""
        return [kind for kind, worse in self.rivals.items() if worse < _BIC_GAP]

    @property
    def subject(self) -> str:
        """What fails with Phi_V, in words."""
        if self.kind == "per cell":
            return "cell is weak, with a preferred value that does not depend on its threshold"
        return (
            "cell fails on the value that fails more often" if self.share01 != self.share10 else "cell fails on the value it holds"
        )

    @property
    def advice(self) -> str:
        """What to do if the law does not fit, with the punctuation that joins it; empty if it fits."""
        if not self.goodness.rejected:
            return ""
        return ". Use it for orders of magnitude only, fit a narrower range of voltages, or use the rates of single points"


@dataclass(frozen=True, eq=False)
class LawCounts:
    """Counts of cells over J descending points, one entry per kind of group.

    Attributes:
        fails: (groups, 2, J) cells that held v and failed first at point j.
        never: (groups, 3) cells that never failed, of those seen with 0 only, with 1 only, and with both values.
        seen: (groups, 3) all cells of these three kinds.
        times: (groups,) number of such groups.
    """

    fails: Counts
    never: Counts
    seen: Counts
    times: Counts


class _Shape(NamedTuple):
    """Which constants a law has.

    Attributes:
        common: The value with the higher rate.
        free: Whether the ratio is fitted.
        one_sided: Whether the ratio is 0.
        grouped: Whether cells fail in groups.
    """

    common: int
    free: bool
    one_sided: bool
    grouped: bool

    @property
    def scale(self) -> float:
        """2 if cells of a group prefer either value, as `structure.Shared` draws them; else 1."""
        return 2.0 if self.grouped and not self.one_sided else 1.0

    def weights(self, kind: LawKind, ratio: float) -> tuple[float, float]:
        """Return p01 and p10 in units of Phi_V."""
        whole = 1.0 + ratio if kind == "per cell" else 1.0
        return (ratio / whole, 1.0 / whole) if self.common else (1.0 / whole, ratio / whole)


def fit_law(
    points: Sequence[tuple[float, Sequence[ReadBack]]], unit: str, model: Model, bank: Bank, inverting: bool = False
) -> VoltageLaw:
    """Fit the law over (V, read-backs) points, with the structure of `model`.

    Args:
        points: (V, read-backs of the same cells and bits) for each operating point.
        unit: Of V.
        model: The structure; lifetime `die`, every weak cell fails at each read.
        bank: Which cells share a column, row or bank.
        inverting: Whether a weak cell errs on both values; each cell then counts once.

    Raises:
        InputError: The read-backs do not determine a law.
    """
    ordered = sorted(points, key=lambda point: -point[0])
    volts = np.array([value for value, _ in ordered])
    counts, exceptions, erred = _count_thresholds([backs for _, backs in ordered], model, bank, inverting)
    if erred >= _FEWEST_CELLS and exceptions > _MOST_EXCEPTIONS * erred:
        found = f"{exceptions} of {erred} cells that erred did not do so at every lower point, so they have no threshold"
        raise InputError("Fitting a law over operating points", found, "Fit the operating points one by one, without a law")
    shape = _choose_shape(counts, model, inverting)
    fits = [_fit_kind(kind, volts, counts, shape, model, unit) for kind in (LAW_KINDS if not shape.one_sided else LAW_KINDS[:1])]
    best = max(fits, key=lambda fit: fit.log_likelihood)
    if not math.isfinite(best.log_likelihood):
        raise InputError("Fitting a law over operating points", "the cells err more often than any law here allows", "Fit points")
    rivals = {fit.kind: 2.0 * (best.log_likelihood - fit.log_likelihood) for fit in fits if fit is not best}
    near = [fit for fit in fits if fit is not best and rivals[fit.kind] < _BIC_GAP]
    constants = tuple(_widen_to_rivals(constant, near) for constant in best.constants)
    return replace(best, constants=constants, exceptions=exceptions, erred=erred, rivals=rivals)


def _choose_shape(counts: LawCounts, model: Model, inverting: bool) -> _Shape:
    """Return the constants of the law, from the names in the model and the value that erred more often."""
    named = {"p01", "p10"} & set(model.names)
    one_sided = len(named) == 1 or inverting
    erred = counts.times @ counts.fails.sum(axis=2)
    seen = counts.times @ counts.seen
    rates = erred / np.maximum(seen[:2] + seen[2], 1)
    return _Shape(int(np.argmax(rates)), len(named) == 2 and not inverting, one_sided, model.axis is not None)


def _fit_kind(kind: LawKind, volts: Floats, counts: LawCounts, shape: _Shape, model: Model, unit: str) -> VoltageLaw:
    """Fit one of the two laws by maximum likelihood."""
    seen = counts.times @ counts.seen
    cells = np.maximum(seen[:2] + seen[2], 1)
    rates = np.cumsum((counts.times @ counts.fails.reshape(counts.times.size, -1)).reshape(2, -1), axis=1) / cells[:, None]
    rough = float(rates[1 - shape.common, -1] / rates[shape.common, -1]) if shape.free else float(not shape.one_sided)
    mu, s = _start_line(volts, rates[shape.common] / shape.weights(kind, rough)[shape.common])
    start = [0.0, 0.0]
    if shape.free:
        start.append(logit(rough))
    if shape.grouped:
        start.append(model.logits[model.names.index("share")])

    def unpack(x: Floats) -> tuple[Floats, tuple[float, float], float]:
        ratio = float(expit(x[2])) if shape.free else float(not shape.one_sided)
        z = (mu + s * x[0] - volts) / (s * math.exp(x[1]))
        return z, shape.weights(kind, ratio), float(expit(x[-1])) if shape.grouped else 0.0

    def total(x: Floats) -> float:
        z, weights, share = unpack(x)
        return law_log_likelihood(counts, z, weights, share, shape.scale)

    best, covariance, top = maximize(total, start)
    _, weights, share = unpack(best)
    fitted = 2 + shape.free
    marginal = _marginal(lambda x: unpack(np.array([*x, *best[fitted:]]))[:2], best[:fitted])
    goodness = check_goodness(counts.fails, counts.seen, counts.times, marginal, grouped=shape.grouped)
    half = _Z95 * np.sqrt(np.maximum(np.diag(covariance), 0.0) * goodness.dispersion)
    how = "interval-censored thresholds, observed information"
    how += f", variance x {goodness.dispersion:.3g} (dispersion)" if goodness.dispersion > 1.0 else ""
    centre, width = mu + s * best[0], s * math.exp(best[1])
    constants = [
        Constant("mu", centre, unit, centre - s * half[0], centre + s * half[0], method=how),
        Constant("s", width, unit, width * math.exp(-half[1]), width * math.exp(half[1]), method=f"{how}, log scale"),
    ]
    for index, name in enumerate((*(("ratio",) if shape.free else ()), *(("share",) if shape.grouped else ())), start=2):
        low, value, high = (float(expit(best[index] + d)) for d in (-half[index], 0.0, half[index]))
        constants.append(Constant(name, value, "", low, high, method=f"{how}, logit scale"))
    return VoltageLaw(kind, tuple(constants), *weights, share if shape.grouped else None, 0, 0, top, goodness)


def _marginal(unpack: Callable[[Floats], tuple[Floats, tuple[float, float]]], best: Floats) -> tuple[Floats, tuple[Floats, ...]]:
    """Return P(a cell that held v fails first at point j), (2, J), and its derivatives by the fitted constants."""
    from scipy.special import ndtr

    def steps(x: Floats) -> Floats:
        z, weights = unpack(x)
        return np.diff(np.minimum(np.outer(weights, ndtr(z)), 1.0), axis=1, prepend=0.0)

    h = 1e-4
    slopes = tuple((steps(best + h * unit) - steps(best - h * unit)) / (2.0 * h) for unit in np.eye(best.size))
    return steps(best), slopes


def _widen_to_rivals(constant: Constant, others: Sequence[VoltageLaw]) -> Constant:
    """Return the constant with an interval that contains those of the other laws."""
    same = [one for law in others for one in law.constants if one.name == constant.name]
    low, high = min([constant.low, *(one.low for one in same)]), max([constant.high, *(one.high for one in same)])
    if (low, high) == (constant.low, constant.high):
        return constant
    text = f"{constant.method}; widened to hold the law {' and '.join(law.kind for law in others)}"
    return replace(constant, low=low, high=high, method=text)


def law_log_likelihood(counts: LawCounts, z: Floats, weights: tuple[float, float], share: float, scale: float) -> float:
    """Return the log-likelihood of counts; -inf if no memory has such rates.

    Args:
        counts: The cells.
        z: Probits of the points, ascending.
        weights: p01 and p10 in units of Phi(z).
        share, scale: As in `group_log_likelihood`.
    """
    from scipy.special import ndtr, ndtri

    last = float(ndtr(z[-1]))
    if sum(weights) * last > 1.0 or (scale > 1.0 and scale * max(weights) * last > 1.0):
        return -math.inf
    x, log_weights = np.zeros(1), np.zeros(1)
    if share > 0.0:
        x, log_weights = fine_grid([float(z[-1])], share, int((counts.fails.sum(axis=(1, 2)) + counts.never.sum(axis=1)).max()))
    exponent: Floats = np.broadcast_to(log_weights, (counts.times.size, x.size)).copy()
    failed = np.zeros((2, x.size))
    for value, weight in enumerate(weights):
        if weight == 0.0:
            continue
        marginal = np.minimum(scale * weight * ndtr(z), 1.0 - 1e-15)
        inside = (ndtri(np.maximum(marginal, 1e-300))[:, None] + math.sqrt(share) * x) / math.sqrt(1.0 - share)
        below: Floats = ndtr(inside) / scale
        failed[value] = below[-1]
        steps = np.diff(below, axis=0, prepend=0.0)
        exponent += counts.fails[:, value].astype(float) @ np.log(np.maximum(steps, 1e-300))
    fault_free = 1.0 - np.stack([failed[0], failed[1], failed[0] + failed[1]])
    exponent += counts.never.astype(float) @ np.log(np.maximum(fault_free, 1e-300))
    top = exponent.max(axis=1)
    return float(counts.times @ (top + np.log(np.exp(exponent - top[:, None]).sum(axis=1))))


# --- counts --------------------------------------------------------------------------------------------------------------------


def _count_thresholds(
    points: Sequence[Sequence[ReadBack]], model: Model, bank: Bank, inverting: bool
) -> tuple[LawCounts, int, int]:
    """Return (counts, cells that erred and did not at a lower point, cells that erred above the lowest point)."""
    first, erred = points[0], _errors(points)
    if int(erred[-1].sum()) < int(erred[0].sum()):
        raise InputError("Fitting a law over operating points", "errors do not grow as the condition falls", "Fit points, no law")
    since = np.logical_or.accumulate(erred, axis=0)
    exceptions = int(np.count_nonzero((since & ~erred).any(axis=0)))
    stored = np.concatenate([back.stored for back in first]).astype(np.int64)
    address = np.concatenate([back.addresses for back in first])
    address -= address.min()
    threshold = np.where(since[-1], since.argmax(axis=0), len(points)).astype(np.int64)
    if inverting:
        lowest = np.full(int(address.max()) + 1, len(points) + 1, np.int64)
        np.minimum.at(lowest, address, threshold)
        address = np.flatnonzero(lowest <= len(points))
        threshold, stored = lowest[address], np.ones(address.size, np.int64)
    single_valued = np.bincount(address)[address] == 1
    start = first[0].first_cell
    group = np.zeros_like(address) if model.axis is None else group_numbers(address + start, model.axis, bank)
    counts = _by_group(threshold, stored, single_valued, address, group, len(points))
    return counts, exceptions, int(since[:-1].any(axis=0).sum())


def _errors(points: Sequence[Sequence[ReadBack]]) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Return (points, cells): whether each cell erred.

    Raises:
        InputError: Some point holds other bits or cells.
    """
    first = points[0]
    for backs in points[1:]:
        same = len(backs) == len(first) and all(
            a.bits == b.bits and a.first_cell == b.first_cell and np.array_equal(a.written, b.written) and _same_cells(a, b)
            for a, b in zip(backs, first, strict=True)
        )
        if not same:
            found = (
                f"{dict(backs[0].conditions) if backs else 'a point'} holds other bits or cells than {dict(first[0].conditions)}"
            )
            raise InputError("Fitting a law over operating points", found, "Write the same bits to the same cells at every point")
    return np.stack([np.concatenate([back.errors > 0 for back in backs]) for backs in points])


def _same_cells(a: ReadBack, b: ReadBack) -> bool:
    return a.used is b.used or (a.used is not None and b.used is not None and np.array_equal(a.used, b.used))


def _by_group(
    threshold: Counts,
    stored: Counts,
    single_valued: np.ndarray[tuple[int], np.dtype[np.bool_]],
    address: Counts,
    group: Counts,
    points: int,
) -> LawCounts:
    """Return the counts of groups, equal ones merged. single_valued: the cell was seen with one value only."""
    groups, kinds = int(group.max()) + 1, np.where(single_valued, stored, 2)
    fails = np.bincount((group * 2 + stored) * (points + 1) + threshold, minlength=groups * 2 * (points + 1))
    fails = fails.reshape(groups, 2, points + 1)[:, :, :points]
    one_each = single_valued | (stored == 1)
    seen = np.bincount((group * 3 + kinds)[one_each], minlength=groups * 3).reshape(groups, 3)
    failed = np.zeros(int(address.max()) + 1, bool)
    failed[address[threshold < points]] = True
    never_one = one_each & ~failed[address]
    never = np.bincount((group * 3 + kinds)[never_one], minlength=groups * 3).reshape(groups, 3)
    flat = np.concatenate([fails.reshape(groups, -1), never, seen], axis=1)
    rows, times = np.unique(flat[seen.sum(axis=1) > 0], axis=0, return_counts=True)
    cut = 2 * points
    return LawCounts(rows[:, :cut].reshape(-1, 2, points), rows[:, cut : cut + 3], rows[:, cut + 3 :], times)


def _start_line(volts: Floats, rates: Floats) -> tuple[float, float]:
    """Return (mu, s) of the straight line through the probits of the rates that are not zero: the start of the search."""
    from scipy.special import ndtri

    used = (rates > 0.0) & (rates < 1.0)
    if np.unique(rates[used]).size < 2:
        found = f"errors were seen at {int(used.sum())} of {volts.size} points, and a law needs two with different rates"
        raise InputError("Fitting a law over operating points", found, "Measure more points with errors")
    slope, offset = np.polyfit(volts[used], ndtri(rates[used]), 1)
    return -offset / slope, -1.0 / slope
