"""How many trials an interval needs: Stein's two stages.

A first stage of n0 trials gives the standard deviation s; the number of trials is then fixed at N = max(n0, ceil((t s / h)^2)), t
being Student's quantile with n0 - 1 degrees of freedom and h the half width asked for. The interval mean_N ± t s / sqrt(N) has at
least the confidence asked for, for normal trials, because s does not depend on the mean (C. Stein, A two-sample test for a linear
hypothesis whose power is independent of the variance, Ann. Math. Statist. 16, 1945). Looking at an ordinary interval again and
again until it is narrow has not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

FIRST_STAGE = 20
CONFIDENCE = 0.95


def trials_needed(first: Sequence[float], half_width: float, most: int, confidence: float = CONFIDENCE) -> int:
    """Trials in all, first stage included, for an interval of ± half_width; never more than `most`."""
    if len(first) < 2 or len(first) >= most:
        return min(len(first), most)
    reach = _reach(first, confidence)
    return min(most, max(len(first), math.ceil((reach / half_width) ** 2)))


def stein_interval(values: Sequence[float], first_stage: int = FIRST_STAGE, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """(low, high) for trials whose number was fixed after the first stage; NaN for fewer than two.

    The wider of Stein's interval and the ordinary one over all trials: where trials are skewed, a first stage may have missed the
    bad ones.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size < 2:
        return math.nan, math.nan
    half = max(_reach(data[:first_stage], confidence), _reach(data, confidence)) / math.sqrt(data.size)
    return float(data.mean() - half), float(data.mean() + half)


def _reach(values: Sequence[float] | np.ndarray, confidence: float) -> float:
    """Student's quantile times the standard deviation: the half width of an interval over one trial."""
    from scipy.stats import t

    data = np.asarray(values, dtype=np.float64)
    return float(t.ppf(0.5 + confidence / 2, data.size - 1) * data.std(ddof=1))
