"""Sampled outputs have the distribution of outputs under faulty weights, in every layer where that is claimed, and nowhere else.

Oracles: weights with sampled bit flips (chi-squared tests), and the closed form of the binomial distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tests.emulator.small import RandomNetwork, pixels, small_bnn
from tests.memmodels.memories import simulated
from weakcell.emulator import ReadPolicy, compile_plan, deploy, outputs_under_faults, place
from weakcell.emulator.evaluation.trials import prepare_evaluation, run_trial
from weakcell.emulator.faults.deployment import Deployment, Sampling
from weakcell.emulator.faults.output_sampling import (
    MismatchDistribution,
    binomial_distributions,
    mismatch_distributions,
    split_rates,
    tensors_sampled_at_output,
)
from weakcell.emulator.ir.layers import Convolution
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import SIGN1, Window
from weakcell.emulator.kernels.arguments import GUIDE_BITS
from weakcell.emulator.plan.plan import Plan
from weakcell.memmodels import ErrorTerm, Lifetime, parse_spec

ALPHA = 1e-6
REPEATS = 3000
SPECS = ("ber=0.05", "ber=0.4", "ber=0.85", "p01=0.2,p10=0.03", "p01=0.02,p10=0.6", "p01=0,p10=0.1", "p01=0.9,p10=0.3")


def dense(seed: int) -> Network:
    """Return a dense layer of 75 signs and 7 sums."""
    d = RandomNetwork(np.random.default_rng(seed))
    return d.network(d.dequantize(d.dense(d.threshold(d.input("x", (75,), "int8"), 90), 7, SIGN1)))


def padded(seed: int) -> Network:
    """Return a convolution of a 9 x 3 x 4 image with a border on three sides: 2 x 2 pixels of 3 sums."""
    d = RandomNetwork(np.random.default_rng(seed))
    x = d.threshold(d.input("x", (9, 3, 4), "int8"), 90)
    return d.network(d.dequantize(d.convolution(x, 3, Window((3, 3), (2, 2), pads=(1, 1, 1, 0)), SIGN1)))


def repeated(network: Network, seed: int) -> dict[str, np.ndarray]:
    """Return one image many times; every repetition is a separate read."""
    return {name: np.repeat(x, REPEATS, axis=0) for name, x in pixels(network, 1, seed).items()}


def scores(network: Network, inputs: dict[str, np.ndarray], spec: str, policy: ReadPolicy, sampling: Sampling) -> np.ndarray:
    plan = compile_plan(network)
    deployment = deploy(plan, place(network, parse_spec(f"uniform:{spec}")), policy, seed=8, sampling=sampling)
    assert bool(tensors_sampled_at_output(deployment)) == (sampling is Sampling.OUTPUTS)
    return outputs_under_faults(plan, inputs, deployment)[network.outputs[0]].reshape(REPEATS, -1)


def same_distribution(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the p-value of a chi-squared test that two samples have one distribution; rare values are merged."""
    values, codes = np.unique([*a, *b], return_inverse=True)
    table = np.array([np.bincount(codes[: len(a)], minlength=values.size), np.bincount(codes[len(a) :], minlength=values.size)])
    rare = table.sum(axis=0) < 20
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    return 1.0 if table.shape[1] < 2 else float(stats.chi2_contingency(table).pvalue)


# --- the distribution ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(("make", "policy"), [(dense, ReadPolicy.IMAGE), (dense, ReadPolicy.ACCESS), (padded, ReadPolicy.ACCESS)])
def test_outputs_have_the_distribution_of_faulty_bits(make: object, policy: ReadPolicy, spec: str) -> None:
    """Compare every output's histogram over 3000 reads, sampled both ways, at ALPHA over all outputs."""
    network = make(5)  # type: ignore[operator]
    inputs = repeated(network, 6)
    bits, outputs = (scores(network, inputs, spec, policy, sampling) for sampling in Sampling)
    p_values = [same_distribution(bits[:, i], outputs[:, i]) for i in range(bits.shape[1])]
    assert min(p_values) > ALPHA / len(p_values)


@pytest.mark.parametrize("spec", SPECS)
def test_outputs_of_one_read_are_independent(spec: str) -> None:
    """Neighbouring outputs, and neighbouring reads of one output, do not correlate."""
    network = dense(1)
    outputs = scores(network, repeated(network, 2), spec, ReadPolicy.IMAGE, Sampling.OUTPUTS)
    z = (outputs - outputs.mean(axis=0)) / outputs.std(axis=0)
    pairs = [float((z[:, i] * z[:, j]).sum()) for i in range(z.shape[1]) for j in range(i)]
    pairs += [float((z[1:, i] * z[:-1, i]).sum()) for i in range(z.shape[1])]
    assert 2 * stats.norm.sf(np.abs(pairs).max() / np.sqrt(REPEATS)) > ALPHA / len(pairs)


