"""A voltage law from nested cells: thresholds that are known only to lie between two operating points.

A cell that fails at V_j and not at the next higher V_(j-1) has its threshold between them, with probability P_j - P_(j-1), where
P_j = ratio * Phi((mu - V_j) / s); one that never fails has it below the lowest, 1 - P_J. The product over cells is the likelihood
of (mu, s), in the unit of V, of the ratio of cells that err on the rarer value, and of the share that the cells of a group have in
common (then P_j becomes G_j(x) of `fit_models` and the product over a group's cells is summed over x). Every point counts, those
without errors too.

A cell is taken as failing from the highest V on at which it erred; `exceptions` counts the cells that erred there and not at every
lower V, which a nested die has not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memmodels.errors import InputError
from memmodels.fit_counts import Counts, ReadBack, group_numbers
from memmodels.fit_maximum import Floats, expit, logit, maximise
from memmodels.fit_models import Model, fine_grid
from memmodels.profile import Constant
from memmodels.structure import Bank

_Z95 = 1.959963984540054


@dataclass(frozen=True, eq=False)
class Law:
    """mu, s, ratios and share of a probit law, as constants with 95 % intervals, and what did not fit it."""

    constants: tuple[Constant, ...]
    share01: float
    share10: float
    share: float | None
    exceptions: int
    log_likelihood: float


def fit_law(points: Sequence[tuple[float, Sequence[ReadBack]]], unit: str, model: Model, bank: Bank) -> Law:
    """The law over (V, read-backs) points, with the structure and polarity of `model`."""
    ordered = sorted(points, key=lambda point: -point[0])
    volts = np.array([value for value, _ in ordered])
    thresholds, held, group, exceptions = _thresholds([backs for _, backs in ordered], model, bank)
    values = "p01" in model.names or "p10" in model.names
    counts, times = _grouped(thresholds, held if values else np.ones_like(held), group, volts.size)
    both = len({"p01", "p10"} & set(model.names)) != 1
    rates = np.cumsum(counts.transpose(1, 2, 0) @ times, axis=1)[:, :-1] / np.maximum((counts.sum(axis=2).T @ times)[:, None], 1)
    common = int(np.argmax(rates[:, -1]))
    mu, s = _line(volts, rates[common])
    grouped, free_ratio = model.axis is not None, "p01" in model.names and "p10" in model.names
    start = [0.0, 0.0]
    if free_ratio:
        start.append(logit(float(rates[1 - common, -1] / rates[common, -1])))
    if grouped:
        start.append(model.logits[model.names.index("share")])

    def total(x: Floats) -> float:
        ratio = float(expit(x[2])) if free_ratio else 1.0
        ratios = (ratio, 1.0) if common else (1.0, ratio)
        share = float(expit(x[-1])) if grouped else 0.0
        z = (mu + s * x[0] - volts) / (s * math.exp(x[1]))
        return law_log_likelihood(counts, times, z, ratios, share, 2.0 if grouped and both else 1.0)

    best, covariance, top = maximise(total, start)
    half = _Z95 * np.sqrt(np.maximum(np.diag(covariance), 0.0))
    how = "interval-censored thresholds, observed information"
    centre, width = mu + s * best[0], s * math.exp(best[1])
    constants = [
        Constant("mu", centre, unit, centre - s * half[0], centre + s * half[0], method=how),
        Constant("s", width, unit, width * math.exp(-half[1]), width * math.exp(half[1]), method=f"{how}, log scale"),
    ]
    for place, name in enumerate((*(("ratio",) if free_ratio else ()), *(("share",) if grouped else ())), start=2):
        low, value, high = (float(expit(best[place] + d)) for d in (-half[place], 0.0, half[place]))
        constants.append(Constant(name, value, "", low, high, method=f"{how}, logit scale"))
    ratio = float(expit(best[2])) if free_ratio else float(both and not values)
    share01, share10 = (ratio, 1.0) if common or not values else (1.0, ratio)
    return Law(tuple(constants), share01, share10, float(expit(best[-1])) if grouped else None, exceptions, top)


def law_log_likelihood(counts: Counts, times: Counts, z: Floats, ratios: tuple[float, float], share: float, scale: float) -> float:
    """Of counts (groups, value held, first failing point or none) at probits z, ascending; scale as in `group_log_likelihood`."""
    from scipy.special import ndtr, ndtri

    x, weights = np.zeros(1), np.zeros(1)
    if share > 0.0:
        x, weights = fine_grid([float(z[-1])], share, int(counts.sum(axis=(1, 2)).max()))
    exponent: Floats = np.broadcast_to(weights, (times.size, x.size)).copy()
    for value, ratio in enumerate(ratios):
        if not counts[:, value].any():
            continue
        marginal = np.minimum(scale * ratio * ndtr(z), 1.0 - 1e-15)
        inside = (ndtri(np.maximum(marginal, 1e-300))[:, None] + math.sqrt(share) * x) / math.sqrt(1.0 - share)
        below = np.concatenate([np.zeros((1, x.size)), ndtr(inside) / scale, np.ones((1, x.size))])
        exponent += counts[:, value].astype(float) @ np.log(np.maximum(np.diff(below, axis=0), 1e-300))
    top = exponent.max(axis=1)
    return float(times @ (top + np.log(np.exp(exponent - top[:, None]).sum(axis=1))))


def _thresholds(points: Sequence[Sequence[ReadBack]], model: Model, bank: Bank) -> tuple[Counts, Counts, Counts, int]:
    """(first point at which each cell erred, the bit it held, its group, cells that erred and later did not)."""
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
    erred = np.stack([np.concatenate([back.errors > 0 for back in backs]) for backs in points])
    if int(erred[-1].sum()) < int(erred[0].sum()):
        raise InputError("Fitting a law over operating points", "errors do not grow as the condition falls", "Fit points, no law")
    since = np.logical_or.accumulate(erred, axis=0)
    thresholds = np.where(since[-1], since.argmax(axis=0), len(points))
    held = np.concatenate([back.held for back in first]).astype(np.int64)
    address = np.concatenate([back.addresses for back in first])
    group = np.zeros_like(address) if model.axis is None else group_numbers(address, model.axis, bank)
    return thresholds.astype(np.int64), held, group, int(np.count_nonzero((since & ~erred).any(axis=0)))


def _same_cells(a: ReadBack, b: ReadBack) -> bool:
    return a.used is b.used or (a.used is not None and b.used is not None and np.array_equal(a.used, b.used))


def _grouped(thresholds: Counts, held: Counts, group: Counts, points: int) -> tuple[Counts, Counts]:
    """Counts (groups, value, first failing point or none) and how many groups have them."""
    groups, states = int(group.max()) + 1, 2 * (points + 1)
    flat = np.bincount((group * 2 + held) * (points + 1) + thresholds, minlength=groups * states).reshape(groups, states)
    rows, times = np.unique(flat[flat.sum(axis=1) > 0], axis=0, return_counts=True)
    return rows.reshape(-1, 2, points + 1), times


def _line(volts: Floats, rates: Floats) -> tuple[float, float]:
    """(mu, s) of the straight line through the probits of the rates that are not zero: where the search begins."""
    from scipy.special import ndtri

    used = (rates > 0.0) & (rates < 1.0)
    if np.unique(rates[used]).size < 2:
        found = f"errors were seen at {int(used.sum())} of {volts.size} points, and a law needs two with different rates"
        raise InputError("Fitting a law over operating points", found, "Measure more points with errors")
    slope, offset = np.polyfit(volts[used], ndtri(rates[used]), 1)
    return -offset / slope, -1.0 / slope
