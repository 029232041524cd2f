"""Decoders in the form of onnxruntime-genai: outputs, caches, perplexity. onnxruntime and SciPy are the references."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from onnx import helper
from scipy.special import log_softmax

import weakcell
from tests.emulator.decoder import HEADS, INNER, PAIRS, SIZE, WIDTH, WORDS, decoder, decoder_inputs
from tests.emulator.flipped import ListedFlips, outputs_with_flips, random_cells
from tests.emulator.models import Array, model, node, run
from weakcell import emulator
from weakcell.emulator.tasks import Asked
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.errors import UsageError

RNG = np.random.default_rng(97)


@pytest.mark.parametrize(("new", "past"), [(4, 0), (1, 5)], ids=["prompt", "token"])
def test_genai(new: int, past: int) -> None:
    """Scores and cache of a prompt and of a further token; all 4-bit numbers are in the memory."""
    proto, inputs = decoder(), decoder_inputs(new, past)
    network = emulator.load(proto, like={name: x.shape for name, x in inputs.items()})
    found = emulator.infer(emulator.compile_plan(network), inputs)
    names = ["logits", "present.key", "present.value"]
    for name, right in zip(names, run(proto, inputs, names), strict=True):
        assert found[name].shape == right.shape
        np.testing.assert_allclose(found[name], right, rtol=1e-4, atol=1e-4 * np.abs(right).max())
    weights = WIDTH * SIZE * (HEADS + 2 * PAIRS) + HEADS * SIZE * WIDTH + 3 * WIDTH * INNER + WIDTH * WORDS
    assert network.weight_bits == 4 * (weights + WORDS * WIDTH)
    assert all(tensor.registers for tensor in network.unplaced)
    changed = outputs_with_flips(network, inputs, random_cells(network, RNG))
    assert np.any(changed["logits"] != found["logits"])


# ── inputs that follow from the tokens ──────────────────────────────────────────────────────────────


def test_inputs_that_follow_from_the_tokens_may_be_left_out(caplog: pytest.LogCaptureFixture) -> None:
    proto, inputs = decoder(), decoder_inputs(5, 0)
    tokens = {"input_ids": inputs["input_ids"]}
    with caplog.at_level(logging.WARNING):
        found = weakcell.infer(proto, tokens)
    assert "attention_mask = 1 everywhere, empty caches" in caplog.text
    for name, right in zip(("logits", "present.key"), run(proto, inputs, ["logits", "present.key"]), strict=True):
        np.testing.assert_allclose(found[name], right, rtol=1e-4, atol=1e-4)


def test_positions_and_types_of_tokens_are_filled_in() -> None:
    dims = ["batch", "sequence"]
    names = ("input_ids", "position_ids", "token_type_ids")
    nodes = [node("Mul", "input_ids position_ids", "a"), node("Add", "a token_type_ids", "b"), node("Cast", "b", "y", to=1)]
    proto = model(nodes, {}, dict.fromkeys(names, dims), {"y": dims}, types=dict.fromkeys(names, onnx.TensorProto.INT64))
    tokens = RNG.integers(0, 9, (3, 4))
    assert weakcell.infer(proto, {"input_ids": tokens})["y"].tolist() == (tokens * np.arange(4)).tolist()


def test_nothing_is_filled_in_beside_a_cache() -> None:
    inputs = decoder_inputs(2, 3)
    del inputs["attention_mask"]
    with pytest.raises(weakcell.WeakcellError, match="total"):
        weakcell.infer(decoder(), inputs)


def test_positions_beside_a_cache_are_not_guessed() -> None:
    """They would start at the length of the cache, not at 0."""
    dims = ["batch", "sequence"]
    names = ("input_ids", "position_ids")
    nodes = [node("Mul", "input_ids position_ids", "a"), node("Cast", "a", "y", to=1), node("Identity", "past.key", "z")]
    inputs = {**dict.fromkeys(names, dims), "past.key": ["batch", PAIRS, "past", SIZE]}
    outputs = {"y": dims, "z": ["batch", PAIRS, "past", SIZE]}
    proto = model(nodes, {}, inputs, outputs, types=dict.fromkeys(names, onnx.TensorProto.INT64))
    arrays = {"input_ids": RNG.integers(0, 9, (3, 4)), "past.key": np.zeros((3, PAIRS, 5, SIZE), np.float32)}
    with pytest.raises(weakcell.InputError, match="position_ids"):
        weakcell.infer(proto, arrays)


# ── perplexity ──────────────────────────────────────────────────────────────────────────────────────


def reference(scores: Array, labels: Array) -> tuple[float, float, float]:
    """Return perplexity, mean loss and accuracy; the label -100 is not judged."""
    judged = labels != -100
    losses = -np.take_along_axis(log_softmax(scores.astype(np.float64), axis=-1), np.where(judged, labels, 0)[..., None], -1)[
        ..., 0
    ]
    loss = losses[judged].mean()
    return float(np.exp(loss)), float(loss), float((scores.argmax(-1) == labels)[judged].mean())


def test_perplexity_of_the_next_token() -> None:
    """Fault-free and with flips; padding is not judged; labels of one's own give the same."""
    proto, inputs = decoder(), decoder_inputs(7, 0, batch=5)
    inputs["attention_mask"][0, 4:] = 0
    tokens = inputs["input_ids"]
    labels = np.full(tokens.shape, -100)
    labels[:, :-1] = tokens[:, 1:]
    labels[0, 3:] = -100
    network = emulator.load(proto, like={name: x.shape for name, x in inputs.items()})
    plan = emulator.compile_plan(network)
    evaluation = emulator.prepare_evaluation(plan, inputs, asked=Asked("perplexity"))
    assert evaluation.labels.tolist() == labels.tolist()
    clean = reference(run(proto, inputs, ["logits"])[0], labels)
    judged = evaluation.fault_free_judgement
    assert (judged.score(evaluation.metric), judged.metrics["nll"], judged.accuracy) == pytest.approx(clean, rel=1e-5)
    given = emulator.prepare_evaluation(plan, inputs, labels, Asked("perplexity"))
    assert given.fault_free_judgement == judged

    flips = random_cells(network, RNG)
    placement = emulator.place(network, parse_spec("uniform:ber=0"))
    trial = emulator.run_trial(plan, placement, evaluation, memories=[ListedFlips(flips)])
    scores = outputs_with_flips(network, inputs, flips)["logits"]
    assert (trial.score, trial.metrics["nll"], trial.accuracy) == pytest.approx(reference(scores, labels), rel=1e-12)
    changed = (scores.argmax(-1) != run(proto, inputs, ["logits"])[0].argmax(-1))[labels != -100].mean()
    assert trial.changed == pytest.approx(changed)