@pytest.mark.parametrize("p", [0.0, 1e-5, 0.01, 0.3, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("bits", [1, 9, 3136])
def test_distributions_are_differences_of_binomials(bits: int, p: float) -> None:
    """Compare mean and variance of every row with the closed form, and the guide with a search."""
    low, high = max(0, bits // 2 - 20), min(bits, bits // 2 + 20)
    d = np.arange(low, high + 1)
    for law, mean, n in (
        (mismatch_distributions(bits, low, high, p), (bits - 2 * d) * p, bits),
        (binomial_distributions(low, high, p), d * p, d),
    ):
        chances = np.diff(law.cumulative.astype(np.float64) / 2.0**64, axis=1, prepend=0.0)
        chances[:, -1] += 1.0 - law.cumulative[:, -1].astype(np.float64) / 2.0**64
        values = law.low[:, None] + np.arange(chances.shape[1])
        means = (chances * values).sum(axis=1)
        assert means == pytest.approx(mean, abs=1e-8)
        assert (chances * (values - means[:, None]) ** 2).sum(axis=1) == pytest.approx(
            np.broadcast_to(n * p * (1 - p), d.shape), abs=1e-6
        )
        check_guide(law)


def check_guide(law: MismatchDistribution) -> None:
    words = np.random.default_rng(0).integers(0, 1 << 64, 50, dtype=np.uint64)
    for row, guide in zip(law.cumulative, law.guide, strict=True):
        last = row.size - 1
        assert (
            guide[(words >> np.uint64(64 - GUIDE_BITS)).astype(int)] <= np.minimum(np.searchsorted(row, words, side="right"), last)
        ).all()


@pytest.mark.parametrize(
    "rates", [(0.1, 0.3), (0.3, 0.1), (0.01, 0.9), (0.5, 0.2), (1.0, 0.0), (0.7, 0.8), (0.5, 0.5), (0.0, 1e-6)]
)
def test_two_error_steps_compose_to_two_rates(rates: tuple[float, float]) -> None:
    common, extra = split_rates(rates)
    assert 0 <= extra <= 1
    assert sorted(rates) == pytest.approx(sorted([common, common + extra - 2 * common * extra]), abs=1e-15)


def test_a_die_below_a_read() -> None:
    """Errors of the die are the same at every read; read errors are added to them."""
    network, terms = dense(3), (ErrorTerm("d", Lifetime.DIE, 0.3, 0.05), ErrorTerm("r", Lifetime.READ, 0.02, 0.1))
    plan, inputs = compile_plan(network), repeated(network, 4)
    placement, drawn = place(network, parse_spec("uniform")), []
    for sampling in Sampling:
        memories = [simulated(*terms, seed=3)]
        deployment = deploy(plan, placement, ReadPolicy.IMAGE, memories=memories, sampling=sampling)
        drawn.append(outputs_under_faults(plan, inputs, deployment)[network.outputs[0]])
    p_values = [same_distribution(drawn[0][:, i], drawn[1][:, i]) for i in range(drawn[0].shape[1])]
    assert min(p_values) > ALPHA / len(p_values)


def test_mean_changed_predictions_are_equal() -> None:
    """Compare the share of changed predictions over 40 trials of 60 images, on a network with layers of both kinds."""
    network = small_bnn(2)
    plan = compile_plan(network)
    questions, placement = prepare_evaluation(plan, pixels(network, 60, 3)), place(network, parse_spec("uniform:p01=0.03,p10=0.08"))
    changed = {
        sampling: [
            run_trial(plan, placement, questions, ReadPolicy.IMAGE, trial=trial, sampling=sampling).changed for trial in range(40)
        ]
        for sampling in Sampling
    }
    assert np.mean(changed[Sampling.BITS]) > 0.05
    assert stats.ttest_ind(*changed.values()).pvalue > ALPHA


@pytest.mark.parametrize("policy", [ReadPolicy.IMAGE, ReadPolicy.ACCESS])
@pytest.mark.parametrize("spec", ["ber=0.1", "ber=0.8", "p01=0.1,p10=0.01"])
def test_signs_are_those_of_the_sampled_sums(policy: ReadPolicy, spec: str) -> None:
    """If no output shows the sums, only their signs are sampled. They equal the signs of shown sums."""
    network = small_bnn(3)
    shown = replace(network, outputs=(*network.outputs, *(x.output for x in network.layers if isinstance(x, Convolution))))
    made = []
    for variant in (network, shown):
        plan, placement = compile_plan(variant), place(variant, parse_spec(f"uniform:{spec}"))
        deployment = deploy(plan, placement, policy, sampling=Sampling.OUTPUTS)
        made.append(outputs_under_faults(plan, pixels(variant, 30), deployment)[network.outputs[0]])
    assert np.array_equal(*made)


@pytest.mark.parametrize("known", [(0, 75), (37, 38), (0, 0)])
def test_unexpected_mismatches_are_sampled_too(known: tuple[int, int]) -> None:
    """Outputs do not depend on the range of fault-free mismatches that an earlier run left."""
    network = small_bnn(4)
    placement, made = place(network, parse_spec("uniform:ber=0.1")), []
    for left in (None, known):
        plan = compile_plan(network)
        for layer in network.layers:
            if left is not None:
                plan.workspaces.release(("mismatches", layer.output), left)
        deployment = deploy(plan, placement, ReadPolicy.IMAGE, sampling=Sampling.OUTPUTS)
        made.append(outputs_under_faults(plan, pixels(network, 30), deployment)[network.outputs[0]])
    assert np.array_equal(*made)


# --- where it applies, and what is reported -----------------------------------------------------------------------------------


def deployed(policy: ReadPolicy, sampling: Sampling = Sampling.OUTPUTS, spec: str = "uniform:ber=0.1") -> Deployment:
    network = small_bnn(0)
    return deploy(compile_plan(network), place(network, parse_spec(spec)), policy, sampling=sampling)


@pytest.mark.parametrize(
    ("policy", "spec", "layers"),
    [
        (ReadPolicy.LOAD, "uniform:ber=0.1", 0),
        (ReadPolicy.BATCH, "uniform:ber=0.1", 0),
        (ReadPolicy.IMAGE, "uniform:ber=0.1", 2),
        (ReadPolicy.ACCESS, "uniform:ber=0.1", 3),
        (ReadPolicy.IMAGE, "uniform:ber=0.1,lifetime=die", 0),
        (ReadPolicy.IMAGE, "eden:p=0.01,f=0.5", 0),
        (ReadPolicy.IMAGE, "secded+uniform:ber=0.1", 0),
    ],
)
def test_only_where_the_distribution_is_exact(policy: ReadPolicy, spec: str, layers: int) -> None:
    """Dense ±1 layers; under `access` also convolutions. Never for die errors, weak cells, wrappers or longer read intervals."""
    assert len(tensors_sampled_at_output(deployed(policy, spec=spec))) == layers
    assert tensors_sampled_at_output(deployed(policy, Sampling.BITS, spec)) == ()


def test_flips_are_unknown_for_sampled_layers() -> None:
    network = small_bnn(0)
    plan = compile_plan(network)
    questions, placement = prepare_evaluation(plan, pixels(network, 8)), place(network, parse_spec("uniform:ber=0.1"))
    drawn = run_trial(plan, placement, questions, ReadPolicy.IMAGE, sampling=Sampling.OUTPUTS)
    usual = run_trial(plan, placement, questions, ReadPolicy.IMAGE)
    assert len(drawn.by_outputs) == 2
    assert not set(drawn.by_outputs) & set(drawn.flips)
    assert (drawn.all_flips, drawn.flip_rate) == (None, None)
    assert usual.by_outputs == ()
    assert usual.all_flips == sum(usual.flips.values()) > 0
    assert drawn.bits_read == usual.bits_read


@pytest.mark.parametrize("policy", [ReadPolicy.IMAGE, ReadPolicy.ACCESS])
@pytest.mark.parametrize("spec", ["uniform:ber=0.1", "uniform:p01=0.1,p10=0.01"])
def test_samples_do_not_depend_on_chunks(policy: ReadPolicy, spec: str) -> None:
    """Neither chunks nor other images change an image's outputs; another trial does."""
    network = small_bnn(0)
    plan, placement, x = compile_plan(network), place(network, parse_spec(spec)), pixels(network, 21)

    def run(inputs: dict[str, np.ndarray], trial: int = 0, plan: Plan = plan) -> np.ndarray:
        deployment = deploy(plan, placement, policy, trial=trial, sampling=Sampling.OUTPUTS)
        return outputs_under_faults(plan, inputs, deployment)[network.outputs[0]]

    whole = run(x)
    assert np.array_equal(run(x, plan=compile_plan(network, chunk_bytes=1)), whole)
    assert np.array_equal(run({name: images[:9] for name, images in x.items()}), whole[:9])
    assert not np.array_equal(run(x, trial=1), whole)
