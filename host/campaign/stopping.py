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

With a covariate, something seen in each trial whose expectation is known, the mean is taken from the regression on it, and s from
what the regression leaves; t has one degree of freedom less (S. S. Lavenberg and P. D. Welch, A perspective on the use of control
variables, Management Science 27, 1981). Among few trials a regression promises too much: it is for points that need many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FIRST_STAGE = 20
CONFIDENCE = 0.95

MANY = 100
"""A covariate is for points that need so many trials without it …"""

FEWEST_WITH_COVARIATE = 60
"""… and then they get at least so many."""

Values = Sequence[float] | npt.NDArray[np.float64]


def trials_needed(
    first: Values, half_width: float, most: int, covariate: Values | None = None, confidence: float = CONFIDENCE
) -> int:
    """Trials in all, first stage included, for an interval of ± half_width; never more than `most`.

    covariate: of each trial, less its expectation; None if there is none.
    """
    if len(first) < 2 or len(first) >= most:
        return min(len(first), most)
    fit = _Fit.of(first, covariate)
    reach, wider = fit.reach(confidence), fit.widening(confidence)
    fewest = len(first) if covariate is None else FEWEST_WITH_COVARIATE
    if reach / math.sqrt(fewest) * (1.0 + wider / fewest) <= half_width:
        return min(most, fewest)
    spent = len(first) - 1 - fit.freedom
    return min(most, max(fewest, math.ceil((reach / half_width) ** 2 + 2.0 * wider + spent)))


def wants_covariate(first: Values, half_width: float, most: int) -> bool:
    """Whether a point that has had its first stage is one for a covariate."""
    return most >= FEWEST_WITH_COVARIATE and trials_needed(first, half_width, MANY) == MANY


def stein_interval(
    values: Values, first_stage: int = FIRST_STAGE, covariate: Values | None = None, confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """(mean, low, high) for trials whose number was fixed after the first stage; low and high are NaN for fewer than two.

    The wider of Stein's interval and the ordinary one over all trials: where trials are skewed, a first stage may have missed the
    bad ones. covariate: as in `trials_needed`.
    """
    fit = _Fit.of(values, covariate)
    if len(values) < 2:
        return fit.mean, math.nan, math.nan
    first = _Fit.of(values[:first_stage], None if covariate is None else covariate[:first_stage])
    half = max(first.reach(confidence), fit.reach(confidence)) * math.sqrt(fit.share)
    half *= 1.0 + fit.widening(confidence) / len(values)
    return fit.mean, fit.mean - half, fit.mean + half


def share_removed(values: Values, covariate: Values) -> float:
    """The share of the variance of a mean of these trials that the covariate takes away; negative if it only costs a degree of
    freedom."""
    plain, fit = _Fit.of(values, None), _Fit.of(values, covariate)
    return 1.0 - fit.variance / plain.variance if plain.variance > 0.0 else 0.0


@dataclass(frozen=True, eq=False)
class _Fit:
    """A mean, by regression if there is a covariate: what it leaves of each trial, and the variance of the mean as a share of
    that of a trial."""

    mean: float
    left: npt.NDArray[np.float64]
    freedom: int
    share: float

    @classmethod
    def of(cls, values: Values, covariate: Values | None) -> _Fit:
        data = np.asarray(values, dtype=np.float64)
        mean, n = float(data.mean()), data.size
        known = np.zeros(n) if covariate is None else np.asarray(covariate, dtype=np.float64)
        away = known - known.mean()
        spread = float(away @ away)
        if n < 4 or spread <= 1e-12:
            return cls(mean, data - mean, n - 1, 1.0 / n)
        slope, shift = float(away @ data) / spread, float(known.mean())
        return cls(mean - slope * shift, data - mean - slope * away, n - 2, 1.0 / n + shift**2 / spread)

    @property
    def variance(self) -> float:
        """Of a trial, without what the covariate says."""
        return float(self.left @ self.left) / self.freedom

    def reach(self, confidence: float) -> float:
        """Student's quantile times the standard deviation: the half width of an interval over one trial."""
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, 0.5 + confidence / 2)) * math.sqrt(self.variance)

    def widening(self, confidence: float) -> float:
        """What skewness adds to the half width of a mean over N trials, as a share of it and times N; 0 for fewer than three."""
        from scipy.special import ndtri

        spread, n = float(self.left.std()), self.left.size
        if n < 3 or spread <= 1e-12:
            return 0.0
        skewness = float(((self.left / spread) ** 3).mean()) * math.sqrt(n * (n - 1)) / (n - 2)
        z2 = float(ndtri(0.5 + confidence / 2)) ** 2
        return (z2**2 + 2.0 * z2 - 3.0) / 18.0 * skewness**2
