"""Runs that start at the first layer that errs. Oracle: runs without a cache."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from weakcell.emulator.engine.executor import check_inputs, infer
from weakcell.emulator.engine.fault_free_cache import FaultFreeCache
from weakcell.emulator.evaluation.trials import run_trial
from weakcell.emulator.faults.deployment import ReadPolicy
from weakcell.emulator.faults.placement import place
from weakcell.host.study.workload import Workload, open_workload
from weakcell.memmodels.catalogue import parse_spec


@pytest.fixture(scope="module", params=["digits-bnn", "digits-qnn"])
def workload(request: pytest.FixtureRequest) -> Workload:
    return open_workload(request.param, images=24)


SAFE = parse_spec("uniform:ber=0")


@pytest.mark.parametrize("policy", ReadPolicy)
@pytest.mark.parametrize("spec", ["uniform:ber=0", "uniform:ber=3e-5", "uniform:ber=0.01", "sram-14nm:v_over_vmin=0.94"])
@pytest.mark.parametrize("safe", ["", "*conv*"])
def test_the_cache_changes_no_result(workload: Workload, policy: ReadPolicy, spec: str, safe: str) -> None:
    placement = place(workload.network, parse_spec(spec), [(safe, SAFE)] if safe else [])
    whole = replace(workload.questions, fault_free_cache=None)
    for trial in range(4):
        options = {"trial": trial, "batch": 7, "record": trial == 3}
        without, with_cache = (
            run_trial(workload.plan, placement, asked, policy, **options) for asked in (whole, workload.questions)
        )
        assert without.accuracy == with_cache.accuracy
        assert (without.changed, without.flips, without.bits_read) == (with_cache.changed, with_cache.flips, with_cache.bits_read)


def test_the_budget_changes_no_result(workload: Workload) -> None:
    inputs = check_inputs(workload.plan, workload.questions.inputs)
    placement, starts = place(workload.network, parse_spec("uniform:ber=3e-5")), []
    for budget in (0, 4000, 30_000, 1 << 28):
        cache = FaultFreeCache(workload.plan, inputs, budget)
        asked = replace(workload.questions, fault_free_cache=cache)
        flips = [run_trial(workload.plan, placement, asked, ReadPolicy.BATCH, trial=t, batch=5).changed for t in range(8)]
        starts.append([cache.latest_start(layer).layer for layer in range(len(cache.layers) + 1)])
        kept = cache.latest_start(len(cache.layers))
        assert flips == pytest.approx(
            [run_trial(workload.plan, placement, workload.questions, ReadPolicy.BATCH, trial=t, batch=5).changed for t in range(8)]
        )
        assert sum(x.nbytes for name, x in kept.values.items() if name not in inputs) <= budget
    assert set(starts[0]) == {0}
    assert starts[-1] == list(range(len(starts[-1])))
    assert starts[1] != starts[-1]


def test_outputs_are_cached_too(workload: Workload) -> None:
    cache = workload.questions.fault_free_cache
    assert cache is not None
    end = cache.latest_start(len(cache.layers))
    (name,) = workload.network.outputs
    clean = infer(workload.plan, workload.questions.inputs)[name]
    assert np.array_equal(end.values[name].reshape(clean.shape), clean)


def test_pickling_drops_the_values(workload: Workload) -> None:
    cache = workload.questions.fault_free_cache
    assert cache is not None
    cache.latest_start(2)
    again = pickle.loads(pickle.dumps(cache))
    assert again._starts is None
    assert len(pickle.dumps(cache)) < len(pickle.dumps(workload.plan)) + 2 * sum(x.nbytes for x in cache.inputs.values())
    for name, x in cache.latest_start(2).values.items():
        assert np.array_equal(again.latest_start(2).values[name], x)


def test_too_little_memory_for_the_cache_changes_no_result(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: FaultFreeCache) -> None:
        raise MemoryError

    inputs, placement = (
        check_inputs(workload.plan, workload.questions.inputs),
        place(workload.network, parse_spec("uniform:ber=3e-5")),
    )
    expected = run_trial(workload.plan, placement, workload.questions, ReadPolicy.BATCH)
    monkeypatch.setattr(FaultFreeCache, "_compute_starts", fail)
    asked = replace(workload.questions, fault_free_cache=FaultFreeCache(workload.plan, inputs))
    found = run_trial(workload.plan, placement, asked, ReadPolicy.BATCH)
    assert (found.accuracy, found.changed, found.flips) == (expected.accuracy, expected.changed, expected.flips)
