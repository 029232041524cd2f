"""How many trials an interval needs: Stein's two stages, made a little wider where trials are skewed.

A first stage of n0 trials gives the standard deviation s; the number of trials is then fixed at N = max(n0, ceil((t s / h)^2)), t
being Student's quantile with n0 - 1 degrees of freedom and h the half width asked for. The interval mean_N ± t s / sqrt(N) has at
least the confidence asked for, for normal trials, because s does not depend on the mean (C. Stein, A two-sample test for a linear
hypothesis whose power is independent of the variance, Ann. Math. Statist. 16, 1945). Looking at an ordinary interval again and
again until it is narrow has not.

Trials are skewed (most dies are good, a few are bad), and Student's interval then holds the mean too seldom: z being the normal
quantile, a skewness g takes 2 z phi(z) (z^4 + 2 z^2 - 3) g^2 / (18 N) off its coverage (P. Hall, The Bootstrap and Edgeworth
Expansion, 1992; what kurtosis adds to it is left out). An interval that is wider by the share (z^4 + 2 z^2 - 3) g^2 / (18 N) has it
back; to be as narrow as asked for all the same, it takes (z^4 + 2 z^2 - 3) g^2 / 9 more trials.
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
    data = np.asarray(first, dtype=np.float64)
    needed = (_reach(data, confidence) / half_width) ** 2 + 2.0 * _widening(data, confidence)
    return min(most, max(len(first), math.ceil(needed)))


def stein_interval(values: Sequence[float], first_stage: int = FIRST_STAGE, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """(low, high) for trials whose number was fixed after the first stage; NaN for fewer than two.

    The wider of Stein's interval and the ordinary one over all trials: where trials are skewed, a first stage may have missed the
    bad ones.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size < 2:
        return math.nan, math.nan
    reach = max(_reach(data[:first_stage], confidence), _reach(data, confidence))
    half = reach / math.sqrt(data.size) * (1.0 + _widening(data, confidence) / data.size)
    return float(data.mean() - half), float(data.mean() + half)


def _reach(data: np.ndarray, confidence: float) -> float:
    """Student's quantile times the standard deviation: the half width of an interval over one trial."""
    from scipy.special import stdtrit

    return float(stdtrit(data.size - 1, 0.5 + confidence / 2) * data.std(ddof=1))


def _widening(data: np.ndarray, confidence: float) -> float:
    """What skewness adds to the half width of a mean over N trials, as a share of it and times N; 0 for fewer than three."""
    from scipy.special import ndtri

    spread, n = float(data.std()), data.size
    if n < 3 or spread <= 1e-12:
        return 0.0
    skewness = float((((data - data.mean()) / spread) ** 3).mean()) * math.sqrt(n * (n - 1)) / (n - 2)
    z2 = float(ndtri(0.5 + confidence / 2)) ** 2
    return (z2**2 + 2.0 * z2 - 3.0) / 18.0 * skewness**2
