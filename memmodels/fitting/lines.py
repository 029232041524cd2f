"""How likely bad lines are: errors that come in lines of consecutive cells (`structure.Lines`).

A share b of the lines is bad. A cell of a bad line is weak, towards the value that it does not hold, with probability q, and seen
to err with pi q; one of a good line never. So a line with k of n cells seen has the likelihood

    (1 - b) [k = 0]  +  b (pi q)^k (1 - pi q)^(n - k).

Where cells that hold 0 and 1 err in different shares of the lines, b0 and b1, the rarer bad lines are among the more frequent ones,
as in a die whose hazard rises: lines are bad for both values, for the more frequent one, or for none. All probabilities are of
single cells in their order, as in `fit_models`.
"""

from __future__ import annotations

import math

import numpy as np

from weakcell.memmodels.fitting.counts import Counts, GroupCounts
from weakcell.memmodels.fitting.likelihood import Floats


def line_log_likelihood(counts: GroupCounts, bad0: float, bad1: float, seen: float) -> float:
    """Of lines with counts (`GroupCounts`): shares bad0, bad1 of them are bad for cells that hold 0, 1; seen: pi q in (0, 1)."""
    zero, one = _bad(counts.n0, counts.k0, seen), _bad(counts.n1, counts.k1, seen)
    clean0, clean1 = _log_where(counts.k0 == 0), _log_where(counts.k1 == 0)
    both, none = min(bad0, bad1), 1.0 - max(bad0, bad1)
    alone = one + clean0 if bad1 > bad0 else zero + clean1
    parts = np.stack([_log(both) + zero + one, _log(abs(bad1 - bad0)) + alone, _log(none) + clean0 + clean1])
    return float(counts.times @ np.logaddexp.reduce(parts, axis=0))


def _bad(n: Counts, k: Counts, seen: float) -> Floats:
    """Log-likelihood of k of n cells of a bad line."""
    return k * math.log(seen) + (n - k) * math.log1p(-seen)


def _log_where(holds: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Floats:
    return np.where(holds, 0.0, -np.inf)


def _log(share: float) -> float:
    return math.log(share) if share > 0.0 else -math.inf
