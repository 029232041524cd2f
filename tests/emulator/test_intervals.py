"""Intervals of means over trials: what they hold, where they end, and bounds over dies.

Oracles: scipy's Student interval and skewness, closed forms, and simulation from populations whose mean is known.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from weakcell.emulator.evaluation.intervals import (
    NON_NEGATIVE,
    SHARE,
    differ,
    low_quantile_bound,
    mean_interval,
    skewness,
    unseen_share,
)

shares = st.lists(st.floats(0.0, 1.0), min_size=2, max_size=60)
REPETITIONS = 2000


def coverage(draw: np.ndarray, mean: float) -> float:
    """Share of rows of `draw` (repetitions, trials) whose 95 % interval holds the mean."""
    return float(np.mean([low <= mean <= high for _, low, high in map(mean_interval, draw)]))


# ── what an interval holds ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("trials", [10, 20])
@pytest.mark.parametrize(("skew", "sign"), [(1.0, 1), (1.0, -1), (2.0, 1), (2.0, -1)])
def test_skewed_populations_are_covered(skew: float, sign: int, trials: int) -> None:
    """Gamma of skewness 1 and 2, bad dies on either side. Student's interval holds 90 % at skewness 2 over 10 trials."""
    shape = 4 / skew**2
    scores = 0.9 + sign * 0.01 * (np.random.default_rng(7).gamma(shape, 1.0, (REPETITIONS, trials)) - shape) / math.sqrt(shape)
    assert coverage(scores, 0.9) > 0.945 - 2.3 * math.sqrt(0.05 * 0.95 / REPETITIONS)


def test_students_interval_would_not_do() -> None:
    """The simulation can tell: the same check fails for Student's interval by many standard errors."""
    rng = np.random.default_rng(7)
    scores = rng.gamma(1.0, 1.0, (REPETITIONS, 10))
    half = stats.t.ppf(0.975, 9) * stats.sem(scores, axis=1)
    held = np.mean(np.abs(scores.mean(axis=1) - 1.0) <= half)
    assert held < 0.945 - 5 * math.sqrt(0.05 * 0.95 / REPETITIONS)


@pytest.mark.parametrize("trials", [3, 6, 10, 40])
def test_normal_trials_are_covered_without_waste(trials: int) -> None:
    scores = np.random.default_rng(8).normal(0.7, 0.1, (REPETITIONS, trials))
    error = 4 * math.sqrt(0.05 * 0.95 / REPETITIONS)
    assert 0.95 - error < coverage(scores, 0.7) < 0.97 + error


def test_few_different_scores_are_covered() -> None:
    """Accuracies on few images: a binomial of small mean, whose values repeat (a bootstrap-t has no width there)."""
    scores = 1.0 - np.random.default_rng(9).binomial(450, 0.004, (REPETITIONS, 10)) / 450
    assert coverage(scores, 1.0 - 0.004) > 0.945 - 2.3 * math.sqrt(0.05 * 0.95 / REPETITIONS)


# ── where it ends ───────────────────────────────────────────────────────────────────────────────────


@given(shares)
def test_shares_stay_within_0_and_1(values: list[float]) -> None:
    mean, low, high = mean_interval(values, bounds=SHARE)
    assert 0.0 <= low <= high <= 1.0
    assert low <= mean + 1e-12
    assert mean - 1e-12 <= high
    assert mean_interval(values, bounds=NON_NEGATIVE)[1] >= 0.0


@given(shares)
def test_mirrored_trials_have_the_mirrored_interval(values: list[float]) -> None:
    _, low, high = mean_interval(values, bounds=SHARE)
    _, other_low, other_high = mean_interval([1.0 - value for value in values], bounds=SHARE)
    assert other_low == pytest.approx(1.0 - high, abs=1e-9)
    assert other_high == pytest.approx(1.0 - low, abs=1e-9)


