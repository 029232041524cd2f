"""Models of read-backs: one per structure, fitted by maximum likelihood and compared by BIC.

A weak cell (density P, by stored value) fails at each read with probability F (`likelihood.py`). P and F are separable, because the
counts k of the cells that are seen follow the zero-truncated binomial, whatever P is. F = 1: lifetime die. P = 1: every cell,
lifetime read.

    uniform          p; only p01 or p10 if no cell ever values the other value
    asymmetric       p01, p10: densities of cells that err on 0 and on 1
    data-dependent   P, F0, F1: the same density, but a weak cell fails differently on 0 and on 1 (needs repeats)
    bitline, wordline, clustered             p (or p01, p10) and `share` of a column, row or bank (`structure.Shared`)
    lines            p_in_line, and the share of bad lines: bad_lines (or bad_lines_01, bad_lines_10)

Intervals: observed information on the logit scale (rates, shares), so they stay inside the range; exact Clopper-Pearson intervals
for the rates of independent cells if F = 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.error_model.structure import Axis, Bank, Lines, Shared
from weakcell.memmodels.error_model.terms import Cells, ErrorTerm, Lifetime
from weakcell.memmodels.fitting.counts import LINE, Evidence, GroupCounts
from weakcell.memmodels.fitting.likelihood import (
    Floats,
    cell_log_likelihood,
    expit,
    group_log_likelihood,
    line_log_likelihood,
    logit,
    maximize,
)
from weakcell.memmodels.profile import Constant

Structure = Literal["uniform", "asymmetric", "data-dependent", "bitline", "wordline", "clustered", "lines"]
Preference = Literal["cell", "row", "zero", "one"]
GROUPED: dict[Axis, Structure] = {"column": "bitline", "row": "wordline", "bank": "clustered"}
_CHI2 = 3.841458820694124


@dataclass(frozen=True, eq=False)
class Model:
    """A structure fitted to one operating point.

    Attributes:
        structure: Which model.
        lifetime: READ or DIE.
        axis: Of its groups; None for independent cells.
        names: Of its constants.
        logits: Their values on the logit scale.
        covariance: Of the logits.
        log_likelihood: Its maximum.
        parameters: How many were chosen freely.
        cells: Number of (cell, stored value) pairs.
    """

    structure: Structure
    lifetime: Lifetime
    axis: Axis | None
    names: tuple[str, ...]
    logits: Floats
    covariance: Floats
    log_likelihood: float
    parameters: int
    cells: int

    @property
    def bic(self) -> float:
        """-2 ln L + parameters ln(cells)."""
        return -2.0 * self.log_likelihood + self.parameters * math.log(self.cells)

    def value(self, name: str) -> float:
        """Return a constant by name."""
        return float(expit(self.logits[self.names.index(name)]))


# --- the models ----------------------------------------------------------------------------------------------------------------


def candidates(evidence: Evidence) -> Iterator[Model]:
    """Fit and yield every structure that the evidence can support.

    If cells err on both values, these are the independent ones only: the two observations of a cell would look like a group.
    """
    fails = estimate_failure_probability(evidence.seen.sum(axis=0))
    yield from _independent(evidence, fails)
    if evidence.faulty < 2 or fails is None or evidence.inverting:
        return
    for axis in GROUPED:
        if evidence.groups[axis].times.sum() > 1:
            yield from _grouped(evidence, axis, fails)
    if evidence.groups["line"].times.sum() > 1:
        yield from _lines(evidence, fails)


def estimate_failure_probability(seen: npt.NDArray[np.int64]) -> tuple[float, float] | None:
    """Estimate F by the zero-truncated binomial.

    Args:
        seen: (R + 1,) number of cells that erred at k of R reads.

    Returns:
        (F, variance of logit F); (1, 0) if all cells erred at every read. None if the best F is 0: cells err so seldom that no two
        reads share one.
    """
    from scipy.optimize import brentq

    reads = seen.size - 1
    faulty, errors = int(seen[1:].sum()), int((seen * np.arange(reads + 1)).sum())
    if faulty == 0 or errors == faulty * reads:
        return 1.0, 0.0
    mean = errors / faulty
    if mean <= 1.0:
        return None

    def excess(f: float) -> float:
        return reads * f / -math.expm1(reads * math.log1p(-f)) - mean

    f = float(brentq(excess, 1e-9, 1.0 - 1e-12, xtol=1e-13))
    h = 1e-4 * min(f, 1.0 - f)
    slope = (excess(f + h) - excess(f - h)) / (2 * h) * f * (1 - f)
    return f, 1.0 / (faulty * max(slope, 1e-12))


def _independent(evidence: Evidence, fails: tuple[float, float] | None) -> Iterator[Model]:
    """Fit uniform, asymmetric and data-dependent, with errors drawn at each read or weak cells."""
    seen, reads = evidence.seen, evidence.reads
    values = [value for value in (0, 1) if seen[value].sum()]
    one = ("p",) if len(values) == 2 else ("p10",) if values == [1] else ("p01",)
    if reads > 1 and not evidence.repeatable:
        yield _drawn_at_read(evidence, [seen.sum(axis=0)], one, "uniform")
        if len(values) == 2:
            yield _drawn_at_read(evidence, [seen[0], seen[1]], ("p01", "p10"), "asymmetric")
    if fails is None:
        return
    yield _weak(evidence, [seen.sum(axis=0)], one, "uniform", fails)
    if len(values) == 2:
        yield _weak(evidence, [seen[0], seen[1]], ("p01", "p10"), "asymmetric", fails)
        if fails[0] < 1.0 and seen[0, 1:].sum() and seen[1, 1:].sum():
            yield _data_dependent(evidence, fails[0])


def _drawn_at_read(evidence: Evidence, seen: list[npt.NDArray[np.int64]], names: tuple[str, ...], structure: Structure) -> Model:
    errors = [int((part * np.arange(part.size)).sum()) for part in seen]
    trials = [int(part.sum()) * evidence.reads for part in seen]
    rates = [k / n for k, n in zip(errors, trials, strict=True)]
    total = sum(cell_log_likelihood(part, 1.0, rate) for part, rate in zip(seen, rates, strict=True))
    variances = [1.0 / max(k * (1 - k / n), 1e-9) for k, n in zip(errors, trials, strict=True)]
    return Model(structure, Lifetime.READ, None, names, np.array([logit(rate) for rate in rates]), np.diag(variances), total,
                 len(names), evidence.cells)  # fmt: skip


def _weak(
    evidence: Evidence,
    seen: list[npt.NDArray[np.int64]],
    names: tuple[str, ...],
    structure: Structure,
    fails: tuple[float, float],
) -> Model:
    """Fit densities from the cells seen, given F. The likelihood is a product of both."""
    f, visible = fails[0], visible_share(fails[0], evidence.reads)
    densities, own = [], []
    for part in seen:
        k, n = int(part[1:].sum()), int(part.sum())
        densities.append(min(k / n / visible, 1.0))
        own.append(1.0 / max(k * (1 - k / n), 1e-9))
    total = sum(cell_log_likelihood(part, p, f) for part, p in zip(seen, densities, strict=True))
    fitted = np.array([logit(p) for p in densities])
    logits, covariance = append_failure_probability(fitted, np.diag(own), len(names), fails, evidence.reads)
    known = (*names, "F") if f < 1.0 else names
    return Model(structure, Lifetime.DIE, None, known, logits, covariance, total, len(known), evidence.cells)


def visible_share(f: float, reads: int) -> float:
    """Return pi, the share of weak cells that err in at least one read."""
    return -math.expm1(reads * math.log1p(-f)) if f < 1.0 else 1.0


def append_failure_probability(
    fitted: Floats, covariance: Floats, rates: int, fails: tuple[float, float], reads: int
) -> tuple[Floats, Floats]:
    """Append F to constants that were fitted at a fixed F, and add its uncertainty.

    Args:
        fitted: Logits of the constants.
        covariance: Of the logits.
        rates: How many of them, from the first, depend on F, as P = seen / pi(F).
        fails: (F, variance of logit F).
        reads: R.
    """
    f, variance = fails
    if f >= 1.0:
        return fitted, covariance
    slope = -reads * f * (1 - f) ** reads / visible_share(f, reads)
    push = np.array([*(slope if i < rates else 0.0 for i in range(fitted.size)), 1.0])
    return np.array([*fitted, logit(f)]), np.pad(covariance, (0, 1)) + variance * np.outer(push, push)


def _data_dependent(evidence: Evidence, f: float) -> Model:
    seen = evidence.seen

    def total(x: Floats) -> float:
        p, f0, f1 = expit(x)
        return cell_log_likelihood(seen[0], float(p), float(f0)) + cell_log_likelihood(seen[1], float(p), float(f1))

    density = evidence.faulty / evidence.cells / visible_share(f, evidence.reads)
    best, covariance, top = maximize(total, (logit(density), logit(f), logit(f)))
    return Model("data-dependent", Lifetime.DIE, None, ("P", "F0", "F1"), best, covariance, top, 3, evidence.cells)


def _grouped(evidence: Evidence, axis: Axis, fails: tuple[float, float]) -> Iterator[Model]:
    """Fit groups along an axis: one density, or one per value; one-sided if only cells that values one value erred."""
    f, visible = fails[0], visible_share(fails[0], evidence.reads)
    counts = evidence.groups[axis]
    erring = evidence.seen[:, 1:].sum(axis=1)
    truncated = _repeats(evidence, f)
    for names in _sides(evidence):
        used = counts.pooled if names == ("p",) else counts
        scale = 2.0 if erring.all() else 1.0
        rates = _rates_seen(evidence, names)
        if scale * max(rates) / visible > 0.9:
            continue

        def total(x: Floats, names: tuple[str, ...] = names, used: GroupCounts = used, scale: float = scale) -> float:
            p = dict(zip(names, expit(x[:-1]), strict=True))
            rate0, rate1 = float(p.get("p01", 0.0)), float(p.get("p10", p.get("p", 0.0)))
            if scale * max(rate0, rate1) >= 1.0:
                return -math.inf
            return group_log_likelihood(used, rate0, rate1, float(expit(x[-1])), visible, scale)

        start = [logit(min(rate / visible, 0.49)) for rate in rates]
        best, covariance, top = maximize(total, (*start, logit(0.2)))
        logits, joint = append_failure_probability(best, covariance, len(names), fails, evidence.reads)
        known = (*names, "share", "F") if f < 1.0 else (*names, "share")
        free = len(known) + _one_sided(evidence, names)
        yield Model(GROUPED[axis], Lifetime.DIE, axis, known, logits, joint, top + truncated, free, evidence.cells)


def _lines(evidence: Evidence, fails: tuple[float, float]) -> Iterator[Model]:
    """Fit bad lines: one share of them, or one per value; one-sided if only cells that values one value erred."""
    f, visible = fails[0], visible_share(fails[0], evidence.reads)
    counts = evidence.groups["line"]
    erring = evidence.seen[:, 1:].sum(axis=1)
    scale, truncated = (2.0 if erring.all() else 1.0), _repeats(evidence, f)
    hit = max(float(counts.times[counts.k0 + counts.k1 > 0].sum() / counts.times.sum()), 1e-9)
    for names in _sides(evidence):
        used = counts.pooled if names == ("p",) else counts
        known = ("p_in_line", *(f"bad_lines{name[1:] and '_' + name[1:]}" for name in names))

        def total(x: Floats, names: tuple[str, ...] = names, used: GroupCounts = used) -> float:
            inside, *shares = expit(x)
            bad = dict(zip(names, shares, strict=True))
            bad0, bad1 = float(bad.get("p01", 0.0)), float(bad.get("p10", bad.get("p", 0.0)))
            return -math.inf if scale * inside >= 1.0 else line_log_likelihood(used, bad0, bad1, float(inside) * visible)

        density = max(_rates_seen(evidence, names)) / visible / hit
        best, covariance, top = maximize(total, (logit(min(density, 0.9 / scale)), *(logit(min(hit, 0.99)) for _ in names)))
        logits, joint = append_failure_probability(best, covariance, 1, fails, evidence.reads)
        known = (*known, "F") if f < 1.0 else known
        free = len(known) + _one_sided(evidence, names)
        yield Model("lines", Lifetime.DIE, "line", known, logits, joint, top + truncated, free, evidence.cells)


def _sides(evidence: Evidence) -> tuple[tuple[str, ...], ...]:
    """Return which rates are distinguished: none and both values, or only the one whose cells erred."""
    erring = evidence.seen[:, 1:].sum(axis=1)
    if erring.all():
        return ("p",), ("p01", "p10")
    return (("p01",),) if erring[0] else (("p10",),)


def _one_sided(evidence: Evidence, names: tuple[str, ...]) -> int:
    """Return 1 if cells of both values were seen and only one value erred."""
    # we chose which value errs, so the BIC counts one more parameter
    return int(names in (("p01",), ("p10",)) and bool(evidence.seen.sum(axis=1).all()))


def _repeats(evidence: Evidence, f: float) -> float:
    """Return the log-likelihood of how often the faulty cells erred, given that they did; equal for all groupings."""
    once = np.concatenate([[0], evidence.seen[:, 1:].sum(axis=0)])
    return cell_log_likelihood(once, 1.0, f) - int(once.sum()) * math.log(visible_share(f, evidence.reads))


def _rates_seen(evidence: Evidence, names: tuple[str, ...]) -> list[float]:
    """Return the share of cells seen to err, of all or of those that each name is about."""
    parts = {"p": evidence.seen.sum(axis=0), "p01": evidence.seen[0], "p10": evidence.seen[1]}
    return [max(float(parts[name][1:].sum()), 0.5) / float(parts[name].sum()) for name in names]


# --- constants and terms -------------------------------------------------------------------------------------------------------


def estimate_constants(model: Model, evidence: Evidence) -> tuple[Constant, ...]:
    """Return the constants of a model with 95 % intervals; without any fault they have upper bounds."""
    constants = []
    for i, name in enumerate(model.names):
        half = math.sqrt(_CHI2 * max(float(model.covariance[i, i]), 0.0))
        low, value, high = (float(expit(model.logits[i] + d)) for d in (-half, 0.0, half))
        constants.append(Constant(name, value, "", low, high, "measured", "observed information, logit scale"))
    if model.axis is None and "F" not in model.names and "F0" not in model.names:
        constants = [_exact(constant, model, evidence) for constant in constants]
    if model.lifetime is Lifetime.DIE and evidence.reads == 1:
        constants.append(Constant("F", 1.0, "", 1.0, 1.0, "assumed", "one read cannot tell"))
    return tuple(constants)


def _exact(constant: Constant, model: Model, evidence: Evidence) -> Constant:
    """Return the Clopper-Pearson interval of a rate."""
    parts = {"p": evidence.seen.sum(axis=0), "p01": evidence.seen[0], "p10": evidence.seen[1]}
    seen = parts[constant.name]
    n, k = int(seen.sum()), int(seen[1:].sum())
    if model.lifetime is Lifetime.READ:
        n, k = n * evidence.reads, int((seen * np.arange(seen.size)).sum())
    effect = evidence.pair_effect if constant.name == "p" and model.lifetime is Lifetime.DIE else 1.0
    low, high = clopper_pearson(k / effect, n / effect)
    return replace(constant, value=k / n, low=low, high=high, method=f"Clopper-Pearson, {k} of {n}")


def clopper_pearson(k: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a binomial share; zero successes have an upper bound."""
    from scipy.stats import beta

    tail = (1.0 - confidence) / 2.0
    low = 0.0 if k == 0 else float(beta.ppf(tail, k, n - k + 1))
    high = 1.0 if k == n else float(beta.ppf(1.0 - tail, k + 1, n - k))
    return low, high


