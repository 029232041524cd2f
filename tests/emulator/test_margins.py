"""Bounds and exact counts: what is tolerated never ends the unique maximum, and one flip more, chosen greedily, does."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.emulator.small import INT2, INT4, INT8, UINT8, RandomNetwork, pixels, small_bnn, small_qnn
from weakcell.emulator import compile_plan, infer, load
from weakcell.emulator import margins as mg
from weakcell.emulator.ir.layers import AddCodes, Dequantize
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import SIGN1, Encoding, StoredTensor, Window, decode_codes, encode_values
from weakcell.memmodels.errors import ModelError

SHIPPED = Path(__file__).resolve().parents[2] / "host" / "shipped"
SETTINGS = settings(max_examples=40)


def test_stated_bounds_on_small_numbers() -> None:
    h = np.array([1, 2, 3, 4, 5, 0, -1, -2, -3, -4, -5])
    assert mg.neuron_bound(h, np.array(0)).tolist() == [0, 0, 0, 1, 1, 0, 0, 1, 1, 2, 2]
    assert mg.neuron_exact(h, np.array(0)).tolist() == [0, 0, 1, 1, 2, 0, 0, 1, 1, 2, 2]
    assert mg.output_bound(np.array([0, 1, 2, 4, 5, 10])).tolist() == [-1, 0, 0, 1, 1, 4]
    assert mg.output_exact(np.array([0, 1, 2, 4, 5, 10])).tolist() == [-1, 0, 0, 1, 2, 4]


@given(st.integers(-60, 60), st.integers(-60, 60))
def test_a_neuron_keeps_its_side_for_exactly_as_many_flips_as_counted(h: int, s: int) -> None:
    exact = int(mg.neuron_exact(np.array(h), np.array(s)))
    away = -2 if h > s else 2
    assert all((h + away * flips > s) == (h > s) for flips in range(exact + 1))
    assert (h + away * (exact + 1) > s) != (h > s)
    assert 0 <= int(mg.neuron_bound(np.array(h), np.array(s))) <= exact


# --- the greedy count against all subsets, and against an adversary ------------------------------------------------------------


def dense(encoding: Encoding, inputs: int, classes: int, seed: int, zero: Any = 0) -> Network:
    """Codes 0 … 15 with zero point 3 (or ±1 through a threshold for signs), one matrix product, scales by class."""
    d = RandomNetwork(np.random.default_rng(seed))
    if encoding == SIGN1:
        x = d.threshold(d.convolution(d.input("x", (1, 1, 1), "int8"), inputs, Window((1, 1)), SIGN1), 40)
        x = d.dense(x, classes, SIGN1)
        return d.network(d.dequantize(x))
    acc = d.dense(d.input("x", (inputs,), "uint8", zero_point=3), classes, encoding, bias=True, zero_point=zero)
    return d.network(d.requantize(acc, 0.01, 100))


def flipped(tensor: StoredTensor, cells: list[tuple[int, int]]) -> StoredTensor:
    """Stored bits (element, plane) flipped."""
    codes = encode_values(tensor.values, tensor.encoding)
    for element, plane in cells:
        codes[element] ^= np.uint64(1 << plane)
    return replace(tensor, codes=decode_codes(codes, tensor.encoding).reshape(tensor.shape).astype(np.int32))


def scores_with(network: Network, head: mg.OutputLayer, x: Any, cells: list[tuple[int, int]]) -> np.ndarray:
    """Scores of a run of the engine with these cells of the output layer flipped."""
    tensors = {**network.tensors, head.tensor.name: flipped(head.tensor, cells)}
    plan = compile_plan(replace(network, tensors=tensors))
    return head.scores(infer(plan, x, [head.accumulator])[head.accumulator])


def worst_cells(head: mg.OutputLayer, x: np.ndarray, winner: int, other: int, can: mg.Flippable) -> list[tuple[int, int]]:
    """All flips that hurt the winner against the other, the worst first: written without the kernels, cell by cell."""
    tensor, found = head.tensor, []
    codes, units = encode_values(tensor.values, tensor.encoding), mg.compute_bit_effects(tensor)
    for row, direction in ((winner, -1), (other, 1)):
        for k in range(head.fan_in):
            element = row * head.fan_in + k
            for plane in range(tensor.encoding.bits):
                one = int(codes[element]) >> plane & 1
                if not (can.falls if one else can.rises)[plane]:
                    continue
                before = int(decode_codes(codes[element : element + 1], tensor.encoding)[0])
                after = int(decode_codes(codes[element : element + 1] ^ np.uint64(1 << plane), tensor.encoding)[0])
                assert after - before == (1 - 2 * one) * units[plane]
                gain = direction * (after - before) * (int(x[k]) - head.input_zero) * int(head.scale[row])
                if gain > 0:
                    found.append((-gain, element, plane))
    return [(element, plane) for _, element, plane in sorted(found)]


@SETTINGS
@given(
    st.sampled_from([INT2, INT4, INT8, UINT8, SIGN1]), st.integers(1, 9), st.integers(2, 5), st.integers(0, 1 << 20),
    st.sampled_from(["all", "rises", "falls", "high"]),
)  # fmt: skip
def test_tolerated_flips_keep_the_winner_and_one_more_ends_it(
    encoding: Encoding, inputs: int, classes: int, seed: int, polarity: str
) -> None:
    zero = np.random.default_rng(seed).integers(0, 9, classes) if encoding.kind == "unsigned" else 0
    network = dense(encoding, inputs, classes, seed, zero)
    head, x = mg.find_output_layer(network), pixels(network, 4, seed)
    bits = encoding.bits
    yes, no, high = np.ones(bits, bool), np.zeros(bits, bool), np.arange(bits) >= bits // 2
    can = {
        "all": mg.Flippable(yes, yes),
        "rises": mg.Flippable(yes, no),
        "falls": mg.Flippable(no, yes),
        "high": mg.Flippable(high, high),
    }
    flippable = can[polarity]
    made = infer(compile_plan(network), x, [head.accumulator, head.input])
    margins = mg.compute_margins(head.scores(made[head.accumulator]))
    tolerated = mg.compute_output_tolerance(head, made[head.input], margins, flippable)
    rows = made[head.input].reshape(4, -1)
    for image, other in itertools.product(range(4), range(classes)):
        winner, count = int(margins.winner[image]), int(tolerated[image, other])
        if other == winner or margins.gaps[image, other] == 0:
            assert count == -1
            continue
        worst = worst_cells(head, rows[image], winner, other, flippable)
        one = {name: value[image : image + 1] for name, value in x.items()}
        within = scores_with(network, head, one, worst[:count])[0]
        assert within[winner] > within[other]
        if count < len(worst):
            beyond = scores_with(network, head, one, worst[: count + 1])[0]
            assert beyond[winner] <= beyond[other]
            if head.binary:
                assert (beyond[winner] == beyond[other]) or margins.gaps[image, other] % 2
        else:
            assert count == 2 * head.fan_in * flippable.cells


@SETTINGS
@given(st.sampled_from([INT2, INT4]), st.integers(0, 1 << 20))
def test_greedy_equals_the_best_of_all_subsets(encoding: Encoding, seed: int) -> None:
    network = dense(encoding, 2, 2, seed)
    head, x = mg.find_output_layer(network), pixels(network, 2, seed)
    made = infer(compile_plan(network), x, [head.accumulator, head.input])
    margins = mg.compute_margins(head.scores(made[head.accumulator]))
    tolerated = mg.compute_output_tolerance(head, made[head.input], margins)
    tensor, rows = head.tensor, made[head.input].reshape(2, -1).astype(np.int64) - head.input_zero
    bias = head.scores(made[head.accumulator])[0] - (tensor.values.reshape(2, 2) @ rows[0]) * head.scale
    cells = list(itertools.product(range(4), range(encoding.bits)))
    for image in range(2):
        winner = int(margins.winner[image])
        if not margins.unique[image]:
            continue
        fewest = None
        for size in range(1, len(cells) + 1):
            if size > 5:
                break
            for chosen in itertools.combinations(cells, size):
                values = flipped(tensor, list(chosen)).values.reshape(2, 2)
                scores = (values @ rows[image]) * head.scale + bias
                if scores[winner] <= scores[1 - winner]:
                    fewest = size
                    break
            if fewest:
                break
        count = int(tolerated[image, 1 - winner])
        assert (fewest is None and count >= 5) or fewest == count + 1


@SETTINGS
@given(st.integers(2, 40), st.integers(2, 6), st.integers(0, 1 << 20))
def test_unit_count_equals_greedy_on_signs(inputs: int, classes: int, seed: int) -> None:
    network = dense(SIGN1, inputs, classes, seed)
    head, x = mg.find_output_layer(network), pixels(network, 8, seed)
    assert head.binary
    made = infer(compile_plan(network), x, [head.accumulator, head.input])
    margins = mg.compute_margins(head.scores(made[head.accumulator]))
    assert np.array_equal(mg.compute_unit_tolerance(head, margins), mg.compute_output_tolerance(head, made[head.input], margins))
    assert (mg.output_bound(margins.margin) <= mg.output_exact(margins.margin)).all()
    even = margins.margin[margins.unique]
    assert (even % 2 == 0).all()  # all sums have the parity of the fan-in: the stated bound is exact but for its rounding at 2
    assert np.array_equal(mg.output_bound(even), mg.output_exact(even))


@given(st.integers(0, 1 << 20))
@SETTINGS
def test_pixels_move_a_neuron_by_twice_themselves_and_padding_by_nothing(seed: int) -> None:
    network = small_bnn(seed)
    hidden, x = mg.find_hidden_layers(network)[0], pixels(network, 1, seed)
    assert not hidden.binary
    made = infer(compile_plan(network), x, [hidden.accumulator, hidden.input])
    tolerated = mg.compute_neuron_tolerance(hidden, made[hidden.input], made[hidden.accumulator])
    windows = mg.extract_windows(made[hidden.input].astype(np.int64), hidden.layer)[0]
    weights = hidden.tensor.values.reshape(9, -1)
    h = made[hidden.accumulator][0]
    for o, y, col in itertools.product(range(9), range(6), range(5)):
        products = weights[o] * windows[y, col]
        assert products.sum() == h[o, y, col]
        above = bool(h[o, y, col] > hidden.pivot[o])
        harmful = np.sort(2 * (products if above else -products))[::-1]
        after = h[o, y, col] + (-1 if above else 1) * np.concatenate([[0], np.cumsum(harmful[harmful > 0])])
        changed = np.flatnonzero((after > hidden.pivot[o]) != above)
        assert tolerated[0, o, y, col] == (changed[0] - 1 if changed.size else hidden.fan_in)


def test_hidden_sums_follow_the_engine() -> None:
    network = small_bnn(3)
    layers = mg.find_hidden_layers(network)
    assert [layer.binary for layer in layers] == [False, True, True]
    assert [layer.fan_in for layer in layers] == [18, 54, 35 * 3 * 2]
    x = pixels(network, 3)
    made = infer(compile_plan(network), x, [layers[2].accumulator, layers[2].input])
    greedy = mg.compute_neuron_tolerance(layers[2], made[layers[2].input], made[layers[2].accumulator])
    unit = mg.neuron_exact(mg.reshape_sums(made[layers[2].accumulator]), layers[2].shaped_pivot)
    assert np.array_equal(greedy, unit)  # every flip moves by 2, so the two counts agree


# --- the shipped networks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["digits_bnn", "digits_qnn"])
def test_shipped_networks_under_their_worst_flips(model: str) -> None:
    network = load(SHIPPED / f"{model}.onnx")
    head = mg.find_output_layer(network)
    with np.load(SHIPPED / "digits.npz") as data:
        x = {network.inputs[0]: data["x_test"][:40].astype(np.float32)}
    made = infer(compile_plan(network), x, [head.accumulator, head.input])
    margins = mg.compute_margins(head.scores(made[head.accumulator]))
    tolerated = mg.compute_output_tolerance(head, made[head.input], margins)
    every, caught = mg.Flippable.every(head.tensor), 0
    rows = made[head.input].reshape(40, -1)
    answers = made[network.outputs[0]].argmax(1)
    for image in np.flatnonzero(margins.unique)[:12]:
        winner = int(margins.winner[image])
        other = int(np.argmin(np.where(np.arange(10) == winner, 1 << 40, tolerated[image])))
        worst = worst_cells(head, rows[image], winner, other, every)
        one = {name: value[image : image + 1] for name, value in x.items()}
        count = int(tolerated[image, other])
        kept, _ = mg.compare_winner(scores_with(network, head, one, worst[:count]), margins.winner[[image]])
        lost, _tied = mg.compare_winner(scores_with(network, head, one, worst[: count + 1]), margins.winner[[image]])
        assert kept[0]
        assert not lost[0]
        caught += not lost[0]
        assert answers[image] == winner or model == "digits_qnn"  # a requantized tie goes to the lower class
    assert caught >= 10  # a bound of one flip more would be caught here


def test_summary_is_what_its_parts_are() -> None:
    network = load(SHIPPED / "digits_bnn.onnx")
    with np.load(SHIPPED / "digits.npz") as data:
        x = {network.inputs[0]: data["x_test"][:100].astype(np.float32)}
    plan = compile_plan(network)
    found = mg.summarize(plan, x)
    logits = np.sort(infer(plan, x)[network.outputs[0]], axis=1)
    margin = logits[:, -1] - logits[:, -2]
    assert found.mean_margin == pytest.approx(margin.mean())
    assert found.relative_margin == pytest.approx(margin.mean() / 96)
    assert found.ties == int((margin == 0).sum())
    assert found.flips == pytest.approx((np.ceil(margin[margin > 0] / 2) - 1).mean())
    assert [n.flips is None for n in found.neurons] == [True, False, False]


def test_scores_are_exact_integers() -> None:
    head = mg.find_output_layer(load(SHIPPED / "digits_qnn.onnx"))
    assert not head.binary
    network = load(SHIPPED / "digits_qnn.onnx")
    requantize = next(layer for layer in network.layers if layer.inputs[0] == head.accumulator)
    assert np.array_equal((head.scale * head.unit).astype(np.float32), requantize.multiplier)  # type: ignore[attr-defined]


def test_networks_without_such_an_output_are_refused() -> None:
    network = small_qnn()
    last = network.layers[-1]
    assert isinstance(last, Dequantize)
    floats = replace(last, scale=np.array([1, -1, 1, 1], np.float32))
    with pytest.raises(ModelError, match="not positive"):
        mg.find_output_layer(replace(network, layers=(*network.layers[:-1], floats)))
    with pytest.raises(ModelError, match="not from a sum of weights"):
        mg.find_output_layer(
            replace(network, outputs=(next(layer.output for layer in network.layers if isinstance(layer, AddCodes)),))
        )


def test_the_largest_score_knows_what_the_layer_before_clamps_to() -> None:
    network = load(SHIPPED / "digits_qnn.onnx")
    head = mg.find_output_layer(network)
    narrow = tuple(replace(layer, high=15) if layer.output == head.input else layer for layer in network.layers)
    assert head.input_zero == 0
    assert mg.compute_score_bound(replace(network, layers=narrow), head) * 255 == mg.compute_score_bound(network, head) * 15
