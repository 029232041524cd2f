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

from tests.emulator.random_features import digits as feature_digits
from tests.emulator.random_features import feature_network
from tests.emulator.small import INT2, INT4, INT8, RandomNetwork, pixels, small_bnn, small_qnn
from weakcell.emulator import compile_plan, infer, load, place, prepare_evaluation, run_trial
from weakcell.emulator.faults.deployment import ReadPolicy
from weakcell.emulator.ir.values import SIGN1, Encoding, StoredTensor, Window, decode_codes, encode_values
from weakcell.emulator.kernels.entry_points import draw_sums, win_probability
from weakcell.emulator.prediction import predict
from weakcell.emulator.prediction.bit_rates import BitRates, compute_bit_rates, compute_marginal_rates
from weakcell.emulator.prediction.layer_distribution import LARGEST_DISTANCE, LayerDistribution
from weakcell.emulator.prediction.sum_kernels import SumSampling, cumulative_table, normal_table
from weakcell.emulator.prediction.sum_moments import FaultFreeSums, compute_moments
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.errors import UsageError
from weakcell.memmodels.sampling.streams import derive_stream

SHIPPED = Path(__file__).resolve().parents[2] / "host" / "shipped"
SETTINGS = settings(max_examples=25, deadline=None)
SAFE = parse_spec("uniform:ber=0")


# --- rates ---------------------------------------------------------------------------------------------------------------------


def test_rates_of_planes_and_places() -> None:
    network = small_qnn()
    first, second = network.weights[:2]
    rules = [(f"{first.name}@1-2", parse_spec("uniform:p01=0.1,p10=0.3")), (second.name, SAFE)]
    found = compute_bit_rates(network, place(network, parse_spec("uniform:ber=0.02,lifetime=die"), rules))
    assert found[first.name].p01[:4].tolist() == [0.02, 0.1, 0.1, 0.02]
    assert found[first.name].p10[:4].tolist() == [0.02, 0.3, 0.3, 0.02]
    assert second.name not in found
    assert not found[first.name].symmetric


def test_terms_in_sequence_and_their_shares() -> None:
    assert compute_marginal_rates(parse_spec("eden:p=0.2,f=0.25")) == pytest.approx((0.05, 0.05), rel=1e-6)
    write, hold = 0.03, 0.01
    sequence = compute_marginal_rates(parse_spec(f"uniform:ber={write + hold - 2 * write * hold}"))
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
        compute_marginal_rates(parse_spec(spec))


def powers_of(rows: np.ndarray) -> np.ndarray:
    """`FaultFreeSums.powers` of inputs (R, K)."""
    wide = rows.astype(np.float64)
    return np.stack([(wide**power).sum(axis=1) for power in (1, 2, 3, 4, 6)], axis=1)


# --- the distribution of one sum -------------------------------------------------------------------------------------------------


def enumerated(tensor: StoredTensor, rates: BitRates, x: np.ndarray, bias: int) -> tuple[float, float]:
    """Mean and variance of output 0's sum over all patterns of flipped bits, each with its probability."""
    codes, bits = encode_values(tensor.values, tensor.encoding)[: x.size], tensor.encoding.bits
    zero = int(np.asarray(tensor.zero_point).reshape(-1)[0])
    first = second = total = 0.0
    for pattern in itertools.product((0, 1), repeat=x.size * bits):
        flips = np.array(pattern).reshape(x.size, bits)
        stored = (codes[:, None].astype(np.int64) >> np.arange(bits)) & 1
        p = np.where(stored == 1, rates.p10, rates.p01)
        chance = float(np.where(flips == 1, p, 1 - p).prod())
        read = codes ^ (flips << np.arange(bits)).sum(1).astype(np.uint64)
        value = float((decode_codes(read, tensor.encoding) - zero) @ x) + bias
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
    sums = FaultFreeSums(
        np.array([[clean]], np.int32), powers_of(rows), lambda: rows, False
    )  # fmt: skip
    law = compute_moments(tensor, np.array([bias]), rates)
    extra = law.extra_mean(sums)
    mean = law.slope * clean + law.shift[0] + law.tilt[0] * sums.total[0] + (0 if extra is None else extra[0, 0])
    wanted = enumerated(tensor, rates, x, bias)
    assert mean == pytest.approx(wanted[0], abs=1e-3)
    assert float(law.variance(sums)[0, 0]) == pytest.approx(wanted[1], rel=1e-4, abs=1e-3)


def sums_of(tensor: StoredTensor, x: np.ndarray, draws: int) -> FaultFreeSums:
    """The sums of one input vector, `draws` times."""
    rows = np.broadcast_to(x.astype(np.float32), (draws, x.size))
    zero = np.asarray(tensor.zero_point).reshape(-1, 1)
    clean = (tensor.values.reshape(tensor.shape[0], -1) - zero) @ x
    sums = np.broadcast_to(clean, (draws, len(clean))).astype(np.int32)
    return FaultFreeSums(sums, np.repeat(powers_of(x[None]), draws, axis=0), lambda: rows, False)


