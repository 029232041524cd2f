"""How many trials an interval of a mean needs: Stein's stages, with intervals that are corrected for skewness.

A first stage of n0 trials gives the standard deviation s; N = (q s / h)^2 trials then give an interval of ± h, q being Student's
quantile with n0 - 1 degrees of freedom. For normal trials it has the confidence asked for, because s does not depend on the mean
(C. Stein, A two-sample test for a linear hypothesis whose power is independent of the variance, Ann. Math. Statist. 16, 1945).
Looking at an ordinary interval after every trial until it is narrow has not.

Trials are skewed (most dies are good, a few are bad), so three things are added:

- Intervals reach further towards the long tail: `weakcell.emulator.evaluation.intervals`.
- The interval uses the larger of q s of the first stage and q s of all trials. A first stage may have missed the bad dies.
- If the interval after the second stage is still wider than asked for, a further stage follows. Each stage adds a tenth or more, so
  there are few of them.
- Stopping prefers samples that have missed the bad dies. So the half widths are larger by 2 (z^4 + 2 z^2 - 3) g^2 / (18 n), z being
  the normal quantile and g the skewness: twice the share that skewness takes from Student's interval at a fixed number of trials
  (P. Hall, The Bootstrap and Edgeworth Expansion, 1992). Without it 93.9 % held at digits-bnn, uniform:ber=0.05, for a standard
  deviation of 3.5 half widths. The factor 2 was found by simulation.

`python tests/benchmarks/intervals.py stopped` measures what such intervals hold; host/campaign/README.md has the figures.

With a covariate, something seen in each trial whose expectation is known, the mean is taken from the regression on it, and s from
what the regression leaves; t has one degree of freedom less (S. S. Lavenberg and P. D. Welch, A perspective on the use of control
variables, Management Science 27, 1981). Among few trials a regression likely_passes too much: it is for points that need many.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weakcell.emulator.evaluation.intervals import CONFIDENCE, UNBOUNDED, Bounds, Values, differ, reach, skewness, students_quantile
from weakcell.emulator.faults.deployment import ReadPolicy, Sampling
from weakcell.emulator.ir.values import StoredTensor, encode_values
from weakcell.emulator.prediction.bit_rates import BitRates, compute_bit_rates
from weakcell.host.study.study import Point, ResolvedStudy
from weakcell.memmodels.errors import UsageError

FIRST_STAGE = 20

_EDGEWORTH = 1.08
"""(z^4 + 2 z^2 - 3) / 18 for the normal quantile z = 1.96."""

MANY = 100
"""A covariate is for points that need so many trials without it …"""

FEWEST_WITH_COVARIATE = 60
"""… and then they get at least so many."""


def trials_needed(
    values: Values,
    half_width: float,
    most: int,
    covariate: Values | None = None,
    *,
    first_stage: int = FIRST_STAGE,
    confidence: float = CONFIDENCE,
) -> int:
    """Return how many trials a point should have, judged by those that it has.

    Args:
        values: (n,) scores of the trials so far, in the order of their numbers.
        half_width: neither end of the interval may be farther from the mean.
        most: the most trials that a point may have.
        covariate: (n,) of each trial, less its expectation; None if there is none.
        first_stage: number of trials whose standard deviation fixed the second stage.
        confidence: of the interval.

    Returns:
        n if the interval is narrow enough, otherwise a larger number; at most `most`.
    """
    n = len(values)
    if n < 2 or n >= most:
        return min(n, most)
    fewest = n if covariate is None else max(n, FEWEST_WITH_COVARIATE)
    mean, low, high = stein_interval(values, first_stage, covariate, confidence)
    if fewest == n and max(mean - low, high - mean) <= half_width:
        return n
    fit = _Fit.of(values, covariate)
    quantile, deviation = _widest_deviation(values, first_stage, covariate, confidence)
    spent, skew = n - 1 - fit.degrees, fit.skewness

    def narrow(count: int) -> bool:
        return max(_reach(quantile, deviation, skew, count - spent)) <= half_width

    further = max(n + max(1, n // 10), fewest)
    return min(most, max(further, _bisect(narrow, further, most)))


def _bisect(narrow: Callable[[int], bool], low: int, most: int) -> int:
    """Return the smallest count in low … most for which `narrow` holds, by bisection; `most` if there is none."""
    high = most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if narrow(middle) else (middle + 1, high)
    return high


def wants_covariate(first: Values, half_width: float, most: int) -> bool:
    """Return whether a point that has had its first stage needs so many trials that a covariate pays."""
    return most >= FEWEST_WITH_COVARIATE and trials_needed(first, half_width, MANY) == MANY


def stein_interval(
    values: Values,
    first_stage: int = FIRST_STAGE,
    covariate: Values | None = None,
    confidence: float = CONFIDENCE,
    *,
    bounds: Bounds = UNBOUNDED,
) -> tuple[float, float, float]:
    """Return mean and interval of trials whose number was chosen by `trials_needed`.

    Args:
        values: (n,) scores of the trials, in the order of their numbers.
        first_stage: number of trials whose standard deviation fixed the second stage.
        covariate: as in `trials_needed`.
        confidence: of the interval.
        bounds: smallest and largest possible score; the interval is cut off there.

    Returns:
        (mean, low, high). low and high are NaN for fewer than two trials; they equal the mean if no trial differed.
    """
    fit = _Fit.of(values, covariate)
    if len(values) < 2:
        return fit.mean, math.nan, math.nan
    if not differ(values):
        return fit.mean, fit.mean, fit.mean
    quantile, deviation = _widest_deviation(values, first_stage, covariate, confidence)
    below, above = _reach(quantile, deviation, fit.skewness, 1.0 / fit.share)
    return fit.mean, max(bounds[0], fit.mean - below), min(bounds[1], fit.mean + above)


def _reach(quantile: float, deviation: float, skew: float, trials: float) -> tuple[float, float]:
    """Return how far an interval reaches below and above a mean over `trials` whose number was chosen by looking at them."""
    below, above = reach(deviation, skew, trials, quantile)
    wider = quantile * deviation / math.sqrt(trials) * 2.0 * _EDGEWORTH * skew**2 / trials
    return below + wider, above + wider


def _widest_deviation(values: Values, first_stage: int, covariate: Values | None, confidence: float) -> tuple[float, float]:
    """Return quantile and standard deviation of the first stage or of all trials, whichever have the larger product."""
    first = _Fit.of(values[:first_stage], None if covariate is None else covariate[:first_stage])
    pairs = [(students_quantile(fit.degrees, confidence), fit.deviation) for fit in (first, _Fit.of(values, covariate))]
    return max(pairs, key=lambda pair: pair[0] * pair[1])


def share_removed(values: Values, covariate: Values) -> float:
    """Return the share of the mean's variance that the covariate removes; negative if it costs more than it removes."""
    plain, fit = _Fit.of(values, None), _Fit.of(values, covariate)
    return 1.0 - fit.variance / plain.variance if plain.variance > 0.0 else 0.0