def make_terms(model: Model, bank: Bank, line: int = LINE, inverting: bool = False) -> tuple[ErrorTerm, ...]:
    """Return the error terms that simulate the model. inverting: a weak cell errs on both values."""
    value = {name: model.value(name) for name in model.names}
    if model.structure == "data-dependent":
        return (
            ErrorTerm("data-dependent, on 0", Lifetime.DIE, value["P"], 0.0, Cells.INVERT, failure_probability=value["F0"]),
            ErrorTerm("data-dependent, on 1", Lifetime.DIE, 0.0, value["P"], Cells.INVERT, failure_probability=value["F1"]),
        )
    rates = _rates(value)
    weak = model.lifetime is Lifetime.DIE
    preference: Preference = "cell" if len(rates) == 2 or not weak else "one" if "p01" in rates else "zero"
    structure: Shared | Lines | None = None
    if model.structure == "lines":
        structure = Lines(line, value["p_in_line"] * (2.0 if preference == "cell" else 1.0))
    elif model.axis is not None:
        structure = Shared(model.axis, value["share"], bank)
    p01, p10, fails = rates.get("p01", 0.0), rates.get("p10", 0.0), value.get("F", 1.0)
    inverting = weak and structure is None and preference == "cell" and (inverting or p01 + p10 > 1.0)
    cells = Cells.INVERT if inverting else Cells.PREFER
    return (
        ErrorTerm(
            model.structure, model.lifetime, p01, p10, cells, failure_probability=fails, structure=structure, preference=preference
        ),
    )


def _rates(value: Mapping[str, float]) -> dict[str, float]:
    """Return p01 and p10 of the constants, or the one of them that cells err with."""
    inside = value.get("p_in_line")
    fitted = {}
    for way, share in (("p01", "bad_lines_01"), ("p10", "bad_lines_10")):
        if inside is None and (way in value or "p" in value):
            fitted[way] = value.get(way, value.get("p", 0.0))
        elif inside is not None and (share in value or "bad_lines" in value):
            fitted[way] = inside * value.get(share, value.get("bad_lines", 0.0))
    return fitted