def brute_force(tensor: StoredTensor, rates: BitRates, x: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Sums (draws, O) with every bit of every weight drawn by itself."""
    codes = encode_values(tensor.values, tensor.encoding).astype(np.int64)
    stored = (codes[:, None] >> np.arange(tensor.encoding.bits)) & 1
    chance = np.where(stored == 1, rates.p10, rates.p01)
    made = []
    for _ in range(draws):
        flips = (rng.random(chance.shape) < chance) << np.arange(tensor.encoding.bits)
        read = decode_codes((codes ^ flips.sum(axis=1)).astype(np.uint64), tensor.encoding).reshape(tensor.shape[0], -1)
        made.append((read - np.asarray(tensor.zero_point).reshape(-1, 1)) @ x)
    return np.array(made)


def sample_sums(distribution: LayerDistribution, clean: FaultFreeSums) -> tuple[np.ndarray, int]:
    """Sums sampled from the distribution of a layer, and the number of planes that were sampled flip by flip."""
    (group,) = distribution.group_rows(clean)
    names = np.arange(len(clean.sums))
    out = np.array(clean.sums)
    moments = group.moments
    if moments is not None:
        extra = moments.extra_mean(clean)
        deviation = np.sqrt(np.maximum(moments.variance(clean) - np.float32(moments.step**2 / 12), 0))
        sampling = SumSampling(
            float(moments.slope), moments.shift, moments.tilt, clean.total,
            np.empty((0, 0), np.float32) if extra is None else extra, deviation, group.shape.astype(np.float32),
            float(moments.step),
        )  # fmt: skip
        draw_sums(clean.sums, sampling, normal_table(), derive_stream(1), names, out)
    return out + distribution.sample_changes(group, derive_stream(2), names), group.planes


@pytest.mark.parametrize(
    ("encoding", "inputs", "p01", "p10", "planes"),
    [
        (SIGN1, 48, 0.03, 0.03, 1),
        (SIGN1, 600, 0.2, 0.2, 0),
        (SIGN1, 600, 0.2, 0.01, 0),
        (INT2, 24, 0.05, 0.3, 2),
        (Encoding("unsigned", 2), 24, 0.5, 1.0, None),
        (INT4, 64, 0.05, 0.005, 4),
        (INT4, 300, 0.25, 0.1, 0),
        (INT4, 1000, 0.05, 0.05, 0),
        (INT8, 100, 0.01, 0.01, 8),
    ],
)
def test_drawn_sums_have_the_distribution_of_brute_force(
    encoding: Encoding, inputs: int, p01: float, p10: float, planes: int | None
) -> None:
    """Distribution functions of a few sums against weights drawn bit by bit in numpy (Kolmogorov and Smirnov's test)."""
    rng, outputs = np.random.default_rng(inputs + encoding.bits), 3
    shape = (outputs, inputs, 1, 1)
    values = rng.choice([-1, 1], shape) if encoding == SIGN1 else rng.integers(encoding.low, encoding.high + 1, shape)
    zero = 0 if encoding == SIGN1 else 1
    tensor = StoredTensor("w", "weight", encoding, values.astype(np.int32), zero_point=np.array(zero, np.int32))
    x = rng.choice([-1, 1], inputs) if encoding == SIGN1 else np.maximum(0, rng.normal(20, 40, inputs).astype(int))
    rates = BitRates(np.full(encoding.bits, p01), np.full(encoding.bits, p10))
    made, count = sample_sums(LayerDistribution.of(tensor, None, rates), sums_of(tensor, x, 40_000))
    wanted = brute_force(tensor, rates, x, 2500, rng)
    assert planes is None or count == planes
    for o in range(outputs):
        grid = np.unique(wanted[:, o])
        one, other = (np.searchsorted(np.sort(sums[:, o]), grid, side="right") / len(sums) for sums in (made, wanted))
        assert np.abs(one - other).max() < 2.3 / np.sqrt(2500) + 2 * LARGEST_DISTANCE  # p < 1e-4 for each of 27 sums
        assert made[:, o].mean() == pytest.approx(wanted[:, o].mean(), abs=4.5 * wanted[:, o].std() / np.sqrt(2500) + 1e-9)


def test_the_smooth_law_has_the_skewness_of_the_sum() -> None:
    """Where only zeros err, the third moment is far from 0; a normal law misses the median by a third of the skewness."""
    inputs, draws = 2048, 200_000
    rng = np.random.default_rng(3)
    tensor = StoredTensor("w", "weight", SIGN1, rng.choice([-1, 1], (1, inputs, 1, 1)).astype(np.int32))
    law = LayerDistribution.of(tensor, None, BitRates(np.full(1, 0.04), np.zeros(1)))
    x = np.where(tensor.values.reshape(-1) < 0, 1, rng.choice([-1, 1], inputs))  # all that can flip moves the sum up
    made, planes = sample_sums(law, sums_of(tensor, x, draws))
    zeros = int((tensor.values < 0).sum())
    assert planes == 0
    flips = (made[:, 0] - int(tensor.values.reshape(-1) @ x)) // 2
    support = np.arange(0, 120)
    found = np.searchsorted(np.sort(flips), support, side="right") / draws
    assert np.abs(found - binom.cdf(support, zeros, 0.04)).max() < 0.004 + 2 * LARGEST_DISTANCE


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
        win_probability(
            mean, deviation, np.zeros((2, 1, 4)), np.zeros((1, 4)), low, high, np.array([target]), cumulative_table(), out
        )
        assert out[0] == pytest.approx(winner_by_enumeration(mean[0], deviation[0], low, high, target), abs=2e-3)
        total += out[0]
    assert total == pytest.approx(1, abs=4e-3)


def one_layer(classes: int, inputs: int, seed: int) -> tuple[Any, dict[str, np.ndarray]]:
    """±1 inputs from pixels by a safe first layer, then one layer of ±1 weights."""
    d = RandomNetwork(np.random.default_rng(seed))
    x = d.threshold(d.convolution(d.input("x", (1, 1, 1), "int8"), inputs, Window((1, 1)), SIGN1), 40)
    network = d.network(d.dequantize(d.dense(x, classes, SIGN1)))
    return network, pixels(network, 6, seed)


@pytest.mark.parametrize(("p01", "p10"), [(0.05, 0.05), (0.0, 0.2)])
def test_one_layer_is_the_closed_form(p01: float, p10: float) -> None:
    network, x = one_layer(3, 201, 4)
    plan = compile_plan(network)
    first, last = network.weights
    placement = place(network, parse_spec(f"uniform:p01={p01},p10={p10}"), [(first.name, SAFE)])
    questions = prepare_evaluation(plan, x)
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
        target = int(questions.fault_free_answers[image])
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
        return plan, prepare_evaluation(
            plan, {network.inputs[0]: data["x_test"][:images].astype(np.float32)}, data["y_test"][:images]
        )


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


@pytest.mark.parametrize(
    ("bits", "width", "depth", "spec"),
    [
        (1, 24, 2, "uniform:p01=0.08,p10=0.008"),
        (2, 32, 3, "uniform:p01=0.02,p10=0.06"),
        (4, 48, 2, "uniform:p01=0.05,p10=0.005"),
        (8, 16, 1, "uniform:ber=0.01"),
    ],
)
def test_small_networks_of_few_large_terms(bits: int, width: int, depth: int, spec: str) -> None:
    """A normal law misses these by 1 to 6 points; trials that read weights for each image are independent images."""
    plan, trials = compile_plan(feature_network(width, bits, depth)), 40
    images, labels = feature_digits("test", 300)
    questions, placement = prepare_evaluation(plan, {"x": images}, labels), place(plan.network, parse_spec(spec))
    (found,) = predict(plan, [placement], questions, samples=60)
    scores = [run_trial(plan, placement, questions, ReadPolicy.IMAGE, trial=t, seed=1).accuracy for t in range(trials)]
    error = np.std(scores, ddof=1) / np.sqrt(trials)
    assert abs(found.accuracy - np.mean(scores)) < found.half_width + 2.5 * error  # together about 4 standard errors
    assert found.bias < 0.004
    assert found.half_width < 0.01


def test_weights_that_err_never_or_always_are_certain() -> None:
    """Every bit wrong is a network of its own: the prediction is its accuracy, flips drawn one by one or not."""
    network = feature_network(16, 2, 1)
    images, labels = feature_digits("test", 100)
    plan = compile_plan(network)
    questions = prepare_evaluation(plan, {"x": images}, labels)
    (found,) = predict(plan, [place(network, parse_spec("uniform:ber=1"))], questions)
    one = run_trial(plan, place(network, parse_spec("uniform:ber=1")), questions, ReadPolicy.IMAGE)
    assert found.accuracy == one.accuracy
    assert found.error == found.bias == 0


def test_equal_integer_scores_go_to_the_lower_class() -> None:
    """Scores with one scale are integers and tie often; argmax takes the lower class."""
    d = RandomNetwork(np.random.default_rng(0))
    network = d.network(d.dequantize(d.dense(d.input("x", (6, 1, 1), "int8"), 2, INT2)))
    plan, x = compile_plan(network), {"x": np.ones((100, 6, 1, 1), np.float32)}
    (tensor,) = (t for t in network.tensors.values() if t.role == "weight")
    rates, draws = BitRates(np.full(2, 0.3), np.full(2, 0.3)), 8_000
    sums = brute_force(tensor, rates, np.ones(6), draws, np.random.default_rng(1))
    questions = prepare_evaluation(plan, x)
    (found,) = predict(plan, [place(network, parse_spec("uniform:ber=0.3"))], questions, samples=50)
    same = np.mean(sums.argmax(axis=1) == int(np.asarray(questions.fault_free_answers).reshape(-1)[0]))
    assert found.same.mean() == pytest.approx(same, abs=4.5 * 0.5 / np.sqrt(draws) + 3 * found.error)


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
    assert one[0].accuracy == questions.fault_free_accuracy
    assert one[0].changed == one[0].error == 0


def test_other_kinds_of_layers_are_drawn_bit_by_bit() -> None:
    for network in (small_bnn(2), small_qnn()):
        plan = compile_plan(network)
        questions = prepare_evaluation(plan, pixels(network, 40))
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