@given(st.lists(st.floats(0.0, 0.5), min_size=1, max_size=30), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_symmetric_trials_have_students_interval(deviations: list[float], confidence: float) -> None:
    values = np.array([0.5 + d for d in deviations] + [0.5 - d for d in deviations])
    if not differ(values):
        return
    mean, low, high = mean_interval(values, confidence)
    expected = stats.t.interval(confidence, values.size - 1, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose((mean, low, high), (values.mean(), *expected), rtol=1e-6, atol=1e-9)


@given(shares)
def test_it_is_never_narrower_than_students(values: list[float]) -> None:
    if not differ(values):
        return
    _, low, high = mean_interval(values)
    expected = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert low <= expected[0] + 1e-9
    assert high >= expected[1] - 1e-9


@pytest.mark.parametrize("trials", [10, 25])
def test_the_end_towards_the_tail_moves_by_the_shift(trials: int) -> None:
    """(1 + 10 / n) g (2 q^2 + 1) / (6 n) standard deviations beyond Student's; the other end is Student's."""
    values = np.random.default_rng(3).exponential(0.01, trials)
    quantile = stats.t.ppf(0.975, trials - 1)
    student = stats.t.interval(0.95, trials - 1, loc=values.mean(), scale=stats.sem(values))
    shift = (1 + 10 / trials) * stats.skew(values, bias=False) * (2 * quantile**2 + 1) / (6 * trials) * values.std(ddof=1)
    assert shift > 0
    _, low, high = mean_interval(values)
    assert low == pytest.approx(student[0])
    assert high == pytest.approx(student[1] + shift)


def test_seeds_of_a_training_have_students_interval() -> None:
    values = np.array([0.81, 0.86, 0.87])
    expected = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose(mean_interval(values, skewed=False), (values.mean(), *expected), rtol=1e-12)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_two_trials_have_students_interval(confidence: float) -> None:
    values = np.array([0.8, 0.9])
    expected = stats.t.interval(confidence, 1, loc=0.85, scale=stats.sem(values))
    np.testing.assert_allclose(mean_interval(values, confidence), (0.85, *expected), rtol=1e-12)


@given(st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=40))
def test_skewness_is_scipys(values: list[float]) -> None:
    expected = stats.skew(values, bias=False) if np.std(values) > 1e-9 else 0.0
    if np.std(values) > 1e-9:
        assert skewness(values) == pytest.approx(expected, rel=1e-6, abs=1e-6)


# ── no trial differed ───────────────────────────────────────────────────────────────────────────────


def test_one_trial_has_no_interval_and_equal_ones_have_no_width() -> None:
    mean, low, high = mean_interval([0.5])
    assert mean == 0.5
    assert math.isnan(low)
    assert math.isnan(high)
    assert mean_interval([0.1] * 7) == (0.1, 0.1, 0.1)
    assert unseen_share([0.5]) is None
    assert unseen_share([0.5, 0.4]) is None


@pytest.mark.parametrize("trials", [2, 10, 59])
def test_trials_that_agree_bound_the_share_that_differ(trials: int) -> None:
    """If a share b of trials differ from the common score, n - 1 others agree with the first with probability (1 - b)^(n - 1)."""
    bound = unseen_share([0.975] * trials)
    assert bound is not None
    assert (1 - bound) ** (trials - 1) == pytest.approx(0.05)


def test_the_bound_of_unseen_trials_holds() -> None:
    """Of the experiments that see no difference at a share just above the bound there are at most 5 %."""
    rng, trials = np.random.default_rng(4), 10
    bound = unseen_share([1.0] * trials)
    assert bound is not None
    differing = rng.random((20_000, trials)) < bound + 0.01
    agree = ~(differing.any(axis=1) & ~differing.all(axis=1))
    assert agree.mean() < 0.05


# ── bounds over dies ────────────────────────────────────────────────────────────────────────────────


def test_59_dies_are_needed_for_5_percent_at_95() -> None:
    assert low_quantile_bound(list(range(58))) is None
    assert low_quantile_bound(list(range(59))) == 0
    assert low_quantile_bound(list(range(92))) == 0
    assert low_quantile_bound(list(range(93))) == 1  # as in tables of nonparametric tolerance bounds: 59, 93, 124, 153
    assert low_quantile_bound(list(range(124))) == 2
    assert low_quantile_bound(list(range(153))) == 3
    assert low_quantile_bound([]) is None


@pytest.mark.parametrize(("share", "confidence"), [(0.05, 0.95), (0.1, 0.9), (0.5, 0.99), (0.01, 0.5)])
def test_the_bound_is_the_highest_order_statistic_that_binomials_allow(share: float, confidence: float) -> None:
    """At rank r the bound fails if fewer than r of n dies lie below the quantile: P(Bin(n, share) < r) <= 1 - confidence."""
    for n in (1, 5, 22, 59, 100, 459, 460, 700):
        allowed = [r for r in range(1, n + 1) if stats.binom.cdf(r - 1, n, share) <= 1 - confidence]
        found = low_quantile_bound(list(np.arange(n)[::-1]), share, confidence)
        assert found == (max(allowed) - 1 if allowed else None)


def test_the_bound_covers(rng: np.random.Generator) -> None:
    held = [low_quantile_bound(list(x)) <= 0.05 for x in rng.uniform(size=(2000, 59))]  # type: ignore[operator]
    exact = 1 - 0.95**59
    assert abs(np.mean(held) - exact) < 4 * math.sqrt(exact * (1 - exact) / 2000)
