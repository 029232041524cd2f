"""Counted error rates with their 95 % intervals, whatever model was fitted.

    rate        share of (cell, stored value) pairs that erred
    p01, p10    the same for cells that held 0, and for cells that held 1; absent if no cell held that value

Errors of lifetime `die`: a cell counts once, however often it was read ("erred at least once"). Errors that are drawn at each read:
single reads count, since the number of cells that ever erred would grow with the number of reads.

Intervals: Clopper-Pearson if cells are independent. A cell that errs on both stored values is one observation, not two, so counts
are divided by the design effect 1 + 2 (cells that err on both, beyond chance) / (variance of the pairs). If cells fail in groups:
a bootstrap over groups, never narrower than Clopper-Pearson. If nothing erred: the upper bound of n / (design effect at the
deciding point) independent cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from weakcell.memmodels.error_model.terms import Lifetime
from weakcell.memmodels.fitting.counts import Counts, Evidence, GroupCounts
from weakcell.memmodels.fitting.models import Model, clopper_pearson
from weakcell.memmodels.profile import Constant

_VALUES: Mapping[str, tuple[int, ...]] = {"rate": (0, 1), "p01": (0,), "p10": (1,)}


def counted_rates(evidence: Evidence, model: Model, deciding: Evidence) -> dict[str, Constant]:
    """Return `rate`, `p01` and `p10` of one operating point, those that were measured.

    Args:
        evidence: Counts of the operating point.
        model: The fitted structure: what makes cells fail together, and how long errors last.
        deciding: Counts of the point with most faulty cells; it tells how strongly they cluster.
    """
    return {name: counted_rate(evidence, model, deciding, name) for name in _VALUES if _select_counts(evidence, name).sum()}


def counted_rate(evidence: Evidence, model: Model, deciding: Evidence | None = None, name: str = "rate") -> Constant:
    """Return one rate of those at the head of this module; some cell must have held its value."""
    seen, most = _select_counts(evidence, name), deciding or evidence
    n, k = int(seen.sum()), int(seen[1:].sum())
    if model.lifetime is Lifetime.READ:
        n, k = n * evidence.reads, int((seen * np.arange(seen.size)).sum())
        return Constant(name, k / n, "", *clopper_pearson(k, n), method=f"Clopper-Pearson, {k} of {n} reads of cells")
    if model.axis is None:
        effect = (evidence if k else most).pair_effect if name == "rate" else 1.0
        note = f", design effect {effect:.3g} (cells err on both values)" if effect > 1.0 else ""
        return Constant(name, k / n, "", *clopper_pearson(k / effect, n / effect), method=f"Clopper-Pearson, {k} of {n}{note}")
    if k == 0:
        there, same = most.groups[model.axis], bool(_select_counts(most, name)[1:].sum())
        effect = max(design_effect(*_groups(there, name if same else "rate")), 1.0)
        high = clopper_pearson(0, max(n / effect, 1.0))[1]
        return Constant(name, 0.0, "", 0.0, high, method=f"Clopper-Pearson, 0 of {n}, design effect {effect:.3g}")
    faulty, cells, times = _groups(evidence.groups[model.axis], name)
    drawn, exact = bootstrap_rate(faulty, cells, times), clopper_pearson(k, n)
    low, high = min(drawn[0], exact[0]), max(drawn[1], exact[1])
    return Constant(name, k / n, "", low, high, method=f"bootstrap over {model.axis}s")


def design_effect(faulty: Counts, cells: Counts, times: Counts) -> float:
    """Return the variance of a rate over groups, divided by that of independent cells.

    It is 1 if nothing erred or everything did.

    Args:
        faulty: Cells that erred in a group, one entry per kind of group.
        cells: Cells of the group.
        times: Number of such groups.
    """
    k, n, count = int(times @ faulty), int(times @ cells), int(times.sum())
    if k in (0, n) or count < 2:
        return 1.0
    rate = k / n
    spread = float((times * (faulty - rate * cells) ** 2).sum()) * count / (count - 1)
    return spread / (n * rate * (1.0 - rate))


def bootstrap_rate(
    faulty: Any, cells: Any, times: Any = None, confidence: float = 0.95, draws: int = 4000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile interval of a rate under resampling of whole groups.

    Args:
        faulty: Cells that erred in a group, one entry per kind of group.
        cells: Cells of the group.
        times: Number of such groups; 1 each if None.
        confidence: Of the interval.
        draws: Bootstrap samples.
        seed: Of the generator.
    """
    k, n = np.asarray(faulty, dtype=float), np.asarray(cells, dtype=float)
    count = np.ones(k.size, dtype=np.int64) if times is None else np.asarray(times)
    drawn = np.random.default_rng(seed).multinomial(int(count.sum()), count / count.sum(), size=draws)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile((drawn @ k) / (drawn @ n), [tail, 1.0 - tail])
    return float(low), float(high)


def _select_counts(evidence: Evidence, name: str) -> Counts:
    """Return the number of cells that erred at k reads, of those that a rate is about."""
    counts: Counts = evidence.seen[list(_VALUES[name])].sum(axis=0)
    return counts


def _groups(counts: GroupCounts, name: str) -> tuple[Counts, Counts, Counts]:
    """Return faulty cells, cells and multiplicity of the groups that hold cells of the rate."""
    faulty = {"rate": counts.k0 + counts.k1, "p01": counts.k0, "p10": counts.k1}[name]
    cells = {"rate": counts.n0 + counts.n1, "p01": counts.n0, "p10": counts.n1}[name]
    used = cells > 0
    return faulty[used], cells[used], counts.times[used]
