"""Prediction without faults: laws against enumeration, probabilities against closed forms, whole networks against trials."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from emulator import compile_plan, infer, load, place, pose, run_trial
from emulator.deployment import ReadPolicy
from emulator.network import SIGN1, Encoding, StoredTensor, Window
from emulator.prediction import predict
from emulator.prediction.bit_rates import BitRates, bit_rates, marginal_rates
from emulator.prediction.kernels import cumulative_table, draw_sums, normal_table, win_probability
from emulator.prediction.sum_law import CleanSums, sum_law
from emulator.storage import codes_of, values_of
from memmodels.catalogue import parse_spec
from memmodels.errors import UsageError
from memmodels.streams import stream_of
from tests.emulator.small import INT2, INT4, Draft, pixels, small_bnn, small_qnn

SHIPPED = Path(__file__).resolve().parents[2] / "host" / "shipped"
SETTINGS = settings(max_examples=25, deadline=None)
SAFE = parse_spec("uniform:ber=0")


# --- rates ---------------------------------------------------------------------------------------------------------------------


def test_rates_of_planes_and_places() -> None:
    network = small_qnn()
    first, second = network.weights[:2]
    rules = [(f"{first.name}@1-2", parse_spec("uniform:p01=0.1,p10=0.3")), (second.name, SAFE)]
    found = bit_rates(network, place(network, parse_spec("uniform:ber=0.02,lifetime=die"), rules))
    assert found[first.name].p01[:4].tolist() == [0.02, 0.1, 0.1, 0.02]
    assert found[first.name].p10[:4].tolist() == [0.02, 0.3, 0.3, 0.02]
    assert second.name not in found
    assert not found[first.name].symmetric


def test_terms_in_sequence_and_their_shares() -> None:
    assert marginal_rates(parse_spec("eden:p=0.2,f=0.25")) == pytest.approx((0.05, 0.05), rel=1e-6)
    write, hold = 0.03, 0.01
    sequence = marginal_rates(parse_spec(f"uniform:ber={write + hold - 2 * write * hold}"))
    assert sequence[0] == pytest.approx(write * (1 - hold) + (1 - write) * hold)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("secded+uniform:ber=0.01", "whole words"),
        ("sram-28nm-vc707:vdd=0.54", "fail in groups"),
        ("rram-mlc:bits_per_cell=2", "multi-level cell"),
    ],
)
def test_cells_that_err_together_are_refused(spec: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        marginal_rates(parse_spec(spec))


# --- the law of one sum --------------------------------------------------------------------------------------------------------


def enumerated(tensor: StoredTensor, rates: BitRates, x: np.ndarray, bias: int) -> tuple[float, float]:
    """Mean and variance of output 0's sum over all patterns of flipped bits, each with its probability."""
    codes, bits = codes_of(tensor.values, tensor.encoding)[: x.size], tensor.encoding.bits
    zero = int(np.asarray(tensor.zero_point).reshape(-1)[0])
    first = second = total = 0.0
    for pattern in itertools.product((0, 1), repeat=x.size * bits):
        flips = np.array(pattern).reshape(x.size, bits)
        stored = (codes[:, None].astype(np.int64) >> np.arange(bits)) & 1
        p = np.where(stored == 1, rates.p10, rates.p01)
        chance = float(np.where(flips == 1, p, 1 - p).prod())
        read = codes ^ (flips << np.arange(bits)).sum(1).astype(np.uint64)
        value = float((values_of(read, tensor.encoding) - zero) @ x) + bias
        first, second, total = first + chance * value, second + chance * value**2, total + chance
    assert total == pytest.approx(1)
    return first, second - first**2


@SETTINGS
@given(
    st.sampled_from([(SIGN1, 6), (INT2, 4), (INT4, 2), (Encoding("unsigned", 2), 4)]),
    st.sampled_from(["symmetric", "asymmetric", "planes", "one plane"]),
    st.integers(0, 1 << 20),
)
def test_mean_and_variance_are_those_of_all_patterns(shape: tuple[Encoding, int], kind: str, seed: int) -> None:
    encoding, inputs = shape
    rng = np.random.default_rng(seed)
    values = rng.choice([-1, 1], (1, inputs, 1, 1)) if encoding == SIGN1 else rng.integers(
        encoding.low, encoding.high + 1, (1, inputs, 1, 1)
    )  # fmt: skip
    zero = 0 if encoding == SIGN1 else int(rng.integers(0, 3))
    tensor = StoredTensor("w", "weight", encoding, values.astype(np.int32), zero_point=np.array(zero, np.int32))
    p, q = rng.uniform(0, 0.5, encoding.bits), rng.uniform(0, 0.5, encoding.bits)
    rates = {
        "symmetric": BitRates(np.full(encoding.bits, p[0]), np.full(encoding.bits, p[0])),
        "asymmetric": BitRates(np.full(encoding.bits, p[0]), np.full(encoding.bits, q[0])),
        "planes": BitRates(p, q),
        "one plane": BitRates(p * (np.arange(encoding.bits) == 0), p * (np.arange(encoding.bits) == 0)),
    }[kind]
    x, bias = rng.integers(-5, 9, inputs), int(rng.integers(-20, 20))
    clean = int((tensor.values.reshape(-1) - zero) @ x) + bias
    rows = x[None].astype(np.float32)
    sums = CleanSums(
        np.array([[clean]], np.int32), rows.sum(1), (rows**2).sum(1), lambda: rows, False
    )  # fmt: skip
    law = sum_law(tensor, np.array([bias]), rates)
    extra = law.extra_mean(sums)
    mean = law.slope * clean + law.shift[0] + law.tilt[0] * sums.total[0] + (0 if extra is None else extra[0, 0])
    wanted = enumerated(tensor, rates, x, bias)
    assert mean == pytest.approx(wanted[0], abs=1e-3)
    assert float(law.variance(sums)[0, 0]) == pytest.approx(wanted[1], rel=1e-4, abs=1e-3)


