"""Intervals over trials, bounds over dies, and what a trial reports."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from emulator import ReadPolicy, compile_plan, low_quantile_bound, place, pose, run_trial, t_interval
from memmodels.address import popcount
from memmodels.catalogue import parse_spec
from memmodels.errors import InputError
from tests.emulator.small import pixels, small_bnn

NETWORK = small_bnn()
PLAN = compile_plan(NETWORK)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("trials", [2, 3, 10, 100])
def test_the_t_interval_is_students(trials: int, confidence: float, rng: np.random.Generator) -> None:
    values = rng.normal(0.8, 0.05, trials)
    mean, low, high = t_interval(list(values), confidence)
    expected = stats.t.interval(confidence, trials - 1, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose((mean, low, high), (values.mean(), *expected), rtol=1e-12)


def test_one_trial_has_no_interval_and_equal_ones_have_none_to_speak_of() -> None:
    mean, low, high = t_interval([0.5])
    assert mean == 0.5
    assert math.isnan(low)
    assert math.isnan(high)
    assert t_interval([0.25] * 5) == (0.25, 0.25, 0.25)


def test_the_t_interval_covers(rng: np.random.Generator) -> None:
    """95 % of the intervals of six trials hold the mean; 2,000 of them leave a standard error of 0.5 %."""
    held = [low <= 0.7 <= high for _, low, high in (t_interval(list(x)) for x in rng.normal(0.7, 0.1, (2000, 6)))]
    assert abs(np.mean(held) - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)


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


# --- trials ------------------------------------------------------------------------------------------------------------------


def test_questions() -> None:
    x = pixels(NETWORK, 6)
    blind = pose(PLAN, x)
    assert (blind.images, blind.labels, blind.clean_accuracy) == (6, None, None)
    assert pose(PLAN, x, blind.clean).clean_accuracy == 1.0
    assert pose(PLAN, x, (blind.clean + 1) % 4).clean_accuracy == 0.0


@pytest.mark.parametrize("labels", [np.zeros(5, int), np.zeros(7, int), np.zeros((6, 4), int), np.zeros((), int)])
def test_labels_that_do_not_match_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(InputError, match="6 images") as error:
        pose(PLAN, pixels(NETWORK, 6), labels)
    assert "\n" not in str(error.value)


def test_a_trial_is_judged_by_hand() -> None:
    x = pixels(NETWORK, 40)
    labels = np.arange(40) % 3  # class 3 is an answer, never a label
    questions = pose(PLAN, x, labels)
    result = run_trial(
        PLAN, place(NETWORK, parse_spec("uniform:ber=0.2")), questions, ReadPolicy.BATCH, trial=3, batch=16, record=True
    )
    assert (result.trial, result.die, result.images) == (3, 3, 40)
    assert result.bits_read == {t.name: 3 * t.bits for t in NETWORK.weights}
    assert sum(result.flips.values()) == sum(popcount(fault.flips) for fault in result.faults)
    assert result.flip_rate == sum(result.flips.values()) / (3 * NETWORK.weight_bits)
    assert {fault.read for fault in result.faults} == {0, 1, 2}
    assert result.accuracy is not None
    assert len(result.class_accuracy) == 3
    counts = np.bincount(labels)
    assert result.accuracy == pytest.approx(np.dot(result.class_accuracy, counts) / 40)
    assert 0 < result.changed < 1
    gap = replace(questions, labels=np.where(labels == 1, 2, labels))
    accuracies = run_trial(PLAN, place(NETWORK, parse_spec("uniform:ber=0")), gap).class_accuracy
    assert math.isnan(accuracies[1])
    assert not math.isnan(accuracies[2])


def test_a_trial_without_labels_tells_what_changed() -> None:
    questions = pose(PLAN, pixels(NETWORK, 40))
    clean = run_trial(PLAN, place(NETWORK, parse_spec("uniform:ber=0")), questions)
    assert (clean.accuracy, clean.changed, clean.class_accuracy, clean.flip_rate) == (None, 0.0, (), 0.0)
    assert run_trial(PLAN, place(NETWORK, parse_spec("uniform:ber=0.4")), questions).changed > 0.1


def test_a_trial_is_its_seed_die_and_number() -> None:
    questions, placement = pose(PLAN, pixels(NETWORK, 10)), place(NETWORK, parse_spec("uniform:ber=0.1"))

    def faults(**which: int) -> list[bytes]:
        return [f.flips.tobytes() for f in run_trial(PLAN, placement, questions, ReadPolicy.IMAGE, record=True, **which).faults]

    first = faults(trial=1, seed=2, die=3)
    assert first == faults(trial=1, seed=2, die=3)
    for other in (dict(trial=0, seed=2, die=3), dict(trial=1, seed=0, die=3), dict(trial=1, seed=2, die=0)):  # noqa: C408
        assert faults(**other) != first
