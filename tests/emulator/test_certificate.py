"""Whole-network certificates: never contradicted by an adversary, random flips or all single flips; and how tight they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.emulator.small import RandomNetwork, pixels, small_qnn
from weakcell.emulator import compile_plan, infer, load
from weakcell.emulator import margins as mg
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import SIGN1, StoredTensor, Window
from weakcell.emulator.kernels.entry_points import count_changed_neurons
from weakcell.emulator.margins.certificate import certify
from weakcell.memmodels.errors import ModelError

SHIPPED = Path(__file__).resolve().parents[2] / "host" / "shipped"


def dense_chain(seed: int, images: int = 6) -> tuple[Network, np.ndarray]:
    """16 pixels, two layers of 24 neurons, and an output layer whose rows are what the first images make of them: wide margins."""
    d = RandomNetwork(np.random.default_rng(seed))
    x = d.threshold(d.dense(d.input("x", (16,), "int8"), 24, SIGN1), 60)
    x = d.threshold(d.dense(x, 24, SIGN1), 4)
    network = d.network(d.dequantize(d.dense(x, images, SIGN1)))
    data = pixels(network, images, seed)
    hidden = infer(compile_plan(network), data, [x])[x].reshape(images, -1)
    last = network.weights[-1]
    tensor = replace(last, codes=hidden.reshape(last.shape).astype(np.int32))
    return replace(network, tensors={**network.tensors, last.name: tensor}), data["x"]


def scores(network: Network, weights: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    """(F, classes) of one image, weights (F, out, in) per layer: written without the engine."""
    y = np.broadcast_to(x.astype(np.int64), (len(weights[0]), x.size))
    for layer, w in zip(mg.find_hidden_layers(network), weights[:-1], strict=True):
        h = np.einsum("foi,fi->fo", w, y)
        after = next(step for step in network.layers if step.inputs[0] == layer.accumulator)
        y = np.where((h > layer.pivot) != after.inverted, 1, -1)  # type: ignore[attr-defined]
    made: np.ndarray = np.einsum("foi,fi->fo", weights[-1], y)
    return made


def lead(made: np.ndarray, winner: int) -> np.ndarray:
    """By how much the winner is ahead."""
    return made[:, winner] - np.delete(made, winner, axis=1).max(axis=1)


def each_flip(weights: list[np.ndarray]) -> list[np.ndarray]:
    """The weights (out, in) of all layers with one of them flipped: (number of weights, out, in) per layer."""
    total, first, made = sum(w.size for w in weights), 0, []
    for w in weights:
        many = np.repeat(w[None], total, axis=0)
        flat = many.reshape(total, -1)
        flat[first + np.arange(w.size), np.arange(w.size)] *= -1
        first += w.size
        made.append(many)
    return made


def plain(network: Network) -> list[np.ndarray]:
    return [t.values.reshape(t.shape[0], -1).astype(np.int64) for t in network.weights]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_worst_flip_after_the_worst_flip_stays_within(seed: int) -> None:
    network, x = dense_chain(seed)
    plan = compile_plan(network)
    found = certify(plan, {"x": x})
    head = mg.find_output_layer(network)
    margins = mg.compute_margins(head.scores(infer(plan, {"x": x}, [head.accumulator])[head.accumulator]))
    taken = []
    for image in range(len(x)):
        winner, weights = int(margins.winner[image]), plain(network)
        assert np.array_equal(scores(network, [w[None] for w in weights], x[image])[0], margins.scores[image])
        flips, ahead = 0, int(margins.margin[image])
        while ahead > 0 and flips < 12:
            tried = each_flip(weights)
            leads = lead(scores(network, tried, x[image]), winner)
            worst = int(leads.argmin())
            weights, ahead, flips = [w[worst] for w in tried], int(leads[worst]), flips + 1
            assert ahead > 0 or flips > found.tolerated[image]
        taken.append(flips)
        assert flips <= found.attacked[image] or flips == 12  # the greedy adversary is no worse than the attack that is counted
    assert found.tolerated.max() >= 1
    assert (found.tolerated < found.attacked).all()
    assert np.mean(found.tolerated + 1) > 0.3 * np.mean(taken)


def test_random_flips_of_the_budget_change_nothing() -> None:
    network, x = dense_chain(5)
    plan, rng = compile_plan(network), np.random.default_rng(0)
    found = certify(plan, {"x": x})
    for image in range(len(x)):
        winner, budget = (
            int(np.argmax(scores(network, [w[None] for w in plain(network)], x[image])[0])),
            int(found.tolerated[image]),
        )
        weights = [np.repeat(w[None], 4000, axis=0) for w in plain(network)]
        for _ in range(budget):  # half of them in the last two layers, where the certificate is nearest to breaking
            layer = rng.choice([0, 1, 1, 2], 4000)
            for number, w in enumerate(weights):
                rows = np.flatnonzero(layer == number)
                w.reshape(4000, -1)[rows, rng.integers(0, w[0].size, rows.size)] *= -1
        assert (lead(scores(network, weights, x[image]), winner) > 0).all()


def attacked_weights(
    network: Network, head: mg.OutputLayer, values: dict[str, np.ndarray], winner: int, other: int
) -> list[np.ndarray]:
    """The flips that `attacked` counts, made: one in each harmful neuron of cost 1, then the worst of the last layer."""
    hidden = mg.find_hidden_layers(network)[-1]
    weights = plain(network)
    x, y = values[hidden.input].reshape(-1), values[head.input].reshape(-1)
    h = values[hidden.accumulator].reshape(-1)
    cost = mg.neuron_exact(h, hidden.pivot) + 1
    harmful = (weights[-1][winner] * y > 0) & (weights[-1][other] * y < 0)
    gap = int((weights[-1][winner] - weights[-1][other]) @ y)
    for n in np.flatnonzero(harmful & (cost == 1)):
        if gap <= 0:
            break
        k = np.flatnonzero(weights[-2][n] * x * (1 if h[n] > hidden.pivot[n] else -1) > 0)[0]
        weights[-2][n, k] *= -1
        y[n] *= -1
        gap -= 4
    for row, sign in ((winner, 1), (other, -1)):
        for k in np.flatnonzero(weights[-1][row] * y * sign > 0):
            if gap <= 0:
                break
            weights[-1][row, k] *= -1
            gap -= 2
    return weights


def test_the_attack_that_is_counted_ends_the_prediction() -> None:
    network, x = dense_chain(3)
    plan, head = compile_plan(network), mg.find_output_layer(network)
    hidden = mg.find_hidden_layers(network)[-1]
    values = infer(plan, {"x": x}, [head.accumulator, head.input, hidden.input, hidden.accumulator])
    margins, found = mg.compute_margins(head.scores(values[head.accumulator])), certify(plan, {"x": x})
    for image in range(len(x)):
        winner, clean, fewest = int(margins.winner[image]), plain(network), []
        for other in range(head.classes):
            if other == winner:
                continue
            own = {name: value[image] for name, value in values.items()}
            weights = attacked_weights(network, head, {k: v.copy() for k, v in own.items()}, winner, other)
            fewest.append(sum(int((a != b).sum()) for a, b in zip(weights, clean, strict=True)))
            after = scores(network, [w[None] for w in weights], x[image])[0]
            assert after[winner] <= after[other]
        assert min(fewest) == found.attacked[image]


def convolutional(seed: int, images: int = 4) -> tuple[Network, dict[str, np.ndarray]]:
    """A pooled convolution and an output layer made as in `dense_chain`."""
    d = RandomNetwork(np.random.default_rng(seed))
    x = d.convolution(d.input("x", (1, 8, 8), "int8"), 24, Window((3, 3), pads=(1, 1, 1, 1)), SIGN1)
    x = d.threshold(d.pool(x, Window((2, 2), (2, 2))), 60)
    network = d.network(d.dequantize(d.dense(x, images, SIGN1)))
    data = pixels(network, images, seed)
    last = network.weights[-1]
    made = infer(compile_plan(network), data, [x])[x].reshape(last.shape).astype(np.int32)
    return replace(network, tensors={**network.tensors, last.name: replace(last, codes=made)}), data


def test_every_single_flip_of_a_convolutional_network() -> None:
    certified = 0
    for seed in range(3):
        network, x = convolutional(seed)
        found, head = certify(compile_plan(network), x, budget=4), mg.find_output_layer(network)
        clean = mg.compute_margins(head.scores(infer(compile_plan(network), x, [head.accumulator])[head.accumulator]))
        held = np.ones(4, bool)
        rng = np.random.default_rng(seed)
        for tensor in network.weights:
            for element in rng.permutation(tensor.elements)[:90]:
                wrong = replace(network, tensors={**network.tensors, tensor.name: flip(tensor, int(element))})
                made = infer(compile_plan(wrong), x, [head.accumulator])[head.accumulator]
                held &= mg.compare_winner(head.scores(made), clean.winner)[0]
        assert not (~held & (found.tolerated >= 1)).any()
        assert (found.tolerated[~clean.unique] == -1).all()
        certified += int((found.tolerated >= 1).sum())
    assert certified >= 3


def flip(tensor: StoredTensor, element: int) -> StoredTensor:
    values = tensor.values.copy()
    values.reshape(-1)[element] *= -1
    return replace(tensor, codes=values)


@pytest.mark.parametrize("places", [1, 3])
def test_turned_neurons_are_at_least_those_of_any_split(places: int) -> None:
    rng = np.random.default_rng(places)
    costs = rng.integers(1, 6, (7, places))
    wanted = rng.random((7, places)) < 0.8
    before = np.array([0, 1, 1, 2, 4])
    best = np.empty(5, np.int64)
    count_changed_neurons(costs, wanted, before, places, 9, best)
    for _ in range(3000):
        q = int(rng.integers(0, 5))
        early = int(rng.integers(0, q + 1))
        own = np.bincount(rng.integers(0, 7, q - early), minlength=7)
        turned = wanted & (costs <= own[:, None] + before[early])
        assert turned.sum() <= best[q]
    assert best[0] == (wanted & (costs <= 0)).sum()


def test_a_shipped_network_and_what_is_refused() -> None:
    network = load(SHIPPED / "digits_bnn.onnx")
    with np.load(SHIPPED / "digits.npz") as data:
        x = {network.inputs[0]: data["x_test"][:4].astype(np.float32)}
    found = certify(compile_plan(network), x, budget=3)
    assert (found.tolerated >= 0).all()
    assert (found.attacked > found.tolerated).all()
    with pytest.raises(ModelError, match=r"not a plain chain of .*: weights or inputs of .* are not ±1"):
        certify(compile_plan(small_qnn()), pixels(small_qnn(), 2))
    d = RandomNetwork(np.random.default_rng(0))
    shallow = d.network(d.dequantize(d.dense(d.threshold(d.dense(d.input("x", (9,), "int8"), 15, SIGN1)), 3, SIGN1)))
    assert certify(compile_plan(shallow), pixels(shallow, 3)).tolerated.shape == (3,)
