"""What a trial reports. Oracle: recorded faults replayed by the plain NumPy network, scored by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.emulator.small import pixels, small_bnn
from weakcell.emulator import ReadPolicy, compile_plan, place, prepare_evaluation, run_trial
from weakcell.memmodels.address import popcount
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.errors import InputError

NETWORK = small_bnn()
PLAN = compile_plan(NETWORK)


# --- trials ------------------------------------------------------------------------------------------------------------------


def test_prepare_evaluation() -> None:
    x = pixels(NETWORK, 6)
    blind = prepare_evaluation(PLAN, x)
    assert (blind.images, blind.labels, blind.fault_free_accuracy) == (6, None, None)
    assert prepare_evaluation(PLAN, x, blind.fault_free_answers).fault_free_accuracy == 1.0
    assert prepare_evaluation(PLAN, x, (blind.fault_free_answers + 1) % 4).fault_free_accuracy == 0.0


@pytest.mark.parametrize("labels", [np.zeros(5, int), np.zeros(7, int), np.zeros((6, 4), int), np.zeros((), int)])
def test_labels_that_do_not_match_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(InputError, match="6 images") as error:
        prepare_evaluation(PLAN, pixels(NETWORK, 6), labels)
    assert "\n" not in str(error.value)


def test_a_trial_is_scored_as_by_hand() -> None:
    x = pixels(NETWORK, 40)
    labels = np.arange(40) % 3  # class 3 is an answer, never a label
    questions = prepare_evaluation(PLAN, x, labels)
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


def test_a_trial_without_labels_reports_changed_answers() -> None:
    questions = prepare_evaluation(PLAN, pixels(NETWORK, 40))
    clean = run_trial(PLAN, place(NETWORK, parse_spec("uniform:ber=0")), questions)
    assert (clean.accuracy, clean.changed, clean.class_accuracy, clean.flip_rate) == (None, 0.0, (), 0.0)
    assert run_trial(PLAN, place(NETWORK, parse_spec("uniform:ber=0.4")), questions).changed > 0.1


def test_seed_die_and_number_determine_a_trial() -> None:
    questions, placement = prepare_evaluation(PLAN, pixels(NETWORK, 10)), place(NETWORK, parse_spec("uniform:ber=0.1"))

    def faults(**which: int) -> list[bytes]:
        return [f.flips.tobytes() for f in run_trial(PLAN, placement, questions, ReadPolicy.IMAGE, record=True, **which).faults]

    first = faults(trial=1, seed=2, die=3)
    assert first == faults(trial=1, seed=2, die=3)
    for other in (dict(trial=0, seed=2, die=3), dict(trial=1, seed=0, die=3), dict(trial=1, seed=2, die=0)):  # noqa: C408
        assert faults(**other) != first
