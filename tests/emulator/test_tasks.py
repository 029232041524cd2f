"""Which task an output gets, what labels it takes, and what its answers are worth; numpy and onnxruntime are the oracles."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from tests.emulator.models import model, node, run
from weakcell.emulator import compile_plan, infer, prepare_evaluation
from weakcell.emulator.importer import load
from weakcell.emulator.ir.values import ValueSpec
from weakcell.emulator.tasks import Asked, Task, recognise
from weakcell.emulator.tasks.classes import ClassTask, PixelTask
from weakcell.emulator.tasks.values import ValueTask
from weakcell.memmodels.errors import InputError, UsageError, WeakcellError

Array = np.ndarray
RNG = np.random.default_rng(5)
N = 12
SCORES = RNG.normal(size=(N, 6)).astype(np.float32)
MAP = RNG.normal(size=(N, 3, 4, 5)).astype(np.float32)
SEQUENCE = RNG.normal(size=(N, 7, 4)).astype(np.float32)
ONE = RNG.normal(size=(N, 1)).astype(np.float32)
I64, BOOL = TensorProto.INT64, TensorProto.BOOL


def graph(*nodes: onnx.NodeProto, x: Array, y: list[Any] | None = None, dtype: int = TensorProto.FLOAT, **constants: Array) -> Any:
    """A float network from x to y."""
    return model(list(nodes), constants, {"x": ["N", *x.shape[1:]]}, {"y": y or ["N"]}, types={"y": dtype})


def k(count: int) -> Array:
    return np.array([count], np.int64)


CHAIN = {
    "scores": (graph(node("Neg", "x", "y"), x=SCORES, y=["N", 6]), SCORES),
    "softmax": (graph(node("Softmax", "x", "y", axis=1), x=SCORES, y=["N", 6]), SCORES),
    "argmax": (graph(node("ArgMax", "x", "y", axis=1, keepdims=0), x=SCORES, dtype=I64), SCORES),
    "argmax, kept axis": (graph(node("ArgMax", "x", "y", axis=-1, keepdims=1), x=SCORES, y=["N", 1], dtype=I64), SCORES),
    "argmax, cast": (graph(node("ArgMax", "x", "a", axis=1), node("Cast", "a", "y", to=1), x=SCORES, y=["N", 1]), SCORES),
    "top 1": (graph(node("TopK", "x k", "v y", axis=1), x=SCORES, y=["N", 1], dtype=I64, k=k(1)), SCORES),
    "top 3": (graph(node("TopK", "x k", "v y", axis=1), x=SCORES, y=["N", 3], dtype=I64, k=k(3)), SCORES),
    "sigmoid": (graph(node("Sigmoid", "x", "y"), x=ONE, y=["N", 1]), ONE),
    "hard sigmoid": (graph(node("HardSigmoid", "x", "y"), x=ONE, y=["N", 1]), ONE),
    "sigmoid written out": (
        graph(node("Neg", "x", "a"), node("Exp", "a", "b"), node("Add", "b one", "c"), node("Div", "one c", "y"), x=ONE, y=["N", 1],
              one=np.float32(1)), ONE,
    ),
    "sigmoid, rounded": (graph(node("Sigmoid", "x", "a"), node("Round", "a", "y"), x=ONE, y=["N", 1]), ONE),
    "comparison": (graph(node("Greater", "x zero", "y"), x=ONE, y=["N", 1], dtype=BOOL, zero=np.float32(0)), ONE),
    "map": (graph(node("Neg", "x", "y"), x=MAP, y=["N", 3, 4, 5]), MAP),
    "map, channels last": (graph(node("Transpose", "x", "y", perm=[0, 2, 3, 1]), x=MAP, y=["N", 4, 5, 3]), MAP),
    "map of classes": (graph(node("ArgMax", "x", "y", axis=1, keepdims=0), x=MAP, y=["N", 4, 5], dtype=I64), MAP),
    "sequence": (graph(node("Softmax", "x", "y", axis=-1), x=SEQUENCE, y=["N", 7, 4]), SEQUENCE),
    "sequence of classes": (graph(node("ArgMax", "x", "y", axis=2, keepdims=0), x=SEQUENCE, y=["N", 7], dtype=I64), SEQUENCE),
}  # fmt: skip


def task_for(kind: str, labels: Array | None = None, asked: Asked | None = None) -> Task:
    return recognise(load(CHAIN[kind][0]), labels, asked)


# ── recognition ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("scores", "classes"), ("softmax", "classes"), ("argmax", "labels"), ("argmax, kept axis", "labels"),
        ("argmax, cast", "labels"), ("top 1", "labels"), ("top 3", "labels:top=3"), ("sigmoid", "logit:threshold=0.5"),
        ("hard sigmoid", "logit:threshold=0.5"), ("sigmoid written out", "logit:threshold=0.5"), ("sigmoid, rounded", "labels"),
        ("comparison", "labels"), ("map of classes", "pixels"), ("sequence", "tokens"), ("sequence of classes", "tokens"),
    ],
)  # fmt: skip
def test_graphs_tell_the_task_without_labels(kind: str, expected: str) -> None:
    network = load(CHAIN[kind][0])
    found = recognise(network)
    assert found.text == expected
    assert recognise(network, None, Asked(found.text)) == found  # what the text says is what was recognised


@pytest.mark.parametrize(
    ("kind", "labels", "expected"),
    [
        ("scores", RNG.integers(0, 6, N), "classes"),
        ("scores", RNG.integers(0, 6, (N, 1)), "classes"),
        ("scores", RNG.normal(size=(N, 6)), "values"),
        ("map", RNG.integers(0, 3, (N, 4, 5)), "pixels"),
        ("map", RNG.integers(0, 3, (N, 1, 4, 5)), "pixels"),
        ("map, channels last", RNG.integers(0, 3, (N, 4, 5)), "pixels"),
        ("map", RNG.normal(size=(N, 3, 4, 5)), "values"),
        ("sequence", RNG.integers(0, 4, (N, 7)), "tokens"),
        ("sigmoid", RNG.normal(size=N), "values"),
    ],
)
def test_labels_tell_the_task(kind: str, labels: Array, expected: str) -> None:
    assert task_for(kind, labels).text == expected


@pytest.mark.parametrize("kind", ["map", "map, channels last"])
def test_a_map_without_labels_is_refused_with_its_shape(kind: str) -> None:
    with pytest.raises(UsageError, match="output") as error:
        task_for(kind)
    assert "[N, " in str(error.value)
    assert "pixels" in str(error.value)
    assert "values" in str(error.value)


def test_a_map_with_one_label_per_image_is_refused() -> None:
    with pytest.raises(InputError, match=r"\[N, 3, 4, 5\]"):
        task_for("map", RNG.integers(0, 3, N))


def two_outputs() -> onnx.ModelProto:
    nodes = [node("Neg", "x", "features"), node("MatMul", "x w", "scores")]
    return model(
        nodes, {"w": RNG.normal(size=(6, 3)).astype(np.float32)}, {"x": ["N", 6]}, {"features": ["N", 6], "scores": ["N", 3]}
    )


def test_of_several_outputs_the_only_one_that_fits_is_judged() -> None:
    network = load(two_outputs())
    with pytest.raises(UsageError, match=r"'features' .*'scores'"):
        recognise(network)
    with pytest.raises(UsageError, match="--output"):
        recognise(network, np.arange(N) % 3)  # the features could have these classes, too
    assert recognise(network, np.arange(N) % 6).output == "features"
    assert recognise(network, np.arange(N) % 3, Asked(output="scores")).output == "scores"
    with pytest.raises(UsageError, match="'scores'"):
        recognise(network, None, Asked(output="score"))


def test_the_scores_of_a_top_k_are_no_classes() -> None:
    types = {"places": I64}
    proto = model([node("TopK", "x k", "best places", axis=1)], {"k": k(2)}, {"x": ["N", 6]},
                  {"best": ["N", 2], "places": ["N", 2]}, types=types)  # fmt: skip
    assert recognise(load(proto)).output == "places"


@pytest.mark.parametrize("text", ["clases", "classes:top=0", "classes:top=x", "classes:axis=last", "logit:threshold=nan",
                                  "pixels:axis=middle", "values:score=map", "classes:top=2,top=3", ""])  # fmt: skip
def test_tasks_that_cannot_be_understood_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--task"):
        task_for("scores", None, Asked(text))


def test_probabilities_are_not_taken_for_logits() -> None:
    proto = graph(node("Mul", "x half", "a"), node("Add", "a half", "y"), x=ONE, y=["N", 1], half=np.float32(0.5))
    x = np.linspace(-1, 1, N, dtype=np.float32)[:, None]  # y in 0 … 1
    plan, labels = compile_plan(load(proto)), (x[:, 0] > 0).astype(int)
    with pytest.raises(UsageError, match=r"threshold=0\.5"):
        prepare_evaluation(plan, {"x": x}, labels)
    assert prepare_evaluation(plan, {"x": x}, labels, Asked("logit:threshold=0.5")).fault_free_accuracy == 1.0


# ── labels ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "labels", "words"),
    [
        ("scores", [-1], "0 … 5"),
        ("scores", [6], "0 … 5"),
        ("scores", [10**9], "6 classes"),
        ("scores", [1, 2, 3, 4, 5, 6], "counted from 1"),
        ("scores", [0.5], "0.5"),
        ("argmax", [6], "0 … 5"),
        ("argmax", [-3], "-3"),
        ("top 3", [6], "0 … 5"),
        ("sigmoid", [2], "0 … 1"),
        ("sigmoid", [-1, 1], "write 0 for -1"),
        ("comparison", [2], "0 … 1"),
    ],
)
def test_labels_outside_the_classes_are_refused(kind: str, labels: list[float], words: str) -> None:
    held = np.resize(np.array(labels), N)
    with pytest.raises(InputError, match=words):
        task_for(kind, held)


def test_labels_that_are_not_judged_need_a_word() -> None:
    labels = RNG.integers(0, 3, (N, 4, 5))
    labels[0, 0] = 255
    with pytest.raises(InputError, match="ignore=255"):
        task_for("map", labels)
    assert task_for("map", labels, Asked("pixels:ignore=255")).text == "pixels:ignore=255"


def test_one_hot_labels_are_named() -> None:
    with pytest.raises(InputError, match="argmax"):
        task_for("scores", np.eye(6, dtype=int)[RNG.integers(0, 6, N)])


# ── answers ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", CHAIN)
def test_answers_are_those_of_onnxruntime(kind: str) -> None:
    proto, x = CHAIN[kind]
    y = run(proto, {"x": x})[0]
    asked = Asked("pixels:axis=last" if "last" in kind else "pixels") if kind.startswith("map") and "classes" not in kind else None
    made = prepare_evaluation(compile_plan(load(proto)), {"x": x}, None, asked)
    flat = y.reshape(N, *(n for n in y.shape[1:] if n != 1))
    if made.task.name in ("labels",) or "of classes" in kind:
        expected: Array = flat.astype(np.int64)
    elif made.task.name == "logit":
        expected = flat > 0.5
    else:
        expected = flat.argmax(-1 if "last" in kind or kind == "sequence" else 1)
    np.testing.assert_array_equal(made.fault_free_answers, expected)
    np.testing.assert_allclose(infer(compile_plan(load(proto)), {"x": x})["y"].astype(float), y.astype(float), rtol=1e-5)


def test_a_score_that_is_nan_never_wins() -> None:
    task = ClassTask("y", ValueSpec("y", "float", (3,)), "scores", 0, 3)
    np.testing.assert_array_equal(
        task.answers(np.array([[np.nan, 1, 2], [np.nan, np.nan, np.nan], [2, 2, 1]], np.float32)), [2, 0, 0]
    )


def test_the_best_of_several_classes() -> None:
    task = ClassTask("y", ValueSpec("y", "float", (4,)), "scores", 0, 4, (), 2)
    scores = np.array([[1, 3, 3, 0], [-128, -128, 127, 5]], np.int8)
    np.testing.assert_array_equal(task.answers(scores), [[1, 2], [2, 3]])
    made = task.judge(task.answers(scores), np.array([2, 0]), np.array([[2, 1], [2, 0]]))
    assert (made.accuracy, made.changed) == (0.5, 0.5)


# ── metrics ─────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 5), st.booleans())
def test_metrics_of_a_map_are_counted_by_hand(seed: int, classes: int, ignored: bool) -> None:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 5)), 3, 2)
    labels, said, clean = (rng.integers(0, classes, shape) for _ in range(3))
    if ignored:
        labels[rng.random(shape) < 0.3] = 255
        labels[0, 0, 0] = 1
    task = PixelTask("y", ValueSpec("y", "float", (classes, 3, 2)), "scores", 0, classes, (3, 2), ignore=255 if ignored else None)
    made = task.judge(said, labels, clean)
    kept = labels != 255
    found = []
    for c in range(classes):
        both, either = ((said == c) & (labels == c))[kept].sum(), ((said == c) | (labels == c))[kept].sum()
        found += [both / either] if either else []
    assert made.metrics["mean_iou"] == pytest.approx(np.mean(found))
    assert made.accuracy == pytest.approx((said == labels)[kept].mean())
    assert made.changed == pytest.approx((said != clean).mean())
    weights = task.weights(labels)
    assert np.mean(task.share_right(said, labels) * weights) == pytest.approx(made.accuracy)
    assert np.mean(task.share_same(said, clean)) == pytest.approx(1 - made.changed)


def test_changes_of_values_are_relative_to_the_spread() -> None:
    task = ValueTask("y", ValueSpec("y", "float", (1,)))
    clean, faulty = np.array([0.0, 2.0, 4.0, 6.0]), np.array([0.0, 3.0, 4.0, np.nan])
    made = task.judge(faulty[:3], np.array([1.0, 3.0, 2.0]), clean[:3])
    assert made.accuracy is None
    assert (made.metrics["mae"], made.metrics["mse"]) == (1.0, pytest.approx(5 / 3))
    assert made.metrics["mean_change"] == pytest.approx(1 / 3 / clean[:3].std())
    assert made.changed == pytest.approx(1 / 3)
    assert np.isfinite(task.judge(faulty, None, clean).metrics["mean_change"])  # NaN counts as the largest float32


def test_class_accuracies_do_not_grow_with_the_largest_label() -> None:
    task = ClassTask("y", ValueSpec("y", "float", ()), "labels", None, None)
    labels = task.labels(np.array([0, 10**9, 3]), 3)
    made = task.judge(np.array([0, 10**9, 1]), labels, labels)
    assert made.accuracy == pytest.approx(2 / 3)
    assert made.class_accuracy == ()


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(list(CHAIN)),
    st.lists(st.integers(1, 7), max_size=3),
    st.sampled_from(["i8", "i4", "u1", "?", "f4", "f8"]),
    st.integers(-2, 300),
    st.integers(0, 2**31),
)
def test_any_labels_are_judged_or_refused_by_name(kind: str, shape: list[int], dtype: str, high: int, seed: int) -> None:
    labels = (np.random.default_rng(seed).random((N, *shape)) * high).astype(dtype)
    try:
        task = task_for(kind, labels)
    except WeakcellError:
        return
    assert len(task.labels(labels, N)) == N


def test_codes_are_judged_as_the_numbers_that_they_mean() -> None:
    """An output left in uint8: code 100 is zero, a step is 0.05."""
    x = np.linspace(-1, 1, N, dtype=np.float32)[:, None]
    scales = {"s": np.float32(0.05), "z": np.uint8(100)}
    proto = model([node("QuantizeLinear", "x s z", "y")], scales, {"x": ["N", 1]}, {"y": ["N", 1]}, types={"y": TensorProto.UINT8})
    plan = compile_plan(load(proto))
    codes = run(proto, {"x": x})[0]
    questions = prepare_evaluation(plan, {"x": x}, (x[:, 0] > 0.03).astype(int))
    assert questions.task.name == "logit"
    np.testing.assert_array_equal(questions.fault_free_answers, codes[:, 0] > 100)
    errors = np.abs((codes[:, 0].astype(float) - 100) * 0.05 - x[:, 0])
    assert prepare_evaluation(plan, {"x": x}, x[:, 0]).fault_free_judgement.metrics["mae"] == pytest.approx(errors.mean(), rel=1e-5)
