"""Reads that a kernel draws and puts into the weights by itself: the same as flips drawn apart and put there one by one."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from tests.emulator.small import INT2, INT4, INT8, UINT8, RandomNetwork, pixels, small_bnn
from weakcell.emulator import ReadPolicy, compile_plan, deploy, outputs_under_faults, place
from weakcell.emulator.faults.deployment import Deployment
from weakcell.emulator.faults.kernel_reads import reader_of
from weakcell.emulator.ir.layers import SIGN1, Encoding, Network, Window
from weakcell.emulator.plan.parameters import ParameterState, new_parameters
from weakcell.emulator.plan.plan import Plan
from weakcell.emulator.plan.workspace import WorkspacePool
from weakcell.memmodels import parse_spec

RATES = ("ber=0", "ber=1e-5", "ber=0.01", "ber=0.3", "ber=1", "p01=0.2,p10=0.001", "ber=0.01,lifetime=die")


def everything(seed: int) -> Network:
    """Every encoding in every order of a kernel; dense layers of several blocks, whose rows are whole words or not."""
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


PLAN = compile_plan(everything(1))


def put_one_by_one(plan: Plan, deployment: Deployment, read: int) -> ParameterState:
    parameters = new_parameters(plan, deployment.slots)
    for part in deployment.all_slots:
        parameters.flip(part.slot.tensor, part.slot.planes, deployment.read(part, read).flips)
    return parameters


@pytest.mark.parametrize("rate", RATES)
def test_a_read_in_one_call(rate: str) -> None:
    """Read after read, also of tensors whose bits are in two memories: no flip of the read before stays; counts are the same."""
    rules = [("*@0", parse_spec("uniform:ber=0.02")), ("u32", parse_spec(f"uniform:{rate}"))]
    deployment = deploy(PLAN, place(PLAN.network, parse_spec(f"uniform:{rate}"), rules), ReadPolicy.BATCH, 3, seed=7)
    apart = deploy(PLAN, place(PLAN.network, parse_spec(f"uniform:{rate}"), rules), ReadPolicy.BATCH, 3, seed=7)
    with reader_of(PLAN, deployment, deployment.all_slots) as (parameters, read):
        for number in (0, 1, 5):
            read(number)
            expected = put_one_by_one(PLAN, apart, number)
            for name in deployment.slots:
                np.testing.assert_array_equal(parameters.values[name], expected.values[name], name)
    assert (deployment.tally.flips, deployment.tally.bits_read) == (apart.tally.flips, apart.tally.bits_read)


def test_what_a_run_leaves_serves_the_next() -> None:
    """A run that is given the parameters of a run at another rate, or of the same one again, makes the outputs of a fresh plan."""
    network = small_bnn(2)
    kept, x = compile_plan(network), pixels(network, 23)
    for trial, rate in enumerate((0.3, 0.0, 1e-3, 0.3)):
        fresh = compile_plan(network)
        placement = place(network, parse_spec(f"uniform:ber={rate}"))
        made = [
            outputs_under_faults(plan, x, deploy(plan, placement, ReadPolicy.BATCH, trial), 7)[network.outputs[0]]
            for plan in (kept, fresh)
        ]
        np.testing.assert_array_equal(*made)


def test_runs_at_a_time_have_rooms_of_their_own() -> None:
    plan = compile_plan(small_bnn(2))
    deployment = deploy(plan, place(plan.network, parse_spec("uniform:ber=0.1")), ReadPolicy.BATCH)
    slots = deployment.all_slots
    with reader_of(plan, deployment, slots) as (first, one), reader_of(plan, deployment, slots) as (second, other):
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