@pytest.mark.parametrize(("p", "worst"), [(0.002, 0.04), (0.02, 0.012), (0.2, 0.006)])
def test_drawn_sums_of_signs_have_the_law_of_two_binomials(p: float, worst: float) -> None:
    inputs, h, draws = 600, 40, 200_000
    clean = np.full((draws, 1), h, np.int32)
    out = np.empty_like(clean)
    deviation = np.full((1, 1), np.sqrt(max(4 * p * (1 - p) * inputs - 4 / 12, 0)), np.float32)
    zero = np.zeros(1, np.float32)
    draw_sums(
        clean, np.float32(1 - 2 * p), zero, zero, np.zeros(draws, np.float32), np.empty((0, 0), np.float32), deviation,
        np.float32(2), normal_table(), stream_of(1), 0, out,
    )  # fmt: skip
    right = (inputs + h) // 2
    lost, won = binom.pmf(np.arange(right + 1), right, p), binom.pmf(np.arange(inputs - right + 1), inputs - right, p)
    steps = np.arange(-right, inputs - right + 1)
    law = np.cumsum(np.convolve(lost[::-1], won))
    drawn = np.searchsorted(np.sort((out[:, 0] - h) // 2), steps, side="right") / draws
    assert np.abs(drawn - law).max() < worst
    assert (out % 2 == h % 2).all()


# --- who wins ------------------------------------------------------------------------------------------------------------------


def winner_by_enumeration(mean: np.ndarray, deviation: np.ndarray, low: float, high: float, target: int) -> float:
    """P(target is the answer) over all codes of all classes."""
    codes = np.arange(low, high + 1)
    pmf = []
    for m, s in zip(mean, deviation, strict=True):
        edges = norm.cdf((codes[:-1] + 0.5 - m) / s)
        pmf.append(np.diff(np.concatenate([[0.0], edges, [1.0]])))
    won = 0.0
    for place_of, code in enumerate(codes):
        ahead = pmf[target][place_of]
        for c in range(len(mean)):
            if c != target:
                ahead *= pmf[c][codes < code].sum() if c < target else pmf[c][codes <= code].sum()
        won += ahead
    return won


@SETTINGS
@given(st.integers(0, 1 << 20), st.sampled_from([0.05, 0.7, 3.0, 40.0]))
def test_win_probability_is_the_sum_over_all_codes(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    mean, deviation = rng.normal(20, 2 * spread + 1, (1, 4)), rng.uniform(0.5, 1.5, (1, 4)) * spread
    low, high = (0.0, 40.0) if spread < 10 else (-400.0, 400.0)
    total = 0.0
    for target in range(4):
        out = np.empty(1)
        win_probability(mean, deviation, np.zeros((1, 4)), low, high, np.array([target]), cumulative_table(), out)
        assert out[0] == pytest.approx(winner_by_enumeration(mean[0], deviation[0], low, high, target), abs=2e-3)
        total += out[0]
    assert total == pytest.approx(1, abs=4e-3)


def one_layer(classes: int, inputs: int, seed: int) -> tuple[Any, dict[str, np.ndarray]]:
    """±1 inputs from pixels by a safe first layer, then one layer of ±1 weights."""
    d = Draft(np.random.default_rng(seed))
    x = d.threshold(d.convolution(d.input("x", (1, 1, 1), "int8"), inputs, Window((1, 1)), SIGN1), 40)
    network = d.network(d.dequantize(d.dense(x, classes, SIGN1)))
    return network, pixels(network, 6, seed)


@pytest.mark.parametrize(("p01", "p10"), [(0.05, 0.05), (0.0, 0.2)])
def test_one_layer_is_the_closed_form(p01: float, p10: float) -> None:
    network, x = one_layer(3, 201, 4)
    plan = compile_plan(network)
    first, last = network.weights
    placement = place(network, parse_spec(f"uniform:p01={p01},p10={p10}"), [(first.name, SAFE)])
    questions = pose(plan, x)
    (found,) = predict(plan, [placement], questions)
    inputs = infer(plan, x, [network.layers[-2].inputs[0]])[network.layers[-2].inputs[0]].reshape(6, -1).astype(int)
    weights = last.values.reshape(3, -1)
    for image in range(6):
        laws = []
        for w in weights:
            pmf = np.ones(1)
            for sign, rate in ((1, p10), (-1, p01)):
                for product in (1, -1):
                    n = int(np.count_nonzero((w == sign) & (w * inputs[image] == product)))
                    part = binom.pmf(np.arange(n + 1), n, rate)
                    pmf = np.convolve(pmf, part[::-1] if product == 1 else part)
            laws.append(pmf)
        law = np.stack(laws)  # of the scores -201, -199 … 201
        target = int(questions.clean[image])
        below = np.cumsum(law, axis=1)
        chance = sum(
            law[target, i] * np.prod([below[c, i] - (law[c, i] if c < target else 0) for c in range(3) if c != target])
            for i in range(law.shape[1])
        )
        assert found.same[image] == pytest.approx(chance, abs=0.01)
    assert found.error == 0  # nothing had to be drawn


# --- whole networks ------------------------------------------------------------------------------------------------------------


def digits(model: str, images: int) -> tuple[Any, Any]:
    network = load(SHIPPED / f"{model}.onnx")
    plan = compile_plan(network)
    with np.load(SHIPPED / "digits.npz") as data:
        return plan, pose(plan, {network.inputs[0]: data["x_test"][:images].astype(np.float32)}, data["y_test"][:images])


@pytest.mark.parametrize(
    ("model", "spec", "policy"),
    [
        ("digits_bnn", "uniform:ber=0.08", ReadPolicy.BATCH),
        ("digits_bnn", "uniform:p01=0.15,p10=0.03,lifetime=die", ReadPolicy.LOAD),
        ("digits_bnn", "uniform:ber=0.12", ReadPolicy.ACCESS),
        ("digits_qnn", "uniform:ber=0.02", ReadPolicy.IMAGE),
        ("digits_qnn", "uniform:p01=0.01,p10=0.03", ReadPolicy.BATCH),
    ],
)
def test_predictions_are_what_trials_find(model: str, spec: str, policy: ReadPolicy) -> None:
    images, trials = (40, 8) if policy is ReadPolicy.ACCESS else (200, 40)
    plan, questions = digits(model, images)
    placement = place(plan.network, parse_spec(spec))
    (found,) = predict(plan, [placement], questions, policy, samples=20)
    runs = [run_trial(plan, placement, questions, policy, trial=trial, batch=50) for trial in range(trials)]
    for predicted, measured in ((found.accuracy, [r.accuracy for r in runs]), (found.changed, [r.changed for r in runs])):
        error = np.hypot(np.std(measured, ddof=1) / np.sqrt(trials), found.error)
        assert abs(predicted - np.mean(measured)) < 3.5 * error + 0.004
    assert 0 < found.error < 0.03


def test_threads_and_company_change_nothing() -> None:
    plan, questions = digits("digits_bnn", 300)
    points = [place(plan.network, parse_spec(f"uniform:ber={p}")) for p in (0.0, 0.05)]
    one = predict(plan, points, questions, threads=1)
    three = predict(plan, points, questions, threads=3)
    alone = predict(plan, points[1:], questions)
    for a, b in ((one[0], three[0]), (one[1], three[1]), (one[1], alone[0])):
        assert np.array_equal(a.same, b.same)
    _, few = digits("digits_bnn", 70)
    assert np.array_equal(predict(plan, points, few)[1].same, one[1].same[:70])
    assert one[0].accuracy == questions.clean_accuracy
    assert one[0].changed == one[0].error == 0


def test_other_kinds_of_layers_are_drawn_bit_by_bit() -> None:
    for network in (small_bnn(2), small_qnn()):
        plan = compile_plan(network)
        questions = pose(plan, pixels(network, 40))
        placement = place(network, parse_spec("uniform:ber=0.03"))
        (found,) = predict(plan, [placement], questions, samples=30)
        runs = [run_trial(plan, placement, questions, ReadPolicy.IMAGE, trial=trial) for trial in range(30)]
        measured = [r.changed for r in runs]
        assert found.accuracy is None
        assert abs(found.changed - np.mean(measured)) < 4 * np.hypot(np.std(measured) / np.sqrt(30), found.error) + 0.02


def test_what_has_no_law_is_refused() -> None:
    plan, questions = digits("digits_bnn", 5)
    threshold = next(t.name for t in plan.network.tensors.values() if t.role == "threshold")
    with pytest.raises(UsageError, match="faulty weights only"):
        predict(plan, [place(plan.network, SAFE, [(threshold, parse_spec("uniform:ber=0.1"))])], questions)
    with pytest.raises(UsageError, match="takes two"):
        predict(plan, [place(plan.network, SAFE)], questions, samples=1)


def test_the_table_of_normal_values() -> None:
    normals = normal_table().astype(np.float64)
    assert normals.mean() == pytest.approx(0, abs=1e-6)
    assert normals.var() == pytest.approx(1, abs=1e-5)
