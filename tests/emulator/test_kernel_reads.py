"""Reads inside a kernel. Oracle: the same flips, drawn by the memory and applied one by one."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from tests.emulator.small import INT2, INT4, INT8, UINT8, RandomNetwork, pixels, small_bnn
from weakcell.emulator import ReadPolicy, compile_plan, deploy, outputs_under_faults, place
from weakcell.emulator.faults.deployment import Deployment
from weakcell.emulator.faults.kernel_reads import open_reader
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import SIGN1, Encoding, Window
from weakcell.emulator.plan.parameters import ParameterState, new_parameters
from weakcell.emulator.plan.plan import Plan
from weakcell.emulator.plan.workspace import WorkspacePool
from weakcell.memmodels import parse_spec

RATES = ("ber=0", "ber=1e-5", "ber=0.01", "ber=0.3", "ber=1", "p01=0.2,p10=0.001", "ber=0.01,lifetime=die")


def network_of_every_layout(seed: int) -> Network:
    """Return a network with every encoding in every weight layout, and dense ±1 layers with rows of whole words and others."""
    d = RandomNetwork(np.random.default_rng(seed))
    x = d.input("x", (3, 5, 4), "int8")
    y = d.threshold(d.convolution(x, 66, Window((2, 2)), SIGN1, bias=True))
    d.convolution(y, 35, Window((2, 3)), SIGN1)
    d.convolution(y, 66, Window((1, 1)), SIGN1, groups=2)
    for encoding in (INT2, INT4, INT8, UINT8, Encoding("signed", 16)):
        d.convolution(x, 33, Window((2, 1)), encoding, bias=True)
        d.convolution(x, 6, Window((2, 1)), encoding, groups=3)
    for inputs, outputs in ((2048, 70), (2100, 65), (75, 7), (64, 32), (1, 3)):
        d.dense(d.threshold(d.input(f"v{inputs}", (inputs,), "int8")), outputs, SIGN1)
    d.store("u32", "bias", Encoding("unsigned", 32), d.rng.integers(0, 2**31, 41))
    return d.network(y)


PLAN = compile_plan(network_of_every_layout(1))


def flip_one_by_one(plan: Plan, deployment: Deployment, read: int) -> ParameterState:
    parameters = new_parameters(plan, deployment.slots)
    for stored in deployment.all_slots:
        parameters.flip(stored.slot.tensor, stored.slot.planes, deployment.read(stored, read).flips)
    return parameters


@pytest.mark.parametrize("rate", RATES)
def test_a_read_in_one_call(rate: str) -> None:
    """No flip of an earlier read stays, also where a tensor's bits are in two memories; the counts agree."""
    rules = [("*@0", parse_spec("uniform:ber=0.02")), ("u32", parse_spec(f"uniform:{rate}"))]
    deployment = deploy(PLAN, place(PLAN.network, parse_spec(f"uniform:{rate}"), rules), ReadPolicy.BATCH, trial=3, seed=7)
    reference = deploy(PLAN, place(PLAN.network, parse_spec(f"uniform:{rate}"), rules), ReadPolicy.BATCH, trial=3, seed=7)
    with open_reader(PLAN, deployment, deployment.all_slots) as (parameters, read):
        for number in (0, 1, 5):
            read(number)
            expected = flip_one_by_one(PLAN, reference, number)
            for name in deployment.slots:
                np.testing.assert_array_equal(parameters.values[name], expected.values[name], name)
    assert (deployment.tally.flips, deployment.tally.bits_read) == (reference.tally.flips, reference.tally.bits_read)


def test_runs_reuse_buffers_of_earlier_runs() -> None:
    """A run with the buffers of a run at another rate has the outputs of a fresh plan."""
    network = small_bnn(2)
    reused, x = compile_plan(network), pixels(network, 23)
    for trial, rate in enumerate((0.3, 0.0, 1e-3, 0.3)):
        fresh = compile_plan(network)
        placement = place(network, parse_spec(f"uniform:ber={rate}"))
        outputs = [
            outputs_under_faults(plan, x, deploy(plan, placement, ReadPolicy.BATCH, trial=trial), 7)[network.outputs[0]]
            for plan in (reused, fresh)
        ]
        np.testing.assert_array_equal(*outputs)


def test_simultaneous_runs_have_separate_buffers() -> None:
    plan = compile_plan(small_bnn(2))
    deployment = deploy(plan, place(plan.network, parse_spec("uniform:ber=0.1")), ReadPolicy.BATCH)
    slots = deployment.all_slots
    with open_reader(plan, deployment, slots) as (first, one), open_reader(plan, deployment, slots) as (second, other):
        one(0)
        before = {name: first.values[name].copy() for name in deployment.slots}
        other(1)
        assert all(first.values[name] is not second.values[name] for name in deployment.slots)
        assert all(np.array_equal(first.values[name], x) for name, x in before.items())


def test_spare_things_do_not_travel() -> None:
    """Tables hold addresses, which mean nothing in another process."""
    pool, things = WorkspacePool(), iter("ab")
    assert pool.acquire(1, lambda: next(things)) == "a"
    pool.release(1, "a")
    assert pickle.loads(pickle.dumps(pool)).acquire(1, lambda: next(things)) == "b"
    assert pool.acquire(1, lambda: next(things)) == "a"