@dataclass(frozen=True, eq=False)
class _Fit:
    """A mean of trials, from a regression if there is a covariate.

    Attributes:
        residuals: what the regression leaves of each trial.
        degrees: degrees of freedom.
        share: variance of the mean as a share of the variance of a trial.
    """

    mean: float
    residuals: npt.NDArray[np.float64]
    degrees: int
    share: float

    @classmethod
    def of(cls, values: Values, covariate: Values | None) -> _Fit:
        """Fit trials; without a covariate, or with too few trials, the plain mean."""
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
        """Variance of a trial without the part that the covariate explains."""
        return float(self.residuals @ self.residuals) / self.degrees

    @property
    def deviation(self) -> float:
        """Its square root."""
        return math.sqrt(self.variance)

    @property
    def skewness(self) -> float:
        """Skewness of what the regression leaves."""
        return skewness(self.residuals)


@dataclass(frozen=True)
class Control:
    """A covariate: the flips of one tensor, and their expectation over all dies and draws.

    Dies with more flips tend to be worse, so the number of flips explains a part of the variance. The tensor with the fewest
    weight bits is used: where a weight serves many outputs, as in a first convolution, there are few weights, their flips vary
    most from die to die, and each does most harm.
    """

    tensor: str
    expected: float


def find_control_variate(resolved: ResolvedStudy, point: Point) -> Control | None:
    """Return the covariate of a point.

    Returns:
        None if the errors of single cells have no known distribution, the die is pinned, or weights are read more than once.
    """
    study, network = resolved.study, resolved.network
    if study.read_every is not ReadPolicy.LOAD or study.die is not None or study.sampling is not Sampling.BITS:
        return None
    try:
        rates = compute_bit_rates(network, point.placement)
    except UsageError:
        return None
    weights = [network.tensors[name] for name in rates if name in network.tensors and network.tensors[name].role == "weight"]
    if not weights:
        return None
    tensor = min(weights, key=lambda one: one.elements * one.encoding.bits)
    return Control(tensor.name, _expect_flips(tensor, rates[tensor.name]))


def _expect_flips(tensor: StoredTensor, rates: BitRates) -> float:
    codes = encode_values(tensor.values, tensor.encoding)
    planes = np.arange(tensor.encoding.bits, dtype=np.uint64)
    ones = ((codes[:, None] >> planes) & np.uint64(1)).sum(axis=0, dtype=np.int64)
    return float((rates.p10 * ones + rates.p01 * (codes.size - ones)).sum())