def test_perplexity_in_chunks_is_that_of_the_whole() -> None:
    """More sequences than one chunk of the engine holds."""
    vocabulary, length, sequences = 64, 8, 3000
    table = RNG.normal(size=(vocabulary, vocabulary)).astype(np.float32)
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["logits"])]
    proto = model(nodes, {"table": table}, {"input_ids": ["N", length]}, {"logits": ["N", length, vocabulary]},
                  types={"input_ids": onnx.TensorProto.INT64})  # fmt: skip
    tokens = RNG.integers(0, vocabulary, (sequences, length))
    evaluation = emulator.prepare_evaluation(
        emulator.compile_plan(emulator.load(proto)), {"input_ids": tokens}, asked=Asked("perplexity:score=nll")
    )
    labels = np.concatenate([tokens[:, 1:], np.full((sequences, 1), -100)], axis=1)
    assert evaluation.fault_free_score == pytest.approx(reference(table[tokens], labels)[1], rel=1e-12)


def test_scores_that_are_not_finite_count_as_the_largest_loss() -> None:
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["logits"])]
    table = np.array([[0.0, np.inf], [np.nan, 0.0]], np.float32)
    proto = model(nodes, {"table": table}, {"input_ids": ["N", 3]}, {"logits": ["N", 3, 2]},
                  types={"input_ids": onnx.TensorProto.INT64})  # fmt: skip
    plan = emulator.compile_plan(emulator.load(proto))
    evaluation = emulator.prepare_evaluation(plan, {"input_ids": np.array([[0, 1, 1]])}, asked=Asked("perplexity"))
    assert evaluation.fault_free_score == pytest.approx(float(np.finfo(np.float32).max))


def test_probabilities_have_no_perplexity() -> None:
    nodes = [node("Cast", "x", "a", to=1), node("Softmax", "a", "y", axis=-1)]
    proto = model(nodes, {}, {"x": ["N", 3, 4]}, {"y": ["N", 3, 4]}, types={"x": onnx.TensorProto.INT64})
    plan = emulator.compile_plan(emulator.load(proto))
    with pytest.raises(UsageError, match="export the network without it"):
        emulator.prepare_evaluation(plan, {"x": np.zeros((2, 3, 4), np.int64)}, asked=Asked("perplexity"))
